//! The registry of running tasks, which DNS names are made of.

use std::sync::Arc;

use super::discovery::DiscoveredPort;
use super::networks::{self, container_address};
use super::ports::valid_port;
use super::texts::Texts;
use super::wire::{MesosTask, NetworkInfo};
use crate::cluster::dns_label::MAX_LABEL;
use crate::cluster::registry::{Described, NamedPort, RegisteredKey, RegisteredTask};
use crate::cluster::{Protocol, Skipped, TaskKey, dns_label, shortened};

/// Identity of a task and of its agent.
pub struct Origin {
    pub key: TaskKey,
    pub agent: Arc<str>,
}

/// Returns a running task as the registry keeps it, with or without VIPs.
///
/// `is_published` is true if any port of it is one of the agent's.
pub fn registered(
    task: &MesosTask<'_>,
    origin: &Origin,
    reported: &[&NetworkInfo<'_>],
    discovered: &[DiscoveredPort<'_>],
    is_published: bool,
    texts: &mut Texts,
) -> (RegisteredKey, Arc<RegisteredTask>) {
    let discovery_name = discovery_name(task);
    let addresses = reported.iter().flat_map(|network| networks::texts(network));
    let described = Described {
        name: discovery_name.or(task.name.as_deref()).unwrap_or_default(),
        is_published,
        addresses: addresses.filter_map(container_address).collect(),
        // Without a name, discovery information is there for VIPs only.
        ports: discovery_name.map(|_| discovered.iter().filter_map(|port| named_port(port, texts)).collect()),
        resources: &task.resources.0,
    };
    RegisteredTask::new(&origin.key, Arc::clone(&origin.agent), described)
}

/// Name in a task's discovery information; `None` without any.
fn discovery_name<'t>(task: &'t MesosTask<'_>) -> Option<&'t str> {
    let name = task.discovery.as_ref().and_then(|discovery| discovery.name.as_deref());
    name.filter(|name| !name.is_empty())
}

/// Returns an entry about a running task whose name fills a label of DNS: its SRV names, which have an
/// underscore more, do not fit, and the other ones do.
pub fn unfit_services(task: &MesosTask<'_>, discovered: &[DiscoveredPort<'_>]) -> Option<Skipped> {
    let by_discovery = discovery_name(task);
    let has_ports =
        if by_discovery.is_some() { !discovered.is_empty() } else { !task.resources.0.is_empty() };
    let name = by_discovery.or(task.name.as_deref())?;
    if !has_ports || name.len() < MAX_LABEL || dns_label::label(name).len() < MAX_LABEL {
        return None;
    }
    Some(Skipped {
        value: Some(shortened(name.to_owned())),
        reason: format!(
            "the name leaves no room for the underscore of SRV records in the {MAX_LABEL} octets of a DNS \
             label: clients find the task's addresses by name but not its ports; a shorter name has both"
        ),
        ..Skipped::default()
    })
}

/// A port without a protocol is one of both.
fn named_port(port: &DiscoveredPort<'_>, texts: &mut Texts) -> Option<NamedPort> {
    let port = port.announced;
    // SRV records exist for TCP and UDP only.
    let protocol = match port.protocol.as_deref() {
        None | Some("") => None,
        Some(protocol) => Some(Protocol::parse(protocol)?),
    };
    let number = valid_port(port.number?)?;
    let label = texts.shared(&dns_label::label(port.name.as_deref().unwrap_or_default()));
    Some(NamedPort { label, protocol, number })
}
