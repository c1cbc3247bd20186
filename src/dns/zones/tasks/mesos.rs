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

use std::collections::BTreeSet;

use super::{Addresses, AnswerWindow, Found, RData, TaskEntry, TaskZone, records, target, text};
use crate::cluster::Protocol;
use crate::cluster::dns_label::{MAX_LABEL, MAX_NAME};
use crate::cluster::registry::RegisteredTask;
use crate::dns::protocol::record::encode;
use crate::dns::protocol::wire::kind;
use crate::dns::zones::directory::{Traits, ports};

/// Octets of an SRV record besides its target: owner, type, class, time, length, priority, weight, port, root.
const SRV: usize = 19;

impl TaskZone {
    /// Returns the records of a name below `mesos` for an answer; `None` if it does not exist.
    pub fn mesos(&self, name: &[u8], window: AnswerWindow) -> Option<Vec<RData>> {
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
            Some((&"slave", labels)) => self.below(labels, true, window),
            _ => self.below(&labels, false, window),
        }
    }

    /// Records of a name by all frameworks whose names it ends in: `a.b` may be the task `a` of the
    /// framework `b` and the framework `a.b`.
    fn below(&self, labels: &[&str], slave: bool, window: AnswerWindow) -> Option<Vec<RData>> {
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
                    self.of_group(number, "_framework._tcp", slave, window)
                }
                Some(rest) => self.of_group(number, rest, slave, window),
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
    fn of_group(&self, group: u32, name: &str, slave: bool, window: AnswerWindow) -> Option<Vec<RData>> {
        let mut found = self.of_task(group, name, slave, window);
        let mut add = |records: Option<Vec<RData>>| {
            if let Some(records) = records {
                found.get_or_insert_default().extend(records);
            }
        };
        let (head, protocol) = name.rsplit_once('.').unwrap_or(("", name));
        let protocol = match protocol {
            "_tcp" => Protocol::Tcp,
            "_udp" => Protocol::Udp,
            _ => return found,
        };
        if head.is_empty() {
            add(self.has_services(group, protocol, slave).then(Vec::new));
        }
        if let Some(task) = head.strip_prefix('_') {
            add(self.services(group, task, Ports { protocol, name: None, slave }, window));
        }
        if !slave
            && let Some((port, task)) = head.split_once('.')
            && let (Some(port), Some(task)) = (port.strip_prefix('_'), task.strip_prefix('_'))
        {
            add(self.services(group, task, Ports { protocol, name: Some(port), slave }, window));
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
            task.and_then(|task| {
                self.of_task(number, task, false, AnswerWindow { room: 0, ..AnswerWindow::ALL })
            })
            .is_some_and(|records| !records.is_empty())
        })
    }

    /// Addresses of the tasks with this name, or of the one task whose canonical name it is.
    fn of_task(&self, group: u32, name: &str, slave: bool, window: AnswerWindow) -> Option<Vec<RData>> {
        if name.is_empty() {
            return None;
        }
        let directory = &self.directory;
        let mut found = Found::new(window);
        let kind = Addresses::First { slave };
        for run in [directory.named(group, name), directory.written(group, name)] {
            self.find(kind, run, &mut found);
        }
        for (task, entry) in self.canonically(group, name) {
            self.add_addresses(kind, task, entry, &mut found);
        }
        // Names between a written name and the framework's exist as well, and have no records.
        let is_above = || {
            let is_one = |(task, entry): (&RegisteredTask, &TaskEntry), hash: &str, agent: &str| {
                task.hash == hash.as_bytes() && directory.agent_tail(entry) == agent
            };
            directory.written_above(group, name).next().is_some()
                || canonical_parts(name).is_some_and(|(name, hash, agent)| {
                    directory.written_above(group, name).any(|found| is_one(found, hash, agent))
                })
        };
        found.records().or_else(|| is_above().then(Vec::new))
    }

    /// The tasks whose canonical name this is: one, or none.
    fn canonically<'a>(
        &'a self,
        group: u32,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a RegisteredTask, &'a TaskEntry)> {
        let directory = &self.directory;
        let parts = canonical_parts(name).into_iter();
        parts.flat_map(move |(start, hash, agent)| {
            let has_name = move |(task, entry): &(&RegisteredTask, &TaskEntry)| {
                canonical_label(task, directory.agent_tail(entry)).as_deref() == Some(name)
            };
            let is_hash = move |(task, _): &(&RegisteredTask, &TaskEntry)| task.hash == hash.as_bytes();
            let named = directory.canonical(directory.named(group, start), hash, agent);
            // Only a name that fills its label may have been cut, and then it begins that of its task.
            let may_be_cut = name.len() >= MAX_LABEL;
            let cut = may_be_cut.then(|| directory.tasks_from(group, start).filter(is_hash));
            let cut = cut.into_iter().flatten().filter(move |(task, _)| *task.label != *start);
            let written = directory.canonical(directory.written(group, start), hash, agent);
            named.chain(cut).filter(has_name).chain(written)
        })
    }

    /// True if any task or scheduler of the framework name has a port of this protocol.
    fn has_services(&self, group: u32, protocol: Protocol, slave: bool) -> bool {
        let scheduler = || !slave && protocol == Protocol::Tcp && self.of_scheduler(group).is_some();
        self.directory.group_traits(group).may_have(traits(protocol, slave)) || scheduler()
    }

    /// SRV records of the ports of a task name, as many as an answer can have.
    fn services(
        &self,
        group: u32,
        task: &str,
        wanted: Ports<'_>,
        window: AnswerWindow,
    ) -> Option<Vec<RData>> {
        // Tasks without a name have no services.
        if task.is_empty() {
            return None;
        }
        let (_, group_names) = self.directory.groups().find(|(number, _)| *number == group)?;
        let zones = [false, true].map(|slave| {
            let slave = if slave { ".slave" } else { "" };
            encode(&format!("{}{slave}", group_names.fragment)).ok()
        });
        let [in_container, on_agent] = zones;
        let runs =
            [(None, self.directory.named(group, task)), (Some(task), self.directory.written(group, task))];
        let mut services = Vec::new();
        for (written, run) in runs {
            if !run.traits.may_have(traits(wanted.protocol, wanted.slave)) {
                continue;
            }
            let mut octets = 0;
            for entry in run.around(window.turn) {
                // One record is enough where another type is asked for, or where no more fit.
                let is_enough = octets > window.room || !window.wants(kind::SRV);
                if is_enough && !services.is_empty() {
                    break;
                }
                let Some(task) = self.directory.task(entry) else { continue };
                // A task may have every port there is.
                let found = ports(task, wanted.protocol, wanted.name, wanted.slave);
                let mut found = found.take(window.room / SRV + 1).collect::<BTreeSet<u16>>().into_iter();
                let Some(first) = found.next() else { continue };
                // Port resources are the agent's, discovery ports may be a container's.
                let is_on_agent = wanted.slave || task.ports.is_none();
                let zone = if is_on_agent { &on_agent } else { &in_container };
                let target = zone.as_ref().and_then(|zone| self.canonical(task, entry, written, zone));
                let Some(target) = target else { continue };
                for port in std::iter::once(first).chain(found) {
                    octets += SRV + target.len();
                    services.push(RData::Srv { port, target: target.clone() });
                    if octets > window.room {
                        break;
                    }
                }
            }
        }
        (!services.is_empty()).then_some(services)
    }

    /// The canonical name of a task, which it has alone, on the wire: with its name as written if that is given
    /// and fits, else with its label. `None` if neither fits. `zone` is the rest of the name.
    fn canonical(
        &self,
        task: &RegisteredTask,
        entry: &TaskEntry,
        written: Option<&str>,
        zone: &[u8],
    ) -> Option<Box<[u8]>> {
        let agent = self.directory.agent_tail(entry);
        let within = |mut name: Vec<u8>| {
            name.extend_from_slice(zone);
            (name.len() < MAX_NAME).then(|| name.into_boxed_slice())
        };
        let as_written = written.and_then(|name| {
            let hash = String::from_utf8_lossy(&task.hash);
            within(encode(&format!("{name}-{hash}-{agent}")).ok()?.into())
        });
        as_written.or_else(|| {
            let label = canonical_label(task, agent)?;
            let mut name = Vec::with_capacity(1 + label.len() + zone.len());
            // At most 63, so that nothing is cut off.
            name.push(label.len() as u8);
            name.extend_from_slice(label.as_bytes());
            within(name)
        })
    }
}

/// Ports that a name asks for.
#[derive(Clone, Copy, Debug)]
struct Ports<'a> {
    protocol: Protocol,
    /// Name of a discovery port; all ports if there is none.
    name: Option<&'a str>,
    /// True for the ports of the agent alone.
    slave: bool,
}

/// Property of tasks that have such ports.
fn traits(protocol: Protocol, slave: bool) -> Traits {
    match protocol {
        _ if slave => Traits::RESOURCES,
        Protocol::Tcp => Traits::TCP,
        Protocol::Udp => Traits::UDP,
    }
}

/// The canonical name of a task as one label: `<task>-<hash>-<agent>`, with the task's part cut where it is
/// too long. `None` if the rest leaves no room for it.
pub(super) fn canonical_label(task: &RegisteredTask, agent: &str) -> Option<String> {
    let hash = String::from_utf8_lossy(&task.hash);
    // Two dashes separate the parts.
    let room = MAX_LABEL.checked_sub(hash.len() + agent.len() + 2).filter(|room| *room > 0)?;
    let name = task.label.get(..room).unwrap_or(&task.label);
    Some([name, "-", &*hash, "-", agent].concat())
}

/// The parts of a canonical name: the task's name, the hash, and the end of the agent's id.
fn canonical_parts(name: &str) -> Option<(&str, &str, &str)> {
    let (rest, agent) = name.rsplit_once('-')?;
    let (name, hash) = rest.rsplit_once('-')?;
    (!name.is_empty()).then_some((name, hash, agent))
}

/// True if a name is an empty non-terminal above a framework name (RFC 4592 section 2.2.2).
fn is_above(name: &str, fragment: &str) -> bool {
    fragment.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}
