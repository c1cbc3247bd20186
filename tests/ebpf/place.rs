//! Namespaces and a cgroup of the tests' own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use l4lbd::dataplane::ebpf::cgroup_tree;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Directory of the tests' pins: a BPF file system that only this process's mount namespace has.
pub const BPF: &str = "/run/l4lbd-ebpf-test";

/// Cgroup that this process moved to, which the tests attach to.
static CGROUP: OnceLock<PathBuf> = OnceLock::new();
/// Cgroup that this process came from.
static OUTSIDE: OnceLock<PathBuf> = OnceLock::new();

pub struct Place {
    cgroup: PathBuf,
    outside: PathBuf,
}

pub fn cgroup() -> &'static Path {
    CGROUP.get().expect("entered")
}

pub fn outside() -> &'static Path {
    OUTSIDE.get().expect("entered")
}

/// Enters namespaces and a cgroup. Must be called while the process has one thread.
pub fn enter() -> Result<Place, String> {
    let tree = cgroup_tree().ok_or("these tests need a cgroup v2 tree, and none is mounted here")?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .map_err(|error| format!("these tests need root, for namespaces of their own: {error}"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(|error| error.to_string())?;
    fs::create_dir_all(BPF).map_err(|error| format!("{BPF}: {error}"))?;
    mount(Some("bpf"), BPF, Some("bpf"), MsFlags::empty(), none)
        .map_err(|error| format!("these tests need a kernel with a BPF file system: {error}"))?;
    loopback_up()?;
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let own =
        own.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("this process is in no cgroup v2")?;
    let outside = tree.join(own);
    let cgroup = tree.join(format!("l4lbd-ebpf-test-{}", std::process::id()));
    fs::create_dir(&cgroup).map_err(|error| format!("{}: {error}", cgroup.display()))?;
    join(&cgroup, std::process::id()).map_err(|error| format!("{}: {error}", cgroup.display()))?;
    CGROUP.set(cgroup.clone()).expect("once");
    OUTSIDE.set(outside.clone()).expect("once");
    Ok(Place { cgroup, outside })
}

impl Place {
    pub fn leave(self) {
        join(&self.outside, std::process::id()).expect("move back");
        fs::remove_dir(&self.cgroup).expect("remove the tests' cgroup");
    }
}

pub fn join(cgroup: &Path, process: u32) -> std::io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), process.to_string())
}

pub fn loopback_up() -> Result<(), String> {
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    status.is_ok_and(|status| status.success()).then_some(()).ok_or("ip link set lo up failed".to_owned())
}
