//! The command line: one module per command, exit codes in one place.
//!
//! What belongs here: arguments, output for people and programs, exit codes. A new command is one file
//! here, one variant of `Command` and its arm in [`Cli::run`].

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config, Loaded};
use crate::status::text::escape::escaped;

mod accept_loss;
mod check;
mod client;
mod demo;
mod doctor;
mod events;
mod explain;
mod help;
mod import_dcos;
mod log;
mod metrics;
mod names;
pub mod pages;
mod plan;
mod purge;
mod reload;
mod run;
mod status;
mod top;
mod vip;

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
/// Follows the state of the cluster and gives each VIP that a task asks for by a label a stable address and a name.
/// Programs the kernel of this node so that connections to a VIP reach a healthy task.
#[derive(Debug, Parser)]
#[command(
    name = "l4lbd",
    version,
    disable_help_subcommand = true,
    after_help = pages::topics(),
    after_long_help = format!("{}\n{}", pages::topics(), config::reference::text())
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show l4lbd at work on this machine for a minute, without Mesos; needs root
    ///
    /// Runs three agents with instances of an app, a client and the daemon on this machine, in network and mount
    /// namespaces and a control group of their own. The state of the cluster changes, and the screen shows what
    /// the client notices. Nothing on the host changes but its loaded kernel modules, however the command ends.
    /// In a pipe it prints lines, the last of which is the verdict.
    Demo(demo::Args),
    #[command(hide = true)]
    DemoRole(demo::RoleArgs),
    /// Run the daemon
    ///
    /// Follows the cluster, programs the kernel and answers DNS until SIGTERM, SIGINT or SIGQUIT. Stopping leaves the
    /// kernel forwarding. Logs go to standard error.
    Run(run::Args),
    /// Show the state of the running daemon; exit code 2 if it is degraded
    ///
    /// The first line is "ok" or "DEGRADED", followed by the reasons, the worst first. Then come the source, the
    /// kernel, DNS, every VIP with its backends, warnings, skipped labels and virtual services of other programs.
    Status(status::Args),
    /// Show which VIPs have most connections, bytes or failures now, with their backends
    ///
    /// A screen that follows the kernel's counters: VIPs in the order of a figure, their trends, and the backends of the
    /// chosen one. The daemon sorts and filters them, so that thousands of VIPs cost little. Keys are shown by "?". In a
    /// pipe it prints the list once.
    Top(top::Args),
    /// Print the metrics of the running daemon as Prometheus reads them
    ///
    /// The same as at /metrics of the HTTP server that http.listen switches on. l4lbd-metrics(7) says what each means.
    Metrics(metrics::Args),
    /// List the names that DNS serves, with their addresses
    ///
    /// Names of VIPs, of tasks and their ports, of this node, and of addresses, sorted, each with its type of record and
    /// the time for which clients may keep it. Names below further origins of a zone are not listed.
    Names(names::Args),
    /// Show what changed on this node, when, and why
    ///
    /// One line for each change of the table with its cause: tasks that start, end or become unhealthy, drains with the
    /// connections that were cut, what another program had changed, refused labels, sources that fail, and starts of
    /// the daemon. What happens again within an hour is one line with a count. Events survive restarts; how many are
    /// kept is set by daemon.events.
    Events(events::Args),
    /// Show everything about one VIP, and what a connection to it would do; exit code 2 if it would be refused
    ///
    /// Tells its address, its backends with the reason for their weights, the tasks and labels that ask for it, whose
    /// health checks decide, connections, warnings, and its last events.
    Vip(vip::Args),
    /// Have the daemon read its configuration file again
    ///
    /// Says which changed keys are in effect, and which need a restart. A file with an error changes nothing, and the
    /// exit code is 64 then. The signal SIGHUP does the same, and the log says what came of it.
    Reload(reload::Args),
    /// Give up tasks that are held after a sudden loss or a master's fail-over
    ///
    /// Takes the last document of the cluster for the whole truth. Tasks that it does not list leave their VIPs.
    AcceptLoss(accept_loss::Args),
    /// Show which VIPs this node would make of a state document; needs no root and no kernel
    ///
    /// Goes by the configuration of this node and by the addresses that it has given so far, if the user may read
    /// them. The document comes from a file, such as the answer of a master at /master/state.
    Explain(explain::Args),
    /// Show what the next pass would change in the kernel, and change nothing
    ///
    /// Asks the source once, compares its document with the kernel and prints one operation a line. Run it as root.
    /// The daemon may run meanwhile. It may load the kernel module ip_vs, which a look at IPVS needs.
    Plan(plan::Args),
    /// Check a configuration file and the files that it names; prints every error, exit code 64
    Check(check::Args),
    /// Print the configuration of dcos-net as one of l4lbd
    ///
    /// Reads the files of DC/OS' own load balancer and DNS server and changes nothing. The configuration goes to
    /// standard output, and what it does not take over to standard error. See l4lbd-migrate(7).
    ImportDcos(import_dcos::Args),
    /// Find out what is wrong with this node, and show the command that mends it; exit code 1 if something is
    ///
    /// Looks at the kernel, its settings and tables, firewalls, other programs, routes, resolvers of the node and of
    /// its containers, masters and clocks. Changes nothing, and works without a running daemon. Run it as root: other
    /// users see less, and what they cannot see is skipped. It ends within about 15 seconds.
    Doctor(doctor::Args),
    /// Remove everything of l4lbd from the kernel, and nothing else
    ///
    /// Stop the daemon first. Connections through VIPs are cut with IPVS, and go on with eBPF. Virtual services of
    /// other programs stay, and so do settings of the whole node, whose earlier values are not known.
    Purge(purge::Args),
    /// Show the help of a command, or the manual page of a topic
    Help(help::Args),
}

/// Location of the configuration.
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

    fn load_with_remarks(&self) -> Result<Loaded, config::Error> {
        Loaded::read(self.config.as_deref())
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
            Command::Top(args) => args.run(),
            Command::Metrics(args) => args.run(),
            Command::Names(args) => args.run(),
            Command::Events(args) => args.run(),
            Command::Vip(args) => args.run(),
            Command::Reload(args) => args.run(),
            Command::AcceptLoss(args) => args.run(),
            Command::Explain(args) => args.run(),
            Command::Plan(args) => args.run(),
            Command::Check(args) => args.run(),
            Command::ImportDcos(args) => args.run(),
            Command::Doctor(args) => args.run(),
            Command::Purge(args) => args.run(),
            Command::Help(args) => args.run(),
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
    log::print(printed(error));
    if error.downcast_ref::<config::Error>().is_some() {
        ExitCode::from(USAGE)
    } else if error.downcast_ref::<crate::mesos::Error>().is_some() {
        ExitCode::from(DATA)
    } else {
        ExitCode::FAILURE
    }
}

/// Returns an error with its causes as it is printed, each line with the program's name.
fn printed(error: &anyhow::Error) -> String {
    // Many errors quote their cause already.
    let text = error
        .chain()
        .map(ToString::to_string)
        .reduce(|text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") });
    let text = text.unwrap_or_default();
    let text = text.trim_end();
    // Errors quote text of other origin. Only those of the configuration, the operator's own, have several lines.
    let is_configuration = error.downcast_ref::<config::Error>().is_some();
    let lines: Vec<&str> = if is_configuration { text.split('\n').collect() } else { vec![text] };
    let lines: Vec<String> = lines.into_iter().map(|line| format!("l4lbd: {}", escaped(line))).collect();
    lines.join("\n")
}

/// A runtime whose workers may block for a moment, as netlink does.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// Returns true if a daemon answers on the socket.
fn daemon_runs(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_configuration_s_errors_has_the_program_s_name() {
        let text = "[vips]\nmax = 0\n[dns]\nttl = \"0s\"\n";
        let error = Config::parse(Path::new("l4lbd.toml"), text).unwrap_err();
        let printed = printed(&error.into());
        assert_eq!(printed.lines().count(), 2, "{printed}");
        assert!(printed.lines().all(|line| line.starts_with("l4lbd: l4lbd.toml: ")), "{printed}");
        // This one ends with a line end, which is not one more line.
        let error = Config::parse(Path::new("l4lbd.toml"), "[source").unwrap_err();
        let printed = super::printed(&error.into());
        assert!(printed.lines().all(|line| line.starts_with("l4lbd: ") && line.len() > 7), "{printed}");
    }

    #[test]
    fn text_of_other_origin_begins_no_line() {
        let error = anyhow::anyhow!("refused: \nl4lbd: all is well");
        assert_eq!(printed(&error).lines().count(), 1, "{}", printed(&error));
    }
}
