//! Writing operations into the maps.
//!
//! For each changed service the new servers are written into free slots, and then the one word that
//! points at them. A program run sees the old servers or the new ones, never a mixture. What unconnected
//! sockets have kept of a server holds from before that word to after it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::bpf;
use super::error::Error;
use super::layout::{self, Failures, MapLayout, NetworkKey, VipKey};
use super::leaving::LeavingServer;
use super::maps::Maps;
use super::reading::{Counts, map_error};
use super::seen::{self, Elements};
use super::table::{Draft, Exhausted, PlacedService, ServiceTable};
use crate::dataplane::op::Op;
use crate::dataplane::state::ServiceKey;

/// Ids beyond those in use whose counts are read first when free ones are needed.
const NEAR_IDS: usize = 1024;

/// Result of [`publish`].
#[derive(Debug, Default)]
pub struct Published {
    /// Failures by the index of the operation.
    pub failures: Vec<(usize, Error)>,
    /// Servers that services lost.
    pub deleted: Vec<LeavingServer>,
    /// TCP servers whose weight is 0 now.
    pub halted: Vec<LeavingServer>,
}

/// Makes the map of the servers that take datagrams agree with `table`. An earlier version of this program may
/// have changed the services without it, or a run may have been killed in between.
pub fn align_active(maps: &Maps, table: &ServiceTable) -> Result<(), Error> {
    let failed = |source| map_error(&layout::ACTIVE, source);
    let (ids, known) = maps.active.read(layout::SERVERS as usize).map_err(failed)?;
    let wanted = table.terms();
    let is_wrong = |(id, known): (u32, u32)| {
        let term = wanted.get(&id).copied().unwrap_or(0);
        (term != known).then_some((id, term))
    };
    let wrong = ids.into_iter().zip(known).filter_map(is_wrong);
    maps.active.write(wrong).into_iter().next().map_or(Ok(()), |(_, error)| Err(failed(error)))
}

/// Writes how the servers of weighted services are drawn: without it they would be drawn as if all were equal, as after
/// someone has removed the map's pin.
pub fn align_draws(maps: &Maps, table: &ServiceTable) -> Result<(), Error> {
    let draws = table.services.values().flat_map(PlacedService::draws);
    maps.draws
        .write(draws)
        .into_iter()
        .next()
        .map_or(Ok(()), |(_, error)| Err(map_error(&layout::DRAWS, error)))
}

/// Carries out the operations on services and servers, and goes on after a failure. Other operations
/// are ignored.
pub fn publish(maps: &Maps, table: &mut ServiceTable, elements: &mut Elements, ops: &[&Op]) -> Published {
    let (drafts, refused) = table.draft(ops);
    let mut published = Published { failures: refused, ..Published::default() };
    let mut publisher = MapPublisher { maps, table, elements, has_reclaimed: false };
    // What is gone makes room before anything is added, and then services that add little come first.
    let added = |(key, draft): &(ServiceKey, Draft)| publisher.table.added(key, draft.servers.as_ref());
    let (shrinking, mut growing): (Vec<_>, Vec<_>) = drafts.into_iter().partition(|draft| added(draft) == 0);
    growing.sort_by_cached_key(|draft| added(draft));
    for drafts in [shrinking, growing] {
        publisher.carry_out(ops, drafts, &mut published);
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
    maps.tables
        .networks
        .update(&NetworkKey::from(network), &1)
        .map_err(|source| map_error(&layout::NETWORKS, source))
}

pub fn delete_network(maps: &Maps, network: &IpNet) -> Result<(), Error> {
    maps.tables.networks.delete(&NetworkKey::from(network)).map_err(|source| match source.kind() {
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
struct MapPublisher<'a> {
    maps: &'a Maps,
    table: &'a mut ServiceTable,
    elements: &'a mut Elements,
    /// True if retired slots and ids were reclaimed for this call, which takes milliseconds.
    has_reclaimed: bool,
}

impl MapPublisher<'_> {
    /// Writes changed services, and goes on after a failure.
    fn carry_out(&mut self, ops: &[&Op], drafts: Vec<(ServiceKey, Draft)>, published: &mut Published) {
        // A service without room fails alone; the other ones are still written.
        let mut changes = Vec::new();
        for (key, mut draft) in drafts {
            let is_unejected = draft.is_unejected;
            let placed = draft.servers.as_ref().map(|servers| self.place(&key, servers, is_unejected));
            let mut placed = placed.transpose();
            // Servers that are gone must go, and weights change, even where no server can be added.
            if let (Err(reason), Some(servers)) = (&placed, &mut draft.servers) {
                self.table.drop_added(&key, servers);
                let is_added = |index: &usize| match ops.get(*index) {
                    Some(Op::AddServer(_, address, _)) => !servers.contains_key(address),
                    _ => false,
                };
                let (added, others): (Vec<_>, Vec<_>) = draft.ops.iter().copied().partition(is_added);
                published.fail(&added, || reason.error());
                draft.ops = others;
                // Servers that stay have their ids, so that only slots can be lacking now.
                placed = self.place(&key, servers, is_unejected).map(Some);
            }
            match placed {
                Ok(placed) => changes.push(Change { key, placed, ops: draft.ops }),
                Err(reason) => published.fail(&draft.ops, || reason.error()),
            }
        }
        // What is counted of a server begins before a socket can be given it.
        let placed = changes.iter().filter_map(|change| Some((&change.key, change.placed.as_ref()?)));
        let services = &self.table.services;
        seen::begin(self.maps, self.elements, placed, |key, address, _, _| {
            services.get(key).is_some_and(|before| before.servers.contains_key(address))
        });
        let mut failed = self.write(&changes);
        let mut passive = Vec::new();
        // The table must say what the maps say, so it only changes with what was written.
        for (position, Change { key, placed, ops }) in changes.into_iter().enumerate() {
            if placed.is_none() && !failed.contains_key(&position) {
                seen::end(self.maps, self.elements, &key);
            }
            match (failed.remove(&position), placed) {
                (None, placed) => {
                    // Before the commit, because it is told by what the service was.
                    let halted = placed.as_ref().map(|placed| self.table.halted(&key, placed));
                    published.halted.extend(halted.unwrap_or_default());
                    passive.extend(placed.as_ref().into_iter().flat_map(PlacedService::passive_ids));
                    let lost = self.table.commit(key, placed);
                    passive.extend(lost.iter().map(|(_, id)| *id));
                    let lost = lost.into_iter();
                    published.deleted.extend(lost.map(|(server, id)| LeavingServer::new(&key, &server, id)));
                }
                (Some((map, source)), placed) => {
                    if let Some(placed) = placed {
                        self.table.forget(&key, &placed);
                        // The service was given an element above, and is not in the maps.
                        if !self.table.services.contains_key(&key) {
                            seen::end(self.maps, self.elements, &key);
                        }
                    }
                    published.fail(&ops, || match source.raw_os_error() {
                        // The kernel's answer when a hash is full.
                        Some(libc::E2BIG) => Error::Full { what: "services", limit: layout::SERVICES },
                        _ => map_error(&map, copied(&source)),
                    });
                }
            }
        }
        // What is not written here is written by the next start. An array takes every value.
        for (_, error) in self.maps.active.write(passive.into_iter().map(|id| (id, 0))) {
            tracing::warn!(
                %error,
                "cannot note which servers take no datagrams any more: unconnected UDP sockets may still send there \
                 until l4lbd is restarted"
            );
        }
    }

    /// Finds room for a service, and reclaims what is retired if there is none.
    fn place(
        &mut self,
        key: &ServiceKey,
        servers: &BTreeMap<SocketAddr, u32>,
        is_unejected: bool,
    ) -> Result<PlacedService, NoRoom> {
        let mut placed = self.table.place(key, servers, is_unejected);
        if placed.is_ok() || self.has_reclaimed {
            return placed.map_err(NoRoom::Exhausted);
        }
        bpf::wait_for_readers();
        // The kernel copies counts one by one, and most nodes use low ids only: look at few of them first.
        let near = 2 * (self.table.ids_end() + servers.len()) + NEAR_IDS;
        for limit in [near, layout::SERVERS as usize] {
            let counts = Counts::read(&self.maps.tables, limit).map_err(NoRoom::Unknown)?;
            // An id whose count was not read may still be in use.
            self.table.reclaim(|id| counts.of(id).unwrap_or(u64::MAX));
            placed = self.table.place(key, servers, is_unejected);
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
        let (mut slots, mut owners, mut active) = (Vec::new(), Vec::new(), Vec::new());
        let mut failures = Vec::new();
        // By a new number the programs forget what clients remember of an earlier stay.
        let stay = RandomState::new().hash_one(0) as u32;
        let (mut draws, mut drawn) = (Vec::new(), Vec::new());
        for (position, change) in changes.iter().enumerate() {
            let Some(placed) = &change.placed else { continue };
            for draw in placed.draws() {
                draws.push(draw);
                drawn.push(position);
            }
            for (index, slot) in (placed.base..).zip(placed.slots(change.key)) {
                if slot.weight > 0 {
                    active.push((slot.id, slot.term()));
                    // It begins to take connections, so what it was before counts no more.
                    let before = self.table.services.get(&change.key);
                    let before = before.and_then(|before| before.servers.get(&slot.server()));
                    if before.is_none_or(|before| before.weight == 0) {
                        failures.push((slot.id, Failures::none(stay)));
                    }
                }
                slots.push((index, slot));
                owners.push(position);
            }
        }
        for (at, error) in self.maps.tables.slots.write(slots) {
            owners.get(at).map(|position| failed.insert(*position, (layout::SLOTS_MAP, error)));
        }
        for (at, error) in self.maps.draws.write(draws) {
            drawn.get(at).map(|position| failed.insert(*position, (layout::DRAWS, error)));
        }
        for (_, error) in self.maps.failures.write(failures) {
            tracing::warn!(%error, "cannot forget how servers failed before: some may stay ejected for a while");
        }
        // A socket that is given a server notes what is here.
        for (_, error) in self.maps.active.write(active) {
            tracing::warn!(%error, "cannot note which servers take datagrams: each may go to another server");
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
                None => match self.maps.tables.vips.delete(&key) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        failed.insert(position, (layout::VIPS, error));
                    }
                    _ => {}
                },
            }
        }
        for (at, error) in self.maps.tables.vips.write(words) {
            owners.get(at).map(|position| failed.insert(*position, (layout::VIPS, error)));
        }
        failed
    }
}
