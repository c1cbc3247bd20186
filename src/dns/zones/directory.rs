//! The index of all running tasks by framework and name, from which answers are worked out.
//!
//! Pure: one [`Directory`] is one snapshot, as it is believed. Tasks that are held over a fail-over are in
//! the snapshot already ([`crate::cluster::belief`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::cluster::dns_label::{label, mesos_fragment};
use crate::cluster::registry::{RegisteredTask, Scheduler};
use crate::cluster::{Agent, Snapshot};

/// Running tasks of one snapshot, sorted by framework name and task name.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    leader: Option<SocketAddr>,
    tasks: Vec<Arc<RegisteredTask>>,
    /// Entries refer to places in this list.
    agents: Vec<AgentEntry>,
    groups: Vec<Group>,
    entries: Vec<TaskEntry>,
    /// Tasks by group and by their name as written, which is turned round: names that end alike are
    /// neighbours.
    written: Vec<(u32, Box<str>, TaskEntry)>,
}

/// An agent that has tasks or is registered.
#[derive(Clone, Debug)]
struct AgentEntry {
    id: String,
    address: Option<IpAddr>,
    /// Address of the other family, which a numeric hostname may be.
    second: Option<IpAddr>,
    port: Option<u16>,
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

/// A task of the directory, with its agent and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskEntry {
    task: u32,
    agent: u32,
    group: u32,
}

impl AgentEntry {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.address.into_iter().chain(self.second)
    }
}

impl Directory {
    /// Indexes the tasks of a snapshot. Tasks of a framework without a name have no name either.
    pub fn new(snapshot: &Snapshot) -> Self {
        let registry = &snapshot.names;
        let mut index = Index::default();
        // Agents come first, so that their addresses count: the registry knows ids only.
        for (id, agent) in &snapshot.agents {
            index.agent(id, Some(agent));
        }
        // A framework without tasks has a name as well if its scheduler has an address.
        for (id, name) in &snapshot.frameworks {
            if let Some(scheduler) = registry.schedulers.get(id) {
                let group = index.group(name);
                if let Some(group) = index.groups.get_mut(group as usize) {
                    group.schedulers.push(*scheduler);
                }
            }
        }
        let mut tasks = Vec::with_capacity(registry.len());
        let mut entries = Vec::with_capacity(registry.len());
        // Tasks of a framework are neighbours in the registry.
        let mut last: Option<(&str, Option<u32>)> = None;
        for (key, task) in &registry.tasks {
            let group = match last {
                Some((framework, group)) if framework == &*key.framework => group,
                _ => snapshot.frameworks.get(&*key.framework).map(|name| index.group(name)),
            };
            last = Some((&*key.framework, group));
            let Some(group) = group else { continue };
            let number = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
            entries.push((group, &*task.label, number, index.agent(&task.agent, None)));
            tasks.push(Arc::clone(task));
        }
        // Sorted by group and label, so that the tasks of a name are found by halving.
        entries.sort_unstable();
        let entry = |(group, _, task, agent): (u32, &str, u32, u32)| TaskEntry { task, agent, group };
        let entries: Vec<TaskEntry> = entries.into_iter().map(entry).collect();
        let mut written: Vec<(u32, Box<str>, TaskEntry)> = entries
            .iter()
            .filter_map(|entry| {
                let name = tasks.get(entry.task as usize)?.written.as_deref()?;
                Some((entry.group, turned(name), *entry))
            })
            .collect();
        written.sort_unstable();
        Self { leader: registry.leader, tasks, entries, written, agents: index.agents, groups: index.groups }
    }

    /// Address and port of the leading master.
    pub fn leader(&self) -> Option<(IpAddr, u16)> {
        self.leader.map(|leader| (leader.ip(), leader.port()))
    }

    /// Addresses of all agents.
    pub fn agents(&self) -> impl Iterator<Item = IpAddr> {
        self.agents.iter().flat_map(AgentEntry::addresses)
    }

    /// Ports of all agents whose address is known.
    pub fn agent_ports(&self) -> impl Iterator<Item = u16> {
        self.agents.iter().filter(|agent| agent.address.is_some()).filter_map(|agent| agent.port)
    }

    /// All framework names, each with its number.
    pub fn groups(&self) -> impl Iterator<Item = (u32, &Group)> {
        (0..).zip(&self.groups)
    }

    /// Number of tasks that have names.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Tasks of a framework name, only those with one label if `label` is given.
    pub fn tasks(
        &self,
        group: u32,
        label: Option<&str>,
    ) -> impl Iterator<Item = (&RegisteredTask, &TaskEntry)> {
        let is_before = |entry: &TaskEntry| match label {
            Some(label) => (entry.group, self.label(entry)) < (group, label),
            None => entry.group < group,
        };
        let first = self.entries.partition_point(is_before);
        let entries = self.entries.get(first..).unwrap_or_default();
        let is_wanted = move |entry: &&TaskEntry| {
            entry.group == group && label.is_none_or(|label| self.label(entry) == label)
        };
        entries.iter().take_while(is_wanted).filter_map(|entry| Some((self.task(entry)?, entry)))
    }

    /// Tasks of a framework name whose label starts with `start`, in its order.
    pub fn tasks_from<'a>(
        &'a self,
        group: u32,
        start: &'a str,
    ) -> impl Iterator<Item = (&'a RegisteredTask, &'a TaskEntry)> {
        let first = self.entries.partition_point(|entry| (entry.group, self.label(entry)) < (group, start));
        let entries = self.entries.get(first..).unwrap_or_default().iter();
        let entries =
            entries.take_while(move |entry| entry.group == group && self.label(entry).starts_with(start));
        entries.filter_map(|entry| Some((self.task(entry)?, entry)))
    }

    /// Tasks of a framework name whose name as written, which is not their label, is `name`.
    pub fn written<'a>(
        &'a self,
        group: u32,
        name: &str,
    ) -> impl Iterator<Item = (&'a RegisteredTask, &'a TaskEntry)> + use<'a> {
        let name = turned(name);
        let length = name.len();
        self.turned(group, name)
            .take_while(move |(turned, ..)| turned.len() == length)
            .map(|(_, t, e)| (t, e))
    }

    /// Tasks of a framework name whose name as written has labels above `name`.
    pub fn written_above<'a>(
        &'a self,
        group: u32,
        name: &str,
    ) -> impl Iterator<Item = (&'a RegisteredTask, &'a TaskEntry)> + use<'a> {
        self.turned(group, format!("{}.", turned(name)).into()).map(|(_, task, entry)| (task, entry))
    }

    /// Tasks of a framework name whose name as written, turned round, starts with `start`; those that have no
    /// more than that come first.
    fn turned<'a>(
        &'a self,
        group: u32,
        start: Box<str>,
    ) -> impl Iterator<Item = (&'a str, &'a RegisteredTask, &'a TaskEntry)> + use<'a> {
        let first = self.written.partition_point(|(own, name, _)| (*own, &**name) < (group, &*start));
        let all = self.written.get(first..).unwrap_or_default().iter();
        let all = all.take_while(move |(own, name, _)| *own == group && name.starts_with(&*start));
        all.filter_map(|(_, name, entry)| Some((&**name, self.task(entry)?, entry)))
    }

    /// Address of the agent that a task runs on.
    pub fn agent_address(&self, entry: &TaskEntry) -> Option<IpAddr> {
        self.agents.get(entry.agent as usize).and_then(|agent| agent.address)
    }

    /// Addresses of the agent that a task runs on, one of each family at most.
    pub fn agent_addresses(&self, entry: &TaskEntry) -> impl Iterator<Item = IpAddr> {
        self.agents.get(entry.agent as usize).into_iter().flat_map(AgentEntry::addresses)
    }

    /// Id of the agent that a task runs on.
    pub fn agent_id(&self, entry: &TaskEntry) -> &str {
        self.agents.get(entry.agent as usize).map(|agent| agent.id.as_str()).unwrap_or_default()
    }

    fn task(&self, entry: &TaskEntry) -> Option<&RegisteredTask> {
        self.tasks.get(entry.task as usize).map(AsRef::as_ref)
    }

    fn label(&self, entry: &TaskEntry) -> &str {
        self.task(entry).map(|task| &*task.label).unwrap_or_default()
    }
}

/// Agents and groups with the numbers that they get in the order of their appearance.
#[derive(Default)]
struct Index {
    agents: Vec<AgentEntry>,
    agent_numbers: BTreeMap<String, u32>,
    groups: Vec<Group>,
    group_numbers: BTreeMap<String, u32>,
}

impl Index {
    /// Number of an agent. What is known of it counts where the agent is met for the first time.
    fn agent(&mut self, id: &str, agent: Option<&Agent>) -> u32 {
        if let Some(number) = self.agent_numbers.get(id) {
            return *number;
        }
        let number = u32::try_from(self.agents.len()).unwrap_or(u32::MAX);
        let address = agent.and_then(|agent| agent.address);
        let at_hostname: Option<IpAddr> = agent.and_then(|agent| agent.hostname.parse().ok());
        let second = at_hostname.filter(|ip| address.is_some_and(|own| own.is_ipv4() != ip.is_ipv4()));
        let port = agent.and_then(|agent| agent.port);
        self.agents.push(AgentEntry { id: id.to_owned(), address, second, port });
        self.agent_numbers.insert(id.to_owned(), number);
        number
    }

    /// Number of the group of frameworks with this name.
    fn group(&mut self, name: &str) -> u32 {
        if let Some(number) = self.group_numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        let (label, fragment) = (label(name), mesos_fragment(name));
        self.groups.push(Group { name: name.to_owned(), label, fragment, schedulers: Vec::new() });
        self.group_numbers.insert(name.to_owned(), number);
        number
    }
}

/// A name from its end to its start.
fn turned(name: &str) -> Box<str> {
    name.chars().rev().collect::<String>().into()
}

#[cfg(test)]
mod tests;
