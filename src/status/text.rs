//! The status as text for people: the same words in every command.

use std::borrow::Borrow;
use std::io::{self, Write};
use std::net::SocketAddr;

use jiff::Timestamp;
use unicode_width::UnicodeWidthStr;

use self::escape::escaped;
use super::{Backend, Pass, Share, Source, Status, Vip};
use crate::dataplane::PlaneChoice;
use crate::dataplane::connects::Ejected;
use crate::vip::Condition;

pub mod escape;
pub mod overview;
pub mod story;

/// Writes a whole status: what is wrong first, then the source, the kernel and all VIPs.
pub fn write_status(out: &mut impl Write, status: &Status) -> io::Result<()> {
    health(out, status)?;
    let now = status.at;
    line(out, format_args!("source   {}", source(&status.source, now)))?;
    if !status.source.pace.is_empty() {
        line(out, format_args!("         asked {}", status.source.pace))?;
    }
    let PlaneChoice { plane, reason } = &status.node.dataplane;
    line(out, format_args!("kernel   {plane}: {reason}; {}", kernel(&status.pass, now)))?;
    if let Some(change) = &status.pass.change {
        line(out, format_args!("         last change {change}"))?;
    }
    // Without an address the server either is off or could not bind; the reasons above tell which.
    let dns: Vec<String> = status.dns.addresses.iter().map(SocketAddr::to_string).collect();
    line(
        out,
        format_args!("dns      {}", if dns.is_empty() { "not served".to_owned() } else { dns.join(", ") }),
    )?;
    for usage in &status.dns.usage {
        line(out, format_args!("         {usage}"))?;
    }
    line(out, format_args!("vips     {}", status.counts()))?;
    for (index, shared) in status.shared.iter().enumerate() {
        line(out, format_args!("{:<8} {shared}", if index == 0 { "shared" } else { "" }))?;
    }
    writeln!(out)?;
    vips(&status.vips, now).write(out)?;
    section(out, "WARNINGS", &status.warnings)?;
    section(out, "SKIPPED", &status.skipped)?;
    // The list is cut, so its title's number is not the whole.
    if status.skipped_total > status.skipped.len() {
        line(out, format_args!("  ... {} in all", status.skipped_total))?;
    }
    let foreign: Vec<&String> = status.foreign.iter().map(|foreign| &foreign.service).collect();
    section(out, "VIRTUAL SERVICES OF OTHERS", &foreign)
}

/// Writes what is wrong, and the VIPs of a status that lists only some of them.
pub fn write_vips(out: &mut impl Write, status: &Status) -> io::Result<()> {
    health(out, status)?;
    writeln!(out)?;
    vips(&status.vips, status.at).write(out)
}

/// Writes the first line and the reasons.
fn health(out: &mut impl Write, status: &Status) -> io::Result<()> {
    line(out, first_line(status))?;
    // Before the list of VIPs, which can have thousands of lines.
    for reason in &status.reasons {
        line(out, format_args!("  ! {reason}"))?;
    }
    Ok(())
}

/// Returns the first line: health, and since when.
fn first_line(status: &Status) -> String {
    let address = status.node.address.map(|address| format!(" ({address})")).unwrap_or_default();
    let health = if status.degraded { "DEGRADED" } else { "ok" };
    let since = status.since.map(|since| format!(" for {}", age(since, status.at))).unwrap_or_default();
    format!("{health}{since}: l4lbd {} on {}{address}", status.version, status.node.hostname)
}

fn source(source: &Source, now: Timestamp) -> String {
    let Some(good_at) = source.good_at else {
        return format!("{} (no state yet)", source.configured.join(", "));
    };
    let master = source.master.as_ref().map(|id| format!(", master {id}")).unwrap_or_default();
    format!(
        "{}{master}, confirmed {} ago: {} agents, {} tasks with VIPs",
        source.place,
        age(good_at, now),
        source.agents,
        source.tasks
    )
}

fn kernel(pass: &Pass, now: Timestamp) -> String {
    let Some(at) = pass.at else { return "not programmed yet".to_owned() };
    let mut text = format!("compared {} ago in {:.3} s", age(at, now), pass.seconds);
    if let Some(changed) = pass.changed_at {
        text += &format!(", changed {} ago ({} operations)", age(changed, now), pass.operations);
    }
    if pass.ejected > 0 {
        text += &format!(", {} backends ejected by clients", pass.ejected);
    }
    if pass.pending > 0 {
        text += &format!(", {} operations pending", pass.pending);
    }
    match pass.repaired_at {
        Some(repaired) => text + &format!(", {} repaired, last {} ago", pass.repaired, age(repaired, now)),
        None => text + ", nothing had to be repaired",
    }
}

/// Returns a table of VIPs with one line per backend.
pub fn vips<V: Borrow<Vip>>(vips: &[V], now: Timestamp) -> Table {
    // `explain` asks no kernel; columns of zeros would look like idleness.
    let all = || vips.iter().map(Borrow::borrow);
    let counted = all().flat_map(|vip| &vip.backends).any(|backend| backend.connections.is_some());
    let mut header = vec!["VIP", "SERVICE", "BACKEND", "WEIGHT"];
    if counted {
        header.extend(["ACTIVE", "INACTIVE"]);
    }
    header.extend(["STATE", "AGENT", "TASK"]);
    let mut table = Table::new(&header);
    for vip in all() {
        let name = vip.name.clone().unwrap_or_else(|| "(literal)".to_owned());
        let scheduler = vip.scheduler.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let scheduler = if vip.no_ejection { scheduler + " (no ejection)" } else { scheduler };
        let service = format!("{} {}{scheduler}", vip.protocol, SocketAddr::new(vip.address, vip.port));
        if vip.backends.is_empty() {
            table.row([name, service, "none: connections are refused".to_owned()]);
            continue;
        }
        for (index, backend) in vip.backends.iter().enumerate() {
            // Name and service once per VIP, so that the backends of one VIP are seen as one group.
            let first = index == 0;
            let mut row = vec![
                if first { name.clone() } else { String::new() },
                if first { service.clone() } else { String::new() },
                SocketAddr::new(backend.address, backend.port).to_string(),
                backend.weight.to_string(),
            ];
            if counted {
                let connections = backend.connections.unwrap_or_default();
                row.extend([connections.active.to_string(), connections.inactive.to_string()]);
            }
            row.extend([state(backend, now), backend.agent.clone(), backend.task.clone()]);
            table.row(row);
        }
    }
    table
}

/// Writes a titled list, if there is anything in it.
pub fn section(out: &mut impl Write, title: &str, lines: &[impl std::fmt::Display]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title} ({})", lines.len())?;
    for text in lines {
        line(out, format_args!("  {text}"))?;
    }
    Ok(())
}

/// Writes one line, in which text of unknown origin is escaped.
pub fn line(out: &mut impl Write, text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(out, "{}", escaped(&text.to_string()))
}

/// Time from `then` to `now` in whole seconds, such as `3m 12s`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    // Clocks of two machines may differ, and nothing is younger than now.
    let seconds = now.duration_since(then).as_secs().max(0);
    format!("{:#}", jiff::SignedDuration::from_secs(seconds))
}

/// Returns the condition of a backend in words, with its ejection.
pub fn state(backend: &Backend, now: Timestamp) -> String {
    let condition = condition(backend, now) + &backend.share.map(share).unwrap_or_default();
    match backend.ejected {
        Some(Ejected { namespaces: 1, .. }) => format!("{condition}, ejected for 1 network namespace"),
        Some(Ejected { namespaces, .. }) => {
            format!("{condition}, ejected for {namespaces} network namespaces")
        }
        None => condition,
    }
}

/// Returns the share of a backend in words, to be added to its condition.
fn share(share: Share) -> String {
    match share {
        Share { label_weight: 0, .. } => ", weight 0 by its label".to_owned(),
        Share { kernel_weight: 0, .. } => String::new(),
        Share { warm_percent: 100, percent, .. } => format!(", {percent} % of new connections"),
        Share { warm_percent, percent, .. } => {
            format!(", {percent} % of new connections, {warm_percent} % warm")
        }
    }
}

/// Returns the condition of a backend in words.
pub fn condition(backend: &Backend, now: Timestamp) -> String {
    let left = |until| format!("gone, kept for {}", age(now, until));
    match backend.condition {
        // An older daemon tells no condition, but the weight that follows from it.
        None if backend.weight > 0 => "ready".to_owned(),
        None => "no new connections".to_owned(),
        Some(Condition::Ready) => "ready".to_owned(),
        Some(Condition::Unreachable) => "agent lost".to_owned(),
        Some(Condition::Unhealthy) => "unhealthy".to_owned(),
        Some(Condition::Stopping) => "stopping".to_owned(),
        Some(Condition::Inherited) => "as before start".to_owned(),
        Some(Condition::Gone) => backend.until.map_or_else(|| "gone".to_owned(), left),
    }
}

/// Rows of escaped cells; a row's columns are as wide as the widest cell in any row.
#[derive(Debug, Default)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    pub fn new(header: &[&str]) -> Self {
        Self(vec![header.iter().map(|cell| (*cell).to_owned()).collect()])
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().map(|cell| escaped(&cell).into_owned()).collect());
    }

    /// Writes all rows.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.lines().iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    /// Returns the lines of all rows, without blanks at their ends.
    pub fn lines(&self) -> Vec<String> {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            self.0.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            // Characters of two columns, and of none, count as what they take.
            let padded = |(cell, width): (&String, &usize)| {
                format!("{cell}{:1$}  ", "", width.saturating_sub(cell.width()))
            };
            let line: String = row.iter().zip(&widths).map(padded).collect();
            line.trim_end().to_owned()
        };
        self.0.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests;
