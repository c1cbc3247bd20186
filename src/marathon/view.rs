//! Content of one set of Marathon's answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::results::TaskResults;
use crate::cluster::{Agent, Skipped, Snapshot, Task, TaskKey, TaskState, app_of, shortened};

/// Marathon's view of the cluster: verdicts on tasks, and the tasks themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MarathonView {
    /// Verdicts by task id, true for a task that should get connections; only tasks that Marathon
    /// itself checks.
    pub verdicts: BTreeMap<String, bool>,
    /// Beginnings of task ids of apps with such checks: until there is a verdict, their tasks should
    /// get no connections.
    pub checked: BTreeSet<String>,
    /// Ids of tasks whose verdict is bad only for want of results.
    pub waiting: BTreeSet<String>,
    /// Results by task id, until verdicts are made of them.
    pub results: BTreeMap<String, TaskResults>,
    /// Listed apps by the beginnings of their tasks' ids, true for those with checks of Marathon itself;
    /// until verdicts are made.
    pub apps: BTreeMap<String, bool>,
    /// Listed apps and pods by the beginnings of their tasks' ids, true for those that list as many tasks
    /// as they should have; until it is known which tasks have ended.
    pub complete: BTreeMap<String, bool>,
    /// Id of Marathon's framework.
    pub framework: Arc<str>,
    /// The cluster as far as Marathon knows it.
    pub snapshot: Snapshot,
}

impl MarathonView {
    /// Adds an agent, of which only the name of the host is known; that may be an address. Returns the id
    /// by which tasks with this host find it.
    ///
    /// Tasks may give one agent several hosts: each then has an agent of its own, so that a name without
    /// an address costs only the tasks that give it.
    pub fn add_agent(&mut self, id: &str, host: &str) -> String {
        let agent = || Agent { hostname: host.to_owned(), address: host.parse().ok(), port: None };
        let agents = &mut self.snapshot.agents;
        let is_this = match agents.get(id) {
            Some(first) => first.hostname == host,
            None => agents.insert(id.to_owned(), agent()).is_none(),
        };
        if is_this {
            return id.to_owned();
        }
        let id = format!("{id} at {host}");
        if !agents.contains_key(&id) {
            agents.insert(id.clone(), agent());
        }
        id
    }

    /// Adds the number of tasks that a listed app or pod has, `None` if not all can be read, and the number
    /// that it should have.
    pub fn add_count(&mut self, id: &str, tasks: Option<usize>, instances: Option<u64>) {
        let tasks = tasks.and_then(|tasks| u64::try_from(tasks).ok());
        let is_complete = tasks.is_some() && tasks == instances;
        // Ids such as /a/b and /a_b lead to one beginning.
        let known = self.complete.entry(spec(id)).or_insert(true);
        *known = *known && is_complete;
    }

    /// Adds the record of an app, a pod or a task that yields nothing.
    pub fn skip(&mut self, id: &str, reason: String) {
        let task = shortened(id.to_owned());
        self.snapshot.skipped.push(Skipped { task, reason, ..Skipped::default() });
    }

    /// Adds Marathon's verdicts to tasks of Mesos: a task is healthy if neither says otherwise.
    ///
    /// An app that would have no ready task any more, because tasks that were ready in `before` wait for
    /// their first results, keeps these ready and gets a record in [`Snapshot::skipped`].
    pub fn judge(&self, snapshot: &mut Snapshot, before: Option<&Snapshot>) {
        let was_ready = |task: &Task| {
            before.and_then(|before| before.tasks.get(&task.key)).is_some_and(|task| task.is_ready())
        };
        let mut ready = BTreeSet::new();
        // Tasks that would leave for want of results, with their health in Mesos.
        let mut leaving: BTreeMap<String, Vec<(TaskKey, Option<bool>)>> = BTreeMap::new();
        // Only tasks that differ are changed, so that all other ones stay those of the masters' snapshot.
        let mut judged = Vec::new();
        for task in snapshot.tasks.values().filter(|task| task.key.framework == self.framework) {
            let id = &*task.key.task;
            let app = app_of(id, None).to_owned();
            let verdict = self.verdicts.get(id).copied();
            let is_waiting = self.waiting.contains(id) || (verdict.is_none() && self.checked.contains(&app));
            if is_waiting && task.is_ready() && was_ready(task) {
                leaving.entry(app.clone()).or_default().push((task.key.clone(), task.healthy));
            }
            // A task that has just started has no verdict yet.
            let mut healthy = task.healthy;
            if let Some(good) = verdict.or_else(|| is_waiting.then_some(false)) {
                healthy = Some(good && healthy != Some(false));
            }
            if healthy != task.healthy {
                judged.push((task.key.clone(), healthy));
            }
            if task.state == TaskState::Running && healthy != Some(false) {
                ready.insert(app);
            }
        }
        for (key, healthy) in judged {
            if let Some(task) = snapshot.tasks.get_mut(&key) {
                Arc::make_mut(task).healthy = healthy;
            }
        }
        for (app, tasks) in leaving.into_iter().filter(|(app, _)| !ready.contains(app)) {
            let reason = format!(
                "Marathon has no results of its checks for any task that was ready; {} tasks keep getting \
                 connections until it has",
                tasks.len()
            );
            for (key, healthy) in tasks {
                if let Some(task) = snapshot.tasks.get_mut(&key) {
                    Arc::make_mut(task).healthy = healthy;
                }
            }
            snapshot.skipped.push(Skipped { task: shortened(app), reason, ..Skipped::default() });
        }
    }
}

/// Returns the beginning of the ids of an app's tasks: `dev_web` of `/dev/web`.
pub(super) fn spec(app: &str) -> String {
    app.trim_start_matches('/').replace('/', "_")
}
