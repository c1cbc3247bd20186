//! Contents of the maps, byte for byte as the types of `l4lbd.bpf.c` have them.
//!
//! The two change together, and with them [`VERSION`]: the directory of the pins is named after it,
//! so that no version of this program reads maps that it would misread. Only a map that is added needs no
//! new version: it is created beside those that are pinned. A test compares the types here with those of the
//! compiled program.
//!
//! Addresses are 16 bytes, with IPv4 as `::ffff:a.b.c.d`. Addresses and ports are in network byte
//! order, all other numbers in the machine's.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha1::{Digest, Sha1};
use zerocopy::byteorder::{BigEndian, U16};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::bpf::{self, MapInfo};
use crate::cluster::Protocol;
use crate::dataplane::state::ServiceKey;

mod connects;
mod troubles;

pub use connects::{ServerConnects, VipConnects};
pub use troubles::{ClientKey, Troubles};

/// Name of the directory for the pins of this layout.
pub const VERSION: &str = "v1";

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// Bits in front of an IPv4 address in its IPv6 form.
const MAPPED_PREFIX: u8 = 96;

/// Most servers of all services, including those in retired slots.
pub const SLOTS: u32 = 524_288;
/// Most servers of all services.
pub const SERVERS: u32 = 262_144;
/// Most services.
pub const SERVICES: u32 = 65_536;
/// Most connected UDP sockets that one run of the iterator lists.
pub const LISTED_AT_ONCE: u32 = 65_536;
/// Most servers of one service.
pub const SERVERS_PER_SERVICE: usize = 65_535;

/// Definition of one of the program's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapLayout {
    pub name: &'static str,
    /// Map type, `BPF_MAP_TYPE_*`.
    pub kind: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

impl MapLayout {
    /// Returns true if a map of the kernel has this definition.
    pub fn describes(&self, info: &MapInfo) -> bool {
        (info.kind, info.key_size, info.value_size, info.max_entries, info.flags)
            == (self.kind, self.key_size, self.value_size, self.max_entries, self.flags)
    }
}

const fn map<K, V>(name: &'static str, kind: u32, max_entries: u32, flags: u32) -> MapLayout {
    MapLayout {
        name,
        kind,
        key_size: size_of::<K>() as u32,
        value_size: size_of::<V>() as u32,
        max_entries,
        flags,
    }
}

/// Service to [`Region::word`].
pub const VIPS: MapLayout = map::<VipKey, u64>("vips", bpf::HASH, SERVICES, 0);
/// Index to server.
pub const SLOTS_MAP: MapLayout = map::<u32, Slot>("slots", bpf::ARRAY, SLOTS, 0);
/// Index of a slot to how that is drawn, for services whose servers have different weights.
pub const DRAWS: MapLayout = map::<u32, Draw>("draws", bpf::ARRAY, SLOTS, 0);
/// Server id to its number of connections, which is signed.
pub const COUNTS: MapLayout = map::<u32, i64>("counts", bpf::ARRAY, SERVERS, 0);
/// Networks of VIPs; the values mean nothing.
pub const NETWORKS: MapLayout = map::<NetworkKey, u32>("networks", bpf::LPM_TRIE, 65_536, bpf::NO_PREALLOC);
/// Storage of connected sockets.
pub const SOCKETS: MapLayout = map::<u32, SocketServer>("sockets", bpf::SK_STORAGE, 0, bpf::NO_PREALLOC);
/// Storage of connected UDP sockets. Only the programs use it, and an iterator.
pub const CONNECTED: MapLayout =
    map::<u32, ConnectedDatagram>("connected", bpf::SK_STORAGE, 0, bpf::NO_PREALLOC);
/// Result of a listing of these sockets, and its one [`Listing`].
pub const LISTED: MapLayout = map::<u32, ConnectedDatagram>("listed", bpf::ARRAY, LISTED_AT_ONCE, 0);
pub const LISTING: MapLayout = map::<u32, Listing>("listing", bpf::ARRAY, 1, 0);
/// Server id to [`Slot::term`], or 0 if that server takes no datagrams of unconnected sockets.
pub const ACTIVE: MapLayout = map::<u32, u32>("active", bpf::ARRAY, SERVERS, 0);
/// Storage of unconnected UDP sockets: the servers that they keep. Only the programs use it.
pub const UNCONNECTED: MapLayout = map::<u32, Keeps>("unconnected", bpf::SK_STORAGE, 0, bpf::NO_PREALLOC);
/// Storage of those of them that have more VIPs than that has places for. Only the programs use it.
pub const MORE: MapLayout = map::<u32, More>("more", bpf::SK_STORAGE, 0, bpf::NO_PREALLOC);
/// Processes whose sockets never pass a VIP: process id in the root namespace to number of announcers.
/// Only the programs use it.
pub const EXEMPT: MapLayout = map::<u32, u32>("exempt", bpf::HASH, 1024, 0);
/// Storage of announcers: 0, or the id under which the process is exempt.
pub const ANNOUNCERS: MapLayout = map::<u32, u32>("announcers", bpf::SK_STORAGE, 0, bpf::NO_PREALLOC);
/// Server id to what became of the connects to that server.
pub const CONNECTS: MapLayout = map::<u32, ServerConnects>("connects", bpf::ARRAY, SERVERS, 0);
/// Counts of connects by their outcome: an element for each VIP, in any order.
pub const VIP_CONNECTS: MapLayout = map::<u32, VipConnects>("vip_connects", bpf::ARRAY, SERVICES, 0);
/// Storage of sockets whose first SYN was not answered. Only the programs use it.
pub const LATE: MapLayout = map::<u32, u64>("late", bpf::SK_STORAGE, 0, bpf::NO_PREALLOC);
/// Locks of the programs.
pub const LOCKS: MapLayout = map::<u32, u64>("locks", bpf::ARRAY, 64, 0);

/// Server id to its last failure, of any client.
pub const FAILURES: MapLayout = map::<u32, Failures>("failures", bpf::ARRAY, SERVERS, 0);
/// VIP and network namespace to the servers that have failed for it. Only the programs write it, and use the next
/// three.
pub const TROUBLES: MapLayout = map::<ClientKey, Troubles>("troubles", bpf::LRU_HASH, 8192, 0);
/// Cookie of a network namespace to what it has begun there.
pub const SHARES: MapLayout = map::<u64, u64>("shares", bpf::LRU_HASH, 4096, 0);
pub const NO_TROUBLES: MapLayout = map::<u32, Troubles>("no_troubles", bpf::ARRAY, 1, 0);
/// Storage of connecting sockets: the cookie of their network namespace.
pub const NAMESPACES: MapLayout = map::<u32, u64>("namespaces", bpf::SK_STORAGE, 0, bpf::NO_PREALLOC);

pub const MAPS: [MapLayout; 23] = [
    VIPS,
    SLOTS_MAP,
    DRAWS,
    COUNTS,
    NETWORKS,
    SOCKETS,
    CONNECTED,
    LISTED,
    LISTING,
    ACTIVE,
    UNCONNECTED,
    MORE,
    EXEMPT,
    ANNOUNCERS,
    CONNECTS,
    VIP_CONNECTS,
    LATE,
    LOCKS,
    FAILURES,
    TROUBLES,
    SHARES,
    NO_TROUBLES,
    NAMESPACES,
];

/// Cookie of a connected UDP socket to the id of its server, as an earlier version has it. What it noted of sockets
/// that are still open holds as long as they are connected.
pub const DATAGRAMS: MapLayout = map::<u64, u32>("datagrams", bpf::LRU_HASH, 65_536, 0);
/// Maps that only earlier versions use.
pub const UNUSED: [&str; 2] = ["overflow", "replies"];

/// Maps that every version of this layout has, for those who only look.
pub const TABLES: [MapLayout; 5] = [VIPS, SLOTS_MAP, COUNTS, NETWORKS, ANNOUNCERS];

/// Value of the map `unconnected`: `struct keeps`.
pub type Keeps = [u8; 904];

/// Value of the map `more`: `struct more`.
pub type More = [u8; 3344];

/// Program and the place in the kernel where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program's function.
    pub name: &'static str,
    /// Attach type, `enum bpf_attach_type` of `linux/bpf.h`.
    pub number: u32,
}

const fn hook(name: &'static str, number: u32) -> Hook {
    Hook { name, number }
}

/// All programs in the order in which they are attached. Those that release a socket, follow it and show its
/// peer come before those that choose servers, so that the first connections are counted and shown right.
pub const HOOKS: [Hook; 10] = [
    hook("sock_release", 34),
    hook("sock_ops", 3),
    hook("getpeername4", 29),
    hook("getpeername6", 30),
    hook("recvmsg4", 19),
    hook("recvmsg6", 20),
    hook("connect4", 10),
    hook("connect6", 11),
    hook("sendmsg4", 14),
    hook("sendmsg6", 15),
];

/// Iterator over the map `connected`, which is attached to nothing.
pub const LIST_DATAGRAMS: &str = "list_datagrams";

/// IPv6 address, or IPv4 address in its IPv6 form: `struct address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MappedAddress([u8; 16]);

impl From<IpAddr> for MappedAddress {
    fn from(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        })
    }
}

impl From<MappedAddress> for IpAddr {
    fn from(address: MappedAddress) -> Self {
        IpAddr::V6(Ipv6Addr::from(address.0)).to_canonical()
    }
}

/// Key of the map `vips`: `struct vip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct VipKey {
    address: MappedAddress,
    port: U16<BigEndian>,
    protocol: u8,
    zero: u8,
}

impl From<ServiceKey> for VipKey {
    fn from(service: ServiceKey) -> Self {
        Self {
            address: service.address.into(),
            port: service.port.into(),
            protocol: protocol_number(service.protocol),
            zero: 0,
        }
    }
}

impl VipKey {
    /// Returns the service, unless this is a key that we would not write.
    pub fn service(&self) -> Option<ServiceKey> {
        let protocol = match (self.protocol, self.zero) {
            (IPPROTO_TCP, 0) => Protocol::Tcp,
            (IPPROTO_UDP, 0) => Protocol::Udp,
            _ => return None,
        };
        Some(ServiceKey { protocol, address: self.address.into(), port: self.port.get() })
    }
}

/// Returns the protocol's number in an IP header.
pub fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
    }
}

/// Value of the map `vips`: where the service's servers are in the map `slots`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First slot.
    pub base: u32,
    /// Servers with a weight above 0; they come first.
    pub active: u16,
    /// All servers.
    pub total: u16,
}

impl Region {
    /// Packs the region into the one word that the programs read at once.
    pub fn word(self) -> u64 {
        let Self { base, active, total } = self;
        u64::from(base) | u64::from(active) << 32 | u64::from(total) << 48
    }

    /// Unpacks a word; the casts cut the fields out of it.
    pub fn from_word(word: u64) -> Self {
        Self { base: word as u32, active: (word >> 32) as u16, total: (word >> 48) as u16 }
    }
}

/// Value of the map `slots`, a server of a service: `struct slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Slot {
    vip: VipKey,
    address: MappedAddress,
    port: U16<BigEndian>,
    flags: u16,
    /// Index into the map `counts`.
    pub id: u32,
    /// Share of new connections; 0 takes none.
    pub weight: u32,
}

/// The bits of [`Slot::flags`], which are the same in all slots of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotFlags {
    /// Set if the servers that take connections have different weights, so that they are drawn by [`DRAWS`].
    pub is_weighted: bool,
    /// Set if no server of the service is ejected.
    pub is_unejected: bool,
}

impl SlotFlags {
    fn bits(self) -> u16 {
        u16::from(self.is_weighted) | u16::from(self.is_unejected) << 1
    }
}

/// Value of the map `draws`: `struct draw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Draw {
    /// Share of the draws of this slot that go to the other one, of 2^32.
    pub moved: u32,
    /// Place of the other one in the service's region.
    pub other: u32,
}

impl Draw {
    /// A slot that keeps its draws.
    pub fn of_itself(place: u32) -> Self {
        Self { moved: 0, other: place }
    }

    /// A slot of whose draws `surplus` of `total` go to another one; not all of them.
    pub fn new(surplus: u64, total: u64, other: u32) -> Self {
        let moved = (u128::from(surplus) << 32) / u128::from(total.max(1));
        Self { moved: u32::try_from(moved).unwrap_or(u32::MAX), other }
    }
}

impl Slot {
    pub fn new(service: ServiceKey, server: SocketAddr, (id, weight): (u32, u32), flags: SlotFlags) -> Self {
        Self {
            vip: service.into(),
            address: server.ip().into(),
            port: server.port().into(),
            flags: flags.bits(),
            id,
            weight,
        }
    }

    /// Returns the flags; an earlier version sets none.
    pub fn flags(&self) -> SlotFlags {
        SlotFlags { is_weighted: self.flags & 1 != 0, is_unejected: self.flags & 2 != 0 }
    }

    /// Returns the service that the server belongs to, unless the slot was not written by us.
    pub fn service(&self) -> Option<ServiceKey> {
        self.vip.service()
    }

    pub fn server(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), self.port.get())
    }

    /// Returns a number other than 0 that stands for the service and the server. It is the same in every run, so a
    /// start can tell which sockets still have the server that they were given, and they keep it.
    pub fn term(&self) -> u32 {
        let digest = Sha1::new()
            .chain_update(self.vip.as_bytes())
            .chain_update(self.address.as_bytes())
            .chain_update(self.port.as_bytes())
            .finalize();
        digest.iter().take(4).fold(0, |bits, octet| bits << 8 | u32::from(*octet)).max(1)
    }
}

/// Value of the map `sockets`, the server of a connected socket: `struct taken`.
// Only the id is read here; the other fields put it in its place.
#[allow(dead_code)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct SocketServer {
    vip: VipKey,
    address: MappedAddress,
    port: U16<BigEndian>,
    counted: u16,
    /// Index into the map `counts`.
    pub id: u32,
}

/// Value of the maps `connected` and `listed`, a connected UDP socket: `struct datagram`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct ConnectedDatagram {
    pub cookie: u64,
    /// Index into the map `counts`.
    pub id: u32,
    zero: u32,
}

/// Value of the map `listing`: `struct listing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Listing {
    /// Sockets that are passed over, because they have been listed.
    pub skipped: u32,
    /// Sockets that were found, with these.
    pub found: u32,
    /// 1 if those are listed as well whose server takes new sockets, or that have none any more.
    pub all: u32,
}

/// Value of the map `failures`: `struct failures`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Failures {
    /// Time of the last one, in the programs' unit; 0 for none.
    failed: u32,
    /// Random number of the server's stay.
    begun: u32,
}

impl Failures {
    /// The beginning, for a server that has been given this number.
    pub fn none(begun: u32) -> Self {
        Self { failed: 0, begun }
    }
}

/// Key of the map `networks`: `struct network`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct NetworkKey {
    prefix: u32,
    address: MappedAddress,
}

impl From<&IpNet> for NetworkKey {
    fn from(network: &IpNet) -> Self {
        let prefix = match network {
            IpNet::V4(v4) => v4.prefix_len() + MAPPED_PREFIX,
            IpNet::V6(v6) => v6.prefix_len(),
        };
        Self { prefix: prefix.into(), address: network.network().into() }
    }
}

impl NetworkKey {
    /// Returns the network, unless the prefix is too long.
    pub fn network(&self) -> Option<IpNet> {
        let prefix = u8::try_from(self.prefix).ok()?;
        match IpAddr::from(self.address) {
            IpAddr::V4(v4) if prefix >= MAPPED_PREFIX => {
                Ipv4Net::new(v4, prefix - MAPPED_PREFIX).ok().map(|net| IpNet::V4(net.trunc()))
            }
            IpAddr::V4(v4) => {
                Ipv6Net::new(v4.to_ipv6_mapped(), prefix).ok().map(|net| IpNet::V6(net.trunc()))
            }
            IpAddr::V6(v6) => Ipv6Net::new(v6, prefix).ok().map(|net| IpNet::V6(net.trunc())),
        }
    }
}

#[cfg(test)]
mod tests;
