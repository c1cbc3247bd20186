//! `l4lbd top` on a terminal, while connections are made and the daemon dies.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::{tests, web};
use crate::toolkit::await_some;
use crate::toolkit::daemon::PROGRAM;
use crate::toolkit::helper::Outcome;
use crate::toolkit::lab::Lab;
use crate::toolkit::state::{State, Task};

tests!["top":
    a_list_in_a_pipe_has_the_figures_of_now,
    ; ebpf:
    the_screen_follows_connections_and_outlives_the_daemon,
];

/// A terminal of 80 columns and 24 rows, in which the command runs.
struct Terminal<'a> {
    lab: &'a Lab,
    socket: String,
}

impl<'a> Terminal<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        let terminal = Self { lab, socket: lab.path("tmux").to_str().context("a path in UTF-8")?.to_owned() };
        let config = lab.path("l4lbd.toml");
        let command = format!("{PROGRAM} top --config {}; echo ended; exec cat", config.display());
        // The server of tmux stays, and would keep the pipes of this command open.
        let quiet =
            ["sh", "-c", "exec tmux -u -S \"$0\" -f /dev/null \"$@\" >/dev/null 2>&1", &terminal.socket];
        let session = ["new-session", "-d", "-x", "80", "-y", "24", &command];
        lab.agent.run(&[&quiet[..], &session].concat())?;
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let start = ["tmux", "-u", "-S", &self.socket, "-f", "/dev/null"];
        self.lab.agent.run(&[&start, arguments].concat())
    }

    fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Waits until all of these are on the screen, and makes a connection before each look.
    fn await_seen(&self, parts: &[&str], vip: SocketAddr) -> Result<String> {
        let mut last = String::new();
        let seen = await_some(&format!("{parts:?} on the screen"), || {
            ensure!(matches!(self.lab.agent.dial(vip)?, Outcome::Answered { .. }), "{vip} does not answer");
            last = self.tmux(&["capture-pane", "-p"])?;
            Ok(parts.iter().all(|part| last.contains(part)).then(|| last.clone()))
        });
        seen.map_err(|error| error.context(format!("the screen was\n{last}")))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}

fn api() -> Task {
    Task::host("api-1", "192.168.50.2", 8080).vip("/api:81")
}

fn the_screen_follows_connections_and_outlives_the_daemon() -> Result<()> {
    let lab = web::lab()?;
    let daemon = lab.start(&State::of([web::first(), web::second(), api()]))?;
    let vip = daemon.socket_of("web", 80)?;
    let terminal = Terminal::start(&lab)?;
    // The one with connections leads, and has the place below the list.
    let seen = terminal.await_seen(&["web.marathon:80", "api.marathon:81", web::FIRST, "█"], vip)?;
    let place = |name: &str| seen.lines().position(|line| line.starts_with(name));
    ensure!(place("web.marathon:80") < place("api.marathon:81"), "the order is another one:\n{seen}");
    ensure!(seen.lines().count() <= 24 && seen.contains("l4lbd top"), "{seen}");
    terminal.keys(&["/", "a", "p", "i", "Enter"])?;
    terminal.await_seen(&["filter: api", "VIP 1 of 1", "tcp"], vip)?;
    terminal.keys(&["Escape"])?;
    terminal.keys(&["?"])?;
    terminal.await_seen(&["the other way round"], vip)?;
    terminal.keys(&["?"])?;
    // The kernel goes on without the daemon, and what was known stays on the screen.
    daemon.kill()?;
    terminal.await_seen(&["no daemon answers", "web.marathon:80"], vip)?;
    let _daemon = lab.start_again()?;
    terminal.await_seen(&["the daemon was started", "web.marathon:80"], vip)?;
    terminal.keys(&["q"])?;
    let seen = terminal.await_seen(&["ended"], vip)?;
    ensure!(!seen.contains("NEW/s"), "the screen of the shell is not given back:\n{seen}");
    Ok(())
}

fn a_list_in_a_pipe_has_the_figures_of_now() -> Result<()> {
    let lab = web::lab()?;
    let daemon = lab.start(&State::of([web::first(), web::second(), api()]))?;
    let vip = daemon.socket_of("web", 80)?;
    let kept = lab.agent.keep(vip)?;
    await_some("a rate of the VIP that is used", || {
        ensure!(matches!(lab.agent.dial(vip)?, Outcome::Answered { .. }), "{vip} does not answer");
        let list = lab.l4lbd(&["top", "--sort", "rate"])?;
        let first: Vec<&str> = list.lines().nth(1).context("a VIP")?.split_whitespace().collect();
        // Name, protocol, address, ready, open, new.
        let ["web.marathon:80", "tcp", _, "2/2", "1", new, ..] = first.as_slice() else { return Ok(None) };
        Ok((*new != "-" && *new != "0").then_some(()))
    })?;
    let json: serde_json::Value = serde_json::from_str(&lab.l4lbd(&["top", "--json", "api"])?)?;
    ensure!(json["matching"] == 1 && json["rows"][0]["name"] == "api.marathon", "{json}");
    let is_ipvs = json["dataplane"] == "ipvs";
    // What the plane does not count is not there.
    ensure!(json["rows"][0]["totals"]["failures"].is_null() == is_ipvs, "{json}");
    ensure!(json["rows"][0]["totals"]["in_bytes"].is_null() != is_ipvs, "{json}");
    kept.must_live()
}
