//! The grammar of a `VIP_N` label's value: `HOST:PORT`, split at the last colon.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Part of a label before the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelHost<'a> {
    /// An IPv4 or IPv6 address; brackets and leading zeros make it a name instead.
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
}

/// Reads a label's value.
///
/// # Errors
/// When there is no colon, or when what follows the last one is no port. Digits may have leading
/// zeros or a plus sign, as the peer allows.
pub fn parse(value: &str) -> Result<(LabelHost<'_>, u16), Error> {
    let (host, port) = value.rsplit_once(':').ok_or(Error::NoPort)?;
    let number = port.parse::<u16>().ok().filter(|&number| number != 0);
    let number = number.ok_or_else(|| Error::Port(port.to_owned()))?;
    Ok((self::host(host), number))
}

fn host(text: &str) -> LabelHost<'_> {
    // A zone such as %eth0 is no part of the address.
    let without_zone = text.split_once('%').map_or(text, |(address, _)| address);
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        LabelHost::Literal(address.into())
    } else if let Ok(address) = without_zone.parse::<Ipv6Addr>() {
        LabelHost::Literal(address.into())
    } else {
        LabelHost::Named(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
