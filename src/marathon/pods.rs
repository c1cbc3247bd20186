//! Pods with their instances. Mesos does their health checks, so that Marathon has no verdicts.

use std::collections::BTreeSet;

use super::labels::{options, vip_labels};
use super::view::MarathonView;
use super::wire::{Pod, PodContainer, PodContainerStatus, PodInstance};
use crate::cluster::{Protocol, Runtime, Task, TaskAddress, TaskKey, TaskPort, TaskState};
use crate::mesos::{SkipLog, container_address};

/// Adds the containers of a pod's instances.
pub fn add(view: &mut MarathonView, pod: &Pod) {
    for instance in &pod.instances {
        for status in &instance.containers {
            // A container of an older version of the pod may have no specification any more.
            let spec = pod.spec.containers.iter().find(|spec| spec.name == status.name);
            let task = spec.and_then(|spec| task(view, pod, spec, instance, status));
            if let Some(task) = task {
                let host = instance.agent_hostname.as_deref().unwrap_or_default();
                view.add_agent(&task.agent_id, host);
                view.snapshot.tasks.insert(task.key.clone(), task);
            }
        }
    }
}

fn task(
    view: &mut MarathonView,
    pod: &Pod,
    spec: &PodContainer,
    instance: &PodInstance,
    status: &PodContainerStatus,
) -> Option<Task> {
    let state = TaskState::parse(&status.status);
    let id = status.container_id.as_deref().unwrap_or_default();
    let mut log = SkipLog::new(&mut view.snapshot.skipped, id, state);
    let ports = ports(pod, spec, status, &mut log);
    if ports.is_empty() || state == TaskState::Terminal {
        return None;
    }
    // A container is healthy if all of its checked endpoints are.
    let healthy: Vec<bool> = status.endpoints.iter().filter_map(|endpoint| endpoint.healthy).collect();
    let addresses = instance.networks.iter().flat_map(|network| {
        let addresses = network.addresses.iter().filter_map(|text| container_address(text));
        addresses.map(|address| TaskAddress { address, network: network.name.clone() })
    });
    Some(Task {
        key: TaskKey { framework: view.framework.clone(), task: status.container_id.clone()? },
        agent_id: instance.agent_id.clone().or_else(|| instance.agent_hostname.clone())?,
        state,
        healthy: (!healthy.is_empty()).then(|| healthy.iter().all(|healthy| *healthy)),
        runtime: Runtime::Mesos,
        addresses: addresses.collect(),
        ports,
    })
}

fn ports(
    pod: &Pod,
    spec: &PodContainer,
    status: &PodContainerStatus,
    log: &mut SkipLog<'_>,
) -> Vec<TaskPort> {
    let pod_networks: BTreeSet<String> =
        pod.spec.networks.iter().filter_map(|network| network.name.clone()).collect();
    let mut ports = Vec::new();
    for endpoint in &spec.endpoints {
        let labels = vip_labels(&endpoint.labels, &endpoint.name, log);
        if labels.is_empty() {
            continue;
        }
        let options = options(&endpoint.labels, &endpoint.name, log);
        let allocated = status.endpoints.iter().find(|status| status.name == endpoint.name);
        let host_port = allocated.and_then(|status| status.allocated_host_port);
        // Without names of its own an endpoint is on all networks of the pod.
        let networks = match endpoint.network_names.is_empty() {
            true => pod_networks.clone(),
            false => endpoint.network_names.iter().cloned().collect(),
        };
        // One port for each protocol, tcp if none is named.
        let protocols = endpoint.protocol.iter().filter_map(|text| Protocol::parse(text));
        let mut protocols: Vec<Protocol> = protocols.collect();
        if endpoint.protocol.is_empty() {
            protocols.push(Protocol::Tcp);
        }
        for protocol in protocols {
            ports.push(TaskPort {
                name: endpoint.name.clone(),
                protocol,
                port: endpoint.container_port.filter(|port| *port > 0).or(host_port),
                host_port,
                networks: networks.clone(),
                is_in_container: false,
                labels: labels.clone(),
                options: options.clone(),
            });
        }
    }
    ports
}
