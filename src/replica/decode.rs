//! The cluster and the VIPs' addresses that rows tell of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::fields::{self, address, kind, number, port, protocol, ranges, time};
use super::messages::{
    AddressRow, AgentRow, FrameworkRow, MasterRow, NameRow, OptionsRow, VipPortRow, VipTaskRow,
};
use super::table::{Octets, RowChanges, RowTable};
use crate::cluster::port_options::{MAX_WEIGHT, SCHEDULERS};
use crate::cluster::registry::{NamedPort, RegisteredKey, RegisteredTask, Scheduler};
use crate::cluster::{
    Agent, Master, PortOptions, Runtime, SharedMap, Snapshot, Task, TaskAddress, TaskKey, TaskPort,
    TaskState, VipLabel, app_of,
};
use crate::vip::alloc::Leases;

/// Content of the table: the cluster, and the addresses of VIPs' names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replicated {
    pub snapshot: Snapshot,
    pub addresses4: SharedMap<String, IpAddr>,
    pub addresses6: SharedMap<String, IpAddr>,
}

impl Replicated {
    /// Returns what a node tells that believes this and has given these addresses.
    ///
    /// What is a node's own is not told, and neither is what explains a single document: which agents it
    /// asked itself, which tasks have ended, and which labels could not be read.
    pub fn new(snapshot: &Snapshot, leases4: &Leases, leases6: &Leases) -> Self {
        let mut snapshot = snapshot.clone();
        snapshot.own_agents.clear();
        snapshot.ended.clear();
        snapshot.lost.clear();
        snapshot.skipped.clear();
        Self { snapshot, addresses4: leases4.addresses().clone(), addresses6: leases6.addresses().clone() }
    }
}

/// Reader of rows, which follows their changes.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    content: Replicated,
    frameworks: BTreeMap<u32, Arc<str>>,
    agents: BTreeMap<u32, Arc<str>>,
    /// Rows of known kinds of which nothing can be made, such as a task of a framework without a row.
    unreadable: BTreeSet<Octets>,
}

/// The number of an agent or framework means another id than before.
struct Renumbered;

impl Decoder {
    /// Reads all rows of a table.
    pub fn of(table: &RowTable) -> Self {
        let mut decoder = Self::default();
        for (key, value) in table.rows() {
            // A number has one row in a table, and it is new here.
            let _ = decoder.read(key, Some(value));
        }
        decoder
    }

    /// Follows changes to the table that they lead to. Goes through all of it where a number means another id
    /// than before, because tasks that refer to it need not be among the changes.
    pub fn follow(&mut self, changes: &RowChanges, table: &RowTable) {
        // What was unreadable may be readable now that the row has come to which it refers.
        let is_plain = self.unreadable.is_empty()
            && changes.iter().all(|(key, value)| self.read(key, value.as_ref()).is_ok())
            && self.unreadable.is_empty();
        if !is_plain {
            let content = std::mem::take(&mut self.content);
            *self = Self::of(table);
            // Readers find what differs by what is not shared.
            self.content.snapshot = std::mem::take(&mut self.content.snapshot).sharing(&content.snapshot);
        }
    }

    /// Returns what the rows tell.
    pub fn content(&self) -> &Replicated {
        &self.content
    }

    /// Returns the ids of frameworks by their numbers.
    pub fn frameworks(&self) -> &BTreeMap<u32, Arc<str>> {
        &self.frameworks
    }

    /// Returns the ids of agents by their numbers.
    pub fn agents(&self) -> &BTreeMap<u32, Arc<str>> {
        &self.agents
    }

    /// Returns the keys of rows of which nothing can be made.
    pub fn unreadable(&self) -> &BTreeSet<Octets> {
        &self.unreadable
    }

    fn read(&mut self, key: &Octets, value: Option<&Octets>) -> Result<(), Renumbered> {
        let Some((kind, rest)) = key.split_first() else { return Ok(()) };
        self.unreadable.remove(key);
        let read = match *kind {
            kind::MASTER if rest.is_empty() => self.master(value),
            kind::FRAMEWORK => self.framework(rest, value)?,
            kind::AGENT => self.agent(rest, value)?,
            kind::ADDRESS => self.address(rest, value),
            kind::VIP_TASK => self.vip_task(rest, value),
            kind::NAME => self.name(rest, value),
            // A newer publisher's kinds. As unreadable ones, they would have all rows read at every change.
            _ => Some(()),
        };
        if read.is_none() && value.is_some() {
            self.unreadable.insert(Arc::clone(key));
        }
        Ok(())
    }

    fn master(&mut self, value: Option<&Octets>) -> Option<()> {
        let row = match value {
            Some(value) => MasterRow::decode(&**value).ok(),
            None => None,
        };
        let is_read = row.is_some();
        let row = row.unwrap_or_default();
        let snapshot = &mut self.content.snapshot;
        let (elected_time, address) = (row.elected_time, address(&row.address));
        snapshot.master = row.id.map(|id| Master { id, elected_time, address });
        let leader = fields::address(&row.leader).zip(port(Some(row.leader_port)));
        Arc::make_mut(&mut snapshot.names).leader = leader.map(SocketAddr::from);
        is_read.then_some(())
    }

    fn framework(&mut self, key: &[u8], value: Option<&Octets>) -> Result<Option<()>, Renumbered> {
        let Some((number, [])) = number(key) else { return Ok(None) };
        let row = value.and_then(|value| FrameworkRow::decode(&**value).ok());
        let known = renumber(&mut self.frameworks, number, row.as_ref().map(|row| row.id.as_str()))?;
        let snapshot = &mut self.content.snapshot;
        let names = Arc::make_mut(&mut snapshot.names);
        if let Some(id) = known.as_deref() {
            snapshot.frameworks.remove(id);
            snapshot.registered.remove(id);
            names.schedulers.remove(id);
        }
        let Some(row) = row else { return Ok(None) };
        if let Some(time) = row.registered.and_then(time) {
            snapshot.registered.insert(row.id.clone(), time);
        }
        if let Some(address) = address(&row.scheduler) {
            names.schedulers.insert(row.id.clone(), Scheduler { address, port: port(row.scheduler_port) });
        }
        if let Some(name) = row.name {
            snapshot.frameworks.insert(row.id, name);
        }
        Ok(Some(()))
    }

    fn agent(&mut self, key: &[u8], value: Option<&Octets>) -> Result<Option<()>, Renumbered> {
        let Some((number, [])) = number(key) else { return Ok(None) };
        let row = value.and_then(|value| AgentRow::decode(&**value).ok());
        let known = renumber(&mut self.agents, number, row.as_ref().map(|row| row.id.as_str()))?;
        let snapshot = &mut self.content.snapshot;
        if let Some(id) = known.as_deref() {
            snapshot.agents.remove(id);
            snapshot.recovered.remove(id);
        }
        let Some(row) = row else { return Ok(None) };
        if row.awaited {
            snapshot.recovered.insert(row.id.clone());
        }
        let (address, port) = (address(&row.address), port(row.port));
        if let Some(hostname) = row.hostname {
            snapshot.agents.insert(row.id, Agent { hostname, address, port });
        }
        Ok(Some(()))
    }

    fn address(&mut self, name: &[u8], value: Option<&Octets>) -> Option<()> {
        let name = std::str::from_utf8(name).ok()?;
        let row = value.and_then(|value| AddressRow::decode(&**value).ok());
        let is_read = row.is_some();
        let row = row.unwrap_or_default();
        let content = &mut self.content;
        for (addresses, octets, is_ipv4) in
            [(&mut content.addresses4, row.v4, true), (&mut content.addresses6, row.v6, false)]
        {
            match address(&octets).filter(|address| address.is_ipv4() == is_ipv4) {
                Some(address) => addresses.insert(name.to_owned(), address),
                None => addresses.remove(name),
            };
        }
        is_read.then_some(())
    }

    fn vip_task(&mut self, key: &[u8], value: Option<&Octets>) -> Option<()> {
        let (framework, task) = number(key)?;
        let framework = Arc::clone(self.frameworks.get(&framework)?);
        let key = TaskKey { framework, task: std::str::from_utf8(task).ok()?.into() };
        let snapshot = &mut self.content.snapshot;
        // The old row's task goes in any case: a row that can't be read must not leave it behind.
        snapshot.tasks.remove(&key);
        snapshot.kept.remove(&key);
        let row = VipTaskRow::decode(&**value?).ok()?;
        let agent_id = Arc::clone(self.agents.get(&row.agent)?);
        if row.kept {
            snapshot.kept.insert(key.clone());
        }
        let app = row.app.as_deref().unwrap_or_else(|| app_of(&key.task, None)).into();
        let addresses = row.addresses.into_iter().filter_map(|row| {
            Some(TaskAddress { address: address(&row.address)?, network: row.network.map(Into::into) })
        });
        let task = Task {
            app,
            agent_id,
            state: match row.state {
                1 => TaskState::Running,
                2 => TaskState::Killing,
                3 => TaskState::Lost,
                _ => TaskState::Preparing,
            },
            healthy: match row.health {
                0 => None,
                health => Some(health == 1),
            },
            runtime: if row.docker { Runtime::Docker } else { Runtime::Mesos },
            addresses: addresses.collect(),
            ports: row.ports.into_iter().filter_map(task_port).collect(),
            resources: ranges(&row.resources),
            key: key.clone(),
        };
        snapshot.tasks.insert(key, Arc::new(task));
        Some(())
    }

    fn name(&mut self, key: &[u8], value: Option<&Octets>) -> Option<()> {
        let (framework, id) = number(key)?;
        let framework = Arc::clone(self.frameworks.get(&framework)?);
        let key = RegisteredKey { framework, id: u64::from_be_bytes(id.try_into().ok()?) };
        let names = Arc::make_mut(&mut self.content.snapshot.names);
        names.tasks.remove(&key);
        let row = NameRow::decode(&**value?).ok()?;
        let agent = Arc::clone(self.agents.get(&row.agent)?);
        let ports = row.ports.into_iter().filter_map(|row| {
            let protocol = match row.protocol {
                0 => None,
                number => Some(protocol(number)?),
            };
            Some(NamedPort { label: row.label.into(), protocol, number: port(Some(row.number))? })
        });
        let task = RegisteredTask {
            agent,
            label: row.label.into(),
            written: row.written.map(Into::into),
            hash: key.suffix(),
            is_published: row.published,
            addresses: row.addresses.iter().filter_map(|octets| address(octets)).collect(),
            ports: row.discovery.then(|| ports.collect()),
            resources: ranges(&row.resources),
            executor_ports: ranges(&row.executor_ports),
            is_kept: row.kept,
        };
        names.tasks.insert(key, Arc::new(task));
        Some(())
    }
}

/// Notes the id of a number, and returns the one that it had.
fn renumber(
    ids: &mut BTreeMap<u32, Arc<str>>,
    number: u32,
    id: Option<&str>,
) -> Result<Option<Arc<str>>, Renumbered> {
    let known = match id {
        Some(id) => match ids.get(&number) {
            Some(known) if **known == *id => return Ok(Some(Arc::clone(known))),
            _ => ids.insert(number, id.into()),
        },
        None => return Ok(ids.remove(&number)),
    };
    known.map_or(Ok(None), |_| Err(Renumbered))
}

fn task_port(row: VipPortRow) -> Option<TaskPort> {
    let label = |row: super::messages::LabelRow| VipLabel { key: row.key, value: row.value };
    Some(TaskPort {
        name: row.name.into(),
        protocol: protocol(row.protocol)?,
        port: port(row.port),
        host_port: port(row.host_port),
        networks: row.networks.into_iter().collect(),
        is_in_container: row.in_container,
        is_allocated: row.allocated,
        labels: row.labels.into_iter().map(label).collect(),
        options: row.options.map(|row| Box::new(port_options(row))),
    })
}

fn port_options(row: OptionsRow) -> PortOptions {
    PortOptions {
        // A newer publisher may have more of them; the VIP is then served as if none were said.
        scheduler: row.scheduler.filter(|name| SCHEDULERS.contains(&name.as_str())),
        sticky_idle: row.sticky_idle,
        drain: row.drain.map(Duration::from_nanos),
        weight: row
            .weight
            .and_then(|weight| u16::try_from(weight).ok())
            .filter(|weight| *weight <= MAX_WEIGHT),
        no_ejection: row.no_ejection,
        slow_start: row.slow_start.map(Duration::from_nanos),
    }
}
