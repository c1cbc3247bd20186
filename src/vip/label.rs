//! The grammar of a `VIP_N` label's value: `HOST:PORT`, split at the last colon.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Part of a label before the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelHost<'a> {
    /// An IPv4 or IPv6 address, the latter with brackets or without; leading zeros make it a name instead.
    Literal(IpAddr),
    /// Anything else, as written; [`crate::cluster::dns_label`] makes a name of it.
    Named(&'a str),
}

/// Reason why a value is not a VIP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no port: a VIP is written NAME:PORT or ADDRESS:PORT")]
    NoPort,
    #[error("port {0:?} is not a number from 1 to 65535")]
    Port(String),
    #[error(
        "{0:?} looks like an address and is none: a VIP is written NAME:PORT, ADDRESS:PORT or [IPV6-ADDRESS]:PORT"
    )]
    Address(String),
}

/// Reads a label's value.
///
/// # Errors
/// When there is no colon, when what follows the last one is no port, or when what precedes it looks like an
/// IPv6 address and is none. Digits may have leading zeros or a plus sign, as Minuteman allows.
pub fn parse(value: &str) -> Result<(LabelHost<'_>, u16), Error> {
    let (host, port) = value.rsplit_once(':').ok_or(Error::NoPort)?;
    let number = port.parse::<u16>().ok().filter(|&number| number != 0);
    let number = number.ok_or_else(|| Error::Port(port.to_owned()))?;
    Ok((self::host(host)?, number))
}

fn host(text: &str) -> Result<LabelHost<'_>, Error> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(LabelHost::Literal(address.into()));
    }
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let inner = bracketed.unwrap_or(text);
    // A zone such as %eth0 is no part of the address.
    let without_zone = inner.split_once('%').map_or(inner, |(address, _)| address);
    if let Ok(address) = without_zone.parse::<Ipv6Addr>() {
        return Ok(LabelHost::Literal(address.into()));
    }
    // As a name it would lose its brackets and colons, and be what no author can have meant.
    let is_of_address = |byte: u8| byte.is_ascii_hexdigit() || b":.".contains(&byte);
    let has_colons = text.bytes().filter(|byte| *byte == b':').count() > 1;
    if text.starts_with('[') || (has_colons && text.bytes().all(is_of_address)) {
        return Err(Error::Address(text.to_owned()));
    }
    Ok(LabelHost::Named(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_have_brackets_or_not() {
        let literal = |text: &str| Ok((LabelHost::Literal(text.parse().unwrap()), 80));
        for text in ["fd00::7:80", "[fd00::7]:80", "[fd00::7%eth0]:80"] {
            assert_eq!(parse(text), literal("fd00::7"), "{text}");
        }
        assert_eq!(parse("10.9.8.7:80"), literal("10.9.8.7"));
        for host in ["[fd00::7", "[10.0.0.1]", "[]", "[web]", "fd01:c:", "fd00:::7", "1:2:3:4:5:6:7:8:9"] {
            assert_eq!(parse(&format!("{host}:80")), Err(Error::Address(host.to_owned())));
        }
        for host in ["/web", "a:b", "010.1.2.3", "1.2", "invalid-port:", "/fd00::7", "fd00"] {
            assert_eq!(parse(&format!("{host}:80")), Ok((LabelHost::Named(host), 80)));
        }
    }

    #[test]
    fn port_is_bound() {
        assert_eq!(parse("a:65535"), Ok((LabelHost::Named("a"), 65535)));
        assert_eq!(parse("a:+080"), Ok((LabelHost::Named("a"), 80)));
        for port in ["0", "65536", "-1", "", "+", " 80", "80 ", "0x50", "99999999999999999999"] {
            assert_eq!(parse(&format!("a:{port}")), Err(Error::Port(port.to_owned())));
        }
        assert_eq!(parse("a"), Err(Error::NoPort));
    }
}
