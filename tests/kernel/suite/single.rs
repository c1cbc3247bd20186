//! One daemon has one kernel: a second one refuses to start, whatever its configuration says, and leaves the
//! first alone.

use std::fs;

use anyhow::{Context, Result, ensure};
use l4lbd::dataplane::ebpf::cgroup_tree;

use super::tests;
use crate::guest;
use crate::toolkit::await_some;
use crate::toolkit::daemon::PROGRAM;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::host::inside;
use crate::toolkit::kernel::must_be_equal;
use crate::toolkit::lab::{Lab, REMOTE};
use crate::toolkit::plane::{self, Plane};
use crate::toolkit::state::{State, Task};

tests!["single":
    second_daemon_refuses_to_start,
    killed_daemon_leaves_no_lock,
    daemons_of_different_places_run_together,
];

fn state() -> State {
    State::of([Task::host("web", REMOTE, 8080).vip("/web:80")])
}

fn lab() -> Result<Lab> {
    let lab = Lab::new()?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    Ok(lab)
}

/// Writes the configuration of a daemon that shares nothing with the first one but the kernel: socket, state
/// and pins are its own. Returns its path.
fn second_configuration(lab: &Lab) -> Result<String> {
    let own = lab.path("second");
    fs::create_dir_all(&own)?;
    let directory = lab.directory.display().to_string();
    let text = fs::read_to_string(lab.path("l4lbd.toml"))?
        .replace(&format!("{directory}/state\""), &format!("{}/state\"", own.display()))
        .replace(&format!("{directory}/l4lbd.sock"), &format!("{}/l4lbd.sock", own.display()));
    let path = own.join("l4lbd.toml");
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}

/// Runs a command that must be refused because of the first daemon, and returns what it said.
fn must_refuse(lab: &Lab, arguments: &str, config: &str) -> Result<String> {
    let script = format!("{PROGRAM} {arguments} --config {config} 2>&1; echo \"exit code $?\"");
    let said = lab.agent.run(&["timeout", "30", "sh", "-c", &script])?;
    ensure!(said.contains("another l4lbd (process "), "{arguments} did not say what runs: {said}");
    ensure!(said.ends_with("exit code 1\n"), "{arguments} did not fail: {said}");
    Ok(said)
}

fn second_daemon_refuses_to_start() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&state())?;
    let vip = daemon.socket_of("web", 80)?;
    let before = lab.snapshot()?;
    let config = second_configuration(&lab)?;
    for arguments in ["run", "run --once", "purge"] {
        let said = must_refuse(&lab, arguments, &config)?;
        let pid = daemon.pid().to_string();
        ensure!(said.contains(&format!("(process {pid})")), "{arguments} names another process: {said}");
        must_be_equal(&before, &lab.snapshot()?, &format!("after {arguments}"))?;
    }
    // The other plane on the same link would be a second one, too.
    let other = if plane::current() == Plane::Ipvs { "ebpf" } else { "ipvs" };
    let text = fs::read_to_string(&config)?;
    fs::write(&config, text.replace(&format!("\"{}\"", plane::current().name()), &format!("\"{other}\"")))?;
    let script = format!("{PROGRAM} run --config {config} 2>&1; echo \"exit code $?\"");
    let said = lab.agent.run(&["timeout", "30", "sh", "-c", &script])?;
    ensure!(said.ends_with("exit code 1\n"), "the plane {other} was not refused: {said}");
    must_be_equal(&before, &lab.snapshot()?, "after the other plane")?;
    fs::write(&config, text)?;

    // What only looks is welcome.
    lab.agent.run(&[PROGRAM, "plan", "--config", &config])?;
    lab.agent.must_reach(Tcp, vip, "B")?;
    daemon.terminate()?;
    lab.agent.run(&[PROGRAM, "run", "--once", "--config", &config])?;
    lab.agent.run(&[PROGRAM, "purge", "--config", &config]).map(drop)
}

fn killed_daemon_leaves_no_lock() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&state())?;
    let vip = daemon.socket_of("web", 80)?;
    let config = second_configuration(&lab)?;
    must_refuse(&lab, "run", &config)?;
    daemon.kill()?;
    lab.agent.run(&[PROGRAM, "run", "--once", "--config", &config])?;
    lab.agent.must_reach(Tcp, vip, "B")?;
    lab.start_again()?.terminate()
}

/// Another network namespace with IPVS, another control group with eBPF.
fn daemons_of_different_places_run_together() -> Result<()> {
    let (lab, other) = (lab()?, self::lab()?);
    let daemon = lab.start(&state())?;
    other.publish(&state())?;
    other.configure_daemon("")?;
    // The other one's log and socket would be those of the first.
    let own = other.path("other");
    fs::create_dir_all(&own)?;
    let group = cgroup_tree().context("no cgroup v2 tree")?;
    let group = guest::cgroup().unwrap_or(group).join("other");
    let directory = other.directory.display().to_string();
    let mut text = fs::read_to_string(other.path("l4lbd.toml"))?
        .replace(&format!("{directory}/state\""), &format!("{}/state\"", own.display()))
        .replace(&format!("{directory}/l4lbd.sock"), &format!("{}/l4lbd.sock", own.display()));
    if plane::current() == Plane::Ebpf {
        fs::create_dir_all(&group)?;
        let lines =
            text.lines().filter(|line| !line.starts_with("cgroup = ") && !line.starts_with("pins = "));
        let place =
            format!("[ebpf]\npins = \"{}-other\"\ncgroup = \"{}\"", other.pins.display(), group.display());
        text = lines.map(|line| format!("{line}\n")).collect::<String>().replace("[ebpf]", &place);
    }
    let config = own.join("l4lbd.toml").display().to_string();
    fs::write(&config, text)?;
    let log = fs::File::create(own.join("daemon.log"))?;
    let mut process = inside(&other.agent.name)
        .args([PROGRAM, "run", "--config", &config])
        .env("NO_COLOR", "1")
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let status = [PROGRAM, "status", "--json", "--config", &config];
    let outcome = await_some("the other daemon has its VIP", || {
        Ok(other.agent.run(&status).ok().filter(|text| text.contains("web.marathon")).map(drop))
    });
    let reached = lab.agent.must_reach(Tcp, daemon.socket_of("web", 80)?, "B");
    process.kill()?;
    process.wait()?;
    let purged = other.agent.run(&[PROGRAM, "purge", "--config", &config]);
    let _ = fs::remove_dir(&group);
    outcome.with_context(|| fs::read_to_string(own.join("daemon.log")).unwrap_or_default())?;
    reached?;
    purged.map(drop)
}
