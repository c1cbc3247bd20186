use jiff::Timestamp;

use super::*;
use crate::marathon::{CheckResult, TaskResults};
use crate::mesos;

fn capture(name: &str) -> Snapshot {
    let path = format!("{}/tests/fixtures/captures/{name}", env!("CARGO_MANIFEST_DIR"));
    mesos::parse(&std::fs::read(path).unwrap(), None).unwrap()
}

/// A document of a master with these tasks (id, agent, state), on the agents A and B.
fn master(tasks: &[(&str, &str, &str)]) -> Snapshot {
    let tasks: Vec<String> = tasks.iter().map(task).collect();
    let text = format!(
        r#"{{"id":"M","elected_time":1.0,"slaves":[{{"id":"A","pid":"slave(1)@10.0.0.1:5051"}},
        {{"id":"B","pid":"slave(1)@10.0.0.2:5051"}}],"frameworks":[{{"id":"F","name":"marathon","tasks":[{}]}}]}}"#,
        tasks.join(",")
    );
    mesos::parse(text.as_bytes(), None).unwrap()
}

/// The same of the agent A.
fn agent(tasks: &[(&str, &str, &str)]) -> Snapshot {
    let tasks: Vec<String> = tasks.iter().map(task).collect();
    let text = format!(
        r#"{{"id":"A","hostname":"a","pid":"slave(1)@10.0.0.1:5051","frameworks":[{{"id":"F","name":"marathon",
        "executors":[{{"tasks":[{}]}}]}}]}}"#,
        tasks.join(",")
    );
    mesos::parse(text.as_bytes(), None).unwrap()
}

fn task((id, agent, state): &(&str, &str, &str)) -> String {
    format!(
        r#"{{"id":"{id}","framework_id":"F","slave_id":"{agent}","state":"{state}","discovery":
        {{"ports":{{"ports":[{{"number":80,"protocol":"tcp","labels":{{"labels":
        [{{"key":"VIP_0","value":"w:80"}}]}}}}]}}}}}}"#
    )
}

fn good<T>(snapshot: T) -> Option<Report<T>> {
    Some(Report {
        snapshot: Some(Arc::new(snapshot)),
        sequence: 1,
        good_at: Some(Timestamp::now()),
        place: "place".to_owned(),
        ..Report::default()
    })
}

fn failed<T>(report: Option<Report<T>>) -> Option<Report<T>> {
    let failure = Failure { error: "no answer".to_owned(), at: Timestamp::now(), attempts: 1 };
    report.map(|report| Report { failure: Some(failure), ..report })
}

fn combine(reports: LatestReports) -> Report {
    let mut report = Report::default();
    reports.combine(&mut report);
    report
}

/// Weights by task id.
fn weights(report: &Report) -> Vec<(String, u32)> {
    let tasks = report.snapshot.as_ref().unwrap().tasks.values();
    tasks.map(|task| (task.key.task.to_string(), u32::from(task.is_ready()))).collect()
}

fn list(tasks: &[(&str, u32)]) -> Vec<(String, u32)> {
    tasks.iter().map(|(id, weight)| ((*id).to_owned(), *weight)).collect()
}

const RUNNING: &str = "TASK_RUNNING";
const KILLING: &str = "TASK_KILLING";

#[test]
fn an_agent_knows_best_about_its_own_tasks() {
    let cluster = master(&[("killing", "A", RUNNING), ("gone", "A", RUNNING), ("other", "B", RUNNING)]);
    let own = agent(&[("killing", "A", KILLING), ("new", "A", RUNNING)]);
    let report =
        combine(LatestReports { cluster: good(cluster.clone()), agent: good(own.clone()), marathon: None });
    assert_eq!(weights(&report), list(&[("killing", 0), ("new", 1), ("other", 1)]));
    let snapshot = report.snapshot.unwrap();
    assert!(snapshot.ended.iter().any(|key| &*key.task == "gone"), "it did not just vanish");
    assert_eq!(snapshot.master, cluster.master);
    // While it does not answer, the masters' word counts; without masters, its last one.
    let report =
        combine(LatestReports { cluster: good(cluster), agent: failed(good(own.clone())), marathon: None });
    assert_eq!(weights(&report), list(&[("gone", 1), ("killing", 1), ("other", 1)]));
    assert!(report.failure.is_some());
    let report = combine(LatestReports { cluster: None, agent: failed(good(own)), marathon: None });
    assert_eq!(weights(&report), list(&[("killing", 0), ("new", 1)]));
}

/// Captured from one cluster at one time.
#[test]
fn a_real_agent_and_its_master_agree() {
    let (cluster, own) = (capture("master_state.json"), capture("agent_state.json"));
    let overlaid = overlay(&cluster, &own);
    let here = |snapshot: &Snapshot| -> Vec<_> {
        let tasks = snapshot.tasks.values().filter(|task| own.agents.contains_key(&*task.agent_id));
        tasks.map(|task| (task.key.clone(), task.state, task.healthy, task.ports.clone())).collect()
    };
    assert!(!here(&own).is_empty());
    assert_eq!(here(&overlaid), here(&own));
    assert_eq!(overlaid.agents.len(), cluster.agents.len());
}

#[test]
fn nothing_is_said_before_everybody_was_heard() {
    let cluster = || good(master(&[("t", "B", RUNNING)]));
    let silent = || Some(Report::default());
    let said = |reports| combine(reports).snapshot.is_some();
    assert!(!said(LatestReports { cluster: cluster(), agent: silent(), marathon: None }));
    assert!(!said(LatestReports { cluster: cluster(), agent: None, marathon: Some(Report::default()) }));
    assert!(said(LatestReports {
        cluster: cluster(),
        agent: None,
        marathon: failed(Some(Report::default()))
    }));
    assert!(said(LatestReports { cluster: cluster(), agent: failed(silent()), marathon: None }));
    // The masters' part can't be missing, lest the rest of the cluster seems lost.
    assert!(!said(LatestReports { cluster: silent(), agent: good(agent(&[])), marathon: None }));
    assert!(!said(LatestReports { cluster: failed(silent()), agent: good(agent(&[])), marathon: None }));
}

#[test]
fn marathons_verdicts_are_added_and_kept_while_it_is_away() {
    let mut view = MarathonView { framework: "F".into(), ..MarathonView::default() };
    view.verdicts.insert("sick".to_owned(), false);
    let cluster = || good(master(&[("sick", "B", RUNNING), ("well", "B", RUNNING)]));
    for marathon in [good(view.clone()), failed(good(view))] {
        let report = combine(LatestReports { cluster: cluster(), agent: None, marathon });
        assert_eq!(weights(&report), list(&[("sick", 0), ("well", 1)]));
    }
}

#[test]
fn marathons_verdicts_outlive_a_restart_while_it_is_away() {
    let cluster =
        || good(master(&[("web.1", "B", RUNNING), ("web.2", "B", RUNNING), ("other.1", "B", RUNNING)]));
    let mut memory = MarathonMemory::default();
    let mut view = MarathonView { framework: "F".into(), ..MarathonView::default() };
    view.apps.insert("web".to_owned(), true);
    let results =
        |health| TaskResults { health, readiness: CheckResult::Good, is_marathons: true, is_checked: true };
    view.results.insert("web.1".to_owned(), results(CheckResult::Good));
    view.results.insert("web.2".to_owned(), results(CheckResult::Bad));
    memory.judge(&mut view, Timestamp::UNIX_EPOCH);
    let remembered = Report { marathon: Some(Arc::new(memory)), ..Report::default() };
    let report =
        combine(LatestReports { cluster: cluster(), agent: None, marathon: failed(Some(remembered)) });
    assert_eq!(weights(&report), list(&[("other.1", 1), ("web.1", 1), ("web.2", 0)]));
    assert!(report.marathon.is_some(), "the next restart knows it too");

    // At the first start nothing is known, which is said.
    let report =
        combine(LatestReports { cluster: cluster(), agent: None, marathon: failed(Some(Report::default())) });
    assert_eq!(weights(&report), list(&[("other.1", 1), ("web.1", 1), ("web.2", 1)]));
    let skipped = &report.snapshot.as_ref().unwrap().skipped;
    assert!(skipped[0].reason.starts_with("no Marathon has answered since the first start"), "{skipped:?}");
}

/// Marathon answers for the first time, and has no results.
#[test]
fn an_app_does_not_lose_all_its_tasks_for_want_of_results() {
    let mut view = MarathonView { framework: "F".into(), ..MarathonView::default() };
    view.checked.insert("web".to_owned());
    let reports = |tasks, view: &MarathonView| LatestReports {
        cluster: good(master(tasks)),
        agent: None,
        marathon: good(view.clone()),
    };
    let both = [("web.1", "B", RUNNING), ("web.2", "B", RUNNING)];
    let mut report = Report::default();
    LatestReports { marathon: None, ..reports(&both, &view) }.combine(&mut report);
    // A task that was never ready waits.
    let three = [both[0], both[1], ("web.3", "B", RUNNING)];
    for _ in 0..2 {
        reports(&three, &view).combine(&mut report);
        assert_eq!(weights(&report), list(&[("web.1", 1), ("web.2", 1), ("web.3", 0)]));
        let skipped: Vec<String> =
            report.snapshot.as_ref().unwrap().skipped.iter().map(ToString::to_string).collect();
        assert!(
            skipped.iter().any(|record| record.contains("2 tasks keep getting connections")),
            "{skipped:?}"
        );
    }
    // A bad result is one, and with a good one the rest can wait.
    view.verdicts.insert("web.1".to_owned(), false);
    reports(&three, &view).combine(&mut report);
    assert_eq!(weights(&report), list(&[("web.1", 0), ("web.2", 1), ("web.3", 0)]));
    view.verdicts.insert("web.3".to_owned(), true);
    reports(&three, &view).combine(&mut report);
    assert_eq!(weights(&report), list(&[("web.1", 0), ("web.2", 0), ("web.3", 1)]));
    assert!(report.snapshot.as_ref().unwrap().skipped.is_empty());
}

#[test]
fn only_another_snapshot_counts_as_one() {
    let reports = LatestReports {
        cluster: good(master(&[("t", "B", RUNNING)])),
        agent: good(agent(&[])),
        marathon: None,
    };
    let mut report = Report::default();
    reports.clone().combine(&mut report);
    reports.clone().combine(&mut report);
    assert_eq!(report.sequence, 1);
    LatestReports { agent: good(agent(&[("n", "A", RUNNING)])), ..reports }.combine(&mut report);
    assert_eq!(report.sequence, 2);
}

#[test]
fn failures_are_told_together() {
    let reports =
        LatestReports { cluster: failed(good(master(&[]))), agent: failed(good(agent(&[]))), marathon: None };
    let failure = combine(reports).failure.unwrap();
    assert_eq!(failure.error, "no answer; no answer");
}
