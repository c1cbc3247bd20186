//! Settings of the DNS server: the section `dns` of the configuration file.
//!
//! Declares each key once: the doc comment is its help, the attribute its default.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::forward::{Forward, Mesos};
use super::resolved::Resolved;
use super::server::rules::ClientRule;
use super::zones::catalog::{Catalog, CatalogLayout};
use super::zones::vips::{Error, Zone};
use crate::units::{self, Span};
use crate::vip::alloc::AddressRange;

/// Zones of DC/OS, for names in which systemd-resolved asks this server and no other.
pub const DCOS_ZONES: [&str; 2] = ["thisdcos.directory", "thisdcos.global"];

/// Section `dns`.
#[derive(Clone, Debug, PartialEq, confique::Config)]
pub struct DnsSettings {
    /// Addresses and ports on which the DNS server listens, for UDP and TCP. Addresses that the node does not
    /// have are added to the link that dataplane.link names. `[]` switches the server off.
    #[config(default = ["198.51.100.1:53"], deserialize_with = units::socket_addresses)]
    pub listen: Vec<SocketAddr>,

    /// Zone of the names of VIPs: the label VIP_0=/web:80 of an app in Marathon makes the name web.marathon in
    /// this zone.
    #[config(default = "l4lb.thisdcos.directory")]
    pub zone: String,

    /// Further zones that have the same names as dns.zone.
    #[config(default = ["dclb.thisdcos.directory", "l4lb.thisdcos.global", "dclb.thisdcos.global"])]
    pub aliases: Vec<String>,

    /// Names of tasks: `true` to serve them in the zones dcos.thisdcos.directory and mesos.thisdcos.directory.
    #[config(default = true)]
    pub tasks: bool,

    /// Server for the zone mesos. `"state"`: this daemon, with the names of mesos-dns; needs dns.tasks, and no
    /// master, agent or Marathon that is configured by a name in that zone. A list such as `["10.0.0.3"]`: these
    /// servers of mesos-dns. `"off"`: none, so that dns.forward applies.
    #[config(default = "state")]
    pub mesos: Mesos,

    /// Servers for names in none of the zones. A list such as `["10.0.0.2", "10.0.0.3:5353"]`: these. `"system"`:
    /// the nameservers in /etc/resolv.conf. `"off"`: none, such names are refused.
    #[config(default = "off")]
    pub forward: Forward,

    /// Clients that are answered: `"node"` for processes and containers of this node, networks such as
    /// `"10.0.0.0/8"`, or `"any"`.
    #[config(default = ["node"])]
    pub clients: Vec<ClientRule>,

    /// Registration with systemd-resolved, which then asks this server for names in its zones. `auto`: if
    /// systemd-resolved runs. `on`: always, with a warning in l4lbd status if it does not run. `off`: never.
    #[config(default = "auto")]
    pub resolved: Resolved,

    /// Time for which clients may keep an answer, in whole seconds, at least 1s.
    #[config(default = "5s")]
    pub ttl: Span,
}

impl DnsSettings {
    /// Returns all zones, in which nothing is known yet: with reverse zones for `ranges` of VIPs, and with the zone
    /// `mesos` if that is to be served.
    ///
    /// # Errors
    /// When an origin is no name.
    pub fn catalog(&self, ranges: &[AddressRange], mesos: bool) -> Result<Catalog, Error> {
        let listeners: Vec<IpAddr> = self.listen.iter().map(SocketAddr::ip).collect();
        let layout = CatalogLayout {
            zone: &self.zone,
            aliases: &self.aliases,
            tasks: self.tasks,
            mesos,
            ranges,
            ttl: self.ttl.as_seconds(),
            listeners: &listeners,
        };
        Catalog::new(&layout, Arc::new(Zone::new(&self.zone)?))
    }
}

/// Returns true if a name is the origin of a zone or below it.
pub fn is_within(name: &str, zone: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use confique::Config;

    use super::*;
    use crate::vip::DEFAULT_ZONE;

    impl Default for DnsSettings {
        fn default() -> Self {
            Self::builder().load().unwrap()
        }
    }

    #[test]
    fn zone_is_by_default_that_of_labels() {
        assert_eq!(DnsSettings::default().zone, DEFAULT_ZONE);
    }

    #[test]
    fn name_is_within_a_zone_by_whole_labels() {
        for name in ["mesos", "leader.mesos", "Leader.MESOS."] {
            assert!(is_within(name, "mesos"), "{name}");
        }
        for name in ["", "notmesos", "mesos.example", "leader.mesos.example"] {
            assert!(!is_within(name, "mesos"), "{name}");
        }
    }
}
