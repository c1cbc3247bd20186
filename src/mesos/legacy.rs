//! Legacy labels of a task: `vip_portN = tcp://VIP`, where N counts the task's port resources.
//!
//! For example, `vip_port0 = tcp://1.2.3.4:80` with the resource `ports:[31000-31001]` announces the
//! agent's port 31000 as a backend of 1.2.3.4:80.

use super::ports::{PortEntry, valid_port};
use super::skip::SkipLog;
use super::wire::{MesosLabel, MesosTask, PortResources};
use crate::cluster::{Protocol, Skipped, VipLabel};

const PREFIX: &str = "vip_port";

/// Returns the legacy labels of a task, whatever their values.
pub fn legacy_labels<'t>(task: &'t MesosTask<'t>) -> Vec<&'t MesosLabel<'t>> {
    let labels = task.labels.iter().flat_map(|labels| labels.readable());
    labels.filter(|label| index(&label.key).is_some()).collect()
}

/// Returns the number behind the prefix, as text; case does not matter.
fn index(key: &str) -> Option<&str> {
    let (prefix, index) = key.split_at_checked(PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PREFIX).then_some(index)
}

/// Reads the agent's ports that legacy labels announce.
pub fn entries(
    labels: &[&MesosLabel<'_>],
    resources: &PortResources,
    log: &mut SkipLog<'_>,
) -> Vec<PortEntry> {
    let mut entries = Vec::new();
    for label in labels {
        // A label without a value asks for nothing.
        let (Some(index), Some(value)) = (index(&label.key), label.value.as_deref()) else { continue };
        match entry(index, value, resources) {
            Ok((entry, vip)) => {
                let labels = vec![VipLabel { key: label.key.to_string(), value: vip.to_owned() }];
                entries.push(PortEntry { labels, ..entry });
            }
            Err(reason) => log.add(Skipped {
                label: Some(label.key.to_string()),
                value: Some(value.to_owned()),
                reason,
                ..Skipped::default()
            }),
        }
    }
    entries
}

/// Returns the entry of one label, and the VIP that it asks for.
fn entry<'v>(index: &str, value: &'v str, resources: &PortResources) -> Result<(PortEntry, &'v str), String> {
    // The protocol is in the value, because resources have none.
    let (protocol, vip) = match value.split_once("://") {
        Some(("tcp", vip)) => (Protocol::Tcp, vip),
        Some(("udp", vip)) => (Protocol::Udp, vip),
        _ => return Err("the value must start with tcp:// or udp://".to_owned()),
    };
    // A place in the list of ports, not a port.
    let number: u64 = index.parse().map_err(|_| "vip_port must be followed by a number".to_owned())?;
    let port = resources.nth(number).and_then(valid_port);
    let port = port
        .ok_or_else(|| format!("the task has no port resource number {number} (they are counted from 0)"))?;
    Ok((PortEntry { host_port: Some(port), ..PortEntry::new(protocol) }, vip))
}
