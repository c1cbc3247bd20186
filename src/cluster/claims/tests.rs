use proptest::prelude::*;

use super::*;
use crate::mesos;

/// Agents S0 and S1 at 10.0.0.1, S2 at 10.0.0.2, with the running tasks `tasks` of framework F.
fn snapshot(tasks: &[String]) -> Snapshot {
    let text = format!(
        r#"{{"slaves":[{{"id":"S0","pid":"slave(1)@10.0.0.1:5051"}},{{"id":"S1","pid":"slave(1)@10.0.0.1:5051"}},
        {{"id":"S2","pid":"slave(1)@10.0.0.2:5051"}}],"frameworks":[{{"id":"F","name":"marathon","tasks":[{}]}}]}}"#,
        tasks.join(",")
    );
    mesos::parse(text.as_bytes(), None).unwrap()
}

/// A running task without VIPs: what it was given, and what it reports and announces.
fn task(id: &str, agent: &str, resources: &str, address: &str, announced: &str) -> String {
    format!(
        r#"{{"id":"{id}","name":"{id}","framework_id":"F","slave_id":"{agent}","state":"TASK_RUNNING",
        "resources":{{"ports":"[{resources}]"}},"statuses":[{{"state":"TASK_RUNNING","timestamp":1.0,
        "container_status":{{"network_infos":[{{"ip_addresses":[{{"ip_address":"{address}"}}]}}]}}}}],
        "discovery":{{"name":"{id}","ports":{{"ports":[{announced}]}}}}}}"#
    )
}

fn port(number: u16) -> String {
    format!(r#"{{"number":{number},"protocol":"tcp"}}"#)
}

fn place(address: &str, agent: &str) -> Place {
    Place {
        address: address.parse().unwrap(),
        framework: Some("F".to_owned()),
        task: "before".to_owned(),
        agent: agent.to_owned(),
        is_containers: false,
    }
}

/// Id of the task that has a place by its agent's word.
fn holder(task: &str, place: Place) -> Option<String> {
    let snapshot = snapshot(&[task.to_owned()]);
    let found = holders(&snapshot, std::slice::from_ref(&place)).remove(0);
    assert_eq!(TasksByAgent::new(&snapshot).are_taken(&snapshot, &[place]), [found.is_some()]);
    found.map(|holder| holder.task)
}

/// The snapshot with tasks that are each on one of three agents, and have or announce a few ports there or at another
/// address.
fn random(tasks: &BTreeMap<u8, (u8, u8, u8, u8)>) -> Snapshot {
    let text = |(id, (agent, given, address, announced)): (&u8, &(u8, u8, u8, u8))| {
        let address = ["10.0.0.1", "10.0.0.2", "10.9.0.5", "10.9.0.6"][usize::from(*address)];
        let given = if *given == 0 { String::new() } else { format!("{0}-{0}", 31000 + u16::from(*given)) };
        let vip = r#","labels":{"labels":[{"key":"VIP_0","value":"/web:80"}]}"#;
        let announced = match announced {
            0 => String::new(),
            _ => port(31000 + u16::from(*announced))
                .replace('}', &format!("{}}}", if id % 2 == 0 { vip } else { "" })),
        };
        task(&format!("t{id}"), &format!("S{agent}"), &given, address, &announced)
    };
    snapshot(&tasks.iter().map(text).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(crate::units::cases(256))]
    /// Looking at the tasks of a place's machine alone finds what looking at all tasks finds, also after changes.
    #[test]
    fn who_is_on_another_machine_has_no_place(
        first in prop::collection::btree_map(0..20u8, (0..3u8, 0..4u8, 0..4u8, 0..4u8), 0..20),
        steps in prop::collection::vec(
            prop::collection::vec((0..20u8, prop::option::of((0..3u8, 0..4u8, 0..4u8, 0..4u8))), 1..4), 0..5),
        asked in prop::collection::vec((0..4usize, 31000..31004u16, 0..5usize, 0..20u8, any::<bool>()), 1..6),
    ) {
        let of = |(address, port, agent, task, is_containers): &(usize, u16, usize, u8, bool)| Place {
            task: format!("t{task}"),
            is_containers: *is_containers,
            ..place(
                &format!("{}:{port}", ["10.0.0.1", "10.0.0.2", "10.9.0.5", "10.9.0.6"][*address]),
                ["S0", "S1", "S2", "gone", ""][*agent],
            )
        };
        let places: Vec<Place> = asked.iter().map(of).collect();
        let mut tasks = first;
        let mut before = random(&tasks);
        let mut by_agent = TasksByAgent::new(&before);
        let expected = |snapshot: &Snapshot| holders(snapshot, &places).iter().map(Option::is_some).collect::<Vec<_>>();
        prop_assert_eq!(by_agent.are_taken(&before, &places), expected(&before));
        for step in steps {
            for (id, task) in step {
                match task {
                    Some(task) => drop(tasks.insert(id, task)),
                    None => drop(tasks.remove(&id)),
                }
            }
            let after = random(&tasks).sharing(&before);
            by_agent.follow(&before, &after);
            prop_assert_eq!(by_agent.are_taken(&after, &places), expected(&after));
            let news = after.news(&before);
            prop_assert_eq!(by_agent.are_taken_by(&news, &places), expected(&news));
            before = after;
        }
    }
}

/// A task that ends asks about one place; the cost is that of its machine.
#[test]
fn a_question_looks_at_the_tasks_of_one_machine() {
    let tasks: Vec<String> =
        (0..300).map(|n| task(&format!("t{n}"), "S2", "", "10.0.0.2", &port(n))).collect();
    let own =
        [task("a", "S0", "31000-31000", "10.0.0.1", ""), task("b", "S1", "31001-31001", "10.0.0.1", "")];
    let snapshot = snapshot(&[tasks.as_slice(), &own].concat());
    let by_agent = TasksByAgent::new(&snapshot);
    let looked_at = |place: &Place| {
        let machines = by_agent.machines(&snapshot, place).collect::<BTreeSet<_>>();
        machines
            .iter()
            .filter_map(|machine| by_agent.names.get(*machine))
            .map(|keys| keys.len())
            .sum::<usize>()
    };
    assert_eq!(looked_at(&place("10.0.0.1:31001", "S0")), 2);
    assert_eq!(looked_at(&place("10.9.0.5:80", "S1")), 2, "agents at one address are one machine");
    assert_eq!(looked_at(&place("10.9.0.5:80", "gone")), 0);
    assert_eq!(looked_at(&place("10.0.0.2:80", "S0")), 300);
}

#[test]
fn a_port_of_an_agent_is_the_task_s_to_which_the_agent_gave_it() {
    let asked = || place("10.0.0.1:31000", "S0");
    let given = "31000-31001";
    for (task, expected) in [
        (task("new", "S1", given, "10.0.0.1", ""), true),
        (task("mapped", "S0", given, "172.17.0.2", ""), true),
        (task("announced", "S1", "", "10.0.0.1", &port(31000)), false),
        (task("elsewhere", "S2", given, "10.0.0.1", &port(31000)), false),
        (task("before", "S0", given, "10.0.0.1", &port(31000)), false),
        (task("beside", "S1", "31001-31002", "10.0.0.1", ""), false),
    ] {
        assert_eq!(holder(&task, asked()).is_some(), expected, "{task}");
    }
}

/// The tasks of a pod have no port resources of their own, but their executor has.
#[test]
fn a_port_of_an_executor_is_that_of_its_task_that_announces_it() {
    let member = |id: &str, number: u16, label: &str| {
        format!(
            r#"{{"id":"{id}","name":"{id}","framework_id":"F","slave_id":"S1","executor_id":"e","state":"TASK_RUNNING",
            "discovery":{{"name":"{id}","ports":{{"ports":[{{"number":{number},"protocol":"tcp",{label}}}]}}}}}}"#
        )
    };
    let vip = r#""labels":{"labels":[{"key":"VIP_0","value":"/web:80"}]}"#;
    for label in [vip, r#""name":"http""#] {
        let text = format!(
            r#"{{"slaves":[{{"id":"S0","pid":"slave(1)@10.0.0.1:5051"}},{{"id":"S1","pid":"slave(1)@10.0.0.1:5051"}}],
            "frameworks":[{{"id":"F","name":"marathon","tasks":[{},{},{}],"executors":[{{"executor_id":"e",
            "framework_id":"F","slave_id":"S1","resources":{{"ports":"[31000-31002]"}}}}]}}]}}"#,
            member("a", 31000, label),
            member("b", 31001, label),
            member("c", 31009, label)
        );
        let snapshot = mesos::parse(text.as_bytes(), None).unwrap();
        let asked = [31000, 31001, 31002, 31009].map(|port| place(&format!("10.0.0.1:{port}"), "S0"));
        let found = holders(&snapshot, &asked).into_iter().map(|holder| holder.map(|holder| holder.task));
        let found: Vec<Option<String>> = found.collect();
        // A port that no task announces stays with nobody, such as one of a task of the pod that has ended.
        assert_eq!(found, [Some("a".to_owned()), Some("b".to_owned()), None, None], "{label}");
    }
}

#[test]
fn another_address_is_given_anew_only_by_the_agent_that_had_it() {
    for (agent, expected) in [("S0", true), ("S1", true), ("S2", false)] {
        let new = task("new", agent, "", "10.9.0.5", &port(80));
        assert_eq!(holder(&new, place("10.9.0.5:80", "S0")).is_some(), expected, "{agent}");
        assert_eq!(holder(&new, place("10.9.0.5:81", "S0")), None, "another port");
        assert_eq!(holder(&new, place("10.9.0.5:80", "")), None, "of an agent that is not known");
    }
    // Where the address is a container's alone, a task that announces no port has all of them.
    let silent = task("silent", "S0", "", "10.9.0.5", "");
    assert_eq!(holder(&silent, place("10.9.0.5:80", "S0")), None);
    let place = Place { is_containers: true, ..place("10.9.0.5:80", "S0") };
    assert_eq!(holder(&silent, place).as_deref(), Some("silent"));
}

#[test]
fn a_task_of_the_same_id_in_another_framework_is_another_task() {
    let again = task("before", "S1", "31000-31000", "10.0.0.1", "");
    let of = |framework: Option<&str>| Place {
        framework: framework.map(str::to_owned),
        ..place("10.0.0.1:31000", "S0")
    };
    assert_eq!(holder(&again, of(Some("F"))), None);
    assert_eq!(holder(&again, of(Some("G"))).as_deref(), Some("before"));
    assert_eq!(holder(&again, of(None)), None, "where only the id is known");
}

/// Each place is found once, however many tasks have all ports, and however many places they have.
#[test]
fn tasks_that_have_all_ports_cost_no_more_than_others() {
    let tasks: Vec<String> =
        (0..2_000).map(|n| task(&format!("t{n}"), "S1", "1-65535", "10.0.0.1", "")).collect();
    let places: Vec<Place> = (1..=60_000).map(|port| place(&format!("10.0.0.1:{port}"), "S0")).collect();
    assert!(holders(&snapshot(&tasks), &places).iter().all(Option::is_some));
}
