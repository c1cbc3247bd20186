//! Counts of the client's connections: totals, and shares, rate and latency of the last seconds.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::client::ClientRecord;

/// Time that shares, rate and latency are computed over.
pub const WINDOW: Duration = Duration::from_secs(5);

/// Counts since the client started, and its connections of the last [`WINDOW`]. Times are since that start.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Connections that were tried, failed ones included.
    pub made: u64,
    pub failed: u64,
    /// Connections to the last known address, because the DNS server did not answer.
    pub stale_address: u64,
    /// Number of connections that each task answered.
    pub by_task: BTreeMap<String, u64>,
    pub long_lived: LongLivedConnection,
    last: VecDeque<RecentConnection>,
}

/// Counts of the connection that the client keeps open for as long as its server allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LongLivedConnection {
    pub answers: u64,
    /// Times that it was opened anew to another task, because its server stopped.
    pub reopened: u64,
    /// Task at its other end; `None` before the first answer.
    pub task: Option<String>,
}

#[derive(Clone, Debug)]
struct RecentConnection {
    at: Duration,
    task: String,
    micros: u32,
}

/// Statistics of the last [`WINDOW`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowStats {
    /// Share of the connections that each task answered; all shares add up to 1.
    pub shares: BTreeMap<String, f64>,
    pub per_second: f64,
    /// Median of the time to connect.
    pub median: Duration,
    /// 99th percentile of the time to connect.
    pub p99: Duration,
}

impl Tally {
    /// Counts a record. A connection that broke counts as failed: the caller leaves out those that no load balancer
    /// could have kept.
    pub fn add(&mut self, record: ClientRecord, now: Duration) {
        match record {
            ClientRecord::Answered { by, micros, stale_address } => {
                self.made += 1;
                self.stale_address += u64::from(stale_address);
                *self.by_task.entry(by.clone()).or_default() += 1;
                self.last.push_back(RecentConnection { at: now, task: by, micros });
            }
            ClientRecord::Failed { .. } => {
                self.made += 1;
                self.failed += 1;
            }
            ClientRecord::LongLivedAnswered { by } => {
                self.long_lived.answers += 1;
                if self.long_lived.task.as_ref().is_some_and(|before| *before != by) {
                    self.long_lived.reopened += 1;
                }
                self.long_lived.task = Some(by);
            }
            ClientRecord::LongLivedBroken { .. } => self.failed += 1,
        }
        // Memory stays bounded by what the window holds.
        while self.last.front().is_some_and(|oldest| oldest.at + WINDOW < now) {
            self.last.pop_front();
        }
    }

    /// Returns shares, rate and latency of the last [`WINDOW`].
    pub fn window(&self, now: Duration) -> WindowStats {
        let recent: Vec<&RecentConnection> =
            self.last.iter().filter(|connection| connection.at + WINDOW >= now).collect();
        if recent.is_empty() {
            return WindowStats::default();
        }
        let mut counts: BTreeMap<&String, u32> = BTreeMap::new();
        for connection in &recent {
            *counts.entry(&connection.task).or_default() += 1;
        }
        let total = u32::try_from(recent.len()).unwrap_or(u32::MAX);
        let mut micros: Vec<u32> = recent.iter().map(|connection| connection.micros).collect();
        micros.sort_unstable();
        // Of the sorted list; the last entry stands in where the share falls behind the end.
        let percentile = |percent: usize| {
            let index = (micros.len() * percent / 100).min(micros.len() - 1);
            Duration::from_micros(micros.get(index).copied().unwrap_or_default().into())
        };
        WindowStats {
            shares: counts
                .into_iter()
                .map(|(task, count)| (task.clone(), f64::from(count) / f64::from(total)))
                .collect(),
            per_second: f64::from(total) / now.min(WINDOW).as_secs_f64().max(1.0),
            median: percentile(50),
            p99: percentile(99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(by: &str, micros: u32) -> ClientRecord {
        ClientRecord::Answered { by: by.into(), micros, stale_address: false }
    }

    #[test]
    fn shares_are_those_of_the_last_seconds() {
        let mut tally = Tally::default();
        for _ in 0..30 {
            tally.add(answered("old", 100), Duration::from_secs(1));
        }
        for second in [10, 11, 12, 13] {
            for by in ["a", "b", "b", "b"] {
                tally.add(answered(by, 100), Duration::from_secs(second));
            }
        }
        let stats = tally.window(Duration::from_secs(13));
        assert_eq!(stats.shares, [("a".to_owned(), 0.25), ("b".to_owned(), 0.75)].into());
        assert_eq!(stats.per_second, 3.2);
        assert_eq!(tally.made, 46);
        assert_eq!(tally.by_task.values().sum::<u64>(), 46);
        assert!(tally.last.len() <= 16, "what is over is forgotten");
    }

    #[test]
    fn the_worst_percent_is_seen_and_the_median_is_not_moved_by_it() {
        let mut tally = Tally::default();
        for number in 0..100 {
            tally.add(answered("a", if number < 98 { 200 } else { 9_000 }), Duration::from_secs(2));
        }
        let stats = tally.window(Duration::from_secs(2));
        assert_eq!(stats.median, Duration::from_micros(200));
        assert_eq!(stats.p99, Duration::from_micros(9_000));
    }

    #[test]
    fn without_connections_all_statistics_are_zero() {
        assert_eq!(Tally::default().window(Duration::ZERO), WindowStats::default());
    }

    #[test]
    fn what_fails_counts_and_what_is_reopened_does_not_fail() {
        let mut tally = Tally::default();
        tally.add(ClientRecord::Failed { error: "refused".into() }, Duration::ZERO);
        for by in ["a", "a", "b"] {
            tally.add(ClientRecord::LongLivedAnswered { by: by.into() }, Duration::ZERO);
        }
        assert_eq!((tally.made, tally.failed), (1, 1));
        let wanted = LongLivedConnection { answers: 3, reopened: 1, task: Some("b".into()) };
        assert_eq!(tally.long_lived, wanted);
    }
}
