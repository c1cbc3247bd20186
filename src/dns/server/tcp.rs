//! TCP connections (RFC 7766): accepting them, and the queries on each.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::{Action, ClientFilter, ERROR_PAUSE, MAX_QUERY, Responder, Transport, ignore};

/// Connections served at once per listener; further ones wait in the listen queue of the kernel.
pub const MAX_CONNECTIONS: usize = 256;

/// Connections of one client, or of one IPv6 network of 64 bits; further ones are closed at once.
pub const MAX_PER_CLIENT: usize = 32;

/// Longest wait for the next query, or for room to send its answer; the connection is closed after it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts and serves connections for ever; dropping it closes them.
pub async fn serve(listener: TcpListener, responder: Responder, mut clients: ClientFilter) {
    let mut connections = JoinSet::new();
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    loop {
        tokio::select! {
            // Its client has room for another connection.
            Some(ended) = connections.join_next() => {
                if let Ok(client) = ended
                    && let Some(count) = counts.get_mut(&client)
                {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(&client);
                    }
                }
            }
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((_, peer)) if !clients.allows(peer.ip()) => {
                    ignore(peer);
                }
                Ok((stream, peer)) => {
                    let client = network(peer.ip());
                    let count = counts.entry(client).or_default();
                    if *count >= MAX_PER_CLIENT {
                        debug!(%peer, limit = MAX_PER_CLIENT, "dns connection closed, its client has too many");
                        continue;
                    }
                    // The count goes down again when the task returns the client.
                    *count += 1;
                    let responder = responder.clone();
                    connections.spawn(async move {
                        if let Err(error) = serve_connection(stream, &responder).await {
                            debug!(%peer, %error, "dns connection closed");
                        }
                        client
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a dns connection, trying again; queries over udp are not affected");
                    sleep(ERROR_PAUSE).await;
                }
            },
        }
    }
}

/// The address by which connections of a client are counted: a host may use every address of its IPv6
/// network.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(client) => Ipv6Addr::from_bits(client.to_bits() >> 64 << 64).into(),
    }
}

/// Answers the queries of a connection one after another, until the client closes it.
async fn serve_connection(mut stream: TcpStream, responder: &Responder) -> io::Result<()> {
    let mut reply = Vec::new();
    loop {
        // A client that sends half a query would hold one of few connections for ever.
        let query = timeout(IDLE_TIMEOUT, read_message(&mut stream)).await??;
        // Taken for each query, so that the newest catalog answers on a connection that stays open.
        let catalog = responder.catalogs.borrow().clone();
        match responder.act(&catalog, &query, Transport::Tcp, &mut reply) {
            // Nothing after it can be trusted to start where it should.
            Action::Drop => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a dns query")),
            Action::Send => {}
            Action::Forward => reply = forward(responder, &query).await?,
        }
        timeout(IDLE_TIMEOUT, write_message(&mut stream, &reply)).await??;
    }
}

/// The answer of an upstream.
async fn forward(responder: &Responder, query: &[u8]) -> io::Result<Vec<u8>> {
    let (send, answer) = oneshot::channel();
    if let Some(forwarder) = &responder.forwarder {
        forwarder.spawn(query, Transport::Tcp, async move |reply: Vec<u8>| {
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
