//! Shares that labels ask for.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};

use super::tests;
use super::web::{FIRST, await_weight, first, lab, second};
use crate::toolkit::helper::Outcome;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::host::Host;
use crate::toolkit::lab::{Lab, REMOTE};
use crate::toolkit::state::{State, Task};

tests!["weights":
    connections_are_shared_by_the_labels,
    held_connections_are_shared_by_the_labels,
    canary_is_drained_by_its_label,
    new_task_gets_its_share_in_steps_and_a_restart_changes_nothing,
    ; ipvs:
    scheduler_that_knows_no_weights_gives_way_to_one_that_does,
];

/// Weights whose shares a choice by connections alone would miss.
const UNEVEN: [u32; 5] = [1, 1, 1, 1, 6];

/// Serves on the remote node, and returns a task with each weight.
fn tasks(lab: &Lab, weights: &[u32]) -> Result<Vec<Task>> {
    let serve = |(number, weight): (u16, &u32)| {
        lab.remote.serve(&format!("192.168.50.2:{}", 8080 + number), &number.to_string())?;
        let task = Task::host(&format!("web-{number}"), REMOTE, 8080 + number).vip("/web:80");
        Ok(task.option("L4LB_WEIGHT", &weight.to_string()))
    };
    (0..).zip(weights).map(serve).collect()
}

/// Fails unless each server has its share of the connections, to 5 percentage points.
fn must_be_shares(found: &BTreeMap<String, u32>, weights: &[u32]) -> Result<()> {
    let (all, total): (u32, u32) = (found.values().sum(), weights.iter().sum());
    for (number, weight) in weights.iter().enumerate() {
        let count = found.get(&number.to_string()).copied().unwrap_or_default();
        let percent = |part: u32, whole: u32| f64::from(part) / f64::from(whole) * 100.0;
        let distance = (percent(count, all) - percent(*weight, total)).abs();
        ensure!(distance <= 5.0, "{found:?} of {all} connections, by the weights {weights:?}");
    }
    Ok(())
}

/// Dials and closes a number of times; returns the connections by the server's name.
fn dial(host: &Host, vip: SocketAddr, count: usize) -> Result<BTreeMap<String, u32>> {
    let mut found = BTreeMap::new();
    for _ in 0..count {
        match host.dial(vip)? {
            Outcome::Answered { server, .. } => *found.entry(server).or_default() += 1,
            other => bail!("a connection was not answered: {other:?}"),
        }
    }
    Ok(found)
}

fn connections_are_shared_by_the_labels() -> Result<()> {
    // A lab for each: servers stay as long as their lab.
    for weights in [&[1, 3][..], &UNEVEN] {
        let lab = Lab::new()?;
        let daemon = lab.start(&State::of(tasks(&lab, weights)?))?;
        let vip = daemon.socket_of("web", 80)?;
        // An emulated processor takes 10 ms and more for each; the 10,000 of the eBPF plane are among its own tests.
        must_be_shares(&dial(&lab.agent, vip, 1_500)?, weights)?;
        daemon.terminate()?;
    }
    Ok(())
}

fn held_connections_are_shared_by_the_labels() -> Result<()> {
    let lab = Lab::new()?;
    let daemon = lab.start(&State::of(tasks(&lab, &UNEVEN)?))?;
    let vip = daemon.socket_of("web", 80)?;
    // The emulated machine has no room for more; the 10,000 of the eBPF plane are among its own tests.
    let mut held = Vec::new();
    let mut found = BTreeMap::new();
    for _ in 0..400 {
        let kept = lab.agent.keep(vip)?;
        *found.entry(kept.server.clone()).or_default() += 1;
        held.push(kept);
    }
    must_be_shares(&found, &UNEVEN)?;
    let (shown, _) = daemon.status_command(&[])?;
    ensure!(shown.contains("ready, 60 % of new connections"), "the status does not show the share:\n{shown}");
    Ok(())
}

fn canary_is_drained_by_its_label() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first(), second()]))?;
    let vip = daemon.socket_of("web", 80)?;
    let kept: Vec<_> = (0..8).map(|_| lab.agent.keep(vip)).collect::<Result<_>>()?;
    ensure!(kept.iter().any(|kept| kept.server == "B1"), "the first server has no connection");
    lab.publish(&State::of([first().option("L4LB_WEIGHT", "0"), second()]))?;
    await_weight(&daemon, Some(0))?;
    for _ in 0..8 {
        lab.agent.must_reach(Tcp, vip, "B2")?;
    }
    kept.iter().try_for_each(|kept| kept.must_live())?;
    let (shown, code) = daemon.status_command(&[])?;
    ensure!(shown.contains("ready, weight 0 by its label"), "the status does not say why:\n{shown}");
    ensure!(code == Some(0), "a canary that is drained is no fault:\n{shown}");
    Ok(())
}

fn new_task_gets_its_share_in_steps_and_a_restart_changes_nothing() -> Result<()> {
    let lab = lab()?;
    let slow = |task: Task| task.option("L4LB_SLOW_START", "1h");
    let daemon = lab.start(&State::of([slow(first())]))?;
    let vip = daemon.socket_of("web", 80)?;
    ensure!(daemon.vip("web", 80)?.weight_of(FIRST) == Some(1), "what was there at the start is warm");
    lab.publish(&State::of([slow(first()), slow(second())]))?;
    daemon.await_status("the second server", |status| {
        status.vip("web", 80).is_some_and(|vip| vip.backends.len() == 2)
    })?;
    let (shown, _) = daemon.status_command(&[])?;
    ensure!(shown.contains("10 % warm"), "the status does not show the warm-up:\n{shown}");
    let found = dial(&lab.agent, vip, 220)?;
    let new = found.get("B2").copied().unwrap_or_default();
    ensure!((1..60).contains(&new), "of 220 connections a task with a tenth of its share gets {found:?}");
    // A restart can't tell what is new, and moves nothing more than that.
    daemon.kill()?;
    let daemon = lab.start_again()?;
    let (shown, _) = daemon.status_command(&[])?;
    ensure!(!shown.contains("warm"), "a restart begins no warm-up:\n{shown}");
    Ok(())
}

fn scheduler_that_knows_no_weights_gives_way_to_one_that_does() -> Result<()> {
    let lab = lab()?;
    let of = |weight: &str| {
        [first(), second().option("L4LB_WEIGHT", weight)].map(|task| task.option("L4LB_SCHEDULER", "rr"))
    };
    let daemon = lab.start(&State::of(of("1")))?;
    let vip = daemon.socket_of("web", 80)?;
    let is_scheduled_by = |name: &str| -> Result<bool> {
        Ok(lab.agent.services()?.contains(&format!("-A -t {vip} -s {name}")))
    };
    ensure!(is_scheduled_by("rr")?, "equal weights leave the scheduler as it is");
    lab.publish(&State::of(of("3")))?;
    daemon.await_status("the share in the kernel", |_| is_scheduled_by("wrr").unwrap_or_default())?;
    let found = dial(&lab.agent, vip, 400)?;
    ensure!(found.get("B2") == Some(&300), "{found:?}");
    Ok(())
}
