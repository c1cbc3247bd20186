//! The newest snapshot with the health of its source, for the reader of a channel.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cluster::Snapshot;
use crate::marathon::MarathonMemory;

/// The newest snapshot and the health of its source.
#[derive(Debug)]
pub struct Report<T = Snapshot> {
    pub snapshot: Option<Arc<T>>,
    /// Number of snapshots so far, by which a reader recognises a new one.
    pub sequence: u64,
    /// Time at which the source last confirmed that the snapshot is current.
    pub good_at: Option<Timestamp>,
    /// URL that the snapshot came from, without credentials.
    pub place: String,
    /// Interval of the requests, with the reasons for its length; for people.
    pub pace: String,
    /// Addresses of the servers that were asked, with their names.
    pub servers: Arc<BTreeMap<IpAddr, String>>,
    /// Set while a request has had no answer for so long that the snapshot may be outdated, in words.
    pub overdue: Option<String>,
    pub failure: Option<Failure>,
    /// Memory of Marathon's answers, for a later run.
    pub marathon: Option<Arc<MarathonMemory>>,
}

impl<T> Default for Report<T> {
    fn default() -> Self {
        Self {
            snapshot: None,
            sequence: 0,
            good_at: None,
            place: String::new(),
            pace: String::new(),
            servers: Arc::default(),
            overdue: None,
            failure: None,
            marathon: None,
        }
    }
}

/// Copies no snapshot, so that `T` need not be `Clone`.
impl<T> Clone for Report<T> {
    fn clone(&self) -> Self {
        Self {
            snapshot: self.snapshot.clone(),
            sequence: self.sequence,
            good_at: self.good_at,
            place: self.place.clone(),
            pace: self.pace.clone(),
            servers: Arc::clone(&self.servers),
            overdue: self.overdue.clone(),
            failure: self.failure.clone(),
            marathon: self.marathon.clone(),
        }
    }
}

/// Failed attempts since the last good one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Reason for the last failure.
    pub error: String,
    /// Time of the last failure.
    pub at: Timestamp,
    pub attempts: u32,
}
