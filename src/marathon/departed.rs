//! Tasks that ended, as far as Marathon's answers show it.
//!
//! Marathon forgets a task when it has ended, so that a task that is not listed any more may as well be
//! one that a new leader has not loaded yet. An app that lists as many tasks as it should have is
//! complete: its other tasks have ended. The rest has vanished without a trace, and
//! [`crate::cluster::belief`] decides.
//!
//! For example, with an app of three tasks:
//!
//! | answer of Marathon | ended |
//! |---|---|
//! | 3 instances; tasks a, b, c | |
//! | 3 instances; no tasks, as a new leader | |
//! | 1 instance; tasks a, b: b is being killed | |
//! | 1 instance; task a | b, c |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::view::{MarathonView, run_spec};
use crate::cluster::TaskKey;

/// Time for which a task counts as ended, which is longer than any document is doubted.
const RETENTION: Duration = Duration::from_secs(3_600);

/// Tasks of earlier answers that have not ended, and those that have.
#[derive(Clone, Debug, Default)]
pub struct DepartedTasks {
    known: BTreeSet<TaskKey>,
    ended: BTreeMap<TaskKey, Timestamp>,
}

impl DepartedTasks {
    /// Adds the tasks that ended since the first answer to those that `view` calls ended.
    pub fn add(&mut self, view: &mut MarathonView, now: Timestamp) {
        let complete = std::mem::take(&mut view.complete);
        let (ended, ended_before) = (&mut self.ended, &view.snapshot.ended);
        self.known.retain(|key| {
            let is_listed = view.snapshot.tasks.contains_key(key);
            let has_ended = !is_listed && complete.get(run_spec(&key.task)).copied().unwrap_or(false);
            if has_ended {
                ended.insert(key.clone(), now);
            }
            !has_ended && !ended_before.contains(key)
        });
        self.known.extend(view.snapshot.tasks.keys().cloned());
        self.ended.retain(|key, at| {
            now.duration_since(*at).unsigned_abs() < RETENTION && !view.snapshot.tasks.contains_key(key)
        });
        view.snapshot.ended.extend(self.ended.keys().cloned());
    }
}
