//! Against documents in Marathon's shape whose tasks are those of a real Mesos.

use std::sync::Arc;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::*;
use crate::cluster::{Snapshot, Task, TaskKey, TaskState};
use crate::mesos;
use crate::vip::settings::BackendPorts;
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

/// Answers to a l4lbd that has just started.
fn judged(apps: &[u8], pods: Option<&[u8]>) -> MarathonView {
    let mut view = MarathonView::parse(&info(), apps, pods).unwrap();
    MarathonMemory::default().judge(&mut view, jiff::Timestamp::UNIX_EPOCH);
    view
}

fn view(app: &str) -> MarathonView {
    judged(format!(r#"{{"apps":[{app}]}}"#).as_bytes(), None)
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
    let mut view = judged(&apps, Some(&pods));
    let mut mesos = mesos::parse(&fixture("captures/master_state.json"), None).unwrap();
    // Marathon has names of hosts only, which are resolved elsewhere.
    let ids: Vec<String> = view.snapshot.agents.keys().cloned().collect();
    for id in &ids {
        let (agent, known) = (view.snapshot.agents.get_mut(id).unwrap(), mesos.agents.get(id).unwrap());
        assert_eq!(agent.hostname, known.hostname);
        agent.address = known.address;
    }
    // Not all that runs is Marathon's.
    mesos.tasks.retain(|key, _| view.snapshot.tasks.contains_key(key));
    assert!(mesos.tasks.len() > 10, "{}", mesos.tasks.len());
    assert_eq!(backends(&view.snapshot), backends(&mesos));
    // Whose a task is decides about its share, and must not depend on who tells of it.
    let apps = |snapshot: &Snapshot| -> BTreeMap<TaskKey, String> {
        snapshot.tasks.iter().map(|(key, task)| (key.clone(), task.app.to_string())).collect()
    };
    let (told, known) = (apps(&view.snapshot), apps(&mesos));
    assert!(known.iter().all(|(key, app)| told[key] == *app && !app.is_empty()), "{told:?} {known:?}");
    // Each port of an agent that Marathon tells is the task's own.
    let rules = crate::vip::LabelPolicy { ports: BackendPorts::Allocated, ..Default::default() };
    let (allocated, any) =
        (VipTable::new(&view.snapshot, &rules), VipTable::new(&view.snapshot, &Default::default()));
    assert!(!any.vips.is_empty());
    assert_eq!(allocated.vips, any.vips);
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
        (both, r#"[{"alive":true}]"#, Some(false), 0),
        (both, r#"[{"alive":true},{"alive":true}]"#, Some(true), 1),
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
fn a_failure_that_marathon_ignores_is_no_result() {
    let mut memory = MarathonMemory::default();
    for (result, verdict) in [
        (r#"{"alive":false,"consecutiveFailures":0,"lastFailure":null}"#, false),
        (r#"{"alive":true,"consecutiveFailures":0,"lastFailure":null}"#, true),
        (r#"{"alive":false,"consecutiveFailures":0,"lastFailure":null}"#, true),
        (r#"{"alive":false,"consecutiveFailures":1,"lastFailure":"2026-01-01T00:00:00Z"}"#, false),
    ] {
        let apps = format!(
            r#"{{"apps":[{{"id":"/w","healthChecks":[{{}}],
            "tasks":[{{"id":"w.1","state":"TASK_RUNNING","healthCheckResults":[{result}]}}]}}]}}"#
        );
        let mut view = MarathonView::parse(&info(), apps.as_bytes(), None).unwrap();
        memory.judge(&mut view, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(view.verdicts["w.1"], verdict, "{result}");
    }
}

#[test]
fn every_check_of_a_pods_container_counts() {
    let check = json!({"healthCheck": {"exec": {}}});
    let is = |value: &str| json!([{"name": "healthy", "value": value}]);
    let none = json!([]);
    for (check, conditions, endpoint, healthy) in [
        (json!({}), none.clone(), json!(null), None),
        (check.clone(), none.clone(), json!(null), Some(false)),
        (check.clone(), is("false"), json!(null), Some(false)),
        (check.clone(), is("true"), json!(null), Some(true)),
        (check.clone(), none.clone(), json!(true), Some(true)),
        (check.clone(), is("true"), json!(false), Some(false)),
        (json!({}), is("false"), json!(true), Some(false)),
    ] {
        let mut container =
            json!({"name": "c", "endpoints": [{"name": "web", "labels": {"VIP_0": "web:80"}}]});
        container["healthCheck"] = check["healthCheck"].clone();
        let pods = json!([{"id": "/p", "spec": {"containers": [container]}, "instances": [{
            "agentHostname": "10.0.0.1", "containers": [{"name": "c", "status": "TASK_RUNNING",
                "containerId": "p.instance-1.c", "conditions": conditions,
                "endpoints": [{"name": "web", "allocatedHostPort": 31000, "healthy": endpoint}]}]}]}]);
        let view = judged(br#"{"apps":[]}"#, Some(pods.to_string().as_bytes()));
        let found: Vec<Option<bool>> = view.snapshot.tasks.values().map(|task| task.healthy).collect();
        assert_eq!(found, [healthy], "{pods}");
    }
}

#[test]
fn a_task_has_ended_when_its_app_lists_all_that_it_should_have() {
    let mut departed = DepartedTasks::default();
    let mut ended = |instances: Value, tasks: &[&str]| {
        let task =
            |id: &&str| json!({"id": id, "host": "10.0.0.1", "state": "TASK_RUNNING", "ports": [31000]});
        let apps = json!({"apps": [{"id": "/w", "instances": instances,
            "portDefinitions": [{"labels": {"VIP_0": "w:80"}}], "tasks": tasks.iter().map(task).collect::<Vec<_>>()}]});
        let mut view = judged(apps.to_string().as_bytes(), None);
        departed.add(&mut view, jiff::Timestamp::UNIX_EPOCH);
        view.snapshot.ended.iter().map(|key| key.task.to_string()).collect::<Vec<_>>()
    };
    assert!(ended(json!(3), &["w.a", "w.b", "w.c"]).is_empty());
    assert!(ended(json!(3), &[]).is_empty(), "a new leader that lists no tasks yet");
    assert!(ended(json!(1), &["w.a", "w.b"]).is_empty(), "one is being killed");
    assert!(ended(json!("many"), &["w.a"]).is_empty());
    assert_eq!(ended(json!(1), &["w.a"]), ["w.b", "w.c"]);
    assert_eq!(ended(json!(2), &["w.a"]), ["w.b", "w.c"], "it stays so");
    assert_eq!(ended(json!(2), &["w.a", "w.b"]), ["w.c"], "and ends if it is back");
}

#[test]
fn verdicts_are_joined_with_tasks_by_their_id() {
    let mut snapshot = mesos::parse(&fixture("captures/master_state.json"), None).unwrap();
    let before = snapshot.clone();
    let ids: Vec<String> = snapshot.tasks.keys().map(|key| key.task.to_string()).collect();
    let web = ids.iter().find(|id| id.starts_with("dev_web")).unwrap();
    let mut view = MarathonView { framework: FRAMEWORK.into(), ..MarathonView::default() };
    view.verdicts.insert(web.clone(), false);
    view.checked.insert("nohc".to_owned());
    view.judge(&mut snapshot, None);
    for (key, task) in &snapshot.tasks {
        let expected = match &key.task {
            id if **id == **web || id.starts_with("nohc.") => Some(false),
            _ => before.tasks.get(key).unwrap().healthy,
        };
        assert_eq!(task.healthy, expected, "{}", key.task);
    }
    // Another framework's tasks are none of its business, and it overrules no bad result of Mesos.
    let mut again = before.clone();
    MarathonView { framework: "other".into(), ..view.clone() }.judge(&mut again, None);
    assert_eq!(again, before);
    snapshot.tasks.values_mut().for_each(|task| Arc::make_mut(task).healthy = Some(false));
    view.verdicts.insert(web.clone(), true);
    view.judge(&mut snapshot, None);
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
    assert_eq!(&*task.app, "old");
}

#[test]
fn what_is_not_marathon_is_an_error() {
    assert!(MarathonView::parse(&info(), b"{}", None).is_err());
    assert!(MarathonView::parse(&info(), b"<html>", None).is_err());
    assert!(MarathonView::parse(&MarathonInfo::parse(b"{}").unwrap(), br#"{"apps":[]}"#, None).is_err());
    assert!(MarathonInfo::parse(b"[]").is_err());
    assert!(info().has_pods());
    for version in ["1.3.14", "0.15.0", ""] {
        let version = Some(Lenient::Read(version.to_owned()));
        assert!(!MarathonInfo { version, ..info() }.has_pods());
    }
}

/// Two tasks of an app on the agent's ports, of which `first` describes the first.
fn beside(app: &Value, first: &Value) -> MarathonView {
    let task = |id: &str| {
        json!({"id": id, "host": "10.0.0.1", "slaveId": "S", "state": "TASK_RUNNING", "ports": [31000],
            "ipAddresses": [{"ipAddress": "10.0.0.1"}]})
    };
    let patched = |mut value: Value, patch: &Value| {
        for (key, member) in patch.as_object().unwrap() {
            value[key] = member.clone();
        }
        value
    };
    let app = patched(
        json!({"id": "/odd", "portDefinitions": [{"name": "http", "labels": {"VIP_0": "odd:80"}}],
            "tasks": [patched(task("odd.1"), first), task("odd.2")]}),
        app,
    );
    let neighbour = json!({"id": "/good", "portDefinitions": [{"labels": {"VIP_0": "good:80"}}],
        "tasks": [task("good.1")]});
    view(&format!("{app},{neighbour}"))
}

#[test]
fn an_odd_app_or_task_costs_only_itself_and_says_why() {
    let no = json!({});
    let here = |host: &str| json!({ "host": host });
    for (app, task, left, reason) in [
        (
            json!({"networks": [{"mode": "overlay"}]}),
            no.clone(),
            0,
            "/odd: the network mode \"overlay\" is not",
        ),
        (json!({"networks": 7}), no.clone(), 0, "apps[] "),
        (json!({"id": null}), no.clone(), 0, "an app that cannot be read"),
        (no.clone(), json!({"ports": [70000]}), 1, "odd.1 http: the agent's port 70000 cannot be read"),
        (no.clone(), json!({"ports": [0]}), 1, "0 is no port of the agent"),
        (no.clone(), json!({"ports": []}), 1, "Marathon tells no port of the agent"),
        (no.clone(), json!({"ports": "many"}), 1, "/odd: the task"),
        (no.clone(), json!({"id": 5}), 1, "/odd: the task"),
        (no.clone(), json!({"host": null}), 1, "odd.1 port http 31000/tcp: Marathon tells no host"),
        (no.clone(), here("nowhere.invalid"), 1, "(nowhere.invalid) is not known"),
    ] {
        let view = beside(&app, &task);
        let table = VipTable::new(&view.snapshot, &crate::vip::LabelPolicy::default());
        let backends = |name: &str| {
            let vips = table.vips.iter().filter(|(key, _)| key.to_string().contains(name));
            vips.map(|(_, vip)| vip.backends.len()).sum::<usize>()
        };
        assert_eq!((backends("good"), backends("odd")), (1, left), "{app} {task}");
        let skipped: Vec<String> =
            view.snapshot.skipped.iter().chain(&table.skipped).map(ToString::to_string).collect();
        let says = skipped.iter().any(|record| record.replacen(" port http:", " http:", 1).contains(reason));
        assert!(says, "{reason}: {skipped:?}");
    }
}

/// Paths of all values in a document.
fn paths(value: &Value, at: &[String], found: &mut Vec<Vec<String>>) {
    let mut below = |key: String, value: &Value| {
        let path = [at, &[key]].concat();
        found.push(path.clone());
        paths(value, &path, found);
    };
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(n, item)| below(n.to_string(), item)),
        Value::Object(members) => members.iter().for_each(|(key, member)| below(key.clone(), member)),
        _ => {}
    }
}

/// Tasks with the hosts of their agents, whatever the ids of these are.
fn placed(snapshot: &Snapshot) -> BTreeMap<TaskKey, (Task, Option<String>)> {
    let place = |task: &Task| {
        let host = snapshot.agents.get(&*task.agent_id).map(|agent| agent.hostname.clone());
        (Task { agent_id: "".into(), ..Task::clone(task) }, host)
    };
    snapshot.tasks.iter().map(|(key, task)| (key.clone(), place(task))).collect()
}

proptest! {
    #![proptest_config(crate::units::cases(512))]

    /// Replaces one value of an app, a pod, a task or an instance in a valid answer: all but that one
    /// stay as they were.
    #[test]
    fn one_odd_value_changes_no_neighbour(
        in_pods: bool,
        at: Index,
        odd in select(vec![
            json!(null), json!(true), json!(-1), json!(0), json!(70_000), json!(1e300), json!(""), json!("odd"),
            json!([]), json!({}), json!([null]), json!([[1]]), json!({"odd": 1}),
        ]),
    ) {
        let files = [fixture("marathon/apps.json"), fixture("marathon/pods.json")];
        let mut documents = files.map(|file| serde_json::from_slice::<Value>(&file).unwrap());
        let parse = |documents: &[Value; 2]| {
            let [apps, pods] = documents.clone().map(|document| document.to_string());
            MarathonView::parse(&info(), apps.as_bytes(), Some(pods.as_bytes()))
        };
        let before = placed(&parse(&documents).unwrap().snapshot);
        let document = &mut documents[usize::from(in_pods)];
        let list = if in_pods { "" } else { "/apps" };
        let mut found = Vec::new();
        paths(document.pointer(list).unwrap(), &[], &mut found);
        let path = at.get(&found);
        // The innermost task or instance around the value, else the app or pod.
        let items = if in_pods { "instances" } else { "tasks" };
        let depth = if path.len() > 2 && path[1] == items { 3 } else { 1 };
        let owner = document.pointer(&format!("{list}/{}", path[..depth].join("/"))).unwrap().to_string();
        *document.pointer_mut(&format!("{list}/{}", path.join("/"))).unwrap() = odd;
        let after = placed(&parse(&documents).unwrap().snapshot);
        for (key, task) in &before {
            let is_neighbour = !owner.contains(&format!("\"{}\"", key.task));
            prop_assert!(!is_neighbour || after.get(key) == Some(task), "{} {}", path.join("/"), key.task);
        }
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

#[test]
fn an_item_beyond_its_bounds_costs_itself() {
    let error = |apps: String| MarathonView::parse(&info(), apps.as_bytes(), None).unwrap_err().to_string();
    let long = format!(r#"{{"apps":[{{"id":"/a","x":[{}0]}},{{"id":"/b"}}]}}"#, "0,".repeat(ITEM.values + 1));
    let view = MarathonView::parse(&info(), long.as_bytes(), None).unwrap();
    assert_eq!(view.apps.keys().collect::<Vec<_>>(), ["b"]);
    assert!(view.snapshot.skipped[0].reason.contains("more than"), "{:?}", view.snapshot.skipped);
    // Cut off, it is refused as a whole.
    error(long[..long.len() - 3].to_owned());
}
