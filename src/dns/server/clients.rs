//! Who may ask: this node, its containers, and whom the configuration names.
//!
//! The listener's address is one of the node's own, so that a neighbour who routes it to the node
//! reaches the listener. A client is inside if the kernel's way back to it is direct and over a link
//! that does not lead out of the node; links that do are those with a default route, and hardware
//! with everything on top of it. Both are read from `/proc` and `/sys` and looked at again when a client
//! is not known, so that a new container network needs no waiting.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

/// Shortest time between two looks at the node's networks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// After which time networks that have gone are noticed.
const FORGET: Duration = Duration::from_secs(10);

/// Most links on top of each other.
const MAX_DEPTH: usize = 8;

/// One entry of `dns.clients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ClientRule {
    /// Processes and containers of this node.
    Node,
    Any,
    Network(IpNet),
}

impl FromStr for ClientRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "node" => Ok(Self::Node),
            "any" => Ok(Self::Any),
            _ => text
                .parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map(Self::Network)
                .map_err(|_| format!("{text:?} is neither node, any nor a network such as 10.0.0.0/8")),
        }
    }
}

impl TryFrom<String> for ClientRule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Decides who is served.
#[derive(Clone, Debug)]
pub struct ClientFilter {
    allowed: Vec<ClientRule>,
    inside: BTreeSet<IpNet>,
    looked: Option<Instant>,
}

impl ClientFilter {
    pub fn new(allowed: &[ClientRule]) -> Self {
        Self { allowed: allowed.to_vec(), inside: BTreeSet::new(), looked: None }
    }

    /// Whether `client` may ask.
    pub fn allow(&mut self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let mut node = false;
        for allowed in &self.allowed {
            match allowed {
                ClientRule::Any => return true,
                ClientRule::Network(network) if network.contains(&client) => return true,
                ClientRule::Network(_) => {}
                ClientRule::Node if client.is_loopback() => return true,
                ClientRule::Node => node = true,
            }
        }
        if !node {
            return false;
        }
        let known = self.is_inside(client);
        let good_for = if known { FORGET } else { LOOK_AGAIN };
        if self.looked.is_some_and(|looked| looked.elapsed() < good_for) {
            return known;
        }
        self.look();
        self.is_inside(client)
    }

    fn is_inside(&self, client: IpAddr) -> bool {
        // Prefixes of one address are few, and every one is a look-up.
        let longest = if client.is_ipv4() { 32 } else { 128 };
        (1..=longest).rev().any(|length| {
            IpNet::new(client, length).is_ok_and(|network| self.inside.contains(&network.trunc()))
        })
    }

    fn look(&mut self) {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let leads_out = |link: &str| leads_out(Path::new("/sys/class/net"), link, 0);
        let (routes, routes6) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
        self.inside = inside(&routes, &routes6, leads_out);
        self.inside.extend(own(&read("/proc/net/fib_trie")).map(|address| IpNet::from(IpAddr::V4(address))));
        self.looked = Some(Instant::now());
    }
}

/// Whether hardware is below a link.
fn leads_out(links: &Path, link: &str, depth: usize) -> bool {
    let directory = links.join(link);
    if depth > MAX_DEPTH || directory.join("device").exists() {
        return true;
    }
    let below = fs::read_dir(directory).into_iter().flatten().flatten();
    below
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("lower_").map(str::to_owned))
        .any(|lower| leads_out(links, &lower, depth + 1))
}

/// The networks that clients of this node are in, and its own IPv6 addresses.
fn inside(routes: &str, routes6: &str, leads_out: impl Fn(&str) -> bool) -> BTreeSet<IpNet> {
    let parsed: Vec<Route> =
        routes.lines().filter_map(route4).chain(routes6.lines().filter_map(route6)).collect();
    let uplinks: BTreeSet<&str> =
        parsed.iter().filter(|route| route.network.prefix_len() == 0).map(|route| route.link).collect();
    let direct = |route: &&Route<'_>| {
        route.is_own || (!route.has_gateway && !uplinks.contains(route.link) && !leads_out(route.link))
    };
    parsed.iter().filter(direct).map(|route| route.network).filter(|net| net.prefix_len() > 0).collect()
}

struct Route<'a> {
    link: &'a str,
    network: IpNet,
    has_gateway: bool,
    /// An address of the node itself.
    is_own: bool,
}

/// A line of `/proc/net/route`: numbers are in network order, read as the machine's.
fn route4(line: &str) -> Option<Route<'_>> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |text: &str| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
    let [link, destination, gateway, _, _, _, _, mask, ..] = fields.as_slice() else { return None };
    let network = Ipv4Net::with_netmask(number(destination)?, number(mask)?).ok()?;
    let has_gateway = !number(gateway)?.is_unspecified();
    Some(Route { link, network: network.into(), has_gateway, is_own: false })
}

/// A line of `/proc/net/ipv6_route`.
fn route6(line: &str) -> Option<Route<'_>> {
    const LOCAL: u32 = 0x8000_0000;
    const REJECT: u32 = 0x200;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |text: &str| Some(Ipv6Addr::from(u128::from_str_radix(text, 16).ok()?));
    let [destination, length, _, _, gateway, _, _, _, flags, link] = fields.as_slice() else { return None };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let network = Ipv6Net::new(number(destination)?, u8::from_str_radix(length, 16).ok()?).ok()?;
    if flags & REJECT != 0 || *link == "lo" && flags & LOCAL == 0 || network.addr().is_multicast() {
        return None;
    }
    let is_own = flags & LOCAL != 0 && network.prefix_len() == 128;
    Some(Route { link, network: network.into(), has_gateway: !number(gateway)?.is_unspecified(), is_own })
}

/// The node's own addresses in `/proc/net/fib_trie`: a line with the address, then what it is.
fn own(trie: &str) -> impl Iterator<Item = Ipv4Addr> + '_ {
    let mut last = None;
    trie.lines().filter_map(move |line| {
        if let Some((_, address)) = line.split_once("|-- ") {
            last = address.trim().parse().ok();
            return None;
        }
        last.filter(|_| line.contains("/32 host LOCAL"))
    })
}

#[cfg(test)]
mod tests;
