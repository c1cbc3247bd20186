//! The cluster and the VIPs' addresses, as rows.
//!
//! Goes by the differences of two snapshots, so that a change of one task makes one row or two. For example,
//! when a task moves to an agent that has just registered, the changes put the agent's row, and then the task's and
//! its name's; the row of the old agent is dropped after them, once nothing of the table means it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use prost::Message;

use super::decode::{Decoder, Replicated};
use super::fields::{self, kind, octets, pairs, protocol_number, time_row};
use super::messages::{
    AddressRow, AgentRow, FrameworkRow, LabelRow, MasterRow, NamePortRow, NameRow, OptionsRow,
    TaskAddressRow, VipPortRow, VipTaskRow,
};
use super::numbers::Numbers;
use super::table::{Octets, RowChanges, RowTable, fits};
use crate::cluster::registry::{RegisteredKey, RegisteredTask};
use crate::cluster::{
    PortOptions, Runtime, Snapshot, Task, TaskKey, TaskPort, TaskRegistry, TaskState, app_of,
};

/// Maker of rows, which knows what it made rows of before.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    known: Replicated,
    frameworks: Numbers,
    agents: Numbers,
    /// Rows that are too large for the table.
    left_out: BTreeSet<Octets>,
    /// Rows of a resumed table that mean nothing; the next changes drop them.
    strays: Vec<Octets>,
}

/// Ids of frameworks and agents whose rows may differ.
#[derive(Default)]
struct Touched<'a> {
    frameworks: BTreeSet<&'a str>,
    agents: BTreeSet<&'a str>,
}

/// Changes of rows while they are found.
struct Gathered<'t> {
    table: &'t RowTable,
    puts: RowChanges,
    drops: RowChanges,
}

impl Encoder {
    /// Goes on with the table of another publisher.
    pub fn resume(table: &RowTable) -> Self {
        let decoder = Decoder::of(table);
        let mut encoder = Self {
            frameworks: Numbers::resume(decoder.frameworks()),
            agents: Numbers::resume(decoder.agents()),
            strays: decoder.unreadable().iter().cloned().collect(),
            ..Self::default()
        };
        encoder.known = decoder.content().clone();
        // From nothing, because numbers of a resumed table come without their uses.
        encoder.count_uses(&Replicated::default(), &decoder.content().clone());
        encoder
    }

    /// Returns the number of rows that are too large for the table.
    pub fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// Returns what makes the rows of `table` those of `now`. What tells of a thing comes before what refers to it,
    /// so that the table makes sense after each part of the changes.
    pub fn changes(&mut self, table: &RowTable, now: &Replicated) -> RowChanges {
        let known = std::mem::replace(&mut self.known, now.clone());
        let (before, after) = (&known.snapshot, &now.snapshot);
        let touched = self.count_uses(&known, now);
        let mut gathered = Gathered { table, puts: Vec::new(), drops: Vec::new() };
        gathered.drops.extend(std::mem::take(&mut self.strays).into_iter().map(|key| (key, None)));
        let master = fields::key(kind::MASTER, [&[], &[]]);
        self.set(&mut gathered, master, master_row(after).map(|row| row.encode_to_vec()));
        // Before the tasks: a follower can make nothing of a task's row without these.
        for id in touched.frameworks {
            let Some(number) = self.frameworks.number(id) else { continue };
            let key = fields::key(kind::FRAMEWORK, [&number.to_be_bytes(), &[]]);
            self.set(&mut gathered, key, Some(bounded(framework_row(id, after))));
        }
        for id in touched.agents {
            let Some(number) = self.agents.number(id) else { continue };
            let key = fields::key(kind::AGENT, [&number.to_be_bytes(), &[]]);
            self.set(&mut gathered, key, Some(agent_row(id, after).encode_to_vec()));
        }
        let names = known.addresses4.changes(&now.addresses4).map(|change| change.key());
        let names = names.chain(known.addresses6.changes(&now.addresses6).map(|change| change.key()));
        for name in names.collect::<BTreeSet<_>>() {
            let of = |address: Option<&IpAddr>| address.copied().map(octets).unwrap_or_default();
            let row = AddressRow { v4: of(now.addresses4.get(name)), v6: of(now.addresses6.get(name)) };
            let row = (row != AddressRow::default()).then(|| row.encode_to_vec());
            self.set(&mut gathered, fields::key(kind::ADDRESS, [name.as_bytes(), &[]]), row);
        }
        let tasks = before.tasks.changes(&after.tasks).map(|change| change.key());
        let tasks = tasks.chain(before.kept.changes(&after.kept).map(|change| change.key()));
        for key in tasks.collect::<BTreeSet<_>>() {
            // Rows have no state for a task that has ended: followers would take it for one that starts.
            let task = after.tasks.get(key).filter(|task| task.state != TaskState::Terminal);
            let row = task.and_then(|task| {
                let agent = self.agents.number(&task.agent_id)?;
                Some(task_row(task, agent, after.kept.contains(key)).encode_to_vec())
            });
            let row_key = self.task_key(key);
            self.set_numbered(&mut gathered, row_key, row);
        }
        for change in before.names.tasks.changes(&after.names.tasks) {
            let key = change.key();
            let row = after
                .names
                .tasks
                .get(key)
                .and_then(|task| Some(name_row(task, self.agents.number(&task.agent)?).encode_to_vec()));
            let row_key = self.name_key(key);
            self.set_numbered(&mut gathered, row_key, row);
        }
        // Only now: the keys of rows that are dropped are made with the numbers that this frees.
        for (numbers, kind) in [(&mut self.agents, kind::AGENT), (&mut self.frameworks, kind::FRAMEWORK)] {
            for number in numbers.release() {
                let key = fields::key(kind, [&number.to_be_bytes(), &[]]);
                if table.rows().contains_key(&key) {
                    gathered.drops.push((key, None));
                }
            }
        }
        let Gathered { mut puts, drops, .. } = gathered;
        // A row goes before those that it refers to.
        let order = |(key, _): &(Octets, _)| std::cmp::Reverse(key.first().copied());
        let mut drops: RowChanges = drops;
        drops.sort_by_key(order);
        puts.append(&mut drops);
        puts
    }

    fn task_key(&self, key: &TaskKey) -> Option<Octets> {
        let framework = self.frameworks.any_number(&key.framework)?;
        Some(fields::key(kind::VIP_TASK, [&framework.to_be_bytes(), key.task.as_bytes()]))
    }

    fn name_key(&self, key: &RegisteredKey) -> Option<Octets> {
        let framework = self.frameworks.any_number(&key.framework)?;
        Some(fields::key(kind::NAME, [&framework.to_be_bytes(), &key.id.to_be_bytes()]))
    }

    fn set_numbered(&mut self, gathered: &mut Gathered<'_>, key: Option<Octets>, value: Option<Vec<u8>>) {
        if let Some(key) = key {
            self.set(gathered, key, value);
        }
    }

    /// Puts a row or drops it, where that makes a difference. A row that is too large is dropped.
    fn set(&mut self, gathered: &mut Gathered<'_>, key: Octets, value: Option<Vec<u8>>) {
        let value = match value {
            Some(value) if !fits(&key, &value) => {
                self.left_out.insert(key.clone());
                None
            }
            value => {
                self.left_out.remove(&key);
                value
            }
        };
        let known = gathered.table.rows().get(&key);
        match value {
            Some(value) if known.is_some_and(|known| **known == *value) => {}
            Some(value) => gathered.puts.push((key, Some(value.into()))),
            None if known.is_some() => gathered.drops.push((key, None)),
            None => {}
        }
    }

    /// Counts what uses ids in `now` and no longer in `before`, and returns whose rows may differ.
    fn count_uses<'a>(&mut self, before: &'a Replicated, now: &'a Replicated) -> Touched<'a> {
        let (before, now) = (&before.snapshot, &now.snapshot);
        let mut touched = Touched::default();
        let Touched { frameworks, agents } = &mut touched;
        let count = |numbers: &mut Numbers,
                     ids: &mut BTreeSet<&'a str>,
                     old: Option<&'a str>,
                     new: Option<&'a str>| {
            // The new use first, so that an id which goes on being used keeps its number.
            new.inspect(|id| numbers.take(id));
            old.inspect(|id| numbers.give_back(id));
            ids.extend(old.into_iter().chain(new));
        };
        for change in before.agents.changes(&now.agents) {
            let id = change.key().as_str();
            let (old, new) = (before.agents.contains_key(id), now.agents.contains_key(id));
            count(&mut self.agents, agents, old.then_some(id), new.then_some(id));
        }
        for change in before.recovered.changes(&now.recovered) {
            let id = change.key().as_str();
            let (old, new) = (before.recovered.contains(id), now.recovered.contains(id));
            count(&mut self.agents, agents, old.then_some(id), new.then_some(id));
        }
        for change in before.frameworks.changes(&now.frameworks) {
            let id = change.key().as_str();
            let (old, new) = (before.frameworks.contains_key(id), now.frameworks.contains_key(id));
            count(&mut self.frameworks, frameworks, old.then_some(id), new.then_some(id));
        }
        for change in before.registered.changes(&now.registered) {
            let id = change.key().as_str();
            let (old, new) = (before.registered.contains_key(id), now.registered.contains_key(id));
            count(&mut self.frameworks, frameworks, old.then_some(id), new.then_some(id));
        }
        if before.names.schedulers != now.names.schedulers {
            let (old, new): (&TaskRegistry, &TaskRegistry) = (&before.names, &now.names);
            for id in new.schedulers.keys() {
                count(&mut self.frameworks, frameworks, None, Some(id));
            }
            for id in old.schedulers.keys() {
                count(&mut self.frameworks, frameworks, Some(id), None);
            }
        }
        for change in before.tasks.changes(&now.tasks) {
            let key = change.key();
            let (old, new) = (before.tasks.get(key), now.tasks.get(key));
            let agent = |task: Option<&'a std::sync::Arc<Task>>| task.map(|task| &*task.agent_id);
            count(&mut self.agents, agents, agent(old), agent(new));
            let framework = &*key.framework;
            count(&mut self.frameworks, frameworks, old.map(|_| framework), new.map(|_| framework));
        }
        for change in before.names.tasks.changes(&now.names.tasks) {
            let key = change.key();
            let (old, new) = (before.names.tasks.get(key), now.names.tasks.get(key));
            let agent = |task: Option<&'a std::sync::Arc<RegisteredTask>>| task.map(|task| &*task.agent);
            count(&mut self.agents, agents, agent(old), agent(new));
            let framework = &*key.framework;
            count(&mut self.frameworks, frameworks, old.map(|_| framework), new.map(|_| framework));
        }
        touched
    }
}

fn master_row(snapshot: &Snapshot) -> Option<MasterRow> {
    let (master, leader) = (snapshot.master.as_ref(), snapshot.names.leader);
    (master.is_some() || leader.is_some()).then(|| MasterRow {
        id: master.map(|master| master.id.clone()),
        elected_time: master.map(|master| master.elected_time).unwrap_or_default(),
        address: master.and_then(|master| master.address).map(octets).unwrap_or_default(),
        leader: leader.map(|leader| octets(leader.ip())).unwrap_or_default(),
        leader_port: leader.map(|leader| leader.port().into()).unwrap_or_default(),
    })
}

fn framework_row(id: &str, snapshot: &Snapshot) -> FrameworkRow {
    let scheduler = snapshot.names.schedulers.get(id);
    FrameworkRow {
        id: id.to_owned(),
        name: snapshot.frameworks.get(id).cloned(),
        scheduler: scheduler.map(|scheduler| octets(scheduler.address)).unwrap_or_default(),
        scheduler_port: scheduler.and_then(|scheduler| scheduler.port).map(u32::from),
        registered: snapshot.registered.get(id).map(|time| time_row(*time)),
    }
}

/// Encodes a framework. A tenant chooses its name, which is left out where it is too long: its tasks refer to the
/// row.
fn bounded(row: FrameworkRow) -> Vec<u8> {
    let encoded = row.encode_to_vec();
    match encoded.len() <= super::table::MAX_VALUE_SIZE {
        true => encoded,
        false => FrameworkRow { name: None, ..row }.encode_to_vec(),
    }
}

fn agent_row(id: &str, snapshot: &Snapshot) -> AgentRow {
    let agent = snapshot.agents.get(id);
    AgentRow {
        id: id.to_owned(),
        hostname: agent.map(|agent| agent.hostname.clone()),
        address: agent.and_then(|agent| agent.address).map(octets).unwrap_or_default(),
        port: agent.and_then(|agent| agent.port).map(u32::from),
        awaited: snapshot.recovered.contains(id),
        ..AgentRow::default()
    }
}

fn task_row(task: &Task, agent: u32, kept: bool) -> VipTaskRow {
    let addresses = task.addresses.iter().map(|address| TaskAddressRow {
        address: octets(address.address),
        network: address.network.as_deref().map(str::to_owned),
    });
    VipTaskRow {
        agent,
        state: match task.state {
            TaskState::Preparing | TaskState::Terminal => 0,
            TaskState::Running => 1,
            TaskState::Killing => 2,
            TaskState::Lost => 3,
        },
        health: match task.healthy {
            None => 0,
            Some(true) => 1,
            Some(false) => 2,
        },
        docker: task.runtime == Runtime::Docker,
        addresses: addresses.collect(),
        ports: task.ports.iter().map(port_row).collect(),
        app: (*task.app != *app_of(&task.key.task, None)).then(|| task.app.to_string()),
        resources: pairs(&task.resources),
        kept,
    }
}

fn port_row(port: &TaskPort) -> VipPortRow {
    let label =
        |label: &crate::cluster::VipLabel| LabelRow { key: label.key.clone(), value: label.value.clone() };
    VipPortRow {
        name: port.name.to_string(),
        protocol: protocol_number(port.protocol),
        port: port.port.map(u32::from),
        host_port: port.host_port.map(u32::from),
        networks: port.networks.iter().cloned().collect(),
        labels: port.labels.iter().map(label).collect(),
        in_container: port.is_in_container,
        allocated: port.is_allocated,
        options: port.options.as_deref().map(options_row),
    }
}

fn options_row(options: &PortOptions) -> OptionsRow {
    // Named one by one, so that a new option can't be forgotten here.
    let PortOptions { scheduler, sticky_idle, drain, weight, no_ejection, slow_start } = options;
    // Bounds of labels are far below the 584 years that fit.
    let nanos = |time: &std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    OptionsRow {
        scheduler: scheduler.clone(),
        sticky_idle: *sticky_idle,
        drain: drain.as_ref().map(nanos),
        weight: weight.map(u32::from),
        slow_start: slow_start.as_ref().map(nanos),
        no_ejection: *no_ejection,
        ..OptionsRow::default()
    }
}

fn name_row(task: &RegisteredTask, agent: u32) -> NameRow {
    let port = |port: &crate::cluster::registry::NamedPort| NamePortRow {
        label: port.label.to_string(),
        protocol: port.protocol.map_or(0, protocol_number),
        number: port.number.into(),
    };
    NameRow {
        agent,
        label: task.label.to_string(),
        written: task.written.as_deref().map(str::to_owned),
        published: task.is_published,
        addresses: task.addresses.iter().copied().map(octets).collect(),
        discovery: task.ports.is_some(),
        ports: task.ports.iter().flatten().map(port).collect(),
        resources: pairs(&task.resources),
        executor_ports: pairs(&task.executor_ports),
        kept: task.is_kept,
    }
}
