//! The status on one screen: is it healthy, since when, what is wrong, what to do.
//!
//! The first lines answer that, however many VIPs there are: what is wrong with its remedy, then source, kernel, DNS
//! and numbers, then the VIPs that are not well. The rest is summed up.

use std::fmt::Display;
use std::net::SocketAddr;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::escape::escaped;
use super::{Table, age, condition, first_line, kernel, source, vips};
use crate::status::health::VipHealth;
use crate::status::{Status, Vip};
use crate::vip::Condition;

/// Reasons that a screen has room for, and lines of each, and of its remedy.
const MOST_REASONS: usize = 3;
const MOST_LINES: usize = 2;

/// Lines of VIPs in a pipe.
const IN_PIPE: usize = 200;

/// Lines of VIPs on a small screen.
const LEAST: usize = 4;

/// Room for the text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Screen {
    /// Columns and lines; `None` in a pipe, where nothing is cut.
    pub size: Option<(usize, usize)>,
    /// Set if the VIPs were asked for by name, agent or the like: all of them are listed.
    pub lists_all: bool,
}

/// Meaning of a line, which has a colour on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Doubtful,
    /// Advice to the operator.
    Advice,
}

/// A line of the screen, escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScreenLine {
    pub tone: Tone,
    pub text: String,
}

impl ScreenLine {
    /// Returns the line with the colour of its tone by ANSI escape sequences.
    pub fn painted(&self) -> String {
        let code = match self.tone {
            Tone::Plain => return self.text.clone(),
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Doubtful => "33",
            Tone::Advice => "36",
        };
        format!("\x1b[{code}m{}\x1b[0m", self.text)
    }
}

/// Lines under way.
struct Lines {
    lines: Vec<ScreenLine>,
    width: Option<usize>,
}

impl Lines {
    /// Adds a line, cut to the width.
    fn cut(&mut self, tone: Tone, text: &str) {
        let text = escaped(text);
        let text = self.width.map_or_else(|| text.to_string(), |width| cut(&text, width));
        self.lines.push(ScreenLine { tone, text });
    }

    /// Adds a titled list, if there is anything in it.
    fn section(&mut self, title: &str, lines: &[impl Display]) {
        if lines.is_empty() {
            return;
        }
        self.cut(Tone::Plain, "");
        self.cut(Tone::Plain, &format!("{title} ({})", lines.len()));
        lines.iter().for_each(|line| self.cut(Tone::Plain, &format!("  {line}")));
    }

    /// Adds a text on a few lines, of which all but the first are indented.
    fn wrapped(&mut self, tone: Tone, text: &str, indent: usize) {
        let text = escaped(text);
        let Some(width) = self.width else {
            self.lines.push(ScreenLine { tone, text: text.into_owned() });
            return;
        };
        let lines = wrap(&text, width, indent);
        self.lines.extend(lines.into_iter().map(|text| ScreenLine { tone, text }));
    }
}

/// Returns the lines of a status.
pub fn overview(status: &Status, screen: Screen) -> Vec<ScreenLine> {
    let now = status.at;
    let mut out = Lines { lines: Vec::new(), width: screen.size.map(|(width, _)| width) };
    let tone = if status.degraded { Tone::Bad } else { Tone::Good };
    out.cut(tone, &first_line(status));
    // A screen has room for the worst; a pipe is read by programs and gets all.
    let most = screen.size.map_or(usize::MAX, |_| MOST_REASONS);
    for (index, reason) in status.reasons.iter().take(most).enumerate() {
        let detail = status.details.get(index);
        out.wrapped(Tone::Bad, &format!("  ! {reason}"), 4);
        if let Some(detail) = detail {
            let since = age(detail.since, now);
            out.wrapped(Tone::Advice, &format!("    for {since}; do: {}", detail.remedy), 8);
        }
    }
    let more = status.reasons.len().saturating_sub(most);
    if more > 0 {
        out.cut(Tone::Bad, &format!("  ! and {more} more reasons: l4lbd status -o wide"));
    }
    out.cut(Tone::Plain, &format!("source   {}", source(&status.source, now)));
    let plane = status.node.dataplane.plane;
    out.cut(Tone::Plain, &format!("kernel   {plane}: {}", kernel(&status.pass, now)));
    let dns: Vec<String> = status.dns.addresses.iter().map(SocketAddr::to_string).collect();
    let dns = if dns.is_empty() { "not served".to_owned() } else { dns.join(", ") };
    out.cut(Tone::Plain, &format!("dns      {dns}"));
    out.cut(Tone::Plain, &format!("vips     {}", status.counts()));
    if let Some(first) = status.warnings.first() {
        let count = status.warnings.len();
        out.cut(Tone::Doubtful, &format!("warnings {count} (-o wide lists them): {first}"));
    }
    if let Some(first) = status.skipped.first() {
        let count = status.skipped_total;
        out.cut(Tone::Doubtful, &format!("skipped  {count} (-o wide lists them): {first}"));
    }
    list(&mut out, status, screen);
    // A screen has no room for them, and who asks for some VIPs does not ask for these.
    if screen.size.is_none() && !screen.lists_all {
        out.section("WARNINGS", &status.warnings);
        out.section("SKIPPED", &status.skipped);
        let foreign: Vec<&String> = status.foreign.iter().map(|foreign| &foreign.service).collect();
        out.section("VIRTUAL SERVICES OF OTHERS", &foreign);
    }
    out.lines
}

/// Adds the VIPs: with their backends where that fits, otherwise a line for each that is not well.
fn list(out: &mut Lines, status: &Status, screen: Screen) {
    if status.vips.is_empty() {
        return;
    }
    out.lines.push(ScreenLine { tone: Tone::Plain, text: String::new() });
    // A line is left for the shell's prompt.
    let room = screen.size.map(|(_, height)| height.saturating_sub(out.lines.len() + 1).max(LEAST));
    let room = if screen.lists_all { usize::MAX } else { room.unwrap_or(IN_PIPE) };
    let mut sorted: Vec<&Vip> = status.vips.iter().collect();
    // Stable: by name among those that are as well.
    sorted.sort_by_key(|vip| vip.health());
    // A VIP without backends takes a line as well.
    let backends: usize = sorted.iter().map(|vip| vip.backends.len().max(1)).sum();
    if backends < room {
        let tones = sorted.iter().flat_map(|vip| {
            let of_backend = |index: usize| match vip.backends.get(index) {
                Some(backend) if backend.condition == Some(Condition::Unhealthy) => Tone::Doubtful,
                _ if vip.health() == VipHealth::Dead => Tone::Bad,
                _ => Tone::Plain,
            };
            (0..vip.backends.len().max(1)).map(of_backend).collect::<Vec<_>>()
        });
        let tones: Vec<Tone> = std::iter::once(Tone::Plain).chain(tones).collect();
        for (text, tone) in vips(&sorted, status.at).lines().iter().zip(tones) {
            out.cut(tone, text);
        }
        return;
    }
    let unwell = sorted.iter().filter(|vip| vip.health() != VipHealth::Fine).count();
    // A header, and lines for the rest of both kinds.
    let shown = unwell.min(room.saturating_sub(3));
    if shown > 0 {
        let mut table = Table::new(&["VIP", "BACKENDS", "SERVICE"]);
        for vip in sorted.iter().take(shown) {
            let name = vip.name.clone().unwrap_or_else(|| "(literal)".to_owned());
            let service = format!("{} {}", vip.protocol, SocketAddr::new(vip.address, vip.port));
            table.row([name, backends_of(vip, status), service]);
        }
        let tones = sorted.iter().map(|vip| match vip.health() {
            VipHealth::Dead => Tone::Bad,
            VipHealth::Impaired | VipHealth::Fine => Tone::Doubtful,
        });
        let tones: Vec<Tone> = std::iter::once(Tone::Plain).chain(tones).collect();
        for (text, tone) in table.lines().iter().zip(tones) {
            out.cut(tone, text);
        }
    }
    // What is left out is said with the command that shows it.
    if unwell > shown {
        let text = format!("{} more VIPs are not well: l4lbd status --unhealthy", unwell - shown);
        out.cut(Tone::Bad, &text);
    }
    let fine = sorted.len() - unwell;
    if fine > 0 {
        out.cut(
            Tone::Good,
            &format!("{fine} VIPs are fine: l4lbd status -o wide, or l4lbd vip NAME for one"),
        );
    }
}

/// Returns how many backends take connections, and the reasons why the rest does not.
fn backends_of(vip: &Vip, status: &Status) -> String {
    if vip.backends.is_empty() {
        return "none: connections are refused".to_owned();
    }
    let taking = vip.backends.iter().filter(|backend| backend.weight > 0).count();
    // In the order in which they are met: few kinds, and a map would sort them by spelling.
    let mut others: Vec<(String, usize)> = Vec::new();
    for backend in vip.backends.iter().filter(|backend| backend.condition != Some(Condition::Ready)) {
        let text = match backend.condition {
            Some(Condition::Gone) => "gone".to_owned(),
            _ => condition(backend, status.at),
        };
        match others.iter_mut().find(|(known, _)| *known == text) {
            Some((_, count)) => *count += 1,
            None => others.push((text, 1)),
        }
    }
    let others: Vec<String> = others.into_iter().map(|(text, count)| format!("{count} {text}")).collect();
    let others = if others.is_empty() { String::new() } else { format!(": {}", others.join(", ")) };
    format!("{taking} of {} take connections{others}", vip.backends.len())
}

/// Returns as much of a text as fits, with a mark where it is cut.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 0;
    let fits = |character: &char| {
        used += character.width().unwrap_or_default();
        used < width
    };
    text.chars().take_while(fits).collect::<String>() + "…"
}

/// Breaks a text between words into lines, all but the first with an indent; cuts it after a few.
fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let lead = if lines.is_empty() { String::new() } else { " ".repeat(indent) };
        let room = width.saturating_sub(lead.len()).max(1);
        if lines.len() + 1 == MOST_LINES || rest.width() <= room {
            lines.push(lead + &cut(rest, room));
            break;
        }
        let mut used = 0;
        let end = rest.char_indices().find(|(_, character)| {
            used += character.width().unwrap_or_default();
            used > room
        });
        let end = end.map_or(rest.len(), |(end, _)| end);
        let head = rest.get(..end).unwrap_or(rest);
        // Between words, unless one fills the line.
        let is_word_end = rest.get(end..).is_some_and(|behind| behind.starts_with(' '));
        let space = head.rfind(' ').filter(|at| head.get(..*at).is_some_and(|head| !head.trim().is_empty()));
        let end = if is_word_end { head.len() } else { space.unwrap_or(head.len()) };
        // A character that is wider than the screen is shown all the same.
        let end = end.max(rest.chars().next().map_or(1, char::len_utf8));
        let (line, behind) = rest.split_at(end);
        lines.push(lead + line);
        rest = behind.trim_start();
    }
    lines
}

#[cfg(test)]
mod tests;
