//! The names of a small cluster in each zone.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::dns::protocol::record::of_kind;
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
        assert_eq!(
            show(tasks.dcos(&encode(name).unwrap(), AnswerWindow::ALL)).as_deref(),
            expected,
            "{name}"
        );
    }
}

/// Two frameworks of which one has the name of the other's task, and a task called as schedulers' services are.
#[test]
fn records_of_schedulers_and_tasks_are_not_joined() {
    let task = |id: &str, name: &str, last: u8| {
        format!(
            r#"{{"id":"{id}","framework_id":"F1","slave_id":"S","state":"TASK_RUNNING","name":"{name}",
            "resources":{{"ports":"[31000-31000]"}},"statuses":[{{"state":"TASK_RUNNING","timestamp":1,
            "container_status":{{"network_infos":[{{"ip_addresses":[{{"ip_address":"10.0.0.{last}"}}]}}]}}}}]}}"#
        )
    };
    let zone = |tasks: &[String]| {
        let document = format!(
            r#"{{"id":"M","slaves":[{{"id":"S","hostname":"n1","pid":"slave(1)@10.0.0.1:5051"}}],"frameworks":[
            {{"id":"F1","name":"marathon","pid":"scheduler@10.0.0.7:15101","tasks":[{}]}},
            {{"id":"F2","name":"web.marathon","pid":"scheduler@10.0.0.8:15102","tasks":[]}}]}}"#,
            tasks.join(",")
        );
        TaskZone::new(Directory::new(&mesos::parse(document.as_bytes(), None).unwrap()), &[], 1)
    };
    let ask = |zone: &TaskZone, name: &str| show(zone.mesos(&encode(name).unwrap(), AnswerWindow::ALL));
    let without = zone(&[task("framework.1", "framework", 1)]);
    assert_eq!(ask(&without, "web.marathon").as_deref(), Some("10.0.0.8"));
    assert_eq!(ask(&without, "_framework._tcp.web.marathon").as_deref(), Some("web.marathon:15102"));
    // An app cannot take the place of its own scheduler.
    assert_eq!(ask(&without, "_framework._tcp.marathon").as_deref(), Some("marathon:15101"));
    assert_eq!(ask(&without, "framework.marathon").as_deref(), Some("10.0.0.1"));
    // A framework cannot take the place of another one's task.
    let with = zone(&[task("web.1", "web", 1)]);
    assert_eq!(ask(&with, "web.marathon").as_deref(), Some("10.0.0.1"));
    assert_eq!(ask(&with, "_framework._tcp.web.marathon").as_deref(), Some(""));
    assert_eq!(ask(&with, "_framework._tcp.marathon").as_deref(), Some("marathon:15101"));
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
        ("_slave._tcp", Some("slave:5051")),
        ("_slave._udp", None),
        // The discovery name as written, with the names above it.
        ("web.dev.marathon", Some("10.0.0.1 10.0.0.2 fd01:b::3")),
        ("web.dev.marathon.slave", Some("10.0.0.1 10.0.0.2")),
        ("dev.marathon", Some("")),
        ("_web.dev._tcp.marathon", Some("web.dev-HASH1-s1.marathon:8080 web.dev-HASH2-s2.marathon:8080")),
        ("_dns._web.dev._udp.marathon", Some("web.dev-HASH1-s1.marathon:53 web.dev-HASH2-s2.marathon:53")),
        ("dev._tcp.marathon", Some("")),
        ("web.dev-HASH2-s2.marathon", Some("10.0.0.2 fd01:b::3")),
        ("dev-HASH2-s2.marathon", Some("")),
        ("web.dev-HASH2-s1.marathon", None),
        ("dev-HASH2-s1.marathon", None),
        ("eb.dev.marathon", None),
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
        let found =
            show(tasks.mesos(&encode(&fill(name)).unwrap(), AnswerWindow::ALL)).map(|text| set(&text));
        assert_eq!(found, expected, "{name}");
    }
}

/// A cluster with one task on the agent `A-S7` at 10.0.0.1, which has a TCP port 80.
fn one_task(framework: &str, name: &str, port: &str) -> crate::cluster::Snapshot {
    let document = format!(
        r#"{{"id":"M","slaves":[{{"id":"A-S7","hostname":"n","pid":"slave(1)@10.0.0.1:5051"}}],
            "frameworks":[{{"id":"F","name":"{framework}","tasks":[{{"id":"t.1","framework_id":"F",
            "slave_id":"A-S7","state":"TASK_RUNNING","discovery":{{"name":"{name}","ports":{{"ports":[
            {{"number":80,"name":"{port}","protocol":"tcp"}}]}}}}}}]}}]}}"#
    );
    mesos::parse(document.as_bytes(), None).unwrap()
}

#[test]
fn agents_with_both_families_have_both() {
    let mut snapshot = one_task("marathon", "web", "");
    snapshot.agents.get_mut("A-S7").unwrap().hostname = "fd00::7".to_owned();
    let zone = TaskZone::new(Directory::new(&snapshot), &[], 1);
    for name in ["web.marathon", "web.marathon.slave", "slave"] {
        let records = zone.mesos(&encode(name).unwrap(), AnswerWindow::ALL);
        assert_eq!(show(records).as_deref(), Some("10.0.0.1 fd00::7"), "{name}");
    }
}

/// From 64 octets on the SRV name of a task is no label, and that is said; its addresses have names.
#[test]
fn names_that_fit_are_served_and_those_that_do_not_are_listed() {
    for (length, has_services) in [(10, true), (55, true), (56, true), (62, true), (63, false), (70, false)] {
        let name = "x".repeat(length);
        let snapshot = one_task("marathon", &name, "");
        let zone = TaskZone::new(Directory::new(&snapshot), &[], 1);
        let label = &name[..length.min(63)];
        let at = encode(&format!("{label}.marathon")).unwrap();
        assert_eq!(show(zone.mesos(&at, AnswerWindow::ALL)).as_deref(), Some("10.0.0.1"), "{length}");
        let services = encode(&format!("_{label}._tcp.marathon"))
            .ok()
            .and_then(|name| zone.mesos(&name, AnswerWindow::ALL));
        assert_eq!(services.is_some(), has_services, "{length}");
        assert_eq!(snapshot.skipped.is_empty(), has_services, "{length}: {:?}", snapshot.skipped);
    }
}

/// A task of a crowd: its agent, the addresses of its container, and its ports of TCP and UDP.
type Member = (u8, Vec<u8>, Option<Vec<u16>>, Vec<u16>, u8);

/// Tasks of one name, of which some are called `web` as well as `Web`, on a few agents with one family or both.
fn crowd(members: &[Member]) -> TaskZone {
    use crate::cluster::registry::{Described, NamedPort, RegisteredTask, TaskRegistry};
    use crate::cluster::{Agent, Protocol, Snapshot, TaskKey};
    let mut names = TaskRegistry::default();
    let mut agents = std::collections::BTreeMap::new();
    for (index, (agent, addresses, tcp, udp, range)) in members.iter().enumerate() {
        let address = |host: &u8| -> IpAddr {
            if host.is_multiple_of(3) {
                [0xfd00, 0, 0, 0, 0, 0, 9, (*host).into()].into()
            } else {
                [9, 0, 0, *host].into()
            }
        };
        let port = |number: &u16, protocol| NamedPort {
            label: "http".into(),
            protocol: Some(protocol),
            number: *number,
        };
        let ports = tcp.as_ref().map(|tcp| {
            let tcp = tcp.iter().map(|number| port(number, Protocol::Tcp));
            tcp.chain(udp.iter().map(|number| port(number, Protocol::Udp))).collect()
        });
        let resources = [(31_000, 31_000 + u64::from(*range))];
        let described = Described {
            name: if index.is_multiple_of(4) { "Web.x" } else { "web-x" },
            is_published: index.is_multiple_of(5),
            addresses: addresses.iter().map(address).collect(),
            ports,
            resources: if *range > 0 { &resources } else { &[] },
        };
        let id = format!("A-S{agent}");
        let task = TaskKey { framework: "F".into(), task: format!("t.{index}").into() };
        let (key, task) = RegisteredTask::new(&task, id.as_str().into(), described);
        names.add(key, task);
        let hostname = if agent.is_multiple_of(4) { format!("fd00::{agent}") } else { "n".to_owned() };
        let address = Some([10, 0, 0, agent % 50].into());
        agents.insert(id, Agent { hostname, address, port: Some(5051) });
    }
    let frameworks = [("F".to_owned(), "marathon".to_owned())].into_iter().collect();
    let agents = agents.into_iter().collect();
    let snapshot = Snapshot { agents, frameworks, names: std::sync::Arc::new(names), ..Snapshot::default() };
    TaskZone::new(Directory::new(&snapshot), &[], 1)
}

const CROWD: [(&str, bool); 12] = [
    ("web-x.marathon", false),
    ("web.x.marathon", false),
    ("web-x.marathon.slave", false),
    ("_web-x._tcp.marathon", false),
    ("_web.x._tcp.marathon", false),
    ("_web-x._udp.marathon", false),
    ("_http._web-x._tcp.marathon", false),
    ("_web-x._tcp.marathon.slave", false),
    ("_tcp.marathon", false),
    ("web-x.marathon.agentip", true),
    ("web-x.marathon.containerip", true),
    ("web-x.marathon.autoip", true),
];

fn records_of(zone: &TaskZone, (name, is_dcos): (&str, bool), window: AnswerWindow) -> Option<Vec<RData>> {
    let name = encode(name).unwrap();
    if is_dcos { zone.dcos(&name, window) } else { zone.mesos(&name, window) }
}

/// Octets of an answer with these records, at least.
fn octets(records: &[RData]) -> usize {
    let octets = |data: &RData| match data {
        RData::A(_) => 16,
        RData::Aaaa(_) => 28,
        RData::Srv { target, .. } => 19 + target.len(),
        RData::Ptr(_) => unreachable!(),
    };
    records.iter().map(octets).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The part of a name's records that an answer can have is all of them, or more than fit.
    #[test]
    fn an_answer_has_all_records_or_as_many_as_fit(
        members in proptest::collection::vec(
            (
                any::<u8>(),
                proptest::collection::vec(any::<u8>(), 0..3),
                proptest::option::of(proptest::collection::vec(1u16..5, 0..3)),
                proptest::collection::vec(1u16..5, 0..2),
                0u8..3,
            ),
            0..200,
        ),
        turns in proptest::collection::vec(any::<u16>(), 1..5),
        room in prop_oneof![Just(512usize), Just(1232), Just(65_535), 0usize..200],
    ) {
        let zone = crowd(&members);
        for name in CROWD {
            let all = records_of(&zone, name, AnswerWindow::ALL);
            for turn in &turns {
                for kind in [None, Some(kind::A), Some(kind::AAAA), Some(kind::SRV), Some(16)] {
                    let part = records_of(&zone, name, AnswerWindow { turn: *turn, room, kind });
                    prop_assert_eq!(part.is_some(), all.is_some(), "{:?} {:?}", name, kind);
                    let (Some(part), Some(all)) = (part, all.as_ref()) else { continue };
                    prop_assert!(part.is_sorted() && part.iter().all(|data| all.contains(data)));
                    prop_assert_eq!(part.is_empty(), all.is_empty());
                    for own in [kind::A, kind::AAAA, kind::SRV] {
                        if kind.is_none_or(|kind| kind == own) {
                            let (part, all) = (of_kind(&part, own), of_kind(all, own));
                            prop_assert!(part == all || octets(part) > room, "{:?} {:?} {:?}", name, kind, part);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn all_turns_together_come_to_every_instance_alike() {
    let members: Vec<Member> =
        (0..3000u32).map(|n| ((n % 250) as u8, vec![], Some(vec![80]), vec![], 0)).collect();
    let zone = crowd(&members);
    for (name, kind, expected) in [("web-x.marathon", kind::A, 50), ("_web-x._tcp.marathon", kind::SRV, 3000)]
    {
        let mut seen = std::collections::BTreeMap::new();
        for turn in (0..=u16::MAX).step_by(16) {
            let window = AnswerWindow { turn, room: 500, kind: Some(kind) };
            let records = records_of(&zone, (name, false), window).unwrap();
            // As few as an answer of this size may have, whatever the number of instances.
            assert!(of_kind(&records, kind).len() <= 500 / 16 + 1 && records.len() < 100, "{records:?}");
            for data in of_kind(&records, kind).iter().cloned() {
                *seen.entry(data).or_insert(0u32) += 1;
            }
        }
        assert_eq!(seen.len(), expected, "{name}");
        let (least, most) = (seen.values().min().unwrap(), seen.values().max().unwrap());
        assert!(most < &(least * 2), "{name}: {least} to {most}");
    }
}

/// The rule of mesos-dns for the names of one task, written down as its generator makes them.
fn names_by_mesos_dns(name: &str, id: &str, agent: &str, framework: &str, port: &str) -> Vec<(String, bool)> {
    use crate::cluster::dns_label::label;
    let hash = crate::cluster::registry::hash(id);
    let framework: Vec<String> = framework.split('.').map(label).filter(|part| !part.is_empty()).collect();
    let framework = framework.join(".");
    let mut names = Vec::new();
    // What is no name of DNS as it is written has only the other one.
    let written = Some(name.to_ascii_lowercase()).filter(|name| encode(name).is_ok());
    for task in written.into_iter().chain([label(name)]) {
        let canonical = format!("{task}-{}-{agent}", String::from_utf8_lossy(&hash));
        for slave in ["", ".slave"] {
            names.push((format!("{task}.{framework}{slave}"), false));
            names.push((format!("{canonical}.{framework}{slave}"), false));
        }
        names.push((format!("_{task}._tcp.{framework}"), true));
        if !label(port).is_empty() {
            names.push((format!("_{}._{task}._tcp.{framework}", label(port)), true));
        }
    }
    names
}

proptest! {
    /// Every name that fits DNS has its records; every target of an SRV record has addresses.
    #[test]
    fn names_of_mesos_dns_are_all_there(
        name in "[a-z0-9A-Z._ -]{0,3}[a-z0-9]{1,60}([._-]{1,2}[a-z0-9]{1,5})?",
        framework in "[a-z.-]{0,9}[a-z][._-]{0,3}",
        port in "[a-z_.]{0,5}",
    ) {
        let zone = TaskZone::new(Directory::new(&one_task(&framework, &name, &port)), &[], 1);
        for (name, is_service) in names_by_mesos_dns(&name, "t.1", "s7", &framework, &port) {
            let Ok(octets) = encode(&name) else { continue };
            let records = zone.mesos(&octets, AnswerWindow::ALL);
            prop_assert!(records.as_ref().is_some_and(|records| !records.is_empty()), "{}", name);
            for data in records.into_iter().flatten() {
                match data {
                    RData::Srv { port: 80, target } => {
                        prop_assert!(is_service);
                        let addresses = show(zone.mesos(&target, AnswerWindow::ALL));
                        prop_assert_eq!(addresses.as_deref(), Some("10.0.0.1"));
                    }
                    data => prop_assert_eq!((data, is_service), (RData::A([10, 0, 0, 1].into()), false)),
                }
            }
        }
    }

    /// A name that exists has existing names above it: resolvers may ask for those first (RFC 8020).
    #[test]
    fn no_name_is_below_one_that_does_not_exist(
        labels in proptest::collection::vec(
            proptest::sample::select(vec![
                "web-dev", "_web-dev", "_http", "_dns", "_tcp", "_udp", "marathon", "dev", "teama", "bare-1",
                "_bare-1", "web", "_web", "slave", "leader", "_leader", "_framework", "autoip", "containerip", "dev-teama",
            ]),
            1..6,
        ),
    ) {
        let tasks = tasks();
        for skipped in 1..labels.len() {
            let (name, above) = (labels.join("."), labels[skipped..].join("."));
            let (name, above) = (encode(&name).unwrap(), encode(&above).unwrap());
            prop_assert!(tasks.mesos(&name, AnswerWindow::ALL).is_none() || tasks.mesos(&above, AnswerWindow::ALL).is_some());
            prop_assert!(tasks.dcos(&name, AnswerWindow::ALL).is_none() || tasks.dcos(&above, AnswerWindow::ALL).is_some());
        }
    }

    #[test]
    fn any_name_has_an_answer(name in proptest::collection::vec(any::<u8>(), 0..60)) {
        let tasks = tasks();
        let _ = (tasks.dcos(&name, AnswerWindow::ALL), tasks.mesos(&name, AnswerWindow::ALL));
    }
}
