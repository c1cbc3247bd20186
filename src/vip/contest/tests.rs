use super::*;
use crate::mesos;
use crate::vip::{LabelPolicy, TableMemory, Vip, VipTable};

/// A task with one port 80, some labels on it, and the address 10.0.0.N.
fn task(id: &str, framework: &str, number: u8, labels: &[(&str, &str)]) -> String {
    let labels: Vec<String> =
        labels.iter().map(|(key, value)| format!(r#"{{"key":"{key}","value":"{value}"}}"#)).collect();
    format!(
        r#"{{"id":"{id}","framework_id":"{framework}","slave_id":"S","state":"TASK_RUNNING","statuses":[{{"state":
        "TASK_RUNNING","timestamp":1.0,"container_status":{{"network_infos":[{{"ip_addresses":[{{"ip_address":
        "10.0.0.{number}"}}]}}]}}}}],"discovery":{{"ports":{{"ports":[{{"number":80,"protocol":"tcp","labels":
        {{"labels":[{}]}}}}]}}}}}}"#,
        labels.join(",")
    )
}

/// A framework: id, name, time of its registration, tasks.
fn framework(id: &str, name: &str, time: Option<f64>, tasks: &[String]) -> String {
    let time = time.map(|time| format!(r#""registered_time":{time},"#)).unwrap_or_default();
    format!(r#"{{"id":"{id}","name":"{name}",{time}"tasks":[{}]}}"#, tasks.join(","))
}

fn snapshot(frameworks: &[String]) -> Snapshot {
    let text = format!(
        r#"{{"slaves":[{{"id":"S","pid":"slave(1)@10.0.0.99:5051"}}],"frameworks":[{}]}}"#,
        frameworks.join(",")
    );
    mesos::parse(text.as_bytes(), None).unwrap()
}

fn table(snapshot: &Snapshot, shared: SharedVips) -> VipTable {
    VipTable::new(snapshot, &LabelPolicy { shared, ..LabelPolicy::default() })
}

/// Ids of the tasks behind each VIP.
fn tasks(table: &VipTable) -> Vec<(String, Vec<&str>)> {
    table.vips.iter().map(|(key, vip)| (key.to_string(), ids(vip))).collect()
}

fn ids(vip: &Vip) -> Vec<&str> {
    vip.backends.values().map(|backend| &*backend.task).collect()
}

/// Pairs of a framework's name and a label that are one VIP.
const SAME: [[(&str, &str); 2]; 3] = [
    [("marathon", "/web:80"), ("Mara thon!", "/web:80")],
    [("x.y", "web:80"), ("y", "web.x:80")],
    [("marathon", "10.9.9.9:80"), ("chronos", "10.9.9.9:80")],
];

#[test]
fn the_framework_that_registered_first_keeps_a_vip() {
    for [(first, label), (second, other)] in SAME {
        // The one that registered first has the greater id, and is listed second.
        let early = framework("G", first, Some(100.0), &[task("early", "G", 1, &[("VIP_0", label)])]);
        let late = framework("F", second, Some(200.0), &[task("late", "F", 2, &[("VIP_0", other)])]);
        for order in [[&early, &late], [&late, &early]] {
            let snapshot = snapshot(&order.map(String::clone));
            let refused = table(&snapshot, SharedVips::Refuse);
            let served = tasks(&refused);
            assert_eq!((served.len(), &served[0].1[..]), (1, &["early"][..]), "{first} {second}");
            assert_eq!(refused.skipped.len(), 1);
            assert_eq!(refused.skipped[0].task, "late");
            let reason = &refused.skipped[0].reason;
            let (owner, loser) = (format!("{first:?} (G)"), format!("{second:?} (F)"));
            assert!(reason.contains(&owner) && reason.contains(&loser), "{reason}");

            let warned = table(&snapshot, SharedVips::Warn);
            assert_eq!(tasks(&warned)[0].1, ["early", "late"]);
            assert_eq!(warned.skipped, []);
            for table in [&refused, &warned] {
                let [warning] = &table.warnings[..] else { panic!("{:?}", table.warnings) };
                for part in [&served[0].0, &owner, &loser] {
                    assert!(warning.contains(part), "{part} in {warning}");
                }
            }
        }
    }
}

#[test]
fn without_times_the_lesser_id_comes_first_and_a_known_time_before_none() {
    let owner = |f: Option<f64>, g: Option<f64>| {
        let snapshot = snapshot(&[
            framework("F", "a", f, &[task("f", "F", 1, &[("VIP_0", "10.9.9.9:80")])]),
            framework("G", "b", g, &[task("g", "G", 2, &[("VIP_0", "10.9.9.9:80")])]),
        ]);
        tasks(&table(&snapshot, SharedVips::Refuse))[0].1.join(" ")
    };
    assert_eq!(owner(None, None), "f");
    assert_eq!(owner(Some(7.0), Some(7.0)), "f");
    assert_eq!(owner(None, Some(7.0)), "g");
    // As a master writes for a framework that has not registered with it again.
    assert_eq!(owner(Some(0.0), Some(7.0)), "g");
    assert_eq!(owner(Some(1e19), Some(7.0)), "g");
}

#[test]
fn the_whole_name_belongs_to_one_framework_whatever_the_port() {
    let snapshot = snapshot(&[
        framework("F", "marathon", Some(1.0), &[task("web", "F", 1, &[("VIP_0", "/web:80")])]),
        framework(
            "G",
            "mara!thon",
            Some(2.0),
            &[task("https", "G", 2, &[("VIP_0", "/web:443"), ("VIP_1", "b:1")])],
        ),
    ]);
    let refused = table(&snapshot, SharedVips::Refuse);
    let expected = [("tcp b.marathon:1", "https"), ("tcp web.marathon:80", "web")];
    assert_eq!(tasks(&refused), expected.map(|(vip, task)| (vip.to_owned(), vec![task])));
    assert!(refused.warnings[0].contains("web.marathon:443"), "{:?}", refused.warnings);
}

#[test]
fn options_are_those_of_the_framework_that_comes_first() {
    let rr = [("VIP_0", "/web:80"), ("L4LB_SCHEDULER", "rr"), ("L4LB_STICKY_IDLE", "true")];
    let snapshot = snapshot(&[
        framework("F", "mara!thon", Some(2.0), &[task("late", "F", 1, &rr)]),
        framework("G", "marathon", Some(1.0), &[task("early", "G", 2, &[("VIP_0", "/web:80")])]),
    ]);
    let table = table(&snapshot, SharedVips::Warn);
    let vip = table.vips.values().next().unwrap();
    assert_eq!((vip.scheduler.as_deref(), vip.sticky_idle, vip.backends.len()), (None, false, 2));
    assert_eq!(table.skipped.len(), 1);
    assert!(table.skipped[0].reason.contains("the options of this VIP"), "{}", table.skipped[0]);
}

#[test]
fn an_earlier_registration_is_remembered() {
    let times = |f: f64, g: f64| {
        snapshot(&[
            framework("F", "a", Some(f), &[task("f", "F", 1, &[("VIP_0", "10.9.9.9:80")])]),
            framework("G", "b", Some(g), &[task("g", "G", 2, &[("VIP_0", "10.9.9.9:80")])]),
        ])
    };
    let mut persisted = crate::store::Persisted::default();
    persisted.note_registered(&times(20.0, 10.0));
    // With a new master they register in another order.
    let after = times(30.0, 31.0);
    persisted.note_registered(&after);
    let registered = std::borrow::Cow::Borrowed(&persisted.registered);
    let rules = LabelPolicy { shared: SharedVips::Refuse, ..LabelPolicy::default() };
    let memory = TableMemory { registered, ..TableMemory::default() };
    assert_eq!(tasks(&VipTable::after(&after, &rules, &memory))[0].1, ["g"]);
    assert_eq!(tasks(&table(&after, SharedVips::Refuse))[0].1, ["f"], "a node without memory");
}
