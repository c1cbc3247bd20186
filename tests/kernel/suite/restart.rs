//! The kernel goes on without the daemon, and a daemon that finds what it wants writes nothing.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::tests;
use crate::toolkit::await_some;
use crate::toolkit::daemon::Daemon;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::kernel::{WriteWatch, must_be_equal};
use crate::toolkit::lab::{Lab, REMOTE, REMOTE6, THIRD, socket_address};
use crate::toolkit::state::{State, Task};

tests!["restart":
    once_leaves_the_kernel_programmed,
    terminated_and_started_again,
    killed_and_started_again,
    address_stays_with_its_name,
    unreadable_document_changes_nothing,
    started_without_a_document_changes_nothing,
    pass_without_change_writes_nothing,
];

fn state() -> State {
    State::of([
        Task::host("web-1", REMOTE, 8080).vip("/web:80").vip("10.99.0.7:6666"),
        Task::host("web-2", THIRD, 8081).vip("/web:80").healthy(false),
        Task::container("six", REMOTE, REMOTE6, 8080).vip("/six:80"),
        Task::host("dns", REMOTE, 5353).udp().vip("/dns:53"),
    ])
}

fn lab() -> Result<Lab> {
    let lab = Lab::with_containers(&[11])?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    Ok(lab)
}

fn once_leaves_the_kernel_programmed() -> Result<()> {
    let lab = lab()?;
    lab.publish(&State::of([Task::host("web", REMOTE, 8080).vip("10.99.0.80:80")]))?;
    lab.configure_daemon("")?;
    lab.l4lbd(&["run", "--once"])?;
    let vip = socket_address("10.99.0.80:80");
    lab.agent.must_reach(Tcp, vip, "B")?;
    lab.container(11).must_reach(Tcp, vip, "B")?;
    let watch = WriteWatch::start(&lab)?;
    lab.l4lbd(&["run", "--once"])?;
    watch.must_be_idle()?;
    Ok(())
}

fn restarted(end: fn(Daemon<'_>) -> Result<()>) -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&state())?;
    let vip = daemon.socket_of("web", 80)?;
    let from_host = lab.agent.keep(vip)?;
    let from_container = lab.container(11).keep(vip)?;
    let counted = || Ok((lab.connections_of(vip)? == 2).then_some(()));
    await_some("the kernel counts both connections", counted)?;
    let before = lab.snapshot()?;

    end(daemon)?;
    must_be_equal(&before, &lab.snapshot()?, "without the daemon")?;
    let watch = WriteWatch::start(&lab)?;
    let daemon = lab.start_again()?;
    daemon.await_status("the status of the new daemon", |status| status.vip("web", 80).is_some())?;
    watch.must_be_idle()?;
    must_be_equal(&before, &lab.snapshot()?, "with the new daemon")?;

    // A service made anew would count from 0.
    counted()?.context("the service has lost its counters")?;
    from_host.must_live()?;
    from_container.must_live()?;
    ensure!(daemon.socket_of("web", 80)? == vip, "the VIP moved");
    lab.agent.must_reach(Tcp, vip, "B")?;
    Ok(())
}

fn terminated_and_started_again() -> Result<()> {
    restarted(|daemon| daemon.terminate())
}

fn killed_and_started_again() -> Result<()> {
    restarted(|daemon| daemon.kill())
}

/// An address that was moved aside by a literal VIP stays where it is when that is gone and the
/// daemon starts anew.
fn address_stays_with_its_name() -> Result<()> {
    let lab = lab()?;
    // In this range both names start their search at the same address.
    let range = "[vips]\nrange4 = \"11.0.0.0-11.0.0.2\"";
    let web = || Task::host("web", REMOTE, 8080).vip("/web:80");
    let other = || Task::host("other", REMOTE, 8080).vip("/other:80");
    let usual = {
        let daemon = lab.start_with(&State::of([web()]), range)?;
        daemon.socket_of("web", 80)?.ip()
    };
    lab.l4lbd(&["purge"])?;
    let _ = fs::remove_dir_all(lab.path("state"));

    let daemon = lab.start_with(&State::of([other()]), range)?;
    lab.publish(&State::of([web(), other()]))?;
    daemon.await_status("both names", |status| status.vip("web", 80).is_some())?;
    let moved = daemon.socket_of("web", 80)?;
    ensure!(moved.ip() != usual, "two names have one address");
    lab.publish(&State::of([web()]))?;
    daemon.await_status("the other name has no backend", |status| {
        status.vip("other", 80).is_none_or(|vip| vip.backends.is_empty())
    })?;
    ensure!(daemon.socket_of("web", 80)? == moved, "the name changed its address while it lived");
    daemon.kill()?;
    let daemon = lab.start_again()?;
    ensure!(daemon.socket_of("web", 80)? == moved, "the name changed its address over a restart");
    lab.agent.must_reach(Tcp, moved, "B")?;
    Ok(())
}

fn unreadable_document_changes_nothing() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&state())?;
    let vip = daemon.socket_of("web", 80)?;
    let before = lab.services()?;
    let document = fs::read(lab.path("state.json"))?;
    for (what, broken) in
        [("truncated", &document[..document.len() / 2]), ("empty", b""), ("not Mesos'", b"{}")]
    {
        fs::write(lab.path("state.json.new"), broken)?;
        fs::rename(lab.path("state.json.new"), lab.path("state.json"))?;
        daemon.await_status(&format!("a complaint about a document that is {what}"), |status| {
            status.degraded
        })?;
        for arguments in [&["--json"][..], &[]] {
            let (text, exit) = daemon.status_command(arguments)?;
            ensure!(exit == Some(2), "the command ends with {exit:?} when the document is {what}: {text}");
        }
        ensure!(lab.services()? == before, "a document that is {what} changed the kernel");
        lab.publish(&state())?;
        daemon.await_status("the complaint goes", |status| !status.degraded)?;
    }
    let (text, exit) = daemon.status_command(&[])?;
    ensure!(exit == Some(0), "the command ends with {exit:?} when all is well: {text}");
    lab.agent.must_reach(Tcp, vip, "B")?;
    Ok(())
}

fn started_without_a_document_changes_nothing() -> Result<()> {
    let lab = lab()?;
    let vip = {
        let daemon = lab.start(&state())?;
        daemon.socket_of("web", 80)?
    };
    let before = lab.snapshot()?;
    fs::remove_file(lab.path("state.json"))?;
    let watch = WriteWatch::start(&lab)?;
    let daemon = lab.start_unready()?;
    await_some("a complaint about the missing document", || {
        // Until it listens, the command fails.
        Ok(daemon.status().ok().filter(|status| status.degraded))
    })?;
    watch.must_be_idle()?;
    must_be_equal(&before, &lab.snapshot()?, "without a document")?;
    lab.agent.must_reach(Tcp, vip, "B")?;
    Ok(())
}

/// New documents that mean the same VIPs: everything is read and compared, and nothing written.
fn pass_without_change_writes_nothing() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&state())?;
    let before = lab.snapshot()?;
    let watch = WriteWatch::start(&lab)?;
    for number in 0..3 {
        // A task without a VIP is a change of the document; its ill-formed label shows when it has arrived.
        let label = format!("nonsense-{number}");
        let mut tasks = vec![Task::host("idle", REMOTE, 9999).vip(&label)];
        tasks.extend_from_slice(state().tasks());
        lab.publish(&State::of(tasks))?;
        daemon.await_status("the new document", |status| status.text.contains(&label))?;
    }
    watch.must_be_idle()?;
    must_be_equal(&before, &lab.snapshot()?, "after the new documents")?;
    Ok(())
}
