//! The loop that asks a source and publishes its answers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metrics::Meter;
use super::schedule::{PollSchedule, jittered};
use super::{Error, Failure, Fetched, Report, Source};

/// Characters of a failure that are kept: an error may quote what a server sent.
const MAX_ERROR: usize = 4_000;

/// Intervals without a good answer after which the age of what is believed is said.
const OVERDUE: u32 = 3;

/// Shortest such time: with intervals of a fraction of a second, an ordinary answer would be late.
const SOONEST: Duration = Duration::from_secs(1);

/// Longest time that is waited for; a longer one would be of no use, and a clock might not have it.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// Pauses after failed attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Interval of good attempts, which failures double again and again.
    pub interval: Duration,
    /// Longest pause, unless the interval is longer.
    pub max: Duration,
}

impl Backoff {
    /// Returns the pause after so many failures in a row, at least one, before jitter.
    ///
    /// For example, 2s, 4s, 8s, 16s, 30s, 30s with an interval of 2s and at most 30s.
    pub fn pause(&self, failures: u32) -> Duration {
        // Beyond this any interval has passed any maximum.
        let doublings = failures.saturating_sub(1).min(16);
        self.interval.saturating_mul(2u32.saturating_pow(doublings)).min(self.max.max(self.interval))
    }
}

/// Asks `source` until `shutdown`, publishes every change of its report, and counts into its meter.
pub async fn run<S: Source>(
    (mut source, meter): (S, Arc<Meter>),
    backoff: Backoff,
    reports: watch::Sender<Report<S::Item>>,
    shutdown: CancellationToken,
) {
    let mut failures = 0;
    meter.begin(source.traffic());
    // Time of the last good answer.
    let mut good: Option<Instant> = None;
    loop {
        let due = good.map(|good| (good + patience(&source.schedule()), late(&source)));
        let started = Instant::now();
        let asking = ask_in_time(&mut source, due, &reports);
        let answer = tokio::select! {
            () = shutdown.cancelled() => return,
            answer = asking => answer,
        };
        meter.count(started.elapsed(), answer.as_ref().err(), &source.schedule());
        good = if answer.is_ok() { Some(Instant::now()) } else { good };
        let failed = answer.is_err();
        publish(&reports, &source, answer);
        failures = if failed { failures + 1 } else { 0 };
        let pause = if failed { backoff.pause(failures) } else { source.schedule().pause() };
        // Without jitter the nodes of a cluster would keep asking all at once.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(jittered(pause)) => {}
            // Another leader, or an event: the cause of earlier failures may be over.
            () = source.wake() => failures = 0,
        }
    }
}

/// Asks once. The report says meanwhile when the answer is late, since a server that swallows requests is
/// noticed only at `source.timeout` otherwise; `due` has the time at which it is, and the words.
async fn ask_in_time<S: Source>(
    source: &mut S,
    due: Option<(Instant, String)>,
    reports: &watch::Sender<Report<S::Item>>,
) -> Result<Fetched<S::Item>, Error> {
    let asking = source.next();
    tokio::pin!(asking);
    if let Some((due, late)) = due {
        tokio::select! {
            answer = &mut asking => return answer,
            () = tokio::time::sleep_until(due) => {}
        }
        // A failure says more, and nothing is taken back by it.
        reports.send_if_modified(|report| {
            let is_news = report.failure.is_none() && report.overdue.is_none();
            if is_news {
                report.overdue = Some(late);
            }
            is_news
        });
    }
    asking.await
}

/// Returns the time after a good answer within which the next one is expected. A stream of events has a watch
/// of its own over its heartbeats, and `Duration::MAX` would have no time.
fn patience(schedule: &PollSchedule) -> Duration {
    schedule.interval.saturating_mul(OVERDUE).clamp(SOONEST, FAR)
}

/// Returns what is said of a source whose answer is late.
fn late<S: Source>(source: &S) -> String {
    format!("{} has not answered for {OVERDUE} intervals, asked {}", source.origin(), source.schedule())
}

/// Puts an answer into the report. A failure leaves the last snapshot there.
fn publish<S: Source>(
    reports: &watch::Sender<Report<S::Item>>,
    source: &S,
    answer: Result<Fetched<S::Item>, Error>,
) {
    let servers = source.servers();
    reports.send_modify(|report| {
        // Of a failure as well: the names were resolved all the same.
        if *report.servers != servers {
            report.servers = Arc::new(servers);
        }
        take_answer(report, source, answer);
    });
}

/// Puts the answer itself into the report.
fn take_answer<S: Source>(report: &mut Report<S::Item>, source: &S, answer: Result<Fetched<S::Item>, Error>) {
    match answer {
        Ok(fetched) => {
            if let Some(failure) = report.failure.take() {
                tracing::info!(source = source.origin(), attempts = failure.attempts, "source answers again");
            }
            // Also of an unchanged document: it confirms the last one.
            report.good_at = Some(Timestamp::now());
            report.place = source.origin();
            report.pace = source.schedule().to_string();
            report.overdue = None;
            // Until there is an answer, that of an earlier run stays.
            report.marathon = source.memory().or(report.marathon.take());
            if let Fetched::New(snapshot) = fetched {
                report.snapshot = Some(Arc::new(snapshot));
                report.sequence += 1;
            }
        }
        Err(error) => {
            let attempts = report.failure.as_ref().map_or(0, |failure| failure.attempts) + 1;
            let error: String = error.to_string().chars().take(MAX_ERROR).collect();
            // Once per outage: the status shows the newest reason.
            if attempts == 1 {
                tracing::warn!(%error, "source does not answer, trying again; VIPs stay as they are until it does");
            } else {
                tracing::debug!(%error, attempts, "source still does not answer");
            }
            report.overdue = None;
            report.failure = Some(Failure { error, at: Timestamp::now(), attempts });
        }
    }
}

#[cfg(test)]
mod tests;
