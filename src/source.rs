//! Where the state of the cluster comes from, and the loop that keeps asking for it.
//!
//! A source yields complete snapshots. The loop publishes the newest one with the health of the
//! source in one [`Report`]; a failure never takes the last good snapshot away. What several sources
//! say is put together in [`parts`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::Snapshot;
use crate::mesos;

pub mod credentials;
pub mod feed;
pub mod file;
pub mod http;
pub mod location;
mod login;
pub mod marathon;
pub mod masters;
pub mod pace;
pub mod parts;
pub mod poll;
pub mod secret;
pub mod settings;
pub mod stream;
mod zookeeper;

#[cfg(test)]
mod testing;

pub use feed::Feed;
use file::File;
pub use location::Location;
use pace::Pace;
use poll::Poll;
use stream::Stream;

/// How masters are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The state document, again and again.
    #[default]
    Poll,
    /// The events of the operator API, with the whole state now and then.
    Stream,
    /// The node's own agent for its own tasks; masters only now and then for all others.
    Agent,
}

/// What a source answered.
#[derive(Debug)]
pub enum Fetched<T = Snapshot> {
    New(T),
    /// The same bytes as the last time.
    Unchanged,
}

/// Why a source has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("{place}: {error}")]
    Document { place: String, error: mesos::Error },
    #[error("no master gave a state: {}", .0.join("; "))]
    Masters(Vec<String>),
    #[error("Marathon gave no answer: {}", .0.join("; "))]
    Marathon(Vec<String>),
    #[error("{path} cannot be used for TLS: {error}")]
    Pem { path: PathBuf, error: String },
    #[error("cannot set up an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    #[error("reading the document failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Something that can be asked for the state of the cluster again and again.
pub trait Source: Send {
    /// What it knows.
    type Item: Send + Sync;

    /// Asks once.
    fn next(&mut self) -> impl Future<Output = Result<Fetched<Self::Item>, Error>> + Send;

    /// Where the last good answer came from, for people.
    fn place(&self) -> String;

    /// How long to wait after a good answer.
    fn pace(&self) -> Pace;

    /// Waits until there is a reason to ask sooner than that.
    fn wake(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// The newest snapshot and how its source is doing.
#[derive(Debug)]
pub struct Report<T = Snapshot> {
    pub snapshot: Option<Arc<T>>,
    /// Counts the snapshots, so that a reader sees whether it is a new one.
    pub sequence: u64,
    /// When the source last said that the snapshot is current.
    pub good_at: Option<Timestamp>,
    pub place: String,
    /// How often the source is asked, and why not more often; for people.
    pub pace: String,
    pub failure: Option<Failure>,
}

impl<T> Default for Report<T> {
    fn default() -> Self {
        Self {
            snapshot: None,
            sequence: 0,
            good_at: None,
            place: String::new(),
            pace: String::new(),
            failure: None,
        }
    }
}

/// Copies no snapshot.
impl<T> Clone for Report<T> {
    fn clone(&self) -> Self {
        Self {
            snapshot: self.snapshot.clone(),
            sequence: self.sequence,
            good_at: self.good_at,
            place: self.place.clone(),
            pace: self.pace.clone(),
            failure: self.failure.clone(),
        }
    }
}

/// Failed attempts since the last good one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub error: String,
    pub at: Timestamp,
    pub attempts: u32,
}

/// A source by configuration.
pub enum AnySource {
    File(File),
    Poll(Box<Poll>),
    Stream(Box<Stream>),
}

impl AnySource {
    /// Makes the configured source.
    pub fn new(config: &settings::Source) -> Result<Self, Error> {
        match config.masters.as_slice() {
            [Location::File(path)] => Ok(Self::File(File::new(path.clone(), config.interval.0))),
            _ => Ok(match config.mode {
                Mode::Poll => Self::Poll(Box::new(Poll::new(config)?)),
                // Masters have the rest, which need not be as new.
                Mode::Agent => Self::Poll(Box::new(Poll::new(&settings::Source {
                    interval: config.resync,
                    ..config.clone()
                })?)),
                Mode::Stream => Self::Stream(Box::new(Stream::new(config)?)),
            }),
        }
    }
}

impl Source for AnySource {
    type Item = Snapshot;

    async fn next(&mut self) -> Result<Fetched, Error> {
        match self {
            Self::File(file) => file.next().await,
            Self::Poll(poll) => poll.next().await,
            Self::Stream(stream) => stream.next().await,
        }
    }

    fn place(&self) -> String {
        match self {
            Self::File(file) => file.place(),
            Self::Poll(poll) => poll.place(),
            Self::Stream(stream) => stream.place(),
        }
    }

    fn pace(&self) -> Pace {
        match self {
            Self::File(file) => file.pace(),
            Self::Poll(poll) => poll.pace(),
            Self::Stream(stream) => stream.pace(),
        }
    }

    async fn wake(&mut self) {
        match self {
            Self::File(file) => file.wake().await,
            Self::Poll(poll) => poll.wake().await,
            Self::Stream(stream) => stream.wake().await,
        }
    }
}

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
