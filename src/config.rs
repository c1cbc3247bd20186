//! The configuration file: one TOML document, every key optional.
//!
//! [`KEYS`] is the single list of what can be set; parsing, the reference in `--help` and the check
//! that the sample file is complete all go by it. All errors of a file are found at once.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::belief::Patience;
use crate::dataplane::kernel::KernelOptions;
use crate::dataplane::{PlaneKind, Timeouts, ebpf};
use crate::dns::catalog::{Catalog, Layout};
use crate::dns::clients::Client;
use crate::dns::forward::{self, Forward, Forwarder, Mesos, Upstream};
use crate::dns::publisher;
use crate::dns::resolved::{self, Resolved};
use crate::dns::reverse;
use crate::dns::zone::Zone;
use crate::plan::PlannerSettings;
use crate::plan::desired::{DesiredSettings, Sources};
use crate::reconcile::{PublisherSettings, ReconcilerSettings};
pub use crate::source::settings::{Access, Marathon, Source};
use crate::source::{Location, Mode};
use crate::units::Rate;
use crate::units::Span;
use crate::vip::LabelPolicy;
use crate::vip::alloc::AddressRange;

mod check;
mod keys;

pub use keys::{KEYS, Key, reference};

/// Where the configuration is unless said otherwise; it need not exist.
pub const DEFAULT_PATH: &str = "/etc/l4lbd/l4lbd.toml";

/// Zones that systemd-resolved asks us for as a whole.
const WHOLE: [&str; 2] = ["thisdcos.directory", "thisdcos.global"];

/// Most reverse zones that systemd-resolved is told of.
const MAX_REVERSE: usize = 64;

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `None` where the kernel decides.
    pub dataplane: Option<PlaneKind>,
    pub source: Source,
    pub marathon: Marathon,
    pub node: Node,
    pub vips: Vips,
    pub ipvs: Ipvs,
    pub ebpf: Ebpf,
    pub dns: Dns,
    pub daemon: Daemon,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub address: Option<IpAddr>,
    pub address6: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Vips {
    pub range4: AddressRange,
    pub range6: AddressRange,
    pub ipv6: bool,
    pub linger: Span,
    pub max: usize,
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Ipvs {
    pub link: String,
    pub scheduler: String,
    pub audit: Span,
    pub drain: Span,
    pub tcp_timeout: Span,
    pub tcp_fin_timeout: Span,
    pub udp_timeout: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Ebpf {
    /// Whose sockets reach VIPs; `None` for all.
    pub cgroup: Option<PathBuf>,
    /// Where programs and tables stay without a daemon.
    pub pins: PathBuf,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    pub listen: Vec<SocketAddr>,
    pub zone: String,
    pub aliases: Vec<String>,
    pub tasks: bool,
    pub mesos: Mesos,
    pub forward: Forward,
    pub clients: Vec<Client>,
    pub resolved: Resolved,
    pub ttl: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Daemon {
    pub state_dir: PathBuf,
    pub socket: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dataplane: None,
            source: Source {
                masters: vec![Location::default()],
                mode: Mode::Poll,
                interval: Span::seconds(2),
                resync: Span::seconds(60),
                timeout: Span::seconds(30),
                max_backoff: Span::seconds(30),
                failover_hold: Span::seconds(15 * 60),
                mass_loss_polls: 5,
                budget: Rate(50_000_000),
                agent: Location::own_agent(),
                access: Access::default(),
            },
            marathon: Marathon { urls: Vec::new(), interval: Span::seconds(10), access: Access::default() },
            node: Node { address: None, address6: None },
            vips: Vips {
                range4: AddressRange::DCOS_V4,
                range6: AddressRange::DCOS_V6,
                ipv6: true,
                linger: Span::seconds(10 * 60),
                max: 32_768,
                allow: Vec::new(),
                deny: Vec::new(),
            },
            ipvs: Ipvs {
                link: "minuteman".to_owned(),
                scheduler: "wlc".to_owned(),
                audit: Span::seconds(30),
                drain: Span::seconds(60),
                tcp_timeout: Span::seconds(24 * 60 * 60),
                tcp_fin_timeout: Span::seconds(120),
                udp_timeout: Span::seconds(60),
            },
            ebpf: Ebpf { cgroup: None, pins: PathBuf::from("/sys/fs/bpf/l4lbd") },
            dns: Dns {
                listen: vec![SocketAddr::from(([198, 51, 100, 1], 53))],
                zone: crate::dns::zone::DEFAULT_ORIGIN.to_owned(),
                aliases: ["dclb.thisdcos.directory", "l4lb.thisdcos.global", "dclb.thisdcos.global"]
                    .map(str::to_owned)
                    .into(),
                tasks: true,
                mesos: Mesos::State,
                forward: Forward::Off,
                clients: vec![Client::Node],
                resolved: Resolved::Auto,
                ttl: Span::seconds(u64::from(crate::dns::zone::DEFAULT_TTL)),
            },
            daemon: Daemon {
                state_dir: PathBuf::from("/var/lib/l4lbd"),
                socket: PathBuf::from("/run/l4lbd/l4lbd.sock"),
            },
        }
    }
}

/// What is wrong with a configuration, all of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{path} is not TOML: {error}")]
    Syntax { path: PathBuf, error: Box<toml::de::Error> },
    #[error("{}", Lines(path, problems))]
    Invalid { path: PathBuf, problems: Vec<String> },
}

/// One problem a line, each with the file it is in.
struct Lines<'a>(&'a Path, &'a [String]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.1.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}: {problem}", self.0.display())?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads `path`; without one, the default file if there is one.
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::Read { path: file.to_owned(), error }),
        };
        Self::parse(file, &text)
    }

    /// Reads the text of `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let table: toml::Table = toml::from_str(text)
            .map_err(|error| Error::Syntax { path: path.to_owned(), error: Box::new(error) })?;
        let mut config = Self::default();
        let mut problems = config.set_all(table);
        problems.extend(config.problems());
        if problems.is_empty() { Ok(config) } else { Err(Error::Invalid { path: path.to_owned(), problems }) }
    }

    fn set_all(&mut self, table: toml::Table) -> Vec<String> {
        let mut problems = Vec::new();
        for (section, content) in table {
            match content {
                toml::Value::Table(keys) => {
                    for (name, value) in keys {
                        problems.extend(self.set(&format!("{section}.{name}"), value));
                    }
                }
                value => problems.extend(self.set(&section, value)),
            }
        }
        problems
    }

    /// Returns what is wrong with one key or its value.
    fn set(&mut self, path: &str, value: toml::Value) -> Option<String> {
        let Some(key) = KEYS.iter().find(|key| key.path == path) else {
            let hint = match path.contains('.') {
                true => keys::suggestion(path),
                false => "; keys are in sections such as [source]".to_owned(),
            };
            return Some(format!("{path}: unknown key{hint}"));
        };
        let problem = (key.set)(self, value).err()?;
        Some(format!("{path}: {}", problem.message()))
    }

    /// What labels may ask for.
    pub fn rules(&self) -> LabelPolicy {
        LabelPolicy {
            ipv6: self.vips.ipv6,
            allow: self.vips.allow.clone(),
            deny: self.vips.deny.clone(),
            zone: self.dns.zone.clone(),
            masters: self.master_addresses().collect(),
        }
    }

    /// Who is asked, for people.
    pub fn places(&self) -> Vec<String> {
        let agent = (self.source.mode == Mode::Agent).then(|| self.source.agent.to_string());
        let masters = self.source.masters.iter().map(Location::to_string);
        agent.into_iter().chain(masters).chain(self.marathon.urls.iter().map(Location::to_string)).collect()
    }

    /// What the data plane needs to know.
    fn desired_settings(&self) -> DesiredSettings {
        let listeners: BTreeSet<IpAddr> = self
            .dns
            .listen
            .iter()
            .map(SocketAddr::ip)
            .filter(|address| !address.is_loopback() && !address.is_unspecified())
            .collect();
        DesiredSettings {
            range4: self.vips.range4,
            range6: self.vips.range6,
            scheduler: self.ipvs.scheduler.clone(),
            timeouts: Timeouts {
                tcp: self.ipvs.tcp_timeout.as_seconds(),
                tcp_fin: self.ipvs.tcp_fin_timeout.as_seconds(),
                udp: self.ipvs.udp_timeout.as_seconds(),
            },
            listeners,
        }
    }

    /// Returns the operator's decisions about the table.
    pub fn planner(&self) -> PlannerSettings {
        PlannerSettings {
            desired: self.desired_settings(),
            policy: self.rules(),
            linger: self.vips.linger.0,
            drain: self.ipvs.drain.0,
            max_vips: self.vips.max,
            node: Sources { v4: self.node.address, v6: self.node.address6 },
        }
    }

    /// Returns how long tasks are held that a document lacks.
    pub fn patience(&self) -> Patience {
        Patience {
            failover: self.source.failover_hold.0,
            // A file is the operator's own word.
            mass_loss: if self.is_file() { 0 } else { self.source.mass_loss_polls },
            spacing: self.source.interval.0 / 2,
        }
    }

    /// Returns true if the only source is a document on disk.
    pub fn is_file(&self) -> bool {
        matches!(self.source.masters.as_slice(), [Location::File(_)])
    }

    /// Returns the settings of the reconcile loop.
    ///
    /// # Errors
    /// Where the zone's name is no DNS name.
    pub fn reconciler(&self) -> Result<ReconcilerSettings, crate::dns::zone::Error> {
        Ok(ReconcilerSettings {
            planner: self.planner(),
            publisher: PublisherSettings {
                zone: self.zone()?,
                origin: self.dns.zone.clone(),
                sources: self.places(),
            },
            audit: self.ipvs.audit.0,
        })
    }

    /// What the data plane needs to find its place in the kernel.
    pub fn kernel(&self) -> KernelOptions {
        KernelOptions {
            plane: self.dataplane,
            link: self.ipvs.link.clone(),
            ebpf: ebpf::Options { cgroup: self.ebpf.cgroup.clone(), pins: self.ebpf.pins.clone() },
            attach: true,
        }
    }

    /// The zone of the VIPs' names, empty.
    pub fn zone(&self) -> Result<Zone, crate::dns::zone::Error> {
        Zone::new(&self.dns.zone)
    }

    /// All zones, in which nothing is known yet.
    pub fn catalog(&self) -> Result<Catalog, crate::dns::zone::Error> {
        let listeners: Vec<IpAddr> = self.dns.listen.iter().map(SocketAddr::ip).collect();
        let layout = Layout {
            zone: &self.dns.zone,
            aliases: &self.dns.aliases,
            tasks: self.dns.tasks,
            mesos: self.answers_mesos(),
            ranges: &[self.vips.range4, self.vips.range6],
            ttl: self.dns.ttl.as_seconds(),
            listeners: &listeners,
        };
        Catalog::new(&layout, Arc::new(self.zone()?))
    }

    /// Who answers for names that are in none of our zones; `None` where nobody does. Needs a runtime.
    pub fn forwarder(&self) -> Result<Option<Forwarder>, forward::Error> {
        let addresses = |upstreams: &[Upstream]| upstreams.iter().map(|upstream| upstream.0).collect();
        let mut routes = Vec::new();
        if let Mesos::Upstreams(upstreams) = &self.dns.mesos {
            routes.push(("mesos", addresses(upstreams)));
        }
        match &self.dns.forward {
            Forward::Off => {}
            Forward::System => routes.push(("", forward::system())),
            Forward::Upstreams(upstreams) => routes.push(("", addresses(upstreams))),
        }
        if routes.is_empty() {
            return Ok(None);
        }
        Forwarder::new(routes, &self.dns.listen).map(Some)
    }

    /// Whether the zone `mesos` is answered from the state. Not where a source has its name in there: we would
    /// ask ourselves for it, get the address of the last state, and never find who leads since.
    fn answers_mesos(&self) -> bool {
        self.wants_mesos() && self.source_within(&["mesos"]).is_none()
    }

    fn wants_mesos(&self) -> bool {
        self.dns.tasks && self.dns.mesos == Mesos::State
    }

    /// Why the zone `mesos` is not answered although it should be; `None` where it is.
    pub fn mesos_remark(&self) -> Option<String> {
        let (path, host) = self.source_within(&["mesos"]).filter(|_| self.wants_mesos())?;
        Some(format!(
            "the zone mesos is left to others, because {path} has {host} in it; for names from the state give \
             masters by address or zk://"
        ))
    }

    /// A server of a source whose name is in one of the zones, and the key that names it.
    fn source_within(&self, zones: &[&str]) -> Option<(&'static str, &str)> {
        let masters = self.source.masters.iter().map(|server| ("source.masters", server));
        masters
            .chain(std::iter::once(("source.agent", &self.source.agent)))
            .chain(self.marathon.urls.iter().map(|server| ("marathon.urls", server)))
            .filter_map(|(path, server)| Some((path, server.url()?.host_str()?)))
            .find(|(_, host)| zones.iter().any(|zone| is_within(host, zone)))
    }

    /// Masters that are given by address.
    fn master_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.source.masters.iter().filter_map(|master| match master {
            Location::Http(url) => url.host_str()?.trim_matches(['[', ']']).parse().ok(),
            Location::Zk(_) | Location::File(_) => None,
        })
    }

    /// What systemd-resolved is told.
    pub fn resolved(&self) -> resolved::Settings {
        let names = std::iter::once(&self.dns.zone).chain(&self.dns.aliases);
        let names = names.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let others = names.filter(|name| !WHOLE.iter().any(|zone| is_within(name, zone)));
        let asks_mesos_dns = matches!(self.dns.mesos, Mesos::Upstreams(_));
        let mesos = (asks_mesos_dns || self.answers_mesos()).then(|| "mesos".to_owned());
        let ranges = [self.vips.range4, self.vips.range6];
        let reverse = ranges.iter().flat_map(reverse::origins).take(MAX_REVERSE);
        resolved::Settings {
            mode: self.dns.resolved,
            link: self.ipvs.link.clone(),
            domains: WHOLE.map(str::to_owned).into_iter().chain(others).chain(mesos).chain(reverse).collect(),
        }
    }

    /// What the names of tasks depend on.
    pub fn names(&self) -> publisher::Settings {
        publisher::Settings {
            masters: self.master_addresses().collect(),
            patience: self.source.failover_hold.0,
            tasks: self.dns.tasks,
        }
    }
}

/// Whether a name is a zone's origin or below it.
fn is_within(name: &str, zone: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests;
