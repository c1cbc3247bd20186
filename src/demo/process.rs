//! The demonstration's other processes: this program again, with a hidden command. Here are that command, the command
//! lines that start it, and the parent's side of such a process.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::tools::search_path;
use super::{agent, cgroup, client};

/// Longest wait for a process to end by itself. The client takes at most its own timeout of 5 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(7);

/// Job of a process.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Role {
    /// An agent with instances on it, in a network namespace of its own
    Agent,
    /// A client that makes connections until its standard input ends
    Client,
    /// The daemon
    Daemon { config: PathBuf },
    /// Removes a control group once standard input has ended
    Sweep { group: PathBuf },
}

/// Arguments of the hidden command.
#[derive(Debug, clap::Args)]
pub struct RoleOptions {
    #[command(subcommand)]
    role: Role,
    /// Id of the process without which this one has to end
    #[arg(long, global = true)]
    parent: Option<i32>,
    /// Control group to move to
    #[arg(long, global = true)]
    cgroup: Option<PathBuf>,
}

impl RoleOptions {
    /// Does the job to its end.
    ///
    /// # Errors
    /// Those of the job.
    pub fn run(self) -> io::Result<()> {
        if let Some(parent) = self.parent {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have ended before the line above.
            if getppid() != Pid::from_raw(parent) {
                return Ok(());
            }
        }
        if let Some(group) = &self.cgroup {
            cgroup::join(group)?;
        }
        match self.role {
            Role::Agent => agent::run(),
            Role::Client => client::run(),
            // The signal on the parent's death and the control group outlive an exec.
            Role::Daemon { config } => {
                Err(Command::new(program()).arg0("l4lbd").arg("run").arg("--config").arg(config).exec())
            }
            Role::Sweep { group } => cgroup::sweep(&group),
        }
    }
}

/// Returns the command for a role, in a process group of its own, which the terminal's signals do not reach. Standard
/// input, output and error are closed.
pub fn command(role: &Role) -> Command {
    let mut command = Command::new(program());
    command.arg0("l4lbd").arg("demo-role");
    match role {
        Role::Agent => command.arg("agent"),
        Role::Client => command.arg("client"),
        Role::Daemon { config } => command.arg("daemon").arg(config),
        Role::Sweep { group } => command.arg("sweep").arg(group),
    };
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Returns the command for a role that ends with this process, in the given control group.
pub fn bound_command(role: &Role, cgroup: Option<&Path>) -> Command {
    let mut command = command(role);
    command
        .args(["--parent", &std::process::id().to_string()])
        .env("PATH", search_path())
        // The demonstration's daemon has no business with the service manager of the host.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC");
    if let Some(cgroup) = cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    command
}

/// Output of a process.
pub enum ChildOutput<T> {
    Line(T),
    /// No more comes: the process has ended, or is about to.
    Closed,
}

/// A process that takes commands and reports, one line of JSON each. It is killed when this is dropped.
pub struct ChildProcess {
    child: Child,
    commands: Option<ChildStdin>,
    reader: JoinHandle<()>,
}

impl ChildProcess {
    /// Starts a process. `event` turns what it reports into events for the channel.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start<T: DeserializeOwned, E: Send + 'static>(
        role: &Role,
        cgroup: Option<&Path>,
        events: UnboundedSender<E>,
        event: impl Fn(ChildOutput<T>) -> E + Send + 'static,
    ) -> io::Result<Self> {
        let mut command = tokio::process::Command::from(bound_command(role, cgroup));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let commands = child.stdin.take();
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let reader = tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let report = serde_json::from_str(&line).map(|report| event(ChildOutput::Line(report)));
                if report.is_ok_and(|report| events.send(report).is_err()) {
                    return;
                }
            }
            // The demonstration may have ended meanwhile.
            let _ = events.send(event(ChildOutput::Closed));
        });
        Ok(Self { child, commands, reader })
    }

    /// Returns the process id while the process runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a command.
    ///
    /// # Errors
    /// When the process has ended.
    pub async fn send(&mut self, command: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        match &mut self.commands {
            Some(commands) => commands.write_all(line.as_bytes()).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Lets the process finish its work, and returns when all its reports are in the channel.
    pub async fn finish(mut self) {
        drop(self.commands.take());
        if tokio::time::timeout(STOP_TIMEOUT, &mut self.reader).await.is_err() {
            self.reader.abort();
        }
        self.kill().await;
    }

    /// Kills the process, and returns when it is gone.
    pub async fn kill(mut self) {
        // Fails if it has ended before, which is as good.
        let _ = self.child.kill().await;
    }
}

/// Returns the path of this program, or of its file if no path leads there in the sandbox.
fn program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into())
}
