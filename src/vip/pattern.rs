//! VIPs as people name them.

use std::net::{IpAddr, SocketAddr};

use super::{Host, VipKey};

/// A VIP as a person names it: `web.marathon`, with or without the zone's name behind it, `/web.marathon`,
/// `web*.marathon`, or `11.225.36.193`, each with or without `:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipPattern {
    /// Name below the zone, or address, in which `*` stands for any text and `?` for one character.
    pub host: String,
    pub port: Option<u16>,
}

impl VipPattern {
    /// Reads what a person has written, where names are below the zone `origin`.
    pub fn parse(text: &str, origin: &str) -> Self {
        let (host, port) = split_port(text);
        // Before names: an address may end like one.
        if host.parse::<IpAddr>().is_ok() {
            return Self { host: host.to_owned(), port };
        }
        // As the label has it, and as DNS writes it.
        let name = host.strip_prefix('/').unwrap_or(host);
        let name = name.strip_suffix('.').unwrap_or(name);
        let below = name.strip_suffix(origin).and_then(|name| name.strip_suffix('.'));
        Self { host: below.unwrap_or(name).to_owned(), port }
    }

    /// Returns the address that it is, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Returns true if it can stand for several names.
    pub fn is_glob(&self) -> bool {
        self.host.contains(['*', '?'])
    }

    /// Returns true if `name` is one of those that it stands for.
    pub fn is_name(&self, name: &str) -> bool {
        is_match(self.host.as_bytes(), name.as_bytes())
    }

    /// Returns true if it stands for this VIP.
    pub fn is_of(&self, key: &VipKey) -> bool {
        self.port.is_none_or(|port| port == key.port)
            && match &key.host {
                Host::Named(name) => self.is_name(name),
                Host::Literal(address) => {
                    self.address() == Some(*address) || (self.is_glob() && self.is_name(&address.to_string()))
                }
            }
    }

    /// Returns true if it is this address, and this port where it has one.
    pub fn is_at(&self, service: SocketAddr) -> bool {
        self.address() == Some(service.ip()) && self.port.is_none_or(|port| port == service.port())
    }
}

/// Splits `HOST:PORT`, where there is a port. An IPv6 address with one is in brackets.
fn split_port(text: &str) -> (&str, Option<u16>) {
    // First, because the end of an IPv6 address looks like a port.
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    let split = text.rsplit_once(':').and_then(|(host, port)| Some((host, Some(port.parse().ok()?))));
    let (host, port) = split.unwrap_or((text, None));
    let within = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    (within.unwrap_or(host), port)
}

/// Compares a text with a pattern. After a mismatch only the last `*` is tried with more of the text, so that the
/// work is at most the product of both lengths.
fn is_match(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    while place < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                last = Some((at + 1, place));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || text.get(place) == Some(wanted) => {
                at += 1;
                place += 1;
            }
            // Only the last star counts: what the ones before it took needs no second try.
            _ => {
                let Some((behind, begun)) = last else { return false };
                last = Some((behind, begun + 1));
                (at, place) = (behind, begun + 1);
            }
        }
    }
    pattern.iter().skip(at).all(|rest| *rest == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Protocol;

    fn key(name: &str, port: u16) -> VipKey {
        VipKey { host: Host::Named(name.to_owned()), protocol: Protocol::Tcp, port }
    }

    fn pattern(text: &str) -> VipPattern {
        VipPattern::parse(text, "l4lb.thisdcos.directory")
    }

    #[test]
    fn a_vip_is_named_in_many_ways() {
        let web = key("web.marathon", 80);
        for text in [
            "web.marathon",
            "web.marathon:80",
            "/web.marathon",
            "web.marathon.l4lb.thisdcos.directory",
            "web.marathon.l4lb.thisdcos.directory.",
            "web*",
            "*",
            "w?b.*:80",
            "*.marathon",
        ] {
            assert!(pattern(text).is_of(&web), "{text}");
        }
        for text in ["web", "web.marathon:81", "w?.marathon", "*.other", "", "11.0.0.1"] {
            assert!(!pattern(text).is_of(&web), "{text}");
        }
        let literal = VipKey { host: Host::Literal("fd01::1".parse().unwrap()), ..web };
        for text in ["fd01::1", "[fd01::1]:80", "fd01:*"] {
            assert!(pattern(text).is_of(&literal), "{text}");
        }
        assert!(!pattern("[fd01::1]:81").is_of(&literal));
    }

    #[test]
    fn a_pattern_of_an_attacker_takes_no_time() {
        let text = "a".repeat(1_000);
        assert!(!is_match(format!("{}b", "*a".repeat(500)).as_bytes(), text.as_bytes()));
    }

    #[test]
    fn an_address_of_ipv6_has_its_port_behind_brackets() {
        assert_eq!(split_port("fd00::7:80"), ("fd00::7:80", None));
        assert_eq!(split_port("[fd00::7]:80"), ("fd00::7", Some(80)));
        assert_eq!(split_port("[fd00::7]"), ("fd00::7", None));
        assert_eq!(split_port("web.marathon:80"), ("web.marathon", Some(80)));
        assert_eq!(split_port("web.marathon:99999"), ("web.marathon:99999", None));
    }
}
