//! Reasons to refuse a whole document of Mesos.

use std::path::PathBuf;

use super::cursor::ReadError;
use super::recordio::FrameError;
use super::rights::HIDDEN;

/// Reason to refuse a whole document; what is wrong inside of one is in `Snapshot::skipped`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("the document is empty")]
    Empty,
    #[error("not JSON: {0}; is this a document of Mesos?")]
    Json(#[from] serde_json::Error),
    #[error("{0}{hint}", hint = hint(.0))]
    Document(#[from] ReadError),
    #[error("the document has more than {most} {what}")]
    TooMany { most: usize, what: &'static str },
    #[error("{HIDDEN}")]
    Hidden,
    /// Holds the missing member.
    #[error("not a Mesos state document: it has no {0:?}; is this the answer of /master/state?")]
    Missing(&'static str),
    #[error("record {record} of the event stream cannot be read: {error}")]
    Event {
        /// Counted from 1.
        record: usize,
        error: serde_json::Error,
    },
    #[error(transparent)]
    RecordIo(#[from] FrameError),
}

/// Returns the likely reason for which a document cannot be read.
fn hint(error: &ReadError) -> &'static str {
    match error {
        ReadError::NotJson { .. } => "; is this a document of Mesos?",
        ReadError::Document(_) => "",
    }
}
