//! The status interface: HTTP on a Unix socket, for the commands of this program, which ask by [`client`].
//!
//! What belongs here: the socket, its routes, and their client. What a status says is decided in
//! [`crate::status`].

pub mod client;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::reconcile::StatusRequest;
use crate::source::feed::AcceptLoss;
use crate::status::Status;

/// Longest wait for a pass that was asked for; then the last status has to do.
const PATIENCE: Duration = Duration::from_secs(3);

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

/// Shared state of the handlers.
#[derive(Clone)]
struct Access {
    requests: mpsc::Sender<StatusRequest>,
    losses: mpsc::Sender<AcceptLoss>,
    statuses: watch::Receiver<Arc<Status>>,
}

impl Api {
    /// Binds the socket; replaces one that an ended daemon left behind.
    pub async fn bind(path: &Path) -> Result<Self, Error> {
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(Error::InUse { path: path.to_owned() });
        }
        let listener = listen(path).map_err(|error| Error::Listen { path: path.to_owned(), error })?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until `shutdown`, then removes the socket.
    pub async fn serve(
        self,
        requests: mpsc::Sender<StatusRequest>,
        losses: mpsc::Sender<AcceptLoss>,
        statuses: watch::Receiver<Arc<Status>>,
        shutdown: CancellationToken,
    ) {
        let router = Router::new()
            .route("/status", get(status))
            .route("/accept-loss", post(accept_loss))
            .with_state(Access { requests, losses, statuses });
        let served =
            axum::serve(self.listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the status interface ended, and the daemon with it");
        }
        // The next start would replace it as well.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn status(State(access): State<Access>) -> Json<Status> {
    Json(access.up_to_date().await)
}

/// Gives up what is being held back, and tells how things are then.
async fn accept_loss(State(access): State<Access>) -> Json<Status> {
    let (done, accepted) = oneshot::channel();
    if access.losses.send(AcceptLoss { done }).await.is_ok() {
        // Without an answer the daemon is about to end; its last status has to do.
        let _ = tokio::time::timeout(PATIENCE, accepted).await;
    }
    Json(access.up_to_date().await)
}

impl Access {
    /// A status that is up to date, or the last one when that takes too long.
    async fn up_to_date(&self) -> Status {
        let (answer, fresh) = oneshot::channel();
        let asked = self.requests.try_send(StatusRequest { answer }).is_ok();
        if asked && let Ok(Ok(status)) = tokio::time::timeout(PATIENCE, fresh).await {
            return Arc::unwrap_or_clone(status);
        }
        let last = self.statuses.borrow().clone();
        Arc::unwrap_or_clone(last)
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}
