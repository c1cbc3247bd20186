//! What is exported, against the manual and what Debian's Prometheus takes. Needs promtool, which `tests/setup`
//! unpacks.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;
use crate::dataplane::ServiceKey;
use crate::dataplane::traffic::Traffic;
use crate::reconcile::figures::VipFigures;
use crate::status::document::tests::{Planned, names};
use crate::vip::{Tenant, Tenants};

const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/monitoring");

/// Traffic of these services.
struct Counted(Vec<ServiceKey>);

impl ReadTraffic for Counted {
    fn read(&mut self) -> Result<std::collections::BTreeMap<ServiceKey, Traffic>, String> {
        let traffic =
            Traffic { connections: 3, in_packets: 30, out_packets: 20, in_bytes: 300, out_bytes: 1 << 40 };
        Ok(self.0.iter().map(|key| (*key, traffic)).collect())
    }
}

/// Scrapes a daemon with these VIPs, of which some have their backends told.
async fn scraped(planned: Planned, detailed: usize, format: Format) -> String {
    let (questions, mut asked) = mpsc::channel(1);
    let (_statuses, status_receiver) = watch::channel(Arc::default());
    let keys = planned.view().plan.desired.services.keys().copied().collect();
    let exporter = Exporter::new(
        ExporterSettings { detailed },
        Inputs {
            parts: vec![
                Arc::<SourceMetrics>::default(),
                Arc::<PassMetrics>::default(),
                Arc::<DnsMetrics>::default(),
            ],
            questions,
            statuses: status_receiver,
            dns_usage: UsageRegistry::default(),
            traffic: Some(Box::new(Counted(keys))),
        },
    );
    let answering = async {
        while let Some(question) = asked.recv().await {
            let Question::Figures { wanted, answer } = question else { panic!("{question:?}") };
            answer.send(planned.view().page(&wanted)).unwrap();
        }
        unreachable!("the exporter goes on asking")
    };
    let text = tokio::select! {
        text = exporter.scrape(format) => text.unwrap(),
        () = answering => unreachable!(),
    };
    String::from_utf8(text.to_vec()).unwrap()
}

/// Returns the names of the families that a text in Prometheus' form declares.
fn declared(text: &str) -> Vec<&str> {
    let declared = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    declared.map(|(name, _)| name).collect()
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
    let text = scraped(Planned::new(&names(30)), 10, Format::Prometheus).await;
    assert_eq!(promtool(&["check", "metrics"], &text), "");
    let open = scraped(Planned::new(&names(30)), 10, Format::OpenMetrics).await;
    assert!(open.ends_with("# EOF\n") && open.contains("# UNIT l4lbd_vip_bytes bytes\n"), "{open}");
}

#[tokio::test]
async fn every_exported_metric_is_in_the_manual_and_no_other() {
    let text = scraped(Planned::new(&names(3)), 10, Format::Prometheus).await;
    let exported: Vec<String> = declared(&text).into_iter().map(str::to_owned).collect();
    let known: Vec<String> = families().unwrap().iter().map(Family::exposed).collect();
    assert_eq!(exported, known);
    assert_eq!(BTreeSet::from_iter(&known).len(), known.len(), "each once");
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/man/l4lbd-metrics.7")).unwrap();
    let tags = page.lines().filter_map(|line| line.strip_prefix(".BR ")?.split_once(" \" ("));
    let described: BTreeSet<&str> = tags.map(|(name, _)| name).collect();
    assert_eq!(described, known.iter().map(String::as_str).collect());
}

#[tokio::test]
async fn a_vip_has_all_its_figures() {
    let text = scraped(Planned::new(&["/web:80".to_owned()]), 10, Format::Prometheus).await;
    let labels = "vip=\"web.marathon:80\",protocol=\"tcp\",address=\"";
    let of_vip: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(labels))
        .map(|line| line.split('{').next().unwrap())
        .collect();
    let expected = [
        "l4lbd_vip_backends",
        "l4lbd_vip_ready_backends",
        "l4lbd_vip_active_connections",
        "l4lbd_vip_connections_total",
        "l4lbd_vip_packets_total",
        "l4lbd_vip_bytes_total",
        "l4lbd_backend_weight",
        "l4lbd_backend_active_connections",
        "l4lbd_backend_inactive_connections",
    ];
    assert_eq!(of_vip, BTreeSet::from(expected));
    assert!(
        text.contains("direction=\"out\"} 1099511627776\n")
            && text.contains("backend=\"10.0.0.2:1000\"} 1\n"),
        "{text}"
    );
    assert!(!text.contains("backend=\"other\""), "{text}");
}

#[tokio::test]
async fn backends_beyond_the_bound_are_summed_up() {
    let text = scraped(Planned::new(&names(30)), 10, Format::Prometheus).await;
    let weights = text.lines().filter(|line| line.starts_with("l4lbd_backend_weight{")).count();
    assert_eq!(weights, 10);
    let other =
        "l4lbd_backend_active_connections{vip=\"other\",protocol=\"\",address=\"\",backend=\"other\"} 0\n";
    assert!(text.contains(other) && text.contains("\nl4lbd_detailed_vips 10\n"), "{text}");
    let vips = text.lines().filter(|line| line.starts_with("l4lbd_vip_backends{")).count();
    assert_eq!(vips, 30, "each VIP has its own figures");
}

/// Figures of a VIP of this app.
fn vip(number: u8, app: &str) -> VipFigures {
    let tenant = Tenant { framework: "f".into(), name: "marathon".into(), app: app.into() };
    VipFigures {
        key: ServiceKey {
            protocol: crate::cluster::Protocol::Tcp,
            address: [11, 0, 0, number].into(),
            port: 80,
        },
        name: None,
        tenants: Tenants::from(tenant),
        ready: 1,
        all: 1,
        connections: crate::dataplane::Connections::default(),
        connects: None,
        backends: Vec::new(),
    }
}

#[test]
fn an_app_with_many_vips_leaves_room_for_others() {
    let mut vips: Vec<VipFigures> = (0..20).map(|number| vip(number, "/greedy")).collect();
    vips.push(vip(200, "/small"));
    let chosen = choose(&vips, 5);
    let addresses: Vec<String> = chosen.iter().map(|key| key.address.to_string()).collect();
    assert_eq!(addresses, ["11.0.0.0", "11.0.0.1", "11.0.0.2", "11.0.0.3", "11.0.0.200"]);
    // One more at the end changes nothing of it.
    vips.insert(20, vip(100, "/greedy"));
    assert_eq!(choose(&vips, 5), chosen);
    assert_eq!(choose(&vips, 100).len(), 22);
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
                metrics::Kind::Histogram => &["_bucket", "_sum", "_count"],
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
