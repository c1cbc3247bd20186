//! VIPs that a task asks for, whether it gets them or not.

use std::collections::BTreeSet;

use super::label::{self, LabelHost};
use super::{Host, VipKey, vip_name};
use crate::cluster::{Task, TaskPort, VipLabel};

/// Returns the VIPs that the labels of a task ask for, in a framework of this name; labels that are not VIPs are left
/// out.
pub fn asked(task: &Task, framework: &str) -> BTreeSet<VipKey> {
    labels(task, framework).map(|(_, _, key)| key).collect()
}

/// Iterates over the labels of a task that ask for VIPs, with their ports and these VIPs.
pub fn labels<'t>(
    task: &'t Task,
    framework: &str,
) -> impl Iterator<Item = (&'t TaskPort, &'t VipLabel, VipKey)> {
    let labels = task.ports.iter().flat_map(|port| port.labels.iter().map(move |label| (port, label)));
    labels.filter_map(move |(port, label)| {
        let (host, number) = label::parse(&label.value).ok()?;
        let host = match host {
            LabelHost::Literal(address) => Host::Literal(address),
            LabelHost::Named(written) => Host::Named(vip_name(written, framework)),
        };
        Some((port, label, VipKey { host, protocol: port.protocol, port: number }))
    })
}
