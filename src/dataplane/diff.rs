//! Comparison of two states: the operations that turn one into the other.
//!
//! For example, a service with server A that should have server B instead becomes `add server B`, `delete
//! server A`, in this order, so that it is never without one.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use super::op::Op;
use super::state::{Connections, Link, RealServer, Service, ServiceKey, State};
use crate::cluster::SharedMap;

/// Lists the operations that lead from `actual` to `desired`, in an order in which no client sees a
/// half-made change:
///
/// 1. routes that go;
/// 2. settings of the kernel, timeouts, the link, new addresses on it, and rules;
/// 3. services that go, then those that get no new servers, and then those that do, so that room is made
///    first; within a service new servers come before old ones leave;
/// 4. new routes, which send clients there;
/// 5. addresses and rules that go, and at the end the link.
///
/// `seed` shuffles the order in which a service's new real servers are added, because the kernel
/// sends the first connection to the last one of them: nodes with different seeds start with
/// different servers.
pub fn diff(actual: &State, desired: &State, seed: u64) -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    let link_stays = desired.link == Link::Up;
    // A route that is not wanted takes packets from their real destination. One whose preferred source
    // changes stays, because adding it anew replaces it.
    let destinations: BTreeSet<_> = desired.routes.iter().map(|route| route.destination).collect();
    let gone = actual.routes.iter().filter(|route| !destinations.contains(&route.destination));
    ops.extend(gone.map(|route| Op::DelRoute(*route)));
    // Services rely on settings and timeouts from their first connection on. A setting that is no longer
    // wanted stays, because other programs may rely on it by now.
    for (path, value) in &desired.sysctls {
        if actual.sysctls.get(path) != Some(value) {
            ops.push(Op::SetSysctl { path: path.clone(), value: value.clone() });
        }
    }
    if let Some(timeouts) = desired.timeouts.filter(|_| desired.timeouts != actual.timeouts) {
        ops.push(Op::SetTimeouts(timeouts));
    }
    // Addresses and routes need the link.
    if link_stays {
        ops.extend((actual.link == Link::Absent).then_some(Op::AddLink));
        ops.extend((actual.link != Link::Up).then_some(Op::SetLinkUp));
    }
    ops.extend(desired.addresses.difference(&actual.addresses).map(|address| Op::AddAddress(*address)));
    // With a link that goes up the kernel makes the routes of its addresses itself.
    let unrouted = desired.addresses.intersection(&actual.unrouted).filter(|_| actual.link == Link::Up);
    ops.extend(unrouted.map(|address| Op::AddLocalRoute(*address)));
    if let Some(rules) = desired.rules.as_ref().filter(|_| desired.rules != actual.rules) {
        ops.push(Op::ReplaceRules(rules.clone()));
    }
    services(actual, desired, seed, &mut ops);
    // Only now everything is there that clients may be sent to.
    ops.extend(desired.routes.difference(&actual.routes).map(|route| Op::AddRoute(*route)));
    ops.extend(actual.addresses.difference(&desired.addresses).map(|address| Op::DelAddress(*address)));
    if desired.rules.is_none() && actual.rules.is_some() {
        ops.push(Op::DelRules);
    }
    // Last, because the kernel removes what is left on the link with it.
    if !link_stays && actual.link != Link::Absent {
        ops.push(Op::DelLink);
    }
    ops
}

/// Sorts the operations on services so that services with most connections come first; all other
/// operations stay where they are.
pub fn most_used_first(ops: &mut [Op], connections: &BTreeMap<(ServiceKey, SocketAddr), Connections>) {
    let mut use_of: BTreeMap<ServiceKey, u64> = BTreeMap::new();
    for ((key, _), count) in connections {
        *use_of.entry(*key).or_default() += u64::from(count.active) + u64::from(count.inactive);
    }
    // Only the stretch of services is sorted: routes and rules have their places before and behind it.
    let start = ops.iter().position(|op| op.service().is_some()).unwrap_or(ops.len());
    let length = ops.iter().skip(start).take_while(|op| op.service().is_some()).count();
    let on_services = ops.get_mut(start..start + length).unwrap_or_default();
    on_services
        .sort_by_cached_key(|op| op.service().map(|key| Reverse(use_of.get(key).copied().unwrap_or(0))));
}

/// Lists the operations of [`diff`] for some services, where all else is known to be the same.
pub fn diff_services(actual: &State, desired: &State, services: &BTreeSet<ServiceKey>, seed: u64) -> Vec<Op> {
    let mut ops = Vec::new();
    // In the order of the whole comparison, so that both lists are the same.
    let found = services.iter().filter(|key| actual.services.contains_key(key));
    delete(found, desired, &mut ops);
    let wanted = services.iter().filter_map(|key| desired.services.get_key_value(key));
    add_and_change(actual, wanted, seed, &mut ops);
    ops
}

fn services(actual: &State, desired: &State, seed: u64, ops: &mut Vec<Op>) {
    // What only goes makes room for what comes: a plane may hold so many and no more.
    delete(actual.services.keys(), desired, ops);
    add_and_change(actual, desired.services.iter(), seed, ops);
}

fn delete<'s>(found: impl Iterator<Item = &'s ServiceKey>, desired: &State, ops: &mut Vec<Op>) {
    let gone = found.filter(|key| !desired.services.contains_key(key));
    ops.extend(gone.map(|key| Op::DelService(*key)));
}

fn add_and_change<'s>(
    actual: &State,
    wanted: impl Iterator<Item = (&'s ServiceKey, &'s Arc<Service>)>,
    seed: u64,
    ops: &mut Vec<Op>,
) {
    let grows = |key: &ServiceKey, wanted: &Service| {
        let found = actual.services.get(key);
        wanted.servers.keys().any(|server| found.is_none_or(|found| !found.servers.contains_key(server)))
    };
    let (growing, others): (Vec<_>, Vec<_>) = wanted.partition(|(key, wanted)| grows(key, wanted));
    let none = SharedMap::default();
    // What only loses servers makes the room that growing services need.
    for (key, wanted) in others.into_iter().chain(growing) {
        let servers = match actual.services.get(key) {
            Some(found) => {
                if found.scheduling != wanted.scheduling {
                    // Changed in place: deleting and adding it would end its connections.
                    ops.push(Op::SetService(*key, wanted.scheduling.clone()));
                }
                &found.servers
            }
            None => {
                ops.push(Op::AddService(*key, wanted.scheduling.clone()));
                &none
            }
        };
        real_servers(*key, servers, wanted, seed, ops);
    }
}

fn real_servers(
    key: ServiceKey,
    found: &SharedMap<SocketAddr, RealServer>,
    wanted: &Service,
    seed: u64,
    ops: &mut Vec<Op>,
) {
    let mut new: Vec<(SocketAddr, RealServer)> = Vec::new();
    for (address, server) in &wanted.servers {
        match found.get(address) {
            Some(present) if present == server => {}
            // Also for a changed weight, which the kernel applies without touching connections.
            Some(_) => ops.push(Op::SetServer(key, *address, *server)),
            None => new.push((*address, *server)),
        }
    }
    // Servers that stay are in use already; only the order of new ones matters.
    new.sort_by_cached_key(|(address, _)| shuffled(seed, *address));
    ops.extend(new.into_iter().map(|(address, server)| Op::AddServer(key, address, server)));
    // Behind the new ones, so that the service never has none.
    let gone = found.keys().filter(|address| !wanted.servers.contains_key(address));
    ops.extend(gone.map(|address| Op::DelServer(key, *address)));
}

fn shuffled(seed: u64, address: SocketAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, address).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
