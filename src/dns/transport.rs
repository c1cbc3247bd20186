//! The two receive loops: UDP datagrams and TCP connections (RFC 7766).
//!
//! They move octets between a socket and [`respond`], and bound what a client may cost: memory
//! per message, time per exchange, connections per listener. They never end by themselves;
//! whoever spawned them drops them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::catalog::Catalog;
use super::message::{Outcome, Transport, respond};

/// Octets of the largest query read. Queries have tens of octets; longer ones are cut off on UDP
/// and end the connection on TCP.
const MAX_QUERY: usize = 4096;

/// Connections served at once per listener; more wait in the listen queue of the kernel.
pub(super) const MAX_CONNECTIONS: usize = 256;

/// A connection is closed when the next query, or the room for its answer, takes longer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed receive or accept, so that a lasting error (no file descriptors left)
/// does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Answers datagrams for ever.
pub(super) async fn serve_udp(socket: UdpSocket, catalogs: watch::Receiver<Arc<Catalog>>) {
    let mut buffer = vec![0; MAX_QUERY];
    let mut reply = Vec::with_capacity(MAX_QUERY);
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                warn!(%error, "dns receive failed");
                sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let catalog = catalogs.borrow().clone();
        let query = buffer.get(..length).unwrap_or_default();
        if respond(&catalog, query, Transport::Udp, &mut reply) == Outcome::Ignored {
            debug!(%peer, length, "dns datagram ignored");
            continue;
        }
        if let Err(error) = socket.send_to(&reply, peer).await {
            debug!(%peer, %error, "dns reply not sent");
        }
    }
}

/// Accepts and serves connections for ever; dropping it closes them.
pub(super) async fn serve_tcp(listener: TcpListener, catalogs: watch::Receiver<Arc<Catalog>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    let catalogs = catalogs.clone();
                    connections.spawn(async move {
                        if let Err(error) = serve_connection(stream, catalogs).await {
                            debug!(%peer, %error, "dns connection ended");
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "dns accept failed");
                    sleep(ERROR_PAUSE).await;
                }
            },
        }
    }
}

async fn serve_connection(mut stream: TcpStream, catalogs: watch::Receiver<Arc<Catalog>>) -> io::Result<()> {
    let mut reply = Vec::new();
    loop {
        let query = timeout(IDLE_TIMEOUT, read_message(&mut stream)).await??;
        let catalog = catalogs.borrow().clone();
        if respond(&catalog, &query, Transport::Tcp, &mut reply) == Outcome::Ignored {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a query"));
        }
        timeout(IDLE_TIMEOUT, write_message(&mut stream, &reply)).await??;
    }
}

/// Reads one message with its 16-bit length prefix (RFC 1035 section 4.2.2).
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_QUERY {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "query too long"));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}
