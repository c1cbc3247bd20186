//! Errors of the eBPF data plane, each with its likely cause and what to do.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use caps::Capability;
use ipnet::IpNet;

use super::options::SCHEDULER;
use super::{abort, capabilities};
use crate::dataplane::op::Op;
use crate::dataplane::state::ServiceKey;

/// Reason why the eBPF data plane cannot be opened, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Permission(String),
    #[error(
        "no cgroup v2 tree is mounted on this node, and eBPF programs attach to one (try: mount -t cgroup2 none \
         /sys/fs/cgroup)"
    )]
    NoCgroup,
    #[error("cannot open the cgroup {} (see ebpf.cgroup): {source}", path.display())]
    Cgroup { path: PathBuf, source: io::Error },
    #[error(
        "{} is not in a cgroup v2 tree, and eBPF programs attach to no other; set ebpf.cgroup to a directory in one, \
         or leave it out to balance all processes of this node", .0.display()
    )]
    CgroupVersion(PathBuf),
    #[error(
        "{} is not on a BPF file system, and none can be mounted on {}: {source} (try: mount -t bpf bpf /sys/fs/bpf)",
        path.display(), parent.display()
    )]
    Mount { path: PathBuf, parent: PathBuf, source: io::Error },
    #[error(
        "{} is not on a BPF file system, and none is mounted on {}, because that is not empty; set ebpf.pins to a \
         directory in a BPF file system, which is usually /sys/fs/bpf",
        path.display(), parent.display()
    )]
    NotBpf { path: PathBuf, parent: PathBuf },
    #[error("cannot use the pin {} (see ebpf.pins): {source}", path.display())]
    Pin { path: PathBuf, source: io::Error },
    #[error(
        "{} is pinned, but is not the map or link of l4lbd that belongs there; remove it, or set ebpf.pins to another \
         directory", .0.display()
    )]
    Foreign(PathBuf),
    #[error(
        "{source}; the eBPF programs and maps are not all pinned, so VIPs work only as long as this daemon runs (it \
         tries again in each pass)"
    )]
    Unpinned { source: Box<Error> },
    #[error("{0}")]
    Load(String),
    #[error(
        "cannot attach the program {hook} to the cgroup {}: {source}; another tool may have attached its own program \
         exclusively (see: bpftool cgroup show {0})", cgroup.display()
    )]
    Exclusive { hook: &'static str, cgroup: PathBuf, source: io::Error },
    #[error("cannot attach the program {hook} to the cgroup {}: {source}", cgroup.display())]
    Attach { hook: &'static str, cgroup: PathBuf, source: io::Error },
    #[error(
        "connected UDP sockets of deleted servers cannot be found: {0} (the kernel must be built with \
         CONFIG_DEBUG_INFO_BTF)"
    )]
    Iterator(String),
    #[error("cannot read or write the eBPF map {map}: {source}")]
    Map { map: &'static str, source: io::Error },
    #[error("cannot read the kernel's clock: {0}")]
    Clock(#[source] io::Error),
    #[error("the eBPF maps are full: they hold {limit} {what} at most")]
    Full { what: &'static str, limit: u32 },
    #[error("the service does not exist (was it removed by another program?)")]
    NoService,
    #[error("the service {0} exists already")]
    Exists(ServiceKey),
    #[error("the service has no server {0} (was it removed by another program?)")]
    NoServer(SocketAddr),
    #[error("the service has the server {0} already")]
    HasServer(SocketAddr),
    #[error("the service {0} has 65535 servers already, which is the most that eBPF maps can hold")]
    TooMany(ServiceKey),
    #[error("the server {server} is not of the same address family as its service {service}")]
    Family { server: SocketAddr, service: ServiceKey },
    #[error("{0} is an IPv4 address in IPv6 form; use the IPv4 address itself")]
    Mapped(IpAddr),
    #[error(
        "the eBPF data plane knows no forwarding methods and connection limits of servers, only their weights"
    )]
    Limits,
    #[error(
        "the eBPF data plane has only the scheduler {SCHEDULER} without flags, not {scheduler:?} with flags {flags}"
    )]
    Scheduler { scheduler: String, flags: u32 },
    #[error("the network {0} includes all IPv4 addresses; use a longer prefix")]
    Network(IpNet),
    #[error("there is no network {0} in the eBPF maps (was it removed by another program?)")]
    NoNetwork(IpNet),
    #[error("not an operation for the eBPF data plane: {0}")]
    Unsupported(Op),
    #[error("connections to servers that were deleted stay open until the next pass: {0}")]
    Sockets(#[source] abort::Error),
}

impl Error {
    /// Returns true if this process may not enter the directory of the pins.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Pin { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Explains why the kernel refuses eBPF to this process.
pub fn permission() -> Error {
    let missing = capabilities::missing_for_ebpf();
    Error::Permission(match missing.is_empty() {
        true => {
            "the kernel refuses eBPF to this process although it has the capabilities; is the kernel locked \
                 down, or bpf(2) blocked by seccomp (systemd: SystemCallFilter=bpf)?"
                .to_owned()
        }
        false => format!(
            "this process lacks {}, which eBPF needs (systemd: install systemd/drop-ins/ebpf.conf)",
            capabilities::names(&missing)
        ),
    })
}

/// Explains why a pin cannot be used. A process without the capabilities may usually not enter the
/// directory either, and then they are what is missing.
pub fn pin(path: &Path, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::PermissionDenied if !capabilities::missing_for_ebpf().is_empty() => permission(),
        _ => Error::Pin { path: path.to_owned(), source },
    }
}

/// Converts an error of aya, with all its causes.
pub fn load(error: &(dyn std::error::Error + 'static)) -> Error {
    let mut text = error.to_string();
    let mut cause = error.source();
    let mut code = None;
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            code = io.raw_os_error();
        }
        // Many of them repeat the text of their cause.
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    match code {
        Some(libc::EPERM) => permission(),
        // The verifier refuses more programs of a process without CAP_PERFMON, and says nothing of it.
        Some(libc::EACCES) if capabilities::missing_for_ebpf().contains(&Capability::CAP_PERFMON) => {
            permission()
        }
        Some(libc::ENOSYS) => Error::Load(format!(
            "this kernel ({}) has no bpf(2) (CONFIG_BPF_SYSCALL); use another kernel, or IPVS",
            kernel_release()
        )),
        _ => Error::Load(format!(
            "this kernel ({}) refuses the eBPF program, which needs 5.10 or newer: {}",
            kernel_release(),
            shortened(&text)
        )),
    }
}

/// Reads the release of the running kernel, such as `6.1.0-18-amd64`.
fn kernel_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(|_| "of unknown release".to_owned(), |release| release.trim().to_owned())
}

/// Cuts the middle out of a long text. A verifier's log may have megabytes, and names the reason at
/// its end.
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

    #[test]
    fn shortened_keeps_both_ends_of_a_long_log() {
        let log = format!("first{}last", "x".repeat(100_000));
        let short = shortened(&log);
        assert!(short.len() < 1300 && short.starts_with("first") && short.ends_with("last"));
        assert_eq!(shortened("as it is"), "as it is");
    }

    #[test]
    fn load_names_the_kernel_and_all_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("the program cannot be loaded")]
        struct Outer(#[source] io::Error);
        let text = load(&Outer(io::Error::from_raw_os_error(libc::EINVAL))).to_string();
        assert!(text.contains(&kernel_release()), "{text}");
        assert!(text.ends_with("the program cannot be loaded: Invalid argument (os error 22)"), "{text}");
    }
}
