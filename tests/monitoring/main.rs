//! Metrics, alerts and dashboard, as Debian's Prometheus takes them. Needs promtool, which `tests/setup` unpacks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use l4lbd::cluster::Protocol;
use l4lbd::dataplane::connects::{Connects, LatencyClass, ServiceConnects};
use l4lbd::dataplane::traffic::{ReadTraffic, Traffic};
use l4lbd::dataplane::{Connections, ServiceKey};
use l4lbd::dns::metrics::DnsMetrics;
use l4lbd::dns::usage::UsageRegistry;
use l4lbd::exporter::{Exporter, ExporterSettings, Inputs, families};
use l4lbd::metrics::{Format, Kind};
use l4lbd::reconcile::Question;
use l4lbd::reconcile::figures::{BackendFigures, FigurePage, VipFigures, Wanted};
use l4lbd::reconcile::metrics::PassMetrics;
use l4lbd::source::metrics::SourceMetrics;
use l4lbd::status::health::VipHealth;
use l4lbd::vip::Tenants;
use tokio::sync::{mpsc, watch};

const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/monitoring");

fn key() -> ServiceKey {
    ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, 1].into(), port: 80 }
}

/// A VIP with figures of both data planes.
fn vip(has_backends: bool) -> VipFigures {
    let connects = Connects { begun: 5, established: 3, refused: 1, timed_out: 1, syn_retransmissions: 2 };
    let backend = BackendFigures {
        address: ([10, 0, 0, 2], 31_000).into(),
        weight: 1,
        connections: Connections { active: 2, inactive: 1 },
        connects: Some(connects),
        traffic: Some(Traffic { connections: 5, in_bytes: 7, ..Traffic::default() }),
        traffic_at: Some(jiff::Timestamp::UNIX_EPOCH),
    };
    let latency =
        vec![LatencyClass { below_us: Some(512), connects: 2 }, LatencyClass { below_us: None, connects: 1 }];
    VipFigures {
        key: key(),
        name: Some("we\u{202e}b\"\\\n.marathon".to_owned()),
        tenants: Tenants::default(),
        ready: 1,
        all: 1,
        health: VipHealth::Fine,
        connections: Connections { active: 2, inactive: 1 },
        connects: Some(ServiceConnects { connects, latency }),
        backends: if has_backends { vec![backend] } else { Vec::new() },
    }
}

struct Counted;

impl ReadTraffic for Counted {
    fn read(&mut self) -> Result<BTreeMap<ServiceKey, Traffic>, String> {
        Ok([(key(), Traffic { connections: 3, in_packets: 9, ..Traffic::default() })].into())
    }
}

async fn scraped(format: Format) -> String {
    let (questions, mut asked) = mpsc::channel(1);
    let (_statuses, statuses) = watch::channel(Arc::default());
    let sources = SourceMetrics::default();
    sources.cluster.begin(Arc::default());
    let inputs = Inputs {
        parts: vec![Arc::new(sources), Arc::<PassMetrics>::default(), Arc::<DnsMetrics>::default()],
        questions,
        statuses,
        dns_usage: UsageRegistry::default(),
        traffic: Some(Box::new(Counted)),
    };
    let exporter = Exporter::new(ExporterSettings { detailed: 1 }, inputs);
    let answering = async {
        while let Some(Question::Figures { wanted, answer }) = asked.recv().await {
            let vips = vec![vip(matches!(wanted, Wanted::Backends(_)))];
            answer.send(FigurePage { vips, leases: [1, 0], ..FigurePage::default() }).unwrap();
        }
    };
    let text = tokio::select! {
        text = exporter.scrape(format) => text.unwrap(),
        () = answering => panic!("no more questions"),
    };
    String::from_utf8(text.to_vec()).unwrap()
}

/// Where tests/setup unpacks it.
fn program() -> PathBuf {
    let from = |variable: &str, below: &str| Some(PathBuf::from(std::env::var_os(variable)?).join(below));
    let cache = from("L4LBD_RIG_CACHE", "")
        .or_else(|| from("XDG_CACHE_HOME", "l4lbd-rig"))
        .or_else(|| from("HOME", ".cache/l4lbd-rig"));
    cache.expect("a home directory").join("prometheus/usr/bin/promtool")
}

fn promtool(arguments: &[&str], input: &str) -> String {
    let mut tool = Command::new(program())
        .args(arguments)
        .current_dir(MONITORING)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error} (tests/setup unpacks it)", program().display()));
    tool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

#[tokio::test]
async fn promtool_takes_a_scrape_and_has_nothing_to_remark() {
    let text = scraped(Format::Prometheus).await;
    assert_eq!(promtool(&["check", "metrics"], &text), "", "{text}");
    // What hides or turns the writing direction is shown, and what the form needs is escaped.
    let name = r#"{vip="we\\u{202e}b\"\\\\u{a}.marathon:80",protocol="tcp""#;
    assert!(text.contains(name), "{text}");
    let open = scraped(Format::OpenMetrics).await;
    assert!(open.ends_with("# EOF\n") && open.contains("# UNIT l4lbd_vip_bytes bytes\n"), "{open}");
}

#[test]
fn alert_rules_do_what_their_tests_say() {
    promtool(&["check", "rules", "l4lbd.rules.yml"], "");
    promtool(&["test", "rules", "l4lbd.rules.test.yml"], "");
    promtool(&["check", "config", "prometheus.yml"], "");
}

/// Collects the queries of a dashboard.
fn queries(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                match value.as_str().filter(|_| name == "expr") {
                    Some(query) => found.push(query.to_owned()),
                    None => queries(value, found),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn dashboard_and_rules_ask_for_what_is_exported() {
    let read = |file: &str| fs::read_to_string(Path::new(MONITORING).join(file)).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana.json")).unwrap();
    let mut found = Vec::new();
    queries(&dashboard, &mut found);
    assert!(found.len() > 20, "{}", found.len());
    // As recording rules, which promtool parses.
    let rule = |(number, query): (usize, &String)| {
        let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$vip", ".*");
        assert!(!query.contains('$'), "{query}");
        format!("      - record: query:{number}\n        expr: {}\n", serde_json::to_string(&query).unwrap())
    };
    let rules: String = found.iter().enumerate().map(rule).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("queries.yml");
    fs::write(&file, format!("groups:\n  - name: dashboard\n    rules:\n{rules}")).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
    let known: BTreeSet<String> = families()
        .unwrap()
        .iter()
        .flat_map(|family| {
            let suffixes: &[&str] = match family.kind {
                Kind::Histogram => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            suffixes.iter().map(|suffix| family.exposed() + suffix).collect::<Vec<_>>()
        })
        .collect();
    for text in
        found.iter().map(String::as_str).chain([&*read("l4lbd.rules.yml"), &*read("l4lbd.rules.test.yml")])
    {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("l4lbd_") || word.starts_with("process_")) {
            assert!(known.contains(word), "{word} is not exported");
        }
    }
}
