//! Addresses: which name has which, which VIPs are remembered, and which address of its own a node
//! uses towards VIPs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::desired::Sources;
use crate::dataplane::Node;
use crate::store::Persisted;
use crate::vip::alloc::AddressRange;
use crate::vip::{Host, VipKey, VipTable};

/// Notes which VIPs exist, and returns those that have lost all backends but are not forgotten yet. A
/// literal VIP whose address `refuses` selects is forgotten at once: it belongs to something that was
/// learnt of later.
pub fn remember(
    persisted: &mut Persisted,
    table: &VipTable,
    refuses: impl Fn(IpAddr) -> bool,
    now: Timestamp,
    linger: Duration,
) -> BTreeSet<VipKey> {
    // A VIP that serves again starts anew: its time without backends is forgotten.
    for key in table.vips.keys() {
        persisted.vips.insert(key.clone(), None);
    }
    persisted.vips.retain(|key, since| {
        if table.vips.contains_key(key) {
            return true;
        }
        if key.literal().is_some_and(&refuses) {
            return false;
        }
        // Tasks that are being started will serve the VIP, so its time does not run.
        if table.awaited.contains(key) {
            *since = None;
            return true;
        }
        // The first pass without backends starts the time, later ones leave it.
        let since = *since.get_or_insert(now);
        Duration::try_from(now.duration_since(since)).unwrap_or_default() <= linger
    });
    persisted.vips.keys().filter(|key| !table.vips.contains_key(*key)).cloned().collect()
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
) -> Vec<String> {
    let mut ranked: Vec<_> = table.vips.iter().collect();
    // The order decides which of two names with the same hash gets the address that Minuteman gives it.
    ranked.sort_by(|(_, a), (_, b)| b.rank.cmp(&a.rank));
    // A name takes an address only of the families that its backends have: one without a backend would
    // answer clients with a refusal where the other family works.
    let names = |ipv4: bool| {
        ranked.iter().filter_map(move |(key, vip)| match &key.host {
            Host::Named(name) if vip.backends.keys().any(|backend| backend.is_ipv4() == ipv4) => {
                Some(name.as_str())
            }
            _ => None,
        })
    };
    // Before old names are removed: an address that was just given up is not given to a new name in the
    // same pass, so that clients with an old DNS answer do not reach it.
    let mut unplaced = persisted.leases4.assign(range4, names(true), literals);
    unplaced.extend(persisted.leases6.assign(range6, names(false), literals));
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
