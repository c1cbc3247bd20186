//! Labels of a port: VIPs and their options.

use super::wire::MarathonLabels;
use crate::cluster::port_options::{self, PortOptions};
use crate::cluster::{MAX_LABELS, Skipped, VipLabel};
use crate::mesos::{Lenient, SkipLog, is_vip_key, oversize, unreadable};

/// Returns true for labels of which any asks for a VIP, readable or not.
pub fn asks_for_vip(labels: Option<&Lenient<MarathonLabels>>) -> bool {
    match labels {
        Some(Lenient::Read(labels)) => labels.keys().any(|key| is_vip_key(key)),
        Some(Lenient::Unreadable { .. }) => true,
        None => false,
    }
}

/// VIP labels and options of one port.
#[derive(Default)]
pub struct PortLabels {
    /// Labels that ask for VIPs, within the limits for one port.
    pub vips: Vec<VipLabel>,
    pub options: PortOptions,
}

impl PortLabels {
    /// Reads the labels of the port named `port`.
    pub fn read(labels: Option<&Lenient<MarathonLabels>>, port: &str, log: &mut SkipLog<'_>) -> Self {
        match labels {
            None => Self::default(),
            Some(Lenient::Unreadable { error, json }) => {
                let record = unreadable(error, json.clone(), "labels");
                log.add(Skipped { port: Some(port.to_owned()), ..record });
                Self::default()
            }
            Some(Lenient::Read(labels)) => {
                let vips = vip_labels(labels, port, log);
                // Options without a VIP have no effect.
                let options =
                    if vips.is_empty() { PortOptions::default() } else { options(labels, port, log) };
                Self { vips, options }
            }
        }
    }
}

fn vip_labels(labels: &MarathonLabels, port: &str, log: &mut SkipLog<'_>) -> Vec<VipLabel> {
    let mut found = Vec::new();
    let mut beyond = 0;
    for (key, value) in labels.iter().filter(|(key, _)| is_vip_key(key)) {
        let Some(value) = text(key, value, port, log) else { continue };
        let label = VipLabel { key: key.clone(), value: value.to_owned() };
        if let Some(reason) = oversize(&label) {
            log.add(skipped(port, key, value, reason));
        } else if found.len() < MAX_LABELS {
            found.push(label);
        } else {
            beyond += 1;
        }
    }
    // One record for all of them: a record each would cost as much as the labels.
    if beyond > 0 {
        let reason = format!("a port can have {MAX_LABELS} VIP labels, and this has {beyond} more");
        log.add(Skipped { port: Some(port.to_owned()), reason, ..Skipped::default() });
    }
    found
}

fn options(labels: &MarathonLabels, port: &str, log: &mut SkipLog<'_>) -> PortOptions {
    let mut options = PortOptions::default();
    for (key, value) in labels.iter().filter(|(key, _)| key.starts_with(port_options::PREFIX)) {
        let Some(value) = text(key, value, port, log) else { continue };
        if let Err(reason) = options.set(key, value) {
            log.add(skipped(port, key, value, reason));
        }
    }
    options
}

/// Returns the value of a label, or records that it is none.
fn text<'l>(key: &str, value: &'l Lenient<String>, port: &str, log: &mut SkipLog<'_>) -> Option<&'l str> {
    match value {
        Lenient::Read(value) => Some(value),
        Lenient::Unreadable { error, json } => {
            log.add(skipped(port, key, json, format!("a label that cannot be read: {error}")));
            None
        }
    }
}

fn skipped(port: &str, key: &str, value: &str, reason: String) -> Skipped {
    let (port, label, value) = (Some(port.to_owned()), Some(key.to_owned()), Some(value.to_owned()));
    Skipped { port, label, value, reason, ..Skipped::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::TaskState;

    #[test]
    fn vip_labels_without_end_cost_little() {
        let mut labels: MarathonLabels =
            (0..1_000).map(|n| (format!("VIP_{n}"), Lenient::Read(format!("w{n}:80")))).collect();
        labels.insert("VIP_LONG".to_owned(), Lenient::Read("x".repeat(1 << 20)));
        labels.insert("HAPROXY_0".to_owned(), Lenient::Read("x".repeat(1 << 20)));
        let mut records = Vec::new();
        let found = vip_labels(&labels, "web", &mut SkipLog::new(&mut records, "t", TaskState::Running));
        assert_eq!(found.len(), MAX_LABELS);
        let reasons: Vec<&str> = records.iter().map(|record| record.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "the label has 1048576 bytes, and a VIP never needs more than 512",
                "a port can have 256 VIP labels, and this has 744 more"
            ]
        );
        assert!(records.iter().all(|record| record.to_string().len() < 1000));
        let mut none = Vec::new();
        vip_labels(&labels, "web", &mut SkipLog::new(&mut none, "t", TaskState::Preparing));
        assert_eq!(none, [], "a task that does not serve is not worth a record");
    }
}
