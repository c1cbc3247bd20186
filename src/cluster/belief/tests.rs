use super::*;
use crate::cluster::Snapshot;
use crate::mesos;

const PATIENCE: Patience =
    Patience { failover: Duration::from_secs(900), mass_loss: 3, spacing: Duration::ZERO };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// A document of `master` with an agent and one task for each of `agents`, awaiting `recovered`.
fn document(master: &str, agents: &[&str], recovered: &[&str]) -> Snapshot {
    let slaves: Vec<String> =
        agents.iter().map(|id| format!(r#"{{"id":"{id}","pid":"slave(1)@10.0.0.1:5051"}}"#)).collect();
    let awaited: Vec<String> = recovered.iter().map(|id| format!(r#"{{"id":"{id}"}}"#)).collect();
    let tasks: Vec<String> = agents
        .iter()
        .map(|id| {
            format!(
                r#"{{"id":"task-{id}","framework_id":"F","slave_id":"{id}","state":"TASK_RUNNING","discovery":
                {{"ports":{{"ports":[{{"number":80,"protocol":"tcp","labels":{{"labels":
                [{{"key":"VIP_0","value":"w:80"}}]}}}}]}}}}}}"#
            )
        })
        .collect();
    let text = format!(
        r#"{{"id":"{master}","elected_time":1.0,"slaves":[{}],"recovered_slaves":[{}],"frameworks":
        [{{"id":"F","name":"marathon","tasks":[{}]}}]}}"#,
        slaves.join(","),
        awaited.join(","),
        tasks.join(",")
    );
    mesos::parse(text.as_bytes(), None).unwrap()
}

fn take(
    belief: &mut Belief,
    document: Snapshot,
    now: Timestamp,
    patience: Patience,
) -> (Arc<Snapshot>, Vec<HoldReason>) {
    let Accepted { snapshot, held, .. } = belief.take(Arc::new(document), now, patience);
    (snapshot, held)
}

fn tasks(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.tasks.keys().map(|key| &*key.task).collect()
}

#[test]
fn a_new_master_that_knows_nothing_yet_takes_nothing_away() {
    let mut belief = Belief::default();
    take(&mut belief, document("A", &["S1", "S2"], &[]), at(0), PATIENCE);
    // The sequence of a real fail-over: empty, then agent by agent.
    let (snapshot, held) = take(&mut belief, document("B", &[], &["S1", "S2"]), at(2), PATIENCE);
    assert_eq!(tasks(&snapshot), ["task-S1", "task-S2"]);
    assert!(matches!(held.as_slice(), [HoldReason::Failover { tasks: 2, agents: 2, .. }]), "{held:?}");
    let (snapshot, held) = take(&mut belief, document("B", &["S2"], &["S1"]), at(4), PATIENCE);
    assert_eq!(tasks(&snapshot), ["task-S1", "task-S2"]);
    assert!(matches!(held.as_slice(), [HoldReason::Failover { tasks: 1, agents: 1, .. }]), "{held:?}");
    let (snapshot, held) = take(&mut belief, document("B", &["S1", "S2"], &[]), at(6), PATIENCE);
    assert_eq!((tasks(&snapshot).len(), held.len()), (2, 0));
    assert!(snapshot.agents.contains_key("S1"), "backends need their agents");
}

/// A task whose agent no document has listed is held like any other, and so has a reason.
#[test]
fn a_task_without_its_agent_is_held_with_a_reason() {
    let mut belief = Belief::default();
    let mut first = document("A", &["S1", "S2"], &[]);
    first.agents.remove("S2");
    take(&mut belief, first, at(0), PATIENCE);
    let (snapshot, held) = take(&mut belief, document("A", &["S1"], &["S2"]), at(2), PATIENCE);
    assert_eq!(tasks(&snapshot), ["task-S1", "task-S2"]);
    assert!(matches!(held.as_slice(), [HoldReason::Failover { tasks: 1, .. }]), "{held:?}");
    let (snapshot, held) = take(&mut belief, document("A", &["S1"], &["S2"]), at(902), PATIENCE);
    assert_eq!((tasks(&snapshot), held.len()), (vec!["task-S1"], 0), "not held for ever");
}

#[test]
fn agents_that_never_come_back_are_given_up_after_the_grace_period() {
    let mut belief = Belief::default();
    take(&mut belief, document("A", &["S1", "S2"], &[]), at(0), PATIENCE);
    for seconds in [1, 60, 240, 899] {
        let (snapshot, held) = take(&mut belief, document("B", &[], &[]), at(seconds), PATIENCE);
        assert_eq!((tasks(&snapshot).len(), held.len()), (2, 1), "after {seconds} s");
    }
    let (snapshot, held) = take(&mut belief, document("B", &[], &[]), at(901), PATIENCE);
    assert_eq!((tasks(&snapshot).len(), held.len()), (0, 0));
}

#[test]
fn a_second_failover_prolongs_the_first() {
    let mut belief = Belief::default();
    take(&mut belief, document("A", &["S1"], &[]), at(0), PATIENCE);
    take(&mut belief, document("B", &[], &[]), at(800), PATIENCE);
    let (snapshot, _) = take(&mut belief, document("C", &[], &[]), at(1600), PATIENCE);
    assert_eq!(tasks(&snapshot), ["task-S1"]);
    let (snapshot, _) = take(&mut belief, document("C", &[], &[]), at(2399), PATIENCE);
    assert_eq!(tasks(&snapshot), ["task-S1"]);
}

#[test]
fn an_agent_that_is_back_speaks_for_itself() {
    let mut belief = Belief::default();
    take(&mut belief, document("A", &["S1", "S2"], &[]), at(0), PATIENCE);
    let mut back = document("B", &["S1", "S2"], &[]);
    let key = back.tasks.keys().next().unwrap().clone();
    back.tasks.remove(&key);
    let (snapshot, held) = take(&mut belief, back, at(5), PATIENCE);
    assert_eq!((tasks(&snapshot), held.len()), (vec!["task-S2"], 0));
}

/// What a master answers to a client that may not see tasks any more.
#[test]
fn tasks_that_vanish_without_a_trace_are_believed_gone_only_after_a_while() {
    let capture = |name: &str| {
        let path = format!("{}/tests/fixtures/captures/{name}", env!("CARGO_MANIFEST_DIR"));
        mesos::parse(&std::fs::read(path).unwrap(), None).unwrap()
    };
    let mut full = capture("master_state.json");
    let mut filtered = capture("master_state_acl_filtered.json");
    // The two were captured from different masters.
    full.master = None;
    filtered.master = None;
    let mut belief = Belief::default();
    let count = take(&mut belief, full, at(0), PATIENCE).0.tasks.len();
    for documents in [3, 2, 1] {
        let (snapshot, held) = take(&mut belief, filtered.clone(), at(2), PATIENCE);
        assert_eq!(snapshot.tasks.len(), count);
        assert_eq!(held, [HoldReason::MassLoss { tasks: count, of: count, documents }]);
    }
    let (snapshot, held) = take(&mut belief, filtered, at(8), PATIENCE);
    assert_eq!((snapshot.tasks.len(), held.len()), (0, 0));
}

#[test]
fn tasks_that_ended_are_gone_at_once() {
    let mut belief = Belief::default();
    let before = document("A", &["S1", "S2"], &[]);
    take(&mut belief, before.clone(), at(0), PATIENCE);
    let mut after = document("A", &["S1"], &[]);
    after.tasks.clear();
    after.ended.extend(before.tasks.keys().cloned());
    let (snapshot, held) = take(&mut belief, after, at(2), PATIENCE);
    assert_eq!((snapshot.tasks.len(), held.len()), (0, 0));
}

#[test]
fn a_loss_that_heals_is_forgotten() {
    let mut belief = Belief::default();
    let full = || document("A", &["S1", "S2", "S3"], &[]);
    take(&mut belief, full(), at(0), PATIENCE);
    for round in 0..10 {
        let (snapshot, _) = take(&mut belief, document("A", &["S1"], &[]), at(round), PATIENCE);
        assert_eq!(snapshot.tasks.len(), 3);
        take(&mut belief, full(), at(round), PATIENCE);
    }
}

#[test]
fn a_daemon_that_starts_during_a_failover_goes_on_from_what_was_believed() {
    let mut belief = Belief::resume(Some(document("A", &["S1", "S2"], &[])));
    let (snapshot, held) = take(&mut belief, document("B", &[], &["S1", "S2"]), at(0), PATIENCE);
    assert_eq!((tasks(&snapshot).len(), held.len()), (2, 1));
    // What was believed may already be of the new master.
    let (believed, _) = take(&mut belief, document("B", &["S1"], &["S2"]), at(1), PATIENCE);
    let mut again = Belief::resume(Some(Snapshot::clone(&believed)));
    let (snapshot, held) = take(&mut again, document("B", &["S1"], &["S2"]), at(2), PATIENCE);
    assert_eq!(tasks(&snapshot), ["task-S1", "task-S2"]);
    assert!(matches!(held.as_slice(), [HoldReason::Failover { tasks: 1, .. }]), "{held:?}");
}

#[test]
fn a_daemon_that_starts_in_another_cluster_forgets_the_first_one() {
    let mut belief = Belief::resume(Some(document("A", &["S1", "S2"], &[])));
    let (snapshot, _) = take(&mut belief, document("B", &[], &[]), at(0), PATIENCE);
    assert_eq!(tasks(&snapshot).len(), 2, "an empty document says nothing about which cluster it is of");
    let (snapshot, held) = take(&mut belief, document("B", &["T1"], &[]), at(1), PATIENCE);
    assert_eq!((tasks(&snapshot), held.len()), (vec!["task-T1"], 0));
}

/// `document` with the task of `agent` in the list `list`, in `state`.
fn without(agent: &str, list: &str, state: &str) -> Snapshot {
    let text = format!(
        r#"{{"id":"A","elected_time":1.0,"slaves":[],"frameworks":[{{"id":"F","name":"marathon","tasks":[],
        "{list}":[{{"id":"task-{agent}","framework_id":"F","state":"{state}"}}]}}]}}"#
    );
    mesos::parse(text.as_bytes(), None).unwrap()
}

#[test]
fn tasks_of_a_lost_agent_are_remembered_as_long_as_the_master_lists_them() {
    for (list, state, remembered) in [
        ("unreachable_tasks", "TASK_UNREACHABLE", true),
        ("unreachable_tasks", "TASK_LOST", true),
        ("completed_tasks", "TASK_GONE_BY_OPERATOR", true),
        ("completed_tasks", "TASK_KILLED", false),
        ("completed_tasks", "TASK_LOST", false),
    ] {
        let mut belief = Belief::default();
        take(&mut belief, document("A", &["S1"], &[]), at(0), PATIENCE);
        let (snapshot, held) = take(&mut belief, without("S1", list, state), at(2), PATIENCE);
        let found: Vec<TaskState> = snapshot.tasks.values().map(|task| task.state).collect();
        assert_eq!(found, if remembered { vec![TaskState::Lost] } else { vec![] }, "{list} {state}");
        assert_eq!(held, [], "{list} {state}");
        let (snapshot, _) = take(&mut belief, document("A", &["S1"], &[]), at(4), PATIENCE);
        assert_eq!(snapshot.tasks.values().next().unwrap().state, TaskState::Running);
        let (snapshot, _) = take(&mut belief, without("S2", list, state), at(6), PATIENCE);
        assert_eq!(snapshot.tasks.len(), 1, "held as lost without a trace");
    }
}

#[test]
fn an_operator_can_give_up_what_is_held() {
    let mut belief = Belief::default();
    take(&mut belief, document("A", &["S1", "S2", "S3"], &[]), at(0), PATIENCE);
    let (_, held) = take(&mut belief, document("A", &[], &[]), at(2), PATIENCE);
    assert!(matches!(held.as_slice(), [HoldReason::MassLoss { tasks: 3, .. }]));
    assert_eq!(tasks(&belief.accept(Arc::new(document("A", &[], &[]))).snapshot), [""; 0]);
    let (snapshot, held) = take(&mut belief, document("A", &[], &[]), at(4), PATIENCE);
    assert_eq!((tasks(&snapshot).len(), held.len()), (0, 0));
}

/// A recorded fail-over, poll by poll: who leads, which agents are there and how many tasks.
fn recorded(text: &str) -> Vec<(f64, Option<Snapshot>)> {
    #[derive(serde::Deserialize)]
    struct Poll {
        t: f64,
        master_id: Option<String>,
        #[serde(default)]
        slaves: Vec<(String, bool)>,
        #[serde(default)]
        recovered_slaves: Vec<String>,
    }

    let poll = |line: &str| {
        let poll: Poll = serde_json::from_str(line).unwrap();
        let agents: Vec<&str> = poll.slaves.iter().map(|(name, _)| name.as_str()).collect();
        let awaited: Vec<&str> = poll.recovered_slaves.iter().map(String::as_str).collect();
        (poll.t, poll.master_id.map(|master| document(&master, &agents, &awaited)))
    };
    text.lines().map(poll).collect()
}

#[test]
fn no_task_is_missing_at_any_time_of_a_recorded_failover() {
    for text in [
        include_str!("../../../tests/fixtures/captures/failover_poll.jsonl"),
        include_str!("../../../tests/fixtures/captures/failover_late_poll.jsonl"),
    ] {
        let mut belief = Belief::default();
        let polls = recorded(text);
        let start = polls[0].0;
        let before = polls[0].1.clone().unwrap().tasks.len();
        assert!(before > 0 && polls.iter().filter(|(_, answer)| answer.is_some()).count() > 2);
        for (time, answer) in polls {
            // Whoever gets no answer goes on as before.
            let Some(answer) = answer else { continue };
            let (snapshot, _) = take(&mut belief, answer, at((time - start) as i64), PATIENCE);
            assert_eq!(snapshot.tasks.len(), before, "after {} s", time - start);
        }
    }
}

/// Events may bring many documents in a second, which say nothing that the first one did not.
#[test]
fn documents_in_quick_succession_count_once() {
    let patience = Patience { spacing: Duration::from_secs(1), ..PATIENCE };
    let mut belief = Belief::default();
    take(&mut belief, document("M", &["A", "B"], &[]), at(0), patience);
    let mut lost = document("M", &["A", "B"], &[]);
    lost.tasks.clear();
    for _ in 0..10 {
        let (snapshot, held) = take(&mut belief, lost.clone(), at(10), patience);
        assert_eq!((snapshot.tasks.len(), held.len()), (2, 1));
    }
    let mut taken = |second| take(&mut belief, lost.clone(), at(second), patience).0.tasks.len();
    assert_eq!([taken(11), taken(12), taken(13)], [2, 2, 0]);
}

/// Names of the registry's tasks on each agent.
fn named(snapshot: &Snapshot) -> Vec<(String, String)> {
    let tasks = snapshot.names.tasks.values();
    tasks.map(|task| (task.agent.to_string(), task.label.to_string())).collect()
}

/// A task with a name and without a VIP on each of `agents`.
fn unlabelled(master: &str, agents: &[&str]) -> Snapshot {
    let slaves: Vec<String> =
        agents.iter().map(|id| format!(r#"{{"id":"{id}","pid":"slave(1)@10.0.0.1:5051"}}"#)).collect();
    let tasks: Vec<String> = agents
        .iter()
        .map(|id| {
            format!(
                r#"{{"id":"db-{id}","name":"db-{id}","framework_id":"F","slave_id":"{id}","state":"TASK_RUNNING"}}"#
            )
        })
        .collect();
    let text = format!(
        r#"{{"id":"{master}","elected_time":1.0,"slaves":[{}],"frameworks":[{{"id":"F","name":"marathon","tasks":[{}]}}]}}"#,
        slaves.join(","),
        tasks.join(",")
    );
    mesos::parse(text.as_bytes(), None).unwrap()
}

#[test]
fn names_of_tasks_without_vips_are_held_over_a_failover_and_given_up_with_it() {
    let mut belief = Belief::default();
    take(&mut belief, unlabelled("A", &["S1", "S2"]), at(0), PATIENCE);
    let half = || Arc::new(unlabelled("B", &["S2"]));
    let accepted = belief.take(half(), at(10), PATIENCE);
    let held = [("S2", "db-s2"), ("S1", "db-s1")].map(|(agent, name)| (agent.to_owned(), name.to_owned()));
    assert_eq!(named(&accepted.snapshot), held);
    assert!(accepted.is_holding && accepted.held.is_empty(), "no VIP is concerned");
    assert!(accepted.snapshot.agents.contains_key("S1"), "names need their agents' addresses");
    // Seen again, nothing is kept twice.
    assert_eq!(named(&belief.take(half(), at(20), PATIENCE).snapshot), held);
    let accepted = belief.take(half(), at(911), PATIENCE);
    assert_eq!(named(&accepted.snapshot).len(), 1);
    assert!(!accepted.is_holding);
}

#[test]
fn an_operator_gives_up_names_as_well() {
    let mut belief = Belief::default();
    take(&mut belief, unlabelled("A", &["S1", "S2"]), at(0), PATIENCE);
    take(&mut belief, unlabelled("B", &["S2"]), at(10), PATIENCE);
    let accepted = belief.accept(Arc::new(unlabelled("B", &["S2"])));
    assert_eq!(named(&accepted.snapshot).len(), 1);
    assert_eq!(named(&belief.take(Arc::new(unlabelled("B", &["S2"])), at(30), PATIENCE).snapshot).len(), 1);
}

#[test]
fn names_are_held_with_a_mass_loss() {
    let both = |tasks: bool| {
        let mut document = document("A", &["S1", "S2"], &[]);
        if tasks {
            document.names = unlabelled("A", &["S1", "S2"]).names;
        } else {
            document.tasks.clear();
            document.names = Arc::default();
        }
        document
    };
    let mut belief = Belief::default();
    take(&mut belief, both(true), at(0), PATIENCE);
    for documents in [3, 2, 1] {
        let (snapshot, held) = take(&mut belief, both(false), at(1), PATIENCE);
        assert_eq!(held, [HoldReason::MassLoss { tasks: 2, of: 2, documents }]);
        assert_eq!(named(&snapshot).len(), 2);
    }
    assert_eq!(named(&take(&mut belief, both(false), at(2), PATIENCE).0), []);
}

/// A document that lacks nothing is passed on without a copy.
#[test]
fn nothing_is_copied_where_nothing_is_held() {
    let mut belief = Belief::default();
    for _ in 0..2 {
        let document = Arc::new(document("A", &["S1"], &[]));
        assert!(Arc::ptr_eq(&belief.take(Arc::clone(&document), at(0), PATIENCE).snapshot, &document));
    }
}

/// A document of `master` with agents S0 and S1 at one address and these tasks, each with its agent, the VIP
/// that it asks for and its list; all have port 31000 of the agent.
fn reuse(master: &str, agents: &[&str], tasks: &[(&str, &str, &str)]) -> Snapshot {
    let slaves: Vec<String> =
        agents.iter().map(|id| format!(r#"{{"id":"{id}","pid":"slave(1)@10.0.0.1:5051"}}"#)).collect();
    let listed = |wanted: &str| -> String {
        let here = tasks.iter().filter(|(_, _, list)| *list == wanted);
        let texts = here.map(|(id, agent, _)| {
            format!(
                r#"{{"id":"{id}","name":"{id}","framework_id":"F","slave_id":"{agent}","state":"TASK_RUNNING",
                "resources":{{"ports":"[31000-31000]"}},"discovery":{{"ports":{{"ports":[{{"number":31000,
                "protocol":"tcp","labels":{{"labels":[{{"key":"VIP_0","value":"{id}:80"}},
                {{"key":"network-scope","value":"host"}}]}}}}]}}}}}}"#
            )
        });
        texts.collect::<Vec<_>>().join(",")
    };
    let text = format!(
        r#"{{"id":"{master}","elected_time":1.0,"slaves":[{}],"frameworks":[{{"id":"F","name":"marathon",
        "tasks":[{}],"unreachable_tasks":[{}]}}]}}"#,
        slaves.join(","),
        listed("tasks"),
        listed("unreachable_tasks").replace("TASK_RUNNING", "TASK_UNREACHABLE")
    );
    mesos::parse(text.as_bytes(), None).unwrap()
}

#[test]
fn a_task_that_is_kept_ends_when_another_has_its_address_and_port() {
    let (old, new) = (("a", "S0", "tasks"), ("b", "S1", "tasks"));
    let lost = ("a", "S0", "unreachable_tasks");
    for (name, kept, taken, freed) in [
        (
            "lost",
            reuse("A", &["S1"], &[lost]),
            reuse("A", &["S1"], &[lost, new]),
            reuse("A", &["S1"], &[lost]),
        ),
        ("fail-over", reuse("B", &["S1"], &[]), reuse("B", &["S1"], &[new]), reuse("B", &["S1"], &[])),
        ("doubted", reuse("A", &["S1"], &[]), reuse("A", &["S1"], &[new]), reuse("A", &["S1"], &[])),
    ] {
        let mut belief = Belief::default();
        take(&mut belief, reuse("A", &["S0", "S1"], &[old]), at(0), PATIENCE);
        let (snapshot, _) = take(&mut belief, kept, at(1), PATIENCE);
        assert_eq!(tasks(&snapshot), ["a"], "{name}");
        assert_eq!(snapshot.kept.len(), 1, "{name}");
        let accepted = belief.take(Arc::new(taken), at(2), PATIENCE);
        assert_eq!(tasks(&accepted.snapshot), ["b"], "{name}");
        assert_eq!(named(&accepted.snapshot), [("S1".to_owned(), "b".to_owned())], "{name}");
        let [Displaced { task, address, holder }] = accepted.displaced.as_slice() else { panic!("{name}") };
        assert_eq!((&*task.task, address.port(), holder.task.as_str()), ("a", 31000, "b"), "{name}");
        // It was gone for certain, and does not come back in its place.
        let (snapshot, _) = take(&mut belief, freed, at(3), PATIENCE);
        assert!(!tasks(&snapshot).contains(&"a"), "{name}");
    }
}

/// What a master before Mesos 1.2 says after a fail-over: tasks of a framework that has not registered again,
/// whose name it does not know.
#[test]
fn tasks_of_a_framework_that_an_old_master_does_not_know_keep_its_name() {
    let known = document("A", &["S1"], &[]);
    let text = r#"{"id":"B","elected_time":2.0,"version":"1.1.3","slaves":[{"id":"S1","pid":"slave(1)@10.0.0.1:5051"}],
        "frameworks":[],"completed_frameworks":[],"unregistered_frameworks":["F"],"orphan_tasks":[{"id":"task-S1",
        "name":"web","framework_id":"F","slave_id":"S1","state":"TASK_RUNNING","discovery":{"ports":{"ports":[
        {"number":80,"protocol":"tcp","labels":{"labels":[{"key":"VIP_0","value":"w:80"}]}}]}}}]}"#;
    let orphaned = || mesos::parse(text.as_bytes(), None).unwrap();
    let mut belief = Belief::default();
    take(&mut belief, known.clone(), at(0), PATIENCE);
    for second in [1, 2] {
        let (snapshot, held) = take(&mut belief, orphaned(), at(second), PATIENCE);
        assert_eq!((snapshot.tasks.values().next().unwrap().state, held.len()), (TaskState::Running, 0));
        assert_eq!(snapshot.frameworks.get("F").unwrap(), "marathon");
        assert!(snapshot.kept.is_empty() && snapshot.names.len() == 1, "the master lists it");
    }
    assert_eq!(belief.accept(Arc::new(orphaned())).snapshot.frameworks.get("F").unwrap(), "marathon");
    let mut restarted = Belief::resume(Some(known));
    assert_eq!(take(&mut restarted, orphaned(), at(3), PATIENCE).0.frameworks.get("F").unwrap(), "marathon");
}

#[test]
fn holds_go_on_after_a_restart() {
    let mut belief = Belief::default();
    take(&mut belief, document("A", &["S1", "S2"], &[]), at(0), PATIENCE);
    let accepted = belief.take(Arc::new(document("B", &["S1"], &["S2"])), at(100), PATIENCE);
    assert_eq!(accepted.holds, Holds { failover: Some(at(1000)), losses: 0 });
    let restarted = || Belief::resume(Some(Snapshot::clone(&accepted.snapshot))).holding(accepted.holds);
    for (second, expected) in [(999, 2), (1000, 1)] {
        let (snapshot, _) = take(&mut restarted(), document("B", &["S1"], &["S2"]), at(second), PATIENCE);
        assert_eq!(snapshot.tasks.len(), expected, "after {second} s");
    }
    let (snapshot, held) = take(&mut restarted(), document("B", &["S1", "S2"], &[]), at(500), PATIENCE);
    assert_eq!((snapshot.tasks.len(), held.len()), (2, 0), "all agents are back");
    let accepted = restarted().take(Arc::new(document("C", &["T1"], &[])), at(500), PATIENCE);
    assert_eq!(
        (tasks(&accepted.snapshot), accepted.holds),
        (vec!["task-T1"], Holds::default()),
        "another cluster"
    );
}

#[test]
fn documents_that_agree_count_over_a_restart() {
    let mut belief = Belief::default();
    let mut lost = document("A", &["S1", "S2"], &[]);
    lost.tasks.clear();
    take(&mut belief, document("A", &["S1", "S2"], &[]), at(0), PATIENCE);
    for (second, expected) in [(1, 2), (2, 2), (3, 2), (4, 0)] {
        let accepted = belief.take(Arc::new(lost.clone()), at(second), PATIENCE);
        assert_eq!(accepted.snapshot.tasks.len(), expected, "document {second}");
        belief = Belief::resume(Some(Snapshot::clone(&accepted.snapshot))).holding(accepted.holds);
    }
}
