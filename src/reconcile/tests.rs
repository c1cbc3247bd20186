//! The loop against the simulated kernel.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use super::*;
use crate::cluster::Protocol;
use crate::config::Config;
use crate::daemon::wiring;
use crate::dataplane::connects::{Connects, Ejected, LatencyClass, Remembered, Seen, ServiceConnects};
use crate::dataplane::kernel::capabilities;
use crate::dataplane::memory::SimulatedKernel as Kernel;
use crate::dataplane::{Connections, Node, ServiceKey, State, Unreached};
use crate::dns::protocol::record::encode;
use crate::dns::usage::UsageRegistry;
use crate::dns::zones::vips::Zone;
use crate::events::Recorder;
use crate::mesos;
use crate::plan::NodeView;
use crate::plan::desired::Sources;
use crate::source::feed::Believer;
use crate::source::{Failure, Report};
use crate::status::Status;
use crate::status::document::VipFilter;
use crate::status::explain::{Situation, explain};
use crate::store::Store;
use crate::store::saver::Loaded;

mod history;

const WEB: ServiceKey =
    ServiceKey { protocol: Protocol::Tcp, address: IpAddr::V4(Ipv4Addr::new(11, 225, 36, 193)), port: 80 };

struct Bench {
    reconciler: Reconciler<Kernel>,
    believer: Believer,
    sequence: u64,
    /// Set while the kernel has a change of another program that no pass has read.
    is_foreign: bool,
    zones: watch::Receiver<Arc<Zone>>,
    statuses: watch::Receiver<Arc<Status>>,
    nodes: watch::Receiver<Arc<NodeView>>,
    events: Recorder,
    directory: tempfile::TempDir,
}

/// A directory in memory if there is one: every pass saves the cluster, and a disk's fsync takes longer
/// than all the rest of a test.
fn state_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Everything that talks to a reconciler while it runs.
struct Outside {
    feeds: watch::Sender<Feed>,
    requests: mpsc::Sender<PassRequest>,
    questions: mpsc::Sender<Question>,
    pings: mpsc::Sender<Ping>,
    network: Arc<Notify>,
    settings: watch::Sender<Option<ReconcilerSettings>>,
    _dns: watch::Sender<DnsState>,
    http: watch::Sender<HttpState>,
}

fn outside() -> (Outside, Inputs) {
    let (feeds, feed_receiver) = watch::channel(Feed::default());
    let (requests, request_receiver) = mpsc::channel(1);
    let (questions, question_receiver) = mpsc::channel(1);
    let (pings, ping_receiver) = mpsc::channel(1);
    let (dns, dns_receiver) = watch::channel(DnsState::default());
    let (http, http_receiver) = watch::channel(HttpState::default());
    let (settings, settings_receiver) = watch::channel(None);
    let network = Arc::new(Notify::new());
    let inputs = Inputs {
        feeds: feed_receiver,
        requests: request_receiver,
        questions: question_receiver,
        pings: ping_receiver,
        network: Arc::clone(&network),
        dns: dns_receiver,
        http: http_receiver,
        settings: settings_receiver,
    };
    (Outside { feeds, requests, questions, pings, network, settings, _dns: dns, http }, inputs)
}

impl Bench {
    fn new() -> Self {
        Self::with("")
    }

    fn with(config: &str) -> Self {
        Self::configured(Kernel::new(State::default(), node()), state_directory(), config)
    }

    /// A daemon that starts on a kernel and a state directory as they are.
    fn on(kernel: Kernel, directory: tempfile::TempDir) -> Self {
        Self::configured(kernel, directory, "")
    }

    fn configured(kernel: Kernel, directory: tempfile::TempDir, config: &str) -> Self {
        let text = format!("{config}[daemon]\nstate_dir = {:?}", directory.path());
        let config = Config::parse(Path::new("test"), &text).unwrap();
        let (zones, zone_receiver) = watch::channel(Arc::new(wiring::zone(&config).unwrap()));
        let (statuses, status_receiver) = watch::channel(Arc::new(Status::default()));
        let (saver, Loaded { persisted, cluster, deadlines, .. }) =
            Saver::open(Store::new(directory.path()), !wiring::is_file(&config));
        let believer = Believer::new(wiring::patience(&config), cluster, deadlines.holds);
        let (nodes, node_receiver) = watch::channel(Arc::<NodeView>::default());
        let events = Recorder::open(Store::new(directory.path()), config.daemon.events.0, &config.dns.zone);
        let outputs = Outputs { zones, statuses, nodes, events: events.clone() };
        let settings = wiring::reconciler(&config, UsageRegistry::default()).unwrap();
        let mut reconciler = Reconciler::new(kernel, settings, saver, (persisted, deadlines.drains), outputs);
        reconciler.take_feed(believer.feed().clone());
        Self {
            reconciler,
            believer,
            sequence: 0,
            is_foreign: false,
            zones: zone_receiver,
            statuses: status_receiver,
            nodes: node_receiver,
            events,
            directory,
        }
    }

    /// Stops the daemon and starts another on what it leaves.
    fn restart(mut self) -> Self {
        self.reconciler.passes.flush();
        Self::on(self.reconciler.passes.dataplane, self.directory)
    }

    fn kernel(&mut self) -> &mut Kernel {
        &mut self.reconciler.passes.dataplane
    }

    async fn learn(&mut self, document: &str) {
        self.learn_by(Cause::Audit, document).await;
    }

    async fn learn_by(&mut self, cause: Cause, document: &str) {
        self.sequence += 1;
        self.take(report(self.sequence, document));
        self.reconciler.pass(cause).await;
    }

    fn take(&mut self, report: Report) {
        self.believer.take(report, Timestamp::now());
        self.reconciler.take_feed(self.believer.feed().clone());
    }

    async fn pass(&mut self) {
        self.reconciler.pass(Cause::Audit).await;
    }

    /// The status after a comparison.
    async fn ask(&mut self) -> Status {
        self.pass().await;
        self.status()
    }

    /// The status as it was published last, with the VIPs that a document of it lists.
    fn status(&self) -> Status {
        let passes = &self.reconciler.passes;
        let vips = passes.view(passes.figures()).vips();
        Status { vips, ..Status::clone(&self.statuses.borrow()) }
    }

    /// The document that answers a question without a pass, in one piece.
    async fn document(&mut self, vip: Option<&str>) -> Status {
        let (answer, mut answered) = oneshot::channel();
        let wanted = VipFilter { vip: vip.map(str::to_owned), ..VipFilter::default() };
        self.reconciler.passes.answer(Question::Status { wanted, answer }).await;
        let mut document = answered.try_recv().unwrap();
        let mut text = document.text;
        while let Some(rest) = document.rest {
            let (answer, mut answered) = oneshot::channel();
            self.reconciler.passes.answer(Question::More { rest, answer }).await;
            document = answered.try_recv().unwrap();
            text.extend_from_slice(&document.text);
        }
        serde_json::from_slice(&text).unwrap()
    }

    fn resolves(&self, name: &str) -> bool {
        self.zones.borrow().get(&encode(name).unwrap()).is_some()
    }
}

fn report(sequence: u64, document: &str) -> Report {
    Report {
        snapshot: Some(Arc::new(mesos::parse(document.as_bytes(), None).unwrap())),
        sequence,
        good_at: Some(Timestamp::now()),
        ..Report::default()
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
    bench.pass().await;
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
    bench.pass().await;
    assert_eq!(bench.kernel().state, before);
    assert_eq!(bench.status().pass.repaired, 3, "service, server and route");
    let writes = bench.kernel().writes;
    bench.pass().await;
    assert_eq!(bench.kernel().writes, writes);
}

/// In a large cluster every poll brings another document, and few of them are about VIPs.
#[tokio::test]
async fn what_a_pass_leaves_undone_degrades_until_it_is_done() {
    let mut bench = Bench::new();
    bench.kernel().unfinished = Some("a connection does not end".to_owned());
    bench.learn(&document(&["/web:80"])).await;
    for _ in 0..2 {
        assert_eq!(bench.ask().await.pass.errors, ["a connection does not end"]);
        assert_eq!(bench.status().reasons, ["kernel: a connection does not end"]);
    }
    bench.kernel().unfinished = None;
    assert!(bench.ask().await.reasons.is_empty());
}

#[tokio::test]
async fn what_resolved_refuses_is_warned_of() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    let resolved = Some("resolvectl dns: denied".to_owned());
    bench.reconciler.passes.publisher.set_dns(DnsState { resolved, ..DnsState::default() });
    let status = bench.ask().await;
    assert!(status.warnings.iter().any(|warning| warning.ends_with("resolvectl dns: denied")), "{status:?}");
}

#[tokio::test]
async fn drift_is_told_from_change_although_a_new_document_came_at_the_same_time() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    bench.kernel().state.services.clear();
    bench.learn(&document(&["/web:80"])).await;
    assert_eq!(bench.status().pass.repaired, 2, "service and server");
    bench.learn(&document(&["/web:80", "/api:80"])).await;
    assert_eq!(bench.status().pass.repaired, 2, "a new VIP is no repair");
}

#[tokio::test]
async fn before_the_first_document_nothing_is_taken_away() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    let before = bench.kernel().state.clone();
    let mut bench = bench.restart();
    bench.pass().await;
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
    let report = Report { failure: Some(failure), ..report(bench.sequence, &document(&["/web:80"])) };
    bench.take(report);
    bench.pass().await;
    assert_eq!(bench.kernel().state, before);
    assert!(bench.status().degraded && bench.status().reasons[0].contains("no answer in time"));
}

#[tokio::test]
async fn a_server_that_is_asked_at_the_address_of_a_vip_takes_it() {
    let mut bench = Bench::new();
    let document = document(&["10.9.9.9:80"]);
    bench.learn(&document).await;
    assert_eq!(bench.kernel().state.services.len(), 1);
    // The same document, and a failure: only the servers are new.
    let servers = Arc::new([(IpAddr::from([10, 9, 9, 9]), "marathon.example".to_owned())].into());
    bench.take(Report { servers, ..report(bench.sequence, &document) });
    bench.pass().await;
    assert!(bench.kernel().state.services.is_empty());
    assert!(bench.status().skipped[0].reason.contains("(marathon.example)"), "{:?}", bench.status().skipped);
}

#[tokio::test]
async fn addresses_survive_a_restart_even_where_the_hash_would_now_differ() {
    // The restart is with a wider range.
    let mut bench = Bench::with("[vips]\nrange4 = \"11.0.0.0-11.0.0.255\"\n");
    bench.learn(&document(&["/other:80", "/web:80"])).await;
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
    bench.learn(&document(&["/a.日.b:80", "/web:80"])).await;
    assert_eq!(bench.kernel().state.services.len(), 2);
    assert!(bench.resolves("web.marathon"));
    assert!(
        bench
            .status()
            .warnings
            .iter()
            .any(|warning| warning.starts_with("a..b.marathon can only be reached"))
    );
}

#[tokio::test]
async fn the_last_table_is_programmed_where_nobody_answers_and_the_kernel_is_new() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    let before = bench.kernel().state.clone();
    *bench.kernel() = Kernel::new(State::default(), node());
    let mut bench = bench.restart();
    bench.pass().await;
    assert_eq!(bench.kernel().state, before);
    assert!(bench.resolves("web.marathon"));
    assert_eq!(bench.status().vips.len(), 1);
    assert_eq!(bench.status().reasons, ["source: waiting for the first state"]);
}

/// Half of the tasks are lost in one document.
#[tokio::test]
async fn a_sudden_loss_can_be_accepted() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/a:80", "/b:80", "/c:80"])).await;
    bench.learn(&document(&[])).await;
    assert_eq!(bench.status().source.held.len(), 1);
    assert_eq!(
        bench.kernel().state.services.values().filter(|service| !service.servers.is_empty()).count(),
        3
    );
    bench.believer.accept_loss();
    bench.reconciler.take_feed(bench.believer.feed().clone());
    bench.pass().await;
    assert!(!bench.status().degraded, "{:?}", bench.status().reasons);
    let weights =
        |service: &Arc<crate::dataplane::Service>| service.servers.values().map(|s| s.weight).sum::<u32>();
    assert_eq!(bench.kernel().state.services.values().map(weights).sum::<u32>(), 0);
}

#[tokio::test]
async fn vips_beyond_the_limit_are_left_out_and_those_that_were_there_stay() {
    let mut bench = Bench::with("[vips]\nmax = 2\n");
    bench.learn(&document(&["/x:80", "/y:80"])).await;
    assert!(!bench.status().degraded);
    bench.learn(&document(&["/a:80", "/x:80", "/y:80"])).await;
    let names: Vec<String> = bench.status().vips.iter().filter_map(|vip| vip.name.clone()).collect();
    assert_eq!(names, ["x.marathon.l4lb.thisdcos.directory", "y.marathon.l4lb.thisdcos.directory"]);
    assert_eq!(
        bench.status().reasons,
        ["vips: 1 VIPs are left out, because there are more than vips.max; raise it"]
    );
}

#[tokio::test]
async fn the_use_of_vips_is_shown_and_warned_of_from_three_quarters_on() {
    let mut bench = Bench::with("[vips]\nmax = 4\n");
    let warned =
        |bench: &Bench| bench.status().warnings.iter().any(|warning| warning.contains("VIPs: 3 of 4"));
    bench.learn(&document(&["/x:80", "/y:80"])).await;
    assert_eq!((bench.status().shared[0].used, bench.status().shared[0].limit), (2, 4));
    assert!(!warned(&bench));
    bench.learn(&document(&["/x:80", "/y:80", "/z:80"])).await;
    assert!(warned(&bench), "{:?}", bench.status().warnings);
    assert!(!bench.status().degraded);
}

#[tokio::test]
async fn a_flushed_table_is_repaired_the_most_used_first() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/a:80", "/b:80", "/c:80", "/d:80"])).await;
    let key = *bench.kernel().state.services.keys().nth(2).unwrap();
    let server = *bench.kernel().state.services[&key].servers.keys().next().unwrap();
    bench.kernel().connections.insert((key, server), Connections { active: 5, inactive: 0 });
    bench.pass().await;
    bench.kernel().state.services.clear();
    bench.kernel().connections.clear();
    // Only the first two operations succeed.
    let (next, writes) = (bench.kernel().attempts(), 2);
    bench.kernel().faults.extend(next + writes..next + 100);
    bench.pass().await;
    assert_eq!(bench.kernel().state.services.keys().collect::<Vec<_>>(), [&key]);
    assert_eq!(bench.kernel().state.services[&key].servers.len(), 1);
}

/// One step of a daemon's life.
#[derive(Clone, Debug)]
enum PassStep {
    /// A document with the tasks `a`, `b`, ... whose bit is set, while these operations fail.
    Document(u8, Vec<usize>),
    /// The same, while nothing but the cluster is known to have changed.
    Cluster(u8, Vec<usize>),
    /// A pass in which these operations fail.
    Pass(Vec<usize>),
    /// A pass in which servers may have drained.
    Due,
    /// Everything from an operation on is cut off, and the daemon starts anew.
    Crash(usize),
    /// Somebody removes a service.
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<PassStep>> {
    let faults = || prop::collection::vec(0..20usize, 0..6);
    let step = prop_oneof![
        4 => (any::<u8>(), faults()).prop_map(|(tasks, faults)| PassStep::Document(tasks & 0x1f, faults)),
        4 => (any::<u8>(), faults()).prop_map(|(tasks, faults)| PassStep::Cluster(tasks & 0x1f, faults)),
        2 => faults().prop_map(PassStep::Pass),
        1 => Just(PassStep::Due),
        2 => (0..20usize).prop_map(PassStep::Crash),
        1 => Just(PassStep::Flush),
    ];
    prop::collection::vec(step, 1..12)
}

const NAMES: [&str; 5] = ["/a:80", "/b:80", "/c:80", "10.9.9.9:80", "/a:81"];

fn labels(tasks: u8) -> Vec<&'static str> {
    let wanted = |(bit, label): (usize, &'static str)| (tasks >> bit & 1 == 1).then_some(label);
    NAMES.into_iter().enumerate().filter_map(wanted).collect()
}

/// Removes the first service, as another program does. Returns false without one.
fn remove_first(state: &mut State) -> bool {
    let first = state.services.keys().next().copied();
    first.is_some_and(|first| state.services.remove(&first).is_some())
}

/// The servers that take new connections.
fn taking(state: &State) -> BTreeSet<(ServiceKey, SocketAddr)> {
    let servers = state.services.iter().flat_map(|(key, service)| {
        service
            .servers
            .iter()
            .filter(|(_, server)| server.weight > 0)
            .map(move |(address, _)| (*key, *address))
    });
    servers.collect()
}

impl Bench {
    fn fail(&mut self, faults: &[usize]) {
        let next = self.kernel().attempts();
        self.kernel().faults = faults.iter().map(|fault| next + fault).collect();
    }

    /// `wanted` is what takes new connections according to the last document.
    async fn live(mut self, step: &PassStep, wanted: &mut BTreeSet<(ServiceKey, SocketAddr)>) -> Self {
        // What stays in the cluster never leaves the kernel.
        let before = taking(&self.kernel().state);
        match step {
            PassStep::Document(tasks, faults) | PassStep::Cluster(tasks, faults) => {
                self.fail(faults);
                let cause = if matches!(step, PassStep::Cluster(..)) { Cause::Cluster } else { Cause::Audit };
                self.learn_by(cause, &keyed_document(&labels(*tasks))).await;
                let plan = self
                    .reconciler
                    .passes
                    .planner
                    .plan(&self.reconciler.passes.dataplane.read_now(), Timestamp::now());
                *wanted = taking(&plan.unwrap().state);
            }
            PassStep::Pass(faults) => {
                self.fail(faults);
                self.pass().await;
            }
            PassStep::Due => self.reconciler.pass(Cause::Due).await,
            PassStep::Crash(operation) => {
                self.fail(&(*operation..*operation + 200).collect::<Vec<_>>());
                self.pass().await;
                self = self.restart();
                self.fail(&[]);
                self.pass().await;
            }
            PassStep::Flush => {
                self.is_foreign |= remove_first(&mut self.kernel().state);
                return self;
            }
        }
        self.is_foreign &= matches!(step, PassStep::Cluster(..) | PassStep::Due);
        // Passes for new facts don't read, and know all the same what the kernel holds.
        let Passes { book, dataplane, .. } = &self.reconciler.passes;
        if let Some(book) = book.as_ref().filter(|_| !self.is_foreign) {
            assert_eq!(book.state, dataplane.state, "{step:?}");
        }
        let after = taking(&self.kernel().state);
        assert!(before.intersection(wanted).all(|server| after.contains(server)));
        self
    }
}

/// Like [`document`], with ports that belong to their labels.
fn keyed_document(wanted: &[&str]) -> String {
    let port = |label: &&str| NAMES.iter().position(|name| name == label).unwrap_or_default() + 1000;
    let tasks: Vec<String> = wanted
        .iter()
        .map(|label| {
            format!(
                r#"{{"id":"t{0}","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","discovery":{{"ports":
                {{"ports":[{{"number":{0},"protocol":"tcp","labels":{{"labels":[{{"key":"VIP_0","value":"{label}"}}]}}}}]}}}}}}"#,
                port(label)
            )
        })
        .collect();
    let ended: Vec<String> = (1000..1005)
        .map(|port| format!(r#"{{"id":"t{port}","framework_id":"F","state":"TASK_KILLED"}}"#))
        .collect();
    format!(
        r#"{{"id":"M","elected_time":1.0,"slaves":[{{"id":"S","pid":"slave(1)@10.0.0.2:5051"}}],"frameworks":
        [{{"id":"F","name":"marathon","tasks":[{}],"completed_tasks":[{}]}}]}}"#,
        tasks.join(","),
        ended.join(",")
    )
}

proptest! {
    #![proptest_config(crate::units::cases(256))]

    /// Whatever fails, and wherever the daemon dies: afterwards the kernel holds what it should.
    #[test]
    fn faults_and_crashes_are_overcome(steps in steps(), last in any::<u8>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new();
            let mut wanted = BTreeSet::new();
            for step in &steps {
                bench = bench.live(step, &mut wanted).await;
            }
            bench.fail(&[]);
            let wanted = labels(last & 0x1f);
            // Every server has a connection, so that nothing finishes draining on a slow machine.
            let servers = bench.kernel().state.services.clone();
            for (key, service) in &servers {
                for server in service.servers.keys() {
                    bench.kernel().connections.insert((*key, *server), Connections { active: 1, inactive: 0 });
                }
            }
            bench.learn(&keyed_document(&wanted)).await;
            bench.pass().await;
            assert!(!bench.status().degraded, "{:?}", bench.status().reasons);
            assert_eq!(bench.status().pass.defects, 0);
            let writes = bench.kernel().writes;
            bench.pass().await;
            assert_eq!(bench.kernel().writes, writes, "a pass without a change writes nothing");
            let ports: BTreeSet<u16> = taking(&bench.kernel().state).iter().map(|(_, server)| server.port()).collect();
            let expected: BTreeSet<u16> = NAMES
                .iter()
                .zip(1000..)
                .filter_map(|(name, port)| wanted.contains(name).then_some(port))
                .collect();
            assert_eq!(ports, expected);
        });
    }
}

/// A document of the master `id` with these agents, and a task on each.
fn agents_document(id: &str, agents: &[&str], recovered: &[&str]) -> String {
    let agent = |name: &&str| format!(r#"{{"id":"{name}","pid":"slave(1)@10.0.0.2:5051"}}"#);
    let task = |name: &&str| {
        format!(
            r#"{{"id":"t{name}","framework_id":"F","slave_id":"{name}","state":"TASK_RUNNING","discovery":{{"ports":
            {{"ports":[{{"number":{port},"protocol":"tcp","labels":{{"labels":[{{"key":"VIP_0","value":"/{name}:80"}}]}}}}]}}}}}}"#,
            port = 1000 + name.len()
        )
    };
    let list = |agents: &[&str], show: &dyn Fn(&&str) -> String| {
        agents.iter().map(show).collect::<Vec<_>>().join(",")
    };
    format!(
        r#"{{"id":"{id}","elected_time":1.0,"slaves":[{}],"recovered_slaves":[{}],"frameworks":
        [{{"id":"F","name":"marathon","tasks":[{}]}}]}}"#,
        list(agents, &agent),
        list(recovered, &agent),
        list(agents, &task)
    )
}

/// The cluster is kept every now and then only, and the kernel may know more.
#[tokio::test]
async fn a_crash_in_a_fail_over_takes_nothing_away() {
    let mut bench = Bench::new();
    bench.learn(&agents_document("M", &["S"], &[])).await;
    bench.reconciler.passes.flush();
    let kept = Store::new(bench.directory.path()).cluster().unwrap().unwrap();
    bench.learn(&agents_document("M", &["S", "SS"], &[])).await;
    let all = bench.kernel().state.services.clone();
    assert_eq!(all.len(), 2);
    bench.reconciler.passes.flush();
    Store::new(bench.directory.path()).save_cluster(&kept).unwrap();
    let mut bench = bench.restart();
    bench.pass().await;
    assert_eq!(bench.kernel().state.services, all);
    assert!(
        bench
            .status()
            .vips
            .iter()
            .any(|vip| vip.name.as_deref() == Some("ss.marathon.l4lb.thisdcos.directory"))
    );
    for (agents, recovered) in [(&[][..], &["S", "SS"][..]), (&["S"], &["SS"])] {
        bench.learn(&agents_document("N", agents, recovered)).await;
        assert_eq!(bench.kernel().state.services, all, "{agents:?}");
    }
    bench.learn(&agents_document("N", &["S"], &[])).await;
    assert!(!bench.status().degraded, "{:?}", bench.status().reasons);
    let servers: usize = bench.kernel().state.services.values().map(|service| service.servers.len()).sum();
    assert_eq!((bench.kernel().state.services.len(), servers), (2, 2), "what has gone is leaving");
}

#[tokio::test]
async fn a_small_table_of_many_connections_is_warned_of() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    let (key, service) = bench.kernel().state.services.iter().next().map(|(k, s)| (*k, s.clone())).unwrap();
    let server = *service.servers.keys().next().unwrap();
    for (buckets, active, warned) in
        [(1 << 12, 15_000, false), (1 << 20, 25_000, false), (1 << 12, 25_000, true)]
    {
        bench.kernel().node.connection_buckets = Some(buckets);
        bench.kernel().connections.insert((key, server), Connections { active, inactive: 0 });
        let warnings = bench.ask().await.warnings.clone();
        assert_eq!(warnings.iter().any(|warning| warning.contains("conn_tab_bits")), warned, "{warnings:?}");
    }
}

#[tokio::test]
async fn connections_that_cannot_be_ended_are_warned_of() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    for unreached in [Some(Unreached { connections: 7, reason: "no right".to_owned() }), None] {
        bench.kernel().unreached.clone_from(&unreached);
        let status = bench.ask().await;
        let expected = "up to 7 connections to servers that have gone were not ended: no right";
        assert_eq!(status.warnings.iter().any(|warning| warning == expected), unreached.is_some());
        assert!(!status.degraded, "{:?}", status.reasons);
    }
}

#[tokio::test]
async fn what_became_of_connects_is_told_of_vips_and_backends() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    assert_eq!(bench.ask().await.pass.connects, None);
    let services = bench.kernel().state.services.clone();
    let (key, service) = services.iter().next().unwrap();
    let server = *service.servers.keys().next().unwrap();
    let connects = Connects { begun: 3, established: 1, refused: 2, ..Connects::default() };
    let latency = vec![LatencyClass { below_us: Some(64), connects: 1 }];
    let of_vip = ServiceConnects { connects, latency };
    let of_backend = Connects { begun: 1, established: 1, ..Connects::default() };
    let ejected = Ejected { namespaces: 2, left_ms: 900 };
    bench.kernel().seen = Some(Seen {
        services: [(*key, of_vip.clone())].into(),
        servers: [((*key, server), of_backend)].into(),
        ejected: [((*key, server), ejected)].into(),
        remembered: Some(Remembered { used: 6_200, limit: 8_192 }),
    });
    let status = bench.ask().await;
    assert_eq!(status.pass.connects, Some(connects));
    assert_eq!(status.vips[0].connects, Some(of_vip));
    assert_eq!(status.vips[0].backends[0].connects, Some(of_backend));
    assert_eq!((status.pass.ejected, status.vips[0].backends[0].ejected), (1, Some(ejected)));
    // What clients share, and a word before it is full.
    let room = status.shared.last().unwrap();
    assert_eq!((room.used, room.limit), (6_200, 8_192));
    assert!(status.warnings.iter().any(|warning| warning.contains("6200 of 8192")), "{:?}", status.warnings);
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["vips"][0]["connects"]["refused"], 2);
    assert_eq!(json["vips"][0]["backends"][0]["ejected"]["namespaces"], 2);
    assert_eq!(serde_json::from_value::<Status>(json).unwrap().vips, status.vips);
}

#[tokio::test]
async fn the_node_is_published_when_a_reading_finds_it_changed() {
    let mut bench = Bench::new();
    assert_eq!(**bench.nodes.borrow_and_update(), NodeView::default());
    bench.pass().await;
    let first = bench.nodes.borrow_and_update().clone();
    assert_eq!((&first.node, first.sources), (&node(), Sources::default()), "before the first document");

    bench.learn(&document(&["/web:80"])).await;
    let planned = bench.nodes.borrow_and_update().clone();
    assert_eq!((&planned.node, planned.sources.v4), (&node(), node().default_source4));
    bench.pass().await;
    assert!(!bench.nodes.has_changed().unwrap(), "nothing has changed");

    let network = "172.18.0.0/16".parse().unwrap();
    bench.kernel().node.inside.insert(network);
    bench.pass().await;
    let changed = bench.nodes.borrow_and_update().clone();
    assert!(changed.node.inside.contains(&network));
    assert_eq!(changed.sources, planned.sources);
}

#[tokio::test]
async fn a_new_network_is_published_without_a_pass() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    let sources = bench.nodes.borrow_and_update().sources;
    let at = bench.status().pass.at;
    let network = "172.18.0.0/16".parse().unwrap();
    bench.kernel().node.inside.insert(network);
    bench.reconciler.passes.refresh_node().await;
    let view = bench.nodes.borrow_and_update().clone();
    assert!(view.node.inside.contains(&network));
    assert_eq!((view.sources, bench.status().pass.at), (sources, at));
}

#[tokio::test(start_paused = true)]
async fn an_http_server_that_cannot_listen_is_a_reason_until_it_can() {
    let (outside, inputs) = outside();
    let Bench { reconciler, mut statuses, directory: _directory, .. } = Bench::new();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(reconciler.run(inputs, shutdown.clone()));
    let error = "cannot listen on 127.0.0.1:62080: Address already in use".to_owned();
    outside.http.send_replace(HttpState { address: None, error: Some(error) });
    let is_told =
        |status: &Status| status.reasons.iter().any(|reason| reason.starts_with("http: cannot listen"));
    let told = statuses.wait_for(|status| is_told(status)).await.unwrap().clone();
    assert!(told.details.iter().any(|detail| detail.kind == "http" && detail.remedy.contains("http.listen")));
    outside.http.send_replace(HttpState { address: "127.0.0.1:62080".parse().ok(), error: None });
    statuses.wait_for(|status| !is_told(status) && status.http.address.is_some()).await.unwrap();
    shutdown.cancel();
    running.await.unwrap();
}

/// A first pass can take seconds, and the pause after a change of the network goes by that.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_network_to_settle() {
    let mut bench = Bench::new();
    let pass = Duration::from_secs(5);
    bench.kernel().delay = pass;
    let (outside, inputs) = outside();
    let Outside { feeds, requests, network, .. } = outside;
    let shutdown = CancellationToken::new();
    let Bench { reconciler, mut believer, mut statuses, directory: _directory, .. } = bench;
    let running = tokio::spawn(reconciler.run(inputs, shutdown.clone()));
    let unsettle = async || {
        // Well within the pause, and after any pass.
        sleep(pass * 2).await;
        network.notify_one();
        sleep(pass / 2).await;
    };
    let soon = pass + pass / 5;

    // The longest pause there is comes after a pass with a document.
    believer.take(report(1, &document(&["/web:80"])), Timestamp::now());
    feeds.send_replace(believer.feed().clone());
    statuses.wait_for(|status| status.numbers().vips == 1).await.unwrap();

    unsettle().await;
    believer.take(report(2, &document(&["/web:80", "/other:80"])), Timestamp::now());
    feeds.send_replace(believer.feed().clone());
    let served = statuses.wait_for(|status| status.numbers().vips == 2);
    timeout(soon, served).await.expect("a document waited").unwrap();

    unsettle().await;
    let (answer, answered) = oneshot::channel();
    requests.send(PassRequest { done: answer }).await.unwrap();
    timeout(soon, answered).await.expect("a request waited").unwrap();

    unsettle().await;
    shutdown.cancel();
    timeout(soon, running).await.expect("the end waited").unwrap();
}

#[tokio::test(start_paused = true)]
async fn other_settings_count_from_the_next_pass_on() {
    let bench = Bench::new();
    let (outside, inputs) = outside();
    let Outside { feeds, settings, .. } = outside;
    let shutdown = CancellationToken::new();
    let Bench { reconciler, mut believer, mut statuses, directory: _directory, .. } = bench;
    let running = tokio::spawn(reconciler.run(inputs, shutdown.clone()));
    believer.take(report(1, &document(&["/web:80", "10.99.0.1:80"])), Timestamp::now());
    feeds.send_replace(believer.feed().clone());
    statuses.wait_for(|status| status.numbers().vips == 2).await.unwrap();
    let configure = |text| {
        let config = Config::parse(Path::new("test"), text).unwrap();
        settings.send_replace(Some(wiring::reconciler(&config, UsageRegistry::default()).unwrap()));
    };
    configure("[vips]\ndeny = [\"10.99.0.0/16\"]\n[source]\nmasters = [\"http://10.0.0.9:5050\"]\n");
    let status = statuses.wait_for(|status| status.numbers().vips == 1).await.unwrap().clone();
    assert_eq!(status.source.configured, ["http://10.0.0.9:5050"]);
    assert!(
        status.skipped.iter().any(|skipped| skipped.reason.contains("vips.deny")),
        "{:?}",
        status.skipped
    );
    configure("");
    statuses.wait_for(|status| status.numbers().vips == 2).await.unwrap();
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_together_share_a_pass() {
    let bench = Bench::new();
    let (outside, inputs) = outside();
    let Outside { requests, .. } = outside;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(bench.reconciler.run(inputs, shutdown.clone()));

    let ask = async || {
        let (answer, answered) = oneshot::channel();
        let asked = Timestamp::now();
        requests.send(PassRequest { done: answer }).await.unwrap();
        (asked, answered)
    };
    let mut statuses = Vec::new();
    // Some 50 requests in each of ten seconds.
    for _ in 0..500 {
        sleep(Duration::from_millis(20)).await;
        statuses.push(ask().await);
    }
    let mut passes = BTreeSet::new();
    for (asked, answered) in statuses {
        let at = answered.await.unwrap();
        assert!(at >= asked, "an answer from before its request");
        passes.insert(at);
    }
    assert!((25..=60).contains(&passes.len()), "{} passes", passes.len());

    // One that comes alone does not wait.
    sleep(REQUEST_SPACING * 2).await;
    let (_, answered) = ask().await;
    let started = Instant::now();
    answered.await.unwrap();
    assert!(started.elapsed() < REQUEST_SPACING, "{:?}", started.elapsed());
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_change_of_the_cluster_reads_nothing() {
    let mut bench = Bench::new();
    bench.learn(&keyed_document(&["/a:80", "/b:80"])).await;
    let readings = bench.kernel().readings;
    bench.learn_by(Cause::Cluster, &keyed_document(&["/a:80", "/c:80"])).await;
    assert_eq!(bench.kernel().readings, readings);
    let ports = taking(&bench.kernel().state).iter().map(|(_, server)| server.port()).collect::<Vec<_>>();
    assert_eq!(ports.len(), 2, "{ports:?}");
    // What another program did is found by the audit, and called a repair.
    assert!(remove_first(&mut bench.kernel().state));
    bench.reconciler.pass(Cause::Cluster).await;
    assert_eq!(bench.status().pass.repaired, 0);
    bench.pass().await;
    assert!(bench.status().pass.repaired > 0);
}

/// Nothing waits for the comparison with the whole plan, and what it finds is mended without being asked for.
#[tokio::test]
async fn a_plan_that_is_wrong_is_mended_and_counted() {
    let mut bench = Bench::new();
    bench.learn(&keyed_document(&["/a:80", "/b:80"])).await;
    let expected = bench.kernel().state.services.clone();
    bench.reconciler.passes.planner.lose_service();
    let readings = bench.kernel().readings;
    bench.reconciler.pass(Cause::Audit).await;
    assert_eq!(bench.kernel().state.services, expected);
    assert_eq!(bench.kernel().readings, readings + 1, "the kernel is as it was read");
    let status = bench.status();
    assert_eq!((status.pass.defects, status.pass.repaired), (1, 0), "no other program is blamed");
    assert_eq!(status.pass.change.unwrap().cause, Cause::Cluster);
    bench.pass().await;
    assert_eq!(bench.status().pass.defects, 1);
    assert!(bench.status().warnings.iter().any(|warning| warning.contains("defect of l4lbd")));
}

#[tokio::test(start_paused = true)]
async fn a_loop_mends_a_plan_that_an_audit_finds_wrong() {
    let mut bench = Bench::new();
    bench.learn(&keyed_document(&["/a:80", "/b:80"])).await;
    bench.reconciler.passes.planner.lose_service();
    let (_outside, inputs) = outside();
    let shutdown = CancellationToken::new();
    let Bench { reconciler, mut statuses, directory: _directory, .. } = bench;
    let running = tokio::spawn(reconciler.run(inputs, shutdown.clone()));
    let mended = |status: &Arc<Status>| status.pass.defects == 1 && status.pass.operations > 0;
    let status = statuses.wait_for(mended).await.unwrap().pass.clone();
    assert_eq!(status.change.unwrap().cause, Cause::Cluster);
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_refused_operation_is_followed_by_a_reading() {
    let mut bench = Bench::new();
    bench.learn(&keyed_document(&["/a:80"])).await;
    bench.fail(&[0]);
    bench.learn_by(Cause::Cluster, &keyed_document(&["/a:80", "/b:80"])).await;
    let readings = bench.kernel().readings;
    bench.learn_by(Cause::Cluster, &keyed_document(&["/a:80", "/b:80", "/c:80"])).await;
    assert_eq!(bench.kernel().readings, readings + 1);
    assert_eq!(taking(&bench.kernel().state).len(), 3);
}

#[tokio::test]
async fn only_leaving_servers_are_counted_while_they_drain() {
    let mut bench = Bench::new();
    bench.learn(&keyed_document(&["/a:80", "/b:80", "/c:80"])).await;
    let first = bench.kernel().state.services.iter().next().map(|(key, service)| (*key, service.clone()));
    let (key, service) = first.unwrap();
    let server = *service.servers.keys().next().unwrap();
    bench.kernel().connections.insert((key, server), Connections { active: 1, inactive: 0 });
    let others: Vec<_> =
        NAMES.iter().zip(1000..).filter(|(_, port)| *port != server.port()).map(|(name, _)| *name).collect();
    bench.learn_by(Cause::Cluster, &keyed_document(&others[..2])).await;
    let readings = bench.kernel().readings;
    bench.kernel().counted.clear();
    bench.reconciler.pass(Cause::Due).await;
    assert_eq!(bench.kernel().counted, [(key, server)]);
    assert_eq!(bench.kernel().readings, readings);
    // A reading may have counted them long before.
    bench.kernel().counted.clear();
    bench.reconciler.pass(Cause::Network).await;
    assert_eq!(bench.kernel().counted, [(key, server)]);
    let is_there = |bench: &mut Bench| bench.kernel().state.services[&key].servers.contains_key(&server);
    assert!(is_there(&mut bench), "it has a connection");
}

/// Documents come every two seconds, and most say what is known.
#[tokio::test(start_paused = true)]
async fn a_confirmed_poll_makes_no_pass() {
    let bench = Bench::new();
    let audit = bench.reconciler.passes.audit;
    let (outside, inputs) = outside();
    let Outside { feeds, pings, .. } = outside;
    let shutdown = CancellationToken::new();
    let Bench { reconciler, mut believer, mut statuses, directory: _directory, .. } = bench;
    let running = tokio::spawn(reconciler.run(inputs, shutdown.clone()));
    let mut confirm = async |second: i64| {
        let good_at = Some(Timestamp::from_second(second).unwrap());
        let report = Report { good_at, ..report(1, &keyed_document(&["/a:80"])) };
        believer.take(report, Timestamp::now());
        feeds.send_replace(believer.feed().clone());
        let told = statuses.wait_for(|status| status.source.good_at == good_at);
        told.await.unwrap().pass.at
    };
    let first = confirm(0).await;
    let mut passes = BTreeSet::from([first]);
    let started = Instant::now();
    let mut second = 0;
    // The audit is due all the same, however often documents come.
    while passes.len() < 2 {
        sleep(audit / 15).await;
        second += 1;
        passes.insert(confirm(second).await);
    }
    assert!(started.elapsed() >= audit - audit / 15, "a pass after {:?}", started.elapsed());
    assert!(started.elapsed() <= audit * 2, "no audit");
    // The loop lives, without a pass.
    let (answer, answered) = oneshot::channel();
    pings.send(Ping { answer }).await.unwrap();
    answered.await.unwrap();
    shutdown.cancel();
    running.await.unwrap();
}

/// Labels of all kinds that a table has to decide about.
const ANY_LABEL: [&str; 14] = [
    "/web:80",
    "/Web:80",
    "/api:443",
    "/:80",
    "10.0.0.1:22",
    "10.99.0.1:80",
    "11.9.9.9:80",
    "127.0.0.1:80",
    "198.51.100.1:53",
    "10.0.0.53:53",
    "fd00::7:80",
    "[fd00::7]:80",
    "10.50.0.1:80",
    "/x:0",
];

/// Configurations that change what becomes of a label.
const ANY_CONFIG: [&str; 8] = [
    "",
    "[vips]\nmax = 2\n",
    "[vips]\nipv6 = false\ndeny = [\"10.99.0.0/16\"]\n",
    "[vips]\nallow = [\"10.50.0.0/16\"]\nrange4 = \"10.64.0.0-10.64.0.1\"\n",
    "[ipvs]\nscheduler = \"rr\"\n",
    "[node]\naddress = \"10.0.0.9\"\n",
    "dataplane = \"ebpf\"\n",
    "[dns]\nzone = \"l4lb.example\"\n",
];

/// A task: label, address, port, scheduler label, health and state.
type AnyTask = (usize, u8, u16, bool, u8);

fn any_document(tasks: &[AnyTask]) -> String {
    let task = |(index, (label, address, port, scheduled, state)): (usize, &AnyTask)| {
        let ip = ["10.0.0.2", "10.0.0.1", "224.0.0.1", "fd00::2"][usize::from(*address % 4)];
        let scheduler = if *scheduled { r#",{"key":"L4LB_SCHEDULER","value":"sh"}"# } else { "" };
        let (state, healthy) = [
            ("TASK_RUNNING", "true"),
            ("TASK_RUNNING", "false"),
            ("TASK_KILLING", "true"),
            ("TASK_STAGING", "true"),
        ][usize::from(*state % 4)];
        format!(
            r#"{{"id":"t{index}","framework_id":"F","slave_id":"S","state":"{state}","statuses":[{{"state":"{state}",
            "timestamp":1.0,"healthy":{healthy},"container_status":{{"network_infos":[{{"ip_addresses":
            [{{"ip_address":"{ip}"}}]}}]}}}}],"discovery":{{"ports":{{"ports":[{{"number":{},"protocol":"tcp","labels":
            {{"labels":[{{"key":"VIP_0","value":"{}"}}{scheduler}]}}}}]}}}}}}"#,
            port % 3 + 1000,
            ANY_LABEL[label % ANY_LABEL.len()]
        )
    };
    let tasks: Vec<String> = tasks.iter().enumerate().map(task).collect();
    format!(
        r#"{{"id":"M","elected_time":1.0,"slaves":[{{"id":"S","pid":"slave(1)@10.0.0.2:5051"}}],"frameworks":
        [{{"id":"F","name":"marathon","tasks":[{}]}}]}}"#,
        tasks.join(",")
    )
}

proptest! {
    #![proptest_config(crate::units::cases(256))]

    /// What `l4lbd explain` says of a document is what a pass makes of it, for any configuration and node.
    #[test]
    fn explain_agrees_with_a_pass(
        tasks in prop::collection::vec((0..100usize, any::<u8>(), any::<u16>(), any::<bool>(), any::<u8>()), 0..12),
        config in prop::sample::select(&ANY_CONFIG[..]),
        has_ipv6 in any::<bool>(),
        has_source in any::<bool>(),
    ) {
        let mut node = node();
        if has_ipv6 {
            node.addresses.insert("fd00::1".parse().unwrap());
        }
        node.default_source4 = has_source.then_some(IpAddr::from([10, 0, 0, 1]));
        node.nameservers.insert(IpAddr::from([10, 0, 0, 53]));
        let document = any_document(&tasks);
        let parsed = Config::parse(Path::new("test"), config).unwrap();
        node.capabilities = capabilities(parsed.dataplane.kind.0.unwrap_or_default());
        let situation = Situation {
            settings: wiring::planner(&parsed),
            persisted: Persisted::default(),
            node: node.clone(),
            zone: wiring::zone(&parsed).unwrap(),
            origin: parsed.dns.zone.clone(),
        };
        let snapshot = mesos::parse(document.as_bytes(), None).unwrap();
        let explanation = explain(snapshot, situation, Timestamp::now());

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(async {
            let kernel = Kernel::new(State::default(), node);
            let mut bench = Bench::configured(kernel, tempfile::tempdir().unwrap(), config);
            bench.learn(&document).await;
            bench.status()
        });
        let mut vips = status.vips.clone();
        for backend in vips.iter_mut().flat_map(|vip| &mut vip.backends) {
            backend.connections = None;
        }
        prop_assert_eq!(&explanation.vips, &vips);
        prop_assert_eq!(&explanation.skipped, &*status.skipped);
        prop_assert_eq!(&explanation.warnings, &status.warnings);
        prop_assert_eq!(&explanation.reasons, &status.reasons);
    }
}

#[tokio::test]
async fn a_document_that_is_no_matter_of_vips_makes_no_new_plan() {
    let mut bench = Bench::new();
    let document = document(&["/web:80"]);
    bench.learn(&document).await;
    let plan = |bench: &mut Bench| {
        let actual = bench.kernel().read_now();
        bench.reconciler.passes.planner.plan(&actual, Timestamp::now()).unwrap()
    };
    let before = plan(&mut bench);
    // A task without a VIP, whose name DNS serves.
    let other = r#"{"id":"batch","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","name":"batch"},"#;
    bench.learn(&document.replacen(r#""tasks":["#, &format!(r#""tasks":[{other}"#), 1)).await;
    assert!(Arc::ptr_eq(&before, &plan(&mut bench)));
    bench.learn(&document.replace("TASK_RUNNING", "TASK_KILLING")).await;
    assert!(!Arc::ptr_eq(&before, &plan(&mut bench)), "a weight has changed");
}

/// A literal VIP is refused at the address of any running task, also of one without a VIP.
#[tokio::test]
async fn an_address_is_free_again_when_the_task_that_had_it_has_gone() {
    let mut bench = Bench::new();
    let literal = document(&["10.50.0.1:80"]);
    let other = r#"{"id":"db","name":"db","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","statuses":
        [{"state":"TASK_RUNNING","timestamp":1.0,"container_status":{"network_infos":[{"ip_addresses":
        [{"ip_address":"10.50.0.1"}]}]}}]},"#;
    bench.learn(&literal.replacen(r#""tasks":["#, &format!(r#""tasks":[{other}"#), 1)).await;
    assert_eq!(bench.status().vips.len(), 0, "{:?}", bench.status().vips);
    bench.learn(&literal).await;
    assert_eq!(bench.status().vips.len(), 1, "{:?}", bench.status().skipped);
}

#[tokio::test]
async fn the_status_tells_why_the_kernel_was_changed_last_and_what_of_it() {
    let mut bench = Bench::new();
    bench.pass().await;
    bench.learn_by(Cause::Cluster, &document(&["/web:80", "/api:80"])).await;
    let change = bench.status().pass.change.unwrap();
    assert_eq!((change.cause, change.services, change.beside_services), (Cause::Cluster, 2, true));
    bench.pass().await;
    assert_eq!(bench.status().pass.change, Some(change), "a pass without operations changes nothing");
}

/// What the kernel still holds leaves when it would have left without the restart, whatever the clock shows
/// meanwhile.
#[tokio::test]
async fn a_server_that_leaves_has_what_was_left_after_a_restart() {
    for (is_same_boot, left) in [(true, 40), (false, 60)] {
        let mut bench = Bench::with("[dataplane]\ndrain = \"60s\"\n");
        let both = document(&["/web:80", "/web:80"]);
        bench.learn(&both).await;
        let gone = SocketAddr::from(([10, 0, 0, 2], 1001));
        bench.kernel().connections.insert((WEB, gone), Connections { active: 3, inactive: 0 });
        bench.learn(&document(&["/web:80"])).await;
        bench.reconciler.passes.finish();
        let path = bench.directory.path().join("deadlines.json");
        let mut kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept["content"]["drains"].as_array().unwrap().len(), 1, "{kept}");
        let written = kept["written"].as_object_mut().unwrap();
        let uptime = written["uptime"].as_f64().unwrap();
        written.insert("uptime".to_owned(), (uptime - 20.0).into());
        if !is_same_boot {
            written.insert("boot".to_owned(), "another".into());
        }
        std::fs::write(&path, kept.to_string()).unwrap();

        let mut bench = bench.restart();
        // By the cluster of the file, and by a document.
        for _ in 0..2 {
            let status = bench.ask().await;
            let leaving = status.vips[0].backends.iter().find(|backend| backend.port == 1001).unwrap();
            assert_eq!((leaving.weight, leaving.task.as_str()), (0, "t1"));
            let rest = leaving.until.unwrap().duration_since(Timestamp::now()).as_secs();
            assert!((left - 10..=left + 1).contains(&rest), "{rest} s of {left} s");
            bench.learn(&document(&["/web:80"])).await;
        }
        // It is wanted again, and has its whole time when it leaves once more.
        bench.learn(&both).await;
        bench.learn(&document(&["/web:80"])).await;
        let until = bench.reconciler.passes.planner.deadline(&WEB, &gone).unwrap();
        assert!(until.duration_since(steady_now()).as_secs() > 50);
    }
}

/// The kernel is changed when the cluster has changed, and the status tells of the source at once.
#[tokio::test(start_paused = true)]
async fn a_failure_is_told_without_a_pass_and_a_new_document_makes_one() {
    let bench = Bench::new();
    let (outside, inputs) = outside();
    let Outside { feeds, .. } = outside;
    let shutdown = CancellationToken::new();
    let Bench { reconciler, mut believer, mut statuses, directory: _directory, .. } = bench;
    let running = tokio::spawn(reconciler.run(inputs, shutdown.clone()));
    let confirmed = |sequence: u64, documents: &[&str], second: i64| {
        let good_at = Some(Timestamp::from_second(second).unwrap());
        Report { good_at, ..report(sequence, &document(documents)) }
    };
    believer.take(confirmed(1, &["/web:80"], 1), Timestamp::now());
    feeds.send_replace(believer.feed().clone());
    let passed = statuses.wait_for(|status| status.numbers().vips == 1).await.unwrap().pass.at;
    for second in 2..6 {
        believer.take(confirmed(1, &["/web:80"], second), Timestamp::now());
        feeds.send_replace(believer.feed().clone());
        let is_newer =
            |status: &Arc<Status>| status.source.good_at.is_some_and(|good_at| good_at.as_second() == second);
        let status = statuses.wait_for(is_newer).await.unwrap();
        assert_eq!((status.pass.at, status.numbers().vips), (passed, 1), "second {second}");
    }
    let failure = Some(Failure { error: "gone".to_owned(), at: Timestamp::now(), attempts: 1 });
    believer.take(Report { failure, ..confirmed(1, &["/web:80"], 5) }, Timestamp::now());
    feeds.send_replace(believer.feed().clone());
    let failed = statuses.wait_for(|status| status.degraded).await.unwrap().clone();
    assert_eq!((failed.pass.at, failed.numbers().vips), (passed, 1));
    believer.take(confirmed(2, &["/web:80", "/other:80"], 7), Timestamp::now());
    feeds.send_replace(believer.feed().clone());
    let recovered = |status: &Arc<Status>| status.numbers().vips == 2 && !status.degraded;
    assert!(statuses.wait_for(recovered).await.unwrap().pass.at != passed);
    shutdown.cancel();
    running.await.unwrap();
}

/// Programs ask every few seconds, and a node has more to do than to answer them.
#[tokio::test]
async fn a_question_for_the_status_makes_no_pass() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80", "/api:80"])).await;
    let before = bench.status();
    let (readings, attempts) = (bench.kernel().readings, bench.kernel().attempts());
    let server = *bench.kernel().state.services[&WEB].servers.keys().next().unwrap();
    let counted = Connections { active: 4, inactive: 2 };
    bench.kernel().connections.insert((WEB, server), counted);
    bench.kernel().state.routes.clear();
    let status = bench.document(None).await;
    assert_eq!((bench.kernel().readings, bench.kernel().attempts()), (readings, attempts));
    assert_eq!(status.pass, before.pass);
    assert!(status.at > before.at);
    let name = |status: &Status| status.vips.iter().filter_map(|vip| vip.name.clone()).collect::<Vec<_>>();
    assert_eq!(name(&status), name(&before));
    // Connections of a few VIPs are those of this moment.
    let web = status.vips.iter().find(|vip| vip.address == WEB.address).unwrap();
    assert_eq!(web.backends[0].connections, Some(counted));
    let alone = bench.document(Some("web.marathon")).await;
    assert_eq!(alone.vips, std::slice::from_ref(web));
    assert_eq!(bench.document(Some("other.marathon")).await.vips, []);
    // The audit repairs what was found by no question.
    bench.pass().await;
    assert_eq!(bench.document(None).await.pass.repaired, 1);
}

/// With many VIPs passes of single changes leave it to who asks.
#[tokio::test]
async fn a_question_is_answered_by_the_newest_plan_however_many_vips_there_are() {
    let names: Vec<String> = (0..FEW + 20).map(|number| format!("/vip{number}:80")).collect();
    let labels: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bench = Bench::new();
    bench.learn(&document(&labels[..FEW + 10])).await;
    bench.kernel().counted.clear();
    bench.learn_by(Cause::Cluster, &document(&labels)).await;
    let status = bench.document(None).await;
    assert_eq!((status.vips.len(), bench.status().numbers().vips), (FEW + 20, FEW + 20));
    assert_eq!(bench.kernel().counted, [], "too many to be counted for a question");
}

/// More services than are told of in full after each pass.
const FEW: usize = 200;

/// A pass that is stuck in ten thousand operations answers between them.
#[tokio::test]
async fn a_long_pass_answers_questions_with_what_is_pending() {
    let names: Vec<String> = (0..400).map(|number| format!("/vip{number}:80")).collect();
    let labels: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bench = Bench::new();
    bench.take(report(1, &document(&labels)));
    let (questions, mut receiver) = mpsc::channel(1);
    let (answer, answered) = oneshot::channel();
    let wanted = VipFilter { vip: Some("vip7.marathon".to_owned()), ..VipFilter::default() };
    questions.try_send(Question::Status { wanted, answer }).unwrap();
    bench.reconciler.passes.pass(Cause::Cluster, &mut receiver).await;
    let status: Status = serde_json::from_slice(&answered.await.unwrap().text).unwrap();
    assert!(status.pass.pending > 0);
    assert_eq!(status.vips.len(), 1);
    assert_eq!(bench.status().pass.pending, 0);
}

/// 30,000 services take seconds to look through, and an event is to be in the kernel in milliseconds.
#[tokio::test(start_paused = true)]
async fn changes_and_questions_go_between_the_slices_of_an_audit() {
    let mut bench = Bench::new();
    // The look of the first audit never ends.
    bench.kernel().slices = usize::MAX;
    bench.kernel().delay = Duration::from_millis(20);
    let audit = bench.reconciler.passes.audit;
    let (outside, inputs) = outside();
    let Outside { feeds, requests, questions, .. } = outside;
    let shutdown = CancellationToken::new();
    let Bench { reconciler, mut believer, mut statuses, directory: _directory, .. } = bench;
    let running = tokio::spawn(reconciler.run(inputs, shutdown.clone()));
    believer.take(report(1, &document(&["/web:80"])), Timestamp::now());
    feeds.send_replace(believer.feed().clone());
    statuses.wait_for(|status| status.numbers().vips == 1).await.unwrap();
    // A slice, and the pass that goes by the book.
    let soon = Duration::from_millis(50);
    // Into the look, for which a client waits besides.
    sleep(audit * 2).await;
    let (done, compared) = oneshot::channel();
    requests.send(PassRequest { done }).await.unwrap();
    believer.take(report(2, &document(&["/web:80", "/other:80"])), Timestamp::now());
    feeds.send_replace(believer.feed().clone());
    let served = statuses.wait_for(|status| status.numbers().vips == 2);
    timeout(soon, served).await.expect("a change waited").unwrap();
    let (answer, answered) = oneshot::channel();
    questions.send(Question::Status { wanted: VipFilter::default(), answer }).await.unwrap();
    timeout(soon, answered).await.expect("a question waited").unwrap();
    let unanswered = timeout(audit, compared).await;
    assert!(unanswered.is_err(), "what was not looked through counts as compared");
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn an_audit_compares_what_all_of_its_slices_have_seen() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80"])).await;
    bench.kernel().slices = 7;
    bench.kernel().state.services.clear();
    bench.reconciler.pass(Cause::Due).await;
    assert_eq!(bench.status().pass.repaired, 0);
    bench.pass().await;
    assert_eq!(bench.status().pass.repaired, 2, "service and server");
    assert_eq!(bench.kernel().looked, 0, "the next audit looks anew");
}
