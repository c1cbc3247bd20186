//! HTTP: on a Unix socket for the commands of this program, which ask by [`client`], and on a TCP port for programs
//! that watch the node.
//!
//! What belongs here: the listeners, their routes, and who gets an answer ([`guard`]). What a status says is decided
//! in [`crate::status`], what metrics say in [`crate::exporter`].

pub mod client;
mod compression;
pub mod events;
pub mod guard;
pub mod names;
mod page;
mod port;
pub mod reload;
mod server;
pub mod settings;
pub mod top;
mod vips;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use futures_util::stream;
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::dns::zones::catalog::Catalog;
use crate::events::{EventKind, Happening, Recorder};
use crate::exporter::Exporter;
use crate::metrics::Format;
use crate::reconcile::{PassRequest, Question};
use crate::sampler::Sampler;
use crate::source::feed::AcceptLoss;
use crate::status::document::{Document, Rest, VipFilter};
use crate::status::{HttpState, Status};

pub use port::Port;
pub use reload::ReloadRequest;

/// Longest wait for a pass that was asked for, and for each piece of a status.
const PATIENCE: Duration = Duration::from_secs(3);

/// Clients that wait for events at a time. The rest of the connections stays free for questions.
const MAX_FOLLOWERS: usize = 16;

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
    /// Receives whether the port is listened on.
    http: watch::Sender<HttpState>,
}

/// Ways to the other parts of the daemon.
#[derive(Clone)]
pub struct Interfaces {
    pub requests: mpsc::Sender<PassRequest>,
    pub questions: mpsc::Sender<Question>,
    pub losses: mpsc::Sender<AcceptLoss>,
    pub reloads: mpsc::Sender<ReloadRequest>,
    pub statuses: watch::Receiver<Arc<Status>>,
    pub events: Recorder,
    pub exporter: Exporter,
    pub sampler: Sampler,
    /// Names that DNS serves.
    pub catalogs: watch::Receiver<Arc<Catalog>>,
}

/// Everything that answers are made from.
#[derive(Clone)]
struct Access {
    parts: Interfaces,
    /// Places for clients that wait for events.
    followers: Arc<Semaphore>,
    /// Places for clients that follow events as a stream.
    streams: Arc<Semaphore>,
    /// Places for listings of names, each of which takes a thread.
    listings: Arc<Semaphore>,
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
        Ok(Self { listener, path: path.to_owned(), http: watch::Sender::default() })
    }

    /// Returns the state of the port.
    pub fn http(&self) -> watch::Receiver<HttpState> {
        self.http.subscribe()
    }

    /// Answers until `shutdown`, then removes the socket. On `port`, if there is one, metrics are served as well.
    pub async fn serve(self, parts: Interfaces, port: Option<Port>, shutdown: CancellationToken) {
        let followers = Arc::new(Semaphore::new(MAX_FOLLOWERS));
        let streams = Arc::new(Semaphore::new(events::MOST_STREAMS));
        let listings = Arc::new(Semaphore::new(names::MOST_LISTINGS));
        let access = Access { parts, followers, listings, streams, shutdown: shutdown.clone() };
        // What only reads is the same for all listeners; what changes something is on the socket alone.
        let reading = Router::new()
            .route("/metrics", get(metrics))
            .route("/api/status", get(page::status))
            .route("/api/vips", get(vips::rows))
            .route("/api/vip/{name}", get(vips::detail))
            .route("/api/events", get(events::on_port))
            .route("/v1/vips", get(vips::plain))
            .route("/v1/records", get(names::records))
            .route("/v1/enumerate", get(names::enumerate))
            .route("/v1/hosts/{name}", get(names::hosts))
            .route("/v1/services/{name}", get(names::services))
            .route("/v1/version", get(names::version))
            .with_state(access.clone())
            .layer(middleware::from_fn(compression::compress));
        let own = Router::new()
            .route("/status", get(status))
            .route("/vip", get(events::story))
            .route(top::PATH, get(top::top))
            .route("/events", get(events::events))
            .route("/names", get(names::names))
            .route("/accept-loss", post(accept_loss))
            .route("/reload", post(reload::reload))
            .with_state(access)
            .merge(reading.clone());
        let on_port = async {
            match port {
                // The page asks for a token itself, and tells nothing of the node.
                Some(port) => port::run(port, (page::open(), reading), self.http, shutdown.clone()).await,
                None => shutdown.cancelled().await,
            }
        };
        tokio::join!(server::serve(&self.listener, own, shutdown.clone()), on_port);
        // The next start would replace it as well.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Writes metrics, in the form that the client prefers.
async fn metrics(State(access): State<Access>, headers: HeaderMap) -> Response {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_open = accepts.into_iter().any(|accepts| accepts.contains("application/openmetrics-text"));
    let format = if is_open { Format::OpenMetrics } else { Format::Prometheus };
    match access.parts.exporter.scrape(format).await {
        Ok(text) => ([(header::CONTENT_TYPE, format.media_type())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(State(access): State<Access>, uri: Uri) -> Response {
    let StatusQuery { wanted, compares } = match StatusQuery::by(uri.query().unwrap_or_default()) {
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
    if access.parts.losses.send(AcceptLoss { done }).await.is_ok() {
        // Without an answer the daemon is about to end; its last status has to do.
        let _ = tokio::time::timeout(PATIENCE, accepted).await;
        let text = "an operator gave up what was held (accept-loss)";
        access.parts.events.note(vec![Happening::new(EventKind::LossAccepted, text)]);
    }
    access.compare().await;
    access.document(VipFilter::default()).await
}

/// Wishes in the query of a request for the status.
#[derive(Debug, Default, PartialEq, Eq)]
struct StatusQuery {
    /// VIPs to be listed.
    wanted: VipFilter,
    /// Set if the kernel is to be compared with what it should hold first.
    compares: bool,
}

impl StatusQuery {
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
            if self.parts.requests.send(PassRequest { done }).await.is_ok() {
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
        let last = self.parts.statuses.borrow().clone();
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
            self.parts.questions.send(question(answer)).await.ok()?;
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
