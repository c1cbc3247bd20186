//! Warnings about VIPs that work, but not as their users may expect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;

use super::desired::{Desired, Sources};
use crate::cluster::Protocol;
use crate::dataplane::{Node, ServiceKey};
use crate::vip::summarize;

/// Returns the warnings for a desired state.
pub fn warnings(desired: &Desired, sources: Sources, node: &Node) -> Vec<String> {
    let mut warnings = Vec::from_iter(unscheduled(desired));
    if node.capabilities.packets {
        warnings.extend(of_packets(desired, sources, node));
    }
    warnings
}

/// A plane with a single way to choose a server takes no scheduler from a label.
fn unscheduled(desired: &Desired) -> Option<String> {
    (!desired.unscheduled.is_empty()).then(|| {
        format!(
            "the label L4LB_SCHEDULER has no effect on {}: this node's data plane has one way to choose a backend; \
             remove the label, or set dataplane.kind = \"ipvs\" on nodes that have it",
            summarize(&desired.unscheduled)
        )
    })
}

/// Returns the warnings about packets that pass the node's network stack.
fn of_packets(desired: &Desired, sources: Sources, node: &Node) -> Vec<String> {
    let mut warnings = shared_backends(desired);
    warnings.extend(node.no_hairpin.iter().filter_map(|bridge| no_hairpin(desired, node, bridge)));
    let has = |ipv4: bool| desired.services.keys().any(|key| key.address.is_ipv4() == ipv4);
    if has(true) && sources.v4.is_none() {
        warnings.push(
            "this node's IPv4 address is not known, so its own clients can't reach backends elsewhere: set \
             node.address"
                .to_owned(),
        );
    }
    if has(false) && !node.forwards_ipv6 {
        warnings.push(
            "containers can't reach IPv6 VIPs: net.ipv6.conf.all.forwarding is 0, and switching it on changes \
             how this node configures itself, which is left to you"
                .to_owned(),
        );
    }
    warnings
}

/// IPVS cannot tell apart two connections of one client port to one server, so each group of VIPs
/// that share servers gets a warning.
fn shared_backends(desired: &Desired) -> Vec<String> {
    // By protocol as well: a TCP and a UDP service on one server never meet in the connection table.
    let mut users: BTreeMap<(SocketAddr, Protocol), BTreeSet<&ServiceKey>> = BTreeMap::new();
    for (key, programmed) in &desired.services {
        for server in programmed.servers.keys() {
            users.entry((*server, key.protocol)).or_default().insert(key);
        }
    }
    // One warning per group of VIPs, not per server: a group of large VIPs would fill the status.
    let mut shared: BTreeMap<BTreeSet<&ServiceKey>, usize> = BTreeMap::new();
    for keys in users.into_values().filter(|keys| keys.len() > 1) {
        *shared.entry(keys).or_default() += 1;
    }
    let names = |keys: &BTreeSet<&ServiceKey>| {
        let named = keys.iter().filter_map(|key| desired.services.get(key));
        summarize(named.map(|programmed| &programmed.vip))
    };
    let warning = |(keys, count): (&BTreeSet<&ServiceKey>, &usize)| {
        format!(
            "{} share {count} backend address{}: IPVS confuses two connections to them that have the \
             same client address and port; give each VIP a task port of its own",
            names(keys),
            if *count == 1 { "" } else { "es" }
        )
    };
    shared.iter().map(warning).collect()
}

/// A bridge whose ports do not reflect keeps a container from reaching itself through a VIP.
fn no_hairpin(desired: &Desired, node: &Node, bridge: &String) -> Option<String> {
    // Containers of the bridge are the backends in its networks.
    let networks: Vec<&IpNet> =
        node.connected.iter().filter(|(_, link)| link == bridge).map(|(network, _)| network).collect();
    let is_behind = |address: &SocketAddr| networks.iter().any(|network| network.contains(&address.ip()));
    let vips: BTreeSet<String> = desired
        .services
        .values()
        .filter(|programmed| programmed.servers.keys().any(is_behind))
        .map(|programmed| programmed.vip.to_string())
        .collect();
    (!vips.is_empty()).then(|| {
        format!(
            "a container on {bridge} can't reach itself through {}: switch hairpin mode on for its bridge \
             ports, or set net.bridge.bridge-nf-call-iptables to 0",
            summarize(vips)
        )
    })
}
