//! Settings of VIPs: the section `vips` of the configuration file.
//!
//! Declares each key once: the doc comment is its help, the attribute its default.

use ipnet::IpNet;
use serde::Deserialize;

use super::alloc::AddressRange;
use crate::units::{self, Span};

/// Section `vips`.
#[derive(Clone, Debug, PartialEq, confique::Config)]
pub struct VipSettings {
    /// IPv4 addresses for named VIPs, from the first to the last. Must be the same on all nodes, and used for
    /// nothing else.
    #[config(default = "11.0.0.0-11.255.255.255")]
    pub range4: AddressRange,

    /// IPv6 addresses for named VIPs, from the first to the last. Must be the same on all nodes, and used for
    /// nothing else.
    #[config(default = "fd01:c::-fd01:c::ffff:ffff:ffff:ffff")]
    pub range6: AddressRange,

    /// Use of IPv6: `true` if IPv6 addresses of tasks become backends, `false` if only IPv4 addresses do.
    #[config(default = true)]
    pub ipv6: bool,

    /// Time for which a VIP without any task keeps its address and refuses connections.
    #[config(default = "10m")]
    pub linger: Span,

    /// Largest number of VIPs that are programmed into the kernel, those without tasks among them; with eBPF at
    /// most 32768. Beyond it apps have fair shares, what is more is left out, and l4lbd status is degraded. See
    /// SHARED BOUNDS in l4lbd-labels(7).
    #[config(default = 32768)]
    pub max: usize,

    /// Networks that labels may request addresses from, such as `["10.64.0.0/16"]`; with `[]` all networks.
    /// Addresses that are in use or reserved are refused in any case; see "Labels that are refused" in
    /// l4lbd-labels(7).
    #[config(default = [], deserialize_with = units::networks)]
    pub allow: Vec<IpNet>,

    /// Networks that labels may not request addresses from, such as `["10.0.0.0/8"]`. Has precedence over
    /// vips.allow.
    #[config(default = [], deserialize_with = units::networks)]
    pub deny: Vec<IpNet>,

    /// Part of vips.range4 or vips.range6 that labels may request addresses from; no name gets an address in it.
    /// If not set, labels that request an address of the ranges are refused. Must be the same on all nodes.
    ///
    /// Example: `"11.255.0.0-11.255.255.255"`
    pub literals_in_range: Option<AddressRange>,

    /// Treatment of VIPs whose name or address labels of several frameworks ask for: `"warn"` to send
    /// connections to the tasks of all of them, `"refuse"` to leave the VIP to the framework that registered
    /// first, in any port. l4lbd status warns of such VIPs in any case, and their options are those of that
    /// framework. Must be the same on all nodes. See TENANTS in l4lbd-labels(7).
    #[config(default = "warn")]
    pub shared: SharedVips,

    /// Ports of agents that a task can be a backend at: `"any"` for every port, `"allocated"` for those among the
    /// port resources of the task or of its executor, as pods have them, or in the port mappings of its
    /// container, and only at its own agent. With `"any"`, each tenant can point a VIP of its own at any port of any
    /// agent. Use `"allocated"` where
    /// tenants are not trusted. Must be the same on all nodes. See TENANTS in l4lbd-labels(7).
    #[config(default = "any")]
    pub ports: BackendPorts,
}

/// `vips.ports`: the ports of agents that a task can be a backend at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendPorts {
    /// Every port.
    #[default]
    Any,
    /// Ports that Mesos has given to the task.
    Allocated,
}

/// `vips.shared`: the treatment of VIPs that several frameworks ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SharedVips {
    /// Tasks of all frameworks are backends.
    #[default]
    Warn,
    /// Only tasks of the framework that registered first are.
    Refuse,
}
