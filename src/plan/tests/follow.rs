//! Plans that follow a change of the cluster, against plans that are made anew.

use super::*;
use crate::dataplane::diff::diff_services;
use crate::dataplane::{Capabilities, PlaneBounds};

/// A task of a random cluster: place among the names, machine, port, and what is odd about it.
type FollowedTask = (u8, u8, u8, u8);

/// Labels that ask for few names, so that tasks share them; some are refused or meant otherwise.
const LABELS: [&str; 12] = [
    "/web:80",
    "/web:80",
    "/web:81",
    "/api:443",
    "/api:444",
    "/db:5432",
    "web:80",
    "/we b:80",
    "/:80",
    "10.9.9.9:80",
    "127.0.0.1:80",
    "/x:0",
];

/// Mostly tasks of labels that are accepted, which come and go, and are healthy or not: with others the whole plan is
/// made.
fn any_task() -> impl Strategy<Value = FollowedTask> {
    let label = prop_oneof![12 => 0..6_u8, 1 => 6..12_u8];
    // Half of them have labels beside that of their VIP.
    let odd = prop_oneof![4 => Just(0), 2 => Just(64), 5 => 6..10_u8, 1 => any::<u8>()];
    (label, any::<u8>(), any::<u8>(), odd)
}

/// A document with these tasks by number, of three apps, on three machines; each task has its ports among its
/// resources unless it is odd.
fn document_of(tasks: &BTreeMap<u8, FollowedTask>) -> Snapshot {
    let text = |(number, (label, machine, port, odd)): (&u8, &FollowedTask)| {
        let (ip, port) = (1 + machine % 3, 31000 + u16::from(port % 4));
        let resources = if odd % 16 == 1 { 0 } else { port };
        let state =
            ["TASK_RUNNING", "TASK_RUNNING", "TASK_KILLING", "TASK_STAGING"][usize::from(odd >> 4 & 3)];
        let healthy = odd >> 6 & 1 == 0;
        let beside = match odd % 16 {
            2 => r#",{"key":"L4LB_SCHEDULER","value":"mh"}"#,
            6 => r#",{"key":"L4LB_WEIGHT","value":"0"}"#,
            7 => r#",{"key":"L4LB_WEIGHT","value":"3"}"#,
            8 => r#",{"key":"L4LB_SLOW_START","value":"40s"}"#,
            9 => r#",{"key":"L4LB_EJECT","value":"false"}"#,
            _ => "",
        };
        let protocol = if odd % 16 == 3 { "udp" } else { "tcp" };
        let name = if odd % 16 == 4 { "other" } else { "http" };
        let framework = if odd % 16 == 5 { "G" } else { "F" };
        let value = LABELS[usize::from(*label) % LABELS.len()];
        let task = format!(
            r#"{{"id":"t{number}","name":"app{}","framework_id":"{framework}","slave_id":"S{ip}","state":"{state}",
            "resources":{{"ports":"[{resources}-{resources}]"}},"statuses":[{{"state":"{state}","timestamp":1.0,
            "healthy":{healthy},"container_status":{{"network_infos":[{{"ip_addresses":[{{"ip_address":"10.0.0.{ip}"}}
            ]}}]}}}}],"discovery":{{"ports":{{"ports":[{{"number":{port},"name":"{name}","protocol":"{protocol}",
            "labels":{{"labels":[{{"key":"VIP_0","value":"{value}"}},{{"key":"network-scope","value":"host"}}{beside}
            ]}}}}]}}}}}}"#,
            number % 3
        );
        (framework, task)
    };
    let tasks: Vec<(&str, String)> = tasks.iter().map(text).collect();
    let of = |framework: &str| {
        let own = tasks.iter().filter(|(of, _)| *of == framework).map(|(_, text)| text.as_str());
        own.collect::<Vec<_>>().join(",")
    };
    let agents: Vec<String> =
        (1..=3).map(|n| format!(r#"{{"id":"S{n}","pid":"slave(1)@10.0.0.{n}:5051"}}"#)).collect();
    let text = format!(
        r#"{{"id":"M","elected_time":1.0,"slaves":[{}],"frameworks":[{{"id":"F","name":"marathon","tasks":[{}]}},
        {{"id":"G","name":"marathon","tasks":[{}]}}]}}"#,
        agents.join(","),
        of("F"),
        of("G")
    );
    mesos::parse(text.as_bytes(), None).unwrap()
}

/// A planner and the kernel that holds what it planned.
struct Node {
    planner: Planner,
    kernel: Kernel,
    /// Services of the plan that the kernel holds.
    programmed: Services,
}

/// Which bounds of a node are so small that few tasks reach them.
#[derive(Clone, Copy, Debug, Default)]
struct Tight {
    vips: bool,
    addresses: bool,
    servers: bool,
}

impl Node {
    fn new(capabilities: Capabilities, tight: Tight) -> Self {
        let servers = PlaneBounds { services: 1 << 16, servers: 8, servers_per_service: 2 };
        let bounds = if tight.servers { Some(servers) } else { capabilities.bounds };
        let node = crate::dataplane::Node { capabilities: Capabilities { bounds, ..capabilities }, ..node() };
        let max = if tight.vips { 6 } else { 1_000 };
        let range = if tight.addresses { "11.0.0.0-11.0.0.3" } else { "11.0.0.0-11.255.255.254" };
        Self {
            planner: planner(&format!("[vips]\nmax = {max}\nrange4 = \"{range}\"\n")),
            kernel: Kernel::new(State::default(), node),
            programmed: Services::default(),
        }
    }

    /// Takes in a document, and returns how far its plan reached after all checks.
    fn learn(&mut self, snapshot: &Arc<Snapshot>, now: Timestamp) -> Reach {
        let accepted =
            Accepted { snapshot: Arc::clone(snapshot), sync: SyncState::Synced, ..Accepted::default() };
        let actual = self.kernel.read_now();
        // The definition: everything is made anew.
        let mut whole = self.planner.clone();
        whole.basis = None;
        whole.learn(&accepted);
        let expected = whole.plan(&actual, now).unwrap();

        self.planner.learn(&accepted);
        let (mut plan, reach) = self.planner.plan_on(&actual, now).unwrap();
        if let Reach::Services { services, names } = &reach {
            let ops = diff_services(&actual.state, &plan.state, services, 7);
            assert_eq!(ops, diff(&actual.state, &plan.state, 7));
            let names_of = |services: &Services| {
                let named = services.iter().map(|(key, service)| (*key, service.port_names.clone()));
                named.collect::<BTreeMap<_, _>>()
            };
            let before = names_of(&self.programmed);
            assert!(*names || before == names_of(&plan.desired.services));
        }
        self.planner.renew_warnings(&actual.node);
        assert!(self.planner.check(&actual, now).is_none_or(PlanCheck::is_right));
        plan = Arc::clone(&self.planner.plan);
        assert_eq!(plan.desired, expected.desired);
        assert_eq!(plan.state, expected.state);
        assert_eq!((plan.due, &plan.uses), (expected.due, &expected.uses));
        let left_out = |plan: &Plan| (plan.beyond, plan.unplaced, plan.left_out);
        assert_eq!(left_out(&plan), left_out(&expected));
        assert_eq!((&self.planner.owners, self.planner.servers), (&whole.owners, whole.servers));
        assert_eq!(*self.planner.persisted, *whole.persisted);
        let table = |planner: &Planner| planner.cluster.as_ref().unwrap().table.clone();
        assert_eq!(table(&self.planner), table(&whole));
        self.programmed = plan.desired.services.clone();
        for op in diff(&actual.state, &plan.state, 7) {
            self.kernel.execute(&op).unwrap();
        }
        reach
    }
}

proptest! {
    #![proptest_config(crate::units::cases(256))]

    /// Whatever happens, a plan that follows the change is the one that is made anew.
    #[test]
    fn a_plan_that_follows_is_the_whole_plan(
        first in prop::collection::btree_map(0..12u8, any_task(), 0..12),
        steps in prop::collection::vec(
            (prop::collection::vec((0..12u8, prop::option::weighted(0.8, any_task())), 1..6), 0..90i64, any::<u8>()),
            1..12,
        ),
        handles_packets in any::<bool>(),
        (vips, addresses, servers) in any::<(bool, bool, bool)>(),
    ) {
        let capabilities = if handles_packets { IpvsPlane::CAPABILITIES } else { EbpfPlane::CAPABILITIES };
        let mut node = Node::new(capabilities, Tight { vips, addresses, servers });
        let mut tasks = first;
        let mut seconds = 0;
        node.learn(&Arc::new(document_of(&tasks)), at(0));
        for (edits, pause, busy) in steps {
            for (number, task) in edits {
                match task {
                    Some(task) => tasks.insert(number, task),
                    None => tasks.remove(&number),
                };
            }
            seconds += pause;
            // Every other server has a connection, and so drains.
            let servers = node.kernel.state.services.iter();
            let servers = servers.flat_map(|(key, service)| service.servers.keys().map(move |server| (*key, *server)));
            let connections = servers.zip(0..).map(|(server, index)| {
                (server, Connections { active: u32::from(busy >> (index % 8) & 1), inactive: 0 })
            });
            node.kernel.connections = connections.collect();
            node.learn(&Arc::new(document_of(&tasks)), at(seconds));
        }
    }
}

/// Tasks 0 and 1 of `/web:80` and task 2 of `/api:443`.
fn small() -> BTreeMap<u8, FollowedTask> {
    BTreeMap::from([(0, (0, 0, 0, 0)), (1, (1, 1, 1, 0)), (2, (3, 2, 2, 0))])
}

#[test]
fn what_happens_all_the_time_is_followed() {
    for capabilities in [IpvsPlane::CAPABILITIES, EbpfPlane::CAPABILITIES] {
        let mut node = Node::new(capabilities, Tight::default());
        let mut tasks = small();
        node.learn(&Arc::new(document_of(&tasks)), at(0));
        let key = |node: &Node, name: &str| {
            let leases = &node.planner.persisted.leases4;
            let (address, port) = (leases.get(name).unwrap(), if name == "web.marathon" { 80 } else { 443 });
            ServiceKey { protocol: Protocol::Tcp, address, port }
        };
        let web = BTreeSet::from([key(&node, "web.marathon")]);
        type Happen = fn(&mut BTreeMap<u8, FollowedTask>);
        let happenings: [(&str, Happen); 6] = [
            ("unhealthy", |tasks| tasks.get_mut(&0).unwrap().3 = 64),
            ("healthy", |tasks| tasks.get_mut(&0).unwrap().3 = 0),
            ("scaled up", |tasks| _ = tasks.insert(3, (0, 2, 3, 0))),
            ("told to stop", |tasks| tasks.get_mut(&3).unwrap().3 = 32),
            ("killed", |tasks| _ = tasks.remove(&3)),
            ("moved", |tasks| _ = tasks.insert(1, (1, 2, 3, 0))),
        ];
        for (second, (name, happen)) in (1..).zip(happenings) {
            happen(&mut tasks);
            let reach = node.learn(&Arc::new(document_of(&tasks)), at(second));
            assert_eq!(reach, Reach::Services { services: web.clone(), names: false }, "{name}");
        }
        // The last task of a VIP, which refuses from then on.
        tasks.remove(&2);
        let Reach::Services { services, .. } = node.learn(&Arc::new(document_of(&tasks)), at(100)) else {
            panic!("made anew");
        };
        assert!(services.contains(&key(&node, "api.marathon")));
        // A new name, and a new port of a known one.
        tasks.insert(4, (5, 0, 2, 0));
        tasks.insert(5, (2, 0, 3, 0));
        let reach = node.learn(&Arc::new(document_of(&tasks)), at(101));
        let Reach::Services { services, names: true } = reach else { panic!("{reach:?}") };
        assert!(node.planner.persisted.leases4.get("db.marathon").is_some());
        assert!(services.iter().any(|key| key.port == 5432) && services.iter().any(|key| key.port == 81));
    }
}

/// Up to three quarters of a bound a change is followed; beyond, the tasks of all decide who has a place.
#[test]
fn a_change_is_followed_up_to_three_quarters_of_what_is_shared() {
    // Number of tasks up to three quarters, and their labels, each a VIP of its own.
    let cases: [(Tight, u8, &[u8]); 3] = [
        (Tight { servers: true, ..Tight::default() }, 5, &[0, 2, 3, 4, 5]),
        (Tight { vips: true, ..Tight::default() }, 4, &[0, 2, 3, 4, 5]),
        (Tight { addresses: true, ..Tight::default() }, 2, &[0, 3, 5]),
    ];
    for (tight, few, labels) in cases {
        let mut node = Node::new(EbpfPlane::CAPABILITIES, tight);
        let mut second = 0;
        let mut change_with = |tasks: u8| {
            let task = |number: u8| {
                (number, (labels[usize::from(number) % labels.len()], number % 3, number / 3, 0))
            };
            let mut tasks: BTreeMap<u8, FollowedTask> = (0..tasks).map(task).collect();
            // What is vacant is forgotten before the change.
            for pause in [1, 2 * LINGER] {
                second += pause;
                node.learn(&Arc::new(document_of(&tasks)), at(second));
            }
            tasks.get_mut(&0).unwrap().3 = 64;
            node.learn(&Arc::new(document_of(&tasks)), at(second + 1))
        };
        for _ in 0..2 {
            assert!(matches!(change_with(few), Reach::Services { .. }), "{tight:?}");
            assert_eq!(change_with(few + 1), Reach::Everything, "{tight:?}");
        }
    }
}

/// Three VIPs, of which one has followed a change.
fn followed() -> (Node, BTreeMap<u8, FollowedTask>) {
    let mut node = Node::new(EbpfPlane::CAPABILITIES, Tight::default());
    let mut tasks: BTreeMap<u8, FollowedTask> =
        [(0, (0, 0, 1, 0)), (1, (3, 1, 1, 0)), (2, (5, 2, 1, 0))].into();
    node.learn(&Arc::new(document_of(&tasks)), at(0));
    tasks.get_mut(&0).unwrap().3 = 64;
    assert!(matches!(node.learn(&Arc::new(document_of(&tasks)), at(1)), Reach::Services { .. }));
    // The comparison of `learn` has been made.
    node.planner.has_followed = true;
    (node, tasks)
}

#[test]
fn a_table_or_a_plan_that_is_wrong_is_found_and_made_anew() {
    let lose_server = |planner: &mut Planner| {
        let vips = &mut planner.cluster.as_mut().unwrap().table.vips;
        let key = vips.keys().next().unwrap().clone();
        vips.remove(&key);
    };
    for lose in [lose_server, Planner::lose_service] {
        let (mut node, _) = followed();
        let actual = node.kernel.read_now();
        let right = Arc::clone(&node.planner.plan);
        lose(&mut node.planner);
        let check = node.planner.check(&actual, at(2)).unwrap();
        assert!(!check.is_right());
        node.planner.begin_anew();
        let (plan, reach) = node.planner.plan_on(&actual, at(2)).unwrap();
        assert_eq!((&plan.desired, &plan.state, reach), (&right.desired, &right.state, Reach::Everything));
        assert!(node.planner.check(&actual, at(2)).is_none(), "it was just made");
    }
}

/// Counts what is copied rather than time: nothing of the size of the cluster when a comparison begins, and one part
/// of each map when a change comes meanwhile.
#[test]
fn changes_go_on_while_a_plan_is_compared() {
    let (mut node, mut tasks) = followed();
    let actual = node.kernel.read_now();
    let check = node.planner.check(&actual, at(2)).unwrap();
    let vips = |planner: &Planner| planner.cluster.as_ref().unwrap().table.vips.clone();
    assert!(Arc::ptr_eq(&check.planner.plan, &node.planner.plan));
    assert!(vips(&check.planner).is_copy(&vips(&node.planner)));
    assert!(check.actual.state.services.is_copy(&actual.state.services));
    tasks.get_mut(&0).unwrap().3 = 0;
    assert!(matches!(node.learn(&Arc::new(document_of(&tasks)), at(3)), Reach::Services { .. }));
    // What did not change is still there once.
    let (before, after) = (vips(&check.planner), vips(&node.planner));
    let shared = before.iter().filter(|(key, vip)| after.get(key).is_some_and(|now| Arc::ptr_eq(vip, now)));
    assert_eq!((shared.count(), before.len()), (2, 3));
    assert!(check.is_right(), "it is about the moment at which it began");
}

/// A node does nothing but what is due for the backends that are getting warm.
#[test]
fn a_share_rises_without_an_event_at_the_cost_of_its_vip() {
    let mut node = Node::new(EbpfPlane::CAPABILITIES, Tight::default());
    let mut tasks = small();
    node.learn(&Arc::new(document_of(&tasks)), at(0));
    // `/web:80` has two tasks, and a third one with L4LB_SLOW_START=40s.
    tasks.insert(3, (0, 2, 3, 8));
    let snapshot = Arc::new(document_of(&tasks));
    node.learn(&snapshot, at(10));
    let weights = |plan: &Plan| -> Vec<Vec<u32>> {
        let services = plan.desired.services.values();
        services.map(|programmed| programmed.kernel_weights().collect()).collect()
    };
    let (mut found, mut steps) = (vec![weights(&node.planner.plan)], 0);
    while let Some(due) = node.planner.plan.due {
        steps += 1;
        assert!(due > at(10) && due <= at(50));
        let actual = node.kernel.read_now();
        let (plan, reach) = node.planner.plan_on(&actual, due).unwrap();
        let Reach::Services { services, names: false } = reach else { panic!("{reach:?}") };
        assert_eq!(services.len(), 1);
        for op in diff_services(&actual.state, &plan.state, &services, 7) {
            node.kernel.execute(&op).unwrap();
        }
        found.push(weights(&plan));
    }
    assert_eq!(steps, 9);
    let of_web = |weights: &[Vec<u32>]| weights.iter().find(|weights| weights.len() == 3).cloned().unwrap();
    let sorted = |weights: &[Vec<u32>]| {
        let mut all = of_web(weights);
        all.sort_unstable();
        all
    };
    assert_eq!(sorted(&found[0]), [1, 10, 10]);
    assert_eq!(sorted(&found[4]), [5, 10, 10]);
    assert_eq!(sorted(&found[9]), [10, 10, 10]);
}
