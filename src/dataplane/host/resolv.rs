//! Nameservers in `resolv.conf` (resolv.conf(5)).

use std::net::IpAddr;

/// Returns the nameservers of a file's text, in order. A zone, as in `fe80::1%eth0`, is left out, and
/// so is a line with something else than an address.
pub fn nameservers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        address.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_the_addresses_behind_the_keyword() {
        let text = "# nameserver 1.1.1.1\nsearch example.com\n\tnameserver 10.0.0.2 # first\nnameserver\n\
                    nameserver fe80::1%eth0\nnameserver resolver.example\nnameserver10.0.0.9\noptions ndots:5\n";
        let expected: [IpAddr; 2] = ["10.0.0.2".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(nameservers(text), expected);
        assert_eq!(nameservers(""), [] as [IpAddr; 0]);
    }
}
