//! The command line: one module per command, exit codes in one place.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config};

mod accept_loss;
mod check;
mod client;
mod demo;
mod explain;
mod plan;
mod purge;
mod run;
pub(crate) mod status;
mod table;

/// The command line was wrong, or the configuration is (EX_USAGE).
const USAGE: u8 = 64;

/// A document can't be read (EX_DATAERR).
const DATA: u8 = 65;

/// This machine lacks what is asked for (EX_UNAVAILABLE).
const UNAVAILABLE: u8 = 69;

/// The daemon works, but needs an operator.
const DEGRADED: u8 = 2;

/// Layer-4 load balancer on every node of an Apache Mesos cluster.
///
/// Follows the state of the cluster, gives each VIP that tasks ask for by a VIP_N label a stable address and
/// a name, and programs this node's kernel so that connections to it reach a healthy task.
#[derive(Debug, Parser)]
#[command(name = "l4lbd", version, after_long_help = config::reference())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See it at work on this machine, in namespaces of its own, without Mesos; needs root
    Demo(demo::Args),
    #[command(hide = true)]
    DemoRole(demo::RoleArgs),
    /// Run the daemon
    Run(run::Args),
    /// Show how the running daemon is doing; exit code 2 when it needs you
    Status(status::Args),
    /// Believe the last state as it is: give up tasks that are being held after a sudden loss or a fail-over
    AcceptLoss(accept_loss::Args),
    /// Show what this node would make of a state document; needs neither root nor a kernel
    Explain(explain::Args),
    /// Show what a pass would change in the kernel now, without changing anything
    Plan(plan::Args),
    /// Check a configuration file; exit code 64 with every error in it
    Check(check::Args),
    /// Remove everything of ours from the kernel, and nothing else
    Purge(purge::Args),
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]
    #[arg(long, env = "L4LBD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, config::Error> {
        Config::load(self.config.as_deref())
    }
}

impl Cli {
    /// Reads the arguments; prints help or what is wrong with them and ends the process otherwise.
    pub fn from_arguments() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            std::process::exit(if error.use_stderr() { USAGE.into() } else { 0 })
        })
    }

    /// Carries the command out.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Demo(args) => args.run(),
            Command::DemoRole(args) => args.run(),
            Command::Run(args) => args.run(),
            Command::Status(args) => args.run(),
            Command::AcceptLoss(args) => args.run(),
            Command::Explain(args) => args.run(),
            Command::Plan(args) => args.run(),
            Command::Check(args) => args.run(),
            Command::Purge(args) => args.run(),
        }
    }
}

/// Prints an error with its causes, and chooses the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }) {
        return ExitCode::SUCCESS;
    }
    // Many errors quote their cause already.
    let text = error
        .chain()
        .map(ToString::to_string)
        .reduce(|text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") });
    // Nothing can be done about a closed terminal.
    let _ = writeln!(io::stderr(), "l4lbd: {}", text.unwrap_or_default());
    if error.downcast_ref::<config::Error>().is_some() {
        ExitCode::from(USAGE)
    } else if error.downcast_ref::<crate::mesos::Error>().is_some() {
        ExitCode::from(DATA)
    } else {
        ExitCode::FAILURE
    }
}

/// A runtime whose workers may block for a moment, as netlink does.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// Whether a daemon answers on the socket.
fn daemon_runs(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// Sends logs to standard error: level `info` unless `L4LBD_LOG` says otherwise.
fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("L4LBD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,zookeeper_client=warn"));
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // The journal has its own times and no colours.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        subscriber.without_time().with_ansi(false).init();
    } else {
        subscriber.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init();
    }
}
