//! From the configuration to the settings of each module: the only place that knows both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::api::Port;
use crate::api::guard::Guard;
use crate::cluster::Snapshot;
use crate::cluster::belief::Patience;
use crate::config::Config;
use crate::dataplane::kernel::{Access, KernelOptions};
use crate::dataplane::{Timeouts, ebpf};
use crate::dns::forward::{self, Forward, Forwarder, Mesos, Upstream};
use crate::dns::metrics::DnsMetrics;
use crate::dns::settings::{DCOS_ZONES, is_within};
use crate::dns::usage::UsageRegistry;
use crate::dns::zones::catalog::Catalog;
use crate::dns::zones::reverse;
use crate::dns::zones::vips::{self, Zone};
use crate::dns::{publisher, resolved};
use crate::doctor::settings::DoctorSettings;
use crate::events::Recorder;
use crate::marathon::MarathonMemory;
use crate::plan::PlannerSettings;
use crate::plan::desired::{DesiredSettings, Sources};
use crate::reconcile::{PublisherSettings, ReconcilerSettings};
use crate::source::marathon::Earlier;
use crate::source::{Location, Mode};
use crate::store::Store;
use crate::vip::LabelPolicy;

/// Most reverse zones that systemd-resolved is told of.
const MAX_REVERSE: usize = 64;

/// Returns the rules for labels.
pub fn label_policy(config: &Config) -> LabelPolicy {
    LabelPolicy {
        ipv6: config.vips.ipv6,
        allow: config.vips.allow.clone(),
        deny: config.vips.deny.clone(),
        ranges: [config.vips.range4, config.vips.range6],
        literals_in_range: config.vips.literals_in_range,
        shared: config.vips.shared,
        ports: config.vips.ports,
        zone: config.dns.zone.clone(),
        domains: domains(config),
        infrastructure: infrastructure(config),
        asked: BTreeMap::new(),
    }
}

/// Returns the zones in which names of this cluster are served, by this daemon or by mesos-dns.
fn domains(config: &Config) -> Vec<String> {
    let further = DCOS_ZONES.into_iter().chain(["mesos"]).map(str::to_owned);
    std::iter::once(&config.dns.zone).chain(&config.dns.aliases).cloned().chain(further).collect()
}

/// Returns the addresses that the daemon asks or depends on, with what each is; those of servers that are
/// configured by name are learnt when the name is resolved.
fn infrastructure(config: &Config) -> BTreeMap<IpAddr, &'static str> {
    let http = |location: &Location| location.url()?.host_str().and_then(address);
    let zookeeper = |location: &Location| match location {
        Location::Zk(ensemble) => ensemble.servers.iter().filter_map(|server| host_of(server)).collect(),
        Location::Http(_) | Location::File(_) => Vec::new(),
    };
    let upstreams = |upstreams: &[Upstream]| upstreams.iter().map(|upstream| upstream.0.ip()).collect();
    let forward: Vec<IpAddr> = match &config.dns.forward {
        Forward::Upstreams(servers) => upstreams(servers),
        Forward::Off | Forward::System => Vec::new(),
    };
    let mesos: Vec<IpAddr> = match &config.dns.mesos {
        Mesos::Upstreams(servers) => upstreams(servers),
        _ => Vec::new(),
    };
    let masters = &config.source.masters;
    let kinds: [(&'static str, Vec<IpAddr>); 6] = [
        ("the address of a Mesos master", master_addresses(config).collect()),
        ("the address of a ZooKeeper server", masters.iter().flat_map(zookeeper).collect()),
        ("the address of this node's agent", http(&config.source.agent).into_iter().collect()),
        ("the address of a Marathon", config.marathon.urls.iter().filter_map(http).collect()),
        ("the address of a DNS server that is asked (dns.forward)", forward),
        ("the address of a DNS server that is asked (dns.mesos)", mesos),
    ];
    kinds.into_iter().flat_map(|(kind, found)| found.into_iter().map(move |one| (one, kind))).collect()
}

/// Returns the servers that are asked for the state, for people.
pub fn origins(config: &Config) -> Vec<String> {
    let agent = (config.source.mode == Mode::Agent).then(|| config.source.agent.to_string());
    let masters = config.source.masters.iter().map(Location::to_string);
    agent.into_iter().chain(masters).chain(config.marathon.urls.iter().map(Location::to_string)).collect()
}

/// Returns the settings of the desired state.
fn desired(config: &Config) -> DesiredSettings {
    // These addresses are put on the link, so only those that a link can have.
    let listeners: BTreeSet<IpAddr> = config
        .dns
        .listen
        .iter()
        .map(SocketAddr::ip)
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
        .collect();
    DesiredSettings {
        range4: config.vips.range4,
        range6: config.vips.range6,
        scheduler: config.ipvs.scheduler.clone(),
        timeouts: Timeouts {
            tcp: config.ipvs.tcp_timeout.as_seconds(),
            tcp_fin: config.ipvs.tcp_fin_timeout.as_seconds(),
            udp: config.dataplane.udp_timeout.as_seconds(),
        },
        listeners,
        denied: config.ipvs.denied.clone(),
    }
}

/// Returns the operator's decisions about the table.
pub fn planner(config: &Config) -> PlannerSettings {
    PlannerSettings {
        desired: desired(config),
        policy: label_policy(config),
        linger: config.vips.linger.0,
        drain: config.dataplane.drain.0,
        max_vips: config.vips.max,
        node: Sources { v4: config.node.address, v6: config.node.address6 },
    }
}

/// Returns how long tasks are held that a document lacks.
pub fn patience(config: &Config) -> Patience {
    Patience {
        failover: config.source.failover_hold.0,
        // A file is the operator's own word.
        mass_loss: if is_file(config) { 0 } else { config.source.mass_loss_polls },
        // A poll brings one document in an interval, and each counts; events may bring many in a second,
        // which count once in half an interval.
        spacing: config.source.interval.0 / 2,
    }
}

/// Returns true if the only source is a document on disk.
pub fn is_file(config: &Config) -> bool {
    matches!(config.source.masters.as_slice(), [Location::File(_)])
}

/// Returns the settings of the reconcile loop.
///
/// # Errors
/// When the zone's origin is no name, which no valid configuration has.
pub fn reconciler(config: &Config, dns_usage: UsageRegistry) -> Result<ReconcilerSettings, vips::Error> {
    Ok(ReconcilerSettings {
        planner: planner(config),
        publisher: PublisherSettings {
            zone: zone(config)?,
            origin: config.dns.zone.clone(),
            sources: origins(config),
            dns_usage,
            metrics: Arc::default(),
        },
        audit: config.dataplane.audit.0,
    })
}

/// Opens the history of what has changed.
pub fn events(config: &Config) -> Recorder {
    Recorder::open(Store::new(&config.daemon.state_dir), config.daemon.events.0, &config.dns.zone)
}

/// Returns a fingerprint of each section of the configuration, by which the next start tells what has changed. It
/// shows nothing of the values.
pub fn fingerprints(config: &Config) -> BTreeMap<String, String> {
    let Config { source, marathon, node, vips, dataplane, balance, ipvs, ebpf, dns, http, daemon } = config;
    let sections: [(&str, &dyn fmt::Debug); 11] = [
        ("source", source),
        ("marathon", marathon),
        ("node", node),
        ("vips", vips),
        ("dataplane", dataplane),
        ("balance", balance),
        ("ipvs", ipvs),
        ("ebpf", ebpf),
        ("dns", dns),
        ("http", http),
        ("daemon", daemon),
    ];
    let fingerprint =
        |section: &dyn fmt::Debug| format!("{:08x}", crc32fast::hash(format!("{section:?}").as_bytes()));
    sections.into_iter().map(|(name, section)| (name.to_owned(), fingerprint(section))).collect()
}

/// Returns the choice of the data plane and its place in the kernel.
pub fn kernel(config: &Config) -> KernelOptions {
    KernelOptions {
        plane: config.dataplane.kind.0,
        link: config.dataplane.link.clone(),
        ebpf: ebpf::Options {
            cgroup: config.ebpf.cgroup.clone(),
            pins: config.ebpf.pins.clone(),
            udp_timeout: config.dataplane.udp_timeout.0,
            ejection: ebpf::Ejection {
                after: config.balance.eject_after.into(),
                time: config.balance.eject_time.0,
                limit: config.balance.eject_limit.0,
            },
        },
        access: Access::Program,
    }
}

/// Returns the port of the HTTP server; `None` if it is off.
pub fn port(config: &Config) -> Option<Port> {
    let hosts = config.http.hosts.iter().map(|host| host.trim_end_matches('.').to_ascii_lowercase());
    let guard = Guard { hosts: hosts.collect(), token: config.http.token.clone() };
    config.http.listen.map(|address| Port { address, guard })
}

/// Returns what the checks of a node go by.
pub fn doctor(config: &Config) -> DoctorSettings {
    DoctorSettings {
        kernel: kernel(config),
        ranges: [config.vips.range4, config.vips.range6],
        scheduler: config.ipvs.scheduler.clone(),
        listen: config.dns.listen.clone(),
        forwards: config.dns.forward != Forward::Off,
        socket: config.daemon.socket.clone(),
        source: config.source.clone(),
        marathon: config.marathon.clone(),
        infrastructure: infrastructure(config),
    }
}

/// Returns the zone of the VIPs' names, without any name.
///
/// # Errors
/// When the origin is no name, which no valid configuration has.
pub fn zone(config: &Config) -> Result<Zone, vips::Error> {
    Zone::new(&config.dns.zone)
}

/// Returns all zones, in which nothing is known yet.
///
/// # Errors
/// When an origin is no name, which no valid configuration has.
pub fn catalog(config: &Config) -> Result<Catalog, vips::Error> {
    config.dns.catalog(&[config.vips.range4, config.vips.range6], config.serves_mesos())
}

/// Returns the forwarder of names that are in none of the zones; `None` if they are refused. Needs a runtime.
///
/// # Errors
/// When no upstream is left besides this server itself.
pub fn forwarder(
    config: &Config,
    usage: &UsageRegistry,
    metrics: &Arc<DnsMetrics>,
) -> Result<Option<Forwarder>, forward::Error> {
    let addresses = |upstreams: &[Upstream]| upstreams.iter().map(|upstream| upstream.0).collect();
    let mut routes = Vec::new();
    if let Mesos::Upstreams(upstreams) = &config.dns.mesos {
        routes.push(("mesos", addresses(upstreams)));
    }
    match &config.dns.forward {
        Forward::Off => {}
        Forward::System => routes.push(("", forward::system())),
        Forward::Upstreams(upstreams) => routes.push(("", addresses(upstreams))),
    }
    if routes.is_empty() {
        return Ok(None);
    }
    let forwarder = Forwarder::new(routes, &config.dns.listen)?.counting(Arc::clone(metrics));
    forwarder.announce(usage);
    Ok(Some(forwarder))
}

/// Returns the zones for which systemd-resolved is to ask this server.
pub fn resolved(config: &Config) -> resolved::ResolvedSettings {
    // The zones of DC/OS cover the usual names, so only what is outside of them is named besides.
    let names = std::iter::once(&config.dns.zone).chain(&config.dns.aliases);
    let names = names.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    let further = names.filter(|name| !DCOS_ZONES.iter().any(|zone| is_within(name, zone)));
    let asks_mesos_dns = matches!(config.dns.mesos, Mesos::Upstreams(_));
    let mesos = (asks_mesos_dns || config.serves_mesos()).then(|| "mesos".to_owned());
    let ranges = [config.vips.range4, config.vips.range6];
    let reverse = ranges.iter().flat_map(reverse::origins).take(MAX_REVERSE);
    let domains = DCOS_ZONES.map(str::to_owned).into_iter().chain(further).chain(mesos).chain(reverse);
    resolved::ResolvedSettings {
        mode: config.dns.resolved,
        link: config.dataplane.link.clone(),
        domains: domains.collect(),
        program: "resolvectl".into(),
        bus: None,
    }
}

/// Returns the settings of the task that keeps the catalog of names up to date.
pub fn catalog_settings(config: &Config) -> publisher::CatalogSettings {
    publisher::CatalogSettings { masters: master_addresses(config).collect(), tasks: config.dns.tasks }
}

/// Returns the addresses of the masters that are configured by address.
fn master_addresses(config: &Config) -> impl Iterator<Item = IpAddr> {
    config.source.masters.iter().filter_map(|master| match master {
        Location::Http(url) => url.host_str().and_then(address),
        Location::Zk(_) | Location::File(_) => None,
    })
}

/// Returns what Marathon's answers to an earlier run, which believed `cluster`, leave to go on from.
pub fn earlier(memory: Option<MarathonMemory>, cluster: Option<&Snapshot>) -> Earlier {
    let tasks = cluster.into_iter().flat_map(|cluster| cluster.tasks.keys().cloned());
    Earlier { memory, tasks: tasks.collect() }
}

/// Parses the host of `HOST:PORT`.
fn host_of(server: &str) -> Option<IpAddr> {
    server.rsplit_once(':').and_then(|(host, _)| address(host))
}

/// Parses the host of a URL, in which an IPv6 address has brackets.
fn address(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests;
