//! The commands of l4lbd-migrate(7) in their order, on a node with what dcos-net leaves behind.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::tests;
use super::web::{self, FIRST, SECOND, first, second};
use crate::toolkit::lab::{AGENT, Lab};
use crate::toolkit::state::State;

tests!["migrate":
    ; ipvs:
    no_connection_fails_while_a_node_changes_over,
];

/// Address that both give the name `web.marathon`.
const VIP: &str = "11.225.36.193:80";

/// Returns the lines of an example of the page, the first that begins with this text.
fn example(begin: &str) -> Result<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/man/l4lbd-migrate.7");
    let page = fs::read_to_string(page)?;
    // As a person reads them.
    let page = page.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\");
    let mut examples = page.split(".EX\n").skip(1).filter_map(|rest| rest.split(".EE").next());
    let found = examples.find(|example| example.starts_with(begin));
    found.map(str::to_owned).with_context(|| format!("the page has no example that begins with {begin:?}"))
}

fn sh(lab: &Lab, commands: &str) -> Result<()> {
    lab.agent.run(&["sh", "-euc", commands]).map(drop)
}

/// Makes what dcos-net makes: a link, routes on it, and services that spread connections.
fn peer(lab: &Lab) -> Result<()> {
    let address = VIP.split(':').next().context("an address")?;
    sh(
        lab,
        &format!(
            "ip link add minuteman type dummy; ip link set minuteman up
            ip route add table local local {address} dev minuteman scope host src {AGENT}
            sysctl -qw net.ipv4.vs.conntrack=1
            ipvsadm -A -t {VIP} -s wlc
            ipvsadm -a -t {VIP} -r {FIRST} -m -w 1
            ipvsadm -a -t {VIP} -r {SECOND} -m -w 1"
        ),
    )
}

fn no_connection_fails_while_a_node_changes_over() -> Result<()> {
    let lab = web::lab()?;
    // Opening IPVS loads it where it is a module.
    lab.agent.run(&["ipvsadm", "-ln"])?;
    peer(&lab)?;
    let vip: SocketAddr = VIP.parse()?;
    let kept = lab.agent.keep(vip)?;
    lab.agent.load(vip)?;
    // Everything that takes time is done before anything is taken away.
    lab.publish(&State::of([first(), second()]))?;
    lab.configure_daemon("")?;
    lab.l4lbd(&["check"])?;
    // What the page's command does, without systemd.
    let listed =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/modules-load.d/l4lbd.conf"))?;
    let modules: Vec<&str> = listed.lines().filter(|line| !line.starts_with('#')).collect();
    sh(&lab, &format!("modprobe -a {}", modules.join(" ")))?;
    sh(&lab, &example("nft -f -")?)?;
    sh(&lab, &example("ipvsadm -C")?)?;
    let daemon = lab.start_again()?;
    ensure!(daemon.socket_of("web", 80)? == vip, "the name has another address than before");
    sh(&lab, &example("nft delete")?)?;
    let status = lab.l4lbd(&["status", "-o", "wide"])?;
    ensure!(status.starts_with("ok") && !status.contains("blocked"), "{status}");
    let (made, failed) = lab.agent.end_load()?;
    ensure!(made > 0 && failed.is_empty(), "{} of {made} connections failed: {failed:?}", failed.len());
    kept.must_live()
}
