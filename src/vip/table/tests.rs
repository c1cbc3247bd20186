use std::sync::Arc;

use super::*;
use crate::cluster::{Locality, Runtime, TaskAddress};
use crate::cluster::{TaskKey, VipLabel};
use crate::mesos;

const AGENT: &str = "10.0.0.1";

/// The state of one agent with one running task.
struct Doc {
    container: &'static str,
    networks: &'static str,
    port: &'static str,
    scope: &'static str,
    label: &'static str,
    state: &'static str,
}

impl Default for Doc {
    fn default() -> Self {
        Self {
            container: "null",
            networks: r#"[{"ip_addresses":[{"ip_address":"10.0.0.1"}]}]"#,
            port: "8080",
            scope: "",
            label: "/web:80",
            state: "TASK_RUNNING",
        }
    }
}

/// Container with port 80 behind host port 31000 of its agent.
const UCR: &str = r#"{"type":"MESOS","network_infos":[{"name":"mesos-bridge","port_mappings":[{"host_port":31000,"container_port":80,"protocol":"tcp"}]}]}"#;
const DOCKER: &str = r#"{"type":"DOCKER","docker":{"port_mappings":[{"host_port":31000,"container_port":80,"protocol":"tcp"}]}}"#;
const BRIDGE: &str = r#"[{"name":"mesos-bridge","ip_addresses":[{"ip_address":"172.31.254.3"}]}]"#;
const HOST_SCOPE: &str = r#",{"key":"network-scope","value":"host"}"#;

impl Doc {
    fn table(&self, ipv6: bool) -> VipTable {
        let Self { container, networks, port, scope, label, state } = self;
        let text = format!(
            r#"{{"id":"M","elected_time":1,"slaves":[{{"id":"S","hostname":"a","pid":"slave(1)@{AGENT}:5051"}}],
            "frameworks":[{{"id":"F","name":"marathon","tasks":[{{"id":"t","framework_id":"F","slave_id":"S",
            "state":"{state}","container":{container},"statuses":[{{"state":"TASK_RUNNING","timestamp":1,
            "container_status":{{"network_infos":{networks}}}}}],"discovery":{{"ports":{{"ports":[{{"number":{port},
            "protocol":"tcp","labels":{{"labels":[{{"key":"VIP_0","value":"{label}"}}{scope}]}}}}]}}}}}}]}}]}}"#
        );
        VipTable::new(
            &mesos::parse(text.as_bytes(), None).unwrap(),
            &LabelPolicy { ipv6, ..LabelPolicy::default() },
        )
    }

    /// Backends as this and other nodes see them.
    fn backends(&self) -> Vec<(String, String)> {
        let own = BTreeSet::from([AGENT.parse().unwrap()]);
        let table = self.table(true);
        assert_eq!(table.skipped, []);
        let backends = table.vips.values().flat_map(|vip| &vip.backends);
        backends.map(|(address, b)| (address.to_string(), b.seen_from(*address, &own).to_string())).collect()
    }

    fn reason(&self, ipv6: bool) -> String {
        let table = self.table(ipv6);
        assert!(table.vips.is_empty(), "{:?}", table.vips);
        table.skipped[0].reason.clone()
    }
}

fn pair(everywhere: &str, here: &str) -> Vec<(String, String)> {
    vec![(everywhere.to_owned(), here.to_owned())]
}

#[test]
fn every_network_mode_has_its_address() {
    assert_eq!(Doc::default().backends(), pair("10.0.0.1:8080", "10.0.0.1:8080"), "host");
    let ucr = Doc { container: UCR, networks: BRIDGE, port: "31000", scope: HOST_SCOPE, ..Doc::default() };
    assert_eq!(ucr.backends(), pair("10.0.0.1:31000", "172.31.254.3:80"), "rewritten on its own node");
    let docker =
        Doc { container: DOCKER, networks: BRIDGE, port: "31000", scope: HOST_SCOPE, ..Doc::default() };
    assert_eq!(docker.backends(), pair("10.0.0.1:31000", "10.0.0.1:31000"), "Docker maps its ports itself");
    let on_host = Doc { container: UCR, port: "31000", scope: HOST_SCOPE, ..Doc::default() };
    assert_eq!(on_host.backends(), pair("10.0.0.1:31000", "10.0.0.1:31000"), "no container address");
    let own_address = Doc { networks: BRIDGE, port: "80", ..Doc::default() };
    assert_eq!(own_address.backends(), pair("172.31.254.3:80", "172.31.254.3:80"), "container network");
    let pod_networks = r#"[{"name":"mesos-bridge","ip_addresses":[{"ip_address":"172.31.254.4"}],
        "port_mappings":[{"host_port":2254,"container_port":8080,"protocol":"tcp"}]}]"#;
    let pod = Doc { networks: pod_networks, port: "2254", scope: HOST_SCOPE, ..Doc::default() };
    assert_eq!(pod.backends(), pair("10.0.0.1:2254", "172.31.254.4:8080"), "pods map ports in their status");
    let mapped = Doc { container: UCR, networks: BRIDGE, port: "80", ..Doc::default() };
    assert_eq!(mapped.backends(), pair("10.0.0.1:31000", "172.31.254.3:80"), "a host port comes first");
    assert_eq!(
        Doc { networks: "[]", ..Doc::default() }.backends(),
        pair("10.0.0.1:8080", "10.0.0.1:8080"),
        "old Mesos"
    );
}

#[test]
fn the_network_is_picked_by_name() {
    let networks = r#"[{"name":"dcos6","ip_addresses":[{"ip_address":"9.0.2.4"}]},
        {"name":"dcos","ip_addresses":[{"ip_address":"9.0.1.5"}]}]"#;
    let on = |scope| Doc { networks, port: "80", scope, ..Doc::default() };
    assert_eq!(on(r#",{"key":"network-name","value":"dcos"}"#).backends(), pair("9.0.1.5:80", "9.0.1.5:80"));
    assert_eq!(on("").backends().len(), 2);
    let reason = on(r#",{"key":"network-name","value":"other"}"#).reason(true);
    assert_eq!(reason, "the task has no address on network other");
    let unnamed = Doc { scope: r#",{"key":"network-name","value":"dcos"}"#, ..Doc::default() };
    assert_eq!(unnamed.backends().len(), 1, "some runtimes report no names");
}

#[test]
fn a_container_without_an_address_is_not_at_the_agents_port() {
    const CONTAINER_SCOPE: &str = r#",{"key":"network-scope","value":"container"}"#;
    const NAMED: &str = r#",{"key":"network-name","value":"dcos"}"#;
    const OVERLAY: &str = r#"{"type":"MESOS","network_infos":[{"name":"dcos"}]}"#;
    let reason = "the task has reported no address in its container's network yet";
    for (container, scope) in [("null", CONTAINER_SCOPE), ("null", NAMED), (OVERLAY, "")] {
        let doc = Doc { container, scope, networks: "[]", port: "80", ..Doc::default() };
        assert_eq!(doc.reason(true), reason, "{container} {scope}");
    }
    let elsewhere = r#"[{"name":"other","ip_addresses":[{"ip_address":"9.0.2.4"}]},{"name":"dcos"}]"#;
    let doc = Doc { networks: elsewhere, scope: NAMED, port: "80", ..Doc::default() };
    assert_eq!(doc.reason(true), "the task has no address on network dcos");
    let mapped = Doc { container: UCR, networks: "[]", port: "80", ..Doc::default() };
    assert_eq!(mapped.backends(), pair("10.0.0.1:31000", "10.0.0.1:31000"), "the agent's port is mapped");
}

#[test]
fn families_are_kept_apart() {
    let networks = r#"[{"ip_addresses":[{"ip_address":"9.0.1.5"},{"ip_address":"fd01:b::4/64"}]}]"#;
    let both = Doc { networks, ..Doc::default() };
    assert_eq!(both.backends().len(), 2);
    assert_eq!(both.table(false).vips.values().next().unwrap().backends.len(), 1, "IPv6 is off");
    for (label, backend) in [("1.2.3.4:80", "9.0.1.5:8080"), ("fd00::1:80", "[fd01:b::4]:8080")] {
        let literal = Doc { networks, label, ..Doc::default() };
        assert_eq!(literal.backends(), pair(backend, backend));
    }
    assert_eq!(Doc { networks, label: "fd00::1:80", ..Doc::default() }.reason(false), "IPv6 is off");
    let mapped = Doc {
        container: UCR,
        networks,
        port: "31000",
        scope: HOST_SCOPE,
        label: "fd00::1:80",
        ..Doc::default()
    };
    assert_eq!(mapped.reason(true), "the task has no IPv6 address for an IPv6 VIP", "agents have IPv4");
}

#[test]
fn only_tasks_that_serve_have_backends() {
    for (state, weights, awaited) in [
        ("TASK_RUNNING", vec![1], 0),
        ("TASK_KILLING", vec![0], 0),
        ("TASK_STAGING", vec![], 1),
        ("TASK_STARTING", vec![], 1),
        ("TASK_UNREACHABLE", vec![], 0),
        ("TASK_UNKNOWN", vec![], 1),
        ("TASK_FINISHED", vec![], 0),
        ("TASK_LOST", vec![], 0),
        ("TASK_GONE_BY_OPERATOR", vec![], 0),
    ] {
        let table = Doc { state, ..Doc::default() }.table(true);
        let found: Vec<u32> =
            table.vips.values().flat_map(|vip| &vip.backends).map(|(_, b)| b.weight()).collect();
        assert_eq!((found, table.awaited.len()), (weights, awaited), "{state}");
    }
}

#[test]
fn of_two_tasks_at_one_address_the_one_that_takes_connections_counts() {
    let snapshot = mesos::parse(
        format!(
            r#"{{"slaves":[{{"id":"S","pid":"slave(1)@{AGENT}:5051"}}],"frameworks":[{{"id":"F","name":"m","tasks":[{}]}}]}}"#,
            [("a", "TASK_KILLING"), ("b", "TASK_RUNNING"), ("c", "TASK_KILLING")]
                .map(|(id, state)| format!(
                    r#"{{"id":"{id}","framework_id":"F","slave_id":"S","state":"{state}","discovery":{{"ports":
                    {{"ports":[{{"number":80,"protocol":"tcp","labels":{{"labels":[{{"key":"VIP_0","value":"w:80"}}]}}}}]}}}}}}"#
                ))
                .join(",")
        )
        .as_bytes(),
        None,
    )
    .unwrap();
    let table = VipTable::new(&snapshot, &LabelPolicy::default());
    let backends: Vec<&Backend> = table.vips.values().flat_map(|vip| vip.backends.values()).collect();
    assert_eq!(backends.iter().map(|b| (&*b.task, b.weight())).collect::<Vec<_>>(), [("b", 1)]);
}

/// Backends of a task at an agent, or the reason why it has none, with `vips.ports = "allocated"`.
fn allocated(resources: &str, container: &str, networks: &str, port: u16, scope: &str) -> String {
    let text = format!(
        r#"{{"slaves":[{{"id":"S","pid":"slave(1)@{AGENT}:5051"}},{{"id":"T","pid":"slave(1)@10.0.0.7:5051"}}],
        "frameworks":[{{"id":"F","name":"marathon","tasks":[{{"id":"t","framework_id":"F","slave_id":"S",
        "state":"TASK_RUNNING","resources":{{"ports":"{resources}"}},"container":{container},"statuses":[{{"state":
        "TASK_RUNNING","timestamp":1,"container_status":{{"network_infos":{networks}}}}}],"discovery":{{"ports":
        {{"ports":[{{"number":{port},"protocol":"tcp","labels":{{"labels":[{{"key":"VIP_0","value":"/web:80"}}
        {scope}]}}}}]}}}}}}]}}]}}"#
    );
    let snapshot = mesos::parse(text.as_bytes(), None).unwrap();
    let any = VipTable::new(&snapshot, &LabelPolicy::default());
    assert_eq!((any.vips.len(), any.skipped.len()), (1, 0), "every port is fine by default");
    let rules = LabelPolicy { ports: BackendPorts::Allocated, ..LabelPolicy::default() };
    let table = VipTable::new(&snapshot, &rules);
    let backends: Vec<String> =
        table.vips.values().flat_map(|vip| vip.backends.keys()).map(SocketAddr::to_string).collect();
    let reasons: Vec<&str> = table.skipped.iter().map(|skipped| &*skipped.reason).collect();
    [backends.join(" "), reasons.join(" ")].concat()
}

#[test]
fn only_allocated_ports_of_the_own_agent_are_backends_where_that_is_asked() {
    let host = Doc::default().networks;
    let other = r#"[{"ip_addresses":[{"ip_address":"10.0.0.7"}]}]"#;
    let refused = |port: u16| {
        format!(
            "{AGENT}:{port} is at the address of an agent, and port {port} is neither among the port resources of \
             the task or its executor nor mapped to its container (vips.ports)"
        )
    };
    assert_eq!(allocated("[31000-31002]", "null", host, 31001, ""), "10.0.0.1:31001");
    assert_eq!(allocated("[31000-31002]", "null", host, 31001, HOST_SCOPE), "10.0.0.1:31001");
    assert_eq!(allocated("[31000-31002]", "null", "[]", 31002, ""), "10.0.0.1:31002", "old Mesos");
    assert_eq!(allocated("[31000-31002]", "null", host, 22, ""), refused(22));
    assert_eq!(allocated("[31000-31002, 23-21, 99999-22]", "null", host, 22, HOST_SCOPE), refused(22));
    assert_eq!(allocated("[31000-31002]", "null", "[]", 5051, ""), refused(5051));
    assert_eq!(allocated("", UCR, BRIDGE, 31000, HOST_SCOPE), "10.0.0.1:31000", "mapped");
    assert_eq!(allocated("", DOCKER, BRIDGE, 31000, HOST_SCOPE), "10.0.0.1:31000", "mapped");
    assert_eq!(allocated("", "null", BRIDGE, 80, ""), "172.31.254.3:80", "a container's own address");
    // An executor may report any address and mapping.
    assert_eq!(
        allocated("[31000-31002]", "null", other, 31000, ""),
        "10.0.0.7 is the address of an agent that the task does not run on (vips.ports)"
    );
    let reported = r#"[{"ip_addresses":[{"ip_address":"172.31.254.3"}],
        "port_mappings":[{"host_port":22,"container_port":80,"protocol":"tcp"}]}]"#;
    assert_eq!(allocated("[31000-31002]", "null", reported, 22, HOST_SCOPE), refused(22));
}

#[test]
fn allocated_ports_include_those_of_the_executor_of_a_pod() {
    let path = format!("{}/tests/fixtures/captures/master_state_pod.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let rules = LabelPolicy { ports: BackendPorts::Allocated, ..LabelPolicy::default() };
    // The lab's agent is at loopback.
    let (text, agent) = (text.replace("127.0.0.1", AGENT), format!("{AGENT}:31500"));
    let served = |text: &str| served(&VipTable::new(&mesos::parse(text.as_bytes(), None).unwrap(), &rules));
    assert_eq!(served(&text), [format!("tcp pod.marathon:80 {agent}")]);
    assert_eq!(served(&text.replace("[31500-31501]", "[31501-31501]")), Vec::<String>::new());
}

/// Tasks `a`, `b`, ... with these states, health and options, all behind `web:80`.
fn web(tasks: &[(TaskState, Option<bool>, PortOptions)]) -> VipTable {
    let mut snapshot = Snapshot::default();
    snapshot.frameworks.insert("F".to_owned(), "marathon".to_owned());
    for (name, (state, healthy, options)) in ('a'..).zip(tasks) {
        let key = TaskKey { framework: "F".into(), task: name.to_string().into() };
        let port: TaskPort = TaskPort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: Some(80),
            host_port: None,
            networks: BTreeSet::new(),
            is_in_container: false,
            is_allocated: true,
            labels: [VipLabel { key: "VIP_0".to_owned(), value: "web:80".to_owned() }].into(),
            options: options.clone().of_port(),
        };
        let address = IpAddr::from([10, 0, 0, u8::try_from(u32::from(name)).unwrap()]);
        let task = Task {
            key: key.clone(),
            app: name.to_string().into(),
            agent_id: "S".into(),
            state: *state,
            healthy: *healthy,
            runtime: Runtime::Mesos,
            addresses: vec![TaskAddress { address, network: None }].into(),
            ports: vec![port].into(),
            resources: crate::cluster::Few::default(),
        };
        snapshot.tasks.insert(key, task.into());
    }
    VipTable::new(&snapshot, &LabelPolicy::default())
}

fn conditions(table: &VipTable) -> Vec<Condition> {
    table.vips.values().flat_map(|vip| vip.backends.values()).map(|backend| backend.condition).collect()
}

#[test]
fn backends_on_lost_agents_are_used_only_where_there_is_nobody_else() {
    use Condition::{Ready, Unhealthy, Unreachable};
    let none = PortOptions::default();
    let lost = || (TaskState::Lost, None, none.clone());
    let sick = || (TaskState::Running, Some(false), none.clone());
    let well = || (TaskState::Running, None, none.clone());
    for (tasks, expected, marked) in [
        (vec![lost(), lost()], vec![Unreachable, Unreachable], 1),
        (vec![lost(), well()], vec![Ready], 0),
        (vec![lost(), sick()], vec![Unreachable, Unhealthy], 1),
    ] {
        let table = web(&tasks);
        assert_eq!((conditions(&table), table.unreachable.len()), (expected, marked));
    }
}

#[test]
fn the_first_task_that_asks_for_a_scheduler_decides() {
    let running = |scheduler: Option<&str>, sticky_idle| {
        let scheduler = scheduler.map(str::to_owned);
        (TaskState::Running, None, PortOptions { scheduler, sticky_idle, ..PortOptions::default() })
    };
    let table = web(&[running(None, false), running(Some("rr"), true), running(Some("sed"), false)]);
    let vip = table.vips.values().next().unwrap();
    assert_eq!((vip.scheduler.as_deref(), vip.sticky_idle, vip.backends.len()), (Some("rr"), true, 3));
    let reasons: Vec<&str> = table.skipped.iter().map(|skipped| skipped.reason.as_str()).collect();
    assert_eq!(reasons, ["another task of this VIP asks for scheduler rr, this one for sed"]);
}

#[test]
fn options_of_a_whole_vip_are_decided_once_and_those_of_a_task_are_its_own() {
    let running = |options| (TaskState::Running, None, options);
    let prefers = |locality| PortOptions { locality: Some(locality), ..PortOptions::default() };
    let table = web(&[
        running(PortOptions { weight: Some(0), ..PortOptions::default() }),
        running(PortOptions { weight: Some(7), no_ejection: true, ..prefers(Locality::Zone) }),
        running(PortOptions { scheduler: Some("rr".to_owned()), ..prefers(Locality::Node) }),
    ]);
    let vip = table.vips.values().next().unwrap();
    assert_eq!((vip.locality, vip.no_ejection), (Some(Locality::Zone), true));
    assert_eq!(
        vip.scheduler.as_deref(),
        Some("rr"),
        "what is refused of a label keeps nothing else from its effect"
    );
    let weights: Vec<_> =
        vip.backends.values().map(|backend| (backend.label_weight, backend.weight())).collect();
    assert_eq!(weights, [(0, 0), (7, 1), (1, 1)]);
    let reasons: Vec<&str> = table.skipped.iter().map(|skipped| skipped.reason.as_str()).collect();
    assert_eq!(reasons, ["another task of this VIP asks for locality zone, this one for node"]);
}

/// Two agents at addresses of their own, with a task on each: of VIP a with its port among its resources, and
/// of VIP b, which has the agent, resources and address that are given.
fn claims(agent: &str, resources: &str, address: &str) -> Snapshot {
    let task = |id: &str, agent: &str, resources: &str, address: &str| {
        format!(
            r#"{{"id":"{id}.1","framework_id":"F","slave_id":"{agent}","state":"TASK_RUNNING","resources":
            {{"ports":"[{resources}]"}},"statuses":[{{"state":"TASK_RUNNING","timestamp":1,"container_status":
            {{"network_infos":[{{"ip_addresses":[{{"ip_address":"{address}"}}]}}]}}}}],"discovery":{{"ports":
            {{"ports":[{{"number":31000,"protocol":"tcp","labels":{{"labels":[{{"key":"VIP_0","value":"{id}:80"}}]}}}}]}}}}}}"#
        )
    };
    let text = format!(
        r#"{{"slaves":[{{"id":"S1","pid":"slave(1)@10.0.0.1:5051"}},{{"id":"S2","pid":"slave(1)@10.0.0.2:5051"}}],
        "frameworks":[{{"id":"F","name":"marathon","tasks":[{},{}]}}]}}"#,
        task("a", "S1", "31000-31000", "10.0.0.1"),
        task("b", agent, resources, address)
    );
    mesos::parse(text.as_bytes(), None).unwrap()
}

fn served(table: &VipTable) -> Vec<String> {
    let backends = |(key, vip): (&VipKey, &Arc<Vip>)| {
        vip.backends.keys().map(|address| format!("{key} {address}")).collect::<Vec<_>>()
    };
    table.vips.iter().flat_map(backends).collect()
}

#[test]
fn a_port_of_an_agent_that_was_given_to_one_task_is_no_backend_of_another() {
    let rules = LabelPolicy::default();
    for (agent, resources, address) in [("S2", "31000-31000", "10.0.0.1"), ("S1", "", "10.0.0.1")] {
        let table = VipTable::new(&claims(agent, resources, address), &rules);
        assert_eq!(served(&table), ["tcp a.marathon:80 10.0.0.1:31000"]);
        let Skipped { task, reason, .. } = &table.skipped[0];
        assert_eq!((task.as_str(), table.skipped.len()), ("b.1", 1));
        assert!(
            reason.starts_with("10.0.0.1:31000 was given to the running task a.1 of agent S1"),
            "{reason}"
        );
    }
    let table = VipTable::new(&claims("S2", "", "10.0.0.2"), &rules);
    assert_eq!((served(&table).len(), table.skipped.len()), (2, 0), "a port that is not given to any task");
}

#[test]
fn what_a_task_only_claims_takes_nothing_from_one_that_is_kept() {
    let mut snapshot = claims("S2", "31000-31000", "10.0.0.1");
    let kept = snapshot.tasks.keys().next().unwrap().clone();
    snapshot.kept.insert(kept.clone());
    Arc::make_mut(&mut snapshot.names).remove(&crate::cluster::registry::RegisteredKey::of(&kept));
    for state in [TaskState::Running, TaskState::Lost] {
        Arc::make_mut(snapshot.tasks.get_mut(&kept).unwrap()).state = state;
        let table = VipTable::new(&snapshot, &LabelPolicy::default());
        assert_eq!(served(&table), ["tcp a.marathon:80 10.0.0.1:31000"], "{state:?}");
        assert!(table.awaited.iter().any(|key| key.to_string() == "tcp b.marathon:80"), "{state:?}");
        let reason = &table.skipped[0].reason;
        assert!(reason.contains("the task a.1, which is kept, had 10.0.0.1:31000 before"), "{reason}");
    }
}
