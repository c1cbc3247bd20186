//! The tasks that have names now, sorted by them, with what is kept over a master fail-over.
//!
//! A new master learns of agents and their tasks one by one. Until an agent has registered with it,
//! and at most for a configured time, what was known of the agent's tasks before stays. A registered
//! agent's tasks are what the document says. This is simpler than [`crate::cluster::belief`], because a name
//! that is a little late to go does no harm: its address is asked for again after seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::cluster::dns_label::{fragment, label};
use crate::cluster::registry::{RegisteredTask, Scheduler, TaskRegistry};
use crate::cluster::{Master, Snapshot};

/// All names at one moment.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// Documents that entries are in: the newest, then those that held ones came with.
    sources: Vec<Arc<TaskRegistry>>,
    agents: Vec<(String, Option<IpAddr>)>,
    groups: Vec<Group>,
    entries: Vec<TaskEntry>,
    leader: Option<IpAddr>,
    leader_port: Option<u16>,
    master: Option<Master>,
    failover: Option<Failover>,
}

/// All frameworks with one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    /// The name as one DNS label, as the dcos zone has it.
    pub label: String,
    /// The name as several DNS labels, as mesos-dns has it.
    pub fragment: String,
    pub schedulers: Vec<Scheduler>,
}

/// A task's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskEntry {
    source: u32,
    task: u32,
    agent: u32,
    group: u32,
}

#[derive(Clone, Debug)]
struct Failover {
    until: Timestamp,
    /// Agents known before it that have not registered since.
    missing: BTreeSet<String>,
}

impl Directory {
    /// What a new document makes of what was known before.
    pub fn learn(&self, snapshot: &Snapshot, now: Timestamp, patience: Duration) -> Self {
        let mut new = Self {
            sources: vec![snapshot.names.clone()],
            leader: snapshot.names.leader.map(|leader| leader.ip()),
            leader_port: snapshot.names.leader.map(|leader| leader.port()),
            master: snapshot.master.clone().or_else(|| self.master.clone()),
            failover: self.failover_with(snapshot, now, patience),
            ..Self::default()
        };
        let mut groups = BTreeMap::new();
        let mut agents = BTreeMap::new();
        new.add_new(snapshot, &mut groups, &mut agents);
        new.keep_old(self, snapshot, &mut groups, &mut agents);
        new.sort();
        new
    }

    /// Whether anything is kept that the newest document lacks.
    pub fn is_holding(&self) -> bool {
        self.failover.is_some()
    }

    pub fn leader(&self) -> Option<(IpAddr, u16)> {
        self.leader.zip(self.leader_port)
    }

    /// Addresses of all agents.
    pub fn agents(&self) -> impl Iterator<Item = IpAddr> {
        self.agents.iter().filter_map(|(_, address)| *address)
    }

    pub fn groups(&self) -> impl Iterator<Item = (u32, &Group)> {
        (0..).zip(&self.groups)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Tasks of a framework name, those with one label if `label` is given.
    pub fn tasks(
        &self,
        group: u32,
        label: Option<&str>,
    ) -> impl Iterator<Item = (&RegisteredTask, &TaskEntry)> {
        let before = |entry: &TaskEntry| match label {
            Some(label) => (entry.group, self.label(entry)) < (group, label),
            None => entry.group < group,
        };
        let first = self.entries.partition_point(before);
        let entries = self.entries.get(first..).unwrap_or_default();
        let within = move |entry: &&TaskEntry| {
            entry.group == group && label.is_none_or(|label| self.label(entry) == label)
        };
        entries.iter().take_while(within).filter_map(|entry| Some((self.task(entry)?, entry)))
    }

    /// Address of the agent that a task runs on.
    pub fn agent_address(&self, entry: &TaskEntry) -> Option<IpAddr> {
        self.agents.get(entry.agent as usize).and_then(|(_, address)| *address)
    }

    /// Id of that agent.
    pub fn agent_id(&self, entry: &TaskEntry) -> &str {
        self.agents.get(entry.agent as usize).map(|(id, _)| id.as_str()).unwrap_or_default()
    }

    fn task(&self, entry: &TaskEntry) -> Option<&RegisteredTask> {
        self.sources.get(entry.source as usize)?.tasks.get(entry.task as usize)
    }

    fn label(&self, entry: &TaskEntry) -> &str {
        self.task(entry).map(|task| &*task.label).unwrap_or_default()
    }

    fn failover_with(&self, snapshot: &Snapshot, now: Timestamp, patience: Duration) -> Option<Failover> {
        let changed = matches!((&self.master, &snapshot.master), (Some(old), Some(new)) if old != new);
        let known = || self.agents.iter().map(|(id, _)| id.clone());
        // Documents that name no master show a fail-over by the agents that are awaited.
        let awaited = self.failover.is_none() && known().any(|agent| snapshot.recovered.contains(&agent));
        let mut failover = if changed || awaited {
            let until = now.checked_add(patience).unwrap_or(Timestamp::MAX);
            Failover { until, missing: known().collect() }
        } else {
            self.failover.clone()?
        };
        failover.missing.retain(|agent| !snapshot.agents.contains_key(agent));
        (now < failover.until && !failover.missing.is_empty()).then_some(failover)
    }

    fn add_new(
        &mut self,
        snapshot: &Snapshot,
        groups: &mut BTreeMap<String, u32>,
        agents: &mut BTreeMap<String, u32>,
    ) {
        let names = &snapshot.names;
        for (id, agent) in &snapshot.agents {
            self.agent_number(agents, id, agent.address);
        }
        for (id, name) in &snapshot.frameworks {
            if let Some(scheduler) = names.schedulers.get(id) {
                let group = self.group_number(groups, name);
                if let Some(group) = self.groups.get_mut(group as usize) {
                    group.schedulers.push(*scheduler);
                }
            }
        }
        // Numbers of the document to numbers here; without a framework's name there is none for its tasks.
        let own_agents: BTreeMap<u32, u32> =
            names.agents.iter().map(|(id, number)| (*number, self.agent_number(agents, id, None))).collect();
        let own_groups: BTreeMap<u32, u32> = names
            .frameworks
            .iter()
            .filter_map(|(id, number)| Some((*number, snapshot.frameworks.get(id)?)))
            .map(|(number, name)| (number, self.group_number(groups, name)))
            .collect();
        self.entries = (0..)
            .zip(&names.tasks)
            .filter_map(|(number, task)| {
                let agent = *own_agents.get(&task.agent)?;
                let group = *own_groups.get(&task.framework)?;
                Some(TaskEntry { source: 0, task: number, agent, group })
            })
            .collect();
    }

    fn keep_old(
        &mut self,
        old: &Self,
        snapshot: &Snapshot,
        groups: &mut BTreeMap<String, u32>,
        agents: &mut BTreeMap<String, u32>,
    ) {
        let Some(failover) = self.failover.clone() else { return };
        let mut sources = BTreeMap::new();
        for entry in &old.entries {
            let id = old.agent_id(entry);
            if !failover.missing.contains(id) || snapshot.agents.contains_key(id) {
                continue;
            }
            let (Some(names), Some(group)) =
                (old.sources.get(entry.source as usize), old.groups.get(entry.group as usize))
            else {
                continue;
            };
            let source = *sources.entry(entry.source).or_insert_with(|| {
                self.sources.push(names.clone());
                u32::try_from(self.sources.len() - 1).unwrap_or(u32::MAX)
            });
            let agent = self.agent_number(agents, id, old.agent_address(entry));
            let group = self.group_number(groups, &group.name);
            self.entries.push(TaskEntry { source, task: entry.task, agent, group });
        }
    }

    fn agent_number(
        &mut self,
        numbers: &mut BTreeMap<String, u32>,
        id: &str,
        address: Option<IpAddr>,
    ) -> u32 {
        if let Some(number) = numbers.get(id) {
            return *number;
        }
        let number = u32::try_from(self.agents.len()).unwrap_or(u32::MAX);
        self.agents.push((id.to_owned(), address));
        numbers.insert(id.to_owned(), number);
        number
    }

    fn group_number(&mut self, numbers: &mut BTreeMap<String, u32>, name: &str) -> u32 {
        if let Some(number) = numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        self.groups.push(Group {
            name: name.to_owned(),
            label: label(name),
            fragment: fragment(name),
            schedulers: Vec::new(),
        });
        numbers.insert(name.to_owned(), number);
        number
    }

    fn sort(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_by(|a, b| {
            (a.group, self.label(a), a.source, a.task).cmp(&(b.group, self.label(b), b.source, b.task))
        });
        self.entries = entries;
    }
}
