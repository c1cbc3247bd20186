//! What became of the client's connections.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::client::Record;

/// How far back shares, rate and latency go.
pub const WINDOW: Duration = Duration::from_secs(5);

/// Counts since the start, and the connections of the last few seconds. Times are since the start.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub made: u64,
    pub failed: u64,
    /// Connections by a remembered address, because the DNS server was not there.
    pub remembered: u64,
    /// By task, since the start.
    pub by: BTreeMap<String, u64>,
    pub kept: Kept,
    recent: VecDeque<Recent>,
}

/// The connection that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub answers: u64,
    /// How often its server told it to go elsewhere.
    pub moves: u64,
    pub with: Option<String>,
}

#[derive(Clone, Debug)]
struct Recent {
    at: Duration,
    by: String,
    micros: u32,
}

/// The last few seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    /// Parts of 1, by task.
    pub shares: BTreeMap<String, f64>,
    pub per_second: f64,
    pub median: Duration,
    pub worst_percent: Duration,
}

impl Tally {
    /// Takes a record in. A connection that broke counts as failed here; whether somebody could have kept
    /// it is not known here.
    pub fn take(&mut self, record: Record, now: Duration) {
        match record {
            Record::Answered { by, micros, remembered } => {
                self.made += 1;
                self.remembered += u64::from(remembered);
                *self.by.entry(by.clone()).or_default() += 1;
                self.recent.push_back(Recent { at: now, by, micros });
            }
            Record::Failed { .. } => {
                self.made += 1;
                self.failed += 1;
            }
            Record::Kept { by } => {
                self.kept.answers += 1;
                if self.kept.with.as_ref().is_some_and(|before| *before != by) {
                    self.kept.moves += 1;
                }
                self.kept.with = Some(by);
            }
            Record::Broken { .. } => self.failed += 1,
        }
        self.forget(now);
    }

    /// Shares, rate and latency of the last few seconds.
    pub fn spread(&self, now: Duration) -> Spread {
        let recent: Vec<&Recent> = self.recent.iter().filter(|recent| recent.at + WINDOW >= now).collect();
        if recent.is_empty() {
            return Spread::default();
        }
        let mut counts: BTreeMap<&String, u32> = BTreeMap::new();
        for recent in &recent {
            *counts.entry(&recent.by).or_default() += 1;
        }
        let total = u32::try_from(recent.len()).unwrap_or(u32::MAX);
        let mut micros: Vec<u32> = recent.iter().map(|recent| recent.micros).collect();
        micros.sort_unstable();
        let at = |percent: usize| {
            let index = (micros.len() * percent / 100).min(micros.len() - 1);
            Duration::from_micros(micros.get(index).copied().unwrap_or_default().into())
        };
        Spread {
            shares: counts
                .into_iter()
                .map(|(by, count)| (by.clone(), f64::from(count) / f64::from(total)))
                .collect(),
            per_second: f64::from(total) / now.min(WINDOW).as_secs_f64().max(1.0),
            median: at(50),
            worst_percent: at(99),
        }
    }

    fn forget(&mut self, now: Duration) {
        while self.recent.front().is_some_and(|recent| recent.at + WINDOW < now) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(by: &str, micros: u32) -> Record {
        Record::Answered { by: by.into(), micros, remembered: false }
    }

    #[test]
    fn shares_are_those_of_the_last_seconds() {
        let mut tally = Tally::default();
        for _ in 0..30 {
            tally.take(answered("old", 100), Duration::from_secs(1));
        }
        for second in [10, 11, 12, 13] {
            for by in ["a", "b", "b", "b"] {
                tally.take(answered(by, 100), Duration::from_secs(second));
            }
        }
        let spread = tally.spread(Duration::from_secs(13));
        assert_eq!(spread.shares, [("a".to_owned(), 0.25), ("b".to_owned(), 0.75)].into());
        assert_eq!(spread.per_second, 3.2);
        assert_eq!(tally.made, 46);
        assert_eq!(tally.by.values().sum::<u64>(), 46);
        assert!(tally.recent.len() <= 16, "what is over is forgotten");
    }

    #[test]
    fn the_worst_percent_is_seen_and_the_median_is_not_moved_by_it() {
        let mut tally = Tally::default();
        for number in 0..100 {
            tally.take(answered("a", if number < 98 { 200 } else { 9_000 }), Duration::from_secs(2));
        }
        let spread = tally.spread(Duration::from_secs(2));
        assert_eq!(spread.median, Duration::from_micros(200));
        assert_eq!(spread.worst_percent, Duration::from_micros(9_000));
    }

    #[test]
    fn nothing_yet_is_no_spread() {
        assert_eq!(Tally::default().spread(Duration::ZERO), Spread::default());
    }

    #[test]
    fn what_fails_counts_and_what_moves_does_not_fail() {
        let mut tally = Tally::default();
        tally.take(Record::Failed { error: "refused".into() }, Duration::ZERO);
        tally.take(Record::Kept { by: "a".into() }, Duration::ZERO);
        tally.take(Record::Kept { by: "a".into() }, Duration::ZERO);
        tally.take(Record::Kept { by: "b".into() }, Duration::ZERO);
        assert_eq!((tally.made, tally.failed), (1, 1));
        assert_eq!(tally.kept, Kept { answers: 3, moves: 1, with: Some("b".into()) });
    }
}
