//! Settings of the data plane: the sections `dataplane`, `ipvs` and `ebpf` of the configuration file.
//!
//! Declares each key once: the doc comment is its help, the attribute its default.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Error as _, IntoDeserializer};
use serde::{Deserialize, Deserializer};

use super::PlaneKind;
use crate::units::Span;

/// Section `dataplane`: choice of the data plane, and settings that all planes share.
#[derive(Clone, Debug, PartialEq, confique::Config)]
pub struct DataPlaneSettings {
    /// Technique that spreads connections over backends. `ipvs`: the kernel's load balancer. `ebpf`: programs
    /// that change where sockets connect to, for kernels without IPVS. `auto`: ipvs if the kernel has it, else
    /// ebpf.
    #[config(default = "auto")]
    pub kind: PlaneSetting,

    /// Name of the dummy network link for the routes of VIPs and the address of the DNS server: 1 to 15
    /// letters, digits, dots, dashes or underscores. Created if missing.
    #[config(default = "minuteman")]
    pub link: String,

    /// Time between two comparisons of the kernel with the desired state, at least 100ms. A comparison repairs
    /// what other programs have changed. Changes of links, addresses, routes and netfilter rules are repaired at
    /// once, and `l4lbd status --compare` compares as well.
    #[config(default = "30s")]
    pub audit: Span,

    /// Longest time for which connections to a task that has gone are kept before they are reset. The label
    /// L4LB_DRAIN beside VIP_N sets it for one port. With ebpf, connections of containers with a network of their
    /// own are reset only where the service has the drop-in ebpf-containers.conf.
    #[config(default = "60s")]
    pub drain: Span,

    /// Time without a datagram after which a UDP client may get another backend, from 1s to 1000000s. With ebpf a
    /// client is an unconnected socket.
    #[config(default = "1m")]
    pub udp_timeout: Span,
}

/// Section `ipvs`: settings that only the data plane ipvs has.
#[derive(Clone, Debug, PartialEq, confique::Config)]
pub struct IpvsSettings {
    /// Short name of the IPVS scheduler for VIPs without a label L4LB_SCHEDULER, such as `wlc`, `rr` or `mh`.
    #[config(default = "wlc")]
    pub scheduler: String,

    /// Time without a packet after which the kernel forgets an established TCP connection, from 1s to 1000000s.
    /// Each connection takes about 300 bytes of kernel memory until then.
    #[config(default = "24h")]
    pub tcp_timeout: Span,

    /// Time without a packet after which the kernel forgets a TCP connection that is being closed (since its
    /// FIN), from 1s to 1000000s.
    #[config(default = "2m")]
    pub tcp_fin_timeout: Span,

    /// Pairs of networks between which VIPs make no connection, each `CLIENTS -> TASKS`, such as
    /// `"172.17.0.0/16 -> 10.0.5.0/24"` or `"0.0.0.0/0 -> 10.0.6.7"`. A client is refused where IPVS has chosen
    /// a task for it that it may not reach. The rules of a firewall for forwarded packets do not see
    /// connections through VIPs, so what they keep apart is named here as well.
    #[config(default = [])]
    pub denied: Vec<Denied>,
}

/// Clients that may not reach tasks through VIPs. Both networks have one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    pub clients: IpNet,
    pub tasks: IpNet,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.clients, self.tasks)
    }
}

impl FromStr for Denied {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason: &str| {
            format!(
                "{text:?} {reason}; write it as \"CLIENTS -> TASKS\", such as \"172.17.0.0/16 -> 10.0.5.7\""
            )
        };
        let network = |text: &str| {
            let text = text.trim();
            let address = |_| text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>().or_else(address).map(|network| network.trunc())
        };
        let (clients, tasks) = text.split_once("->").ok_or_else(|| error("has no arrow"))?;
        let clients = network(clients).map_err(|_| error("does not begin with a network or an address"))?;
        let tasks = network(tasks).map_err(|_| error("does not end with a network or an address"))?;
        if clients.addr().is_ipv4() != tasks.addr().is_ipv4() {
            return Err(error("has networks of two families"));
        }
        Ok(Self { clients, tasks })
    }
}

impl<'de> Deserialize<'de> for Denied {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Section `ebpf`: settings that only the data plane ebpf has.
#[derive(Clone, Debug, PartialEq, confique::Config)]
pub struct EbpfSettings {
    /// Directory of the control group (version 2) whose processes can reach VIPs. If not set, all processes of
    /// the node can.
    ///
    /// Example: `"/sys/fs/cgroup/mesos"`
    pub cgroup: Option<PathBuf>,

    /// Directory on a BPF file system in which programs and tables stay while no daemon runs.
    #[config(default = "/sys/fs/bpf/l4lbd")]
    pub pins: PathBuf,
}

/// Section `balance`: how a backend is chosen.
#[derive(Clone, Debug, PartialEq, confique::Config)]
pub struct BalanceSettings {
    /// TCP connects in a row that must fail until their backend is ejected; 0 for never. A connect fails if it is
    /// refused by a reset, or not answered within a second. Each network namespace ejects for itself, at most half
    /// of a VIP's ready backends. Only with ebpf.
    #[config(default = 3)]
    pub eject_after: u16,

    /// Time for which a backend is ejected, from 100ms to 1h. After that a single connection is sent there; if it
    /// fails, the backend is ejected for twice as long.
    #[config(default = "1s")]
    pub eject_time: Span,

    /// Longest time for which a backend is ejected, from 100ms to 1h.
    #[config(default = "30s")]
    pub eject_limit: Span,
}

/// Data plane by configuration; `None` if the kernel decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneSetting(pub Option<PlaneKind>);

impl<'de> Deserialize<'de> for PlaneSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "auto" {
            return Ok(Self(None));
        }
        let plane: StrDeserializer<'_, ValueError> = text.as_str().into_deserializer();
        // The error lists the planes, which "auto" is none of.
        PlaneKind::deserialize(plane)
            .map(|plane| Self(Some(plane)))
            .map_err(|error| D::Error::custom(format!("{error}, or `auto` to let the kernel decide")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_has_two_networks_of_one_family() {
        let parsed = |text: &str| text.parse::<Denied>().map(|denied| denied.to_string());
        assert_eq!(parsed("172.17.1.9/16->10.0.5.7").unwrap(), "172.17.0.0/16 -> 10.0.5.7/32");
        assert_eq!(parsed(" ::/0 -> fd00::/64 ").unwrap(), "::/0 -> fd00::/64");
        for (text, reason) in [
            ("10.0.0.0/8", "has no arrow"),
            ("cni0 -> 10.0.5.7", "does not begin with a network"),
            ("10.0.0.0/8 -> 10.0.5.7:80", "does not end with a network"),
            ("0.0.0.0/0 -> fd00::/64", "has networks of two families"),
        ] {
            assert!(parsed(text).unwrap_err().contains(reason), "{text}");
        }
    }
}
