use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::cluster::belief::Belief;
use crate::cluster::{Protocol, Snapshot};
use crate::config::Config;
use crate::daemon::wiring;
use crate::dataplane::diff::diff;
use crate::dataplane::memory::SimulatedKernel as Kernel;
use crate::dataplane::plane::ebpf::EbpfPlane;
use crate::dataplane::plane::ipvs::IpvsPlane;
use crate::dataplane::{Connections, DataPlane, Depth, Foreign, Op, ServiceKey, State};
use crate::mesos;

mod follow;

const LINGER: i64 = 600;

fn planner(config: &str) -> Planner {
    let config = Config::parse(Path::new("test"), config).unwrap();
    Planner::new(wiring::planner(&config), Persisted::default())
}

/// Believes a document as it is.
fn learn(planner: &mut Planner, document: Snapshot) {
    let snapshot = Arc::new(document);
    planner.learn(&Accepted { snapshot, sync: SyncState::Synced, ..Accepted::default() });
}

/// A task with one labelled port: id, address and port, label.
fn task(id: &str, address: &str, label: &str, state: &str) -> String {
    let (ip, port) = address.rsplit_once(':').unwrap();
    format!(
        r#"{{"id":"{id}","framework_id":"F","slave_id":"S","state":"{state}","statuses":[{{"state":"TASK_RUNNING",
        "timestamp":1.0,"container_status":{{"network_infos":[{{"ip_addresses":[{{"ip_address":"{ip}"}}]}}]}}}}],
        "discovery":{{"ports":{{"ports":[{{"number":{port},"protocol":"tcp","labels":{{"labels":
        [{{"key":"VIP_0","value":"{label}"}}]}}}}]}}}}}}"#
    )
}

fn document(tasks: &[String]) -> Snapshot {
    let text = format!(
        r#"{{"slaves":[{{"id":"S","pid":"slave(1)@10.0.0.2:5051"}}],"frameworks":[{{"id":"F","name":"marathon","tasks":[{}]}}]}}"#,
        tasks.join(",")
    );
    mesos::parse(text.as_bytes(), None).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn node() -> Node {
    Node {
        addresses: ["10.0.0.1", "127.0.0.1", "::1"].map(|address| address.parse().unwrap()).into(),
        ..Node::default()
    }
}

/// Learns and plans in one go, on a node of its own.
fn plan(planner: &mut Planner, tasks: &[String], seconds: i64) -> Arc<Plan> {
    learn(planner, document(tasks));
    let actual = Actual { node: node(), ..Actual::default() };
    planner.plan(&actual, at(seconds)).unwrap()
}

fn services(plan: &Plan) -> Vec<String> {
    plan.desired
        .services
        .iter()
        .map(|(key, programmed)| format!("{key} {}", programmed.servers.len()))
        .collect()
}

#[test]
fn a_scheduler_without_an_effect_is_warned_of() {
    let label = r#"{"key":"VIP_0","value":"/web:80"}"#;
    let scheduler = r#"{"key":"L4LB_SCHEDULER","value":"sh"}"#;
    let task = task("web", "10.0.0.2:8080", "/web:80", "TASK_RUNNING");
    let asking = task.replace(label, &format!("{label},{scheduler}"));
    let warned = |capabilities, task: &String| {
        let mut planner = planner("");
        learn(&mut planner, document(std::slice::from_ref(task)));
        let actual = Actual { node: Node { capabilities, ..node() }, ..Actual::default() };
        let warnings = planner.plan(&actual, at(0)).unwrap().desired.warnings.clone();
        warnings.iter().any(|warning| warning.contains("L4LB_SCHEDULER has no effect on tcp web.marathon:80"))
    };
    assert!(warned(EbpfPlane::CAPABILITIES, &asking));
    assert!(!warned(EbpfPlane::CAPABILITIES, &task) && !warned(IpvsPlane::CAPABILITIES, &asking));
}

#[test]
fn nothing_is_planned_before_the_first_document() {
    assert!(planner("").plan(&Actual::default(), at(0)).is_none());
}

#[test]
fn a_vip_that_lost_its_tasks_refuses_for_a_while_and_keeps_its_address() {
    // A file is the operator's own word, so that nothing is held back.
    let mut planner = planner("[source]\nmasters = [\"file:/x\"]");
    let web = [task("web", "10.0.0.2:1000", "/web:80", "TASK_RUNNING")];
    let before = services(&plan(&mut planner, &web, 0));
    assert_eq!(before.len(), 1);
    let empty = format!("{} 0", before[0].trim_end_matches(" 1"));
    assert_eq!(services(&plan(&mut planner, &[], 10)), std::slice::from_ref(&empty));
    // Another name arrives meanwhile and does not get the address.
    let other = [task("other", "10.0.0.2:1001", "/other:80", "TASK_RUNNING")];
    assert!(services(&plan(&mut planner, &other, 20)).contains(&empty));
    assert!(services(&plan(&mut planner, &web, 30)).contains(&before[0]), "the same address again");
    assert_eq!(services(&plan(&mut planner, &[], 40)).len(), 2);
    assert!(services(&plan(&mut planner, &[], 41 + 2 * LINGER)).is_empty());
}

#[test]
fn a_vip_whose_tasks_are_being_started_is_not_forgotten() {
    let mut planner = planner("[source]\nmasters = [\"file:/x\"]");
    plan(&mut planner, &[task("a", "10.0.0.2:1000", "/web:80", "TASK_RUNNING")], 0);
    let staging = [task("b", "10.0.0.2:1000", "/web:80", "TASK_STAGING")];
    assert_eq!(services(&plan(&mut planner, &staging, 10 * LINGER)).len(), 1);
    assert_eq!(services(&plan(&mut planner, &[], 11 * LINGER)).len(), 1);
    assert!(services(&plan(&mut planner, &[], 12 * LINGER + 1)).is_empty());
}

#[test]
fn a_task_that_never_served_makes_no_vip() {
    let mut planner = planner("");
    assert!(
        services(&plan(&mut planner, &[task("a", "10.0.0.2:1", "/web:80", "TASK_STAGING")], 0)).is_empty()
    );
}

#[test]
fn labels_that_mean_one_name_are_one_vip() {
    let mut planner = planner("");
    let tasks = [
        task("a", "10.0.0.2:1", "/Web:80", "TASK_RUNNING"),
        task("b", "10.0.0.2:2", "web/:80", "TASK_RUNNING"),
        task("c", "10.0.0.2:3", "w%e%b:80", "TASK_RUNNING"),
    ];
    let plan = plan(&mut planner, &tasks, 0);
    assert_eq!(plan.desired.services.len(), 1);
    assert_eq!(plan.desired.services.values().next().unwrap().servers.len(), 3);
}

#[test]
fn names_are_placed_in_the_peers_order_whatever_the_order_of_the_document() {
    let config = "[vips]\nrange4 = \"11.0.0.0-11.0.0.3\"";
    let tasks: Vec<String> =
        ["a", "b", "c"].map(|name| task(name, "10.0.0.2:1", &format!("{name}:80"), "TASK_RUNNING")).into();
    let addresses = |order: &[usize]| {
        let mut planner = planner(config);
        let tasks: Vec<String> = order.iter().map(|index| tasks[*index].clone()).collect();
        plan(&mut planner, &tasks, 0);
        ["a", "b", "c"]
            .map(|name| planner.persisted.leases4.get(&format!("{name}.marathon")).unwrap().to_string())
    };
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        assert_eq!(addresses(&order), ["11.0.0.0", "11.0.0.3", "11.0.0.2"]);
    }
}

#[test]
fn a_full_range_leaves_out_what_does_not_fit_and_says_so() {
    let mut planner = planner("[vips]\nrange4 = \"11.0.0.0-11.0.0.1\"");
    let tasks: Vec<String> = ["a", "b", "c", "d"]
        .map(|name| task(name, "10.0.0.2:1", &format!("{name}:80"), "TASK_RUNNING"))
        .into_iter()
        .chain([task("l", "10.0.0.2:1", "10.9.9.9:80", "TASK_RUNNING")])
        .collect();
    let plan = plan(&mut planner, &tasks, 0);
    assert!(plan.unplaced >= 2);
    assert_eq!(plan.desired.services.len(), 5 - plan.unplaced);
    let complaints =
        plan.desired.skipped.iter().filter(|skipped| skipped.reason.contains("no address is free"));
    assert_eq!(complaints.count(), plan.unplaced);
}

#[test]
fn literals_never_have_an_address_of_the_range() {
    let mut planner = planner("");
    let tasks = [
        task("web", "10.0.0.2:1", "/web:80", "TASK_RUNNING"),
        task("thief", "10.0.0.2:2", "11.225.36.193:80", "TASK_RUNNING"),
        task("guest", "10.0.0.2:3", "11.225.36.193:81", "TASK_RUNNING"),
        task("early", "10.0.0.2:4", "11.77.0.9:80", "TASK_RUNNING"),
    ];
    let plan = plan(&mut planner, &tasks, 1);
    assert_eq!(planner.persisted.leases4.get("web.marathon").unwrap().to_string(), "11.225.36.193");
    assert_eq!(services(&plan), ["tcp 11.225.36.193:80 1"]);
    for name in ["thief", "guest", "early"] {
        let skipped = plan.desired.skipped.iter().find(|skipped| skipped.task == name).unwrap();
        assert!(skipped.reason.contains("the range of named VIPs"), "{skipped}");
    }
}

#[test]
fn names_leave_the_part_of_the_range_that_is_open_for_literals() {
    let web = [task("web", "10.0.0.2:1", "/web:80", "TASK_RUNNING")];
    let mut before = planner("");
    plan(&mut before, &web, 0);
    let config = "[vips]\nliterals_in_range = \"11.225.36.0-11.225.36.255\"";
    let config = Config::parse(Path::new("test"), config).unwrap();
    let mut planner = Planner::new(wiring::planner(&config), Persisted::clone(&before.persisted));
    let tasks = [web[0].clone(), task("lit", "10.0.0.2:2", "11.225.36.193:80", "TASK_RUNNING")];
    let plan = plan(&mut planner, &tasks, 1);
    assert_eq!(services(&plan), ["tcp 11.225.36.193:80 1", "tcp 11.225.37.0:80 1"]);
    assert_eq!(plan.desired.skipped, []);
}

proptest! {
    #![proptest_config(crate::units::cases(256))]
    /// Nodes that learn of tasks in another order, or of tasks that have gone since, whatever tenants
    /// write: a name has another address only where another name has the one that its hash gives.
    #[test]
    fn nodes_agree_on_names_that_compete_with_no_other(
        labels in prop::collection::vec((0u8..30, prop::option::of(0u8..64)), 1..30),
        earlier in prop::collection::vec(0u8..30, 0..10),
    ) {
        const RANGE: &str = "[vips]\nrange4 = \"11.0.0.0-11.0.0.63\"";
        let label = |(name, literal): &(u8, Option<u8>)| match literal {
            Some(last) => format!("11.0.0.{last}:80"),
            None => format!("/n{name}:80"),
        };
        let tasks: Vec<String> = labels.iter().enumerate().map(|(index, one)| {
            task(&format!("t{index}"), &format!("10.0.0.2:{}", index + 1), &label(one), "TASK_RUNNING")
        }).collect();
        let named = |planner: &Planner| planner.persisted.leases4.clone();
        let mut fresh = planner(RANGE);
        plan(&mut fresh, &tasks, 0);
        let mut old = planner(RANGE);
        let before: Vec<String> = earlier.iter().map(|name| {
            task(&format!("e{name}"), "10.0.0.2:99", &format!("/n{name}:80"), "TASK_RUNNING")
        }).collect();
        plan(&mut old, &before, 0);
        plan(&mut old, &tasks, 1);
        let (fresh, old) = (named(&fresh), named(&old));
        for (name, address) in fresh.iter() {
            // Alone on a node, a name has the address that its hash gives.
            let mut alone = planner(RANGE);
            let label = format!("/{}:80", name.trim_end_matches(".marathon"));
            plan(&mut alone, &[task("t", "10.0.0.2:1", &label, "TASK_RUNNING")], 0);
            let first = alone.persisted.leases4.get(name).unwrap();
            let has_rival = [&fresh, &old].iter().any(|leases| {
                leases.iter().any(|(other, held)| other != name && held == first)
            });
            prop_assert!(has_rival || (address == first && old.get(name) == Some(first)), "{name} {address}");
        }
    }
}

#[test]
fn labels_that_were_probably_meant_otherwise_are_warned_of_on_every_plane() {
    for capabilities in [IpvsPlane::CAPABILITIES, EbpfPlane::CAPABILITIES] {
        let mut planner = planner("");
        learn(&mut planner, document(&[task("t", "10.0.0.2:1", "010.1.2.3:80", "TASK_RUNNING")]));
        let node = Node { capabilities, default_source4: Some([10, 0, 0, 1].into()), ..node() };
        let plan = planner.plan(&Actual { node, ..Actual::default() }, at(0)).unwrap();
        let [warning] = plan.desired.warnings.as_slice() else { panic!("{:?}", plan.desired.warnings) };
        assert!(
            warning.contains("VIP_0=010.1.2.3:80: looks like an IPv4 address and is none")
                && warning.contains("it became the VIP tcp 010.1.2.3.marathon:80"),
            "{warning}"
        );
    }
}

#[test]
fn literals_that_would_take_something_from_the_node_are_refused() {
    let mut planner = planner("");
    let bad = [
        "127.0.0.1:80",
        "0.0.0.0:80",
        "169.254.169.254:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "10.0.0.1:22",
    ];
    let tasks: Vec<String> =
        bad.iter().map(|label| task(label, "10.0.0.2:1", label, "TASK_RUNNING")).collect();
    let plan = plan(&mut planner, &tasks, 0);
    assert!(plan.desired.services.is_empty(), "{:?}", services(&plan));
    assert_eq!(plan.desired.skipped.len(), bad.len());
}

#[test]
fn services_of_others_are_reported_and_not_overwritten() {
    let mut planner = planner("");
    learn(&mut planner, document(&[task("web", "10.0.0.2:1", "/web:80", "TASK_RUNNING")]));
    let key = ServiceKey { protocol: Protocol::Tcp, address: [11, 225, 36, 193].into(), port: 80 };
    let foreign = vec![Foreign { service: key.to_string(), key: Some(key) }];
    let plan = planner.plan(&Actual { node: node(), foreign, ..Actual::default() }, at(0)).unwrap();
    assert!(plan.desired.services.is_empty());
    assert!(plan.desired.skipped[0].reason.contains("not ours"), "{}", plan.desired.skipped[0]);
}

#[test]
fn vips_that_share_a_backend_are_warned_of() {
    let mut planner = planner("");
    let tasks =
        [task("a", "10.0.0.2:1", "/a:80", "TASK_RUNNING"), task("b", "10.0.0.2:1", "/b:80", "TASK_RUNNING")];
    let plan = plan(&mut planner, &tasks, 0);
    assert!(
        plan.desired
            .warnings
            .iter()
            .any(|warning| warning.contains("a.marathon:80") && warning.contains("b.marathon:80"))
    );
}

/// Warnings on a node with a bridge without hairpin mode for 10.0.0.0/24 and fd00::/64, and a VIP of each family.
fn hairpin_warnings(filters_bridged4: bool, filters_bridged6: bool) -> Vec<String> {
    let mut planner = planner("");
    let on_bridge = |network: &str| (network.parse().unwrap(), "cni0".to_owned());
    let node = Node {
        connected: [on_bridge("10.0.0.0/24"), on_bridge("fd00::/64")].into(),
        no_hairpin: ["cni0".to_owned()].into(),
        default_source4: Some([10, 0, 0, 1].into()),
        forwards_ipv6: true,
        filters_bridged4,
        filters_bridged6,
        ..node()
    };
    let tasks = [
        task("a", "10.0.0.7:1", "/four:80", "TASK_RUNNING"),
        task("b", "fd00::7:1", "/six:80", "TASK_RUNNING"),
    ];
    learn(&mut planner, document(&tasks));
    planner.plan(&Actual { node, ..Actual::default() }, at(0)).unwrap().desired.warnings.clone()
}

#[test]
fn hairpins_are_warned_of_by_the_setting_of_their_family() {
    assert_eq!(hairpin_warnings(false, false), [""; 0]);
    let four = hairpin_warnings(true, false);
    let six = hairpin_warnings(false, true);
    assert!(four[0].contains("four.marathon:80") && four[0].contains("bridge-nf-call-iptables"), "{four:?}");
    assert!(six[0].contains("six.marathon:80") && six[0].contains("bridge-nf-call-ip6tables"), "{six:?}");
    assert_eq!((four.len(), six.len(), hairpin_warnings(true, true)), (1, 1, [four, six].concat()));
}

#[test]
fn an_address_that_should_be_this_nodes_and_is_not_is_told() {
    let warnings = |config: &str, hostname: &str, own_agents: &[&str]| {
        let mut planner = planner(config);
        let mut document = document(&[]);
        document.agents.get_mut("S").unwrap().hostname = "node1.example.com".to_owned();
        document.own_agents = own_agents.iter().map(|id| (*id).to_owned()).collect();
        learn(&mut planner, document);
        let node = Node { hostname: hostname.to_owned(), ..node() };
        planner.plan(&Actual { node, ..Actual::default() }, at(0)).unwrap().desired.warnings.clone()
    };
    let told = |warnings: Vec<String>, wanted: &str| {
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(warning.starts_with(wanted) && warning.contains("(it has 10.0.0.1)"), "{warning}");
    };
    let agent = "this node's agent S (node1.example.com) has the address 10.0.0.2";
    told(warnings("", "node1", &[]), agent);
    told(warnings("", "NODE1.example.com", &[]), agent);
    told(warnings("", "other", &["S"]), agent);
    assert_eq!(warnings("", "node2", &[]), [""; 0], "another node's agent");
    assert_eq!(warnings("", "", &[]), [""; 0]);
    told(warnings("[node]\naddress = \"10.0.0.9\"", "node2", &[]), "node.address is 10.0.0.9");
}

#[test]
fn the_address_under_which_mesos_knows_the_node_comes_before_the_kernels_choice() {
    let mut planner = planner("");
    learn(&mut planner, document(&[]));
    let mut node = node();
    node.default_source4 = Some([10, 0, 0, 1].into());
    let source = |planner: &mut Planner, node: &Node| {
        planner.plan(&Actual { node: node.clone(), ..Actual::default() }, at(0)).unwrap().sources.v4
    };
    assert_eq!(source(&mut planner, &node), Some([10, 0, 0, 1].into()));
    node.addresses.insert([10, 0, 0, 2].into());
    assert_eq!(source(&mut planner, &node), Some([10, 0, 0, 2].into()), "the agent's");
    let mut configured = self::planner("[node]\naddress = \"10.0.0.3\"");
    learn(&mut configured, document(&[]));
    assert_eq!(source(&mut configured, &node), Some([10, 0, 0, 3].into()));
}

#[tokio::test]
async fn a_restart_on_a_programmed_kernel_writes_nothing() {
    let mut kernel = Kernel::new(State::default(), node());
    let tasks: Vec<String> = (0..20)
        .map(|n| {
            task(
                &format!("t{n}"),
                &format!("10.0.0.2:{}", 1000 + n),
                &format!("/v{}:80", n % 5),
                "TASK_RUNNING",
            )
        })
        .collect();
    let mut first = planner("");
    let mut ops = Vec::new();
    for planner in [&mut first, &mut planner("")] {
        learn(planner, document(&tasks));
        let actual = kernel.read(Depth::Full).await.unwrap();
        let plan = planner.plan(&actual, at(0)).unwrap();
        ops = diff(&actual.state, &plan.state, 7);
        assert!(kernel.apply(&ops).await.is_empty());
    }
    assert_eq!(ops, Vec::<Op>::new());
}

/// A container behind a port mapping of this node, reached by IPVS without it.
fn mapped(id: &str) -> String {
    format!(
        r#"{{"id":"{id}","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","container":{{"type":"MESOS","mesos":{{}},
        "network_infos":[{{"port_mappings":[{{"host_port":1000,"container_port":80,"protocol":"tcp"}}]}}]}},
        "statuses":[{{"state":"TASK_RUNNING","timestamp":1.0,"container_status":{{"network_infos":[{{"ip_addresses":
        [{{"ip_address":"172.17.0.2"}}],"port_mappings":[{{"host_port":1000,"container_port":80,"protocol":"tcp"}}]}}]}}}}],
        "discovery":{{"ports":{{"ports":[{{"number":1000,"protocol":"tcp","labels":{{"labels":
        [{{"key":"VIP_0","value":"/web:80"}},{{"key":"network-scope","value":"host"}}]}}}}]}}}}}}"#
    )
}

#[test]
fn sockets_need_no_packets_to_be_changed() {
    let mut planner = planner("");
    learn(&mut planner, document(&[mapped("web")]));
    let own: IpAddr = "10.0.0.2".parse().unwrap();
    let mut node = Node { addresses: [own].into(), ..node() };
    let mut backends = |capabilities| {
        node.capabilities = capabilities;
        let actual = Actual { node: node.clone(), ..Actual::default() };
        let plan = planner.plan(&actual, at(0)).unwrap();
        let backends: Vec<_> =
            plan.state.services.values().flat_map(|service| service.servers.keys().copied()).collect();
        (plan.state.clone(), backends)
    };
    let (_, servers) = backends(IpvsPlane::CAPABILITIES);
    assert_eq!(servers, [SocketAddr::from(([172, 17, 0, 2], 80))]);
    let (state, servers) = backends(EbpfPlane::CAPABILITIES);
    assert_eq!(servers, [SocketAddr::from(([10, 0, 0, 2], 1000))], "the mapping is that of any client");
    assert!(state.rules.is_none() && state.sysctls.is_empty() && state.timeouts.is_none());
    assert!(state.routes.iter().any(|route| route.destination.contains(&IpAddr::from([11, 0, 0, 1]))));
    assert!(state.routes.iter().all(|route| route.source.is_none()));
}

#[test]
fn backends_that_are_no_tasks_are_refused_with_the_reason() {
    let mut planner = planner("");
    let bad = [
        ("loop", "127.0.0.1:80", "a loopback address"),
        ("meta", "169.254.169.254:80", "a link-local address"),
        ("dns", "198.51.100.1:53", "where this node's names are served"),
        ("range", "11.225.36.193:80", "in the range of VIPs"),
        ("vip", "10.50.0.1:80", "a VIP itself"),
        ("multi", "224.0.0.1:80", "a multicast address"),
    ];
    let tasks: Vec<String> = bad
        .iter()
        .map(|(name, address, _)| task(name, address, &format!("/{name}:80"), "TASK_RUNNING"))
        .chain([task("literal", "10.0.0.2:1", "10.50.0.1:80", "TASK_RUNNING")])
        .chain([task("web", "10.0.0.2:2", "/web:80", "TASK_RUNNING")])
        .collect();
    // The literal VIP stands before a task reports its address.
    plan(&mut planner, &[task("literal", "10.0.0.2:1", "10.50.0.1:80", "TASK_RUNNING")], 0);
    let plan = plan(&mut planner, &tasks, 1);
    let served = plan.desired.services.values().filter(|programmed| !programmed.servers.is_empty());
    let served: Vec<String> = served.map(|programmed| programmed.vip.to_string()).collect();
    assert_eq!(served, ["tcp 10.50.0.1:80", "tcp web.marathon:80"]);
    for (name, _, kind) in bad {
        let skipped = plan.desired.skipped.iter().find(|skipped| skipped.task == name).unwrap();
        assert!(skipped.reason.ends_with(&format!("is {kind}")), "{skipped}");
    }
}

#[test]
fn a_literal_at_the_address_of_a_running_task_is_refused_unless_it_was_there_first() {
    let literal = task("literal", "10.0.0.2:1", "10.50.0.1:80", "TASK_RUNNING");
    let reporter = task("reporter", "10.50.0.1:80", "/web:80", "TASK_RUNNING");
    let both = [literal.clone(), reporter];
    let mut fresh = planner("");
    let refused = plan(&mut fresh, &both, 0);
    let skipped = &refused.desired.skipped[0];
    assert_eq!((skipped.task.as_str(), refused.desired.skipped.len()), ("literal", 1));
    assert!(skipped.reason.starts_with("10.50.0.1 is the address of a running task"), "{skipped}");

    let mut first = planner("");
    plan(&mut first, &[literal], 0);
    // The order outlives a restart.
    let settings = first.settings.clone();
    let mut restarted = Planner::new(settings, Persisted::clone(&first.persisted));
    for planner in [&mut first, &mut restarted] {
        let plan = plan(planner, &both, 1);
        assert!(services(&plan).contains(&"tcp 10.50.0.1:80 1".to_owned()), "{:?}", services(&plan));
        let skipped = &plan.desired.skipped[0];
        assert_eq!((skipped.task.as_str(), plan.desired.skipped.len()), ("reporter", 1));
        assert!(skipped.reason.ends_with("10.50.0.1 is a VIP itself"), "{skipped}");
    }
}

#[test]
fn infrastructure_that_is_learnt_later_takes_its_address_from_a_literal() {
    let mut planner = planner("");
    let tasks = [task("t", "10.0.0.2:1", "10.9.9.9:80", "TASK_RUNNING")];
    assert_eq!(services(&plan(&mut planner, &tasks, 0)), ["tcp 10.9.9.9:80 1"]);
    let mut led = document(&tasks);
    Arc::make_mut(&mut led.names).leader = Some(SocketAddr::from(([10, 9, 9, 9], 5050)));
    learn(&mut planner, led);
    let plan = planner.plan(&Actual { node: node(), ..Actual::default() }, at(1)).unwrap();
    assert_eq!(services(&plan), [""; 0], "not even to refuse connections");
    assert_eq!(
        plan.desired.skipped[0].reason,
        "10.9.9.9 is the address of a Mesos master, which can't be a VIP"
    );
    assert!(planner.persisted.vips.is_empty());
}

#[test]
fn a_name_that_leads_to_a_vip_ends_the_vip_for_a_day_and_across_restarts() {
    let mut planner = planner("");
    let tasks = [task("t", "10.0.0.2:1", "10.9.9.9:80", "TASK_RUNNING")];
    assert_eq!(services(&plan(&mut planner, &tasks, 0)), ["tcp 10.9.9.9:80 1"]);
    let marathon = BTreeMap::from([(IpAddr::from([10, 9, 9, 9]), "marathon.example".to_owned())]);
    assert!(planner.reserve(&marathon, at(100)));
    assert!(!planner.reserve(&marathon, at(HOUR)), "nothing new");
    let ended = plan(&mut planner, &tasks, 101);
    assert_eq!(services(&ended), [""; 0], "not even to refuse connections");
    assert_eq!(
        ended.desired.skipped[0].reason,
        "10.9.9.9 is the address of a server that l4lbd asks (marathon.example), which can't be a VIP"
    );
    let config = Config::parse(Path::new("test"), "").unwrap();
    let text = serde_json::to_string(&*planner.persisted).unwrap();
    let mut restarted = Planner::new(wiring::planner(&config), serde_json::from_str(&text).unwrap());
    assert_eq!(services(&plan(&mut restarted, &tasks, 102)), [""; 0]);
    // The name leads elsewhere by now.
    let elsewhere = BTreeMap::from([(IpAddr::from([10, 9, 9, 8]), "marathon.example".to_owned())]);
    assert!(restarted.reserve(&elsewhere, at(2 * HOUR)));
    assert_eq!(services(&plan(&mut restarted, &tasks, 103)), [""; 0]);
    assert!(restarted.reserve(&elsewhere, at(30 * HOUR)));
    assert_eq!(services(&plan(&mut restarted, &tasks, 104)), ["tcp 10.9.9.9:80 1"]);
}

/// A cluster of one machine may know its agent by a loopback address.
#[test]
fn an_agent_at_a_loopback_address_serves_its_tasks() {
    let text = r#"{"slaves":[{"id":"S","pid":"slave(1)@127.0.0.1:5051"}],"frameworks":[{"id":"F","name":"marathon",
        "tasks":[{"id":"web","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","discovery":{"ports":{"ports":
        [{"number":80,"protocol":"tcp","labels":{"labels":[{"key":"VIP_0","value":"/web:80"}]}}]}}}]}]}"#;
    let mut planner = planner("");
    learn(&mut planner, mesos::parse(text.as_bytes(), None).unwrap());
    let plan = planner.plan(&Actual { node: node(), ..Actual::default() }, at(0)).unwrap();
    assert_eq!(plan.desired.skipped, []);
    assert_eq!(services(&plan).len(), 1);
}

/// An event of a history: what happens, and two numbers that choose where.
type Happening = (u8, u8, u8);

/// A cluster of three machines, whose agents come and go under ids of their own.
#[derive(Default)]
struct Cluster {
    master: u32,
    /// Number of times that each machine's agent was replaced; all of its ids have one address.
    replaced: [u32; 3],
    /// Machines whose agent is lost.
    lost: [bool; 3],
    /// Machines whose agent the master awaits.
    awaited: [bool; 3],
    tasks: Vec<AnyTask>,
    count: u32,
}

#[derive(Clone)]
struct AnyTask {
    id: String,
    service: u8,
    machine: usize,
    agent: String,
    port: u16,
    /// Set for a task that claims a port of another machine, or one that it was not given.
    is_liar: bool,
    is_unreachable: bool,
}

impl Cluster {
    fn agent(&self, machine: usize) -> String {
        format!("S{machine}-{}", self.replaced[machine])
    }

    fn happen(&mut self, (kind, first, second): Happening) {
        let machine = usize::from(first % 3);
        match kind % 8 {
            0..=3 if !self.lost[machine] && !self.awaited[machine] => {
                let port = 31000 + u16::from(second % 3);
                let is_liar = kind % 8 == 3;
                // A master gives a port to one task at a time.
                let is_free = |task: &AnyTask| {
                    task.is_liar || task.is_unreachable || (task.machine, task.port) != (machine, port)
                };
                if is_liar || self.tasks.iter().all(is_free) {
                    self.count += 1;
                    self.tasks.push(AnyTask {
                        id: format!("t{}", self.count),
                        service: second / 3 % 3,
                        machine,
                        agent: self.agent(machine),
                        port,
                        is_liar,
                        is_unreachable: false,
                    });
                }
            }
            4 if !self.tasks.is_empty() => {
                let index = usize::from(first) % self.tasks.len();
                self.tasks.remove(index);
            }
            5 => {
                self.lost[machine] = true;
                let agent = self.agent(machine);
                self.tasks.iter_mut().filter(|task| task.agent == agent).for_each(|task| {
                    task.is_unreachable = true;
                });
            }
            // Under another id: what ran on the machine is gone.
            6 if self.lost[machine] => {
                self.lost[machine] = false;
                self.replaced[machine] += 1;
            }
            6 => self.awaited[machine] = false,
            7 => {
                self.master += 1;
                self.awaited = [true; 3];
            }
            _ => {}
        }
    }

    fn document(&self) -> Snapshot {
        let agent = |machine: usize| {
            format!(
                r#"{{"id":"{}","hostname":"m","pid":"slave(1)@10.0.0.{}:5051"}}"#,
                self.agent(machine),
                machine + 1
            )
        };
        let agents = |awaited: bool| {
            let here = (0..3).filter(|machine| !self.lost[*machine] && self.awaited[*machine] == awaited);
            here.map(agent).collect::<Vec<_>>().join(",")
        };
        let text = |task: &AnyTask| {
            // A liar says that it has the first machine's port.
            let address = if task.is_liar { 1 } else { task.machine + 1 };
            let resources = if task.is_liar { 0 } else { task.port };
            let state = if task.is_unreachable { "TASK_UNREACHABLE" } else { "TASK_RUNNING" };
            self::task(
                &task.id,
                &format!("10.0.0.{address}:{}", task.port),
                &format!("/v{}:80", task.service),
                state,
            )
            .replace(r#""slave_id":"S""#, &format!(r#""slave_id":"{}""#, task.agent))
            .replacen(
                '{',
                &format!(r#"{{"resources":{{"ports":"[{resources}-{resources}]"}},"#),
                1,
            )
        };
        let tasks = |unreachable: bool| {
            let is_listed = |task: &&AnyTask| {
                task.is_unreachable == unreachable && (unreachable || !self.awaited[task.machine])
            };
            self.tasks.iter().filter(is_listed).map(text).collect::<Vec<_>>().join(",")
        };
        let text = format!(
            r#"{{"id":"M{}","elected_time":1.0,"slaves":[{}],"recovered_slaves":[{}],"frameworks":[{{"id":"F",
            "name":"marathon","tasks":[{}],"unreachable_tasks":[{}]}}]}}"#,
            self.master,
            agents(false),
            agents(true),
            tasks(false),
            tasks(true)
        );
        mesos::parse(text.as_bytes(), None).unwrap()
    }
}

proptest! {
    #![proptest_config(crate::units::cases(300))]

    /// Whatever happens to agents, masters, tasks and the daemon: a VIP never has a server at an address and
    /// port that the document gives to a running task of another service, and that task serves its own.
    #[test]
    fn no_vip_sends_to_a_task_of_another_service(
        history in prop::collection::vec((any::<Happening>(), any::<bool>(), 0u8..12), 1..40),
    ) {
        let mut cluster = Cluster::default();
        let config = Config::parse(Path::new("test"), "").unwrap();
        let (settings, patience) = (wiring::planner(&config), wiring::patience(&config));
        let mut planner = Planner::new(settings.clone(), Persisted::default());
        let mut belief = Belief::default();
        let mut kernel = Kernel::new(State::default(), node());
        let mut believed = None;
        for (second, (happening, is_empty, restarts)) in history.into_iter().enumerate() {
            let now = at(10 * second as i64);
            cluster.happen(happening);
            if restarts == 0 {
                planner = Planner::new(settings.clone(), Persisted::clone(&planner.persisted));
                belief = Belief::resume(believed.take());
                // A start reads the kernel before it has a document.
                if let Some(accepted) = belief.accepted() {
                    planner.learn(&accepted);
                    planner.plan(&kernel.read_now(), now);
                }
            }
            let mut document = cluster.document();
            // Now and then a document is doubted that lists no task of any framework.
            if is_empty && restarts == 1 {
                document.tasks.clear();
                document.names = Arc::default();
            }
            let running: Vec<AnyTask> = cluster.tasks.iter().filter(|task| {
                document.tasks.keys().any(|key| *key.task == *task.id) && !task.is_liar
            }).cloned().collect();
            let accepted = belief.take(Arc::new(document), now, patience);
            // As it is read from the disk.
            let text = serde_json::to_string(&*accepted.snapshot).unwrap();
            believed = Some(serde_json::from_str(&text).unwrap());
            planner.learn(&accepted);
            let plan = planner.plan(&kernel.read_now(), now).unwrap();
            for op in diff(&kernel.state, &plan.state, 7) {
                kernel.execute(&op).unwrap();
                if let Op::AddServer(key, server, _) = op {
                    kernel.connections.insert((key, server), Connections { active: 1, inactive: 0 });
                }
            }
            for task in running {
                let held = SocketAddr::from(([10, 0, 0, task.machine as u8 + 1], task.port));
                let users: Vec<String> = plan.desired.services.values()
                    .filter(|programmed| programmed.servers.contains_key(&held))
                    .map(|programmed| programmed.vip.to_string())
                    .collect();
                prop_assert_eq!(users, [format!("tcp v{}.marathon:80", task.service)], "{} at {}", task.id, held);
            }
        }
    }
}
