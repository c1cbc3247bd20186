//! Merging of the lists that describe a task's ports.
//!
//! The rules of Minuteman, which l4lbd replaces, decide what a port is: the container's port mappings,
//! legacy `vip_portN` labels ([`super::legacy`]) and discovery ports ([`super::discovery`]) are merged,
//! in this order. Two entries are the same port if their protocol and either of their numbers agree.
//! Unlike Minuteman's, an entry that makes no sense costs that entry alone and is recorded.
//!
//! For example, the mapping `80 -> agent's 31000, tcp` and the discovery port `80, tcp, VIP_0=/web:80`
//! make one port with both numbers and the label.

use std::collections::BTreeSet;

use super::skip::SkipLog;
use super::texts::Texts;
use super::wire::{LenientList, MesosTask, NetworkInfo, PortMapping, PortResources, readable};
use crate::cluster::{MAX_LABELS, MAX_VALUE, Protocol, Skipped, TaskPort, VipLabel};

/// Entries of all lists of one task that are merged.
const MAX_ENTRIES: usize = 1_024;

/// An entry of one of the lists, and after [`merge`] a port.
pub type PortEntry = TaskPort<Option<String>, Vec<VipLabel>>;

impl PortEntry {
    fn is_same_port(&self, other: &Self) -> bool {
        let agrees = |a: Option<u16>, b: Option<u16>| a.is_some() && a == b;
        self.protocol == other.protocol
            && (agrees(self.port, other.port) || agrees(self.host_port, other.host_port))
    }

    /// Takes over what an entry for the same port adds. Returns the number of labels without room.
    fn absorb(&mut self, other: Self) -> usize {
        self.name = self.name.take().or(other.name);
        self.port = self.port.or(other.port);
        self.host_port = self.host_port.or(other.host_port);
        self.networks.extend(other.networks);
        self.is_in_container |= other.is_in_container;
        // Options are taken from one entry as a whole: parts of two would fit neither.
        if self.options.is_none() {
            self.options = other.options;
        }
        let mut beyond = 0;
        for label in other.labels {
            // Compared with a bounded number of labels, so that the work stays linear.
            if self.labels.len() >= MAX_LABELS {
                beyond += 1;
            } else if !self.labels.contains(&label) {
                self.labels.push(label);
            }
        }
        beyond
    }
}

/// Returns true for keys of labels that ask for a VIP, such as `VIP_0` and `vip_port1`.
pub fn is_vip_key(key: &str) -> bool {
    key.starts_with("VIP") || key.starts_with("vip")
}

/// Returns the reason to drop a label that is longer than any VIP needs: labels are written by tenants,
/// and every node of the cluster keeps them.
pub fn oversize(label: &VipLabel) -> Option<String> {
    let length = label.value.len().max(label.key.len());
    (length > MAX_VALUE)
        .then(|| format!("the label has {length} bytes, and a VIP never needs more than {MAX_VALUE}"))
}

/// Returns a port number in 1-65535.
pub fn valid_port(number: u64) -> Option<u16> {
    u16::try_from(number).ok().filter(|&port| port != 0)
}

/// Returns true if the framework, which asks for the ports, has written the port mappings. Those of a status may
/// be the executor's, and so a tenant's.
pub fn maps_by_framework(task: &MesosTask<'_>) -> bool {
    task.container.as_ref().is_some_and(|c| c.kind.as_deref() == Some("DOCKER") || c.network_infos.is_some())
}

/// Reads the port mappings of the container: Docker keeps its own, other containers have them per
/// network, and pods only in the networks of their status, `status_networks`.
pub fn mappings(task: &MesosTask<'_>, status_networks: &[&NetworkInfo<'_>]) -> Vec<PortEntry> {
    let container = task.container.as_ref();
    // One of three places has the mappings; to join them would make one port into several.
    let lists: Vec<&LenientList<PortMapping<'_>>> = match container {
        // A Docker container without mappings has none elsewhere either.
        Some(container) if container.kind.as_deref() == Some("DOCKER") => {
            container.docker.iter().map(|docker| &docker.port_mappings).collect()
        }
        Some(container) if container.network_infos.is_some() => {
            readable(&container.network_infos).map(|network| &network.port_mappings).collect()
        }
        _ => status_networks.iter().map(|network| &network.port_mappings).collect(),
    };
    let entry = |mapping: &PortMapping<'_>| {
        let protocol = Protocol::parse(mapping.protocol.as_deref().unwrap_or("tcp"))?;
        let port = Some(valid_port(mapping.container_port)?);
        // A mapping with port 0 maps nothing.
        let host_port = Some(valid_port(mapping.host_port)?);
        Some(PortEntry { port, host_port, ..PortEntry::new(protocol) })
    };
    lists.into_iter().flat_map(readable).filter_map(entry).collect()
}

/// Marks the ports whose number at the agent's address is among the task's port resources, or one of `mapped`.
pub fn mark_allocated(ports: &mut [TaskPort], resources: &PortResources, mapped: &BTreeSet<(Protocol, u16)>) {
    let number = |port: &TaskPort| port.host_port.or(port.port);
    let mut open: BTreeSet<u16> = ports.iter().filter_map(number).collect();
    let mut allocated = BTreeSet::new();
    for (begin, end) in &resources.0 {
        let last = u16::try_from(*end).unwrap_or(u16::MAX);
        let Some(first) = u16::try_from(*begin).ok().filter(|first| *first <= last) else { continue };
        // Each number is found once, so that overlapping ranges, which a tenant may list, cost nothing.
        while let Some(number) = open.range(first..=last).next().copied() {
            open.remove(&number);
            allocated.insert(number);
        }
    }
    for port in ports {
        port.is_allocated = number(port)
            .is_some_and(|number| allocated.contains(&number) || mapped.contains(&(port.protocol, number)));
    }
}

/// Merges entries into ports and returns those with VIP labels.
pub fn merge(
    entries: impl Iterator<Item = PortEntry>,
    texts: &mut Texts,
    log: &mut SkipLog<'_>,
) -> Vec<TaskPort> {
    // A list, because the first entry of a port decides its name and place; tasks have few ports.
    let mut ports: Vec<PortEntry> = Vec::new();
    let (mut beyond, mut unread) = (0, 0);
    for (index, mut entry) in entries.enumerate() {
        // Bounded before they are merged: each entry is compared with all ports.
        if index >= MAX_ENTRIES {
            unread += 1;
            continue;
        }
        drop_oversize(&mut entry, log);
        beyond += entry.labels.len().saturating_sub(MAX_LABELS);
        entry.labels.truncate(MAX_LABELS);
        match ports.iter_mut().find(|port| port.is_same_port(&entry)) {
            Some(port) => beyond += port.absorb(entry),
            None => ports.push(entry),
        }
    }
    if unread > 0 {
        let reason = format!("a task can have {MAX_ENTRIES} ports and mappings, and this has {unread} more");
        log.add(Skipped { reason, ..Skipped::default() });
    }
    limit_labels(&mut ports, beyond, log);
    let labelled = ports.into_iter().filter(|port| !port.labels.is_empty());
    let task_port = |port: PortEntry| TaskPort {
        name: texts.shared(port.name.as_deref().unwrap_or(TaskPort::UNNAMED)),
        protocol: port.protocol,
        port: port.port,
        host_port: port.host_port,
        networks: port.networks,
        is_in_container: port.is_in_container,
        // Decided when the task's resources are at hand.
        is_allocated: false,
        labels: texts.shared_labels(&port.labels),
        options: port.options,
    };
    labelled.map(task_port).collect()
}

/// Drops labels that are longer than any VIP needs.
fn drop_oversize(entry: &mut PortEntry, log: &mut SkipLog<'_>) {
    let (dropped, kept) = std::mem::take(&mut entry.labels).into_iter().partition(|l| oversize(l).is_some());
    entry.labels = kept;
    let dropped: Vec<VipLabel> = dropped;
    for label in dropped {
        let reason = oversize(&label).unwrap_or_default();
        let (label, value) = (Some(label.key), Some(label.value));
        log.add(Skipped { port: entry.name.clone(), label, value, reason, ..Skipped::default() });
    }
}

/// Drops labels beyond those of any sane task. Labels are written by tenants, and each one costs every node of the
/// cluster memory and time. `beyond` labels were dropped already.
fn limit_labels(ports: &mut [PortEntry], mut beyond: usize, log: &mut SkipLog<'_>) {
    let mut room = MAX_LABELS;
    for port in ports {
        let left_out = port.labels.len().saturating_sub(room);
        port.labels.truncate(room);
        room -= port.labels.len();
        beyond += left_out;
    }
    // One record for all of them: a record each would cost as much as the labels.
    if beyond > 0 {
        let reason = format!("a task can have {MAX_LABELS} VIP labels, and this has {beyond} more");
        log.add(Skipped { reason, ..Skipped::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::TaskState;

    fn label(value: &str) -> VipLabel {
        VipLabel { key: "VIP_0".to_owned(), value: value.to_owned() }
    }

    #[test]
    fn labels_and_ports_are_bounded_before_they_are_merged() {
        let many =
            |from: usize| (from..from + 30_000).map(|n| label(&format!("/w{n}:80"))).collect::<Vec<_>>();
        let port = |labels| PortEntry { port: Some(80), labels, ..PortEntry::new(Protocol::Tcp) };
        let mut port_of_all = port(many(0));
        port_of_all.labels.truncate(MAX_LABELS);
        // What an entry is compared with never grows beyond the bound.
        assert_eq!(port_of_all.absorb(port(many(30_000))), 30_000);
        assert_eq!(port_of_all.labels.len(), MAX_LABELS);
        let mut skipped = Vec::new();
        let mut log = SkipLog::new(&mut skipped, "t", TaskState::Running);
        let ports = merge([port(many(0)), port(many(0))].into_iter(), &mut Texts::default(), &mut log);
        assert_eq!(ports.iter().map(|port| port.labels.len()).sum::<usize>(), MAX_LABELS);
        let numbers =
            (1..=30_000).map(|number| PortEntry { port: Some(number), ..port(vec![label("/w:80")]) });
        merge(numbers, &mut Texts::default(), &mut log);
        let reasons: Vec<&str> = skipped.iter().map(|skipped| skipped.reason.as_str()).collect();
        assert!(reasons[0].contains("256 VIP labels"), "{reasons:?}");
        assert!(reasons[1].contains("1024 ports and mappings, and this has 28976 more"), "{reasons:?}");
    }

    fn merged(entries: Vec<PortEntry>) -> Vec<TaskPort> {
        merge(
            entries.into_iter(),
            &mut Texts::default(),
            &mut SkipLog::new(&mut Vec::new(), "t", TaskState::Running),
        )
    }

    #[test]
    fn merge_joins_a_mapping_with_the_discovery_port_of_either_number() {
        let mapping = PortEntry { port: Some(80), host_port: Some(31000), ..PortEntry::new(Protocol::Tcp) };
        for (port, host_port) in [(Some(80), None), (None, Some(31000))] {
            let name = Some("web".to_owned());
            let labels = vec![label("web:80")];
            let discovered = PortEntry { name, port, host_port, labels, ..PortEntry::new(Protocol::Tcp) };
            let ports = merged(vec![mapping.clone(), discovered]);
            assert_eq!(ports.len(), 1);
            assert_eq!((ports[0].port, ports[0].host_port), (Some(80), Some(31000)));
            assert_eq!((&*ports[0].name, &ports[0].labels[..]), ("web", &[label("web:80")][..]));
        }
    }

    #[test]
    fn merge_keeps_protocols_and_numbers_apart_and_drops_ports_without_labels() {
        let port = |protocol, port, labels: &[&str]| PortEntry {
            port: Some(port),
            labels: labels.iter().map(|value| label(value)).collect(),
            ..PortEntry::new(protocol)
        };
        let ports = merged(vec![
            port(Protocol::Tcp, 53, &["dns:53"]),
            port(Protocol::Udp, 53, &["dns:53"]),
            port(Protocol::Tcp, 80, &[]),
            port(Protocol::Tcp, 53, &["dns:53", "dns:54"]),
        ]);
        let found: Vec<_> = ports.iter().map(|port| (port.protocol, port.port, port.labels.len())).collect();
        assert_eq!(found, [(Protocol::Tcp, Some(53), 2), (Protocol::Udp, Some(53), 1)]);
        assert_eq!(&*ports[0].name, "default");
    }

    #[test]
    fn valid_port_refuses_zero_and_numbers_beyond_16_bits() {
        assert_eq!([0, 1, 65535, 65536, u64::MAX].map(valid_port), [None, Some(1), Some(65535), None, None]);
    }
}
