//! From VIPs and addresses to the state that this node's kernel should have.
//!
//! [`Desired`] keeps each virtual service once, with the tasks behind its servers. The
//! [`State`] that is compared with the kernel is a projection of it, see [`Desired::state`].

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::warmup::WarmUps;
use super::weights::{Candidate, Weights, weights};
use crate::cluster::{SharedMap, Skipped};
use crate::dataplane::rules::{self, RuleInputs, RuleSet};
use crate::dataplane::settings::Denied;
use crate::dataplane::{
    Foreign, Link, Node, RealServer, Route, Scheduling, Service, ServiceKey, State, Timeouts,
};
use crate::vip::alloc::{AddressRange, Leases};
use crate::vip::{Backend, Condition, Host, Vip, VipKey, VipTable, reserved};

/// Kernel name of the consistent-hash scheduler.
const STICKY: &str = "mh";

/// Schedulers that choose by a hash of the client.
const HASHING: &[&str] = &["sh", "mh"];

/// `IP_VS_SVC_F_SCHED1` (`linux/ip_vs.h`) as both hashing schedulers read it: go on to another server
/// where the chosen one takes nothing.
const FALLBACK: u32 = 0x0008;

/// `IP_VS_SVC_F_SCHED2` (`linux/ip_vs.h`) as both hashing schedulers read it: hash the port as well.
const WITH_PORT: u32 = 0x0010;

/// Operator's decisions about the data plane.
#[derive(Clone, Debug)]
pub struct DesiredSettings {
    pub range4: AddressRange,
    pub range6: AddressRange,
    /// Kernel name of the scheduler.
    pub scheduler: String,
    pub timeouts: Timeouts,
    /// Addresses of our own that the DNS server listens on.
    pub listeners: BTreeSet<IpAddr>,
    /// Clients that may not reach tasks through VIPs.
    pub denied: Vec<Denied>,
}

/// The node's addresses that its own clients use towards VIPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    pub v4: Option<IpAddr>,
    pub v6: Option<IpAddr>,
}

/// Virtual services of a node. A copy shares them.
pub type Services = SharedMap<ServiceKey, Arc<Programmed>>;

/// A virtual service and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programmed {
    pub vip: VipKey,
    pub scheduling: Scheduling,
    /// Servers with the tasks behind them, by the address that this node uses, which for its own containers can
    /// differ from the one that other nodes use. Usually those of the table, and shared with it.
    pub servers: SharedMap<SocketAddr, Backend>,
    /// Names of the task ports that serve the VIP, as written.
    pub port_names: Arc<BTreeSet<String>>,
    /// Weights of those servers that take connections by the documents' word; `None` if all of them have the same.
    pub weights: Option<Arc<Weights>>,
}

impl Programmed {
    /// Returns the weight that the kernel has for a server.
    pub fn weight_of(&self, address: &SocketAddr, backend: &Backend) -> u32 {
        // What is leaving, or was there before documents told of it, has a weight of its own.
        let is_shared = backend.held_weight.is_none() && backend.condition != Condition::Gone;
        let weights = self.weights.as_ref().filter(|_| is_shared);
        weights.and_then(|weights| weights.get(address).copied()).unwrap_or_else(|| backend.weight())
    }

    /// Returns the sum of the weights in the kernel; `None` if all servers that take connections have the same.
    pub fn uneven_total(&self) -> Option<u32> {
        self.weights.as_ref()?;
        let mut taking = self.kernel_weights().filter(|weight| *weight > 0);
        let first = taking.next();
        taking.any(|weight| Some(weight) != first).then(|| self.kernel_weights().sum())
    }

    /// Lists the weights that the kernel has for its servers.
    pub fn kernel_weights(&self) -> impl Iterator<Item = u32> {
        self.servers.iter().map(|(address, backend)| self.weight_of(address, backend))
    }

    /// Returns the service to compare with the kernel's.
    pub fn service(&self) -> Service {
        let servers = self.servers.iter();
        Service {
            scheduling: self.scheduling.clone(),
            servers: servers
                .map(|(address, backend)| {
                    (*address, RealServer::masquerade(self.weight_of(address, backend)))
                })
                .collect(),
        }
    }
}

/// Returns true for a scheduling that needs settings of the kernel.
pub fn needs_settings(scheduling: &Scheduling) -> bool {
    scheduling.scheduler == STICKY
}

/// The desired state, with the reasons for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub services: Services,
    /// Everything but services: link, addresses, routes, settings and rules.
    pub beside_services: State,
    pub skipped: Vec<Skipped>,
    /// VIPs whose address and port a virtual service of another program has; they are among the skipped.
    pub blocked: Vec<VipKey>,
    /// VIPs for which a label asks for a scheduler, which this node's plane does not have.
    pub unscheduled: BTreeSet<VipKey>,
    /// VIPs of which something is among the skipped for a reason of this node.
    pub refused: BTreeSet<VipKey>,
    /// Remarks on VIPs that work, but not as their users may expect.
    pub warnings: Vec<String>,
}

impl Desired {
    /// Returns the state to compare with the kernel.
    pub fn state(&self) -> State {
        let service =
            |(key, programmed): (&ServiceKey, &Arc<Programmed>)| (*key, programmed.service().into());
        let services = self.services.iter().map(service).collect();
        State { services, ..self.beside_services.clone() }
    }
}

/// Everything that a desired state is made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub table: &'a VipTable,
    /// VIPs whose backends are all gone but whose clients should still be refused rather than left
    /// without an answer.
    pub vacant: &'a BTreeSet<VipKey>,
    /// Addresses of the cluster's agents.
    pub agents: &'a BTreeSet<IpAddr>,
    pub leases4: &'a Leases,
    pub leases6: &'a Leases,
    pub settings: &'a DesiredSettings,
    pub sources: Sources,
    pub node: &'a Node,
    pub foreign: &'a [Foreign],
    /// Backends that are getting warm, and the time for which this holds.
    pub warm: (&'a WarmUps, Timestamp),
}

/// Returns everything that a node needs besides services: what it should hold without any VIP.
pub fn beside_services(settings: &DesiredSettings, sources: Sources, node: &Node) -> State {
    let (none, warm) = (Leases::default(), WarmUps::default());
    let inputs = Inputs {
        table: &VipTable::default(),
        vacant: &BTreeSet::new(),
        agents: &BTreeSet::new(),
        leases4: &none,
        leases6: &none,
        settings,
        sources,
        node,
        foreign: &[],
        warm: (&warm, Timestamp::UNIX_EPOCH),
    };
    desired(inputs).beside_services
}

/// Makes the desired state of one node. What can't be programmed is left out with a reason.
pub fn desired(inputs: Inputs<'_>) -> Desired {
    let Inputs { table, vacant, settings, sources, node, .. } = inputs;
    let mut desired = Desired { skipped: table.skipped.clone(), ..Desired::default() };
    let none = Arc::new(Vip::default());
    let vacant = vacant.iter().filter(|key| !table.vips.contains_key(key)).map(|key| (key, &none));
    let foreign = foreign_keys(inputs.foreign);
    // Names come before addresses in this order, so that a literal never takes a name's service.
    for (key, vip) in table.vips.iter().chain(vacant) {
        inputs.add(key, vip, &foreign, &mut desired);
    }
    // After the services: a literal VIP outside of the ranges needs a route and rules of its own.
    let networks = vip_networks(&desired.services, settings, node);
    // An address that the node has already, on whatever link, is left where it is.
    let addresses = settings.listeners.iter().filter(|a| !node.addresses.contains(a)).copied().collect();
    desired.beside_services = State { link: Link::Up, addresses, ..State::default() };
    let beside_services = &mut desired.beside_services;
    // Such a plane acts before there is a packet, so that it needs neither a source address nor settings
    // nor rules. A route only names a network in which ports without a service are refused.
    if !node.capabilities.packets {
        beside_services.routes =
            networks.into_iter().map(|destination| Route { destination, source: None }).collect();
        return desired;
    }
    // Without it the kernel takes the destination of a local route, the VIP, as the source as well, and no
    // backend can answer that.
    let source = |network: &IpNet| if network.addr().is_ipv4() { sources.v4 } else { sources.v6 };
    beside_services.routes =
        networks.iter().map(|network| Route { destination: *network, source: source(network) }).collect();
    // Connections that the kernel has forgotten are scheduled like new ones only where a VIP needs it.
    let is_sticky = desired.services.values().any(|programmed| needs_settings(&programmed.scheduling));
    beside_services.sysctls = rules::sysctls(node.capabilities, is_sticky);
    beside_services.rules = Some(RuleSet::new(RuleInputs {
        vips: &networks,
        connected: &node.connected,
        clients: &node.container_networks(),
        listeners: &settings.listeners,
        denied: &settings.denied,
        own_group: node.own_group,
    }));
    beside_services.timeouts = Some(settings.timeouts);
    desired
}

/// Returns the addresses and ports that services of other programs have. As a set: right after a migration
/// there are as many services of Minuteman as VIPs.
fn foreign_keys(foreign: &[Foreign]) -> BTreeSet<ServiceKey> {
    foreign.iter().filter_map(|foreign| foreign.key).collect()
}

impl Inputs<'_> {
    /// Returns the services of some VIPs alone.
    pub fn part<'k>(&self, keys: impl Iterator<Item = &'k VipKey>) -> Desired {
        let mut desired = Desired::default();
        let none = Vip::default();
        let foreign = foreign_keys(self.foreign);
        for key in keys {
            match self.table.vips.get(key) {
                Some(vip) => self.add(key, vip, &foreign, &mut desired),
                None if self.vacant.contains(key) => self.add(key, &none, &foreign, &mut desired),
                None => {}
            }
        }
        desired
    }

    /// Adds the services of one VIP: one for each address family that it has.
    fn add(&self, key: &VipKey, vip: &Vip, foreign: &BTreeSet<ServiceKey>, desired: &mut Desired) {
        let name = match &key.host {
            Host::Literal(address) => {
                return match unusable_vip(*address, self.node, self.settings) {
                    None => self.add_service(*address, key, vip, foreign, desired),
                    Some(reason) => skip(desired, key, vip, None, &reason),
                };
            }
            Host::Named(name) => name,
        };
        for (leases, ipv4) in [(self.leases4, true), (self.leases6, false)] {
            let is_wanted = vip.backends.keys().any(|backend| backend.is_ipv4() == ipv4);
            match leases.get(name) {
                // A vacant VIP refuses connections at every address that it had.
                Some(address) if is_wanted || vip.backends.is_empty() => {
                    self.add_service(address, key, vip, foreign, desired);
                }
                None if is_wanted => {
                    let range = if ipv4 { "vips.range4" } else { "vips.range6" };
                    let reason = format!("no address is free: enlarge {range} on all nodes");
                    skip(desired, key, vip, None, &reason);
                }
                _ => {}
            }
        }
    }

    /// Returns what a backend's address is that would lead clients of the VIP to something else than a
    /// task. An executor may report any address for its task.
    fn unusable_backend(&self, address: IpAddr) -> Option<&'static str> {
        let DesiredSettings { range4, range6, listeners, .. } = self.settings;
        let host = Host::Literal(address);
        // Keys are sorted by host, so the first one at or behind this tells.
        let first = || self.table.vips.first_from(&VipKey::first(&host));
        let is_literal = || first().is_some_and(|(key, _)| key.host == host);
        if let Some(kind) = reserved::kind(address) {
            // A cluster of one machine may know its agent by a loopback address.
            return (!address.is_loopback() || !self.agents.contains(&address)).then_some(kind);
        }
        if listeners.contains(&address) {
            Some("where this node's names are served")
        } else if range4.contains(address) || range6.contains(address) {
            Some("in the range of VIPs")
        } else if is_literal() {
            Some("a VIP itself")
        } else {
            None
        }
    }

    fn add_service(
        &self,
        address: IpAddr,
        vip_key: &VipKey,
        vip: &Vip,
        foreign: &BTreeSet<ServiceKey>,
        desired: &mut Desired,
    ) {
        let key = ServiceKey { protocol: vip_key.protocol, address, port: vip_key.port };
        // Services of other programs are never changed; programming the same key would take theirs.
        if foreign.contains(&key) {
            let reason = "a virtual service that is not ours has this address and port: remove it, or \
                          change the label";
            desired.blocked.push(vip_key.clone());
            return skip(desired, vip_key, vip, Some(key), reason);
        }
        // A literal VIP inside the range can meet a name's address; the one that came first keeps it.
        if let Some(holder) = desired.services.get(&key) {
            let reason = format!("the VIP {} has this address and port already", holder.vip);
            return skip(desired, vip_key, vip, Some(key), &reason);
        }
        // The kernel refuses routes and services of a family that is switched off.
        if address.is_ipv6() && !self.node.addresses.iter().any(IpAddr::is_ipv6) {
            return skip(desired, vip_key, vip, Some(key), "this node has no IPv6 address");
        }
        let servers = self.servers(address, vip_key, vip, desired);
        let weights = self.weights(vip_key, &servers).map(Arc::new);
        // A plane with one way to choose reports that one, so that comparing with the kernel finds no
        // difference.
        let scheduling = match self.node.capabilities.own_scheduler {
            Some(own) => {
                if vip.scheduler.is_some() {
                    desired.unscheduled.insert(vip_key.clone());
                }
                // Without servers there is nothing that has the flag.
                let flag =
                    self.node.capabilities.unejected.filter(|_| vip.no_ejection && !servers.is_empty());
                Scheduling { scheduler: own.to_owned(), flags: flag.unwrap_or_default() }
            }
            None => scheduling(vip, &self.settings.scheduler, weights.is_some()),
        };
        let (vip_key, port_names) = (vip_key.clone(), vip.port_names.clone());
        desired
            .services
            .insert(key, Programmed { vip: vip_key, scheduling, servers, port_names, weights }.into());
    }

    /// Returns the weights of a VIP's servers; `None` if they are equal.
    fn weights(&self, key: &VipKey, servers: &SharedMap<SocketAddr, Backend>) -> Option<Weights> {
        // The usual VIP, which is not worth a list.
        if servers.values().all(|backend| backend.label_weight == 1 && backend.slow_start.is_none()) {
            return None;
        }
        let (warm, now) = self.warm;
        let candidates = servers.iter().map(|(address, backend)| Candidate {
            address: *address,
            framework: backend.tenants.iter().next().map_or("", |tenant| &*tenant.framework),
            weight: if backend.weight() > 0 { backend.label_weight } else { 0 },
            warmth: warm.warmth(key, backend, now),
            warms_up: backend.slow_start.is_some(),
        });
        let candidates: Vec<Candidate<'_>> = candidates.collect();
        weights(&candidates)
    }

    /// Returns the servers of a VIP's service at `address`. What can't be used is left out with a reason.
    fn servers(
        &self,
        address: IpAddr,
        vip_key: &VipKey,
        vip: &Vip,
        desired: &mut Desired,
    ) -> SharedMap<SocketAddr, Backend> {
        // IPVS sends past the rules that map ports, so backends on this node are reached in their
        // container.
        let here = |seen: SocketAddr, backend: &Backend| match self.node.capabilities.bypasses_port_mappings {
            true => backend.seen_from(seen, &self.node.addresses),
            false => seen,
        };
        let is_plain = |(seen, backend): (&SocketAddr, &Backend)| {
            seen.is_ipv4() == address.is_ipv4()
                && here(*seen, backend) == *seen
                && self.unusable_backend(seen.ip()).is_none()
        };
        // The usual VIP: the table has them as they are wanted here.
        if vip.backends.iter().all(is_plain) {
            return vip.backends.clone();
        }
        let mut servers: BTreeMap<SocketAddr, Backend> = BTreeMap::new();
        for (&seen, backend) in vip.backends.iter().filter(|(seen, _)| seen.is_ipv4() == address.is_ipv4()) {
            // One bad backend costs itself alone; the VIP's other backends go on serving.
            if let Some(kind) = self.unusable_backend(seen.ip()) {
                desired.refused.insert(vip_key.clone());
                desired.skipped.push(Skipped {
                    task: backend.task.to_string(),
                    value: Some(seen.to_string()),
                    reason: format!("{vip_key} can't use this backend: {} is {kind}", seen.ip()),
                    ..Skipped::default()
                });
                continue;
            }
            // Two ports of the agent may be mapped to one of a container, and are one server from here.
            match servers.entry(here(seen, backend)) {
                Entry::Occupied(mut known) => known.get_mut().meet(backend.clone()),
                Entry::Vacant(free) => drop(free.insert(backend.clone())),
            }
        }
        servers.into_iter().collect()
    }
}

/// Notes that a VIP is left out, with the task of its first backend, or none for a VIP without backends.
/// `service` is the address and port that are left out, where the VIP has been given some.
fn skip(desired: &mut Desired, key: &VipKey, vip: &Vip, service: Option<ServiceKey>, reason: &str) {
    let task = vip.backends.values().next().map(|backend| backend.task.to_string()).unwrap_or_default();
    let value = service.map_or_else(|| key.to_string(), |service| format!("{key} at {service}"));
    desired.refused.insert(key.clone());
    desired.skipped.push(Skipped {
        task,
        value: Some(value),
        reason: reason.to_owned(),
        ..Skipped::default()
    });
}

/// Scheduler and flags of a VIP. Idle connections survive where the same client address and port
/// always lead to the same server, even after the kernel has forgotten them.
fn scheduling(vip: &Vip, configured: &str, is_weighted: bool) -> Scheduling {
    let scheduler = match &vip.scheduler {
        _ if vip.sticky_idle => STICKY,
        Some(wanted) => wanted,
        None => configured,
    };
    // Both of a pair are one as long as all weights are equal, and the first knows no other weights.
    let scheduler = match scheduler {
        "rr" if is_weighted => "wrr",
        "lc" if is_weighted => "wlc",
        other => other,
    };
    // Without the port in the hash, all connections of one client host lead to one server.
    let flags = if HASHING.contains(&scheduler) { FALLBACK | WITH_PORT } else { 0 };
    Scheduling { scheduler: scheduler.to_owned(), flags }
}

/// Networks whose traffic is ours: the ranges, and literal VIPs outside of them.
fn vip_networks(services: &Services, settings: &DesiredSettings, node: &Node) -> BTreeSet<IpNet> {
    let has_ipv6 = node.addresses.iter().any(IpAddr::is_ipv6);
    let ranges = [&settings.range4, &settings.range6];
    // Without IPv6 a route for its range would fail in every pass.
    let is_usable = |range: &&&AddressRange| range.is_ipv4() || has_ipv6;
    let mut networks: BTreeSet<IpNet> =
        ranges.iter().filter(is_usable).flat_map(|range| range.networks()).collect();
    let is_outside = |address: &IpAddr| !ranges.iter().any(|range| range.contains(*address));
    // A label may ask for any address, and that one needs the same route and rules as the ranges.
    networks.extend(services.keys().map(|key| key.address).filter(is_outside).map(IpNet::from));
    networks
}

/// Reason why an address can't be a VIP on this node: it would take something from the node. What no
/// node can use was refused with the label.
fn unusable_vip(address: IpAddr, node: &Node, settings: &DesiredSettings) -> Option<String> {
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
