//! A state document on disk, read again when it changes.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::schedule::PollSchedule;
use super::{Error, Fetched, Source};
use crate::cluster::Snapshot;
use crate::mesos;

/// A file with a state document in any format of Mesos.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    interval: Duration,
    /// Version that was last read.
    seen: Option<FileVersion>,
}

/// Properties of a file that change whenever it is written or replaced.
#[derive(Debug, PartialEq, Eq)]
struct FileVersion {
    modified: Option<SystemTime>,
    inode: u64,
    size: u64,
}

impl FileSource {
    /// Looks for changes of `path` every `interval`.
    pub fn new(path: PathBuf, interval: Duration) -> Self {
        Self { path, interval, seen: None }
    }

    fn error(&self, error: std::io::Error) -> Error {
        Error::File { path: self.path.clone(), error }
    }
}

impl Source for FileSource {
    type Item = Snapshot;

    async fn next(&mut self) -> Result<Fetched, Error> {
        use std::os::unix::fs::MetadataExt;

        // The version comes first: a change between both readings is then found by the next one.
        let metadata = tokio::fs::metadata(&self.path).await.map_err(|error| self.error(error))?;
        let version =
            FileVersion { modified: metadata.modified().ok(), inode: metadata.ino(), size: metadata.size() };
        if self.seen.as_ref() == Some(&version) {
            return Ok(Fetched::Unchanged);
        }
        // Set once the document was good: a half-written file is read again, and its error repeated.
        self.seen = None;
        let bytes = tokio::fs::read(&self.path).await.map_err(|error| self.error(error))?;
        let parsed = tokio::task::spawn_blocking(move || mesos::parse(&bytes, None)).await?;
        let snapshot = parsed.map_err(|error| Error::Document { origin: self.origin(), error })?;
        self.seen = Some(version);
        Ok(Fetched::New(snapshot))
    }

    fn origin(&self) -> String {
        format!("file:{}", self.path.display())
    }

    fn schedule(&self) -> PollSchedule {
        PollSchedule { interval: self.interval, ..PollSchedule::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"id":"M","elected_time":1.0,"slaves":[],"frameworks":[]}"#;

    #[tokio::test]
    async fn a_document_is_read_again_when_it_changes_and_while_it_is_broken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let mut source = FileSource::new(path.clone(), Duration::from_secs(2));
        let text = source.next().await.unwrap_err().to_string();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        std::fs::write(&path, DOCUMENT).unwrap();
        assert!(matches!(source.next().await, Ok(Fetched::New(_))));
        assert!(matches!(source.next().await, Ok(Fetched::Unchanged)));
        std::fs::write(&path, &DOCUMENT[..20]).unwrap();
        for _ in 0..2 {
            let text = source.next().await.unwrap_err().to_string();
            assert!(text.contains(path.to_str().unwrap()) && text.contains("EOF"), "{text}");
        }
        std::fs::write(&path, DOCUMENT.replace("\"M\"", "\"N\"")).unwrap();
        let Ok(Fetched::New(snapshot)) = source.next().await else { panic!("no snapshot") };
        assert_eq!(snapshot.master.unwrap().id, "N");
    }
}
