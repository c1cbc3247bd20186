//! The few constant netfilter rules, in one nftables table of our own.
//!
//! They let traffic of the VIP range pass by the port mappings of container runtimes, masquerade
//! connections that would leave by the link they came from, and refuse ports without a service. The
//! rules never name a service, so that the table changes only with the node's networks and with
//! literal VIPs. `nft` applies a script as one transaction; it is also what an operator would use to
//! look at the result.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Stdio;

use ipnet::IpNet;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::netlink::nftables::Generations;

/// Name of our table, in family `inet`.
pub const TABLE: &str = "l4lbd";

/// A table's text in the form in which `nft list table` prints it, without indentation: equal texts
/// mean equal rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(String);

impl Rules {
    /// The rules for VIPs on `vips`, on a node with the directly connected networks `connected`.
    pub fn new(vips: &BTreeSet<IpNet>, connected: &BTreeSet<(IpNet, String)>) -> Self {
        let mut text = format!("table inet {TABLE} {{\n");
        for (family, wanted) in [("4", true), ("6", false)] {
            let type_ = if wanted { "ipv4_addr" } else { "ipv6_addr" };
            let vips: Vec<String> = vips.iter().filter(|net| is_ipv4(net) == wanted).map(element).collect();
            set(&mut text, &format!("vips{family}"), type_, &vips);
            let connected: Vec<String> = connected
                .iter()
                .filter(|(net, _)| is_ipv4(net) == wanted)
                .map(|(net, link)| format!("{} . \"{link}\"", element(net)))
                .collect();
            set(&mut text, &format!("connected{family}"), &format!("{type_} . ifname"), &connected);
        }
        text.push_str(CHAINS);
        Self::listed(&text)
    }

    /// Rules from a listing: indentation goes, and elements that were wrapped share a line again.
    fn listed(text: &str) -> Self {
        let mut rules = String::with_capacity(text.len());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            rules.push_str(line);
            rules.push(if line.ends_with(',') { ' ' } else { '\n' });
        }
        Self(rules)
    }

    /// The script that puts these rules in the place of whatever the table holds.
    fn script(&self) -> String {
        // Adding a table that exists changes nothing, and only one that exists can be deleted.
        format!("add table inet {TABLE}\ndelete table inet {TABLE}\n{}", self.0)
    }
}

/// The chains, as `nft` prints them.
///
/// * Port mappings match "any local address" and would take VIPs as well: mapping a VIP to itself
///   first ends the matter. Later chains still see the packet if it is merely accepted.
/// * Where a connection leaves by the link it came from, the backend would answer its client
///   directly; the answer has to come back through here. The original destination is the VIP.
/// * The node's own clients have the one source address of the VIP route; where they leave by a link
///   that has another one they get that, as if they had dialled the backend itself.
/// * IPVS takes the packets of its services out of the input hook at priorities 98 and 99, so what
///   is still for a VIP at 110 has no service.
const CHAINS: &str = r#"
    chain bypass_prerouting {
        type nat hook prerouting priority -110; policy accept;
        ip daddr @vips4 dnat ip to ip daddr
        ip6 daddr @vips6 dnat ip6 to ip6 daddr
    }
    chain bypass_output {
        type nat hook output priority -110; policy accept;
        ip daddr @vips4 dnat ip to ip daddr
        ip6 daddr @vips6 dnat ip6 to ip6 daddr
    }
    chain masquerading {
        type nat hook postrouting priority 90; policy accept;
        ct original ip daddr @vips4 ip saddr . oifname @connected4 fib saddr type != local masquerade
        ct original ip6 daddr @vips6 ip6 saddr . oifname @connected6 fib saddr type != local masquerade
        ct original ip daddr @vips4 oifname != "lo" fib saddr type local fib saddr . oif type != local masquerade
        ct original ip6 daddr @vips6 oifname != "lo" fib saddr type local fib saddr . oif type != local masquerade
    }
    chain guard {
        type filter hook input priority 110; policy accept;
        ip daddr @vips4 meta l4proto tcp reject with tcp reset
        ip daddr @vips4 meta l4proto != icmp reject with icmp port-unreachable
        ip6 daddr @vips6 meta l4proto tcp reject with tcp reset
        ip6 daddr @vips6 meta l4proto != ipv6-icmp reject with icmpv6 port-unreachable
    }
}"#;

/// Why rules could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run nft: {0} (is the package nftables installed?)")]
    Run(#[from] std::io::Error),
    #[error("nft failed: {0}")]
    Nft(String),
}

/// The rules in the kernel, through the `nft` command.
pub struct Netfilter {
    /// `None` where the kernel does not tell generations; every reading is a listing then.
    generations: Option<Generations>,
    /// Our table as listed in a generation of the rules.
    listed: Option<(u32, Option<Rules>)>,
    /// What we wrote last, and how the kernel lists it: another version of nft may print it
    /// differently from what we expect.
    written: Option<(Rules, Rules)>,
}

impl Netfilter {
    /// For the rules of the current network namespace.
    pub fn open() -> Self {
        let generations = Generations::open()
            .inspect_err(|error| tracing::debug!(%error, "cannot follow generations of netfilter rules"));
        Self { generations: generations.ok(), listed: None, written: None }
    }

    /// Our table, or `None` without one.
    pub async fn read(&mut self) -> Result<Option<Rules>, Error> {
        // Asked before listing: a change in between makes the next reading list again.
        let generation = self.generations.as_mut().and_then(|generations| generations.current().ok());
        let listed = match (&self.listed, generation) {
            (Some((known, rules)), Some(current)) if *known == current => rules.clone(),
            _ => {
                let rules = list().await?;
                self.listed = generation.map(|generation| (generation, rules.clone()));
                rules
            }
        };
        Ok(match (listed, &self.written) {
            (Some(listed), Some((written, as_listed))) if *as_listed == listed => Some(written.clone()),
            (listed, _) => listed,
        })
    }

    /// Replaces our table in one transaction.
    pub async fn replace(&mut self, rules: &Rules) -> Result<(), Error> {
        nft(&["-f", "-"], &rules.script()).await?;
        self.written = list().await?.map(|listed| (rules.clone(), listed));
        Ok(())
    }

    /// Deletes our table.
    pub async fn delete(&mut self) -> Result<(), Error> {
        self.written = None;
        nft(&["-f", "-"], &format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")).await.map(drop)
    }
}

async fn list() -> Result<Option<Rules>, Error> {
    match nft(&["-s", "-y", "list", "table", "inet", TABLE], "").await {
        Ok(text) => Ok(Some(Rules::listed(&text))),
        Err(Error::Nft(text)) if text.contains("No such file") => Ok(None),
        Err(error) => Err(error),
    }
}

async fn nft(arguments: &[&str], script: &str) -> Result<String, Error> {
    let mut child = Command::new("nft")
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ends early says why on its own.
        let _ = stdin.write_all(script.as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        // The script that nft quotes below its first line is long and ours.
        let text = String::from_utf8_lossy(&output.stderr);
        Err(Error::Nft(text.lines().next().unwrap_or("no message").to_owned()))
    }
}

fn set(text: &mut String, name: &str, type_: &str, elements: &[String]) {
    let _ = writeln!(text, "set {name} {{\ntype {type_}\nflags interval");
    if !elements.is_empty() {
        let _ = writeln!(text, "elements = {{ {} }}", elements.join(", "));
    }
    text.push_str("}\n");
}

fn is_ipv4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

/// A network as nft prints it: a single address has no prefix length.
fn element(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.trunc().to_string() }
}
