//! Tasks that ended, as far as Marathon's answers show it.
//!
//! Marathon forgets a task when it has ended, so that a task that is not listed any more may as well be
//! one that a new leader has not loaded yet. An app that lists as many tasks as it should have is
//! complete: its other tasks have ended; and so has a task of which an event said so. The rest has vanished without a trace, and
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
//! | 3 instances; tasks a, b; an event said that c was killed | c |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::view::MarathonView;
use crate::cluster::{TaskKey, app_of};

/// Time for which a task counts as ended, which is longer than any document is doubted.
const RETENTION: Duration = Duration::from_secs(3_600);

/// Ends of tasks that are remembered until Marathon does not list the tasks any more.
const MAX_TOLD: usize = 100_000;

/// Tasks of earlier answers that have not ended, and those that have.
#[derive(Clone, Debug, Default)]
pub struct DepartedTasks {
    known: BTreeSet<TaskKey>,
    ended: BTreeMap<TaskKey, Timestamp>,
    /// Ids of tasks that ended by an event.
    told: BTreeMap<String, Timestamp>,
}

impl DepartedTasks {
    /// Goes on with the tasks that an earlier run knew.
    pub fn after(known: BTreeSet<TaskKey>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Notes tasks that have ended by an event.
    pub fn tell(&mut self, ended: BTreeSet<String>, now: Timestamp) {
        self.told.retain(|_, at| now.duration_since(*at).unsigned_abs() < RETENTION);
        // A tenant can start and end tasks without limit: more ends than that are left to the answers.
        let room = MAX_TOLD.saturating_sub(self.told.len());
        self.told.extend(ended.into_iter().take(room).map(|id| (id, now)));
    }

    /// Adds the tasks that ended since the first answer to those that `view` calls ended.
    pub fn add(&mut self, view: &mut MarathonView, now: Timestamp) {
        let complete = std::mem::take(&mut view.complete);
        let (ended, ended_before, told) = (&mut self.ended, &view.snapshot.ended, &mut self.told);
        self.known.retain(|key| {
            let is_listed = view.snapshot.tasks.contains_key(key);
            let is_complete = || complete.get(app_of(&key.task, None)).copied().unwrap_or(false);
            // What an event said of a listed task waits, because the answer may be older than the event.
            let has_ended = !is_listed && (told.remove(&*key.task).is_some() || is_complete());
            if has_ended {
                ended.insert(key.clone(), now);
            }
            !has_ended && !ended_before.contains(key)
        });
        self.known.extend(view.snapshot.tasks.keys().cloned());
        // A task that is listed again has not ended, whatever was concluded before.
        self.ended.retain(|key, at| {
            now.duration_since(*at).unsigned_abs() < RETENTION && !view.snapshot.tasks.contains_key(key)
        });
        view.snapshot.ended.extend(self.ended.keys().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Few, Runtime, Task, TaskState};

    /// An answer with these tasks of one app, which should have `instances`.
    fn answer(tasks: &[&str], instances: u64) -> MarathonView {
        let mut view = MarathonView::default();
        for id in tasks {
            let key = TaskKey { framework: "".into(), task: (*id).into() };
            let task = Task {
                key: key.clone(),
                app: "web".into(),
                agent_id: "".into(),
                state: TaskState::Running,
                healthy: None,
                runtime: Runtime::Mesos,
                addresses: Few::default(),
                ports: Few::default(),
                resources: Few::default(),
            };
            view.snapshot.tasks.insert(key, task.into());
        }
        view.add_count("/web", Some(tasks.len()), Some(instances));
        view
    }

    fn ended(departed: &mut DepartedTasks, mut answer: MarathonView) -> Vec<String> {
        departed.add(&mut answer, Timestamp::UNIX_EPOCH);
        answer.snapshot.ended.iter().map(|key| key.task.to_string()).collect()
    }

    #[test]
    fn a_task_that_an_event_calls_ended_has_when_it_is_no_longer_listed() {
        let mut departed = DepartedTasks::default();
        ended(&mut departed, answer(&["web.a", "web.b", "web.c"], 3));
        departed.tell(["web.b", "web.x"].map(str::to_owned).into(), Timestamp::UNIX_EPOCH);
        assert_eq!(ended(&mut departed, answer(&["web.a", "web.b", "web.c"], 3)), [""; 0], "an older answer");
        // The app is to have three tasks again, so that its counts tell nothing.
        assert_eq!(ended(&mut departed, answer(&["web.a"], 3)), ["web.b"]);
        assert_eq!(ended(&mut departed, answer(&["web.a"], 1)), ["web.b", "web.c"]);
    }

    #[test]
    fn tasks_of_an_earlier_run_end_as_those_of_this_one_do() {
        let key = TaskKey { framework: "".into(), task: "web.b".into() };
        let mut departed = DepartedTasks::after([key].into());
        assert_eq!(ended(&mut departed, answer(&["web.a"], 1)), ["web.b"]);
    }
}
