//! The pure part: from a document's bytes to operations, names and answers. `README.md` beside this
//! folder has figures and what they mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use l4lbd::cluster::belief::{Accepted, SyncState};
use l4lbd::cluster::{Protocol, SharedMap, Snapshot};
use l4lbd::config::Config;
use l4lbd::daemon::wiring;
use l4lbd::dataplane::diff::diff;
use l4lbd::dataplane::memory::SimulatedKernel;
use l4lbd::dataplane::{Connections, DataPlane, Depth, Link, Node, ServerKey, State};
use l4lbd::dns::protocol::message::{Transport, respond};
use l4lbd::dns::usage::UsageRegistry;
use l4lbd::dns::zones::vips::{NamedService, ServicePort, Zone};
use l4lbd::mesos::{self, Format};
use l4lbd::plan::Planner;
use l4lbd::plan::addresses::assign as assign_addresses;
use l4lbd::reconcile::{Outputs, Reconciler};
use l4lbd::source::Feed;
use l4lbd::status::Status;
use l4lbd::status::document::{Document, Figures, View, VipFilter};
use l4lbd::status::pass::Cause;
use l4lbd::store::saver::{Loaded, Saver};
use l4lbd::store::{Persisted, Store};
use l4lbd::vip::alloc::{AddressRange, Leases};
use l4lbd::vip::{LabelPolicy, VipTable};

mod cluster;

use cluster::Vips;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// 10,000 tasks.
static DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| cluster::document(2_000, 5, Vips::Named));

/// 10,000 VIPs with 5 backends each.
static SNAPSHOT: LazyLock<Arc<Snapshot>> =
    LazyLock::new(|| Arc::new(cluster::snapshot(10_000, 5, Vips::Named)));

/// The same number of VIPs, all of them addresses outside of the range, with a route each.
static LITERALS: LazyLock<Arc<Snapshot>> =
    LazyLock::new(|| Arc::new(cluster::snapshot(10_000, 1, Vips::Literal)));

fn main() {
    divan::main();
}

/// Reading 10,000 tasks and forgetting them; the maximum of allocated memory leaves out the document.
#[divan::bench_group(sample_count = 30)]
mod parsing {
    use super::*;

    #[divan::bench]
    fn l4lbd(bencher: Bencher<'_, '_>) {
        let document = &*DOCUMENT;
        let bench = bencher.counter(BytesCount::of_slice(document));
        bench.bench(|| drop(black_box(mesos::parse(document, Some(Format::State)).unwrap())));
    }

    #[divan::bench]
    fn l4lbd_format_unknown(bencher: Bencher<'_, '_>) {
        let document = &*DOCUMENT;
        let bench = bencher.counter(BytesCount::of_slice(document));
        bench.bench(|| drop(black_box(mesos::parse(document, None).unwrap())));
    }

    #[divan::bench]
    fn serde_json_value(bencher: Bencher<'_, '_>) {
        let document = &*DOCUMENT;
        let bench = bencher.counter(BytesCount::of_slice(document));
        bench.bench(|| drop(black_box(serde_json::from_slice::<Value>(document).unwrap())));
    }
}

/// What comes between a document and operations, for 10,000 VIPs with 5 backends each.
#[divan::bench_group(sample_count = 30)]
mod planning {
    use super::*;

    #[divan::bench]
    fn vip_table(bencher: Bencher<'_, '_>) {
        bencher
            .counter(ItemsCount::new(SNAPSHOT.tasks.len()))
            .bench(|| VipTable::new(&SNAPSHOT, &LabelPolicy::default()));
    }

    #[divan::bench]
    fn learn_document(bencher: Bencher<'_, '_>) {
        let mut planner = planner();
        bencher.bench_local(move || planner.learn(&accepted(&SNAPSHOT)));
    }

    #[divan::bench]
    fn desired_state(bencher: Bencher<'_, '_>) {
        let mut planner = planner();
        let mut actual = block_on(simulated().read(Depth::Full)).unwrap();
        planner.learn(&accepted(&SNAPSHOT));
        // Another node each time, or the last plan would do.
        let mut hosts = 0..;
        bencher.bench_local(move || {
            actual.node.gateways =
                hosts.next().map(|host: u32| IpAddr::from(host.to_be_bytes())).into_iter().collect();
            planner.plan(&actual, Timestamp::now()).unwrap()
        });
    }
}

/// Addresses for 10,000 names that have none.
#[divan::bench_group(sample_count = 30)]
mod allocation {
    use super::*;

    #[divan::bench(args = [AddressRange::DCOS_V4, AddressRange::DCOS_V6])]
    fn default_range(bencher: Bencher<'_, '_>, range: AddressRange) {
        assign(bencher, range);
    }

    /// Half as many addresses again as names, so that most names have to look for a free one.
    #[divan::bench]
    fn crowded_range(bencher: Bencher<'_, '_>) {
        assign(bencher, "11.0.0.0-11.0.58.151".parse().unwrap());
    }

    #[divan::bench]
    fn all_known(bencher: Bencher<'_, '_>) {
        let (mut memory, range6) = (Persisted::default(), AddressRange::DCOS_V6);
        let table = VipTable::new(&SNAPSHOT, &LabelPolicy::default());
        let owners = SharedMap::default();
        bencher.bench_local(move || {
            assign_addresses(&mut memory, &table, &AddressRange::DCOS_V4, &range6, None, &owners)
        });
    }

    fn assign(bencher: Bencher<'_, '_>, range: AddressRange) {
        let names: Vec<String> = (0..10_000).map(|name| format!("scaleapp{name}.marathon")).collect();
        bencher.counter(ItemsCount::of_iter(&names)).bench(|| {
            let mut leases = Leases::default();
            let unplaced = leases.assign(&range, names.iter().map(String::as_str), []);
            assert!(unplaced.is_empty());
            leases
        });
    }
}

/// Comparing 10,000 virtual services with 5 real servers each.
#[divan::bench_group(sample_count = 30)]
mod comparison {
    use super::*;

    #[divan::bench]
    fn no_change(bencher: Bencher<'_, '_>) {
        let state = desired(&SNAPSHOT);
        bench(bencher, &state, &state.clone(), 0);
    }

    /// One real server of every hundredth service goes to weight 0.
    #[divan::bench]
    fn one_percent(bencher: Bencher<'_, '_>) {
        let (state, mut changed) = (desired(&SNAPSHOT), desired(&SNAPSHOT));
        for service in changed.services.values_mut().step_by(100) {
            Arc::make_mut(service).servers.values_mut().next().unwrap().weight = 0;
        }
        bench(bencher, &state, &changed, 100);
    }

    /// Link up, address, rules, timeouts and routes come on top of 60,000 for services.
    #[divan::bench]
    fn cold(bencher: Bencher<'_, '_>) {
        let state = desired(&SNAPSHOT);
        let rest = state.sysctls.len() + state.addresses.len() + state.routes.len() + 4;
        bench(bencher, &State::default(), &state, 60_000 + rest);
    }

    #[divan::bench]
    fn no_change_10000_literal_vips(bencher: Bencher<'_, '_>) {
        let state = desired(&LITERALS);
        bench(bencher, &state, &state.clone(), 0);
    }

    fn bench(bencher: Bencher<'_, '_>, actual: &State, desired: &State, operations: usize) {
        assert_eq!(diff(actual, desired, 1).len(), operations);
        bencher.bench(|| diff(actual, desired, 1));
    }
}

/// A whole pass of the reconcile loop against a simulated kernel: reading, planning, comparing, zone
/// and status.
#[divan::bench_group(sample_count = 30)]
mod pass {
    use super::*;

    /// Done at most every ten seconds, when a document was new.
    #[divan::bench]
    fn keep_cluster_on_disk(bencher: Bencher<'_, '_>) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        bencher.bench(|| store.save_cluster(&SNAPSHOT).unwrap());
    }

    /// Copying its tables stands for reading the kernel, and is part of each pass.
    #[divan::bench]
    fn simulated_kernel_alone(bencher: Bencher<'_, '_>) {
        let mut kernel = simulated();
        kernel.state = desired(&SNAPSHOT);
        bencher.bench_local(move || block_on(kernel.read(Depth::Audit)).unwrap());
    }

    #[divan::bench]
    fn no_change(bencher: Bencher<'_, '_>) {
        bench(bencher, &SNAPSHOT, false);
    }

    #[divan::bench]
    fn no_change_in_new_document(bencher: Bencher<'_, '_>) {
        bench(bencher, &SNAPSHOT, true);
    }

    #[divan::bench]
    fn no_change_10000_literal_vips(bencher: Bencher<'_, '_>) {
        bench(bencher, &LITERALS, false);
    }

    fn bench(bencher: Bencher<'_, '_>, snapshot: &Arc<Snapshot>, anew: bool) {
        let directory = tempfile::tempdir().unwrap();
        let (mut reconciler, status) = reconciler(directory.path());
        let feed = || Feed { accepted: Some(Arc::new(accepted(snapshot))), ..Feed::default() };
        reconciler.take_feed(feed());
        // One programs, one reads in full.
        block_on(reconciler.pass(Cause::Cluster));
        block_on(reconciler.pass(Cause::Cluster));
        assert_eq!((status.borrow().numbers().vips, status.borrow().skipped.len()), (10_000, 0));
        let written = status.borrow().pass.changed_at;
        bencher.bench_local(|| {
            if anew {
                reconciler.take_feed(feed());
            }
            block_on(reconciler.pass(Cause::Cluster));
        });
        assert_eq!(status.borrow().pass.changed_at, written);
    }

    fn reconciler(state_dir: &Path) -> (Reconciler<SimulatedKernel>, watch::Receiver<Arc<Status>>) {
        let mut config = defaults();
        config.daemon.state_dir = state_dir.to_owned();
        let zones = watch::Sender::new(Arc::new(wiring::zone(&config).unwrap()));
        let statuses = watch::Sender::new(Arc::new(Status::default()));
        let status = statuses.subscribe();
        let (saver, Loaded { persisted, .. }) = Saver::open(Store::new(state_dir), true);
        let nodes = watch::Sender::new(Arc::default());
        let outputs = Outputs { zones, statuses, nodes, events: l4lbd::events::Recorder::in_memory("") };
        let settings = wiring::reconciler(&config, UsageRegistry::default()).unwrap();
        (Reconciler::new(simulated(), settings, saver, (persisted, Vec::new()), outputs), status)
    }
}

/// What a client gets who asks for the status: 12 MB for 10,000 VIPs with 5 backends each.
#[divan::bench_group(sample_count = 30)]
mod status {
    use super::*;

    /// As it is sent, piece by piece.
    #[divan::bench]
    fn document(bencher: Bencher<'_, '_>) {
        let (planner, connections) = planned();
        let status = Status::default();
        let whole = write(&status, view(&planner, &connections));
        let listed = Status { vips: view(&planner, &connections).vips(), ..Status::default() };
        assert!(whole == serde_json::to_vec(&listed).unwrap());
        bencher.counter(BytesCount::of_slice(&whole)).bench_local(|| {
            let mut document = begin(&status, view(&planner, &connections));
            while let Some(rest) = document.rest {
                document = rest.go_on(view(&planner, &connections)).unwrap();
            }
        });
    }

    /// Alone from a list that is there already: the same bytes.
    #[divan::bench]
    fn serde_json_of_a_list(bencher: Bencher<'_, '_>) {
        let (planner, connections) = planned();
        let listed = Status { vips: view(&planner, &connections).vips(), ..Status::default() };
        bencher.bench_local(|| serde_json::to_vec(&listed).unwrap());
    }

    /// As it was before: list, then bytes.
    #[divan::bench]
    fn list_and_serde_json(bencher: Bencher<'_, '_>) {
        let (planner, connections) = planned();
        bencher.bench_local(|| {
            let listed = Status { vips: view(&planner, &connections).vips(), ..Status::default() };
            serde_json::to_vec(&listed).unwrap()
        });
    }

    #[divan::bench]
    fn one_vip(bencher: Bencher<'_, '_>) {
        let (planner, connections) = planned();
        let status = Status::default();
        let first = planner.latest().desired.services.keys().next().unwrap().address.to_string();
        bencher.bench_local(|| {
            let view = view(&planner, &connections);
            assert_eq!(view.find(&first).len(), 1);
            Document::begin(
                &status,
                view.select(&VipFilter { vip: Some(first.clone()), ..VipFilter::default() }),
                view,
            )
            .unwrap()
        });
    }

    fn planned() -> (Planner, BTreeMap<ServerKey, Connections>) {
        let mut actual = block_on(simulated().read(Depth::Full)).unwrap();
        let mut planner = planner();
        planner.learn(&accepted(&SNAPSHOT));
        planner.plan(&actual, Timestamp::now()).unwrap();
        for (key, programmed) in &planner.latest().desired.services {
            let servers = programmed.servers.keys().map(|server| ((*key, *server), Connections::default()));
            actual.connections.extend(servers);
        }
        (planner, actual.connections)
    }

    fn view<'a>(planner: &'a Planner, connections: &'a BTreeMap<ServerKey, Connections>) -> View<'a> {
        View {
            plan: planner.latest(),
            planner,
            figures: Some(Figures { connections, seen: None, traffic: None }),
            origin: "l4lb.thisdcos.directory",
            own_scheduler: None,
            clocks: (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH),
        }
    }

    fn begin(status: &Status, view: View<'_>) -> Document {
        Document::begin(status, view.select(&VipFilter::default()), view).unwrap()
    }

    fn write(status: &Status, view: View<'_>) -> Vec<u8> {
        let mut document = begin(status, view);
        let mut whole = document.text;
        while let Some(rest) = document.rest {
            document = rest.go_on(view).unwrap();
            whole.append(&mut document.text);
        }
        whole
    }
}

/// A zone of 10,000 names.
mod dns {
    use super::*;

    #[divan::bench]
    fn build_zone(bencher: Bencher<'_, '_>) {
        let (empty, records) = (wiring::zone(&defaults()).unwrap(), records());
        bencher.counter(ItemsCount::of_iter(&records)).bench(|| build(&empty, &records));
    }

    #[divan::bench(args = ["scaleapp5000.marathon", "unknown.marathon"])]
    fn answer(bencher: Bencher<'_, '_>, name: &str) {
        let zone = build(&wiring::zone(&defaults()).unwrap(), &records());
        let catalog = wiring::catalog(&defaults()).unwrap().with_vips(Arc::new(zone));
        let name = Name::from_ascii(format!("{name}.l4lb.thisdcos.directory.")).unwrap();
        let mut query = Message::query();
        query.add_query(Query::query(name, RecordType::A));
        let query = query.to_vec().unwrap();
        let mut reply = Vec::new();
        bencher
            .counter(ItemsCount::new(1usize))
            .bench_local(move || respond(&catalog, &query, Transport::Udp, &mut reply));
    }

    fn records() -> Vec<NamedService> {
        let address = |name: u32| IpAddr::from(Ipv4Addr::from_bits(0x0B00_0000 + name));
        let port = || Some(ServicePort::from((Protocol::Tcp, 80)));
        let service = |name: u32| NamedService {
            name: format!("scaleapp{name}.marathon"),
            address: address(name),
            port: port(),
        };
        (0..10_000).map(service).collect()
    }

    fn build(empty: &Zone, records: &[NamedService]) -> Zone {
        let (zone, left_out) = empty.with_services(1, records);
        assert!(left_out.is_empty());
        zone
    }
}

/// A kernel without anything of ours, on a node with one address.
fn simulated() -> SimulatedKernel {
    let own = IpAddr::from([10, 0, 1, 1]);
    let mut kernel = SimulatedKernel::default();
    kernel.node = Node { addresses: BTreeSet::from([own]), default_source4: Some(own), ..Node::default() };
    kernel
}

fn defaults() -> Config {
    Config::defaults().unwrap()
}

/// A planner that knows nothing yet.
fn planner() -> Planner {
    Planner::new(wiring::planner(&defaults()), Persisted::default())
}

/// A document that is believed as it is.
fn accepted(snapshot: &Arc<Snapshot>) -> Accepted {
    Accepted { snapshot: Arc::clone(snapshot), sync: SyncState::Synced, ..Accepted::default() }
}

fn desired(snapshot: &Arc<Snapshot>) -> State {
    let actual = block_on(simulated().read(Depth::Full)).unwrap();
    let mut planner = planner();
    planner.learn(&accepted(snapshot));
    let state = planner.plan(&actual, Timestamp::now()).unwrap().state.clone();
    assert_eq!((state.services.len(), state.link), (10_000, Link::Up));
    state
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}
