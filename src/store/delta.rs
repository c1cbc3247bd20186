//! Differences between two clusters, as they are kept. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cluster::shared::{Change, Changes};
use crate::cluster::{Agent, Master, SharedMap, SharedSet, Snapshot, Task, TaskKey};

/// Tasks of one part of a whole cluster at most: a part is made and read in one piece.
const PART: usize = 4096;

/// Everything in which one cluster differs from another, of what is kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Delta {
    /// Present if the master is another one, or none any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    master: Option<Leader>,
    #[serde(skip_serializing_if = "Edits::is_empty")]
    agents: Edits<String, (String, Agent)>,
    #[serde(skip_serializing_if = "Edits::is_empty")]
    recovered: Edits<String, String>,
    #[serde(skip_serializing_if = "Edits::is_empty")]
    frameworks: Edits<String, (String, String)>,
    #[serde(skip_serializing_if = "Edits::is_empty")]
    registered: Edits<String, (String, Timestamp)>,
    #[serde(skip_serializing_if = "Edits::is_empty")]
    tasks: Edits<TaskKey, Arc<Task>>,
}

/// The master of a cluster, as far as a document names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Leader {
    now: Option<Master>,
}

/// Entries of a map that are new or have changed, and keys that have gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Edits<K, E> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<E>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gone: Vec<K>,
}

impl<K, E> Default for Edits<K, E> {
    fn default() -> Self {
        Self { set: Vec::new(), gone: Vec::new() }
    }
}

impl<K, E> Edits<K, E> {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.gone.is_empty()
    }

    pub fn of<'a, V>(changes: Changes<'a, K, V>, entry: impl Fn(&K, &V) -> E) -> Self
    where
        K: Ord + Clone,
        V: PartialEq,
    {
        let mut edits = Self::default();
        for change in changes {
            match change {
                Change::Added(key, value) | Change::Changed(key, _, value) => {
                    edits.set.push(entry(key, value));
                }
                Change::Removed(key, _) => edits.gone.push(key.clone()),
            }
        }
        edits
    }
}

impl<K: Ord + Clone, V: Clone> Edits<K, (K, V)> {
    pub fn apply(self, map: &mut SharedMap<K, V>) {
        map.extend(self.set);
        for key in &self.gone {
            map.remove(key);
        }
    }
}

/// Entry of a map with its key.
pub(super) fn pair<K: Clone, V: Clone>(key: &K, value: &V) -> (K, V) {
    (key.clone(), value.clone())
}

impl Delta {
    /// Returns what turns `old` into `new`. Takes as long as there are differences, where the two share what they
    /// have in common.
    pub fn between(old: &Snapshot, new: &Snapshot) -> Self {
        // Without `..`, so that a new part of a cluster is not forgotten here.
        let Snapshot {
            master,
            agents,
            own_agents: _,
            recovered,
            frameworks,
            registered,
            tasks,
            ended: _,
            lost: _,
            kept: _,
            skipped: _,
            names: _,
        } = new;
        Self {
            master: (*master != old.master).then(|| Leader { now: master.clone() }),
            agents: Edits::of(old.agents.changes(agents), pair),
            recovered: Edits::of(old.recovered.changes(recovered), |member, ()| member.clone()),
            frameworks: Edits::of(old.frameworks.changes(frameworks), pair),
            registered: Edits::of(old.registered.changes(registered), pair),
            tasks: Edits::of(old.tasks.changes(tasks), |_, task| Arc::clone(task)),
        }
    }

    /// Returns the number of parts of `all`.
    pub fn parts(all: &Snapshot) -> usize {
        1 + all.tasks.len().div_ceil(PART)
    }

    /// Returns parts that turn nothing into `all`, in this order.
    pub fn whole(all: &Snapshot) -> impl Iterator<Item = Self> {
        // Tasks are nearly all of a cluster; the rest is small enough for one part.
        let without = Snapshot { tasks: SharedMap::default(), ..all.clone() };
        let first = Self::between(&Snapshot::default(), &without);
        let mut tasks = all.tasks.values();
        let parts = std::iter::from_fn(move || {
            let set: Vec<Arc<Task>> = tasks.by_ref().take(PART).cloned().collect();
            (!set.is_empty()).then(|| Self { tasks: Edits { set, gone: Vec::new() }, ..Self::default() })
        });
        std::iter::once(first).chain(parts)
    }

    /// Returns true if nothing differs.
    pub fn is_empty(&self) -> bool {
        let Self { master, agents, recovered, frameworks, registered, tasks } = self;
        master.is_none()
            && agents.is_empty()
            && recovered.is_empty()
            && frameworks.is_empty()
            && registered.is_empty()
            && tasks.is_empty()
    }

    /// Turns the cluster into the one that this is the difference to.
    pub fn apply(self, cluster: &mut Snapshot) {
        let Self { master, agents, recovered, frameworks, registered, tasks } = self;
        if let Some(Leader { now }) = master {
            cluster.master = now;
        }
        agents.apply(&mut cluster.agents);
        apply_members(recovered, &mut cluster.recovered);
        frameworks.apply(&mut cluster.frameworks);
        registered.apply(&mut cluster.registered);
        cluster.tasks.extend(tasks.set.into_iter().map(|task| (task.key.clone(), task)));
        for key in &tasks.gone {
            cluster.tasks.remove(key);
        }
    }
}

fn apply_members(edits: Edits<String, String>, members: &mut SharedSet<String>) {
    members.extend(edits.set);
    for member in &edits.gone {
        members.remove(member);
    }
}
