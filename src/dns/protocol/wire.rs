//! Queries (RFC 1035 section 4), read from the wire without copying or allocating.
//!
//! Pure, and total: any octets are a query, an error to be answered, or nothing. Which names exist is left
//! to [`crate::dns::zones::catalog`], the reply to [`super::message`].

use crate::cluster::dns_label::{MAX_LABEL, MAX_NAME};

/// Octets of a header.
pub const HEADER: usize = 12;

/// Record types that are served or have a meaning of their own in a question.
pub mod kind {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// Class IN.
pub const IN: u16 = 1;

/// The fixed part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    pub id: u16,
    flags: u16,
    questions: u16,
    /// Records of the three sections after the question.
    records: u32,
}

/// The OPT record of a client (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    pub version: u8,
    /// Largest UDP payload that the client takes, in octets.
    pub payload: u16,
    /// The DO bit (RFC 3225).
    pub dnssec_ok: bool,
}

/// A message with one question.
#[derive(Debug)]
pub struct Query<'p> {
    /// The question section as it came, to be repeated in the reply.
    pub question: &'p [u8],
    pub name: QueryName,
    pub kind: u16,
    pub class: u16,
    pub edns: Option<Edns>,
}

/// The name of a question, in lower case.
#[derive(Debug)]
pub struct QueryName {
    octets: [u8; MAX_NAME],
    /// Octets in use, without the root.
    length: usize,
    /// Offset of each label.
    starts: [u8; MAX_NAME / 2 + 1],
    labels: usize,
}

impl MessageHeader {
    /// Reads a header; `None` if there are too few octets for one.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let mut reader = WireReader { octets: packet };
        let (id, flags) = (reader.u16()?, reader.u16()?);
        let questions = reader.u16()?;
        let records = u32::from(reader.u16()?) + u32::from(reader.u16()?) + u32::from(reader.u16()?);
        Some(Self { id, flags, questions, records })
    }

    pub fn is_response(self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// The kind of operation; 0 is a query.
    pub fn op_code(self) -> u16 {
        self.flags >> 11 & 0xf
    }

    pub fn recursion_desired(self) -> bool {
        self.flags & 0x0100 != 0
    }

    /// The bits of a reply that repeat those of the query: operation, RD and CD.
    pub fn repeated(self) -> u16 {
        self.flags & 0x7910
    }
}

impl<'p> Query<'p> {
    /// Reads the message that `header` starts; `None` if it is not exactly one well-formed question and
    /// well-formed records, of which at most one is OPT. The data of other records is not looked into.
    pub fn read(header: MessageHeader, packet: &'p [u8]) -> Option<Self> {
        if header.questions != 1 {
            return None;
        }
        // What follows the last record is ignored, as by other servers.
        let body = packet.get(HEADER..)?;
        let mut reader = WireReader { octets: body };
        let name = QueryName::read(&mut reader)?;
        let (kind, class) = (reader.u16()?, reader.u16()?);
        let question = body.get(..body.len() - reader.octets.len())?;
        let mut edns = None;
        for _ in 0..header.records {
            // Two OPT records are an error (RFC 6891 section 6.1.1).
            if let Some(found) = reader.record()?
                && edns.replace(found).is_some()
            {
                return None;
            }
        }
        Some(Self { question, name, kind, class, edns })
    }
}

impl QueryName {
    /// Reads a name without pointers: a question comes first in a message, so that there is nothing that its
    /// name could point back to.
    fn read(reader: &mut WireReader<'_>) -> Option<Self> {
        let mut name = Self { octets: [0; MAX_NAME], length: 0, starts: [0; MAX_NAME / 2 + 1], labels: 0 };
        loop {
            let length = usize::from(reader.u8()?);
            if length == 0 {
                return Some(name);
            }
            // With the label's own length octet, and the root that has to follow.
            if length > MAX_LABEL || name.length + length + 2 > MAX_NAME {
                return None;
            }
            let label = reader.take(length)?;
            *name.starts.get_mut(name.labels)? = u8::try_from(name.length).ok()?;
            name.labels += 1;
            let room = name.octets.get_mut(name.length..=name.length + length)?;
            let (first, rest) = room.split_first_mut()?;
            *first = u8::try_from(length).ok()?;
            // Case plays no part in a look-up (RFC 4343), and the reply repeats the question as it came.
            for (to, from) in rest.iter_mut().zip(label) {
                *to = from.to_ascii_lowercase();
            }
            name.length += length + 1;
        }
    }

    /// The name without its root.
    pub fn octets(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    pub fn labels(&self) -> usize {
        self.labels
    }

    /// True if the name is `origin` or below it.
    pub fn is_in(&self, origin: &[u8]) -> bool {
        self.split_at_end(labels(origin).count()).1 == origin
    }

    /// Splits off the last `labels` labels; returns what is before them, and them.
    pub fn split_at_end(&self, labels: usize) -> (&[u8], &[u8]) {
        let start = match self.labels.checked_sub(labels) {
            Some(first) if labels > 0 => self.starts.get(first).map_or(0, |start| usize::from(*start)),
            _ => self.length,
        };
        self.octets().split_at_checked(start).unwrap_or_default()
    }
}

/// The labels of a name without its root.
pub fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first()?;
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        Some(label)
    })
}

/// The octets that are still to be read.
struct WireReader<'p> {
    octets: &'p [u8],
}

impl<'p> WireReader<'p> {
    fn take(&mut self, count: usize) -> Option<&'p [u8]> {
        let (taken, rest) = self.octets.split_at_checked(count)?;
        self.octets = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.octets.split_first()?;
        self.octets = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        let (octets, rest) = self.octets.split_first_chunk()?;
        self.octets = rest;
        Some(u16::from_be_bytes(*octets))
    }

    /// Passes a record over, and returns its contents if it is OPT; `None` if it is malformed.
    fn record(&mut self) -> Option<Option<Edns>> {
        let mut is_root = true;
        loop {
            match usize::from(self.u8()?) {
                0 => break,
                length if length <= MAX_LABEL => self.take(length).map(drop)?,
                // A pointer ends a name (RFC 1035 section 4.1.4). The name itself is of no interest.
                length if length >= 0xc0 => {
                    self.u8()?;
                    is_root = false;
                    break;
                }
                _ => return None,
            }
            is_root = false;
        }
        let (kind, class) = (self.u16()?, self.u16()?);
        // In OPT the class and the time to live have other meanings (RFC 6891 section 6.1.3).
        let (_, version, flags) = (self.u8()?, self.u8()?, self.u16()?);
        let length = self.u16()?;
        self.take(usize::from(length))?;
        Some(match kind {
            kind::OPT if !is_root => return None,
            kind::OPT => Some(Edns { version, payload: class, dnssec_ok: flags & 0x8000 != 0 }),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
