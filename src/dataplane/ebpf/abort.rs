//! Ending connections to deleted servers, through the kernel's socket diagnostics.
//!
//! A socket is ended if the server that it was given is deleted, by the server's id. If the server only takes
//! no new connections, a connect is ended that still waits for the server's answer: it has nothing to drain,
//! and a server that is gone may never answer. Sockets that were
//! connected to the same address without a VIP are left alone. The id of a TCP socket is in its storage,
//! which the kernel lists with the socket. For UDP it lists no storage; `datagrams` knows the ids by the
//! sockets' cookies.
//!
//! The kernel lists the sockets of one network namespace. So a thread enters the namespaces of the node, one
//! after the other, and ends in the last one. The further away a namespace is, the more there is to look
//! through, so the search goes on only while connections are missing that the programs have counted:
//!
//! 1. The namespaces of all processes.
//! 2. Those of their threads, and those that are mounted in this daemon's file system.
//! 3. Those of the sockets that processes hold, whatever became of what had made the namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::sched::{CloneFlags, setns};
use zerocopy::FromBytes;

use super::layout::{self, SocketServer};
use super::leaving::LeavingServer;
use super::{descriptors, mountinfo};
use crate::cluster::Protocol;
use crate::netlink::frame::Bytes;
use crate::netlink::sock_diag::{self, ListedSocket};
use crate::netlink::socket::{self, KernelSocket};

/// Number of ports above which one dump of all sockets is cheaper than one for each port.
const PORTS: usize = 16;

/// Most threads and descriptors that one search looks at, and most of one process. Each takes some microseconds,
/// so a search takes a few seconds at most, whatever a task opens.
const MOST: usize = 262_144;
const MOST_OF_ONE: usize = 16_384;

/// Servers of connected UDP sockets by their cookies, as far as they are known.
pub type Datagrams<'a> = &'a (dyn Fn(u64) -> Option<u32> + Sync);

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
    /// Ids of servers whose connections all end, with the numbers of connections.
    deleted: BTreeMap<u32, u64>,
    /// Ids of servers of which only those connections end that are not established.
    halted: BTreeSet<u32>,
}

impl Targets {
    /// Adds a server whose connections all end, and their number.
    pub fn add_deleted(&mut self, server: &LeavingServer, connections: u64) {
        self.deleted.insert(server.id, connections);
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

    /// Returns true if connected UDP sockets may have to be ended.
    pub fn have_datagrams(&self) -> bool {
        self.ports.contains_key(&layout::protocol_number(Protocol::Udp))
    }

    fn add_port(&mut self, protocol: Protocol, port: u16) {
        self.ports.entry(layout::protocol_number(protocol)).or_default().insert(port);
    }

    /// Returns the states of the sockets that have to be listed.
    fn states(&self) -> u32 {
        // Only connects in progress end at a halted server, and a list of those alone is short.
        if self.deleted.is_empty() { sock_diag::SYN_SENT } else { sock_diag::ANY_STATE }
    }

    /// Returns true if a socket that was given the server `id` is to be ended.
    fn include(&self, socket: &ListedSocket, id: u32) -> bool {
        self.deleted.contains_key(&id) || (socket.is_connecting() && self.halted.contains(&id))
    }
}

/// Result of [`end`].
#[derive(Debug, Default)]
pub struct Ended {
    pub connections: usize,
    /// Connections that were not found, by the ids of the deleted servers.
    pub missing: BTreeMap<u32, u64>,
    /// Reason why something could not be looked into, with the number of such failures. Without one, what is
    /// missing is closed, except that its process has not closed it yet.
    pub obstacle: Option<(usize, String)>,
}

/// Ends the connections to the targets in all network namespaces that can be entered, and goes on
/// after a failure. `storage` is the map of the sockets' servers. `datagrams` returns the id of the server of a
/// connected UDP socket, by its cookie.
///
/// # Errors
/// The first failure, unless all connections that were found were ended.
pub fn end(targets: &Targets, storage: BorrowedFd<'_>, datagrams: Datagrams<'_>) -> Result<Ended, Error> {
    let mut search = SocketSearch {
        targets,
        storage,
        datagrams,
        seen: BTreeSet::new(),
        missing: targets.deleted.clone(),
        ended: 0,
        failure: None,
        obstacles: 0,
        obstacle: None,
    };
    // A thread of its own, because it may not be able to return to its network namespace.
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("sockets".to_owned());
        match thread.spawn_scoped(scope, || search.everywhere()) {
            Ok(thread) => thread.join().map_err(|_| Error::Thread),
            Err(_) => Err(Error::Thread),
        }
    })?;
    search.missing.retain(|_, missing| *missing > 0);
    match search.failure {
        Some(error) => Err(error),
        None => Ok(Ended {
            connections: search.ended,
            missing: search.missing,
            obstacle: search.obstacle.map(|reason| (search.obstacles, reason)),
        }),
    }
}

/// Search for the sockets of the targets.
struct SocketSearch<'a> {
    targets: &'a Targets,
    storage: BorrowedFd<'a>,
    datagrams: Datagrams<'a>,
    /// Namespaces that were entered or cannot be.
    seen: BTreeSet<(u64, u64)>,
    /// Connections of deleted servers that are still to be found.
    missing: BTreeMap<u32, u64>,
    ended: usize,
    failure: Option<Error>,
    obstacles: usize,
    /// First reason why something could not be looked into.
    obstacle: Option<String>,
}

impl SocketSearch<'_> {
    /// Searches until nothing is missing. Leaves the calling thread in the last namespace that it entered.
    fn everywhere(&mut self) {
        // Our own one first: it needs no capability to enter.
        self.seen.extend(identity(Path::new("/proc/thread-self/ns/net")).ok());
        self.end_here();
        let processes = processes();
        for process in &processes {
            self.enter_path(&process.join("ns/net"));
        }
        // What is missing of a server that only takes nothing new cannot be told.
        if self.is_done() && self.targets.halted.is_empty() {
            return;
        }
        mountinfo::network_namespaces().iter().for_each(|path| self.enter_path(path));
        let mut left = MOST;
        for process in &processes {
            let threads = entries(&process.join("task"), &mut left);
            // The first one is the process, whose namespace is known.
            if threads.as_ref().is_ok_and(|threads| threads.len() <= 1) {
                continue;
            }
            match threads {
                Ok(threads) => threads.iter().for_each(|thread| self.enter_path(&thread.join("ns/net"))),
                Err(error) => self.note(&error),
            }
        }
        if !self.is_done() {
            self.enter_those_of_sockets(&processes, left);
        }
    }

    fn is_done(&self) -> bool {
        self.missing.values().all(|missing| *missing == 0)
    }

    /// Enters the namespaces of the sockets that processes have open. `left` is how many descriptors may be looked at.
    fn enter_those_of_sockets(&mut self, processes: &[PathBuf], mut left: usize) {
        let (mut known, mut is_cut) = (BTreeSet::new(), false);
        for process in processes {
            let descriptors = match entries(&process.join("fd"), &mut left) {
                Ok(descriptors) => descriptors,
                Err(error) => {
                    self.note(&error);
                    continue;
                }
            };
            is_cut |= descriptors.len() == MOST_OF_ONE || left == 0;
            let mut opened = None;
            for path in descriptors {
                // Processes share sockets with their children.
                let socket = fs::read_link(&path)
                    .ok()
                    .filter(|target| is_socket(target) && known.insert(target.clone()));
                if socket.is_none() {
                    continue;
                }
                // Most processes have no socket that is new here, and need not be opened.
                let opened =
                    opened.get_or_insert_with(|| number(process).and_then(descriptors::open_process));
                let namespace = match opened {
                    Ok(opened) => number(&path).and_then(|number| namespace_of(opened.as_fd(), number)),
                    Err(error) => Err(copied(error)),
                };
                match namespace {
                    Ok(namespace) => self.enter(File::from(namespace)),
                    Err(error) => {
                        self.note(&error);
                        // Where one socket cannot be copied, no other one of the process can.
                        if error.raw_os_error() != Some(libc::EBADF) {
                            break;
                        }
                    }
                }
                if self.is_done() {
                    return;
                }
            }
        }
        if is_cut {
            self.note(&io::Error::other(
                "there are more threads and open files than are looked through at once",
            ));
        }
    }

    /// Ends the connections in a namespace, unless it is known.
    fn enter_path(&mut self, path: &Path) {
        match identity(path) {
            Ok(namespace) if self.seen.contains(&namespace) => {}
            Ok(_) => match File::open(path) {
                Ok(file) => self.enter(file),
                Err(error) => self.note(&error),
            },
            Err(error) => self.note(&error),
        }
    }

    /// Ends the connections in a namespace, unless it is known.
    fn enter(&mut self, namespace: File) {
        let Ok(found) = namespace.metadata() else { return };
        if !self.seen.insert((found.dev(), found.ino())) {
            return;
        }
        match setns(&namespace, CloneFlags::CLONE_NEWNET) {
            Ok(()) => self.end_here(),
            Err(error) => self.note(&error.into()),
        }
    }

    /// Notes that something could not be looked into.
    fn note(&mut self, error: &io::Error) {
        // Processes, threads and descriptors go while they are looked at.
        if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EBADF)) {
            self.obstacles += 1;
            self.obstacle.get_or_insert_with(|| error.to_string());
        }
    }

    /// Ends the connections in the calling thread's network namespace, and goes on after a failure.
    fn end_here(&mut self) {
        let listed = self.list_here();
        if let Err(error) = listed {
            self.failure.get_or_insert(error);
        }
    }

    /// Lists the sockets of this namespace and ends those of the targets.
    fn list_here(&mut self) -> Result<(), Error> {
        let (targets, storage) = (self.targets, self.storage);
        // A netlink socket stays in the namespace that it was made in, so each has one of its own.
        let mut kernel = KernelSocket::open(NETLINK_SOCK_DIAG).map_err(Error::List)?;
        for (protocol, ports) in &targets.ports {
            let is_any = ports.contains(&sock_diag::ANY_PORT);
            let asked: Vec<u16> = if is_any || ports.len() > PORTS {
                vec![sock_diag::ANY_PORT]
            } else {
                ports.iter().copied().collect()
            };
            for port in asked {
                // A socket of IPv6 may be connected to an IPv4 server as well.
                for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
                    let request = sock_diag::list_request(
                        family,
                        *protocol,
                        port,
                        targets.states(),
                        storage.as_raw_fd(),
                    );
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
                        let Some(id) = self.server_of(&socket) else { continue };
                        // Found, even if it cannot be ended: what is missing then is in other namespaces.
                        if let Some(missing) = self.missing.get_mut(&id) {
                            *missing = missing.saturating_sub(1);
                        }
                        let is_near = peer != 0 && (is_any || ports.contains(&peer));
                        if !is_near || !targets.include(&socket, id) {
                            continue;
                        }
                        match end_socket(&mut kernel, &socket, *protocol) {
                            Ok(()) => self.ended += 1,
                            Err(error) => {
                                self.failure.get_or_insert(error);
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the id of the server that a socket was given.
    fn server_of(&self, socket: &ListedSocket) -> Option<u32> {
        let stored = socket.storage.as_deref().and_then(|value| SocketServer::read_from_prefix(value).ok());
        match stored {
            Some((server, _)) => Some(server.id),
            None => (self.datagrams)(socket.cookie()),
        }
    }
}

/// Returns device and inode of a namespace, which identify it; see namespaces(7).
fn identity(namespace: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(namespace).map(|found| (found.dev(), found.ino()))
}

/// Lists the directories of all processes.
fn processes() -> Vec<PathBuf> {
    let found = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    // Not every entry is a process.
    let mut found: Vec<PathBuf> = found.filter(|path| number(path).is_ok()).collect();
    // Where there are too many to look through, each search leaves out other ones.
    let start = rand::random_range(0..found.len().max(1));
    found.rotate_left(start);
    found
}

/// Lists a directory of a process, and takes its entries off `left`.
fn entries(directory: &Path, left: &mut usize) -> io::Result<Vec<PathBuf>> {
    let most = MOST_OF_ONE.min(*left);
    let found: Vec<PathBuf> =
        fs::read_dir(directory)?.flatten().take(most).map(|entry| entry.path()).collect();
    *left -= found.len();
    Ok(found)
}

/// Returns the number that is the last part of a path.
fn number(path: &Path) -> io::Result<u32> {
    let name = path.file_name().and_then(OsStr::to_str);
    name.and_then(|name| name.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Returns true for the target of a link in `/proc/PID/fd` that stands for a socket.
fn is_socket(target: &Path) -> bool {
    target.as_os_str().as_encoded_bytes().starts_with(b"socket:")
}

/// Opens the network namespace of another process's socket.
fn namespace_of(process: BorrowedFd<'_>, number: u32) -> io::Result<OwnedFd> {
    let socket = descriptors::copy(process, number)?;
    let namespace = descriptors::namespace_of(socket.as_fd());
    descriptors::close(socket)?;
    namespace
}

/// Copies an error, for each socket of a process that cannot be opened.
fn copied(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
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
        targets.add_deleted(&server(7, Some((Protocol::Tcp, 1))), 1);
        targets.add_deleted(&server(8, Some((Protocol::Udp, 2))), 2);
        assert_eq!(targets.ports, [(6, [1].into()), (17, [2].into())].into());
        assert_eq!(targets.deleted, [(7, 1), (8, 2)].into());
    }

    #[test]
    fn targets_of_an_earlier_run_have_any_port_and_protocol() {
        let mut targets = Targets::default();
        targets.add_deleted(&server(7, None), 1);
        assert_eq!(targets.ports, [(6, [0].into()), (17, [0].into())].into());
    }

    #[test]
    fn targets_that_only_take_nothing_new_need_connects_in_progress() {
        let mut targets = Targets::default();
        targets.add_halted(&server(7, Some((Protocol::Tcp, 1))));
        assert_eq!((targets.states(), &targets.ports), (sock_diag::SYN_SENT, &[(6, [1].into())].into()));
        targets.add_deleted(&server(8, None), 1);
        assert_eq!(targets.states(), sock_diag::ANY_STATE);
    }
}
