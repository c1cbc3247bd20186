//! Statuses of a task, and the networks and addresses of its container in them.

use std::net::IpAddr;

use super::wire::{LenientList, MesosTask, NetworkInfo, TaskStatus, readable};

/// Parses the address of a container; the CNI isolator reports IPv6 addresses with their prefix
/// length, such as `fd01:b::4/80`.
pub fn container_address(text: &str) -> Option<IpAddr> {
    text.split_once('/').map_or(text, |(address, _)| address).parse().ok()
}

/// Returns the newest status that `wanted` accepts; of equal times the later in the list.
pub fn newest_status<'t>(
    task: &'t MesosTask<'t>,
    wanted: impl Fn(&TaskStatus<'_>) -> bool,
) -> Option<&'t TaskStatus<'t>> {
    readable(&task.statuses)
        .filter(|status| wanted(status))
        .max_by(|a, b| a.timestamp.unwrap_or_default().total_cmp(&b.timestamp.unwrap_or_default()))
}

/// Returns the networks of the newest `TASK_RUNNING` status that has an address, else of the newest
/// status that has one.
pub fn networks<'t>(task: &'t MesosTask<'t>) -> Vec<&'t NetworkInfo<'t>> {
    let has_address = |status: &TaskStatus<'_>| {
        readable(status_networks(status)).any(|network| texts(network).next().is_some())
    };
    // In other states Mesos fills in the agent's address for the container's.
    let status = newest_status(task, |status| status.state == "TASK_RUNNING" && has_address(status))
        .or_else(|| newest_status(task, has_address));
    status.into_iter().flat_map(|status| readable(status_networks(status))).collect()
}

fn status_networks<'s, 'de>(status: &'s TaskStatus<'de>) -> &'s LenientList<NetworkInfo<'de>> {
    status.container_status.as_ref().map_or(&None, |container| &container.network_infos)
}

/// Iterates over the addresses of a network, as they are written.
pub fn texts<'n>(network: &'n NetworkInfo<'_>) -> impl Iterator<Item = &'n str> {
    // A list of its own, be it empty, means a Mesos that does not use the old member.
    let listed = readable(&network.ip_addresses).filter_map(|entry| entry.ip_address.as_deref());
    let old = network.ip_address.as_deref().filter(|_| network.ip_addresses.is_none());
    listed.chain(old)
}
