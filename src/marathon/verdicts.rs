//! Verdicts on tasks, which outlive a Marathon that has forgotten its results.
//!
//! Marathon keeps the results of its checks in memory. A new leader has none, a check that an app gets
//! in a deployment never runs for the tasks from before it, and each step of a deployment starts an empty
//! list of readiness results. None of this says anything about the tasks, so that a missing result leaves
//! the last one as it is: a task that was good stays good until there is a bad result, and only a task
//! that was never good waits. The time is an argument, so that everything here is pure.
//!
//! For example, with one task of an app that has a health check:
//!
//! | answer of Marathon | verdict |
//! |---|---|
//! | no result yet | bad: it waits |
//! | alive | good |
//! | a new leader: no result | good |
//! | a new leader that lists no apps yet | good |
//! | not alive | bad |
//! | no result | bad |

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::results::CheckResult;
use super::retention::{bound, is_remembered};
use super::view::MarathonView;
use crate::cluster::TaskKey;
use crate::units::steady::Shift;

/// Last results by task and by app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerdictMemory {
    tasks: BTreeMap<String, LastResults>,
    /// Checked apps, as the beginnings of their tasks' ids, with the time since which none is listed.
    apps: BTreeMap<String, Option<Timestamp>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LastResults {
    /// `None` until there is a result.
    health: Option<bool>,
    readiness: Option<bool>,
    is_marathons: bool,
    /// Time of the first answer that did not list the task, if the last one did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unlisted: Option<Timestamp>,
}

impl LastResults {
    fn is_good(&self) -> bool {
        self.health == Some(true) && self.readiness == Some(true)
    }

    /// Returns true while the task waits for its first results, none of which was bad so far.
    fn is_waiting(&self) -> bool {
        !self.is_good() && self.health != Some(false) && self.readiness != Some(false)
    }
}

impl VerdictMemory {
    /// Turns the results in `view` into verdicts, completed by what earlier answers said.
    pub fn judge(&mut self, view: &mut MarathonView, now: Timestamp) {
        let results = std::mem::take(&mut view.results);
        for (id, results) in &results {
            let last = self.tasks.entry(id.clone()).or_default();
            update(&mut last.health, results.health);
            update(&mut last.readiness, results.readiness);
            (last.is_marathons, last.unlisted) = (results.is_marathons, None);
            // Without Mesos as a source, Marathon also has to answer for the checks that Mesos does.
            let key = TaskKey { framework: view.framework.clone(), task: id.as_str().into() };
            if let Some(task) = view.snapshot.tasks.get_mut(&key) {
                Arc::make_mut(task).healthy = results.is_checked.then_some(last.is_good());
            }
        }
        self.tasks.retain(|id, last| results.contains_key(id) || is_remembered(&mut last.unlisted, now));
        bound(&mut self.tasks, |last| last.unlisted);
        // Checks that Mesos does are in the tasks of Mesos already.
        for (id, last) in self.tasks.iter().filter(|(_, last)| last.is_marathons) {
            view.verdicts.insert(id.clone(), last.is_good());
            if last.is_waiting() {
                view.waiting.insert(id.clone());
            }
        }
        self.judge_apps(view, now);
    }

    /// Returns true if the checks that Marathon does decide about a task.
    pub fn has(&self, task: &str) -> bool {
        self.tasks.get(task).is_some_and(|last| last.is_marathons)
    }

    /// Adds the checked apps that a new leader does not list yet.
    fn judge_apps(&mut self, view: &mut MarathonView, now: Timestamp) {
        let listed = std::mem::take(&mut view.apps);
        for (app, is_checked) in &listed {
            if *is_checked {
                self.apps.insert(app.clone(), None);
            } else {
                // A deployment may have taken the checks away, and then no task waits for a result.
                self.apps.remove(app);
            }
        }
        self.apps.retain(|app, unlisted| listed.contains_key(app) || is_remembered(unlisted, now));
        bound(&mut self.apps, |unlisted| *unlisted);
        view.checked = self.apps.keys().cloned().collect();
    }
}

/// Takes a result over, unless it is missing.
fn update(last: &mut Option<bool>, result: CheckResult) {
    match result {
        CheckResult::Good => *last = Some(true),
        CheckResult::Bad => *last = Some(false),
        CheckResult::Missing => {}
    }
}

impl Shift for VerdictMemory {
    fn shift(&mut self, by: SignedDuration) {
        self.tasks.values_mut().for_each(|last| last.unlisted.shift(by));
        self.apps.values_mut().for_each(|unlisted| unlisted.shift(by));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::results::TaskResults;
    use super::*;

    fn answer(results: Option<CheckResult>) -> MarathonView {
        let mut view = MarathonView::default();
        if let Some(health) = results {
            let results =
                TaskResults { health, readiness: CheckResult::Good, is_marathons: true, is_checked: true };
            view.results.insert("web.1".to_owned(), results);
            view.apps.insert("web".to_owned(), true);
        }
        view
    }

    proptest! {
        /// The verdict is the last result that was not missing, and bad before there was any.
        #[test]
        fn a_missing_result_changes_no_verdict(
            answers in prop::collection::vec(
                select(vec![
                    None, Some(CheckResult::Missing), Some(CheckResult::Good), Some(CheckResult::Bad),
                ]),
                1..40,
            ),
        ) {
            let mut memory = VerdictMemory::default();
            let (mut expected, mut now) = (None, Timestamp::UNIX_EPOCH);
            for result in answers {
                let mut view = answer(result);
                memory.judge(&mut view, now);
                now += Duration::from_secs(60);
                expected = match result {
                    Some(CheckResult::Missing) => expected.or(Some(false)),
                    Some(result) => Some(result == CheckResult::Good),
                    None => expected,
                };
                prop_assert_eq!(view.verdicts.get("web.1").copied(), expected);
                prop_assert_eq!(view.checked.contains("web"), expected.is_some());
            }
        }
    }

    #[test]
    fn a_task_without_checks_is_good_when_its_app_gets_the_first_one() {
        let mut memory = VerdictMemory::default();
        let mut view = answer(Some(CheckResult::Good));
        view.results.values_mut().for_each(|results| results.is_marathons = false);
        memory.judge(&mut view, Timestamp::UNIX_EPOCH);
        assert!(view.verdicts.is_empty());
        let mut view = answer(Some(CheckResult::Missing));
        memory.judge(&mut view, Timestamp::UNIX_EPOCH);
        assert!(view.verdicts["web.1"]);
    }

    #[test]
    fn what_is_not_listed_is_forgotten_after_an_hour_of_answers() {
        let mut memory = VerdictMemory::default();
        memory.judge(&mut answer(Some(CheckResult::Good)), Timestamp::UNIX_EPOCH);
        // Marathon was away for a day.
        let back = Timestamp::UNIX_EPOCH + Duration::from_secs(86_400);
        for (later, is_known) in [(0, true), (3_599, true), (3_600, false)] {
            let mut view = answer(None);
            memory.judge(&mut view, back + Duration::from_secs(later));
            assert_eq!(
                (view.verdicts.len(), view.checked.len()),
                (usize::from(is_known), usize::from(is_known))
            );
        }
    }
}
