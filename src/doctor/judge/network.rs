//! Checks of addresses, routes and links.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::doctor::facts::NodeFacts;
use crate::doctor::finding::Finding;
use crate::doctor::settings::DoctorSettings;

/// Overlaps that are shown.
const SHOWN: usize = 8;

/// VIPs are addresses that nothing else may have: what is in a range cannot be reached from this node.
pub fn ranges(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "ranges";
    let (node, surroundings) = match &facts.network {
        Ok(network) => network,
        Err(reason) => return vec![Finding::skipped(CHECK, reason.as_str())],
    };
    let networks = settings.networks();
    let is_within = |address: &IpAddr| networks.iter().any(|network| network.contains(address));
    let key = |ipv4| if ipv4 { "vips.range4" } else { "vips.range6" };
    let fault = |what: String, ipv4: bool| {
        Finding::fault(CHECK, what).at(key(ipv4)).mended_by(format!(
            "set {} in /etc/l4lbd/l4lbd.toml to a range that nothing else uses, on all nodes; l4lbd check && systemctl \
             restart l4lbd",
            key(ipv4)
        ))
    };
    let mut found = Vec::new();
    let overlaps =
        |network: &IpNet| networks.iter().any(|range| range.contains(network) || network.contains(range));
    for (network, link) in surroundings.routes.iter().filter(|(network, _)| overlaps(network)) {
        found.push(fault(
            format!(
                "the route {network} dev {link} and the range of VIPs overlap: this node cannot reach hosts there whose \
                 addresses are in the range"
            ),
            network.addr().is_ipv4(),
        ));
    }
    let named = |addresses: BTreeSet<IpAddr>, what: &'static str| {
        addresses.into_iter().filter(is_within).map(move |address| (address, what)).collect::<Vec<_>>()
    };
    let depended = settings.infrastructure.iter().filter(|(address, _)| is_within(address));
    let addresses = named(node.addresses.clone(), "an address of this node")
        .into_iter()
        .chain(named(node.gateways.clone(), "a router of this node"))
        .chain(named(node.nameservers.clone(), "a nameserver of this node"))
        .chain(named(facts.neighbours.clone(), "a host that has answered this node"))
        .chain(depended.map(|(address, what)| (*address, *what)));
    for (address, what) in addresses {
        found.push(fault(format!("{address} is {what}, and in the range of VIPs"), address.is_ipv4()));
    }
    let more = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    if more > 0 {
        found.push(Finding::fault(
            CHECK,
            format!("{more} more routes and addresses are in the ranges of VIPs"),
        ));
    }
    if found.is_empty() {
        let shown: Vec<String> = settings.ranges.iter().map(ToString::to_string).collect();
        found.push(Finding::ok(CHECK, format!("nothing else is in {}", shown.join(" and "))));
    }
    found
}

/// A container whose packets are larger than those of the links that lead out depends on being told.
pub fn mtu(facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "mtu";
    let (node, surroundings) = match &facts.network {
        Ok(network) => network,
        Err(reason) => return vec![Finding::skipped(CHECK, reason.as_str())],
    };
    let uplinks = surroundings.mtus.iter().filter(|(link, _)| surroundings.uplinks.contains(*link));
    // A packet may leave by any of them, so that the narrowest one decides.
    let Some((narrow, least)) = uplinks.min_by_key(|(_, mtu)| **mtu) else {
        return vec![Finding::skipped(CHECK, "no link leads out of this node")];
    };
    let inside: BTreeSet<&str> = node.container_links().into_iter().map(|(link, _)| link).collect();
    let mut found = Vec::new();
    for link in inside {
        if let Some(mtu) = surroundings.mtus.get(link).filter(|mtu| *mtu > least) {
            let finding = Finding::warning(
                CHECK,
                format!(
                    "containers send packets of {mtu} octets, and {narrow} takes {least}: connections hang where a \
                     firewall drops the ICMP that says so"
                ),
            );
            let finding = finding.at(link);
            // A link may have almost any name, and only a plain one may go into a command for a shell.
            found.push(match crate::dataplane::firewall::is_plain(link) {
                true => finding.mended_by(format!(
                    "ip link set dev {link} mtu {least}; and the same for new containers (Docker: \"mtu\" in \
                     /etc/docker/daemon.json)"
                )),
                false => finding,
            });
        }
    }
    if found.is_empty() {
        found.push(Finding::ok(
            CHECK,
            format!("links of containers have no larger packets than {narrow} ({least})"),
        ));
    }
    found
}
