//! Netfilter rules and kernel settings that packets to VIPs need beside virtual services.
//!
//! The rules let traffic of the VIP range pass by the port mappings of container runtimes, masquerade
//! connections that would leave by the link they came from, refuse ports without a service, count what
//! of the containers' packets reaches IPVS, and keep clients from tasks as the operator wants it. They
//! never name a service, so that the table changes only with the node's networks and with literal
//! VIPs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::node::Capabilities;
use super::settings::Denied;

/// Name of our table, in family `inet`.
pub const TABLE: &str = "l4lbd";

/// Counter of new connections from containers to VIPs, as they come in.
pub const VIPS_ARRIVED: &str = "vips_arrived";
/// Counter of those of them that no firewall has dropped before IPVS takes them.
pub const VIPS_REACHED: &str = "vips_reached";
/// Counter of questions from containers to the DNS server, as they come in.
pub const DNS_ARRIVED: &str = "dns_arrived";
/// Counter of those of them that no firewall has dropped.
pub const DNS_REACHED: &str = "dns_reached";

/// Everything that the rules depend on.
#[derive(Clone, Copy, Debug)]
pub struct RuleInputs<'a> {
    /// Networks of VIPs.
    pub vips: &'a BTreeSet<IpNet>,
    /// Directly connected networks, each with the name of its link.
    pub connected: &'a BTreeSet<(IpNet, String)>,
    /// Networks of the node's containers.
    pub clients: &'a BTreeSet<IpNet>,
    /// Addresses of our own that the DNS server listens on.
    pub listeners: &'a BTreeSet<IpAddr>,
    /// Clients that may not reach tasks through VIPs.
    pub denied: &'a [Denied],
    /// Group of the daemon's sockets, which reach no VIP.
    pub own_group: Option<u32>,
}

/// A table's text in the form in which `nft list table` prints it, without indentation: equal texts
/// mean equal rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet(String);

impl RuleSet {
    /// Returns the rules for the VIPs and the node of `inputs`.
    ///
    /// Networks inside another one of the same link are left out, as are links whose names nft can't
    /// write.
    pub fn new(inputs: RuleInputs<'_>) -> Self {
        let vips = outermost(inputs.vips.iter().map(|net| (*net, ())));
        let clients = outermost(inputs.clients.iter().map(|net| (*net, ())));
        let listeners: Vec<(IpNet, ())> =
            inputs.listeners.iter().map(|address| (IpNet::from(*address), ())).collect();
        let connected = inputs.connected.iter().map(|(net, link)| (*net, link.as_str()));
        let connected = outermost(connected.filter(|(_, link)| is_writable(link)));
        let mut text = format!("table inet {TABLE} {{\n");
        for counter in [VIPS_ARRIVED, VIPS_REACHED, DNS_ARRIVED, DNS_REACHED] {
            let _ = writeln!(text, "counter {counter} {{\n}}");
        }
        // A set has one family, and both chains name both sets, so empty ones are made as well.
        for (family, wanted) in [("4", true), ("6", false)] {
            let type_ = if wanted { "ipv4_addr" } else { "ipv6_addr" };
            for (name, networks) in [("vips", &vips), ("clients", &clients), ("dns", &listeners)] {
                let networks = networks.iter().filter(|(net, ())| is_ipv4(net) == wanted);
                let networks: Vec<String> = networks.map(|(net, ())| element(net)).collect();
                set(&mut text, &format!("{name}{family}"), type_, &networks);
            }
            let connected: Vec<String> = connected
                .iter()
                .filter(|(net, _)| is_ipv4(net) == wanted)
                .map(|(net, link)| format!("{} . \"{link}\"", element(net)))
                .collect();
            set(&mut text, &format!("{CONNECTED}{family}"), &format!("{type_} . ifname"), &connected);
        }
        // Behind the sets, which a chain can name only when they exist.
        text.push_str(CHAINS);
        if !inputs.denied.is_empty() {
            denied_chain(&mut text, inputs.denied);
        }
        if let Some(group) = inputs.own_group {
            own_chain(&mut text, group);
        }
        text.push_str("}\n");
        Self::listed(&text)
    }

    /// Returns the group whose sockets reach no VIP, if the rules name one.
    pub fn own_group(&self) -> Option<u32> {
        let group = self.0.lines().find_map(|line| line.strip_prefix(OWN_GROUP))?;
        group.split(' ').next()?.parse().ok()
    }

    /// Returns these rules with less and less of the node's own networks, each with the families that are
    /// left out. The networks only turn connections around, and come from routes that any program may
    /// make: if nft refuses them, the other rules hold without them.
    pub fn with_less(&self) -> impl Iterator<Item = (&'static str, Self)> {
        let parts = [("IPv6", ["6"].as_slice()), ("IPv4", &["4"]), ("IPv4 and IPv6", &["4", "6"])];
        parts.into_iter().map(|(left_out, families)| (left_out, self.without_networks(families)))
    }

    fn without_networks(&self, families: &[&str]) -> Self {
        let mut is_left_out = false;
        let lines = self.0.split_inclusive('\n').filter(|line| {
            if let Some(name) = line.strip_prefix("set ") {
                let family = name.strip_prefix(CONNECTED).and_then(|rest| rest.split(' ').next());
                is_left_out = family.is_some_and(|family| families.contains(&family));
            }
            !(is_left_out && line.starts_with(ELEMENTS))
        });
        Self(lines.collect())
    }

    /// Parses a listing of `nft`: indentation goes, and elements that were wrapped share a line again.
    pub fn listed(text: &str) -> Self {
        let mut rules = String::with_capacity(text.len());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            rules.push_str(line);
            // nft wraps elements behind a comma.
            rules.push(if line.ends_with(',') { ' ' } else { '\n' });
        }
        Self(rules)
    }

    /// Returns the script for `nft -f` that replaces whatever the table holds by these rules.
    pub fn script(&self) -> String {
        // Adding a table that exists changes nothing, and only one that exists can be deleted.
        format!("add table inet {TABLE}\ndelete table inet {TABLE}\n{}", self.0)
    }
}

/// The chains, as `nft` prints them. Protocols are numbers, since a node need not have a file that names them.
///
/// * Port mappings match "any local address" and would take VIPs as well. Mapping a VIP to itself
///   first prevents that; merely accepting the packet would not, because later chains still see it.
/// * Where a connection leaves by the link it came from, the backend would answer its client
///   directly; the answer has to come back through here. The original destination is the VIP.
/// * The node's own clients have the source address of the VIP route. Where they leave by a link with
///   another address they get that one, as if they had dialled the backend itself.
/// * IPVS takes the packets of its services out of the input hook at priorities 98 and 99, so what
///   is still for a VIP at 110 has no service.
/// * A firewall may drop what containers send to VIPs or to the DNS server before IPVS sees it. So new
///   connections are counted on both sides of it, behind the connection tracking and right before IPVS.
const CHAINS: &str = r#"
    chain bypass_prerouting {
        type nat hook prerouting priority -110; policy accept;
        ip daddr @vips4 dnat ip to ip daddr
        ip6 daddr @vips6 dnat ip6 to ip6 daddr
    }
    chain bypass_output {
        type nat hook output priority -110; policy accept;
        ip daddr @vips4 dnat ip to ip daddr
        ip6 daddr @vips6 dnat ip6 to ip6 daddr
    }
    chain masquerading {
        type nat hook postrouting priority 90; policy accept;
        ct original ip daddr @vips4 ip saddr . oifname @connected4 fib saddr type != local masquerade
        ct original ip6 daddr @vips6 ip6 saddr . oifname @connected6 fib saddr type != local masquerade
        ct original ip daddr @vips4 oifname != "lo" fib saddr type local fib saddr . oif type != local masquerade
        ct original ip6 daddr @vips6 oifname != "lo" fib saddr type local fib saddr . oif type != local masquerade
    }
    chain guard {
        type filter hook input priority 110; policy accept;
        ip daddr @vips4 meta l4proto 6 reject with tcp reset
        ip daddr @vips4 meta l4proto != 1 reject with icmp port-unreachable
        ip6 daddr @vips6 meta l4proto 6 reject with tcp reset
        ip6 daddr @vips6 meta l4proto != 58 reject with icmpv6 port-unreachable
    }
    chain arrived {
        type filter hook prerouting priority -105; policy accept;
        ct state != new return
        ip saddr @clients4 ip daddr @vips4 counter name "vips_arrived"
        ip6 saddr @clients6 ip6 daddr @vips6 counter name "vips_arrived"
        ip saddr @clients4 ip daddr @dns4 udp dport 53 counter name "dns_arrived"
        ip6 saddr @clients6 ip6 daddr @dns6 udp dport 53 counter name "dns_arrived"
    }
    chain reached {
        type filter hook input priority 97; policy accept;
        ct state != new return
        ip saddr @clients4 ip daddr @vips4 counter name "vips_reached"
        ip6 saddr @clients6 ip6 daddr @vips6 counter name "vips_reached"
        ip saddr @clients4 ip daddr @dns4 udp dport 53 counter name "dns_reached"
        ip6 saddr @clients6 ip6 daddr @dns6 udp dport 53 counter name "dns_reached"
    }
"#;

/// Name of the sets of the node's own networks, before the number of their family.
const CONNECTED: &str = "connected";

/// Start of the line with the elements of a set.
const ELEMENTS: &str = "elements = ";

/// Start of the rules for the daemon's own sockets, before their group.
const OWN_GROUP: &str = "meta skgid ";

/// Adds the chain that refuses VIPs to the sockets of a group, the daemon's own: a label may ask for the
/// address of a source, whose password would then go to a task. It comes before the packets get to IPVS,
/// which knows no groups, and before the address is translated.
fn own_chain(text: &mut String, group: u32) {
    text.push_str("chain own_output {\ntype filter hook output priority -120; policy accept;\n");
    for (vips, unreachable) in [("ip daddr @vips4", "icmp"), ("ip6 daddr @vips6", "icmpv6")] {
        let _ = writeln!(text, "{OWN_GROUP}{group} {vips} meta l4proto 6 reject with tcp reset");
        let _ = writeln!(
            text,
            "{OWN_GROUP}{group} {vips} meta l4proto != 6 reject with {unreachable} port-unreachable"
        );
    }
    text.push_str("}\n");
}

/// Adds the chain that keeps clients from tasks. Packets that IPVS has given their task pass the output
/// hook, with the client as their source, before they are masqueraded. The refusal is no TCP reset, because
/// one would come from the task's address, where the client expects the VIP's.
fn denied_chain(text: &mut String, denied: &[Denied]) {
    text.push_str("chain denied_output {\ntype filter hook output priority -10; policy accept;\n");
    for Denied { clients, tasks } in denied {
        let (ip, set, icmp) = match clients {
            IpNet::V4(_) => ("ip", "vips4", "icmp"),
            IpNet::V6(_) => ("ip6", "vips6", "icmpv6"),
        };
        let _ = write!(text, "ct direction original ct original {ip} daddr @{set} ");
        for (side, network) in [("saddr", clients), ("daddr", tasks)] {
            // nft does not list a match of every address.
            if network.prefix_len() > 0 {
                let _ = write!(text, "{ip} {side} {} ", element(network));
            }
        }
        let _ = writeln!(text, "reject with {icmp} port-unreachable");
    }
    text.push_str("}\n");
}

fn set(text: &mut String, name: &str, type_: &str, elements: &[String]) {
    let _ = writeln!(text, "set {name} {{\ntype {type_}\nflags interval");
    if !elements.is_empty() {
        let _ = writeln!(text, "{ELEMENTS}{{ {} }}", elements.join(", "));
    }
    text.push_str("}\n");
}

/// Returns the networks that are in no other one of the same key, without host bits, in order.
///
/// A set of intervals takes no element inside another one. With the link as a part of the element the
/// kernel refuses the whole table for a narrower one behind a wider one, and some versions drop it in
/// silence for IPv6. DHCP and VPNs make such routes: the gateway or peer beside its network.
fn outermost<K: Copy + Ord>(networks: impl Iterator<Item = (IpNet, K)>) -> Vec<(IpNet, K)> {
    // Of networks with the same start the widest comes first, so that whatever covers one is before it.
    let sorted: BTreeSet<(IpNet, K)> = networks.map(|(net, key)| (net.trunc(), key)).collect();
    let mut last: BTreeMap<K, IpNet> = BTreeMap::new();
    let is_outermost = |(net, key): &(IpNet, K)| {
        let is_covered = last.get(key).is_some_and(|wider| wider.contains(net));
        if !is_covered {
            last.insert(*key, *net);
        }
        !is_covered
    };
    sorted.into_iter().filter(is_outermost).collect()
}

/// True if nft reads the name of a link in quotes as it is. It ends a name at a quotation mark, and takes an
/// asterisk for any rest of a name.
fn is_writable(link: &str) -> bool {
    !link.contains(['"', '*', '\\'])
}

fn is_ipv4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

/// A network as nft prints it: a single address has no prefix length.
fn element(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.trunc().to_string() }
}

/// Settings that every VIP needs, with the reason for each.
const REQUIRED_SYSCTLS: &[(&str, &str)] = &[
    // Lets netfilter see the connections of containers, so that their source can be masqueraded.
    ("net/ipv4/vs/conntrack", "1"),
    // A connection whose backend is gone is reset at once instead of hanging.
    ("net/ipv4/vs/expire_nodest_conn", "1"),
    // Clients of a persistent service leave a backend that takes no new connections.
    ("net/ipv4/vs/expire_quiescent_template", "1"),
    // Containers reach backends on other nodes through this one.
    ("net/ipv4/ip_forward", "1"),
];

/// Settings for VIPs whose connections survive any idle time: packets of connections that the kernel
/// has forgotten are scheduled like new ones.
const STICKY_SYSCTLS: &[(&str, &str)] = &[("net/ipv4/vs/sloppy_tcp", "1")];

/// Returns the kernel settings that VIPs need with a plane of these capabilities: path below `/proc/sys`
/// to value. There are none if packets do not pass the plane. `sticky` is true if there are VIPs whose
/// connections survive any idle time.
pub fn sysctls(capabilities: Capabilities, sticky: bool) -> BTreeMap<String, String> {
    let required = REQUIRED_SYSCTLS.iter().chain(STICKY_SYSCTLS.iter().filter(|_| sticky));
    let needed = required.filter(|_| capabilities.packets);
    needed.map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests;
