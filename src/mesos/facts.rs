//! Facts that one item of a document's lists contributes to the snapshot.
//!
//! A document is a list of items, and its snapshot the sum of their facts: they are made of an item's text
//! ([`super::items::facts`]) and of nothing else, so that the same text always gives the same facts. That is what
//! allows to keep the facts of items that did not change (see [`super::reading`]).

use std::sync::Arc;

use super::cursor::Bounds;
use super::executors::{self, ExecutorKey, Executors, Ranges};
use super::skip::{add_skipped, unreadable};
use crate::cluster::registry::{RegisteredKey, RegisteredTask};
use crate::cluster::{Agent, Skipped, Snapshot, Task, TaskKey};

/// Bounds of one item. Real ones have some kilobytes and some hundred values.
pub const ITEM: Bounds = Bounds { length: 16 << 20, values: 1 << 18 };

/// Octets of an id or a name that is kept; Mesos allows 255 for ids.
pub const MAX_NAME: usize = 1_024;

/// List that an item is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Task,
    /// Tasks that have ended.
    Ended,
    /// Tasks whose agent the master has lost.
    Unreachable,
    Agent,
    /// Agents that have not registered again after a fail-over.
    RecoveredAgent,
    Executor,
}

impl Kind {
    /// Returns true for lists of tasks, which are counted together.
    pub fn is_task(self) -> bool {
        matches!(self, Self::Task | Self::Ended | Self::Unreachable)
    }

    /// Returns the place of the list in the document, for records about its items.
    fn place(self) -> &'static str {
        match self {
            Self::Task | Self::Ended | Self::Unreachable => "tasks[]",
            Self::Agent | Self::RecoveredAgent => "agents[]",
            Self::Executor => "executors[]",
        }
    }

    /// Returns the record of an item that exceeds its bounds.
    pub fn too_long(self) -> Skipped {
        Skipped {
            task: self.place().to_owned(),
            reason: format!(
                "an item with more than {} bytes or {} values, which is left out",
                ITEM.length, ITEM.values
            ),
            ..Skipped::default()
        }
    }
}

/// Contribution of one item.
#[derive(Clone, Debug, PartialEq)]
pub enum Facts {
    /// Item without effect, such as a task that is being staged and has no VIP.
    Nothing,
    Task {
        /// Present for a task with VIP labels.
        task: Option<Arc<Task>>,
        /// Present for a task that runs.
        registered: Option<(RegisteredKey, Arc<RegisteredTask>)>,
        /// `None` for most tasks.
        rest: Option<Box<TaskRest>>,
    },
    /// An executor with ports.
    Executor(Box<(ExecutorKey, Ranges)>),
    Ended {
        key: TaskKey,
        is_lost: bool,
    },
    Agent(Box<AgentFacts>),
    /// A record about an item that yields nothing.
    Skipped(Box<Skipped>),
}

/// Parts of a task's facts that few tasks have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskRest {
    pub skipped: Vec<Skipped>,
    /// Id of its executor, where that may have ports that the task announces and was not given itself.
    pub executor: Option<Arc<str>>,
}

/// An agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentFacts {
    pub id: String,
    /// `None` for an agent that a new master still awaits.
    pub agent: Option<Agent>,
    /// Set when tasks or executors use resources of it.
    pub is_in_use: bool,
}

/// Returns a value that is known, with its key, if another one is equal to it and not the same.
fn equal<K: Clone, V: PartialEq>((key, value): (&K, &Arc<V>), known: &Arc<V>) -> Option<(K, Arc<V>)> {
    (!Arc::ptr_eq(value, known) && value == known).then(|| (key.clone(), Arc::clone(known)))
}

impl Facts {
    /// Returns the records in it.
    pub fn skipped(&self) -> &[Skipped] {
        match self {
            Self::Task { rest: Some(rest), .. } => &rest.skipped,
            Self::Skipped(record) => std::slice::from_ref(record),
            _ => &[],
        }
    }

    /// Takes the records out of it.
    pub fn forget_skipped(&mut self) {
        match self {
            Self::Task { rest: Some(rest), .. } => rest.skipped = Vec::new(),
            Self::Skipped(_) => *self = Self::Nothing,
            _ => {}
        }
    }

    /// Returns true for an agent whose resources are in use.
    pub fn is_agent_in_use(&self) -> bool {
        matches!(self, Self::Agent(agent) if agent.is_in_use)
    }

    /// Adds the facts to a snapshot, after all that come before them in the document, given all executors of the
    /// document.
    pub fn add_to(&self, snapshot: &mut Snapshot, executors: &Executors) {
        match self {
            Self::Nothing | Self::Executor(_) => {}
            Self::Task { .. } => self.add_task_to(snapshot, executors),
            Self::Ended { key, is_lost } => {
                if *is_lost {
                    snapshot.lost.insert(key.clone());
                }
                snapshot.ended.insert(key.clone());
            }
            // An agent that has registered again is not awaited any more.
            Self::Agent(agent) => match &**agent {
                AgentFacts { id, agent: Some(agent), .. } => {
                    snapshot.recovered.remove(id);
                    snapshot.agents.insert(id.clone(), agent.clone());
                }
                AgentFacts { id, agent: None, .. } => {
                    snapshot.recovered.insert(id.clone());
                }
            },
            Self::Skipped(_) => {}
        }
        for record in self.skipped() {
            add_skipped(&mut snapshot.skipped, record.clone());
        }
    }

    /// Returns the executors of a document, given all its facts in their order.
    pub fn executors<'f>(facts: impl Iterator<Item = &'f Self>) -> Executors {
        let mut executors = Executors::default();
        facts.for_each(|facts| facts.add_executor_to(&mut executors));
        executors
    }

    /// Adds the executor, if the facts are one's.
    pub fn add_executor_to(&self, executors: &mut Executors) {
        if let Self::Executor(executor) = self {
            let (key, ports) = &**executor;
            executors.add(key.clone(), ports.clone());
        }
    }

    /// Adds a task without its records, or replaces it.
    pub fn add_task_to(&self, snapshot: &mut Snapshot, executors: &Executors) {
        let Self::Task { task, registered, rest } = self else { return };
        let executor = rest.as_ref().and_then(|rest| rest.executor.as_ref());
        if let Some(task) = task {
            let ports = executor.map(|id| executors.ports(&task.key.framework, id, &task.agent_id));
            let with_ports = ports.and_then(|ports| executors::task_with_ports(task, ports)).map(Arc::new);
            snapshot.tasks.insert(task.key.clone(), with_ports.unwrap_or_else(|| Arc::clone(task)));
        }
        if let Some((key, task)) = registered {
            let ports = executor.map(|id| executors.ports(&key.framework, id, &task.agent));
            let with_ports = ports.and_then(|ports| executors::registered_with_ports(task, ports));
            let task = with_ports.map_or_else(|| Arc::clone(task), Arc::new);
            Arc::make_mut(&mut snapshot.names).add(key.clone(), task);
        }
    }

    /// Replaces the task in a snapshot by that of an earlier one, if they are equal.
    pub fn share_task(&self, snapshot: &mut Snapshot, before: &Snapshot) {
        let Self::Task { task, registered, .. } = self else { return };
        let key = task.as_ref().map(|task| &task.key);
        let known = key.and_then(|key| equal((key, snapshot.tasks.get(key)?), before.tasks.get(key)?));
        if let Some((key, task)) = known {
            snapshot.tasks.insert(key, task);
        }
        let key = registered.as_ref().map(|(key, _)| key);
        let known =
            key.and_then(|key| equal((key, snapshot.names.tasks.get(key)?), before.names.tasks.get(key)?));
        if let Some((key, task)) = known {
            Arc::make_mut(&mut snapshot.names).add(key, task);
        }
    }

    /// Returns true for a task whose executor has not the same ports in both.
    pub fn is_concerned(&self, before: &Executors, after: &Executors) -> bool {
        let Self::Task { task, registered, rest: Some(rest) } = self else { return false };
        let Some(id) = &rest.executor else { return false };
        let origin = match (task, registered) {
            (Some(task), _) => (&task.key.framework, &task.agent_id),
            (None, Some((key, task))) => (&key.framework, &task.agent),
            (None, None) => return false,
        };
        before.ports(origin.0, id, origin.1) != after.ports(origin.0, id, origin.1)
    }

    /// Takes a task's facts out of a snapshot that has no other facts about it.
    pub fn take_from(&self, snapshot: &mut Snapshot) {
        match self {
            Self::Task { task, registered, .. } => {
                if let Some(task) = task {
                    snapshot.tasks.remove(&task.key);
                }
                if let Some((key, _)) = registered {
                    Arc::make_mut(&mut snapshot.names).remove(key);
                }
            }
            Self::Ended { key, .. } => {
                snapshot.ended.remove(key);
                snapshot.lost.remove(key);
            }
            Self::Nothing | Self::Executor(_) | Self::Agent(_) | Self::Skipped(_) => {}
        }
    }
}

/// Returns the record of an item that cannot be read.
pub fn unread(error: &str, json: String, kind: Kind, what: &str) -> Facts {
    Facts::Skipped(Box::new(Skipped { task: kind.place().to_owned(), ..unreadable(error, json, what) }))
}

/// Returns the record of an item with an id or a name that is longer than any that is kept; `None` if
/// there is none.
pub fn oversized<'t>(kind: Kind, names: impl IntoIterator<Item = &'t str>) -> Option<Facts> {
    let longest = names.into_iter().map(str::len).max()?;
    (longest > MAX_NAME).then(|| {
        Facts::Skipped(Box::new(Skipped {
            task: kind.place().to_owned(),
            reason: format!("an id or a name with {longest} bytes, of which at most {MAX_NAME} are read"),
            ..Skipped::default()
        }))
    })
}
