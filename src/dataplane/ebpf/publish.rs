//! Writing operations into the maps.
//!
//! For each changed service the new servers are written into free slots, and then the one word that
//! points at them. A program run sees the old servers or the new ones, never a mixture.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::bpf;
use super::error::Error;
use super::layout::{self, MapLayout, NetworkKey, VipKey};
use super::maps::Maps;
use super::reading::{Counts, map_error};
use super::table::{Exhausted, PlacedService, ServiceTable};
use crate::dataplane::op::Op;
use crate::dataplane::state::ServiceKey;

/// Ids beyond those in use whose counts are read first when free ones are needed.
const NEAR_IDS: usize = 1024;

/// Server that a service lost.
#[derive(Clone, Copy, Debug)]
pub struct Removed {
    pub service: ServiceKey,
    pub port: u16,
    pub id: u32,
}

/// Result of [`publish`].
#[derive(Debug, Default)]
pub struct Published {
    /// Failures by the index of the operation.
    pub failures: Vec<(usize, Error)>,
    pub removed: Vec<Removed>,
}

/// Carries out the operations on services and servers, and goes on after a failure. Other operations
/// are ignored.
pub fn publish(maps: &Maps, table: &mut ServiceTable, ops: &[&Op]) -> Published {
    let (drafts, refused) = table.draft(ops);
    let mut published = Published { failures: refused, removed: Vec::new() };
    let mut publisher = Publisher { maps, table, has_reclaimed: false };
    // A service without room fails alone; the rest is still written.
    let mut changes = Vec::new();
    for (key, draft) in drafts {
        let placed = draft.servers.map(|servers| publisher.place(&key, &servers)).transpose();
        match placed {
            Ok(placed) => changes.push(Change { key, placed, ops: draft.ops }),
            Err(reason) => published.fail(&draft.ops, || reason.error()),
        }
    }
    let mut failed = publisher.write(&changes);
    // The table must say what the maps say, so it only changes with what was written.
    for (position, Change { key, placed, ops }) in changes.into_iter().enumerate() {
        match (failed.remove(&position), placed) {
            (None, placed) => {
                let lost = table.commit(key, placed).into_iter();
                let removed = lost.map(|(server, id): (SocketAddr, u32)| Removed {
                    service: key,
                    port: server.port(),
                    id,
                });
                published.removed.extend(removed);
            }
            (Some((map, source)), placed) => {
                if let Some(placed) = placed {
                    table.forget(&key, &placed);
                }
                published.fail(&ops, || match source.raw_os_error() {
                    Some(libc::E2BIG) => Error::Full { what: "services", limit: layout::SERVICES },
                    _ => map_error(&map, copied(&source)),
                });
            }
        }
    }
    published
}

/// Adds a network in which connections for no service are refused.
pub fn add_network(maps: &Maps, network: &IpNet) -> Result<(), Error> {
    // Such a network would match every IPv4 address, which the maps hold in IPv6 form.
    let holds_ipv4 = match network {
        IpNet::V4(_) => false,
        IpNet::V6(v6) => v6.contains(&Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()),
    };
    if holds_ipv4 {
        return Err(Error::Network(*network));
    }
    maps.networks
        .update(&NetworkKey::from(network), &1)
        .map_err(|source| map_error(&layout::NETWORKS, source))
}

pub fn delete_network(maps: &Maps, network: &IpNet) -> Result<(), Error> {
    maps.networks.delete(&NetworkKey::from(network)).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::NoNetwork(*network),
        _ => map_error(&layout::NETWORKS, source),
    })
}

impl Published {
    /// Records a failure of several operations.
    fn fail(&mut self, ops: &[usize], error: impl Fn() -> Error) {
        self.failures.extend(ops.iter().map(|index| (*index, error())));
    }
}

/// Service on its way into the maps.
struct Change {
    key: ServiceKey,
    /// `None` if the service is deleted.
    placed: Option<PlacedService>,
    /// Indexes of the operations that led here.
    ops: Vec<usize>,
}

/// Reason why a service finds no room in the maps.
enum NoRoom {
    Exhausted(Exhausted),
    /// The ids that are free again cannot be told.
    Unknown(io::Error),
}

impl NoRoom {
    fn error(&self) -> Error {
        match self {
            Self::Exhausted(Exhausted::Slots) => {
                Error::Full { what: "servers, including those just replaced,", limit: layout::SLOTS }
            }
            Self::Exhausted(Exhausted::Ids) => Error::Full { what: "servers", limit: layout::SERVERS },
            Self::Unknown(source) => map_error(&layout::COUNTS, copied(source)),
        }
    }
}

/// Copies an error, for several operations that failed at once.
fn copied(error: &io::Error) -> io::Error {
    // Those of the system are all numbers.
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Maps and table during one call of [`publish`].
struct Publisher<'a> {
    maps: &'a Maps,
    table: &'a mut ServiceTable,
    /// True if retired slots and ids were reclaimed for this call, which takes milliseconds.
    has_reclaimed: bool,
}

impl Publisher<'_> {
    /// Finds room for a service, and reclaims what is retired if there is none.
    fn place(
        &mut self,
        key: &ServiceKey,
        servers: &BTreeMap<SocketAddr, u32>,
    ) -> Result<PlacedService, NoRoom> {
        let mut placed = self.table.place(key, servers);
        if placed.is_ok() || self.has_reclaimed {
            return placed.map_err(NoRoom::Exhausted);
        }
        bpf::wait_for_readers();
        // The kernel copies counts one by one, and most nodes use low ids only: look at few of them first.
        let near = 2 * (self.table.ids_end() + servers.len()) + NEAR_IDS;
        for limit in [near, layout::SERVERS as usize] {
            let counts = Counts::read(self.maps, limit).map_err(NoRoom::Unknown)?;
            // An id whose count was not read may still be in use.
            self.table.reclaim(|id| counts.of(id).unwrap_or(u64::MAX));
            placed = self.table.place(key, servers);
            if placed.is_ok() {
                return placed.map_err(NoRoom::Exhausted);
            }
        }
        self.has_reclaimed = true;
        placed.map_err(NoRoom::Exhausted)
    }

    /// Writes changes; returns the failures by the positions of the changes, each with the map.
    fn write(&self, changes: &[Change]) -> BTreeMap<usize, (MapLayout, io::Error)> {
        let mut failed = BTreeMap::new();
        // All slots first, because a program may read them as soon as a word points at them.
        let (mut slots, mut owners) = (Vec::new(), Vec::new());
        for (position, change) in changes.iter().enumerate() {
            let Some(placed) = &change.placed else { continue };
            for slot in (placed.base..).zip(placed.slots(change.key)) {
                slots.push(slot);
                owners.push(position);
            }
        }
        for (at, error) in self.maps.slots.write(slots) {
            owners.get(at).map(|position| failed.insert(*position, (layout::SLOTS_MAP, error)));
        }
        // Then the words, except of services whose slots could not be written.
        let (mut words, mut owners) = (Vec::new(), Vec::new());
        for (position, change) in changes.iter().enumerate() {
            if failed.contains_key(&position) {
                continue;
            }
            let key = VipKey::from(change.key);
            match &change.placed {
                Some(placed) => {
                    words.push((key, placed.region().word()));
                    owners.push(position);
                }
                None => match self.maps.vips.delete(&key) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        failed.insert(position, (layout::VIPS, error));
                    }
                    _ => {}
                },
            }
        }
        for (at, error) in self.maps.vips.write(words) {
            owners.get(at).map(|position| failed.insert(*position, (layout::VIPS, error)));
        }
        failed
    }
}
