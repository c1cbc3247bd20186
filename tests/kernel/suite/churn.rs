//! Tasks that come, fall ill, are killed and go, with connections open.

use anyhow::{Result, bail, ensure};

use super::tests;
use super::web::{FIRST, SECOND, first, lab, second};
use crate::toolkit::helper::Outcome;
use crate::toolkit::helper::Transport::{Tcp, Udp};
use crate::toolkit::lab::{Lab, REMOTE};
use crate::toolkit::state::{State, Task};

tests!["churn":
    unhealthy_task_keeps_its_connections_only,
    task_being_killed_keeps_its_connections_only,
    removed_task_gets_nothing,
    new_task_is_used,
    vip_without_backends_refuses,
    ; ipvs:
    udp_moves_to_the_new_backend,
];

/// Of two tasks the first is to get weight 0: its connection lives, and every new one goes to the second.
fn first_is_drained(drained: Task) -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first()]))?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    ensure!(kept.server == "B1", "only the first serves, and {} answered", kept.server);

    lab.publish(&State::of([drained, second()]))?;
    daemon.await_status("weight 0 beside the new task", |status| {
        status
            .vip("web", 80)
            .is_some_and(|vip| vip.weight_of(FIRST) == Some(0) && vip.weight_of(SECOND) == Some(1))
    })?;
    kept.must_live()?;
    for _ in 0..4 {
        lab.agent.must_reach(Tcp, vip, "B2")?;
    }
    kept.must_live()?;

    lab.publish(&State::of([first(), second()]))?;
    daemon.await_status("both at weight 1 again", |status| {
        status.vip("web", 80).is_some_and(|vip| vip.weight_of(FIRST) == Some(1))
    })?;
    kept.must_live()
}

fn unhealthy_task_keeps_its_connections_only() -> Result<()> {
    first_is_drained(first().healthy(false))
}

fn task_being_killed_keeps_its_connections_only() -> Result<()> {
    first_is_drained(first().in_state("TASK_KILLING"))
}

fn removed_task_gets_nothing() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first(), second()]))?;
    let vip = daemon.socket_of("web", 80)?;
    lab.publish(&State::of([second()]))?;
    daemon.await_status("one backend", |status| {
        status.vip("web", 80).is_some_and(|vip| vip.weight_of(FIRST).is_none_or(|weight| weight == 0))
    })?;
    for _ in 0..4 {
        lab.agent.must_reach(Tcp, vip, "B2")?;
    }
    Ok(())
}

fn new_task_is_used() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first()]))?;
    let vip = daemon.socket_of("web", 80)?;
    lab.agent.must_reach(Tcp, vip, "B1")?;
    lab.publish(&State::of([first(), second()]))?;
    daemon.await_status("two backends", |status| {
        status.vip("web", 80).is_some_and(|vip| vip.backends.len() == 2)
    })?;
    // With eBPF it is one of two at random where neither has a connection.
    for _ in 0..64 {
        match lab.agent.dial(vip)? {
            Outcome::Answered { server, .. } if server == "B2" => return Ok(()),
            Outcome::Answered { .. } => {}
            other => bail!("a connection failed: {other:?}"),
        }
    }
    bail!("the new task was never used")
}

fn vip_without_backends_refuses() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first()]))?;
    let vip = daemon.socket_of("web", 80)?;
    lab.publish(&State::of([Task::host("other", REMOTE, 8080).vip("/other:80")]))?;
    daemon.await_status("no backend is left", |status| {
        status.vip("other", 80).is_some()
            && status.vip("web", 80).is_none_or(|vip| vip.backends.iter().all(|backend| backend.weight == 0))
    })?;
    lab.agent.must_be_refused(Tcp, vip)?;
    let services = lab.services()?;
    ensure!(services.contains(&format!("tcp {vip}")), "the service is gone: {services:?}");

    lab.publish(&State::of([first()]))?;
    daemon.await_status("a backend again", |status| {
        status.vip("web", 80).is_some_and(|vip| vip.weight_of(FIRST) == Some(1))
    })?;
    ensure!(daemon.socket_of("web", 80)? == vip, "the name came back at another address");
    lab.agent.must_reach(Tcp, vip, "B1")?;
    Ok(())
}

/// A client that keeps its socket must not stay with a backend that is gone.
fn udp_moves_to_the_new_backend() -> Result<()> {
    let lab = Lab::new()?;
    lab.remote.serve_on(Udp, FIRST, "B1")?;
    lab.remote.serve_on(Udp, SECOND, "B2")?;
    let daemon = lab.start(&State::of([first().udp()]))?;
    let kept = lab.agent.keep_on(Udp, daemon.socket_of("web", 80)?)?;
    ensure!(kept.server == "B1", "only the first serves, and {} answered", kept.server);
    lab.publish(&State::of([second().udp()]))?;
    daemon.await_status("the first backend is gone", |status| {
        status
            .vip("web", 80)
            .is_some_and(|vip| vip.weight_of(FIRST).is_none() && vip.weight_of(SECOND) == Some(1))
    })?;
    // The kernel drops the datagram that makes it notice, and those that come before its timer has taken the
    // connection away; the next ones must arrive.
    let mut outcomes = Vec::new();
    let is_moved = |outcome: &Outcome| matches!(outcome, Outcome::Answered { server, .. } if server == "B2");
    while outcomes.len() < 4 && !outcomes.last().is_some_and(is_moved) {
        outcomes.push(kept.ask()?);
    }
    let moved = outcomes.last().is_some_and(is_moved);
    ensure!(moved, "the client's socket does not reach the new backend: {outcomes:?}");
    Ok(())
}
