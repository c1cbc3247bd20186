//! The history as the parts of the daemon share it, and the thread that writes it.
//!
//! Who has something to tell takes a lock for a moment, and waits for no disk. The thread writes an event at once
//! after a quiet time, and events that come one after the other together. A flood of them costs a fiftieth of a
//! processor at most.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::watch;

use super::event::{Event, EventKind, Happening};
use super::filter::EventFilter;
use super::history::History;
use crate::store::Store;
use crate::store::history::HistoryFile;
use crate::store::pace;
use crate::store::records::record;
use crate::vip::pattern::VipPattern;
use crate::vip::{VipKey, summarize};

/// Octets of events that are kept where there is no file.
const ROOM: usize = 1 << 20;

/// Key of a start's facts: version of the program.
const VERSION: &str = "version";

/// Key of a start's facts: data plane.
const DATA_PLANE: &str = "dataplane";

/// A share in the history.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<SharedRecorder>,
}

#[derive(Debug)]
struct SharedRecorder {
    state: Mutex<RecorderState>,
    changed: Condvar,
    /// `None` for a history in memory alone.
    store: Option<Store>,
    limit: u64,
    /// Zone of the VIPs' names.
    origin: String,
    /// Error of a file that the start could not use.
    unused: Option<String>,
    /// Id of the newest event.
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct RecorderState {
    history: History,
    /// Id of the newest event that is written.
    written: u64,
    /// Set when the thread has to end.
    ends: bool,
    thread: Option<JoinHandle<()>>,
    error: Option<String>,
}

/// Circumstances of a start, which are compared with those of the last one.
#[derive(Clone, Debug, Default)]
pub struct StartFacts {
    pub data_plane: String,
    /// Fingerprints of the configuration's sections by name.
    pub sections: BTreeMap<String, String>,
}

/// Events that answer a client, and the id of the newest one of all.
#[derive(Clone, Debug, Default)]
pub struct Selected {
    pub events: Vec<Arc<Event>>,
    pub newest: u64,
}

impl Recorder {
    /// Goes on with the history that an earlier run has left in `store`; keeps a file of `limit` octets at most.
    /// Names of VIPs are below the zone `origin`.
    pub fn open(store: Store, limit: u64, origin: &str) -> Self {
        // A file that is full is replaced by what is kept, which has to leave room for more.
        let mut history = History::new(usize::try_from(limit / 2).unwrap_or(usize::MAX));
        let mut error = None;
        match store.history() {
            Ok(kept) => {
                if kept.lost > 0 {
                    tracing::info!(
                        lost = kept.lost,
                        "a part of the history was damaged or not written whole, and is left out"
                    );
                }
                // What a later version has added in another form is left out.
                let read = |record: &Vec<u8>| serde_json::from_slice::<Event>(record).ok();
                history.restore(kept.records.iter().filter_map(read));
            }
            Err(found) => {
                let found = store.set_aside(found);
                tracing::error!(error = %found, "cannot go on with the history of an earlier run");
                error = Some(found.to_string());
            }
        }
        Self::with(Some(store), limit, origin, history, error)
    }

    /// Keeps a history in memory alone.
    pub fn in_memory(origin: &str) -> Self {
        Self::with(None, 0, origin, History::new(ROOM), None)
    }

    fn with(store: Option<Store>, limit: u64, origin: &str, history: History, error: Option<String>) -> Self {
        let (newest, _) = watch::channel(history.newest());
        let written = history.newest();
        let unused = error.clone();
        let state = RecorderState { history, written, ends: false, thread: None, error };
        let shared = SharedRecorder {
            state: Mutex::new(state),
            changed: Condvar::new(),
            store,
            limit,
            origin: origin.to_owned(),
            unused,
            newest,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes in what has happened.
    pub fn note(&self, happened: Vec<Happening>) {
        // The usual pass.
        if happened.is_empty() {
            return;
        }
        // By the system's clock: people read it.
        let now = Timestamp::now();
        let mut state = self.shared.lock();
        let noted: Vec<Arc<Event>> = happened.into_iter().map(|what| state.history.note(now, what)).collect();
        let newest = state.history.newest();
        if self.shared.store.is_some() && state.thread.is_none() && !state.ends {
            self.start(&mut state);
        }
        // The thread and followers take the lock themselves.
        drop(state);
        self.shared.changed.notify_all();
        self.shared.newest.send_replace(newest);
        noted.iter().for_each(|event| log(event));
    }

    /// Takes in the start of the daemon, and what differs from the last one.
    pub fn note_start(&self, facts: StartFacts) {
        let StartFacts { data_plane, sections } = facts;
        let mut now: BTreeMap<String, String> = sections;
        // Beside the sections, so that one comparison finds all that differs.
        now.insert(VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        now.insert(DATA_PLANE.to_owned(), data_plane);
        // Under one lock, so that no event comes between the last start and the last end.
        let (before, was_ended) = {
            let state = self.shared.lock();
            let is = |kind| move |event: &&Arc<Event>| event.what.kind == kind;
            let last = state.history.iter().rev().find(is(EventKind::DaemonStarted)).cloned();
            let end = state.history.iter().rev().find(is(EventKind::DaemonStopped)).map(|event| event.id);
            let was_ended = last.as_ref().is_none_or(|last| end.is_some_and(|end| end > last.id));
            (last, was_ended)
        };
        let text = match was_ended {
            true => "the daemon has started",
            false => "the daemon has started; the one before it was killed, or the machine was",
        };
        let mut happened =
            vec![Happening { facts: now.clone(), ..Happening::new(EventKind::DaemonStarted, text) }];
        if let Some(before) = before {
            happened.extend(differences(&before.what.facts, &now));
        }
        self.note(happened);
    }

    /// Returns the events that are asked for, in their order.
    pub fn select(&self, filter: &EventFilter) -> Selected {
        let state = self.shared.lock();
        let events = state.history.iter().filter(|event| filter.admits(event)).cloned().collect();
        Selected { events, newest: state.history.newest() }
    }

    /// Returns the VIP that a client means.
    pub fn pattern(&self, text: &str) -> VipPattern {
        VipPattern::parse(text, &self.shared.origin)
    }

    /// Returns a receiver of the id of the newest event.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.newest.subscribe()
    }

    /// Returns the tasks and texts of refused labels in the history.
    pub fn refused(&self) -> BTreeSet<(String, String)> {
        let state = self.shared.lock();
        let refused = state.history.iter().filter(|event| event.what.kind == EventKind::LabelRefused);
        refused.map(|event| (event.what.task.clone(), event.what.text.clone())).collect()
    }

    /// Returns the last error of writing, until a writing succeeds.
    pub fn error(&self) -> Option<String> {
        self.shared.lock().error.clone()
    }

    /// Returns why the file of an earlier run could not be used, for as long as the daemon runs.
    pub fn unused(&self) -> Option<&str> {
        self.shared.unused.as_deref()
    }

    /// Writes what is left, and ends the thread.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.ends = true;
        let thread = state.thread.take();
        drop(state);
        self.shared.changed.notify_all();
        if let Some(thread) = thread {
            // It ends after one attempt.
            let _ = thread.join();
        }
    }

    /// Starts the thread; if there can be none, the next event tries again.
    fn start(&self, state: &mut RecorderState) {
        let shared = Arc::clone(&self.shared);
        match thread::Builder::new().name("events".to_owned()).spawn(move || shared.run()) {
            Ok(thread) => state.thread = Some(thread),
            Err(error) => state.error = Some(format!("cannot start the thread that writes events: {error}")),
        }
    }
}

impl SharedRecorder {
    /// A panic of a holder leaves whole values behind.
    fn lock(&self) -> MutexGuard<'_, RecorderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes events, until the end.
    fn run(&self) {
        let Some(store) = &self.store else { return };
        // The first event writes the whole file, whatever a killed run left behind it.
        let mut file = HistoryFile::new(self.limit);
        let mut due = Instant::now();
        while let Some((new, newest)) = self.next(due) {
            let started = Instant::now();
            let outcome = store.append_history(&mut file, &lines(&new), || {
                let all: Vec<Arc<Event>> = self.lock().history.iter().cloned().collect();
                lines(&all)
            });
            let now = Instant::now();
            let mut state = self.lock();
            match outcome {
                Ok(()) => {
                    due = now + pace::pause(now - started);
                    state.written = newest;
                    state.error = None;
                }
                Err(error) => {
                    due = now + pace::LONGEST;
                    // Logged once: every writing tries again.
                    if state.error.is_none() {
                        tracing::error!(%error, "cannot write the history, the next start will know less of it");
                    }
                    state.error = Some(error.to_string());
                    // No second attempt at the end: a full disk must not hold up a shutdown.
                    if state.ends {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for events that are to be written, at `due` unless it is the end; `None` when all is written then. Returns
    /// them with the newest id, which may be that of an event that found no room.
    fn next(&self, due: Instant) -> Option<(Vec<Arc<Event>>, u64)> {
        let mut state = self.lock();
        loop {
            let until_due = due.saturating_duration_since(Instant::now());
            if state.history.newest() == state.written {
                if state.ends {
                    return None;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if state.ends || until_due.is_zero() {
                // Ids grow, also those of events that happened again.
                let new = state.history.after(state.written).cloned().collect();
                return Some((new, state.history.newest()));
            } else {
                let woken = self.changed.wait_timeout(state, until_due);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// Returns the lines of events; one that is no JSON, which none is, is left out.
fn lines(events: &[Arc<Event>]) -> Vec<Vec<u8>> {
    events.iter().filter_map(|event| record(&**event).ok()).collect()
}

/// Returns what differs between two starts.
fn differences(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<Happening> {
    let differs = |key: &str| before.get(key) != now.get(key);
    let change = |kind, key: &str| {
        let text = |facts: &BTreeMap<String, String>| facts.get(key).cloned().unwrap_or_default();
        differs(key).then(|| Happening::new(kind, format!("{} after {}", text(now), text(before))))
    };
    // A fact that is the same in both is no event.
    let version = change(EventKind::VersionChanged, VERSION);
    let plane = change(EventKind::DataPlaneChanged, DATA_PLANE);
    let is_section = |key: &&String| ![VERSION, DATA_PLANE].contains(&key.as_str());
    let sections = now.keys().filter(is_section).filter(|key| differs(key));
    let sections: Vec<String> = sections.map(|key| format!("[{key}]")).collect();
    // Another version may have other keys.
    let are_told = version.is_none() && !sections.is_empty();
    let text = || format!("the configuration has changed in {}", summarize(&sections));
    let configuration = are_told.then(|| Happening::new(EventKind::ConfigurationChanged, text()));
    version.into_iter().chain(plane).chain(configuration).collect()
}

/// Logs an event. One that repeats is logged at each doubling of its count.
fn log(event: &Event) {
    if !event.count.is_power_of_two() {
        return;
    }
    let Happening { kind, text, cause, vips, service, backend, task, agent, framework, app, .. } =
        &event.what;
    // Fields without a value are left out of the line.
    let vips: Vec<String> = vips.iter().map(VipKey::to_string).collect();
    let vip = (!vips.is_empty()).then(|| vips.join(","));
    let [service, backend] = [service, backend].map(|place| place.map(|place| place.to_string()));
    let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let [task, agent, framework, app, cause] = [task, agent, framework, app, cause].map(|text| some(text));
    let count = (event.count > 1).then_some(event.count);
    let id = event.id;
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                %kind, text, vip, service, backend, task, agent, framework, app, cause, count, id, "event"
            )
        };
    }
    match kind.is_warning() {
        true => line!(warn),
        false => line!(info),
    }
}

#[cfg(test)]
mod tests;
