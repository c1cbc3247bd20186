//! A complete answer, compressed as it came.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;

use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderValue};

use super::error::cause;
use crate::cluster::shortened;

/// Longest document in bytes; 100,000 tasks make about 150 MB.
const MAX_DOCUMENT: usize = 1 << 30;

/// A complete answer, as it came over the wire.
#[derive(Debug)]
pub struct HttpDocument {
    encoded: Vec<u8>,
    gzip: bool,
}

impl HttpDocument {
    /// Reads the body of an answer.
    pub async fn read(response: &mut Response) -> Result<Self, String> {
        let gzip = is_gzip(response.headers().get(CONTENT_ENCODING))?;
        let mut encoded = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| cause(&error))? {
            // A server that never stops must not fill the memory.
            if encoded.len() + chunk.len() > MAX_DOCUMENT {
                return Err(too_long());
            }
            encoded.extend_from_slice(&chunk);
        }
        Ok(Self { encoded, gzip })
    }

    /// Returns the number of bytes on the wire.
    pub fn wire_size(&self) -> usize {
        self.encoded.len()
    }

    /// Returns a number that is equal for equal documents.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.encoded.hash(&mut hasher);
        hasher.finish()
    }

    /// Returns the decompressed bytes. Takes long for long documents, so that it does not belong on the
    /// async threads.
    pub fn decode(self) -> std::io::Result<Vec<u8>> {
        if !self.gzip {
            return Ok(self.encoded);
        }
        let mut decoded = Vec::new();
        // A few kilobytes can be made to decompress into terabytes.
        let most = MAX_DOCUMENT as u64;
        let mut reader = flate2::read::MultiGzDecoder::new(self.encoded.as_slice()).take(most + 1);
        reader.read_to_end(&mut decoded)?;
        if decoded.len() > MAX_DOCUMENT {
            return Err(std::io::Error::other(too_long()));
        }
        Ok(decoded)
    }
}

/// Returns true for gzip, which has two names (RFC 9110, 8.4.1.3).
///
/// The header decides alone: an answer that says gzip and is not is refused when it is decompressed.
fn is_gzip(encoding: Option<&HeaderValue>) -> Result<bool, String> {
    let Some(encoding) = encoding else { return Ok(false) };
    let text = encoding.to_str().unwrap_or_default().trim();
    let is = |name: &&str| text.eq_ignore_ascii_case(name);
    match (["gzip", "x-gzip"].iter().any(|name| is(name)), is(&"identity") || text.is_empty()) {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => Err(format!(
            "the answer has the encoding {:?}; only gzip was asked for, does a proxy change answers?",
            shortened(text.to_owned())
        )),
    }
}

fn too_long() -> String {
    format!(
        "the document has more than {MAX_DOCUMENT} bytes; is this the answer of a Mesos or Marathon server?"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_has_two_names_and_any_other_encoding_is_refused() {
        let read = |text: &str| is_gzip(Some(&HeaderValue::from_str(text).unwrap()));
        for text in ["gzip", "x-gzip", "GZIP", "X-Gzip"] {
            assert_eq!(read(text), Ok(true), "{text}");
        }
        assert_eq!((is_gzip(None), read("identity"), read("")), (Ok(false), Ok(false), Ok(false)));
        for text in ["br", "deflate", "gzip, gzip", "gzip, identity"] {
            assert!(read(text).unwrap_err().contains(text), "{text}");
        }
        assert!(read(&"x".repeat(10_000)).unwrap_err().len() < 300);
    }
}
