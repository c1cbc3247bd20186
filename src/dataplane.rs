//! The data plane's vocabulary: what the node's kernel should hold, what it does hold, and the
//! operations that lead from one to the other.
//!
//! [`State`] is the unit of comparison. [`desired()`] makes one from the VIPs of the cluster,
//! [`DataPlane::read`] makes one from the kernel, [`diff::diff`] lists the [`Op`]s between them and
//! [`DataPlane::apply`] carries them out. Everything here is plain data; the kernel is reached in
//! [`kernel`], and [`memory`] stands in for it in tests and dry runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::task::Protocol;

pub mod desired;
pub mod diff;
pub mod drain;
pub mod ebpf;
pub mod inherit;
pub mod ipvs;
pub mod kernel;
pub mod memory;
pub mod netfilter;
pub mod routing;
pub mod sysctl;

pub use desired::desired;
pub use ipvs::Timeouts;

/// What identifies a virtual service: protocol, address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, SocketAddr::new(self.address, self.port))
    }
}

/// How IPVS sends a packet to a real server. We program masquerading only; the others are read
/// when somebody altered a real server of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forwarding {
    Masquerade,
    Local,
    Tunnel,
    Route,
    /// A method number that this program does not know.
    Other(u32),
}

/// A real server (destination) of a virtual service; its address is the key beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealServer {
    /// Share of new connections; 0 keeps established ones and takes no new ones.
    pub weight: u32,
    pub forwarding: Forwarding,
    /// Connections above which the kernel sends no more; 0 is no limit, which is what we program.
    pub upper_threshold: u32,
    /// Connections below which an overloaded server is used again; 0 is no limit.
    pub lower_threshold: u32,
}

impl RealServer {
    /// A masqueraded real server without connection limits.
    pub const fn masquerade(weight: u32) -> Self {
        Self { weight, forwarding: Forwarding::Masquerade, upper_threshold: 0, lower_threshold: 0 }
    }
}

/// The attributes of a virtual service that can change while it exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scheduling {
    /// Kernel name of the scheduler, such as `wlc`.
    pub scheduler: String,
    /// `IP_VS_SVC_F_*` bits, without the kernel's own "hashed" bit.
    pub flags: u32,
}

impl Scheduling {
    /// That of a service which somebody edited: no wanted one is like it.
    pub fn unknown() -> Self {
        Self { scheduler: String::new(), flags: u32::MAX }
    }
}

/// A virtual service of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub scheduling: Scheduling,
    pub servers: BTreeMap<SocketAddr, RealServer>,
}

/// A `local` route on our link: packets for `destination` are the node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    pub destination: IpNet,
    /// Source address that the node's own clients use; without one they would use the VIP itself,
    /// and a backend on another node could not answer.
    pub source: Option<IpAddr>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "local {}", self.destination)?;
        match self.source {
            Some(source) => write!(f, " src {source}"),
            None => Ok(()),
        }
    }
}

/// Everything of ours in a kernel; the desired and the actual state have this one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub services: BTreeMap<ServiceKey, Service>,
    /// Whether our link exists and is up.
    pub link: Link,
    /// Host addresses on our link (the DNS listener's).
    pub addresses: BTreeSet<IpAddr>,
    /// Routes on our link in the `local` table.
    pub routes: BTreeSet<Route>,
    /// Sysctl path below `/proc/sys`, such as `net/ipv4/vs/conntrack`, to value.
    pub sysctls: BTreeMap<String, String>,
    /// Our nftables table; `None` when there is none.
    pub rules: Option<netfilter::Rules>,
    /// IPVS connection timeouts; `None` where the kernel has no IPVS.
    pub timeouts: Option<Timeouts>,
}

/// State of our dummy link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    #[default]
    Absent,
    Down,
    Up,
}

/// One change to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    SetSysctl { path: String, value: String },
    SetTimeouts(Timeouts),
    AddLink,
    SetLinkUp,
    DelLink,
    AddAddress(IpAddr),
    DelAddress(IpAddr),
    ReplaceRules(netfilter::Rules),
    DelRules,
    AddRoute(Route),
    DelRoute(Route),
    AddService(ServiceKey, Scheduling),
    SetService(ServiceKey, Scheduling),
    DelService(ServiceKey),
    AddServer(ServiceKey, SocketAddr, RealServer),
    SetServer(ServiceKey, SocketAddr, RealServer),
    DelServer(ServiceKey, SocketAddr),
}

impl Op {
    /// The service that is changed, or whose real server is.
    pub fn service(&self) -> Option<&ServiceKey> {
        match self {
            Self::AddService(key, _)
            | Self::SetService(key, _)
            | Self::DelService(key)
            | Self::AddServer(key, ..)
            | Self::SetServer(key, ..)
            | Self::DelServer(key, _) => Some(key),
            _ => None,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::SetSysctl { path, value } => write!(f, "set sysctl {path} = {value}"),
            Op::SetTimeouts(t) => {
                write!(f, "set connection timeouts tcp {} s, tcp fin {} s, udp {} s", t.tcp, t.tcp_fin, t.udp)
            }
            Op::AddLink => write!(f, "add link"),
            Op::SetLinkUp => write!(f, "set link up"),
            Op::DelLink => write!(f, "delete link"),
            Op::AddAddress(address) => write!(f, "add address {address}"),
            Op::DelAddress(address) => write!(f, "delete address {address}"),
            Op::ReplaceRules(_) => write!(f, "replace netfilter rules"),
            Op::DelRules => write!(f, "delete netfilter rules"),
            Op::AddRoute(route) => write!(f, "add route {route}"),
            Op::DelRoute(route) => write!(f, "delete route {route}"),
            Op::AddService(key, s) => write!(f, "add service {key} {}", s.scheduler),
            Op::SetService(key, s) => write!(f, "set service {key} {}", s.scheduler),
            Op::DelService(key) => write!(f, "delete service {key}"),
            Op::AddServer(key, server, s) => write!(f, "add server {key} -> {server} weight {}", s.weight),
            Op::SetServer(key, server, s) => write!(f, "set server {key} -> {server} weight {}", s.weight),
            Op::DelServer(key, server) => write!(f, "delete server {key} -> {server}"),
        }
    }
}

/// An operation that the kernel refused; the others of its batch were carried out all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {error}")]
pub struct OpError {
    pub op: Op,
    /// The kernel's or tool's answer, with a hint where the cause is known.
    pub error: String,
}

/// Connections of one real server, as the kernel counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    pub active: u32,
    pub inactive: u32,
}

/// A virtual service that is not ours: read past, shown, never changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Foreign {
    /// As `ipvsadm` would show it: `tcp 10.0.0.1:80`, `fwmark 7`, ...
    pub service: String,
    /// Set when it is a TCP or UDP service, whose key a VIP of ours may also want.
    #[serde(skip)]
    pub key: Option<ServiceKey>,
}

/// What spreads connections over backends in this kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// Virtual services that packets pass.
    #[default]
    Ipvs,
    /// Programs that change where sockets connect to.
    Ebpf,
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipvs => "ipvs",
            Self::Ebpf => "ebpf",
        })
    }
}

/// A data plane, with the reason for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub plane: Plane,
    pub reason: String,
}

/// What this node's network looks like, apart from what is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub plane: Plane,
    /// The node's own addresses outside our link, loopback ones included.
    pub addresses: BTreeSet<IpAddr>,
    /// Directly connected networks with the name of their link, loopback and ours excepted.
    pub connected: BTreeSet<(IpNet, String)>,
    /// Address that the kernel prefers towards the default route, per family.
    pub default_source4: Option<IpAddr>,
    pub default_source6: Option<IpAddr>,
    /// Names of bridges whose traffic passes netfilter although ports do not reflect (hairpin off),
    /// so that a container behind them can't reach itself through a VIP.
    pub no_hairpin: BTreeSet<String>,
    /// Nameservers of the node's resolver, and its routers; nobody's VIP may be one of them.
    pub nameservers: BTreeSet<IpAddr>,
    pub gateways: BTreeSet<IpAddr>,
    /// Buckets of the kernel's connection table; `None` where that is not known.
    pub connection_buckets: Option<u32>,
    /// Whether the node forwards IPv6, without which containers can't reach IPv6 VIPs.
    pub forwards_ipv6: bool,
}

/// One reading of the kernel.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    pub state: State,
    pub foreign: Vec<Foreign>,
    pub connections: BTreeMap<(ServiceKey, SocketAddr), Connections>,
    pub node: Node,
}

/// Why the data plane could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach IPVS in the kernel: {0}; try: modprobe ip_vs")]
    Ipvs(#[source] ipvs::Error),
    #[error("cannot use eBPF: {0}")]
    Ebpf(#[source] ebpf::Error),
    #[error("this kernel has neither IPVS ({ipvs}; try: modprobe ip_vs) nor eBPF for us ({ebpf})")]
    Neither { ipvs: ipvs::Error, ebpf: ebpf::Error },
    #[error("cannot read links, addresses or routes: {0}")]
    Routing(#[source] routing::Error),
    #[error("cannot read netfilter rules: {0}")]
    Netfilter(#[source] netfilter::Error),
}

/// How closely [`DataPlane::read`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Cheap and enough for a regular audit: may trust what an earlier full reading said about
    /// attributes that the cheap source lacks.
    Audit,
    /// Everything from the kernel itself.
    Full,
}

/// A place that VIPs can be programmed into: the kernel, or the simulated one of [`memory`].
#[allow(async_fn_in_trait)]
pub trait DataPlane {
    /// What it is, and why.
    fn choice(&self) -> Choice;

    /// Reads everything of ours, with counters and the node's own network.
    async fn read(&mut self, depth: Depth) -> Result<Actual, Error>;

    /// Carries out `ops` in order and goes on after a failure; returns the failures.
    async fn apply(&mut self, ops: &[Op]) -> Vec<OpError>;

    /// Ends a pass, after as many [`Self::apply`] as it took: what could not be done before. `complete` is whether
    /// everything is there that should be, so that what stood in for it may go.
    ///
    /// # Errors
    /// What was not possible. It is tried again in the next pass.
    async fn conclude(&mut self, complete: bool) -> Result<(), String>;
}
