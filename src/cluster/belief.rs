//! What to believe when a document says that tasks are gone.
//!
//! Three things empty a document without any task having ended: a new master, which learns of its
//! agents and their tasks one by one over minutes; missing rights, which Mesos answers by leaving
//! out what may not be seen; and faults. In each case the tasks seen before are kept for a while.
//! The time is an argument, so that everything here is pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::cluster::{Snapshot, Task, TaskKey, TaskState};

/// How long to hold on to tasks.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long tasks of agents are kept that a new master has not heard from.
    pub failover: Duration,
    /// Number of documents in a row in which more than half of the tasks may be missing without a
    /// trace before that is believed; 0 believes it at once.
    pub mass_loss: u32,
    /// Documents that come sooner after each other count as one: events may come many in a second.
    pub spacing: Duration,
}

/// Something that is being held, for people to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// After a fail-over: tasks of agents that have not registered again.
    Failover { tasks: usize, agents: usize, until: Timestamp },
    /// Tasks that vanished without a trace, and in how many documents more that must be so.
    MassLoss { tasks: usize, of: usize, documents: u32 },
}

impl std::fmt::Display for HoldReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HoldReason::Failover { tasks, agents, until } => write!(
                f,
                "a new master leads: {tasks} tasks of {agents} agents that have not registered with it are \
                 kept until {until:.0}"
            ),
            HoldReason::MassLoss { tasks, of, documents } => write!(
                f,
                "{tasks} of {of} tasks vanished without a trace (missing rights?) and are kept; this is \
                 believed after {documents} more documents that say the same, or at once with l4lbd accept-loss"
            ),
        }
    }
}

/// The last believed picture of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Belief {
    believed: Option<Snapshot>,
    failover: Option<Failover>,
    losses: u32,
    /// When a document last counted among the losses.
    counted: Option<Timestamp>,
    /// Whether it is not known yet that documents are of the cluster that an earlier run believed.
    resumed: bool,
}

#[derive(Clone, Debug)]
struct Failover {
    until: Timestamp,
    /// Agents known before it that have not registered since.
    missing: BTreeSet<String>,
}

impl Belief {
    /// Goes on from what an earlier run believed.
    pub fn resume(believed: Option<Snapshot>) -> Self {
        Self { resumed: believed.is_some(), believed, ..Self::default() }
    }

    /// What is believed now.
    pub fn believed(&self) -> Option<&Snapshot> {
        self.believed.as_ref()
    }

    /// Whether documents have told all there is: nothing depends on what an earlier run believed, nor
    /// is anything being waited for.
    pub fn is_certain(&self) -> bool {
        let awaited = self.believed.as_ref().is_none_or(|believed| !believed.recovered.is_empty());
        !self.resumed && !awaited && self.failover.is_none() && self.losses == 0
    }

    /// Takes a new document and returns what to go by, with what was held back.
    pub fn take(
        &mut self,
        new: Snapshot,
        now: Timestamp,
        patience: Patience,
    ) -> (&Snapshot, Vec<HoldReason>) {
        let mut snapshot = new;
        let mut held = Vec::new();
        if self.resumed {
            self.recognise(&snapshot);
        }
        if let Some(believed) = self.believed.take() {
            self.note_failover(&believed, &snapshot, now, patience);
            held.extend(self.hold_failover(&believed, &mut snapshot, now));
            held.extend(self.hold_mass_loss(&believed, &mut snapshot, now, patience));
            keep_lost(&believed, &mut snapshot);
        }
        (self.believed.insert(snapshot), held)
    }

    /// Takes a document for the whole truth, whatever it lacks.
    pub fn accept(&mut self, snapshot: Snapshot) -> &Snapshot {
        self.failover = None;
        self.losses = 0;
        self.resumed = false;
        self.believed.insert(snapshot)
    }

    /// What an earlier run believed counts only for the same cluster, which has agents in common: their
    /// ids outlive masters.
    fn recognise(&mut self, new: &Snapshot) {
        let mut agents = new.agents.keys().chain(&new.recovered).peekable();
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
        // A daemon that starts in the middle of a fail-over knows of it only from the awaited agents.
        let under_way = self.failover.is_none()
            && believed.tasks.values().any(|task| new.recovered.contains(&task.agent_id));
        if changed || under_way {
            let mut missing: BTreeSet<String> = believed.agents.keys().cloned().collect();
            missing.extend(self.failover.take().into_iter().flat_map(|failover| failover.missing));
            let until = now.checked_add(patience.failover).unwrap_or(Timestamp::MAX);
            self.failover = Some(Failover { until, missing });
        }
        if let Some(failover) = &mut self.failover {
            failover.missing.retain(|agent| !new.agents.contains_key(agent));
        }
    }

    fn hold_failover(
        &mut self,
        believed: &Snapshot,
        new: &mut Snapshot,
        now: Timestamp,
    ) -> Option<HoldReason> {
        let awaited = |agent: &String| {
            new.recovered.contains(agent)
                || self.failover.as_ref().is_some_and(|failover| failover.missing.contains(agent))
        };
        let expired = self.failover.as_ref().is_some_and(|failover| now >= failover.until);
        if expired {
            // Waiting longer for these is not a matter of how many they are.
            let given_up = believed.tasks.values().filter(|task| awaited(&task.agent_id));
            let given_up: Vec<TaskKey> = given_up.map(|task| task.key.clone()).collect();
            new.ended.extend(given_up);
            self.failover = None;
            return None;
        }
        let kept: Vec<TaskKey> = believed
            .tasks
            .values()
            .filter(|task| awaited(&task.agent_id) && !new.ended.contains(&task.key))
            .filter(|task| !new.tasks.contains_key(&task.key))
            .map(|task| task.key.clone())
            .collect();
        let agents = keep(believed, new, &kept);
        let failover = self.failover.as_ref()?;
        if failover.missing.is_empty() && kept.is_empty() {
            self.failover = None;
            return None;
        }
        (!kept.is_empty()).then_some(HoldReason::Failover {
            tasks: kept.len(),
            agents,
            until: failover.until,
        })
    }

    fn hold_mass_loss(
        &mut self,
        believed: &Snapshot,
        new: &mut Snapshot,
        now: Timestamp,
        patience: Patience,
    ) -> Option<HoldReason> {
        let vanished: Vec<TaskKey> = believed
            .tasks
            .keys()
            .filter(|key| !new.tasks.contains_key(key) && !new.ended.contains(key))
            .cloned()
            .collect();
        let of = believed.tasks.len();
        let since = |counted| Duration::try_from(now.duration_since(counted)).unwrap_or_default();
        let counts = self.counted.is_none_or(|counted| since(counted) >= patience.spacing);
        if vanished.len() * 2 <= of || (counts && self.losses >= patience.mass_loss) {
            self.losses = 0;
            self.counted = None;
            return None;
        }
        if counts {
            self.losses += 1;
            self.counted = Some(now);
        }
        keep(believed, new, &vanished);
        let documents = (patience.mass_loss + 1).saturating_sub(self.losses);
        Some(HoldReason::MassLoss { tasks: vanished.len(), of, documents })
    }
}

/// Keeps tasks of lost agents as long as the document lists them, for VIPs that have nobody else.
fn keep_lost(believed: &Snapshot, new: &mut Snapshot) {
    let lost: Vec<TaskKey> =
        new.lost.iter().filter(|key| believed.tasks.contains_key(*key)).cloned().collect();
    keep(believed, new, &lost);
    for key in lost {
        if let Some(Task { state, .. }) = new.tasks.get_mut(&key) {
            *state = TaskState::Lost;
        }
    }
}

/// Copies tasks with their agents and frameworks; returns the number of agents.
fn keep(believed: &Snapshot, new: &mut Snapshot, tasks: &[TaskKey]) -> usize {
    let mut agents = BTreeSet::new();
    for task in tasks.iter().filter_map(|key| believed.tasks.get(key)) {
        if let Some(agent) = believed.agents.get(&task.agent_id) {
            new.agents.entry(task.agent_id.clone()).or_insert_with(|| agent.clone());
        }
        if let Some(name) = believed.frameworks.get(&task.key.framework) {
            new.frameworks.entry(task.key.framework.clone()).or_insert_with(|| name.clone());
        }
        agents.insert(&task.agent_id);
        new.tasks.insert(task.key.clone(), task.clone());
    }
    agents.len()
}

#[cfg(test)]
mod tests;
