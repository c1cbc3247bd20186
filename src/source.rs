//! Where the state of the cluster comes from, and the loop that keeps asking for it.
//!
//! A source yields complete snapshots. The loop publishes the newest one with the health of the
//! source in one [`Report`]; a failure never takes the last good snapshot away. What several sources
//! say is put together in [`combined`].

use std::path::PathBuf;

use serde::Deserialize;

use crate::cluster::Snapshot;

pub mod combined;
pub mod configured;
pub mod driver;
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

pub use location::Location;
pub use report::{Failure, Report};
use schedule::Pace;

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
    Document { place: String, error: crate::mesos::Error },
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
