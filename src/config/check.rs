//! Checks of keys against each other and against what the kernel and DNS can do; every single value is of the right
//! kind here.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Config;
use super::renamed::WrittenNames;
use crate::cluster::port_options::SCHEDULERS;
use crate::dataplane::settings::BalanceSettings;
use crate::dns::forward::Mesos;
use crate::dns::protocol::record::encode_origin;
use crate::dns::settings::{DCOS_ZONES, is_within};
use crate::dns::zones::vips::{self, Zone};
use crate::source::Location;
use crate::units::{Size, Span};
use crate::vip::alloc::AddressRange;
use crate::vip::reserved;

/// Shortest interval or timeout; below it a daemon would do nothing but ask.
const SHORTEST: Span = Span(Duration::from_millis(100));

/// Longest timeout of IPVS in seconds: the kernel counts in jiffies, in a signed 32-bit number.
const LONGEST_TIMEOUT: u64 = 1_000_000;

/// Longest time for which a backend may be ejected. The programs count in 32 bits.
const LONGEST_EJECTION: Duration = Duration::from_secs(3600);

/// Sizes of the file of events: below, a single document fills it; half of it is in memory.
const EVENTS: RangeInclusive<u64> = 64_000..=64_000_000;

/// Characters of the longest name that the kernel allows for a link (IFNAMSIZ, without the final zero).
const LONGEST_NAME: usize = 15;

/// Returns everything that is wrong with a configuration, each with the key as the file names it.
pub fn problems(config: &Config, written: &WrittenNames) -> Vec<String> {
    let mut problems = Vec::new();
    problems.extend(servers(config));
    problems.extend(access(config));
    problems.extend(http(config));
    problems.extend(times(config, written));
    problems.extend(addresses(config));
    problems.extend(paths(config));
    problems.extend(names(config, written));
    problems.extend(sizes(config));
    problems
}

/// Checks the servers of sources.
fn servers(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    // Checked in every mode, so that a change of `source.mode` alone brings up no error.
    let agent = std::slice::from_ref(&config.source.agent);
    for (key, servers) in [("source.agent", agent), ("marathon.urls", &config.marathon.urls)] {
        for server in servers.iter().filter(|server| server.url().is_none()) {
            problems.push(format!("{key}: {server} must be http://HOST:PORT or https://HOST:PORT"));
        }
    }
    // The daemon answers for these zones itself, from the state that it has yet to ask for.
    if let Some((key, host)) = config.source_within(&DCOS_ZONES) {
        problems.push(format!(
            "{key}: {host} is a name that this daemon serves, and so can't find by asking for it; give the server \
             by its address"
        ));
    }
    let masters = &config.source.masters;
    if masters.is_empty() && config.source.is_marathon_alone() && config.marathon.urls.is_empty() {
        problems.push(
            "source.masters: is empty, and there is no other source; give a master, marathon.urls, or \
             source.mode = \"agent\""
                .to_owned(),
        );
    }
    // A file has no leader that could be elected among several.
    if let Some(file) = masters.iter().find(|master| matches!(master, Location::File(_)) && masters.len() > 1)
    {
        problems.push(format!(
            "source.masters: {file} must be the only entry, because a file is the whole state"
        ));
    }
    problems
}

/// Checks credentials and certificates.
fn access(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let (source, marathon) = (&config.source, &config.marathon);
    for (section, ways) in [
        ("source", [&source.basic, &source.token, &source.service_account]),
        ("marathon", [&marathon.basic, &marathon.token, &marathon.service_account]),
    ] {
        let names = ["basic", "token", "service_account"].into_iter().zip(ways);
        let set: Vec<String> =
            names.filter(|(_, way)| way.is_some()).map(|(name, _)| format!("{section}.{name}")).collect();
        // A request has one Authorization header.
        if set.len() > 1 {
            problems.push(format!("{}: only one of these can be set", set.join(", ")));
        }
    }
    for (key, is_set, other, is_other_set) in [
        ("source.tls_cert", source.tls_cert.is_some(), "source.tls_key", source.tls_key.is_some()),
        ("source.tls_key", source.tls_key.is_some(), "source.tls_cert", source.tls_cert.is_some()),
    ] {
        if is_set && !is_other_set {
            problems.push(format!("{key}: is of no use without {other}; set both or none"));
        }
    }
    problems
}

/// Checks who can reach the HTTP server.
fn http(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let http = &config.http;
    if let Some(listen) = http.listen.filter(|listen| !listen.ip().is_loopback() && http.token.is_none()) {
        problems.push(format!(
            "http.listen: other machines reach {listen}, so that clients need a token; set http.token, or listen on \
             127.0.0.1"
        ));
    }
    for host in &http.hosts {
        if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            problems.push(format!(
                "http.hosts: {host:?} must be a name such as node7.example.com, without a port"
            ));
        }
    }
    problems
}

/// Checks intervals and timeouts.
fn times(config: &Config, written: &WrittenNames) -> Vec<String> {
    let mut problems = Vec::new();
    for (key, span) in [
        ("source.interval", config.source.interval),
        ("source.resync", config.source.resync),
        ("marathon.interval", config.marathon.interval),
        ("source.timeout", config.source.timeout),
        ("source.max_backoff", config.source.max_backoff),
        (written.name("dataplane.audit"), config.dataplane.audit),
    ] {
        // Zero would be a loop without a pause.
        if span < SHORTEST {
            problems.push(format!("{key}: {span} must be at least {SHORTEST}"));
        }
    }
    for (key, span) in [
        ("ipvs.tcp_timeout", config.ipvs.tcp_timeout),
        ("ipvs.tcp_fin_timeout", config.ipvs.tcp_fin_timeout),
        (written.name("dataplane.udp_timeout"), config.dataplane.udp_timeout),
    ] {
        // 0 means "leave as it is" to the kernel, which is not what it looks like in a file.
        if !(1..=LONGEST_TIMEOUT).contains(&span.0.as_secs()) {
            problems.push(format!("{key}: {span} must be from 1s to {LONGEST_TIMEOUT}s"));
        }
    }
    let BalanceSettings { eject_time, eject_limit, .. } = &config.balance;
    for (key, span) in [("balance.eject_time", eject_time), ("balance.eject_limit", eject_limit)] {
        if *span < SHORTEST || span.0 > LONGEST_EJECTION {
            problems.push(format!("{key}: {span} must be from {SHORTEST} to 1h"));
        }
    }
    if eject_limit < eject_time {
        problems.push(format!(
            "balance.eject_limit: {eject_limit} must be at least balance.eject_time, which is {eject_time}"
        ));
    }
    // DNS counts in seconds; what is left of a shorter time would be none.
    let ttl = config.dns.ttl;
    if ttl < Span::seconds(1) || ttl.0.subsec_nanos() != 0 {
        problems.push(format!("dns.ttl: {ttl} must be a whole number of seconds, at least 1s"));
    }
    problems
}

/// Checks addresses against their family and against the ranges of VIPs.
fn addresses(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let (node, vips) = (&config.node, &config.vips);
    for (key, address, is_ipv4) in
        [("node.address", node.address, true), ("node.address6", node.address6, false)]
    {
        let Some(address) = address else { continue };
        if address.is_ipv4() != is_ipv4 {
            problems.push(format!("{key}: {address} must be an {} address", family(is_ipv4)));
        } else if let Some(kind) = reserved::kind(address) {
            problems.push(format!(
                "{key}: {address} is {kind}, from which no other node can be reached; give the address under which \
                 other nodes know this one"
            ));
        }
    }
    for (key, range, is_ipv4) in [("vips.range4", vips.range4, true), ("vips.range6", vips.range6, false)] {
        if range.is_ipv4() != is_ipv4 {
            problems.push(format!("{key}: {range} must be a range of {} addresses", family(is_ipv4)));
        // The kernel sends such addresses elsewhere, whatever routes say.
        } else if let Some(kind) = range.reserved() {
            problems
                .push(format!("{key}: {range} contains {kind}, which no VIP can have; choose another range"));
        }
    }
    if let Some(part) = vips.literals_in_range {
        let (key, range) =
            if part.is_ipv4() { ("vips.range4", vips.range4) } else { ("vips.range6", vips.range6) };
        if part == range {
            problems.push(format!(
                "vips.literals_in_range: {part} is all of {key} and leaves no address for names; choose a smaller part"
            ));
        } else if !range.covers(&part) {
            problems.push(format!("vips.literals_in_range: {part} must be a part of {range} ({key})"));
        }
    }
    if vips.max == 0 {
        problems.push("vips.max: 0 leaves no VIP at all; it must be at least 1".to_owned());
    }
    // The route of the range would take the node's own address, and the node with it.
    let own = [("node.address", node.address), ("node.address6", node.address6)];
    let own = own.into_iter().filter_map(|(key, address)| Some((key, address?)));
    let listeners = config.dns.listen.iter().map(|listener| ("dns.listen", listener.ip()));
    for (key, address) in own.chain(listeners) {
        if let Some((range_key, range)) = range_with(config, address) {
            problems.push(format!("{key}: {address} is in the range of VIPs, {range_key} = {range}"));
        }
    }
    problems
}

fn family(is_ipv4: bool) -> &'static str {
    if is_ipv4 { "IPv4" } else { "IPv6" }
}

/// Returns the range of VIPs that contains `address`, with its key.
fn range_with(config: &Config, address: IpAddr) -> Option<(&'static str, AddressRange)> {
    let ranges = [("vips.range4", config.vips.range4), ("vips.range6", config.vips.range6)];
    ranges.into_iter().find(|(_, range)| range.contains(address))
}

/// Checks paths: a service starts in another directory than the author of its file.
fn paths(config: &Config) -> Vec<String> {
    let source = &config.source;
    let document = source.masters.iter().find_map(|master| match master {
        Location::File(path) => Some(path),
        Location::Http(_) | Location::Zk(_) => None,
    });
    let paths = [
        ("source.masters", document),
        ("source.tls_ca", source.tls_ca.as_ref()),
        ("source.tls_cert", source.tls_cert.as_ref()),
        ("source.tls_key", source.tls_key.as_ref()),
        ("ebpf.cgroup", config.ebpf.cgroup.as_ref()),
        ("ebpf.pins", Some(&config.ebpf.pins)),
        ("daemon.state_dir", Some(&config.daemon.state_dir)),
        ("daemon.socket", Some(&config.daemon.socket)),
    ];
    let relative = paths.into_iter().filter_map(|(key, path)| Some((key, path?)));
    let relative = relative.filter(|(_, path)| !path.is_absolute());
    relative.map(|(key, path)| format!("{key}: the path {path:?} must start with /")).collect()
}

/// Checks sizes of files.
fn sizes(config: &Config) -> Option<String> {
    let size = config.daemon.events;
    let [least, most] = [EVENTS.start(), EVENTS.end()].map(|bound| Size(*bound));
    (!EVENTS.contains(&size.0)).then(|| {
        format!("daemon.events: {size} is too small or too large; it must be from {least} to {most}")
    })
}

/// Checks names that the kernel or DNS limits.
fn names(config: &Config, written: &WrittenNames) -> Vec<String> {
    let mut problems = Vec::new();
    let (link, scheduler) = (&config.dataplane.link, &config.ipvs.scheduler);
    let is_short = |name: &str| (1..=LONGEST_NAME).contains(&name.len());
    // Names of links are paths below /sys and /proc, and arguments of resolvectl.
    if !is_short(link) || !link.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        let key = written.name("dataplane.link");
        problems.push(format!(
            "{key}: {link:?} must have 1 to {LONGEST_NAME} letters, digits, dots, dashes or underscores"
        ));
    }
    if !SCHEDULERS.contains(&scheduler.as_str()) {
        problems.push(format!(
            "ipvs.scheduler: {scheduler:?} must be the short name of an IPVS scheduler, one of {}",
            SCHEDULERS.join(", ")
        ));
    }
    if let Err(error) = Zone::new(&config.dns.zone) {
        problems.push(format!("dns.zone: {error}"));
    }
    for alias in &config.dns.aliases {
        if let Err(reason) = encode_origin(alias) {
            let error = vips::Error::Origin { origin: alias.clone(), reason };
            problems.push(format!("dns.aliases: {error}"));
        }
    }
    problems
}

impl Config {
    /// True if the zone `mesos` is served from the state of the cluster.
    ///
    /// Not if a source is configured by a name in it: the daemon would ask itself for that name, get the address in
    /// the last state, and never find the master that leads since.
    pub fn serves_mesos(&self) -> bool {
        self.wants_mesos() && self.source_within(&["mesos"]).is_none()
    }

    fn wants_mesos(&self) -> bool {
        self.dns.tasks && self.dns.mesos == Mesos::State
    }

    /// Returns sentences about what is valid, but perhaps not what the author expects.
    pub(super) fn remarks(&self) -> impl Iterator<Item = String> {
        self.mesos_remark().into_iter().chain(self.listen_remarks())
    }

    /// Returns the reason why the zone `mesos` is not served although it should be; `None` if it is.
    fn mesos_remark(&self) -> Option<String> {
        let (key, host) = self.source_within(&["mesos"]).filter(|_| self.wants_mesos())?;
        Some(format!(
            "note: with {key} = {host} it is usual that names in the zone mesos are not served: {host} is in that \
             zone and needs another DNS server; to have them served, give the server by its address (masters also \
             by zk://)"
        ))
    }

    fn listen_remarks(&self) -> impl Iterator<Item = String> {
        self.dns.listen.iter().filter(|listener| listener.ip().is_unspecified()).map(|listener| {
            format!(
                "note: replies of the listener {listener} (dns.listen) may leave from another address than was \
                 asked, and clients drop them; give single addresses"
            )
        })
    }

    /// Returns a server of a source whose name is in one of the zones, with the key that has it.
    fn source_within(&self, zones: &[&str]) -> Option<(&'static str, &str)> {
        let masters = self.source.masters.iter().map(|server| ("source.masters", server));
        // The agent counts in every mode, so that a change of the mode does not change the zones.
        masters
            .chain(std::iter::once(("source.agent", &self.source.agent)))
            .chain(self.marathon.urls.iter().map(|server| ("marathon.urls", server)))
            .filter_map(|(key, server)| Some((key, server.url()?.host_str()?)))
            .find(|(_, host)| zones.iter().any(|zone| is_within(host, zone)))
    }
}
