//! Routes, addresses and links of the node, whatever other programs make of them: they take no rule away
//! that VIPs need.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, anyhow, ensure};
use ipnet::IpNet;
use l4lbd::dataplane::rules::{RuleInputs, RuleSet};
use l4lbd::dataplane::settings::Denied;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::tests;
use crate::toolkit::await_some;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::host::Host;
use crate::toolkit::kernel::WriteWatch;
use crate::toolkit::lab::{AGENT, AGENT6, Lab, REMOTE, REMOTE6, socket_address};
use crate::toolkit::state::{State, Task};

tests!["networks":
    ; ipvs:
    networks_in_networks_of_one_link,
    refused_networks_leave_the_guard,
    rules_of_any_networks_are_listed_as_written,
    address_that_is_being_checked_is_no_source,
];

const LIST: &str = "nft -s -y -p list table inet l4lbd";

/// Number of sets of networks that are tried.
const CASES: u32 = 24;

/// Two containers of one network, one of which serves, and an agent that listens on a port of no VIP.
fn lab() -> Result<Lab> {
    let lab = Lab::with_containers(&[11, 12])?;
    lab.container(11).serve("0.0.0.0:8080", "C11")?;
    lab.agent.serve("0.0.0.0:9191", "LOCAL")?;
    Ok(lab)
}

fn state() -> State {
    State::of([Task::container("near", AGENT, "172.17.1.11", 8080).vip("10.99.0.80:80")])
}

/// Requires that what only seems to be a VIP is refused, to the agent and to a container.
fn must_be_guarded(lab: &Lab) -> Result<()> {
    for client in [&lab.agent, lab.container(12)] {
        client.must_be_refused(Tcp, socket_address("10.99.0.80:9191"))?;
        client.must_be_refused(Tcp, socket_address("11.77.77.77:9191"))?;
    }
    Ok(())
}

/// What DHCP makes for its gateway, a VPN for its peers, and a runtime for each of its containers.
fn networks_in_networks_of_one_link() -> Result<()> {
    let lab = lab()?;
    lab.agent.configure(
        "route add 192.168.50.2/32 dev lan\nroute add 192.168.50.0/25 dev lan\n\
         route add 172.17.1.12/32 dev docker0\nroute add 172.17.0.0/16 dev docker0\n\
         addr add fd17::1/64 dev docker0 nodad\nroute add fd17::/48 dev docker0\n\
         route add fd17::12/128 dev docker0\nroute add fd50::2/128 dev lan\n",
    )?;
    // Names that end a quotation, or mean any name.
    for (name, address) in [("a\"b", "10.31.0.1/24"), ("c*", "10.32.0.1/24"), ("\\*", "10.33.0.1/24")] {
        lab.agent.run(&["ip", "link", "add", name, "type", "dummy"])?;
        lab.agent.run(&["ip", "address", "add", address, "dev", name])?;
        lab.agent.run(&["ip", "link", "set", name, "up"])?;
    }
    let daemon = lab.start(&state())?;
    let status = daemon.status()?;
    ensure!(!status.degraded, "routes of the node degrade it: {}", status.text);
    must_be_guarded(&lab)?;
    let seen = lab.container(12).must_reach(Tcp, socket_address("10.99.0.80:80"), "C11")?;
    ensure!(seen.to_string() == "172.17.1.1", "a backend on the client's own network saw {seen}");

    // Each comparison would write anew what it does not find as written.
    let watch = WriteWatch::start(&lab)?;
    lab.publish(&State::of([
        Task::container("near", AGENT, "172.17.1.11", 8080).vip("10.99.0.80:80"),
        Task::host("idle", REMOTE, 9999).vip("nonsense"),
    ]))?;
    daemon.await_status("the new document", |status| status.text.contains("nonsense"))?;
    watch.must_be_idle()
}

/// With an nft that refuses each element with a link, as a kernel did with some of them.
fn refused_networks_leave_the_guard() -> Result<()> {
    let mut lab = lab()?;
    let programs = lab.path("programs");
    fs::create_dir_all(&programs)?;
    let nft = lab.agent.run(&["sh", "-c", "command -v nft"])?;
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = -f ] || exec {nft} \"$@\"\nrules=$(cat)\n\
         case $rules in *' . \"'*) echo 'Error: Could not process rule: File exists' >&2; exit 1;; esac\n\
         printf '%s\\n' \"$rules\" | exec {nft} \"$@\"\n",
        nft = nft.trim()
    );
    fs::write(programs.join("nft"), script)?;
    fs::set_permissions(programs.join("nft"), fs::Permissions::from_mode(0o755))?;
    lab.programs = Some(programs);
    let daemon = lab.start(&state())?;
    let status = daemon.await_status("a complaint", |status| status.degraded)?;
    let complaint = "nft refused this node's own IPv4 and IPv6 networks";
    ensure!(status.text.contains(complaint) && status.text.contains("File exists"), "{}", status.text);
    must_be_guarded(&lab)?;
    lab.agent.must_reach(Tcp, socket_address("10.99.0.80:80"), "C11")?;
    // It is tried again and again, which leaves the table as it is.
    let handles = |host: &Host| host.run_line("nft -a list table inet l4lbd");
    let before = handles(&lab.agent)?;
    lab.publish(&State::of([
        Task::container("near", AGENT, "172.17.1.11", 8080).vip("10.99.0.80:80"),
        Task::host("idle", REMOTE, 9999).vip("nonsense"),
    ]))?;
    daemon.await_status("the new document", |status| status.text.contains("nonsense"))?;
    ensure!(handles(&lab.agent)? == before, "the table was written again");
    Ok(())
}

/// The kernel refuses routes with an IPv6 source that another node may have.
fn address_that_is_being_checked_is_no_source() -> Result<()> {
    let lab = Lab::new()?;
    lab.remote.serve(&format!("[{REMOTE6}]:8080"), "B6")?;
    // The check waits for a carrier, which a pair with one end down does not have.
    lab.agent.configure(&format!(
        "addr del {AGENT6}/64 dev lan\nlink add other type veth peer name end\nlink set other up\n\
         addr add {AGENT6}/64 dev other\n"
    ))?;
    let routes = || lab.agent.run_line("ip -6 route show table local dev minuteman");
    let state = State::of([Task::container("six", REMOTE, REMOTE6, 8080).vip("/six:80")]);
    let daemon = lab.start(&state)?;
    let checked = lab.agent.run_line("ip -6 address show dev other")?;
    ensure!(checked.contains(&format!("{AGENT6}/64 scope global tentative")), "it is in use: {checked}");
    let status = daemon.status()?;
    ensure!(!status.degraded, "the address degrades the node: {}", status.text);
    let told = routes()?;
    ensure!(told.contains("fd01:c::/64") && !told.contains(" src "), "the routes are {told}");

    lab.agent.configure(&format!("addr del {AGENT6}/64 dev other\naddr add {AGENT6}/64 dev lan nodad\n"))?;
    await_some("routes with the address", || {
        Ok(routes()?.contains(&format!(" src {AGENT6} ")).then_some(()))
    })?;
    lab.agent.must_reach(Tcp, daemon.socket_of("six", 80)?, "B6").map(drop)
}

fn network() -> impl Strategy<Value = IpNet> {
    let v4 = (0..3u8, any::<u8>(), 1..=32u8).prop_map(|(third, last, length)| {
        IpNet::new(IpAddr::from([10, 8, third, last]), length).expect("a length of IPv4")
    });
    let v6 = (0..3u16, any::<u16>(), 1..=128u8).prop_map(|(fourth, last, length)| {
        IpNet::new(IpAddr::from([0xfd00, 0, 0, fourth, 0, 0, 0, last]), length).expect("a length of IPv6")
    });
    prop_oneof![v4, v6]
}

/// Whatever networks there are on whatever links, `nft` and the kernel take the rules, and list them as they
/// were written.
fn rules_of_any_networks_are_listed_as_written() -> Result<()> {
    let lab = Lab::new()?;
    let link = prop_oneof![
        Just("eth0".to_owned()),
        Just("wg0".to_owned()),
        // All that the kernel allows in a name, but for what is longer.
        "[!-.0-9;-~]{1,15}",
    ];
    let networks = prop::collection::btree_set((network(), link), 0..12);
    let vips = prop::collection::btree_set(network(), 0..4);
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let outcome =
        runner.run(&(vips, networks), |(vips, networks): (BTreeSet<IpNet>, BTreeSet<(IpNet, String)>)| {
            let rules = RuleSet::new(RuleInputs {
                vips: &vips,
                connected: &networks,
                clients: &networks.iter().map(|(network, _)| *network).collect(),
                listeners: &vips.iter().map(IpNet::addr).collect(),
                denied: &vips
                    .iter()
                    .map(|network| Denied { clients: *network, tasks: *network })
                    .collect::<Vec<_>>(),
                own_group: Some(987),
            });
            let failed = |error: anyhow::Error| TestCaseError::fail(format!("{error:#}"));
            lab.agent.nft(&rules.script()).map_err(failed)?;
            let listed = RuleSet::listed(&lab.agent.run_line(LIST).map_err(failed)?);
            prop_assert_eq!(listed, rules);
            Ok(())
        });
    outcome.map_err(|error| anyhow!("{error}")).context("the kernel's rules are not those that were written")
}
