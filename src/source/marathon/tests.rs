//! Against a stand-in for a Marathon cluster: a leader, followers that proxy to it but redirect
//! events, and Marathons that know no leader.

use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use reqwest::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::units::Span;

/// One Marathon; followers share the leader's state.
#[derive(Clone)]
struct StandIn {
    leader: Option<SocketAddr>,
    own: SocketAddr,
    apps: Arc<Mutex<String>>,
    streams: Arc<Mutex<Vec<mpsc::UnboundedSender<String>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl StandIn {
    /// Starts one that follows `leader`, or leads where that is itself.
    async fn start(leader: impl FnOnce(SocketAddr) -> Option<SocketAddr>, like: Option<&Self>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let apps = r#"{"apps":[{"id":"/web","healthChecks":[{"protocol":"HTTP"}],
            "portDefinitions":[{"labels":{"VIP_0":"web:80"}}],
            "tasks":[{"id":"web.instance-1._app.1","host":"localhost","slaveId":"S","state":"TASK_RUNNING",
            "ports":[31000],"healthCheckResults":[{"alive":true}]}]}]}"#;
        let stand_in = Self {
            leader: leader(own),
            own,
            apps: like.map_or_else(|| Arc::new(Mutex::new(apps.to_owned())), |like| like.apps.clone()),
            streams: Arc::default(),
            asked: Arc::default(),
        };
        let router = Router::new().fallback(answer).with_state(stand_in.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        stand_in
    }

    async fn leading() -> Self {
        Self::start(Some, None).await
    }

    async fn following(leader: &Self) -> Self {
        let address = leader.own;
        Self::start(move |_| Some(address), Some(leader)).await
    }

    async fn undecided() -> Self {
        Self::start(|_| None, None).await
    }

    fn tell(&self, event: &str) {
        let text = format!("event: {event}\r\ndata: {{\"eventType\":\"{event}\"}}\r\n\r\n");
        self.streams.lock().unwrap().retain(|stream| stream.send(text.clone()).is_ok());
    }

    fn set_alive(&self, alive: bool) {
        let mut apps = self.apps.lock().unwrap();
        *apps = apps.replace(&format!("\"alive\":{}", !alive), &format!("\"alive\":{alive}"));
    }
}

async fn answer(State(marathon): State<StandIn>, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path_and_query().unwrap().as_str();
    let credentials = headers.get("authorization").map_or("", |value| value.to_str().unwrap());
    marathon.asked.lock().unwrap().push(format!("{} {credentials}", uri.path()));
    let Some(leader) = marathon.leader else {
        return (StatusCode::BAD_GATEWAY, "Could not determine the current leader").into_response();
    };
    if uri.path() == "/v2/events" && leader != marathon.own {
        let location = format!("http://{leader}{path}");
        return (StatusCode::FOUND, [("location", location)]).into_response();
    }
    match uri.path() {
        "/v2/info" => r#"{"version":"1.11.0","frameworkId":"F","marathon_config":{}}"#.into_response(),
        "/v2/apps" => marathon.apps.lock().unwrap().clone().into_response(),
        "/v2/pods/::status" => "[]".into_response(),
        "/v2/events" => {
            assert_eq!(headers["accept"], "text/event-stream");
            let (sender, mut receiver) = mpsc::unbounded_channel();
            marathon.streams.lock().unwrap().push(sender);
            marathon.tell("event_stream_attached");
            let pieces = futures_util::stream::poll_fn(move |context| {
                receiver
                    .poll_recv(context)
                    .map(|text| text.map(|text| Ok::<_, std::io::Error>(Bytes::from(text))))
            });
            Body::from_stream(pieces).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Settings of these Marathons, without masters.
fn settings(marathons: &[&StandIn]) -> (settings::Marathon, settings::Source) {
    let urls = marathons.iter().map(|m| format!("http://{}", m.own).parse().unwrap()).collect();
    let marathon = settings::Marathon { urls, interval: Span::seconds(600), ..settings::Marathon::default() };
    (marathon, settings::Source { masters: Vec::new(), ..settings::Source::default() })
}

fn asking(marathons: &[&StandIn]) -> MarathonSource {
    let (marathon, source) = settings(marathons);
    MarathonSource::new(&marathon, &source, Earlier::default()).unwrap()
}

async fn view(marathon: &mut MarathonSource) -> MarathonView {
    match marathon.next().await.unwrap() {
        Fetched::New(view) => view,
        Fetched::Unchanged => panic!("unchanged"),
    }
}

#[tokio::test]
async fn alone_it_finds_the_addresses_of_agents() {
    let leader = StandIn::leading().await;
    let mut marathon = asking(&[&leader]);
    let view = view(&mut marathon).await;
    assert!(view.snapshot.agents.get("S").unwrap().address.unwrap().is_loopback());
    assert!(view.verdicts["web.instance-1._app.1"]);
    assert!(matches!(marathon.next().await, Ok(Fetched::Unchanged)));
    assert_eq!(marathon.origin(), format!("http://{}", leader.own));
}

#[tokio::test]
async fn a_leader_without_results_changes_no_verdict() {
    let leader = StandIn::leading().await;
    let mut marathon = asking(&[&leader]);
    view(&mut marathon).await;
    let known = leader.apps.lock().unwrap().clone();
    *leader.apps.lock().unwrap() = known.replace(r#"{"alive":true}"#, "null");
    assert!(matches!(marathon.next().await, Ok(Fetched::Unchanged)));
    *leader.apps.lock().unwrap() = r#"{"apps":[]}"#.to_owned();
    assert!(view(&mut marathon).await.verdicts["web.instance-1._app.1"]);
    *leader.apps.lock().unwrap() = known;
    leader.set_alive(false);
    assert!(!view(&mut marathon).await.verdicts["web.instance-1._app.1"]);
}

#[tokio::test]
async fn a_follower_will_do_and_its_leader_tells_events() {
    let leader = StandIn::leading().await;
    let follower = StandIn::following(&leader).await;
    let (settings, mut source) = settings(&[&follower]);
    // Its own port is not that of the follower, unlike on real nodes.
    source.redirects = crate::source::testing::redirects(&[format!("http://{}", leader.own)]);
    let mut marathon = MarathonSource::new(&settings, &source, Earlier::default()).unwrap();
    view(&mut marathon).await;
    let wait = Duration::from_secs(10);
    // The first one is that events can be had at all.
    tokio::time::timeout(wait, marathon.wake()).await.unwrap();
    leader.set_alive(false);
    leader.tell("instance_health_changed_event");
    tokio::time::timeout(wait, marathon.wake()).await.unwrap();
    assert!(!view(&mut marathon).await.verdicts["web.instance-1._app.1"]);
    assert!(leader.asked.lock().unwrap().iter().all(|asked| asked.starts_with("/v2/events")));
}

#[tokio::test]
async fn who_knows_no_leader_is_passed_over_and_named() {
    let (undecided, leader) = (StandIn::undecided().await, StandIn::leading().await);
    assert!(asking(&[&undecided, &leader]).next().await.is_ok());
    let error = asking(&[&undecided]).next().await.unwrap_err().to_string();
    assert!(error.contains("502") && error.contains(&undecided.own.to_string()), "{error}");
}

#[tokio::test]
async fn credentials_of_its_own_are_sent() {
    let leader = StandIn::leading().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "user:secret").unwrap();
    let (mut marathon, source) = settings(&[&leader]);
    marathon.basic = Some(crate::source::http::secret::SecretRef::File(path));
    view(&mut MarathonSource::new(&marathon, &source, Earlier::default()).unwrap()).await;
    let asked = leader.asked.lock().unwrap();
    assert!(asked.iter().all(|asked| asked.ends_with(" Basic dXNlcjpzZWNyZXQ=")), "{asked:?}");
}

#[tokio::test]
async fn a_restart_without_results_and_resolver_goes_on_with_what_was_known() {
    let leader = StandIn::leading().await;
    let mut marathon = asking(&[&leader]);
    let before = view(&mut marathon).await;
    let text = serde_json::to_string(&*marathon.memory().unwrap()).unwrap();
    let known = leader.apps.lock().unwrap().clone();
    // The name is one that no resolver knows by now.
    let (found, lost) = (before.snapshot.agents.get("S").unwrap().hostname.as_str(), "agent.invalid");
    let memory: MarathonMemory = serde_json::from_str(&text.replace(found, lost)).unwrap();
    let earlier = Earlier { memory: Some(memory), tasks: before.snapshot.tasks.keys().cloned().collect() };
    *leader.apps.lock().unwrap() = known.replace(r#"{"alive":true}"#, "null").replace(found, lost);
    let (settings, source) = settings(&[&leader]);
    let mut restarted = MarathonSource::new(&settings, &source, earlier).unwrap();
    let after = view(&mut restarted).await;
    assert!(after.verdicts["web.instance-1._app.1"]);
    assert_eq!(
        after.snapshot.agents.get("S").unwrap().address,
        before.snapshot.agents.get("S").unwrap().address
    );
    assert_eq!(after.snapshot.tasks.values().next().unwrap().healthy, Some(true));
}

#[tokio::test]
async fn a_task_that_an_event_calls_killed_has_ended_when_it_is_not_listed() {
    let leader = StandIn::leading().await;
    let mut marathon = asking(&[&leader]);
    view(&mut marathon).await;
    let wait = Duration::from_secs(10);
    tokio::time::timeout(wait, marathon.wake()).await.unwrap();
    let update =
        r#"{"eventType":"status_update_event","taskId":"web.instance-1._app.1","taskStatus":"TASK_KILLED"}"#;
    leader.streams.lock().unwrap().retain(|stream| {
        stream.send(format!("event: status_update_event\r\ndata: {update}\r\n\r\n")).is_ok()
    });
    tokio::time::timeout(wait, marathon.wake()).await.unwrap();
    // It should have one instance, and has none: its counts do not tell.
    let mut apps: serde_json::Value = serde_json::from_str(&leader.apps.lock().unwrap()).unwrap();
    apps["apps"][0]["instances"] = 1.into();
    apps["apps"][0]["tasks"] = serde_json::json!([]);
    *leader.apps.lock().unwrap() = apps.to_string();
    let ended: Vec<String> =
        view(&mut marathon).await.snapshot.ended.iter().map(|key| key.task.to_string()).collect();
    assert_eq!(ended, ["web.instance-1._app.1"]);
}
