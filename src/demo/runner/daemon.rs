//! The process of the daemon, and its status.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::event::{EventSender, RunnerEvent};
use crate::api::client;
use crate::demo::daemon::{is_ready, takes_connections, vip};
use crate::demo::error::{Error, setup};
use crate::demo::process::{Role, bound_command};
use crate::demo::sandbox::Sandbox;
use crate::demo::scenario::InstanceId;
use crate::status::Status;

/// Time between two requests for the status.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);

/// The daemon: running, or killed and to be started again.
#[derive(Default)]
pub struct DaemonProcess {
    child: Option<Child>,
    /// Last status, also of a daemon that has been killed since.
    pub status: Option<Status>,
    /// Instances that get new connections by that status.
    pub serving: Option<BTreeSet<InstanceId>>,
    /// True if the running daemon has become ready.
    pub is_ready: bool,
    /// Time at which it was killed last.
    pub down_since: Option<Duration>,
}

impl DaemonProcess {
    /// Starts the daemon; its log goes to a file of the sandbox.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, sandbox: &Sandbox) -> Result<(), Error> {
        let started = || {
            let log = File::options().create(true).append(true).open(&sandbox.log)?;
            let role = Role::Daemon { config: sandbox.config.clone() };
            let mut command = Command::from(bound_command(&role, sandbox.cgroup.as_deref()));
            command.env("L4LBD_LOG", "info").stderr(log).kill_on_drop(true).spawn()
        };
        self.child = Some(started().map_err(|error| setup("start the daemon", error))?);
        Ok(())
    }

    /// Kills the daemon at this time, and returns when it is gone.
    pub async fn kill(&mut self, now: Duration) {
        if let Some(mut child) = self.child.take() {
            // Fails if it has ended before, which is as good.
            let _ = child.kill().await;
        }
        self.is_ready = false;
        self.down_since = Some(now);
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Checks that the daemon has not ended by itself.
    ///
    /// # Errors
    /// When it has, with the end of its log.
    pub fn check(&mut self, sandbox: &Sandbox) -> Result<(), Error> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => Err(failure(sandbox, format!("the daemon has ended: {status}"))),
            _ => Ok(()),
        }
    }

    /// Takes a status in, unless it is the last answer of a daemon that has been killed.
    pub fn take_status(&mut self, status: Status) {
        if !self.is_running() {
            return;
        }
        self.is_ready |= is_ready(&status);
        self.serving = vip(&status).map(|vip| {
            let serving = vip.backends.iter().filter(|backend| takes_connections(backend));
            serving.filter_map(|backend| InstanceId::of_task(&backend.task)).collect()
        });
        self.status = Some(status);
    }
}

/// Returns the error of a daemon that does not do what it should, with the end of its log.
pub fn failure(sandbox: &Sandbox, problem: String) -> Error {
    Error::Daemon { problem, log: sandbox.log_tail() }
}

/// Sends the daemon's status to the channel, again and again until that is closed.
pub async fn poll_status(socket: PathBuf, events: EventSender) {
    loop {
        // No answer is no event: the daemon is killed in the course of the scenario, and the runner sees other deaths.
        if let Ok(answer) = client::ask(&socket, Method::GET, "/status").await
            && events.send(RunnerEvent::Status(Box::new(answer.status))).is_err()
        {
            return;
        }
        sleep(STATUS_INTERVAL).await;
    }
}
