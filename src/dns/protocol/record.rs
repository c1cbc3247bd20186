//! The data of records, and names on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wire::kind;
use crate::cluster::dns_label::{MAX_LABEL, MAX_NAME};

/// Data of one record. Names in it have neither compression nor a root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RData {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    /// A service; all have one priority and weight, so that clients choose evenly (RFC 2782).
    Srv {
        port: u16,
        /// Name of the host, relative to the zone's origin.
        target: Box<[u8]>,
    },
    /// An absolute name.
    Ptr(Box<[u8]>),
}

impl RData {
    /// The record type on the wire.
    pub fn kind(&self) -> u16 {
        match self {
            Self::A(_) => kind::A,
            Self::Aaaa(_) => kind::AAAA,
            Self::Srv { .. } => kind::SRV,
            Self::Ptr(_) => kind::PTR,
        }
    }
}

/// The records of a type among sorted ones, in which those of a type are neighbours.
pub fn of_kind(records: &[RData], wanted: u16) -> &[RData] {
    let order = |kind: u16| [kind::A, kind::AAAA, kind::SRV, kind::PTR].iter().position(|own| *own == kind);
    let Some(wanted) = order(wanted) else { return &[] };
    let place = |data: &RData| order(data.kind()).unwrap_or_default();
    let first = records.partition_point(|data| place(data) < wanted);
    let end = records.partition_point(|data| place(data) <= wanted);
    records.get(first..end).unwrap_or_default()
}

impl From<IpAddr> for RData {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::A(address),
            IpAddr::V6(address) => Self::Aaaa(address),
        }
    }
}

/// Reasons why a name has no place in a zone; they follow the name in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("has an empty label")]
    EmptyLabel,
    #[error("has a label longer than {MAX_LABEL} octets")]
    LabelTooLong,
    #[error("is longer than {MAX_NAME} octets together with the origin")]
    TooLong,
    #[error("is reserved for the name server of the zone")]
    Reserved,
}

/// Encodes a name such as `web.marathon` for the wire, in lower case and without the root: no escapes, no
/// IDNA.
///
/// # Errors
/// When a label is empty or too long, or the name is too long.
pub fn encode(name: &str) -> Result<Box<[u8]>, NameError> {
    let mut octets = Vec::with_capacity(name.len() + 1);
    for label in name.split('.') {
        match label.len() {
            0 => return Err(NameError::EmptyLabel),
            length if length > MAX_LABEL => return Err(NameError::LabelTooLong),
            // At most 63, so that nothing is cut off.
            length => octets.push(length as u8),
        }
        octets.extend(label.bytes().map(|octet| octet.to_ascii_lowercase()));
    }
    if octets.len() + 1 > MAX_NAME {
        return Err(NameError::TooLong);
    }
    Ok(octets.into())
}

/// Encodes an origin such as `l4lb.thisdcos.directory`, with or without the dot at the end.
///
/// # Errors
/// As [`encode`].
pub fn encode_origin(origin: &str) -> Result<Box<[u8]>, NameError> {
    encode(origin.strip_suffix('.').unwrap_or(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(&*encode("Web.m").unwrap(), b"\x03web\x01m");
        assert_eq!(encode_origin("mesos."), encode("mesos"));
        for (name, reason) in [
            ("", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            ("a.", NameError::EmptyLabel),
            (&"a".repeat(64), NameError::LabelTooLong),
            (&["a"; 128].join("."), NameError::TooLong),
        ] {
            assert_eq!(encode(name), Err(reason), "{name}");
        }
        assert!(encode(&["a"; 127].join(".")).is_ok());
    }
}
