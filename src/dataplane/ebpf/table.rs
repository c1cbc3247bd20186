//! Services as the maps hold them, and changes to them. No map is touched here.
//!
//! A change never overwrites slots that a program may be reading. For example, a service with the
//! servers a and b in slots 0 and 1 gets a third one, c:
//!
//! ```text
//! draft    {a, b} + AddServer c = {a, b, c}
//! place    3 free slots, say 4 to 6, and an id for c; a and b keep theirs
//!          (the caller writes slots 4 to 6, then the service's word: base 4, 3 servers)
//! commit   slots 0 and 1 are retired
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::draws::draws;
use super::error::Error;
use super::layout::{self, Draw, Region, Slot, SlotFlags, VipKey};
use super::leaving::LeavingServer;
use super::options::{SCHEDULER, UNEJECTED};
use super::slots::{IdAllocator, SlotAllocator};
use crate::cluster::Protocol;
use crate::dataplane::op::Op;
use crate::dataplane::state::{RealServer, Scheduling, Service, ServiceKey};

/// Server of a service in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedServer {
    pub weight: u32,
    /// Index into the map `counts`.
    pub id: u32,
}

/// Service in the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacedService {
    /// First slot.
    pub base: u32,
    pub servers: BTreeMap<SocketAddr, PlacedServer>,
    /// True if no server is ejected. Never true without servers, whose slots have it.
    pub is_unejected: bool,
    /// True if the slots are as we write them. The servers of a damaged service are unknown.
    pub sound: bool,
}

impl PlacedService {
    fn length(&self) -> u32 {
        // A service has at most 65,535 servers.
        self.servers.len() as u32
    }

    pub fn region(&self) -> Region {
        let active = self.servers.values().filter(|server| server.weight > 0).count();
        Region { base: self.base, active: active as u16, total: self.servers.len() as u16 }
    }

    /// Lists the weights of the servers that take connections, in the order of their slots.
    fn active_weights(&self) -> impl Iterator<Item = u32> {
        self.servers.values().map(|server| server.weight).filter(|weight| *weight > 0)
    }

    fn flags(&self) -> SlotFlags {
        let mut weights = self.active_weights();
        let first = weights.next();
        SlotFlags {
            is_weighted: weights.any(|weight| Some(weight) != first),
            is_unejected: self.is_unejected,
        }
    }

    /// Lists how the slots are drawn, with their numbers; none of them where all weights are equal.
    pub fn draws(&self) -> impl Iterator<Item = (u32, Draw)> {
        let weights: Vec<u32> =
            if self.flags().is_weighted { self.active_weights().collect() } else { Vec::new() };
        (self.base..).zip(draws(&weights))
    }

    /// Lists the slots in their order: servers that take connections, then those with weight 0.
    pub fn slots(&self, service: ServiceKey) -> impl Iterator<Item = Slot> {
        let flags = self.flags();
        let part = move |active: bool| {
            self.servers
                .iter()
                .filter(move |(_, server)| (server.weight > 0) == active)
                .map(move |(address, server)| Slot::new(service, *address, (server.id, server.weight), flags))
        };
        part(true).chain(part(false))
    }

    /// Lists the servers with weight 0, if this is the TCP service `key`.
    fn halted(&self, key: &ServiceKey) -> impl Iterator<Item = (&SocketAddr, &PlacedServer)> {
        let is_tcp = key.protocol == Protocol::Tcp;
        self.servers.iter().filter(move |(_, server)| is_tcp && server.weight == 0)
    }

    /// Lists the ids of the servers with weight 0.
    pub fn passive_ids(&self) -> impl Iterator<Item = u32> {
        self.servers.values().filter(|server| server.weight == 0).map(|server| server.id)
    }

    /// Returns the service in the terms of the data plane.
    pub fn service(&self) -> Service {
        let scheduling = match self.sound {
            true => Scheduling {
                scheduler: SCHEDULER.to_owned(),
                flags: if self.is_unejected { UNEJECTED } else { 0 },
            },
            false => Scheduling::unknown(),
        };
        let servers =
            self.servers.iter().map(|(address, server)| (*address, RealServer::masquerade(server.weight)));
        Service { scheduling, servers: servers.collect() }
    }
}

/// All services in the maps, with the free slots and ids beside them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ServiceTable {
    pub services: BTreeMap<ServiceKey, PlacedService>,
    slots: SlotAllocator,
    ids: IdAllocator,
    /// Ids of all servers.
    used: BTreeSet<u32>,
}

/// Wanted content of a service after some operations.
#[derive(Debug, PartialEq, Eq)]
pub struct Draft {
    /// Weights of the servers; `None` if the service is deleted.
    pub servers: Option<BTreeMap<SocketAddr, u32>>,
    pub is_unejected: bool,
    /// Indexes of the operations that led here.
    pub ops: Vec<usize>,
}

/// Resource that has no free room for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    Slots,
    Ids,
}

/// Decodes the services from the keys and values of the map `vips`, and the first slots.
pub fn decode(vips: &[VipKey], regions: &[u64], slots: &[Slot]) -> BTreeMap<ServiceKey, PlacedService> {
    let mut ids = BTreeSet::new();
    let mut services = BTreeMap::new();
    for (vip, word) in vips.iter().zip(regions) {
        let Some(key) = vip.service() else { continue };
        let region = Region::from_word(*word);
        // A damaged service stays in the table: it has to be replaced, or deleted.
        let placed = match decode_servers(key, region, slots, &mut ids) {
            Some(servers) => {
                let first = slots.get(region.base as usize).filter(|_| !servers.is_empty());
                let is_unejected = first.is_some_and(|slot| slot.flags().is_unejected);
                PlacedService { base: region.base, servers, is_unejected, sound: true }
            }
            None => PlacedService { sound: false, ..PlacedService::default() },
        };
        services.insert(key, placed);
    }
    services
}

/// Decodes the servers in a region; `None` unless all of it is as we write it. `ids` are those of the
/// services decoded before.
fn decode_servers(
    key: ServiceKey,
    region: Region,
    slots: &[Slot],
    ids: &mut BTreeSet<u32>,
) -> Option<BTreeMap<SocketAddr, PlacedServer>> {
    let base = usize::try_from(region.base).ok()?;
    let slots = slots.get(base..base.checked_add(usize::from(region.total))?)?;
    let mut servers = BTreeMap::new();
    for (position, slot) in slots.iter().enumerate() {
        let active = position < usize::from(region.active);
        let server = slot.server();
        let is_unejected = |slot: &Slot| slot.flags().is_unejected;
        // Servers with the same id would share their number of connections.
        let sound = slot.service() == Some(key)
            && server.is_ipv4() == key.address.is_ipv4()
            && (slot.weight > 0) == active
            && slot.id < layout::SERVERS
            && slots.first().map(is_unejected) == Some(is_unejected(slot))
            && ids.insert(slot.id);
        if !sound || servers.insert(server, PlacedServer { weight: slot.weight, id: slot.id }).is_some() {
            return None;
        }
    }
    (region.active <= region.total).then_some(servers)
}

/// Returns one past the highest slot in use, from the values of the map `vips`.
pub fn slots_in_use(regions: &[u64]) -> usize {
    let ends = regions.iter().map(|word| {
        let region = Region::from_word(*word);
        u64::from(region.base) + u64::from(region.total)
    });
    ends.max().unwrap_or(0).min(u64::from(layout::SLOTS)) as usize
}

impl ServiceTable {
    /// Takes over services that were read from the maps. Slots and ids that they do not use count as
    /// retired, because programs may still read what another process removed.
    pub fn adopt(services: BTreeMap<ServiceKey, PlacedService>) -> Self {
        let used = services.values().map(|placed| (placed.base, placed.length()));
        let slots = SlotAllocator::around(layout::SLOTS, used);
        let used =
            services.values().flat_map(|placed| placed.servers.values().map(|server| server.id)).collect();
        Self { slots, ids: IdAllocator::around(layout::SERVERS, &used), services, used }
    }

    /// Returns one past the highest id in use.
    pub fn ids_end(&self) -> usize {
        self.used.last().map_or(0, |id| *id as usize + 1)
    }

    /// Returns the numbers that stand for the servers with a weight above 0, by their ids.
    pub fn terms(&self) -> BTreeMap<u32, u32> {
        let slots = self.services.iter().flat_map(|(key, placed)| placed.slots(*key));
        slots.filter(|slot| slot.weight > 0).map(|slot| (slot.id, slot.term())).collect()
    }

    /// Returns true for the id of a server of a service.
    pub fn is_in_use(&self, id: u32) -> bool {
        self.used.contains(&id)
    }

    /// Applies operations to copies of the services. Returns the changed services, and the operations
    /// that are refused, by their indexes.
    pub fn draft(&self, ops: &[&Op]) -> (BTreeMap<ServiceKey, Draft>, Vec<(usize, Error)>) {
        let mut drafts: BTreeMap<ServiceKey, Draft> = BTreeMap::new();
        let mut refused = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            let Some(key) = op.service() else { continue };
            let draft = drafts.entry(*key).or_insert_with(|| Draft {
                servers: self.services.get(key).map(|placed| {
                    placed.servers.iter().map(|(address, server)| (*address, server.weight)).collect()
                }),
                is_unejected: self.services.get(key).is_some_and(|placed| placed.is_unejected),
                ops: Vec::new(),
            });
            match change(&mut draft.servers, op) {
                Ok(()) => {
                    if let Op::AddService(_, scheduling) | Op::SetService(_, scheduling) = op {
                        draft.is_unejected = scheduling.flags & UNEJECTED != 0;
                    }
                    draft.ops.push(index);
                }
                Err(error) => refused.push((index, error)),
            }
        }
        // A service whose operations were all refused stays as it is.
        drafts.retain(|_, draft| !draft.ops.is_empty());
        (drafts, refused)
    }

    /// Returns the number of `servers` that a service does not have yet; `None` is for a deleted service.
    pub fn added(&self, key: &ServiceKey, servers: Option<&BTreeMap<SocketAddr, u32>>) -> usize {
        let before = self.services.get(key);
        let is_new =
            |address: &&SocketAddr| before.is_none_or(|before| !before.servers.contains_key(*address));
        servers.map_or(0, |servers| servers.keys().filter(is_new).count())
    }

    /// Removes from `servers` those that a service does not have yet.
    pub fn drop_added(&self, key: &ServiceKey, servers: &mut BTreeMap<SocketAddr, u32>) {
        let before = self.services.get(key);
        servers.retain(|address, _| before.is_some_and(|before| before.servers.contains_key(address)));
    }

    /// Finds new slots for a service, and ids for its new servers; servers that it has keep their ids.
    pub fn place(
        &mut self,
        key: &ServiceKey,
        servers: &BTreeMap<SocketAddr, u32>,
        is_unejected: bool,
    ) -> Result<PlacedService, Exhausted> {
        let length = servers.len() as u32;
        // A service without servers needs no slot, and must not fail for want of one.
        let base = if length == 0 { 0 } else { self.slots.take(length).ok_or(Exhausted::Slots)? };
        let before = self.services.get(key);
        let mut placed = BTreeMap::new();
        let mut taken = Vec::new();
        for (address, weight) in servers {
            let known = before.and_then(|before| before.servers.get(address)).map(|server| server.id);
            let Some(id) = known.or_else(|| self.ids.take().inspect(|id| taken.push(*id))) else {
                // Nothing was written yet, so all of it is free again at once.
                taken.into_iter().for_each(|id| self.ids.put_back(id));
                self.slots.put_back(base, length);
                return Err(Exhausted::Ids);
            };
            placed.insert(*address, PlacedServer { weight: *weight, id });
        }
        let is_unejected = is_unejected && !placed.is_empty();
        Ok(PlacedService { base, servers: placed, is_unejected, sound: true })
    }

    /// Gives back what [`Self::place`] found for a service that could not be written. Its slots may
    /// have been written, but nothing points at them.
    pub fn forget(&mut self, key: &ServiceKey, placed: &PlacedService) {
        self.slots.put_back(placed.base, placed.length());
        let known = self.services.get(key);
        for (address, server) in &placed.servers {
            if known.is_none_or(|known| !known.servers.contains_key(address)) {
                self.ids.put_back(server.id);
            }
        }
    }

    /// Returns the servers of a TCP service that take no new connections once `placed` replaces it, and did
    /// before.
    pub fn halted(&self, key: &ServiceKey, placed: &PlacedService) -> Vec<LeavingServer> {
        let before = self.services.get(key);
        let was_active = |address| {
            let server = before.and_then(|before| before.servers.get(address));
            server.is_some_and(|server| server.weight > 0)
        };
        let halted = placed.halted(key).filter(|(address, _)| was_active(address));
        halted.map(|(address, server)| LeavingServer::new(key, address, server.id)).collect()
    }

    /// Lists the TCP servers that take no new connections.
    pub fn all_halted(&self) -> impl Iterator<Item = LeavingServer> {
        self.services.iter().flat_map(|(key, placed)| {
            placed.halted(key).map(|(address, server)| LeavingServer::new(key, address, server.id))
        })
    }

    /// Records a service that was written, or deleted if `placed` is `None`. Returns the servers that
    /// it lost, with their ids.
    pub fn commit(&mut self, key: ServiceKey, placed: Option<PlacedService>) -> Vec<(SocketAddr, u32)> {
        let before = match &placed {
            Some(placed) => self.services.insert(key, placed.clone()),
            None => self.services.remove(&key),
        };
        self.used.extend(placed.iter().flat_map(|placed| placed.servers.values()).map(|server| server.id));
        let Some(before) = before else { return Vec::new() };
        self.slots.retire(before.base, before.length());
        let stays = |address| placed.as_ref().is_some_and(|placed| placed.servers.contains_key(address));
        let removed: Vec<(SocketAddr, u32)> = before
            .servers
            .iter()
            .filter(|(address, _)| !stays(*address))
            .map(|(address, server)| (*address, server.id))
            .collect();
        for (_, id) in &removed {
            self.used.remove(id);
            self.ids.retire(*id);
        }
        removed
    }

    /// Frees retired slots, and retired ids with a `count` of 0 connections. The caller has waited for
    /// the readers.
    pub fn reclaim(&mut self, count: impl Fn(u32) -> u64) {
        self.slots.reclaim();
        self.ids.reclaim(count);
    }
}

/// Applies one operation to the servers of its service, which is `None` if it does not exist.
fn change(service: &mut Option<BTreeMap<SocketAddr, u32>>, op: &Op) -> Result<(), Error> {
    // Refuse what the maps cannot express.
    if let Op::AddService(key, scheduling) | Op::SetService(key, scheduling) = op {
        if scheduling.scheduler != SCHEDULER || scheduling.flags & !UNEJECTED != 0 {
            let Scheduling { scheduler, flags } = scheduling.clone();
            return Err(Error::Scheduler { scheduler, flags });
        }
        if is_mapped(key.address) {
            return Err(Error::Mapped(key.address));
        }
    }
    if let Op::AddServer(key, address, server) | Op::SetServer(key, address, server) = op {
        if address.is_ipv4() != key.address.is_ipv4() || is_mapped(address.ip()) {
            return Err(Error::Family { server: *address, service: *key });
        }
        if *server != RealServer::masquerade(server.weight) {
            return Err(Error::Limits);
        }
    }
    // All operations but this one need the service.
    if let Op::AddService(key, _) = op {
        return match service {
            Some(_) => Err(Error::Exists(*key)),
            None => {
                *service = Some(BTreeMap::new());
                Ok(())
            }
        };
    }
    let (Some(servers), Some(key)) = (service.as_mut(), op.service()) else {
        return Err(Error::NoService);
    };
    match op {
        Op::AddServer(_, address, _) if servers.contains_key(address) => {
            return Err(Error::HasServer(*address));
        }
        Op::AddServer(..) if servers.len() >= layout::SERVERS_PER_SERVICE => {
            return Err(Error::TooMany(*key));
        }
        Op::SetServer(_, address, _) | Op::DelServer(_, address) if !servers.contains_key(address) => {
            return Err(Error::NoServer(*address));
        }
        Op::AddServer(_, address, server) | Op::SetServer(_, address, server) => {
            servers.insert(*address, server.weight);
        }
        Op::DelServer(_, address) => {
            servers.remove(address);
        }
        Op::DelService(_) => *service = None,
        _ => {}
    }
    Ok(())
}

/// Returns true for an IPv4 address in its IPv6 form, which the maps cannot tell from the IPv4 one.
fn is_mapped(address: IpAddr) -> bool {
    address.to_canonical() != address
}

#[cfg(test)]
mod tests;
