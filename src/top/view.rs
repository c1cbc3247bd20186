//! The picture of the screen. Nothing here writes to a terminal.
//!
//! Everything fits in 80 columns and 24 rows; a wider terminal gets longer names and trends, a higher one more rows. In a
//! low one the backends give way first.

use std::net::SocketAddr;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Paragraph, Row, Table};

use super::model::{Focus, TopModel, Trend, TrendPoint};
use crate::dataplane::PlaneKind;
use crate::status::text::escape::escaped;
use crate::status::text::{age, state};
use crate::status::top::{SortKey, TopAnswer, TopRow, TopTable, VipCounts};
use crate::status::{Backend, Vip};
use crate::vip::Condition;

/// Rows above the list: title, state, sums and order.
const HEAD: u16 = 4;

/// Rows from which the chosen VIP has room below the list.
const ROOMY: u16 = 16;

/// Rows of the chosen VIP beside its backends: a blank one, its name, its trend and the header.
const CHOSEN: u16 = 4;

/// Columns of the figures in the list, and the gap between two.
const FIGURES: [u16; 5] = [5, 6, 7, 8, 6];
const GAP: u16 = 2;

/// Columns of a trend in the list, at least and at most.
const TREND: [u16; 2] = [8, 40];

/// Columns of a name, from which on a trend gets the rest.
const NAME: u16 = 48;

/// Columns from which backends have whole addresses and conditions.
const WIDE: u16 = 110;

/// Characters of a trend, from nothing to the most.
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Lines of the help.
const HELP: [&str; 18] = [
    "  Up Down j k      choose a VIP, whose backends are shown below",
    "  PgUp PgDn        ten further",
    "  Home End g G     the first and the last one",
    "  Enter            that VIP on the whole screen, and back",
    "",
    "  n c r b f        sort by name, open connections, new connections a",
    "                   second, bytes a second, failed connects a second",
    "  Left Right < >   sort by the column beside",
    "  i                the other way round",
    "  /                show VIPs alone with a text in their name or address;",
    "                   * and ? make it a pattern; Esc shows all of them",
    "  p                pause, and go on",
    "  q Ctrl-C         end      ? h  this help      Ctrl-Z  to the shell",
    "",
    "  OPEN is established connections; with a \"~\" they were counted some",
    "  time ago. A \"-\" is not counted by this data plane, or not known yet.",
    "  Bytes are the sum of both directions, and a red VIP has no backend.",
    "  l4lbd(8) has more under TOP.",
];

/// Draws a frame. Without colours everything is readable as well.
pub fn draw(frame: &mut Frame<'_>, model: &TopModel, is_colored: bool) {
    let mut page = TopPage { rest: frame.area(), frame };
    page.lines(vec![title(model), condition(model), sums(model), order(model)]);
    match model.focus {
        Focus::Help => page.lines(HELP.map(Line::from).to_vec()),
        _ => page.body(model),
    }
    if !is_colored {
        let buffer = frame.buffer_mut();
        buffer.content.iter_mut().for_each(|cell| {
            cell.set_fg(Color::Reset).set_bg(Color::Reset);
        });
    }
}

/// A frame that is filled from the top.
struct TopPage<'a, 'b> {
    frame: &'a mut Frame<'b>,
    /// Area that is still empty.
    rest: Rect,
}

impl TopPage<'_, '_> {
    fn lines(&mut self, lines: Vec<Line<'_>>) {
        let area = self.take(u16::try_from(lines.len()).unwrap_or(u16::MAX));
        self.frame.render_widget(Paragraph::new(lines), area);
    }

    fn take(&mut self, rows: u16) -> Rect {
        let height = rows.min(self.rest.height);
        let taken = Rect { height, ..self.rest };
        self.rest.y += height;
        self.rest.height -= height;
        taken
    }

    /// Draws the list, the chosen VIP, and what a dash means.
    fn body(&mut self, model: &TopModel) {
        let Some(answer) = &model.answer else { return };
        let note = note(answer.dataplane);
        let all = self.rest.height.saturating_sub(1);
        let chosen = answer.table.chosen.as_ref().filter(|vip| key_of(vip) == model.chosen);
        let is_shown = model.is_zoomed || self.rest.height + HEAD >= ROOMY;
        let below = match chosen.filter(|_| is_shown) {
            None => 0,
            Some(_) if model.is_zoomed => all,
            // The list may need less than its half.
            Some(vip) => {
                let wanted = u16::try_from(vip.backends.len()).unwrap_or(u16::MAX).saturating_add(CHOSEN);
                let listed = u16::try_from(model.rows().len()).unwrap_or(u16::MAX).saturating_add(1);
                wanted.min(all / 2).max(wanted.min(all.saturating_sub(listed)))
            }
        };
        if below < all {
            let listed = u16::try_from(model.rows().len()).unwrap_or(u16::MAX).saturating_add(1);
            let area = self.take(listed.min(all - below));
            self.frame.render_widget(list(model, answer, area), area);
        }
        if let Some(vip) = chosen.filter(|_| below > 0) {
            let is_below = !model.is_zoomed;
            let area = self.take(below);
            self.chosen(model, answer, vip, area, is_below);
        }
        let unused = self.rest.height.saturating_sub(1);
        self.take(unused);
        self.lines(vec![Line::from(note).dim()]);
    }

    fn chosen(&mut self, model: &TopModel, answer: &TopAnswer, vip: &Vip, area: Rect, is_below: bool) {
        let mut inner = TopPage { rest: area, frame: self.frame };
        let mut lines = Vec::new();
        if is_below {
            lines.push(Line::default());
        }
        let ready = vip.backends.iter().filter(|backend| backend.weight > 0).count();
        let name =
            vip.name.as_deref().map(|name| format!("{}:{}  ", escaped(name), vip.port)).unwrap_or_default();
        lines.push(Line::from(vec![
            Span::from(name).bold(),
            Span::from(format!(
                "{} {}, {ready} of {} ready",
                vip.protocol,
                SocketAddr::new(vip.address, vip.port),
                answer.table.backends
            )),
        ]));
        let key = key_of(vip);
        let trend = key.as_ref().and_then(|key| model.trend(key));
        let most = trend.map(|trend| greatest(trend, model.sort)).unwrap_or_default();
        let unit = unit(model.sort);
        let label = format!("{unit} up to {} ", human(most));
        let room = usize::from(area.width).saturating_sub(label.len());
        let drawn = trend.map(|trend| spark(trend, model.sort, room)).unwrap_or_default();
        lines.push(Line::from(vec![Span::from(label).dim(), Span::from(drawn).cyan()]));
        inner.lines(lines);
        let area = inner.rest;
        let room = usize::from(area.height).saturating_sub(1);
        let table = backends(model, answer, vip, room, area.width);
        inner.frame.render_widget(table, area);
    }
}

fn key_of(vip: &Vip) -> Option<crate::dataplane::ServiceKey> {
    Some(crate::dataplane::ServiceKey { protocol: vip.protocol, address: vip.address, port: vip.port })
}

/// The first line: what this is, where, and the way out.
fn title(model: &TopModel) -> Line<'static> {
    let place = match &model.answer {
        Some(answer) => {
            format!(
                "   {}   l4lbd {}, {}",
                escaped(&answer.hostname),
                escaped(&answer.version),
                answer.dataplane
            )
        }
        None => String::new(),
    };
    Line::from(vec!["l4lbd top".bold(), place.into(), "   ? help   q quit".dim()])
}

/// The second line: what is wrong with the daemon or its answers, if anything.
fn condition(model: &TopModel) -> Line<'static> {
    let old = match &model.answer {
        Some(_) => format!("; these figures are {} old", seconds(model.age())),
        None => String::new(),
    };
    if let Some(failure) = &model.failure {
        return Line::from(format!("{}; asked again{old}", escaped(failure))).red();
    }
    if let Some(waits) = model.waits() {
        return Line::from(format!("the daemon has not answered for {}{old}", seconds(waits))).yellow();
    }
    let Some(answer) = &model.answer else { return Line::from("asking the daemon") };
    if model.is_paused {
        return Line::from(format!("paused{old}; p goes on")).yellow();
    }
    if model.is_restarted() {
        let ago = age(answer.started_at, answer.at);
        return Line::from(format!("the daemon was started {ago} ago; the kernel went on counting")).yellow();
    }
    if let Some(error) = &answer.error {
        return Line::from(format!("no counters: {}", escaped(error))).red();
    }
    match &answer.reason {
        Some(reason) => Line::from(format!("DEGRADED: {} (see l4lbd status)", escaped(reason))).red(),
        None => Line::from("ok").green(),
    }
}

/// The third line: sums over the VIPs that the filter leaves.
fn sums(model: &TopModel) -> Line<'static> {
    let Some(answer) = &model.answer else { return Line::default() };
    let TopTable { open, rates, .. } = &answer.table;
    Line::from(format!(
        "open {}   new/s {}   bytes in/s {}   bytes out/s {}   failed/s {}",
        human(*open as f64),
        figure(rates.connections),
        figure(rates.in_bytes),
        figure(rates.out_bytes),
        figure(rates.failures)
    ))
}

/// The fourth line: the order, the filter, and how much of the list there is.
fn order(model: &TopModel) -> Line<'static> {
    let direction = if model.is_reversed { ", the other way round" } else { "" };
    let mut spans = vec![Span::from(format!("by {}{direction}", model.sort)).dim()];
    let filter = escaped(&model.filter).into_owned();
    if model.focus == Focus::Filter {
        spans.push(Span::from(format!("   filter: {filter}_")).bold());
        spans.push("   Enter keeps it, Esc shows all".dim());
    } else if !filter.is_empty() {
        spans.push(format!("   filter: {filter}").bold());
    }
    if let Some(answer) = &model.answer {
        let place = model.place().map_or(0, |place| place + 1);
        let all = answer.table.matching;
        let listed = answer.table.rows.len();
        let first = if listed < all { format!("the first {listed} of ") } else { String::new() };
        // All of the node, whatever the filter leaves: a VIP that is dead is news.
        let dead = match answer.dead {
            0 => String::new(),
            dead => format!(", {dead} of {} without a ready backend", answer.vips),
        };
        spans.push(format!("   VIP {place} of {first}{all}{dead}").dim());
    }
    Line::from(spans)
}

/// What a dash means.
fn note(plane: PlaneKind) -> &'static str {
    match plane {
        PlaneKind::Ipvs => "- : ipvs does not see whether a connect fails",
        PlaneKind::Ebpf => "- : ebpf counts no bytes, and connects of TCP alone",
    }
}

/// The list of VIPs, scrolled so that the chosen one is in it.
fn list(model: &TopModel, answer: &TopAnswer, area: Rect) -> Table<'static> {
    let fixed: u16 = FIGURES.iter().map(|width| width + GAP).sum();
    let [least, most] = TREND;
    let rest = area.width.saturating_sub(fixed);
    let trend = rest.saturating_sub(NAME + GAP).clamp(least, most);
    let room = usize::from(area.height).saturating_sub(1);
    let rows = &answer.table.rows;
    let place = model.place().unwrap_or_default();
    // The chosen one stays in the middle as far as there are rows above and below it.
    let first = place.saturating_sub(room / 2).min(rows.len().saturating_sub(room));
    let shown = rows.iter().enumerate().skip(first).take(room).map(|(index, row)| {
        let drawn = model.trend(&row.key()).map(|known| spark(known, model.sort, trend.into()));
        let cells = Row::new([
            Text::from(escaped(&row.label()).into_owned()),
            right(&format!("{}/{}", row.ready, row.all)),
            right(&open(row, answer)),
            right(&figure(row.rates.connections)),
            right(&figure(row.rates.bytes())),
            right(&figure(row.rates.failures)),
            Text::from(drawn.unwrap_or_default()).cyan(),
        ]);
        let style = match row.ready {
            0 => Style::new().red(),
            _ => Style::new(),
        };
        cells.style(if index == place { style.reversed() } else { style })
    });
    let header = |sort: SortKey, text: &str| {
        let mark = if sort == model.sort { if model.is_reversed { "^" } else { "v" } } else { "" };
        format!("{mark}{text}")
    };
    let titles = Row::new([
        Text::from(header(SortKey::Name, "VIP")),
        right("READY"),
        right(&header(SortKey::Connections, "OPEN")),
        right(&header(SortKey::Rate, "NEW/s")),
        right(&header(SortKey::Bytes, "BYTES/s")),
        right(&header(SortKey::Failures, "FAIL/s")),
        Text::from("TREND"),
    ]);
    let [ready, open, new, bytes, failures] = FIGURES;
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(ready),
        Constraint::Length(open),
        Constraint::Length(new),
        Constraint::Length(bytes),
        Constraint::Length(failures),
        Constraint::Length(trend),
    ];
    Table::new(shown, widths).header(titles.dim()).column_spacing(GAP)
}

/// Returns the open connections of a VIP, with a mark if they were counted a while ago.
fn open(row: &TopRow, answer: &TopAnswer) -> String {
    let is_old = row.open_at.is_none_or(|at| answer.at.duration_since(at).as_secs() > 5);
    format!("{}{}", if is_old { "~" } else { "" }, human(row.open as f64))
}

/// The backends of the chosen VIP, as many as there is room for.
fn backends(model: &TopModel, answer: &TopAnswer, vip: &Vip, room: usize, columns: u16) -> Table<'static> {
    let all = answer.table.backends;
    let shown = if all > room { room.saturating_sub(1) } else { room };
    let is_wide = columns >= WIDE;
    let row = |backend: &Backend| {
        let address = SocketAddr::new(backend.address, backend.port);
        let VipCounts { connections, failures, .. } = model.backend_rates(&address);
        let bytes = model.backend_rates(&address).bytes();
        let open = backend.connections.map(|connections| f64::from(connections.active));
        let style = if backend.weight > 0 { Style::new().green() } else { Style::new().dim() };
        Row::new([
            Text::from(address.to_string()),
            Text::from(condition_in(backend, answer, is_wide)).style(style),
            right(&figure(open)),
            right(&figure(connections)),
            right(&figure(bytes)),
            right(&figure(failures)),
            Text::from(escaped(&backend.task).into_owned()),
        ])
    };
    let rest = (all > room).then(|| Row::new([Text::from(format!("... {} more", all - shown)).dim()]));
    let titles = ["BACKEND", "STATE", "OPEN", "NEW/s", "BYTES/s", "FAIL/s", "TASK"];
    let titles = titles.iter().enumerate().map(|(column, title)| match column {
        2..=5 => right(title),
        _ => Text::from(*title),
    });
    let [open, new, bytes, failures] = [5, 5, 7, 6];
    // Addresses of IPv6 have room in a wide terminal alone.
    let widths = [
        Constraint::Length(if is_wide { 47 } else { 21 }),
        Constraint::Length(if is_wide { 24 } else { 13 }),
        Constraint::Length(open),
        Constraint::Length(new),
        Constraint::Length(bytes),
        Constraint::Length(failures),
        Constraint::Fill(1),
    ];
    let rows = vip.backends.iter().take(shown).map(row).chain(rest);
    Table::new(rows, widths).header(Row::new(titles).dim()).column_spacing(GAP)
}

/// Returns the condition of a backend in words, in few where there is little room.
fn condition_in(backend: &Backend, answer: &TopAnswer, is_wide: bool) -> String {
    match backend.ejected {
        _ if is_wide => state(backend, answer.at),
        Some(_) => "ejected".to_owned(),
        None if backend.condition == Some(Condition::Inherited) => "inherited".to_owned(),
        None => state(backend, answer.at).replace("kept for ", ""),
    }
}

fn right(text: &str) -> Text<'static> {
    Text::from(text.to_owned()).right_aligned()
}

/// Name of what a trend shows.
fn unit(sort: SortKey) -> &'static str {
    match sort {
        SortKey::Connections => "open",
        SortKey::Rate | SortKey::Name => "new/s",
        SortKey::Bytes => "bytes/s",
        SortKey::Failures => "failed/s",
    }
}

/// Returns the greatest figure of a trend.
fn greatest(trend: &Trend, sort: SortKey) -> f64 {
    let figures = trend.iter().flatten().filter_map(|point| point.figure(sort));
    figures.fold(0.0, f64::max)
}

/// Draws the end of a trend in so many columns, the newest on the right.
fn spark(trend: &Trend, sort: SortKey, columns: usize) -> String {
    let shown = trend.iter().skip(trend.len().saturating_sub(columns));
    let points: Vec<Option<f64>> =
        shown.map(|point| point.as_ref().and_then(|point: &TrendPoint| point.figure(sort))).collect();
    let most = points.iter().flatten().copied().fold(0.0, f64::max);
    let level = |point: &Option<f64>| match point {
        Some(value) if *value > 0.0 => {
            // Anything is more than nothing.
            let step = (value / most * (LEVELS.len() - 1) as f64).round().max(1.0);
            LEVELS.get(step as usize).copied().unwrap_or(' ')
        }
        _ => ' ',
    };
    let drawn: String = points.iter().map(level).collect();
    format!("{}{drawn}", " ".repeat(columns.saturating_sub(points.len())))
}

fn figure(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), human)
}

/// Returns a number in at most six characters.
pub fn human(number: f64) -> String {
    if number < 10.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    if number < 10_000.0 {
        return format!("{number:.0}");
    }
    let mut rest = number;
    for unit in ["k", "M", "G", "T", "P"] {
        rest /= 1_000.0;
        if rest < 99.95 {
            return format!("{rest:.1}{unit}");
        }
        if rest < 999.5 {
            return format!("{rest:.0}{unit}");
        }
    }
    format!("{rest:.0}E")
}

fn seconds(time: Duration) -> String {
    format!("{:#}", jiff::SignedDuration::from_secs(time.as_secs().try_into().unwrap_or(i64::MAX)))
}
