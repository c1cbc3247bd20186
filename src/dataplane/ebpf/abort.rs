//! Ending connections to deleted servers, through the kernel's socket diagnostics.
//!
//! A socket is ended if the server that it was given is deleted, by the server's id. If the server only takes
//! no new connections, a connect is ended that still waits for the server's answer: it has nothing to drain,
//! and a server that is gone may never answer. Sockets that were
//! connected to the same address without a VIP are left alone. The id of a TCP socket is in its storage,
//! which the kernel lists with the socket. For UDP it lists no storage, so the programs keep the ids in a
//! map of their own, by the socket's cookie.
//!
//! The kernel lists the sockets of one network namespace. So a thread enters the namespaces of all
//! processes, one after the other, and ends in the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::sched::{CloneFlags, setns};
use zerocopy::FromBytes;

use super::bpf::Map;
use super::layout::{self, SocketServer};
use super::leaving::LeavingServer;
use crate::cluster::Protocol;
use crate::netlink::frame::Bytes;
use crate::netlink::sock_diag::{self, ListedSocket};
use crate::netlink::socket::{self, KernelSocket};

/// Number of ports above which one dump of all sockets is cheaper than one for each port.
const PORTS: usize = 16;

/// Reason why sockets could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot list the sockets of a network namespace: {0} (try: modprobe -a inet_diag tcp_diag udp_diag)"
    )]
    List(#[source] socket::Error),
    #[error("this kernel cannot end connections (it is built without CONFIG_INET_DIAG_DESTROY)")]
    Unable,
    #[error("cannot end a connection: {0}")]
    End(#[source] socket::Error),
    #[error("the thread that enters network namespaces could not start, or panicked")]
    Thread,
}

/// Servers whose connections end: protocol numbers to ports, and the ids.
#[derive(Debug, Default)]
pub struct Targets {
    /// The port [`sock_diag::ANY_PORT`] stands for all.
    ports: BTreeMap<u8, BTreeSet<u16>>,
    /// Ids of servers whose connections all end.
    deleted: BTreeSet<u32>,
    /// Ids of servers of which only those connections end that are not established.
    halted: BTreeSet<u32>,
}

impl Targets {
    /// Adds a server whose connections all end.
    pub fn add_deleted(&mut self, server: &LeavingServer) {
        self.deleted.insert(server.id);
        match server.origin {
            Some((protocol, port)) => self.add_port(protocol, port),
            None => [Protocol::Tcp, Protocol::Udp]
                .into_iter()
                .for_each(|protocol| self.add_port(protocol, sock_diag::ANY_PORT)),
        }
    }

    /// Adds a TCP server of which only those connections end that are not established.
    pub fn add_halted(&mut self, server: &LeavingServer) {
        self.halted.insert(server.id);
        self.add_port(Protocol::Tcp, server.origin.map_or(sock_diag::ANY_PORT, |(_, port)| port));
    }

    fn add_port(&mut self, protocol: Protocol, port: u16) {
        self.ports.entry(layout::protocol_number(protocol)).or_default().insert(port);
    }

    /// Returns the states of the sockets that have to be listed.
    fn states(&self) -> u32 {
        if self.deleted.is_empty() { sock_diag::SYN_SENT } else { sock_diag::ANY_STATE }
    }

    /// Returns true if a socket was given one of the servers.
    fn include(&self, socket: &ListedSocket, datagrams: &Map<u64, u32>) -> bool {
        let stored = socket.storage.as_deref().and_then(|value| SocketServer::read_from_prefix(value).ok());
        let id = match stored {
            Some((server, _)) => Some(server.id),
            None => datagrams.lookup(&socket.cookie()).ok().flatten(),
        };
        id.is_some_and(|id| {
            self.deleted.contains(&id) || (socket.is_connecting() && self.halted.contains(&id))
        })
    }
}

/// Ends the connections to the targets in all network namespaces that can be entered, and goes on
/// after a failure. `storage` is the map of the sockets' servers, `datagrams` that of the ids of
/// connected UDP sockets. Returns the number of ended connections.
///
/// # Errors
/// The first failure, unless all connections were ended.
pub fn end(targets: &Targets, storage: BorrowedFd<'_>, datagrams: &Map<u64, u32>) -> Result<usize, Error> {
    // A thread of its own, because it may not be able to return to its network namespace.
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("sockets".to_owned());
        match thread.spawn_scoped(scope, || end_everywhere(targets, storage, datagrams)) {
            Ok(thread) => thread.join().unwrap_or(Err(Error::Thread)),
            Err(_) => Err(Error::Thread),
        }
    })
}

/// Leaves the calling thread in the last namespace that it entered.
fn end_everywhere(
    targets: &Targets,
    storage: BorrowedFd<'_>,
    datagrams: &Map<u64, u32>,
) -> Result<usize, Error> {
    // Our own one first: it needs no capability to enter.
    let mut seen = BTreeSet::from_iter(identity(Path::new("/proc/thread-self/ns/net")));
    let mut ended = end_here(targets, storage, datagrams);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for path in processes.map(|entry| entry.path().join("ns/net")) {
        // Not every entry is a process, and processes end in the meantime.
        let Some(namespace) = identity(&path).filter(|namespace| !seen.contains(namespace)) else {
            continue;
        };
        let Ok(file) = File::open(&path) else { continue };
        seen.insert(namespace);
        if let Err(error) = setns(&file, CloneFlags::CLONE_NEWNET) {
            tracing::debug!(%error, "cannot enter a network namespace, so its connections stay open");
            continue;
        }
        ended = match (ended, end_here(targets, storage, datagrams)) {
            (Ok(before), Ok(here)) => Ok(before + here),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
    }
    ended
}

/// Returns device and inode of a namespace, which identify it; see namespaces(7).
fn identity(namespace: &Path) -> Option<(u64, u64)> {
    fs::metadata(namespace).map(|found| (found.dev(), found.ino())).ok()
}

/// Ends the connections in the calling thread's network namespace; returns their number.
fn end_here(targets: &Targets, storage: BorrowedFd<'_>, datagrams: &Map<u64, u32>) -> Result<usize, Error> {
    let mut ended = 0;
    let mut failure = None;
    let mut kernel = KernelSocket::open(NETLINK_SOCK_DIAG).map_err(Error::List)?;
    for (protocol, ports) in &targets.ports {
        let is_any = ports.contains(&sock_diag::ANY_PORT);
        let asked: Vec<u16> = if is_any || ports.len() > PORTS {
            vec![sock_diag::ANY_PORT]
        } else {
            ports.iter().copied().collect()
        };
        for port in asked {
            for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
                let request =
                    sock_diag::list_request(family, *protocol, port, targets.states(), storage.as_raw_fd());
                let sockets = kernel.exchange(
                    sock_diag::SOCK_DIAG_BY_FAMILY,
                    NLM_F_DUMP,
                    &Bytes(&request),
                    sock_diag::listed_socket,
                );
                for socket in sockets.map_err(Error::List)?.into_iter().flatten() {
                    // No program runs when a socket disconnects (connect to AF_UNSPEC): it keeps its
                    // storage, and its port is 0.
                    let peer = socket.peer_port();
                    let is_near = peer != 0 && (is_any || ports.contains(&peer));
                    if !is_near || !targets.include(&socket, datagrams) {
                        continue;
                    }
                    match end_socket(&mut kernel, &socket, *protocol) {
                        Ok(()) => ended += 1,
                        Err(error) => failure = failure.or(Some(error)),
                    }
                }
            }
        }
    }
    failure.map_or(Ok(ended), Err)
}

fn end_socket(kernel: &mut KernelSocket, socket: &ListedSocket, protocol: u8) -> Result<(), Error> {
    let request = sock_diag::destroy_request(socket, protocol);
    match kernel.exchange(sock_diag::SOCK_DESTROY, NLM_F_ACK, &Bytes(&request), |_| Ok(())) {
        Ok(_) => Ok(()),
        Err(socket::Error::Refused(error)) if error.raw_os_error() == Some(libc::ENOENT) => {
            // It was closed in the meantime.
            Ok(())
        }
        Err(socket::Error::Refused(error)) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Err(Error::Unable)
        }
        Err(error) => Err(Error::End(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: u32, origin: Option<(Protocol, u16)>) -> LeavingServer {
        LeavingServer { id, origin }
    }

    #[test]
    fn targets_keep_ports_by_protocol() {
        let mut targets = Targets::default();
        targets.add_deleted(&server(7, Some((Protocol::Tcp, 1))));
        targets.add_deleted(&server(8, Some((Protocol::Udp, 2))));
        assert_eq!(targets.ports, [(6, [1].into()), (17, [2].into())].into());
        assert_eq!(targets.deleted, [7, 8].into());
    }

    #[test]
    fn targets_of_an_earlier_run_have_any_port_and_protocol() {
        let mut targets = Targets::default();
        targets.add_deleted(&server(7, None));
        assert_eq!(targets.ports, [(6, [0].into()), (17, [0].into())].into());
    }

    #[test]
    fn targets_that_only_take_nothing_new_need_connects_in_progress() {
        let mut targets = Targets::default();
        targets.add_halted(&server(7, Some((Protocol::Tcp, 1))));
        assert_eq!((targets.states(), &targets.ports), (sock_diag::SYN_SENT, &[(6, [1].into())].into()));
        targets.add_deleted(&server(8, None));
        assert_eq!(targets.states(), sock_diag::ANY_STATE);
    }
}
