//! Executors with ports of their own, which count for their tasks.
//!
//! The tasks of a pod (Mesos: a task group, run by the default executor) have no port resources: a framework asks for
//! the ports of all of them with the executor. Documents list executors apart from their tasks, and events of a master
//! do not tell them at all. So what an executor was given is added to its tasks when both are known.
//!
//! For example, of an executor with the ports 31500-31501 and the tasks a and b, of which a announces 31500 and b
//! 31502, the port 31500 counts as given to a. Nothing counts as given to b, and 31501 to no task until one of the
//! executor announces it: the end of a must not look as if b had taken its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::registry::{RegisteredTask, merged_ranges};
use crate::cluster::{Few, Task, TaskPort};

/// Port resources as inclusive ranges.
pub type Ranges = Few<(u16, u16)>;

/// Identity of an executor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExecutorKey {
    pub framework: Arc<str>,
    pub executor: Arc<str>,
    /// Id of its agent; empty in documents of agents, which do not repeat their own.
    pub agent: Arc<str>,
}

/// Executors with ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executors(BTreeMap<ExecutorKey, Ranges>);

impl Executors {
    /// Adds an executor. Of two with one identity the later counts.
    pub fn add(&mut self, key: ExecutorKey, ports: Ranges) {
        self.0.insert(key, ports);
    }

    /// Returns true without any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the ports of an executor; none of one that is not known.
    pub fn ports(&self, framework: &Arc<str>, executor: &Arc<str>, agent: &Arc<str>) -> &[(u16, u16)] {
        // The usual case, in which no key is made.
        if self.0.is_empty() {
            return &[];
        }
        let key =
            |agent| ExecutorKey { framework: Arc::clone(framework), executor: Arc::clone(executor), agent };
        let found = self.0.get(&key(Arc::clone(agent))).or_else(|| self.0.get(&key("".into())));
        found.map(|ports| &**ports).unwrap_or_default()
    }
}

/// Returns true for a number in one of the ranges, which are in order.
fn is_among(number: u16, ranges: &[(u16, u16)]) -> bool {
    let index = ranges.partition_point(|(first, _)| *first <= number);
    index.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|(_, last)| number <= *last)
}

/// Returns the numbers that are among the ranges, as ranges in order.
fn among(numbers: impl Iterator<Item = u16>, ranges: &[(u16, u16)]) -> Ranges {
    merged_ranges(numbers.filter(|number| is_among(*number, ranges)).map(|number| (number, number)).collect())
}

/// Returns the number of a port at its agent's address, as far as it has one there.
fn number(port: &TaskPort) -> Option<u16> {
    port.host_port.or(port.port)
}

/// Returns a task with those ports of its executor that it announces.
pub fn task_with_ports(task: &Task, ports: &[(u16, u16)]) -> Option<Task> {
    let given = among(task.ports.iter().filter_map(number), ports);
    if given.is_empty() {
        return None;
    }
    let mut task = task.clone();
    for port in &mut task.ports {
        port.is_allocated |= number(port).is_some_and(|number| is_among(number, &given));
    }
    task.resources = merged_ranges(task.resources.iter().chain(&given).copied().collect());
    Some(task)
}

/// Returns a running task with those ports of its executor that it announces.
pub fn registered_with_ports(task: &RegisteredTask, ports: &[(u16, u16)]) -> Option<RegisteredTask> {
    let executor_ports = among(task.ports.iter().flatten().map(|port| port.number), ports);
    (!executor_ports.is_empty()).then(|| RegisteredTask { executor_ports, ..task.clone() })
}
