//! Against a small server on this machine that has the operator API of a master.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use reqwest::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::cluster::Snapshot;
use crate::units::Span;

/// What a master says, and the streams that it has open.
#[derive(Clone, Default)]
struct Master {
    state: Arc<Mutex<String>>,
    heartbeat: Arc<Mutex<f64>>,
    streams: Arc<Mutex<Vec<mpsc::UnboundedSender<Vec<u8>>>>>,
    /// Whether it takes no subscribers.
    full: Arc<Mutex<bool>>,
}

/// The state document, for those who don't subscribe.
const DOCUMENT: &str = r#"{"id":"M","elected_time":1.5,"frameworks":[{"id":"F","name":"marathon","tasks":[{"id":"t",
    "framework_id":"F","slave_id":"S","state":"TASK_RUNNING","discovery":{"ports":{"ports":[{"number":80,
    "protocol":"tcp","labels":{"labels":[{"key":"VIP_0","value":"w:80"}]}}]}}}]}],
    "slaves":[{"id":"S","hostname":"n1","pid":"slave(1)@10.0.0.1:5051"}]}"#;

/// A `get_state` with one task, of this state.
fn state(task: &str) -> String {
    format!(
        r#"{{"get_tasks":{{"tasks":[{}]}},
        "get_agents":{{"agents":[{{"agent_info":{{"id":{{"value":"S"}},"hostname":"n1"}},"pid":"slave(1)@10.0.0.1:5051"}}]}},
        "get_frameworks":{{"frameworks":[{{"framework_info":{{"id":{{"value":"F"}},"name":"marathon"}}}}]}}}}"#,
        self::task(task)
    )
}

fn task(state: &str) -> String {
    format!(
        r#"{{"task_id":{{"value":"t"}},"framework_id":{{"value":"F"}},"agent_id":{{"value":"S"}},"state":"{state}",
        "discovery":{{"ports":{{"ports":[{{"number":80,"protocol":"tcp","labels":{{"labels":
        [{{"key":"VIP_0","value":"w:80"}}]}}}}]}}}}}}"#
    )
}

fn update(state: &str, healthy: bool) -> String {
    format!(
        r#"{{"type":"TASK_UPDATED","task_updated":{{"framework_id":{{"value":"F"}},"state":"{state}","status":
        {{"task_id":{{"value":"t"}},"state":"{state}","timestamp":2.0,"healthy":{healthy}}}}}}}"#
    )
}

impl Master {
    async fn start() -> (Self, SocketAddr) {
        let master = Self::default();
        *master.state.lock().unwrap() = state("TASK_RUNNING");
        *master.heartbeat.lock().unwrap() = 15.0;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(master.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (master, address)
    }

    /// Sends a record to every subscriber, in small pieces.
    fn tell(&self, record: &str) {
        let frame = format!("{}\n{record}", record.len());
        for piece in frame.as_bytes().chunks(7) {
            self.streams.lock().unwrap().retain(|stream| stream.send(piece.to_vec()).is_ok());
        }
    }
}

async fn answer(State(master): State<Master>, body: String) -> Response {
    let state = master.state.lock().unwrap().clone();
    let full = *master.full.lock().unwrap();
    if full && body.is_empty() {
        DOCUMENT.into_response()
    } else if body.is_empty() || (full && body.contains("SUBSCRIBE")) {
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    } else if body.contains("GET_MASTER") {
        r#"{"type":"GET_MASTER","get_master":{"master_info":{"id":"M"},"elected_time":1.5}}"#.into_response()
    } else if body.contains("GET_STATE") {
        format!(r#"{{"type":"GET_STATE","get_state":{state}}}"#).into_response()
    } else {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        master.streams.lock().unwrap().push(sender);
        let heartbeat = *master.heartbeat.lock().unwrap();
        master.tell(&format!(
            r#"{{"type":"SUBSCRIBED","subscribed":{{"get_state":{state},"heartbeat_interval_seconds":{heartbeat}}}}}"#
        ));
        let pieces = futures_util::stream::poll_fn(move |context| {
            receiver
                .poll_recv(context)
                .map(|piece| piece.map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece))))
        });
        Body::from_stream(pieces).into_response()
    }
}

fn stream(address: SocketAddr, change: impl FnOnce(&mut settings::Source)) -> MesosStream {
    let masters = vec![format!("http://{address}").parse().unwrap()];
    let mut config = settings::Source { masters, ..settings::Source::default() };
    change(&mut config);
    MesosStream::new(&config).unwrap()
}

async fn snapshot(stream: &mut MesosStream) -> Snapshot {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let Fetched::New(snapshot) = stream.next().await.unwrap() {
                return snapshot;
            }
        }
    });
    waited.await.unwrap()
}

/// 1 for each task that takes connections, 0 for each other one.
fn weights(snapshot: &Snapshot) -> Vec<u32> {
    snapshot.tasks.values().map(|task| u32::from(task.is_ready())).collect()
}

#[tokio::test]
async fn events_change_what_the_subscription_said() {
    let (master, address) = Master::start().await;
    let mut stream = stream(address, |_| {});
    let first = snapshot(&mut stream).await;
    assert_eq!(weights(&first), [1]);
    assert_eq!(first.master.unwrap().id, "M");
    assert_eq!(stream.origin(), format!("http://{address}/api/v1"));
    assert_eq!(stream.schedule().pause(), Duration::ZERO);
    master.tell(&update("TASK_RUNNING", false));
    assert_eq!(weights(&snapshot(&mut stream).await), [0]);
    master.tell(r#"{"type":"HEARTBEAT"}"#);
    assert!(matches!(stream.next().await, Ok(Fetched::Unchanged)));
    master.tell(&update("TASK_KILLED", false));
    assert!(snapshot(&mut stream).await.tasks.is_empty());
    master.tell(&format!(r#"{{"type":"TASK_ADDED","task_added":{{"task":{}}}}}"#, task("TASK_RUNNING")));
    let last = snapshot(&mut stream).await;
    assert_eq!((weights(&last), last.master.unwrap().elected_time), (vec![1], 1.5));
}

#[tokio::test]
async fn events_that_come_together_make_few_snapshots() {
    let (master, address) = Master::start().await;
    let mut stream = stream(address, |_| {});
    snapshot(&mut stream).await;
    for n in 0..200 {
        master.tell(&update("TASK_RUNNING", n % 2 == 0));
    }
    master.tell(&update("TASK_KILLED", false));
    let mut snapshots = 1;
    while !weights(&snapshot(&mut stream).await).is_empty() {
        snapshots += 1;
    }
    assert!(snapshots < 100, "{snapshots} for 201 events");
}

#[tokio::test]
async fn a_flood_of_events_does_not_hold_snapshots_back() {
    let (master, address) = Master::start().await;
    let mut stream = stream(address, |_| {});
    snapshot(&mut stream).await;
    let flood = tokio::spawn(async move {
        loop {
            master.tell(&update("TASK_RUNNING", false));
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..3 {
        assert_eq!(weights(&snapshot(&mut stream).await), [0]);
    }
    flood.abort();
}

#[tokio::test]
async fn what_events_do_not_tell_is_found_by_asking() {
    let (master, address) = Master::start().await;
    let mut stream = stream(address, |config| config.resync = Span(Duration::from_millis(100)));
    snapshot(&mut stream).await;
    *master.state.lock().unwrap() = state("TASK_UNREACHABLE");
    assert_eq!(snapshot(&mut stream).await.lost.len(), 1);
    assert!(matches!(stream.next().await, Ok(Fetched::Unchanged)));
}

#[tokio::test]
async fn a_silent_stream_is_given_up() {
    let (master, address) = Master::start().await;
    *master.heartbeat.lock().unwrap() = 0.05;
    let mut stream = stream(address, |_| {});
    snapshot(&mut stream).await;
    let error = stream.next().await.unwrap_err().to_string();
    assert!(error.contains("no heartbeat"), "{error}");
    // And opened again.
    assert_eq!(weights(&snapshot(&mut stream).await), [1]);
}

#[tokio::test]
async fn a_stream_that_ends_is_an_error() {
    let (master, address) = Master::start().await;
    let mut stream = stream(address, |_| {});
    snapshot(&mut stream).await;
    master.streams.lock().unwrap().clear();
    let error = stream.next().await.unwrap_err().to_string();
    assert!(error.contains("ended the stream") && error.contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_standby_is_left_for_its_leader_with_the_credentials() {
    let (_master, leader) = Master::start().await;
    let location = format!("//{leader}/master/api/v1");
    let redirect = move |_: &axum::http::HeaderMap| {
        (StatusCode::TEMPORARY_REDIRECT, [("location", location.clone())]).into_response()
    };
    let standby = crate::source::testing::Server::start(redirect).await;
    let allowed = crate::source::testing::redirects(&[format!("http://{leader}")]);
    let mut stream = stream(standby.address, |config| config.redirects = allowed);
    assert_eq!(weights(&snapshot(&mut stream).await), [1]);
    let origin =
        format!("http://{leader}/master/api/v1 (redirected to by {}/api/v1, not listed)", standby.url());
    assert_eq!(stream.origin(), origin);
}

#[tokio::test]
async fn a_subscription_that_hides_tasks_is_refused() {
    let (master, address) = Master::start().await;
    let agents =
        r#"{"get_agents":{"agents":[{"agent_info":{"id":{"value":"S"}},"allocated_resources":[{}]}]}}"#;
    *master.state.lock().unwrap() = agents.to_owned();
    let error = stream(address, |_| {}).next().await.unwrap_err().to_string();
    assert!(error.contains("view_tasks"), "{error}");
}

#[tokio::test]
async fn what_is_no_stream_of_records_is_an_error() {
    let (master, address) = Master::start().await;
    let mut stream = stream(address, |_| {});
    snapshot(&mut stream).await;
    for open in master.streams.lock().unwrap().iter() {
        open.send(b"<html>".to_vec()).unwrap();
    }
    let error = stream.next().await.unwrap_err().to_string();
    assert!(error.contains("length"), "{error}");
}

#[tokio::test]
async fn without_a_place_among_the_subscribers_the_document_is_polled() {
    let (master, address) = Master::start().await;
    *master.full.lock().unwrap() = true;
    let mut stream = stream(address, |_| {});
    let Fetched::New(polled) = stream.next().await.unwrap() else { panic!("no state") };
    assert_eq!(stream.origin(), format!("http://{address}/master/state"));
    let schedule = stream.schedule();
    assert!(
        schedule.to_string().starts_with("every 2s, because no master takes this node as a subscriber"),
        "{schedule}"
    );
    assert!(schedule.pause() > Duration::ZERO);
    assert!(matches!(stream.next().await.unwrap(), Fetched::Unchanged));
    *master.full.lock().unwrap() = false;
    assert_eq!(snapshot(&mut stream).await, polled, "both say the same");
    assert_eq!(stream.schedule().pause(), Duration::ZERO);
    master.tell(&update("TASK_RUNNING", false));
    assert_eq!(weights(&snapshot(&mut stream).await), [0]);
}
