//! Labels of a port: VIPs and their options.

use std::collections::BTreeMap;

use crate::cluster::port_options::{self, PortOptions};
use crate::cluster::{MAX_LABELS, Skipped, VipLabel};
use crate::mesos::{SkipLog, is_vip_key, oversize};

/// Returns the labels that ask for VIPs, within the limits for one port.
pub fn vip_labels(labels: &BTreeMap<String, String>, port: &str, log: &mut SkipLog<'_>) -> Vec<VipLabel> {
    let mut found = Vec::new();
    let mut beyond = 0;
    for (key, value) in labels.iter().filter(|(key, _)| is_vip_key(key)) {
        let label = VipLabel { key: key.clone(), value: value.clone() };
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

/// Returns the options that the labels of a port ask for.
pub fn options(labels: &BTreeMap<String, String>, port: &str, log: &mut SkipLog<'_>) -> PortOptions {
    let mut options = PortOptions::default();
    for (key, value) in labels.iter().filter(|(key, _)| key.starts_with(port_options::PREFIX)) {
        if let Err(reason) = options.set(key, value) {
            log.add(skipped(port, key, value, reason));
        }
    }
    options
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
        let mut labels: BTreeMap<String, String> =
            (0..1_000).map(|n| (format!("VIP_{n}"), format!("w{n}:80"))).collect();
        labels.insert("VIP_LONG".to_owned(), "x".repeat(1 << 20));
        labels.insert("HAPROXY_0".to_owned(), "x".repeat(1 << 20));
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
