//! When files are written: addresses before they are used, the cluster every now and then.
//!
//! The cluster is large and may lag behind: a start goes by the kernel where the two differ.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Error, Persisted, Store};
use crate::cluster::Snapshot;

/// Longest time for which a changed cluster is not written.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Pause after a writing of the cluster, as a multiple of the time that the writing took: saving takes
/// at most a fiftieth of a processor.
const PAUSE_FACTOR: u32 = 50;

/// Writes the state directory.
#[derive(Debug)]
pub struct Saver {
    store: Store,
    /// Set where the cluster is worth keeping: a document that is a local file is there anyway.
    keeps_cluster: bool,
    saved: Persisted,
    /// Cluster that was written last.
    written: Option<Arc<Snapshot>>,
    /// Believed cluster that has not been written yet.
    unsaved: Option<Arc<Snapshot>>,
    /// Time from which the cluster may be written again.
    due: Instant,
    error: Option<String>,
    /// Files that the start could not use.
    unused: Vec<String>,
}

/// Content of the state directory at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    pub persisted: Persisted,
    pub cluster: Option<Snapshot>,
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
        (Self { persisted, cluster }, errors)
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
        let saver = Self {
            keeps_cluster,
            saved: loaded.persisted.clone(),
            written: None,
            unsaved: None,
            due: Instant::now(),
            error: unused.first().cloned(),
            unused,
            store,
        };
        (saver, loaded)
    }

    /// Notes the cluster that is believed now, to be written when it is time.
    pub fn note_cluster(&mut self, believed: &Arc<Snapshot>) {
        if !self.keeps_cluster {
            return;
        }
        // Most documents change nothing that is kept. The newer of two equal ones is remembered, because
        // it is held elsewhere anyway, and the older one can be freed.
        let is_written = self.written.as_ref().is_some_and(|written| written.is_same_cluster(believed));
        self.unsaved = if is_written {
            self.written = Some(Arc::clone(believed));
            None
        } else {
            Some(Arc::clone(believed))
        };
    }

    /// Notes that the believed cluster is the one that was noted last.
    pub fn note_same_cluster(&mut self, believed: &Arc<Snapshot>) {
        // The newer of two equal ones is held elsewhere anyway, so that the older one can be freed.
        let noted = if self.unsaved.is_some() { &mut self.unsaved } else { &mut self.written };
        if let Some(noted) = noted {
            *noted = Arc::clone(believed);
        }
    }

    /// Writes addresses that have changed, and the cluster when it is due.
    pub fn save(&mut self, persisted: &Persisted) {
        let started = Instant::now();
        let cluster = self.unsaved.as_deref().filter(|_| started >= self.due);
        let has_changed = *persisted != self.saved;
        if !has_changed && cluster.is_none() {
            return;
        }
        // Addresses first: they decide where clients connect, and the cluster comes again with each
        // document.
        let leases = if has_changed { self.store.save_leases(persisted) } else { Ok(()) };
        match leases.and_then(|()| cluster.map_or(Ok(()), |cluster| self.store.save_cluster(cluster))) {
            Ok(()) => {
                if cluster.is_some() {
                    // Measured at each writing, because disks and clusters differ by a factor of thousands.
                    let pause = started.elapsed() * PAUSE_FACTOR;
                    self.due = Instant::now() + pause.min(LONGEST_PAUSE);
                    self.written = self.unsaved.take();
                }
                if has_changed {
                    self.saved = persisted.clone();
                }
                self.error = None;
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

    /// Writes everything that has changed, due or not.
    pub fn finish(&mut self, persisted: &Persisted) {
        self.due = Instant::now();
        self.save(persisted);
    }

    /// Returns what the start could not use, for as long as the daemon runs: an operator may look much later.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Returns the last error of reading or writing, until a writing succeeds.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos;

    fn cluster(id: &str) -> Arc<Snapshot> {
        let document = format!(r#"{{"id":"{id}","elected_time":1.0,"slaves":[],"frameworks":[]}}"#);
        Arc::new(mesos::parse(document.as_bytes(), None).unwrap())
    }

    fn kept(store: &Store) -> Option<String> {
        store.cluster().unwrap().map(|cluster| cluster.master.unwrap().id)
    }

    #[tokio::test(start_paused = true)]
    async fn the_cluster_waits_for_its_time_and_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let (mut saver, loaded) = Saver::open(store.clone(), true);
        assert!(loaded.cluster.is_none() && saver.error().is_none());
        saver.note_cluster(&cluster("A"));
        saver.save(&Persisted::default());
        assert_eq!(kept(&store).as_deref(), Some("A"));
        saver.due = Instant::now() + LONGEST_PAUSE;
        saver.note_cluster(&cluster("B"));
        saver.save(&Persisted::default());
        assert_eq!(kept(&store).as_deref(), Some("A"), "not due yet");
        tokio::time::advance(LONGEST_PAUSE).await;
        saver.save(&Persisted::default());
        assert_eq!(kept(&store).as_deref(), Some("B"));
        saver.due = Instant::now() + LONGEST_PAUSE;
        saver.note_cluster(&cluster("C"));
        saver.finish(&Persisted::default());
        assert_eq!(kept(&store).as_deref(), Some("C"));
    }

    #[tokio::test]
    async fn the_same_cluster_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let (mut saver, _) = Saver::open(store.clone(), true);
        saver.note_cluster(&cluster("A"));
        saver.finish(&Persisted::default());
        std::fs::remove_file(directory.path().join("cluster.json")).unwrap();
        saver.note_cluster(&cluster("A"));
        saver.finish(&Persisted::default());
        assert_eq!(kept(&store), None, "nothing was written");
        saver.note_same_cluster(&cluster("A"));
        saver.finish(&Persisted::default());
        assert_eq!(kept(&store), None, "nor was the one that was noted last");
        saver.note_cluster(&cluster("B"));
        saver.note_cluster(&cluster("A"));
        saver.finish(&Persisted::default());
        assert_eq!(kept(&store), None, "back to what was written before it was due");
        saver.note_cluster(&cluster("B"));
        saver.finish(&Persisted::default());
        assert_eq!(kept(&store).as_deref(), Some("B"));
    }

    #[tokio::test]
    async fn a_cluster_that_is_a_file_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        store.save_cluster(&cluster("old")).unwrap();
        let (mut saver, loaded) = Saver::open(store.clone(), false);
        assert!(loaded.cluster.is_none());
        saver.note_cluster(&cluster("new"));
        saver.finish(&Persisted::default());
        assert_eq!(kept(&store).as_deref(), Some("old"));
    }

    #[tokio::test]
    async fn an_error_lasts_until_a_writing_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cluster.json"), "{").unwrap();
        let (mut saver, _) = Saver::open(Store::new(directory.path()), true);
        assert!(saver.error().unwrap().contains("damaged"));
        saver.note_cluster(&cluster("A"));
        saver.save(&Persisted::default());
        assert_eq!(saver.error(), None);
        // The file is still where it was put.
        assert!(saver.unused().iter().any(|file| file.contains("was set aside as")), "{:?}", saver.unused());
    }
}
