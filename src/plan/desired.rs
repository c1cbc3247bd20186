//! From VIPs and addresses to the state that this node's kernel should have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::cluster::Skipped;
use crate::dataplane::rules::{self, RuleSet};
use crate::dataplane::{
    Foreign, Link, Node, RealServer, Route, Scheduling, Service, ServiceKey, State, Timeouts,
};
use crate::vip::alloc::{AddressRange, Leases};
use crate::vip::{Backend, Host, Vip, VipKey, VipTable, few};

/// The consistent-hash scheduler.
const STICKY: &str = "mh";

/// Schedulers that choose by a hash of the client.
const HASHING: &[&str] = &["sh", "mh"];

/// `IP_VS_SVC_F_SCHED1` and `2` (`linux/ip_vs.h`), as both hashing schedulers read them: whether to go
/// on to another server where the chosen one takes nothing, and whether the hash covers the port.
const FALLBACK: u32 = 0x0008;
const WITH_PORT: u32 = 0x0010;

/// What the operator decides about the data plane.
#[derive(Clone, Debug)]
pub struct Settings {
    pub range4: AddressRange,
    pub range6: AddressRange,
    /// Kernel name of the scheduler.
    pub scheduler: String,
    pub timeouts: Timeouts,
    /// Addresses of our own that the DNS server listens on.
    pub listeners: BTreeSet<IpAddr>,
}

/// The node's addresses that its clients use towards VIPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    pub v4: Option<IpAddr>,
    pub v6: Option<IpAddr>,
}

/// A virtual service with what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programmed {
    pub vip: VipKey,
    /// By the address that this node uses, which for its own containers can differ from the one that
    /// other nodes use.
    pub backends: BTreeMap<SocketAddr, Backend>,
    pub scheduling: Scheduling,
}

/// The desired state, with the reasons for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub state: State,
    pub services: BTreeMap<ServiceKey, Programmed>,
    pub skipped: Vec<Skipped>,
    /// VIPs whose place in the kernel somebody else has; they are among the skipped.
    pub blocked: Vec<VipKey>,
    /// What works, but not as its users may expect.
    pub warnings: Vec<String>,
}

/// Makes the desired state of one node.
///
/// `vacant` are VIPs whose backends are all gone but whose clients should still be refused rather
/// than left without an answer. Whatever can't be programmed is left out with a reason.
pub fn desired(
    table: &VipTable,
    vacant: &BTreeSet<VipKey>,
    leases: (&Leases, &Leases),
    settings: &Settings,
    sources: Sources,
    node: &Node,
    foreign: &[Foreign],
) -> Desired {
    let mut desired = Desired { skipped: table.skipped.clone(), ..Desired::default() };
    let planner = Planner { leases, settings, node, foreign };
    let none = Vip::default();
    let vacant = vacant.iter().filter(|key| !table.vips.contains_key(key)).map(|key| (key, &none));
    // Names come before addresses in this order, so that a literal never takes a name's service.
    for (key, vip) in table.vips.iter().chain(vacant) {
        planner.add(key, vip, &mut desired);
    }
    let state = &mut desired.state;
    let networks = vip_networks(&desired.services, settings, node);
    state.services = desired.services.iter().map(|(key, vip)| (*key, service(vip))).collect();
    state.link = Link::Up;
    state.addresses = settings.listeners.iter().filter(|a| !node.addresses.contains(a)).copied().collect();
    if !node.capabilities.packets {
        state.routes = networks.into_iter().map(|destination| Route { destination, source: None }).collect();
        return desired;
    }
    let source = |network: &IpNet| if network.addr().is_ipv4() { sources.v4 } else { sources.v6 };
    state.routes =
        networks.iter().map(|network| Route { destination: *network, source: source(network) }).collect();
    let sticky = desired.services.values().any(|programmed| programmed.scheduling.scheduler == STICKY);
    state.sysctls = rules::sysctls(node.capabilities, sticky);
    state.rules = Some(RuleSet::new(&networks, &node.connected));
    state.timeouts = Some(settings.timeouts);
    warn(&mut desired, sources, node);
    desired
}

struct Planner<'a> {
    leases: (&'a Leases, &'a Leases),
    settings: &'a Settings,
    node: &'a Node,
    foreign: &'a [Foreign],
}

impl Planner<'_> {
    fn add(&self, key: &VipKey, vip: &Vip, desired: &mut Desired) {
        match &key.host {
            Host::Literal(address) => match unusable_vip(*address, self.node, self.settings) {
                None => self.add_service(*address, key, vip, desired),
                Some(reason) => skip(desired, key, vip, None, &reason),
            },
            Host::Named(name) => {
                for (leases, ipv4) in [(self.leases.0, true), (self.leases.1, false)] {
                    let address = leases.get(name);
                    let wanted = vip.backends.keys().any(|backend| backend.is_ipv4() == ipv4);
                    match address {
                        Some(address) if wanted || vip.backends.is_empty() => {
                            self.add_service(address, key, vip, desired);
                        }
                        None if wanted => {
                            let range = if ipv4 { "vips.range4" } else { "vips.range6" };
                            let reason = format!("no address is free: enlarge {range}");
                            skip(desired, key, vip, None, &reason);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    fn add_service(&self, address: IpAddr, vip_key: &VipKey, vip: &Vip, desired: &mut Desired) {
        let key = ServiceKey { protocol: vip_key.protocol, address, port: vip_key.port };
        if self.foreign.iter().any(|foreign| foreign.key == Some(key)) {
            let reason = "a virtual service that is not ours has this address and port: remove it, or \
                          change the label";
            desired.blocked.push(vip_key.clone());
            return skip(desired, vip_key, vip, Some(key), reason);
        }
        if let Some(holder) = desired.services.get(&key) {
            let reason = format!("{} has this address and port", holder.vip);
            return skip(desired, vip_key, vip, Some(key), &reason);
        }
        if address.is_ipv6() && !self.node.addresses.iter().any(IpAddr::is_ipv6) {
            return skip(desired, vip_key, vip, Some(key), "this node has no IPv6");
        }
        let mut backends: BTreeMap<SocketAddr, Backend> = BTreeMap::new();
        for (&seen, backend) in vip.backends.iter().filter(|(seen, _)| seen.is_ipv4() == address.is_ipv4()) {
            if let Some(reason) = unusable_backend(seen.ip()) {
                desired.skipped.push(Skipped {
                    task: backend.task.clone(),
                    value: Some(seen.to_string()),
                    reason: format!("{vip_key} can't use this backend: {reason}"),
                    ..Skipped::default()
                });
                continue;
            }
            let here = match self.node.capabilities.bypasses_port_mappings {
                true => backend.seen_from(seen, &self.node.addresses),
                false => seen,
            };
            match backends.get(&here) {
                Some(known) if known.condition <= backend.condition => {}
                _ => {
                    backends.insert(here, backend.clone());
                }
            }
        }
        let scheduling = match self.node.capabilities.own_scheduler {
            Some(own) => Scheduling { scheduler: own.to_owned(), flags: 0 },
            None => scheduling(vip, &self.settings.scheduler),
        };
        desired.services.insert(key, Programmed { vip: vip_key.clone(), backends, scheduling });
    }
}

fn skip(desired: &mut Desired, key: &VipKey, vip: &Vip, service: Option<ServiceKey>, reason: &str) {
    let task = vip.backends.values().next().map(|backend| backend.task.clone()).unwrap_or_default();
    let value = service.map_or_else(|| key.to_string(), |service| format!("{key} at {service}"));
    desired.skipped.push(Skipped {
        task,
        value: Some(value),
        reason: reason.to_owned(),
        ..Skipped::default()
    });
}

fn service(vip: &Programmed) -> Service {
    Service {
        scheduling: vip.scheduling.clone(),
        servers: vip
            .backends
            .iter()
            .map(|(address, backend)| (*address, RealServer::masquerade(backend.weight())))
            .collect(),
    }
}

/// Idle connections survive where the same client address and port always lead to the same server,
/// even after the kernel has forgotten them.
fn scheduling(vip: &Vip, configured: &str) -> Scheduling {
    let scheduler = match &vip.scheduler {
        _ if vip.sticky_idle => STICKY,
        Some(wanted) => wanted,
        None => configured,
    };
    // Without the port in the hash, all connections of one client host lead to one server.
    let flags = if HASHING.contains(&scheduler) { FALLBACK | WITH_PORT } else { 0 };
    Scheduling { scheduler: scheduler.to_owned(), flags }
}

/// The networks whose traffic is ours: the ranges, and literal VIPs outside of them.
fn vip_networks(
    services: &BTreeMap<ServiceKey, Programmed>,
    settings: &Settings,
    node: &Node,
) -> BTreeSet<IpNet> {
    let has_ipv6 = node.addresses.iter().any(IpAddr::is_ipv6);
    let ranges = [&settings.range4, &settings.range6];
    let usable = |range: &&&AddressRange| range.is_ipv4() || has_ipv6;
    let mut networks: BTreeSet<IpNet> =
        ranges.iter().filter(usable).flat_map(|range| range.networks()).collect();
    let literal = |address: &IpAddr| !ranges.iter().any(|range| range.contains(*address));
    networks.extend(services.keys().map(|key| key.address).filter(literal).map(IpNet::from));
    networks
}

/// Addresses that would take something from the node if they became VIPs. What no node can use was
/// refused before.
fn unusable_vip(address: IpAddr, node: &Node, settings: &Settings) -> Option<String> {
    let owner = if node.addresses.contains(&address) {
        "an address of this node"
    } else if settings.listeners.contains(&address) {
        "where this node's names are served"
    } else if node.nameservers.contains(&address) {
        "a nameserver of this node"
    } else if node.gateways.contains(&address) {
        "a router of this node"
    } else {
        return None;
    };
    Some(format!("{address} is {owner}, which can't be a VIP"))
}

fn unusable_backend(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.is_multicast() => Some("it is a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("it is the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("it is an unspecified address"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("it is a multicast address"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("it is an unspecified address"),
        _ => None,
    }
}

fn warn(desired: &mut Desired, sources: Sources, node: &Node) {
    let mut users: BTreeMap<(SocketAddr, crate::cluster::Protocol), BTreeSet<&ServiceKey>> = BTreeMap::new();
    for (key, programmed) in &desired.services {
        for backend in programmed.backends.keys() {
            users.entry((*backend, key.protocol)).or_default().insert(key);
        }
    }
    let mut shared: BTreeMap<BTreeSet<&ServiceKey>, usize> = BTreeMap::new();
    for keys in users.into_values().filter(|keys| keys.len() > 1) {
        *shared.entry(keys).or_default() += 1;
    }
    let names = |keys: &BTreeSet<&ServiceKey>| {
        let named = keys.iter().filter_map(|key| desired.services.get(key));
        few(named.map(|programmed| &programmed.vip))
    };
    let mut warnings: Vec<String> = shared
        .iter()
        .map(|(keys, count)| {
            format!(
                "{} share {count} backend address{}: IPVS confuses two connections to them that have the \
                 same client address and port; give each VIP a task port of its own",
                names(keys),
                if *count == 1 { "" } else { "es" }
            )
        })
        .collect();
    for bridge in &node.no_hairpin {
        let inside = |address: &SocketAddr| {
            let network =
                |(network, link): &(IpNet, String)| link == bridge && network.contains(&address.ip());
            node.connected.iter().any(network)
        };
        let vips: BTreeSet<String> = desired
            .services
            .values()
            .filter(|programmed| programmed.backends.keys().any(inside))
            .map(|programmed| programmed.vip.to_string())
            .collect();
        if !vips.is_empty() {
            warnings.push(format!(
                "a container on {bridge} can't reach itself through {}: switch hairpin mode on for its bridge \
                 ports, or set net.bridge.bridge-nf-call-iptables to 0",
                few(vips)
            ));
        }
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
    desired.warnings = warnings;
}
