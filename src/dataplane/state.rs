//! Everything of ours in one kernel: the unit of comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::rules::RuleSet;
use crate::cluster::{Protocol, SharedMap};

/// Identity of a virtual service: protocol, address and port.
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

/// A real server of a virtual service.
pub type ServerKey = (ServiceKey, SocketAddr);

/// Returns the entries of a service's servers.
pub fn of_service<'m, V>(
    servers: &'m BTreeMap<ServerKey, V>,
    service: &ServiceKey,
) -> impl Iterator<Item = (&'m ServerKey, &'m V)> + use<'m, V> {
    let service = *service;
    // The first of all addresses in their order.
    let first = (service, SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
    servers.range(first..).take_while(move |((key, _), _)| *key == service)
}

/// Forwarding method of IPVS. We program masquerading only; the rest is read where another program
/// altered a real server of ours.
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
    /// Placeholder that never equals a desired value, so that the diff rewrites the service.
    pub fn unknown() -> Self {
        Self { scheduler: String::new(), flags: u32::MAX }
    }
}

/// A virtual service of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub scheduling: Scheduling,
    pub servers: SharedMap<SocketAddr, RealServer>,
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
    /// A copy of the state shares them.
    pub services: SharedMap<ServiceKey, Arc<Service>>,
    /// State of our link.
    pub link: Link,
    /// Host addresses on our link (the DNS listener's).
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses on our link whose own `local` route is gone, so that packets to them leave the node. The
    /// kernel makes that route with the address, and does not make it again; none is ever wanted here.
    pub unrouted: BTreeSet<IpAddr>,
    /// Routes on our link in the `local` table.
    pub routes: BTreeSet<Route>,
    /// Sysctl path below `/proc/sys`, such as `net/ipv4/vs/conntrack`, to value.
    pub sysctls: BTreeMap<String, String>,
    /// Our nftables table; `None` without one.
    pub rules: Option<RuleSet>,
    /// Idle timeouts of connections; `None` if the plane has none.
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

/// Idle timeouts of connections, in seconds; they hold for the whole network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Established TCP connections.
    pub tcp: u32,
    /// TCP connections after a FIN.
    pub tcp_fin: u32,
    pub udp: u32,
}

/// Connections of one real server, as the kernel counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    pub active: u32,
    pub inactive: u32,
}

/// A virtual service that is not ours: shown in the status, never changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Foreign {
    /// Name as `ipvsadm` would show it: `tcp 10.0.0.1:80`, `fwmark 7`, ...
    pub service: String,
    /// Key of a TCP or UDP service, which a VIP of ours may also want.
    #[serde(skip)]
    pub key: Option<ServiceKey>,
}
