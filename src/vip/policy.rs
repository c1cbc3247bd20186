//! Policy of labels: a tenant can write any label, so a label that would take an address from its
//! owner is refused, with the reason.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::alloc::AddressRange;
use super::reserved;
use super::settings::{BackendPorts, SharedVips};
use crate::cluster::dns_label::MAX_NAME_TEXT;

/// Operator's decisions about labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelPolicy {
    /// Set when IPv6 addresses of tasks become backends.
    pub ipv6: bool,
    /// The only networks that literal VIPs may be in; empty for no limit.
    pub allow: Vec<IpNet>,
    /// Networks that literal VIPs must not be in.
    pub deny: Vec<IpNet>,
    /// Ranges of named VIPs. Only this daemon gives their addresses.
    pub ranges: [AddressRange; 2],
    /// Part of a range that literal VIPs may be in, and named ones not.
    pub literals_in_range: Option<AddressRange>,
    /// Treatment of a name or an address that labels of several frameworks ask for.
    pub shared: SharedVips,
    /// Ports of agents that tasks can be backends at.
    pub ports: BackendPorts,
    /// Zone of the names.
    pub zone: String,
    /// Zones in which this daemon or the cluster serves names, that of the names among them.
    pub domains: Vec<String>,
    /// Addresses that the daemon asks or depends on, as far as they are configured, with what each is, such
    /// as `the address of a Mesos master`.
    pub infrastructure: BTreeMap<IpAddr, &'static str>,
    /// Addresses of servers that the daemon has asked, with the name that led to each.
    pub asked: BTreeMap<IpAddr, String>,
}

impl Default for LabelPolicy {
    fn default() -> Self {
        Self {
            ipv6: true,
            allow: Vec::new(),
            deny: Vec::new(),
            ranges: [AddressRange::DCOS_V4, AddressRange::DCOS_V6],
            literals_in_range: None,
            shared: SharedVips::Warn,
            ports: BackendPorts::Any,
            zone: super::DEFAULT_ZONE.to_owned(),
            domains: vec![super::DEFAULT_ZONE.to_owned()],
            infrastructure: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }
}

impl LabelPolicy {
    /// Returns the reason why a literal VIP can't have `address`, be it that it had it before; `cluster` has
    /// the addresses of agents and masters, with what each is.
    pub fn refuse_address(
        &self,
        address: IpAddr,
        cluster: &BTreeMap<IpAddr, &'static str>,
    ) -> Option<String> {
        if let Some(kind) = reserved::kind(address) {
            return Some(format!("{address} is {kind}, which can't be a VIP"));
        }
        // A connection of the daemon's own would be led to a tenant's task, with its credentials.
        if let Some(kind) = self.infrastructure.get(&address).or_else(|| cluster.get(&address)) {
            return Some(format!("{address} is {kind}, which can't be a VIP"));
        }
        if let Some(name) = self.asked.get(&address) {
            return Some(format!(
                "{address} is the address of a server that l4lbd asks ({name}), which can't be a VIP"
            ));
        }
        let is_open = self.literals_in_range.is_some_and(|part| part.contains(address));
        if let Some(range) = self.ranges.iter().find(|range| range.contains(address) && !is_open) {
            return Some(format!(
                "{address} is in {range}, the range of named VIPs, whose addresses only l4lbd gives: take one \
                 outside of it, or have the operator open a part of it (vips.literals_in_range)"
            ));
        }
        // Before `allow`, so that a part of an allowed network can be denied.
        if let Some(network) = self.deny.iter().find(|network| network.contains(&address)) {
            return Some(format!("{address} is in {network}, which the operator denies (vips.deny)"));
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|network| network.contains(&address)) {
            return Some(format!(
                "{address} is in none of the networks that the operator allows (vips.allow)"
            ));
        }
        None
    }

    /// Returns the reason why DNS can't carry a name: nothing is left of its label, or it is too long.
    pub fn refuse_name(&self, name: &str) -> Option<String> {
        // All such labels of a framework would meet in one VIP that no client can ask for.
        if name.is_empty() || name.starts_with('.') {
            return Some(
                "the name has a part without any letter or digit that DNS allows (a-z and 0-9): choose another"
                    .to_owned(),
            );
        }
        let length = name.len() + 1 + self.zone.len();
        (length > MAX_NAME_TEXT).then(|| {
            format!("the name would have {length} characters with its zone, and DNS ends at {MAX_NAME_TEXT}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(rules: &LabelPolicy, address: &str) -> bool {
        let cluster = [("10.0.0.2".parse().unwrap(), "the address of an agent")].into();
        rules.refuse_address(address.parse().unwrap(), &cluster).is_some()
    }

    #[test]
    fn addresses_that_belong_to_somebody_are_refused() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "10.0.0.2",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.9",
        ] {
            assert!(refused(&LabelPolicy::default(), address), "{address}");
        }
        for address in ["10.0.0.3", "12.1.2.3", "198.51.100.7", "2001:db8::1", "fd01:b::5"] {
            assert!(!refused(&LabelPolicy::default(), address), "{address}");
        }
    }

    #[test]
    fn the_operator_denies_networks_or_allows_only_some() {
        let deny = LabelPolicy { deny: vec!["10.1.0.0/16".parse().unwrap()], ..LabelPolicy::default() };
        assert!(refused(&deny, "10.1.2.3") && !refused(&deny, "10.2.2.3"));
        let allow = LabelPolicy { allow: vec!["10.1.0.0/16".parse().unwrap()], ..LabelPolicy::default() };
        assert!(!refused(&allow, "10.1.2.3") && refused(&allow, "10.2.2.3"));
        let loopback = LabelPolicy { allow: vec!["0.0.0.0/0".parse().unwrap()], ..LabelPolicy::default() };
        assert!(refused(&loopback, "127.0.0.1") && refused(&loopback, "10.0.0.2"), "some can't be allowed");
    }

    #[test]
    fn addresses_of_the_ranges_are_only_given_by_the_daemon() {
        let part = |text: &str| LabelPolicy {
            literals_in_range: Some(text.parse().unwrap()),
            ..LabelPolicy::default()
        };
        for address in ["11.0.0.0", "11.77.0.9", "11.255.255.255", "fd01:c::5"] {
            let reason = LabelPolicy::default().refuse_address(address.parse().unwrap(), &BTreeMap::new());
            assert!(reason.unwrap().contains("the range of named VIPs"), "{address}");
        }
        let open = part("11.77.0.0-11.77.0.255");
        assert!(!refused(&open, "11.77.0.9") && refused(&open, "11.77.1.0") && refused(&open, "fd01:c::5"));
        let open = part("fd01:c::-fd01:c::ff");
        assert!(!refused(&open, "fd01:c::5") && refused(&open, "fd01:c::100") && refused(&open, "11.77.0.9"));
        let narrow = LabelPolicy { allow: vec!["10.1.0.0/16".parse().unwrap()], ..open };
        assert!(refused(&narrow, "fd01:c::5"), "vips.allow says more");
    }

    #[test]
    fn names_end_where_dns_does() {
        let rules = LabelPolicy::default();
        let room = MAX_NAME_TEXT - rules.zone.len() - 1;
        assert!(rules.refuse_name(&"a".repeat(room)).is_none());
        for label in ["/", "/-", "/_", "/.", "/\u{65e5}\u{672c}", "-.web"] {
            let reason = rules.refuse_name(&crate::vip::vip_name(label, "marathon"));
            assert!(reason.unwrap().contains("without any letter or digit"), "{label}");
        }
        assert!(rules.refuse_name(&"a".repeat(room + 1)).is_some());
    }
}
