//! The socket with clients that are slow, idle, or many.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::guard::Guard;
use super::server::{MAX_CONNECTIONS, REQUEST_TIMEOUT};
use super::*;
use crate::dns::settings::DnsSettings;
use crate::dns::testing::catalog;
use crate::dns::usage::UsageRegistry;
use crate::exporter::{self, ExporterSettings};
use crate::reconcile::figures::FigurePage;
use crate::source::http::secret::SecretRef;
use crate::status::document::tests::{Planned, names};

mod web;

struct Served {
    directory: tempfile::TempDir,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
    http: watch::Receiver<HttpState>,
    requests: mpsc::Receiver<PassRequest>,
    questions: mpsc::Receiver<Question>,
    statuses: watch::Sender<Arc<Status>>,
    events: Recorder,
    catalogs: watch::Sender<Arc<Catalog>>,
    _losses: mpsc::Receiver<AcceptLoss>,
}

impl Served {
    async fn new() -> Self {
        Self::with(None).await
    }

    /// Serves with a token for the port.
    async fn with(token: Option<SecretRef>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let api = Api::bind(&directory.path().join("socket")).await.unwrap();
        let (request_sender, requests) = mpsc::channel(1);
        let (question_sender, questions) = mpsc::channel(1);
        let (losses, loss_receiver) = mpsc::channel(1);
        let (reloads, _) = mpsc::channel(1);
        let (statuses, status_receiver) = watch::channel(Arc::default());
        let shutdown = CancellationToken::new();
        let inputs = exporter::Inputs {
            parts: Vec::new(),
            questions: question_sender.clone(),
            statuses: status_receiver.clone(),
            dns_usage: UsageRegistry::default(),
            traffic: None,
        };
        let events = Recorder::in_memory("l4lb");
        let sampler = Sampler::new(question_sender.clone(), status_receiver.clone(), None);
        let (catalogs, catalog_receiver) = watch::channel(Arc::new(catalog(&DnsSettings::default())));
        let interfaces = Interfaces {
            requests: request_sender,
            questions: question_sender,
            losses,
            reloads,
            statuses: status_receiver,
            events: events.clone(),
            exporter: Exporter::new(ExporterSettings { detailed: 10 }, inputs),
            sampler,
            catalogs: catalog_receiver,
        };
        let guard = Guard { hosts: vec!["node7.example".to_owned()], token };
        let address = "127.0.0.1:0".parse().unwrap();
        let http = api.http();
        let served = tokio::spawn(api.serve(interfaces, Some(Port { address, guard }), shutdown.clone()));
        Self {
            directory,
            shutdown,
            served,
            http,
            requests,
            questions,
            statuses,
            events,
            catalogs,
            _losses: loss_receiver,
        }
    }

    /// Connects and sends this.
    async fn client(&self, text: &str) -> UnixStream {
        let mut client = UnixStream::connect(self.directory.path().join("socket")).await.unwrap();
        client.write_all(text.as_bytes()).await.unwrap();
        client
    }
}

/// Returns the text up to the end of the connection.
async fn rest(client: &mut UnixStream) -> String {
    let mut text = String::new();
    // A server that closes before it has read everything resets the connection.
    let _ = client.read_to_string(&mut text).await;
    text
}

const HALF: &str = "GET /status HTTP/1.1\r\nHost";
const WHOLE: &str = "GET /status HTTP/1.1\r\nHost: l4lbd\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_closed() {
    let served = Served::new().await;
    for sent in ["", HALF] {
        let mut client = served.client(sent).await;
        let started = Instant::now();
        rest(&mut client).await;
        assert!(started.elapsed() < REQUEST_TIMEOUT * 2, "{sent:?} {:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_idle_after_an_answer_is_closed() {
    let served = Served::new().await;
    let mut client = served.client(WHOLE).await;
    // The answer is the last status, because nothing answers the question.
    let text = rest(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn no_client_holds_up_the_end() {
    let mut served = Served::new().await;
    let _idle = served.client("").await;
    let _half = served.client(HALF).await;
    let _waiting = served.client(WHOLE).await;
    // Of the whole request the server has read everything by now.
    let _unanswered = served.questions.recv().await.unwrap();
    let started = Instant::now();
    served.shutdown.cancel();
    served.served.await.unwrap();
    assert!(started.elapsed() <= Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(!served.directory.path().join("socket").exists());
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_the_requested_status_however_many_ask() {
    let mut served = Served::new().await;
    let mut clients = Vec::new();
    for _ in 0..MAX_CONNECTIONS + 5 {
        clients.push(served.client(&WHOLE.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await);
    }
    let answering = tokio::spawn(async move {
        while let Some(question) = served.questions.recv().await {
            let Question::Status { wanted: VipFilter { vip: None, .. }, answer } = question else {
                panic!("{question:?}")
            };
            let _ = answer.send(Document { text: br#"{"version":"fresh"}"#.to_vec(), rest: None });
        }
        drop(served.requests);
    });
    for client in &mut clients {
        let text = rest(client).await;
        assert!(text.contains(r#""version":"fresh""#), "{text}");
    }
    answering.abort();
}

/// Returns the question that is asked next, however it is asked.
async fn asked(served: &mut Served, query: &str) -> (UnixStream, Question) {
    let client = served.client(&format!("GET /status{query} HTTP/1.1\r\nHost: l4lbd\r\n\r\n")).await;
    (client, served.questions.recv().await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn only_who_asks_for_it_has_the_kernel_compared() {
    let mut served = Served::new().await;
    let (_client, question) = asked(&mut served, "?vip=web.marathon%3A80").await;
    assert!(
        matches!(&question, Question::Status { wanted, .. } if wanted.vip.as_deref() == Some("web.marathon:80")),
        "{question:?}"
    );
    assert!(served.requests.try_recv().is_err());
    let _client = served.client(&WHOLE.replace("/status", "/status?compare")).await;
    let PassRequest { done } = served.requests.recv().await.unwrap();
    assert!(served.questions.try_recv().is_err(), "the answer is of the time after the pass");
    done.send(jiff::Timestamp::now()).unwrap();
    assert!(matches!(
        served.questions.recv().await.unwrap(),
        Question::Status { wanted: VipFilter { vip: None, .. }, .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_wish_is_refused() {
    let served = Served::new().await;
    let mut client = served.client(&WHOLE.replace("/status", "/status?vips=web")).await;
    let text = rest(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("vips"), "{text}");
}

/// An empty list would be taken for the loss of all VIPs.
#[tokio::test(start_paused = true)]
async fn a_busy_daemon_says_so_rather_than_listing_no_vips() {
    let served = Served::new().await;
    let counted = Some(crate::status::Counts { vips: 3, dead: 0 });
    served.statuses.send_replace(Arc::new(Status { counted, ..Status::default() }));
    let mut client = served.client(WHOLE).await;
    let text = rest(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("ask again"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_long_status_arrives_in_pieces_and_whole_or_not_at_all() {
    let planned = Planned::new(&names(6_000));
    let whole = Status { vips: planned.view().vips(), ..Status::default() };
    for is_cut in [false, true] {
        let mut served = Served::new().await;
        let request = WHOLE.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").replace("1.1", "1.0");
        let mut client = served.client(&request).await;
        let reading = tokio::spawn(async move { rest(&mut client).await });
        let Some(Question::Status { mut answer, .. }) = served.questions.recv().await else {
            panic!("no question")
        };
        let selection = planned.view().select(&VipFilter::default());
        let mut document = Document::begin(&Status::default(), selection, planned.view()).unwrap();
        loop {
            let is_last = document.rest.is_none();
            answer.send(document).unwrap();
            if is_last {
                break;
            }
            let Some(Question::More { rest, answer: next }) = served.questions.recv().await else {
                panic!("no further question")
            };
            if is_cut {
                break;
            }
            document = rest.go_on(planned.view()).unwrap();
            answer = next;
        }
        let text = reading.await.unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let read = serde_json::from_str::<Status>(body);
        assert_eq!(read.ok(), (!is_cut).then(|| whole.clone()));
    }
}

/// Asks over TCP, with the figures of no VIP, and returns the answer.
async fn asked_on_port(served: &mut Served, request: &str) -> String {
    let address = served.http.wait_for(|http| http.address.is_some()).await.unwrap().address.unwrap();
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let answering = async {
        while let Some(Question::Figures { answer, .. }) = served.questions.recv().await {
            let _ = answer.send(FigurePage::default());
        }
    };
    tokio::select! {
        read = client.read_to_string(&mut text) => { read.unwrap(); }
        () = answering => panic!("no more questions"),
    }
    text
}

fn get_request(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn metrics_are_on_the_port_for_those_who_know_its_name() {
    let mut served = Served::new().await;
    for host in ["localhost:62080", "node7.example"] {
        let text = asked_on_port(&mut served, &get_request("/metrics", host)).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
        assert!(
            text.contains("\nl4lbd_vips 0\n") && !text.to_lowercase().contains("access-control"),
            "{text}"
        );
    }
    let text = asked_on_port(&mut served, &get_request("/metrics", "evil.example")).await;
    assert!(text.starts_with("HTTP/1.1 403 ") && !text.contains("l4lbd_vips"), "{text}");
    let open = "Host: localhost\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let request = get_request("/metrics", "x").replace("Host: x", open);
    let text = asked_on_port(&mut served, &request).await;
    assert!(text.contains("content-type: application/openmetrics-text"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn commands_are_on_the_socket_alone() {
    let mut served = Served::new().await;
    for path in ["/status", "/accept-loss"] {
        let text = asked_on_port(&mut served, &get_request(path, "localhost")).await;
        assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
        let text = asked_on_port(&mut served, &get_request(path, "localhost").replace("GET", "POST")).await;
        assert!(text.starts_with("HTTP/1.1 405 "), "{text}");
    }
}

#[tokio::test]
async fn a_long_head_is_refused() {
    let mut served = Served::new().await;
    let long = format!("localhost\r\nX-Long: {}", "x".repeat(20_000));
    let text = asked_on_port(&mut served, &get_request("/metrics", &long)).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn all_who_ask_at_once_have_one_scrape() {
    let mut served = Served::new().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(served.client(&get_request("/metrics", "l4lbd")).await);
    }
    let Some(Question::Figures { answer, .. }) = served.questions.recv().await else { panic!("no question") };
    answer.send(FigurePage::default()).unwrap();
    for client in &mut clients {
        let text = rest(client).await;
        assert!(text.contains("\nl4lbd_vips 0\n"), "{text}");
    }
    assert!(served.questions.try_recv().is_err(), "one scrape asks once");
}

#[tokio::test(start_paused = true)]
async fn metrics_of_a_busy_daemon_lack_its_vips_alone() {
    let served = Served::new().await;
    let mut client = served.client(&get_request("/metrics", "l4lbd")).await;
    let text = rest(&mut client).await;
    assert!(text.contains("\nl4lbd_degraded 0\n") && !text.contains("\nl4lbd_vips 0"), "{text}");
}

/// Returns the request for a path, after which the connection is closed.
fn get_of(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: l4lbd\r\nConnection: close\r\n\r\n")
}

#[tokio::test(start_paused = true)]
async fn a_follower_gets_an_event_when_it_comes_and_ends_with_the_daemon() {
    let mut served = Served::new().await;
    served.events.note(vec![Happening::new(EventKind::VipAdded, "old news")]);
    let mut all = served.client(&get_of("/events")).await;
    assert!(rest(&mut all).await.contains("old news"));
    let mut follower = served.client(&get_of("/events?after=1&wait")).await;
    // The answer comes with the event, and not before.
    let waits = tokio::time::timeout(Duration::from_secs(1), follower.read_u8());
    assert!(waits.await.is_err(), "answered without an event");
    served.events.note(vec![Happening::new(EventKind::VipAdded, "news")]);
    let text = rest(&mut follower).await;
    assert!(text.contains("\"text\":\"news\"") && !text.contains("old news"), "{text}");
    let mut last = served.client(&get_of("/events?after=2&wait")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    served.shutdown.cancel();
    (&mut served.served).await.unwrap();
    assert!(rest(&mut last).await.contains("\"events\":[]"));
}

#[tokio::test(start_paused = true)]
async fn followers_leave_room_for_questions() {
    let served = Served::new().await;
    let mut followers = Vec::new();
    for _ in 0..MAX_FOLLOWERS {
        followers.push(served.client(&get_of("/events?wait")).await);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut refused = served.client(&get_of("/events?wait")).await;
    let text = rest(&mut refused).await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("too many clients wait"), "{text}");
    let mut asked = served.client(&get_of("/events")).await;
    assert!(rest(&mut asked).await.starts_with("HTTP/1.1 200"));
    for (path, part) in
        [("/events?since=x", "no time"), ("/events?x=1", "unknown parameter"), ("/vip", "missing")]
    {
        let mut wrong = served.client(&get_of(path)).await;
        let text = rest(&mut wrong).await;
        assert!(text.starts_with("HTTP/1.1 400") && text.contains(part), "{path}: {text}");
    }
}

#[tokio::test]
async fn names_are_listed_as_the_client_reads_them() {
    let served = Served::new().await;
    let empty = catalog(&DnsSettings::default());
    let service = crate::dns::zones::vips::NamedService {
        name: "web.marathon".to_owned(),
        address: [11, 0, 0, 1].into(),
        port: Some((crate::cluster::Protocol::Tcp, 80).into()),
    };
    let (zone, _) = empty.vips().with_services(1, [&service]);
    served.catalogs.send_replace(Arc::new(empty.with_vips(Arc::new(zone))));
    let request = |path: &str| get_of(path).replace("1.1", "1.0");
    let listed = async |query: &str| {
        let mut client = served.client(&request(&format!("/names{query}"))).await;
        let text = rest(&mut client).await;
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<names::NamesAnswer>(body).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    let all = listed("").await;
    assert_eq!(all.ttl, 5);
    let names: Vec<&str> = all.names.iter().map(|name| &*name.name).collect();
    assert!(
        names.contains(&"web.marathon.l4lb.thisdcos.directory") && names.contains(&"1.0.0.11.in-addr.arpa"),
        "{names:?}"
    );
    assert!(all.zones.iter().any(|zone| !zone.loaded), "tasks are not known yet");
    let one = listed("?pattern=web.*").await;
    assert_eq!(one.names.len(), 1);
    assert_eq!(one.names[0].records[0].host, "11.0.0.1");
    let mut client = served.client(&request("/names?x=1")).await;
    assert!(rest(&mut client).await.starts_with("HTTP/1.0 400 "));
}
