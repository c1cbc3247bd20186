//! The sandbox: network and mount namespace of the demonstration, which end with the last process in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::error::{Error, setup};
use super::scenario::AgentId;
use super::tools::ip;
use crate::dataplane::ebpf;

/// Directory of all files of the demonstration. It is in memory, and no process outside the sandbox sees it.
const DIRECTORY: &str = "/run/l4lbd-demo";

/// Address of the node with the daemon and the client.
pub const NODE: &str = "10.77.0.1";

/// Content of `/etc/resolv.conf`: the daemon's DNS server.
const RESOLV_CONF: &str = "nameserver 198.51.100.1\n";

/// Content of `/etc/nsswitch.conf`: hosts are looked up by DNS, whatever else this machine is configured for.
const NSSWITCH_CONF: &str = "hosts: files dns\n";

/// Paths in the sandbox.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The master's state document, which the daemon follows.
    pub state: PathBuf,
    pub config: PathBuf,
    /// The daemon's `state_dir`.
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    pub log: PathBuf,
    /// The control group of the demonstration's processes, if this host has cgroup2.
    pub cgroup: Option<PathBuf>,
    /// A BPF file system, if this kernel has one.
    pub pins: Option<PathBuf>,
}

impl Sandbox {
    /// Moves this process into new namespaces. To be called while it has one thread only. `cgroup` is the control group's
    /// path on the host.
    ///
    /// # Errors
    /// With the step that failed.
    pub fn enter(cgroup: Option<&Path>) -> Result<Self, Error> {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .map_err(|error| setup("create namespaces", error))?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .map_err(|error| setup("make mounts private", error))?;
        let directory = Path::new(DIRECTORY);
        // This hides the sockets of the host's resolver, service manager and name cache.
        mount(Some("l4lbd-demo"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
            .map_err(|error| setup("mount a tmpfs on /run", error))?;
        fs::create_dir_all(directory)
            .map_err(|error| setup("create a directory in the tmpfs on /run", error))?;
        let sandbox = Self {
            state: directory.join("state.json"),
            config: directory.join("l4lbd.toml"),
            state_dir: directory.join("state"),
            socket: directory.join("l4lbd.sock"),
            log: directory.join("l4lbd.log"),
            cgroup: cgroup
                .map(|path| bind(path, &directory.join("cgroup")))
                .transpose()
                .map_err(|error| setup("mount the control group", error))?,
            pins: bpf(&directory.join("bpf")),
        };
        // The host's /sys shows the host's network namespace.
        mount(Some("l4lbd-demo"), "/sys", Some("sysfs"), MsFlags::empty(), nothing)
            .map_err(|error| setup("mount sysfs on /sys", error))?;
        cover(Path::new("/etc/resolv.conf"), RESOLV_CONF)
            .map_err(|error| setup("mount a file over /etc/resolv.conf", error))?;
        match cover(Path::new("/etc/nsswitch.conf"), NSSWITCH_CONF) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(setup("mount a file over /etc/nsswitch.conf", error));
            }
            _ => {}
        }
        ip(&format!(
            "link set lo up\nlink add lan type bridge\naddress add {NODE}/24 dev lan\nlink set lan up\n"
        ))
        .map_err(|error| setup("create a bridge", error))?;
        Ok(sandbox)
    }

    /// Returns what the eBPF plane is attached to and where its programs are pinned. `None` if only the whole machine
    /// could be the place, which the demonstration leaves alone.
    pub fn ebpf(&self) -> Option<ebpf::Options> {
        let (cgroup, pins) = (Some(self.cgroup.clone()?), self.pins.as_ref()?.join("l4lbd"));
        // The timeout is that of a daemon without a configuration.
        Some(ebpf::Options {
            cgroup,
            pins,
            udp_timeout: Duration::from_secs(60),
            ejection: ebpf::Ejection::default(),
        })
    }

    /// Returns the last lines of the daemon's log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
    }
}

/// Returns the name of an agent's link on the bridge's side.
fn port(agent: AgentId) -> String {
    format!("port-{}", agent.0)
}

/// Connects the network namespace of the agent's process with the bridge.
pub fn connect(agent: AgentId, process: u32) -> io::Result<()> {
    let port = port(agent);
    ip(&format!("link add {port} master lan up type veth peer name eth0 netns {process}\n"))
}

/// Cuts an agent off the network.
pub fn disconnect(agent: AgentId) -> io::Result<()> {
    ip(&format!("link set {} down\n", port(agent)))
}

/// Mounts a directory of the host at another path too.
fn bind(from: &Path, to: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(to)?;
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(to.to_owned())
}

/// Mounts a BPF file system, if this kernel has one.
fn bpf(to: &Path) -> Option<PathBuf> {
    fs::create_dir_all(to).ok()?;
    mount(Some("l4lbd-demo"), to, Some("bpf"), MsFlags::empty(), Some("mode=0700")).ok()?;
    Some(to.to_owned())
}

/// Gives processes in the sandbox another content of a file. The file itself stays as it is.
fn cover(path: &Path, content: &str) -> io::Result<()> {
    let ours = Path::new(DIRECTORY).join(path.file_name().unwrap_or_default());
    fs::write(&ours, content)?;
    match fs::canonicalize(path) {
        Ok(target) => Ok(mount(Some(&ours), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?),
        // A symbolic link into the host's /run, such as systemd-resolved makes, leads nowhere in the sandbox.
        // Its target is created here, in our own /run.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let target = path.parent().unwrap_or(Path::new("/")).join(fs::read_link(path)?);
            let known = target.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path);
            if !fs::canonicalize(known)?.starts_with("/run") {
                return Err(error);
            }
            fs::create_dir_all(target.parent().unwrap_or(known))?;
            fs::copy(&ours, &target).map(drop)
        }
        Err(error) => Err(error),
    }
}
