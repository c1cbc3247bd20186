//! The listening sockets, and the threads and tasks that serve them.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::udp::Worker;
use super::{Responder, tcp};

/// Octets of queries that the kernel may hold while this process is busy; it may grant less.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Connections that may wait in the kernel to be accepted; it may grant less.
const LISTEN_BACKLOG: i32 = 1024;

/// Largest number of threads for datagrams.
const MAX_THREADS: usize = 4;

/// Attempts to find a port that is free for UDP and TCP when port 0 leaves the choice to the kernel.
const PORT_ATTEMPTS: u32 = 16;

/// Reasons why the server could not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen for dns on {address}: {error}{}", hint(error))]
    Bind { address: SocketAddr, error: io::Error },
    #[error("cannot start a thread of the dns server: {0}")]
    Thread(io::Error),
    #[error("the part of the dns server that accepts connections stopped unexpectedly: {0}")]
    Stopped(JoinError),
    #[error("another program closed a socket of the dns server, as ss --kill does: {0}")]
    Closed(io::Error),
    #[error("a thread of the dns server stopped unexpectedly")]
    Died,
}

/// Bound sockets that are not served yet; queries wait in the kernel until [`Listener::serve`].
#[derive(Debug)]
pub struct Listener {
    endpoints: Vec<BoundAddress>,
    /// TCP connections that are served at once on each address.
    pub(super) max_connections: usize,
}

/// One address: the same port on both transports, with a UDP socket for each thread.
#[derive(Debug)]
struct BoundAddress {
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
    ///
    /// # Errors
    /// For the first address that cannot be bound, with a hint about the likely cause.
    pub async fn bind(addresses: &[SocketAddr]) -> Result<Self, Error> {
        let endpoints = addresses
            .iter()
            .map(|&address| BoundAddress::bind(address).map_err(|error| Error::Bind { address, error }))
            .collect::<Result<_, _>>()?;
        Ok(Self { endpoints, max_connections: tcp::MAX_CONNECTIONS })
    }

    /// The bound addresses in the order they were asked for, with the ports that were chosen.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.endpoints.iter().map(|endpoint| endpoint.address)
    }

    /// Answers queries from the newest catalog until `shutdown`, then closes all sockets. The last catalog
    /// stays in service when its sender is dropped.
    ///
    /// # Errors
    /// When a thread cannot start, or one that serves has died.
    pub async fn serve(self, responder: Responder, shutdown: CancellationToken) -> Result<(), Error> {
        // A process of this node may ask from the very address that it asks.
        let own: Vec<IpAddr> = self.addresses().map(|address| address.ip()).collect();
        let mut loops = JoinSet::new();
        let mut sockets: Vec<Vec<std::net::UdpSocket>> = (0..threads()).map(|_| Vec::new()).collect();
        // Each thread has one socket of every address, among which the kernel spreads datagrams.
        for endpoint in self.endpoints {
            for (worker, socket) in sockets.iter_mut().zip(endpoint.udp) {
                worker.push(socket);
            }
            let filter = responder.filter(&own);
            loops.spawn(tcp::serve(endpoint.tcp, responder.clone(), filter, self.max_connections));
        }
        // Threads outlive a task that is dropped, so that they are told to stop in that case as well.
        let stop = shutdown.child_token();
        let _stopped_at_the_end = stop.clone().drop_guard();
        let mut ends = JoinSet::new();
        for sockets in sockets {
            let worker = Worker::spawn(sockets, responder.clone(), responder.filter(&own), stop.clone());
            ends.spawn(worker.map_err(Error::Thread)?.ended);
        }
        // Nothing here ends by itself, so that the first end is the shutdown or a fault.
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            Some(ended) = loops.join_next() => Err(ended.map_or_else(Error::Stopped, Error::Closed)),
            Some(_) = ends.join_next(), if !shutdown.is_cancelled() => Err(Error::Died),
        };
        // The addresses are free for the next server only when all sockets are closed.
        stop.cancel();
        while ends.join_next().await.is_some() {}
        loops.shutdown().await;
        match result {
            // The threads may have seen the shutdown first.
            Err(Error::Died) if shutdown.is_cancelled() => Ok(()),
            result => result,
        }
    }
}

/// One thread for each processor, up to a number beyond which more do not help.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}

impl BoundAddress {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut attempt = 1;
        loop {
            // TCP comes first, because it fails where another daemon of ours listens: datagram sockets
            // would be shared with it.
            let tcp = bind_tcp(address)?;
            let bound = tcp.local_addr()?;
            match (0..threads()).map(|_| bind_udp(bound)).collect() {
                Ok(udp) => return Ok(Self { address: bound, udp, tcp }),
                // The kernel chose the port for TCP alone, and on UDP it may be taken.
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

/// Binds a datagram socket without `SO_REUSEADDR`, with which any process could bind the same UDP port
/// and take our queries; with `SO_REUSEPORT` only our own user can.
fn bind_udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    // Connections of an earlier run that are in TIME_WAIT must not keep the address.
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
            // IPv4 has sockets of its own, also where both wildcards are listened on.
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    Ok(socket)
}

/// The likely cause of an error, and the remedy.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another resolver such as dcos-net or systemd-resolved may listen there: stop it, or change dns.listen"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability CAP_NET_BIND_SERVICE, or choose another port in dns.listen"
        }
        _ => "",
    }
}
