//! The decision which snapshot to believe when a document says that tasks are gone.
//!
//! Three things empty a document without any task having ended: a new master, which learns of its
//! agents and their tasks one by one over minutes; missing rights, which Mesos answers by leaving
//! out what may not be seen; and faults. In each case the tasks seen before are kept for a while.
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

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::shared::Change;
use super::{Snapshot, TaskKey, TaskState};

/// Limits of how long tasks are held.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Time for which tasks are kept on agents that have not registered with a new master.
    pub failover: Duration,
    /// Number of documents in a row in which more than half of the tasks may be missing without a
    /// trace before the loss is believed; 0 believes it at once.
    pub mass_loss: u32,
    /// Shortest time between two documents that count separately: events may bring many in a second.
    pub spacing: Duration,
}

/// Reason for which tasks are held, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// Tasks of agents that have not registered again after a fail-over.
    Failover { tasks: usize, agents: usize, until: Timestamp },
    /// Tasks that vanished without a trace, and the number of further documents that must agree.
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
}

impl Accepted {
    /// Returns true if the same table of VIPs follows from both, unless a label asks for an address that
    /// a task without VIPs has: most documents of a large cluster differ only in what is no matter of
    /// VIPs.
    pub fn gives_same_table(&self, other: &Self) -> bool {
        self.sync == other.sync
            && self.held == other.held
            && self.snapshot.is_same_cluster(&other.snapshot)
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

    /// Returns the believed cluster without a new document; `None` when nothing is known at all.
    pub fn accepted(&self) -> Option<Accepted> {
        let snapshot = self.believed.clone()?;
        Some(Accepted { snapshot, held: Vec::new(), sync: self.sync, is_holding: self.is_holding() })
    }

    /// Takes a new document and returns what to go by.
    pub fn take(&mut self, document: Arc<Snapshot>, now: Timestamp, patience: Patience) -> Accepted {
        let mut snapshot = document;
        let mut held = Vec::new();
        if self.resumed {
            self.recognise(&snapshot);
        }
        if let Some(believed) = self.believed.take() {
            // The fail-over comes first: the tasks that it holds have not vanished without a trace.
            self.note_failover(&believed, &snapshot, now, patience);
            held.extend(self.hold_failover(&believed, &mut snapshot, now));
            held.extend(self.hold_mass_loss(&believed, &mut snapshot, now, patience));
            keep_lost(&believed, &mut snapshot);
        }
        self.believed = Some(Arc::clone(&snapshot));
        if self.sync != SyncState::Synced {
            self.sync = if self.is_certain() { SyncState::Synced } else { SyncState::Partial };
        }
        Accepted { snapshot, held, sync: self.sync, is_holding: self.is_holding() }
    }

    /// Believes a document as it is, whatever it lacks.
    pub fn accept(&mut self, document: Arc<Snapshot>) -> Accepted {
        self.failover = None;
        self.losses = 0;
        self.counted = None;
        self.resumed = false;
        self.sync = SyncState::Synced;
        self.believed = Some(Arc::clone(&document));
        Accepted { snapshot: document, held: Vec::new(), sync: self.sync, is_holding: false }
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
        let is_awaited = |agent: &String| new.recovered.contains(agent);
        let under_way = self.failover.is_none() && believed.agents.keys().any(is_awaited);
        if changed || under_way {
            let mut missing: BTreeSet<String> = believed.agents.keys().cloned().collect();
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
        let failover = self.failover.as_ref();
        // The usual case costs nothing, however many tasks there are.
        if failover.is_none() && new.recovered.is_empty() {
            return None;
        }
        let is_awaited = |new: &Snapshot, agent: &str| {
            new.recovered.contains(agent) || failover.is_some_and(|failover| failover.missing.contains(agent))
        };
        if failover.is_some_and(|failover| now >= failover.until) {
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
        let is_over = failover.is_some_and(|failover| failover.missing.is_empty()) && kept.is_empty();
        let until = failover.map(|failover| failover.until);
        let agents = keep_tasks(believed, new, &kept);
        if !awaited.is_empty() {
            keep_names(believed, new, |agent| awaited.contains(agent));
        }
        // All agents are back, and the hold ends before its time.
        if is_over {
            self.failover = None;
            return None;
        }
        (!kept.is_empty()).then_some(HoldReason::Failover { tasks: kept.len(), agents, until: until? })
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
        // Fewer than half can be a fault of one framework or agent, and are believed at once.
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
        // One more than must agree, since the document after them is believed.
        let documents = (patience.mass_loss + 1).saturating_sub(self.losses);
        Some(HoldReason::MassLoss { tasks: vanished.len(), of, documents })
    }
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
    }
    agents.len()
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
    }
}

#[cfg(test)]
mod tests;
