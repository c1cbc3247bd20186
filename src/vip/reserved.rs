//! Addresses that belong to no single host: neither VIPs nor backends nor ranges may have them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(address: u128, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(address), length))
}

/// Reserved networks with what their addresses are (RFC 6890); the first that matches counts.
const NETWORKS: &[(IpNet, &str)] = &[
    (v4(0, 0, 0, 0, 8), "an unspecified address"),
    (v4(127, 0, 0, 0, 8), LOOPBACK),
    (v4(169, 254, 0, 0, 16), "a link-local address"),
    (v4(224, 0, 0, 0, 4), "a multicast address"),
    (v4(255, 255, 255, 255, 32), "the broadcast address"),
    (v4(240, 0, 0, 0, 4), "a reserved address"),
    (v6(0, 128), "an unspecified address"),
    (v6(1, 128), LOOPBACK),
    (v6(0xfe80 << 112, 10), "a link-local address"),
    (v6(0xff00 << 112, 8), "a multicast address"),
    (v6(0xffff_0000_0000, 96), "an IPv4-mapped address"),
];

const LOOPBACK: &str = "a loopback address";

/// Returns what a reserved address is, such as `a loopback address`; `None` for an address of a host.
pub fn kind(address: IpAddr) -> Option<&'static str> {
    NETWORKS.iter().find(|(network, _)| network.contains(&address)).map(|(_, kind)| *kind)
}

/// Returns what some addresses from `first` to `last` are; `None` if none of them is reserved.
pub fn kind_within(first: IpAddr, last: IpAddr) -> Option<&'static str> {
    let overlaps = |network: &IpNet| {
        network.addr().is_ipv4() == first.is_ipv4()
            && first <= network.broadcast()
            && network.network() <= last
    };
    NETWORKS.iter().find(|(network, _)| overlaps(network)).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_addresses_are_named_and_no_others() {
        for (address, expected) in [
            ("0.0.0.0", "an unspecified address"),
            ("0.1.2.3", "an unspecified address"),
            ("127.9.9.9", "a loopback address"),
            ("169.254.169.254", "a link-local address"),
            ("239.255.255.255", "a multicast address"),
            ("240.0.0.1", "a reserved address"),
            ("255.255.255.255", "the broadcast address"),
            ("::", "an unspecified address"),
            ("::1", "a loopback address"),
            ("fe80::1", "a link-local address"),
            ("ff02::1", "a multicast address"),
            ("::ffff:10.0.0.9", "an IPv4-mapped address"),
        ] {
            assert_eq!(kind(address.parse().unwrap()), Some(expected), "{address}");
        }
        for address in
            ["1.0.0.0", "10.0.0.3", "126.255.255.255", "169.253.0.1", "223.255.255.255", "::2", "fd00::1"]
        {
            assert_eq!(kind(address.parse().unwrap()), None, "{address}");
        }
    }

    #[test]
    fn a_range_that_touches_a_reserved_network_is_named() {
        let within = |first: &str, last: &str| kind_within(first.parse().unwrap(), last.parse().unwrap());
        assert_eq!(within("11.0.0.0", "11.255.255.255"), None);
        assert_eq!(within("126.0.0.0", "127.0.0.0"), Some("a loopback address"));
        assert_eq!(within("223.0.0.0", "255.0.0.0"), Some("a multicast address"));
        assert_eq!(within("250.0.0.0", "251.0.0.0"), Some("a reserved address"));
        assert_eq!(within("fd01:c::", "fd01:c::ffff"), None);
        assert_eq!(within("::", "::5"), Some("an unspecified address"));
    }
}
