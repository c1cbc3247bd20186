//! What the maps say about services, and what operations make of it; no map is touched here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::layout::{self, Region, SLOT_SIZE, Slot};
use super::slots::{Ids, Regions};
use super::{Error, SCHEDULER};
use crate::dataplane::{Op, RealServer, Scheduling, Service, ServiceKey};

/// A server of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub weight: u32,
    pub id: u32,
}

/// A service where it stands in the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub base: u32,
    pub servers: BTreeMap<SocketAddr, Member>,
    /// Whether the slots are what we write. Of those of a damaged service nothing is known.
    pub sound: bool,
}

impl Placed {
    fn length(&self) -> u32 {
        // A service has at most 65,535 servers.
        self.servers.len() as u32
    }

    pub fn region(&self) -> Region {
        let active = self.servers.values().filter(|member| member.weight > 0).count();
        Region { base: self.base, active: active as u16, total: self.servers.len() as u16 }
    }

    /// The slots in their order, those that take connections first.
    pub fn slots(&self, service: ServiceKey) -> impl Iterator<Item = Slot> {
        let of = move |takes: bool| {
            self.servers.iter().filter(move |(_, member)| (member.weight > 0) == takes).map(
                move |(server, member)| Slot {
                    service,
                    server: *server,
                    id: member.id,
                    weight: member.weight,
                },
            )
        };
        of(true).chain(of(false))
    }

    /// As the rest of the program sees it.
    pub fn service(&self) -> Service {
        let scheduling = match self.sound {
            true => Scheduling { scheduler: SCHEDULER.to_owned(), flags: 0 },
            false => Scheduling::unknown(),
        };
        let servers =
            self.servers.iter().map(|(address, member)| (*address, RealServer::masquerade(member.weight)));
        Service { scheduling, servers: servers.collect() }
    }
}

/// All services, and what is free beside them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Book {
    pub services: BTreeMap<ServiceKey, Placed>,
    regions: Regions,
    pub ids: Ids,
}

/// What a service should become.
#[derive(Debug, PartialEq, Eq)]
pub struct Draft {
    /// Server to weight; `None` where the service goes.
    pub servers: Option<BTreeMap<SocketAddr, u32>>,
    /// The operations that asked for it.
    pub ops: Vec<usize>,
}

/// Why a service finds no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Slots,
    Ids,
}

/// Reads the services out of the maps' bytes: the hash's keys and values, and the slots from the first.
pub fn decode(vips: &[u8], regions: &[u8], slots: &[u8]) -> BTreeMap<ServiceKey, Placed> {
    let (vips, _) = vips.as_chunks::<{ layout::VIP_SIZE }>();
    let (regions, _) = regions.as_chunks::<8>();
    let (slots, _) = slots.as_chunks::<SLOT_SIZE>();
    let mut ids = BTreeSet::new();
    let mut services = BTreeMap::new();
    for (vip, region) in vips.iter().zip(regions) {
        let Some(key) = layout::decode_vip(vip) else { continue };
        let region = Region::decode(*region);
        let placed = match decode_servers(key, region, slots, &mut ids) {
            Some(servers) => Placed { base: region.base, servers, sound: true },
            None => Placed { base: 0, servers: BTreeMap::new(), sound: false },
        };
        services.insert(key, placed);
    }
    services
}

/// The servers in a region; `None` unless all of it is as we write it. `ids` are those seen so far.
fn decode_servers(
    key: ServiceKey,
    region: Region,
    slots: &[[u8; SLOT_SIZE]],
    ids: &mut BTreeSet<u32>,
) -> Option<BTreeMap<SocketAddr, Member>> {
    let base = usize::try_from(region.base).ok()?;
    let slots = slots.get(base..base.checked_add(usize::from(region.total))?)?;
    let mut servers = BTreeMap::new();
    for (position, slot) in slots.iter().enumerate() {
        let slot = Slot::decode(slot)?;
        let takes = position < usize::from(region.active);
        let sound = slot.service == key
            && slot.server.is_ipv4() == key.address.is_ipv4()
            && (slot.weight > 0) == takes
            && slot.id < layout::SERVERS
            && ids.insert(slot.id);
        if !sound || servers.insert(slot.server, Member { weight: slot.weight, id: slot.id }).is_some() {
            return None;
        }
    }
    (region.active <= region.total).then_some(servers)
}

/// The last slot in use and one, by the hash's values.
pub fn slots_in_use(regions: &[u8]) -> usize {
    let (regions, _) = regions.as_chunks::<8>();
    let ends = regions.iter().map(|region| {
        let region = Region::decode(*region);
        u64::from(region.base) + u64::from(region.total)
    });
    ends.max().unwrap_or(0).min(u64::from(layout::SLOTS)) as usize
}

impl Book {
    /// Takes over services; all that they leave free counts as just given back.
    pub fn adopt(services: BTreeMap<ServiceKey, Placed>) -> Self {
        let used = services.values().map(|placed| (placed.base, placed.length()));
        let regions = Regions::around(layout::SLOTS, used);
        let used =
            services.values().flat_map(|placed| placed.servers.values().map(|member| member.id)).collect();
        Self { regions, ids: Ids::around(layout::SERVERS, &used), services }
    }

    /// The highest id in use and one.
    pub fn ids_end(&self) -> usize {
        let members = self.services.values().flat_map(|placed| placed.servers.values());
        members.map(|member| member.id as usize + 1).max().unwrap_or(0)
    }

    /// The ids of all servers of services.
    pub fn ids_in_use(&self) -> BTreeSet<u32> {
        self.services.values().flat_map(|placed| placed.servers.values()).map(|member| member.id).collect()
    }

    /// What the operations make of the services, and those that are refused.
    pub fn draft(&self, ops: &[&Op]) -> (BTreeMap<ServiceKey, Draft>, Vec<(usize, Error)>) {
        let mut drafts: BTreeMap<ServiceKey, Draft> = BTreeMap::new();
        let mut refused = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            let Some(key) = op.service() else { continue };
            let draft = drafts.entry(*key).or_insert_with(|| Draft {
                servers: self.services.get(key).map(|placed| {
                    placed.servers.iter().map(|(address, member)| (*address, member.weight)).collect()
                }),
                ops: Vec::new(),
            });
            match change(&mut draft.servers, op) {
                Ok(()) => draft.ops.push(index),
                Err(error) => refused.push((index, error)),
            }
        }
        drafts.retain(|_, draft| !draft.ops.is_empty());
        (drafts, refused)
    }

    /// Finds slots and ids for a service; servers that it has already keep theirs.
    pub fn place(&mut self, key: &ServiceKey, servers: &BTreeMap<SocketAddr, u32>) -> Result<Placed, Full> {
        let length = servers.len() as u32;
        let base = if length == 0 { 0 } else { self.regions.take(length).ok_or(Full::Slots)? };
        let before = self.services.get(key);
        let mut members = BTreeMap::new();
        let mut taken = Vec::new();
        for (address, weight) in servers {
            let known = before.and_then(|placed| placed.servers.get(address)).map(|member| member.id);
            let Some(id) = known.or_else(|| self.ids.take().inspect(|id| taken.push(*id))) else {
                taken.into_iter().for_each(|id| self.ids.put_back(id));
                self.regions.put_back(base, length);
                return Err(Full::Ids);
            };
            members.insert(*address, Member { weight: *weight, id });
        }
        Ok(Placed { base, servers: members, sound: true })
    }

    /// Gives back what a service was given in vain. Its slots may have been written, its value not.
    pub fn forget(&mut self, key: &ServiceKey, placed: &Placed) {
        self.regions.put_back(placed.base, placed.length());
        let known = self.services.get(key);
        for (address, member) in &placed.servers {
            if known.is_none_or(|known| !known.servers.contains_key(address)) {
                self.ids.put_back(member.id);
            }
        }
    }

    /// Notes what the maps now say of a service; returns the servers that it lost.
    pub fn commit(&mut self, key: ServiceKey, placed: Option<Placed>) -> Vec<(SocketAddr, u32)> {
        let before = match &placed {
            Some(placed) => self.services.insert(key, placed.clone()),
            None => self.services.remove(&key),
        };
        let Some(before) = before else { return Vec::new() };
        self.regions.retire(before.base, before.length());
        let stays = |address| placed.as_ref().is_some_and(|placed| placed.servers.contains_key(address));
        let gone: Vec<(SocketAddr, u32)> = before
            .servers
            .iter()
            .filter(|(address, _)| !stays(*address))
            .map(|(address, member)| (*address, member.id))
            .collect();
        gone.iter().for_each(|(_, id)| self.ids.retire(*id));
        gone
    }

    /// Frees what was given back; the caller has waited for the readers.
    pub fn reclaim(&mut self, count: impl Fn(u32) -> u64) {
        self.regions.reclaim();
        self.ids.reclaim(count);
    }
}

/// Carries out one operation on a service's servers.
fn change(service: &mut Option<BTreeMap<SocketAddr, u32>>, op: &Op) -> Result<(), Error> {
    if let Op::AddService(key, scheduling) | Op::SetService(key, scheduling) = op {
        if scheduling.scheduler != SCHEDULER || scheduling.flags != 0 {
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

/// The maps have one form for an IPv4 address, which then is not told from an IPv6 one.
fn is_mapped(address: IpAddr) -> bool {
    address.to_canonical() != address
}

#[cfg(test)]
mod tests;
