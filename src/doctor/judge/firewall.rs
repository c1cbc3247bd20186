//! Checks of firewalls: policies that drop at input, forward or output, and Docker's chains.
//!
//! Rules are not carried out here. A firewall counts as opened if a rule that packets meet names what has to pass; what
//! it really drops is measured by the daemon, which counts the packets of containers on both sides.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::dataplane::Node;
use crate::dataplane::firewall::{Firewall, Hook, destinations, short};
use crate::doctor::facts::{FirewallFacts, NodeFacts};
use crate::doctor::finding::Finding;
use crate::doctor::settings::DoctorSettings;
use crate::status::build::{DROPPED, passage_text};

/// Words of a rule's line, in which sets and names are no longer enclosed.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split([' ', ',', '{', '}', '"', '\t']).filter(|word| !word.is_empty())
}

/// Returns the rules that packets may meet which enter a chain: its own, and those of chains that it leads to.
fn reachable(rules: &str, chain: &str) -> String {
    let mut chains: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut current = None;
    for line in rules.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("chain ").and_then(|rest| rest.strip_suffix(" {")) {
            current = Some(name);
        } else if line == "}" {
            current = None;
        } else if let Some(name) = current {
            chains.entry(name).or_default().push(line);
        }
    }
    // Each chain once, however they lead to each other.
    let (mut seen, mut open, mut found) = (BTreeSet::from([chain]), vec![chain], String::new());
    while let Some(name) = open.pop() {
        for line in chains.get(name).into_iter().flatten() {
            found.push_str(line);
            found.push('\n');
            let targets = words(line).zip(words(line).skip(1));
            let targets =
                targets.filter(|(word, _)| matches!(*word, "jump" | "goto")).map(|(_, target)| target);
            open.extend(targets.filter(|target| seen.insert(*target)));
        }
    }
    found
}

/// Returns true if the rule hands packets on: it accepts them, or goes to a chain that may.
fn lets_pass(line: &str) -> bool {
    words(line).any(|word| matches!(word, "accept" | "goto" | "jump"))
}

/// Returns true if a rule that lets packets pass names the network.
fn names(rules: &str, network: &IpNet) -> bool {
    let wanted = short(network);
    rules.lines().any(|line| lets_pass(line) && words(line).any(|word| word == wanted))
}

/// Returns true if a rule accepts everything that comes in by a link.
fn opens(rules: &str, link: &str) -> bool {
    const NARROW: [&str; 6] = ["dport", "sport", "daddr", "saddr", "state", "dnat"];
    rules.lines().any(|line| {
        let mut found = words(line);
        let is_of_link = found.by_ref().find(|word| matches!(*word, "iifname" | "iif")).is_some()
            && found.next() == Some(link);
        is_of_link && line.trim_end().ends_with("accept") && !words(line).any(|word| NARROW.contains(&word))
    })
}

/// Returns the firewalls and what is known of the node, or what to say without them.
fn known<'f>(
    check: &'static str,
    settings: &DoctorSettings,
    facts: &'f NodeFacts,
    of_packets: bool,
) -> Result<(&'f FirewallFacts, &'f Node), Vec<Finding>> {
    if of_packets && !settings.has_packets(facts.plane) {
        return Err(vec![Finding::ok(check, "with the data plane ebpf no packet has a VIP's address")]);
    }
    let skipped = |reason: &String| vec![Finding::skipped(check, reason.as_str())];
    let firewall = facts.firewall.as_ref().map_err(skipped)?;
    let (node, _) = facts.network.as_ref().map_err(skipped)?;
    Ok((firewall, node))
}

/// Returns the rules that packets may meet which enter a chain of a family and a table.
fn rules_of(firewall: &FirewallFacts, (family, table, chain): (&str, &str, &str)) -> String {
    let rules = firewall.rules.get(&(family.to_owned(), table.to_owned()));
    rules.map_or_else(String::new, |rules| reachable(rules, chain))
}

pub fn input(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "firewall-input";
    let (firewall, node) = match known(CHECK, settings, facts, false) {
        Ok(known) => known,
        Err(finding) => return finding,
    };
    let mut denying = firewall.chains.denying();
    // nft does not list the older tables, which drop beside those of nftables.
    if denying.is_empty() && old_policy_drops(&firewall.old, "INPUT") {
        denying.push(Firewall::Iptables { is_ipv4: true });
    }
    if denying.is_empty() {
        return vec![Finding::ok(CHECK, "no firewall drops what comes in without a rule")];
    }
    let vips = settings.has_packets(facts.plane).then(|| settings.networks());
    let wanted = destinations(vips, &settings.listen);
    let Some((names_of, commands)) = passage_text(&denying, node, &wanted) else {
        return vec![Finding::ok(
            CHECK,
            "a firewall drops what it has no rule for, and there are no containers",
        )];
    };
    // The policy of this chain need not drop: its last rule refuses.
    let own = [("inet", "firewalld", "filter_INPUT")];
    let entered = firewall.chains.dropping(Hook::Input).chain(own);
    let mut rules: String = entered.map(|chain| rules_of(firewall, chain)).collect();
    rules.push_str(&firewall.old);
    let sources = node.container_networks();
    let links = node.container_links();
    let is_opened = match denying.as_slice() {
        // firewalld is opened by the networks of sources, and the rest by destinations.
        [Firewall::Firewalld] => sources.iter().all(|network| names(&rules, network)),
        _ => links.iter().all(|(link, ipv4)| {
            let of_family = wanted.iter().filter(|network| network.addr().is_ipv4() == *ipv4);
            opens(&rules, link) || of_family.into_iter().all(|network| names(&rules, network))
        }),
    };
    // The daemon has counted what it drops.
    let measured = facts
        .daemon
        .status
        .as_ref()
        .ok()
        .and_then(|status| status.warnings.iter().find(|warning| warning.contains(DROPPED)));
    let what = if settings.has_packets(facts.plane) { "VIPs and the DNS server" } else { "the DNS server" };
    vec![match (measured, is_opened) {
        (Some(_), _) => Finding::fault(CHECK, format!("{DROPPED} {what}")).at(names_of).mended_by(commands),
        (None, true) => {
            Finding::ok(CHECK, "a firewall drops what it has no rule for, and has rules for containers")
                .at(names_of)
        }
        (None, false) => Finding::warning(
            CHECK,
            format!("drops what it has no rule for, and none names what containers send to {what}"),
        )
        .at(names_of)
        .mended_by(commands),
    }]
}

pub fn forward(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "firewall-forward";
    let (firewall, node) = match known(CHECK, settings, facts, true) {
        Ok(known) => known,
        Err(finding) => return finding,
    };
    let accepts = |rules: &str| rules.lines().any(|line| line.contains("established") && lets_pass(line));
    let mut found = Vec::new();
    for (family, table, chain) in firewall.chains.dropping(Hook::Forward) {
        if accepts(&rules_of(firewall, (family, table, chain))) {
            continue;
        }
        let what = "drops the answers of tasks to containers: no rule accepts established connections";
        // Without containers there are no answers yet that it could drop.
        let finding = match node.container_links().is_empty() {
            true => Finding::warning(CHECK, what),
            false => Finding::fault(CHECK, what),
        };
        found.push(finding.at(format!("{family} {table} {chain}")).mended_by(match (family, table, chain) {
            ("ip", "filter", "FORWARD") => {
                "iptables -I FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT".to_owned()
            }
            ("ip6", "filter", "FORWARD") => {
                "ip6tables -I FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT".to_owned()
            }
            _ => format!("nft insert rule {family} {table} {chain} ct state established,related accept"),
        }));
    }
    if old_policy_drops(&firewall.old, "FORWARD") && !accepts_old(&firewall.old) {
        found.push(
            Finding::fault(
                CHECK,
                "drops the answers of tasks to containers: no rule accepts established connections",
            )
            .at("iptables FORWARD")
            .mended_by("iptables-legacy -I FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "no firewall drops the answers of tasks"));
    }
    found
}

pub fn output(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "firewall-output";
    let (firewall, _) = match known(CHECK, settings, facts, true) {
        Ok(known) => known,
        Err(finding) => return finding,
    };
    let is_ufw = firewall.chains.has("ufw-before-output");
    let mut found = Vec::new();
    for (family, table, chain) in firewall.chains.dropping(Hook::Output) {
        let rules = rules_of(firewall, (family, table, chain));
        let families = [true, false].into_iter().filter(|ipv4| match family {
            "ip" => *ipv4,
            "ip6" => !*ipv4,
            _ => true,
        });
        for ipv4 in families {
            let range = settings.range_of(ipv4);
            let is_named = rules.lines().any(|line| lets_pass(line) && words(line).any(|word| word == range));
            if is_named || range.is_empty() {
                continue;
            }
            let iptables = if ipv4 { "iptables" } else { "ip6tables" };
            let ip = if ipv4 { "ip" } else { "ip6" };
            // ufw writes its chains anew from its files on each reload, so that a rule alone does not last.
            let (inserted, rest) = match (is_ufw, table, chain) {
                (true, "filter", "OUTPUT") => {
                    let own = if ipv4 { "ufw-before-output" } else { "ufw6-before-output" };
                    (Some(own), "; and the same in /etc/ufw/before.rules")
                }
                (false, "filter", "OUTPUT") => (Some("OUTPUT"), ""),
                _ => (None, ""),
            };
            found.push(
                Finding::warning(
                    CHECK,
                    format!("drops what it has no rule for, and none names connections to VIPs in {range}"),
                )
                .at(format!("{family} {table} {chain}"))
                // By the original destination: behind IPVS a packet has the address of its task.
                .mended_by(match inserted {
                    Some(own) => {
                        format!("{iptables} -I {own} -m conntrack --ctorigdst {range} -j ACCEPT{rest}")
                    }
                    None => format!(
                        "nft insert rule {family} {table} {chain} ct original {ip} daddr {range} accept"
                    ),
                }),
            );
        }
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "no firewall drops what goes to tasks"));
    }
    found
}

/// Docker keeps its networks apart, and so the answer of a task in another one from its client.
pub fn docker(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "docker";
    let (firewall, node) = match known(CHECK, settings, facts, true) {
        Ok(known) => known,
        Err(finding) => return finding,
    };
    let links = node.container_links();
    let networks: BTreeSet<&str> = links
        .iter()
        .map(|(link, _)| *link)
        .filter(|link| *link == "docker0" || link.starts_with("br-"))
        .collect();
    // The chain that keeps networks apart has other names in other versions of Docker.
    let isolates = ["DOCKER-ISOLATION-STAGE-2", "DOCKER-INTERNAL", "DOCKER-BRIDGE"];
    let is_apart = networks.len() > 1
        && firewall.chains.has("DOCKER-USER")
        && isolates.iter().any(|chain| firewall.chains.has(chain));
    let range = settings.range_of(true);
    let rules = rules_of(firewall, ("ip", "filter", "DOCKER-USER"));
    let is_named = rules.lines().any(|line| lets_pass(line) && words(line).any(|word| word == range));
    vec![match is_apart && !is_named {
        true => Finding::warning(
            CHECK,
            "keeps its networks apart: a container in one gets no answer from a task in another one of this node",
        )
        .at(networks.into_iter().collect::<Vec<_>>().join(", "))
        .mended_by(format!("iptables -I DOCKER-USER -m conntrack --ctorigdst {range} -j ACCEPT")),
        false => Finding::ok(CHECK, "keeps no networks apart that VIPs connect"),
    }]
}

/// Returns true if a chain of iptables' older tables has the policy `DROP`.
fn old_policy_drops(rules: &str, chain: &str) -> bool {
    rules.lines().any(|line| line == format!("-P {chain} DROP"))
}

fn accepts_old(rules: &str) -> bool {
    rules.lines().any(|line| line.contains("ESTABLISHED") && line.ends_with("ACCEPT"))
}
