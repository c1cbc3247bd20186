//! The loop that asks a source and publishes its answers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::schedule::jittered;
use super::{Error, Failure, Fetched, Report, Source};

/// Characters of a failure that are kept: an error may quote what a server sent.
const MAX_ERROR: usize = 4_000;

/// Pauses after failed attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Interval of good attempts, which failures double again and again.
    pub interval: Duration,
    /// Longest pause, unless the interval is longer.
    pub max: Duration,
}

impl Backoff {
    /// Returns the pause after so many failures in a row, before jitter.
    ///
    /// For example, 2s, 4s, 8s, 16s, 30s, 30s with an interval of 2s and at most 30s; after a failure
    /// that may be over (`failures` is 0), the interval.
    pub fn pause(&self, failures: u32) -> Duration {
        match failures {
            0 => self.interval,
            // Beyond this any interval has passed any maximum.
            failures => self
                .interval
                .saturating_mul(2u32.saturating_pow(failures.min(16)))
                .min(self.max.max(self.interval)),
        }
    }
}

/// Asks `source` until `shutdown` and publishes every change of its report.
pub async fn run<S: Source>(
    mut source: S,
    backoff: Backoff,
    reports: watch::Sender<Report<S::Item>>,
    shutdown: CancellationToken,
) {
    let mut failures = 0;
    loop {
        let answer = tokio::select! {
            () = shutdown.cancelled() => return,
            answer = source.next() => answer,
        };
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

/// Puts an answer into the report. A failure leaves the last snapshot there.
fn publish<S: Source>(
    reports: &watch::Sender<Report<S::Item>>,
    source: &S,
    answer: Result<Fetched<S::Item>, Error>,
) {
    reports.send_modify(|report| match answer {
        Ok(fetched) => {
            if let Some(failure) = report.failure.take() {
                tracing::info!(source = source.origin(), attempts = failure.attempts, "source answers again");
            }
            // Also of an unchanged document: it confirms the last one.
            report.good_at = Some(Timestamp::now());
            report.place = source.origin();
            report.pace = source.schedule().to_string();
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
            report.failure = Some(Failure { error, at: Timestamp::now(), attempts });
        }
    });
}

#[cfg(test)]
mod tests;
