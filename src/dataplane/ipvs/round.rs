//! Rounds: looking through the whole table in slices, between which the table may change.
//!
//! The kernel has no list of all real servers, so that each service of ours is asked for on its own. 30,000 of them
//! take a second or more, in which no change should have to wait. So a round is made in slices: first the list of
//! services in the parts in which the kernel gives it, then the servers of a few services at a time. What is known of
//! the table is brought up to date at once by each slice, and by each operation of ours between two of them.
//!
//! ```text
//! list part 1 ─ list part 2 ─ (our change of A) ─ servers of A..C ─ servers of D..F ─ end: what was not found is gone
//!                                                 A's line in the list is outdated: it is asked for again
//! ```
//!
//! A reading in full is a round without a pause. The kernel's list of services goes by their position: when one is
//! added or removed between two parts, the list lacks another one or has one twice. So a service counts as gone only
//! where asking for its key finds none. A new service of another program may be missed until the next round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::table::{DumpedService, IpvsTable, ShownServer};
use crate::dataplane::state::{Foreign, Scheduling, ServerKey, Service, ServiceKey, of_service};
use crate::dataplane::traffic::ServiceTraffic;

/// The kernel's answers to questions about its table.
pub(super) trait Kernel {
    type Error;

    /// Begins the list of all services; an earlier one is given up.
    fn begin(&mut self) -> Result<(), Self::Error>;

    /// Returns the next part of that list; `None` after the last.
    fn next_part(&mut self) -> Result<Option<Vec<DumpedService>>, Self::Error>;

    /// Returns the service at `key`, if there is one.
    fn service(&mut self, key: ServiceKey) -> Result<Option<DumpedService>, Self::Error>;

    /// Returns the real servers of a service by address; none where there is no service.
    fn servers(&mut self, key: ServiceKey) -> Result<Vec<ShownServer>, Self::Error>;
}

/// A round under way.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Services at keys of ours as the list had them, as long as that holds.
    listed: BTreeMap<ServiceKey, DumpedService>,
    /// Services of other programs as the list had them.
    foreign: Vec<Foreign>,
    /// Keys that operations of ours have changed since the beginning.
    changed: BTreeSet<ServiceKey>,
    /// Keys that are still to be looked at; `None` while the list is read.
    left: Option<Vec<ServiceKey>>,
}

impl Round {
    /// Begins a round.
    pub(super) fn begin<K: Kernel>(kernel: &mut K) -> Result<Self, K::Error> {
        kernel.begin()?;
        Ok(Self::default())
    }

    /// Notes that an operation of ours was carried out or tried.
    pub(super) fn note_change(&mut self, key: ServiceKey) {
        self.changed.insert(key);
    }

    /// Makes the smallest step, and brings `table` up to date by it. Returns true at the end of the round.
    pub(super) fn step<K: Kernel>(
        &mut self,
        kernel: &mut K,
        table: &mut IpvsTable,
    ) -> Result<bool, K::Error> {
        let Some(left) = &mut self.left else {
            match kernel.next_part()? {
                Some(part) => part.into_iter().for_each(|service| self.list(service, table)),
                None => self.end_list(table),
            }
            return Ok(false);
        };
        let Some(key) = left.pop() else {
            self.foreign.sort();
            // A service may have been in the list twice.
            self.foreign.dedup();
            table.foreign = std::mem::take(&mut self.foreign);
            return Ok(true);
        };
        let listed = self.listed.remove(&key).filter(|_| !self.changed.contains(&key));
        self.foreign.extend(look(kernel, table, key, listed)?);
        Ok(false)
    }

    fn list(&mut self, service: DumpedService, table: &IpvsTable) {
        match &service {
            DumpedService::Ours(key, _) => {
                self.listed.insert(*key, service);
            }
            DumpedService::Foreign(foreign) => match foreign.key {
                // Editing a service with ipvsadm takes the tag off it.
                Some(key) if table.services.contains_key(&key) => {
                    self.listed.insert(key, service);
                }
                _ => self.foreign.push(foreign.clone()),
            },
        }
    }

    /// Decides what is looked at: everything in the list, and everything known that the list lacks.
    fn end_list(&mut self, table: &IpvsTable) {
        let seen: BTreeSet<&Foreign> = self.foreign.iter().collect();
        let missing: Vec<Foreign> =
            table.foreign.iter().filter(|known| !seen.contains(known)).cloned().collect();
        let mut left: BTreeSet<ServiceKey> = self.listed.keys().copied().collect();
        left.extend(table.services.keys());
        for foreign in missing {
            match foreign.key {
                // The list may lack one that is still there, so it is asked for by its key.
                Some(key) => {
                    left.insert(key);
                }
                // It cannot be asked for. The list may lack it because of a change of ours.
                None if !self.changed.is_empty() => self.foreign.push(foreign),
                None => {}
            }
        }
        // Taken from the end.
        self.left = Some(left.into_iter().rev().collect());
    }
}

/// Looks at one service and brings `table` up to date. `listed` is how it was listed, if that holds. Returns the
/// service that another program has there.
pub(super) fn look<K: Kernel>(
    kernel: &mut K,
    table: &mut IpvsTable,
    key: ServiceKey,
    listed: Option<DumpedService>,
) -> Result<Option<Foreign>, K::Error> {
    let is_fresh = listed.is_none();
    let mut service = match listed {
        Some(listed) => Some(listed),
        None => kernel.service(key)?,
    };
    let mut servers = if service.is_some() { kernel.servers(key)? } else { Vec::new() };
    // It may have gone since it was listed.
    if servers.is_empty() && !is_fresh {
        service = kernel.service(key)?;
        servers = if service.is_some() { kernel.servers(key)? } else { Vec::new() };
    }
    let (scheduling, foreign) = match service {
        Some(DumpedService::Ours(_, scheduling)) => (Some(scheduling), None),
        // One that still has exactly our servers is ours, and is repaired; any other was made by another program in
        // its place.
        Some(DumpedService::Foreign(foreign)) => {
            let known = table.services.get(&key).map(|service| &service.servers);
            // Without servers there is nothing by which it could be known.
            let is_ours = !servers.is_empty()
                && known.is_some_and(|known| servers.iter().map(|(address, ..)| address).eq(known.keys()));
            if is_ours { (Some(Scheduling::unknown()), None) } else { (None, Some(foreign)) }
        }
        None => (None, None),
    };
    // Before the new counts, so that servers that are gone leave none behind.
    forget_connections(table, &key);
    match scheduling {
        Some(scheduling) => {
            let counted = servers.iter().map(|(address, _, count, _)| ((key, *address), *count));
            table.connections.extend(counted);
            table.traffic.insert(key, traffic_of(&servers));
            let servers = servers.into_iter().map(|(address, server, ..)| (address, server)).collect();
            table.services.insert(key, Service { scheduling, servers }.into());
        }
        None => {
            table.services.remove(&key);
        }
    }
    Ok(foreign)
}

/// Returns the traffic of the servers of a service, which were read just now and are in the order of their addresses.
pub(super) fn traffic_of(servers: &[ShownServer]) -> Arc<ServiceTraffic> {
    let servers = servers.iter().map(|(address, .., traffic)| (*address, *traffic)).collect();
    Arc::new(ServiceTraffic { at: Timestamp::now(), servers })
}

/// Forgets the connections of a service, and its traffic.
pub(super) fn forget_connections(table: &mut IpvsTable, key: &ServiceKey) {
    let gone: Vec<ServerKey> = of_service(&table.connections, key).map(|(server, _)| *server).collect();
    for server in gone {
        table.connections.remove(&server);
    }
    table.traffic.remove(key);
}
