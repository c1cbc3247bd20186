//! Policy of labels: a tenant can write any label, so a label that would take an address from its
//! owner is refused, with the reason.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::reserved;
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
    /// Zone of the names.
    pub zone: String,
    /// Addresses of masters, as far as they are configured.
    pub masters: BTreeSet<IpAddr>,
}

impl Default for LabelPolicy {
    fn default() -> Self {
        Self {
            ipv6: true,
            allow: Vec::new(),
            deny: Vec::new(),
            zone: super::DEFAULT_ZONE.to_owned(),
            masters: BTreeSet::new(),
        }
    }
}

impl LabelPolicy {
    /// Returns the reason why a literal VIP can't have `address`; `cluster` has the addresses of agents
    /// and masters.
    pub fn refuse_address(&self, address: IpAddr, cluster: &BTreeSet<IpAddr>) -> Option<String> {
        if let Some(kind) = reserved::kind(address) {
            return Some(format!("{address} is {kind}, which can't be a VIP"));
        }
        // A tenant could otherwise take the traffic to a master or an agent on every node.
        if cluster.contains(&address) || self.masters.contains(&address) {
            return Some(format!("{address} is the address of an agent or a master, which can't be a VIP"));
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

    /// Returns the reason why DNS can't carry a name of this length.
    pub fn refuse_name(&self, name: &str) -> Option<String> {
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
        let cluster = ["10.0.0.2".parse().unwrap()].into();
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
        for address in ["10.0.0.3", "11.1.2.3", "198.51.100.7", "2001:db8::1", "fd01:c::5"] {
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
    fn names_end_where_dns_does() {
        let rules = LabelPolicy::default();
        let room = MAX_NAME_TEXT - rules.zone.len() - 1;
        assert!(rules.refuse_name(&"a".repeat(room)).is_none());
        assert!(rules.refuse_name(&"a".repeat(room + 1)).is_some());
    }
}
