//! Bounds of what tenants share on a node, and what is left out where they are reached.
//!
//! What belongs here: which VIPs and backends have a place. How a bound is divided is decided in [`super::shares`].
//! Addresses of the ranges have their rule in [`super::addresses`].

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::addresses::room;
use super::desired::{Desired, DesiredSettings, Programmed, Services};
use super::shares::{SharedUse, divide, is_ample};
use crate::cluster::{SharedMap, Skipped};
use crate::dataplane::{PlaneBounds, ServiceKey};
use crate::store::Persisted;
use crate::vip::alloc::AddressRange;
use crate::vip::{Backend, Tenants, Vip, VipKey, VipTable};

/// Bounds of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Largest number of VIPs, vacant ones among them.
    vips: usize,
    /// Bounds of the data plane, where it has some.
    plane: Option<PlaneBounds>,
    /// Numbers of addresses that names can have.
    addresses4: usize,
    addresses6: usize,
}

/// Counts of what a node has of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Servers of all services, without those that are leaving.
    pub servers: usize,
    /// Servers that are leaving.
    pub leaving: usize,
}

impl Bounds {
    /// The bounds by the configuration and by the data plane. No name gets an address of `literals`.
    pub fn new(
        max_vips: usize,
        settings: &DesiredSettings,
        literals: Option<&AddressRange>,
        plane: Option<PlaneBounds>,
    ) -> Self {
        Self {
            // Each may be two services, one of each address family.
            vips: max_vips.min(plane.map_or(usize::MAX, |plane| plane.services / 2)),
            plane,
            addresses4: room(&settings.range4, literals),
            addresses6: room(&settings.range6, literals),
        }
    }

    /// Returns the largest number of servers that may be leaving; `None` without a bound.
    pub fn leaving(&self) -> Option<usize> {
        self.plane.map(|plane| reserve(plane.servers))
    }

    /// Returns true as long as no share of VIPs and addresses binds, with this many `new` VIPs, each of which may
    /// have a new name.
    pub fn are_ample(&self, persisted: &Persisted, new: usize) -> bool {
        is_ample(persisted.vips.len() + new, self.vips)
            && is_ample(persisted.leases4.len() + new, self.addresses4)
            && is_ample(persisted.leases6.len() + new, self.addresses6)
    }

    /// Returns true as long as no share of servers binds: of all services, and of the largest one of those that
    /// change.
    pub fn are_ample_for(&self, servers: usize, largest: usize) -> bool {
        self.plane.is_none_or(|plane| {
            is_ample(servers, plane.servers) && is_ample(largest, plane.servers_per_service)
        })
    }

    /// Returns the table without the VIPs that are too many, with the number of those that have tasks; `None` if
    /// there is room for all. Vacant VIPs count, and `owners` knows their apps; those of them that are left out
    /// are forgotten. Of one app VIPs that are known stay before new ones, and both before vacant ones.
    pub fn confine_vips(
        &self,
        table: &VipTable,
        persisted: &mut Persisted,
        owners: &SharedMap<VipKey, Tenants>,
    ) -> Option<(VipTable, usize)> {
        let is_vacant = |key: &VipKey| !table.vips.contains_key(key);
        let of_vacant = persisted.vips.iter().filter(|(key, _)| is_vacant(key));
        let mut vacant: Vec<(&VipKey, Option<Timestamp>)> =
            of_vacant.map(|(key, since)| (key, *since)).collect();
        if table.vips.len() + vacant.len() <= self.vips {
            return None;
        }
        // Of one app the first items get places, so that this order decides which of its VIPs stay.
        let (known, new): (Vec<_>, Vec<_>) =
            table.vips.iter().partition(|(key, _)| persisted.vips.contains_key(key));
        let serving: Vec<(&VipKey, &Arc<Vip>)> = known.into_iter().chain(new).collect();
        // Those that were vacated last come first; tasks of one without a time are being started.
        vacant.sort_by_key(|(_, since)| Reverse(since.unwrap_or(Timestamp::MAX)));
        let unknown = Tenants::default();
        let of_serving = serving.iter().map(|(_, vip)| vip.tenants.as_ref().unwrap_or(&unknown));
        let of_vacant = vacant.iter().map(|(key, _)| owners.get(*key).unwrap_or(&unknown));
        let items: Vec<&Tenants> = of_serving.chain(of_vacant).collect();
        let division = divide(&items, self.vips);
        let task = |vip: &'_ Vip| vip.backends.values().next().map(|backend| backend.task.to_string());
        let named = serving
            .iter()
            .zip(&items)
            .map(|((key, vip), tenants)| (*tenants, task(vip).unwrap_or_default(), key.to_string()));
        let bound = format!("there can be {} VIPs (vips.max)", self.vips);
        let records = division.records(named, "VIPs", &bound);
        let keys = serving.iter().map(|(key, _)| *key).chain(vacant.iter().map(|(key, _)| *key));
        let left_out = keys.zip(&division.admitted).filter(|(_, admitted)| !**admitted);
        let left_out: Vec<VipKey> = left_out.map(|(key, _)| key.clone()).collect();
        let mut confined = table.clone();
        confined.skipped.extend(records);
        let mut beyond = 0;
        for key in left_out {
            // Its name takes no address either.
            persisted.vips.remove(&key);
            beyond += usize::from(confined.vips.remove(&key).is_some());
        }
        Some((confined, beyond))
    }

    /// Leaves out backends that find no room in the data plane, in fair shares. Returns their number.
    pub fn confine_servers(&self, desired: &mut Desired) -> usize {
        let Some(PlaneBounds { servers, servers_per_service, .. }) = self.plane else { return 0 };
        // The rest is for servers that are leaving: one that takes the place of another finds room.
        let per_service = servers_per_service - reserve(servers_per_service);
        // Each VIP first: backends that it cannot have anyway take no share of the room for all.
        let mut left_out = 0;
        let Desired { services, skipped, .. } = desired;
        let large = services.iter().filter(|(_, programmed)| programmed.servers.len() > per_service);
        for (key, programmed) in
            large.map(|(key, programmed)| (*key, Arc::clone(programmed))).collect::<Vec<_>>()
        {
            let text = format!("a VIP can have {per_service} backends with eBPF");
            left_out += confine(skipped, services, &[(key, programmed)], per_service, &text);
        }
        let room = servers - reserve(servers);
        let text = format!(
            "the eBPF maps hold {servers} backends of all VIPs, an eighth of which is for those that are leaving"
        );
        // The usual case copies nothing.
        if services.values().map(|programmed| programmed.servers.len()).sum::<usize>() <= room {
            return left_out;
        }
        let all: Vec<_> = services.iter().map(|(key, programmed)| (*key, Arc::clone(programmed))).collect();
        left_out + confine(skipped, services, &all, room, &text)
    }

    /// Returns the use of what tenants share. The cost grows with the number of tenants only where little is left.
    pub fn uses(
        &self,
        used: Used,
        desired: &Desired,
        persisted: &Persisted,
        owners: &SharedMap<VipKey, Tenants>,
    ) -> Vec<SharedUse> {
        let unknown = Tenants::default();
        let vips = persisted.vips.keys().map(|key| owners.get(key).unwrap_or(&unknown));
        let mut uses = vec![SharedUse::new("VIPs", persisted.vips.len(), self.vips, vips)];
        if let Some(plane) = self.plane {
            let members = desired.services.values().flat_map(|programmed| programmed.servers.values());
            let tenants = members.map(|backend| &backend.tenants);
            let name = "backends in the eBPF maps";
            uses.push(SharedUse::new(name, used.servers + used.leaving, plane.servers, tenants));
        }
        let Persisted { leases4, leases6, .. } = persisted;
        for (key, leases, limit) in
            [("vips.range4", leases4, self.addresses4), ("vips.range6", leases6, self.addresses6)]
        {
            // A range that no cluster can use up says nothing.
            if limit <= u32::MAX as usize {
                let uncounted = std::iter::empty();
                uses.push(SharedUse::new(&format!("addresses of {key}"), leases.len(), limit, uncounted));
            }
        }
        uses
    }
}

/// Returns the part of a plane's servers that is kept for those that are leaving, so that one which takes the
/// place of another always finds room.
fn reserve(servers: usize) -> usize {
    servers / 8
}

/// Leaves out of `services` what has no room of the servers of `some` of them. Returns their number.
fn confine(
    skipped: &mut Vec<Skipped>,
    services: &mut Services,
    some: &[(ServiceKey, Arc<Programmed>)],
    room: usize,
    bound: &str,
) -> usize {
    let members =
        || some.iter().flat_map(|(key, known)| known.servers.iter().map(move |server| (*key, server)));
    let items: Vec<&Tenants> = members().map(|(_, (_, backend))| &backend.tenants).collect();
    let division = divide(&items, room);
    let named = members().map(|(key, (address, backend))| {
        (&backend.tenants, backend.task.to_string(), format!("{address} of {key}"))
    });
    skipped.extend(division.records(named, "backends", bound));
    let left_out = division.admitted.iter().filter(|admitted| !**admitted).count();
    let mut admitted = division.admitted.into_iter();
    for (key, programmed) in some {
        let is_admitted = |_: &SocketAddr, _: &Backend| admitted.next() != Some(false);
        let mut servers = programmed.servers.clone();
        servers.retain(is_admitted);
        if servers.len() < programmed.servers.len()
            && let Some(known) = services.get_mut(key)
        {
            Arc::make_mut(known).servers = servers;
        }
    }
    left_out
}
