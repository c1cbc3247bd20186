//! The screen: one frame from what is known at a moment. Nothing here writes to a terminal.
//!
//! Everything fits in 80 columns; wider terminals get bars and longer texts. In a low terminal old events give way
//! first, then what is further down.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table};

use super::daemon::{takes_connections, vip};
use super::scenario::Phase;
use super::tally::{Tally, WindowStats};
use super::text::{clock, long_lived, percent, speed, stale_address};
use crate::dataplane::PlaneKind;
use crate::status::text::condition;
use crate::status::{Backend, Status, Vip};

/// Most columns of a bar.
const BAR: u16 = 30;

/// Columns of the percentage beside a bar.
const PERCENTAGE: u16 = " 100 %".len() as u16;

/// Columns of the table's cells before the last one, and the gap between two.
const COLUMNS: [u16; 6] = [
    "10.77.0.13:31010".len() as u16,
    "WEIGHT".len() as u16,
    "ACTIVE".len() as u16,
    "INACTIVE".len() as u16,
    "gone, kept for 59s".len() as u16,
    "web-v2.10".len() as u16,
];
const GAP: u16 = 2;

/// Header of the last column, the longer one where there is room for it.
const SHARE: [&str; 2] = ["CONNECTIONS OF THE LAST 5 s", "SHARE"];

/// State of a daemon that does not run.
const DAEMON_DOWN: [&str; 2] = ["the daemon is down; this is its last status", "daemon is down"];

/// Facts that a frame shows.
pub struct ViewState<'a> {
    /// Current phase; `None` while processes are being started.
    pub phase: Option<Phase>,
    pub elapsed: Duration,
    pub duration: Duration,
    pub plane: PlaneKind,
    /// Last status of the daemon.
    pub status: Option<&'a Status>,
    pub daemon_runs: bool,
    pub tally: &'a Tally,
}

/// Draws a frame. `events` are in the order of their times.
pub fn draw(frame: &mut Frame<'_>, state: &ViewState<'_>, events: &VecDeque<String>) {
    let stats = state.tally.window(state.elapsed);
    let title = match state.phase {
        Some(phase) => phase.to_string(),
        None => "Setting up: agents with instances, the daemon, then a client".to_owned(),
    };
    let mut page = ScreenPage { rest: frame.area(), frame };
    page.lines(vec![heading(state), Line::default(), Line::from(title).bold(), Line::default()]);
    // There is no status before the daemon is ready.
    if let Some((status, vip)) = state.status.and_then(|status| Some((status, vip(status)?))) {
        let reason = status.reasons.first().filter(|_| state.daemon_runs);
        page.lines(vec![service(state, vip, reason.is_some(), page.rest.width)]);
        if let Some(reason) = reason {
            page.lines(vec![Line::from(format!("degraded: {reason}")).red()]);
        }
        page.table(backends(status, vip, &stats, page.rest.width), vip.backends.len() + 1);
        page.lines(vec![Line::default()]);
    }
    if state.phase.is_some() {
        page.lines(totals(state.tally, &stats));
        page.lines(vec![Line::default()]);
    }
    // The newest events get the rows that are left.
    let old = events.len().saturating_sub(page.rest.height.into());
    page.lines(events.iter().skip(old).map(|event| Line::from(event.as_str()).dim()).collect());
}

/// A frame that is filled from the top; what no longer fits is left out.
struct ScreenPage<'a, 'b> {
    frame: &'a mut Frame<'b>,
    /// Area that is still empty.
    rest: Rect,
}

impl ScreenPage<'_, '_> {
    fn lines(&mut self, lines: Vec<Line<'_>>) {
        let area = self.take_rows(lines.len());
        self.frame.render_widget(Text::from(lines), area);
    }

    fn table(&mut self, table: Table<'_>, rows: usize) {
        let area = self.take_rows(rows);
        self.frame.render_widget(table, area);
    }

    fn take_rows(&mut self, rows: usize) -> Rect {
        let height = u16::try_from(rows).unwrap_or(u16::MAX).min(self.rest.height);
        let taken = Rect { height, ..self.rest };
        self.rest.y += height;
        self.rest.height -= height;
        taken
    }
}

/// The first line: what this is, how far it is, and the way out.
fn heading(state: &ViewState<'_>) -> Line<'static> {
    let part = match state.phase {
        Some(phase) => format!("part {} of {}", phase.number(), Phase::ALL.len()),
        None => "setting up".to_owned(),
    };
    Line::from(vec![
        "l4lbd demo".bold(),
        format!(
            "   data plane {}   {} of {}   {part}   q or Ctrl-C quits",
            state.plane,
            clock(state.elapsed),
            clock(state.duration)
        )
        .dim(),
    ])
}

/// The VIP's name, address and port, and the state of the daemon.
fn service(state: &ViewState<'_>, vip: &Vip, is_degraded: bool, columns: u16) -> Line<'static> {
    let address = SocketAddr::new(vip.address, vip.port);
    let name = vip.name.as_deref().unwrap_or_default();
    let service = format!("{name} is {} {address}   ", vip.protocol);
    let room = usize::from(columns).saturating_sub(service.len());
    let health = match (state.daemon_runs, is_degraded) {
        (false, _) => longest(DAEMON_DOWN, room).red(),
        (true, true) => "degraded".red(),
        (true, false) => "ok".green(),
    };
    Line::from(vec![service.into(), health])
}

/// The VIP's backends as `l4lbd status` shows them, each with its share of the client's connections.
fn backends(status: &Status, vip: &Vip, stats: &WindowStats, columns: u16) -> Table<'static> {
    let room = columns.saturating_sub(COLUMNS.iter().map(|width| width + GAP).sum());
    let right = |text: &str| Text::from(text.to_owned()).right_aligned();
    let header = Row::new([
        Text::from("BACKEND"),
        right("WEIGHT"),
        right("ACTIVE"),
        right("INACTIVE"),
        Text::from("STATE"),
        Text::from("TASK"),
        Text::from(longest(SHARE, room.into())),
    ]);
    let row = |backend: &Backend| {
        let connections = backend.connections.unwrap_or_default();
        let share = stats.shares.get(&backend.task).copied().unwrap_or_default();
        let style = if takes_connections(backend) { Style::new().green() } else { Style::new().dim() };
        Row::new([
            Cell::from(SocketAddr::new(backend.address, backend.port).to_string()),
            Cell::from(right(&backend.weight.to_string())),
            Cell::from(right(&connections.active.to_string())),
            Cell::from(right(&connections.inactive.to_string())),
            Cell::from(condition(backend, status.at)).style(style),
            Cell::from(backend.task.clone()),
            Cell::from(bar(share, room)).style(style),
        ])
    };
    let widths = COLUMNS.map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    Table::new(vip.backends.iter().map(row), widths).header(header.dim()).column_spacing(GAP)
}

/// Totals of the client's connections.
fn totals(tally: &Tally, stats: &WindowStats) -> Vec<Line<'static>> {
    let failed = format!("{} failed", tally.failed).bold();
    let mut lines = vec![
        Line::from(vec![
            format!("{} connections, ", tally.made).bold(),
            if tally.failed == 0 { failed.green() } else { failed.red() },
            format!("   {}", speed(stats)).into(),
        ]),
        Line::from(long_lived(&tally.long_lived)),
    ];
    lines.extend(stale_address(tally).map(Line::from));
    lines
}

/// Returns the first text that fits, or the last one.
fn longest(texts: [&'static str; 2], room: usize) -> &'static str {
    let [long, short] = texts;
    if long.len() <= room { long } else { short }
}

/// Returns a bar with its percentage, at most `room` columns wide; in few columns the percentage alone.
fn bar(share: f64, room: u16) -> String {
    let width = room.saturating_sub(PERCENTAGE).min(BAR);
    // A share is between 0 and 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let filled = (share * f64::from(width)).round() as u16;
    match width {
        _ if share == 0.0 => String::new(),
        0 => percent(share),
        // Even a small share is seen.
        _ => format!("{} {}", "█".repeat(filled.clamp(1, width).into()), percent(share)),
    }
}

#[cfg(test)]
mod tests;
