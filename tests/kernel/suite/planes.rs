//! Which data plane it is, and what becomes of it.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use super::tests;
use super::web::{FIRST, SECOND, await_weight, first, lab, second};
use crate::toolkit::await_some;
use crate::toolkit::daemon::{Daemon, PROGRAM};
use crate::toolkit::helper::Outcome;
use crate::toolkit::helper::Transport::{Tcp, Udp};
use crate::toolkit::lab::{Lab, THIRD, socket_address};
use crate::toolkit::plane::{self, Plane};
use crate::toolkit::state::{State, Task};

tests!["planes":
    status_tells_which_it_is,
    plan_changes_nothing,
    purge_leaves_nothing,
    ; ipvs:
    ipvs_is_taken_where_there_are_both,
    connections_outlive_the_change_from_ebpf_to_ipvs,
    demonstration_shows_ipvs,
    ; ebpf:
    ports_are_chosen_for_the_task,
    programs_that_somebody_detached_are_attached_again,
    table_that_somebody_emptied_is_filled_again,
    datagram_socket_is_told_that_its_server_has_gone,
];

fn status_tells_which_it_is() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first()]))?;
    let (text, _) = daemon.status_command(&["-o", "wide"])?;
    let told = format!("kernel   {}: as configured;", plane::current().name());
    ensure!(text.contains(&told), "no {told:?} in:\n{text}");
    Ok(())
}

fn plan_changes_nothing() -> Result<()> {
    let lab = lab()?;
    lab.publish(&State::of([first()]))?;
    lab.configure_daemon("")?;
    let plan = lab.l4lbd(&["plan"])?;
    ensure!(plan.contains("add service tcp 11."), "not planned:\n{plan}");
    ensure!(!lab.pins.exists(), "something is pinned in {}", lab.pins.display());
    let links = lab.agent.run_line("ip -oneline link show")?;
    ensure!(!links.contains("minuteman"), "a link was made:\n{links}");
    Ok(())
}

fn purge_leaves_nothing() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first()]))?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    daemon.terminate()?;
    let told = lab.l4lbd(&["purge"])?;
    ensure!(told.contains("1 virtual services"), "{told}");
    ensure!(!lab.pins.exists(), "something is still pinned in {}", lab.pins.display());
    let addresses = lab.agent.run_line("ip -oneline address show")?;
    ensure!(!addresses.contains("198.51.100.1"), "the resolver's address is left:\n{addresses}");
    let outcome = lab.agent.dial(vip)?;
    ensure!(!matches!(outcome, Outcome::Answered { .. }), "the VIP is still served: {outcome:?}");
    if plane::current() == Plane::Ebpf {
        kept.must_live()?;
    }
    lab.l4lbd(&["purge"]).map(drop)
}

/// Starts what is configured for another data plane than this test's.
fn start_with_plane<'a>(lab: &'a Lab, plane: &str) -> Result<Daemon<'a>> {
    let path = lab.path("l4lbd.toml");
    let text = fs::read_to_string(&path)?;
    let (_, rest) = text.split_once('\n').unwrap_or_default();
    fs::write(&path, format!("dataplane = \"{plane}\"\n{rest}"))?;
    lab.start_again()
}

fn ipvs_is_taken_where_there_are_both() -> Result<()> {
    let lab = lab()?;
    lab.publish(&State::of([first()]))?;
    lab.configure_daemon("")?;
    let daemon = start_with_plane(&lab, "auto")?;
    let (text, _) = daemon.status_command(&["-o", "wide"])?;
    ensure!(text.contains("kernel   ipvs: the kernel has it;"), "{text}");
    ensure!(lab.services()?.len() == 1, "it is not in IPVS");
    Ok(())
}

/// Programs of an earlier run would send clients to what was there then.
fn connections_outlive_the_change_from_ebpf_to_ipvs() -> Result<()> {
    let lab = lab()?;
    // With a server each, that is more than is programmed in one go.
    let many = (0..256).fold(Task::host("many", THIRD, 9090), |task, n| task.vip(&format!("/many-{n}:80")));
    lab.publish(&State::of([first(), many.clone()]))?;
    // A client that meets neither of the two fails at once.
    lab.agent.configure("route add unreachable 11.0.0.0/8\n")?;
    lab.configure_daemon("")?;
    let daemon = start_with_plane(&lab, Plane::Ebpf.name())?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    ensure!(lab.pins.exists() && lab.services()?.is_empty(), "it is not in eBPF");
    lab.agent.load(vip)?;
    daemon.terminate()?;
    let daemon = start_with_plane(&lab, Plane::Ipvs.name())?;
    ensure!(!lab.pins.exists(), "the programs are still there");
    lab.agent.must_reach(Tcp, vip, "B1")?;
    let (connections, failures) = lab.agent.end_load()?;
    ensure!(connections > 0 && failures.is_empty(), "of {connections}: {failures:?}");
    lab.publish(&State::of([second(), many]))?;
    daemon.await_status("the other task", |status| {
        status.vip("web", 80).is_some_and(|vip| vip.backends.iter().any(|b| b.weight > 0 && b.port == 8080))
    })?;
    await_weight(&daemon, Some(0))?;
    lab.agent.must_reach(Tcp, vip, "B2")?;
    kept.must_live()
}

/// tests/demo has the whole of it with eBPF.
fn demonstration_shows_ipvs() -> Result<()> {
    let shown = Command::new(PROGRAM).args(["demo", "--dataplane", "ipvs", "--duration", "20s"]).output()?;
    let (told, errors) = (String::from_utf8(shown.stdout)?, String::from_utf8(shown.stderr)?);
    ensure!(shown.status.success() && told.contains(" connections, 0 failed, in "), "{told}{errors}");
    Ok(())
}

/// The kernel sees where a connection really goes when it chooses the port.
fn ports_are_chosen_for_the_task() -> Result<()> {
    let lab = lab()?;
    lab.agent.sysctl("net.ipv4.ip_local_port_range", "45000 45003")?;
    let daemon = lab.start(&State::of([first().vip("/also:80")]))?;
    let (web, also) = (daemon.socket_of("web", 80)?, daemon.socket_of("also", 80)?);
    let places = [web, also, socket_address(FIRST), web];
    let kept = places.iter().map(|place| lab.agent.keep(*place)).collect::<Result<Vec<_>>>()?;
    for connection in &kept {
        connection.must_live()?;
    }
    let outcome = lab.agent.dial(also)?;
    ensure!(matches!(outcome, Outcome::Failed(_)), "a fifth one has a port: {outcome:?}");
    Ok(())
}

fn programs_that_somebody_detached_are_attached_again() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first()]))?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    for hook in ["connect4", "getpeername4", "sock_release"] {
        fs::remove_file(lab.pins.join("v1").join(hook))?;
    }
    let reached = || Ok(matches!(lab.agent.dial(vip)?, Outcome::Answered { .. }).then_some(()));
    await_some("the VIP is served again", reached)?;
    kept.must_live()
}

fn table_that_somebody_emptied_is_filled_again() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first()]))?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    lab.empty("vips")?;
    daemon.await_status("a repair", |status| status.text.contains("\"repaired_at\":\""))?;
    lab.agent.must_reach(Tcp, vip, "B1")?;
    kept.must_live()
}

/// A client that keeps its socket would never hear of it by itself.
fn datagram_socket_is_told_that_its_server_has_gone() -> Result<()> {
    let lab = Lab::new()?;
    lab.remote.serve_on(Udp, FIRST, "B1")?;
    lab.remote.serve_on(Udp, SECOND, "B2")?;
    let daemon = lab.start(&State::of([first().udp()]))?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep_on(Udp, vip)?;
    lab.publish(&State::of([second().udp()]))?;
    await_weight(&daemon, None)?;
    let outcome = kept.ask()?;
    ensure!(matches!(outcome, Outcome::Failed(_)), "it is told nothing: {outcome:?}");
    lab.agent.must_reach(Udp, vip, "B2").map(drop)
}
