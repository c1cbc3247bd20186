//! Which catalog follows from which parts.

use super::*;
use crate::cluster::{Snapshot, TaskKey};
use crate::dns::protocol::record::RData;
use crate::dns::protocol::wire::{MessageHeader, Query};
use crate::dns::settings::DnsSettings;
use crate::dns::testing;
use crate::dns::zones::AnswerWindow;
use crate::dns::zones::catalog::Lookup;
use crate::dns::zones::vips::NamedService;
use crate::mesos;

use hickory_proto::op::{Message, Query as Asked};
use hickory_proto::rr::{Name, RecordType};

fn composer(tasks: bool) -> Composer {
    let settings = CatalogSettings { masters: vec![[10, 0, 0, 10].into()], tasks };
    Composer::new(settings, testing::catalog(&DnsSettings::default()))
}

/// The parts before anything is known.
fn nothing(composer: &Composer) -> Parts {
    Parts { sources: Sources::default(), ..parts_of(composer) }
}

/// The VIPs and the node that a composer knows.
fn parts_of(composer: &Composer) -> Parts {
    let sources = Sources { v4: Some([10, 0, 0, 1].into()), v6: None };
    Parts { vips: composer.catalog.vips().clone(), accepted: None, sources }
}

fn zone(composer: &Composer, serial: u32, address: [u8; 4]) -> Arc<Zone> {
    let service = NamedService { name: "web.marathon".to_owned(), address: address.into(), port: None };
    Arc::new(composer.catalog.vips().with_services(serial, [&service]).0)
}

fn snapshot() -> Snapshot {
    let document = br#"{"id":"M","elected_time":1.0,"leader":"master@10.0.0.9:5050",
        "slaves":[{"id":"S","hostname":"n","pid":"slave(1)@10.0.0.2:5051"}],
        "frameworks":[{"id":"F","name":"marathon","tasks":
        [{"id":"t","name":"batch","framework_id":"F","slave_id":"S","state":"TASK_RUNNING"}]}]}"#;
    mesos::parse(document, None).unwrap()
}

fn accepted(snapshot: Snapshot, sync: SyncState) -> Option<Arc<Accepted>> {
    Some(Arc::new(Accepted { snapshot: Arc::new(snapshot), sync, ..Accepted::default() }))
}

/// Addresses of a name; `None` if it does not exist, and an error before anything is known of its zone.
fn look_up(catalog: &Catalog, name: &str) -> Result<Option<Vec<IpAddr>>, &'static str> {
    let mut message = Message::query();
    message.add_query(Asked::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let packet = message.to_vec().unwrap();
    let query = Query::read(MessageHeader::read(&packet).unwrap(), &packet).unwrap();
    let address = |data: &RData| match data {
        RData::A(address) => IpAddr::from(*address),
        RData::Aaaa(address) => IpAddr::from(*address),
        other => panic!("{other:?}"),
    };
    match catalog.place(&query.name).unwrap().find(&query.name, AnswerWindow::ALL) {
        Lookup::NotLoaded => Err("not loaded"),
        Lookup::Missing => Ok(None),
        Lookup::Found(records) => Ok(Some(records.iter().map(address).collect())),
    }
}

const WEB: &str = "web.marathon.l4lb.thisdcos.directory.";
const BATCH: &str = "batch.marathon.mesos.";
const MASTER: &str = "master.mesos.";
const NODE: &str = "thisnode.thisdcos.directory.";

#[test]
fn a_catalog_without_news_is_not_published() {
    let mut composer = composer(true);
    assert!(composer.compose(nothing(&composer), 1).is_none());
    let parts = || Parts {
        vips: zone(&self::composer(true), 1, [11, 0, 0, 1]),
        accepted: accepted(snapshot(), SyncState::Synced),
        sources: Sources { v4: Some([10, 0, 0, 1].into()), v6: None },
    };
    let first = parts();
    let again = Parts { vips: first.vips.clone(), accepted: first.accepted.clone(), sources: first.sources };
    assert!(composer.compose(first, 1).is_some());
    assert!(composer.compose(again, 2).is_none());
    // Another document of which the same names follow, and others of which others do.
    let mut compose = |snapshot| {
        let accepted = accepted(snapshot, SyncState::Synced);
        composer.compose(Parts { accepted, ..parts_of(&composer) }, 3).is_some()
    };
    let mut other = snapshot();
    other.tasks.clear();
    other.ended.insert(TaskKey { framework: "F".into(), task: "gone".into() });
    assert!(!compose(other));
    let changes: [fn(&mut Snapshot); 4] = [
        |new| new.agents.clear(),
        |new| new.frameworks.clear(),
        |new| new.names = Arc::default(),
        |new| Arc::make_mut(&mut new.names).leader = None,
    ];
    for change in changes {
        let mut other = snapshot();
        change(&mut other);
        assert!(compose(other));
    }
}

#[test]
fn each_part_appears_as_soon_as_it_is_known() {
    let mut composer = composer(true);
    let ip = |address: [u8; 4]| Ok(Some(vec![IpAddr::from(address)]));

    let mut parts = nothing(&composer);
    parts.vips = zone(&composer, 1, [11, 0, 0, 1]);
    let catalog = composer.compose(parts, 1).unwrap();
    assert_eq!(look_up(&catalog, WEB), ip([11, 0, 0, 1]));
    assert_eq!([BATCH, NODE].map(|name| look_up(&catalog, name)), [Err("not loaded"), Err("not loaded")]);

    let mut parts = nothing(&composer);
    parts.accepted = accepted(snapshot(), SyncState::Partial);
    let catalog = composer.compose(parts, 1).unwrap();
    assert_eq!(look_up(&catalog, BATCH), ip([10, 0, 0, 2]));
    assert_eq!(look_up(&catalog, MASTER), Ok(Some(vec![[10, 0, 0, 9].into(), [10, 0, 0, 10].into()])));
    assert_eq!(look_up(&catalog, WEB), ip([11, 0, 0, 1]), "the other parts stay");

    let mut parts = nothing(&composer);
    parts.sources = Sources { v4: Some([10, 0, 0, 1].into()), v6: Some("fd50::1".parse().unwrap()) };
    let catalog = composer.compose(parts, 1).unwrap();
    let both = vec![[10, 0, 0, 1].into(), "fd50::1".parse().unwrap()];
    assert_eq!(look_up(&catalog, NODE), Ok(Some(both)));
    assert_eq!(look_up(&catalog, BATCH), ip([10, 0, 0, 2]));
}

#[test]
fn a_new_part_takes_the_place_of_the_old_one() {
    let mut composer = composer(true);
    let mut parts = nothing(&composer);
    parts.vips = zone(&composer, 1, [11, 0, 0, 1]);
    parts.accepted = accepted(snapshot(), SyncState::Synced);
    composer.compose(parts, 7).unwrap();

    let mut parts = nothing(&composer);
    parts.vips = zone(&composer, 2, [11, 0, 0, 2]);
    parts.accepted = accepted(Snapshot { names: Arc::default(), ..snapshot() }, SyncState::Synced);
    let catalog = composer.compose(parts, 8).unwrap();
    assert_eq!(look_up(&catalog, WEB), Ok(Some(vec![[11, 0, 0, 2].into()])));
    assert_eq!(look_up(&catalog, BATCH), Ok(None));
}

/// The file that a run leaves has no names of tasks: they would be denied until the first document.
#[test]
fn names_of_tasks_wait_for_the_first_document() {
    let mut composer = composer(true);
    let mut parts = nothing(&composer);
    parts.accepted = accepted(Snapshot { names: Arc::default(), ..snapshot() }, SyncState::Cold);
    assert!(composer.compose(parts, 1).is_none());
    assert_eq!(look_up(&composer.catalog, BATCH), Err("not loaded"));
}

#[test]
fn names_of_tasks_can_be_switched_off() {
    let mut composer = composer(false);
    let mut parts = nothing(&composer);
    parts.accepted = accepted(snapshot(), SyncState::Synced);
    assert!(composer.compose(parts, 1).is_none());
}

#[tokio::test]
async fn the_task_publishes_what_changes_and_keeps_it() {
    let composer = composer(true);
    let (vips, vip_receiver) = watch::channel(composer.catalog.vips().clone());
    let (feeds, feed_receiver) = watch::channel(Feed::default());
    let (nodes, node_receiver) = watch::channel(Arc::<NodeView>::default());
    let (catalogs, mut receiver) = watch::channel(Arc::new(composer.catalog.clone()));
    let inputs = CatalogInputs { vips: vip_receiver, feeds: feed_receiver, nodes: node_receiver };
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(run(composer.settings.clone(), inputs, catalogs, shutdown.clone()));

    vips.send_replace(zone(&composer, 1, [11, 0, 0, 1]));
    receiver.wait_for(|catalog| look_up(catalog, WEB).is_ok()).await.unwrap();
    feeds.send_replace(Feed { accepted: accepted(snapshot(), SyncState::Synced), ..Feed::default() });
    receiver.wait_for(|catalog| look_up(catalog, BATCH).is_ok()).await.unwrap();
    nodes.send_modify(|view| Arc::make_mut(view).sources.v4 = Some([10, 0, 0, 1].into()));
    receiver.wait_for(|catalog| look_up(catalog, NODE).is_ok()).await.unwrap();
    drop((vips, feeds, nodes));
    assert!(look_up(&receiver.borrow(), WEB).is_ok());
    shutdown.cancel();
    running.await.unwrap();
}
