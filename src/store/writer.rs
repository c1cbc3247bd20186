//! The thread that writes what need not be on disk before it is used: the believed cluster, Marathon's verdicts
//! and deadlines.
//!
//! A pass hands the newest of each over and goes on: neither the disk nor a large cluster delays what clients of a
//! VIP wait for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::journal::Journal;
use super::{Deadlines, Error, Store, pace};
use crate::cluster::Snapshot;
use crate::marathon::MarathonMemory;

/// Newest contents of the files, as far as they may differ from what is written.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub cluster: Option<Arc<Snapshot>>,
    pub marathon: Option<Arc<MarathonMemory>>,
    pub deadlines: Option<Deadlines>,
}

impl Contents {
    fn is_empty(&self) -> bool {
        self.cluster.is_none() && self.marathon.is_none() && self.deadlines.is_none()
    }
}

/// Hands contents over to the thread that writes them. Dropping it writes what is left.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<SharedWriter>,
    /// Started with the first contents.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct SharedWriter {
    state: Mutex<WriterState>,
    changed: Condvar,
    /// Held by the thread for as long as it runs.
    files: Mutex<WriterFiles>,
}

#[derive(Debug, Default)]
struct WriterState {
    unsaved: Contents,
    /// Set to write without a pause, until all is written or a writing has failed.
    hurries: bool,
    /// Set to end the thread when all is written, or cannot be.
    ends: bool,
    error: Option<String>,
    /// Set once something was written.
    has_written: bool,
}

impl SharedWriter {
    /// A panic of a holder leaves whole values behind.
    fn lock(&self) -> MutexGuard<'_, WriterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Goes on from what an earlier run has left in the files.
    pub fn new(store: Store, cluster: Option<Arc<Snapshot>>, marathon: Option<Arc<MarathonMemory>>) -> Self {
        let files = Mutex::new(WriterFiles { store, journal: Journal::new(cluster), marathon });
        let shared = SharedWriter { state: Mutex::default(), changed: Condvar::new(), files };
        Self { shared: Arc::new(shared), thread: None }
    }

    /// Takes in new contents, to be written when it is time.
    pub fn note(&mut self, set: impl FnOnce(&mut Contents)) {
        let mut state = self.shared.lock();
        // A thread that has something to write is awake, or wakes in time.
        let is_asleep = state.unsaved.is_empty();
        set(&mut state.unsaved);
        // A thread that is woken while the lock is held would wait for it at once.
        drop(state);
        if is_asleep {
            self.shared.changed.notify_all();
        }
        if self.thread.is_none() {
            self.start();
        }
    }

    /// Starts the thread; if there can be none, the next contents try again.
    fn start(&mut self) {
        let shared = Arc::clone(&self.shared);
        match thread::Builder::new().name("state-files".to_owned()).spawn(move || shared.run()) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => {
                let error = format!(
                    "cannot start the thread that writes the state directory: {error}; the next start will know \
                     less (is the limit of processes reached?)"
                );
                complain(&mut self.shared.lock().error, error);
            }
        }
    }

    /// Writes what has changed, and returns when that is done or has failed.
    pub fn flush(&mut self) {
        if self.thread.is_none() {
            return;
        }
        let mut state = self.shared.lock();
        state.hurries = true;
        self.shared.changed.notify_all();
        // A condition variable may wake without a reason.
        while state.hurries {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the last error, until a writing succeeds.
    pub fn error(&self) -> Option<String> {
        self.shared.lock().error.clone()
    }

    /// Returns true once something was written.
    pub fn has_written(&self) -> bool {
        self.shared.lock().has_written
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // Panics of a writing are caught.
            let _ = thread.join();
        }
    }
}

/// Notes an error, and logs it once: every writing tries again.
fn complain(known: &mut Option<String>, error: String) {
    if known.is_none() {
        tracing::error!(error, "cannot write the state directory, the next start will know less");
    }
    *known = Some(error);
}

impl SharedWriter {
    /// Writes what is handed over, until the end.
    fn run(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        // A start has better things to do with the processor.
        let mut due = Instant::now() + pace::SHORTEST;
        while let Some(contents) = self.next(due) {
            let started = Instant::now();
            let (left, outcome) = files.write(contents);
            let now = Instant::now();
            let mut state = self.lock();
            match outcome {
                Ok(has_written) => {
                    // Measured at each writing, because disks and clusters differ by a factor of thousands.
                    due = now + pace::pause(now - started);
                    state.error = None;
                    state.has_written |= has_written;
                }
                Err(error) => {
                    due = now + pace::LONGEST;
                    complain(&mut state.error, error);
                    // What has come meanwhile is newer.
                    let newer = std::mem::take(&mut state.unsaved);
                    state.unsaved = Contents {
                        cluster: newer.cluster.or(left.cluster),
                        marathon: newer.marathon.or(left.marathon),
                        deadlines: newer.deadlines.or(left.deadlines),
                    };
                    // A client of the error has it now.
                    state.hurries = false;
                    self.changed.notify_all();
                    // No second attempt at the end: a full disk must not hold up a shutdown.
                    if state.ends {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for contents that are to be written, at `due` where there is no hurry; `None` at the end.
    fn next(&self, due: Instant) -> Option<Contents> {
        let mut state = self.lock();
        loop {
            let until_due = due.saturating_duration_since(Instant::now());
            if state.unsaved.is_empty() {
                // All is written: only this thread takes contents, and it has come back for more.
                if std::mem::take(&mut state.hurries) {
                    self.changed.notify_all();
                }
                if state.ends {
                    return None;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if state.hurries || state.ends || until_due.is_zero() {
                return Some(std::mem::take(&mut state.unsaved));
            } else {
                let woken = self.changed.wait_timeout(state, until_due);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// The files, as this run has written them.
#[derive(Debug)]
struct WriterFiles {
    store: Store,
    journal: Journal,
    marathon: Option<Arc<MarathonMemory>>,
}

impl WriterFiles {
    /// Writes contents; returns what is left of them after an error, and true if something was written.
    fn write(&mut self, mut contents: Contents) -> (Contents, Result<bool, String>) {
        // The daemon goes on when this fails, be it by a defect: it only makes the next start know less.
        let outcome = match catch_unwind(AssertUnwindSafe(|| self.write_each(&mut contents))) {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => Err("the thread that writes the state directory panicked, see the log".to_owned()),
        };
        (contents, outcome)
    }

    /// Writes contents one by one and takes them away. Returns true if something was written.
    fn write_each(&mut self, contents: &mut Contents) -> Result<bool, Error> {
        let mut has_written = false;
        if let Some(deadlines) = &contents.deadlines {
            self.store.save_deadlines(deadlines)?;
            contents.deadlines = None;
            has_written = true;
        }
        if let Some(memory) = contents.marathon.take_if(|memory| self.marathon.as_ref() == Some(memory)) {
            // The newer of two equal ones is held elsewhere anyway, so that the older one can be freed.
            self.marathon = Some(memory);
        }
        if let Some(memory) = &contents.marathon {
            self.store.save_marathon(memory)?;
            self.marathon = contents.marathon.take();
            has_written = true;
        }
        if let Some(cluster) = &contents.cluster {
            has_written |= self.store.write_cluster(&mut self.journal, cluster)?;
            contents.cluster = None;
        }
        Ok(has_written)
    }
}
