//! What one set of Marathon's answers says.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{Agent, Skipped, Snapshot, shortened};

/// Marathon's view of the cluster: verdicts on tasks, and the tasks themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MarathonView {
    /// Verdicts by task id, true for a task that should get connections; only tasks that Marathon
    /// itself checks.
    pub verdicts: BTreeMap<String, bool>,
    /// Beginnings of task ids of apps with such checks: until there is a verdict, their tasks should
    /// get no connections.
    pub checked: BTreeSet<String>,
    /// Id of Marathon's framework.
    pub framework: String,
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
        let agent = || Agent { hostname: host.to_owned(), address: host.parse().ok() };
        let first = self.snapshot.agents.entry(id.to_owned()).or_insert_with(agent);
        if first.hostname == host {
            return id.to_owned();
        }
        let id = format!("{id} at {host}");
        self.snapshot.agents.entry(id.clone()).or_insert_with(agent);
        id
    }

    /// Adds the record of an app, a pod or a task that yields nothing.
    pub fn skip(&mut self, id: &str, reason: String) {
        let task = shortened(id.to_owned());
        self.snapshot.skipped.push(Skipped { task, reason, ..Skipped::default() });
    }

    /// Adds Marathon's verdicts to tasks of Mesos: a task is healthy if neither says otherwise.
    pub fn judge(&self, snapshot: &mut Snapshot) {
        for task in snapshot.tasks.values_mut().filter(|task| task.key.framework == self.framework) {
            let id = task.key.task.as_str();
            let verdict = self.verdicts.get(id).copied();
            // A task that has just started has no verdict yet.
            let verdict = verdict.or_else(|| self.checked.contains(run_spec(id)).then_some(false));
            if let Some(good) = verdict {
                task.healthy = Some(good && task.healthy != Some(false));
            }
        }
    }
}

/// Returns the part of a task id that all tasks of an app have in common: `dev_web` of
/// `dev_web.instance-UUID._app.1`, and of `dev_web.UUID` before Marathon 1.4.
pub(super) fn run_spec(task: &str) -> &str {
    task.rsplit_once(".instance-").or_else(|| task.rsplit_once('.')).map_or(task, |(spec, _)| spec)
}
