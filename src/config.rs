//! The configuration file: one TOML document, every key optional.
//!
//! [`KEYS`] is the single list of what can be set; parsing, the reference in `--help` and the check
//! that the sample file is complete all go by it. All errors of a file are found at once.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::dataplane::Timeouts;
use crate::dataplane::desired::Settings;
use crate::dns::catalog::{Catalog, Layout};
use crate::dns::clients::Client;
use crate::dns::forward::{self, Forward, Forwarder, Mesos, Upstream};
use crate::dns::publisher;
use crate::dns::zone::Zone;
use crate::source::credentials::TokenScheme;
use crate::source::secret::Keeper;
use crate::source::size::Rate;
use crate::source::{Location, Mode};
use crate::vip::Rules;
use crate::vip::alloc::AddressRange;

/// Where the configuration is unless said otherwise; it need not exist.
pub const DEFAULT_PATH: &str = "/etc/l4lbd/l4lbd.toml";

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub source: Source,
    pub marathon: Marathon,
    pub node: Node,
    pub vips: Vips,
    pub ipvs: Ipvs,
    pub dns: Dns,
    pub daemon: Daemon,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub masters: Vec<Location>,
    pub mode: Mode,
    pub interval: Span,
    pub resync: Span,
    pub timeout: Span,
    pub max_backoff: Span,
    pub failover_hold: Span,
    pub mass_loss_polls: u32,
    pub budget: Rate,
    /// The node's own agent, for [`Mode::Agent`].
    pub agent: Location,
    pub access: Access,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Marathon {
    pub urls: Vec<Location>,
    pub interval: Span,
    /// Without TLS, which is that of [`Source`].
    pub access: Access,
}

/// How to show servers who asks, and how to know them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    pub basic: Option<Keeper>,
    pub token: Option<Keeper>,
    pub token_scheme: TokenScheme,
    pub service_account: Option<Keeper>,
    pub tls_ca: Option<PathBuf>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
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
pub struct Dns {
    pub listen: Vec<SocketAddr>,
    pub zone: String,
    pub aliases: Vec<String>,
    pub tasks: bool,
    pub mesos: Mesos,
    pub forward: Forward,
    pub clients: Vec<Client>,
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
                ttl: Span::seconds(u64::from(crate::dns::zone::DEFAULT_TTL)),
            },
            daemon: Daemon {
                state_dir: PathBuf::from("/var/lib/l4lbd"),
                socket: PathBuf::from("/run/l4lbd/l4lbd.sock"),
            },
        }
    }
}

/// A length of time, written like `2s`, `10m` or `24h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    fn as_seconds(self) -> u32 {
        u32::try_from(self.0.as_secs()).unwrap_or(u32::MAX)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let span: jiff::SignedDuration = text.parse().map_err(|_| {
            serde::de::Error::custom(format!("{text:?} is not a time such as 2s, 10m or 24h"))
        })?;
        Duration::try_from(span).map(Self).map_err(|_| serde::de::Error::custom("a time can't be negative"))
    }
}

/// One key of the file.
pub struct Key {
    /// Section and name, such as `source.masters`.
    pub path: &'static str,
    /// The default in TOML, or empty where there is none.
    pub default: &'static str,
    pub help: &'static str,
    set: fn(&mut Config, toml::Value) -> Result<(), toml::de::Error>,
}

/// Every key, in the order of the sample file.
pub const KEYS: &[Key] = &[
    Key {
        path: "source.masters",
        default: r#"["http://leader.mesos:5050"]"#,
        help: "Mesos masters to ask in turn (http:// or https://), where they elect their leader \
               (zk://[USER:PASSWORD@]HOST:PORT,.../PATH), or both; or a single file:/PATH to read a state document \
               from disk",
        set: |c, v| put(&mut c.source.masters, v),
    },
    Key {
        path: "source.mode",
        default: r#""poll""#,
        help: "How masters are asked: poll (the state document, every source.interval) or stream (the events of the \
               v1 operator API, for which a master has room for few: use it on some nodes, not on hundreds) or agent \
               (source.agent for its own tasks, and masters every source.resync for all others, or none at all)",
        set: |c, v| put(&mut c.source.mode, v),
    },
    Key {
        path: "source.interval",
        default: r#""2s""#,
        help: "Shortest time between two questions, give or take a fifth; source.budget may make it longer",
        set: |c, v| put(&mut c.source.interval, v),
    },
    Key {
        path: "source.resync",
        default: r#""1m""#,
        help: "In the modes stream and agent: time between two questions for the whole state; source.budget may make \
               it longer",
        set: |c, v| put(&mut c.source.resync, v),
    },
    Key {
        path: "source.agent",
        default: r#""http://127.0.0.1:5051""#,
        help: "In the mode agent: this node's own agent",
        set: |c, v| put(&mut c.source.agent, v),
    },
    Key {
        path: "source.timeout",
        default: r#""30s""#,
        help: "Longest time that a master may take for a whole answer",
        set: |c, v| put(&mut c.source.timeout, v),
    },
    Key {
        path: "source.max_backoff",
        default: r#""30s""#,
        help: "Longest pause after errors",
        set: |c, v| put(&mut c.source.max_backoff, v),
    },
    Key {
        path: "source.failover_hold",
        default: r#""15m""#,
        help: "After a master fail-over, how long backends are kept on agents that have not registered again",
        set: |c, v| put(&mut c.source.failover_hold, v),
    },
    Key {
        path: "source.mass_loss_polls",
        default: "5",
        help: "How many documents in a row must agree that more than half of all tasks vanished without a \
               trace before that is believed; 0 believes it at once",
        set: |c, v| put(&mut c.source.mass_loss_polls, v),
    },
    Key {
        path: "source.budget",
        default: r#""50MB""#,
        help: "Bytes per second that masters may have to send to all nodes of the cluster together; with many \
               agents and large documents each node asks less often",
        set: |c, v| put(&mut c.source.budget, v),
    },
    Key {
        path: "source.basic",
        default: "",
        help: "Where USER:PASSWORD for masters is kept, file:/PATH or env:NAME; read again for every question. At \
               most one of basic, token and service_account; a user in a master's URL has precedence",
        set: |c, v| put_some(&mut c.source.access.basic, v),
    },
    Key {
        path: "source.token",
        default: "",
        help: "The same for a token",
        set: |c, v| put_some(&mut c.source.access.token, v),
    },
    Key {
        path: "source.token_scheme",
        default: r#""bearer""#,
        help: "How a token is sent: bearer (Authorization: Bearer TOKEN) or token (Authorization: token=TOKEN, as \
               DC/OS has it)",
        set: |c, v| put(&mut c.source.access.token_scheme, v),
    },
    Key {
        path: "source.service_account",
        default: "",
        help: "The same for the secret of a DC/OS service account: JSON with uid, private_key and login_endpoint",
        set: |c, v| put_some(&mut c.source.access.service_account, v),
    },
    Key {
        path: "source.tls_ca",
        default: "",
        help: "Authorities of the servers' certificates (PEM), instead of the system's; masters found through \
               ZooKeeper are asked by https where this is set",
        set: |c, v| put_some(&mut c.source.access.tls_ca, v),
    },
    Key {
        path: "source.tls_cert",
        default: "",
        help: "This client's certificate with its chain (PEM), for servers that want one",
        set: |c, v| put_some(&mut c.source.access.tls_cert, v),
    },
    Key {
        path: "source.tls_key",
        default: "",
        help: "Its private key (PEM)",
        set: |c, v| put_some(&mut c.source.access.tls_key, v),
    },
    Key {
        path: "marathon.urls",
        default: "[]",
        help: "Marathons of the cluster, of which any that answers will do. They add their own health and readiness \
               checks to tasks of Mesos; with source.masters = [] they are the only source",
        set: |c, v| put(&mut c.marathon.urls, v),
    },
    Key {
        path: "marathon.interval",
        default: r#""10s""#,
        help: "Longest time between two questions; Marathon's events make it shorter",
        set: |c, v| put(&mut c.marathon.interval, v),
    },
    Key {
        path: "marathon.basic",
        default: "",
        help: "Credentials for Marathon, as in [source]; the TLS settings there hold for Marathon as well",
        set: |c, v| put_some(&mut c.marathon.access.basic, v),
    },
    Key {
        path: "marathon.token",
        default: "",
        help: "See source.token",
        set: |c, v| put_some(&mut c.marathon.access.token, v),
    },
    Key {
        path: "marathon.token_scheme",
        default: r#""bearer""#,
        help: "See source.token_scheme",
        set: |c, v| put(&mut c.marathon.access.token_scheme, v),
    },
    Key {
        path: "marathon.service_account",
        default: "",
        help: "See source.service_account",
        set: |c, v| put_some(&mut c.marathon.access.service_account, v),
    },
    Key {
        path: "node.address",
        default: "",
        help: "This node's IPv4 address, which its own clients use towards VIPs; found out by default",
        set: |c, v| put_some(&mut c.node.address, v),
    },
    Key {
        path: "node.address6",
        default: "",
        help: "The same for IPv6",
        set: |c, v| put_some(&mut c.node.address6, v),
    },
    Key {
        path: "vips.range4",
        default: r#""11.0.0.0-11.255.255.255""#,
        help: "IPv4 addresses for named VIPs; must be the same on all nodes, and used for nothing else",
        set: |c, v| put(&mut c.vips.range4, v),
    },
    Key {
        path: "vips.range6",
        default: r#""fd01:c::-fd01:c::ffff:ffff:ffff:ffff""#,
        help: "IPv6 addresses for named VIPs",
        set: |c, v| put(&mut c.vips.range6, v),
    },
    Key {
        path: "vips.ipv6",
        default: "true",
        help: "Whether IPv6 addresses of tasks become backends",
        set: |c, v| put(&mut c.vips.ipv6, v),
    },
    Key {
        path: "vips.linger",
        default: r#""10m""#,
        help: "How long a VIP without any task keeps its address and refuses connections",
        set: |c, v| put(&mut c.vips.linger, v),
    },
    Key {
        path: "vips.max",
        default: "32768",
        help: "Most VIPs that are programmed; new ones beyond that are left out, with an alarm",
        set: |c, v| put(&mut c.vips.max, v),
    },
    Key {
        path: "vips.allow",
        default: "[]",
        help: "The only networks, such as 10.64.0.0/16, in which labels may ask for addresses of their own; [] is \
               everywhere but at addresses that belong to somebody: this node, an agent, a master, a router, a \
               nameserver, loopback, link-local, multicast",
        set: |c, v| put(&mut c.vips.allow, v),
    },
    Key {
        path: "vips.deny",
        default: "[]",
        help: "Networks in which they may not",
        set: |c, v| put(&mut c.vips.deny, v),
    },
    Key {
        path: "ipvs.link",
        default: r#""minuteman""#,
        help: "Name of the dummy link that VIPs are routed to; created if missing",
        set: |c, v| put(&mut c.ipvs.link, v),
    },
    Key {
        path: "ipvs.scheduler",
        default: r#""wlc""#,
        help: "IPVS scheduler of every VIP, such as wlc, rr or mh",
        set: |c, v| put(&mut c.ipvs.scheduler, v),
    },
    Key {
        path: "ipvs.audit",
        default: r#""30s""#,
        help: "How often the kernel is compared with what it should hold when nothing else happens",
        set: |c, v| put(&mut c.ipvs.audit, v),
    },
    Key {
        path: "ipvs.drain",
        default: r#""60s""#,
        help: "How long the connections of a task that has gone are kept at most, before they are reset; the label \
               L4LB_DRAIN beside VIP_N says otherwise for one port",
        set: |c, v| put(&mut c.ipvs.drain, v),
    },
    Key {
        path: "ipvs.tcp_timeout",
        default: r#""24h""#,
        help: "After which time without a packet a TCP connection is forgotten; each one takes about 300 bytes \
               of kernel memory until then",
        set: |c, v| put(&mut c.ipvs.tcp_timeout, v),
    },
    Key {
        path: "ipvs.tcp_fin_timeout",
        default: r#""2m""#,
        help: "The same after a FIN",
        set: |c, v| put(&mut c.ipvs.tcp_fin_timeout, v),
    },
    Key {
        path: "ipvs.udp_timeout",
        default: r#""1m""#,
        help: "The same for UDP",
        set: |c, v| put(&mut c.ipvs.udp_timeout, v),
    },
    Key {
        path: "dns.listen",
        default: r#"["198.51.100.1:53"]"#,
        help: "Addresses of the DNS server; those that the node does not have are put on our link. [] switches \
               it off",
        set: |c, v| put(&mut c.dns.listen, v),
    },
    Key {
        path: "dns.zone",
        default: r#""l4lb.thisdcos.directory""#,
        help: "Zone of the VIPs' names",
        set: |c, v| put(&mut c.dns.zone, v),
    },
    Key {
        path: "dns.aliases",
        default: r#"["dclb.thisdcos.directory", "l4lb.thisdcos.global", "dclb.thisdcos.global"]"#,
        help: "More zones that have the same names",
        set: |c, v| put(&mut c.dns.aliases, v),
    },
    Key {
        path: "dns.tasks",
        default: "true",
        help: "Whether names of tasks are served, in dcos.thisdcos.directory and mesos.thisdcos.directory",
        set: |c, v| put(&mut c.dns.tasks, v),
    },
    Key {
        path: "dns.mesos",
        default: r#""state""#,
        help: "Who answers for the zone mesos: \"state\" for us, by the rules of mesos-dns (needs dns.tasks), the \
               addresses of servers of mesos-dns, or \"off\"",
        set: |c, v| put(&mut c.dns.mesos, v),
    },
    Key {
        path: "dns.forward",
        default: r#""off""#,
        help: "Who is asked for all other names: addresses such as 10.0.0.2 or 10.0.0.2:5353, \"system\" for the \
               nameservers in /etc/resolv.conf, or \"off\" to refuse them",
        set: |c, v| put(&mut c.dns.forward, v),
    },
    Key {
        path: "dns.clients",
        default: r#"["node"]"#,
        help: "Who may ask: \"node\" for processes and containers of this node, networks such as 10.0.0.0/8, \
               \"any\"",
        set: |c, v| put(&mut c.dns.clients, v),
    },
    Key {
        path: "dns.ttl",
        default: r#""5s""#,
        help: "How long clients may remember an answer",
        set: |c, v| put(&mut c.dns.ttl, v),
    },
    Key {
        path: "daemon.state_dir",
        default: r#""/var/lib/l4lbd""#,
        help: "Directory for what must survive a restart: which name has which address",
        set: |c, v| put(&mut c.daemon.state_dir, v),
    },
    Key {
        path: "daemon.socket",
        default: r#""/run/l4lbd/l4lbd.sock""#,
        help: "Unix socket of the status interface",
        set: |c, v| put(&mut c.daemon.socket, v),
    },
];

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
        for (section, keys) in table {
            let toml::Value::Table(keys) = keys else {
                problems.push(format!("{section}: unknown key; keys are in sections such as [source]"));
                continue;
            };
            for (name, value) in keys {
                let path = format!("{section}.{name}");
                match KEYS.iter().find(|key| key.path == path) {
                    Some(key) => {
                        if let Err(error) = (key.set)(self, value) {
                            problems.push(format!("{path}: {}", error.message()));
                        }
                    }
                    None => problems.push(format!("{path}: unknown key{}", suggestion(&path))),
                }
            }
        }
        problems
    }

    /// What single keys can't tell.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        for (path, servers) in [
            ("source.agent", std::slice::from_ref(&self.source.agent)),
            ("marathon.urls", &self.marathon.urls),
        ] {
            let are_http = servers.iter().all(|server| server.url().is_some());
            check(are_http, &format!("{path}: must be http://HOST:PORT or https://HOST:PORT"));
        }
        let files = self.source.masters.iter().filter(|master| matches!(master, Location::File(_))).count();
        let others = self.source.mode == Mode::Agent || !self.marathon.urls.is_empty();
        check(!self.source.masters.is_empty() || others, "source.masters: at least one is needed");
        check(
            files == 0 || self.source.masters.len() == 1,
            "source.masters: a file: can't be mixed with others",
        );
        for (section, access) in [("source", &self.source.access), ("marathon", &self.marathon.access)] {
            let ways = [&access.basic, &access.token, &access.service_account];
            check(
                ways.iter().filter(|way| way.is_some()).count() <= 1,
                &format!("{section}: only one of basic, token and service_account can be set"),
            );
        }
        let access = &self.source.access;
        check(
            access.tls_cert.is_some() == access.tls_key.is_some(),
            "source: tls_cert and tls_key need each other",
        );
        for (path, span) in [
            ("source.interval", self.source.interval),
            ("source.resync", self.source.resync),
            ("marathon.interval", self.marathon.interval),
            ("source.timeout", self.source.timeout),
            ("source.max_backoff", self.source.max_backoff),
            ("ipvs.audit", self.ipvs.audit),
        ] {
            check(span.0 >= Duration::from_millis(100), &format!("{path}: must be at least 100ms"));
        }
        for (path, span) in [
            ("ipvs.tcp_timeout", self.ipvs.tcp_timeout),
            ("ipvs.tcp_fin_timeout", self.ipvs.tcp_fin_timeout),
            ("ipvs.udp_timeout", self.ipvs.udp_timeout),
        ] {
            // The kernel counts in jiffies, in a signed 32-bit number.
            let possible = (1..=1_000_000).contains(&span.0.as_secs());
            check(possible, &format!("{path}: must be from 1s to 1000000s"));
        }
        check(self.node.address.is_none_or(|a| a.is_ipv4()), "node.address: must be an IPv4 address");
        check(self.node.address6.is_none_or(|a| a.is_ipv6()), "node.address6: must be an IPv6 address");
        check(self.vips.range4.is_ipv4(), "vips.range4: must be IPv4");
        check(!self.vips.range6.is_ipv4(), "vips.range6: must be IPv6");
        for (path, range) in [("vips.range4", &self.vips.range4), ("vips.range6", &self.vips.range6)] {
            check(
                !range.is_special(),
                &format!("{path}: must not contain loopback, link-local, multicast or unspecified addresses"),
            );
        }
        let in_range =
            |address: IpAddr| self.vips.range4.contains(address) || self.vips.range6.contains(address);
        check(!self.node.address.is_some_and(in_range), "node.address: is inside of the VIP range");
        check(!self.node.address6.is_some_and(in_range), "node.address6: is inside of the VIP range");
        check(
            !self.dns.listen.iter().any(|listen| in_range(listen.ip())),
            "dns.listen: an address is inside of the VIP range",
        );
        check(
            (1..=15).contains(&self.ipvs.link.len())
                && self.ipvs.link.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
            "ipvs.link: must have 1 to 15 letters, digits, dots or dashes",
        );
        check(
            (1..=15).contains(&self.ipvs.scheduler.len())
                && self.ipvs.scheduler.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
            "ipvs.scheduler: must be the short name of a scheduler, such as wlc or rr",
        );
        if let Err(error) = self.zone() {
            problems.push(format!("dns.zone: {error}"));
        } else if let Err(error) = self.catalog() {
            problems.push(format!("dns.aliases: {error}"));
        }
        problems
    }

    /// Whether nobody but Marathon is asked.
    pub fn is_marathon_alone(&self) -> bool {
        self.source.masters.is_empty() && self.source.mode != Mode::Agent
    }

    /// Who is asked, for people.
    pub fn places(&self) -> Vec<String> {
        let agent = (self.source.mode == Mode::Agent).then(|| self.source.agent.to_string());
        let masters = self.source.masters.iter().map(Location::to_string);
        agent.into_iter().chain(masters).chain(self.marathon.urls.iter().map(Location::to_string)).collect()
    }

    /// What labels may ask for.
    pub fn rules(&self) -> Rules {
        Rules {
            ipv6: self.vips.ipv6,
            allow: self.vips.allow.clone(),
            deny: self.vips.deny.clone(),
            zone: self.dns.zone.clone(),
            masters: self.master_addresses().collect(),
        }
    }

    /// What the data plane needs to know.
    pub fn settings(&self) -> Settings {
        let listeners: BTreeSet<IpAddr> = self
            .dns
            .listen
            .iter()
            .map(SocketAddr::ip)
            .filter(|address| !address.is_loopback() && !address.is_unspecified())
            .collect();
        Settings {
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
            mesos: self.dns.tasks && self.dns.mesos == Mesos::State,
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

    /// Masters that are given by address.
    fn master_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.source.masters.iter().filter_map(|master| match master {
            Location::Http(url) => url.host_str()?.trim_matches(['[', ']']).parse().ok(),
            Location::Zk(_) | Location::File(_) => None,
        })
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

/// The list of keys as text, for `--help`.
pub fn reference() -> String {
    let mut text = String::from("Configuration keys (section.key = default):\n");
    for key in KEYS {
        let default = if key.default.is_empty() { "(none)" } else { key.default };
        text.push_str(&format!("\n  {} = {default}\n      {}\n", key.path, key.help));
    }
    text
}

fn put<T: DeserializeOwned>(slot: &mut T, value: toml::Value) -> Result<(), toml::de::Error> {
    *slot = value.try_into()?;
    Ok(())
}

fn put_some<T: DeserializeOwned>(slot: &mut Option<T>, value: toml::Value) -> Result<(), toml::de::Error> {
    *slot = Some(value.try_into()?);
    Ok(())
}

/// A key that ends alike, for those who had the right name in the wrong section.
fn suggestion(path: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    let similar = KEYS.iter().find(|key| key.path.ends_with(name) && !name.is_empty());
    similar.map(|key| format!("; did you mean {}?", key.path)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
