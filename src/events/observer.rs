//! What the reconcile loop tells the history: each difference that it comes across.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cluster::changes;
use super::event::{EventKind, Happening, MOST};
use super::recorder::Recorder;
use super::table::{NotedDrain, PassView};
use crate::cluster::Skipped;
use crate::dataplane::{OpError, ServerKey, ServiceKey};
use crate::plan::shares;
use crate::source::Feed;
use crate::store::KeptDrain;

/// Remembers what the next difference is taken to, and records what has happened. Dropping it writes what is left.
#[derive(Debug)]
pub struct Observer {
    recorder: Recorder,
    drains: BTreeMap<ServerKey, NotedDrain>,
    /// First error of the last pass.
    refused: Option<String>,
    /// Labels and tasks that yield nothing, of which the history has told; `None` before the first list.
    skipped: Option<Arc<Vec<Skipped>>>,
    /// Set while that list is not cut.
    is_whole: bool,
}

impl Observer {
    /// Goes on from the drains of an earlier run.
    pub fn new(recorder: Recorder, drains: &[KeptDrain]) -> Self {
        let drains = drains.iter().map(NotedDrain::resumed).collect();
        Self { recorder, drains, refused: None, skipped: None, is_whole: true }
    }

    /// Takes in that the sources say something else.
    pub fn note_feed(&self, before: &Feed, after: &Feed) {
        self.recorder.note(changes(before, after));
    }

    /// Takes in what a pass did. `drains` are those that go on; `name_of` knows services of the plan before.
    pub fn note_pass(
        &mut self,
        view: PassView<'_>,
        drains: Vec<KeptDrain>,
        name_of: &dyn Fn(&ServiceKey) -> Option<String>,
    ) {
        // The usual pass by far.
        let is_same = self.drains.is_empty() && drains.is_empty() && view.report.operations.is_empty();
        let mut happened = Vec::new();
        if !is_same {
            let drained = self.drains.keys().copied().collect();
            happened.extend(view.drains(&mut self.drains, drains, name_of));
            happened.extend(view.operations(&drained, name_of));
        }
        happened.extend(self.errors(&view.report.failed, view.report.error.as_deref()));
        self.recorder.note(happened);
    }

    /// Takes in that the kernel could not be read.
    pub fn note_unread(&mut self, error: &str) {
        let happened = self.errors(&[], Some(error));
        self.recorder.note(happened.into_iter().collect());
    }

    /// Returns what has changed in whether the kernel takes everything. Other errors while some persist are no news.
    fn errors(&mut self, failed: &[OpError], error: Option<&str>) -> Option<Happening> {
        let first = error.map(str::to_owned).or_else(|| failed.first().map(OpError::to_string));
        let before = std::mem::replace(&mut self.refused, first);
        match (before, &self.refused) {
            (None, Some(error)) => {
                let more = match failed.len().saturating_sub(1) {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                Some(Happening::new(EventKind::KernelRefused, format!("{error}{more}; it is tried again")))
            }
            (Some(_), None) => {
                Some(Happening::new(EventKind::KernelAgrees, "the kernel holds everything again"))
            }
            _ => None,
        }
    }

    /// Takes in the labels and tasks that yield nothing, as the status shows them; `total` counts all.
    pub fn note_skipped(&mut self, shown: &Arc<Vec<Skipped>>, total: usize) {
        let is_known = self.skipped.as_ref().is_some_and(|known| Arc::ptr_eq(known, shown) || known == shown);
        let was_whole = std::mem::replace(&mut self.is_whole, total == shown.len());
        if is_known {
            return;
        }
        let before = self.skipped.replace(Arc::clone(shown));
        // After a start the history tells what was refused before it.
        let told = if before.is_none() { self.recorder.refused() } else { BTreeSet::new() };
        let known: BTreeSet<&Skipped> = before.iter().flat_map(|before| before.iter()).collect();
        let was_told = |entry: &Skipped| {
            // As the history has it, which is cut.
            let Happening { task, text, .. } = refusal(EventKind::LabelRefused, entry).bounded();
            told.contains(&(task, text))
        };
        let is_new = |entry: &&Skipped| !known.contains(*entry) && (told.is_empty() || !was_told(entry));
        let new: Vec<Skipped> = shown.iter().filter(is_new).cloned().collect();
        let mut happened: Vec<Happening> =
            shares::shown(&new, MOST).iter().map(|entry| refusal(EventKind::LabelRefused, entry)).collect();
        // An entry of a list that is cut may be gone from it for want of a place.
        if was_whole && self.is_whole {
            let now: BTreeSet<&Skipped> = shown.iter().collect();
            let gone: Vec<Skipped> = known.difference(&now).map(|entry| (*entry).clone()).collect();
            let gone = shares::shown(&gone, MOST);
            happened.extend(gone.iter().map(|entry| refusal(EventKind::LabelAccepted, entry)));
        }
        self.recorder.note(happened);
    }

    /// Returns the last error of writing, until a writing succeeds.
    pub fn error(&self) -> Option<String> {
        self.recorder.error()
    }

    /// Takes in the end of the daemon.
    pub fn finish(&self) {
        let text = "the daemon has ended; the kernel goes on forwarding";
        self.recorder.note(vec![Happening::new(EventKind::DaemonStopped, text)]);
        self.recorder.close();
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.recorder.close();
    }
}

/// Returns an entry in words, without its task.
fn text(entry: &Skipped) -> String {
    let text = Skipped { task: String::new(), ..entry.clone() }.to_string();
    text.trim_start_matches([' ', ':']).to_owned()
}

fn refusal(kind: EventKind, entry: &Skipped) -> Happening {
    let text = match kind {
        EventKind::LabelAccepted => format!("no longer refused: {}", text(entry)),
        _ => text(entry),
    };
    Happening {
        task: entry.task.clone(),
        framework: entry.framework.clone().unwrap_or_default(),
        app: entry.app.clone().unwrap_or_default(),
        ..Happening::new(kind, text)
    }
}

#[cfg(test)]
mod tests;
