//! Against event streams of a real master.

use super::kept::{KeptTask, MAX_STATUSES};
use super::*;
use crate::mesos::{self, Format};

fn capture(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/fixtures/captures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn records(name: &str) -> Vec<String> {
    capture(name).lines().map(str::to_owned).collect()
}

fn fold(records: &[String]) -> LiveCluster {
    let mut live = LiveCluster::default();
    for record in records {
        live.record(record).unwrap();
    }
    live
}

#[test]
fn a_subscription_tells_its_heartbeat() {
    let records = records("subscribe_master.jsonl");
    let mut live = LiveCluster::default();
    assert!(!live.is_subscribed());
    assert_eq!(live.record(&records[0]).unwrap(), EventEffect::Subscribed(Some(Duration::from_secs(15))));
    assert!(live.is_subscribed());
    assert_eq!(live.record(r#"{"type":"HEARTBEAT"}"#).unwrap(), EventEffect::None);
}

#[test]
fn events_tell_when_frameworks_registered() {
    let mut live = LiveCluster::default();
    let mut record = |kind: &str, member: &str| {
        live.record(&format!(r#"{{"type":"{kind}",{member}}}"#)).unwrap();
        live.snapshot().registered.get("F").map(|time| time.as_second())
    };
    let info = r#""framework_info":{"id":{"value":"F"},"name":"marathon"}"#;
    let time = r#""registered_time":{"nanoseconds":7000000000}"#;
    assert_eq!(record("SUBSCRIBED", r#""subscribed":{"get_state":{}}"#), None);
    assert_eq!(
        record("FRAMEWORK_ADDED", &format!(r#""framework_added":{{"framework":{{{info},{time}}}}}"#)),
        Some(7)
    );
    let update = format!(r#""framework_updated":{{"framework":{{{info}}}}}"#);
    assert_eq!(record("FRAMEWORK_UPDATED", &update), Some(7), "kept where an update has none");
    let removed = r#""framework_removed":{"framework_info":{"id":{"value":"F"},"name":"marathon"}}"#;
    assert_eq!(record("FRAMEWORK_REMOVED", removed), None);
}

/// Every event may be told again: the state of a task is its last one's.
#[test]
fn repeated_events_change_nothing() {
    for name in ["subscribe_master.jsonl", "subscribe_failover.jsonl", "subscribe_failover_late_new.jsonl"] {
        let records = records(name);
        let once = fold(&records);
        let mut twice = LiveCluster::default();
        for record in &records {
            twice.record(record).unwrap();
            twice.record(record).unwrap();
        }
        assert_eq!(once.snapshot(), twice.snapshot(), "{name}");
    }
}

/// An event since the request for a state may be in the answer already, or not yet.
#[test]
fn a_full_state_in_between_loses_no_event() {
    let records = records("subscribe_master.jsonl");
    // The cluster after each number of records.
    let mut after = vec![LiveCluster::default()];
    for record in &records {
        let mut live = after.last().unwrap().clone();
        live.record(record).unwrap();
        after.push(live);
    }
    let answer = |live: &LiveCluster| -> String {
        // The tasks as they are now, in the form of an answer.
        let tasks: Vec<String> = live.tasks.values().map(|kept| kept.json(&live.packer)).collect();
        format!(r#"{{"get_state":{{"get_tasks":{{"tasks":[{}]}}}}}}"#, tasks.join(","))
    };
    let known = |live: &LiveCluster| live.tasks.keys().cloned().collect::<Vec<_>>();
    let all = known(after.last().unwrap());
    for asked in 1..records.len() {
        // The master answered at some moment after it was asked.
        for answered in [asked, (asked + 3).min(records.len())] {
            let mut live = after[asked].clone();
            let since = records[asked..].iter().map(String::as_str);
            live.resync(answer(&after[answered]).as_bytes(), since).unwrap();
            assert_eq!(known(&live), all, "asked after {asked}, answered after {answered}");
        }
    }
}

#[test]
fn a_real_state_gives_the_same_from_both_ends() {
    let answer = capture("v1_master_get_state.json");
    let mut live = fold(&records("subscribe_master.jsonl")[..1]);
    live.resync(answer.as_bytes(), std::iter::empty()).unwrap();
    let parsed = mesos::parse(answer.as_bytes(), Some(Format::V1State)).unwrap();
    assert_eq!(live.snapshot(), &parsed);
    assert!(live.resync("{}".as_bytes(), std::iter::empty()).is_err());
    assert_eq!(live.snapshot(), &parsed, "a bad answer leaves everything as it was");
}

#[test]
fn updates_of_one_state_replace_each_other() {
    let (json, mut packer) = (r#"{"id":"t","state":"TASK_STAGING"}"#, Packer::default());
    let mut kept = KeptTask::new(packer.pack(json), None, false);
    for n in 0..100 {
        let state = ["TASK_RUNNING", "TASK_UNREACHABLE"][usize::from(n % 7 == 0)];
        let status = format!(r#"{{"state":"{state}","timestamp":{n}.0}}"#);
        kept.update(state, serde_json::from_str(&status).unwrap());
    }
    let json = kept.json(&packer);
    let task = kept.task(&json).unwrap();
    assert_eq!(task.statuses.as_ref().unwrap().len(), MAX_STATUSES);
    assert_eq!(task.state, "TASK_RUNNING");
    let last = task.statuses.unwrap().pop().unwrap();
    assert_eq!(last.as_read().unwrap().timestamp, Some(99.0));
}

/// Readers hold the last snapshot while the next one is made.
#[test]
fn an_event_leaves_all_other_tasks_those_of_the_last_snapshot() {
    let task = |number: usize, state: &str| {
        format!(
            r#"{{"task_id":{{"value":"t{number}"}},"framework_id":{{"value":"F"}},"agent_id":{{"value":"S{}"}},
            "state":"{state}","discovery":{{"name":"web","ports":{{"ports":[{{"number":80,"protocol":"tcp",
            "labels":{{"labels":[{{"key":"VIP_0","value":"/web:80"}}]}}}}]}}}}}}"#,
            number % 100
        )
    };
    let tasks: Vec<String> = (0..3_000).map(|number| task(number, "TASK_RUNNING")).collect();
    let mut live = LiveCluster::default();
    live.record(&format!(
        r#"{{"type":"SUBSCRIBED","subscribed":{{"get_state":{{"get_tasks":{{"tasks":[{}]}}}}}}}}"#,
        tasks.join(",")
    ))
    .unwrap();
    let before = live.snapshot().clone();
    assert_eq!((before.tasks.len(), before.names.len()), (3_000, 3_000));
    live.record(
        r#"{"type":"TASK_UPDATED","task_updated":{"framework_id":{"value":"F"},"state":"TASK_KILLING","status":
        {"task_id":{"value":"t7"},"state":"TASK_KILLING","timestamp":2.0}}}"#,
    )
    .unwrap();
    let changed: Vec<String> =
        before.tasks.changes(&live.snapshot().tasks).map(|change| change.key().task.to_string()).collect();
    assert_eq!(changed, ["t7"]);
    // One task of the registry has gone: a task that is being killed has no name.
    assert_eq!(live.snapshot().names.len(), 2_999);
    let is_shared = |(key, task): (&TaskKey, &Arc<crate::cluster::Task>)| {
        before.tasks.get(key).is_some_and(|known| Arc::ptr_eq(known, task))
    };
    assert_eq!(live.snapshot().tasks.iter().filter(|entry| is_shared(*entry)).count(), 2_999);
    // A whole state that says the same brings no new tasks either.
    let before = live.snapshot().clone();
    let mut tasks = tasks;
    tasks[7] = task(7, "TASK_KILLING");
    let answer = format!(r#"{{"get_state":{{"get_tasks":{{"tasks":[{}]}}}}}}"#, tasks.join(","));
    live.resync(answer.as_bytes(), std::iter::empty()).unwrap();
    assert!(live.snapshot().tasks.is_copy(&before.tasks));
    // Tasks of an agent that is removed are found without reading any of them.
    live.record(r#"{"type":"AGENT_REMOVED","agent_removed":{"agent_id":{"value":"S7"}}}"#).unwrap();
    assert_eq!(live.snapshot().tasks.len(), 2_970);
}
