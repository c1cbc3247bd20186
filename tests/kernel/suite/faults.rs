//! Whatever a master says or does not say, and whatever happens to the daemon's disk: connections go on.

use anyhow::{Context, Result, ensure};

use super::tests;
use super::web::{self, FIRST, first, second};
use crate::toolkit::daemon::Daemon;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::lab::{Lab, THIRD, socket_address};
use crate::toolkit::master::Behaviour;
use crate::toolkit::state::{State, Task};

tests!["faults":
    master_that_fails_changes_nothing,
    sudden_loss_is_held_until_it_is_accepted,
    new_master_changes_nothing,
    lost_agent_is_left_unless_nobody_else_is_there,
    hostile_labels_take_nothing,
    full_disk_stops_nothing,
    damaged_files_are_set_aside,
    killed_in_the_middle_of_a_pass,
];

const MASTER: &str = "192.168.50.2:5050";

/// A lab with a master that says `state`.
fn lab(state: &State) -> Result<Lab> {
    let mut lab = Lab::new()?;
    web::serve(&lab)?;
    lab.remote.master(MASTER)?;
    lab.remote.behave(says(state))?;
    lab.source = format!("http://{MASTER}");
    Ok(lab)
}

fn says(state: &State) -> Behaviour {
    Behaviour::State(state.document(&[]).to_string())
}

fn start(lab: &Lab) -> Result<Daemon<'_>> {
    lab.configure_daemon("")?;
    lab.start_again()
}

fn await_health(daemon: &Daemon<'_>, degraded: bool) -> Result<()> {
    let what = if degraded { "a degraded status" } else { "a status without complaints" };
    daemon.await_status(what, |status| status.degraded == degraded).map(drop)
}

fn master_that_fails_changes_nothing() -> Result<()> {
    let state = State::of([first()]);
    let lab = lab(&state)?;
    let daemon = start(&lab)?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    let document = state.document(&[]).to_string();
    let answer = |status: &str, body: &str| Behaviour::Answer { status: status.into(), body: body.into() };
    for behaviour in [
        Behaviour::HangUp,
        Behaviour::Stall(30),
        Behaviour::Truncate(document.clone()),
        Behaviour::RedirectToItself,
        answer("200 OK", "<!DOCTYPE html><html>proxy</html>"),
        answer("200 OK", ""),
        answer("200 OK", "{}"),
        answer("200 OK", document.get(..document.len() / 2).unwrap_or_default()),
        answer("401 Unauthorized", "who are you"),
        answer("404 Not Found", ""),
        answer("503 Service Unavailable", ""),
    ] {
        let told = format!("{behaviour:?}").chars().take(60).collect::<String>();
        lab.remote.behave(behaviour)?;
        await_health(&daemon, true).with_context(|| told.clone())?;
        let (shown, code) = daemon.status_command(&[])?;
        ensure!(code == Some(2), "{told}: exit status {code:?}");
        ensure!(shown.contains("the state is") && shown.contains(" old"), "{told}: no age in\n{shown}");
        kept.must_live().with_context(|| told.clone())?;
        lab.agent.must_reach(Tcp, vip, "B1").with_context(|| told.clone())?;
        lab.remote.behave(says(&state))?;
        await_health(&daemon, false).with_context(|| told.clone())?;
    }
    kept.must_live()
}

fn sudden_loss_is_held_until_it_is_accepted() -> Result<()> {
    let mut lab = lab(&State::of([first(), second()]))?;
    lab.mass_loss_polls = 10_000;
    let daemon = start(&lab)?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    // The tasks are gone without any being listed as ended.
    lab.remote.behave(says(&State::default()))?;
    await_health(&daemon, true)?;
    kept.must_live()?;
    lab.agent.dial(vip)?;
    ensure!(daemon.status()?.complaints().contains("vanished without a trace"), "no cause in the status");
    lab.l4lbd(&["accept-loss"])?;
    daemon.await_status("nobody takes new connections", |status| {
        !status.degraded
            && status.vip("web", 80).is_some_and(|vip| vip.backends.iter().all(|backend| backend.weight == 0))
    })?;
    lab.agent.must_be_refused(Tcp, vip)?;
    kept.must_live().context("a connection to a task that has gone may end by itself")
}

fn new_master_changes_nothing() -> Result<()> {
    let state = State::of([first()]);
    let lab = lab(&state)?;
    let daemon = start(&lab)?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    lab.remote.behave(says(&State::after_failover()))?;
    await_health(&daemon, true)?;
    ensure!(daemon.status()?.complaints().contains("a new master leads"), "no cause in the status");
    kept.must_live()?;
    lab.agent.must_reach(Tcp, vip, "B1")?;
    lab.remote.behave(says(&state))?;
    await_health(&daemon, false)?;
    kept.must_live()
}

fn lost_agent_is_left_unless_nobody_else_is_there() -> Result<()> {
    let lab = lab(&State::of([first(), second()]))?;
    let daemon = start(&lab)?;
    let vip = daemon.socket_of("web", 80)?;
    lab.remote.behave(says(&State::of([second()]).lost([first()])))?;
    daemon.await_status("the backend on the lost agent leaves", |status| {
        let weight = status.vip("web", 80).map(|vip| vip.weight_of(FIRST));
        weight.is_some_and(|weight| weight.is_none_or(|weight| weight == 0))
    })?;
    lab.agent.must_reach(Tcp, vip, "B2")?;
    await_health(&daemon, false)?;

    lab.remote.behave(says(&State::default().lost([first(), second()])))?;
    daemon.await_status("both are kept", |status| {
        status.degraded
            && status.vip("web", 80).is_some_and(|vip| vip.backends.iter().all(|backend| backend.weight == 1))
    })?;
    let complaints = daemon.status()?.complaints();
    ensure!(complaints.contains("unreachable: "), "no cause in the status: {complaints}");
    lab.agent.dial(vip)?;
    lab.remote.behave(says(&State::of([first(), second()])))?;
    await_health(&daemon, false)
}

fn hostile_labels_take_nothing() -> Result<()> {
    let labels = [
        "127.0.0.1:9191",
        "169.254.169.254:80",
        "224.0.0.1:80",
        "0.0.0.0:80",
        // The agent itself, another one (which is its router as well), and where names are served.
        "192.168.50.1:9191",
        FIRST,
        "198.51.100.1:53",
        // By the operator's word.
        "10.66.0.9:80",
    ];
    let lab = Lab::new()?;
    web::serve(&lab)?;
    lab.agent.serve("0.0.0.0:9191", "LOCAL")?;
    let hostile = labels.iter().fold(Task::host("hostile", THIRD, 8080), |task, label| task.vip(label));
    let deny = "[vips]\ndeny = [\"10.66.0.0/16\"]\n";
    let daemon = lab.start_with(&State::of([hostile, first()]), deny)?;
    let services = lab.services()?;
    ensure!(services.len() == 1, "more than web is programmed: {services:?}");
    let complaints = daemon.status()?.complaints();
    for label in labels {
        let (address, _) = label.rsplit_once(':').context("a label")?;
        ensure!(complaints.contains(address), "nothing is said of {label}: {complaints}");
    }
    lab.agent.must_reach(Tcp, socket_address("127.0.0.1:9191"), "LOCAL")?;
    lab.agent.must_reach(Tcp, socket_address("192.168.50.1:9191"), "LOCAL")?;
    lab.agent.must_reach(Tcp, socket_address(FIRST), "B1")?;
    lab.agent.must_reach(Tcp, daemon.socket_of("web", 80)?, "B1").map(drop)
}

fn full_disk_stops_nothing() -> Result<()> {
    let lab = lab(&State::of([first()]))?;
    let directory = lab.path("state");
    std::fs::create_dir_all(&directory)?;
    let mount = directory.to_str().context("a path in UTF-8")?;
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "full", mount])
        .status()?;
    ensure!(mounted.success(), "no file system to fill");
    let unmount = Unmount(mount.to_owned());
    let filled = std::fs::write(directory.join("ballast"), vec![0; 1 << 20]);
    ensure!(filled.is_err(), "the disk is not full");
    let daemon = start(&lab)?;
    let vip = daemon.socket_of("web", 80)?;
    lab.agent.must_reach(Tcp, vip, "B1")?;
    ensure!(daemon.status()?.complaints().contains("store: "), "nothing is said of the full disk");
    std::fs::remove_file(directory.join("ballast"))?;
    await_health(&daemon, false).context("after there was room again")?;
    drop(daemon);
    drop(unmount);
    Ok(())
}

struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l", &self.0]).status();
    }
}

fn damaged_files_are_set_aside() -> Result<()> {
    let lab = lab(&State::of([first()]))?;
    let daemon = start(&lab)?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    daemon.terminate()?;
    let directory = lab.path("state");
    for file in ["leases.json", "cluster.json", "deadlines.json", "marathon.json"] {
        std::fs::write(directory.join(file), "{\"version\": 1, \"conte")?;
    }
    let daemon = start(&lab)?;
    ensure!(daemon.socket_of("web", 80)? == vip, "the name has another address");
    kept.must_live()?;
    lab.agent.must_reach(Tcp, vip, "B1")?;
    let names: Vec<String> = std::fs::read_dir(&directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    for file in ["leases.json", "cluster.json", "deadlines.json", "marathon.json"] {
        let file = format!("{file}.damaged-");
        ensure!(names.iter().any(|name| name.starts_with(&file)), "not set aside: {names:?}");
    }
    Ok(())
}

/// A table that takes several chunks, and a daemon that dies while it writes them.
fn killed_in_the_middle_of_a_pass() -> Result<()> {
    let many = |count: u16| {
        let tasks = (0..count).map(|number| {
            Task::host(&format!("t{number}"), THIRD, 10_000 + number).vip(&format!("/n{number}:80"))
        });
        State::of(std::iter::once(first()).chain(tasks))
    };
    let lab = lab(&State::of([first()]))?;
    let daemon = start(&lab)?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    lab.agent.load(vip)?;
    let state = many(600);
    lab.remote.behave(says(&state))?;
    daemon.await_kernel("some of the new services", |services| services > 1)?;
    daemon.kill()?;
    kept.must_live()?;
    let daemon = start(&lab)?;
    daemon.await_kernel("all services", |services| services == 601)?;
    kept.must_live()?;
    let (connections, failures) = lab.agent.end_load()?;
    ensure!(connections > 10 && failures.is_empty(), "{connections} connections, failed: {failures:?}");
    Ok(())
}
