//! Directories that follow random changes, against directories that are made anew.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cluster::registry::{Described, NamedPort};
use crate::cluster::{Agent, Protocol, TaskKey};

/// A task: framework, name, agent, address of its container, and whether it has a port.
type IndexedTask = (u8, u8, u8, Option<u8>, bool);

/// Names some of which are names as written, and one that is none.
const NAMES: [&str; 6] = ["web", "web", "api.team", "b.team", "Web", "--"];

fn any_task() -> impl Strategy<Value = IndexedTask> {
    let agent = prop_oneof![60 => 0..3u8, 1 => Just(3u8)];
    (0..3u8, 0..6u8, agent, prop::option::of(0..3u8), any::<bool>())
}

fn snapshot(tasks: &BTreeMap<u16, IndexedTask>) -> Snapshot {
    let agent = |number: u8| Agent {
        hostname: format!("10.0.0.{number}"),
        address: Some([10, 0, 0, number].into()),
        port: Some(5051),
    };
    let mut snapshot = Snapshot::default();
    // The last one has not registered.
    snapshot.agents.extend((0..3).map(|number| (format!("S-{number}"), agent(number))));
    // The last framework has no name, and the others have the same.
    snapshot.frameworks.extend(["F0", "F1"].map(|id| (id.to_owned(), "marathon".to_owned())));
    let names = Arc::make_mut(&mut snapshot.names);
    for (id, (framework, name, agent, address, has_port)) in tasks {
        let key = TaskKey { framework: format!("F{framework}").into(), task: format!("t{id}").into() };
        let port = NamedPort { label: "http".into(), protocol: Some(Protocol::Tcp), number: 80 };
        let described = Described {
            name: NAMES[usize::from(*name)],
            addresses: address.iter().map(|last| [9, 0, 0, *last].into()).collect(),
            ports: has_port.then(|| vec![port]),
            ..Described::default()
        };
        let (key, task) = RegisteredTask::new(&key, format!("S-{agent}").into(), described);
        names.add(key, task);
    }
    snapshot
}

/// Everything that answers are made from, without the numbers of the tasks.
fn shown(directory: &Directory) -> impl PartialEq + std::fmt::Debug {
    let show = |entry: &TaskEntry| {
        let task = directory.task(entry).unwrap().clone();
        (
            entry.group,
            directory.agent_tail(entry).to_owned(),
            directory.turned(entry).map(str::to_owned),
            task,
        )
    };
    // Tasks that differ in nothing that they are sorted by have no order.
    let sorted = |entries: &[TaskEntry]| {
        let mut all: Vec<_> = entries.iter().map(show).collect();
        all.sort_by_key(|shown| (shown.0, shown.3.label.clone(), shown.1.clone(), format!("{shown:?}")));
        all
    };
    let is_sorted = directory.entries.is_sorted_by_key(|entry| directory.by_label(entry))
        && directory.written.is_sorted_by_key(|entry| directory.by_written(entry));
    (
        (sorted(&directory.entries), sorted(&directory.written), is_sorted),
        (directory.traits.clone(), directory.written_traits.clone(), directory.group_traits.clone()),
        directory.groups.clone(),
    )
}

proptest! {
    #![proptest_config(crate::units::cases(256))]
    #[test]
    fn a_directory_that_follows_is_the_one_that_is_made_anew(
        first in prop::collection::btree_map(0..150u16, any_task(), 0..150),
        steps in prop::collection::vec(
            prop::collection::vec((0..150u16, prop::option::weighted(0.6, any_task())), 1..30),
            1..6,
        ),
    ) {
        let mut tasks = first;
        let mut before = snapshot(&tasks);
        let mut directory = Directory::new(&before);
        for step in steps {
            for (id, task) in step {
                match task {
                    Some(task) => drop(tasks.insert(id, task)),
                    None => drop(tasks.remove(&id)),
                }
            }
            let after = snapshot(&tasks).sharing(&before);
            let whole = Directory::new(&after);
            if let Some(followed) = directory.follow(&before, &after) {
                prop_assert_eq!(shown(&followed), shown(&whole));
                directory = followed;
            } else {
                directory = whole;
            }
            before = after;
        }
    }
}

/// Tasks of one large app.
fn large(tasks: u16) -> BTreeMap<u16, IndexedTask> {
    (0..tasks).map(|id| (id, (0, 0, (id % 3) as u8, Some(1), true))).collect()
}

#[test]
fn a_task_that_comes_or_goes_costs_the_same_whatever_the_number_of_tasks() {
    let mut costs = Vec::new();
    for size in [1_000, 20_000] {
        let mut tasks = large(size);
        let before = snapshot(&tasks);
        let directory = Directory::new(&before);
        tasks.insert(size, (0, 2, 1, None, true));
        let more = snapshot(&tasks).sharing(&before);
        let added = directory.follow(&before, &more).unwrap();
        tasks.remove(&7);
        let fewer = snapshot(&tasks).sharing(&more);
        let removed = added.follow(&more, &fewer).unwrap();
        costs.push((added.tasks.copied(&directory.tasks), removed.tasks.copied(&added.tasks)));
        assert_eq!((added.len(), removed.len()), (usize::from(size) + 1, usize::from(size)));
        // What depends on all tasks of a name is counted, and not found anew.
        let web = |directory: &Directory| directory.named(0, "web").traits;
        assert!(web(&removed).may_have(Traits::CONTAINER4) && !web(&removed).may_have(Traits::CONTAINER6));
    }
    assert_eq!(costs, [(1, 1), (1, 1)], "chunks of tasks that are copied");
}

#[test]
fn a_directory_is_made_anew_where_more_than_tasks_differs() {
    let tasks = large(10);
    let before = snapshot(&tasks);
    let directory = Directory::new(&before);
    let mut other = before.clone();
    other.frameworks.insert("F9".to_owned(), "kafka".to_owned());
    assert!(directory.follow(&before, &other).is_none());
    let mut other = before.clone();
    other.agents.remove("S-0");
    assert!(directory.follow(&before, &other).is_none());
    // The group goes with its last task.
    assert!(directory.follow(&before, &snapshot(&BTreeMap::new())).is_none());
    assert!(directory.follow(&before, &before.clone()).is_some());
}
