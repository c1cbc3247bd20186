//! Names of tasks, masters and agents: the zones `dcos` and `mesos`.
//!
//! What belongs here: the rules by which dcos-net and mesos-dns name tasks. Pure. There are some ten names for each task, so that they are not stored but worked out from a
//! question; a [`Directory`] of 100,000 tasks takes little more than the tasks themselves.
//!
//! * [`TaskZone::dcos`]: `<task>.<framework>.agentip|containerip|autoip`, `leader`, `master`, by the
//!   rules of dcos-net;
//! * [`TaskZone::mesos`]: the names of mesos-dns with the settings of DC/OS (its documentation "Service
//!   Naming", and `records/generator.go`).

use std::net::IpAddr;

use super::directory::{Directory, TaskEntry};
use crate::cluster::registry::RegisteredTask;
use crate::dns::protocol::record::{RData, encode};
use crate::dns::protocol::wire::labels;

mod mesos;

/// Zones of tasks at one moment.
#[derive(Clone, Debug)]
pub struct TaskZone {
    directory: Directory,
    /// Masters that the configuration names by address.
    masters: Vec<IpAddr>,
    /// Serial number in the SOA.
    pub serial: u32,
}

impl TaskZone {
    /// The zones of a directory's tasks. `serial` goes into the SOA (RFC 1982: later is greater).
    pub fn new(directory: Directory, masters: &[IpAddr], serial: u32) -> Self {
        Self { directory, masters: masters.to_vec(), serial }
    }

    /// Returns the records of a name below `dcos.thisdcos.directory`; `None` if it does not exist.
    pub fn dcos(&self, name: &[u8]) -> Option<Vec<RData>> {
        match *text(name)?.as_slice() {
            ["leader"] => self.leader(),
            ["master"] => self.masters(),
            // Names above those of tasks exist as long as a task is below them, and have no records.
            [kind] => {
                Addresses::parse(kind)?;
                (!self.directory.is_empty()).then(Vec::new)
            }
            [framework, kind] => {
                Addresses::parse(kind)?;
                let mut groups = self.groups(framework);
                groups.any(|group| self.directory.tasks(group, None).next().is_some()).then(Vec::new)
            }
            [task, framework, kind] if !task.is_empty() => {
                let kind = Addresses::parse(kind)?;
                let tasks = self.groups(framework).flat_map(|group| self.directory.tasks(group, Some(task)));
                records(tasks.flat_map(|(task, entry)| self.addresses(kind, task, entry)))
            }
            _ => None,
        }
    }

    /// Numbers of the framework names that have this label.
    fn groups<'a>(&'a self, framework: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.directory.groups().filter(move |(_, group)| group.label == framework).map(|(number, _)| number)
    }

    /// Addresses of one task, of the kind that was asked for.
    fn addresses(&self, kind: Addresses, task: &RegisteredTask, entry: &TaskEntry) -> Vec<IpAddr> {
        let agent = self.directory.agent_address(entry);
        match kind {
            Addresses::Agent => agent.into_iter().collect(),
            Addresses::Container => task.addresses.to_vec(),
            Addresses::Auto if task.is_published || task.addresses.is_empty() => agent.into_iter().collect(),
            Addresses::Auto => task.addresses.to_vec(),
        }
    }

    fn leader(&self) -> Option<Vec<RData>> {
        records(self.directory.leader().map(|(address, _)| address))
    }

    fn masters(&self) -> Option<Vec<RData>> {
        records(self.directory.leader().map(|(address, _)| address).into_iter().chain(self.masters.clone()))
    }
}

/// Kind of a task's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addresses {
    Agent,
    Container,
    /// The address at which the task's ports are: the agent's if it has a port there.
    Auto,
}

impl Addresses {
    fn parse(label: &str) -> Option<Self> {
        match label {
            "agentip" => Some(Self::Agent),
            "containerip" => Some(Self::Container),
            "autoip" => Some(Self::Auto),
            _ => None,
        }
    }
}

/// Records of these addresses, each once; a name without any does not exist.
fn records(addresses: impl IntoIterator<Item = IpAddr>) -> Option<Vec<RData>> {
    let mut records: Vec<RData> = addresses.into_iter().map(RData::from).collect();
    records.sort_unstable();
    records.dedup();
    (!records.is_empty()).then_some(records)
}

/// The labels of a name; `None` if one is not UTF-8, which no task has.
fn text(name: &[u8]) -> Option<Vec<&str>> {
    labels(name).map(|label| std::str::from_utf8(label).ok()).collect()
}

/// A target of SRV records, relative to the origin.
fn target(name: &str) -> Option<Box<[u8]>> {
    encode(name).ok()
}

#[cfg(test)]
mod tests;
