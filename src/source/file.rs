//! A state document on disk, read again when it changes.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::bounded::Bounded;
use super::schedule::PollSchedule;
use super::traffic::Traffic;
use super::{Error, Fetched, Source};
use crate::cluster::Snapshot;
use crate::mesos::cursor::ReadError;
use crate::mesos::reading::{DocumentReader, Reading, Work};
use crate::mesos::{self, StateFormat};

/// A file with a state document in any format of Mesos.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    interval: Duration,
    /// Version that was last read.
    seen: Option<FileVersion>,
    /// Knows the items of the last document.
    reader: DocumentReader,
    traffic: Arc<Traffic>,
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
        Self { path, interval, seen: None, reader: DocumentReader::default(), traffic: Arc::default() }
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
        let file = tokio::fs::File::open(&self.path).await.map_err(|error| self.error(error))?;
        let file = file.into_std().await;
        let mut reader = std::mem::take(&mut self.reader);
        let read = move || {
            let read = read(&mut reader, file);
            (reader, read)
        };
        let (reader, read) = tokio::task::spawn_blocking(read).await?;
        self.reader = reader;
        self.traffic.receive(usize::try_from(version.size).unwrap_or(usize::MAX));
        let Reading { snapshot, is_same, .. } =
            read.map_err(|error| Error::Document { origin: self.origin(), error })?;
        self.seen = Some(version);
        Ok(if is_same { Fetched::Unchanged } else { Fetched::New(snapshot) })
    }

    fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    fn origin(&self) -> String {
        format!("file:{}", self.path.display())
    }

    fn schedule(&self) -> PollSchedule {
        PollSchedule { interval: self.interval, ..PollSchedule::default() }
    }
}

/// Reads a file in the format that it has: state documents in windows, recordings as a whole.
fn read(reader: &mut DocumentReader, mut file: File) -> Result<Reading, mesos::Error> {
    let unreadable = |error| mesos::Error::Document(ReadError::Document(error));
    let format = mesos::detect(Bounded::document(&file))?;
    file.rewind().map_err(unreadable)?;
    let mut document = Bounded::document(&file);
    if let Some(format) = StateFormat::of(format) {
        return reader.read(document, format, false);
    }
    // What comes after a recording is compared with nothing.
    *reader = DocumentReader::default();
    let mut recording = Vec::new();
    document.read_to_end(&mut recording).map_err(unreadable)?;
    let snapshot = mesos::parse(&recording, Some(format))?;
    Ok(Reading { snapshot, is_same: false, work: Work::default() })
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
