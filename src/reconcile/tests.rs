//! The loop against the simulated kernel.

use std::net::Ipv4Addr;
use std::path::Path;

use super::*;
use crate::dataplane::memory::Memory as Kernel;
use crate::dataplane::{Node, ServiceKey};
use crate::dns::record::encode;
use crate::mesos;
use crate::source::Failure;
use crate::task::Protocol;

const WEB: ServiceKey =
    ServiceKey { protocol: Protocol::Tcp, address: IpAddr::V4(Ipv4Addr::new(11, 225, 36, 193)), port: 80 };

struct Bench {
    reconciler: Reconciler<Kernel>,
    zones: watch::Receiver<Arc<Zone>>,
    statuses: watch::Receiver<Arc<Status>>,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::on(Kernel::new(State::default(), node()), tempfile::tempdir().unwrap())
    }

    /// A daemon that starts on a kernel and a state directory as they are.
    fn on(kernel: Kernel, directory: tempfile::TempDir) -> Self {
        let text = format!("[daemon]\nstate_dir = {:?}", directory.path());
        let config = Config::parse(Path::new("test"), &text).unwrap();
        let zone = config.zone().unwrap();
        let (zones, zone_receiver) = watch::channel(Arc::new(zone.clone()));
        let (statuses, status_receiver) = watch::channel(Arc::new(Status::default()));
        let reconciler = Reconciler::new(kernel, &config, zone, Outputs { zones, statuses });
        Self { reconciler, zones: zone_receiver, statuses: status_receiver, directory }
    }

    /// Stops the daemon and starts another on what it leaves.
    fn restart(self) -> Self {
        Self::on(self.reconciler.dataplane, self.directory)
    }

    fn kernel(&mut self) -> &mut Kernel {
        &mut self.reconciler.dataplane
    }

    async fn learn(&mut self, document: &str) {
        let snapshot = Arc::new(mesos::parse(document.as_bytes(), None).unwrap());
        let report = Report {
            snapshot: Some(snapshot),
            sequence: self.reconciler.report.sequence + 1,
            good_at: Some(Timestamp::now()),
            ..Report::default()
        };
        self.reconciler.take_report(report);
        self.reconciler.pass().await;
    }

    fn status(&self) -> Arc<Status> {
        self.statuses.borrow().clone()
    }

    fn resolves(&self, name: &str) -> bool {
        self.zones.borrow().get(&encode(name).unwrap()).is_some()
    }
}

fn node() -> Node {
    Node { addresses: [IpAddr::from([10, 0, 0, 1])].into(), ..Node::default() }
}

/// One task at 10.0.0.2 for each label.
fn document(labels: &[&str]) -> String {
    let tasks: Vec<String> = labels
        .iter()
        .enumerate()
        .map(|(index, label)| {
            format!(
                r#"{{"id":"t{index}","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","discovery":{{"ports":
                {{"ports":[{{"number":{},"protocol":"tcp","labels":{{"labels":[{{"key":"VIP_0","value":"{label}"}}]}}}}]}}}}}}"#,
                1000 + index
            )
        })
        .collect();
    format!(
        r#"{{"id":"M","elected_time":1.0,"slaves":[{{"id":"S","pid":"slave(1)@10.0.0.2:5051"}}],"frameworks":
        [{{"id":"F","name":"marathon","tasks":[{}]}}]}}"#,
        tasks.join(",")
    )
}

#[tokio::test]
async fn a_name_is_served_only_when_the_kernel_has_its_service() {
    let mut bench = Bench::new();
    // Whatever the order of operations is, the one that adds the service fails.
    bench.learn(&document(&[])).await;
    let next = bench.kernel().writes;
    bench.kernel().faults.insert(next);
    bench.learn(&document(&["/web:80"])).await;
    assert!(!bench.kernel().state.services.contains_key(&WEB));
    assert!(!bench.resolves("web.marathon"));
    assert!(bench.status().degraded && bench.status().reasons[0].starts_with("kernel: add service"));
    bench.reconciler.pass().await;
    assert!(bench.kernel().state.services.contains_key(&WEB));
    assert!(bench.resolves("web.marathon"));
    assert!(!bench.status().degraded, "{:?}", bench.status().reasons);
}

#[tokio::test]
async fn drift_is_repaired_and_counted_and_a_quiet_pass_writes_nothing() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    assert_eq!(bench.status().pass.repaired, 0);
    let before = bench.kernel().state.clone();
    bench.kernel().state.services.clear();
    bench.kernel().state.routes.clear();
    bench.reconciler.pass().await;
    assert_eq!(bench.kernel().state, before);
    assert_eq!(bench.status().pass.repaired, 3, "service, server and route");
    let writes = bench.kernel().writes;
    bench.reconciler.pass().await;
    assert_eq!(bench.kernel().writes, writes);
}

#[tokio::test]
async fn before_the_first_document_nothing_is_taken_away() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    let before = bench.kernel().state.clone();
    let mut bench = bench.restart();
    bench.reconciler.pass().await;
    assert_eq!(bench.kernel().state, before);
    assert!(bench.resolves("web.marathon"), "served from what an earlier run left");
    assert!(!bench.resolves("other.marathon"));
    assert_eq!(bench.status().reasons, ["source: waiting for the first state"]);
    let writes = bench.kernel().writes;
    bench.learn(&document(&["/web:80"])).await;
    assert_eq!(bench.kernel().writes, writes, "a restart on a programmed kernel writes nothing");
}

#[tokio::test]
async fn a_source_without_an_answer_degrades_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    let before = bench.kernel().state.clone();
    let failure = Failure { error: "no answer in time".to_owned(), at: Timestamp::now(), attempts: 3 };
    let report = Report { failure: Some(failure), ..bench.reconciler.report.clone() };
    bench.reconciler.take_report(report);
    bench.reconciler.pass().await;
    assert_eq!(bench.kernel().state, before);
    assert!(bench.status().degraded && bench.status().reasons[0].contains("no answer in time"));
}

#[tokio::test]
async fn addresses_survive_a_restart_even_where_the_hash_would_now_differ() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/other:80", "11.225.36.193:80"])).await;
    bench.learn(&document(&["/other:80", "11.225.36.193:80", "/web:80"])).await;
    let moved = bench
        .status()
        .vips
        .iter()
        .find(|vip| vip.port == 80 && vip.name.as_deref().is_some_and(|n| n.starts_with("web.")))
        .unwrap()
        .address;
    assert_ne!(moved, WEB.address);
    let mut bench = bench.restart();
    bench.learn(&document(&["/web:80"])).await;
    let vip = bench
        .status()
        .vips
        .iter()
        .find(|vip| vip.name.as_deref().is_some_and(|n| n.starts_with("web.")))
        .cloned();
    assert_eq!(vip.unwrap().address, moved);
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_degrades_but_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("leases.json.new"), "").unwrap();
    std::fs::create_dir(directory.path().join("leases.json")).unwrap();
    let mut bench = Bench::on(Kernel::new(State::default(), node()), directory);
    bench.learn(&document(&["/web:80"])).await;
    assert!(bench.kernel().state.services.contains_key(&WEB));
    assert!(bench.status().reasons.iter().any(|reason| reason.starts_with("store: ")));
}

#[tokio::test]
async fn names_that_dns_cannot_carry_work_by_address_and_are_warned_of() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/:80", "/web:80"])).await;
    assert_eq!(bench.kernel().state.services.len(), 2);
    assert!(bench.resolves("web.marathon"));
    assert!(
        bench.status().warnings.iter().any(|warning| warning.starts_with(".marathon can only be reached"))
    );
}

#[tokio::test]
async fn the_last_table_is_programmed_where_nobody_answers_and_the_kernel_is_new() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    let before = bench.kernel().state.clone();
    *bench.kernel() = Kernel::new(State::default(), node());
    let mut bench = bench.restart();
    bench.reconciler.pass().await;
    assert_eq!(bench.kernel().state, before);
    assert!(bench.resolves("web.marathon"));
    assert_eq!(bench.status().vips.len(), 1);
    assert_eq!(bench.status().reasons, ["source: waiting for the first state"]);
}
