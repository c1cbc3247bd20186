//! Metrics of the sources: requests, their errors, and the age of what is known.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::schedule::PollSchedule;
use super::traffic::{RequestFailure, Traffic};
use super::{Error, Mode};
use crate::metrics::histogram::Histogram;
use crate::metrics::{Collect, Counter, Family, Writer};

/// Bounds of the time that a question takes, with reading the answer, in seconds.
const BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

const INFO: Family = Family::info(
    "l4lbd_source",
    &["source", "mode"],
    "Configured sources. The source is cluster (the masters or a file), agent or marathon; the mode is source.mode",
);
const ASKED: Family = Family::histogram(
    "l4lbd_source_duration_seconds",
    &["source"],
    "Time from a question to a source until its answer was read, or failed. A stream of events is a question that is \
     answered by the next event",
);
const FAILURES: Family = Family::counter(
    "l4lbd_source_failures",
    &["source", "kind"],
    "Questions without a usable answer: kind is servers if no server gave one, file, document, tls, or internal",
);
const REQUEST_ERRORS: Family = Family::counter(
    "l4lbd_source_request_errors",
    &["source", "kind"],
    "HTTP requests that failed: kind is connect, timeout, status, redirect, credentials or body",
);
const RECEIVED: Family = Family::counter(
    "l4lbd_source_received_bytes",
    &["source"],
    "Bytes of documents and events as they came, compressed where the server does so",
);
const GOOD_AT: Family = Family::gauge(
    "l4lbd_source_good_timestamp_seconds",
    &["source"],
    "Time at which the source last confirmed its state. Its age is time() minus this",
);
const INTERVAL: Family = Family::gauge(
    "l4lbd_source_interval_seconds",
    &["source"],
    "Time between two questions, which source.budget may lengthen",
);

/// Kinds of failed questions.
const KINDS: [&str; 5] = ["servers", "file", "document", "tls", "internal"];

/// Returns the place of an error's kind.
fn kind(error: &Error) -> usize {
    match error {
        Error::Masters(_) | Error::Agent(_) | Error::Marathon(_) => 0,
        Error::File { .. } => 1,
        Error::Document { .. } => 2,
        Error::Pem { .. } | Error::Client(_) => 3,
        Error::Task(_) => 4,
    }
}

/// Metrics of one source.
#[derive(Debug)]
pub struct Meter {
    /// `None` until the source is asked.
    traffic: Mutex<Option<Arc<Traffic>>>,
    asked: Histogram,
    failures: [Counter; KINDS.len()],
    /// Milliseconds since 1970; 0 before the first good answer.
    good_at: AtomicU64,
    /// Milliseconds.
    interval: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            traffic: Mutex::default(),
            asked: Histogram::new(BOUNDS),
            failures: Default::default(),
            good_at: AtomicU64::new(0),
            interval: AtomicU64::new(0),
        }
    }
}

impl Meter {
    /// Notes that a source is asked, with the traffic that this makes.
    pub fn begin(&self, traffic: Arc<Traffic>) {
        *self.traffic.lock().unwrap_or_else(PoisonError::into_inner) = Some(traffic);
    }

    /// Notes that the source is no longer asked.
    pub fn end(&self) {
        *self.traffic.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Counts a question that took this time.
    pub fn count(&self, took: Duration, failure: Option<&Error>, schedule: &PollSchedule) {
        self.asked.observe(took);
        self.interval.store(millis(schedule.interval), Ordering::Relaxed);
        match failure {
            Some(error) => {
                if let Some(counter) = self.failures.get(kind(error)) {
                    counter.increment();
                }
            }
            None => {
                let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
                self.good_at.store(now, Ordering::Relaxed);
            }
        }
    }

    fn traffic(&self) -> Option<Arc<Traffic>> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(millis: &AtomicU64) -> f64 {
    Duration::from_millis(millis.load(Ordering::Relaxed)).as_secs_f64()
}

/// Metrics of all sources by their roles.
#[derive(Debug, Default)]
pub struct SourceMetrics {
    pub cluster: Arc<Meter>,
    pub agent: Arc<Meter>,
    pub marathon: Arc<Meter>,
    mode: Mutex<Mode>,
}

impl SourceMetrics {
    /// Returns the way in which the sources are read.
    pub fn mode(&self) -> Mode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes in which way the sources are read.
    pub fn set_mode(&self, mode: Mode) {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }
}

impl Collect for SourceMetrics {
    fn collect(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        let mode = match self.mode() {
            Mode::Poll => "poll",
            Mode::Stream => "stream",
            Mode::Agent => "agent",
        };
        let all = [("cluster", &self.cluster), ("agent", &self.agent), ("marathon", &self.marathon)];
        let used = all.into_iter().filter_map(|(name, meter)| Some((name, meter, meter.traffic()?)));
        // Only those that are configured.
        let used: Vec<(&str, &Arc<Meter>, Arc<Traffic>)> = used.collect();
        writer.family(INFO, |samples| used.iter().try_for_each(|(name, ..)| samples.info([name, mode])))?;
        writer.family(ASKED, |samples| {
            used.iter().try_for_each(|(name, meter, _)| samples.histogram([name], &meter.asked.counts()))
        })?;
        writer.family(FAILURES, |samples| {
            for (name, meter, _) in &used {
                // Also those that never happened, so that a rate is there from the first one on.
                for (kind, counter) in KINDS.iter().zip(&meter.failures) {
                    samples.counter([name, kind], counter.get())?;
                }
            }
            Ok(())
        })?;
        writer.family(REQUEST_ERRORS, |samples| {
            for (name, _, traffic) in &used {
                for ((_, kind), counter) in RequestFailure::ALL.iter().zip(&traffic.failures) {
                    samples.counter([name, kind], counter.get())?;
                }
            }
            Ok(())
        })?;
        writer.family(RECEIVED, |samples| {
            used.iter().try_for_each(|(name, _, traffic)| samples.counter([name], traffic.received.get()))
        })?;
        writer.family(GOOD_AT, |samples| {
            // Without a good answer there is no time to tell, and 0 would be one of 1970.
            let known = used.iter().filter(|(_, meter, _)| meter.good_at.load(Ordering::Relaxed) > 0);
            known.clone().try_for_each(|(name, meter, _)| samples.gauge([name], seconds(&meter.good_at)))
        })?;
        writer.family(INTERVAL, |samples| {
            used.iter().try_for_each(|(name, meter, _)| samples.gauge([name], seconds(&meter.interval)))
        })
    }
}
