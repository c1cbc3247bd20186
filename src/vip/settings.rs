//! Settings of VIPs: the section `vips` of the configuration file.
//!
//! Declares each key once: the doc comment is its help, the attribute its default.

use ipnet::IpNet;

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

    /// Largest number of VIPs that are programmed into the kernel. New VIPs beyond it are left out, and l4lbd
    /// status is degraded.
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
}
