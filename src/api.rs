//! The status interface: HTTP on a Unix socket, for the commands of this program, which ask by [`client`].
//!
//! What belongs here: the socket, its routes, and their client. What a status says is decided in
//! [`crate::status`].

pub mod client;
pub mod events;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::events::{EventKind, Happening, Recorder};
use crate::reconcile::{PassRequest, Question};
use crate::source::feed::AcceptLoss;
use crate::status::Status;
use crate::status::document::{Document, Rest, VipFilter};

/// Longest wait for a pass that was asked for, and for each piece of a status.
const PATIENCE: Duration = Duration::from_secs(3);

/// Longest time in which a request has to arrive, counted from the connection or the last answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest life of a connection, after which it ends with the answer that is under way.
const LIFETIME: Duration = Duration::from_secs(60);

/// Longest wait for clients after the end of a connection's life, and at shutdown.
const GRACE: Duration = Duration::from_millis(900);

/// Connections that are served at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// Clients that wait for events at a time. The rest of the connections stays free for questions.
const MAX_FOLLOWERS: usize = 16;

/// Pause after a connection could not be accepted, for example because no descriptor is free.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Mode of the socket: read and write for its owner and group, because a status tells what runs here.
const MODE: u32 = 0o660;

/// Failure to make the socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen for l4lbd status on {path}: {error}; daemon.socket sets the path")]
    Listen { path: PathBuf, error: io::Error },
    #[error("another daemon answers on {path}; stop it first, or set daemon.socket")]
    InUse { path: PathBuf },
}

/// A bound socket that is not served yet.
#[derive(Debug)]
pub struct Api {
    listener: UnixListener,
    path: PathBuf,
}

/// Ways to the other parts of the daemon.
pub struct Interfaces {
    pub requests: mpsc::Sender<PassRequest>,
    pub questions: mpsc::Sender<Question>,
    pub losses: mpsc::Sender<AcceptLoss>,
    pub statuses: watch::Receiver<Arc<Status>>,
    pub events: Recorder,
}

/// Shared state of the handlers.
#[derive(Clone)]
struct Access {
    requests: mpsc::Sender<PassRequest>,
    questions: mpsc::Sender<Question>,
    losses: mpsc::Sender<AcceptLoss>,
    statuses: watch::Receiver<Arc<Status>>,
    events: Recorder,
    /// Places for clients that wait for events.
    followers: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Api {
    /// Binds the socket; replaces one that an ended daemon left behind.
    pub async fn bind(path: &Path) -> Result<Self, Error> {
        // The file alone says nothing: a daemon that was killed leaves it behind.
        if UnixStream::connect(path).await.is_ok() {
            return Err(Error::InUse { path: path.to_owned() });
        }
        let listener = listen(path).map_err(|error| Error::Listen { path: path.to_owned(), error })?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until `shutdown`, then removes the socket.
    pub async fn serve(self, interfaces: Interfaces, shutdown: CancellationToken) {
        let Interfaces { requests, questions, losses, statuses, events } = interfaces;
        let followers = Arc::new(Semaphore::new(MAX_FOLLOWERS));
        let shutdown_of_waits = shutdown.clone();
        let access =
            Access { requests, questions, losses, statuses, events, followers, shutdown: shutdown_of_waits };
        let router = Router::new()
            .route("/status", get(status))
            .route("/vip", get(events::story))
            .route("/events", get(events::events))
            .route("/accept-loss", post(accept_loss))
            .with_state(access);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                // Ended connections count until they are taken out, and would use up the limit.
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve_connection(stream, router.clone(), shutdown.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection to the status socket");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
            }
        }
        // Answers that are under way still go out. A client that takes its time does not hold up the end.
        let finished = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, finished).await;
        // The next start would replace it as well.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Answers the requests of one connection until the client closes it, is too slow, or `shutdown`.
async fn serve_connection(stream: UnixStream, router: Router, shutdown: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        // An error is the client's: it sent no HTTP, or went away.
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(LIFETIME) => {}
    }
    // An answer that is under way goes on, and a connection that waits for a request ends at once.
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(GRACE, connection).await;
}

async fn status(State(access): State<Access>, uri: Uri) -> Response {
    let Asked { wanted, compares } = match Asked::by(uri.query().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(error) => return (StatusCode::BAD_REQUEST, error).into_response(),
    };
    if compares {
        access.compare().await;
    }
    access.document(wanted).await
}

/// Gives up what is being held back, and tells how things are then.
async fn accept_loss(State(access): State<Access>) -> Response {
    let (done, accepted) = oneshot::channel();
    if access.losses.send(AcceptLoss { done }).await.is_ok() {
        // Without an answer the daemon is about to end; its last status has to do.
        let _ = tokio::time::timeout(PATIENCE, accepted).await;
        let text = "an operator gave up what was held (accept-loss)";
        access.events.note(vec![Happening::new(EventKind::LossAccepted, text)]);
    }
    access.compare().await;
    access.document(VipFilter::default()).await
}

/// Wishes in the query of a request for the status.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    /// VIPs to be listed.
    wanted: VipFilter,
    /// Set if the kernel is to be compared with what it should hold first.
    compares: bool,
}

impl Asked {
    fn by(query: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                client::VIP => asked.wanted.vip = Some(value.into_owned()),
                client::UNHEALTHY => asked.wanted.unhealthy = true,
                client::AGENT => asked.wanted.agent = Some(value.into_owned()),
                client::FRAMEWORK => asked.wanted.framework = Some(value.into_owned()),
                client::COMPARE => asked.compares = true,
                _ => {
                    return Err(format!(
                        "unknown parameter {key:?}: there are {}",
                        [client::VIP, client::UNHEALTHY, client::AGENT, client::FRAMEWORK, client::COMPARE]
                            .join(", ")
                    ));
                }
            }
        }
        Ok(asked)
    }
}

impl Access {
    /// Waits until the kernel has been compared with what it should hold, unless that takes too long.
    async fn compare(&self) {
        let (done, passed) = oneshot::channel();
        let asked = async {
            if self.requests.send(PassRequest { done }).await.is_ok() {
                let _ = passed.await;
            }
        };
        // No error: the status that follows tells when the kernel was compared last.
        let _ = tokio::time::timeout(PATIENCE, asked).await;
    }

    /// Returns the status; the last one when the daemon is busy and that says all of it.
    async fn document(self, wanted: VipFilter) -> Response {
        let json = [(header::CONTENT_TYPE, "application/json")];
        if let Some(Document { text, rest }) = self.ask(|answer| Question::Status { wanted, answer }).await {
            // One that is known as a whole has its length in the answer.
            return match rest {
                None => (json, text).into_response(),
                Some(rest) => (json, self.pieces(text, rest)).into_response(),
            };
        }
        let last = self.statuses.borrow().clone();
        if last.numbers().vips == 0
            && let Ok(text) = serde_json::to_vec(&*last)
        {
            return (json, text).into_response();
        }
        busy()
    }

    /// Returns a body that begins with `text`, and of which a piece is made when the one before has been sent.
    fn pieces(self, text: Vec<u8>, rest: Rest) -> Body {
        Body::from_stream(stream::try_unfold((self, Some(text), Some(rest)), async |(access, text, rest)| {
            if let Some(text) = text {
                return Ok(Some((text, (access, None, rest))));
            }
            let Some(rest) = rest else { return Ok(None) };
            match access.ask(|answer| Question::More { rest, answer }).await {
                Some(Document { text, rest }) => Ok(Some((text, (access, None, rest)))),
                // The client sees an answer that is cut off, and no whole document.
                None => Err(io::Error::from(io::ErrorKind::TimedOut)),
            }
        }))
    }

    /// Returns the answer to a question; `None` if it takes too long.
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.questions.send(question(answer)).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
    }
}

/// Returns an answer in JSON.
fn json(answer: &impl Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot write an answer as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Returns the answer of a daemon that has no time.
fn busy() -> Response {
    let busy = "the daemon is busy with a long change of the kernel; ask again";
    (StatusCode::SERVICE_UNAVAILABLE, busy).into_response()
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    // A socket cannot be bound to a path that exists, even if nothing listens there.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // After the bind, whose mode depends on the umask.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
