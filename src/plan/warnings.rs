//! Warnings about VIPs that work, but not as their users may expect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;

use super::desired::{Desired, Programmed, Sources};
use crate::cluster::{Agent, Protocol, Snapshot, shortened};
use crate::dataplane::{Node, ServiceKey};
use crate::vip::{Condition, VipKey, VipTable, summarize};

/// Warnings about VIPs that share backends that are listed; more are only counted.
const MAX_SHARED: usize = 50;

/// Returns the warnings for a table and the desired state that was made of it.
pub fn warnings(table: &VipTable, desired: &Desired, sources: Sources, node: &Node) -> Vec<String> {
    let mut warnings = table.doubtful.warnings();
    warnings.extend(unscheduled(desired));
    warnings.extend(unweighted(desired));
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

/// A scheduler that chooses by the VIP alone takes no account of weights other than 0.
fn unweighted(desired: &Desired) -> Option<String> {
    let all = desired.services.values();
    let vips: BTreeSet<&VipKey> = all
        .filter(|programmed| programmed.weights.is_some() && programmed.scheduling.scheduler == "dh")
        .map(|programmed| &programmed.vip)
        .collect();
    (!vips.is_empty()).then(|| {
        format!(
            "the labels L4LB_WEIGHT and L4LB_SLOW_START have no effect on {}: the scheduler dh takes no account of \
             weights; choose another by L4LB_SCHEDULER or ipvs.scheduler",
            summarize(vips)
        )
    })
}

/// Returns the warnings about packets that pass the node's network stack.
fn of_packets(desired: &Desired, sources: Sources, node: &Node) -> Vec<String> {
    let mut warnings = shared_backends(desired);
    for (is_filtered, ipv4) in [(node.filters_bridged4, true), (node.filters_bridged6, false)] {
        // Where bridged packets skip netfilter, none has to be turned around.
        let bridges = node.no_hairpin.iter().filter(|_| is_filtered);
        warnings.extend(bridges.filter_map(|bridge| no_hairpin(desired, node, bridge, ipv4)));
    }
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

/// Returns a warning for each address that should be this node's and is not: that of its agent, and those
/// that are `configured`.
pub fn address_warnings(snapshot: &Snapshot, configured: Sources, node: &Node) -> Vec<String> {
    let has = || {
        let ordinary = node.addresses.iter().filter(|address| !address.is_loopback());
        format!("which this node does not have (it has {})", summarize(ordinary))
    };
    let agents = own_agents(snapshot, node).filter_map(|(id, agent)| {
        let address = agent.address.filter(|address| !node.addresses.contains(address))?;
        Some(format!(
            "this node's agent {} ({}) has the address {address}, {}: its tasks are taken for another node's; \
             start the agent with an address of this node (--ip, --advertise_ip), or add that one to a link",
            shortened(id.clone()),
            shortened(agent.hostname.clone()),
            has()
        ))
    });
    let keys = [("node.address", configured.v4), ("node.address6", configured.v6)];
    let keys = keys.into_iter().filter_map(|(key, address)| Some((key, address?)));
    let missing = keys.filter(|(_, address)| !node.addresses.contains(address));
    let keys = missing.map(|(key, address)| format!("{key} is {address}, {}: correct it", has()));
    agents.chain(keys).collect()
}

/// The agents of this node: those that were asked themselves; else the one that has the node's hostname, unless
/// another agent has an address of the node.
fn own_agents<'a>(snapshot: &'a Snapshot, node: &Node) -> impl Iterator<Item = (&'a String, &'a Agent)> {
    let asked = snapshot.own_agents.iter().filter_map(|id| Some((id, snapshot.agents.get(id)?)));
    let is_known = |(_, agent): (&String, &Agent)| {
        agent.address.is_some_and(|address| node.addresses.contains(&address))
    };
    let mut named = None;
    if snapshot.own_agents.is_empty() && !snapshot.agents.iter().any(is_known) {
        let mut found = snapshot.agents.iter().filter(|(_, agent)| is_host(&agent.hostname, &node.hostname));
        // Two agents of that name say nothing about which of them is here.
        named = found.next().filter(|_| found.next().is_none());
    }
    asked.chain(named)
}

/// Returns true if two names are those of one host, one of them perhaps without its domain.
fn is_host(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    let is_short =
        |short: &str, long: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('.'));
    let is_name = |name: &str| !name.is_empty() && name != "localhost";
    is_name(&one) && is_name(&other) && (one == other || is_short(&one, &other) || is_short(&other, &one))
}

/// IPVS cannot tell apart two connections of one client port to one server, so each group of VIPs
/// that share servers gets a warning.
fn shared_backends(desired: &Desired) -> Vec<String> {
    // By protocol as well: a TCP and a UDP service on one server never meet in the connection table.
    let mut users: BTreeMap<(SocketAddr, Protocol), BTreeSet<&ServiceKey>> = BTreeMap::new();
    for (key, programmed) in &desired.services {
        for server in staying(programmed) {
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
    let mut warnings: Vec<String> = shared.iter().take(MAX_SHARED).map(warning).collect();
    if let Some(more) = shared.len().checked_sub(MAX_SHARED).filter(|more| *more > 0) {
        warnings.push(format!("{more} more groups of VIPs share backend addresses"));
    }
    warnings
}

/// Returns the servers of a service whose tasks documents know: what leaves is gone before a warning is of use.
fn staying(programmed: &Programmed) -> impl Iterator<Item = &SocketAddr> {
    let servers = programmed.servers.iter();
    servers.filter(|(_, backend)| backend.condition != Condition::Gone).map(|(address, _)| address)
}

/// A bridge whose ports do not reflect keeps a container from reaching itself through a VIP of the family.
fn no_hairpin(desired: &Desired, node: &Node, bridge: &String, ipv4: bool) -> Option<String> {
    // Containers of the bridge are the backends in its networks.
    let networks: Vec<&IpNet> =
        node.connected.iter().filter(|(_, link)| link == bridge).map(|(network, _)| network).collect();
    let is_behind = |address: &SocketAddr| {
        address.is_ipv4() == ipv4 && networks.iter().any(|network| network.contains(&address.ip()))
    };
    let vips: BTreeSet<String> = desired
        .services
        .values()
        .filter(|programmed| staying(programmed).any(is_behind))
        .map(|programmed| programmed.vip.to_string())
        .collect();
    let setting = if ipv4 { "iptables" } else { "ip6tables" };
    (!vips.is_empty()).then(|| {
        format!(
            "a container on {bridge} can't reach itself through {}: switch hairpin mode on for its bridge \
             ports, or set net.bridge.bridge-nf-call-{setting} to 0",
            summarize(vips)
        )
    })
}
