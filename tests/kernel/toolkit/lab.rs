//! The lab: an agent, the machines next to it and containers on its bridge, each its own network namespace.
//!
//! ```text
//!  remote 192.168.50.2, .3 ── lan ── agent 192.168.50.1 ── docker0 172.17.1.1 ──┬── container 172.17.1.11
//!         fd50::2                          fd50::1                               └── container 172.17.1.12
//! ```
//!
//! The remote machine stands for every other agent, and knows no way to the containers. Everything
//! goes when the lab is dropped, except what the daemon wrote to its log: [`take_last_words`] reads
//! that for a failed test.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};

use super::host::Host;
use super::plane::{self, Plane};
use super::state::Task;

pub const AGENT: &str = "192.168.50.1";
pub const REMOTE: &str = "192.168.50.2";
pub const THIRD: &str = "192.168.50.3";
pub const AGENT6: &str = "fd50::1";
pub const REMOTE6: &str = "fd50::2";

/// Sockets cannot be made on every file system; this one is the guest's own.
const DIRECTORY: &str = "/run/l4lbd-test";

/// A BPF file system, which the daemon mounts if nobody else has.
pub(super) const BPF: &str = "/sys/fs/bpf";

static LABS: AtomicUsize = AtomicUsize::new(0);

pub struct Lab {
    pub directory: PathBuf,
    /// Where the daemon keeps its programs.
    pub pins: PathBuf,
    pub agent: Host,
    pub remote: Host,
    containers: Vec<(u8, Host)>,
    /// Every task that was ever published.
    pub(super) known: Mutex<Vec<Task>>,
    /// Where the daemon asks for the state, with how much patience, and how often it looks at the kernel
    /// by itself.
    pub source: String,
    pub mass_loss_polls: u32,
    pub audit: &'static str,
    /// Directory of programs that stand in for those of the machine, for the daemon alone.
    pub programs: Option<PathBuf>,
}

impl Lab {
    /// An agent and its neighbour.
    pub fn new() -> Result<Self> {
        Self::with_containers(&[])
    }

    /// ... and containers, named by the last byte of their address, on a bridge as Docker makes it:
    /// what leaves by another link is masqueraded.
    pub fn with_containers(numbers: &[u8]) -> Result<Self> {
        let directory = directory_of(thread::current().name().unwrap_or("main"));
        fs::create_dir_all(&directory)?;
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        let namespace = |host: &str| format!("lab{lab}-{host}");
        let (agent, remote) = (namespace("agent"), namespace("remote"));

        let mut commands = format!(
            "netns add {agent}\nnetns add {remote}\n\
             link add lan netns {agent} type veth peer name eth0 netns {remote}\n"
        );
        for number in numbers {
            let container = namespace(&format!("c{number}"));
            writeln!(commands, "netns add {container}")?;
            writeln!(
                commands,
                "link add v{number} netns {agent} type veth peer name eth0 netns {container}"
            )?;
        }
        ip_batch(&commands)?;
        let lab = Self {
            source: format!("file:{}/state.json", directory.display()),
            mass_loss_polls: 5,
            audit: "1s",
            programs: None,
            pins: Path::new(BPF).join(directory.file_name().unwrap_or_default()),
            directory,
            agent: Host::enter(agent)?,
            remote: Host::enter(remote)?,
            containers: numbers
                .iter()
                .map(|number| Ok((*number, Host::enter(namespace(&format!("c{number}")))?)))
                .collect::<Result<_>>()?,
            known: Mutex::default(),
        };

        lab.wire()?;
        Ok(lab)
    }

    fn wire(&self) -> Result<()> {
        let up = "link set lo up\nlink set eth0 up\n";
        self.remote.configure(&format!(
            "{up}addr add {REMOTE}/24 dev eth0\naddr add {THIRD}/24 dev eth0\n\
             addr add {REMOTE6}/64 dev eth0 nodad\n"
        ))?;
        let mut agent = format!(
            "link set lo up\nlink set lan up\n\
             addr add {AGENT}/24 dev lan\naddr add {AGENT6}/64 dev lan nodad\n\
             route add default via {REMOTE}\n"
        );
        if !self.containers.is_empty() {
            agent.push_str(
                "link add docker0 type bridge\naddr add 172.17.1.1/24 dev docker0\nlink set docker0 up\n",
            );
        }
        for (number, container) in &self.containers {
            container.configure(&format!(
                "{up}addr add 172.17.1.{number}/24 dev eth0\nroute add default via 172.17.1.1\n"
            ))?;
            writeln!(agent, "link set v{number} master docker0 up")?;
        }
        self.agent.configure(&agent)?;
        if plane::current() == Plane::Ebpf {
            // What every container runtime does; IPVS' own needs are the daemon's matter.
            self.agent.sysctl("net.ipv4.ip_forward", "1")?;
        }
        if !self.containers.is_empty() {
            self.agent.nft(
                "table ip docker {
                   chain postrouting {
                     type nat hook postrouting priority srcnat
                     ip saddr 172.17.1.0/24 oifname != \"docker0\" masquerade
                   }
                 }",
            )?;
            self.bridge_netfilter(false)?;
        }
        Ok(())
    }

    pub fn container(&self, number: u8) -> &Host {
        let (_, host) =
            self.containers.iter().find(|(other, _)| *other == number).expect("a container of this lab");
        host
    }

    /// Whether packets between ports of the bridge pass the agent's netfilter rules.
    pub fn bridge_netfilter(&self, on: bool) -> Result<()> {
        self.agent.sysctl("net.bridge.bridge-nf-call-iptables", if on { "1" } else { "0" })
    }

    /// Whether a container may be answered through the port of the bridge that it came from.
    pub fn hairpin(&self, number: u8, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        self.agent.run(&["bridge", "link", "set", "dev", &format!("v{number}"), "hairpin", state]).map(drop)
    }

    /// Publishes a container's TCP port on every address of the agent, as Docker and the CNI port
    /// mapper do it.
    pub fn publish_port(&self, host_port: u16, container: u8, container_port: u16) -> Result<()> {
        let container = SocketAddr::from(([172, 17, 1, container], container_port));
        self.agent.publish_ports(&[(host_port, container)])
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Programs hold for all processes of this kernel.
        let _ = fs::remove_dir_all(&self.pins);
        let hosts =
            [&self.agent, &self.remote].into_iter().chain(self.containers.iter().map(|(_, host)| host));
        let commands: String = hosts.map(|host| format!("netns delete {}\n", host.name)).collect();
        let _ = ip_batch(&commands);
    }
}

/// Once, before the first lab.
pub fn prepare() -> Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    fs::create_dir_all("/run/netns")?;
    Ok(())
}

/// The end of the logs that a test left behind, which are removed.
pub fn take_last_words(test: &str) -> String {
    let directory = directory_of(test);
    let mut words = String::new();
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let _ = writeln!(words, "--- end of {}", entry.file_name().display());
            for line in &lines[lines.len().saturating_sub(30)..] {
                let _ = writeln!(words, "{line}");
            }
        }
    }
    let _ = fs::remove_dir_all(directory);
    words
}

pub fn socket_address(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is not address:port"))
}

fn directory_of(test: &str) -> PathBuf {
    Path::new(DIRECTORY).join(test.replace("::", "-"))
}

pub(super) fn ip_batch(commands: &str) -> Result<()> {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().context("ip")?;
    child.stdin.take().context("ip's input")?.write_all(commands.as_bytes())?;
    ensure!(child.wait()?.success(), "ip -batch failed on:\n{commands}");
    Ok(())
}
