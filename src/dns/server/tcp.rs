//! TCP connections (RFC 7766): accepting them, and the queries on each.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::dns::forward::Client;

use super::connections::{Activity, Connections, Owner};
use super::{Action, Catalog, ClientFilter, ERROR_PAUSE, MAX_QUERY, Responder, Transport};

/// Connections served at once per listener; for another one, one of those makes room.
pub const MAX_CONNECTIONS: usize = 1024;

/// Longest wait for the next query, or for room to send its answer; the connection is closed after it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts and serves connections, at most `limit` at once; dropping it closes them. Returns when the socket
/// takes no connection any more, with the reason.
pub async fn serve(
    listener: TcpListener,
    responder: Responder,
    mut clients: ClientFilter,
    limit: usize,
) -> io::Error {
    let mut tasks = JoinSet::new();
    let connections = Arc::new(Mutex::new(Connections::new(limit)));
    if let Ok(address) = listener.local_addr() {
        responder.usage.add(format!("tcp connections to {address}"), &connections);
    }
    let table = || connections.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        tokio::select! {
            // Those that were closed to make room are not in the table any more.
            Some(ended) = tasks.join_next() => {
                if let Ok(id) = ended {
                    table().remove(id);
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((_, peer)) if !clients.allows(peer.ip()) => {
                    responder.ignore(peer);
                }
                Ok((stream, peer)) => {
                    let owner = Owner { client: Client::from(peer.ip()), is_node: clients.is_node(peer.ip()) };
                    if !table().make_room(owner) {
                        debug!(%peer, limit, "dns connection closed, all places are taken");
                        continue;
                    }
                    let (id, activity) = table().announce();
                    let (responder, activity_of_task) = (responder.clone(), Arc::clone(&activity));
                    let task = tasks.spawn(async move {
                        if let Err(error) = serve_connection(stream, peer, &responder, &activity_of_task).await {
                            debug!(%peer, %error, "dns connection closed");
                        }
                        id
                    });
                    table().add(id, owner, activity, task);
                }
                // The kernel has closed it, as for `ss --kill`; only a new socket listens again.
                Err(error) if is_closed(&error) => return error,
                Err(error) => {
                    warn!(%error, "cannot accept a dns connection, trying again; queries over udp are not affected");
                    sleep(ERROR_PAUSE).await;
                }
            },
        }
    }
}

/// True for errors of a socket that does not listen, which no later call mends.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP))
}

/// Answers the queries of a connection one after another, until the client closes it.
async fn serve_connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    responder: &Responder,
    activity: &Activity,
) -> io::Result<()> {
    let mut reply = Vec::new();
    loop {
        // A client that sends half a query would hold one of few connections for ever.
        let query = timeout(IDLE_TIMEOUT, read_message(&mut stream)).await??;
        activity.busy();
        // Taken for each query, so that the newest catalog answers on a connection that stays open.
        let catalog = responder.catalogs.borrow().clone();
        match responder.act(&catalog, &query, Transport::Tcp, &mut reply) {
            // Nothing after it can be trusted to start where it should.
            Action::Drop => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a dns query")),
            Action::Send => {}
            Action::Forward => reply = forward(responder, &catalog, &query, peer.ip()).await?,
        }
        timeout(IDLE_TIMEOUT, write_message(&mut stream, &reply)).await??;
        activity.idle();
    }
}

/// The answer of an upstream.
async fn forward(
    responder: &Responder,
    catalog: &Arc<Catalog>,
    query: &[u8],
    peer: IpAddr,
) -> io::Result<Vec<u8>> {
    let (send, answer) = oneshot::channel();
    let forwarder = responder.rules.borrow().forwarder.clone();
    if let Some(forwarder) = forwarder {
        forwarder.spawn(query, (peer, Transport::Tcp), catalog, async move |reply: Vec<u8>| {
            // The client may have gone meanwhile.
            let _ = send.send(reply);
        });
    }
    answer.await.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a query that cannot be forwarded"))
}

/// Reads one message with its 16-bit length prefix (RFC 1035 section 4.2.2).
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_QUERY {
        let error = format!("a query of {length} octets, more than {MAX_QUERY}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    // Length and message go out in one write (RFC 7766 section 8): some clients expect them together.
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}
