//! Registry of tasks: what a document says about every running task, with or without VIPs.
//!
//! Made for the resolver and kept apart from [`crate::cluster::Snapshot::tasks`], because most tasks of
//! a cluster have no VIP: a task takes some 200 octets here. Documents are folded into [`TaskRegistry`];
//! which DNS names follow from that is left to [`crate::dns::zones::tasks`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sha1::{Digest, Sha1};

use super::shared::Change;
use super::{Few, Protocol, SharedMap, SharedSet, TaskKey};

/// Ranges of port resources that are kept of a task.
const MAX_RANGES: usize = 64;

/// The running tasks of one document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskRegistry {
    /// Address of the leading master.
    pub leader: Option<SocketAddr>,
    /// Addresses of frameworks' schedulers, by framework id.
    pub schedulers: BTreeMap<String, Scheduler>,
    pub(crate) tasks: SharedMap<RegisteredKey, Arc<RegisteredTask>>,
}

/// Identity of a running task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegisteredKey {
    pub(crate) framework: Arc<str>,
    /// Stands for its id: ids themselves take more room than all the rest.
    pub(crate) id: u64,
}

/// Address of a framework's scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduler {
    pub address: IpAddr,
    /// Schedulers that use HTTP have none.
    pub port: Option<u16>,
}

/// A running task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredTask {
    pub(crate) agent: Arc<str>,
    /// Its name as one DNS label, perhaps empty.
    pub label: Box<str>,
    /// Its discovery name as written, in lower case, where that is a name of DNS and not its label.
    pub written: Option<Box<str>>,
    /// Suffix with which mesos-dns makes the name unique.
    pub hash: [u8; 5],
    /// Set when a port of it is one of the agent's.
    pub is_published: bool,
    /// Addresses of its container, as the agent reports them.
    pub addresses: Few<IpAddr>,
    /// Discovery ports; `None` without discovery information.
    pub ports: Option<Few<NamedPort>>,
    /// Port resources, as inclusive ranges.
    pub resources: Few<(u16, u16)>,
    /// Discovery ports of it that are among the port resources of its executor, as inclusive ranges.
    pub executor_ports: Few<(u16, u16)>,
    /// Set when the task is kept although the last document does not list it.
    pub is_kept: bool,
}

/// A discovery port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// Name as one DNS label, perhaps empty.
    pub label: Arc<str>,
    /// `None` stands for any.
    pub protocol: Option<Protocol>,
    pub number: u16,
}

/// A task for [`TaskRegistry::add`], apart from its ids.
#[derive(Clone, Debug, Default)]
pub struct Described<'a> {
    pub name: &'a str,
    pub is_published: bool,
    pub addresses: Vec<IpAddr>,
    pub ports: Option<Vec<NamedPort>>,
    pub resources: &'a [(u64, u64)],
}

impl RegisteredTask {
    /// Returns a running task as the registry keeps it, with its key.
    pub fn new(key: &TaskKey, agent: Arc<str>, described: Described<'_>) -> (RegisteredKey, Arc<Self>) {
        let label = super::dns_label::label(described.name);
        // Names from discovery information are found as they are written, too.
        let written = described.ports.is_some().then(|| described.name.to_ascii_lowercase());
        let written = written.filter(|written| *written != label && super::dns_label::is_name(written));
        // Once for both: it is among the dearest things that are done for each task.
        let sum = Sha1::digest(key.task.as_bytes());
        let task = Self {
            agent,
            label: label.into(),
            written: written.map(Into::into),
            hash: digits(&sum),
            is_published: described.is_published,
            addresses: described.addresses.into(),
            ports: described.ports.map(Into::into),
            resources: port_ranges(described.resources),
            executor_ports: Few::default(),
            is_kept: false,
        };
        (RegisteredKey { framework: Arc::clone(&key.framework), id: short(&sum) }, Arc::new(task))
    }
}

impl RegisteredKey {
    /// Returns the key of a task in the registry.
    pub fn of(key: &TaskKey) -> Self {
        Self { framework: Arc::clone(&key.framework), id: short_id(&key.task) }
    }

    /// Returns the suffix with which mesos-dns makes the task's name unique, which has a part of the same sum.
    pub(crate) fn suffix(&self) -> [u8; 5] {
        digits(&self.id.to_be_bytes())
    }
}

impl TaskRegistry {
    /// Adds a running task. Of two with one id the later counts.
    pub fn add(&mut self, key: RegisteredKey, task: Arc<RegisteredTask>) {
        self.tasks.insert(key, task);
    }

    /// Returns the registry with those tasks alone that `before` has not, or not like this.
    pub fn news(&self, before: &Self) -> Self {
        Self { tasks: self.tasks.news(&before.tasks), ..self.clone() }
    }

    /// Returns true if running tasks have the same addresses in both.
    pub fn has_same_addresses(&self, other: &Self) -> bool {
        let differs = |change| match change {
            Change::Changed(_, old, new) => {
                let (old, new): (&Arc<RegisteredTask>, &Arc<RegisteredTask>) = (old, new);
                old.addresses != new.addresses
            }
            Change::Added(_, task) | Change::Removed(_, task) => !task.addresses.is_empty(),
        };
        !self.tasks.changes(&other.tasks).any(differs)
    }

    /// Iterates over the addresses of all running tasks' containers.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.tasks.values().flat_map(|task| task.addresses.iter().copied())
    }

    /// Takes a task back that may change or has ended.
    pub fn remove(&mut self, key: &RegisteredKey) {
        self.tasks.remove(key);
    }

    /// Takes kept tasks back, all at once.
    pub fn give_up<'k>(&mut self, keys: impl Iterator<Item = &'k TaskKey>) {
        for key in keys.map(RegisteredKey::of) {
            if self.tasks.get(&key).is_some_and(|task| task.is_kept) {
                self.tasks.remove(&key);
            }
        }
    }

    /// Adds those tasks of `old` that this registry lacks, are not in `ended`, and run on an agent that
    /// `is_kept` selects. Returns the agent and framework of each kept task, without repetition.
    pub fn keep(
        &mut self,
        old: &Self,
        is_kept: impl Fn(&str) -> bool,
        ended: &SharedSet<TaskKey>,
    ) -> BTreeSet<(Arc<str>, Arc<str>)> {
        let missing = old.tasks.changes(&self.tasks).filter_map(|change| match change {
            Change::Removed(key, task) if is_kept(&task.agent) => Some((key.clone(), Arc::clone(task))),
            _ => None,
        });
        let mut missing: Vec<(RegisteredKey, Arc<RegisteredTask>)> = missing.collect();
        if !missing.is_empty() {
            // By a part of the hash, which is enough within one framework.
            let ended: BTreeSet<RegisteredKey> = ended.iter().map(RegisteredKey::of).collect();
            missing.retain(|(key, _)| !ended.contains(key));
        }
        let mut origins = BTreeSet::new();
        for (key, task) in missing {
            origins.insert((Arc::clone(&task.agent), Arc::clone(&key.framework)));
            self.tasks
                .insert(key, Arc::new(RegisteredTask { is_kept: true, ..RegisteredTask::clone(&task) }));
        }
        origins
    }

    /// Returns the number of tasks.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Returns true without any task.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// Returns port resources as they are kept: ranges of ports in order, none of which touches the next.
pub fn port_ranges(resources: &[(u64, u64)]) -> Few<(u16, u16)> {
    let range =
        |(first, last): &(u64, u64)| Some((u16::try_from(*first).ok()?.max(1), u16::try_from(*last).ok()?));
    merged_ranges(resources.iter().filter_map(range).filter(|(first, last)| first <= last).collect())
}

/// Returns ranges in order, none of which touches the next.
pub fn merged_ranges(mut ranges: Vec<(u16, u16)>) -> Few<(u16, u16)> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let touches = next.0 <= before.1.saturating_add(1);
        if touches {
            before.1 = before.1.max(next.1);
        }
        touches
    });
    ranges.truncate(MAX_RANGES);
    ranges.into()
}

/// A part of an id's SHA-1: ids themselves take more room than all the rest.
pub(super) fn short_id(id: &str) -> u64 {
    short(&Sha1::digest(id.as_bytes()))
}

/// The first 64 bits of an id's SHA-1.
fn short(sum: &[u8]) -> u64 {
    sum.iter().take(8).fold(0, |bits, octet| bits << 8 | u64::from(*octet))
}

/// The first five digits of an id's SHA-1 in z-base-32.
fn digits(sum: &[u8]) -> [u8; 5] {
    const DIGITS: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
    let bits = sum.iter().take(4).fold(0_u32, |bits, octet| bits << 8 | u32::from(*octet));
    std::array::from_fn(|place| {
        let digit = bits >> (27 - 5 * place) & 31;
        DIGITS.get(digit as usize).copied().unwrap_or_default()
    })
}

/// Returns the suffix with which mesos-dns makes the name of the task with this id unique.
#[cfg(test)]
pub(crate) fn hash(id: &str) -> [u8; 5] {
    digits(&Sha1::digest(id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_resources_are_few_ranges_in_order() {
        let ranges =
            port_ranges(&[(5, 6), (1, 2), (0, 0), (3, 3), (9, 8), (6, 7), (65_535, 70_000), (80, 65_535)]);
        assert_eq!(*ranges, [(1, 3), (5, 7), (80, 65_535)]);
        let scattered: Vec<(u64, u64)> = (1..1_000).map(|port| (2 * port, 2 * port)).collect();
        assert_eq!(port_ranges(&scattered).len(), MAX_RANGES);
    }

    #[test]
    fn hashes_are_those_of_mesos_dns() {
        // z-base-32 of da39a3ee, how the SHA-1 of nothing starts.
        assert_eq!(hash("").as_slice(), b"5eh48");
    }
}
