//! A complete answer, compressed as it came.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;

use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderValue};

use super::error::cause;
use crate::cluster::shortened;

/// Longest document in bytes; 100,000 tasks make about 150 MB.
const MAX_DOCUMENT: usize = 1 << 30;

/// Longest document that any compressed answer may become, and how many times its size on the wire one
/// may become beyond that. State documents shrink to a fifteenth; a bomb shrinks to a thousandth.
const SMALL_DOCUMENT: usize = 64 << 20;
const MAX_RATIO: usize = 100;

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
        let most = most_inflated(self.encoded.len());
        let reader = flate2::read::MultiGzDecoder::new(self.encoded.as_slice());
        reader.take(most as u64 + 1).read_to_end(&mut decoded)?;
        match decoded.len() > most {
            true if most < MAX_DOCUMENT => Err(std::io::Error::other(format!(
                "{} bytes become more than {most} bytes, more than {MAX_RATIO} times as many; is this the answer \
                 of a Mesos or Marathon server?",
                self.encoded.len()
            ))),
            true => Err(std::io::Error::other(too_long())),
            false => Ok(decoded),
        }
    }
}

/// Returns the most bytes that an answer of this size on the wire may become.
fn most_inflated(encoded: usize) -> usize {
    encoded.saturating_mul(MAX_RATIO).clamp(SMALL_DOCUMENT, MAX_DOCUMENT)
}

/// Returns true for gzip, which has two names (RFC 9110, 8.4.1.3).
///
/// The header decides alone: an answer that says gzip and is not is refused when it is decompressed.
fn is_gzip(encoding: Option<&HeaderValue>) -> Result<bool, String> {
    let Some(encoding) = encoding else { return Ok(false) };
    let text = encoding.to_str().unwrap_or_default().trim();
    match text.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => Ok(true),
        "" | "identity" => Ok(false),
        _ => Err(format!(
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
    use std::io::Write;

    use super::*;

    #[test]
    fn a_bomb_is_refused_before_it_takes_the_memory() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let zeros = vec![b' '; 1 << 20];
        for _ in 0..=SMALL_DOCUMENT >> 20 {
            encoder.write_all(&zeros).unwrap();
        }
        let encoded = encoder.finish().unwrap();
        assert!(encoded.len() < SMALL_DOCUMENT / MAX_RATIO);
        let error = HttpDocument { encoded, gzip: true }.decode().unwrap_err().to_string();
        assert!(error.contains("100 times"), "{error}");
        // 1 MB on the wire is 100 MB at most, and nothing is more than 1 GiB.
        assert!(most_inflated(1_000_000) <= 100_000_000);
        assert_eq!((most_inflated(0), most_inflated(usize::MAX)), (SMALL_DOCUMENT, MAX_DOCUMENT));
    }

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
