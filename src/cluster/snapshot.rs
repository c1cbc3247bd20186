//! One complete picture of the cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::registry::TaskRegistry;
use super::{SharedMap, SharedSet, Skipped, Task, TaskKey};

/// An agent that is registered with the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub hostname: String,
    /// Address from the libprocess `pid`, else from a numeric hostname.
    pub address: Option<IpAddr>,
    /// Port from the libprocess `pid`.
    #[serde(default)]
    pub port: Option<u16>,
}

/// The master that answered; id and time change at a fail-over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Master {
    pub id: String,
    /// Seconds since the epoch.
    pub elected_time: f64,
    /// Address from its libprocess `pid`.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

impl Master {
    /// Returns true if both mean one election.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && self.elected_time.total_cmp(&other.elected_time).is_eq()
    }
}

/// Everything that one document says: a complete picture of the cluster, never a change.
///
/// A copy costs a few counters, and what two snapshots have in common is there once: a task that did
/// not change between two documents is the same [`Arc`] in both. So the difference of two snapshots is found
/// in the time that it takes to go through it:
///
/// ```
/// # use l4lbd::cluster::{Snapshot, shared::Change};
/// # fn differences(before: &Snapshot, after: &Snapshot) {
/// for change in before.tasks.changes(&after.tasks) {
///     match change {
///         Change::Added(key, task) => println!("{key:?} is new: {task:?}"),
///         Change::Changed(key, old, new) => println!("{key:?} was {old:?} and is {new:?}"),
///         Change::Removed(key, task) => println!("{key:?} has gone: {task:?}"),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Absent for documents of agents and of the v1 API, which do not name it.
    pub master: Option<Master>,
    /// Registered agents, by id.
    pub agents: SharedMap<String, Agent>,
    /// Ids of the agents that were asked themselves: those of this node.
    #[serde(skip)]
    pub own_agents: SharedSet<String>,
    /// Ids of agents that a new master knows of but that have not registered again.
    pub recovered: SharedSet<String>,
    /// Framework id to framework name.
    pub frameworks: SharedMap<String, String>,
    /// Times at which frameworks registered with the master, by framework id; agents and Marathon tell none.
    #[serde(default, skip_serializing_if = "SharedMap::is_empty")]
    pub registered: SharedMap<String, Timestamp>,
    /// Tasks with VIP labels that are not terminal.
    #[serde(serialize_with = "as_list", deserialize_with = "from_list")]
    pub tasks: SharedMap<TaskKey, Arc<Task>>,
    /// Tasks that the document calls ended or unreachable: these did not just vanish.
    #[serde(skip)]
    pub ended: SharedSet<TaskKey>,
    /// Members of `ended` whose agent the master has lost.
    #[serde(skip)]
    pub lost: SharedSet<TaskKey>,
    /// Members of `tasks` that the document does not list as running, and that are kept all the same.
    #[serde(skip)]
    pub kept: SharedSet<TaskKey>,
    #[serde(skip)]
    pub skipped: Vec<Skipped>,
    /// Names and addresses of all running tasks; shared, because it is the largest part.
    #[serde(skip)]
    pub names: Arc<TaskRegistry>,
}

impl Snapshot {
    /// Returns the same snapshot, shared with `older` in all that both have.
    #[must_use]
    pub fn sharing(self, older: &Self) -> Self {
        let names = match self.names == older.names {
            true => Arc::clone(&older.names),
            false => Arc::new(TaskRegistry {
                leader: self.names.leader,
                schedulers: self.names.schedulers.clone(),
                tasks: self.names.tasks.clone().sharing(&older.names.tasks),
            }),
        };
        Self {
            master: self.master,
            agents: self.agents.sharing(&older.agents),
            own_agents: self.own_agents.sharing(&older.own_agents),
            recovered: self.recovered.sharing(&older.recovered),
            frameworks: self.frameworks.sharing(&older.frameworks),
            registered: self.registered.sharing(&older.registered),
            tasks: self.tasks.sharing(&older.tasks),
            ended: self.ended.sharing(&older.ended),
            lost: self.lost.sharing(&older.lost),
            kept: self.kept.sharing(&older.kept),
            skipped: self.skipped,
            names,
        }
    }

    /// Takes the least room for its tasks and their names: keys that came in no order leave a part of each chunk
    /// unused.
    pub fn pack(&mut self) {
        self.tasks.pack();
        self.ended.pack();
        Arc::make_mut(&mut self.names).tasks.pack();
    }

    /// Returns true if both are the same in what is kept on disk: master, agents, frameworks and tasks
    /// with VIPs.
    pub fn is_same_cluster(&self, other: &Self) -> bool {
        self.has_same_origins(other) && self.tasks == other.tasks
    }

    /// Returns true if tasks come from the same master, agents and frameworks in both.
    fn has_same_origins(&self, other: &Self) -> bool {
        self.master == other.master
            && self.agents == other.agents
            && self.recovered == other.recovered
            && self.frameworks == other.frameworks
            && self.registered == other.registered
    }

    /// Returns the snapshot with those tasks alone that `before` has not, or not like this.
    pub fn news(&self, before: &Self) -> Self {
        Self {
            tasks: self.tasks.news(&before.tasks),
            names: Arc::new(self.names.news(&before.names)),
            ..self.clone()
        }
    }

    /// Returns true if both are the same but for tasks with VIPs and names of tasks, none of which are kept.
    pub fn differs_in_tasks_alone(&self, other: &Self) -> bool {
        self.has_same_origins(other)
            && self.own_agents == other.own_agents
            && self.skipped == other.skipped
            && self.names.leader == other.names.leader
            && self.kept.is_empty()
            && other.kept.is_empty()
    }

    /// Returns the addresses of all agents, of the master that answered and of the one that leads, with
    /// what each is.
    pub fn infrastructure(&self) -> BTreeMap<IpAddr, &'static str> {
        let agents = self.agents.values().filter_map(|agent| agent.address);
        let master = self.master.as_ref().and_then(|master| master.address);
        let masters = master.into_iter().chain(self.names.leader.map(|leader| leader.ip()));
        agents
            .map(|address| (address, "the address of an agent"))
            .chain(masters.map(|address| (address, "the address of a Mesos master")))
            .collect()
    }
}

/// Each task holds its own key, and keys of a JSON object can only be strings.
fn as_list<S: Serializer>(tasks: &SharedMap<TaskKey, Arc<Task>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(tasks.values())
}

fn from_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SharedMap<TaskKey, Arc<Task>>, D::Error> {
    let tasks = Vec::<Arc<Task>>::deserialize(deserializer)?;
    Ok(tasks.into_iter().map(|task| (task.key.clone(), task)).collect())
}
