//! Fields of rows and the values that they stand for.

use std::net::IpAddr;

use jiff::Timestamp;

use super::messages::TimeRow;
use super::table::Octets;
use crate::cluster::{Few, Protocol};

/// First octet of a key: what its row is. Readers keep rows of other kinds, and make nothing of them.
pub mod kind {
    pub const MASTER: u8 = 1;
    pub const FRAMEWORK: u8 = 2;
    pub const AGENT: u8 = 3;
    pub const ADDRESS: u8 = 4;
    pub const VIP_TASK: u8 = 5;
    pub const NAME: u8 = 6;
}

/// Returns a key: its kind, and parts that follow.
pub fn key(kind: u8, parts: [&[u8]; 2]) -> Octets {
    [&[kind], parts[0], parts[1]].concat().into()
}

/// Reads a number at the beginning of a key, and what follows it.
pub fn number(key: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = key.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

/// Returns an address as rows have it: 4 or 16 octets.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// Reads an address; anything but 4 and 16 octets is none.
pub fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Returns the number of a protocol.
pub fn protocol_number(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
    }
}

/// Reads the number of a protocol.
pub fn protocol(number: u32) -> Option<Protocol> {
    match number {
        1 => Some(Protocol::Tcp),
        2 => Some(Protocol::Udp),
        _ => None,
    }
}

/// Reads a port; a number that none can have is none.
pub fn port(number: Option<u32>) -> Option<u16> {
    number.and_then(|number| u16::try_from(number).ok())
}

/// Returns ranges of ports as pairs in a row.
pub fn pairs(ranges: &[(u16, u16)]) -> Vec<u32> {
    ranges.iter().flat_map(|(first, last)| [u32::from(*first), u32::from(*last)]).collect()
}

/// Reads ranges of ports; those that none can have are passed over.
pub fn ranges(pairs: &[u32]) -> Few<(u16, u16)> {
    let range = |pair: &[u32]| match *pair {
        [first, last] => Some((u16::try_from(first).ok()?, u16::try_from(last).ok()?)),
        _ => None,
    };
    pairs.chunks(2).filter_map(range).collect()
}

/// Returns a time as rows have it.
pub fn time_row(time: Timestamp) -> TimeRow {
    TimeRow { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

/// Reads a time; one that no clock can show is none.
pub fn time(row: TimeRow) -> Option<Timestamp> {
    Timestamp::new(row.seconds, row.nanos).ok()
}
