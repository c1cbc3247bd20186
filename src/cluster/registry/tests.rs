//! What is read of documents, and what is kept over a fail-over.

use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::cluster::Snapshot;
use crate::dns::zones::Directory;
use crate::mesos;

const PATIENCE: Duration = Duration::from_secs(900);

fn capture(name: &str) -> Snapshot {
    let path = format!("{}/tests/fixtures/captures/{name}", env!("CARGO_MANIFEST_DIR"));
    mesos::parse(&std::fs::read(path).unwrap(), None).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// `task.framework agent-address` of everything.
fn show(directory: &Directory) -> Vec<String> {
    let tasks = directory.groups().flat_map(|(number, group)| {
        directory.tasks(number, None).map(move |(task, entry)| {
            let agent = directory.agent_address(entry).map(|a| a.to_string()).unwrap_or_default();
            format!("{}.{} {agent}", task.label, group.label)
        })
    });
    tasks.collect()
}

#[test]
fn every_running_task_has_a_name() {
    let snapshot = capture("master_state.json");
    assert_eq!(snapshot.names.leader, Some("127.0.0.1:5151".parse().unwrap()));
    let directory = Directory::default().learn(&snapshot, at(0), PATIENCE);
    let names = show(&directory);
    for expected in [
        "kafka-2-broker.devkafka 127.0.0.3",
        "odd.kafka 127.0.0.2",
        "web-dev.marathon 127.0.0.2",
        "web-dev.marathon 127.0.0.3",
        "netpod-pods.marathon 127.0.0.3",
    ] {
        assert!(names.iter().any(|name| name == expected), "{expected} in {names:?}");
    }
    // Staging and starting tasks have none.
    assert!(!names.iter().any(|name| name.starts_with("sta")), "{names:?}");
    assert_eq!(directory.len(), snapshot.names.len());
    let marathon = directory.groups().find(|(_, group)| group.name == "marathon").unwrap().0;
    let tasks: Vec<_> = directory.tasks(marathon, Some("two-nets")).collect();
    let addresses: Vec<String> = tasks[0].0.addresses.iter().map(ToString::to_string).collect();
    assert_eq!((tasks.len(), addresses), (1, vec!["9.0.2.4".into(), "fd01:b::4".into(), "9.0.1.5".into()]));
}

#[test]
fn v0_and_v1_agree() {
    let show = |name: &str| {
        let mut names = show(&Directory::default().learn(&capture(name), at(0), PATIENCE));
        names.sort();
        names
    };
    assert_eq!(show("master_state.json"), show("v1_master_get_state.json"));
}

#[test]
fn names_stay_until_their_agents_are_back() {
    let before = Directory::default().learn(&capture("master_state.json"), at(0), PATIENCE);
    let mut elected = capture("master_state.json");
    let mut master = elected.master.clone().unwrap();
    master.id.push('x');
    elected.master = Some(master);
    // The new master knows one agent, on which one task has ended since.
    let back = elected.agents.keys().next_back().unwrap().clone();
    elected.agents.retain(|agent, _| *agent == back);
    let known = elected.names.clone();
    elected.names = Default::default();
    let after = before.learn(&elected, at(10), PATIENCE);
    let gone = show(&before).len() - show(&after).len();
    let of_back = show(&before).iter().filter(|name| name.ends_with("127.0.0.4")).count();
    assert_eq!(gone, of_back, "{:?}", show(&after));
    assert!(after.is_holding());
    // Still so with the next document, and over another fail-over.
    assert_eq!(show(&after.learn(&elected, at(20), PATIENCE)), show(&after));
    // All are back.
    let mut whole = capture("master_state.json");
    whole.master.clone_from(&elected.master);
    let restored = after.learn(&whole, at(30), PATIENCE);
    assert_eq!((show(&restored), restored.is_holding()), (show(&before), false));
    // Or they never come.
    let late = after.learn(&elected, at(1000), PATIENCE);
    assert_eq!((late.len(), late.is_holding()), (0, false));
    assert!(!known.is_empty());
}

#[test]
fn a_vanished_task_loses_its_name_at_once() {
    let mut snapshot = capture("master_state.json");
    let before = Directory::default().learn(&snapshot, at(0), PATIENCE);
    snapshot.names = Default::default();
    assert!(before.learn(&snapshot, at(2), PATIENCE).is_empty());
}

#[test]
fn hashes_are_those_of_mesos_dns() {
    // z-base-32 of da39a3ee, how the SHA-1 of nothing starts.
    assert_eq!(hash("").as_slice(), b"5eh48");
}
