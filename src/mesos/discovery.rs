//! Discovery ports of a task and their labels.

use std::collections::BTreeSet;

use super::ports::{PortEntry, is_vip_key, valid_port};
use super::skip::SkipLog;
use super::wire::{DiscoveryPort, Labels, Lenient, MesosTask};
use crate::cluster::{Protocol, Skipped, VipLabel, port_options, shortened};

/// A discovery port with its labels read.
#[derive(Debug)]
pub struct DiscoveredPort<'t> {
    /// The port as it was on the wire.
    pub announced: &'t DiscoveryPort<'t>,
    /// True if a label says that the number is one of the agent's ports.
    pub is_on_agent: bool,
    /// Absent for a port that no VIP can use; the reason was recorded if it has VIP labels. A port
    /// without VIP labels matters as well: a legacy label may be on the same one.
    pub entry: Option<PortEntry>,
}

/// Reads the discovery ports of a task.
pub fn discovered<'t>(task: &'t MesosTask<'t>, log: &mut SkipLog<'_>) -> Vec<DiscoveredPort<'t>> {
    let ports = task.discovery.as_ref().and_then(|discovery| discovery.ports.as_ref());
    let mut discovered = Vec::new();
    for port in ports.and_then(|ports| ports.ports.as_ref()).into_iter().flatten() {
        match port {
            Lenient::Read(port) => discovered.push(read(port, log)),
            Lenient::Unreadable { error, json } => log.add(Skipped {
                value: Some(json.clone()),
                reason: format!("a port that cannot be read: {error}"),
                ..Skipped::default()
            }),
        }
    }
    discovered
}

/// Labels of a port, sorted by their use.
#[derive(Default)]
struct SortedLabels<'t> {
    /// Values of `network-scope`.
    scopes: BTreeSet<&'t str>,
    /// Values of `network-name`.
    networks: BTreeSet<String>,
    vips: Vec<VipLabel>,
    options: port_options::PortOptions,
}

fn read<'t>(port: &'t DiscoveryPort<'t>, log: &mut SkipLog<'_>) -> DiscoveredPort<'t> {
    let labels = port.labels.as_ref().map(|labels| sort(port, labels, log)).unwrap_or_default();
    // Even of a port that no VIP can use: names of tasks count it.
    let is_on_agent = labels.scopes.contains("host");
    let entry = match place(port, &labels.scopes) {
        Ok(placed) => Some(PortEntry {
            name: port.name.as_deref().map(str::to_owned),
            networks: labels.networks,
            labels: labels.vips,
            options: labels.options.of_port(),
            ..placed
        }),
        Err(reason) => {
            // Without VIP labels the port matters to no operator.
            for VipLabel { key, value } in labels.vips {
                log.add(skipped(port, Some(&key), Some(&value), reason.clone()));
            }
            None
        }
    };
    DiscoveredPort { announced: port, is_on_agent, entry }
}

fn sort<'t>(port: &DiscoveryPort<'_>, labels: &'t Labels<'t>, log: &mut SkipLog<'_>) -> SortedLabels<'t> {
    let mut sorted = SortedLabels::default();
    for label in &labels.0 {
        let label = match label {
            Lenient::Read(label) => label,
            Lenient::Unreadable { error, json } => {
                let reason = format!("a label that cannot be read: {error}");
                log.add(skipped(port, None, Some(json), reason));
                continue;
            }
        };
        // Keys of VIPs start with VIP or vip, whatever follows, as Minuteman takes them.
        match (label.key.as_ref(), label.value.as_deref()) {
            ("network-scope", Some(scope)) => {
                // As a set: the same scope twice is no contradiction.
                sorted.scopes.insert(scope);
            }
            ("network-name", Some(network)) => {
                sorted.networks.insert(network.to_owned());
            }
            (key, Some(value)) if is_vip_key(key) => {
                sorted.vips.push(VipLabel { key: key.to_owned(), value: value.to_owned() });
            }
            (key, None) if is_vip_key(key) => {
                log.add(skipped(port, Some(key), None, "the label has no value".to_owned()));
            }
            (key, Some(value)) if key.starts_with(port_options::PREFIX) => {
                if let Err(reason) = sorted.options.set(key, value) {
                    log.add(skipped(port, Some(key), Some(value), reason));
                }
            }
            _ => {}
        }
    }
    sorted
}

/// Returns an entry with the port's number, as the container's or as the agent's.
fn place(port: &DiscoveryPort<'_>, scopes: &BTreeSet<&str>) -> Result<PortEntry, String> {
    // No default here: guessing tcp would program a VIP that is wrong for a UDP port.
    let protocol = port.protocol.as_deref().ok_or("the port has no protocol")?;
    let protocol = Protocol::parse(protocol)
        .ok_or_else(|| format!("protocol {:?} is neither tcp nor udp", shortened(protocol.to_owned())))?;
    let number = port.number.ok_or("the port has no number")?;
    let number = valid_port(number).ok_or_else(|| format!("port number {number} is not in 1-65535"))?;
    let entry = PortEntry::new(protocol);
    // Without a scope a number is the container's, which on a host network is the agent's as well.
    let mut scopes = scopes.iter();
    match (scopes.next().copied(), scopes.next()) {
        (None, None) => Ok(PortEntry { port: Some(number), ..entry }),
        (Some("container"), None) => Ok(PortEntry { port: Some(number), is_in_container: true, ..entry }),
        (Some("host"), None) => Ok(PortEntry { host_port: Some(number), ..entry }),
        (Some(scope), None) => {
            let scope = shortened(scope.to_owned());
            Err(format!("network-scope {scope:?} is neither host nor container"))
        }
        _ => Err("the port has several different network-scope labels".to_owned()),
    }
}

fn skipped(port: &DiscoveryPort<'_>, label: Option<&str>, value: Option<&str>, reason: String) -> Skipped {
    let name = port.name.as_deref().unwrap_or("default");
    let port = match port.number {
        Some(number) => format!("{name} {number}"),
        None => name.to_owned(),
    };
    let (label, value) = (label.map(str::to_owned), value.map(str::to_owned));
    Skipped { port: Some(port), label, value, reason, ..Skipped::default() }
}
