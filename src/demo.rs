//! A demonstration: agents with instances, a cluster that changes, the daemon and a client, all on this machine.
//!
//! ```text
//!  network and mount namespace of the demonstration                 each a process in a network namespace
//!  ┌──────────────────────────────────────────────────────┐
//!  │ director ─ state document ─► daemon ─► kernel, DNS   │         agent-1   web-v1.1, web-v1.4, ...
//!  │   ▲  ▲                          │                    │ bridge  agent-2   web-v1.2, ...
//!  │   │  └── status ────────────────┘                    ├──────── agent-3   web-v1.3, ...
//!  │   └───── connections ──── client ── by name ─────────┘
//!  └──────────────────────────────────────────────────────┘
//! ```
//!
//! The host is not touched: namespaces and mounts have no names and end with the last process that is in them,
//! every other process ends with this one even if that is killed, and the control group is removed by a process
//! that waits for just that (`cgroup`). [`scenario`] says what happens when, without clocks and sockets;
//! `runner` makes it happen.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod agent;
mod cgroup;
mod client;
mod daemon;
mod document;
pub mod process;
mod runner;
mod sandbox;
pub mod scenario;
mod tally;
mod tools;
mod view;

use crate::dataplane::PlaneKind;
use cgroup::Cgroup;
use sandbox::Stage;
use scenario::Story;

/// A program that is needed besides the kernel, and the package that has it.
type Tool = (&'static str, &'static str);

const IP: Tool = ("ip", "iproute2");
/// By IPVS alone.
const NFT: Tool = ("nft", "nftables");

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub duration: Duration,
    /// `None` for what the kernel has.
    pub plane: Option<PlaneKind>,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub connections: u64,
    pub failed: u64,
}

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the demonstration makes network namespaces of its own, which only root may: sudo l4lbd demo")]
    NotRoot,
    #[error("{program} is not installed: apt-get install {package}")]
    Missing { program: &'static str, package: &'static str },
    #[error("this kernel has no data plane to show: {0}")]
    NoDataPlane(String),
    #[error(
        "cannot {step}: {error}; in a container this needs --privileged, and nothing is left of the attempt"
    )]
    Step { step: String, error: io::Error },
    #[error("{what}; the end of the daemon's log:\n{log}")]
    Daemon { what: String, log: String },
    #[error("{0} has ended, which it should not")]
    Ended(String),
    #[error("{0}")]
    Refused(String),
    #[error("interrupted before the first connection")]
    Interrupted,
    #[error("the control group {path} is left: {why}; once nobody is in it, remove it with: rmdir {path}")]
    Left { path: PathBuf, why: String },
    #[error("{0}; {1}")]
    Both(Box<Error>, Box<Error>),
    #[error("cannot write")]
    Output(#[from] io::Error),
}

/// Shows it to its end, and leaves nothing behind. To be called while the process has one thread only.
///
/// # Errors
/// When it can't be shown or was interrupted before there was anything to see; nothing is left of the attempt
/// but, if the error says so, a control group.
pub fn run(options: Options) -> Result<Outcome, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    must_have(IP)?;
    let cgroup = Cgroup::make().map_err(|error| step("make a control group", error))?;
    let shown = show(options, cgroup.as_ref().map(|cgroup| cgroup.path.as_path()));
    match (shown, cgroup.map_or(Ok(()), Cgroup::sweep)) {
        (shown, Ok(())) => shown,
        (Ok(_), Err(left)) => Err(left),
        (Err(error), Err(left)) => Err(Error::Both(Box::new(error), Box::new(left))),
    }
}

fn show(options: Options, cgroup: Option<&Path>) -> Result<Outcome, Error> {
    let stage = Stage::enter(cgroup)?;
    // Children end with the thread that started them: this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let story = Story { duration: options.duration };
    runtime.block_on(async {
        let plane = daemon::choose(&stage, options.plane)?;
        if plane == PlaneKind::Ipvs {
            must_have(NFT)?;
        }
        runner::perform(stage, story, plane).await
    })
}

fn must_have((program, package): Tool) -> Result<(), Error> {
    let path = tools::search_path();
    match std::env::split_paths(&path).any(|directory| directory.join(program).is_file()) {
        true => Ok(()),
        false => Err(Error::Missing { program, package }),
    }
}

fn step(step: &str, error: impl Into<io::Error>) -> Error {
    Error::Step { step: step.to_owned(), error: error.into() }
}
