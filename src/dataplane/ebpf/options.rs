//! Settings of the eBPF data plane, and the name of its scheduler.

use std::path::PathBuf;

/// Name of the only scheduler ("power of two choices"): of two random servers the one with fewer
/// connections for its weight takes a new connection. A datagram of an unconnected socket goes to a
/// random server.
pub const SCHEDULER: &str = "least-of-two";

/// Settings of the eBPF data plane: the cgroup to attach to and the directory for the pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Cgroup whose processes are balanced. `None` is the root of the cgroup v2 tree, which has every
    /// process of the node.
    pub cgroup: Option<PathBuf>,
    /// Directory on a BPF file system, such as `/sys/fs/bpf/l4lbd`. It is created if it is missing. If
    /// there is no such file system, one is mounted on its parent.
    pub pins: PathBuf,
}
