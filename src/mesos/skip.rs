//! Records of the parts of a document that yield nothing, with the reason.

use super::wire::Lenient;
use crate::cluster::{Skipped, Snapshot, TaskState, shortened};

/// Records of one document that are kept. Tenants decide how many there could be, and no operator reads
/// more.
pub const MAX_SKIPPED: usize = 10_000;

/// Adds a record while there is room.
pub fn add_skipped(skipped: &mut Vec<Skipped>, record: Skipped) {
    if skipped.len() < MAX_SKIPPED {
        skipped.push(record);
    }
}

/// Collector of what is left out of one task.
///
/// Only tasks that serve connections are worth a record: a task that is being staged may well be
/// incomplete, and an operator can do nothing about it.
pub struct SkipLog<'s> {
    skipped: &'s mut Vec<Skipped>,
    task: &'s str,
    is_serving: bool,
}

impl<'s> SkipLog<'s> {
    /// Collects into `skipped` on behalf of the task with id `task`.
    pub fn new(skipped: &'s mut Vec<Skipped>, task: &'s str, state: TaskState) -> Self {
        Self { skipped, task, is_serving: state.is_serving() }
    }

    /// Adds a record; the task's id is filled in, and texts of tenants are shortened. A text inside of
    /// `reason` has to be short already.
    pub fn add(&mut self, record: Skipped) {
        if self.is_serving {
            add_skipped(
                self.skipped,
                Skipped {
                    task: self.task.to_owned(),
                    port: record.port.map(shortened),
                    label: record.label.map(shortened),
                    value: record.value.map(shortened),
                    reason: record.reason,
                    ..Skipped::default()
                },
            );
        }
    }
}

/// Returns the value, or records that `what` in the list or event `at` cannot be read.
pub fn read_or_skip<T>(snapshot: &mut Snapshot, value: Lenient<T>, at: &str, what: &str) -> Option<T> {
    match value {
        Lenient::Read(value) => Some(value),
        Lenient::Unreadable { error, json } => {
            let record = Skipped { task: at.to_owned(), ..unreadable(&error, json, what) };
            add_skipped(&mut snapshot.skipped, record);
            None
        }
    }
}

/// Returns the record of a value that cannot be read, without its task.
pub fn unreadable(error: &str, json: String, what: &str) -> Skipped {
    Skipped {
        value: Some(json),
        reason: format!("{what} that cannot be read: {error}"),
        ..Skipped::default()
    }
}
