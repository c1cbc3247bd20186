//! Settings of the eBPF data plane, and the name of its scheduler.

use std::path::PathBuf;
use std::time::Duration;

/// Name of the only scheduler ("power of two choices"): of two random servers the one with fewer
/// connections for its weight takes a new connection. An unconnected socket is given a random server, and
/// keeps it.
pub const SCHEDULER: &str = "least-of-two";

/// Flag of a service none of whose servers is ejected.
pub const UNEJECTED: u32 = 1;

/// Settings of the eBPF data plane: the cgroup to attach to, the directory for the pins, and a timeout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Cgroup whose processes are balanced. `None` is the root of the cgroup v2 tree, which has every
    /// process of the node.
    pub cgroup: Option<PathBuf>,
    /// Directory on a BPF file system, such as `/sys/fs/bpf/l4lbd`. It is created if it is missing. If
    /// there is no such file system, one is mounted on its parent.
    pub pins: PathBuf,
    /// Time without a datagram after which an unconnected UDP socket may get another server.
    pub udp_timeout: Duration,
    pub ejection: Ejection,
}

/// Ejection of servers that fail: a network namespace whose connects to a server failed makes none there for a
/// while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row for which a server is ejected; 0 for never.
    pub after: u32,
    /// Time of the first ejection. Each one that follows without a success takes twice as long.
    pub time: Duration,
    /// Time of the longest one.
    pub limit: Duration,
}

/// Ejection by a daemon without a configuration.
impl Default for Ejection {
    fn default() -> Self {
        Self { after: 3, time: Duration::from_secs(1), limit: Duration::from_secs(30) }
    }
}
