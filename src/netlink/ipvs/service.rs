//! Attributes of a virtual service (`IPVS_SVC_ATTR_*`).
//!
//! A service is identified by family, protocol, address and port, or by family and firewall mark.
//! Deleting one and listing its destinations need only these; adding and changing it also need
//! scheduler, flags, timeout and netmask, or the kernel answers `EINVAL`.

use std::net::IpAddr;

use netlink_packet_core::{DecodeError, DefaultNla, ErrorContext, NLA_F_NESTED, NLA_TYPE_MASK, Nla};

use super::stats::{Stats, Width};
use crate::netlink::nla::{array, number, put};

/// `AF_INET` of `linux/socket.h`, as [`ServiceAttribute::Family`] carries it.
pub const AF_INET: u16 = 2;
/// `AF_INET6` of `linux/socket.h`.
pub const AF_INET6: u16 = 10;

pub(super) const IPVS_SVC_ATTR_AF: u16 = 1;
pub(super) const IPVS_SVC_ATTR_PROTOCOL: u16 = 2;
pub(super) const IPVS_SVC_ATTR_ADDR: u16 = 3;
pub(super) const IPVS_SVC_ATTR_PORT: u16 = 4;
const IPVS_SVC_ATTR_FWMARK: u16 = 5;
const IPVS_SVC_ATTR_SCHED_NAME: u16 = 6;
const IPVS_SVC_ATTR_FLAGS: u16 = 7;
const IPVS_SVC_ATTR_TIMEOUT: u16 = 8;
const IPVS_SVC_ATTR_NETMASK: u16 = 9;
pub(super) const IPVS_SVC_ATTR_STATS: u16 = 10;
const IPVS_SVC_ATTR_PE_NAME: u16 = 11;
pub(super) const IPVS_SVC_ATTR_STATS64: u16 = 12;

/// `IPPROTO_TCP`, as [`ServiceAttribute::Protocol`] carries it.
pub const PROTOCOL_TCP: u16 = 6;
/// `IPPROTO_UDP`.
pub const PROTOCOL_UDP: u16 = 17;
/// `IPPROTO_SCTP`.
pub const PROTOCOL_SCTP: u16 = 132;

/// `IP_VS_SVC_F_PERSISTENT`: a client keeps its destination for the service's timeout.
pub const FLAG_PERSISTENT: u32 = 0x1;
/// `IP_VS_SVC_F_HASHED`: the kernel's own bookkeeping, set on every service.
pub const FLAG_HASHED: u32 = 0x2;
/// `IP_VS_SVC_F_ONEPACKET`: every UDP datagram is scheduled by itself.
pub const FLAG_ONE_PACKET: u32 = 0x4;

/// Longest name of a scheduler or persistence engine that the kernel takes, in bytes
/// (`IP_VS_SCHEDNAME_MAXLEN` less the final NUL).
pub const NAME_MAX: usize = 15;

/// Attribute of a virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAttribute {
    /// [`AF_INET`] or [`AF_INET6`].
    Family(u16),
    /// IP protocol number.
    Protocol(u16),
    /// Always 16 bytes; an IPv4 address is in the first four.
    Address([u8; 16]),
    Port(u16),
    FirewallMark(u32),
    /// At most [`NAME_MAX`] bytes and without NUL, which the codec adds.
    Scheduler(String),
    Flags(Flags),
    /// Seconds that a client stays with its destination, when the service is persistent. The
    /// kernel stores and returns any number for a service that is not.
    Timeout(u32),
    /// Granularity of persistence; see [`netmask`].
    Netmask([u8; 4]),
    Stats(Box<Stats>),
    /// Persistence engine, such as `sip`; the same limits as for the scheduler.
    PersistenceEngine(String),
    Stats64(Box<Stats>),
    Other(DefaultNla),
}

/// `struct ip_vs_flags`: the bits of `mask` are to be set as in `flags`, the rest is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    pub flags: u32,
    pub mask: u32,
}

/// Family number of `address`.
pub const fn family(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// `address` as [`ServiceAttribute::Address`] and [`super::DestinationAttribute::Address`] carry it.
pub fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Reverses [`address_bytes`]; `None` when `family` is neither IPv4 nor IPv6.
pub fn address(family: u16, bytes: [u8; 16]) -> Option<IpAddr> {
    let [a, b, c, d, ..] = bytes;
    match family {
        AF_INET => Some(IpAddr::from([a, b, c, d])),
        AF_INET6 => Some(IpAddr::from(bytes)),
        _ => None,
    }
}

/// The netmask of one address: an IPv4 mask in network byte order, but for IPv6 a prefix length in
/// host byte order (from 1 to 128, or the kernel refuses it).
pub const fn netmask(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(_) => [0xff; 4],
        IpAddr::V6(_) => 128_u32.to_ne_bytes(),
    }
}

impl Nla for ServiceAttribute {
    fn value_len(&self) -> usize {
        match self {
            Self::Family(_) | Self::Protocol(_) | Self::Port(_) => size_of::<u16>(),
            Self::FirewallMark(_) | Self::Timeout(_) | Self::Netmask(_) => size_of::<u32>(),
            Self::Address(address) => address.len(),
            Self::Scheduler(name) | Self::PersistenceEngine(name) => name.len() + 1,
            Self::Flags(_) => 2 * size_of::<u32>(),
            Self::Stats(stats) => stats.nested_len(Width::Mixed),
            Self::Stats64(stats) => stats.nested_len(Width::Wide),
            Self::Other(other) => other.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Family(_) => IPVS_SVC_ATTR_AF,
            Self::Protocol(_) => IPVS_SVC_ATTR_PROTOCOL,
            Self::Address(_) => IPVS_SVC_ATTR_ADDR,
            Self::Port(_) => IPVS_SVC_ATTR_PORT,
            Self::FirewallMark(_) => IPVS_SVC_ATTR_FWMARK,
            Self::Scheduler(_) => IPVS_SVC_ATTR_SCHED_NAME,
            Self::Flags(_) => IPVS_SVC_ATTR_FLAGS,
            Self::Timeout(_) => IPVS_SVC_ATTR_TIMEOUT,
            Self::Netmask(_) => IPVS_SVC_ATTR_NETMASK,
            Self::Stats(_) => IPVS_SVC_ATTR_STATS | NLA_F_NESTED,
            Self::PersistenceEngine(_) => IPVS_SVC_ATTR_PE_NAME,
            Self::Stats64(_) => IPVS_SVC_ATTR_STATS64 | NLA_F_NESTED,
            Self::Other(other) => other.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Family(value) | Self::Protocol(value) => put(buffer, &value.to_ne_bytes()),
            // The port alone is in network byte order.
            Self::Port(port) => put(buffer, &port.to_be_bytes()),
            Self::FirewallMark(value) | Self::Timeout(value) => put(buffer, &value.to_ne_bytes()),
            Self::Address(address) => put(buffer, address),
            Self::Netmask(mask) => put(buffer, mask),
            Self::Scheduler(name) | Self::PersistenceEngine(name) => {
                // The kernel wants the NUL behind the name.
                buffer.fill(0);
                put(buffer, name.as_bytes());
            }
            Self::Flags(Flags { flags, mask }) => {
                put(buffer, &flags.to_ne_bytes());
                put(buffer.get_mut(size_of::<u32>()..).unwrap_or_default(), &mask.to_ne_bytes());
            }
            Self::Stats(stats) => stats.emit_nested(buffer, Width::Mixed),
            Self::Stats64(stats) => stats.emit_nested(buffer, Width::Wide),
            Self::Other(other) => other.emit_value(buffer),
        }
    }
}

impl ServiceAttribute {
    pub(super) fn parse(kind: u16, value: &[u8]) -> Result<Self, DecodeError> {
        match kind & NLA_TYPE_MASK {
            IPVS_SVC_ATTR_AF => array(value).map(u16::from_ne_bytes).map(Self::Family),
            IPVS_SVC_ATTR_PROTOCOL => array(value).map(u16::from_ne_bytes).map(Self::Protocol),
            IPVS_SVC_ATTR_ADDR => array(value).map(Self::Address),
            IPVS_SVC_ATTR_PORT => array(value).map(u16::from_be_bytes).map(Self::Port),
            IPVS_SVC_ATTR_FWMARK => number(value).map(Self::FirewallMark),
            IPVS_SVC_ATTR_SCHED_NAME => parse_name(value).map(Self::Scheduler),
            IPVS_SVC_ATTR_FLAGS => Flags::parse(value).map(Self::Flags),
            IPVS_SVC_ATTR_TIMEOUT => number(value).map(Self::Timeout),
            IPVS_SVC_ATTR_NETMASK => array(value).map(Self::Netmask),
            IPVS_SVC_ATTR_STATS => Stats::parse(value, Width::Mixed).map(Self::Stats),
            IPVS_SVC_ATTR_PE_NAME => parse_name(value).map(Self::PersistenceEngine),
            IPVS_SVC_ATTR_STATS64 => Stats::parse(value, Width::Wide).map(Self::Stats64),
            // Later kernels have more attributes, which must not make a service unreadable.
            _ => Ok(Self::Other(DefaultNla::new(kind, value.to_vec()))),
        }
        .with_context(|| format!("invalid IPVS_SVC_ATTR {}", kind & NLA_TYPE_MASK))
    }
}

impl Flags {
    fn parse(value: &[u8]) -> Result<Self, DecodeError> {
        let [f0, f1, f2, f3, m0, m1, m2, m3] = array(value)?;
        Ok(Self { flags: u32::from_ne_bytes([f0, f1, f2, f3]), mask: u32::from_ne_bytes([m0, m1, m2, m3]) })
    }
}

/// A name up to its NUL.
fn parse_name(value: &[u8]) -> Result<String, DecodeError> {
    let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8(name.to_vec())?)
}
