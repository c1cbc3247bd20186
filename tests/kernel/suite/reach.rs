//! Who reaches which backend through a VIP: the host, a container on the bridge, the backend itself.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use super::tests;
use crate::toolkit::helper::Transport::{Tcp, Udp};
use crate::toolkit::lab::{AGENT, Lab, REMOTE, REMOTE6, socket_address};
use crate::toolkit::state::{State, Task};

tests!["reach":
    host_reaches_another_machine_with_its_own_address,
    host_reaches_a_container_as_if_dialled_directly,
    container_reaches_another_machine,
    container_reaches_its_neighbour,
    container_reaches_itself,
    mapped_port_of_this_agent,
    docker_port_of_this_agent,
    published_port_steals_no_vip,
    docker_drops_forwarding,
    strict_reverse_path_filter,
    tcp_and_udp_on_one_port,
    ipv6,
    literal_address_outside_the_range,
    ; ipvs:
    impossible_way_to_itself_is_reported,
    ping_is_answered,
];

const WEB: &str = "/web:80";

fn remote_web() -> State {
    State::of([Task::host("web", REMOTE, 8080).vip(WEB)])
}

/// A task in container 11 of this agent, at its own address.
fn local_web() -> State {
    State::of([Task::container("web", AGENT, "172.17.1.11", 8080).vip(WEB)])
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn host_reaches_another_machine_with_its_own_address() -> Result<()> {
    let lab = Lab::new()?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    let daemon = lab.start(&remote_web())?;
    let seen = lab.agent.must_reach(Tcp, daemon.socket_of("web", 80)?, "B")?;
    ensure!(seen == address(AGENT), "the backend saw {seen} instead of the client's address");
    Ok(())
}

fn host_reaches_a_container_as_if_dialled_directly() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.container(11).serve("0.0.0.0:8080", "C11")?;
    let daemon = lab.start(&local_web())?;
    let vip = daemon.socket_of("web", 80)?;
    let directly = lab.agent.must_reach(Tcp, socket_address("172.17.1.11:8080"), "C11")?;
    let seen = lab.agent.must_reach(Tcp, vip, "C11")?;
    ensure!(seen == directly, "the container saw {seen} instead of {directly}");
    // So it can answer even if it knows no way to the agent's other networks.
    lab.container(11).configure("route delete default\n")?;
    lab.agent.must_reach(Tcp, vip, "C11")?;
    Ok(())
}

fn container_reaches_another_machine() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    let daemon = lab.start(&remote_web())?;
    lab.container(11).must_reach(Tcp, daemon.socket_of("web", 80)?, "B")?;
    Ok(())
}

fn container_reaches_its_neighbour() -> Result<()> {
    let lab = Lab::with_containers(&[11, 12])?;
    lab.container(11).serve("0.0.0.0:8080", "C11")?;
    let daemon = lab.start(&local_web())?;
    let vip = daemon.socket_of("web", 80)?;
    for bridge_netfilter in [false, true] {
        lab.bridge_netfilter(bridge_netfilter)?;
        let reached = lab.container(12).must_reach(Tcp, vip, "C11");
        reached.map_err(|error| error.context(format!("with bridge-nf-call-iptables {bridge_netfilter}")))?;
    }
    Ok(())
}

fn container_reaches_itself() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.container(11).serve("0.0.0.0:8080", "C11")?;
    let daemon = lab.start(&local_web())?;
    let vip = daemon.socket_of("web", 80)?;
    lab.container(11)
        .must_reach(Tcp, vip, "C11")
        .map_err(|error| error.context("without bridge netfilter"))?;
    lab.bridge_netfilter(true)?;
    lab.hairpin(11, true)?;
    lab.container(11)
        .must_reach(Tcp, vip, "C11")
        .map_err(|error| error.context("with bridge netfilter and hairpin"))?;
    Ok(())
}

/// Bridge netfilter without hairpin, which is what Docker sets up: the kernel drops the connection,
/// so a person must be told.
fn impossible_way_to_itself_is_reported() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.bridge_netfilter(true)?;
    let daemon = lab.start(&local_web())?;
    daemon.await_status("a complaint about the hairpin", |status| {
        let complaints = status.complaints().to_lowercase();
        complaints.contains("hairpin") || complaints.contains("bridge-nf-call-iptables")
    })?;
    lab.hairpin(11, true)?;
    daemon.await_status("no complaint once the port of the bridge has hairpin", |status| {
        !status.complaints().to_lowercase().contains("hairpin")
    })?;
    Ok(())
}

/// The Mesos containerizer's port mapping does not see what IPVS forwards, so the backend must be
/// the container itself.
fn mapped_port_of_this_agent() -> Result<()> {
    let lab = Lab::with_containers(&[11, 12])?;
    lab.container(11).serve("0.0.0.0:8080", "C11")?;
    lab.publish_port(31080, 11, 8080)?;
    let task = Task::mapped("web", AGENT, "172.17.1.11", 31080, 8080);
    let daemon = lab.start(&State::of([task.vip(WEB)]))?;
    let vip = daemon.socket_of("web", 80)?;
    lab.agent.must_reach(Tcp, vip, "C11")?;
    lab.container(12).must_reach(Tcp, vip, "C11")?;
    lab.container(11).must_reach(Tcp, vip, "C11")?;
    Ok(())
}

/// Docker's own proxy listens on the published port of the agent.
fn docker_port_of_this_agent() -> Result<()> {
    let lab = Lab::with_containers(&[11, 12])?;
    lab.container(11).serve("0.0.0.0:8080", "C11")?;
    lab.agent.serve("0.0.0.0:31080", "C11")?;
    lab.publish_port(31080, 11, 8080)?;
    let task = Task::docker("web", AGENT, "172.17.1.11", 31080, 8080);
    let daemon = lab.start(&State::of([task.vip(WEB)]))?;
    let vip = daemon.socket_of("web", 80)?;
    lab.agent.must_reach(Tcp, vip, "C11")?;
    lab.container(12).must_reach(Tcp, vip, "C11")?;
    lab.container(11).must_reach(Tcp, vip, "C11")?;
    Ok(())
}

fn published_port_steals_no_vip() -> Result<()> {
    let lab = Lab::with_containers(&[11, 12])?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    lab.container(12).serve("0.0.0.0:8080", "THIEF")?;
    lab.publish_port(80, 12, 8080)?;
    let daemon = lab.start(&remote_web())?;
    let vip = daemon.socket_of("web", 80)?;
    lab.agent.must_reach(Tcp, vip, "B")?;
    lab.container(11).must_reach(Tcp, vip, "B")?;
    // Publishing still works where it should.
    lab.remote.must_reach(Tcp, socket_address("192.168.50.1:80"), "THIEF")?;
    Ok(())
}

fn docker_drops_forwarding() -> Result<()> {
    let lab = Lab::with_containers(&[11, 12])?;
    lab.agent.nft(
        "table ip dockerfilter {
           chain forward {
             type filter hook forward priority filter; policy drop
             oifname docker0 ct state related,established accept
             iifname docker0 oifname != docker0 accept
             iifname docker0 oifname docker0 accept
           }
         }",
    )?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    lab.container(11).serve("0.0.0.0:8080", "C11")?;
    let daemon = lab.start(&State::of([
        Task::host("web", REMOTE, 8080).vip(WEB),
        Task::container("near", AGENT, "172.17.1.11", 8080).vip("/near:80"),
    ]))?;
    let (web, near) = (daemon.socket_of("web", 80)?, daemon.socket_of("near", 80)?);
    lab.agent.must_reach(Tcp, web, "B")?;
    lab.container(12).must_reach(Tcp, web, "B")?;
    for bridge_netfilter in [false, true] {
        lab.bridge_netfilter(bridge_netfilter)?;
        lab.container(12).must_reach(Tcp, near, "C11")?;
    }
    Ok(())
}

fn strict_reverse_path_filter() -> Result<()> {
    let lab = Lab::with_containers(&[11, 12])?;
    for link in ["all", "default", "lan", "docker0"] {
        lab.agent.sysctl(&format!("net.ipv4.conf.{link}.rp_filter"), "1")?;
    }
    lab.remote.serve("192.168.50.2:8080", "B")?;
    lab.container(11).serve("0.0.0.0:8080", "C11")?;
    let daemon = lab.start(&State::of([
        Task::host("web", REMOTE, 8080).vip(WEB),
        Task::container("near", AGENT, "172.17.1.11", 8080).vip("/near:80"),
    ]))?;
    let (web, near) = (daemon.socket_of("web", 80)?, daemon.socket_of("near", 80)?);
    lab.agent.must_reach(Tcp, web, "B")?;
    lab.agent.must_reach(Tcp, near, "C11")?;
    lab.container(12).must_reach(Tcp, web, "B")?;
    lab.container(12).must_reach(Tcp, near, "C11")?;
    Ok(())
}

fn ping_is_answered() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    let daemon = lab.start(&remote_web())?;
    let vip = daemon.socket_of("web", 80)?.ip().to_string();
    for host in [&lab.agent, lab.container(11)] {
        host.run_line(&format!("ping -n -c1 -w5 {vip}"))?;
    }
    Ok(())
}

fn tcp_and_udp_on_one_port() -> Result<()> {
    let lab = Lab::with_containers(&[11, 12])?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    lab.remote.serve_on(Udp, "192.168.50.2:9090", "BU")?;
    lab.container(12).serve_on(Udp, "0.0.0.0:9090", "CU")?;
    let daemon = lab.start(&State::of([
        Task::host("web", REMOTE, 8080).vip(WEB),
        Task::host("dns", REMOTE, 9090).udp().vip(WEB),
        Task::container("near", AGENT, "172.17.1.12", 9090).udp().vip("/near:53"),
    ]))?;
    let (web, near) = (daemon.socket_of("web", 80)?, daemon.socket_of("near", 53)?);
    lab.agent.must_reach(Tcp, web, "B")?;
    let seen = lab.agent.must_reach(Udp, web, "BU")?;
    ensure!(seen == address(AGENT), "the backend saw {seen} instead of the client's address");
    lab.container(11).must_reach(Udp, web, "BU")?;
    lab.agent.must_reach(Udp, near, "CU")?;
    lab.container(11).must_reach(Udp, near, "CU")?;
    Ok(())
}

fn ipv6() -> Result<()> {
    let lab = Lab::new()?;
    lab.remote.serve(&format!("[{REMOTE6}]:8080"), "B6")?;
    lab.remote.serve_on(Udp, &format!("[{REMOTE6}]:8080"), "B6U")?;
    let daemon = lab.start(&State::of([
        Task::container("web", REMOTE, REMOTE6, 8080).vip(WEB),
        Task::container("dns", REMOTE, REMOTE6, 8080).udp().vip("/dns:53"),
        Task::container("old", REMOTE, REMOTE6, 8080).vip("fd99::1:8443"),
    ]))?;
    let web = daemon.socket_of("web", 80)?;
    ensure!(web.is_ipv6(), "a backend with an IPv6 address only has the VIP {web}");
    let seen = lab.agent.must_reach(Tcp, web, "B6")?;
    ensure!(seen == address("fd50::1"), "the backend saw {seen} instead of the client's address");
    lab.agent.must_reach(Udp, daemon.socket_of("dns", 53)?, "B6U")?;
    lab.agent.must_reach(Tcp, socket_address("[fd99::1]:8443"), "B6")?;
    Ok(())
}

fn literal_address_outside_the_range() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    lab.agent.serve("0.0.0.0:9191", "LOCAL")?;
    let state = State::of([Task::host("web", REMOTE, 8080).vip("10.99.0.7:6666")]);
    let daemon = lab.start_with(&state, "[vips]\nlinger = \"1s\"")?;
    let vip = socket_address("10.99.0.7:6666");
    let seen = lab.agent.must_reach(Tcp, vip, "B")?;
    ensure!(seen == address(AGENT), "the backend saw {seen} instead of the client's address");
    lab.container(11).must_reach(Tcp, vip, "B")?;

    lab.publish(&State::of([Task::host("web", REMOTE, 8080).vip(WEB)]))?;
    daemon.await_status("the literal VIP goes", |status| status.vip("10.99.0.7", 6666).is_none())?;
    let route = lab.agent.run_line("ip route show table local")?;
    ensure!(!route.contains("10.99.0.7"), "its route stays: {route}");
    Ok(())
}
