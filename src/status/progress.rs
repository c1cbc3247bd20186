//! Long work of the daemon, in words: waiting for the first state, and changes of the kernel that take seconds. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Status;
use super::pass::LongChange;
use super::text::age;

/// Times after which work that goes on is told in the log; after the last one again each time as much has passed.
const TOLD: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(20), Duration::from_secs(60), Duration::from_secs(300)];

/// Progress of a change in so many seconds from which an estimate of the rest is worth something.
const ESTIMATED: Duration = Duration::from_secs(1);

/// Work that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    pub kind: WorkKind,
    pub since: Timestamp,
    /// What it is and how far, in words.
    pub text: String,
}

/// Kind of work. Work of another kind is told anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkKind {
    Waiting,
    Changing,
}

impl Status {
    /// Returns the long work that is under way, if there is any.
    pub fn work(&self, now: Timestamp) -> Option<Work> {
        if let Some(change) = &self.pass.under_way {
            return Some(Work {
                kind: WorkKind::Changing,
                since: change.since,
                text: changing(change, self.pass.pending, now),
            });
        }
        // There was no status at all before the kernel was read for the first time.
        if self.source.good_at.is_some() || self.at == Timestamp::default() {
            return None;
        }
        let since = self.since.unwrap_or(self.at);
        let configured = self.source.configured.join(", ");
        let why = match &self.source.failure {
            Some(failure) => format!("{}, {} attempts", failure.error, failure.attempts),
            None => "none is taken in yet".to_owned(),
        };
        let text = format!(
            "waiting for {} for the first state from {configured}: {why}; the kernel keeps what it has",
            age(since, now)
        );
        Some(Work { kind: WorkKind::Waiting, since, text })
    }
}

fn changing(change: &LongChange, pending: usize, now: Timestamp) -> String {
    let LongChange { operations, since, is_repair } = change;
    let what = if *is_repair { "repairing what another program changed in" } else { "programming" };
    let done = operations.saturating_sub(pending);
    let mut text = format!("{what} the kernel: {done} of {operations} operations in {}", age(*since, now));
    let took = Duration::try_from(now.duration_since(*since)).unwrap_or_default();
    if done > 0 && took >= ESTIMATED {
        // The kernel takes about as long for each.
        let left = took.as_secs_f64() / done as f64 * pending as f64;
        text += &format!(", about {:#} left", SignedDuration::from_secs(left.ceil() as i64));
    }
    text
}

/// Which work was told in the log, and how often.
#[derive(Debug, Default)]
pub struct ToldWork {
    work: Option<(WorkKind, Timestamp)>,
    times: usize,
}

impl ToldWork {
    /// Returns true if work is to be told now: sparsely, and ever more so.
    pub fn is_due(&mut self, work: &Work, now: Timestamp) -> bool {
        if self.work != Some((work.kind, work.since)) {
            *self = Self { work: Some((work.kind, work.since)), times: 0 };
        }
        let took = Duration::try_from(now.duration_since(work.since)).unwrap_or_default();
        let last = TOLD.last().copied().unwrap_or_default();
        let beyond = u32::try_from((self.times + 2).saturating_sub(TOLD.len())).unwrap_or(u32::MAX);
        let due = TOLD.get(self.times).copied().unwrap_or_else(|| last.saturating_mul(beyond));
        if took < due {
            return false;
        }
        self.times += 1;
        true
    }

    /// Returns true if there was work that was told and is over.
    pub fn end(&mut self) -> bool {
        std::mem::take(self).times > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Failure;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn change(is_repair: bool, pending: usize) -> Status {
        let mut status = Status { at: at(1), ..Status::default() };
        status.source.good_at = Some(at(1));
        status.pass.under_way = Some(LongChange { operations: 5_000, since: at(10), is_repair });
        status.pass.pending = pending;
        status
    }

    #[test]
    fn a_change_is_told_with_what_is_left() {
        let text = |status: &Status, second| status.work(at(second)).unwrap().text;
        assert_eq!(text(&change(false, 5_000), 10), "programming the kernel: 0 of 5000 operations in 0s");
        assert_eq!(
            text(&change(true, 4_000), 12),
            "repairing what another program changed in the kernel: 1000 of 5000 operations in 2s, about 8s left"
        );
        let mut idle = change(false, 0);
        idle.pass.under_way = None;
        assert_eq!(idle.work(at(12)), None);
    }

    #[test]
    fn waiting_for_the_first_state_is_work() {
        let mut status = Status { at: at(10), since: Some(at(10)), ..Status::default() };
        status.source.configured = vec!["http://10.0.0.11:5050".to_owned()];
        let text = status.work(at(25)).unwrap().text;
        assert!(
            text.starts_with(
                "waiting for 15s for the first state from http://10.0.0.11:5050: none is taken in yet"
            ),
            "{text}"
        );
        status.source.failure = Some(Failure { error: "connection refused".into(), at: at(20), attempts: 3 });
        assert!(
            status.work(at(25)).unwrap().text.contains("connection refused, 3 attempts; the kernel keeps")
        );
        assert_eq!(Status::default().work(at(25)), None);
    }

    #[test]
    fn work_is_told_ever_more_sparsely() {
        let work = |since| Work { kind: WorkKind::Changing, since: at(since), text: String::new() };
        let mut told = ToldWork::default();
        let times: Vec<i64> = (0..2_000).filter(|second| told.is_due(&work(0), at(*second))).collect();
        assert_eq!(times, [5, 20, 60, 300, 600, 900, 1_200, 1_500, 1_800]);
        assert!(told.end() && !told.end());
        // What is quick is never told.
        assert!(!told.is_due(&work(2_000), at(2_004)) && !told.end());
    }
}
