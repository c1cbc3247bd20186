//! Apps with their tasks.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::labels::{PortLabels, asks_for_vip};
use super::networks::{MarathonNetworks, NetworkMode};
use super::results::{CheckResult, TaskResults};
use super::view::{MarathonView, spec};
use super::wire::{self, MarathonApp, MarathonPort, MarathonTask};
use crate::cluster::registry::port_ranges;
use crate::cluster::{
    Protocol, Runtime, Skipped, Task, TaskAddress, TaskKey, TaskPort, TaskState, shortened,
};
use crate::mesos::{Lenient, LenientList, SkipLog, container_address, readable, unreadable};

/// Adds an app's tasks, and the results of their checks.
pub fn add(view: &mut MarathonView, app: &MarathonApp) {
    // A check that cannot be read is taken for one of the default kind.
    let mut checks = app.health_checks.iter().flatten();
    let has_own = checks.any(|check| check.as_read().is_none_or(wire::HealthCheck::is_marathons));
    let has_readiness = !app.readiness_checks.is_empty();
    let is_marathons = has_own || has_readiness;
    let is_checked = app.health_checks.iter().flatten().next().is_some() || has_readiness;
    view.apps.insert(spec(&app.id), is_marathons);
    let tasks = app.tasks.as_deref().unwrap_or_default();
    let is_read = tasks.iter().all(|task| task.as_read().is_some());
    let is_present =
        |task: &&Lenient<MarathonTask>| task.as_read().is_some_and(|task| state(task) != TaskState::Terminal);
    let count = tasks.iter().filter(is_present).count();
    let instances = app.instances.as_ref().and_then(Lenient::as_read).copied();
    // With a task that cannot be read the number is in doubt, and no absent task counts as ended.
    view.add_count(&app.id, is_read.then_some(count), instances);
    let networks = networks(view, app);
    for task in app.tasks.iter().flatten() {
        let task = match task {
            Lenient::Read(task) => task,
            Lenient::Unreadable { error, json } => {
                view.skip(&app.id, format!("the task {json:?} cannot be read: {error}"));
                continue;
            }
        };
        let (health, readiness) = (health(app, task), readiness(app, task));
        view.results.insert(task.id.clone(), TaskResults { health, readiness, is_marathons, is_checked });
        if let Some(networks) = &networks
            && let Some(task) = normalised(view, app, networks, task)
        {
            view.snapshot.tasks.insert(task.key.clone(), Arc::new(task));
        }
    }
}

/// Returns the networks of an app, or records that its tasks get no VIPs for want of them.
fn networks(view: &mut MarathonView, app: &MarathonApp) -> Option<MarathonNetworks> {
    let reason = match MarathonNetworks::of_app(app) {
        Ok(networks) => return Some(networks),
        Err(reason) => reason,
    };
    let ports = readable(&app.port_definitions).chain(mappings(app).iter().filter_map(Lenient::as_read));
    if ports.into_iter().any(|port| asks_for_vip(port.labels.as_ref())) {
        view.skip(&app.id, format!("{reason}; the app's tasks get no VIPs"));
    }
    None
}

/// Returns the result of a task's health checks: good if all are, which is Marathon's own rule.
fn health(app: &MarathonApp, task: &MarathonTask) -> CheckResult {
    let checks = app.health_checks.iter().flatten().count();
    if checks == 0 {
        return if state(task) == TaskState::Running { CheckResult::Good } else { CheckResult::Missing };
    }
    let results = || task.health_check_results.iter().flatten();
    let read = || results().filter_map(|result| result.as_read()?.as_ref());
    if read().any(wire::HealthResult::is_bad) {
        return CheckResult::Bad;
    }
    // A task of an older version may have fewer checks than the app has now; one at least, for a result.
    let is_current = task.version.is_none() || app.version.is_none() || task.version == app.version;
    let expected = if is_current { checks } else { results().count().max(1) };
    match read().filter(|result| result.alive).count() >= expected {
        true => CheckResult::Good,
        false => CheckResult::Missing,
    }
}

/// Returns the result of a task's readiness checks, which count for the tasks that a deployment starts
/// and until it is over.
fn readiness(app: &MarathonApp, task: &MarathonTask) -> CheckResult {
    // Marathon keeps no results once a deployment is over.
    if app.readiness_checks.is_empty() || app.deployments.is_empty() {
        return CheckResult::Good;
    }
    let mut results =
        readable(&app.readiness_check_results).filter(|result| result.task_id == task.id).peekable();
    match results.peek() {
        Some(_) => match results.all(|result| result.ready) {
            true => CheckResult::Good,
            false => CheckResult::Bad,
        },
        // No result yet: only tasks that the deployment starts wait for one.
        None if task.version != app.version => CheckResult::Good,
        None => CheckResult::Missing,
    }
}

fn state(task: &MarathonTask) -> TaskState {
    match task.state.as_deref() {
        Some(state) => TaskState::parse(state),
        None if task.has_started => TaskState::Running,
        None => TaskState::Preparing,
    }
}

/// Returns the task in the form of every source, if it has VIP labels and has not ended.
fn normalised(
    view: &mut MarathonView,
    app: &MarathonApp,
    networks: &MarathonNetworks,
    task: &MarathonTask,
) -> Option<Task> {
    let state = state(task);
    let key = TaskKey { framework: view.framework.clone(), task: task.id.as_str().into() };
    // Noted as ended, so that its absence from the next document is no loss.
    if state == TaskState::Terminal {
        view.snapshot.ended.insert(key);
        return None;
    }
    let mut log = SkipLog::new(&mut view.snapshot.skipped, &task.id, state);
    let mut ports = ports(app, networks, task, &mut log);
    if ports.is_empty() {
        return None;
    }
    let addresses = addresses(networks, task, &mut log);
    if task.host.is_empty() {
        without_host(&mut ports, !addresses.is_empty(), &mut log);
    }
    // Marathon lists exactly the ports that its offers gave to the task.
    let given: Vec<(u64, u64)> =
        readable(&task.ports).map(|port| u64::from(*port)).map(|port| (port, port)).collect();
    let agent_id = task.slave_id.clone().unwrap_or_else(|| task.host.clone());
    let agent_id = match task.host.is_empty() {
        true => agent_id,
        false => view.add_agent(&agent_id, &task.host),
    };
    if ports.is_empty() {
        return None;
    }
    Some(Task {
        key,
        app: spec(&app.id).into(),
        agent_id: agent_id.into(),
        state,
        // Set when verdicts are made of the results.
        healthy: None,
        runtime: match app.container.as_ref().and_then(|container| container.kind.as_deref()) {
            Some("DOCKER") => Runtime::Docker,
            _ => Runtime::Mesos,
        },
        addresses: addresses.into(),
        ports: ports.into(),
        resources: port_ranges(&given),
    })
}

/// Removes the ports that are reached at the agent, because Marathon tells no host for their task.
pub(super) fn without_host(ports: &mut Vec<TaskPort>, has_address: bool, log: &mut SkipLog<'_>) {
    ports.retain(|port| {
        let is_kept = port.host_port.is_none() && has_address;
        if !is_kept {
            let reason = "Marathon tells no host for the task, so that its address is not known".to_owned();
            log.add(Skipped { port: Some(port.describe()), reason, ..Skipped::default() });
        }
        is_kept
    });
}

/// Returns the addresses of a task.
fn addresses(networks: &MarathonNetworks, task: &MarathonTask, log: &mut SkipLog<'_>) -> Vec<TaskAddress> {
    let network = networks.only_name();
    let mut addresses = Vec::new();
    for address in task.ip_addresses.iter().flatten() {
        match address {
            Lenient::Read(wire::MarathonAddress { ip_address: text }) => match container_address(text) {
                Some(address) => {
                    addresses.push(TaskAddress { address, network: network.map(|name| name.as_str().into()) })
                }
                None => {
                    let reason = "not an IP address".to_owned();
                    log.add(Skipped { value: Some(text.clone()), reason, ..Skipped::default() });
                }
            },
            Lenient::Unreadable { error, json } => log.add(unreadable(error, json.clone(), "an address")),
        }
    }
    addresses
}

/// Returns the port mappings of an app. Before Marathon 1.5 they were a member of `docker`.
fn mappings(app: &MarathonApp) -> &[Lenient<MarathonPort>] {
    let mappings = app.container.as_ref().and_then(|container| {
        container.port_mappings.as_ref().or_else(|| container.docker.as_ref()?.port_mappings.as_ref())
    });
    mappings.map_or(&[], Vec::as_slice)
}

/// Ports of the agent that a task has, in the order of the app's ports.
struct HostPorts<'t> {
    ports: std::slice::Iter<'t, Lenient<u16>>,
}

impl<'t> HostPorts<'t> {
    fn new(ports: &'t LenientList<u16>) -> Self {
        Self { ports: ports.as_deref().unwrap_or_default().iter() }
    }

    /// Returns the next port.
    ///
    /// # Errors
    /// When it is missing, or no port.
    fn next(&mut self) -> Result<u16, String> {
        match self.ports.next() {
            Some(Lenient::Read(port)) if *port > 0 => Ok(*port),
            Some(Lenient::Read(_)) => Err("0 is no port of the agent".to_owned()),
            Some(Lenient::Unreadable { error, json }) => {
                Err(format!("the agent's port {json} cannot be read: {error}"))
            }
            None => Err("Marathon tells no port of the agent for it".to_owned()),
        }
    }
}

/// Returns the ports of a task that have VIP labels.
fn ports(
    app: &MarathonApp,
    networks: &MarathonNetworks,
    task: &MarathonTask,
    log: &mut SkipLog<'_>,
) -> Vec<TaskPort> {
    let mut ports = Vec::new();
    let mut host_ports = HostPorts::new(&task.ports);
    let is_host = networks.mode == NetworkMode::Host;
    let definitions =
        if is_host { app.port_definitions.as_deref().unwrap_or_default() } else { mappings(app) };
    for definition in definitions {
        let definition = match definition {
            Lenient::Read(definition) => definition,
            Lenient::Unreadable { error, json } => {
                log.add(unreadable(error, json.clone(), "a port"));
                // It would have had one of the agent's ports; only on a container's network that is open.
                if networks.mode == NetworkMode::Container {
                    break;
                }
                let _ = host_ports.next();
                continue;
            }
        };
        // The task's ports are those of its mapped ports, in order; on the host's network and on a bridge
        // all are mapped.
        let is_mapped = networks.mode != NetworkMode::Container || definition.is_mapped;
        // Taken for a port without labels as well, whose number the next one would get otherwise.
        let host_port = if is_mapped { Some(host_ports.next()) } else { None };
        if !asks_for_vip(definition.labels.as_ref()) {
            continue;
        }
        match place(definition, networks, host_port) {
            Ok(port) => ports.extend(labelled(definition, &port, log)),
            Err(reason) => {
                let port = definition.name.as_ref().and_then(Lenient::as_read).cloned();
                log.add(Skipped { port, reason, ..Skipped::default() });
            }
        }
    }
    ports
}

/// Returns the numbers and networks of a port, of which `host_port` is the agent's if it is mapped.
///
/// # Errors
/// When they cannot be known.
fn place(
    definition: &MarathonPort,
    networks: &MarathonNetworks,
    host_port: Option<Result<u16, String>>,
) -> Result<TaskPort, String> {
    let host_port = host_port.transpose()?;
    if networks.mode == NetworkMode::Host {
        return Ok(TaskPort { host_port, is_allocated: host_port.is_some(), ..empty() });
    }
    let container_port = match &definition.container_port {
        // 0 stands for the agent's port.
        None | Some(Lenient::Read(0)) => None,
        Some(Lenient::Read(port)) => Some(*port),
        Some(Lenient::Unreadable { error, json }) => {
            return Err(format!("the container port {json} cannot be read: {error}"));
        }
    };
    let mut names: BTreeSet<String> = match &definition.network_names {
        None => BTreeSet::new(),
        Some(Lenient::Read(names)) => names.iter().cloned().collect(),
        Some(Lenient::Unreadable { error, json }) => {
            return Err(format!("the network names {json} cannot be read: {error}"));
        }
    };
    if names.is_empty() && networks.mode == NetworkMode::Container {
        names.clone_from(&networks.names);
    }
    let port = container_port.or(host_port);
    match port {
        Some(_) => {
            // A port of the agent is one of the task's own, as Marathon lists them.
            let is_allocated = host_port.is_some();
            Ok(TaskPort { port, host_port, networks: names, is_in_container: true, is_allocated, ..empty() })
        }
        None => Err("it has neither a port of the container nor one of the agent".to_owned()),
    }
}

/// Returns a port without numbers and labels, with the name that Mesos gives to nameless ones.
fn empty() -> TaskPort {
    TaskPort { name: TaskPort::UNNAMED.into(), ..TaskPort::new(Protocol::Tcp) }
}

/// Returns the port once for each of its protocols, if it has VIP labels.
fn labelled(definition: &MarathonPort, port: &TaskPort, log: &mut SkipLog<'_>) -> Vec<TaskPort> {
    let name = definition.name.as_ref().and_then(Lenient::as_read).map_or(&*port.name, String::as_str);
    let PortLabels { vips: labels, options } = PortLabels::read(definition.labels.as_ref(), name, log);
    if labels.is_empty() {
        return Vec::new();
    }
    let text = match &definition.protocol {
        None => "tcp",
        Some(Lenient::Read(text)) => text,
        Some(Lenient::Unreadable { error, json }) => {
            log.add(Skipped { port: Some(name.to_owned()), ..unreadable(error, json.clone(), "a protocol") });
            return Vec::new();
        }
    };
    let (port, options) =
        (TaskPort { name: name.into(), labels: labels.into(), ..port.clone() }, options.of_port());
    let mut ports = Vec::new();
    // Marathon writes both protocols of a port as "tcp,udp".
    for protocol in protocols(text.split(','), name, log) {
        ports.push(TaskPort { protocol, options: options.clone(), ..port.clone() });
    }
    ports
}

/// Returns the protocols that these texts name, each once.
pub(super) fn protocols<'t>(
    texts: impl Iterator<Item = &'t str>,
    port: &str,
    log: &mut SkipLog<'_>,
) -> BTreeSet<Protocol> {
    let mut protocols = BTreeSet::new();
    for text in texts {
        match Protocol::parse(text.trim()) {
            Some(protocol) => drop(protocols.insert(protocol)),
            None => log.add(Skipped {
                port: Some(port.to_owned()),
                reason: format!("protocol {:?} is neither tcp nor udp", shortened(text.to_owned())),
                ..Skipped::default()
            }),
        }
    }
    protocols
}
