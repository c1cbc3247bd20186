//! Documents in pieces, against the serialised status as a whole.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::cluster::Snapshot;
use crate::cluster::belief::{Accepted, SyncState};
use crate::config::Config;
use crate::daemon::wiring;
use crate::dataplane::memory::SimulatedKernel;
use crate::dataplane::{Actual, Node, State};
use crate::mesos;
use crate::store::Persisted;

/// A planner, and what it planned last for a node with nothing in its kernel.
pub(crate) struct Planned {
    planner: Planner,
    actual: Actual,
    connections: BTreeMap<ServerKey, Connections>,
}

impl Planned {
    /// A task at 10.0.0.2 for each label.
    pub(crate) fn new(labels: &[String]) -> Self {
        let config = Config::parse(Path::new("test"), "").unwrap();
        let node = Node { addresses: [[10, 0, 0, 1].into()].into(), ..Node::default() };
        let mut planned = Self {
            planner: Planner::new(wiring::planner(&config), Persisted::default()),
            actual: SimulatedKernel::new(State::default(), node).read_now(),
            connections: BTreeMap::new(),
        };
        planned.learn(labels);
        planned
    }

    fn learn(&mut self, labels: &[String]) {
        let snapshot = Arc::new(snapshot(labels));
        self.planner.learn(&Accepted { snapshot, sync: SyncState::Synced, ..Accepted::default() });
        self.planner.plan(&self.actual, Timestamp::UNIX_EPOCH).unwrap();
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            plan: self.planner.latest(),
            planner: &self.planner,
            figures: Some(Figures { connections: &self.connections, seen: None, traffic: None }),
            origin: "l4lb.example",
            own_scheduler: None,
            clocks: (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH),
        }
    }

    /// Counts connections of every second server.
    pub(crate) fn connect(&mut self) {
        let services = self.planner.latest().desired.services.clone();
        let servers = services.iter().flat_map(|(key, vip)| vip.servers.keys().map(move |ip| (*key, *ip)));
        self.connections =
            servers.step_by(2).map(|server| (server, Connections { active: 2, inactive: 1 })).collect();
    }

    /// The names and ports that a name or address finds.
    fn found(&self, wanted: &str) -> Vec<String> {
        let view = self.view();
        let show = |key: &ServiceKey| {
            let vip = view.vip(key, &view.plan.desired.services[key], &[]);
            format!("{}:{}", vip.name.unwrap_or_else(|| key.address.to_string().into()), key.port)
        };
        view.find(wanted).iter().map(show).collect()
    }
}

fn snapshot(labels: &[String]) -> Snapshot {
    let task = |(index, label): (usize, &String)| {
        let port = 1000 + index % 60_000;
        format!(
            r#"{{"id":"t\"{index}","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","discovery":{{"ports":
            {{"ports":[{{"number":{port},"protocol":"tcp","labels":{{"labels":[{{"key":"VIP_0","value":"{label}"}}]}}}}]}}}}}}"#
        )
    };
    let tasks: Vec<String> = labels.iter().enumerate().map(task).collect();
    let text = format!(
        r#"{{"slaves":[{{"id":"S","pid":"slave(1)@10.0.0.2:5051"}}],"frameworks":[{{"id":"F","name":"marathon","tasks":[{}]}}]}}"#,
        tasks.join(",")
    );
    mesos::parse(text.as_bytes(), None).unwrap()
}

/// A status whose text has in it what marks the place of the VIPs.
fn status() -> Status {
    let reasons = vec![PLACE.to_owned()];
    Status { version: "9".to_owned(), reasons, warnings: vec![PLACE.to_owned()], ..Status::default() }
}

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("/vip{number}:80")).collect()
}

fn labels(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

#[test]
fn a_document_is_the_serialised_status_however_many_pieces_it_has() {
    for count in [0, 1, 3, 6_000] {
        let mut planned = Planned::new(&names(count));
        planned.connect();
        let whole = serde_json::to_string(&Status { vips: planned.view().vips(), ..status() }).unwrap();
        let mut document =
            Document::begin(&status(), planned.view().select(&VipFilter::default()), planned.view()).unwrap();
        let (mut text, mut pieces) = (document.text, 1);
        while let Some(rest) = document.rest {
            document = rest.go_on(planned.view()).unwrap();
            assert!(document.text.len() < PIECE * 2);
            text.extend(document.text);
            pieces += 1;
        }
        assert!(String::from_utf8(text).unwrap() == whole, "{count} VIPs");
        assert_eq!(pieces > 1, count > 3, "{pieces} pieces");
    }
}

#[test]
fn vips_are_by_name_with_the_connections_of_each_server() {
    let mut planned = Planned::new(&labels(&["/b:80", "/a:443", "/a:80", "10.9.8.7:80", "/b:80"]));
    planned.connect();
    let vips = planned.view().vips();
    let shown: Vec<_> = vips.iter().map(|vip| (vip.name.as_deref(), vip.port, vip.backends.len())).collect();
    let (a, b) = (Some("a.marathon.l4lb.example"), Some("b.marathon.l4lb.example"));
    assert_eq!(shown, [(None, 80, 1), (a, 80, 1), (a, 443, 1), (b, 80, 2)]);
    for vip in &vips {
        let key = ServiceKey { protocol: vip.protocol, address: vip.address, port: vip.port };
        for backend in &vip.backends {
            let server = (key, SocketAddr::new(backend.address, backend.port));
            let counted = planned.connections.get(&server).copied().unwrap_or_default();
            assert_eq!(backend.connections, Some(counted));
        }
    }
}

/// The daemon goes on while a client takes its time.
#[test]
fn a_change_between_pieces_leaves_a_sound_document() {
    let before = names(6_000);
    let mut planned = Planned::new(&before);
    let mut document =
        Document::begin(&status(), planned.view().select(&VipFilter::default()), planned.view()).unwrap();
    let listed = document.rest.as_ref().unwrap().done;
    let last = planned.view().vips().pop().unwrap().name.unwrap();
    let mut after = before.clone();
    after.retain(|label| !last.starts_with(&format!("{}.", &label[1..label.len() - 3])));
    assert_eq!(after.len(), before.len() - 1);
    after.push("/zzz:80".to_owned());
    planned.learn(&after);
    // What has gone is still there without a backend, until its time is over.
    planned.planner.settings.linger = std::time::Duration::ZERO;
    planned.planner.learn(&Accepted {
        snapshot: Arc::new(snapshot(&after)),
        sync: SyncState::Synced,
        ..Accepted::default()
    });
    planned.planner.plan(&planned.actual, Timestamp::from_second(60).unwrap()).unwrap();
    // Servers are found by their addresses from here on.
    planned.connect();
    let mut text = document.text;
    while let Some(rest) = document.rest {
        document = rest.go_on(planned.view()).unwrap();
        text.extend(document.text);
    }
    let status: Status = serde_json::from_slice(&text).unwrap();
    assert!(listed < status.vips.len());
    for vip in &status.vips[listed..] {
        let key = ServiceKey { protocol: vip.protocol, address: vip.address, port: vip.port };
        for backend in &vip.backends {
            let server = (key, SocketAddr::new(backend.address, backend.port));
            let counted = planned.connections.get(&server).copied().unwrap_or_default();
            assert_eq!(backend.connections, Some(counted));
        }
    }
    assert_eq!(status.vips.len(), before.len() - 1, "without the one that has gone and the one that came");
}

#[test]
fn a_vip_is_found_by_its_name_and_by_its_address() {
    let planned = Planned::new(&labels(&["/web:80", "/web:443", "/web2:80", "10.9.8.7:80", "[fd00::7]:80"]));
    let (web, secure) = ("web.marathon.l4lb.example:80", "web.marathon.l4lb.example:443");
    for wanted in ["web.marathon", "/web.marathon", "web.marathon.l4lb.example", "web.marathon.l4lb.example."]
    {
        assert_eq!(planned.found(wanted), [web, secure], "{wanted}");
        assert_eq!(planned.found(&format!("{wanted}:443")), [secure], "{wanted}");
    }
    let address = planned.view().plan.desired.services.keys().find(|key| key.port == 443).unwrap().address;
    assert_eq!(planned.found(&address.to_string()), [web, secure]);
    assert_eq!(planned.found("10.9.8.7:80"), ["10.9.8.7:80"]);
    for nothing in
        ["web", "web.marathon:81", "web.marathon.l4lb", "10.9.8.8", "", ":80", "[", "web.marathon:x"]
    {
        assert_eq!(planned.found(nothing), [""; 0], "{nothing}");
    }
}
