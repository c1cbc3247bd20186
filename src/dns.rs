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
pub mod clients;
pub mod forward;
pub mod message;
pub mod publisher;
pub mod record;
pub mod resolved;
pub mod reverse;
pub mod settings;
pub mod tasks;
#[cfg(test)]
mod tests;
mod transport;
pub mod wire;
pub mod zone;

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

pub use transport::Serving;
use transport::udp::Worker;

/// Octets of queries the kernel may hold while this process is busy; it may grant less.
const RECEIVE_BUFFER: usize = 1 << 20;

const LISTEN_BACKLOG: i32 = 1024;

/// Most threads for datagrams.
const MAX_THREADS: usize = 4;

/// How often UDP and TCP are tried on another port when port 0 leaves the choice to the kernel.
const PORT_ATTEMPTS: u32 = 16;

/// Why the server could not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen for dns on {address}: {error}{}", hint(error))]
    Bind { address: SocketAddr, error: io::Error },
    #[error("cannot start a thread for dns: {0}")]
    Thread(io::Error),
    #[error("dns server stopped unexpectedly: {0}")]
    Stopped(JoinError),
    #[error("a thread of the dns server stopped unexpectedly")]
    Died,
}

/// Bound sockets that are not served yet; queries wait in the kernel until [`Listener::serve`].
#[derive(Debug)]
pub struct Listener {
    endpoints: Vec<Endpoint>,
}

/// One address: the same port on both transports, with a UDP socket for each thread.
#[derive(Debug)]
struct Endpoint {
    address: SocketAddr,
    udp: Vec<std::net::UdpSocket>,
    tcp: TcpListener,
}

impl Listener {
    /// Binds UDP and TCP on every address, or nothing at all.
    ///
    /// The addresses need not exist yet (`IP_FREEBIND`), so the server may start before the
    /// interface that carries them. Port 0 takes a port that is free on both transports. Use
    /// single addresses instead of `0.0.0.0`: replies to datagrams on a wildcard socket leave from the
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
    /// The last one stays in service when its sender is dropped. The only errors are a thread that
    /// cannot start and a loop that died.
    pub async fn serve(self, service: Serving, shutdown: CancellationToken) -> Result<(), Error> {
        let mut loops = JoinSet::new();
        let mut sockets: Vec<Vec<std::net::UdpSocket>> = (0..threads()).map(|_| Vec::new()).collect();
        for endpoint in self.endpoints {
            for (worker, socket) in sockets.iter_mut().zip(endpoint.udp) {
                worker.push(socket);
            }
            loops.spawn(transport::tcp::serve(endpoint.tcp, service.clone()));
        }
        // Also when this future is dropped.
        let stop = shutdown.child_token();
        let _stopped_at_the_end = stop.clone().drop_guard();
        let mut ends = JoinSet::new();
        for sockets in sockets {
            let worker = Worker::spawn(sockets, service.clone(), stop.clone()).map_err(Error::Thread)?;
            ends.spawn(worker.ended);
        }
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            Some(Err(error)) = loops.join_next() => Err(Error::Stopped(error)),
            Some(_) = ends.join_next(), if !shutdown.is_cancelled() => Err(Error::Died),
        };
        stop.cancel();
        while ends.join_next().await.is_some() {}
        loops.shutdown().await;
        match result {
            Err(Error::Died) if shutdown.is_cancelled() => Ok(()),
            result => result,
        }
    }
}

/// One for each processor, as long as that helps.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}

impl Endpoint {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut attempt = 1;
        loop {
            // First, because it tells whether another daemon of ours is there: datagram sockets would
            // be shared with it.
            let tcp = bind_tcp(address)?;
            let bound = tcp.local_addr()?;
            match (0..threads()).map(|_| bind_udp(bound)).collect() {
                Ok(udp) => return Ok(Self { address: bound, udp, tcp }),
                Err(error)
                    if address.port() == 0
                        && io::Error::kind(&error) == io::ErrorKind::AddrInUse
                        && attempt < PORT_ATTEMPTS =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Without `SO_REUSEADDR`, with which any process could bind the same UDP port and take our queries;
/// with `SO_REUSEPORT` only our own user can.
fn bind_udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
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
