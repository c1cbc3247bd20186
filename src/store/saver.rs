//! When files are written: addresses before they are used, all else every now and then.
//!
//! The cluster is large and may lag behind: a start goes by the kernel where the two differ. Deadlines and
//! Marathon's verdicts are written with it, by a thread of their own.

use std::sync::Arc;

use super::leases::LeasesFile;
use super::writer::Writer;
use super::{Deadlines, Error, Persisted, Store, Tracked};
use crate::cluster::Snapshot;
use crate::marathon::MarathonMemory;

/// Writes the state directory.
#[derive(Debug)]
pub struct Saver {
    store: Store,
    /// Set where the cluster is worth keeping: a document that is a local file is there anyway.
    keeps_cluster: bool,
    leases: LeasesFile,
    /// Deadlines and verdicts that were noted last.
    deadlines: Deadlines,
    marathon: Option<Arc<MarathonMemory>>,
    writer: Writer,
    /// Error of the addresses' file, until a writing of it succeeds.
    error: Option<String>,
    /// Error of the start, until a writing succeeds.
    start_error: Option<String>,
    /// Files that the start could not use.
    unused: Vec<String>,
}

/// Content of the state directory at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    pub persisted: Persisted,
    pub cluster: Option<Snapshot>,
    pub deadlines: Deadlines,
    pub marathon: Option<MarathonMemory>,
}

impl Loaded {
    /// Reads what an earlier run left, and changes nothing. A file that cannot be used is left out, and its
    /// error is among the second result.
    pub fn read(store: &Store, keeps_cluster: bool) -> (Self, Vec<Error>) {
        let mut errors = Vec::new();
        let persisted = store.leases().map_err(|error| errors.push(error)).unwrap_or_default();
        let cluster = match keeps_cluster {
            true => store.cluster().map_err(|error| errors.push(error)).unwrap_or_default(),
            // The file may be of another cluster by now, and the document is at hand.
            false => None,
        };
        let deadlines = store.deadlines().map_err(|error| errors.push(error)).unwrap_or_default();
        let marathon = store.marathon().map_err(|error| errors.push(error)).unwrap_or_default();
        (Self { persisted, cluster, deadlines, marathon }, errors)
    }
}

impl Saver {
    /// Loads what an earlier run left. A damaged file is set aside and reported, and stops nothing.
    pub fn open(store: Store, keeps_cluster: bool) -> (Self, Loaded) {
        if let Err(error) = store.remove_leftovers() {
            // They only take space, and a directory that cannot be written is said at the first writing.
            tracing::debug!(%error, "cannot remove what a killed daemon left");
        }
        let (loaded, errors) = Loaded::read(&store, keeps_cluster);
        let complain = |found: Error| {
            let found = store.set_aside(found);
            tracing::error!(error = %found, "cannot go on from an earlier run, names may get new addresses");
            found.to_string()
        };
        let unused: Vec<String> = errors.into_iter().map(complain).collect();
        let (cluster, marathon) = (loaded.cluster.clone(), loaded.marathon.clone());
        let saver = Self {
            keeps_cluster,
            leases: LeasesFile::new(loaded.persisted.clone()),
            deadlines: loaded.deadlines.clone(),
            marathon: None,
            writer: Writer::new(store.clone(), cluster.map(Arc::new), marathon.map(Arc::new)),
            error: None,
            start_error: unused.first().cloned(),
            unused,
            store,
        };
        (saver, loaded)
    }

    /// Notes the cluster that is believed now, to be written when it is time and as far as it has changed.
    pub fn note_cluster(&mut self, believed: &Arc<Snapshot>) {
        if self.keeps_cluster {
            self.writer.note(|contents| contents.cluster = Some(Arc::clone(believed)));
        }
    }

    /// Notes what Marathon's answers have said, to be written when it is time.
    pub fn note_marathon(&mut self, memory: &Arc<MarathonMemory>) {
        // Feeds with other news have the same one.
        if !self.marathon.as_ref().is_some_and(|noted| Arc::ptr_eq(noted, memory)) {
            self.writer.note(|contents| contents.marathon = Some(Arc::clone(memory)));
            self.marathon = Some(Arc::clone(memory));
        }
    }

    /// Notes the deadlines that run now, to be written when it is time.
    pub fn note_deadlines(&mut self, deadlines: Deadlines) {
        // Mostly there are none, before and now.
        if self.deadlines != deadlines {
            self.writer.note(|contents| contents.deadlines = Some(deadlines.clone()));
            self.deadlines = deadlines;
        }
    }

    /// Writes addresses that have changed.
    pub fn save(&mut self, persisted: &mut Tracked<Persisted>) {
        // An access need not have changed anything, but without one there is nothing to compare.
        if !persisted.is_touched() {
            return;
        }
        // All else waits: addresses decide where clients connect, and the cluster comes again with each document.
        self.write_leases(persisted, |leases, store, memory| {
            store.write_leases(|directory| leases.save(directory, memory))
        });
    }

    /// Writes addresses that have changed by a step of their file, which returns true if it wrote something.
    fn write_leases(
        &mut self,
        persisted: &mut Tracked<Persisted>,
        write: impl FnOnce(&mut LeasesFile, &Store, &Persisted) -> Result<bool, Error>,
    ) {
        match write(&mut self.leases, &self.store, persisted) {
            Ok(has_written) => {
                persisted.settle();
                self.error = None;
                if has_written {
                    self.start_error = None;
                }
            }
            Err(error) => {
                // Logged once: every pass tries again, and the status keeps the error until a writing
                // succeeds.
                if self.error.is_none() {
                    tracing::error!(%error, "cannot write the state directory, the next start will know less");
                }
                self.error = Some(error.to_string());
            }
        }
    }

    /// Writes everything that has changed.
    pub fn flush(&mut self, persisted: &mut Tracked<Persisted>) {
        self.save(persisted);
        self.writer.flush();
    }

    /// Writes everything that has changed, and times that go on.
    pub fn finish(&mut self, persisted: &mut Tracked<Persisted>) {
        // Their rest is measured from the writing: after a reboot, nothing else tells how much of it is left.
        if self.deadlines != Deadlines::default() {
            self.writer.note(|contents| contents.deadlines = Some(self.deadlines.clone()));
        }
        self.write_leases(persisted, |leases, store, memory| {
            store.write_leases(|directory| leases.finish(directory, memory))
        });
        self.writer.flush();
    }

    /// Adds a file that the start could not use.
    pub fn add_unused(&mut self, error: String) {
        self.unused.push(error);
    }

    /// Returns what the start could not use, for as long as the daemon runs: an operator may look much later.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Returns the last error of reading or writing, until a writing succeeds.
    pub fn error(&self) -> Option<String> {
        let of_start = || self.start_error.clone().filter(|_| !self.writer.has_written());
        self.error.clone().or_else(|| self.writer.error()).or_else(of_start)
    }
}

#[cfg(test)]
mod tests;
