//! Ends connections to servers that are gone, through the kernel's socket diagnostics.
//!
//! A dump of TCP sockets brings along what our programs noted in each one's storage, and for UDP,
//! where it does not, they keep a map of cookies. So a socket is known by the id of its server, and one
//! that went to the same address without us is left alone. The
//! kernel shows the sockets of one network namespace, so all that processes are in are entered, by a
//! thread that ends with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as Peer};
use nix::sched::{CloneFlags, setns};

use super::bpf::Map;
use zerocopy::FromBytes;

use super::layout::{self, SocketServer};
use crate::dataplane::state::ServiceKey;

/// Ports above which one dump of all sockets is cheaper than one for each port.
const PORTS: usize = 16;

/// Why sockets could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("sockets can't be listed: {0} (try: modprobe -a inet_diag tcp_diag udp_diag)")]
    List(io::Error),
    #[error("the kernel can't end connections of others (CONFIG_INET_DIAG_DESTROY)")]
    Unable,
    #[error("a socket can't be ended: {0}")]
    End(io::Error),
    #[error("the thread that enters the network namespaces could not start, or died")]
    Thread,
}

/// Servers that are gone: protocol and port to their ids.
#[derive(Debug, Default)]
pub struct Targets {
    ports: BTreeMap<u8, BTreeSet<u16>>,
    ids: BTreeSet<u32>,
}

impl Targets {
    pub fn add(&mut self, service: &ServiceKey, port: u16, id: u32) {
        self.ports.entry(layout::protocol_number(service.protocol)).or_default().insert(port);
        self.ids.insert(id);
    }
}

/// Ends the connections to the targets in all network namespaces that can be entered, and returns
/// how many; goes on after a failure. `storage` is the map of what sockets were given,
/// `datagrams` that of the ids of connected UDP sockets.
pub fn end(targets: &Targets, storage: BorrowedFd<'_>, datagrams: &Map<u64, u32>) -> Result<usize, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("sockets".to_owned());
        match thread.spawn_scoped(scope, || end_everywhere(targets, storage, datagrams)) {
            Ok(thread) => thread.join().unwrap_or(Err(Error::Thread)),
            Err(_) => Err(Error::Thread),
        }
    })
}

/// Leaves the calling thread in some network namespace.
fn end_everywhere(
    targets: &Targets,
    storage: BorrowedFd<'_>,
    datagrams: &Map<u64, u32>,
) -> Result<usize, Error> {
    // The own one first, because there may be no way back.
    let own = PathBuf::from("/proc/thread-self/ns/net");
    let mut seen = BTreeSet::from_iter(identity(&own));
    let mut ended = end_here(targets, storage, datagrams);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.map(|entry| entry.path().join("ns/net")) {
        // Processes end meanwhile, and not every entry is one.
        let Some(namespace) = identity(&process).filter(|namespace| !seen.contains(namespace)) else {
            continue;
        };
        let Ok(file) = File::open(&process) else { continue };
        seen.insert(namespace);
        if let Err(error) = setns(&file, CloneFlags::CLONE_NEWNET) {
            tracing::debug!(%error, "a network namespace can't be entered, so its connections stay");
            continue;
        }
        ended = match (ended, end_here(targets, storage, datagrams)) {
            (Ok(before), Ok(here)) => Ok(before + here),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
    }
    ended
}

fn identity(namespace: &PathBuf) -> Option<(u64, u64)> {
    fs::metadata(namespace).map(|found| (found.dev(), found.ino())).ok()
}

/// Ends the connections in the calling thread's network namespace; returns how many.
fn end_here(targets: &Targets, storage: BorrowedFd<'_>, datagrams: &Map<u64, u32>) -> Result<usize, Error> {
    let mut ended = 0;
    let mut failure = None;
    let mut connection = Connection::open().map_err(Error::List)?;
    for (protocol, ports) in &targets.ports {
        let asked: Vec<u16> = if ports.len() > PORTS { vec![0] } else { ports.iter().copied().collect() };
        for port in asked {
            for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
                let request = list(family, *protocol, port, storage.as_raw_fd());
                for sight in connection.dump(&request).map_err(Error::List)? {
                    let server = sight.server.or_else(|| datagrams.lookup(&sight.cookie()).ok()?);
                    // Of one that was disconnected since, nobody has told us.
                    let is_target =
                        ports.contains(&sight.port()) && server.is_some_and(|id| targets.ids.contains(&id));
                    if !is_target {
                        continue;
                    }
                    match connection.end(&sight, *protocol) {
                        Ok(()) => ended += 1,
                        Err(error) => failure = failure.or(Some(error)),
                    }
                }
            }
        }
    }
    failure.map_or(Ok(ended), Err)
}

/// Numbers of `linux/sock_diag.h` and `linux/inet_diag.h`.
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const REQUEST_STORAGES: u16 = 2;
const REQUEST_MAP: u16 = 1;
const STORAGES: u16 = 20;
const STORAGE: u16 = 1;
const STORAGE_VALUE: u16 = 3;

/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_DUMP`, and the two types of messages that end an answer.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Bytes of `struct nlmsghdr`, `struct inet_diag_sockid` and of `struct inet_diag_msg`.
const HEADER: usize = 16;
const SOCKET_ID: usize = 48;
const MESSAGE: usize = 72;

/// The bits of all TCP states but LISTEN, TIME_WAIT and NEW_SYN_RECV, which no client's socket is in.
const STATES: u32 = 0b1011_1011_1110;

/// A socket in a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sight {
    family: u8,
    /// Its addresses and cookie, as the kernel wants them back.
    id: [u8; SOCKET_ID],
    /// What our programs gave it.
    server: Option<u32>,
}

impl Sight {
    /// Of the other side.
    fn port(&self) -> u16 {
        let [_, _, high, low, ..] = self.id;
        u16::from_be_bytes([high, low])
    }

    /// As our programs have it: the kernel shows its lower half first.
    fn cookie(&self) -> u64 {
        let halves = self.id.last_chunk::<8>().map(|bytes| bytes.as_chunks::<4>().0);
        let Some([low, high]) = halves else { return 0 };
        u64::from(u32::from_ne_bytes(*low)) | u64::from(u32::from_ne_bytes(*high)) << 32
    }
}

/// The request for sockets with `port` on the other side (0 for any) and their storages.
fn list(family: u8, protocol: u8, port: u16, storage: RawFd) -> Vec<u8> {
    let mut id = [0; SOCKET_ID];
    if let Some(place) = id.get_mut(2..4) {
        place.copy_from_slice(&port.to_be_bytes());
    }
    let mut request = request(BY_FAMILY, REQUEST | DUMP, family, protocol, &id);
    let map = storage.to_ne_bytes();
    request.extend(attribute(REQUEST_STORAGES, &attribute(REQUEST_MAP, &map)));
    finished(request)
}

fn request(kind: u16, flags: u16, family: u8, protocol: u8, id: &[u8; SOCKET_ID]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, protocol, 0, 0]);
    bytes.extend(STATES.to_ne_bytes());
    bytes.extend(id);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Writes the length of a message into it.
fn finished(mut message: Vec<u8>) -> Vec<u8> {
    let length = message.len() as u32;
    if let Some(place) = message.get_mut(..4) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
    message
}

/// One message of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Socket(Sight),
    /// The end, with the error number if there was an error.
    End(i32),
}

/// Splits what was received into messages; what is not one ends it.
fn answers(bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut rest = bytes;
    while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
        let [a, b, c, d, low, high, ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(body) = rest.get(HEADER..length) else { break };
        match u16::from_ne_bytes([low, high]) {
            ERROR | DONE => {
                let number = body.first_chunk::<4>().map_or(0, |number| i32::from_ne_bytes(*number));
                answers.push(Answer::End(-number));
            }
            BY_FAMILY => answers.extend(sight(body).map(Answer::Socket)),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

fn sight(body: &[u8]) -> Option<Sight> {
    let (message, attributes) = body.split_first_chunk::<MESSAGE>()?;
    let [family, _, _, _, rest @ ..] = message;
    let id = *rest.first_chunk::<SOCKET_ID>()?;
    let value = find(attributes, STORAGES).and_then(|found| find(found, STORAGE));
    let value = value.and_then(|storage| find(storage, STORAGE_VALUE));
    let server =
        value.and_then(|value| SocketServer::read_from_prefix(value).ok()).map(|(server, _)| server.id);
    Some(Sight { family: *family, id, server })
}

/// The value of an attribute.
fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        let [a, b, c, d] = *rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        // The highest bits say that an attribute has others in it.
        if u16::from_ne_bytes([c, d]) & 0x3fff == kind {
            return rest.get(4..length);
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// To the diagnostics of one network namespace.
struct Connection(Socket);

impl Connection {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&Peer::new(0, 0))?;
        Ok(Self(socket))
    }

    fn dump(&mut self, request: &[u8]) -> io::Result<Vec<Sight>> {
        self.0.send(request, 0)?;
        let mut sights = Vec::new();
        loop {
            let (bytes, _) = self.0.recv_from_full()?;
            for answer in answers(&bytes) {
                match answer {
                    Answer::Socket(sight) => sights.push(sight),
                    Answer::End(0) => return Ok(sights),
                    Answer::End(number) => return Err(io::Error::from_raw_os_error(number)),
                }
            }
        }
    }

    fn end(&mut self, sight: &Sight, protocol: u8) -> Result<(), Error> {
        let request = finished(request(DESTROY, REQUEST | ACK, sight.family, protocol, &sight.id));
        self.0.send(&request, 0).map_err(Error::End)?;
        let (bytes, _) = self.0.recv_from_full().map_err(Error::End)?;
        match answers(&bytes).first() {
            // One that ended by itself meanwhile is as good.
            Some(Answer::End(0 | libc::ENOENT)) => Ok(()),
            Some(Answer::End(libc::EOPNOTSUPP)) => Err(Error::Unable),
            Some(Answer::End(number)) => Err(Error::End(io::Error::from_raw_os_error(*number))),
            _ => Err(Error::End(io::ErrorKind::InvalidData.into())),
        }
    }
}

#[cfg(test)]
mod tests;
