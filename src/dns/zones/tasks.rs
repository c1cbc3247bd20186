//! Names of tasks, masters and agents: the zones `dcos` and `mesos`.
//!
//! What belongs here: the rules by which dcos-net and mesos-dns name tasks. Pure. There are some ten names for
//! each task, so that they are not stored but worked out from a question;
//! a [`Directory`] of 100,000 tasks takes little more than the tasks themselves.
//!
//! * [`TaskZone::dcos`]: `<task>.<framework>.agentip|containerip|autoip`, `leader`, `master`, by the
//!   rules of dcos-net;
//! * [`TaskZone::mesos`]: the names of mesos-dns with the settings of DC/OS (its documentation "Service
//!   Naming", and `records/generator.go`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::directory::{Directory, Run, TaskEntry, Traits};
use crate::cluster::registry::RegisteredTask;
use crate::dns::protocol::record::{RData, encode};
use crate::dns::protocol::wire::{kind, labels};

mod listing;
mod mesos;

pub use listing::TaskName;

/// Zones of tasks at one moment.
#[derive(Clone, Debug)]
pub struct TaskZone {
    directory: Directory,
    /// Masters that the configuration names by address.
    masters: Vec<IpAddr>,
    /// Serial number in the SOA.
    pub serial: u32,
}

/// The part of a name's records that an answer can have.
///
/// A name with 10,000 instances is not gone through for an answer that carries ten of them: each turn begins with
/// another instance, and ends where no more fit. All turns together come to every record alike.
#[derive(Clone, Copy, Debug)]
pub struct AnswerWindow {
    /// Decides where to begin: the id of the message, which clients choose by chance.
    pub turn: u16,
    /// Octets of the answer. More records than fit are looked for, so that it is known that some do not.
    pub room: usize,
    /// Type of records that is asked for; `None` for all.
    pub kind: Option<u16>,
}

impl AnswerWindow {
    /// All records.
    pub const ALL: Self = Self { turn: 0, room: usize::MAX, kind: None };

    /// Number of addresses of a family that do not fit any more: each takes 16 octets or more.
    fn most(&self) -> usize {
        self.room / 16 + 1
    }

    fn wants(&self, kind: u16) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
    }
}

/// Addresses that are being looked for.
struct Found {
    window: AnswerWindow,
    v4: BTreeSet<IpAddr>,
    v6: BTreeSet<IpAddr>,
    /// True if there may be more of a family.
    may4: bool,
    may6: bool,
}

impl Found {
    fn new(window: AnswerWindow) -> Self {
        Self { window, v4: BTreeSet::new(), v6: BTreeSet::new(), may4: false, may6: false }
    }

    /// Goes on to tasks that have these properties.
    fn look_at(&mut self, traits: Traits) {
        self.may4 = traits.may_have(Traits::CONTAINER4.with(Traits::AGENT4));
        self.may6 = traits.may_have(Traits::CONTAINER6.with(Traits::AGENT6));
    }

    fn add(&mut self, address: IpAddr) {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }.insert(address);
    }

    fn needs(&self, ipv4: bool) -> bool {
        let (family, may, kind) =
            if ipv4 { (&self.v4, self.may4, kind::A) } else { (&self.v6, self.may6, kind::AAAA) };
        may && self.window.wants(kind) && family.len() < self.window.most()
    }

    /// True if nothing that follows can make a difference: a name exists by any record.
    fn is_complete(&self) -> bool {
        let is_found = !self.v4.is_empty() || !self.v6.is_empty();
        is_found && !self.needs(true) && !self.needs(false)
    }

    fn records(self) -> Option<Vec<RData>> {
        records(self.v4.into_iter().chain(self.v6))
    }
}

impl TaskZone {
    /// The zones of a directory's tasks. `serial` goes into the SOA (RFC 1982: later is greater).
    pub fn new(directory: Directory, masters: &[IpAddr], serial: u32) -> Self {
        Self { directory, masters: masters.to_vec(), serial }
    }

    /// Returns the tasks of the zones.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Returns the records of a name below `dcos.thisdcos.directory` for an answer; `None` if it does not exist.
    pub fn dcos(&self, name: &[u8], window: AnswerWindow) -> Option<Vec<RData>> {
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
                let mut found = Found::new(window);
                for group in self.groups(framework) {
                    self.find(kind, self.directory.named(group, task), &mut found);
                }
                found.records()
            }
            _ => None,
        }
    }

    /// Numbers of the framework names that have this label.
    fn groups<'a>(&'a self, framework: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.directory.groups().filter(move |(_, group)| group.label == framework).map(|(number, _)| number)
    }

    /// Looks for the addresses of tasks, of the kind that was asked for.
    fn find(&self, kind: Addresses, run: Run<'_>, found: &mut Found) {
        found.look_at(run.traits);
        for mut rest in run.halves(found.window.turn) {
            while let Some((entry, after)) = rest.split_first() {
                if found.is_complete() {
                    return;
                }
                rest = after;
                let Some(task) = self.directory.task(entry) else { continue };
                if self.add_addresses(kind, task, entry, found) {
                    continue;
                }
                // The other tasks of the agent have nothing else.
                let is_beside = |other: &TaskEntry| other.is_beside(entry);
                if rest.first().is_some_and(is_beside) {
                    rest = rest.get(rest.partition_point(is_beside)..).unwrap_or_default();
                }
            }
        }
    }

    /// Adds the addresses of one task. Returns true if another task of its agent may have other ones.
    fn add_addresses(
        &self,
        kind: Addresses,
        task: &RegisteredTask,
        entry: &TaskEntry,
        found: &mut Found,
    ) -> bool {
        let agent = self.directory.agent_address(entry);
        match kind {
            Addresses::Agent => agent.into_iter().for_each(|address| found.add(address)),
            Addresses::Auto if task.is_published || task.addresses.is_empty() => {
                agent.into_iter().for_each(|address| found.add(address));
            }
            Addresses::Container | Addresses::Auto => {
                task.addresses.iter().for_each(|address| found.add(*address));
            }
            // The first of each family counts, the agent's before the container's.
            Addresses::First { slave } => {
                let mut has = [false, false];
                let container = task.addresses.iter().filter(|_| !slave).copied();
                for address in self.directory.agent_addresses(entry).chain(container) {
                    let family = if address.is_ipv4() { &mut has[0] } else { &mut has[1] };
                    if !std::mem::replace(family, true) {
                        found.add(address);
                    }
                }
                let lacks = |ipv4: &bool| {
                    !self.directory.agent_addresses(entry).any(|address| address.is_ipv4() == *ipv4)
                };
                return !slave && [true, false].iter().any(|ipv4| found.needs(*ipv4) && lacks(ipv4));
            }
        }
        kind != Addresses::Agent
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
    /// The first of each family: the agent's, else the container's if `slave` is not set.
    First {
        slave: bool,
    },
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

/// The labels of a name; `None` if one is not UTF-8 or has a dot in it, which no task has.
fn text(name: &[u8]) -> Option<Vec<&str>> {
    let text = |label| std::str::from_utf8(label).ok().filter(|label| !label.contains('.'));
    labels(name).map(text).collect()
}

/// A target of SRV records, relative to the origin.
fn target(name: &str) -> Option<Box<[u8]>> {
    encode(name).ok()
}

#[cfg(test)]
mod tests;
