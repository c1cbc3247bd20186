//! A complete answer, compressed as it came.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;

use reqwest::Response;
use reqwest::header::CONTENT_ENCODING;

use super::error::cause;

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
        let gzip = response.headers().get(CONTENT_ENCODING).is_some_and(|value| value == "gzip");
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

fn too_long() -> String {
    format!(
        "the document has more than {MAX_DOCUMENT} bytes; is this the answer of a Mesos or Marathon server?"
    )
}
