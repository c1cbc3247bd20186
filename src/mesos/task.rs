//! Tasks, from the wire to [`Task`] and to the registry of names.
//!
//! What a port is, is decided in [`super::ports`]; which addresses count, in [`super::networks`].

use std::sync::Arc;

use serde::de::SeqAccess;

use super::discovery::{DiscoveredPort, discovered};
use super::fold::ArrayFold;
use super::legacy::{self, legacy_labels};
use super::names;
use super::networks::{container_address, networks, newest_status, texts};
use super::ports::{self, PortEntry};
use super::skip::{SkipLog, read_or_skip};
use super::wire::{EndedTask, Lenient, MesosLabel, MesosTask, NetworkInfo, readable};
use crate::cluster::registry::port_ranges;
use crate::cluster::{Runtime, Skipped, Snapshot, Task, TaskAddress, TaskKey, TaskPort, TaskState};

/// Fold over a list of tasks that have ended or are unreachable.
pub struct EndedList<'a> {
    pub snapshot: &'a mut Snapshot,
    /// True for the list of tasks whose agent the master has lost.
    pub unreachable: bool,
}

impl<'de> ArrayFold<'de> for EndedList<'_> {
    const HOLDS_TASKS: bool = true;

    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<Option<()>, A::Error> {
        let Some(task) = seq.next_element::<Lenient<EndedTask<'de>>>()? else { return Ok(None) };
        if let Lenient::Read(EndedTask { id, framework_id: Some(framework), state }) = task {
            let key = TaskKey { framework: (*framework.0).into(), task: (*id.0).into() };
            // An operator who marks an agent as gone ends its tasks without having asked them.
            let gone = state.is_some_and(|state| matches!(&*state, "TASK_GONE" | "TASK_GONE_BY_OPERATOR"));
            if self.unreachable || gone {
                self.snapshot.lost.insert(key.clone());
            }
            self.snapshot.ended.insert(key);
        }
        Ok(Some(()))
    }
}

/// Adds a task: to the registry if it runs, and to the tasks with VIPs if it has VIP labels.
pub fn add_task(snapshot: &mut Snapshot, task: Lenient<MesosTask<'_>>) {
    let Some(task) = read_or_skip(snapshot, task, "tasks[]", "a task") else { return };
    let state = TaskState::parse(&task.state);
    // Listed among the running ones all the same: a master shows a task until its end is acknowledged.
    if matches!(state, TaskState::Terminal | TaskState::Lost) {
        if let Some(framework) = task.framework_id {
            let key = TaskKey { framework: (*framework.0).into(), task: (*task.id.0).into() };
            if state == TaskState::Lost {
                snapshot.lost.insert(key.clone());
            }
            snapshot.ended.insert(key);
        }
        return;
    }
    // Each list is read once, for the names and for the VIPs.
    let mut log = SkipLog::new(&mut snapshot.skipped, &task.id.0, state);
    let reading = TaskReading::new(&task, &mut log);
    // Names are for tasks that can be reached; VIPs also count tasks that start or stop.
    if state == TaskState::Running {
        let is_published = reading.is_published();
        names::register(snapshot, &task, &reading.networks, &reading.discovered, is_published);
    }
    let mut log = SkipLog::new(&mut snapshot.skipped, &task.id.0, state);
    if state == TaskState::Running
        && let Some(skipped) = names::unfit_services(&task, &reading.discovered)
    {
        log.add(skipped);
    }
    if let Some(task) = reading.task(state, &mut log) {
        snapshot.tasks.insert(task.key.clone(), Arc::new(task));
    }
}

/// The lists of a task that both its VIPs and its names are made of.
struct TaskReading<'t> {
    task: &'t MesosTask<'t>,
    networks: Vec<&'t NetworkInfo<'t>>,
    mappings: Vec<PortEntry>,
    discovered: Vec<DiscoveredPort<'t>>,
    legacy: Vec<&'t MesosLabel<'t>>,
}

impl<'t> TaskReading<'t> {
    fn new(task: &'t MesosTask<'t>, log: &mut SkipLog<'_>) -> Self {
        let networks = networks(task);
        let mappings = ports::mappings(task, &networks);
        Self { task, networks, mappings, discovered: discovered(task, log), legacy: legacy_labels(task) }
    }

    /// Returns true if any port of the task is one of the agent's.
    fn is_published(&self) -> bool {
        !self.mappings.is_empty()
            || !self.legacy.is_empty()
            || self.discovered.iter().any(|port| port.is_on_agent)
    }

    /// Returns the task if it has VIP labels.
    fn task(mut self, state: TaskState, log: &mut SkipLog<'_>) -> Option<Task> {
        let ports = self.ports(log);
        if ports.is_empty() {
            return None;
        }
        // Checked after the ports: without VIP labels the lack does not matter.
        let (Some(framework), Some(agent)) = (&self.task.framework_id, &self.task.slave_id) else {
            let reason = "the task names no framework or no agent".to_owned();
            log.add(Skipped { reason, ..Skipped::default() });
            return None;
        };
        let container = self.task.container.as_ref().and_then(|container| container.kind.as_deref());
        Some(Task {
            key: TaskKey { framework: (*framework.0).into(), task: (*self.task.id.0).into() },
            agent_id: (*agent.0).into(),
            state,
            healthy: healthy(self.task),
            runtime: match container {
                Some("DOCKER") => Runtime::Docker,
                _ => Runtime::Mesos,
            },
            addresses: self.addresses(log),
            ports,
            resources: port_ranges(&self.task.resources.0),
        })
    }

    fn ports(&mut self, log: &mut SkipLog<'_>) -> Vec<TaskPort> {
        let legacy = legacy::entries(&self.legacy, &self.task.resources, log);
        let discovered = self.discovered.drain(..).filter_map(|port| port.entry);
        let labelled: Vec<PortEntry> = legacy.into_iter().chain(discovered).collect();
        // The usual case: most tasks of a cluster have no VIP.
        if labelled.iter().all(|entry| entry.labels.is_empty()) {
            return Vec::new();
        }
        let by_framework = ports::maps_by_framework(self.task);
        let mapped = self.mappings.iter().filter(|_| by_framework);
        let mapped = mapped.filter_map(|mapping| Some((mapping.protocol, mapping.host_port?))).collect();
        let mut ports = ports::merge(self.mappings.drain(..).chain(labelled), log);
        ports::mark_allocated(&mut ports, &self.task.resources, &mapped);
        // A container on a network of its own has no port on the agent unless one is mapped.
        let container = self.task.container.as_ref();
        let networks = container.into_iter().flat_map(|container| readable(&container.network_infos));
        if networks.into_iter().any(|network| network.name.as_deref().is_some_and(|name| !name.is_empty())) {
            ports.iter_mut().for_each(|port| port.is_in_container = true);
        }
        ports
    }

    fn addresses(&self, log: &mut SkipLog<'_>) -> Vec<TaskAddress> {
        let mut addresses = Vec::new();
        for network in &self.networks {
            let name = network.name.as_deref().filter(|name| !name.is_empty());
            for text in texts(network) {
                match container_address(text) {
                    Some(address) => {
                        addresses.push(TaskAddress { address, network: name.map(str::to_owned) });
                    }
                    None => log.add(Skipped {
                        value: Some(text.to_owned()),
                        reason: "not an IP address".to_owned(),
                        ..Skipped::default()
                    }),
                }
            }
        }
        addresses
    }
}

/// Returns the health in the newest status. Without a result there, a task with a health check counts
/// as unhealthy until its first one.
fn healthy(task: &MesosTask<'_>) -> Option<bool> {
    let newest = newest_status(task, |_| true).and_then(|status| status.healthy);
    newest.or(task.health_check.then_some(false))
}
