//! Documents of a real Mesos, one test for each thing that a reader can get wrong.

mod extremes;

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::cluster::{Runtime, Task, TaskState};

fn capture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/captures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn snapshot(name: &str) -> Snapshot {
    parse(&capture(name), None).unwrap()
}

/// The only task whose id starts with `prefix`.
fn task<'s>(snapshot: &'s Snapshot, prefix: &str) -> &'s Task {
    let mut found = snapshot.tasks.values().filter(|task| task.key.task.starts_with(prefix));
    let task = found.next().unwrap_or_else(|| panic!("no task {prefix}"));
    assert!(found.next().is_none(), "several tasks {prefix}");
    task
}

fn addresses(task: &Task) -> Vec<String> {
    task.addresses.iter().map(|address| address.address.to_string()).collect()
}

/// A document with one agent and the given tasks of framework `marathon`.
fn document(tasks: &str) -> String {
    format!(
        r#"{{"id":"M","elected_time":1.5,"slaves":[{{"id":"S","hostname":"a","pid":"slave(1)@10.0.0.1:5051"}}],
        "frameworks":[{{"id":"F","name":"marathon","tasks":[{tasks}]}}]}}"#
    )
}

/// A running task on the host network with a discovery port for each of `ports`.
fn running(id: &str, ports: &str) -> String {
    format!(
        r#"{{"id":"{id}","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","statuses":
        [{{"state":"TASK_RUNNING","timestamp":1.0,"container_status":{{"network_infos":[{{"ip_addresses":
        [{{"ip_address":"10.0.0.1"}}]}}]}}}}],"discovery":{{"ports":{{"ports":[{ports}]}}}}}}"#
    )
}

const GOOD_PORT: &str = r#"{"number":8080,"name":"http","protocol":"tcp","labels":{"labels":[{"key":"VIP_0","value":"/good:80"}]}}"#;

#[test]
fn a_master_names_itself_its_agents_and_frameworks() {
    let snapshot = snapshot("master_state.json");
    assert_eq!(snapshot.master.as_ref().unwrap().id, "62ca579f-d204-47ab-b9b7-6fdde30e658c");
    assert_eq!(snapshot.agents.len(), 4);
    let by_hostname = snapshot.agents.values().find(|agent| agent.hostname == "node-4").unwrap();
    assert_eq!(
        by_hostname.address,
        Some(IpAddr::from([127, 0, 0, 4])),
        "from the pid, the hostname is a name"
    );
    assert!(snapshot.frameworks.values().any(|name| name == "dev/kafka"));
}

#[test]
fn v0_and_v1_of_one_moment_agree() {
    let mut v0 = snapshot("master_state.json");
    let mut v1 = snapshot("v1_master_get_state.json");
    // v1 calls the skipped things by the same names, but does not name the master.
    v0.master = None;
    for snapshot in [&mut v0, &mut v1] {
        snapshot.skipped.sort();
        snapshot.ended.clear();
        // They are compared in `crate::names`: their order differs.
        snapshot.names = Default::default();
    }
    assert_eq!(v0, v1);
}

#[test]
fn mesos_1_9_leaves_out_empty_lists() {
    let v0 = snapshot("mesos-1.9.0/master_state.json");
    let v1 = snapshot("mesos-1.9.0/v1_master_get_state.json");
    assert_eq!(v0.tasks, v1.tasks);
    assert!(!v1.tasks.is_empty() && v1.recovered.is_empty());
}

#[test]
fn an_agent_describes_itself_in_v0_and_not_in_v1() {
    let v0 = snapshot("agent_state.json");
    let v1 = snapshot("v1_agent_get_state.json");
    assert_eq!(v0.tasks, v1.tasks);
    assert!(!v0.tasks.is_empty());
    assert_eq!(
        v0.agents.values().map(|agent| agent.address).collect::<Vec<_>>(),
        [Some([127, 0, 0, 3].into())]
    );
    assert!(v0.master.is_none() && v1.master.is_none() && v1.agents.is_empty());
}

#[test]
fn a_new_master_still_awaits_agents() {
    let snapshot = snapshot("master_state_after_failover.json");
    assert_eq!(snapshot.agents.len(), 1);
    let awaited: Vec<&String> = snapshot.recovered.iter().collect();
    assert_eq!(awaited, ["e9980bfe-893e-4357-a2cf-2152b8011c92-S1"]);
    assert!(snapshot.tasks.values().all(|task| !awaited.iter().any(|agent| **agent == *task.agent_id)));
}

#[test]
fn missing_rights_look_like_an_empty_cluster() {
    for name in ["master_state_acl_filtered.json", "master_state_acl_view_tasks_none.json"] {
        let snapshot = snapshot(name);
        assert!(
            snapshot.tasks.is_empty() && snapshot.ended.is_empty() && snapshot.skipped.is_empty(),
            "{name}"
        );
    }
}

#[test]
fn tasks_of_a_disconnected_agent_and_of_an_inactive_framework_still_run() {
    let disconnected = capture("master_state_agent_disconnected.json");
    assert!(String::from_utf8_lossy(&disconnected).contains(r#""active": false"#));
    assert!(snapshot("master_state_agent_disconnected.json").tasks.values().any(|t| t.state.is_serving()));
    let inactive = snapshot("master_state_framework_inactive.json");
    let kafka = inactive.frameworks.iter().find(|(_, name)| *name == "kafka").unwrap().0;
    assert!(inactive.tasks.values().any(|task| *task.key.framework == **kafka && task.state.is_serving()));
}

#[test]
fn tasks_of_an_unreachable_agent_are_not_gone_without_a_trace() {
    let before = snapshot("master_state_framework_inactive.json");
    let after = snapshot("master_state_agent_unreachable.json");
    let lost: Vec<_> = before.tasks.keys().filter(|key| !after.tasks.contains_key(key)).collect();
    assert!(!lost.is_empty());
    assert!(lost.iter().all(|key| after.ended.contains(key)), "they are listed as unreachable");
    let back = snapshot("master_state_agent_back.json");
    assert!(lost.iter().any(|key| back.tasks.contains_key(key)), "the same ids run again");
}

#[test]
fn a_drained_agent_and_completed_frameworks_are_read_past() {
    for name in [
        "master_state_agent_drained.json",
        "master_state_framework_completed.json",
        "master_state_agent_gone.json",
    ] {
        assert!(!snapshot(name).agents.is_empty(), "{name}");
    }
}

/// The agent fills in its own address in states in which the container has none.
#[test]
fn the_address_comes_from_the_newest_running_status() {
    let document = r#"{"id":"t","framework_id":"F","slave_id":"S","state":"TASK_KILLING","statuses":[
        {"state":"TASK_STARTING","timestamp":1.0,"container_status":{"network_infos":[{"ip_addresses":[{"ip_address":"10.0.0.1"}]}]}},
        {"state":"TASK_RUNNING","timestamp":2.0,"container_status":{"network_infos":[{"ip_addresses":[{"ip_address":"9.0.3.130"}]}]}},
        {"state":"TASK_RUNNING","timestamp":3.0,"healthy":true},
        {"state":"TASK_KILLING","timestamp":4.0,"container_status":{"network_infos":[{"ip_addresses":[{"ip_address":"10.0.0.1"}]}]}}
        ],"discovery":{"ports":{"ports":[PORT]}}}"#;
    let document = self::document(&document.replace("PORT", GOOD_PORT));
    let snapshot = parse(document.as_bytes(), None).unwrap();
    let task = task(&snapshot, "t");
    assert_eq!(addresses(task), ["9.0.3.130"]);
    assert_eq!(task.state, TaskState::Killing);
}

#[test]
fn a_changed_address_is_the_newer_one() {
    let tasks: String = String::from_utf8(capture("task_ip_changed.json")).unwrap();
    let changed = tasks.trim().trim_start_matches(['{', '\n', ' ']).strip_prefix(r#""tasks": ["#).unwrap();
    let changed = changed.trim_end().strip_suffix('}').unwrap().trim_end().strip_suffix(']').unwrap();
    let snapshot = parse(document(changed).as_bytes(), None).unwrap();
    assert_eq!(addresses(task(&snapshot, "docker-user")), ["9.0.3.131"]);
}

#[test]
fn health_is_that_of_the_newest_status() {
    let health = |statuses: &str, check: &str| {
        let text = format!(
            r#"{{"id":"t","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","statuses":[{statuses}]{check},
            "discovery":{{"ports":{{"ports":[{GOOD_PORT}]}}}}}}"#
        );
        let snapshot = parse(document(&text).as_bytes(), None).unwrap();
        let task = task(&snapshot, "t");
        task.healthy
    };
    let check = r#","health_check":{"type":"TCP"}"#;
    let healthy = r#"{"state":"TASK_RUNNING","timestamp":2.0,"healthy":true}"#;
    let unhealthy = r#"{"state":"TASK_RUNNING","timestamp":2.0,"healthy":false}"#;
    let silent = r#"{"state":"TASK_RUNNING","timestamp":3.0}"#;
    assert_eq!(health("", ""), None);
    assert_eq!(health(healthy, check), Some(true));
    assert_eq!(health(unhealthy, check), Some(false));
    assert_eq!(health(silent, check), Some(false), "no result yet");
    assert_eq!(health(&format!("{silent},{healthy}"), check), Some(false), "newest by time, not by place");
    assert_eq!(health(silent, ""), None, "no check at all");
}

#[test]
fn ports_of_every_network_mode() {
    let snapshot = snapshot("master_state.json");
    let port = |prefix: &str, name: &str| {
        let task = task(&snapshot, prefix);
        let port = task.ports.iter().find(|port| *port.name == *name).unwrap();
        (task.runtime, port.port, port.host_port)
    };
    assert_eq!(port("ucr-bridge", "web"), (Runtime::Mesos, Some(80), Some(10011)));
    assert_eq!(port("docker-host", "http"), (Runtime::Docker, Some(10009), None));
    assert_eq!(port("docker-user", "web"), (Runtime::Docker, Some(80), None));
    assert_eq!(port("dev_overlay", "tls"), (Runtime::Mesos, Some(443), Some(10010)));
    assert_eq!(port("pods_netpod.instance-5faad919-c047-4f48-996d-6e4b022a8391.a", "h").2, Some(12010));
    let bridges: Vec<_> =
        snapshot.tasks.values().filter(|t| t.key.task.starts_with("docker-bridge")).collect();
    assert_eq!(bridges.len(), 2);
    assert!(bridges.iter().all(|task| task.ports.iter().all(|port| port.host_port.is_some())));
}

/// A pod with two containers, of which a announces a port of the agent that its executor was given.
#[test]
fn ports_of_an_executor_count_for_the_tasks_that_announce_them() {
    let given = |snapshot: &Snapshot| {
        let task = task(snapshot, "pods_one.");
        assert_eq!(task.ports[0].is_allocated, !task.resources.is_empty());
        let named =
            snapshot.names.tasks.values().map(|task| task.executor_ports.to_vec()).collect::<Vec<_>>();
        (task.resources.to_vec(), named.into_iter().filter(|ports| !ports.is_empty()).collect::<Vec<_>>())
    };
    let (one, none) = ((vec![(31500, 31500)], vec![vec![(31500, 31500)]]), (vec![], Vec::<Vec<_>>::new()));
    for name in ["master_state_pod.json", "v1_master_get_state_pod.json", "agent_state_pod.json"] {
        assert_eq!(given(&snapshot(name)), one, "{name}");
    }
    // Nothing counts for tasks of another executor, framework or agent.
    let text = String::from_utf8(capture("master_state_pod.json")).unwrap();
    let framework = r#""framework_id":"84074973-f1ae-47c3-acc1-d50297f5f4c9-0000","command""#;
    for (from, to) in [
        (
            r#""executor_id":"pods_one.instance-49707688-b808-4ee4-9a91-1fc1770eb248","name":"""#,
            r#""executor_id":"x""#,
        ),
        (framework, r#""framework_id":"x","command""#),
        (r#""type":"DEFAULT","slave_id":"84074973-f1ae-47c3-acc1-d50297f5f4c9-S0""#, r#""slave_id":"x""#),
        ("[31500-31501]", "[31501-31502]"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        assert_eq!(given(&parse(changed.as_bytes(), None).unwrap()), none, "{to}");
    }
}

/// No event tells of executors: what they were given is known from the next whole state on.
#[test]
fn ports_of_an_executor_are_known_from_the_next_whole_state_on() {
    let records = String::from_utf8(capture("subscribe_pod.jsonl")).unwrap();
    let mut live = live::LiveCluster::default();
    for record in records.lines() {
        live.record(record).unwrap();
    }
    let is_allocated = |live: &live::LiveCluster| task(live.snapshot(), "pods_one.").ports[0].is_allocated;
    assert!(!is_allocated(&live));
    live.resync(&*capture("v1_master_get_state_pod.json"), std::iter::empty()).unwrap();
    assert!(is_allocated(&live));
    // Updates leave it so.
    for record in records.lines().skip(1) {
        live.record(record).unwrap();
    }
    assert!(is_allocated(&live));
    let whole = snapshot("v1_master_get_state_pod.json");
    assert_eq!(live.snapshot().tasks.values().collect::<Vec<_>>(), whole.tasks.values().collect::<Vec<_>>());
}

#[test]
fn networks_are_told_apart_by_name_and_prefixes_cut_off() {
    let snapshot = snapshot("master_state.json");
    let two = task(&snapshot, "two-nets");
    assert!(addresses(two).contains(&"fd01:b::4".to_owned()), "without /80");
    let first = two.ports.iter().find(|port| port.port == Some(80)).unwrap();
    assert_eq!(first.networks.iter().collect::<Vec<_>>(), ["dcos"]);
    let both = two.ports.iter().find(|port| port.port == Some(81)).unwrap();
    assert_eq!(both.networks.iter().collect::<Vec<_>>(), ["dcos", "dcos6"]);
}

#[test]
fn staging_tasks_have_no_status() {
    let snapshot = snapshot("master_state.json");
    let staging = task(&snapshot, "staging");
    assert_eq!(staging.state, TaskState::Preparing);
    assert!(staging.addresses.is_empty());
    assert_eq!(task(&snapshot, "starting").state, TaskState::Preparing);
}

#[test]
fn old_documents_have_single_addresses_and_resources_as_text() {
    let task_text = r#"{"id":"old","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","resources":
        {"cpus":0.1,"ports":"[31000-31001, 31005-31005]"},"labels":[{"key":"vip_PORT2","value":"tcp://web:80"},
        {"key":"VIP_PORT3","value":"udp://1.2.3.4:53"},{"key":"vip_port0","value":"http://x:1"}],
        "statuses":[{"state":"TASK_RUNNING","container_status":{"network_infos":[{"ip_address":"172.17.0.5"}]}}]}"#;
    let snapshot = parse(document(task_text).as_bytes(), None).unwrap();
    let old = task(&snapshot, "old");
    assert_eq!(addresses(old), ["172.17.0.5"]);
    assert_eq!(old.ports.iter().map(|port| port.host_port).collect::<Vec<_>>(), [Some(31005)]);
    let reasons: Vec<&str> = snapshot.skipped.iter().map(|skipped| skipped.reason.as_str()).collect();
    assert_eq!(reasons.len(), 2);
    assert!(reasons[0].contains("port resource number 3") && reasons[1].contains("tcp:// or udp://"));
}

/// Masters before Mesos 1.2 list tasks of frameworks that have not registered with them in a place of their own.
#[test]
fn running_tasks_are_read_wherever_a_document_lists_them() {
    let task = |id: &str| {
        format!(
            r#"{{"id":"{id}","name":"{id}","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","discovery":{{
            "ports":{{"ports":[{{"number":80,"protocol":"tcp","labels":{{"labels":[{{"key":"VIP_0","value":"w:80"}}]}}}}]}}}}}}"#
        )
    };
    let (usual, orphan) = (task("usual"), task("orphan"));
    let v0 = format!(
        r#"{{"version":"1.1.3","id":"M","slaves":[{{"id":"S"}}],"frameworks":[{{"id":"G","name":"g","tasks":[{usual}]}}],
        "unregistered_frameworks":["F"],"orphan_tasks":[{orphan}]}}"#
    );
    let v1 = format!(
        r#"{{"type":"GET_STATE","get_state":{{"get_tasks":{{"tasks":[{usual}],"orphan_tasks":[{orphan}]}}}}}}"#
    );
    for text in [v0, v1] {
        let snapshot = parse(text.as_bytes(), None).unwrap();
        let ids: Vec<&str> = snapshot.tasks.keys().map(|key| &*key.task).collect();
        assert_eq!((ids, snapshot.names.len()), (vec!["orphan", "usual"], 2), "{text}");
    }
}

/// Each of these leaves its own mark in `skipped`, and the good port beside it alone.
#[test]
fn one_bad_thing_never_affects_another() {
    let label = |value: &str| format!(r#""labels":{{"labels":[{value}]}}"#);
    let vip = r#"{"key":"VIP_0","value":"/bad:80"}"#;
    let bad_ports = [
        format!(r#"{{"number":1,{}}}"#, label(vip)),
        format!(r#"{{"protocol":"tcp",{}}}"#, label(vip)),
        format!(r#"{{"number":0,"protocol":"tcp",{}}}"#, label(vip)),
        format!(r#"{{"number":65536,"protocol":"tcp",{}}}"#, label(vip)),
        format!(r#"{{"number":-1,"protocol":"tcp",{}}}"#, label(vip)),
        format!(r#"{{"number":"80","protocol":"tcp",{}}}"#, label(vip)),
        format!(r#"{{"number":1.5,"protocol":"tcp",{}}}"#, label(vip)),
        format!(r#"{{"number":1,"protocol":"tcp,udp",{}}}"#, label(vip)),
        format!(
            r#"{{"number":1,"protocol":"tcp",{}}}"#,
            label(&format!(r#"{vip},{{"key":"network-scope","value":"moon"}}"#))
        ),
        format!(
            r#"{{"number":1,"protocol":"tcp",{}}}"#,
            label(&format!(
                r#"{vip},{{"key":"network-scope","value":"host"}},{{"key":"network-scope","value":"container"}}"#
            ))
        ),
        format!(r#"{{"number":1,"protocol":"tcp",{}}}"#, label(r#"{"key":"VIP_0"}"#)),
        format!(r#"{{"number":1,"protocol":"tcp",{}}}"#, label(r#"{"key":7,"value":"/bad:80"}"#)),
        r#""not a port""#.to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
    ];
    for bad in &bad_ports {
        let text = document(&running("t", &format!("{bad},{GOOD_PORT}")));
        let snapshot = parse(text.as_bytes(), None).unwrap_or_else(|error| panic!("{bad}: {error}"));
        let good: Vec<_> = task(&snapshot, "t").ports.iter().flat_map(|port| port.labels.iter()).collect();
        assert_eq!(good.iter().map(|label| label.value.as_str()).collect::<Vec<_>>(), ["/good:80"], "{bad}");
        assert_eq!(snapshot.skipped.len(), 1, "{bad}: {:?}", snapshot.skipped);
    }
    let bad_tasks = [
        "7",
        "null",
        "{}",
        r#"{"id":"x"}"#,
        r#"{"id":"x","state":7}"#,
        r#"{"id":"x","state":"TASK_RUNNING","discovery":7}"#,
    ];
    for bad in bad_tasks {
        let text = document(&format!("{bad},{}", running("t", GOOD_PORT)));
        let snapshot = parse(text.as_bytes(), None).unwrap_or_else(|error| panic!("{bad}: {error}"));
        assert_eq!(snapshot.tasks.len(), 1, "{bad}");
    }
    let odd_members = r#"{"id":7,"pid":[],"slaves":[7,null,{"id":[]}],"recovered_slaves":{},"frameworks":
        [null,7,{"name":7,"tasks":7},{"id":"F","name":"marathon","executors":[8,{"tasks":null}],"tasks":[TASK]}]}"#;
    let text = odd_members.replace("TASK", &running("t", GOOD_PORT));
    assert_eq!(parse(text.as_bytes(), None).unwrap().tasks.len(), 1);
}

#[test]
fn bytes_that_are_not_text_cost_one_task() {
    let mut text =
        document(&format!("{},{}", running("t", GOOD_PORT), running("BAD", GOOD_PORT))).into_bytes();
    let at = text.windows(3).position(|window| window == b"BAD").unwrap();
    text[at] = 0xff;
    assert_eq!(parse(&text, None).unwrap().tasks.len(), 2);
}

#[test]
fn the_order_of_a_document_does_not_matter() {
    let usual = document(&running("t", GOOD_PORT));
    let reversed = format!(
        r#"{{"frameworks":[{{"tasks":[{}],"name":"marathon","id":"F"}}],
        "slaves":[{{"pid":"slave(1)@10.0.0.1:5051","hostname":"a","id":"S"}}],"elected_time":1.5,"id":"M"}}"#,
        running("t", GOOD_PORT)
    );
    assert_eq!(parse(usual.as_bytes(), None).unwrap(), parse(reversed.as_bytes(), None).unwrap());
}

#[test]
fn documents_that_are_none_say_so() {
    let error = |text: &str| parse(text.as_bytes(), None).unwrap_err().to_string();
    assert_eq!(error(" \n"), "the document is empty");
    assert!(error("<html><body>502</body></html>").starts_with("not JSON"));
    assert!(error("{}").contains("not a Mesos state document"));
    assert!(error("[]").contains("not a Mesos state document"));
    let whole = capture("master_state.json");
    let half = String::from_utf8_lossy(&whole[..whole.len() / 2]).into_owned();
    assert!(error(&half).contains("EOF"));
    assert!(error(&format!("{} trailing", document(""))).contains("trailing"));
}

#[test]
fn events_lead_to_the_state_that_the_master_had() {
    // The last thing that this recording tells is that an agent became unreachable.
    let snapshot = snapshot("subscribe_master.jsonl");
    let serving: Vec<_> = snapshot.tasks.values().filter(|task| task.state.is_serving()).collect();
    assert_eq!(serving.iter().map(|task| &*task.key.task).collect::<Vec<_>>(), ["kafka-2-broker__2"]);
    assert_eq!(serving[0].state, TaskState::Killing);
}

#[test]
fn events_may_come_before_the_agents_and_frameworks_they_name() {
    for name in ["subscribe_failover_new.jsonl", "subscribe_failover_late_new.jsonl"] {
        let snapshot = snapshot(name);
        assert_eq!(snapshot.tasks.len(), 3, "{name}");
        for task in snapshot.tasks.values() {
            assert!(snapshot.agents.contains_key(&*task.agent_id), "{name}");
            assert!(snapshot.frameworks.contains_key(&*task.key.framework), "{name}");
        }
        assert!(snapshot.recovered.is_empty(), "{name}");
    }
}

#[test]
fn recordio_and_lines_are_the_same_events() {
    let lines = String::from_utf8(capture("subscribe_failover_new.jsonl")).unwrap();
    let framed: String = lines.lines().map(|line| format!("{}\n{line}", line.len())).collect();
    assert_eq!(parse(lines.as_bytes(), None).unwrap(), parse(framed.as_bytes(), None).unwrap());
    let cut = &framed[..framed.len() - 10];
    assert!(parse(cut.as_bytes(), None).unwrap_err().to_string().contains("RecordIO frame at byte"));
}

#[test]
fn port_resources() {
    let expand = |text: &str| {
        let ports = wire::PortResources::parse(text);
        (0..).map_while(|index| ports.nth(index)).collect::<Vec<_>>()
    };
    assert!(expand("").is_empty());
    assert_eq!(expand("[1-2]"), [1, 2]);
    assert!(expand("[2-1]").is_empty());
    assert_eq!(expand("[1-2, 9-11, 5-5]"), [1, 2, 9, 10, 11, 5]);
    assert_eq!(wire::PortResources::parse("[0-18446744073709551615]").nth(u64::MAX), Some(u64::MAX));
}

#[test]
fn events_are_unwrapped_once() {
    let inner = r#"{"type":"SUBSCRIBED"}"#;
    let wrapped = format!(r#"{{"event":{inner}}}"#);
    assert!(parse(wrapped.as_bytes(), Some(Format::V1Events)).is_ok());
    let twice = format!(r#"{{"event":{wrapped}}}"#);
    assert!(matches!(parse(twice.as_bytes(), Some(Format::V1Events)), Err(Error::Missing(_))));
    // Each level would take its part of the stack.
    let deep = format!("{}{inner}{}", r#"{"event":"#.repeat(200_000), "}".repeat(200_000));
    assert!(parse(deep.as_bytes(), None).is_err());
}

proptest! {
    #![proptest_config(crate::units::cases(512))]

    #[test]
    fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for format in [None, Some(Format::State), Some(Format::V1State), Some(Format::V1Events)] {
            let _ = parse(&bytes, format);
        }
    }

    /// Cuts and changes a real document.
    #[test]
    fn no_damage_is_a_panic(at in 0usize..60_000, byte: u8, cut in any::<bool>()) {
        let mut document = capture("master_state.json");
        let at = at % document.len();
        document[at] = byte;
        if cut {
            document.truncate(at);
        }
        let _ = parse(&document, None);
    }
}

#[test]
fn labels_without_end_cost_little() {
    let label = |key: &str, value: &str| format!(r#"{{"key":"{key}","value":"{value}"}}"#);
    let mut labels: Vec<String> =
        (0..10_000).map(|n| label(&format!("VIP_{n}"), &format!("w{n}:80"))).collect();
    labels.push(label("VIP_X", &"x".repeat(1 << 20)));
    labels.push(label("L4LB_SCHEDULER", &"x".repeat(1 << 20)));
    let task = format!(
        r#"{{"id":"t","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","discovery":{{"ports":{{"ports":
        [{{"number":80,"protocol":"tcp","labels":{{"labels":[{}]}}}}]}}}}}}"#,
        labels.join(",")
    );
    let snapshot = parse(document(&task).as_bytes(), None).unwrap();
    assert_eq!(snapshot.tasks.values().next().unwrap().ports[0].labels.len(), 256);
    let reasons: Vec<&str> = snapshot.skipped.iter().map(|skipped| skipped.reason.as_str()).collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons[0].starts_with("no such scheduler"));
    assert!(reasons[1].starts_with("the label has 1048576 bytes"));
    assert_eq!(reasons[2], "a task can have 256 VIP labels, and this has 9744 more");
    assert!(snapshot.skipped.iter().all(|skipped| skipped.to_string().len() < 1000));
}

#[test]
fn long_texts_of_tenants_are_shortened() {
    let long = "x".repeat(1 << 20);
    let vip = r#"{"key":"VIP_0","value":"/bad:80"}"#;
    let scope = format!(r#"{vip},{{"key":"network-scope","value":"{long}"}}"#);
    let ports = [
        format!(r#"{{"number":1,"protocol":"{long}","labels":{{"labels":[{vip}]}}}}"#),
        format!(
            r#"{{"number":1,"protocol":"tcp","name":"{long}","labels":{{"labels":[{{"key":"VIP_0"}}]}}}}"#
        ),
        format!(r#"{{"number":1,"protocol":"tcp","labels":{{"labels":[{scope}]}}}}"#),
        format!(r#"{{"number":"{long}","protocol":"tcp"}}"#),
    ];
    let snapshot = parse(document(&running("t", &ports.join(","))).as_bytes(), None).unwrap();
    assert_eq!(snapshot.skipped.len(), 4, "{}", snapshot.skipped.len());
    for skipped in &snapshot.skipped {
        assert!(skipped.to_string().len() < 1000, "{}", skipped.to_string().len());
    }
}
