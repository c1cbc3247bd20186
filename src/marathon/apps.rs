//! Apps with their tasks.

use std::collections::BTreeSet;

use super::labels::{options, vip_labels};
use super::view::MarathonView;
use super::wire::{self, MarathonApp, MarathonPort, MarathonTask, NetworkMode};
use crate::cluster::{
    PortOptions, Protocol, Runtime, Skipped, Task, TaskAddress, TaskKey, TaskPort, TaskState, shortened,
};
use crate::mesos::{SkipLog, container_address};

/// Adds an app's tasks, and Marathon's verdicts on them.
pub fn add(view: &mut MarathonView, app: &MarathonApp) {
    let is_checked = app.health_checks.iter().any(wire::HealthCheck::is_marathons);
    let has_readiness = !app.readiness_checks.is_empty();
    // Ids of tasks begin with the app's id, with underscores for slashes.
    if is_checked || has_readiness {
        view.checked.insert(app.id.trim_start_matches('/').replace('/', "_"));
    }
    for task in &app.tasks {
        let healthy = is_healthy(task);
        let ready = is_ready(app, task);
        // Checks that Mesos does are in the tasks of Mesos already.
        let verdict = (is_checked || has_readiness).then_some((healthy || !is_checked) && ready);
        if let Some(verdict) = verdict {
            view.verdicts.insert(task.id.clone(), verdict);
        }
        // Without Mesos as a source, Marathon also has to answer for the checks that Mesos does.
        let healthy = (!app.health_checks.is_empty() || has_readiness)
            .then_some((healthy || app.health_checks.is_empty()) && ready);
        if let Some(task) = normalised(view, app, task, healthy) {
            view.snapshot.tasks.insert(task.key.clone(), task);
        }
    }
}

/// Returns true if every check has a good result, which is Marathon's own rule.
fn is_healthy(task: &MarathonTask) -> bool {
    let results = &task.health_check_results;
    !results.is_empty() && results.iter().all(|result| result.as_ref().is_some_and(|result| result.alive))
}

/// Returns true unless a deployment waits for the task: readiness counts during deployments only, and
/// for the tasks that they start.
fn is_ready(app: &MarathonApp, task: &MarathonTask) -> bool {
    // Marathon keeps no results once a deployment is over.
    if app.readiness_checks.is_empty() || app.deployments.is_empty() {
        return true;
    }
    let mut results =
        app.readiness_check_results.iter().filter(|result| result.task_id == task.id).peekable();
    match results.peek() {
        Some(_) => results.all(|result| result.ready),
        // No result yet: only tasks that the deployment starts wait for one.
        None => task.version != app.version,
    }
}

/// Returns the task in the form of every source, if it has VIP labels and has not ended.
fn normalised(
    view: &mut MarathonView,
    app: &MarathonApp,
    task: &MarathonTask,
    healthy: Option<bool>,
) -> Option<Task> {
    let state = match task.state.as_deref() {
        Some(state) => TaskState::parse(state),
        None if task.started_at.is_some() => TaskState::Running,
        None => TaskState::Preparing,
    };
    let key = TaskKey { framework: view.framework.clone(), task: task.id.clone() };
    if state == TaskState::Terminal {
        view.snapshot.ended.insert(key);
        return None;
    }
    let agent_id = task.slave_id.clone().unwrap_or_else(|| task.host.clone());
    view.add_agent(&agent_id, &task.host);
    let ports = ports(app, task, &mut SkipLog::new(&mut view.snapshot.skipped, &task.id, state));
    if ports.is_empty() {
        return None;
    }
    // Marathon does not say which network an address is on; with one network there is no doubt.
    let names = network_names(app);
    let network = if names.len() == 1 { names.into_iter().next() } else { None };
    let addresses = task.ip_addresses.iter().filter_map(|address| container_address(&address.ip_address));
    Some(Task {
        key,
        agent_id,
        state,
        healthy,
        runtime: match app.container.as_ref().and_then(|container| container.kind.as_deref()) {
            Some("DOCKER") => Runtime::Docker,
            _ => Runtime::Mesos,
        },
        addresses: addresses.map(|address| TaskAddress { address, network: network.clone() }).collect(),
        ports,
    })
}

/// Returns the network mode of an app: ports of its own, or its agent's. Before Marathon 1.5 other
/// members held it.
fn mode(app: &MarathonApp) -> NetworkMode {
    let docker = app.container.as_ref().and_then(|container| container.docker.as_ref());
    match (app.networks.first(), docker.and_then(|docker| docker.network.as_deref())) {
        (Some(network), _) => network.mode,
        (None, Some("BRIDGE")) => NetworkMode::Bridge,
        (None, Some("USER")) => NetworkMode::Container,
        (None, _) if app.ip_address.is_some() => NetworkMode::Container,
        _ => NetworkMode::Host,
    }
}

/// Returns the names of an app's networks.
fn network_names(app: &MarathonApp) -> BTreeSet<String> {
    let old = app.ip_address.as_ref().and_then(|ip| ip.network_name.clone());
    app.networks.iter().filter_map(|network| network.name.clone()).chain(old).collect()
}

/// Returns the ports of a task that have VIP labels.
fn ports(app: &MarathonApp, task: &MarathonTask, log: &mut SkipLog<'_>) -> Vec<TaskPort> {
    let mode = mode(app);
    let mut ports = Vec::new();
    let mut host_ports = task.ports.iter().copied();
    // On the host network each definition has one of the task's ports, in order.
    if mode == NetworkMode::Host {
        for definition in &app.port_definitions {
            let host_port = host_ports.next();
            let port = TaskPort { host_port, ..empty() };
            ports.extend(labelled(definition, &port, log));
        }
        return ports;
    }
    let container = app.container.as_ref();
    // Before Marathon 1.5 mappings were a member of `docker`.
    let mappings = container.and_then(|container| {
        container.port_mappings.as_ref().or_else(|| container.docker.as_ref()?.port_mappings.as_ref())
    });
    for mapping in mappings.into_iter().flatten() {
        // The task's ports are those of its mapped ports, in order; on a bridge all are mapped.
        let is_mapped = mapping.host_port.is_some() || mode == NetworkMode::Bridge;
        let host_port = if is_mapped { host_ports.next() } else { None };
        let container_port = u16::try_from(mapping.container_port).ok().filter(|port| *port > 0);
        let mut networks: BTreeSet<String> = mapping.network_names.iter().cloned().collect();
        if networks.is_empty() && mode == NetworkMode::Container {
            networks = network_names(app);
        }
        let is_in_container = true;
        let port =
            TaskPort { port: container_port.or(host_port), host_port, networks, is_in_container, ..empty() };
        ports.extend(labelled(mapping, &port, log));
    }
    ports
}

/// Returns a port without numbers and labels, with the name that Mesos gives to nameless ones.
fn empty() -> TaskPort {
    TaskPort {
        name: "default".to_owned(),
        protocol: Protocol::Tcp,
        port: None,
        host_port: None,
        networks: BTreeSet::new(),
        is_in_container: false,
        labels: Vec::new(),
        options: PortOptions::default(),
    }
}

/// Returns the port once for each of its protocols, if it has VIP labels.
fn labelled(definition: &MarathonPort, port: &TaskPort, log: &mut SkipLog<'_>) -> Vec<TaskPort> {
    let name = definition.name.clone().unwrap_or_else(|| port.name.clone());
    let labels = vip_labels(&definition.labels, &name, log);
    if labels.is_empty() {
        return Vec::new();
    }
    let options = options(&definition.labels, &name, log);
    let mut ports = Vec::new();
    // Marathon writes both protocols of a port as "tcp,udp".
    for text in definition.protocol.as_deref().unwrap_or("tcp").split(',') {
        match Protocol::parse(text.trim()) {
            Some(protocol) => {
                let (name, labels, options) = (name.clone(), labels.clone(), options.clone());
                ports.push(TaskPort { name, protocol, labels, options, ..port.clone() });
            }
            None => log.add(Skipped {
                port: Some(name.clone()),
                reason: format!("protocol {:?} is neither tcp nor udp", shortened(text.to_owned())),
                ..Skipped::default()
            }),
        }
    }
    ports
}
