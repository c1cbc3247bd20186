//! The HTTP server behind every listener: connections, their number, and their deadlines.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest time in which a request has to arrive, counted from the connection or the last answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest life of a connection, after which it ends with the answer that is under way.
const LIFETIME: Duration = Duration::from_secs(60);

/// Longest wait for clients after the end of a connection's life, and at shutdown.
const GRACE: Duration = Duration::from_millis(900);

/// Connections that are served at a time on one listener; more wait to be accepted.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// Octets of a request's line and headers together.
const MAX_HEAD: usize = 16 * 1024;

/// Pause after a connection could not be accepted, for example because no descriptor is free.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A listening socket.
pub(super) trait Accept {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Name in messages.
    const NAME: &str;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>>;
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    const NAME: &str = "the status socket";

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(Self::accept(self).await?.0)
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    const NAME: &str = "http.listen";

    async fn accept(&self) -> io::Result<TcpStream> {
        Ok(Self::accept(self).await?.0)
    }
}

/// Answers until `shutdown`, and ends with the answers that are under way.
pub(super) async fn serve<L: Accept>(listener: &L, router: Router, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            // Ended connections count until they are taken out, and would use up the limit.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok(stream) => {
                    connections.spawn(serve_connection(stream, router.clone(), shutdown.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, listener = L::NAME, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
    // Answers that are under way still go out. A client that takes its time does not hold up the end.
    let finished = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, finished).await;
}

/// Answers the requests of one connection until the client closes it, is too slow, or `shutdown`.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    shutdown: CancellationToken,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT).max_buf_size(MAX_HEAD);
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
