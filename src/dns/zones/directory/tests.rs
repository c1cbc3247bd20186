//! What is indexed of captured documents, and of those that are completed over a fail-over.

use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::cluster::belief::{Accepted, Belief, Patience};
use crate::mesos;

const PATIENCE: Patience =
    Patience { failover: Duration::from_secs(900), mass_loss: 3, spacing: Duration::ZERO };

fn capture(name: &str) -> Snapshot {
    let path = format!("{}/tests/fixtures/captures/{name}", env!("CARGO_MANIFEST_DIR"));
    mesos::parse(&std::fs::read(path).unwrap(), None).unwrap()
}

/// `task.framework agent-address` of every task.
fn show(snapshot: &Snapshot) -> Vec<String> {
    let directory = Directory::new(snapshot);
    let tasks = directory.groups().flat_map(|(number, group)| {
        directory.tasks(number, None).map(|(task, entry)| {
            let agent = directory.agent_address(entry).map(|a| a.to_string()).unwrap_or_default();
            format!("{}.{} {agent}", task.label, group.label)
        })
    });
    tasks.collect()
}

/// What is believed of documents, one after another.
fn believe(belief: &mut Belief, document: &Snapshot, seconds: i64) -> Accepted {
    let now = Timestamp::from_second(seconds).unwrap();
    belief.take(Arc::new(document.clone()), now, PATIENCE)
}

#[test]
fn every_running_task_has_a_name() {
    let snapshot = capture("master_state.json");
    let directory = Directory::new(&snapshot);
    assert_eq!(directory.leader(), Some(([127, 0, 0, 1].into(), 5151)));
    let names = show(&snapshot);
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
        let mut names = show(&capture(name));
        names.sort();
        names
    };
    assert_eq!(show("master_state.json"), show("v1_master_get_state.json"));
}

#[test]
fn names_stay_until_their_agents_are_back() {
    let mut belief = Belief::default();
    let before = show(&believe(&mut belief, &capture("master_state.json"), 0).snapshot);
    let mut elected = capture("master_state.json");
    let mut master = elected.master.clone().unwrap();
    master.id.push('x');
    elected.master = Some(master);
    // The new master knows one agent, on which one task has ended since.
    let back = elected.agents.keys().next_back().unwrap().clone();
    elected.agents.retain(|agent, _| *agent == back);
    let known = elected.names.clone();
    elected.names = Default::default();
    let accepted = believe(&mut belief, &elected, 10);
    let after = show(&accepted.snapshot);
    let gone = before.len() - after.len();
    let of_back = before.iter().filter(|name| name.ends_with("127.0.0.4")).count();
    assert_eq!(gone, of_back, "{after:?}");
    assert!(accepted.is_holding);
    // Still so with the next document.
    assert_eq!(show(&believe(&mut belief, &elected, 20).snapshot), after);
    // Or they never come.
    let late = believe(&mut belief.clone(), &elected, 1000);
    assert_eq!((show(&late.snapshot).len(), late.is_holding), (0, false));
    // All are back.
    let mut whole = capture("master_state.json");
    whole.master.clone_from(&elected.master);
    let restored = believe(&mut belief, &whole, 30);
    assert_eq!((show(&restored.snapshot), restored.is_holding), (before, false));
    assert!(!known.is_empty());
}

#[test]
fn a_vanished_task_loses_its_name_at_once() {
    let mut belief = Belief::default();
    let mut snapshot = capture("master_state.json");
    assert!(!show(&believe(&mut belief, &snapshot, 0).snapshot).is_empty());
    snapshot.names = Default::default();
    assert_eq!(show(&believe(&mut belief, &snapshot, 2).snapshot), Vec::<String>::new());
}

#[test]
fn an_agent_without_an_address_and_a_framework_without_a_name_are_passed_over() {
    let mut snapshot = capture("master_state.json");
    let agent = snapshot.agents.values_mut().next().unwrap();
    let address = agent.address.take().unwrap();
    let directory = Directory::new(&snapshot);
    assert!(!directory.agents().any(|known| known == address));
    assert_eq!(directory.len(), snapshot.names.len(), "its tasks have names all the same");

    snapshot.frameworks.clear();
    assert!(Directory::new(&snapshot).is_empty());
}
