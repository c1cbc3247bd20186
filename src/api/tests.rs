//! The socket with clients that are slow, idle, or many.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;

struct Served {
    directory: tempfile::TempDir,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
    requests: mpsc::Receiver<StatusRequest>,
    _others: (watch::Sender<Arc<Status>>, mpsc::Receiver<AcceptLoss>),
}

impl Served {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let api = Api::bind(&directory.path().join("socket")).await.unwrap();
        let (request_sender, requests) = mpsc::channel(1);
        let (losses, loss_receiver) = mpsc::channel(1);
        let (statuses, status_receiver) = watch::channel(Arc::default());
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(api.serve(request_sender, losses, status_receiver, shutdown.clone()));
        Self { directory, shutdown, served, requests, _others: (statuses, loss_receiver) }
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
    // The answer comes without a pass, because nothing answers the request.
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
    let _unanswered = served.requests.recv().await.unwrap();
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
        while let Some(request) = served.requests.recv().await {
            let _ = request.answer.send(Arc::new(Status { version: "fresh".into(), ..Status::default() }));
        }
    });
    for client in &mut clients {
        let text = rest(client).await;
        assert!(text.contains(r#""version":"fresh""#), "{text}");
    }
    answering.abort();
}
