//! When files are written: addresses before they are used, all else every now and then.
//!
//! The cluster is large and may lag behind: a start goes by the kernel where the two differ. Deadlines and
//! Marathon's verdicts are written with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Deadlines, Error, Persisted, Store};
use crate::cluster::Snapshot;
use crate::marathon::MarathonMemory;

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
    cluster: Paced<Snapshot>,
    marathon: Paced<MarathonMemory>,
    deadlines: Paced<Deadlines>,
    /// Time from which those may be written again.
    due: Instant,
    error: Option<String>,
    /// Files that the start could not use.
    unused: Vec<String>,
}

/// Content of a file that is not written at once.
#[derive(Debug)]
struct Paced<T> {
    /// Content that was written last.
    written: Option<Arc<T>>,
    /// Content that has not been written yet.
    unsaved: Option<Arc<T>>,
}

impl<T> Default for Paced<T> {
    fn default() -> Self {
        Self { written: None, unsaved: None }
    }
}

impl<T> Paced<T> {
    fn new(written: Option<T>) -> Self {
        Self { written: written.map(Arc::new), unsaved: None }
    }

    /// Notes what there is now. The newer of two equal ones is remembered, because it is held elsewhere anyway,
    /// and the older one can be freed.
    fn note(&mut self, now: &Arc<T>, is_same: impl Fn(&T, &T) -> bool) {
        let is_written = self.written.as_deref().is_some_and(|written| is_same(written, now));
        self.unsaved = (!is_written).then(|| Arc::clone(now));
        if is_written {
            self.written = Some(Arc::clone(now));
        }
    }

    /// Writes what has not been written yet.
    fn save(&mut self, write: impl FnOnce(&T) -> Result<(), Error>) -> Result<(), Error> {
        let Some(unsaved) = self.unsaved.take() else { return Ok(()) };
        match write(&unsaved) {
            Ok(()) => self.written = Some(unsaved),
            Err(error) => {
                self.unsaved = Some(unsaved);
                return Err(error);
            }
        }
        Ok(())
    }
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
        let saver = Self {
            keeps_cluster,
            saved: loaded.persisted.clone(),
            cluster: Paced::default(),
            marathon: Paced::new(loaded.marathon.clone()),
            deadlines: Paced::new(Some(loaded.deadlines.clone())),
            due: Instant::now(),
            error: unused.first().cloned(),
            unused,
            store,
        };
        (saver, loaded)
    }

    /// Notes the cluster that is believed now, to be written when it is time.
    pub fn note_cluster(&mut self, believed: &Arc<Snapshot>) {
        // Most documents change nothing that is kept.
        if self.keeps_cluster {
            self.cluster.note(believed, Snapshot::is_same_cluster);
        }
    }

    /// Notes that the believed cluster is the one that was noted last.
    pub fn note_same_cluster(&mut self, believed: &Arc<Snapshot>) {
        // The newer of two equal ones is held elsewhere anyway, so that the older one can be freed.
        let Paced { written, unsaved } = &mut self.cluster;
        let noted = if unsaved.is_some() { unsaved } else { written };
        if let Some(noted) = noted {
            *noted = Arc::clone(believed);
        }
    }

    /// Notes what Marathon's answers have said, to be written when it is time.
    pub fn note_marathon(&mut self, memory: &Arc<MarathonMemory>) {
        self.marathon.note(memory, |written, now| written == now);
    }

    /// Notes the deadlines that run now, to be written when it is time.
    pub fn note_deadlines(&mut self, deadlines: Deadlines) {
        // Mostly there are none, before and now.
        if self.deadlines.unsaved.is_some() || self.deadlines.written.as_deref() != Some(&deadlines) {
            self.deadlines.note(&Arc::new(deadlines), |written, now| written == now);
        }
    }

    /// Writes addresses that have changed, and the rest when it is due.
    pub fn save(&mut self, persisted: &Persisted) {
        let started = Instant::now();
        let is_due = started >= self.due
            && (self.cluster.unsaved.is_some()
                || self.marathon.unsaved.is_some()
                || self.deadlines.unsaved.is_some());
        let has_changed = *persisted != self.saved;
        if !has_changed && !is_due {
            return;
        }
        // Addresses first: they decide where clients connect, and the cluster comes again with each
        // document.
        let leases = if has_changed { self.store.save_leases(persisted) } else { Ok(()) };
        if leases.is_ok() && has_changed {
            self.saved = persisted.clone();
        }
        match leases.and_then(|()| if is_due { self.save_paced() } else { Ok(()) }) {
            Ok(()) => {
                if is_due {
                    // Measured at each writing, because disks and clusters differ by a factor of thousands.
                    let pause = started.elapsed() * PAUSE_FACTOR;
                    self.due = Instant::now() + pause.min(LONGEST_PAUSE);
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

    fn save_paced(&mut self) -> Result<(), Error> {
        let Self { store, cluster, marathon, deadlines, .. } = self;
        deadlines.save(|deadlines| store.save_deadlines(deadlines))?;
        marathon.save(|memory| store.save_marathon(memory))?;
        cluster.save(|cluster| store.save_cluster(cluster))
    }

    /// Writes everything that has changed, due or not, and times that go on.
    pub fn finish(&mut self, persisted: &Persisted) {
        self.due = Instant::now();
        // Their rest is measured from the writing: after a reboot, nothing else tells how much of it is left.
        let Paced { written, unsaved } = &mut self.deadlines;
        if unsaved.is_none() && written.as_deref().is_some_and(|written| *written != Deadlines::default()) {
            *unsaved = written.take();
        }
        if persisted.vips.values().any(Option::is_some) {
            self.saved = Persisted::default();
        }
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
    use crate::cluster::belief::Holds;
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

    fn memory(framework: &str) -> Arc<MarathonMemory> {
        let text =
            format!(r#"{{"framework":"{framework}","verdicts":{{"tasks":{{}},"apps":{{}}}},"hosts":{{}}}}"#);
        Arc::new(serde_json::from_str(&text).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn verdicts_and_deadlines_wait_for_their_time_and_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let (mut saver, _) = Saver::open(store.clone(), true);
        let running = |losses| Deadlines { holds: Holds { failover: None, losses }, drains: Vec::new() };
        let kept = || (store.marathon().unwrap(), store.deadlines().unwrap().holds.losses);
        for (framework, losses) in [("F", 1), ("G", 2)] {
            saver.note_marathon(&memory(framework));
            saver.note_deadlines(running(losses));
            saver.save(&Persisted::default());
            assert_eq!(kept(), (Some((*memory("F")).clone()), 1), "the second ones are not due");
            saver.due = Instant::now() + LONGEST_PAUSE;
        }
        saver.finish(&Persisted::default());
        assert_eq!(kept(), (Some((*memory("G")).clone()), 2));
        // What runs on is measured from the end; what has not changed is not written.
        for file in ["marathon.json", "deadlines.json"] {
            std::fs::remove_file(directory.path().join(file)).unwrap();
        }
        saver.note_marathon(&memory("G"));
        saver.note_deadlines(running(2));
        saver.finish(&Persisted::default());
        assert_eq!(kept(), (None, 2));
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
