//! Labels of a port: VIPs and their options.

use std::collections::BTreeMap;

use crate::cluster::port_options::{self, PortOptions};
use crate::cluster::{MAX_LABELS, MAX_VALUE, Skipped, TaskState, VipLabel, shortened};
use crate::mesos::is_vip_key;

/// Returns the labels that ask for VIPs, within the limits for one port.
pub fn vip_labels(labels: &BTreeMap<String, String>) -> impl Iterator<Item = VipLabel> {
    labels
        .iter()
        .filter(|(key, _)| is_vip_key(key))
        .filter(|(key, value)| key.len().max(value.len()) <= MAX_VALUE)
        .take(MAX_LABELS)
        .map(|(key, value)| VipLabel { key: key.clone(), value: value.clone() })
}

/// Returns the options that the labels of a port ask for; a label that makes no sense is recorded for a
/// task that serves.
pub fn options(
    labels: &BTreeMap<String, String>,
    task: &str,
    port: &str,
    state: TaskState,
    skipped: &mut Vec<Skipped>,
) -> PortOptions {
    let mut options = PortOptions::default();
    for (key, value) in labels.iter().filter(|(key, _)| key.starts_with(port_options::PREFIX)) {
        if let Err(reason) = options.set(key, value)
            && state.is_serving()
        {
            skipped.push(Skipped {
                task: task.to_owned(),
                port: Some(port.to_owned()),
                label: Some(shortened(key.clone())),
                value: Some(shortened(value.clone())),
                reason,
            });
        }
    }
    options
}
