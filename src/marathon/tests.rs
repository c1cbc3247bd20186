//! Against documents in Marathon's shape whose tasks are those of a real Mesos.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::*;
use crate::cluster::{Snapshot, TaskState};
use crate::mesos;
use crate::vip::{VipKey, VipTable};

const FRAMEWORK: &str = "62ca579f-d204-47ab-b9b7-6fdde30e658c-0000";

fn fixture(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn info() -> MarathonInfo {
    let text = format!(
        r#"{{"name":"marathon","version":"1.11.24","frameworkId":"{FRAMEWORK}",
        "marathon_config":{{"framework_name":"marathon"}}}}"#
    );
    MarathonInfo::parse(text.as_bytes()).unwrap()
}

fn view(app: &str) -> MarathonView {
    MarathonView::parse(&info(), format!(r#"{{"apps":[{app}]}}"#).as_bytes(), None).unwrap()
}

fn weight(view: &MarathonView) -> u32 {
    view.snapshot.tasks.values().map(|task| u32::from(task.is_ready())).sum()
}

/// Addresses and weights by VIP.
fn backends(snapshot: &Snapshot) -> BTreeMap<VipKey, BTreeMap<SocketAddr, u32>> {
    let table = VipTable::new(snapshot, &crate::vip::LabelPolicy::default());
    let backends =
        |vip: &crate::vip::Vip| vip.backends.iter().map(|(at, backend)| (*at, backend.weight())).collect();
    table.vips.iter().map(|(key, vip)| (key.clone(), backends(vip))).collect()
}

/// Both know the same tasks, so that the VIPs of either must be the same.
#[test]
fn alone_it_gives_what_mesos_gives() {
    let (apps, pods) = (fixture("marathon/apps.json"), fixture("marathon/pods.json"));
    let mut view = MarathonView::parse(&info(), &apps, Some(&pods)).unwrap();
    let mut mesos = mesos::parse(&fixture("captures/master_state.json"), None).unwrap();
    // Marathon has names of hosts only, which are resolved elsewhere.
    for (id, agent) in &mut view.snapshot.agents {
        assert_eq!(agent.hostname, mesos.agents[id].hostname);
        agent.address = mesos.agents[id].address;
    }
    // Not all that runs is Marathon's.
    mesos.tasks.retain(|key, _| view.snapshot.tasks.contains_key(key));
    assert!(mesos.tasks.len() > 10, "{}", mesos.tasks.len());
    assert_eq!(backends(&view.snapshot), backends(&mesos));
}

#[test]
fn its_own_checks_decide_where_mesos_knows_of_none() {
    let app = |checks: &str, results: &str| {
        view(&format!(
            r#"{{"id":"/dev/web","healthChecks":{checks},"portDefinitions":[{{"labels":{{"VIP_0":"w:80"}}}}],
            "tasks":[{{"id":"dev_web.instance-1._app.1","host":"10.0.0.1","slaveId":"S","state":"TASK_RUNNING",
            "ports":[31000],"healthCheckResults":{results}}}]}}"#
        ))
    };
    let id = "dev_web.instance-1._app.1";
    let both = r#"[{"protocol":"HTTP"},{"protocol":"MESOS_TCP"}]"#;
    for (checks, results, verdict, alone) in [
        ("[]", "null", None, 1),
        (r#"[{"protocol":"MESOS_HTTP"}]"#, r#"[{"alive":true}]"#, None, 1),
        (r#"[{"protocol":"COMMAND"}]"#, "[]", None, 0),
        (r#"[{"protocol":"HTTP"}]"#, r#"[{"alive":true}]"#, Some(true), 1),
        (r#"[{"protocol":"TCP"}]"#, r#"[{"alive":false}]"#, Some(false), 0),
        (r#"[{}]"#, "null", Some(false), 0),
        (both, r#"[{"alive":true},null]"#, Some(false), 0),
    ] {
        let view = app(checks, results);
        assert_eq!(view.verdicts.get(id).copied(), verdict, "{checks} {results}");
        assert_eq!(weight(&view), alone, "{checks} {results}");
    }
}

#[test]
fn readiness_counts_for_what_a_deployment_starts() {
    let app = |deployments: &str, results: &str, version: &str| {
        let view = view(&format!(
            r#"{{"id":"/web","version":"2","readinessChecks":[{{"name":"r"}}],"deployments":{deployments},
            "readinessCheckResults":{results},"portDefinitions":[{{"labels":{{"VIP_0":"w:80"}}}}],
            "tasks":[{{"id":"web.instance-1._app.1","host":"10.0.0.1","slaveId":"S","state":"TASK_RUNNING",
            "version":"{version}","ports":[31000]}}]}}"#
        ));
        weight(&view)
    };
    let result = |ready| format!(r#"[{{"name":"r","taskId":"web.instance-1._app.1","ready":{ready}}}]"#);
    assert_eq!(app("[]", "[]", "2"), 1, "no deployment");
    assert_eq!(app(r#"[{"id":"d"}]"#, "[]", "1"), 1, "of an older version");
    assert_eq!(app(r#"[{"id":"d"}]"#, "[]", "2"), 0, "no result yet");
    assert_eq!(app(r#"[{"id":"d"}]"#, &result(false), "2"), 0);
    assert_eq!(app(r#"[{"id":"d"}]"#, &result(true), "2"), 1);
}

#[test]
fn verdicts_are_joined_with_tasks_by_their_id() {
    let mut snapshot = mesos::parse(&fixture("captures/master_state.json"), None).unwrap();
    let before = snapshot.clone();
    let ids: Vec<String> = snapshot.tasks.keys().map(|key| key.task.clone()).collect();
    let web = ids.iter().find(|id| id.starts_with("dev_web")).unwrap();
    let mut view = MarathonView { framework: FRAMEWORK.to_owned(), ..MarathonView::default() };
    view.verdicts.insert(web.clone(), false);
    view.checked.insert("nohc".to_owned());
    view.judge(&mut snapshot);
    for (key, task) in &snapshot.tasks {
        let expected = match &key.task {
            id if id == web || id.starts_with("nohc.") => Some(false),
            _ => before.tasks[key].healthy,
        };
        assert_eq!(task.healthy, expected, "{}", key.task);
    }
    // Another framework's tasks are none of its business, and it overrules no bad result of Mesos.
    let mut again = before.clone();
    MarathonView { framework: "other".to_owned(), ..view.clone() }.judge(&mut again);
    assert_eq!(again, before);
    snapshot.tasks.values_mut().for_each(|task| task.healthy = Some(false));
    view.verdicts.insert(web.clone(), true);
    view.judge(&mut snapshot);
    assert!(snapshot.tasks.values().all(|task| task.healthy == Some(false)));
}

#[test]
fn older_documents_are_read_as_well() {
    let view = view(
        r#"{"id":"/old","container":{"type":"DOCKER","docker":{"network":"BRIDGE","portMappings":[
        {"containerPort":80,"hostPort":0,"protocol":"tcp","labels":{"VIP_0":"old:80"}}]}},
        "tasks":[{"id":"old.1f","host":"10.0.0.1","slaveId":"S","startedAt":"2016-01-01T00:00:00Z","ports":[31000]}]}"#,
    );
    let task = view.snapshot.tasks.values().next().unwrap();
    assert_eq!(
        (task.state, task.ports[0].port, task.ports[0].host_port),
        (TaskState::Running, Some(80), Some(31000))
    );
    assert_eq!(view::run_spec("old.1f"), "old");
    assert_eq!(view::run_spec("my.app.instance-1._app.1"), "my.app");
}

#[test]
fn what_is_not_marathon_is_an_error() {
    assert!(MarathonView::parse(&info(), b"{}", None).is_err());
    assert!(MarathonView::parse(&info(), b"<html>", None).is_err());
    assert!(MarathonView::parse(&MarathonInfo::parse(b"{}").unwrap(), br#"{"apps":[]}"#, None).is_err());
    assert!(MarathonInfo::parse(b"[]").is_err());
    assert!(info().has_pods());
    for version in ["1.3.14", "0.15.0", ""] {
        assert!(!MarathonInfo { version: version.to_owned(), ..info() }.has_pods());
    }
}

/// A number out of any range costs at most the answer that has it, and the last one stays then.
#[test]
fn extreme_numbers_are_no_panic() {
    for extreme in
        ["-1", "0", "65536", "1e19", "1e300", "-1e300", "1e999", "18446744073709551615", "null", "[]"]
    {
        let info = format!(
            r#"{{"frameworkId":"F","version":"{extreme}.{extreme}","marathon_config":{{"failover_timeout":{extreme}}}}}"#
        );
        let info = MarathonInfo::parse(info.as_bytes()).unwrap();
        let port = format!(
            r#"{{"containerPort":{extreme},"hostPort":{extreme},"labels":{{"VIP_0":"/a:{extreme}"}}}}"#
        );
        let apps = format!(
            r#"{{"apps":[{{"id":"/a","instances":{extreme},"cpus":{extreme},"portDefinitions":[{port}],
            "container":{{"portMappings":[{port}]}},"tasks":[{{"id":"a.1","host":"10.0.0.2","slaveId":"S",
            "ports":[{extreme}],"state":"TASK_RUNNING"}}]}}]}}"#
        );
        let pods = format!(
            r#"[{{"spec":{{"containers":[{{"name":"c","endpoints":[{{"name":"e","containerPort":{extreme}}}]}}]}},
            "instances":[{{"containers":[{{"name":"c","endpoints":[{{"name":"e","allocatedHostPort":{extreme}}}]}}]}}]}}]"#
        );
        let _ = MarathonView::parse(&info, apps.as_bytes(), Some(pods.as_bytes()));
    }
}
