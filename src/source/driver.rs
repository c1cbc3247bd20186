//! The loop that keeps asking a source.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Error, Failure, Fetched, Report, Source, settings};

/// Asks `source` until `shutdown` and publishes every change of its report.
pub async fn run<S: Source>(
    mut source: S,
    config: settings::Source,
    reports: watch::Sender<Report<S::Item>>,
    shutdown: CancellationToken,
) {
    let mut failures = 0;
    loop {
        let answer = tokio::select! {
            () = shutdown.cancelled() => return,
            answer = source.next() => answer,
        };
        let failed = publish(&reports, &source, answer) > 0;
        failures = if failed { failures + 1 } else { 0 };
        let interval = if failed { config.interval.0 } else { source.pace().pause() };
        let pause = pause(interval, config.max_backoff.0, failures, rand::random());
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            // Whatever failed may be over now.
            () = source.wake() => failures = 0,
        }
    }
}

/// Returns the number of failed attempts in a row.
fn publish<S: Source>(
    reports: &watch::Sender<Report<S::Item>>,
    source: &S,
    answer: Result<Fetched<S::Item>, Error>,
) -> u32 {
    let mut attempts = 0;
    reports.send_modify(|report| match answer {
        Ok(fetched) => {
            if let Some(failure) = report.failure.take() {
                tracing::info!(source = source.place(), attempts = failure.attempts, "source answers again");
            }
            report.good_at = Some(Timestamp::now());
            report.place = source.place();
            report.pace = source.pace().to_string();
            if let Fetched::New(snapshot) = fetched {
                report.snapshot = Some(Arc::new(snapshot));
                report.sequence += 1;
            }
        }
        Err(error) => {
            let before = report.failure.as_ref().map_or(0, |failure| failure.attempts);
            attempts = before + 1;
            let error = error.to_string();
            if before == 0 {
                tracing::warn!(%error, "source does not answer, keeping the last state");
            } else {
                tracing::debug!(%error, attempts, "source still does not answer");
            }
            report.failure = Some(Failure { error, at: Timestamp::now(), attempts });
        }
    });
    attempts
}

/// Time until the next attempt: the interval, doubled for each failure up to `max`, and varied by a
/// fifth either way, so that the nodes of a cluster do not ask all at once. `random` is in 0..1.
fn pause(interval: Duration, max: Duration, failures: u32, random: f64) -> Duration {
    let doubled = interval.saturating_mul(2u32.saturating_pow(failures.min(16)));
    let base = if failures == 0 { interval } else { doubled.min(max.max(interval)) };
    base.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_grow_to_a_bound(failures in 0u32..100, random in 0.0f64..1.0) {
            let (interval, max) = (Duration::from_secs(2), Duration::from_secs(30));
            let pause = pause(interval, max, failures, random);
            prop_assert!(pause >= interval.mul_f64(0.8) && pause <= max.mul_f64(1.2));
        }
    }
}
