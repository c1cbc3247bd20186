//! The demonstration's other processes: this program again, with a hidden command; and how the director holds them.

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
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::agent::Report;
use super::client::Record;
use super::scenario::Agent;
use super::tools::search_path;
use super::{agent, cgroup, client};
use crate::status::Status;

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

/// This program, by its name if that leads to it from here.
fn program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into())
}

/// How long a part may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(7);

/// What the director hears.
#[derive(Debug)]
pub enum Note {
    Agent(Agent, Report),
    Client(Record),
    Status(Box<Status>),
    /// Somebody says nothing any more.
    Silent(String),
}

pub type Notes = mpsc::UnboundedSender<Note>;

/// A process that is told things, and tells.
pub struct Hand {
    child: Child,
    orders: Option<ChildStdin>,
    listening: JoinHandle<()>,
}

impl Hand {
    /// Starts the part; what it says becomes notes.
    pub fn start<T: DeserializeOwned>(
        part: &Part,
        cgroup: Option<&Path>,
        name: String,
        notes: Notes,
        note: impl Fn(T) -> Note + Send + 'static,
    ) -> io::Result<Self> {
        let mut command = tokio::process::Command::from(command_of_ours(part, cgroup));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let orders = child.stdin.take();
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let listening = tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let heard = serde_json::from_str(&line).map(&note);
                if heard.is_ok_and(|heard| notes.send(heard).is_err()) {
                    return;
                }
            }
            let _ = notes.send(Note::Silent(name));
        });
        Ok(Self { child, orders, listening })
    }

    /// Its process, while it lives.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub async fn order(&mut self, order: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        match &mut self.orders {
            Some(orders) => orders.write_all(line.as_bytes()).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Lets it finish, and returns when everything that it said has become notes.
    pub async fn dismiss(mut self) {
        drop(self.orders.take());
        if tokio::time::timeout(PATIENCE, &mut self.listening).await.is_err() {
            self.listening.abort();
        }
        self.end().await;
    }

    /// Kills it.
    pub async fn end(mut self) {
        // It may have ended before.
        let _ = self.child.kill().await;
    }
}
