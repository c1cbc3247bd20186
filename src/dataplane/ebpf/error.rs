//! What can go wrong, with what to do about it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::abort;
use crate::dataplane::{Op, ServiceKey};

/// Why the eBPF data plane can't be opened, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not allowed to use eBPF: {0}")]
    Permission(String),
    #[error("this node has no cgroup v2 tree (try: mount -t cgroup2 none /sys/fs/cgroup)")]
    NoCgroup,
    #[error("cannot open the cgroup {}: {source}", path.display())]
    Cgroup { path: PathBuf, source: io::Error },
    #[error("{} is not in a cgroup v2 tree (a v1 hierarchy has no eBPF programs)", .0.display())]
    CgroupVersion(PathBuf),
    #[error(
        "{} is not on a BPF file system, and none can be mounted on {}: {source} (try: mount -t bpf bpf /sys/fs/bpf)",
        path.display(), parent.display()
    )]
    Mount { path: PathBuf, parent: PathBuf, source: io::Error },
    #[error(
        "{} is not on a BPF file system, and {} has other files in it (is the path right? one is usually mounted on /sys/fs/bpf)",
        path.display(), parent.display()
    )]
    NotBpf { path: PathBuf, parent: PathBuf },
    #[error("cannot use the pin {}: {source}", path.display())]
    Pin { path: PathBuf, source: io::Error },
    #[error("{} is pinned and is not ours (remove it, or name another directory for the pins)", .0.display())]
    Foreign(PathBuf),
    #[error("the kernel does not take the program: {0}")]
    Load(String),
    #[error(
        "cannot attach {hook} to the cgroup {}: {source}; another tool's program may be attached there for itself \
         alone (see: bpftool cgroup show {0})", cgroup.display()
    )]
    Exclusive { hook: &'static str, cgroup: PathBuf, source: io::Error },
    #[error("cannot attach {hook} to the cgroup {}: {source}", cgroup.display())]
    Attach { hook: &'static str, cgroup: PathBuf, source: io::Error },
    #[error("cannot use the map {map}: {source}")]
    Map { map: &'static str, source: io::Error },
    #[error("{what} are full: {limit} at most")]
    Full { what: &'static str, limit: u32 },
    #[error("the service does not exist (did somebody remove it?)")]
    NoService,
    #[error("the service {0} exists already")]
    Exists(ServiceKey),
    #[error("the service has no server {0} (did somebody remove it?)")]
    NoServer(SocketAddr),
    #[error("the service has the server {0} already")]
    HasServer(SocketAddr),
    #[error("the service {0} has 65535 servers, and no more are possible")]
    TooMany(ServiceKey),
    #[error("the server {server} needs the address family of the service {service}")]
    Family { server: SocketAddr, service: ServiceKey },
    #[error("{0} is an IPv4 address in an IPv6 one; give the IPv4 address itself")]
    Mapped(IpAddr),
    #[error("servers have a weight here, and neither another forwarding nor limits of connections")]
    Limits,
    #[error(
        "there is one way to choose here, {}, and not {scheduler:?} with flags {flags}",
        super::SCHEDULER
    )]
    Scheduler { scheduler: String, flags: u32 },
    #[error("the network {0} has all IPv4 addresses in it")]
    Network(IpNet),
    #[error("there is no network {0}")]
    NoNetwork(IpNet),
    #[error("not an operation for the eBPF data plane: {0}")]
    Unsupported(Op),
    #[error("the server is deleted, but connections to it remain: {0}")]
    Sockets(#[source] abort::Error),
}

impl Error {
    /// Whether the directory of the pins is closed to this process.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Pin { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

const CAPABILITIES: [(u32, &str); 3] = [(39, "CAP_BPF"), (12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON")];
/// To find the network namespaces of other users' processes, and to enter them.
const FOR_NAMESPACES: [(u32, &str); 2] = [(19, "CAP_SYS_PTRACE"), (CAP_SYS_ADMIN, "CAP_SYS_ADMIN")];
const CAP_SYS_ADMIN: u32 = 21;

/// What a refusal of the kernel's to this process means.
pub fn permission() -> Error {
    let missing = missing(&own_status());
    Error::Permission(match missing.is_empty() {
        true => "this process has the capabilities; is the kernel locked down, or bpf(2) filtered (seccomp)?"
            .to_owned(),
        false => {
            format!(
                "this process lacks {} (a service has them by systemd/drop-ins/ebpf.conf)",
                missing.join(", ")
            )
        }
    })
}

/// What it means that a pin can't be used: without rights the directory is usually closed, too.
pub fn pin(path: &Path, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::PermissionDenied if !missing(&own_status()).is_empty() => permission(),
        _ => Error::Pin { path: path.to_owned(), source },
    }
}

/// What this process lacks to end connections in the network namespaces of others.
pub fn missing_for_namespaces() -> Vec<&'static str> {
    lacking(&own_status(), &FOR_NAMESPACES)
}

fn own_status() -> String {
    std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default()
}

/// The capabilities for eBPF that a process lacks, by its `/proc/PID/status`.
fn missing(status: &str) -> Vec<&'static str> {
    if lacking(status, &[(CAP_SYS_ADMIN, "")]).is_empty() {
        // Which stands for the two others.
        return lacking(status, &[(12, "CAP_NET_ADMIN")]);
    }
    lacking(status, &CAPABILITIES)
}

/// Those of `wanted` that a process lacks; none where that can't be told.
fn lacking(status: &str, wanted: &[(u32, &'static str)]) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else {
        return Vec::new();
    };
    wanted.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name).collect()
}

/// Makes an error of what aya says.
pub fn load(error: &(dyn std::error::Error + 'static)) -> Error {
    let mut text = error.to_string();
    let mut cause = error.source();
    let mut code = None;
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            code = io.raw_os_error();
        }
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    match code {
        Some(libc::EPERM) => permission(),
        // The verifier takes more liberties from who may watch the kernel.
        Some(libc::EACCES) if matches!(permission(), Error::Permission(text) if text.contains("CAP_PERFMON")) => {
            permission()
        }
        Some(libc::ENOSYS) => Error::Load(format!("{text} (is this kernel built without bpf(2)?)")),
        _ => Error::Load(shortened(&text)),
    }
}

/// The end of a verifier's log tells what was wrong, and all of it may be megabytes.
fn shortened(text: &str) -> String {
    const KEPT: usize = 600;
    let count = text.chars().count();
    if count <= 2 * KEPT {
        return text.to_owned();
    }
    let head: String = text.chars().take(KEPT).collect();
    let tail: String = text.chars().skip(count - KEPT).collect();
    format!("{head} ... {tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "Name:\tx\nCapEff:\t000001ffffffffff\n";

    #[test]
    fn names_the_missing_capabilities() {
        assert!(missing(ROOT).is_empty());
        assert_eq!(missing("CapEff:\t0000000000000000\n"), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing("CapEff:\t0000008000001000\n"), ["CAP_PERFMON"]);
        assert_eq!(missing("CapEff:\t0000000000200000\n"), ["CAP_NET_ADMIN"]);
        assert!(missing("CapEff:\t0000000000201000\n").is_empty());
        assert!(missing("").is_empty());
        assert_eq!(lacking("CapEff:\t0000000000200000\n", &FOR_NAMESPACES), ["CAP_SYS_PTRACE"]);
    }

    #[test]
    fn keeps_both_ends_of_a_long_log() {
        let log = format!("first{}last", "x".repeat(100_000));
        let short = shortened(&log);
        assert!(short.len() < 1300 && short.starts_with("first") && short.ends_with("last"));
        assert_eq!(shortened("as it is"), "as it is");
    }
}
