//! The 16 octets before everything that is stored, by which damage is recognised.
//!
//! | octets | |
//! |---|---|
//! | 0-3 | `L4LB` |
//! | 4 | format |
//! | 5 | kind |
//! | 6 | 0 body as it is, 1 body deflated (RFC 1951) |
//! | 7 | 0 |
//! | 8-11 | length of the body when inflated, big-endian |
//! | 12-15 | CRC-32 of octets 0-11 and of the body as stored |

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use prost::Message;

/// Format that is written, and the only one that is read.
pub const FORMAT: u8 = 1;

/// Octets before the body.
pub const HEADER: usize = 16;

/// Shortest body that is worth deflating.
const WORTH_DEFLATING: usize = 512;

const MAGIC: &[u8; 4] = b"L4LB";

/// Kind of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredKind {
    Head = 1,
    Frame = 2,
    Manifest = 3,
    Chunk = 4,
    /// Beginning of a follower's file.
    Kept = 5,
}

impl StoredKind {
    /// Returns the size that a body may have, so that no reader's memory is filled by a few octets.
    pub const fn limit(self) -> usize {
        match self {
            Self::Head => 64 << 10,
            Self::Frame => 1 << 20,
            Self::Manifest => 1 << 20,
            Self::Chunk => 2 << 20,
            Self::Kept => 4 << 10,
        }
    }
}

/// Reason why stored octets are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "it is shorter than {HEADER} octets or begins with other ones than L4LB: something else wrote it"
    )]
    Foreign,
    #[error("it has format {0}, this l4lbd reads {FORMAT}: upgrade it")]
    Format(u8),
    #[error("it is of kind {found} where {wanted:?} belongs: something else wrote it")]
    Kind { found: u8, wanted: StoredKind },
    #[error("its checksum does not fit: it is damaged")]
    Checksum,
    #[error("its content has {0} octets, more than are read")]
    Large(u32),
    #[error("its content does not have the length that it gives: it is damaged")]
    Length,
    #[error("its content makes no sense: it is damaged, or a faulty version wrote it")]
    Content,
}

/// Returns a message as it is stored.
pub fn seal(kind: StoredKind, message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    // Frames within a head are deflated already.
    let deflated = match kind {
        StoredKind::Head => None,
        _ if body.len() <= WORTH_DEFLATING => None,
        _ => deflate(&body).filter(|deflated| deflated.len() < body.len()),
    };
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut sealed = Vec::with_capacity(HEADER + body.len());
    sealed.extend_from_slice(MAGIC);
    sealed.extend([FORMAT, kind as u8, u8::from(deflated.is_some()), 0]);
    sealed.extend(length.to_be_bytes());
    let body = deflated.as_ref().unwrap_or(&body);
    let checksum = checksum(&sealed, body);
    sealed.extend(checksum.to_be_bytes());
    sealed.extend_from_slice(body);
    sealed
}

/// Reads a stored message.
///
/// # Errors
/// When it is not one of this kind and format, or damaged.
pub fn open<M: Message + Default>(kind: StoredKind, sealed: &[u8]) -> Result<M, Refused> {
    let (header, body) = sealed.split_first_chunk::<HEADER>().ok_or(Refused::Foreign)?;
    let [m0, m1, m2, m3, format, found, deflated, zero, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    if [m0, m1, m2, m3] != *MAGIC {
        return Err(Refused::Foreign);
    }
    // Before the checksum, which another format may compute otherwise.
    if format != FORMAT {
        return Err(Refused::Format(format));
    }
    if u32::from_be_bytes([c0, c1, c2, c3]) != checksum(header.get(..12).unwrap_or_default(), body) {
        return Err(Refused::Checksum);
    }
    // Something whole in the wrong place, which no checksum shows.
    if found != kind as u8 {
        return Err(Refused::Kind { found, wanted: kind });
    }
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    // Before anything is inflated: a few octets may stand for gigabytes of zeros.
    let wanted = usize::try_from(length).ok().filter(|length| *length <= kind.limit());
    let wanted = wanted.ok_or(Refused::Large(length))?;
    let content = match (deflated, zero) {
        (0, 0) if body.len() == wanted => M::decode(body),
        (1, 0) => M::decode(inflate(body, wanted).ok_or(Refused::Length)?.as_slice()),
        _ => return Err(Refused::Length),
    };
    content.map_err(|_| Refused::Content)
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(header);
    checksum.update(body);
    checksum.finalize()
}

fn deflate(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

/// Inflates a body of exactly this length; reads no further than one octet beyond it.
fn inflate(body: &[u8], length: usize) -> Option<Vec<u8>> {
    let limit = u64::try_from(length).ok()?.checked_add(1)?;
    let mut inflated = Vec::new();
    DeflateDecoder::new(body).take(limit).read_to_end(&mut inflated).ok()?;
    (inflated.len() == length).then_some(inflated)
}
