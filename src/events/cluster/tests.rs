//! Events between two documents.

use super::*;
use crate::cluster::belief::{Belief, Patience};
use crate::mesos;
use crate::source::Failure;
use jiff::Timestamp;

/// A task of the app that its id begins with, on agent `S1` or `S2`, with a VIP.
fn task(id: &str, agent: &str, state: &str, healthy: Option<bool>) -> String {
    let healthy = healthy.map(|healthy| format!(r#","healthy":{healthy}"#)).unwrap_or_default();
    let app = id.split('.').next().unwrap();
    format!(
        r#"{{"id":"{id}","framework_id":"F","slave_id":"{agent}","state":"{state}",
        "statuses":[{{"state":"{state}","timestamp":1.0{healthy}}}],"discovery":{{"ports":{{"ports":[{{"number":80,
        "protocol":"tcp","labels":{{"labels":[{{"key":"VIP_0","value":"/{app}:80"}}]}}}}]}}}}}}"#
    )
}

fn document(master: &str, agents: &[&str], tasks: &[String]) -> Arc<Snapshot> {
    let agent = |id: &&str| {
        let number = id.trim_start_matches('S');
        format!(r#"{{"id":"{id}","hostname":"host-{number}","pid":"slave(1)@10.0.0.{number}:5051"}}"#)
    };
    let agents: Vec<String> = agents.iter().map(agent).collect();
    let text = format!(
        r#"{{"id":"{master}","elected_time":1.0,"slaves":[{}],"frameworks":[{{"id":"F","name":"marathon","tasks":[{}]}}]}}"#,
        agents.join(","),
        tasks.join(",")
    );
    Arc::new(mesos::parse(text.as_bytes(), None).unwrap())
}

/// Feeds as documents give them one after the other.
struct Documents {
    belief: Belief,
    feed: Feed,
}

impl Documents {
    fn new() -> Self {
        let feed = Feed { place: "http://m:5050/state".to_owned(), ..Feed::default() };
        Self { belief: Belief::default(), feed }
    }

    /// Returns the events of the next document, as kind, task and text.
    fn take(&mut self, document: Arc<Snapshot>) -> Vec<Happening> {
        let patience = Patience {
            failover: std::time::Duration::from_secs(900),
            mass_loss: 2,
            spacing: std::time::Duration::ZERO,
        };
        let accepted = self.belief.take(document, Timestamp::UNIX_EPOCH, patience);
        let after = Feed { accepted: Some(Arc::new(accepted)), ..self.feed.clone() };
        let happened = changes(&self.feed, &after);
        self.feed = after;
        happened
    }
}

fn kinds(happened: &[Happening]) -> Vec<(EventKind, &str)> {
    happened.iter().map(|what| (what.kind, what.task.as_str())).collect()
}

#[test]
fn the_life_of_a_task_is_told_with_its_vip_and_document() {
    let mut documents = Documents::new();
    let both = |state: &str, healthy| {
        [task("web.1", "S1", "TASK_RUNNING", None), task("web.2", "S1", state, healthy)]
    };
    let first = documents.take(document("M", &["S1"], &both("TASK_STAGING", None)[..1]));
    assert_eq!(kinds(&first), [(EventKind::FirstState, "")], "all of it is news");
    assert!(first[0].text.contains("1 tasks with VIPs on 1 agents"), "{}", first[0].text);
    for (state, healthy, kind, text) in [
        ("TASK_STAGING", None, EventKind::TaskStarted, "is starting"),
        ("TASK_RUNNING", Some(false), EventKind::TaskStarted, "waits for the first good result"),
        ("TASK_RUNNING", Some(true), EventKind::TaskHealthy, "takes connections"),
        ("TASK_RUNNING", Some(false), EventKind::TaskUnhealthy, "no new connections"),
        ("TASK_KILLING", Some(false), EventKind::TaskStopping, "told to stop"),
        ("TASK_KILLED", None, EventKind::TaskEnded, "ended after it was told to stop"),
    ] {
        let happened = documents.take(document("M", &["S1"], &both(state, healthy)));
        let [what] = happened.as_slice() else { panic!("{state}: {happened:?}") };
        assert!(what.kind == kind && what.text.contains(text), "{state}: {what:?}");
        assert_eq!((what.task.as_str(), what.app.as_str(), what.agent.as_str()), ("web.2", "web", "S1"));
        assert_eq!(what.vips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["tcp web.marathon:80"]);
        assert_eq!(what.cause, "document of http://m:5050/state, master M");
        assert!(documents.take(document("M", &["S1"], &both(state, healthy))).is_empty(), "said twice");
    }
}

#[test]
fn a_task_without_a_word_and_a_lost_agent_are_told_apart() {
    let mut documents = Documents::new();
    let tasks = ["a.1", "b.1", "c.1"].map(|id| task(id, "S1", "TASK_RUNNING", None));
    documents.take(document("M", &["S1"], &tasks));
    let next = [tasks[0].clone(), task("b.1", "S1", "TASK_UNREACHABLE", None)];
    let happened = documents.take(document("M", &["S1"], &next));
    assert_eq!(kinds(&happened), [(EventKind::TaskLost, "b.1"), (EventKind::TaskVanished, "c.1")]);
}

#[test]
fn a_fail_over_is_one_master_one_hold_and_a_line_for_all_agents() {
    let mut documents = Documents::new();
    let agents: Vec<String> = (1..=9).map(|number| format!("S{number}")).collect();
    let agents: Vec<&str> = agents.iter().map(String::as_str).collect();
    let tasks = [task("web.1", "S1", "TASK_RUNNING", None)];
    documents.take(document("M", &agents, &tasks));
    let happened = documents.take(document("N", &[], &[]));
    let [master, hold, gone] = happened.as_slice() else { panic!("{happened:?}") };
    assert_eq!(
        [master.kind, hold.kind, gone.kind],
        [EventKind::MasterChanged, EventKind::HoldBegun, EventKind::AgentGone]
    );
    assert!(hold.text.contains("1 tasks of 1 agents") && gone.text.ends_with("and 3 more"), "{happened:?}");
    let happened = documents.take(document("N", &agents, &tasks));
    let found: Vec<EventKind> = happened.iter().map(|what| what.kind).collect();
    assert_eq!(found, [EventKind::HoldOver, EventKind::AgentRegistered]);
}

#[test]
fn a_source_that_fails_is_told_once() {
    let mut documents = Documents::new();
    documents.take(document("M", &["S1"], &[]));
    let good = documents.feed.clone();
    let failure = |attempts| Failure { error: "no answer".to_owned(), at: Timestamp::UNIX_EPOCH, attempts };
    let bad = |attempts| Feed { failure: Some(failure(attempts)), ..good.clone() };
    let lost = changes(&good, &bad(1));
    assert_eq!((lost[0].kind, lost[0].text.as_str()), (EventKind::SourceLost, "no answer"));
    assert!(changes(&bad(1), &bad(2)).is_empty());
    let back = changes(&bad(2), &good);
    assert!(back[0].kind == EventKind::SourceRegained && back[0].text.contains("after 2 attempts"));
}

/// Of a document that changes everything each app has its share, and the number of the rest is told.
#[test]
fn a_flood_of_one_app_leaves_the_others_their_events() {
    let mut documents = Documents::new();
    documents.take(document("M", &["S1"], &[]));
    let mut tasks: Vec<String> =
        (0..3 * MOST).map(|number| task(&format!("loud.{number}"), "S1", "TASK_RUNNING", None)).collect();
    tasks.extend((0..7).map(|number| task(&format!("quiet.{number}"), "S1", "TASK_RUNNING", None)));
    let happened = documents.take(document("M", &["S1"], &tasks));
    let count = |app: &str| happened.iter().filter(|what| what.app == app).count();
    assert_eq!((count("quiet"), count("loud"), happened.len()), (7, MOST - 7, MOST + 1));
    let last = happened.last().unwrap();
    assert!(last.kind == EventKind::LeftOut && last.text.starts_with("at least 512 more tasks"), "{last:?}");
}
