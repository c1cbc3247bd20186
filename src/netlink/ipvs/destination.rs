//! Attributes of a destination, also called a real server (`IPVS_DEST_ATTR_*`).
//!
//! A destination is identified within its service by family, address and port.

use netlink_packet_core::{DecodeError, DefaultNla, ErrorContext, NLA_F_NESTED, NLA_TYPE_MASK, Nla};

use super::stats::{Stats, Width};
use crate::netlink::nla::{array, number, put};

const IPVS_DEST_ATTR_ADDR: u16 = 1;
const IPVS_DEST_ATTR_PORT: u16 = 2;
const IPVS_DEST_ATTR_FWD_METHOD: u16 = 3;
const IPVS_DEST_ATTR_WEIGHT: u16 = 4;
const IPVS_DEST_ATTR_U_THRESH: u16 = 5;
const IPVS_DEST_ATTR_L_THRESH: u16 = 6;
const IPVS_DEST_ATTR_ACTIVE_CONNS: u16 = 7;
const IPVS_DEST_ATTR_INACT_CONNS: u16 = 8;
const IPVS_DEST_ATTR_PERSIST_CONNS: u16 = 9;
const IPVS_DEST_ATTR_STATS: u16 = 10;
const IPVS_DEST_ATTR_ADDR_FAMILY: u16 = 11;
const IPVS_DEST_ATTR_STATS64: u16 = 12;
const IPVS_DEST_ATTR_TUN_TYPE: u16 = 13;
const IPVS_DEST_ATTR_TUN_PORT: u16 = 14;
const IPVS_DEST_ATTR_TUN_FLAGS: u16 = 15;

/// `IP_VS_CONN_F_MASQ`: network address translation.
pub const FORWARD_MASQUERADE: u32 = 0;
/// `IP_VS_CONN_F_LOCALNODE`: the node itself.
pub const FORWARD_LOCAL: u32 = 1;
/// `IP_VS_CONN_F_TUNNEL`: encapsulation.
pub const FORWARD_TUNNEL: u32 = 2;
/// `IP_VS_CONN_F_DROUTE`: direct routing.
pub const FORWARD_ROUTE: u32 = 3;

/// Attribute of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationAttribute {
    /// Always 16 bytes; an IPv4 address is in the first four.
    Address([u8; 16]),
    Port(u16),
    /// One of [`FORWARD_MASQUERADE`], [`FORWARD_LOCAL`], [`FORWARD_TUNNEL`] and [`FORWARD_ROUTE`].
    ForwardMethod(u32),
    /// Share of new connections; 0 takes none. The kernel refuses more than `i32::MAX`.
    Weight(u32),
    /// Connections above which the destination takes no more; 0 is no limit.
    UpperThreshold(u32),
    /// Connections below which an overloaded destination is used again.
    LowerThreshold(u32),
    ActiveConnections(u32),
    InactiveConnections(u32),
    PersistentConnections(u32),
    Stats(Box<Stats>),
    /// [`super::AF_INET`] or [`super::AF_INET6`]; absent before Linux 3.18, where it is the
    /// service's.
    Family(u16),
    Stats64(Box<Stats>),
    /// `IP_VS_CONN_F_TUNNEL_TYPE_*`: 0 IPIP, 1 GUE, 2 GRE.
    TunnelType(u8),
    /// UDP port of a GUE tunnel.
    TunnelPort(u16),
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`: checksums of the outer header.
    TunnelFlags(u16),
    Other(DefaultNla),
}

impl Nla for DestinationAttribute {
    fn value_len(&self) -> usize {
        match self {
            Self::Address(address) => address.len(),
            Self::TunnelType(_) => size_of::<u8>(),
            Self::Port(_) | Self::Family(_) | Self::TunnelPort(_) | Self::TunnelFlags(_) => size_of::<u16>(),
            Self::ForwardMethod(_)
            | Self::Weight(_)
            | Self::UpperThreshold(_)
            | Self::LowerThreshold(_)
            | Self::ActiveConnections(_)
            | Self::InactiveConnections(_)
            | Self::PersistentConnections(_) => size_of::<u32>(),
            Self::Stats(stats) => stats.nested_len(Width::Mixed),
            Self::Stats64(stats) => stats.nested_len(Width::Wide),
            Self::Other(other) => other.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Address(_) => IPVS_DEST_ATTR_ADDR,
            Self::Port(_) => IPVS_DEST_ATTR_PORT,
            Self::ForwardMethod(_) => IPVS_DEST_ATTR_FWD_METHOD,
            Self::Weight(_) => IPVS_DEST_ATTR_WEIGHT,
            Self::UpperThreshold(_) => IPVS_DEST_ATTR_U_THRESH,
            Self::LowerThreshold(_) => IPVS_DEST_ATTR_L_THRESH,
            Self::ActiveConnections(_) => IPVS_DEST_ATTR_ACTIVE_CONNS,
            Self::InactiveConnections(_) => IPVS_DEST_ATTR_INACT_CONNS,
            Self::PersistentConnections(_) => IPVS_DEST_ATTR_PERSIST_CONNS,
            Self::Stats(_) => IPVS_DEST_ATTR_STATS | NLA_F_NESTED,
            Self::Family(_) => IPVS_DEST_ATTR_ADDR_FAMILY,
            Self::Stats64(_) => IPVS_DEST_ATTR_STATS64 | NLA_F_NESTED,
            Self::TunnelType(_) => IPVS_DEST_ATTR_TUN_TYPE,
            Self::TunnelPort(_) => IPVS_DEST_ATTR_TUN_PORT,
            Self::TunnelFlags(_) => IPVS_DEST_ATTR_TUN_FLAGS,
            Self::Other(other) => other.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Address(address) => put(buffer, address),
            Self::TunnelType(value) => put(buffer, &value.to_ne_bytes()),
            Self::Family(value) | Self::TunnelFlags(value) => put(buffer, &value.to_ne_bytes()),
            // Ports alone are in network byte order.
            Self::Port(port) | Self::TunnelPort(port) => put(buffer, &port.to_be_bytes()),
            Self::ForwardMethod(value)
            | Self::Weight(value)
            | Self::UpperThreshold(value)
            | Self::LowerThreshold(value)
            | Self::ActiveConnections(value)
            | Self::InactiveConnections(value)
            | Self::PersistentConnections(value) => put(buffer, &value.to_ne_bytes()),
            Self::Stats(stats) => stats.emit_nested(buffer, Width::Mixed),
            Self::Stats64(stats) => stats.emit_nested(buffer, Width::Wide),
            Self::Other(other) => other.emit_value(buffer),
        }
    }
}

impl DestinationAttribute {
    pub(super) fn parse(kind: u16, value: &[u8]) -> Result<Self, DecodeError> {
        match kind & NLA_TYPE_MASK {
            IPVS_DEST_ATTR_ADDR => array(value).map(Self::Address),
            IPVS_DEST_ATTR_PORT => array(value).map(u16::from_be_bytes).map(Self::Port),
            IPVS_DEST_ATTR_FWD_METHOD => number(value).map(Self::ForwardMethod),
            IPVS_DEST_ATTR_WEIGHT => number(value).map(Self::Weight),
            IPVS_DEST_ATTR_U_THRESH => number(value).map(Self::UpperThreshold),
            IPVS_DEST_ATTR_L_THRESH => number(value).map(Self::LowerThreshold),
            IPVS_DEST_ATTR_ACTIVE_CONNS => number(value).map(Self::ActiveConnections),
            IPVS_DEST_ATTR_INACT_CONNS => number(value).map(Self::InactiveConnections),
            IPVS_DEST_ATTR_PERSIST_CONNS => number(value).map(Self::PersistentConnections),
            IPVS_DEST_ATTR_STATS => Stats::parse(value, Width::Mixed).map(Self::Stats),
            IPVS_DEST_ATTR_ADDR_FAMILY => array(value).map(u16::from_ne_bytes).map(Self::Family),
            IPVS_DEST_ATTR_STATS64 => Stats::parse(value, Width::Wide).map(Self::Stats64),
            IPVS_DEST_ATTR_TUN_TYPE => array(value).map(u8::from_ne_bytes).map(Self::TunnelType),
            IPVS_DEST_ATTR_TUN_PORT => array(value).map(u16::from_be_bytes).map(Self::TunnelPort),
            IPVS_DEST_ATTR_TUN_FLAGS => array(value).map(u16::from_ne_bytes).map(Self::TunnelFlags),
            // Later kernels have more attributes, which must not make a server unreadable.
            _ => Ok(Self::Other(DefaultNla::new(kind, value.to_vec()))),
        }
        .with_context(|| format!("invalid IPVS_DEST_ATTR {}", kind & NLA_TYPE_MASK))
    }
}
