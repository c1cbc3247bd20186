//! The names of a small cluster in each zone.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::mesos;

/// Two frameworks on two agents: tasks of every kind of network.
fn tasks() -> TaskZone {
    let task = |id: &str, framework: &str, agent: &str, more: &str| {
        format!(
            r#"{{"id":"{id}","framework_id":"{framework}","slave_id":"S-{agent}","state":"TASK_RUNNING",{more}}}"#
        )
    };
    let status = |addresses: &str| {
        format!(
            r#""statuses":[{{"state":"TASK_RUNNING","timestamp":1,"container_status":{{"network_infos":[
                {{"ip_addresses":[{addresses}]}}]}}}}]"#
        )
    };
    let host1 = status(r#"{"ip_address":"10.0.0.1"}"#);
    let host2 = status(r#"{"ip_address":"10.0.0.2"}"#);
    let overlay = status(r#"{"ip_address":"9.0.1.3"},{"ip_address":"fd01:b::3/80"}"#);
    let port = |scope: &str| {
        format!(
            r#""discovery":{{"name":"web.dev","ports":{{"ports":[
                {{"number":8080,"name":"http","protocol":"tcp","labels":{{"labels":[{{"key":"network-scope","value":"{scope}"}}]}}}},
                {{"number":53,"name":"dns","protocol":"udp"}}]}}}}"#
        )
    };
    let list = [
        task("web.1", "F1", "S1", &format!("{},{host1}", port("host"))),
        task("web.2", "F1", "S2", &format!("{},{overlay}", port("container"))),
        task(
            "bare.1",
            "F2",
            "S2",
            &format!(r#""name":"Bare_1","resources":{{"ports":"[31000-31001]"}},{host2}"#),
        ),
        task("gone.1", "F2", "S2", &format!(r#""name":"gone",{host2}"#))
            .replace("RUNNING\",\"name", "KILLING\",\"name"),
    ];
    let of = |framework: &str| {
        list.iter().filter(|task| task.contains(framework)).cloned().collect::<Vec<_>>().join(",")
    };
    let document = format!(
        r#"{{"id":"M","elected_time":1,"leader":"master@10.0.0.9:5050",
            "slaves":[{{"id":"S-S1","hostname":"n1","pid":"slave(1)@10.0.0.1:5051"}},
                      {{"id":"S-S2","hostname":"n2","pid":"slave(1)@10.0.0.2:5051"}}],
            "frameworks":[{{"id":"F1","name":"marathon","pid":"scheduler@10.0.0.7:15101","tasks":[{}]}},
                          {{"id":"F2","name":"dev.team/a","hostname":"10.0.0.8","tasks":[{}]}}]}}"#,
        of("F1"),
        of("F2"),
    );
    let snapshot = mesos::parse(document.as_bytes(), None).unwrap();
    assert_eq!(snapshot.skipped, []);
    let directory = Directory::new(&snapshot);
    TaskZone::new(directory, &[[10, 0, 0, 9].into(), [10, 0, 0, 10].into()], 1)
}

fn show(records: Option<Vec<RData>>) -> Option<String> {
    let show = |data: &RData| match data {
        RData::A(address) => address.to_string(),
        RData::Aaaa(address) => address.to_string(),
        RData::Srv { port, target } => {
            let labels: Vec<String> =
                labels(target).map(|label| String::from_utf8_lossy(label).into_owned()).collect();
            format!("{}:{port}", labels.join("."))
        }
        RData::Ptr(_) => unreachable!(),
    };
    records.map(|records| records.iter().map(show).collect::<Vec<_>>().join(" "))
}

#[test]
fn dcos_names() {
    let tasks = tasks();
    for (name, expected) in [
        ("web-dev.marathon.agentip", Some("10.0.0.1 10.0.0.2")),
        ("web-dev.marathon.containerip", Some("9.0.1.3 10.0.0.1 fd01:b::3")),
        // A port of the agent: there. Otherwise at the container.
        ("web-dev.marathon.autoip", Some("9.0.1.3 10.0.0.1 fd01:b::3")),
        ("bare-1.dev-teama.autoip", Some("10.0.0.2")),
        ("marathon.autoip", Some("")),
        ("agentip", Some("")),
        ("leader", Some("10.0.0.9")),
        ("master", Some("10.0.0.9 10.0.0.10")),
        ("gone.dev-teama.autoip", None),
        ("web-dev.chronos.autoip", None),
        ("chronos.autoip", None),
        ("x.web-dev.marathon.autoip", None),
        ("web-dev.marathon.otherip", None),
        ("otherip", None),
    ] {
        assert_eq!(show(tasks.dcos(&encode(name).unwrap())).as_deref(), expected, "{name}");
    }
}

#[test]
fn mesos_names() {
    let tasks = tasks();
    for (name, expected) in [
        ("web-dev.marathon", Some("10.0.0.1 10.0.0.2 fd01:b::3")),
        ("web-dev.marathon.slave", Some("10.0.0.1 10.0.0.2")),
        ("bare-1.dev.teama", Some("10.0.0.2")),
        ("_web-dev._tcp.marathon", Some("web-dev-HASH1-s1.marathon:8080 web-dev-HASH2-s2.marathon:8080")),
        ("_dns._web-dev._udp.marathon", Some("web-dev-HASH1-s1.marathon:53 web-dev-HASH2-s2.marathon:53")),
        ("_http._web-dev._udp.marathon", None),
        (
            "_bare-1._tcp.dev.teama",
            Some("bare-1-HASH3-s2.dev.teama.slave:31000 bare-1-HASH3-s2.dev.teama.slave:31001"),
        ),
        (
            "_bare-1._udp.dev.teama.slave",
            Some("bare-1-HASH3-s2.dev.teama.slave:31000 bare-1-HASH3-s2.dev.teama.slave:31001"),
        ),
        ("_web-dev._tcp.marathon.slave", None),
        ("web-dev-HASH2-s2.marathon", Some("10.0.0.2 fd01:b::3")),
        ("web-dev-HASH2-s2.marathon.slave", Some("10.0.0.2")),
        ("web-dev-HASH2-s1.marathon", None),
        ("_tcp.marathon", Some("")),
        ("_tcp.marathon.slave", None),
        ("_udp.dev.teama.slave", Some("")),
        ("marathon", Some("10.0.0.7")),
        ("_framework._tcp.marathon", Some("marathon:15101")),
        ("dev.teama", Some("10.0.0.8")),
        ("_framework._tcp.dev.teama", None),
        ("teama", Some("")),
        ("marathon.slave", Some("")),
        ("slave", Some("10.0.0.1 10.0.0.2")),
        ("leader", Some("10.0.0.9")),
        ("master", Some("10.0.0.9 10.0.0.10")),
        ("master1", Some("10.0.0.10")),
        ("master2", None),
        ("_leader._tcp", Some("leader:5050")),
        ("_tcp", Some("")),
        ("xmarathon", None),
        ("gone.dev.teama", None),
    ] {
        let hash = |id| String::from_utf8(crate::cluster::registry::hash(id).to_vec()).unwrap();
        let fill = |text: &str| {
            [("HASH1", "web.1"), ("HASH2", "web.2"), ("HASH3", "bare.1")]
                .iter()
                .fold(text.to_owned(), |text, (place, id)| text.replace(place, &hash(id)))
        };
        // Their order depends on the hashes.
        let set = |text: &str| -> BTreeSet<String> { text.split(' ').map(str::to_owned).collect() };
        let expected = expected.map(|text| set(&fill(text)));
        let found = show(tasks.mesos(&encode(&fill(name)).unwrap())).map(|text| set(&text));
        assert_eq!(found, expected, "{name}");
    }
}

proptest! {
    /// A name that exists has existing names above it: resolvers may ask for those first (RFC 8020).
    #[test]
    fn no_name_is_below_one_that_does_not_exist(
        labels in proptest::collection::vec(
            proptest::sample::select(vec![
                "web-dev", "_web-dev", "_http", "_dns", "_tcp", "_udp", "marathon", "dev", "teama", "bare-1",
                "_bare-1", "slave", "leader", "_leader", "_framework", "autoip", "containerip", "dev-teama",
            ]),
            1..6,
        ),
    ) {
        let tasks = tasks();
        for skipped in 1..labels.len() {
            let (name, above) = (labels.join("."), labels[skipped..].join("."));
            let (name, above) = (encode(&name).unwrap(), encode(&above).unwrap());
            prop_assert!(tasks.mesos(&name).is_none() || tasks.mesos(&above).is_some());
            prop_assert!(tasks.dcos(&name).is_none() || tasks.dcos(&above).is_some());
        }
    }

    #[test]
    fn any_name_has_an_answer(name in proptest::collection::vec(any::<u8>(), 0..60)) {
        let tasks = tasks();
        let _ = (tasks.dcos(&name), tasks.mesos(&name));
    }
}
