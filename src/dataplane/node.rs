//! The node beside our own state: its plane, its addresses, networks and settings.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Name of a mechanism of the kernel that spreads connections over backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaneKind {
    /// Virtual services that packets pass.
    #[default]
    Ipvs,
    /// Programs that change where sockets connect to.
    Ebpf,
}

impl PlaneKind {
    /// All planes, in the order in which they are tried if none is configured.
    pub const ALL: [Self; 2] = [Self::Ipvs, Self::Ebpf];
}

impl fmt::Display for PlaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipvs => "ipvs",
            Self::Ebpf => "ebpf",
        })
    }
}

/// A data plane, with the reason for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaneChoice {
    pub plane: PlaneKind,
    pub reason: String,
}

/// Properties of a plane that decide what the desired state needs. Each plane states its own once. Plan,
/// status and monitors read these and never ask which plane it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// True if packets to VIPs pass the node's network stack. Routes need a source address then, and
    /// netfilter rules, kernel settings and connection timeouts are needed.
    pub packets: bool,
    /// Name of the plane's only scheduler; `None` if each service has one of the kernel's.
    pub own_scheduler: Option<&'static str>,
    /// Flag of a service whose servers are not ejected when they fail; `None` if the plane ejects none.
    pub unejected: Option<u32>,
    /// True if connections to VIPs skip the port mappings of container runtimes, so that a backend on
    /// this node has to be addressed at its container.
    pub bypasses_port_mappings: bool,
    /// Most VIPs and servers that the plane holds; `None` without such bounds.
    pub bounds: Option<PlaneBounds>,
}

/// Bounds of what a plane holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneBounds {
    /// Most services.
    pub services: usize,
    /// Most servers of all services.
    pub servers: usize,
    /// Most servers of one service.
    pub servers_per_service: usize,
}

/// Capabilities that most nodes have: those of IPVS.
impl Default for Capabilities {
    fn default() -> Self {
        Self {
            packets: true,
            own_scheduler: None,
            unejected: None,
            bypasses_port_mappings: true,
            bounds: None,
        }
    }
}

/// The node's network and its plane, apart from what is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub capabilities: Capabilities,
    /// Name of the host; empty if unknown.
    pub hostname: String,
    /// The node's own addresses outside our link, loopback ones included.
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses of the node that the kernel does not use as a source: it is still asking if another node
    /// has them (tentative), or another one has.
    pub unready: BTreeSet<IpAddr>,
    /// Directly connected networks with the name of their link, loopback and ours excepted.
    pub connected: BTreeSet<(IpNet, String)>,
    /// Networks that are inside this node: its own addresses, and directly connected networks on links
    /// that do not lead out of it. Containers are inside, neighbours are not.
    pub inside: BTreeSet<IpNet>,
    /// Address that the kernel prefers towards the default route, per family.
    pub default_source4: Option<IpAddr>,
    pub default_source6: Option<IpAddr>,
    /// Names of bridges with ports that do not reflect (hairpin off), so that a container behind them can't
    /// reach itself through a VIP where bridged packets pass netfilter.
    pub no_hairpin: BTreeSet<String>,
    /// True if bridged IPv4 packets pass netfilter, and true if IPv6 ones do: two settings.
    pub filters_bridged4: bool,
    pub filters_bridged6: bool,
    /// Nameservers of the node's resolver, which no VIP may take the address of.
    pub nameservers: BTreeSet<IpAddr>,
    /// Routers of the node, which no VIP may take the address of.
    pub gateways: BTreeSet<IpAddr>,
    /// Buckets of the kernel's connection table; `None` if unknown, or without such a table.
    pub connection_buckets: Option<u32>,
    /// Group of the daemon's sockets, whose connections must not pass a VIP; `None` if it is root's, which
    /// other programs have too.
    pub own_group: Option<u32>,
    /// True if the node forwards IPv6, without which containers can't reach IPv6 VIPs.
    pub forwards_ipv6: bool,
}

impl Node {
    /// True for an address that the kernel uses as a source.
    pub fn is_source(&self, address: &IpAddr) -> bool {
        self.addresses.contains(address) && !self.unready.contains(address)
    }

    /// The address of this node towards the rest of the world: the one that the kernel prefers (`asked`) if it
    /// is a source of the node's, else the first ordinary one, for a node without a default route.
    pub fn default_source(&self, asked: Option<IpAddr>, ipv4: bool) -> Option<IpAddr> {
        let is_ordinary = |address: &&IpAddr| match address {
            IpAddr::V4(v4) => ipv4 && !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !ipv4 && !v6.is_loopback() && !v6.is_unicast_link_local(),
        };
        let asked = asked.filter(|address| self.is_source(address));
        let ordinary = || self.addresses.iter().filter(is_ordinary).find(|address| self.is_source(address));
        asked.or_else(|| ordinary().copied())
    }

    /// Returns the networks of containers: those on a link that does not lead out of the node.
    pub fn container_networks(&self) -> BTreeSet<IpNet> {
        self.on_containers().map(|(network, _)| *network).collect()
    }

    /// Returns the names of the links that lead to containers, each with the families of its networks:
    /// true for IPv4.
    pub fn container_links(&self) -> BTreeSet<(&str, bool)> {
        self.on_containers().map(|(network, link)| (link.as_str(), network.addr().is_ipv4())).collect()
    }

    fn on_containers(&self) -> impl Iterator<Item = &(IpNet, String)> {
        self.connected.iter().filter(|(network, _)| self.inside.contains(network))
    }
}
