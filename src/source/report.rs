//! What a source says, for the reader of its channel.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cluster::Snapshot;

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
