//! The stage: namespaces and mounts of this process and its children, which go with the last of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::scenario::Agent;
use super::tools::ip;
use super::{Error, step};
use crate::dataplane::ebpf;

/// Everything that is written is here, in memory and seen by nobody else.
const DIRECTORY: &str = "/run/l4lbd-demo";

/// The node that the daemon and the client are on.
pub const NODE: &str = "10.77.0.1";

/// The daemon's DNS server.
const RESOLVER: &str = "nameserver 198.51.100.1\n";

/// Look-ups of hosts go to the name server, whatever else this machine has.
const NAME_SERVICES: &str = "hosts: files dns\n";

/// Where things are on the stage.
#[derive(Clone, Debug)]
pub struct Stage {
    pub state: PathBuf,
    pub config: PathBuf,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    pub log: PathBuf,
    /// The control group that clients are in.
    pub cgroup: Option<PathBuf>,
    /// A BPF file system, where the kernel has one.
    pub pins: Option<PathBuf>,
}

impl Stage {
    /// Takes this process to namespaces of its own; to be called while it has one thread only. `cgroup` is
    /// where the host has it.
    ///
    /// # Errors
    /// What could not be made, and why.
    pub fn enter(cgroup: Option<&Path>) -> Result<Self, Error> {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .map_err(|error| step("make namespaces", error))?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .map_err(|error| step("keep mounts to ourselves", error))?;
        let directory = Path::new(DIRECTORY);
        // With it go the sockets of the host's resolver, service manager and name cache.
        mount(Some("l4lbd-demo"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
            .map_err(|error| step("mount a tmpfs on /run", error))?;
        fs::create_dir_all(directory).map_err(|error| step("use the tmpfs on /run", error))?;
        let stage = Self {
            state: directory.join("state.json"),
            config: directory.join("l4lbd.toml"),
            state_dir: directory.join("state"),
            socket: directory.join("l4lbd.sock"),
            log: directory.join("l4lbd.log"),
            cgroup: cgroup
                .map(|path| bind(path, &directory.join("cgroup")))
                .transpose()
                .map_err(|error| step("mount the control group", error))?,
            pins: bpf(&directory.join("bpf")),
        };
        // That of the new network namespace.
        mount(Some("l4lbd-demo"), "/sys", Some("sysfs"), MsFlags::empty(), nothing)
            .map_err(|error| step("mount sysfs on /sys", error))?;
        cover(Path::new("/etc/resolv.conf"), RESOLVER)
            .map_err(|error| step("put a file over /etc/resolv.conf", error))?;
        match cover(Path::new("/etc/nsswitch.conf"), NAME_SERVICES) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(step("put a file over /etc/nsswitch.conf", error));
            }
            _ => {}
        }
        ip(&format!(
            "link set lo up\nlink add lan type bridge\naddress add {NODE}/24 dev lan\nlink set lan up\n"
        ))
        .map_err(|error| step("make a bridge", error))?;
        Ok(stage)
    }

    /// Where programs may hold, and be kept; `None` where they would hold for the whole machine.
    pub fn ebpf(&self) -> Option<ebpf::Options> {
        Some(ebpf::Options { cgroup: Some(self.cgroup.clone()?), pins: self.pins.as_ref()?.join("l4lbd") })
    }

    /// Puts a file in the place of what was there, so that readers see one or the other.
    pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
        let draft = path.with_extension("new");
        fs::write(&draft, content)?;
        fs::rename(draft, path)
    }

    /// The last lines of the daemon's log.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
    }
}

/// The link of an agent, on this side.
fn port(agent: Agent) -> String {
    format!("port-{}", agent.0)
}

/// Connects the network namespace that the process is in.
pub fn connect(agent: Agent, process: u32) -> io::Result<()> {
    let port = port(agent);
    ip(&format!("link add {port} master lan up type veth peer name eth0 netns {process}\n"))
}

/// Takes an agent off the network.
pub fn disconnect(agent: Agent) -> io::Result<()> {
    ip(&format!("link set {} down\n", port(agent)))
}

fn bind(from: &Path, to: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(to)?;
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(to.to_owned())
}

fn bpf(to: &Path) -> Option<PathBuf> {
    fs::create_dir_all(to).ok()?;
    mount(Some("l4lbd-demo"), to, Some("bpf"), MsFlags::empty(), Some("mode=0700")).ok()?;
    Some(to.to_owned())
}

/// Shows processes on the stage another content of a file, which stays as it is.
fn cover(path: &Path, content: &str) -> io::Result<()> {
    let ours = Path::new(DIRECTORY).join(path.file_name().unwrap_or_default());
    fs::write(&ours, content)?;
    match fs::canonicalize(path) {
        Ok(target) => Ok(mount(Some(&ours), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?),
        // A link into the /run that is covered, as systemd-resolved and others make it.
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
