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
//! The crate's documentation lists the places that a new source takes; [`configured`] opens them all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use crate::cluster::Snapshot;
use crate::marathon::MarathonMemory;

pub mod asked;
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
pub mod metrics;
mod report;
pub mod schedule;
pub mod settings;
pub mod traffic;

#[cfg(test)]
mod testing;

pub use feed::Feed;
pub use location::Location;
pub use report::{Failure, Report};
use schedule::PollSchedule;
use traffic::Traffic;

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
    #[error("no Mesos master gave a state: {}", listed(.0, "source.masters"))]
    Masters(Vec<String>),
    #[error("the Mesos agent of this node gave no state: {}", listed(.0, "source.agent"))]
    Agent(Vec<String>),
    #[error("no Marathon gave an answer: {}", listed(.0, "marathon.urls"))]
    Marathon(Vec<String>),
    #[error("{path} cannot be used for TLS: {error}")]
    Pem { path: PathBuf, error: String },
    #[error("cannot set up an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    #[error("reading an answer was cut short inside of l4lbd: {0}; see the log")]
    Task(#[from] tokio::task::JoinError),
}

/// Lists the failures of the servers that `key` configures.
fn listed(failures: &[String], key: &str) -> String {
    match failures {
        [] => format!("none is known; check {key}"),
        failures => failures.join("; "),
    }
}

/// A server or a file that can be asked for the state of the cluster again and again.
pub trait Source: Send {
    /// The answer: a snapshot of the cluster, or a part of one.
    type Item: Send + Sync;

    /// Asks once. The future is dropped midway at shutdown, so that nothing is left half done at any of its
    /// waits.
    fn next(&mut self) -> impl Future<Output = Result<Fetched<Self::Item>, Error>> + Send;

    /// Returns the origin of the last good answer: a URL without credentials, or `file:` and a path. Empty
    /// before the first one.
    fn origin(&self) -> String;

    /// Returns the pause after a good answer, with the reasons for its length.
    fn schedule(&self) -> PollSchedule;

    /// Returns the addresses of the servers that were asked, each with the name by which it was; no VIP may have
    /// them.
    fn servers(&self) -> BTreeMap<IpAddr, String> {
        BTreeMap::new()
    }

    /// Returns what a later run should know of the answers; `None` where they say all by themselves.
    fn memory(&self) -> Option<Arc<MarathonMemory>> {
        None
    }

    /// Returns the traffic with the servers, which goes on being counted.
    fn traffic(&self) -> Arc<Traffic> {
        Arc::default()
    }

    /// Waits until there is a reason to ask before the pause is over. The future is dropped midway at the end
    /// of each pause, and loses no reason by that.
    fn wake(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_without_servers_names_the_key_that_has_none() {
        for (error, key) in [
            (Error::Masters(Vec::new()), "source.masters"),
            (Error::Agent(Vec::new()), "source.agent"),
            (Error::Marathon(Vec::new()), "marathon.urls"),
        ] {
            assert!(error.to_string().ends_with(&format!("none is known; check {key}")), "{error}");
        }
    }
}
