//! Counters of a service or destination (`IPVS_STATS_ATTR_*`).
//!
//! The kernel sends them twice: in `*_ATTR_STATS` with 32-bit numbers apart from the bytes, and in
//! `*_ATTR_STATS64` with 64-bit numbers throughout. Both decode into [`Stats`].

use netlink_packet_core::{DecodeError, DefaultNla, ErrorContext, NLA_TYPE_MASK, Nla};

use crate::netlink::nla::{self, put};

const IPVS_STATS_ATTR_CONNS: u16 = 1;
const IPVS_STATS_ATTR_INPKTS: u16 = 2;
const IPVS_STATS_ATTR_OUTPKTS: u16 = 3;
const IPVS_STATS_ATTR_INBYTES: u16 = 4;
const IPVS_STATS_ATTR_OUTBYTES: u16 = 5;
const IPVS_STATS_ATTR_CPS: u16 = 6;
const IPVS_STATS_ATTR_INPPS: u16 = 7;
const IPVS_STATS_ATTR_OUTPPS: u16 = 8;
const IPVS_STATS_ATTR_INBPS: u16 = 9;
const IPVS_STATS_ATTR_OUTBPS: u16 = 10;
const IPVS_STATS_ATTR_PAD: u16 = 11;

/// Counters since they were last zeroed, and the kernel's estimate of current rates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    pub in_packets: u64,
    pub out_packets: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    /// New connections per second.
    pub connection_rate: u64,
    /// Packets per second.
    pub in_packet_rate: u64,
    pub out_packet_rate: u64,
    /// Bytes per second.
    pub in_byte_rate: u64,
    pub out_byte_rate: u64,
    /// Attributes that this codec does not know, padding excepted.
    pub other: Vec<DefaultNla>,
}

/// Width of the numbers of an encoded list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// 32 bits, bytes 64 bits; larger numbers are written as the largest.
    Mixed,
    /// 64 bits.
    Wide,
}

/// One number as it is encoded.
enum StatCounter {
    Narrow(u16, u32),
    Wide(u16, u64),
}

impl Stats {
    /// Decodes the value of a stats attribute; numbers that it lacks are 0.
    pub(super) fn parse(bytes: &[u8], width: Width) -> Result<Box<Self>, DecodeError> {
        Self::read(bytes, width).map(Box::new)
    }

    /// Does the same without an allocation, as long as all attributes are known.
    pub(super) fn read(bytes: &[u8], width: Width) -> Result<Self, DecodeError> {
        let mut stats = Self::default();
        // In any order and number; what is missing stays 0.
        for nla in nla::split(bytes) {
            let (kind, value) = nla?;
            let field = match kind & NLA_TYPE_MASK {
                IPVS_STATS_ATTR_CONNS => &mut stats.connections,
                IPVS_STATS_ATTR_INPKTS => &mut stats.in_packets,
                IPVS_STATS_ATTR_OUTPKTS => &mut stats.out_packets,
                IPVS_STATS_ATTR_INBYTES => &mut stats.in_bytes,
                IPVS_STATS_ATTR_OUTBYTES => &mut stats.out_bytes,
                IPVS_STATS_ATTR_CPS => &mut stats.connection_rate,
                IPVS_STATS_ATTR_INPPS => &mut stats.in_packet_rate,
                IPVS_STATS_ATTR_OUTPPS => &mut stats.out_packet_rate,
                IPVS_STATS_ATTR_INBPS => &mut stats.in_byte_rate,
                IPVS_STATS_ATTR_OUTBPS => &mut stats.out_byte_rate,
                // Only aligns the 64-bit numbers behind it.
                IPVS_STATS_ATTR_PAD => continue,
                _ => {
                    stats.other.push(DefaultNla::new(kind, value.to_vec()));
                    continue;
                }
            };
            // Both widths of a number are read, whichever list it is in.
            let number = match value.len() {
                4 => nla::number(value).map(u64::from),
                _ => nla::array(value).map(u64::from_ne_bytes),
            }
            .with_context(|| format!("invalid IPVS_STATS_ATTR {}", kind & NLA_TYPE_MASK))?;
            let are_bytes =
                matches!(kind & NLA_TYPE_MASK, IPVS_STATS_ATTR_INBYTES | IPVS_STATS_ATTR_OUTBYTES);
            // The list of 32-bit numbers cannot say more, so that reading and writing agree.
            *field = match width {
                Width::Mixed if !are_bytes => number.min(u32::MAX.into()),
                _ => number,
            };
        }
        Ok(stats)
    }

    /// Length that [`Self::emit_nested`] writes, in bytes.
    pub(super) fn nested_len(&self, width: Width) -> usize {
        nla::length(&self.counters(width)) + nla::length(&self.other)
    }

    /// Encodes the counters as the value of a stats attribute.
    pub(super) fn emit_nested(&self, buffer: &mut [u8], width: Width) {
        let counters = self.counters(width);
        let (known, other) = buffer.split_at_mut_checked(nla::length(&counters)).unwrap_or_default();
        nla::emit(&counters, known);
        nla::emit(&self.other, other);
    }

    fn counters(&self, width: Width) -> [StatCounter; 10] {
        let wide = StatCounter::Wide;
        // A number that does not fit is not wrapped to a small one, which would look like idleness.
        let narrow = |kind, value: u64| match width {
            Width::Mixed => StatCounter::Narrow(kind, u32::try_from(value).unwrap_or(u32::MAX)),
            Width::Wide => StatCounter::Wide(kind, value),
        };
        [
            narrow(IPVS_STATS_ATTR_CONNS, self.connections),
            narrow(IPVS_STATS_ATTR_INPKTS, self.in_packets),
            narrow(IPVS_STATS_ATTR_OUTPKTS, self.out_packets),
            wide(IPVS_STATS_ATTR_INBYTES, self.in_bytes),
            wide(IPVS_STATS_ATTR_OUTBYTES, self.out_bytes),
            narrow(IPVS_STATS_ATTR_CPS, self.connection_rate),
            narrow(IPVS_STATS_ATTR_INPPS, self.in_packet_rate),
            narrow(IPVS_STATS_ATTR_OUTPPS, self.out_packet_rate),
            narrow(IPVS_STATS_ATTR_INBPS, self.in_byte_rate),
            narrow(IPVS_STATS_ATTR_OUTBPS, self.out_byte_rate),
        ]
    }
}

impl Nla for StatCounter {
    fn value_len(&self) -> usize {
        match self {
            Self::Narrow(..) => size_of::<u32>(),
            Self::Wide(..) => size_of::<u64>(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Narrow(kind, _) | Self::Wide(kind, _) => *kind,
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Narrow(_, value) => put(buffer, &value.to_ne_bytes()),
            Self::Wide(_, value) => put(buffer, &value.to_ne_bytes()),
        }
    }
}
