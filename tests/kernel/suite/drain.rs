//! Tasks that go leave their connections time to end.

use anyhow::{Result, ensure};

use super::tests;
use super::web::{await_weight, first, lab, second};
use crate::toolkit::await_some;
use crate::toolkit::helper::Outcome;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::lab::{Lab, REMOTE};
use crate::toolkit::state::{State, Task};

tests!["drain":
    connections_of_a_task_that_has_gone_live_until_they_end,
    connections_are_reset_at_the_deadline,
    task_that_returns_is_used_again,
    restart_goes_on_draining,
    rolling_upgrade_loses_no_connection,
    ; ipvs:
    idle_connection_survives_where_it_is_asked_for,
    port_chooses_its_scheduler,
];

fn connections_of_a_task_that_has_gone_live_until_they_end() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first()]))?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    lab.publish(&State::of([second()]))?;
    await_weight(&daemon, Some(0))?;
    for _ in 0..4 {
        kept.must_live()?;
        lab.agent.must_reach(Tcp, vip, "B2")?;
    }
    let (shown, _) = daemon.status_command(&[])?;
    ensure!(shown.contains("gone, kept for"), "the status does not say why it is there:\n{shown}");
    kept.close()?;
    await_weight(&daemon, None)?;
    lab.agent.must_reach(Tcp, vip, "B2").map(drop)
}

fn connections_are_reset_at_the_deadline() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start_with(&State::of([first()]), "drain = \"3s\"\n")?;
    let kept = lab.agent.keep(daemon.socket_of("web", 80)?)?;
    lab.publish(&State::of([second()]))?;
    await_weight(&daemon, Some(0))?;
    kept.must_live()?;
    await_weight(&daemon, None)?;
    let outcome = kept.ask()?;
    ensure!(outcome == Outcome::Reset, "wanted a reset at once, got {outcome:?}");
    Ok(())
}

fn task_that_returns_is_used_again() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first()]))?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    lab.publish(&State::of([second()]))?;
    await_weight(&daemon, Some(0))?;
    lab.publish(&State::of([first()]))?;
    await_weight(&daemon, Some(1))?;
    kept.must_live()?;
    lab.agent.must_reach(Tcp, vip, "B1").map(drop)
}

fn restart_goes_on_draining() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first()]))?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    lab.publish(&State::of([second()]))?;
    await_weight(&daemon, Some(0))?;
    daemon.kill()?;
    let daemon = lab.start_again()?;
    await_weight(&daemon, Some(0))?;
    kept.must_live()?;
    kept.close()?;
    await_weight(&daemon, None)?;
    lab.agent.must_reach(Tcp, vip, "B2").map(drop)
}

/// As Marathon does it by default: a new instance, then an old one goes, one after the other. Old
/// instances finish what they have.
fn rolling_upgrade_loses_no_connection() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    let instance = |version: u16, number: u16| {
        let port = 8000 + 10 * version + number;
        Task::host(&format!("web-{version}-{number}"), REMOTE, port).vip("/web:80")
    };
    for version in 0..3 {
        for number in 0..3 {
            lab.remote
                .serve(&format!("192.168.50.2:{}", 8000 + 10 * version + number), &format!("V{version}"))?;
        }
    }
    let mut running: Vec<Task> = (0..3).map(|number| instance(0, number)).collect();
    let daemon = lab.start(&State::of(running.clone()))?;
    let vip = daemon.socket_of("web", 80)?;
    let clients = [&lab.agent, lab.container(11)];
    for client in clients {
        client.load(vip)?;
    }
    for version in 1..3 {
        for number in 0..3 {
            running.push(instance(version, number));
            lab.publish(&State::of(running.clone()))?;
            let newest = format!("192.168.50.2:{}", 8000 + 10 * version + number);
            daemon.await_status("the new instance is used", |status| {
                status.vip("web", 80).is_some_and(|vip| vip.weight_of(&newest) == Some(1))
            })?;
            let old = format!("192.168.50.2:{}", 8000 + 10 * (version - 1) + number);
            running.remove(0);
            lab.publish(&State::of(running.clone()))?;
            daemon.await_status("the old instance gets nothing new", |status| {
                status.vip("web", 80).is_some_and(|vip| vip.weight_of(&old).is_none_or(|weight| weight == 0))
            })?;
        }
    }
    daemon.await_status("all old instances have gone", |status| {
        status.vip("web", 80).is_some_and(|vip| vip.backends.len() == 3)
    })?;
    for client in clients {
        let (connections, failures) = client.end_load()?;
        ensure!(connections > 50, "{}: only {connections} connections", client.name);
        ensure!(failures.is_empty(), "{}: of {connections} connections failed: {failures:?}", client.name);
    }
    lab.agent.must_reach(Tcp, vip, "V2").map(drop)
}

fn idle_connection_survives_where_it_is_asked_for() -> Result<()> {
    let lab = lab()?;
    let sticky = |task: Task| task.option("L4LB_STICKY_IDLE", "true");
    let daemon = lab.start_with(
        &State::of([sticky(first()), sticky(second())]),
        "tcp_timeout = \"2s\"\ntcp_fin_timeout = \"1s\"\n",
    )?;
    let vip = daemon.socket_of("web", 80)?;
    let services = lab.agent.services()?;
    ensure!(
        services.iter().any(|line| line.contains("-s mh") && line.contains("mh-fallback,mh-port")),
        "the service is scheduled otherwise: {services:?}"
    );
    let kept = (0..6).map(|_| lab.agent.keep(vip)).collect::<Result<Vec<_>>>()?;
    await_some("the kernel forgets the idle connections", || {
        let table = lab.agent.run(&["cat", "/proc/net/ip_vs_conn"])?;
        Ok((table.lines().count() <= 1).then_some(()))
    })?;
    kept.iter().try_for_each(|connection| connection.must_live())
}

fn port_chooses_its_scheduler() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([
        first().option("L4LB_SCHEDULER", "rr"),
        second().vip("/other:80").option("L4LB_SCHEDULER", "fastest"),
    ]))?;
    let services = lab.agent.services()?;
    let web = daemon.socket_of("web", 80)?;
    let other = daemon.socket_of("other", 80)?;
    for (vip, scheduler) in [(web, "rr"), (other, "wlc")] {
        ensure!(services.contains(&format!("-A -t {vip} -s {scheduler}")), "{services:?}");
    }
    let complaints = daemon.status()?.complaints();
    ensure!(complaints.contains("no such scheduler"), "nothing is said of the bad one: {complaints}");
    Ok(())
}
