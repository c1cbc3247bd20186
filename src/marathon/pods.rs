//! Pods with their instances. Mesos does their health checks, so that Marathon has no verdicts.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::apps::{protocols, without_host};
use super::labels::PortLabels;
use super::networks::{MarathonNetworks, NetworkMode};
use super::view::MarathonView;
use super::wire::{Pod, PodContainer, PodContainerStatus, PodEndpoint, PodEndpointStatus, PodInstance};
use crate::cluster::registry::port_ranges;
use crate::cluster::{
    Protocol, Runtime, Skipped, Task, TaskAddress, TaskKey, TaskPort, TaskState, app_of, shortened,
};
use crate::mesos::{Lenient, LenientList, SkipLog, container_address, readable, unreadable};

/// Adds the containers of a pod's instances.
pub fn add(view: &mut MarathonView, pod: &Pod) {
    let name = pod.id.as_deref().unwrap_or("pods[]");
    let instances = pod.instances.as_deref().unwrap_or_default();
    let is_read = instances.iter().all(|instance| instance.as_read().is_some());
    let scaling = pod.spec.scaling.as_ref().and_then(Lenient::as_read);
    view.add_count(name, is_read.then_some(instances.len()), scaling.and_then(|scaling| scaling.instances));
    let networks = match MarathonNetworks::of_list(&pod.spec.networks) {
        Ok(networks) => networks,
        Err(reason) => return view.skip(name, format!("{reason}; the pod's containers get no VIPs")),
    };
    for container in read(view, &pod.spec.containers, name, "container") {
        // A container of an older version of the pod may have no specification any more.
        for instance in readable(&pod.instances) {
            for status in readable(&instance.containers).filter(|status| status.name == container.name) {
                if let Some(task) = task(view, &networks, container, instance, status) {
                    view.snapshot.tasks.insert(task.key.clone(), Arc::new(task));
                }
            }
        }
    }
    // For the records alone: once for each instance, and not for each container of the specification too.
    for instance in read(view, &pod.instances, name, "instance") {
        read(view, &instance.containers, instance.id.as_deref().unwrap_or(name), "container");
    }
}

/// Returns the readable items of a list and records the rest, on behalf of `id`.
fn read<'l, T>(view: &mut MarathonView, list: &'l LenientList<T>, id: &str, what: &str) -> Vec<&'l T> {
    let mut items = Vec::new();
    for item in list.iter().flatten() {
        match item {
            Lenient::Read(item) => items.push(item),
            Lenient::Unreadable { error, json } => {
                view.skip(id, format!("the {what} {json:?} cannot be read: {error}"));
            }
        }
    }
    items
}

fn task(
    view: &mut MarathonView,
    networks: &MarathonNetworks,
    spec: &PodContainer,
    instance: &PodInstance,
    status: &PodContainerStatus,
) -> Option<Task> {
    let state = TaskState::parse(&status.status);
    let id = status.container_id.as_deref().or(instance.id.as_deref()).unwrap_or(&status.name);
    let mut log = SkipLog::new(&mut view.snapshot.skipped, id, state);
    let mut ports = ports(networks, spec, status, &mut log);
    if ports.is_empty() || state == TaskState::Terminal {
        return None;
    }
    let addresses = addresses(instance, &mut log);
    let Some(task) = status.container_id.clone() else {
        let reason = format!("Marathon tells no id of the container {:?}", shortened(status.name.clone()));
        log.add(Skipped { reason, ..Skipped::default() });
        return None;
    };
    let host = instance.agent_hostname.as_deref().unwrap_or_default();
    if host.is_empty() {
        without_host(&mut ports, !addresses.is_empty(), &mut log);
    }
    let agent_id = instance.agent_id.as_deref().unwrap_or(host);
    let agent_id = if host.is_empty() { agent_id.to_owned() } else { view.add_agent(agent_id, host) };
    if ports.is_empty() {
        return None;
    }
    let given = readable(&status.endpoints).filter_map(|endpoint| endpoint.allocated_host_port);
    let given: Vec<(u64, u64)> = given.map(u64::from).map(|port| (port, port)).collect();
    Some(Task {
        app: app_of(&task, None).into(),
        key: TaskKey { framework: view.framework.clone(), task: task.into() },
        agent_id: agent_id.into(),
        state,
        healthy: health(spec, status),
        runtime: Runtime::Mesos,
        addresses: addresses.into(),
        ports: ports.into(),
        resources: port_ranges(&given),
    })
}

/// Returns the health of a container, `None` without a check.
///
/// Only the endpoint that a check is about has a result, and none with a check by command. The condition
/// `healthy` is about the container, and `false` until the first result.
fn health(spec: &PodContainer, status: &PodContainerStatus) -> Option<bool> {
    let mut conditions = readable(&status.conditions).filter(|condition| condition.name == "healthy");
    let condition = conditions.next().map(|condition| condition.value.as_deref() == Some("true"));
    let endpoints = || readable(&status.endpoints).filter_map(|endpoint| endpoint.healthy);
    let is_checked = spec.has_check || condition.is_some() || endpoints().next().is_some();
    let has_result = condition.unwrap_or_else(|| endpoints().next().is_some());
    is_checked.then(|| has_result && endpoints().all(|healthy| healthy))
}

fn addresses(instance: &PodInstance, log: &mut SkipLog<'_>) -> Vec<TaskAddress> {
    let mut addresses = Vec::new();
    for network in readable(&instance.networks) {
        for text in readable(&network.addresses) {
            match container_address(text) {
                Some(address) => {
                    addresses.push(TaskAddress { address, network: network.name.as_deref().map(Into::into) })
                }
                None => {
                    let reason = "not an IP address".to_owned();
                    log.add(Skipped { value: Some(text.clone()), reason, ..Skipped::default() });
                }
            }
        }
    }
    addresses
}

fn ports(
    networks: &MarathonNetworks,
    spec: &PodContainer,
    status: &PodContainerStatus,
    log: &mut SkipLog<'_>,
) -> Vec<TaskPort> {
    let mut ports = Vec::new();
    for endpoint in spec.endpoints.iter().flatten() {
        let endpoint = match endpoint {
            Lenient::Read(endpoint) => endpoint,
            Lenient::Unreadable { error, json } => {
                log.add(unreadable(error, json.clone(), "an endpoint"));
                continue;
            }
        };
        let PortLabels { vips: labels, options } =
            PortLabels::read(endpoint.labels.as_ref(), &endpoint.name, log);
        if labels.is_empty() {
            continue;
        }
        let allocated = readable(&status.endpoints).find(|status| status.name == endpoint.name);
        let (port, host_port) = match numbers(networks, endpoint, allocated) {
            Ok(numbers) => numbers,
            Err(reason) => {
                log.add(Skipped { port: Some(endpoint.name.clone()), reason, ..Skipped::default() });
                continue;
            }
        };
        // Without names of its own an endpoint is on all networks of the pod.
        let names = match endpoint.network_names.is_empty() {
            true => networks.names.clone(),
            false => endpoint.network_names.iter().cloned().collect(),
        };
        let (name, labels, options): (Arc<str>, Arc<[_]>, _) =
            (endpoint.name.as_str().into(), labels.into(), options.of_port());
        for protocol in endpoint_protocols(endpoint, log) {
            let (labels, options, networks) = (Arc::clone(&labels), options.clone(), names.clone());
            let name = Arc::clone(&name);
            ports.push(TaskPort {
                name,
                protocol,
                port,
                host_port,
                networks,
                // The names of its networks say that.
                is_in_container: false,
                is_allocated: host_port.is_some(),
                labels,
                options,
            });
        }
    }
    ports
}

/// Returns the ports of the container and of the agent that an endpoint has.
///
/// # Errors
/// When it has none, or none of the agent where it should.
fn numbers(
    networks: &MarathonNetworks,
    endpoint: &PodEndpoint,
    allocated: Option<&PodEndpointStatus>,
) -> Result<(Option<u16>, Option<u16>), String> {
    let host_port = allocated.and_then(|status| status.allocated_host_port).filter(|port| *port > 0);
    let port = endpoint.container_port.filter(|port| *port > 0).or(host_port);
    let is_mapped = networks.mode != NetworkMode::Container || endpoint.is_mapped;
    if is_mapped && host_port.is_none() {
        return Err("Marathon tells no port of the agent for it".to_owned());
    }
    match port {
        Some(_) => Ok((port, host_port)),
        None => Err("it has neither a port of the container nor one of the agent".to_owned()),
    }
}

/// Returns the protocols of an endpoint, tcp if none is named.
fn endpoint_protocols(endpoint: &PodEndpoint, log: &mut SkipLog<'_>) -> BTreeSet<Protocol> {
    let named = endpoint.protocol.iter().flatten();
    if named.clone().next().is_none() {
        return BTreeSet::from([Protocol::Tcp]);
    }
    for protocol in named.clone() {
        if let Lenient::Unreadable { error, json } = protocol {
            let record = unreadable(error, json.clone(), "a protocol");
            log.add(Skipped { port: Some(endpoint.name.clone()), ..record });
        }
    }
    protocols(named.filter_map(Lenient::as_read).map(String::as_str), &endpoint.name, log)
}
