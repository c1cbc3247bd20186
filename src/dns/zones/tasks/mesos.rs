//! The zone of mesos-dns.
//!
//! | name below `mesos` | records |
//! |---|---|
//! | `<task>.<framework>` | A of the agent, AAAA of the container |
//! | `<task>.<framework>.slave` | A of the agent |
//! | `<task>-<hash>-<agent>.<framework>`, and the same with `.slave` | of this task alone |
//! | `_<task>._<proto>.<framework>` | SRV of the discovery ports, else of the port resources |
//! | `_<port>._<task>._<proto>.<framework>` | SRV of the discovery port of that name |
//! | `_<task>._<proto>.<framework>.slave` | SRV of the port resources |
//! | `<framework>`, `_framework._tcp.<framework>` | the framework's scheduler |
//! | `leader`, `_leader._tcp`, `_leader._udp` | the leading master |
//! | `master`, `master<N>` | all masters, a configured one |
//! | `slave`, `_slave._tcp` | all agents |
//!
//! A task with discovery information has all its names twice: with its discovery name as one label, and as it
//! is written, where `web.dev` is two labels. Of a task's addresses the first of each family counts, those of
//! the agent first. A canonical name that is longer than a label can be has the end of the task's name cut
//! off, so that SRV records always have a target. A scheduler's records never join those of a task: the name
//! `x.y` is that of the task `x` of the framework `y` before that of the framework `x.y`, and
//! `_framework._tcp` is the scheduler's before that of a task called `framework`.

use std::net::IpAddr;

use super::{RData, TaskEntry, TaskZone, records, target, text};
use crate::cluster::Protocol;
use crate::cluster::dns_label::MAX_LABEL;
use crate::cluster::registry::RegisteredTask;

/// Largest number of records of one name, which is more than fit into a message.
const MAX_RECORDS: usize = 2000;

impl TaskZone {
    /// Returns the records of a name below `mesos`; `None` if it does not exist.
    pub fn mesos(&self, name: &[u8]) -> Option<Vec<RData>> {
        let labels = text(name)?;
        match *labels.as_slice() {
            ["leader"] => return self.leader(),
            ["master"] => return self.masters(),
            ["slave"] => return records(self.directory.agents()),
            ["_tcp" | "_udp"] => return self.leader().map(|_| Vec::new()),
            ["_leader", "_tcp" | "_udp"] => {
                let (_, port) = self.directory.leader()?;
                return Some(vec![RData::Srv { port, target: target("leader")? }]);
            }
            ["_slave", "_tcp"] => {
                let target = target("slave")?;
                let ports = self.directory.agent_ports();
                let mut found: Vec<RData> =
                    ports.map(|port| RData::Srv { port, target: target.clone() }).collect();
                found.sort_unstable();
                found.dedup();
                return (!found.is_empty()).then_some(found);
            }
            // A label that is no master's number may be a framework's name, as below.
            [label] => {
                let number = label.strip_prefix("master").and_then(|number| number.parse().ok());
                if let Some(address) = number.and_then(|number: usize| self.masters.get(number)) {
                    return records([*address]);
                }
            }
            _ => {}
        }
        match labels.split_last() {
            Some((&"slave", labels)) => self.below(labels, true),
            _ => self.below(&labels, false),
        }
    }

    /// Records of a name by all frameworks whose names it ends in: `a.b` may be the task `a` of the
    /// framework `b` and the framework `a.b`.
    fn below(&self, labels: &[&str], slave: bool) -> Option<Vec<RData>> {
        let name = labels.join(".");
        let mut found: Option<Vec<RData>> = None;
        // Addresses and services of schedulers, which never join those of tasks.
        let (mut hosts, mut schedulers) = (Vec::new(), Vec::new());
        for (number, group) in self.directory.groups() {
            let fragment = group.fragment.as_str();
            // A framework whose name has no letter or digit has no place in DNS.
            if fragment.is_empty() {
                continue;
            }
            let Some(rest) = name.strip_suffix(fragment) else {
                // The name ends the framework's name, so that it exists.
                if is_above(&name, fragment) && self.is_populated(number, slave) {
                    found.get_or_insert_default();
                }
                continue;
            };
            // Only at a dot: the framework `b` has no part in the name `ab`.
            let records = match rest.strip_suffix('.') {
                Some("_framework._tcp") if !slave => {
                    schedulers.extend(self.of_scheduler(number).unwrap_or_default());
                    self.of_group(number, "_framework._tcp", slave)
                }
                Some(rest) => self.of_group(number, rest, slave),
                None if rest.is_empty() => self.of_framework(number, slave).map(|records| {
                    hosts.extend(records);
                    Vec::new()
                }),
                None => None,
            };
            if let Some(records) = records {
                found.get_or_insert_default().extend(records);
            }
        }
        // The service that is reserved for schedulers is theirs, and every other name is that of a task first.
        if !schedulers.is_empty() {
            // Their target would be the task that has the framework's name.
            let framework = name.strip_prefix("_framework._tcp.").unwrap_or_default();
            found = Some(if self.is_of_task(framework) { Vec::new() } else { schedulers });
        } else if let Some(records) = found.as_mut().filter(|records| records.is_empty()) {
            records.extend(hosts);
        }
        // Two frameworks may have the same record.
        found.map(|mut records| {
            records.sort_unstable();
            records.dedup();
            records
        })
    }

    /// True if the framework name has anything below it.
    fn is_populated(&self, group: u32, slave: bool) -> bool {
        let has_scheduler =
            || self.directory.groups().any(|(number, g)| number == group && !g.schedulers.is_empty());
        self.directory.tasks(group, None).next().is_some() || !slave && has_scheduler()
    }

    /// Records of the framework name itself, which exists as long as anything is below it.
    fn of_framework(&self, group: u32, slave: bool) -> Option<Vec<RData>> {
        if !self.is_populated(group, slave) {
            return None;
        }
        let (_, group) = self.directory.groups().find(|(number, _)| *number == group)?;
        let schedulers = group.schedulers.iter().filter(|_| !slave);
        Some(records(schedulers.map(|scheduler| scheduler.address)).unwrap_or_default())
    }

    /// Records of a name below a framework name.
    fn of_group(&self, group: u32, name: &str, slave: bool) -> Option<Vec<RData>> {
        let mut found = self.of_task(group, name, slave);
        let mut add = |records: Option<Vec<RData>>| {
            if let Some(records) = records {
                found.get_or_insert_default().extend(records);
            }
        };
        let (head, protocol) = name.rsplit_once('.').unwrap_or(("", name));
        if !matches!(protocol, "_tcp" | "_udp") {
            return found;
        }
        if head.is_empty() {
            add(self.has_services(group, protocol, slave).then(Vec::new));
        }
        if let Some(task) = head.strip_prefix('_') {
            add(self.services(group, task, protocol, None, slave));
        }
        if !slave
            && let Some((port, task)) = head.split_once('.')
            && let (Some(port), Some(task)) = (port.strip_prefix('_'), task.strip_prefix('_'))
        {
            add(self.services(group, task, protocol, Some(port), slave));
        }
        // A task's name as written may have labels of which this name has the last ones.
        let mut above = self.directory.written_above(group, head);
        let is_above = above.any(|(task, _)| ports(task, protocol, None, slave).next().is_some());
        add(is_above.then(Vec::new));
        found
    }

    /// SRV records of a framework's schedulers.
    fn of_scheduler(&self, group: u32) -> Option<Vec<RData>> {
        let (_, group) = self.directory.groups().find(|(number, _)| *number == group)?;
        let ports = group.schedulers.iter().filter_map(|scheduler| scheduler.port);
        let records: Vec<RData> =
            ports.filter_map(|port| Some(RData::Srv { port, target: target(&group.fragment)? })).collect();
        (!records.is_empty()).then_some(records)
    }

    /// True if a task of any framework has this name.
    fn is_of_task(&self, name: &str) -> bool {
        let mut groups = self.directory.groups().filter(|(_, group)| !group.fragment.is_empty());
        groups.any(|(number, group)| {
            let task = name.strip_suffix(&*group.fragment).and_then(|rest| rest.strip_suffix('.'));
            task.and_then(|task| self.of_task(number, task, false)).is_some_and(|records| !records.is_empty())
        })
    }

    /// Addresses of the tasks with this name, or of the one task whose canonical name it is.
    fn of_task(&self, group: u32, name: &str, slave: bool) -> Option<Vec<RData>> {
        if name.is_empty() {
            return None;
        }
        let directory = &self.directory;
        let all = directory.tasks(group, Some(name)).chain(directory.written(group, name));
        let found = records(all.chain(self.canonically(group, name)).flat_map(|(task, entry)| {
            let container = task.addresses.iter().filter(|_| !slave).copied();
            first_of_each_family(directory.agent_addresses(entry).chain(container))
        }));
        // Names between a written name and the framework's exist as well, and have no records.
        let is_above = || {
            let is_one = |(task, entry): (&RegisteredTask, &TaskEntry), hash: &str, agent: &str| {
                task.hash == hash.as_bytes() && agent_tail(directory.agent_id(entry)) == agent
            };
            directory.written_above(group, name).next().is_some()
                || canonical_parts(name).is_some_and(|(name, hash, agent)| {
                    directory.written_above(group, name).any(|found| is_one(found, hash, agent))
                })
        };
        found.or_else(|| is_above().then(Vec::new))
    }

    /// The tasks whose canonical name this is: one, or none.
    fn canonically<'a>(
        &'a self,
        group: u32,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a RegisteredTask, &'a TaskEntry)> {
        let parts = canonical_parts(name).into_iter();
        parts.flat_map(move |(start, hash, agent)| {
            let is_hash = move |(task, _): &(&RegisteredTask, &TaskEntry)| task.hash == hash.as_bytes();
            // Only a name that fills its label may have been cut.
            let whole = (name.len() < MAX_LABEL).then_some(start);
            let named = self.directory.tasks_from(group, start);
            let named = named.take_while(move |(task, _)| whole.is_none_or(|whole| *task.label == *whole));
            let named = named.filter(is_hash).filter(move |(task, entry)| {
                canonical_label(task, &agent_tail(self.directory.agent_id(entry))).as_deref() == Some(name)
            });
            let written = self.directory.written(group, start).filter(is_hash);
            let written =
                written.filter(move |(_, entry)| agent_tail(self.directory.agent_id(entry)) == agent);
            named.chain(written)
        })
    }

    /// True if any task or scheduler of the framework name has a port of this protocol.
    fn has_services(&self, group: u32, protocol: &str, slave: bool) -> bool {
        let scheduler = || !slave && protocol == "_tcp" && self.of_scheduler(group).is_some();
        let mut tasks = self.directory.tasks(group, None).filter(|(task, _)| has_name(task));
        tasks.any(|(task, _)| ports(task, protocol, None, slave).next().is_some()) || scheduler()
    }

    /// SRV records of the ports of a task name: all, or those called `port`.
    fn services(
        &self,
        group: u32,
        task: &str,
        protocol: &str,
        port: Option<&str>,
        slave: bool,
    ) -> Option<Vec<RData>> {
        // Tasks without a name have no services.
        if task.is_empty() {
            return None;
        }
        let (_, group_names) = self.directory.groups().find(|(number, _)| *number == group)?;
        let fragment = &group_names.fragment;
        let named = self.directory.tasks(group, Some(task)).map(|found| (None, found));
        let written = self.directory.written(group, task).map(|found| (Some(task), found));
        let services = named.chain(written).flat_map(|(written, (task, entry))| {
            // Port resources are the agent's, discovery ports may be a container's.
            let on_agent = slave || task.ports.is_none();
            let target = self.canonical(task, entry, written, fragment, on_agent);
            let ports = ports(task, protocol, port, slave);
            ports.filter_map(move |port| Some(RData::Srv { port, target: target.clone()? }))
        });
        let services: Vec<RData> = services.take(MAX_RECORDS).collect();
        (!services.is_empty()).then_some(services)
    }

    /// The canonical name of a task, which it has alone, on the wire: with its name as written if that is given
    /// and fits, else with its label. `None` if neither fits.
    fn canonical(
        &self,
        task: &RegisteredTask,
        entry: &TaskEntry,
        written: Option<&str>,
        fragment: &str,
        slave: bool,
    ) -> Option<Box<[u8]>> {
        let agent = agent_tail(self.directory.agent_id(entry));
        let slave = if slave { ".slave" } else { "" };
        let hash = String::from_utf8_lossy(&task.hash);
        let written = written.and_then(|name| target(&format!("{name}-{hash}-{agent}.{fragment}{slave}")));
        written.or_else(|| target(&format!("{}.{fragment}{slave}", canonical_label(task, &agent)?)))
    }
}

/// The canonical name of a task as one label: `<task>-<hash>-<agent>`, with the task's part cut where it is
/// too long. `None` if the rest leaves no room for it.
fn canonical_label(task: &RegisteredTask, agent: &str) -> Option<String> {
    let hash = String::from_utf8_lossy(&task.hash);
    // Two dashes separate the parts.
    let room = MAX_LABEL.checked_sub(hash.len() + agent.len() + 2).filter(|room| *room > 0)?;
    let name = task.label.get(..room).unwrap_or(&task.label);
    Some(format!("{name}-{hash}-{agent}"))
}

/// The parts of a canonical name: the task's name, the hash, and the end of the agent's id.
fn canonical_parts(name: &str) -> Option<(&str, &str, &str)> {
    let (rest, agent) = name.rsplit_once('-')?;
    let (name, hash) = rest.rsplit_once('-')?;
    (!name.is_empty()).then_some((name, hash, agent))
}

/// The first IPv4 address and the first IPv6 address.
fn first_of_each_family(addresses: impl Iterator<Item = IpAddr>) -> impl Iterator<Item = IpAddr> {
    let (mut v4, mut v6) = (None, None);
    for address in addresses {
        if address.is_ipv4() { &mut v4 } else { &mut v6 }.get_or_insert(address);
    }
    v4.into_iter().chain(v6)
}

/// True if a task has any name; one whose name has no letter or digit may have none.
fn has_name(task: &RegisteredTask) -> bool {
    !task.label.is_empty() || task.written.is_some()
}

/// Ports of a task for one protocol, only those called `name` if it is given. Port resources have neither a
/// protocol nor a name, so that they count for both protocols.
fn ports<'a>(
    task: &'a RegisteredTask,
    protocol: &str,
    name: Option<&'a str>,
    slave: bool,
) -> impl Iterator<Item = u16> + 'a {
    let protocol = if protocol == "_tcp" { Protocol::Tcp } else { Protocol::Udp };
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

/// True if a name is an empty non-terminal above a framework name (RFC 4592 section 2.2.2).
fn is_above(name: &str, fragment: &str) -> bool {
    fragment.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// Returns the last part of an agent's id: `s1` of `62ca579f-d204-47ab-b9b7-6fdde30e658c-S1`.
fn agent_tail(id: &str) -> String {
    id.rsplit('-').next().unwrap_or_default().to_ascii_lowercase()
}
