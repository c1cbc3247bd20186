//! The nameservers of this node, from its `resolv.conf` (resolv.conf(5)).
//!
//! Used where no VIP may take a nameserver's address, and where names are forwarded to the node's own
//! upstreams (`dns.forward = "system"`).

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};

/// The resolver's own file. Where systemd-resolved is the resolver, it names only that.
const OWN: &str = "/etc/resolv.conf";

/// The nameservers that systemd-resolved was given.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Addresses of systemd-resolved's own listeners (systemd-resolved.service(8)).
const STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// Octets of a file that are read; a real one has some hundred.
const MAX_OCTETS: u64 = 64 * 1024;

/// Nameservers that are taken of a file; resolvers of libc use three.
const MAX_NAMESERVERS: usize = 64;

/// Search domains that are taken of a file; older resolvers of libc use six.
const MAX_DOMAINS: usize = 16;

/// Longest name of a domain (RFC 1035).
const MAX_DOMAIN: usize = 253;

/// Largest value of `ndots` that resolvers of libc take.
const MAX_NDOTS: usize = 15;

/// Longest name of a link (`IFNAMSIZ` without its end, `linux/if.h`).
const MAX_LINK_NAME: usize = 15;

/// A nameserver as a file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nameserver {
    pub address: IpAddr,
    /// Zone of an IPv6 address (RFC 4007): the link that it is on, by its name or its number.
    pub zone: Option<String>,
}

impl Nameserver {
    /// Reads an address, such as `10.0.0.2`, `2001:db8::53` or `fe80::1%eth0`.
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('%') {
            None => Some(Self { address: text.parse().ok()?, zone: None }),
            Some((address, zone)) => {
                let address: IpAddr = address.parse().ok()?;
                let is_link = (1..=MAX_LINK_NAME).contains(&zone.len()) && !zone.contains('/');
                (address.is_ipv6() && is_link).then(|| Self { address, zone: Some(zone.to_owned()) })
            }
        }
    }

    /// True if the address alone does not lead to the server: every link has that network.
    pub fn is_link_local(&self) -> bool {
        matches!(self.address, IpAddr::V6(address) if address.is_unicast_link_local())
    }
}

impl fmt::Display for Nameserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "{}%{zone}", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// Nameservers of the node, as its files have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nameservers {
    /// Nameservers of the resolver's own file.
    pub own: Vec<Nameserver>,
    /// Nameservers that systemd-resolved was given; empty where it does not run.
    pub resolved: Vec<Nameserver>,
}

impl Nameservers {
    /// Reads the files; one that is missing or cannot be read has no nameservers.
    pub fn read() -> Self {
        Self { own: parse(&read(OWN)), resolved: parse(&read(RESOLVED)) }
    }

    /// Addresses of all nameservers.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.own.iter().chain(&self.resolved).map(|nameserver| nameserver.address)
    }

    /// Nameservers that answer for the rest of the world: those of the resolver's own file, or, where that
    /// names only systemd-resolved, those that it was given. It is never asked itself, because it may ask
    /// this program in turn.
    pub fn upstreams(&self) -> impl Iterator<Item = &Nameserver> {
        let is_stub = |nameserver: &&Nameserver| STUBS.contains(&nameserver.address);
        // An empty file stands for a server on this machine (resolv.conf(5)), which need not be resolved.
        let is_resolved = !self.own.is_empty() && self.own.iter().all(|nameserver| is_stub(&nameserver));
        let found = if is_resolved { &self.resolved } else { &self.own };
        found.iter().filter(move |nameserver| !is_stub(nameserver))
    }
}

/// The nameservers of a `resolv.conf`, in its order. Everything else in it is passed over, as are lines
/// that libc would not understand.
pub fn parse(text: &str) -> Vec<Nameserver> {
    let nameserver = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let value = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // A comment may follow without a blank.
        Nameserver::parse(value.split([';', '#']).next()?)
    };
    text.lines().filter_map(nameserver).take(MAX_NAMESERVERS).collect()
}

/// A `resolv.conf` as a resolver of libc goes by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverFile {
    /// Nameservers in their order.
    pub nameservers: Vec<Nameserver>,
    /// Domains that are put behind short names, in their order.
    pub search: Vec<String>,
    /// Dots from which on a name is asked for as it is first.
    pub ndots: usize,
}

impl ResolverFile {
    /// Parses the text of a file; lines that libc would not understand are passed over.
    pub fn parse(text: &str) -> Self {
        let mut file = Self { nameservers: parse(text), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                // The last one of both counts.
                Some("search") => file.search = domains(words, MAX_DOMAINS),
                Some("domain") => file.search = domains(words, 1),
                Some("options") => {
                    // libc reads them in turn, so that the last one counts.
                    let mut values = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    file.ndots = values.next_back().map_or(file.ndots, |ndots: usize| ndots.min(MAX_NDOTS));
                }
                _ => {}
            }
        }
        file
    }

    /// True if systemd-resolved is asked by it.
    pub fn asks_resolved(&self) -> bool {
        self.nameservers.iter().any(|nameserver| STUBS.contains(&nameserver.address))
    }

    /// Reads the resolver's own file of this node; one that cannot be read is empty.
    pub fn read() -> Self {
        Self::parse(&read(OWN))
    }
}

/// Returns the first of these words that can be domains.
fn domains<'w>(words: impl Iterator<Item = &'w str>, most: usize) -> Vec<String> {
    words.filter(|word| word.len() <= MAX_DOMAIN).take(most).map(str::to_owned).collect()
}

fn read(path: &str) -> String {
    let mut octets = Vec::new();
    // What was read before an error counts.
    let _ = File::open(path).and_then(|file| file.take(MAX_OCTETS).read_to_end(&mut octets));
    // Comments may have any encoding.
    String::from_utf8_lossy(&octets).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(nameservers: &[Nameserver]) -> Vec<String> {
        nameservers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn parse_takes_addresses_with_and_without_a_zone() {
        let text = "# nameserver 1.1.1.1\n; nameserver 1.1.1.2\nsearch example.com\n\
                    nameserver 10.0.0.2\n\tnameserver\t2001:db8::53 # comment\nnameserver fe80::1%eth0\n\
                    nameserver fe80::1%2;comment\r\nnameserver 10.0.0.3\r\noptions ndots:5\nnameserver 10.0.0.4";
        assert_eq!(
            shown(&parse(text)),
            ["10.0.0.2", "2001:db8::53", "fe80::1%eth0", "fe80::1%2", "10.0.0.3", "10.0.0.4"]
        );
        let link_local: Vec<bool> = parse(text).iter().map(Nameserver::is_link_local).collect();
        assert_eq!(link_local, [false, false, true, true, false, false]);
    }

    #[test]
    fn parse_passes_over_what_is_no_nameserver() {
        for line in [
            "",
            "nameserver",
            "nameserver ",
            "nameserver10.0.0.2",
            "nameservers 10.0.0.2",
            "Nameserver 10.0.0.2",
            "nameserver #10.0.0.2",
            "nameserver localhost",
            "nameserver 10.0.0.256",
            "nameserver 10.0.0.2:53",
            "nameserver 10.0.0.2%eth0",
            "nameserver fe80::1%",
            "nameserver fe80::1%../../etc",
            "nameserver fe80::1%a-name-of-sixteen",
            "# nameserver 10.0.0.2",
            "#nameserver 10.0.0.2",
        ] {
            assert_eq!(parse(line), [], "{line:?}");
        }
    }

    #[test]
    fn resolver_file_has_what_was_said_last() {
        let file = ResolverFile::parse(
            "search a.example b.example\noptions ndots:2 timeout:1\nnameserver 10.0.0.2\ndomain c.example d\n\
             options ndots:5 ndots:x\n",
        );
        assert_eq!((file.search.as_slice(), file.ndots), (["c.example".to_owned()].as_slice(), 5));
        assert_eq!(shown(&file.nameservers), ["10.0.0.2"]);
        let empty = ResolverFile::parse("options ndots:\nsearch\n");
        assert_eq!((empty.search.len(), empty.ndots), (0, 1));
        let huge = "d".repeat(MAX_DOMAIN + 1);
        let long =
            ResolverFile::parse(&format!("search {huge} {}\noptions ndots:9999", "d ".repeat(100_000)));
        assert_eq!((long.search.len(), long.ndots), (MAX_DOMAINS, MAX_NDOTS));
    }

    #[test]
    fn parse_ends_after_many_nameservers() {
        assert_eq!(parse(&"nameserver 10.0.0.2\n".repeat(100_000)).len(), MAX_NAMESERVERS);
    }

    #[test]
    fn upstreams_are_never_those_that_would_ask_in_turn() {
        let upstreams = |own: &str, resolved: &str| {
            let nameservers = Nameservers { own: parse(own), resolved: parse(resolved) };
            nameservers.upstreams().map(ToString::to_string).collect::<Vec<_>>()
        };
        let given = "nameserver 10.0.0.2\nnameserver fe80::1%eth0\n";
        assert_eq!(upstreams("nameserver 127.0.0.53\noptions edns0\n", given), ["10.0.0.2", "fe80::1%eth0"]);
        assert_eq!(upstreams("nameserver 127.0.0.53\nnameserver 10.0.0.3\n", given), ["10.0.0.3"]);
        assert_eq!(upstreams("nameserver 10.0.0.3\n", given), ["10.0.0.3"]);
        assert_eq!(upstreams("", given), Vec::<String>::new());
        assert_eq!(upstreams("nameserver 127.0.0.53\n", "nameserver 127.0.0.54\n"), Vec::<String>::new());
    }

    #[test]
    fn addresses_are_those_of_both_files() {
        let nameservers = Nameservers {
            own: parse("nameserver 127.0.0.53\n"),
            resolved: parse("nameserver fe80::1%eth0\nnameserver 10.0.0.2\n"),
        };
        let expected = ["127.0.0.53", "fe80::1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(nameservers.addresses().collect::<Vec<_>>(), expected);
    }
}
