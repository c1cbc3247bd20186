//! A changed configuration counts without a restart, as far as it can.

use std::fs;

use anyhow::{Result, ensure};

use super::tests;
use super::web::{first, lab, second};
use crate::toolkit::daemon::Daemon;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::lab::{Lab, THIRD, socket_address};
use crate::toolkit::state::State;

tests!["reload":
    changed_rules_and_sources_count_at_once,
    file_with_an_error_changes_nothing,
];

/// Reads the configuration again, and returns what the command says.
fn reload(lab: &Lab, more: &str) -> Result<String> {
    lab.configure_daemon(more)?;
    lab.l4lbd(&["reload"])
}

fn changed_rules_and_sources_count_at_once() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first().vip("10.99.0.80:80")]))?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    lab.agent.must_reach(Tcp, socket_address("10.99.0.80:80"), "B1")?;
    let said = reload(&lab, "[vips]\ndeny = [\"10.99.0.0/16\"]\n[dns]\nttl = \"7s\"\n")?;
    ensure!(said.contains("in effect: vips.deny\n"), "{said}");
    ensure!(said.contains("after a restart: dns.ttl "), "{said}");
    // The answer came after the kernel had it.
    let status = daemon.status()?;
    ensure!(status.vip("web", 80).is_some() && status.vips.len() == 1, "{}", status.text);
    // By a signal, and with another document.
    let other = lab.path("other.json");
    fs::copy(lab.path("state.json"), &other)?;
    lab.publish(&State::of([second()]))?;
    fs::rename(lab.path("state.json"), lab.path("next.json"))?;
    let text = fs::read_to_string(lab.path("l4lbd.toml"))?;
    fs::write(lab.path("l4lbd.toml"), text.replace("state.json", "next.json").replace("deny =", "allow ="))?;
    hang_up(&daemon)?;
    daemon.await_status("the other document", |status| {
        let web = status.vip("web", 80);
        web.is_some_and(|vip| {
            vip.backends.iter().any(|backend| backend.weight == 1 && backend.address.to_string() == THIRD)
        })
    })?;
    kept.must_live()?;
    lab.agent.must_reach(Tcp, vip, "B2").map(drop)
}

fn file_with_an_error_changes_nothing() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.start(&State::of([first()]))?;
    let error = match reload(&lab, "[vips]\nmaximum = 5\n[marathon]\ninterval = \"never\"\n") {
        Ok(said) => anyhow::bail!("a file with errors is taken: {said}"),
        Err(error) => format!("{error:#}"),
    };
    ensure!(
        error.contains("vips.maximum: unknown key")
            && error.contains("marathon.interval: ")
            && error.contains("nothing has changed")
            // Said by the daemon, and not by the command as well.
            && error.matches("vips.maximum").count() == 1,
        "{error}"
    );
    hang_up(&daemon)?;
    lab.agent.must_reach(Tcp, daemon.socket_of("web", 80)?, "B1")?;
    let said = reload(&lab, "")?;
    ensure!(said.contains("nothing has changed in the configuration"), "{said}");
    Ok(())
}

fn hang_up(daemon: &Daemon<'_>) -> Result<()> {
    let told = std::process::Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status()?;
    ensure!(told.success(), "the daemon has gone");
    Ok(())
}
