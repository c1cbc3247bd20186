//! The decision which snapshot to believe when a document says that tasks are gone.
//!
//! Three things empty a document without any task having ended: a new master, which learns of its
//! agents and their tasks one by one over minutes; missing rights, which Mesos answers by leaving
//! out what may not be seen; and faults. In each case the tasks seen before are kept for a while.
//! A task that is kept ends when a running task has its address and port, see [`super::claims`].
//! The decision is made once, before the planner and DNS, and covers VIPs and names of tasks alike.
//! The time is an argument, so that everything here is pure.
//!
//! For example, with a `failover` of 15 minutes:
//!
//! | time | document | believed |
//! |---|---|---|
//! | 0:00 | master A: agents S1 and S2, a task on each | both tasks |
//! | 0:10 | master B leads, no agent has registered with it | both tasks, held until 15:10 |
//! | 0:40 | master B: S1 and its task | S1's task as the document has it, S2's task held |
//! | 15:10 | master B: S1 only | S1's task; S2 is given up |

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::claims::{Holder, Place, holders, places};
use super::shared::Change;
use super::{Snapshot, TaskKey, TaskState};

/// Limits of how long tasks are held.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Time for which tasks are kept on agents that have not registered with a new master.
    pub failover: Duration,
    /// Number of documents in a row that are held back because more than half of the tasks are missing
    /// without a trace; the next one is believed. 0 believes the first.
    pub mass_loss: u32,
    /// Shortest time between two documents that count separately: events may bring many in a second.
    pub spacing: Duration,
}

/// Reason for which tasks are held, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// Tasks of agents that have not registered again after a fail-over.
    Failover { tasks: usize, agents: usize, until: Timestamp },
    /// Tasks that vanished without a trace, and the number of further documents until that is believed.
    MassLoss { tasks: usize, of: usize, documents: u32 },
}

impl std::fmt::Display for HoldReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HoldReason::Failover { tasks, agents, until } => write!(
                f,
                "a new master leads: {tasks} tasks of {agents} agents that have not registered with it are \
                 kept until {until:.0}; l4lbd accept-loss gives them up at once"
            ),
            HoldReason::MassLoss { tasks, of, documents } => write!(
                f,
                "{tasks} of {of} tasks vanished without a trace (missing rights?) and are kept; this is \
                 believed after {documents} more documents that say the same, or at once with l4lbd accept-loss"
            ),
        }
    }
}

/// Part of the cluster that documents of this run have described.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncState {
    /// No document yet: everything believed comes from an earlier run.
    #[default]
    Cold,
    /// Some agents or tasks are still believed from an earlier run or held back.
    Partial,
    /// Everything that is believed has been described at least once.
    Synced,
}

/// The cluster as it is believed after one document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accepted {
    /// The document, completed by the tasks, agents and names that are held.
    pub snapshot: Arc<Snapshot>,
    /// Reasons for which tasks with VIPs are held; empty when the document is believed as it is.
    pub held: Vec<HoldReason>,
    pub sync: SyncState,
    /// Set while the same document, seen again later, may be believed differently.
    pub is_holding: bool,
    /// State of the holds, for a later run.
    pub holds: Holds,
    /// Tasks that are no longer kept, because a running task has their address and port now.
    pub displaced: Vec<Displaced>,
}

/// Progress of the doubts about documents, which a later run goes on with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// End of a fail-over's hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Timestamp>,
    /// Documents in a row that showed a mass loss.
    #[serde(default)]
    pub losses: u32,
}

/// A task that was kept until a running task had its address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Displaced {
    pub task: TaskKey,
    pub address: SocketAddr,
    pub holder: Holder,
}

impl Accepted {
    /// Returns true if both give the same VIPs, as most documents of a large cluster do. Not decided here:
    /// labels that ask for an address which a task without VIPs may have; see
    /// [`gives_same_table`](crate::plan::Planner::gives_same_table).
    pub fn gives_same_table(&self, other: &Self) -> bool {
        self.sync == other.sync
            && self.held == other.held
            && self.snapshot.is_same_cluster(&other.snapshot)
            && self.snapshot.kept == other.snapshot.kept
            && self.snapshot.skipped == other.snapshot.skipped
            // The leader's address may be no VIP.
            && self.snapshot.names.leader == other.snapshot.names.leader
    }
}

/// The last believed picture of the cluster, and what is needed to judge the next document.
#[derive(Clone, Debug, Default)]
pub struct Belief {
    believed: Option<Arc<Snapshot>>,
    failover: Option<Failover>,
    /// Documents in a row that showed a mass loss.
    losses: u32,
    /// Time at which a document last counted among the losses.
    counted: Option<Timestamp>,
    /// Set until a document shows whether it is of the cluster that an earlier run believed.
    resumed: bool,
    sync: SyncState,
}

#[derive(Clone, Debug)]
struct Failover {
    until: Timestamp,
    /// Agents known before the fail-over that have not registered since.
    missing: BTreeSet<String>,
}

impl Belief {
    /// Goes on from the cluster that an earlier run believed.
    pub fn resume(believed: Option<Snapshot>) -> Self {
        Self { resumed: believed.is_some(), believed: believed.map(Arc::new), ..Self::default() }
    }

    /// Goes on with the holds of an earlier run, on top of the cluster that it believed.
    pub fn holding(mut self, holds: Holds) -> Self {
        if let Some(believed) = &self.believed {
            // Agents that have registered since are in the first document.
            let missing = || believed.agents.keys().cloned().collect();
            self.failover = holds.failover.map(|until| Failover { until, missing: missing() });
            self.losses = holds.losses;
        }
        self
    }

    /// Returns the believed cluster without a new document; `None` when nothing is known at all.
    pub fn accepted(&self) -> Option<Accepted> {
        let snapshot = self.believed.clone()?;
        let (sync, is_holding, holds) = (self.sync, self.is_holding(), self.holds());
        Some(Accepted { snapshot, sync, is_holding, holds, ..Accepted::default() })
    }

    /// Takes a new document and returns what to go by.
    pub fn take(&mut self, document: Arc<Snapshot>, now: Timestamp, patience: Patience) -> Accepted {
        let mut snapshot = document;
        let (mut held, mut displaced) = (Vec::new(), Vec::new());
        if self.resumed {
            self.recognise(&snapshot);
        }
        if let Some(believed) = self.believed.take() {
            keep_framework_names(&believed, &mut snapshot);
            // The fail-over comes first: the tasks that it holds have not vanished without a trace.
            self.note_failover(&believed, &snapshot, now, patience);
            held.extend(self.hold_failover(&believed, &mut snapshot, now));
            held.extend(self.hold_mass_loss(&believed, &mut snapshot, now, patience));
            keep_lost(&believed, &mut snapshot);
            displaced = give_way(&mut snapshot);
        } else {
            // Nothing is known that could be held, or it was another cluster.
            self.failover = None;
            self.losses = 0;
        }
        self.believed = Some(Arc::clone(&snapshot));
        if self.sync != SyncState::Synced {
            self.sync = if self.is_certain() { SyncState::Synced } else { SyncState::Partial };
        }
        let (sync, is_holding, holds) = (self.sync, self.is_holding(), self.holds());
        Accepted { snapshot, held, sync, is_holding, holds, displaced }
    }

    /// Believes a document as it is, whatever it lacks.
    pub fn accept(&mut self, mut document: Arc<Snapshot>) -> Accepted {
        if let Some(believed) = &self.believed {
            keep_framework_names(believed, &mut document);
        }
        self.failover = None;
        self.losses = 0;
        self.counted = None;
        self.resumed = false;
        self.sync = SyncState::Synced;
        self.believed = Some(Arc::clone(&document));
        Accepted { snapshot: document, sync: self.sync, ..Accepted::default() }
    }

    fn holds(&self) -> Holds {
        Holds { failover: self.failover.as_ref().map(|failover| failover.until), losses: self.losses }
    }

    fn is_holding(&self) -> bool {
        self.failover.is_some() || self.losses > 0
    }

    /// True when nothing depends on an earlier run and nothing is awaited.
    fn is_certain(&self) -> bool {
        let awaited = self.believed.as_ref().is_none_or(|believed| !believed.recovered.is_empty());
        !self.resumed && !awaited && !self.is_holding()
    }

    /// Forgets what an earlier run believed if it was another cluster: agents' ids outlive masters, so
    /// the same cluster has some in common.
    fn recognise(&mut self, new: &Snapshot) {
        let mut agents = new.agents.keys().chain(&new.recovered).peekable();
        // A document without agents, as of a master that was just elected, does not tell which cluster it
        // is of.
        if agents.peek().is_none() {
            return;
        }
        self.resumed = false;
        self.believed.take_if(|believed| {
            !agents.any(|agent| believed.agents.contains_key(agent) || believed.recovered.contains(agent))
        });
    }

    fn note_failover(&mut self, believed: &Snapshot, new: &Snapshot, now: Timestamp, patience: Patience) {
        let changed = match (&believed.master, &new.master) {
            (Some(old), Some(new)) => !old.is_same(new),
            _ => false,
        };
        // A daemon that starts in the middle of a fail-over, and documents that name no master, show it
        // only by the agents that are awaited.
        let is_awaited = |agent: &str| new.recovered.contains(agent);
        // Agents of tasks as well: a document may list a task without its agent.
        let agents = || {
            let of_tasks = believed.tasks.values().map(|task| &*task.agent_id);
            believed.agents.keys().map(String::as_str).chain(of_tasks)
        };
        // None is awaited outside of fail-overs, and going through all tasks would cost more than an event.
        let under_way = self.failover.is_none() && !new.recovered.is_empty() && agents().any(is_awaited);
        if changed || under_way {
            let mut missing: BTreeSet<String> = agents().map(str::to_owned).collect();
            // Those of an earlier fail-over as well: a second election in a row must not give them up.
            missing.extend(self.failover.take().into_iter().flat_map(|failover| failover.missing));
            let until = now.checked_add(patience.failover).unwrap_or(Timestamp::MAX);
            self.failover = Some(Failover { until, missing });
        }
        if let Some(failover) = &mut self.failover {
            // An agent that has registered lists its tasks: what it does not list has ended.
            failover.missing.retain(|agent| !new.agents.contains_key(agent));
        }
    }

    fn hold_failover(
        &mut self,
        believed: &Snapshot,
        new: &mut Arc<Snapshot>,
        now: Timestamp,
    ) -> Option<HoldReason> {
        // Every agent that is awaited makes a fail-over, so that without one nothing is held.
        let failover = self.failover.as_ref()?;
        let is_awaited =
            |new: &Snapshot, agent: &str| new.recovered.contains(agent) || failover.missing.contains(agent);
        if now >= failover.until {
            // Given up tasks count as ended, so that the mass-loss check below does not hold them again.
            let given_up = believed.tasks.values().filter(|task| is_awaited(new, &task.agent_id));
            let given_up: Vec<TaskKey> = given_up.map(|task| task.key.clone()).collect();
            Arc::make_mut(new).ended.extend(given_up);
            self.failover = None;
            return None;
        }
        // A task that the document lists, as running or as ended, is for the document to judge.
        let kept: Vec<TaskKey> = believed
            .tasks
            .values()
            .filter(|task| is_awaited(new, &task.agent_id) && !new.ended.contains(&task.key))
            .filter(|task| !new.tasks.contains_key(&task.key))
            .map(|task| task.key.clone())
            .collect();
        // Names of tasks without VIPs are held as well.
        let awaited: BTreeSet<String> =
            believed.agents.keys().filter(|agent| is_awaited(new, agent)).cloned().collect();
        let is_over = failover.missing.is_empty() && kept.is_empty();
        let until = failover.until;
        let agents = keep_tasks(believed, new, &kept);
        if !awaited.is_empty() {
            keep_names(believed, new, |agent| awaited.contains(agent));
        }
        // All agents are back, and the hold ends before its time.
        if is_over {
            self.failover = None;
            return None;
        }
        (!kept.is_empty()).then_some(HoldReason::Failover { tasks: kept.len(), agents, until })
    }

    fn hold_mass_loss(
        &mut self,
        believed: &Snapshot,
        new: &mut Arc<Snapshot>,
        now: Timestamp,
        patience: Patience,
    ) -> Option<HoldReason> {
        let vanished = believed.tasks.changes(&new.tasks).filter_map(|change| match change {
            Change::Removed(key, _) if !new.ended.contains(key) => Some(key.clone()),
            _ => None,
        });
        let vanished: Vec<TaskKey> = vanished.collect();
        let of = believed.tasks.len();
        // A clock that was set back gives no time at all, and the document does not count.
        let since = |counted| Duration::try_from(now.duration_since(counted)).unwrap_or_default();
        let counts = self.counted.is_none_or(|counted| since(counted) >= patience.spacing);
        // Half or fewer can be a fault of one framework or agent, and are believed at once.
        if vanished.len() * 2 <= of || (counts && self.losses >= patience.mass_loss) {
            self.losses = 0;
            self.counted = None;
            return None;
        }
        if counts {
            self.losses += 1;
            self.counted = Some(now);
        }
        keep_tasks(believed, new, &vanished);
        keep_names(believed, new, |_| true);
        // One more than are held, since the document after them is believed.
        let documents = (patience.mass_loss + 1).saturating_sub(self.losses);
        Some(HoldReason::MassLoss { tasks: vanished.len(), of, documents })
    }
}

/// Copies the names of frameworks that the document does not list although it lists tasks of them: masters
/// before Mesos 1.2 do not know a framework that has not registered since they lead.
fn keep_framework_names(believed: &Snapshot, new: &mut Arc<Snapshot>) {
    let gone = believed.frameworks.changes(&new.frameworks).filter_map(|change| match change {
        Change::Removed(id, name) => Some((id.clone(), name.clone())),
        _ => None,
    });
    let mut gone: Vec<(String, String)> = gone.collect();
    // The usual case: going through all tasks would cost more than the rest of a document that changes one.
    if gone.is_empty() {
        return;
    }
    let in_use: BTreeSet<&str> = new
        .tasks
        .keys()
        .map(|key| &*key.framework)
        .chain(new.names.tasks.keys().map(|key| &*key.framework))
        .collect();
    gone.retain(|(id, _)| in_use.contains(id.as_str()));
    Arc::make_mut(new).frameworks.extend(gone);
}

/// Keeps tasks of lost agents as long as the document lists them, for VIPs without another backend.
fn keep_lost(believed: &Snapshot, new: &mut Arc<Snapshot>) {
    let lost: Vec<TaskKey> =
        new.lost.iter().filter(|key| believed.tasks.contains_key(*key)).cloned().collect();
    keep_tasks(believed, new, &lost);
    for key in lost {
        if let Some(task) = Arc::make_mut(new).tasks.get_mut(&key) {
            Arc::make_mut(task).state = TaskState::Lost;
        }
    }
}

/// Copies tasks with their agents and frameworks; returns the number of agents.
fn keep_tasks(believed: &Snapshot, new: &mut Arc<Snapshot>, tasks: &[TaskKey]) -> usize {
    if tasks.is_empty() {
        return 0;
    }
    // Only here a document is copied, if a consumer of it still holds it.
    let new = Arc::make_mut(new);
    let mut agents = BTreeSet::new();
    for task in tasks.iter().filter_map(|key| believed.tasks.get(key)) {
        keep_origin(believed, new, &task.agent_id, &task.key.framework);
        agents.insert(&task.agent_id);
        new.tasks.insert(task.key.clone(), Arc::clone(task));
        new.kept.insert(task.key.clone());
    }
    agents.len()
}

/// Ends the kept tasks whose address and port a running task has by now. They do not come back when that one
/// ends: the place was given to another, so that they are gone for certain.
fn give_way(new: &mut Arc<Snapshot>) -> Vec<Displaced> {
    let kept = new.kept.iter().filter_map(|key| new.tasks.get(key));
    let (owners, asked): (Vec<&TaskKey>, Vec<Place>) =
        kept.flat_map(|task| places(new, task).map(move |place| (&task.key, place))).unzip();
    let mut displaced: BTreeMap<TaskKey, Displaced> = BTreeMap::new();
    for ((owner, place), holder) in owners.into_iter().zip(&asked).zip(holders(new, &asked)) {
        if let Some(holder) = holder {
            let (task, address) = (owner.clone(), place.address);
            displaced.entry(owner.clone()).or_insert(Displaced { task, address, holder });
        }
    }
    if displaced.is_empty() {
        return Vec::new();
    }
    let new = Arc::make_mut(new);
    Arc::make_mut(&mut new.names).give_up(displaced.keys());
    for key in displaced.keys() {
        new.tasks.remove(key);
        new.kept.remove(key);
        // Not lost without a trace, which would be doubted.
        new.ended.insert(key.clone());
    }
    displaced.into_values().collect()
}

/// Copies the registry's tasks that the document lacks, for the agents that `is_kept` selects.
fn keep_names(believed: &Snapshot, new: &mut Arc<Snapshot>, is_kept: impl Fn(&str) -> bool) {
    let mut registry = Arc::clone(&new.names);
    let origins = Arc::make_mut(&mut registry).keep(&believed.names, is_kept, &new.ended);
    if origins.is_empty() {
        return;
    }
    let new = Arc::make_mut(new);
    for (agent, framework) in origins {
        keep_origin(believed, new, &agent, &framework);
    }
    new.names = registry;
}

/// Copies an agent and a framework that the document does not have.
fn keep_origin(believed: &Snapshot, new: &mut Snapshot, agent: &str, framework: &str) {
    if !new.agents.contains_key(agent)
        && let Some(known) = believed.agents.get(agent)
    {
        new.agents.insert(agent.to_owned(), known.clone());
    }
    if !new.frameworks.contains_key(framework)
        && let Some(name) = believed.frameworks.get(framework)
    {
        new.frameworks.insert(framework.to_owned(), name.clone());
        if let Some(time) = believed.registered.get(framework) {
            new.registered.insert(framework.to_owned(), *time);
        }
    }
}

#[cfg(test)]
mod tests;
