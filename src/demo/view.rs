//! What is seen: a view that is drawn again and again on a terminal, and lines elsewhere.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Stdout, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::daemon::vip;
use super::scenario::Chapter;
use super::tally::{Spread, Tally};
use crate::dataplane::PlaneKind;
use crate::status::Status;
use crate::status::text::condition;

/// The alternate screen without a cursor, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// Most columns of a bar.
const BAR: usize = 30;

/// Columns of the number beside it.
const NUMBER: usize = " 100 %".len();

/// Columns of the backends' table before the bars.
const TABLE: usize = 75;

/// What bars mean, where there is room to say it.
const SHARES: &str = "CONNECTIONS OF THE LAST 5 s";

/// A terminal that does not say how large it is.
const USUAL: (usize, usize) = (100, 30);

/// Most lines for events on a terminal.
const EVENTS: usize = 8;

/// Everything there is to see at one moment.
pub struct View<'a> {
    pub chapter: Chapter,
    pub elapsed: Duration,
    pub duration: Duration,
    pub plane: PlaneKind,
    /// The daemon's last word.
    pub status: Option<&'a Status>,
    pub daemon_runs: bool,
    pub tally: &'a Tally,
}

/// Where it is shown.
pub struct Screen {
    out: Stdout,
    live: bool,
    events: VecDeque<String>,
}

impl Screen {
    /// Takes the terminal, if there is one; it is given back when this is dropped.
    pub fn open() -> io::Result<Self> {
        let mut out = io::stdout();
        let live = out.is_terminal();
        if live {
            write!(out, "{ENTER}")?;
            out.flush()?;
        }
        Ok(Self { out, live, events: VecDeque::new() })
    }

    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Says something for good.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Something has happened.
    pub fn event(&mut self, elapsed: Duration, text: &str) -> io::Result<()> {
        let line = format!("{:>5}  {text}", clock(elapsed));
        if !self.live {
            return writeln!(self.out, "{line}");
        }
        self.events.push_back(line);
        if self.events.len() > EVENTS {
            self.events.pop_front();
        }
        Ok(())
    }

    /// Shows how things are now.
    pub fn show(&mut self, view: &View<'_>) -> io::Result<()> {
        if !self.live {
            return writeln!(self.out, "{}", summary(view));
        }
        let size = match rustix::termios::tcgetwinsize(&self.out) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => USUAL,
        };
        let mut frame = String::from("\x1b[H");
        for line in lines(view, &self.events, size) {
            // Erased before and not after: that would take the last column of a line that fills its row.
            let _ = write!(frame, "\x1b[K{line}{PLAIN}\r\n");
        }
        write!(self.out, "{frame}\x1b[J")?;
        self.out.flush()
    }

    /// Gives the terminal back.
    pub fn close(&mut self) {
        if std::mem::take(&mut self.live) {
            // Nothing can be done about a closed terminal.
            let _ = write!(self.out, "{LEAVE}");
            let _ = self.out.flush();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a terminal of so many columns and rows shows, line by line; where rows are few, old events give way.
fn lines(view: &View<'_>, events: &VecDeque<String>, (columns, rows): (usize, usize)) -> Vec<String> {
    let View { chapter, tally, .. } = view;
    let spread = tally.spread(view.elapsed);
    let mut lines = vec![
        format!(
            "{BOLD}l4lbd demo{PLAIN}   {DIM}data plane {}   {} of {}   part {} of {}   Ctrl-C ends it{PLAIN}",
            view.plane,
            clock(view.elapsed),
            clock(view.duration),
            chapter.number(),
            Chapter::ALL.len()
        ),
        String::new(),
        format!("{BOLD}{chapter}{PLAIN}"),
        String::new(),
    ];
    backends(view, &spread, columns, &mut lines);
    lines.push(String::new());
    let failed = format!("{} failed", tally.failed);
    let colour = if tally.failed == 0 { GREEN } else { RED };
    lines.push(format!("{BOLD}{} connections, {colour}{failed}{PLAIN}   {}", tally.made, pace(&spread)));
    lines.push(kept(tally));
    if tally.remembered > 0 {
        lines.push(remembered(tally));
    }
    lines.push(String::new());
    // The cursor is in the last row.
    let rows = rows.saturating_sub(1);
    let old = events.len().saturating_sub(rows.saturating_sub(lines.len()));
    lines.extend(events.iter().skip(old).map(|event| format!("{DIM}{event}{PLAIN}")));
    lines.truncate(rows);
    lines.iter().map(|line| cut(line, columns)).collect()
}

/// The VIP as `l4lbd status` shows it, with the connections that the client had.
fn backends(view: &View<'_>, spread: &Spread, columns: usize, lines: &mut Vec<String>) {
    let Some((status, vip)) = view.status.and_then(|status| Some((status, vip(status)?))) else {
        return;
    };
    let service = SocketAddr::new(vip.address, vip.port);
    let state = match (view.daemon_runs, status.reasons.first()) {
        (false, _) => format!("{RED}the daemon is dead; below is what it said last{PLAIN}"),
        (true, Some(reason)) => format!("{RED}degraded: {reason}{PLAIN}"),
        (true, None) => format!("{GREEN}ok{PLAIN}"),
    };
    lines.push(format!(
        "{} is {} {service}   {state}",
        vip.name.as_deref().unwrap_or_default(),
        vip.protocol
    ));
    let room = columns.saturating_sub(TABLE);
    let shares = if room < SHARES.len() { "SHARE" } else { SHARES };
    lines.push(format!(
        "{DIM}{:<18}{:>6}  {:>6}  {:>8}  {:<20}{:<11}{shares}{PLAIN}",
        "BACKEND", "WEIGHT", "ACTIVE", "INACTIVE", "STATE", "TASK"
    ));
    for backend in &vip.backends {
        let connections = backend.connections.unwrap_or_default();
        let share = spread.shares.get(&backend.task).copied().unwrap_or_default();
        let colour = if backend.weight > 0 { GREEN } else { DIM };
        lines.push(format!(
            "{:<18}{:>6}  {:>6}  {:>8}  {colour}{:<20}{PLAIN}{:<11}{colour}{}{PLAIN}",
            SocketAddr::new(backend.address, backend.port).to_string(),
            backend.weight,
            connections.active,
            connections.inactive,
            condition(backend, status.at),
            backend.task,
            bar(share, room)
        ));
    }
}

/// One line that says it all.
fn summary(view: &View<'_>) -> String {
    let spread = view.tally.spread(view.elapsed);
    let shares: Vec<String> =
        spread.shares.iter().map(|(by, share)| format!("{by} {}", percent(*share))).collect();
    format!(
        "{:>5}  {} connections, {} failed, {}; {}",
        clock(view.elapsed),
        view.tally.made,
        view.tally.failed,
        pace(&spread),
        if shares.is_empty() { "none answered lately".to_owned() } else { shares.join(", ") }
    )
}

/// What is said at the end, the verdict last.
pub fn verdict(tally: &Tally, elapsed: Duration) -> Vec<String> {
    let shares: Vec<String> = tally.by.iter().map(|(by, count)| format!("{by} {count}")).collect();
    let mut lines = vec![format!("answered by: {}", shares.join(", ")), kept(tally)];
    if tally.remembered > 0 {
        lines.push(remembered(tally));
    }
    lines.push(format!("{} connections, {} failed, in {} s", tally.made, tally.failed, elapsed.as_secs()));
    lines
}

fn kept(tally: &Tally) -> String {
    let with = tally.kept.with.as_deref().unwrap_or("nobody yet");
    let answers = count(tally.kept.answers, "answer");
    let moved = match tally.kept.moves {
        0 => "never moved".to_owned(),
        moves => format!("moved {} because its server ended", count(moves, "time")),
    };
    format!("kept connection: {answers}, with {with}; {moved}")
}

/// A number of things.
fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

fn remembered(tally: &Tally) -> String {
    let connections = count(tally.remembered, "connection");
    format!(
        "while the daemon was dead nobody answered for its name: {connections} by the address that was given before"
    )
}

fn pace(spread: &Spread) -> String {
    format!(
        "{:.0}/s, connect median {} p99 {}",
        spread.per_second,
        milliseconds(spread.median),
        milliseconds(spread.worst_percent)
    )
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A bar and the number it stands for, in so many columns; where they are few, the number alone.
fn bar(share: f64, room: usize) -> String {
    let width = room.saturating_sub(NUMBER).min(BAR);
    // A share is between 0 and 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let filled = (share * width as f64).round() as usize;
    match width {
        _ if share == 0.0 => String::new(),
        0 => percent(share),
        _ => format!("{} {}", "█".repeat(filled.clamp(1, width)), percent(share)),
    }
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

/// As much of a line as there is room for; escape sequences take none.
fn cut(line: &str, columns: usize) -> String {
    let mut cut = String::new();
    let mut room = columns;
    let mut escape = false;
    for character in line.chars() {
        match (escape, character) {
            (false, '\x1b') => escape = true,
            (true, end) if end.is_ascii_alphabetic() => {
                escape = false;
                cut.push(end);
                continue;
            }
            (false, _) if room == 0 => continue,
            (false, _) => room -= 1,
            (true, _) => {}
        }
        cut.push(character);
    }
    cut
}

#[cfg(test)]
mod tests;
