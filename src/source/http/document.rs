//! A complete answer, compressed as it came, and decompressed in windows while it is read.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;

use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderValue};

use super::error::cause;
use crate::cluster::shortened;
use crate::source::bounded::{Bounded, MAX_DOCUMENT, too_long};

/// Longest document that any compressed answer may become, and how many times its size on the wire one
/// may become beyond that. State documents shrink to a fifteenth; a bomb shrinks to a thousandth.
const SMALL_DOCUMENT: usize = 64 << 20;
const MAX_RATIO: usize = 100;

/// Octets of a block. Answers come in pieces of any length, each of which would take a place of its own.
const BLOCK: usize = 64 << 10;

/// A complete answer, as it came over the wire.
#[derive(Debug)]
pub struct HttpDocument {
    encoded: Blocks,
    size: usize,
    gzip: bool,
}

/// Octets in blocks, so that a long answer is never copied as a whole, and goes block by block while it
/// is read.
#[derive(Debug, Default)]
struct Blocks(VecDeque<Vec<u8>>);

impl Blocks {
    fn push(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let block = match self.0.back_mut() {
                Some(block) if block.len() < BLOCK => block,
                _ => {
                    self.0.push_back(Vec::with_capacity(BLOCK));
                    continue;
                }
            };
            let (taken, rest) = piece.split_at(piece.len().min(BLOCK - block.len()));
            block.extend_from_slice(taken);
            piece = rest;
        }
    }
}

/// Blocks that are being read, with the place in the first one.
struct BlockReader(Blocks, usize);

impl Read for BlockReader {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        while let Some(block) = self.0.0.front() {
            let rest = block.get(self.1..).unwrap_or_default();
            if !rest.is_empty() {
                let length = rest.len().min(room.len());
                if let (Some(from), Some(to)) = (rest.get(..length), room.get_mut(..length)) {
                    to.copy_from_slice(from);
                }
                self.1 += length;
                return Ok(length);
            }
            self.0.0.pop_front();
            self.1 = 0;
        }
        Ok(0)
    }
}

/// A decompressor whose errors say what they are about.
struct Gunzip(flate2::read::MultiGzDecoder<BlockReader>);

impl Read for Gunzip {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let named = |error| std::io::Error::other(format!("cannot decompress the answer: {error}"));
        self.0.read(room).map_err(named)
    }
}

impl HttpDocument {
    /// Reads the body of an answer.
    pub async fn read(response: &mut Response) -> Result<Self, String> {
        let gzip = is_gzip(response.headers().get(CONTENT_ENCODING))?;
        let mut document = Self { encoded: Blocks::default(), size: 0, gzip };
        while let Some(chunk) = response.chunk().await.map_err(|error| cause(&error))? {
            document.size += chunk.len();
            // A server that never stops must not fill the memory.
            if document.size > MAX_DOCUMENT {
                return Err(too_long());
            }
            document.encoded.push(&chunk);
        }
        Ok(document)
    }

    /// Returns the number of bytes on the wire.
    pub fn wire_size(&self) -> usize {
        self.size
    }

    /// Returns a number that is equal for equal documents. Keyed, since tenants write most of a document.
    pub fn hash(&self, key: &RandomState) -> u64 {
        let mut hasher = key.build_hasher();
        self.encoded.0.iter().for_each(|block| hasher.write(block));
        hasher.finish()
    }

    /// Returns a reader of the decompressed text, which ends with an error where the text is longer than any
    /// document. Takes long for long documents, so that reading does not belong on the async threads.
    pub fn reader(self) -> Box<dyn Read + Send> {
        let Self { encoded, size, gzip } = self;
        let blocks = BlockReader(encoded, 0);
        if !gzip {
            return Box::new(blocks);
        }
        // A few kilobytes can be made to decompress into terabytes.
        let most = most_inflated(size);
        let error = match most < MAX_DOCUMENT {
            true => format!(
                "{size} bytes become more than {most} bytes, more than {MAX_RATIO} times as many; is this the \
                 answer of a Mesos or Marathon server?"
            ),
            false => too_long(),
        };
        Box::new(Bounded::new(Gunzip(flate2::read::MultiGzDecoder::new(blocks)), most, error))
    }

    /// Returns all of the text. For answers that are short, such as which master leads.
    pub fn decode(self) -> std::io::Result<Vec<u8>> {
        let mut decoded = Vec::new();
        self.reader().read_to_end(&mut decoded)?;
        Ok(decoded)
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
        let size = encoded.len();
        let mut document = HttpDocument { encoded: Blocks::default(), size, gzip: true };
        document.encoded.push(&encoded);
        // What was read is dropped at once.
        let error = std::io::copy(&mut document.reader(), &mut std::io::sink()).unwrap_err().to_string();
        assert!(error.contains("100 times"), "{error}");
        // 1 MB on the wire is 100 MB at most, and nothing is more than 1 GiB.
        assert!(most_inflated(1_000_000) <= 100_000_000);
        assert_eq!((most_inflated(0), most_inflated(usize::MAX)), (SMALL_DOCUMENT, MAX_DOCUMENT));
    }

    #[test]
    fn pieces_of_any_length_are_joined_and_equal_documents_hash_alike() {
        let text: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let document = |piece: usize| {
            let mut document = HttpDocument { encoded: Blocks::default(), size: text.len(), gzip: false };
            text.chunks(piece).for_each(|piece| document.encoded.push(piece));
            document
        };
        let key = RandomState::new();
        let hash = document(1).hash(&key);
        for piece in [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, text.len()] {
            assert_eq!(document(piece).hash(&key), hash, "{piece}");
            assert!(document(piece).encoded.0.len() <= text.len() / BLOCK + 1, "{piece}");
            assert_eq!(document(piece).decode().unwrap(), text, "{piece}");
        }
        let mut other = document(7);
        other.encoded.push(b"x");
        assert_ne!(other.hash(&key), hash);
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
