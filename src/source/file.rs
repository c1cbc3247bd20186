//! A state document on disk, read again when it changes.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::schedule::Pace;
use super::{Error, Fetched, Source};
use crate::cluster::Snapshot;
use crate::mesos;

/// The file, and what it was like when it was last read.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    interval: Duration,
    seen: Option<Version>,
}

/// Changes whenever somebody writes or replaces the file.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    modified: Option<SystemTime>,
    inode: u64,
    size: u64,
}

impl File {
    pub fn new(path: PathBuf, interval: Duration) -> Self {
        Self { path, interval, seen: None }
    }

    fn error(&self, error: std::io::Error) -> Error {
        Error::File { path: self.path.clone(), error }
    }
}

impl Source for File {
    type Item = Snapshot;

    async fn next(&mut self) -> Result<Fetched, Error> {
        use std::os::unix::fs::MetadataExt;

        let metadata = tokio::fs::metadata(&self.path).await.map_err(|error| self.error(error))?;
        let version =
            Version { modified: metadata.modified().ok(), inode: metadata.ino(), size: metadata.size() };
        if self.seen.as_ref() == Some(&version) {
            return Ok(Fetched::Unchanged);
        }
        // Not noted as seen until it was good: a half-written file is read again.
        self.seen = None;
        let bytes = tokio::fs::read(&self.path).await.map_err(|error| self.error(error))?;
        let parsed = tokio::task::spawn_blocking(move || mesos::parse(&bytes, None)).await?;
        let snapshot = parsed.map_err(|error| Error::Document { place: self.place(), error })?;
        self.seen = Some(version);
        Ok(Fetched::New(snapshot))
    }

    fn place(&self) -> String {
        format!("file:{}", self.path.display())
    }

    fn pace(&self) -> Pace {
        Pace { interval: self.interval, ..Pace::default() }
    }
}
