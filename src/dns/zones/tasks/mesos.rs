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
//! | `slave` | all agents |

use super::{RData, TaskEntry, TaskZone, records, target, text};
use crate::cluster::Protocol;
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
                Some(rest) => self.of_group(number, rest, slave),
                None if rest.is_empty() => self.of_framework(number, slave),
                None => None,
            };
            if let Some(records) = records {
                found.get_or_insert_default().extend(records);
            }
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
        let labels: Vec<&str> = name.split('.').collect();
        match *labels.as_slice() {
            [protocol @ ("_tcp" | "_udp")] => self.has_services(group, protocol, slave).then(Vec::new),
            [task] => self.of_task(group, task, slave),
            ["_framework", "_tcp"] if !slave => {
                self.of_scheduler(group).or_else(|| self.services(group, "framework", "_tcp", None, slave))
            }
            [task, protocol] => self.services(group, task.strip_prefix('_')?, protocol, None, slave),
            [port, task, protocol] if !slave => {
                let port = Some(port.strip_prefix('_')?);
                self.services(group, task.strip_prefix('_')?, protocol, port, slave)
            }
            _ => None,
        }
    }

    /// SRV records of a framework's schedulers.
    fn of_scheduler(&self, group: u32) -> Option<Vec<RData>> {
        let (_, group) = self.directory.groups().find(|(number, _)| *number == group)?;
        let ports = group.schedulers.iter().filter_map(|scheduler| scheduler.port);
        let records: Vec<RData> =
            ports.filter_map(|port| Some(RData::Srv { port, target: target(&group.fragment)? })).collect();
        (!records.is_empty()).then_some(records)
    }

    /// Addresses of the tasks with this name, or of the one task whose canonical name it is.
    fn of_task(&self, group: u32, name: &str, slave: bool) -> Option<Vec<RData>> {
        if name.is_empty() {
            return None;
        }
        let all = self.directory.tasks(group, Some(name));
        // `<task>-<hash>-<agent>` names one task alone.
        let one = name.rsplit_once('-').and_then(|(rest, agent)| {
            let (label, hash) = rest.rsplit_once('-')?;
            Some((label, hash, agent))
        });
        let one = one.into_iter().flat_map(|(label, hash, agent)| {
            let tasks = self.directory.tasks(group, Some(label));
            tasks.filter(move |(task, entry)| {
                task.hash == hash.as_bytes() && agent_tail(self.directory.agent_id(entry)) == agent
            })
        });
        records(all.chain(one).flat_map(|(task, entry)| {
            let container = task.addresses.iter().find(|address| address.is_ipv6() && !slave);
            self.directory.agent_address(entry).into_iter().chain(container.copied())
        }))
    }

    /// True if any task or scheduler of the framework name has a port of this protocol.
    fn has_services(&self, group: u32, protocol: &str, slave: bool) -> bool {
        let scheduler = || !slave && protocol == "_tcp" && self.of_scheduler(group).is_some();
        let mut tasks = self.directory.tasks(group, None).filter(|(task, _)| !task.label.is_empty());
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
        if task.is_empty() || !matches!(protocol, "_tcp" | "_udp") {
            // Tasks without a name have no services, and services have no other protocols.
            return None;
        }
        let (_, group_names) = self.directory.groups().find(|(number, _)| *number == group)?;
        let fragment = &group_names.fragment;
        let services = self.directory.tasks(group, Some(task)).flat_map(|(task, entry)| {
            // Port resources are the agent's, discovery ports may be a container's.
            let on_agent = slave || task.ports.is_none();
            let target = target(&self.canonical(task, entry, fragment, on_agent));
            let ports = ports(task, protocol, port, slave);
            ports.filter_map(move |port| Some(RData::Srv { port, target: target.clone()? }))
        });
        let services: Vec<RData> = services.take(MAX_RECORDS).collect();
        (!services.is_empty()).then_some(services)
    }

    /// The canonical name of a task, which it has alone.
    fn canonical(&self, task: &RegisteredTask, entry: &TaskEntry, fragment: &str, slave: bool) -> String {
        let hash = String::from_utf8_lossy(&task.hash);
        let agent = agent_tail(self.directory.agent_id(entry));
        let slave = if slave { ".slave" } else { "" };
        format!("{}-{hash}-{agent}.{fragment}{slave}", task.label)
    }
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
