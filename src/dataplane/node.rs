//! The node beside our own state: its data plane, its addresses, networks and settings.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What spreads connections over backends in this kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaneKind {
    /// Virtual services that packets pass.
    #[default]
    Ipvs,
    /// Programs that change where sockets connect to.
    Ebpf,
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

/// What this node's network looks like, apart from what is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub plane: PlaneKind,
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
