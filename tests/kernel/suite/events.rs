//! What the history says of what happens to a VIP.

use std::fs;

use anyhow::{Result, ensure};

use super::tests;
use super::web::{await_weight, first, lab, second};
use crate::toolkit::await_some;
use crate::toolkit::daemon::Daemon;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::lab::Lab;
use crate::toolkit::state::State;

tests!["events":
    the_end_of_a_task_is_told_and_outlives_a_kill,
    a_damaged_file_keeps_the_rest,
    the_story_of_a_vip_is_on_one_screen,
    the_status_shows_what_is_wrong_and_what_to_do,
    ; ipvs:
    drift_is_told_with_what_was_found,
    ; ebpf:
    drift_of_maps_is_told,
];

/// Waits until the history has an event with all of these in its line, and returns the history.
fn await_event(lab: &Lab, arguments: &[&str], parts: &[&str]) -> Result<String> {
    let mut last = String::new();
    await_some(&format!("an event with {parts:?}"), || {
        last = lab.l4lbd(&[&["events"], arguments].concat())?;
        let is_there = last.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        Ok(is_there.then(|| last.clone()))
    })
    .map_err(|error| error.context(format!("the history was\n{last}")))
}

fn the_end_of_a_task_is_told_and_outlives_a_kill() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start_with(&State::of([first()]), "drain = \"3s\"\n")?;
    let kept = lab.agent.keep(daemon.socket_of("web", 80)?)?;
    lab.publish(&State::of([second()]))?;
    await_weight(&daemon, Some(0))?;
    kept.must_live()?;
    await_weight(&daemon, None)?;
    let cut = ["drain-ended", "tcp web.marathon:80", "192.168.50.2:8080", "1 connection was cut"];
    let before = await_event(&lab, &["--vip", "web.marathon:80"], &cut)?;
    for parts in [
        &["task-ended", "tcp web.marathon:80", "task web-1", "document of"][..],
        &["task-started", "task web-2"],
        &["drain-begun", "192.168.50.2:8080", "keeps its 1 connection until"],
    ] {
        let is_there = before.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        ensure!(is_there, "no event with {parts:?} in\n{before}");
    }
    let of_task = lab.l4lbd(&["events", "--task", "web-1"])?;
    ensure!(of_task.lines().count() == 3 && !of_task.contains("web-2"), "of one task:\n{of_task}");
    // Nothing is written at the end of a killed daemon.
    daemon.kill()?;
    let _daemon = lab.start_again()?;
    let after = lab.l4lbd(&["events"])?;
    for line in before.lines().filter(|line| !line.contains("times since")) {
        ensure!(after.contains(line), "{line:?} is lost:\n{after}");
    }
    ensure!(after.contains("the one before it was killed"), "the kill is not told:\n{after}");
    Ok(())
}

fn a_damaged_file_keeps_the_rest() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first()]))?;
    lab.publish(&State::of([first(), second()]))?;
    await_event(&lab, &[], &["task-started", "task web-2"])?;
    daemon.terminate()?;
    let path = lab.path("state/events.journal");
    let mut bytes = fs::read(&path)?;
    // The first event, and a half at the end.
    let begin = bytes.iter().position(|octet| *octet == b'\n').unwrap_or_default() + 20;
    bytes[begin] ^= 1;
    bytes.extend(b"{\"id\":99,\"kind\":\"task-st");
    fs::write(&path, &bytes)?;
    let daemon = lab.start_again()?;
    let after = lab.l4lbd(&["events"])?;
    ensure!(after.contains("task web-2") && after.contains("daemon-stopped"), "too much is lost:\n{after}");
    ensure!(!daemon.status()?.degraded, "a damaged event degrades the status");
    Ok(())
}

fn the_story_of_a_vip_is_on_one_screen() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first(), second().healthy(false)]))?;
    let vip = daemon.socket_of("web", 80)?;
    lab.agent.must_reach(Tcp, vip, "B1")?;
    for name in ["web.marathon:80", "web*", &vip.to_string(), "web-2"] {
        let story = lab.l4lbd(&["vip", name])?;
        for part in [
            &format!("at {vip}"),
            "a connection made now goes to 192.168.50.2:8080, the only backend",
            "VIP_0=/web:80 on port",
            "the task's Mesos check",
            "unhealthy",
            "LAST EVENTS",
            "vip-added",
        ] {
            ensure!(story.contains(part), "{part:?} is missing for {name}:\n{story}");
        }
        ensure!(story.lines().count() <= 24, "{} lines:\n{story}", story.lines().count());
    }
    let json: serde_json::Value = serde_json::from_str(&lab.l4lbd(&["vip", "web.marathon", "--json"])?)?;
    ensure!(json["vips"][0]["tasks"][1]["healthy"] == false, "{json}");
    ensure!(lab.l4lbd(&["vip", "nothing"]).is_err(), "a name that is no VIP has a story");
    Ok(())
}

fn the_status_shows_what_is_wrong_and_what_to_do() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first(), second().healthy(false)]))?;
    let (text, exit) = daemon.status_command(&["--unhealthy", "--framework", "marathon"])?;
    ensure!(
        exit == Some(0) && text.starts_with("ok for ") && text.contains("web.marathon"),
        "{exit:?}: {text}"
    );
    let (text, _) = daemon.status_command(&["--framework", "other"])?;
    ensure!(text.contains("no VIP is like that"), "{text}");
    fs::write(lab.path("state.json"), "{")?;
    daemon.await_status("a complaint", |status| status.degraded)?;
    let (text, exit) = daemon.status_command(&[])?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(exit == Some(2) && lines[0].starts_with("DEGRADED for "), "{exit:?}: {text}");
    ensure!(
        lines[1].starts_with("  ! source: ")
            && lines[2].starts_with("    for ")
            && lines[2].contains("; do: "),
        "{text}"
    );
    lab.publish(&State::of([first()]))?;
    await_event(&lab, &[], &["source-regained", "answers again"])?;
    Ok(())
}

fn drift_is_told_with_what_was_found() -> Result<()> {
    let mut lab = lab()?;
    lab.audit = "1s";
    let daemon: Daemon<'_> = lab.start(&State::of([first(), second()]))?;
    let vip = daemon.socket_of("web", 80)?;
    for (damage, found) in [
        (format!("ipvsadm -e -t {vip} -r 192.168.50.2:8080 -m -w 7"), "had weight 7 instead of 1"),
        (format!("ipvsadm -d -t {vip} -r 192.168.50.3:8080"), "server 192.168.50.3:8080 was missing"),
        (format!("ipvsadm -E -t {vip} -s rr"), "it had another scheduler"),
        (format!("ipvsadm -D -t {vip}"), "the virtual service was missing"),
    ] {
        lab.agent.run_line(&damage)?;
        await_event(&lab, &["--vip", &vip.to_string()], &["drift-repaired", "tcp web.marathon:80", found])?;
    }
    Ok(())
}

fn drift_of_maps_is_told() -> Result<()> {
    let mut lab = lab()?;
    lab.audit = "1s";
    let _daemon = lab.start(&State::of([first()]))?;
    lab.empty("vips")?;
    await_event(&lab, &["--since", "1h"], &["drift-repaired", "another program changed"])?;
    Ok(())
}
