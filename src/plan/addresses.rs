//! Addresses: which name has which, which VIPs are remembered, and which address of its own a node
//! uses towards VIPs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::desired::Sources;
use super::shares::divide;
use crate::cluster::SharedMap;
use crate::dataplane::Node;
use crate::store::Persisted;
use crate::vip::alloc::AddressRange;
use crate::vip::{Host, Tenants, Vip, VipKey, VipTable};

/// Forgets VIPs that have had no backends for longer than `linger`, and notes which have lost theirs. A literal
/// VIP whose address `refuses` selects is forgotten at once: it belongs to something that was learnt of later.
pub fn forget(
    persisted: &mut Persisted,
    table: &VipTable,
    refuses: impl Fn(IpAddr) -> bool,
    now: Timestamp,
    linger: Duration,
) {
    // What a VIP's entry becomes, or `None` if it is forgotten.
    let next = |key: &VipKey, since: Option<Timestamp>| {
        // A VIP that serves again starts anew: its time without backends is forgotten.
        if table.vips.contains_key(key) {
            return Some(None);
        }
        if key.literal().is_some_and(&refuses) {
            return None;
        }
        // Tasks that are being started will serve the VIP, so its time does not run.
        if table.awaited.contains(key) {
            return Some(None);
        }
        // The first pass without backends starts the time, later ones leave it.
        let since = since.unwrap_or(now);
        let is_kept = Duration::try_from(now.duration_since(since)).unwrap_or_default() <= linger;
        is_kept.then_some(Some(since))
    };
    // Only those that differ are touched: the rest stays shared with what is on disk.
    let all = persisted.vips.iter().map(|(key, since)| (key, *since, next(key, *since)));
    let changed: Vec<(VipKey, Option<Option<Timestamp>>)> = all
        .filter(|(_, since, next)| *next != Some(*since))
        .map(|(key, _, next)| (key.clone(), next))
        .collect();
    for (key, next) in changed {
        match next {
            Some(since) => drop(persisted.vips.insert(key, since)),
            None => drop(persisted.vips.remove(&key)),
        }
    }
}

/// Notes which VIPs there are, and whose they are: a VIP that loses its tasks is that of its last ones. Returns
/// those that have lost all backends but are not forgotten yet.
pub fn remember(
    persisted: &mut Persisted,
    owners: &mut SharedMap<VipKey, Tenants>,
    table: &VipTable,
) -> BTreeSet<VipKey> {
    for (key, vip) in &table.vips {
        if persisted.vips.get(key) != Some(&None) {
            persisted.vips.insert(key.clone(), None);
        }
        note_owners(owners, key, vip);
    }
    owners.retain(|key, _| persisted.vips.contains_key(key));
    persisted.vips.keys().filter(|key| !table.vips.contains_key(*key)).cloned().collect()
}

/// Notes whose a VIP is.
pub fn note_owners(owners: &mut SharedMap<VipKey, Tenants>, key: &VipKey, vip: &Vip) {
    let Some(tenants) = &vip.tenants else { return };
    // Looked up first: most VIPs are known as they are, and nothing need be copied.
    if owners.get(key) != Some(tenants) {
        owners.insert(key.clone(), tenants.clone());
    }
}

/// Gives every name of the table an address, in Minuteman's order, and takes back the addresses of
/// forgotten names. New names come first, as with Minuteman. No name gets an address of `literals`, the
/// part of a range that is for literal VIPs. Returns the names for which no address was free.
pub fn assign(
    persisted: &mut Persisted,
    table: &VipTable,
    range4: &AddressRange,
    range6: &AddressRange,
    literals: Option<AddressRange>,
    owners: &SharedMap<VipKey, Tenants>,
) -> Vec<String> {
    // A name that is beyond its app's share gives its address up at once: it is needed by one within its share.
    let beyond4 = beyond_share(persisted, table, owners, range4, literals);
    let beyond6 = beyond_share(persisted, table, owners, range6, literals);
    persisted.leases4.retain(|name| !beyond4.contains(name));
    persisted.leases6.retain(|name| !beyond6.contains(name));
    let ranked = Ranked::of(table.vips.iter());
    // Before old names are removed: an address that was just given up is not given to a new name in the
    // same pass, so that clients with an old DNS answer do not reach it.
    let within4 = ranked.names(true).filter(|name| !beyond4.contains(*name));
    let mut unplaced = persisted.leases4.assign(range4, within4, literals);
    let within6 = ranked.names(false).filter(|name| !beyond6.contains(*name));
    unplaced.extend(persisted.leases6.assign(range6, within6, literals));
    for (beyond, ipv4) in [(beyond4, true), (beyond6, false)] {
        // A vacant name wants no address.
        let wanted: BTreeSet<&str> = ranked.names(ipv4).filter(|name| beyond.contains(*name)).collect();
        unplaced.extend(wanted.into_iter().map(str::to_owned));
    }
    // A name keeps its address as long as any VIP of it is remembered.
    let named = |key: &VipKey| match &key.host {
        Host::Named(name) => Some(name.clone()),
        Host::Literal(_) => None,
    };
    let known: BTreeSet<String> = table.vips.keys().chain(persisted.vips.keys()).filter_map(named).collect();
    persisted.leases4.retain(|name| known.contains(name));
    persisted.leases6.retain(|name| known.contains(name));
    unplaced
}

/// Gives addresses to the names of some VIPs, which are all that may have none, where no share binds. Returns the
/// names for which none was free.
pub fn assign_to<'t>(
    persisted: &mut Persisted,
    vips: impl Iterator<Item = (&'t VipKey, &'t Arc<Vip>)>,
    range4: &AddressRange,
    range6: &AddressRange,
    literals: Option<AddressRange>,
) -> Vec<String> {
    let ranked = Ranked::of(vips);
    let mut unplaced = persisted.leases4.assign(range4, ranked.names(true), literals);
    unplaced.extend(persisted.leases6.assign(range6, ranked.names(false), literals));
    unplaced
}

/// VIPs in the order in which their names take addresses: it decides which of two names with the same hash gets the
/// address that Minuteman gives it.
struct Ranked<'t>(Vec<(&'t VipKey, &'t Arc<Vip>)>);

impl<'t> Ranked<'t> {
    fn of(vips: impl Iterator<Item = (&'t VipKey, &'t Arc<Vip>)>) -> Self {
        let mut ranked: Vec<_> = vips.collect();
        ranked.sort_by(|(_, a), (_, b)| b.rank.cmp(&a.rank));
        Self(ranked)
    }

    /// Returns the names that need an address of a family: those with backends of it. One without would answer
    /// clients with a refusal where the other family works.
    fn names(&self, ipv4: bool) -> impl Iterator<Item = &'t str> {
        self.0.iter().filter_map(move |(key, vip)| match &key.host {
            Host::Named(name) if vip.backends.keys().any(|backend| backend.is_ipv4() == ipv4) => {
                Some(name.as_str())
            }
            _ => None,
        })
    }
}

/// Returns the number of addresses of a range that names can have.
pub fn room(range: &AddressRange, literals: Option<&AddressRange>) -> usize {
    range.size() - literals.filter(|literals| range.covers(literals)).map_or(0, AddressRange::size)
}

/// Returns the names that get no address of a range because their apps have their fair shares of it; none as
/// long as there are enough.
fn beyond_share(
    persisted: &Persisted,
    table: &VipTable,
    owners: &SharedMap<VipKey, Tenants>,
    range: &AddressRange,
    literals: Option<AddressRange>,
) -> BTreeSet<String> {
    let room = room(range, literals.as_ref());
    // The usual case; each name has a VIP that is remembered.
    if persisted.vips.len() <= room {
        return BTreeSet::new();
    }
    let ipv4 = range.is_ipv4();
    let leases = if ipv4 { &persisted.leases4 } else { &persisted.leases6 };
    let mut tenants: BTreeMap<&str, Tenants> = BTreeMap::new();
    for key in persisted.vips.keys() {
        let Host::Named(name) = &key.host else { continue };
        let of_vip = match table.vips.get(key) {
            Some(vip) if vip.backends.keys().any(|backend| backend.is_ipv4() == ipv4) => vip.tenants.as_ref(),
            // A vacant VIP refuses connections at the address that it had.
            _ if leases.get(name).is_some() => owners.get(key),
            _ => continue,
        };
        let of_vip = of_vip.cloned().unwrap_or_default();
        // A name has a place if any of the apps behind its VIPs has room for it.
        tenants.entry(name).and_modify(|known| known.join(&of_vip)).or_insert(of_vip);
    }
    // Of one app names that have an address keep it before new ones get one.
    let mut names: Vec<(&str, Tenants)> = tenants.into_iter().collect();
    names.sort_by_key(|(name, _)| leases.get(name).is_none());
    let items: Vec<&Tenants> = names.iter().map(|(_, tenants)| tenants).collect();
    let admitted = divide(&items, room).admitted.into_iter();
    let beyond = names.iter().zip(admitted).filter(|(_, admitted)| !admitted);
    beyond.map(|((name, _), _)| (*name).to_owned()).collect()
}

/// Returns the node's own address per family: as configured, else the one under which Mesos knows the
/// node, else the one that the kernel prefers. The kernel refuses routes with a source that is not ready.
pub fn sources(configured: Sources, agents: &BTreeSet<IpAddr>, node: &Node) -> Sources {
    let as_agent = |ipv4: bool| {
        // A cluster of one machine knows its agent by a loopback address, from which no backend elsewhere
        // can be reached.
        let own = |address: &&IpAddr| {
            address.is_ipv4() == ipv4 && !address.is_loopback() && node.is_source(address)
        };
        agents.iter().find(own).copied()
    };
    Sources {
        v4: configured.v4.or_else(|| as_agent(true)).or(node.default_source4),
        v6: configured
            .v6
            .filter(|address| !node.unready.contains(address))
            .or_else(|| as_agent(false))
            .or(node.default_source6),
    }
}
