//! Parser of `/proc/net/ip_vs` (`ip_vs_info_seq_show` in `net/netfilter/ipvs/ip_vs_ctl.c`).
//!
//! ```text
//! IP Virtual Server version 1.2.1 (size=4096)
//! Prot LocalAddress:Port Scheduler Flags
//!   -> RemoteAddress:Port Forward Weight ActiveConn InActConn
//! TCP  0B000001:0050 wlc
//!   -> 0A000001:1F90      Masq    1      0          0
//! UDP  [fd01:000c:0000:0000:0000:0000:0000:0001]:0035 rr ops
//! FWM  00000007 rr  persistent 75000 FFFFFFFF
//! ```
//!
//! Addresses and ports are hexadecimal, IPv6 addresses spelled out; the other numbers are decimal.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::dataplane::state::{Connections, Forwarding};
use crate::netlink::ipvs::service;

#[cfg(test)]
mod tests;

/// Number of lines before the first service.
const HEADINGS: usize = 3;

/// Identity of a service, whatever its attributes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Identity {
    /// Protocol, as the kernel names it, and address.
    Address(String, SocketAddr),
    /// Firewall mark; the file does not tell its address family.
    FirewallMark(u32),
}

/// Line of a service, without its real servers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProcEntry {
    pub identity: Identity,
    pub scheduler: String,
    /// Always false at an IPv6 address, because the kernel does not print it there.
    pub one_packet: bool,
    pub persistent: bool,
}

/// A service with its real servers, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProcService {
    pub entry: ProcEntry,
    pub servers: Vec<ProcServer>,
}

/// Line of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProcServer {
    pub address: SocketAddr,
    pub forwarding: Forwarding,
    pub weight: u32,
    pub connections: Connections,
}

impl ProcEntry {
    /// Returns the line of a service with these attributes.
    pub(super) fn new(identity: Identity, scheduler: &str, flags: u32) -> Self {
        let one_packet = one_packet(&identity, flags);
        let persistent = flags & service::FLAG_PERSISTENT != 0;
        Self { identity, scheduler: scheduler.to_owned(), one_packet, persistent }
    }

    /// Returns true if this is the line of a service with these attributes.
    pub(super) fn shows(&self, scheduler: &str, flags: u32) -> bool {
        self.scheduler == scheduler
            && self.one_packet == one_packet(&self.identity, flags)
            && self.persistent == (flags & service::FLAG_PERSISTENT != 0)
    }
}

/// Parses the file's text. Returns `None` if any of it is not as expected: a reader would rather ask the
/// kernel by netlink than miss something.
pub(super) fn parse(text: &str) -> Option<Vec<ProcService>> {
    let mut lines = text.lines();
    // Passed over unread: their text has the module's version in it.
    for _ in 0..HEADINGS {
        lines.next()?;
    }
    let mut services: Vec<ProcService> = Vec::new();
    for line in lines {
        // Lines of servers follow that of their service.
        match line.trim_start().strip_prefix("-> ") {
            Some(server) => services.last_mut()?.servers.push(parse_server(server)?),
            None => services.push(ProcService { entry: parse_service(line)?, servers: Vec::new() }),
        }
    }
    Some(services)
}

fn one_packet(identity: &Identity, flags: u32) -> bool {
    let hidden = matches!(identity, Identity::Address(_, address) if address.is_ipv6());
    !hidden && flags & service::FLAG_ONE_PACKET != 0
}

fn parse_service(line: &str) -> Option<ProcEntry> {
    let mut words = line.split_ascii_whitespace();
    let (protocol, address) = (words.next()?, words.next()?);
    let identity = if protocol == "FWM" {
        Identity::FirewallMark(u32::from_str_radix(address, 16).ok()?)
    } else {
        Identity::Address(protocol.to_owned(), parse_address(address)?)
    };
    let scheduler = words.next()?.to_owned();
    let (mut one_packet, mut persistent) = (false, false);
    while let Some(word) = words.next() {
        match word {
            "ops" => one_packet = true,
            "persistent" => {
                // Its timeout, in ticks of the kernel's clock and possibly negative, and netmask.
                words.next()?;
                words.next()?;
                persistent = true;
            }
            // A flag of a later kernel may change how the service has to be read.
            _ => return None,
        }
    }
    Some(ProcEntry { identity, scheduler, one_packet, persistent })
}

fn parse_server(line: &str) -> Option<ProcServer> {
    let mut words = line.split_ascii_whitespace();
    let address = parse_address(words.next()?)?;
    let forwarding = match words.next()? {
        "Masq" => Forwarding::Masquerade,
        "Local" => Forwarding::Local,
        "Tunnel" => Forwarding::Tunnel,
        "Route" => Forwarding::Route,
        _ => return None,
    };
    let weight = words.next()?.parse().ok()?;
    let active = words.next()?.parse().ok()?;
    let inactive = words.next()?.parse().ok()?;
    match words.next() {
        None => {
            Some(ProcServer { address, forwarding, weight, connections: Connections { active, inactive } })
        }
        // A later kernel may have more columns, of which the meaning is not known.
        Some(_) => None,
    }
}

/// Parses an address as in `0B000001:0050` or `[fd01:000c:...:0001]:0050`.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let address: IpAddr = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into(),
        None if address.len() == 8 => Ipv4Addr::from_bits(u32::from_str_radix(address, 16).ok()?).into(),
        None => return None,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}
