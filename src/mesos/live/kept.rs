//! Tasks in their own JSON, with the updates that came after it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::packed::{PackedText, Packer};
use crate::cluster::TaskKey;
use crate::mesos::cursor::parsed;
use crate::mesos::texts::Texts;
use crate::mesos::wire::{Lenient, MesosTask, WrappedText};

/// Updates of one task that are kept. Mesos itself replaces the last one of a state.
pub const MAX_STATUSES: usize = 16;

/// Tasks in their own JSON, of which each has some 2 kB before it is packed.
pub type KeptTasks = BTreeMap<TaskKey, KeptTask>;

/// A task as it came, with the updates after that.
#[derive(Clone, Debug)]
pub struct KeptTask {
    json: PackedText,
    /// Id of its agent.
    pub agent: Option<Arc<str>>,
    /// `None` for most tasks: a whole state has what came before it.
    updates: Option<Box<Updates>>,
    /// Set unless a command starts it.
    pub has_executor: bool,
}

/// Updates of a task since it came.
#[derive(Clone, Debug, Default)]
struct Updates {
    /// The newest state, which may be ahead of the newest status.
    state: Box<str>,
    statuses: Vec<Box<str>>,
}

impl KeptTask {
    pub fn new(json: PackedText, agent: Option<Arc<str>>, has_executor: bool) -> Self {
        Self { json, agent, updates: None, has_executor }
    }

    /// Adds a status update.
    pub fn update(&mut self, state: &str, status: &RawValue) {
        let Updates { state: newest, statuses } = &mut **self.updates.get_or_insert_default();
        *newest = state.into();
        // As Mesos does: the last update of a state stands for all of them. A task that changes its
        // state again and again would otherwise grow without end.
        let replaced = statuses.last().is_some_and(|last| state_of(last) == state_of(status.get()));
        if replaced || statuses.len() == MAX_STATUSES {
            let index = if replaced { statuses.len() - 1 } else { 0 };
            statuses.remove(index);
        }
        statuses.push(status.get().into());
    }

    /// Returns the task's own JSON, for [`Self::task`].
    pub fn json(&self, packer: &Packer) -> String {
        packer.unpack(&self.json)
    }

    /// Returns the task in its `json` with its updates.
    pub fn task<'t>(&'t self, json: &'t str) -> Option<MesosTask<'t>> {
        let Lenient::Read(mut task) = read(json) else { return None };
        if let Some(Updates { state, statuses }) = self.updates.as_deref() {
            task.state = Cow::Borrowed(state);
            // After those that came with the task: of equal times the later in the list counts.
            let statuses = statuses.iter().filter_map(|status| serde_json::from_str(status).ok());
            task.statuses.get_or_insert_default().extend(statuses.map(Lenient::Read));
        }
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
pub fn key(framework: &Option<WrappedText<'_>>, task: &WrappedText<'_>, texts: &mut Texts) -> TaskKey {
    TaskKey {
        framework: framework.as_ref().map(|id| texts.shared(&id.0)).unwrap_or_default(),
        task: (*task.0).into(),
    }
}
