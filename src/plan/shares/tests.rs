use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::cluster::belief::{Accepted, SyncState};
use crate::cluster::{Agent, Few, Protocol, Runtime, Snapshot, Task, TaskKey, TaskPort, TaskState, VipLabel};
use crate::config::Config;
use crate::daemon::wiring;
use crate::dataplane::{Actual, Capabilities, Connections, Node, PlaneBounds, State};
use crate::plan::{Plan, Planner};
use crate::store::Persisted;

#[test]
fn what_one_does_not_need_goes_to_the_rest() {
    assert_eq!(fill(&[10, 30, 900], 100), [10, 30, 60]);
    assert_eq!(fill(&[900, 30, 10, 900], 100), [30, 30, 10, 30]);
    assert_eq!(fill(&[5, 5, 5], 2), [1, 1, 0]);
    assert_eq!(fill(&[5, 1, 5], 8), [4, 1, 3]);
    assert_eq!(fill(&[5, 5], 100), [5, 5]);
    assert_eq!(fill(&[], 100), [0; 0]);
    assert_eq!(fill(&[usize::MAX, usize::MAX], 3), [2, 1]);
}

fn tenant(framework: &str, app: &str) -> Tenants {
    Tenant { framework: framework.into(), name: "marathon".to_owned(), app: app.into() }.into()
}

/// Number of places that each of these items got.
fn places(items: &[&Tenants], room: usize) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for (tenants, admitted) in items.iter().zip(divide(items, room).admitted) {
        let app = tenants.iter().map(|tenant| tenant.app.to_string()).collect::<Vec<_>>().join("+");
        *places.entry(app).or_default() += usize::from(admitted);
    }
    places
}

#[test]
fn frameworks_are_equal_and_so_are_the_apps_of_one() {
    let [evil, web, db] = [tenant("F", "evil"), tenant("F", "web"), tenant("G", "db")];
    let of = |tenants, count| std::iter::repeat_n(tenants, count);
    let items: Vec<&Tenants> = of(&evil, 900).chain(of(&web, 1)).chain(of(&db, 60)).collect();
    let expected = [("db", 50), ("evil", 49), ("web", 1)].map(|(app, count)| (app.to_owned(), count));
    assert_eq!(places(&items, 100), expected.into());
    let division = divide(&items, 100);
    let records = division.records(
        items.iter().map(|tenants| (*tenants, "t".to_owned(), "an item".to_owned())),
        "items",
        "full",
    );
    assert_eq!(records.len(), 2);
    assert_eq!(
        records[0].reason,
        "full, and the fair share of the app \"evil\" of the framework \"marathon\" (F) is 49: 851 items of it are \
         left out, of which this is the first (see SHARED BOUNDS in l4lbd-labels(7))"
    );
}

#[test]
fn joining_an_item_of_another_app_takes_nothing_from_it() {
    let [evil, web] = [tenant("F", "evil"), tenant("F", "web")];
    let mut both = web.clone();
    both.join(&evil);
    let items: Vec<&Tenants> =
        std::iter::repeat_n(&evil, 900).chain(std::iter::repeat_n(&both, 30)).collect();
    assert_eq!(places(&items, 100)["evil+web"], 30);
}

proptest! {
    #[test]
    fn an_app_within_its_even_part_gets_all_and_the_order_does_not_matter(
        demands in prop::collection::vec((0..4_u8, 0..5_u8, 1..60_usize), 1..12),
        room in 0..300_usize,
        seed in any::<u64>(),
    ) {
        let tenants: Vec<(Tenants, usize)> = demands
            .iter()
            .map(|(framework, app, count)| (tenant(&framework.to_string(), &format!("{framework}{app}")), *count))
            .collect();
        let mut items: Vec<&Tenants> =
            tenants.iter().flat_map(|(tenants, count)| std::iter::repeat_n(tenants, *count)).collect();
        let first = places(&items, room);
        prop_assert_eq!(first.values().sum::<usize>(), room.min(items.len()), "no place is wasted");
        // Any other order: places differ by what cannot be divided evenly, one for the framework and one for the app.
        items.sort_by_key(|tenants| {
            let tenant = tenants.iter().next().unwrap();
            (u64::from(tenant.app.as_bytes()[1]) * 31 + u64::from(tenant.app.as_bytes()[0]) * 7) ^ seed
        });
        let second = places(&items, room);
        for (app, count) in &first {
            prop_assert!(count.abs_diff(second[app]) <= 2, "{app}: {count} and {}", second[app]);
        }
        let frameworks: BTreeSet<u8> = demands.iter().map(|(framework, ..)| *framework).collect();
        for framework in &frameworks {
            let apps: BTreeSet<u8> =
                demands.iter().filter(|(f, ..)| f == framework).map(|(_, app, _)| *app).collect();
            let even = room / frameworks.len() / apps.len();
            for app in &apps {
                let demand = demands.iter().filter(|(f, a, _)| (f, a) == (framework, app));
                let demand: usize = demand.map(|(.., count)| count).sum();
                let name = format!("{framework}{app}");
                prop_assert!(first[&name] >= demand.min(even), "{name}");
            }
        }
    }
}

const AGENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

/// A task of an app with one port of its agent.
fn task(framework: &str, app: &str, port: u16, labels: impl Iterator<Item = String>) -> Task {
    let labels = labels.map(|value| VipLabel { key: "VIP_0".to_owned(), value });
    let port = TaskPort {
        name: "http".into(),
        protocol: Protocol::Tcp,
        port: None,
        host_port: Some(port),
        networks: BTreeSet::new(),
        is_in_container: false,
        is_allocated: true,
        labels: labels.collect(),
        options: None,
    };
    Task {
        key: TaskKey {
            framework: framework.into(),
            task: format!("{app}.{}", port.host_port.unwrap()).into(),
        },
        app: app.into(),
        agent_id: "S".into(),
        state: TaskState::Running,
        healthy: None,
        runtime: Runtime::Mesos,
        addresses: Few::default(),
        resources: Few::One([(port.host_port.unwrap(), port.host_port.unwrap())]),
        ports: Few::One([port]),
    }
}

fn snapshot(tasks: impl IntoIterator<Item = Task>) -> Snapshot {
    let agent = Agent { hostname: "a".to_owned(), address: Some(AGENT), port: None };
    Snapshot {
        agents: [("S".to_owned(), agent)].into_iter().collect(),
        frameworks: ["F", "G"].map(|id| (id.to_owned(), "marathon".to_owned())).into_iter().collect(),
        tasks: tasks.into_iter().map(|task| (task.key.clone(), Arc::new(task))).collect(),
        ..Snapshot::default()
    }
}

/// A node whose plane holds so many servers.
struct ShareBench {
    planner: Planner,
    actual: Actual,
    now: i64,
}

impl ShareBench {
    fn new(config: &str, servers: usize) -> Self {
        let config = Config::parse(Path::new("test"), config).unwrap();
        let bounds = PlaneBounds { services: 1 << 16, servers, servers_per_service: 65_535 };
        let capabilities = Capabilities { packets: false, bounds: Some(bounds), ..Capabilities::default() };
        let node = Node { capabilities, addresses: [[10, 0, 0, 1].into()].into(), ..Node::default() };
        let actual = Actual { node, ..Actual::default() };
        Self { planner: Planner::new(wiring::planner(&config), Persisted::default()), actual, now: 0 }
    }

    /// Plans for these tasks, and makes the kernel hold the plan.
    fn plan(&mut self, tasks: Vec<Task>) -> Arc<Plan> {
        let snapshot = Arc::new(snapshot(tasks));
        self.planner.learn(&Accepted { snapshot, sync: SyncState::Synced, ..Accepted::default() });
        self.now += 1;
        let plan = self.planner.plan(&self.actual, Timestamp::from_second(self.now).unwrap()).unwrap();
        self.actual.state = State { services: plan.state.services.clone(), ..State::default() };
        plan
    }
}

/// Servers with new connections of each VIP of an app, whose names start with the app's.
fn ready(plan: &Plan, app: &str) -> BTreeMap<String, Vec<SocketAddr>> {
    let programmed = plan.desired.services.values();
    let of_app = programmed.filter(|programmed| programmed.vip.to_string().contains(&format!(" {app}")));
    let ready = of_app.map(|programmed| {
        let servers = programmed.servers.iter().filter(|(_, backend)| backend.weight() > 0);
        (programmed.vip.to_string(), servers.map(|(address, _)| *address).collect())
    });
    ready.collect()
}

fn servers(plan: &Plan) -> usize {
    plan.state.services.values().map(|service| service.servers.len()).sum()
}

fn at(port: u16) -> Vec<SocketAddr> {
    vec![SocketAddr::new(AGENT, port)]
}

/// A tenant that fills a plane by itself, like 1,024 tasks with 256 labels the eBPF maps.
#[test]
fn a_replaced_task_and_a_new_vip_find_room_beside_the_largest_tenant() {
    let evil = || {
        (0..128)
            .map(|number| task("F", "evil", 1_024 + number, (0..256).map(|label| format!("/evil{label}:80"))))
    };
    let web = |app: &str, port| task("F", app, port, std::iter::once(format!("/{app}:80")));
    let mut bench = ShareBench::new("", 32_768);
    assert_eq!(ready(&bench.plan(vec![web("web", 31_000)]), "web")["tcp web.marathon:80"], at(31_000));
    let full = bench.plan(evil().chain([web("web", 31_000)]).collect());
    assert_eq!(servers(&full), 32_768 / 8 * 7);
    let record = full.desired.skipped.iter().find(|skipped| skipped.app.as_deref() == Some("evil")).unwrap();
    for part in
        ["32768 backends", "28671", "\"evil\"", "\"marathon\" (F)", "4097 backends of it are left out"]
    {
        assert!(record.reason.contains(part), "{part} in {record}");
    }
    assert_eq!(full.left_out, 4_097);
    assert!(full.uses[1].warning().unwrap().contains("28671 of them by the app \"evil\""));
    let replaced = bench.plan(evil().chain([web("web", 31_001)]).collect());
    assert_eq!(ready(&replaced, "web")["tcp web.marathon:80"], at(31_001));
    let new = bench.plan(evil().chain([web("web", 31_001), web("web2", 31_002)]).collect());
    assert_eq!(ready(&new, "web2")["tcp web2.marathon:80"], at(31_002));
    assert!(servers(&new) <= 32_768);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever one app asks for, in whatever order the tasks come: the other's VIPs lead to its tasks.
    #[test]
    fn a_tenant_never_keeps_anothers_tasks_from_their_vips(
        steps in prop::collection::vec((0..40_u16, 1..12_u16, 0..6_u16, any::<bool>()), 1..6),
    ) {
        let mut bench = ShareBench::new("", 160);
        for (tasks, labels, web, is_same_framework) in steps {
            let framework = if is_same_framework { "F" } else { "G" };
            let evil = (0..tasks).map(|number| {
                task("F", "evil", 1_024 + number * 7 % 97, (0..labels).map(|label| format!("/evil{label}:80")))
            });
            let label = move |port: u16| format!("/web{port}:80");
            let web: Vec<u16> = (0..web).map(|number| 31_000 + number).collect();
            let tasks: Vec<Task> = evil
                .chain(web.iter().map(|port| task(framework, "web", *port, std::iter::once(label(*port)))))
                .collect();
            let plan = bench.plan(tasks);
            for port in web {
                let vips = ready(&plan, "web");
                prop_assert_eq!(&vips[&format!("tcp web{port}.marathon:80")], &at(port));
            }
            prop_assert!(servers(&plan) <= 160, "{}", servers(&plan));
        }
    }
}

#[test]
fn servers_that_leave_have_a_bounded_part_in_fair_shares() {
    let mut bench = ShareBench::new("", 80);
    let evil = |first: u16| {
        (0..60).map(move |number| task("F", "evil", first + number, std::iter::once("/evil:80".to_owned())))
    };
    let web = |port| task("F", "web", port, std::iter::once("/web:80".to_owned()));
    let busy = |bench: &mut ShareBench| {
        let services = bench.actual.state.services.clone();
        for (key, service) in &services {
            for server in service.servers.keys() {
                bench.actual.connections.insert((*key, *server), Connections { active: 1, inactive: 0 });
            }
        }
    };
    bench.plan(evil(1_000).chain([web(31_000)]).collect());
    busy(&mut bench);
    // All tasks of both are replaced at once.
    let plan = bench.plan(evil(2_000).chain([web(31_001)]).collect());
    assert_eq!(ready(&plan, "web")["tcp web.marathon:80"], at(31_001));
    let leaving = |app: &str| {
        let programmed = plan.desired.services.values();
        let of_app = programmed.filter(|programmed| programmed.vip.to_string().contains(app));
        of_app
            .flat_map(|programmed| programmed.servers.values())
            .filter(|backend| backend.weight() == 0)
            .count()
    };
    assert_eq!((leaving("web"), leaving("evil")), (1, 9));
    assert!(servers(&plan) <= 80);
}

#[test]
fn vips_are_shared_and_vacant_ones_count() {
    let mut bench = ShareBench::new("[vips]\nmax = 8", 1_000);
    let evil = |first: u16| {
        std::iter::once(task("F", "evil", 1, (first..first + 20).map(|label| format!("/evil{label}:80"))))
    };
    let web = |app: &str| task("F", app, 31_000, std::iter::once(format!("/{app}:80")));
    let plan = bench.plan(evil(0).chain([web("web")]).collect());
    assert_eq!((ready(&plan, "evil").len(), ready(&plan, "web").len()), (7, 1));
    let record = plan.desired.skipped.iter().find(|skipped| skipped.app.as_deref() == Some("evil")).unwrap();
    assert!(record.reason.contains("vips.max") && record.reason.contains(" is 7: 13 VIPs"), "{record}");
    let address = bench.planner.persisted.leases4.get("web.marathon");
    // A vacant VIP keeps its place and its address while the other app takes ever new names.
    for round in 1..5 {
        let plan = bench.plan(evil(round * 20).collect());
        assert!(plan.desired.services.len() <= 8 && bench.planner.persisted.vips.len() <= 8);
    }
    assert_eq!(bench.planner.persisted.leases4.get("web.marathon"), address);
    let plan = bench.plan(evil(0).chain([web("web"), web("new")]).collect());
    assert_eq!((ready(&plan, "web").len(), ready(&plan, "new").len()), (1, 1));
    assert!(plan.uses[0].warning().is_some());
}

#[test]
fn addresses_are_shared() {
    let mut bench = ShareBench::new("[vips]\nrange4 = \"11.0.0.0-11.0.0.7\"", 1_000);
    let evil = || std::iter::once(task("F", "evil", 1, (0..20).map(|label| format!("/evil{label}:80"))));
    let web = |app: &str| task("F", app, 31_000, std::iter::once(format!("/{app}:80")));
    let held = |bench: &ShareBench| bench.planner.persisted.leases4.iter().count();
    bench.plan(evil().collect());
    assert_eq!(held(&bench), 8);
    let plan = bench.plan(evil().chain([web("web")]).collect());
    assert_eq!(ready(&plan, "web")["tcp web.marathon:80"], at(31_000));
    assert_eq!((plan.desired.services.len(), plan.unplaced), (8, 13));
    let address = bench.planner.persisted.leases4.get("web.marathon");
    // Its app keeps it, vacant too.
    bench.plan(evil().collect());
    assert_eq!((bench.planner.persisted.leases4.get("web.marathon"), held(&bench)), (address, 8));
}

#[test]
fn records_of_one_app_do_not_hide_those_of_another() {
    let record = |app: &str| Skipped {
        framework: Some("F".to_owned()),
        app: Some(app.to_owned()),
        ..Skipped::default()
    };
    let records: Vec<Skipped> =
        std::iter::repeat_n(record("evil"), 5_000).chain(std::iter::repeat_n(record("web"), 3)).collect();
    let shown = shown(&records, 1_000);
    assert_eq!(shown.len(), 1_000);
    assert_eq!(shown.iter().filter(|record| record.app.as_deref() == Some("web")).count(), 3);
}
