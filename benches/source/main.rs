//! Prints what a source says, one JSON object a line with the time at which it was published:
//! `source CONFIG`. Needs no kernel; `benches/source/run` takes its measurements with it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use l4lbd::config::Config;
use l4lbd::source::Report;
use l4lbd::source::combined::CombinedSource;
use l4lbd::source::marathon::Earlier;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since the epoch.
    at: f64,
    sequence: u64,
    place: &'a str,
    pace: &'a str,
    failure: Option<&'a str>,
    /// Weights by task id.
    tasks: BTreeMap<&'a str, u32>,
}

#[tokio::main]
async fn main() {
    let path = std::env::args().nth(1).expect("usage: source CONFIG");
    let config = Config::load(Some(Path::new(&path))).expect("a valid configuration");
    let source = CombinedSource::new(&config.source, &config.marathon, Earlier::default()).expect("sources");
    let (sender, mut reports) = watch::channel(Report::default());
    tokio::spawn(source.run(sender, CancellationToken::new()));
    let mut last = (0, None);
    while reports.changed().await.is_ok() {
        let report = reports.borrow_and_update().clone();
        let at = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64();
        let failure = report.failure.as_ref().map(|failure| failure.error.as_str());
        if (report.sequence, failure.map(str::to_owned)) == last {
            continue;
        }
        last = (report.sequence, failure.map(str::to_owned));
        let tasks = report.snapshot.iter().flat_map(|snapshot| snapshot.tasks.values());
        let line = Line {
            at,
            sequence: report.sequence,
            place: &report.place,
            pace: &report.pace,
            failure,
            tasks: tasks.map(|task| (&*task.key.task, u32::from(task.is_ready()))).collect(),
        };
        let mut line = serde_json::to_vec(&line).expect("a line");
        line.push(b'\n');
        // Whoever reads may have seen enough.
        if std::io::stdout().write_all(&line).is_err() {
            return;
        }
    }
}
