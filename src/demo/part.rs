//! The demonstration's other processes: this program again, with a hidden command.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use super::{agent, cgroup, client};

/// Where `ip`, `nft` and `modprobe` are besides, which is not in everybody's `PATH`.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// A process and what it is for.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Part {
    /// A machine with instances on it, in a network namespace of its own
    Agent,
    /// A client, which dials until its input ends
    Client,
    /// The daemon
    Daemon { config: PathBuf },
    /// Removes a control group once its input has ended
    Sweep { group: PathBuf },
}

/// For whom it works.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    part: Part,
    /// Process without which this one has to end
    #[arg(long, global = true)]
    parent: Option<i32>,
    /// Control group to be in
    #[arg(long, global = true)]
    cgroup: Option<PathBuf>,
}

impl Args {
    /// Plays the part to its end.
    ///
    /// # Errors
    /// Those of the part.
    pub fn run(self) -> io::Result<()> {
        if let Some(parent) = self.parent {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // It may have died before it was asked for.
            if getppid() != Pid::from_raw(parent) {
                return Ok(());
            }
        }
        if let Some(group) = &self.cgroup {
            cgroup::join(group)?;
        }
        match self.part {
            Part::Agent => agent::run(),
            Part::Client => client::run(),
            // Stays under the parent's hand: what was asked of the kernel above outlives an exec.
            Part::Daemon { config } => {
                Err(Command::new(program()).arg0("l4lbd").arg("run").arg("--config").arg(config).exec())
            }
            Part::Sweep { group } => cgroup::sweep(&group),
        }
    }
}

/// A command that plays the part and does not see the terminal's signals; it says nothing to anybody.
pub fn command(part: &Part) -> Command {
    let mut command = Command::new(program());
    command.arg0("l4lbd").arg("demo-part");
    match part {
        Part::Agent => command.arg("agent"),
        Part::Client => command.arg("client"),
        Part::Daemon { config } => command.arg("daemon").arg(config),
        Part::Sweep { group } => command.arg("sweep").arg(group),
    };
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The same for one that ends with this process, in the given control group.
pub fn command_of_ours(part: &Part, cgroup: Option<&Path>) -> Command {
    let mut command = command(part);
    command
        .args(["--parent", &std::process::id().to_string()])
        .env("PATH", search_path())
        // Only the host's service manager would be there.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC");
    if let Some(cgroup) = cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    command
}

/// Where programs are looked for.
pub fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(SYSTEM_PATH);
    path
}

/// This program, by its name if that leads to it from here.
fn program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into())
}
