//! What is in the maps, byte for byte as the types of `l4lbd.bpf.c` have it.
//!
//! The two change together, and with them [`VERSION`]: the directory of the pins is named after it,
//! so that no program meets maps that it would misread.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::bpf::MapInfo;
use crate::cluster::Protocol;
use crate::dataplane::ServiceKey;

/// Name of the directory of this layout's pins.
pub const VERSION: &str = "v1";

/// Kinds of maps in `linux/bpf.h`.
const HASH: u32 = 1;
pub const ARRAY: u32 = 2;
const LRU_HASH: u32 = 9;
const LPM_TRIE: u32 = 11;
const SK_STORAGE: u32 = 24;

/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// Longest prefix of a network that is within the IPv4-mapped addresses.
const MAPPED_PREFIX: u8 = 96;

/// Servers of all services, those of replaced regions included.
pub const SLOTS: u32 = 524_288;
/// Servers of all services at a time.
pub const SERVERS: u32 = 262_144;
pub const SERVICES: u32 = 65_536;
/// Servers of one service.
pub const SERVERS_PER_SERVICE: usize = 65_535;

pub const VIP_SIZE: usize = 20;
pub const SLOT_SIZE: usize = 48;
pub const TAKEN_SIZE: usize = 44;

/// A map of the program.
pub struct MapLayout {
    pub name: &'static str,
    pub kind: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

impl MapLayout {
    pub fn describes(&self, info: &MapInfo) -> bool {
        (info.kind, info.key_size, info.value_size, info.max_entries, info.flags)
            == (self.kind, self.key_size, self.value_size, self.max_entries, self.flags)
    }
}

const fn map(name: &'static str, kind: u32, sizes: (u32, u32), max_entries: u32, flags: u32) -> MapLayout {
    MapLayout { name, kind, key_size: sizes.0, value_size: sizes.1, max_entries, flags }
}

pub const VIPS: MapLayout = map("vips", HASH, (20, 8), SERVICES, 0);
pub const SLOTS_MAP: MapLayout = map("slots", ARRAY, (4, 48), SLOTS, 0);
pub const COUNTS: MapLayout = map("counts", ARRAY, (4, 8), SERVERS, 0);
pub const NETWORKS: MapLayout = map("networks", LPM_TRIE, (20, 4), 65_536, NO_PREALLOC);
pub const SOCKETS: MapLayout = map("sockets", SK_STORAGE, (4, 44), 0, NO_PREALLOC);
pub const DATAGRAMS: MapLayout = map("datagrams", LRU_HASH, (8, 4), 65_536, 0);
pub const REPLIES: MapLayout = map("replies", LRU_HASH, (32, 20), 65_536, 0);

pub const MAPS: [MapLayout; 7] = [VIPS, SLOTS_MAP, COUNTS, NETWORKS, SOCKETS, DATAGRAMS, REPLIES];

/// A program and the place in the kernel where it runs, by `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub name: &'static str,
    pub number: u32,
}

const fn hook(name: &'static str, number: u32) -> Hook {
    Hook { name, number }
}

/// In the order in which they are attached: what remembers and forgets before what chooses, so that
/// no connection of the first moment is shown or counted wrongly.
pub const HOOKS: [Hook; 9] = [
    hook("sock_release", 34),
    hook("getpeername4", 29),
    hook("getpeername6", 30),
    hook("recvmsg4", 19),
    hook("recvmsg6", 20),
    hook("connect4", 10),
    hook("connect6", 11),
    hook("sendmsg4", 14),
    hook("sendmsg6", 15),
];

/// What stands for a VIP in the hash: first slot and numbers of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub base: u32,
    /// Servers that take connections; they stand first.
    pub active: u16,
    pub total: u16,
}

impl Region {
    pub fn encode(self) -> [u8; 8] {
        let Self { base, active, total } = self;
        (u64::from(base) | u64::from(active) << 32 | u64::from(total) << 48).to_ne_bytes()
    }

    pub fn decode(bytes: [u8; 8]) -> Self {
        let value = u64::from_ne_bytes(bytes);
        // The fields are cut out of the word.
        Self { base: value as u32, active: (value >> 32) as u16, total: (value >> 48) as u16 }
    }
}

/// A server of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub service: ServiceKey,
    pub server: SocketAddr,
    pub id: u32,
    pub weight: u32,
}

impl Slot {
    pub fn encode(&self) -> [u8; SLOT_SIZE] {
        let mut bytes = Writer::<SLOT_SIZE>::default();
        bytes.put(&vip(&self.service));
        bytes.put(&address(self.server.ip()));
        bytes.put(&self.server.port().to_be_bytes());
        bytes.put(&[0; 2]);
        bytes.put(&self.id.to_ne_bytes());
        bytes.put(&self.weight.to_ne_bytes());
        bytes.bytes
    }

    /// Reads a slot; `None` when it names no service that could be one.
    pub fn decode(bytes: &[u8; SLOT_SIZE]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let service = decode_vip(&reader.take()?)?;
        let server = SocketAddr::new(decode_address(reader.take()?), u16::from_be_bytes(reader.take()?));
        let _zero: [u8; 2] = reader.take()?;
        Some(Self {
            service,
            server,
            id: u32::from_ne_bytes(reader.take()?),
            weight: u32::from_ne_bytes(reader.take()?),
        })
    }
}

/// The id of the server that a connected socket was given, out of the socket's storage.
pub fn taken_id(bytes: &[u8; TAKEN_SIZE]) -> Option<u32> {
    let (_, id) = bytes.split_last_chunk::<4>()?;
    Some(u32::from_ne_bytes(*id))
}

/// A service as the key of the hash.
pub fn vip(key: &ServiceKey) -> [u8; VIP_SIZE] {
    let mut bytes = Writer::<VIP_SIZE>::default();
    bytes.put(&address(key.address));
    bytes.put(&key.port.to_be_bytes());
    bytes.put(&[protocol(key.protocol), 0]);
    bytes.bytes
}

/// `None` for a key that no [`vip`] gives.
pub fn decode_vip(bytes: &[u8; VIP_SIZE]) -> Option<ServiceKey> {
    let mut reader = Reader(bytes);
    let address = decode_address(reader.take()?);
    let port = u16::from_be_bytes(reader.take()?);
    let protocol = match reader.take::<2>()? {
        [IPPROTO_TCP, 0] => Protocol::Tcp,
        [IPPROTO_UDP, 0] => Protocol::Udp,
        _ => return None,
    };
    Some(ServiceKey { protocol, address, port })
}

pub fn protocol(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
    }
}

/// A network as the key of the trie.
pub fn network(network: &IpNet) -> [u8; 20] {
    let prefix = match network {
        IpNet::V4(v4) => v4.prefix_len() + MAPPED_PREFIX,
        IpNet::V6(v6) => v6.prefix_len(),
    };
    let mut bytes = Writer::<20>::default();
    bytes.put(&u32::from(prefix).to_ne_bytes());
    bytes.put(&address(network.network()));
    bytes.bytes
}

pub fn decode_network(bytes: &[u8; 20]) -> Option<IpNet> {
    let mut reader = Reader(bytes);
    let prefix = u8::try_from(u32::from_ne_bytes(reader.take()?)).ok()?;
    match decode_address(reader.take()?) {
        IpAddr::V4(v4) if prefix >= MAPPED_PREFIX => {
            Ipv4Net::new(v4, prefix - MAPPED_PREFIX).ok().map(|net| IpNet::V4(net.trunc()))
        }
        IpAddr::V4(v4) => Ipv6Net::new(v4.to_ipv6_mapped(), prefix).ok().map(|net| IpNet::V6(net.trunc())),
        IpAddr::V6(v6) => Ipv6Net::new(v6, prefix).ok().map(|net| IpNet::V6(net.trunc())),
    }
}

fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn decode_address(bytes: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

/// Fills a fixed number of bytes from the front.
struct Writer<const N: usize> {
    bytes: [u8; N],
    end: usize,
}

impl<const N: usize> Default for Writer<N> {
    fn default() -> Self {
        Self { bytes: [0; N], end: 0 }
    }
}

impl<const N: usize> Writer<N> {
    fn put(&mut self, part: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.end..self.end + part.len()) {
            room.copy_from_slice(part);
        }
        self.end += part.len();
    }
}

/// Takes bytes from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (part, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*part)
    }
}

#[cfg(test)]
mod tests;
