//! Sources of the cluster's state, and the loop that asks them.
//!
//! A [`Source`] yields complete snapshots. The loop ([`driver`]) publishes the newest one together
//! with the health of its source in one [`Report`]; a failure never takes the last good snapshot
//! away. The answers of several sources are put together in [`combined`].
//!
//! What belongs here: requests to servers and files, credentials, pauses between requests. What an
//! answer means is left to [`crate::mesos`] and [`crate::marathon`]; whether a snapshot is believed,
//! to [`crate::cluster::belief`].
//!
//! A new source takes one file, one arm and one settings struct; [`configured`] names the places.

use std::path::PathBuf;

use serde::Deserialize;

use crate::cluster::Snapshot;

mod bounded;
pub mod combined;
pub mod configured;
pub mod driver;
pub mod feed;
pub mod file;
pub mod http;
pub mod location;
pub mod marathon;
pub mod mesos;
mod report;
pub mod schedule;
pub mod settings;

#[cfg(test)]
mod testing;

pub use feed::Feed;
pub use location::Location;
pub use report::{Failure, Report};
use schedule::PollSchedule;

/// Way of asking masters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The state document, again and again.
    #[default]
    Poll,
    /// The events of the operator API, with the whole state now and then.
    Stream,
    /// The node's own agent for its own tasks; masters, less often, for all other tasks.
    Agent,
}

/// Good answer of a source.
#[derive(Debug)]
pub enum Fetched<T = Snapshot> {
    /// A snapshot that may differ from the last one.
    New(T),
    /// The last snapshot is still current.
    Unchanged,
}

/// Reason why a source has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot read the state document {path}: {error}; check that the file exists and that l4lbd may read it"
    )]
    File { path: PathBuf, error: std::io::Error },
    #[error("{origin} cannot be used: {error}")]
    Document { origin: String, error: crate::mesos::Error },
    /// One reason for each master and each election.
    #[error("no Mesos master gave a state: {}", listed(.0))]
    Masters(Vec<String>),
    #[error("the Mesos agent of this node gave no state: {}", listed(.0))]
    Agent(Vec<String>),
    #[error("no Marathon gave an answer: {}", listed(.0))]
    Marathon(Vec<String>),
    #[error("{path} cannot be used for TLS: {error}")]
    Pem { path: PathBuf, error: String },
    #[error("cannot set up an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    #[error("reading an answer was cut short inside of l4lbd: {0}; see the log")]
    Task(#[from] tokio::task::JoinError),
}

fn listed(failures: &[String]) -> String {
    match failures {
        [] => "none is known; check source.masters".to_owned(),
        failures => failures.join("; "),
    }
}

/// A server or a file that can be asked for the state of the cluster again and again.
pub trait Source: Send {
    /// The answer: a snapshot of the cluster, or a part of one.
    type Item: Send + Sync;

    /// Asks once.
    fn next(&mut self) -> impl Future<Output = Result<Fetched<Self::Item>, Error>> + Send;

    /// Returns the URL that the last good answer came from, without credentials.
    fn origin(&self) -> String;

    /// Returns the pause after a good answer, with the reasons for its length.
    fn schedule(&self) -> PollSchedule;

    /// Waits until there is a reason to ask before the pause is over.
    fn wake(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}
