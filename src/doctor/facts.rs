//! What was read of the node, before anything is judged. Plain data.
//!
//! A part that could not be read has the reason in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use caps::CapsHashSet;

use super::resolver::{Libc, NameReply};
use crate::dataplane::firewall::Chains;
use crate::dataplane::host::inventory::Surroundings;
use crate::dataplane::host::resolv::ResolverFile;
use crate::dataplane::plane::PlaneReading;
use crate::dataplane::{Node, PlaneKind};
use crate::status::Status;

/// A part that was read, or the reason why it was not.
pub type Known<T> = Result<T, String>;

/// Everything that the checks go by.
#[derive(Debug)]
pub struct NodeFacts {
    pub is_root: bool,
    pub config: ConfigFacts,
    pub daemon: DaemonFacts,
    pub kernel: KernelFacts,
    /// Data plane in use, or the one that a daemon would choose.
    pub plane: PlaneKind,
    /// Content of its table.
    pub table: Known<PlaneReading>,
    pub network: Known<(Node, Surroundings)>,
    /// Hosts that have answered this node on a network of its own.
    pub neighbours: BTreeSet<IpAddr>,
    pub firewall: Known<FirewallFacts>,
    pub sockets: Known<Vec<BoundSocket>>,
    pub programs: Known<Vec<Program>>,
    /// Name that is tried, and the address that it should have.
    pub name: Known<(String, IpAddr)>,
    /// The resolver of this node.
    pub resolver: Known<ResolverFacts>,
    /// One entry for each container that was visited.
    pub containers: Known<Vec<(String, Known<PlaceFacts>)>>,
    pub servers: Vec<ServerFacts>,
}

/// The configuration, as `l4lbd check` judges it.
#[derive(Clone, Debug, Default)]
pub struct ConfigFacts {
    /// Path of the file.
    pub file: String,
    /// Errors, one sentence each.
    pub problems: Vec<String>,
    /// Remarks, one sentence each.
    pub remarks: Vec<String>,
}

/// The running daemon.
#[derive(Debug)]
pub struct DaemonFacts {
    /// Its status, or why there is none.
    pub status: Known<Status>,
    /// False if the socket may not be used, so that nothing is known.
    pub may_ask: bool,
    pub process: Option<u32>,
    /// Effective capabilities of its process.
    pub capabilities: Known<CapsHashSet>,
}

/// Modules, settings, mounts and programs.
#[derive(Clone, Debug, Default)]
pub struct KernelFacts {
    /// Release, such as `6.1.0-18-amd64`.
    pub release: String,
    /// Modules in memory.
    pub loaded: BTreeSet<String>,
    /// Modules on disk and those that are built in; `None` if their lists cannot be read.
    pub available: Option<BTreeSet<String>>,
    /// Path below `/proc/sys` to value.
    pub sysctls: BTreeMap<String, String>,
    /// Settings that even root cannot write here.
    pub readonly: BTreeSet<String>,
    /// Reverse path filter of each link, as it acts.
    pub rp_filter: BTreeMap<String, u8>,
    /// Packets that a reverse path filter has dropped since the start of the network namespace.
    pub rp_filter_drops: u64,
    /// Tracked connections and the most that there may be.
    pub conntrack: Option<(u64, u64)>,
    /// True if the table of IPVS is there.
    pub has_ipvs: bool,
    /// Failure of the control group that eBPF needs.
    pub cgroup: Option<String>,
    /// Failure of the BPF file system that eBPF needs.
    pub bpf: Option<String>,
    /// Version line of `nft`, or why it cannot be run.
    pub nft: Option<String>,
}

/// Chains that drop, with the rules of their tables.
#[derive(Default)]
pub struct FirewallFacts {
    pub chains: Chains,
    /// Rules of each table with such a chain: family and name to the text that `nft` prints.
    pub rules: BTreeMap<(String, String), String>,
    /// Policies of iptables' older tables, as `iptables-legacy -S` prints them.
    pub old: String,
}

impl std::fmt::Debug for FirewallFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirewallFacts").field("rules", &self.rules).field("old", &self.old).finish()
    }
}

/// A socket that takes connections or datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSocket {
    pub is_tcp: bool,
    pub address: SocketAddr,
    /// Process that has it open, with its name; `None` if unknown.
    pub owner: Option<(u32, String)>,
}

/// A program that may be at work on the same parts of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub process: u32,
    pub kind: ProgramKind,
}

/// Kind of such a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// `l4lbd run`.
    L4lbd,
    KubeProxy,
    DcosNet,
}

/// The node's own resolver.
#[derive(Clone, Debug)]
pub struct ResolverFacts {
    /// Addresses that the resolver of libc gives for the name, with all that is configured below it.
    pub resolved: Known<Vec<IpAddr>>,
    pub place: PlaceFacts,
    /// True if systemd-resolved runs.
    pub has_resolved: bool,
}

/// Resolver of a place: its file, and what each of its servers says.
#[derive(Clone, Debug)]
pub struct PlaceFacts {
    pub libc: Libc,
    /// The file, or why it is not read.
    pub file: Known<ResolverFile>,
    /// Server and asked name to what it says.
    pub replies: BTreeMap<(SocketAddr, String), NameReply>,
}

/// A master, an agent or a Marathon.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Key of the configuration that names it.
    pub key: &'static str,
    /// Answer to the request that the daemon makes: what it has, or why there is none.
    pub state: Option<Known<String>>,
    /// URL without credentials.
    pub url: String,
    /// Seconds that its clock is ahead of this node's.
    pub clock: Known<i64>,
}
