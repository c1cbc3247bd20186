//! The index of all running tasks by framework and name, from which answers are worked out.
//!
//! Pure: one [`Directory`] is one snapshot, as it is believed. Tasks that are held over a fail-over are in
//! the snapshot already ([`crate::cluster::belief`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::cluster::dns_label::{label, mesos_fragment};
use crate::cluster::registry::{RegisteredTask, Scheduler};
use crate::cluster::{Agent, Protocol, SharedMap, Snapshot};
use slots::Slots;
use traits::TraitCounts;
pub use traits::Traits;

mod follow;
mod slots;
mod traits;

/// Running tasks of one snapshot, sorted by framework name and task name. Copies share what they have in common.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    leader: Option<SocketAddr>,
    tasks: Slots<NumberedTask>,
    /// Agents by the numbers that entries have.
    agents: Arc<Agents>,
    groups: Arc<Vec<Group>>,
    /// Tasks by group, label, agent and hash.
    entries: Arc<Vec<TaskEntry>>,
    /// Tasks by group, name as written, agent and hash. The name is turned round, so that names that end alike
    /// are neighbours.
    written: Arc<Vec<TaskEntry>>,
    /// Properties of the tasks of a name, where there are many of them, by group and label.
    traits: NameTraits,
    /// The same by group and name as written, turned round.
    written_traits: NameTraits,
    /// Properties of the tasks of each group.
    group_traits: Vec<TraitCounts>,
}

/// Properties of the tasks of a name, by group and name.
type NameTraits = SharedMap<(u32, Arc<str>), TraitCounts>;

/// A task with what its names are compared by.
#[derive(Clone, Debug)]
struct NumberedTask {
    task: Arc<RegisteredTask>,
    /// Name as written, turned round; `None` where that is no name of its own.
    turned: Option<Arc<str>>,
}

/// Agents by their numbers.
#[derive(Debug, Default)]
struct Agents {
    entries: Vec<AgentEntry>,
    numbers: BTreeMap<String, u32>,
    /// Numbers of the agents whose ids end with a text.
    by_tail: BTreeMap<Box<str>, Vec<u32>>,
}

/// Number of tasks of one name above which it is noted what they have together.
const MANY: usize = 64;

/// Tasks that have one name.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The tasks, sorted by agent and hash.
    pub entries: &'a [TaskEntry],
    pub traits: Traits,
}

impl<'a> Run<'a> {
    /// All entries once, beginning with another one for each `turn`, all of which together begin everywhere.
    pub fn around(&self, turn: u16) -> impl Iterator<Item = &'a TaskEntry> + use<'a> {
        let [from, before] = self.halves(turn);
        from.iter().chain(before)
    }

    /// The entries from the one on with which a `turn` begins, and those before it.
    pub fn halves(&self, turn: u16) -> [&'a [TaskEntry]; 2] {
        let first = (self.entries.len() * usize::from(turn)) >> 16;
        let (before, from) = self.entries.split_at_checked(first).unwrap_or((&[], self.entries));
        [from, before]
    }
}

/// An agent that has tasks or is registered.
#[derive(Clone, Debug)]
struct AgentEntry {
    /// Last part of its id in lower case: `s1` of `62ca579f-d204-47ab-b9b7-6fdde30e658c-S1`.
    tail: Box<str>,
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

impl TaskEntry {
    /// True if both tasks run on one agent.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.agent == other.agent
    }
}

impl AgentEntry {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.address.into_iter().chain(self.second)
    }
}

impl Directory {
    /// Returns true if both snapshots give the same directory. Takes as long as they differ in tasks, agents and
    /// frameworks.
    pub fn is_same_of(before: &Snapshot, snapshot: &Snapshot) -> bool {
        before.names == snapshot.names
            && before.agents == snapshot.agents
            && before.frameworks == snapshot.frameworks
    }

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
        let mut tasks = Slots::default();
        let mut entries: Vec<(u32, &str, u32, [u8; 5], u32)> = Vec::with_capacity(registry.len());
        // Tasks of a framework are neighbours in the registry.
        let mut last: Option<(&str, Option<u32>)> = None;
        for (key, task) in &registry.tasks {
            let group = match last {
                Some((framework, group)) if framework == &*key.framework => group,
                _ => snapshot.frameworks.get(&*key.framework).map(|name| index.group(name)),
            };
            last = Some((&*key.framework, group));
            let Some(group) = group else { continue };
            let number = tasks.insert(NumberedTask::new(task));
            entries.push((group, &*task.label, index.agent(&task.agent, None), task.hash, number));
        }
        // Sorted by group and label, so that the tasks of a name are found by halving; then by agent, whose
        // address many of them have, and by hash, which canonical names have.
        entries.sort_unstable();
        let entry = |(group, _, agent, _, task)| TaskEntry { task, agent, group };
        let entries: Vec<TaskEntry> = entries.into_iter().map(entry).collect();
        let mut directory = Self {
            leader: registry.leader,
            tasks,
            agents: Arc::new(index.agents()),
            group_traits: vec![TraitCounts::default(); index.groups.len()],
            groups: Arc::new(index.groups),
            ..Self::default()
        };
        let mut written: Vec<TaskEntry> =
            entries.iter().filter(|entry| directory.turned(entry).is_some()).copied().collect();
        written.sort_unstable_by(|a, b| directory.by_written(a).cmp(&directory.by_written(b)));
        (directory.entries, directory.written) = (Arc::new(entries), Arc::new(written));
        directory.note_traits();
        directory
    }

    /// Notes what tasks of one name, and of one group, have together.
    fn note_traits(&mut self) {
        for entry in &*Arc::clone(&self.entries) {
            let Some(task) = self.task(entry).filter(|task| has_name(task)) else { continue };
            let traits = self.traits_of(task, entry);
            if let Some(group) = self.group_traits.get_mut(entry.group as usize) {
                group.add(traits);
            }
        }
        self.traits = self.of_long_runs(&self.entries, Self::label);
        self.written_traits =
            self.of_long_runs(&self.written, |directory, entry| directory.turned(entry).unwrap_or_default());
    }

    /// Traits of all long runs of entries with the same name.
    fn of_long_runs(
        &self,
        entries: &[TaskEntry],
        name: for<'d> fn(&'d Self, &TaskEntry) -> &'d str,
    ) -> NameTraits {
        let runs = entries.chunk_by(|a, b| (a.group, name(self, a)) == (b.group, name(self, b)));
        let long = runs.filter(|run| run.len() > MANY);
        let of_run = |run: &[TaskEntry]| {
            let first = run.first()?;
            Some(((first.group, name(self, first).into()), self.counts(run)))
        };
        long.filter_map(of_run).collect()
    }

    /// Counts the properties of some tasks.
    fn counts(&self, run: &[TaskEntry]) -> TraitCounts {
        let mut counts = TraitCounts::default();
        let traits = run.iter().filter_map(|entry| Some(self.traits_of(self.task(entry)?, entry)));
        traits.for_each(|traits| counts.add(traits));
        counts
    }

    fn traits_of(&self, task: &RegisteredTask, entry: &TaskEntry) -> Traits {
        let mut traits = Traits::default();
        for address in &task.addresses {
            let family = if address.is_ipv4() { Traits::CONTAINER4 } else { Traits::CONTAINER6 };
            traits.add(family, true);
        }
        for address in self.agent_addresses(entry) {
            traits.add(if address.is_ipv4() { Traits::AGENT4 } else { Traits::AGENT6 }, true);
        }
        traits.add(Traits::TCP, ports(task, Protocol::Tcp, None, false).next().is_some());
        traits.add(Traits::UDP, ports(task, Protocol::Udp, None, false).next().is_some());
        traits.add(Traits::RESOURCES, !task.resources.is_empty());
        traits
    }

    /// Address and port of the leading master.
    pub fn leader(&self) -> Option<(IpAddr, u16)> {
        self.leader.map(|leader| (leader.ip(), leader.port()))
    }

    /// Addresses of all agents.
    pub fn agents(&self) -> impl Iterator<Item = IpAddr> {
        self.agents.entries.iter().flat_map(AgentEntry::addresses)
    }

    /// Ports of all agents whose address is known.
    pub fn agent_ports(&self) -> impl Iterator<Item = u16> {
        self.agents.entries.iter().filter(|agent| agent.address.is_some()).filter_map(|agent| agent.port)
    }

    /// All framework names, each with its number.
    pub fn groups(&self) -> impl Iterator<Item = (u32, &Group)> {
        (0..).zip(&*self.groups)
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

    /// Tasks of a framework name with one label.
    pub fn named(&self, group: u32, label: &str) -> Run<'_> {
        let first = self.entries.partition_point(|e| (e.group, self.label(e)) < (group, label));
        let rest = self.entries.get(first..).unwrap_or_default();
        let length = rest.partition_point(|e| (e.group, self.label(e)) <= (group, label));
        let entries = rest.get(..length).unwrap_or_default();
        Run { entries, traits: of_name(&self.traits, group, label, length) }
    }

    /// Tasks of a framework name whose name as written, which is not their label, is `name`.
    pub fn written(&self, group: u32, name: &str) -> Run<'_> {
        let name = turned(name);
        let first = self.first_written(group, &name);
        let rest = self.written.get(first..).unwrap_or_default();
        let length = rest.partition_point(|e| (e.group, self.turned(e)) <= (group, Some(&name)));
        let entries = rest.get(..length).unwrap_or_default();
        Run { entries, traits: of_name(&self.written_traits, group, &name, length) }
    }

    /// Properties that tasks of a group have.
    pub fn group_traits(&self, group: u32) -> Traits {
        self.group_traits.get(group as usize).map(TraitCounts::traits).unwrap_or_default()
    }

    /// Tasks of a run with a hash, on the agents whose ids end with `tail`.
    pub fn canonical<'a>(
        &'a self,
        run: Run<'a>,
        hash: &'a str,
        tail: &str,
    ) -> impl Iterator<Item = (&'a RegisteredTask, &'a TaskEntry)> + use<'a> {
        let agents = self.agents.by_tail.get(tail).map(Vec::as_slice).unwrap_or_default();
        agents.iter().flat_map(move |agent| {
            let key = move |entry: &TaskEntry| (entry.agent, self.task(entry).map(|task| &task.hash[..]));
            let wanted = (*agent, Some(hash.as_bytes()));
            let first = run.entries.partition_point(|entry| key(entry) < wanted);
            let rest = run.entries.get(first..).unwrap_or_default().iter();
            rest.take_while(move |entry| key(entry) == wanted)
                .filter_map(move |entry| Some((self.task(entry)?, entry)))
        })
    }

    /// Tasks of a framework name whose name as written has labels above `name`.
    pub fn written_above<'a>(
        &'a self,
        group: u32,
        name: &str,
    ) -> impl Iterator<Item = (&'a RegisteredTask, &'a TaskEntry)> + use<'a> {
        let start = format!("{}.", turned(name));
        let first = self.first_written(group, &start);
        let all = self.written.get(first..).unwrap_or_default().iter();
        let is_above = move |entry: &&TaskEntry| {
            entry.group == group && self.turned(entry).is_some_and(|own| own.starts_with(&start))
        };
        all.take_while(is_above).filter_map(|entry| Some((self.task(entry)?, entry)))
    }

    /// Place of the first task of a group whose name as written, turned round, is not before `name`.
    fn first_written(&self, group: u32, name: &str) -> usize {
        self.written.partition_point(|entry| (entry.group, self.turned(entry)) < (group, Some(name)))
    }

    /// Address of the agent that a task runs on.
    pub fn agent_address(&self, entry: &TaskEntry) -> Option<IpAddr> {
        self.agents.entries.get(entry.agent as usize).and_then(|agent| agent.address)
    }

    /// Addresses of the agent that a task runs on, one of each family at most.
    pub fn agent_addresses(&self, entry: &TaskEntry) -> impl Iterator<Item = IpAddr> {
        self.agents.entries.get(entry.agent as usize).into_iter().flat_map(AgentEntry::addresses)
    }

    /// Last part of the id of the agent that a task runs on, in lower case.
    pub fn agent_tail(&self, entry: &TaskEntry) -> &str {
        self.agents.entries.get(entry.agent as usize).map(|agent| &*agent.tail).unwrap_or_default()
    }

    /// The task of an entry.
    pub fn task(&self, entry: &TaskEntry) -> Option<&RegisteredTask> {
        self.tasks.get(entry.task).map(|numbered| &*numbered.task)
    }

    fn label(&self, entry: &TaskEntry) -> &str {
        self.task(entry).map(|task| &*task.label).unwrap_or_default()
    }

    /// Name as written of a task, turned round.
    fn turned(&self, entry: &TaskEntry) -> Option<&str> {
        self.tasks.get(entry.task)?.turned.as_deref()
    }

    /// Key by which entries are sorted.
    fn by_label(&self, entry: &TaskEntry) -> (u32, &str, u32, Option<[u8; 5]>) {
        (entry.group, self.label(entry), entry.agent, self.task(entry).map(|task| task.hash))
    }

    /// Key by which entries of tasks that have a name as written are sorted.
    fn by_written(&self, entry: &TaskEntry) -> (u32, Option<&str>, u32, Option<[u8; 5]>) {
        (entry.group, self.turned(entry), entry.agent, self.task(entry).map(|task| task.hash))
    }
}

impl NumberedTask {
    fn new(task: &Arc<RegisteredTask>) -> Self {
        Self { turned: task.written.as_deref().map(|name| turned(name).into()), task: Arc::clone(task) }
    }
}

/// Traits of a run of entries; only those of long ones are known.
fn of_name(known: &NameTraits, group: u32, name: &str, length: usize) -> Traits {
    if length <= MANY {
        return Traits::UNKNOWN;
    }
    known.get(&(group, name.into())).map_or(Traits::UNKNOWN, TraitCounts::traits)
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
        let tail = id.rsplit('-').next().unwrap_or_default().to_ascii_lowercase().into();
        self.agents.push(AgentEntry { tail, address, second, port });
        self.agent_numbers.insert(id.to_owned(), number);
        number
    }

    /// Returns the agents so far.
    fn agents(&mut self) -> Agents {
        let mut by_tail: BTreeMap<Box<str>, Vec<u32>> = BTreeMap::new();
        for (number, agent) in (0..).zip(&self.agents) {
            by_tail.entry(agent.tail.clone()).or_default().push(number);
        }
        let (entries, numbers) = (std::mem::take(&mut self.agents), std::mem::take(&mut self.agent_numbers));
        Agents { entries, numbers, by_tail }
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

/// True if a task has any name; one whose name has no letter or digit may have none.
pub fn has_name(task: &RegisteredTask) -> bool {
    !task.label.is_empty() || task.written.is_some()
}

/// Ports of a task for one protocol, only those called `name` if it is given. Port resources have neither a
/// protocol nor a name, so that they count for both protocols.
pub fn ports<'a>(
    task: &'a RegisteredTask,
    protocol: Protocol,
    name: Option<&'a str>,
    slave: bool,
) -> impl Iterator<Item = u16> + 'a {
    let discovered = task.ports.iter().filter(move |_| !slave).flatten();
    let discovered = discovered
        .filter(move |port| port.protocol.is_none_or(|own| own == protocol))
        .filter(move |port| name.is_none_or(|name| !name.is_empty() && *port.label == *name))
        .map(|port| port.number);
    // Discovery information takes the place of the resources, but on the agent's side.
    let by_resource = name.is_none() && (slave || task.ports.is_none());
    let resources = task.resources.iter().filter(move |_| by_resource);
    discovered.chain(resources.flat_map(|(first, last)| *first..=*last))
}

/// A name from its end to its start.
fn turned(name: &str) -> Box<str> {
    name.chars().rev().collect::<String>().into()
}

#[cfg(test)]
mod tests;
