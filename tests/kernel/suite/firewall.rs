//! Firewalls of the node: one that denies what comes in is told with the commands that open it, and what an
//! administrator keeps apart stays apart.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::tests;
use crate::toolkit::helper::Transport::{Tcp, Udp};
use crate::toolkit::lab::{Lab, REMOTE, socket_address};
use crate::toolkit::state::{State, Task};

tests!["firewall":
    ; ipvs:
    one_that_denies_is_warned_of_until_its_command_has_run,
    denied_clients_are_kept_from_tasks,
    chain_of_an_administrator_sees_client_and_task,
    ; ebpf:
    one_that_denies_sees_no_packet_to_a_vip,
];

/// A textbook's default.
pub const DENIES: &str = "table inet textbook {
    chain incoming {
        type filter hook input priority filter; policy drop
        iif lo accept
        ct state established,related accept
        meta l4proto ipv6-icmp accept
        tcp dport 22 accept
    }
    chain forwarded {
        type filter hook forward priority filter; policy drop
        ct state established,related accept
    }
}";

const DROPS: &str = "drops what containers send to";

fn web() -> State {
    State::of([Task::host("web", REMOTE, 8080).vip("/web:80").vip("10.99.0.7:81")])
}

fn one_that_denies_is_warned_of_until_its_command_has_run() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    lab.agent.nft(DENIES)?;
    let daemon = lab.start(&web())?;
    daemon.await_dns()?;
    let (vip, literal) = (daemon.socket_of("web", 80)?, socket_address("10.99.0.7:81"));
    let question = "dig +time=1 +tries=1 @198.51.100.1 web.marathon.l4lb.thisdcos.directory";
    // The node's own clients are fine, and so there is nothing to tell.
    lab.agent.must_reach(Tcp, vip, "B")?;
    lab.agent.run_line(question)?;
    ensure!(!daemon.status()?.complaints().contains(DROPS), "a warning without a loss");

    // Before anybody tries, the check tells what to do.
    let check = lab.l4lbd(&["check"])?;
    ensure!(check.contains("nft insert rule inet textbook incoming iifname docker0 ip daddr"), "{check}");

    lab.container(11).must_hear_nothing(vip)?;
    ensure!(lab.container(11).run_line(question).is_err(), "a question got through");
    let status = daemon.await_status("a warning of the firewall", |status| {
        status.complaints().contains(&format!("{DROPS} VIPs and to the DNS server"))
    })?;
    ensure!(!status.degraded, "a tenant's packets degrade the node: {}", status.text);
    let warnings = status.warnings.iter().filter_map(|warning| warning.as_str());
    let (_, commands) = warnings
        .filter_map(|warning| warning.split_once("to let it pass: "))
        .next()
        .with_context(|| format!("no commands in {}", status.complaints()))?;
    let commands = commands.split("; see").next().unwrap_or_default();

    lab.agent.run(&["sh", "-c", commands])?;
    for vip in [vip, literal] {
        lab.container(11).must_reach(Tcp, vip, "B")?;
    }
    lab.container(11).run_line(question)?;
    daemon.await_status("no warning any more", |status| !status.complaints().contains(DROPS))?;
    // Ports without a VIP stay closed.
    lab.container(11).must_be_refused(Tcp, (vip.ip(), 22).into())
}

/// What `forward` rules keep apart is reachable through a VIP, which leaves from the output hook.
fn denied_clients_are_kept_from_tasks() -> Result<()> {
    let lab = Lab::with_containers(&[11, 12])?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    lab.remote.serve_on(Udp, "192.168.50.2:8080", "BU")?;
    lab.agent.nft(
        "table inet admin {
           chain forwarded {
             type filter hook forward priority filter
             ip saddr 172.17.1.11 ip daddr 192.168.50.2 ct state new reject
           }
         }",
    )?;
    let state = State::of([
        Task::host("web", REMOTE, 8080).vip("/web:80"),
        Task::host("dns", REMOTE, 8080).udp().vip("/dns:53"),
    ]);
    let daemon = lab.start(&state)?;
    let (web, dns) = (daemon.socket_of("web", 80)?, daemon.socket_of("dns", 53)?);
    lab.container(11).must_be_refused(Tcp, socket_address("192.168.50.2:8080"))?;
    lab.container(11).must_reach(Tcp, web, "B")?;
    daemon.terminate()?;

    let file = lab.path("l4lbd.toml");
    let denied = "[ipvs]\ndenied = [\"172.17.1.11 -> 192.168.50.0/24\", \"fd77::/64 -> ::/0\"]";
    fs::write(&file, fs::read_to_string(&file)?.replace("[ipvs]", denied))?;
    let daemon = lab.start_again()?;
    lab.container(11).must_be_refused(Tcp, web)?;
    lab.container(11).must_be_refused(Udp, dns)?;
    // Others are served.
    lab.container(12).must_reach(Tcp, web, "B")?;
    lab.container(12).must_reach(Udp, dns, "BU")?;
    lab.agent.must_reach(Tcp, web, "B")?;
    let status = daemon.status()?;
    ensure!(!status.degraded, "the rules are not in the kernel: {}", status.text);
    daemon.terminate()?;
    // nft prints the rules as they were written, so that a restart finds nothing to change.
    let plan = lab.l4lbd(&["plan"])?;
    ensure!(plan.contains("# 0 operations"), "{plan}");
    Ok(())
}

/// The example of l4lbd-networks(7), for rules that a pair of networks cannot express.
fn chain_of_an_administrator_sees_client_and_task() -> Result<()> {
    let lab = Lab::with_containers(&[11, 12])?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    lab.remote.serve("192.168.50.2:8081", "OTHER")?;
    lab.agent.nft(
        "table inet admin {
           chain vips {
             type filter hook output priority filter
             ct direction original ct original ip daddr 11.0.0.0/8 jump mine
           }
           chain mine {
             ip saddr 172.17.1.11 ip daddr 192.168.50.2 tcp dport 8080 reject
           }
         }",
    )?;
    let state = State::of([
        Task::host("web", REMOTE, 8080).vip("/web:80"),
        Task::host("other", REMOTE, 8081).vip("/other:80"),
    ]);
    let daemon = lab.start(&state)?;
    let (web, other) = (daemon.socket_of("web", 80)?, daemon.socket_of("other", 80)?);
    lab.container(11).must_be_refused(Tcp, web)?;
    lab.container(11).must_reach(Tcp, other, "OTHER")?;
    lab.container(12).must_reach(Tcp, web, "B")?;
    lab.agent.must_reach(Tcp, web, "B")?;
    Ok(())
}

fn one_that_denies_sees_no_packet_to_a_vip() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    lab.agent
        .nft(&format!("{DENIES}\nadd rule inet textbook forwarded iifname docker0 oifname lan accept"))?;
    let daemon = lab.start(&web())?;
    lab.container(11).must_reach(Tcp, daemon.socket_of("web", 80)?, "B")?;
    ensure!(!daemon.status()?.complaints().contains(DROPS), "{}", daemon.status()?.complaints());
    Ok(())
}
