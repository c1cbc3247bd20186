//! Tasks, from the wire to [`Task`] and to the registry of names.
//!
//! What a port is, is decided in [`super::ports`]; which addresses count, in [`super::networks`].

use std::sync::Arc;

use super::discovery::{DiscoveredPort, discovered};
use super::facts::{Facts, Kind, MAX_NAME, TaskRest, oversized, unread};
use super::legacy::{self, legacy_labels};
use super::names::{self, Origin};
use super::networks::{self, container_address, newest_status};
use super::ports::{self, PortEntry};
use super::skip::SkipLog;
use super::texts::Texts;
use super::wire::{EndedTask, Lenient, MesosLabel, MesosTask, NetworkInfo, readable};
use crate::cluster::registry::{RegisteredTask, port_ranges};
use crate::cluster::{Runtime, Skipped, Task, TaskAddress, TaskKey, TaskPort, TaskState, app_of};

/// Returns the facts of a task: for the registry if it runs, and for the tasks with VIPs if it has VIP
/// labels.
pub fn facts(task: Lenient<MesosTask<'_>>, texts: &mut Texts) -> Facts {
    let task = match task {
        Lenient::Read(task) => task,
        Lenient::Unreadable { error, json } => return unread(&error, json, Kind::Task, "a task"),
    };
    let framework = task.framework_id.as_ref().map(|id| &*id.0);
    let agent = task.slave_id.as_ref().map(|id| &*id.0);
    let names = [Some(&*task.id.0), framework, agent, task.name.as_deref()];
    if let Some(oversized) = oversized(Kind::Task, names.into_iter().flatten()) {
        return oversized;
    }
    let executor_id = task.executor_id.as_ref().map(|id| &*id.0);
    let state = TaskState::parse(&task.state);
    // Listed among the running ones all the same: a master shows a task until its end is acknowledged.
    if matches!(state, TaskState::Terminal | TaskState::Lost) {
        let Some(framework) = framework else { return Facts::Nothing };
        let key = TaskKey { framework: texts.shared(framework), task: (*task.id.0).into() };
        return Facts::Ended { key, is_lost: state == TaskState::Lost };
    }
    let origin = framework.zip(agent).map(|(framework, agent)| Origin {
        key: TaskKey { framework: texts.shared(framework), task: (*task.id.0).into() },
        agent: texts.shared(agent),
    });
    // Each list is read once, for the names and for the VIPs.
    let mut skipped = Vec::new();
    let mut log = SkipLog::new(&mut skipped, &task.id.0, state);
    let reading = TaskReading::new(&task, &mut log);
    // Names are for tasks that can be reached; VIPs also count tasks that start or stop.
    let registered = origin.as_ref().filter(|_| state == TaskState::Running).map(|origin| {
        names::registered(
            &task,
            origin,
            &reading.networks,
            &reading.discovered,
            reading.is_published(),
            texts,
        )
    });
    if state == TaskState::Running
        && let Some(skipped) = names::unfit_services(&task, &reading.discovered)
    {
        log.add(skipped);
    }
    let task = reading.task(origin, state, texts, &mut log).map(Arc::new);
    let executor =
        executor(executor_id, task.as_deref(), registered.as_ref().map(|(_, task)| &**task), texts);
    if task.is_none() && registered.is_none() && skipped.is_empty() {
        return Facts::Nothing;
    }
    skipped.shrink_to_fit();
    let rest = TaskRest { skipped, executor };
    Facts::Task { task, registered, rest: (rest != TaskRest::default()).then(|| Box::new(rest)) }
}

/// Returns the id of a task's executor if the task announces a port that is not among its own resources.
fn executor(
    id: Option<&str>,
    task: Option<&Task>,
    registered: Option<&RegisteredTask>,
    texts: &mut Texts,
) -> Option<Arc<str>> {
    let id = id.filter(|id| !id.is_empty() && id.len() <= MAX_NAME)?;
    let is_own = |task: &RegisteredTask, number: u16| {
        task.resources.iter().any(|(first, last)| (*first..=*last).contains(&number))
    };
    let lacks = task.is_some_and(|task| task.ports.iter().any(|port| !port.is_allocated))
        || registered.is_some_and(|task| task.ports.iter().flatten().any(|port| !is_own(task, port.number)));
    lacks.then(|| texts.shared(id))
}

/// Returns the facts of a task that has ended; one that cannot be read is of no interest.
pub fn ended(task: Lenient<EndedTask<'_>>, is_unreachable: bool, texts: &mut Texts) -> Facts {
    let Lenient::Read(EndedTask { id, framework_id: Some(framework), state }) = task else {
        return Facts::Nothing;
    };
    // A task with longer ids was never taken in, so that its end is no news.
    if id.0.len().max(framework.0.len()) > MAX_NAME {
        return Facts::Nothing;
    }
    // An operator who marks an agent as gone ends its tasks without having asked them.
    let gone = state.is_some_and(|state| matches!(&*state, "TASK_GONE" | "TASK_GONE_BY_OPERATOR"));
    let key = TaskKey { framework: texts.shared(&framework.0), task: (*id.0).into() };
    Facts::Ended { key, is_lost: is_unreachable || gone }
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
        let networks = networks::networks(task);
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
    fn task(
        mut self,
        origin: Option<Origin>,
        state: TaskState,
        texts: &mut Texts,
        log: &mut SkipLog<'_>,
    ) -> Option<Task> {
        let ports = self.ports(texts, log);
        if ports.is_empty() {
            return None;
        }
        // Checked after the ports: without VIP labels the lack does not matter.
        let Some(Origin { key, agent }) = origin else {
            let reason = "the task names no framework or no agent".to_owned();
            log.add(Skipped { reason, ..Skipped::default() });
            return None;
        };
        let container = self.task.container.as_ref().and_then(|container| container.kind.as_deref());
        Some(Task {
            key,
            app: texts.shared(app_of(&self.task.id.0, self.task.name.as_deref())),
            agent_id: agent,
            state,
            healthy: healthy(self.task),
            runtime: match container {
                Some("DOCKER") => Runtime::Docker,
                _ => Runtime::Mesos,
            },
            addresses: self.addresses(texts, log).into(),
            ports: ports.into(),
            resources: port_ranges(&self.task.resources.0),
        })
    }

    fn ports(&mut self, texts: &mut Texts, log: &mut SkipLog<'_>) -> Vec<TaskPort> {
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
        let mut ports = ports::merge(self.mappings.drain(..).chain(labelled), texts, log);
        ports::mark_allocated(&mut ports, &self.task.resources, &mapped);
        // A container on a network of its own has no port on the agent unless one is mapped.
        let container = self.task.container.as_ref();
        let networks = container.into_iter().flat_map(|container| readable(&container.network_infos));
        if networks.into_iter().any(|network| network.name.as_deref().is_some_and(|name| !name.is_empty())) {
            ports.iter_mut().for_each(|port| port.is_in_container = true);
        }
        ports
    }

    fn addresses(&self, texts: &mut Texts, log: &mut SkipLog<'_>) -> Vec<TaskAddress> {
        let mut addresses = Vec::new();
        for network in &self.networks {
            let name = network.name.as_deref().filter(|name| !name.is_empty());
            for text in networks::texts(network) {
                match container_address(text) {
                    Some(address) => {
                        addresses.push(TaskAddress { address, network: name.map(|name| texts.shared(name)) });
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
