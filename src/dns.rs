//! The DNS server: named VIPs to addresses, for the containers and processes of this node.
//!
//! Layers, of which only the last two do any I/O:
//!
//! * [`zone`], [`tasks`], [`reverse`]: which names exist and what they have;
//! * [`catalog`]: which of these a question is for;
//! * [`wire`], [`record`], [`message`]: one message in, one out;
//! * [`publisher`]: replaces the catalog when VIPs, tasks or this node change;
//! * [`Listener`]: UDP and TCP sockets, limits per client, shutdown.
//!
//! The catalog is replaced as a whole through a `watch` channel and each query is answered from the
//! newest one, so a client never sees half of a change. When a VIP's name is published (after the
//! kernel knows its address) is decided by the reconcile loop.

pub mod catalog;
pub mod message;
pub mod publisher;
pub mod record;
pub mod reverse;
pub mod tasks;
#[cfg(test)]
mod tests;
mod transport;
pub mod wire;
pub mod zone;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use catalog::Catalog;

/// Octets of queries the kernel may hold while this process is busy; it may grant less.
const RECEIVE_BUFFER: usize = 1 << 20;

const LISTEN_BACKLOG: i32 = 1024;

/// How often UDP and TCP are tried on another port when port 0 leaves the choice to the kernel.
const PORT_ATTEMPTS: u32 = 16;

/// Why the server could not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen for dns on {address}: {error}{}", hint(error))]
    Bind { address: SocketAddr, error: io::Error },
    #[error("dns server stopped unexpectedly: {0}")]
    Stopped(JoinError),
}

/// Bound sockets that are not served yet; queries wait in the kernel until [`Listener::serve`].
#[derive(Debug)]
pub struct Listener {
    endpoints: Vec<Endpoint>,
}

/// One address: the same port on both transports.
#[derive(Debug)]
struct Endpoint {
    address: SocketAddr,
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Listener {
    /// Binds UDP and TCP on every address, or nothing at all.
    ///
    /// The addresses need not exist yet (`IP_FREEBIND`), so the server may start before the
    /// interface that carries them. Port 0 takes a port that is free on both transports. Prefer
    /// single addresses to `0.0.0.0`: replies to datagrams on a wildcard socket leave from the
    /// address the kernel prefers, which need not be the one that was asked. `[::]` is IPv6 only.
    pub async fn bind(addresses: &[SocketAddr]) -> Result<Self, Error> {
        let endpoints = addresses
            .iter()
            .map(|&address| Endpoint::bind(address).map_err(|error| Error::Bind { address, error }))
            .collect::<Result<_, _>>()?;
        Ok(Self { endpoints })
    }

    /// The bound addresses in the order they were asked for, with the ports that were chosen.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.endpoints.iter().map(|endpoint| endpoint.address)
    }

    /// Answers queries from the newest catalog until `shutdown`, then closes all sockets.
    ///
    /// The last one stays in service when its sender is dropped. The only error is a receive
    /// loop that died.
    pub async fn serve(
        self,
        catalogs: watch::Receiver<Arc<Catalog>>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let mut loops = JoinSet::new();
        for endpoint in self.endpoints {
            loops.spawn(transport::serve_udp(endpoint.udp, catalogs.clone()));
            loops.spawn(transport::serve_tcp(endpoint.tcp, catalogs.clone()));
        }
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            Some(Err(error)) = loops.join_next() => Err(Error::Stopped(error)),
        };
        loops.shutdown().await;
        result
    }
}

impl Endpoint {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut attempt = 1;
        loop {
            let udp = bind_udp(address)?;
            let bound = udp.local_addr()?;
            match bind_tcp(bound) {
                Ok(tcp) => {
                    return Ok(Self { address: bound, udp, tcp });
                }
                Err(error)
                    if address.port() == 0
                        && error.kind() == io::ErrorKind::AddrInUse
                        && attempt < PORT_ATTEMPTS =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Without `SO_REUSEADDR`, with which another process could bind the same UDP port and take our
/// queries.
fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn new_socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    Ok(socket)
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": is another resolver such as dcos-net or systemd-resolved listening there? change dns.listen"
        }
        io::ErrorKind::PermissionDenied => ": ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}
