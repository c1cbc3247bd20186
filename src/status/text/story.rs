//! The story of one VIP as text.

use std::io::{self, Write};
use std::net::SocketAddr;

use jiff::Timestamp;

use super::{Table, age, condition, line, section};
use crate::dataplane::connects::{LatencyClass, ServiceConnects};
use crate::status::story::{Story, TaskStory};

/// Writes the story of a VIP on one screen.
pub fn write_story(out: &mut impl Write, story: &Story, now: Timestamp) -> io::Result<()> {
    let Story { vip, chosen_by, tasks, tasks_total, warnings, connection } = story;
    let address = SocketAddr::new(vip.address, vip.port);
    match &vip.name {
        Some(name) => line(out, format_args!("{} {name}:{} at {address}", vip.protocol, vip.port))?,
        None => line(out, format_args!("{} {address}", vip.protocol))?,
    }
    line(out, format_args!("  a connection made now {connection}"))?;
    match &vip.connects {
        Some(seen) => line(out, format_args!("  connects  {}", connects(seen)))?,
        None => line(out, format_args!("  scheduler {chosen_by}"))?,
    }
    // A plane that sees no packets counts none, and columns of dashes would say nothing.
    let is_counted = vip.backends.iter().any(|backend| backend.traffic.is_some());
    let mut titles = vec!["BACKEND", "WEIGHT", "WHY", "ACTIVE", "INACTIVE"];
    if is_counted {
        titles.extend(["TOTAL", "BYTES IN", "BYTES OUT"]);
        let read = vip.backends.iter().filter_map(|backend| backend.traffic).map(|traffic| traffic.at).min();
        let ago = read.map(|at| age(at, now)).unwrap_or_default();
        line(out, format_args!("  totals since a backend was added, counted {ago} ago"))?;
    }
    writeln!(out)?;
    titles.extend(["AGENT", "TASK"]);
    let mut table = Table::new(&titles);
    for backend in &vip.backends {
        let count = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let mut cells = vec![
            SocketAddr::new(backend.address, backend.port).to_string(),
            backend.weight.to_string(),
            condition(backend, now),
            count(backend.connections.map(|connections| connections.active)),
            count(backend.connections.map(|connections| connections.inactive)),
        ];
        if is_counted {
            // One that the kernel has counted nothing of is told without it.
            let traffic = backend.traffic.map(|counted| counted.traffic).unwrap_or_default();
            cells.extend(
                [traffic.connections, traffic.in_bytes, traffic.out_bytes].map(|count| count.to_string()),
            );
        }
        cells.extend([backend.agent.clone(), backend.task.clone()]);
        table.row(cells);
    }
    table.write(out)?;
    if !tasks.is_empty() {
        writeln!(out, "\nTASKS THAT ASK FOR IT ({tasks_total})")?;
        let mut table = Table::new(&["TASK", "STATE", "HEALTH", "BY", "AGENT", "LABELS"]);
        for task in tasks {
            table.row(cells(task));
        }
        table.write(out)?;
        if *tasks_total > tasks.len() {
            line(out, format_args!("  ... {} more", tasks_total - tasks.len()))?;
        }
    }
    section(out, "WARNINGS", warnings)
}

fn cells(task: &TaskStory) -> [String; 6] {
    let health = match task.healthy {
        None => "-",
        Some(true) => "healthy",
        Some(false) => "unhealthy",
    };
    let agent = task.hostname.as_ref().unwrap_or(&task.agent);
    [
        task.task.clone(),
        task.state.clone(),
        health.to_owned(),
        task.health_by.clone(),
        agent.clone(),
        task.labels.join("; "),
    ]
}

/// Returns what became of connects, and how long they took, in words.
pub fn connects(seen: &ServiceConnects) -> String {
    let counts = &seen.connects;
    let mut text = format!(
        "{} begun, {} established, {} refused, {} timed out, {} SYNs sent again",
        counts.begun, counts.established, counts.refused, counts.timed_out, counts.syn_retransmissions
    );
    for (part, name) in [(50, "half"), (99, "99 %")] {
        if let Some(bound) = bound(&seen.latency, part) {
            text += &format!("; {name} took {bound}");
        }
    }
    text
}

/// Returns the time within which `part` percent of the connects were established.
fn bound(classes: &[LatencyClass], part: u64) -> Option<String> {
    let all: u64 = classes.iter().map(|class| class.connects).sum();
    let wanted = all.saturating_mul(part).div_ceil(100).max(1);
    let mut sum = 0;
    let class = classes.iter().find(|class| {
        sum += class.connects;
        sum >= wanted
    })?;
    Some(match class.below_us {
        Some(below) if below < 10_000 => format!("less than {:.1} ms", below as f64 / 1000.0),
        Some(below) => format!("less than {} ms", below / 1000),
        None => "more than a second".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_within_which_a_part_was_established() {
        let class = |below_us, connects| LatencyClass { below_us, connects };
        let classes = [class(Some(64), 50), class(Some(1024), 49), class(None, 1)];
        assert_eq!(bound(&classes, 50).unwrap(), "less than 0.1 ms");
        assert_eq!(bound(&classes, 51).unwrap(), "less than 1.0 ms");
        assert_eq!(bound(&classes, 99).unwrap(), "less than 1.0 ms");
        assert_eq!(bound(&classes, 100).unwrap(), "more than a second");
        assert_eq!(bound(&[], 50), None);
    }
}
