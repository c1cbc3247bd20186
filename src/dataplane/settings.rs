//! Settings of the data plane: the sections `dataplane`, `ipvs` and `ebpf` of the configuration file.
//!
//! Declares each key once: the doc comment is its help, the attribute its default.

use std::path::PathBuf;

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

    /// Time between two comparisons of the kernel with the desired state while nothing else happens, at least
    /// 100ms. A comparison repairs what other programs have changed.
    #[config(default = "30s")]
    pub audit: Span,

    /// Longest time for which connections to a task that has gone are kept before they are reset. The label
    /// L4LB_DRAIN beside VIP_N sets it for one port.
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
