//! A demonstration on one machine: agents with instances, a cluster that changes, the daemon, and a client.
//!
//! ```text
//!  network and mount namespace of the demonstration                 each a process in a network namespace
//!  ┌──────────────────────────────────────────────────────┐
//!  │  runner ── state document ─► daemon ─► kernel, DNS   │         agent-1   web-v1.1, web-v1.4, ...
//!  │   ▲  ▲                          │                    │ bridge  agent-2   web-v1.2, ...
//!  │   │  └── status ────────────────┘                    ├──────── agent-3   web-v1.3, ...
//!  │   └───── connections ──── client ── by name ─────────┘
//!  └──────────────────────────────────────────────────────┘
//! ```
//!
//! What belongs here: the scenario, the processes that act it, and its screen. The daemon in it is the real one.
//!
//! The host is not changed. Namespaces and mounts have no names and end with the last process in them. Every other
//! process ends with this one, even if that is killed. The control group is removed by a process that waits for just
//! that (`cgroup`).
//!
//! [`scenario`] has the steps and the cluster that follows from them, without clocks and sockets. `runner` takes the
//! steps, `output` shows them. Files lower in this list use those above: `error`, `tools`, `scenario`, `client`,
//! `agent`, `document`, `cgroup`, `sandbox`, `process`, `daemon`, `tally`, `text`, `view`, `output`, `runner`.

use std::path::Path;
use std::time::Duration;

mod agent;
mod cgroup;
mod client;
mod daemon;
mod document;
mod error;
mod output;
pub mod process;
mod runner;
mod sandbox;
pub mod scenario;
mod tally;
mod text;
mod tools;
mod view;

pub use error::Error;
pub use runner::DemoOutcome;

use crate::dataplane::PlaneKind;
use cgroup::PrivateCgroup;
use error::setup;
use process::Role;
use sandbox::Sandbox;
use scenario::Scenario;
use tools::{IP, NFT};

/// Choices of the user.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    pub duration: Duration,
    /// Data plane to show; `None` for the one that the daemon would choose.
    pub plane: Option<PlaneKind>,
}

/// Runs the demonstration to its end. To be called while the process has one thread only.
///
/// # Errors
/// When it cannot be shown, or was interrupted before the first connection. Nothing is left of it then, unless the error
/// names a control group.
pub fn run(options: DemoOptions) -> Result<DemoOutcome, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    IP.require()?;
    let sweeper = |group: &Path| process::command(&Role::Sweep { group: group.to_owned() });
    let cgroup = PrivateCgroup::create(sweeper).map_err(|error| setup("create a control group", error))?;
    let shown = show(options, cgroup.as_ref().map(|cgroup| cgroup.path.as_path()));
    match (shown, cgroup.map_or(Ok(()), PrivateCgroup::remove)) {
        (shown, Ok(())) => shown,
        (Ok(_), Err(left)) => Err(left),
        (Err(error), Err(left)) => Err(Error::FailedAndLeft { error: error.into(), left: left.into() }),
    }
}

fn show(options: DemoOptions, cgroup: Option<&Path>) -> Result<DemoOutcome, Error> {
    let sandbox = Sandbox::enter(cgroup)?;
    // Child processes end with the thread that started them, so all of it runs on this one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| setup("start the runtime", error))?;
    runtime.block_on(async {
        let plane = daemon::choose(&sandbox, options.plane)?;
        if plane == PlaneKind::Ipvs {
            NFT.require()?;
        }
        runner::run(sandbox, Scenario { duration: options.duration }, plane).await
    })
}
