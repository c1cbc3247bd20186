//! The node's firewall, as far as it keeps containers from VIPs and from the DNS server.
//!
//! A VIP is a local address, so a container's packets pass the input chains of every firewall before IPVS
//! sees them, and no verdict of ours is final for them. What a firewall makes of them is measured: our
//! rules count new connections on both sides of the input chains, and a [`Watch`] compares. Which
//! [`Firewall`] it is decides only about the commands that let them pass.
//!
//! Pure: [`super::host`] asks the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Deserialize;

use super::rules::{self, TABLE};

/// Time without a loss after which one is forgotten. Usually the firewall's rules change before.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// Priority at which IPVS takes packets out of the input hook.
const IPVS_PRIORITY: i32 = 98;

/// Links and networks that commands name at most: the text stays one line, and the pattern is plain.
const SHOWN: usize = 4;

/// Packets of containers that a firewall drops, and the firewalls that may do so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// True if they are for VIPs.
    pub vips: bool,
    /// True if they are questions to the DNS server.
    pub dns: bool,
    pub firewalls: Vec<Firewall>,
}

/// A firewall of the node, by the program that an operator would change it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firewall {
    Ufw,
    Firewalld,
    /// The chain `INPUT`, in nftables or in the tables of older kernels.
    Iptables {
        is_ipv4: bool,
    },
    /// A chain of nftables that packets for the node itself pass.
    Nft {
        family: String,
        table: String,
        chain: String,
    },
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ufw => write!(f, "ufw"),
            Self::Firewalld => write!(f, "firewalld"),
            Self::Iptables { is_ipv4: true } => write!(f, "iptables"),
            Self::Iptables { is_ipv4: false } => write!(f, "ip6tables"),
            Self::Nft { family, table, chain } => write!(f, "nftables, {family} {table} {chain}"),
        }
    }
}

/// Place on the way of a packet at which chains of a firewall may drop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Passed by packets of containers to VIPs and to the DNS server.
    Input,
    /// Passed by answers of tasks to containers.
    Forward,
    /// Passed by packets to the chosen task.
    Output,
}

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }
}

/// Clients and destinations that commands let pass.
#[derive(Clone, Copy, Debug)]
pub struct Passage<'a> {
    /// Links that lead to containers, each with a family of its networks: true for IPv4.
    pub links: &'a BTreeSet<(&'a str, bool)>,
    /// Networks of the containers.
    pub sources: &'a BTreeSet<IpNet>,
    /// Networks of VIPs and addresses of the DNS server.
    pub destinations: &'a [IpNet],
}

impl Firewall {
    /// Returns the shell commands that let containers through this firewall.
    pub fn commands(&self, passage: Passage<'_>) -> Vec<String> {
        match self {
            Self::Ufw => passage.each(|link, _, destinations| {
                destinations.iter().map(|to| format!("ufw allow in on {link} to {}", short(to))).collect()
            }),
            Self::Firewalld => {
                let source = |net: &IpNet| format!("firewall-cmd --permanent --zone=trusted --add-source={net}");
                let mut commands: Vec<String> = passage.sources.iter().take(SHOWN).map(source).collect();
                // A permanent rule holds only from the next reload on.
                commands.push("firewall-cmd --reload".to_owned());
                commands
            }
            Self::Iptables { is_ipv4 } => passage.each(|link, is_of_ipv4, destinations| {
                let program = if *is_ipv4 { "iptables" } else { "ip6tables" };
                // In front of the chain, because a rule behind one that drops is never reached.
                let command = || format!("{program} -I INPUT -i {link} -d {} -j ACCEPT", listed(destinations, ","));
                (is_of_ipv4 == *is_ipv4).then(command).into_iter().collect()
            }),
            Self::Nft { family, table, chain } => passage.each(|link, is_ipv4, destinations| {
                let ip = if is_ipv4 { "ip" } else { "ip6" };
                let to = listed(destinations, ", ");
                let command = || {
                    format!("nft insert rule {family} {table} {chain} iifname {link} {ip} daddr '{{ {to} }}' accept")
                };
                // A table of one version of IP never sees packets of the other.
                (family == "inet" || family == ip).then(command).into_iter().collect()
            }),
        }
    }
}

impl Passage<'_> {
    /// Returns the commands of each link for its destinations of one family.
    fn each(&self, commands: impl Fn(&str, bool, &[IpNet]) -> Vec<String>) -> Vec<String> {
        let links = self.links.iter().filter(|(link, _)| is_plain(link)).take(SHOWN);
        let of_link = |(link, is_ipv4): &(&str, bool)| {
            let destinations = self.destinations.iter().filter(|net| net.addr().is_ipv4() == *is_ipv4);
            let destinations: Vec<IpNet> = destinations.take(SHOWN).copied().collect();
            if destinations.is_empty() { Vec::new() } else { commands(link, *is_ipv4, &destinations) }
        };
        links.flat_map(of_link).collect()
    }
}

/// True if a shell and nft read the name of a link as it is.
pub fn is_plain(link: &str) -> bool {
    link.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn listed(networks: &[IpNet], separator: &str) -> String {
    networks.iter().map(short).collect::<Vec<_>>().join(separator)
}

/// A network as people and nft write it: a single address has no prefix length.
pub fn short(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// Returns what containers must be let through to: the networks of VIPs, unless no packet has a VIP's address, and
/// the addresses of the DNS server.
pub fn destinations(vips: Option<Vec<IpNet>>, listeners: &[SocketAddr]) -> Vec<IpNet> {
    // A loopback address is that of the container itself, and leads to no server of the node.
    let listeners = listeners.iter().map(SocketAddr::ip).filter(|address| !address.is_loopback());
    vips.into_iter().flatten().chain(listeners.map(IpNet::from)).collect()
}

/// Listing of chains by `nft -j list chains`.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    chain: Option<Chain>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    prio: Option<i32>,
    policy: Option<String>,
}

impl Chain {
    /// True for a chain of another program that packets pass on their way to IPVS.
    fn is_before_ipvs(&self) -> bool {
        self.hook.as_deref() == Some("input")
            && self.prio.is_some_and(|priority| priority < IPVS_PRIORITY)
            && ["inet", "ip", "ip6"].contains(&self.family.as_str())
            && !(self.family == "inet" && self.table == TABLE)
    }

    fn denies(&self) -> bool {
        self.policy.as_deref() == Some("drop")
    }

    fn firewall(&self) -> Firewall {
        let is_iptables = self.family != "inet" && self.table == "filter" && self.name == "INPUT";
        match is_iptables {
            true => Firewall::Iptables { is_ipv4: self.family == "ip" },
            false => Firewall::Nft {
                family: self.family.clone(),
                table: self.table.clone(),
                chain: self.name.clone(),
            },
        }
    }
}

/// Chains of all tables, from `nft -j list chains`.
#[derive(Default)]
pub struct Chains(Vec<Chain>);

impl Chains {
    /// Parses the listing; one that can't be read has no chains.
    pub fn parse(listing: &str) -> Self {
        let entries = serde_json::from_str(listing).map(|Listing { nftables }| nftables).unwrap_or_default();
        Self(entries.into_iter().filter_map(|entry| entry.chain).collect())
    }

    /// Returns the firewalls that may drop what comes in. `has_old_tables` is true if the kernel has tables of
    /// iptables beside those of nftables.
    pub fn firewalls(&self, has_old_tables: bool) -> Vec<Firewall> {
        let mut found = self.denying();
        // nft does not list these tables, so that their policies are not known.
        if found.is_empty() && has_old_tables {
            found.extend([true, false].map(|is_ipv4| Firewall::Iptables { is_ipv4 }));
        }
        // Without a policy that drops it is a rule.
        if found.is_empty() {
            found.extend(self.before_ipvs().map(Chain::firewall).take(SHOWN));
        }
        found
    }

    /// Returns the chains that drop what leaves them at a hook without a verdict: family, table and name of each.
    pub fn dropping(&self, hook: Hook) -> impl Iterator<Item = (&str, &str, &str)> {
        let is_there = move |chain: &&Chain| {
            chain.hook.as_deref() == Some(hook.name())
                && chain.denies()
                && ["inet", "ip", "ip6"].contains(&chain.family.as_str())
                && !(chain.family == "inet" && chain.table == TABLE)
        };
        let found = self.0.iter().filter(is_there);
        found.map(|chain| (chain.family.as_str(), chain.table.as_str(), chain.name.as_str()))
    }

    /// Returns true if there is a chain of this name in any table.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|chain| chain.name == name)
    }

    /// Returns the firewalls that drop whatever no rule of theirs accepts.
    pub fn denying(&self) -> Vec<Firewall> {
        // The last rule of firewalld refuses, whatever the policies are. Programs that keep rules of their own
        // would undo what is changed beside them.
        if self.0.iter().any(|chain| chain.table == "firewalld") {
            return vec![Firewall::Firewalld];
        }
        let denying = self.before_ipvs().filter(|chain| chain.denies());
        let found: Vec<Firewall> = denying.map(Chain::firewall).take(SHOWN).collect();
        if !found.is_empty() && self.0.iter().any(|chain| chain.name == "ufw-before-input") {
            return vec![Firewall::Ufw];
        }
        found
    }

    fn before_ipvs(&self) -> impl Iterator<Item = &Chain> {
        self.0.iter().filter(|chain| chain.is_before_ipvs())
    }
}

/// Readings of the counters in our table: before the input chains, and behind them.
#[derive(Debug, Default)]
pub struct Watch {
    vips: Gap,
    dns: Gap,
}

impl Watch {
    /// Takes in a reading and returns whether VIPs and the DNS server lack packets since the rules of the
    /// node were changed last. `arrived` must have been read before `reached`, so that packets on their way are no
    /// loss. `generation` is the number of the rules, if it is known.
    pub fn take(
        &mut self,
        arrived: &BTreeMap<String, u64>,
        reached: &BTreeMap<String, u64>,
        generation: Option<u32>,
        now: Instant,
    ) -> (bool, bool) {
        let number = |counters: &BTreeMap<String, u64>, name| counters.get(name).copied().unwrap_or_default();
        let take = |gap: &mut Gap, before, behind| {
            gap.take(number(arrived, before), number(reached, behind), generation, now)
        };
        (
            take(&mut self.vips, rules::VIPS_ARRIVED, rules::VIPS_REACHED),
            take(&mut self.dns, rules::DNS_ARRIVED, rules::DNS_REACHED),
        )
    }
}

/// Packets that arrived and did not get further.
#[derive(Debug, Default)]
struct Gap {
    /// Packets that had arrived at the last reading.
    arrived: u64,
    /// Largest number of packets that were missing since the table was written; `None` before the first
    /// reading, which may have those of an earlier run.
    missing: Option<u64>,
    /// Time of the last loss, and the rules of that time.
    lost: Option<(Instant, Option<u32>)>,
}

impl Gap {
    fn take(&mut self, arrived: u64, reached: u64, generation: Option<u32>, now: Instant) -> bool {
        // Counters begin anew with the table.
        if arrived < self.arrived {
            self.missing = Some(0);
        }
        self.arrived = arrived;
        // Later packets may have reached the second counter, so that some losses show later; none is invented.
        let missing = arrived.saturating_sub(reached);
        if self.missing.is_some_and(|known| missing > known) {
            self.lost = Some((now, generation));
        }
        self.missing = self.missing.max(Some(missing));
        // With other rules the next connection tells.
        let is_current = |(at, rules): &(Instant, Option<u32>)| {
            *rules == generation && now.duration_since(*at) < FORGOTTEN
        };
        self.lost = self.lost.filter(is_current);
        self.lost.is_some()
    }
}

#[cfg(test)]
mod tests;
