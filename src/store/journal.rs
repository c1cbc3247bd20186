//! The believed cluster on disk: a file that grows by what changes, and is made anew now and then.
//!
//! The cluster of 50,000 tasks takes 20 MB, and an event changes one of them. Each line of the file is a record
//! with its checksum: a head, the whole cluster in some parts, and then one record for each picture that was
//! believed after it, with what differs from the one before:
//!
//! ```text
//! {"version":2,"parts":2}             5bbd2b39
//! {"master":{...},"agents":{...}}     0a3f10c2   ─┐ the whole, written at once and put in place by a rename
//! {"tasks":{"set":[...]}}             91b60e55   ─┘
//! {"tasks":{"set":[{...}]}}           77ab01f0   ── a task that became unhealthy
//! {"tasks":{"gone":[{...}]}}          1b4e...    ── cut off by a crash: left out, with what follows it
//! ```
//!
//! So every file, wherever it is cut off or damaged behind the whole, reads as a picture that was believed. The
//! changes are a quarter of the whole at most, which bounds what a start reads, and one byte of change costs five
//! bytes of writing.
//!
//! Earlier versions kept the whole cluster in `cluster.json`. A later one has a reference there, so that an
//! earlier one that meets it says that it is of a later version.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::delta::Delta;
use super::directory::Directory;
use super::growing::GrowingFile;
use super::records::{IntactRecords, record};
use crate::cluster::Snapshot;

/// File of the believed cluster.
pub(super) const JOURNAL: &str = "cluster.journal";

/// File that refers to it, and that has the cluster itself in earlier versions.
pub(super) const REFERENCE: &str = "cluster.json";

/// Format of the file, and of what refers to it.
pub(super) const VERSION: u32 = 2;

/// Part of the whole that the changes behind it may take.
pub(super) const SHARE: u64 = 4;

/// Bytes that the changes may take in any case: a small cluster need not be written whole all the time.
pub(super) const LEAST: u64 = 256 * 1024;

/// First record of the file.
#[derive(Serialize, Deserialize)]
struct JournalHead {
    version: u32,
    /// Number of records after this one that make the whole cluster.
    parts: usize,
}

/// The believed cluster as this run writes it.
#[derive(Debug)]
pub struct Journal {
    /// Cluster as the file has it; `None` where that is in doubt.
    kept: Option<Arc<Snapshot>>,
    file: GrowingFile,
    /// Octets that the file may have.
    limit: u64,
}

/// Extent of a writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalWritten {
    Nothing,
    Change,
    Everything,
}

impl Journal {
    /// Goes on from the cluster that an earlier run left.
    pub fn new(kept: Option<Arc<Snapshot>>) -> Self {
        Self { kept, file: GrowingFile::default(), limit: 0 }
    }

    /// Makes the file say `cluster`. Writes what has changed, or nothing, and returns which.
    ///
    /// # Errors
    /// When the directory cannot be written. The next call writes everything.
    pub fn save(
        &mut self,
        directory: impl FnOnce() -> io::Result<Directory>,
        cluster: &Arc<Snapshot>,
    ) -> io::Result<JournalWritten> {
        // Without it after an error, when it is not known what the file says.
        let delta = self.kept.take().map(|kept| Delta::between(&kept, cluster));
        let written = match delta {
            Some(delta) if delta.is_empty() => JournalWritten::Nothing,
            delta => {
                let directory = directory()?;
                let is_appended = match delta {
                    Some(delta) => self.file.append(&directory, JOURNAL, &record(&delta)?, self.limit)?,
                    None => false,
                };
                if !is_appended {
                    self.begin(&directory, cluster)?;
                }
                if is_appended { JournalWritten::Change } else { JournalWritten::Everything }
            }
        };
        // The newer of two equal ones is held elsewhere anyway, so that the older one can be freed.
        self.kept = Some(Arc::clone(cluster));
        Ok(written)
    }

    /// Replaces the file by one with the whole cluster.
    fn begin(&mut self, directory: &Directory, cluster: &Snapshot) -> io::Result<()> {
        let head = record(&JournalHead { version: VERSION, parts: Delta::parts(cluster) });
        // One after the other: all of them at once would take as much memory as the cluster.
        let parts = Delta::whole(cluster).map(|part| record(&part));
        let whole = self.file.begin(directory, JOURNAL, std::iter::once(head).chain(parts))?;
        // A start reads all changes, so that they may only take a share of the whole.
        self.limit = whole + (whole / SHARE).max(LEAST);
        // Behind the journal: a crash between the two leaves what an earlier version believed.
        let reference = format!("{{\"version\":{VERSION},\"content\":\"{JOURNAL}\"}}");
        directory.replace(REFERENCE, reference.as_bytes()).map_err(|error| {
            io::Error::new(error.kind(), format!("{REFERENCE}, which refers to it: {error}"))
        })
    }
}

/// Reason why a file has no cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    Damaged(String),
    /// Format of a later version.
    Later(u32),
}

/// A cluster that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub cluster: Snapshot,
    /// Octets at the end of the file that are of no use.
    pub lost: usize,
}

/// Reads a file up to what is damaged.
pub(super) fn read(bytes: &[u8]) -> Result<Read, Unreadable> {
    let damaged = |what: &str| Unreadable::Damaged(what.to_owned());
    let mut records = IntactRecords(bytes);
    let head = records.next().ok_or_else(|| damaged("its first line is not whole"))?;
    let head: JournalHead = serde_json::from_slice(head).map_err(|error| damaged(&error.to_string()))?;
    // Before any part is read, which a later version may write in another form.
    if head.version > VERSION {
        return Err(Unreadable::Later(head.version));
    }
    let mut cluster = Snapshot::default();
    for part in 0..head.parts {
        let record = records.next().ok_or_else(|| {
            Unreadable::Damaged(format!("part {} of the cluster's {} is not whole", part + 1, head.parts))
        })?;
        let delta: Delta = serde_json::from_slice(record).map_err(|error| damaged(&error.to_string()))?;
        delta.apply(&mut cluster);
    }
    // From here on a damaged record ends the reading and is no error: a crash leaves such an end.
    let mut lost = records.rest().len();
    while let Some(record) = records.next()
        && let Ok(delta) = serde_json::from_slice::<Delta>(record)
    {
        delta.apply(&mut cluster);
        lost = records.rest().len();
    }
    Ok(Read { cluster, lost })
}

#[cfg(test)]
mod tests;
