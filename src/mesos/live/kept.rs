//! Tasks in their own JSON, with the updates that came after it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cluster::TaskKey;
use crate::mesos::cursor::parsed;
use crate::mesos::wire::{Lenient, MesosTask, WrappedText};

/// Updates of one task that are kept. Mesos itself replaces the last one of a state.
pub const MAX_STATUSES: usize = 16;

/// Tasks in their own JSON, about 2 kB each.
pub type KeptTasks = BTreeMap<TaskKey, KeptTask>;

/// A task as it came, with the updates after that.
#[derive(Clone, Debug)]
pub struct KeptTask {
    pub json: Box<str>,
    /// Id of its agent.
    pub agent: Option<Arc<str>>,
    /// Set unless a command starts it.
    pub has_executor: bool,
    /// The newest state, which may be ahead of the newest status.
    state: Option<Box<str>>,
    pub statuses: Vec<Box<str>>,
}

impl KeptTask {
    pub fn new(json: &str, agent: Option<Arc<str>>, has_executor: bool) -> Self {
        Self { json: json.into(), agent, has_executor, state: None, statuses: Vec::new() }
    }

    /// Adds a status update.
    pub fn update(&mut self, state: &str, status: &RawValue) {
        self.state = Some(state.into());
        // As Mesos does: the last update of a state stands for all of them. A task that changes its
        // state again and again would otherwise grow without end.
        let replaced = self.statuses.last().is_some_and(|last| state_of(last) == state_of(status.get()));
        if replaced || self.statuses.len() == MAX_STATUSES {
            let index = if replaced { self.statuses.len() - 1 } else { 0 };
            self.statuses.remove(index);
        }
        self.statuses.push(status.get().into());
    }

    /// Returns the task with its updates.
    pub fn task(&self) -> Option<MesosTask<'_>> {
        let Lenient::Read(mut task) = read(&self.json) else { return None };
        if let Some(state) = &self.state {
            task.state = Cow::Borrowed(state);
        }
        // After those that came with the task: of equal times the later in the list counts.
        let statuses = self.statuses.iter().filter_map(|status| serde_json::from_str(status).ok());
        task.statuses.get_or_insert_default().extend(statuses.map(Lenient::Read));
        Some(task)
    }
}

fn state_of(status: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct StateOnly {
        state: String,
    }
    serde_json::from_str::<StateOnly>(status).ok().map(|status| status.state)
}

/// Reads a task; never fails, because what cannot be read is a value of its own.
pub fn read(json: &str) -> Lenient<MesosTask<'_>> {
    parsed(json).unwrap_or_else(|error| Lenient::unreadable(&error, json))
}

/// Returns the key of a task in the cluster.
pub fn key(framework: &Option<WrappedText<'_>>, task: &WrappedText<'_>) -> TaskKey {
    TaskKey {
        framework: framework.as_ref().map(|id| (*id.0).into()).unwrap_or_default(),
        task: (*task.0).into(),
    }
}
