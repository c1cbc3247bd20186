//! Documents, vectors and results of the peers that l4lbd replaces, through `l4lbd explain`.
//!
//! The peers' own documents are not part of this project: they are looked for in `$L4LBD_SHARED`, else
//! in `../shared` beside the checkout, and these tests fail where they are missing. Deliberate
//! differences are in `differences.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use l4lbd::dns::protocol::record::{RData, encode};
use l4lbd::dns::zones::{AnswerWindow, Directory, tasks::TaskZone};
use l4lbd::vip::alloc::AddressRange;
use serde_json::{Value, json};

/// Protocol, name or address, port; and the backends with their weights.
type Vips = BTreeMap<(String, String, u64), BTreeSet<(String, u64)>>;

fn shared(path: &str) -> PathBuf {
    let root = std::env::var_os("L4LBD_SHARED").map(PathBuf::from);
    root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared")).join(path)
}

fn read(path: &str) -> Value {
    let path = shared(path);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

fn explain(state: &Path, arguments: &[&str], input: Option<&str>) -> Value {
    let mut child = Command::new(env!("CARGO_BIN_EXE_l4lbd"))
        .args(["explain", "--json", "--state"])
        .arg(state)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.unwrap_or_default().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}: {:?}", state.display(), output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Backends as `address:port weight` and their number, VIPs without regard to where they came from.
fn vips(explanation: &Value) -> Vips {
    let vip = |vip: &Value| {
        let host = vip["name"].as_str().unwrap_or_else(|| vip["address"].as_str().unwrap());
        let key = (text(&vip["protocol"]), host.to_owned(), vip["port"].as_u64().unwrap());
        let backends = list(&vip["backends"]).iter().map(|backend| {
            (
                format!("{}:{}", text(&backend["address"]), backend["port"]),
                backend["weight"].as_u64().unwrap(),
            )
        });
        (key, backends.collect())
    };
    list(&explanation["vips"]).iter().map(vip).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn differs(id: &str) {
    let listed: toml::Table = toml::from_str(include_str!("differences.toml")).unwrap();
    assert!(listed.contains_key(id), "{id} is not in differences.toml");
}

/// A document with one running task, whose port carries `label`.
fn document(label: &str, framework: &str, protocol: &str) -> String {
    json!({
        "id": "M", "elected_time": 1.0,
        "slaves": [{"id": "S", "hostname": "10.0.0.1", "pid": "slave(1)@10.0.0.1:5051"}],
        "frameworks": [{"id": "F", "name": framework, "tasks": [{
            "id": "t", "framework_id": "F", "slave_id": "S", "state": "TASK_RUNNING",
            "statuses": [{"state": "TASK_RUNNING", "timestamp": 1.0, "container_status": {"network_infos": [
                {"ip_addresses": [{"ip_address": "10.0.0.1"}, {"ip_address": "fd00::1"}]}]}}],
            "discovery": {"ports": {"ports": [
                {"number": 8080, "protocol": protocol, "labels": {"labels": [{"key": "VIP_0", "value": label}]}}]}}
        }]}]
    })
    .to_string()
}

#[test]
fn dcos_net_fixtures() {
    for fixture in list(&read("fixtures/EXPECTED.json")["fixtures"]) {
        let name = text(&fixture["fixture"]);
        let path = shared(&format!("fixtures/dcos-net/{name}"));
        let expected: Vips = list(&fixture["vips"])
            .iter()
            .map(|vip| {
                let host = vip["vip"]["fqdn"].as_str().unwrap_or_else(|| vip["vip"]["ip"].as_str().unwrap());
                let key = (text(&vip["protocol"]), host.to_owned(), vip["port"].as_u64().unwrap());
                let backends = list(&vip["backends"]).iter().map(|backend| {
                    (
                        format!("{}:{}", text(&backend["ip"]), backend["port"]),
                        backend["weight"].as_u64().unwrap(),
                    )
                });
                (key, backends.collect())
            })
            .collect();
        assert_eq!(vips(&explain(&path, &[], None)), expected, "{name}");

        for mapping in list(&fixture["local_port_mappings"]) {
            let from = format!(":{}", mapping["host_port"]);
            let backend = expected.values().flatten().find(|(address, _)| address.ends_with(&from));
            let Some((address, weight)) = backend else {
                differs("local-rewrite-only-for-vips");
                continue;
            };
            let node = address.trim_end_matches(&from);
            let seen = vips(&explain(&path, &["--node-address", node], None));
            assert!(
                seen.values().flatten().any(|seen| *seen == (text(&mapping["to"]), *weight)),
                "{name}: {seen:?}"
            );
        }
    }
}

/// Every name that dcos-net gives a task, with its addresses.
#[test]
fn dcos_names_of_dcos_net_fixtures() {
    for fixture in list(&read("fixtures/EXPECTED.json")["fixtures"]) {
        let name = text(&fixture["fixture"]);
        let path = shared(&format!("fixtures/dcos-net/{name}"));
        let snapshot = l4lbd::mesos::parse(&std::fs::read(path).unwrap(), None).unwrap();
        let directory = Directory::new(&snapshot);
        let tasks = TaskZone::new(directory, &[], 1);
        let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for task in list(&fixture["tasks"]) {
            for (name, addresses) in task["dns"].as_object().into_iter().flatten() {
                expected.entry(name.clone()).or_default().extend(list(addresses).iter().map(text));
            }
        }
        for (name, addresses) in expected {
            let relative = name.strip_suffix(".dcos.thisdcos.directory").unwrap();
            let records = tasks.dcos(&encode(relative).unwrap(), AnswerWindow::ALL).unwrap_or_default();
            let found: BTreeSet<String> = records
                .iter()
                .map(|data| match data {
                    RData::A(address) => address.to_string(),
                    RData::Aaaa(address) => address.to_string(),
                    other => panic!("{other:?}"),
                })
                .collect();
            if found.is_empty() && fixture["fixture"] == "dns-hostname.json" {
                differs("agent-address-from-pid");
                continue;
            }
            assert_eq!(found, addresses, "{name}");
        }
    }
}

#[test]
fn minuteman_and_mesos_state_fixtures() {
    let literal = |address: &str, port, backends: &[&str]| -> Vips {
        let backends = backends.iter().map(|backend| ((*backend).to_owned(), 1)).collect();
        Vips::from([(("tcp".to_owned(), address.to_owned(), port), backends)])
    };
    let named = |name: &str, port, backends: &[&str]| {
        literal(&format!("{name}.l4lb.thisdcos.directory"), port, backends)
    };
    differs("last-colon");
    let cases = [
        ("minuteman/state4.json", literal("1.2.3.4", 5000, &["10.0.0.243:26645"])),
        ("minuteman/state_di.json", literal("1.2.3.4", 8080, &["10.0.2.234:19426"])),
        ("minuteman/named-base-vips.json", named("merp.marathon", 5000, &["10.0.0.243:12049"])),
        ("minuteman/invalid-port.json", named("invalid-port.marathon", 1234, &["10.0.0.243:26645"])),
        ("minuteman/docker.json", literal("1.2.3.4", 5000, &["10.0.2.4:28027"])),
        ("minuteman/empty.json", Vips::new()),
        ("mesos_state/state1.json", Vips::new()),
        ("mesos_state/state3.json", literal("1.2.3.4", 5000, &["10.10.0.109:8014"])),
        ("mesos_state/state4.json", literal("1.2.3.4", 5000, &["10.10.0.38:10834"])),
        ("mesos_state/state-overlay.json", Vips::new()),
        ("mesos_state/fake.json", Vips::new()),
    ];
    for (name, expected) in cases {
        assert_eq!(vips(&explain(&shared(&format!("fixtures/{name}")), &[], None)), expected, "{name}");
    }
    let gaal = vips(&explain(&shared("fixtures/minuteman/bad-state-gaal.json"), &[], None));
    assert_eq!(gaal.len(), 1);
    let backends = &gaal[&("tcp".to_owned(), "10.22.126.49".to_owned(), 5000)];
    assert_eq!(backends.len(), 100);
    for port in [1247, 30892] {
        assert!(backends.contains(&(format!("10.22.126.51:{port}"), 1)));
    }
}

#[test]
fn label_values() {
    let stdin = Path::new("-");
    for case in list(&read("vectors/vip_label_values.json")["cases"]) {
        let value = text(&case["value"]);
        let explanation = explain(stdin, &[], Some(&document(&value, "marathon", "tcp")));
        let found: Vec<(String, u64)> =
            vips(&explanation).into_keys().map(|(_, host, port)| (host, port)).collect();
        let port = case["port"].as_u64();
        let expected: Vec<(String, u64)> = match case["kind"].as_str().unwrap() {
            "ignored" => Vec::new(),
            _ if port.is_none_or(|port| port > 65535) => {
                differs("port-above-65535");
                Vec::new()
            }
            "literal" if belongs_to_somebody(&text(&case["ip"])) => {
                differs("hostile-literals");
                Vec::new()
            }
            "named" if value.starts_with('[') || value == "fd01:c::1" => {
                differs("ipv6-addresses");
                Vec::new()
            }
            "literal" if AddressRange::DCOS_V6.contains(text(&case["ip"]).parse().unwrap()) => {
                differs("literals-in-the-range");
                Vec::new()
            }
            "literal" => vec![(text(&case["ip"]), port.unwrap())],
            "named" => vec![(text(&case["fqdn"]), port.unwrap())],
            kind => panic!("{kind}"),
        };
        assert_eq!(found, expected, "{value:?}");
        assert_eq!(list(&explanation["skipped"]).len(), usize::from(expected.is_empty()), "{value:?}");
    }
}

fn belongs_to_somebody(address: &str) -> bool {
    ["::1", "fe80::1", "::ffff:1.2.3.4", "0.0.0.0", "127.0.0.1", "224.0.0.1"].contains(&address)
}

#[test]
fn allocation_vectors() {
    for vector in list(&read("vectors/vip_allocation.json")["vectors_no_collision"]) {
        if ["/", "", ".."].contains(&vector["label"].as_str().unwrap()) {
            differs("empty-name");
            continue;
        }
        let label = format!("{}:80", text(&vector["label"]));
        let document = document(&label, vector["framework"].as_str().unwrap(), "udp");
        let ranges = [
            ("ipv4_dcos_default", "11.0.0.0-11.255.255.255"),
            ("ipv4_code_default", "11.0.0.0-11.255.255.254"),
            ("ipv4_test_range", "11.0.0.0-11.0.0.254"),
        ];
        for (column, range) in ranges {
            let explanation = explain(Path::new("-"), &["--vip-range4", range], Some(&document));
            let addresses: BTreeSet<String> =
                list(&explanation["vips"]).iter().map(|vip| text(&vip["address"])).collect();
            // The document's task has both families, so that the name has both addresses.
            let expected = [&vector[column], &vector["ipv6_default"]].map(text).into();
            assert_eq!(addresses, expected, "{label}");
        }
    }
}

#[test]
fn the_differences_are_those_that_are_listed() {
    let listed: toml::Table = toml::from_str(include_str!("differences.toml")).unwrap();
    let known = [
        "port-above-65535",
        "one-name-one-vip",
        "agent-address-from-pid",
        "local-rewrite-only-for-vips",
        "one-bad-port",
        "unhealthy-stays",
        "last-colon",
        "hostile-literals",
        "literals-in-the-range",
        "ipv6-addresses",
        "empty-name",
    ];
    assert_eq!(listed.keys().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(known));
    for (id, entry) in listed {
        assert!(["peer", "ours", "reason"].iter().all(|key| entry.get(key).is_some()), "{id}");
    }

    // one-name-one-vip: two labels of one name, one VIP.
    let two = document("/foo:80", "marathon", "tcp")
        .replace(r#""value":"/foo:80"}"#, r#""value":"/foo:80"},{"key":"VIP_1","value":"FOO:80"}"#);
    assert_eq!(vips(&explain(Path::new("-"), &[], Some(&two))).len(), 1);

    // agent-address-from-pid: the hostname of this agent is a name that differs from its pid.
    let renamed = document("/foo:80", "marathon", "tcp")
        .replace(r#""hostname":"10.0.0.1""#, r#""hostname":"localhost""#);
    let host_scope =
        renamed.replace(r#""key":"VIP_0""#, r#""key":"network-scope","value":"host"},{"key":"VIP_0""#);
    let seen = vips(&explain(Path::new("-"), &[], Some(&host_scope)));
    assert!(seen.values().flatten().all(|(address, _)| address == "10.0.0.1:8080"), "{seen:?}");

    // one-bad-port: the port beside a bad one still works.
    let bad = document("/foo:80", "marathon", "tcp").replace(
        r#""ports":{"ports":["#,
        r#""ports":{"ports":[{"number":1,"labels":{"labels":[{"key":"VIP_0","value":"/bad:1"}]}},"#,
    );
    let explanation = explain(Path::new("-"), &[], Some(&bad));
    assert_eq!((vips(&explanation).len(), list(&explanation["skipped"]).len()), (1, 1));

    // unhealthy-stays: with weight 0.
    let sick = document("/foo:80", "marathon", "tcp")
        .replace(r#""timestamp":1.0"#, r#""timestamp":1.0,"healthy":false"#);
    let seen = vips(&explain(Path::new("-"), &[], Some(&sick)));
    assert!(seen.values().flatten().all(|(_, weight)| *weight == 0) && !seen.is_empty());
}
