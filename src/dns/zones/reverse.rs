//! Reverse zones: `in-addr.arpa` (RFC 1035 section 3.5) and `ip6.arpa` (RFC 3596 section 2.5) for
//! addresses of VIPs.
//!
//! Pure. A zone is as large as fits into a VIP range, never larger: addresses beside the range have names
//! in other servers. For example, 10.32.0.0-10.33.255.255 gives the zones `32.10.in-addr.arpa` and
//! `33.10.in-addr.arpa`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::vips::Zone;
use crate::dns::protocol::record::RData;
use crate::dns::protocol::wire::labels;
use crate::vip::alloc::AddressRange;

const V4: &[u8] = b"\x07in-addr\x04arpa";
const V6: &[u8] = b"\x03ip6\x04arpa";

/// Largest number of zones for one range. A range that takes more was hardly meant.
const MAX_ZONES: usize = 1024;

/// Returns the origins that make up a range.
pub fn origins(range: &AddressRange) -> Vec<String> {
    let zones = range.networks().into_iter().flat_map(|network| {
        // A label is an octet of IPv4, four bits of IPv6.
        let step = if network.addr().is_ipv4() { 8 } else { 4 };
        // A network that ends within a label is split into those that end with one.
        let prefix = network.prefix_len().div_ceil(step) * step;
        network.subnets(prefix.max(step)).into_iter().flatten()
    });
    zones.take(MAX_ZONES).map(|network| origin(&network)).collect()
}

/// The reverse name of a network whose prefix ends with a label.
fn origin(network: &IpNet) -> String {
    let name = name(network.network());
    let skipped = match network {
        IpNet::V4(network) => (32 - network.prefix_len()) / 8,
        IpNet::V6(network) => (128 - network.prefix_len()) / 4,
    };
    name.splitn(usize::from(skipped) + 1, '.').last().unwrap_or_default().to_owned()
}

/// The reverse name of an address.
pub(super) fn name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let digits: String = (0..32).map(|place| format!("{:x}.", bits >> (4 * place) & 15)).collect();
            format!("{digits}ip6.arpa")
        }
    }
}

/// Returns the first and the last address below a name, given without its root; `None` if it is not a
/// reverse name.
pub fn parse(name: &[u8]) -> Option<(IpAddr, IpAddr)> {
    if let Some(relative) = name.strip_suffix(V4) {
        let mut bits = 0;
        let mut count = 0;
        for label in labels(relative) {
            let octet: u8 = std::str::from_utf8(label).ok()?.parse().ok()?;
            // No `+1` and no `01`: an address has one name only.
            if octet.to_string().as_bytes() != label || count == 4 {
                return None;
            }
            bits |= u32::from(octet) << (8 * count);
            count += 1;
        }
        // Labels that are missing stand for any value. Shifts by all bits have no result.
        let host = u32::MAX.checked_shr(8 * count).unwrap_or(0);
        let first = bits.checked_shl(32 - 8 * count).unwrap_or(0);
        return Some((Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(first | host).into()));
    }
    let mut bits = 0;
    let mut count = 0;
    for label in labels(name.strip_suffix(V6)?) {
        let [digit] = label else { return None };
        let digit = char::from(*digit).to_digit(16)?;
        if count == 32 {
            return None;
        }
        bits |= u128::from(digit) << (4 * count);
        count += 1;
    }
    let host = u128::MAX.checked_shr(4 * count).unwrap_or(0);
    let first = bits.checked_shl(128 - 4 * count).unwrap_or(0);
    Some((Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(first | host).into()))
}

/// Returns the records of a reverse name; `None` if it does not exist.
pub fn find(vips: &Zone, name: &[u8]) -> Option<Vec<RData>> {
    let (first, last) = parse(name)?;
    if !vips.has_names(first, last) {
        return None;
    }
    // A name above those of addresses.
    if first != last {
        return Some(Vec::new());
    }
    // Below the configured origin: aliases give an address no further names.
    let absolute = |name: &[u8]| RData::Ptr([name, vips.origin()].concat().into());
    Some(vips.names(first).map(absolute).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::protocol::record::encode;

    #[test]
    fn zones_are_as_large_as_the_range_and_no_larger() {
        let origins = |range: &str| origins(&range.parse().unwrap());
        assert_eq!(origins("11.0.0.0-11.255.255.255"), ["11.in-addr.arpa"]);
        assert_eq!(origins("10.32.0.0-10.33.255.255"), ["32.10.in-addr.arpa", "33.10.in-addr.arpa"]);
        assert_eq!(origins("11.0.0.254-11.0.0.255").len(), 2);
        assert_eq!(origins("11.0.0.254-11.0.0.255")[1], "255.0.0.11.in-addr.arpa");
        assert_eq!(
            origins("fd01:c::-fd01:c::ffff:ffff:ffff:ffff"),
            ["0.0.0.0.0.0.0.0.c.0.0.0.1.0.d.f.ip6.arpa"]
        );
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for address in ["11.225.36.193", "fd01:c::123f:714a:6bf4:7a1c"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(parse(&encode(&name(address)).unwrap()), Some((address, address)));
        }
        let part = parse(&encode("36.11.in-addr.arpa").unwrap());
        assert_eq!(part, Some(([11, 36, 0, 0].into(), [11, 36, 255, 255].into())));
        assert_eq!(parse(V4), Some(([0; 4].into(), [255; 4].into())));
        for odd in
            ["256.in-addr.arpa", "01.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "x.ip6.arpa", "10.ip6.arpa"]
        {
            assert_eq!(parse(&encode(odd).unwrap()), None, "{odd}");
        }
    }
}
