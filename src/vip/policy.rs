//! What a label may ask for. Any tenant can write any label, so that whatever would take an address
//! from somebody else is refused, with the reason.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::cluster::dns_label::MAX_NAME_TEXT;

/// What the operator decides about labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelPolicy {
    /// Whether IPv6 addresses of tasks become backends.
    pub ipv6: bool,
    /// Where not empty, the only networks that literal VIPs may be in.
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
    /// Why a literal VIP can't have `address`; `cluster` are the addresses of agents and masters.
    pub fn refuse_address(&self, address: IpAddr, cluster: &BTreeSet<IpAddr>) -> Option<String> {
        if let Some(kind) = special(address) {
            return Some(format!("{address} is {kind}, which can't be a VIP"));
        }
        if cluster.contains(&address) || self.masters.contains(&address) {
            return Some(format!("{address} is the address of an agent or a master, which can't be a VIP"));
        }
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

    /// Why DNS can't carry a name of this length.
    pub fn refuse_name(&self, name: &str) -> Option<String> {
        let length = name.len() + 1 + self.zone.len();
        (length > MAX_NAME_TEXT).then(|| {
            format!("the name would have {length} characters with its zone, and DNS ends at {MAX_NAME_TEXT}")
        })
    }
}

/// The kind of an address that belongs to no single host.
fn special(address: IpAddr) -> Option<&'static str> {
    Some(match address {
        IpAddr::V4(v4) if v4.is_loopback() => "a loopback address",
        IpAddr::V4(v4) if v4.is_link_local() => "a link-local address",
        IpAddr::V4(v4) if v4.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V4(v4) if v4.octets()[0] == 0 => "an unspecified address",
        IpAddr::V6(v6) if v6.is_loopback() => "a loopback address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local address",
        IpAddr::V6(v6) if v6.is_multicast() => "a multicast address",
        IpAddr::V6(v6) if v6.is_unspecified() => "an unspecified address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4-mapped address",
        _ => return None,
    })
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
