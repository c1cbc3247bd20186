//! `l4lbd names`

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use reqwest::Method;

use super::client::RunningDaemon;
use crate::api::client::path_of;
use crate::api::names::{NamesAnswer, PATTERN};
use crate::dns::zones::catalog::ZoneKind;
use crate::status::text::{Table, line};

/// Addresses of a name that a line has; JSON has all of them.
const SHOWN: usize = 8;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: RunningDaemon,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Name, or its first labels, such as web.marathon; or a pattern for all of it, in which * stands for any text and ?
    /// for one character
    #[arg(value_name = "PATTERN")]
    pattern: Option<String>,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let path = path_of("/names", [(PATTERN, self.pattern.as_deref())]);
        let (body, answer): (_, NamesAnswer) = self.daemon.ask(Method::GET, &path)?;
        let mut out = io::stdout().lock();
        if self.json {
            out.write_all(&body)?;
            writeln!(out)?;
        } else {
            table(&answer).write(&mut out)?;
            out.flush()?;
            for zone in answer.zones.iter().filter(|zone| !zone.loaded) {
                let (kind, origins) = (kind(zone.kind), zone.origins.join(", "));
                line(
                    &mut io::stderr(),
                    format_args!("l4lbd: names of {kind} are not known yet ({origins})"),
                )?;
            }
        }
        if let Some(pattern) = self.pattern.filter(|_| answer.names.is_empty()) {
            anyhow::bail!(
                "no name that DNS serves here is or begins with {pattern:?}; l4lbd names lists all of them"
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the names in their order, with a line for each type of record.
fn table(answer: &NamesAnswer) -> Table {
    let mut rows: BTreeMap<(&str, &str, &str), Vec<&str>> = BTreeMap::new();
    for name in &answer.names {
        for record in &name.records {
            rows.entry((&name.name, kind(name.zone), &record.rtype)).or_default().push(&record.host);
        }
    }
    let mut table = Table::new(&["NAME", "OF", "TYPE", "TTL", "ANSWER"]);
    for ((name, kind, rtype), mut hosts) in rows {
        // Answers of DNS have them in a random order.
        hosts.sort_unstable();
        let rest = hosts.len().saturating_sub(SHOWN);
        let mut shown = hosts.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
        if rest > 0 {
            shown += &format!(" and {rest} more");
        }
        table.row([name.to_owned(), kind.to_owned(), rtype.to_owned(), format!("{}s", answer.ttl), shown]);
    }
    table
}

/// Returns what a zone has names of.
fn kind(zone: ZoneKind) -> &'static str {
    match zone {
        ZoneKind::Vips => "VIPs",
        ZoneKind::Dcos => "tasks",
        ZoneKind::Mesos => "tasks (mesos-dns)",
        ZoneKind::Node => "this node",
        ZoneKind::Reverse => "addresses",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::zones::catalog::listing::{ServedName, ServedRecord};

    fn served(name: &str, hosts: impl IntoIterator<Item = String>) -> ServedName {
        let record = |host| ServedRecord { rtype: "A".into(), host };
        ServedName {
            name: name.to_owned(),
            zone: ZoneKind::Vips,
            records: hosts.into_iter().map(record).collect(),
        }
    }

    #[test]
    fn names_are_sorted_with_their_addresses_and_long_lists_are_cut() {
        let many = (1..=10).rev().map(|last| format!("11.0.0.{last:02}"));
        let names = vec![
            served("web\x1b.marathon", ["11.0.0.2".to_owned(), "11.0.0.1".to_owned()]),
            served("api.marathon", many),
        ];
        let lines = table(&NamesAnswer { ttl: 5, zones: Vec::new(), names }).lines();
        assert_eq!(
            lines,
            [
                "NAME                OF    TYPE  TTL  ANSWER",
                "api.marathon        VIPs  A     5s   11.0.0.01, 11.0.0.02, 11.0.0.03, 11.0.0.04, 11.0.0.05, \
                 11.0.0.06, 11.0.0.07, 11.0.0.08 and 2 more",
                "web\\u{1b}.marathon  VIPs  A     5s   11.0.0.1, 11.0.0.2",
            ]
        );
    }
}
