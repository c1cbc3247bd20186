//! Places from which clients ask and dial: this node, a network namespace, or a container.
//!
//! A thread enters a network namespace for good, so each visit has a thread of its own, which ends with it. One that
//! does not come back is given up: the process ends without it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::facts::{Known, PlaceFacts};
use super::files::Container;
use super::resolver::{self, Libc, NameReply, Said};
use crate::dataplane::host::resolv::ResolverFile;
use crate::dns::forward::{Failure, Tally, ask};

/// Longest wait for a nameserver.
const ANSWER: Duration = Duration::from_millis(2500);

/// Longest visit.
pub const VISIT: Duration = Duration::from_secs(8);

/// Path of a resolver's file below the root of a place.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Directory of `ip netns` for the files of a namespace.
const NETNS_FILES: &str = "/etc/netns";

/// Place of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkPlace {
    Node,
    /// A network namespace that is mounted or pinned at a path.
    Netns(PathBuf),
    /// The network namespace and the files of a process.
    Container(u32),
}

impl fmt::Display for NetworkPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("this node"),
            Self::Netns(path) => write!(f, "the network namespace {}", path.display()),
            Self::Container(process) => write!(f, "the container of process {process}"),
        }
    }
}

/// Does something that may hang on a thread of its own, and gives it up after the deadline.
///
/// # Errors
/// When it took too long, or could not begin.
pub async fn apart<T: Send + 'static>(
    what: &str,
    deadline: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Known<T> {
    let (sender, receiver) = oneshot::channel();
    let thread = thread::Builder::new().spawn(move || {
        // It was given up if that fails.
        let _ = sender.send(work());
    });
    thread.map_err(|error| format!("{what}: no thread: {error}"))?;
    match timeout(deadline, receiver).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(format!("{what}: ended unexpectedly, which is a fault of l4lbd")),
        Err(_) => Err(format!("{what}: took longer than {} s and was given up", deadline.as_secs())),
    }
}

/// Resolver of a place, before it is asked.
#[derive(Clone, Debug)]
pub struct PlaceFiles {
    pub libc: Libc,
    pub file: Known<ResolverFile>,
}

/// Does something asynchronous with the sockets and files of a place.
///
/// # Errors
/// When the place cannot be entered, or it took too long.
pub async fn visit<T, F>(
    place: &NetworkPlace,
    work: impl FnOnce(PlaceFiles) -> F + Send + 'static,
) -> Known<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (what, place) = (place.to_string(), place.clone());
    let visited = apart(&what, VISIT, move || {
        let files = enter(&place)?;
        // Its sockets are made on this thread, and so in the namespace of the place.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let done = runtime.block_on(work(files));
        // Dropping it would wait for work that blocks, for ever if that hangs.
        runtime.shutdown_background();
        Ok(done)
    });
    visited.await?
}

/// Has this thread enter the place, and reads its files.
fn enter(place: &NetworkPlace) -> Result<PlaceFiles, String> {
    let refused = |error: nix::Error| match error {
        nix::Error::EPERM => "not allowed to enter it: run as root".to_owned(),
        nix::Error::EINVAL => "it is no network namespace".to_owned(),
        error => format!("cannot enter it: {}", error.desc()),
    };
    match place {
        NetworkPlace::Node => Ok(PlaceFiles { libc: Libc::Glibc, file: Ok(ResolverFile::read()) }),
        NetworkPlace::Netns(path) => {
            // Whatever else is at the path, opening it does not wait.
            let namespace: File = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(path)
                .map_err(|error| error.to_string())?;
            setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(refused)?;
            Ok(PlaceFiles { libc: Libc::Glibc, file: Ok(file_of_namespace(path)) })
        }
        NetworkPlace::Container(process) => {
            let container = Container::open(*process)?;
            let text = container.read(RESOLV_CONF);
            let libc = container.libc();
            // By the descriptor, because the number may be that of another process by now.
            setns(container.process(), CloneFlags::CLONE_NEWNET).map_err(refused)?;
            Ok(PlaceFiles { libc, file: text.map(|text| ResolverFile::parse(&text)) })
        }
    }
}

/// Returns the file that `ip netns exec` would show in a namespace: its own one, or the node's.
fn file_of_namespace(path: &Path) -> ResolverFile {
    let own = path.file_name().map(|name| Path::new(NETNS_FILES).join(name).join("resolv.conf"));
    // Nothing but a regular file: reading a FIFO would wait for its writer.
    let text = own.filter(|path| path.is_file()).and_then(|path| std::fs::read_to_string(path).ok());
    text.map_or_else(ResolverFile::read, |text| ResolverFile::parse(&text))
}

/// Asks each server of a place for each name that its resolver would ask for.
pub async fn probe(files: PlaceFiles, name: String, ipv4: bool) -> PlaceFacts {
    let PlaceFiles { libc, file } = files;
    let mut replies = BTreeMap::new();
    if let Ok(file) = &file {
        let mut questions = JoinSet::new();
        for server in resolver::servers(file) {
            for candidate in resolver::candidates(libc, file, &name) {
                questions.spawn(async move {
                    let reply = question(server, &candidate, ipv4).await;
                    ((server, candidate), reply)
                });
            }
        }
        while let Some(answered) = questions.join_next().await {
            replies.extend(answered.ok());
        }
    }
    PlaceFacts { libc, file, replies }
}

/// Asks one server for the addresses of a name.
pub async fn question(server: SocketAddr, name: &str, ipv4: bool) -> NameReply {
    let started = Instant::now();
    let said = match Name::from_ascii(format!("{}.", name.trim_end_matches('.'))) {
        Ok(name) => {
            let kind = if ipv4 { RecordType::A } else { RecordType::AAAA };
            let forged = Tally::default();
            match timeout(ANSWER, ask(server, &Query::query(name, kind), &forged)).await {
                Ok(answered) => said(answered),
                Err(_) => Said::Silence,
            }
        }
        Err(error) => Said::Unreachable(format!("{name} is no name: {error}")),
    };
    NameReply { said, millis: started.elapsed().as_millis().try_into().unwrap_or(u64::MAX) }
}

fn said(answered: Result<Message, Failure>) -> Said {
    match answered {
        Ok(message) => {
            let address = |data: &RData| match data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            };
            let addresses: Vec<IpAddr> =
                message.answers.iter().filter_map(|record| address(&record.data)).collect();
            match message.response_code {
                _ if !addresses.is_empty() => Said::Addresses(addresses),
                ResponseCode::NXDomain => Said::NoName,
                _ => Said::NoData,
            }
        }
        Err(Failure::Code(code)) => Said::Code(code_name(code)),
        Err(Failure::Io(error)) => Said::Unreachable(error.to_string()),
        Err(Failure::Garbage) => Said::Code("an answer that cannot be read".to_owned()),
    }
}

/// Returns the name of a code as DNS tools show it.
fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_that_hangs_is_given_up() {
        let (_keep, never) = std::sync::mpsc::channel::<()>();
        let hung = apart("a file", Duration::from_millis(10), move || never.recv().is_ok()).await;
        assert!(hung.unwrap_err().starts_with("a file: took longer than"));
        assert_eq!(apart("a file", VISIT, || 1).await, Ok(1));
    }

    #[tokio::test]
    async fn a_path_that_is_no_namespace_is_told() {
        for path in ["/nowhere", "/dev/null", "/proc/self/ns/uts"] {
            let visited = visit(&NetworkPlace::Netns(path.into()), async |_| ()).await;
            assert!(visited.is_err(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told() {
        // A port that was free a moment ago is refused at once.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        drop(socket);
        let reply = question(server, "web.marathon.l4lb.thisdcos.directory", true).await;
        assert!(matches!(reply.said, Said::Unreachable(_)), "{reply:?}");
        let reply = question(server, "a..b", true).await;
        assert!(matches!(&reply.said, Said::Unreachable(error) if error.contains("is no name")), "{reply:?}");
    }
}
