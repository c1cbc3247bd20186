//! Every number of a document or an event, with values that no sane server sends.

use std::time::Duration;

use crate::mesos::live::{EventEffect, LiveCluster};
use crate::mesos::{Format, parse, parse_master};

/// As JSON; the last ones are no numbers, or none that fit any type.
const EXTREMES: &[&str] = &[
    "-1",
    "0",
    "-0.0",
    "0.5",
    "1e-300",
    "65536",
    "1e19",
    "1e300",
    "-1e300",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
    "-1e999",
    "null",
    "\"NaN\"",
    "[]",
];

/// A task beside the odd one, which no number may cost.
const SANE: &str = r#"{"id":"sane","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","discovery":{"ports":
    {"ports":[{"number":80,"protocol":"tcp","labels":{"labels":[{"key":"VIP_0","value":"/web:80"}]}}]}}}"#;

/// A task with `N` in place of every number.
const ODD: &str = r#"{"id":"odd","framework_id":"F","slave_id":"S","state":"TASK_RUNNING",
    "statuses":[{"state":"TASK_RUNNING","timestamp":N,"healthy":true}],
    "resources":{"ports":"[N-N, 0-18446744073709551615, 31000-N]","cpus":N},
    "labels":[{"key":"vip_port0","value":"tcp://1.2.3.4:80"},{"key":"vip_portN","value":"tcp://1.2.3.4:N"},
        {"key":"vip_port18446744073709551615","value":"tcp://1.2.3.4:80"}],
    "container":{"type":"DOCKER","docker":{"port_mappings":[{"host_port":N,"container_port":N}]}},
    "discovery":{"ports":{"ports":[{"number":N,"protocol":"tcp","labels":{"labels":
        [{"key":"VIP_0","value":"/odd:N"},{"key":"L4LB_WEIGHT","value":"N"}]}}]}}}"#;

/// The same with v1's list of resources.
const ODD_V1: &str = r#"{"task_id":{"value":"odd"},"framework_id":{"value":"F"},"agent_id":{"value":"S"},
    "state":"TASK_RUNNING","resources":[{"name":"ports","ranges":{"range":[{"begin":N,"end":N},
    {"begin":0,"end":18446744073709551615},{"begin":0,"end":N}]}},{"name":"ports","scalar":{"value":N}}],
    "labels":{"labels":[{"key":"vip_port1","value":"tcp://1.2.3.4:80"}]}}"#;

fn has_sane_task(snapshot: &crate::cluster::Snapshot) -> bool {
    snapshot.tasks.keys().any(|key| &*key.task == "sane")
}

#[test]
fn numbers_of_a_document_cost_at_most_their_own_task() {
    // A text would end the texts that it is put into.
    for extreme in EXTREMES.iter().filter(|extreme| !extreme.starts_with('"')) {
        let document = format!(
            r#"{{"id":"M","elected_time":{extreme},"start_time":{extreme},"activated_slaves":{extreme},
            "slaves":[{{"id":"S","pid":"slave(1)@10.0.0.2:{extreme}","port":{extreme}}}],
            "frameworks":[{{"id":"F","name":"marathon","registered_time":{extreme},"pid":"x@10.0.0.3:{extreme}","tasks":[{},{SANE}]}}]}}"#,
            ODD.replace('N', extreme)
        );
        let snapshot = parse(document.as_bytes(), Some(Format::State)).unwrap();
        assert!(has_sane_task(&snapshot), "{extreme}");
        let document = format!(
            r#"{{"get_state":{{"get_tasks":{{"tasks":[{},{SANE}]}},"get_frameworks":{{"frameworks":[{{"framework_info":
            {{"id":{{"value":"F"}},"name":"marathon"}},"registered_time":{{"nanoseconds":{extreme}}}}}]}}}}}}"#,
            ODD_V1.replace('N', extreme)
        );
        let snapshot = parse(document.as_bytes(), Some(Format::V1State)).unwrap();
        assert!(has_sane_task(&snapshot) && snapshot.frameworks.contains_key("F"), "{extreme}");
    }
}

#[test]
fn heartbeats_are_within_bounds_whatever_the_master_states() {
    for extreme in EXTREMES {
        let mut live = LiveCluster::default();
        let record = format!(
            r#"{{"type":"SUBSCRIBED","subscribed":{{"get_state":{{}},"heartbeat_interval_seconds":{extreme}}}}}"#
        );
        let EventEffect::Subscribed(heartbeat) = live.record(&record).unwrap() else { panic!("{extreme}") };
        let bounds = Duration::from_millis(10)..=Duration::from_secs(300);
        assert!(heartbeat.is_none_or(|heartbeat| bounds.contains(&heartbeat)), "{extreme}: {heartbeat:?}");
    }
}

#[test]
fn numbers_of_events_and_of_the_master_are_no_panic() {
    for extreme in EXTREMES {
        let mut live = LiveCluster::default();
        live.record(r#"{"type":"SUBSCRIBED"}"#).unwrap();
        live.record(&format!(r#"{{"type":"TASK_ADDED","task_added":{{"task":{SANE}}}}}"#)).unwrap();
        // An update that cannot be read is an error of the stream, which is then opened anew.
        let _ = live.record(&format!(
            r#"{{"type":"TASK_UPDATED","task_updated":{{"framework_id":{{"value":"F"}},"state":"TASK_RUNNING","status":
            {{"task_id":{{"value":"sane"}},"state":"TASK_RUNNING","timestamp":{extreme}}}}}}}"#
        ));
        assert!(has_sane_task(live.snapshot()), "{extreme}");
        let answer = format!(
            r#"{{"get_master":{{"master_info":{{"id":"M","port":{extreme}}},"elected_time":{extreme}}}}}"#
        );
        assert_eq!(parse_master(answer.as_bytes()).unwrap().id, "M");
    }
}
