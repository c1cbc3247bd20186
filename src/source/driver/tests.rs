//! The loop over sources that answer by a script, in paused time.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::source::schedule::PollSchedule;

const BACKOFF: Backoff = Backoff { interval: Duration::from_secs(2), max: Duration::from_secs(30) };

proptest! {
    #[test]
    fn pauses_grow_to_a_bound(failures in 0u32..100) {
        let pause = jittered(BACKOFF.pause(failures));
        prop_assert!(pause >= BACKOFF.interval.mul_f64(0.8) && pause <= BACKOFF.max.mul_f64(1.2));
        prop_assert!(BACKOFF.pause(failures) <= BACKOFF.pause(failures + 1));
    }
}

#[test]
fn backoff_doubles_the_interval_and_never_goes_below_it() {
    let seconds = |backoff: Backoff| [1, 2, 3, 4, 5, 6, 99].map(|failures| backoff.pause(failures).as_secs());
    assert_eq!(seconds(BACKOFF), [2, 4, 8, 16, 30, 30, 30]);
    assert_eq!(seconds(Backoff { interval: Duration::from_secs(60), ..BACKOFF }), [60; 7]);
}

/// Gives its answers in order, then none.
struct Script(VecDeque<Result<Fetched<u32>, Error>>);

impl Source for Script {
    type Item = u32;

    async fn next(&mut self) -> Result<Fetched<u32>, Error> {
        match self.0.pop_front() {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    fn origin(&self) -> String {
        "script".to_owned()
    }

    fn schedule(&self) -> PollSchedule {
        PollSchedule { interval: Duration::from_secs(5), ..PollSchedule::default() }
    }
}

fn failed() -> Result<Fetched<u32>, Error> {
    Err(Error::Masters(vec!["http://m1:5050: no answer in time".to_owned()]))
}

#[tokio::test(start_paused = true)]
async fn run_keeps_the_last_snapshot_through_failures_and_counts_them() {
    let answers = [Ok(Fetched::New(1)), failed(), failed(), Ok(Fetched::Unchanged), Ok(Fetched::New(2))];
    let (sender, mut reports) = watch::channel(Report::default());
    let running = CancellationToken::new();
    let task = tokio::spawn(run((Script(answers.into()), Arc::default()), BACKOFF, sender, running.clone()));
    let mut seen = Vec::new();
    for _ in 0..5 {
        reports.changed().await.unwrap();
        let report = reports.borrow_and_update();
        let attempts = report.failure.as_ref().map(|failure| failure.attempts);
        seen.push((report.snapshot.as_deref().copied(), report.sequence, attempts));
    }
    assert_eq!(
        seen,
        [
            (Some(1), 1, None),
            (Some(1), 1, Some(1)),
            (Some(1), 1, Some(2)),
            (Some(1), 1, None),
            (Some(2), 2, None)
        ]
    );
    assert_eq!(reports.borrow().place, "script");
    running.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_three_intervals_late_is_told_until_it_comes() {
    let started = Instant::now();
    // The second request gets no answer before 60 s.
    let (sender, mut reports) = watch::channel(Report::default());
    let running = CancellationToken::new();
    let task = tokio::spawn(run((Slow(0), Arc::default()), BACKOFF, sender, running.clone()));
    reports.wait_for(|report| report.overdue.is_some()).await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 15);
    assert_eq!(
        reports.borrow().overdue.as_deref(),
        Some("slow has not answered for 3 intervals, asked every 5s")
    );
    assert!(reports.borrow().failure.is_none());
    reports.wait_for(|report| report.overdue.is_none()).await.unwrap();
    assert!(started.elapsed().as_secs() >= 60);
    running.cancel();
    task.await.unwrap();
}

/// Answers at once, and then after a minute each time.
struct Slow(u32);

impl Source for Slow {
    type Item = u32;

    async fn next(&mut self) -> Result<Fetched<u32>, Error> {
        self.0 += 1;
        if self.0 > 1 {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        Ok(Fetched::New(self.0))
    }

    fn origin(&self) -> String {
        "slow".to_owned()
    }

    fn schedule(&self) -> PollSchedule {
        PollSchedule { interval: Duration::from_secs(5), ..PollSchedule::default() }
    }
}
