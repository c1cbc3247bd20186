//! Tasks, their states, addresses and ports.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Few, PortOptions, Protocol};

/// VIP labels of one task.
pub const MAX_LABELS: usize = 256;

/// Octets of a VIP label's key or value; a name in DNS has 253.
pub const MAX_VALUE: usize = 512;

/// Lifecycle of a task, as far as VIPs care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// Staging, starting or unknown: no backend now, perhaps later.
    Preparing,
    Running,
    /// Told to stop: keeps its connections, gets no new ones.
    Killing,
    /// The master has lost the task's agent: it may run on, or not.
    Lost,
    Terminal,
}

impl TaskState {
    /// Reads a Mesos `TaskState` name.
    pub fn parse(name: &str) -> Self {
        match name {
            "TASK_RUNNING" => Self::Running,
            "TASK_KILLING" => Self::Killing,
            "TASK_UNREACHABLE" => Self::Lost,
            "TASK_FINISHED"
            | "TASK_FAILED"
            | "TASK_KILLED"
            | "TASK_LOST"
            | "TASK_ERROR"
            | "TASK_DROPPED"
            | "TASK_GONE"
            | "TASK_GONE_BY_OPERATOR" => Self::Terminal,
            _ => Self::Preparing,
        }
    }

    /// Returns true if a task in this state serves connections, new or old.
    pub fn is_serving(self) -> bool {
        matches!(self, Self::Running | Self::Killing)
    }
}

/// Container runtime; Docker publishes ports by itself, so its ports aren't rewritten locally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Runtime {
    Mesos,
    Docker,
}

/// Identity of a task in a cluster; task ids alone are unique only within their framework. Shared texts,
/// because each task has its key in several places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    pub framework: Arc<str>,
    pub task: Arc<str>,
}

/// A task with at least one VIP label that could be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Framework and task id.
    pub key: TaskKey,
    /// The app that it is an instance of, by [`app_of`]; empty in files of earlier versions.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub app: Arc<str>,
    pub agent_id: Arc<str>,
    pub state: TaskState,
    /// Result of the task's Mesos health check: `None` without a check, `Some(false)` until the
    /// first result of one.
    pub healthy: Option<bool>,
    pub runtime: Runtime,
    /// Addresses in the order in which the agent reports them.
    pub addresses: Few<TaskAddress>,
    /// Only ports that carry VIP labels.
    pub ports: Few<TaskPort>,
    /// Ports of its agent that the task was given, as inclusive ranges; with those of its executor that its ports
    /// have.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub resources: Few<(u16, u16)>,
}

impl Task {
    /// Returns true if it should get new connections.
    pub fn is_ready(&self) -> bool {
        self.state == TaskState::Running && self.healthy != Some(false)
    }
}

/// Returns the app that a task is an instance of: `dev_web` of `dev_web.instance-UUID._app.1`, and of
/// `dev_web.UUID`, as ids were before Marathon 1.4, where no `name` is known.
///
/// Tasks of Marathon have the app's id as the beginning of theirs, which the app's author cannot choose apart from
/// it. Those of other frameworks have a name.
pub fn app_of<'t>(id: &'t str, name: Option<&'t str>) -> &'t str {
    match (id.rsplit_once(".instance-"), name.filter(|name| !name.is_empty())) {
        (Some((app, _)), _) => app,
        (None, Some(name)) => name,
        (None, None) => id.rsplit_once('.').map_or(id, |(app, _)| app),
    }
}

/// An address of a task on one of its networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAddress {
    pub address: IpAddr,
    /// Name of the container network; host networks and older Mesos versions have none.
    pub network: Option<Arc<str>>,
}

/// A port of a task after discovery, port mappings and port resources were merged. Before that a part of it may
/// have no name, which `N` allows for, and gets further labels, which `L` allows for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPort<N = Arc<str>, L = Arc<[VipLabel]>> {
    pub name: N,
    pub protocol: Protocol,
    /// Port at the task's own address.
    pub port: Option<u16>,
    /// Port at the agent's address.
    pub host_port: Option<u16>,
    /// Networks that the port is on; empty means any.
    pub networks: BTreeSet<String>,
    /// True if the port is at the container's own address for certain, and so never at the agent's.
    #[serde(default)]
    pub is_in_container: bool,
    /// True if its number at an agent's address is among the port resources of the task or of its executor, or
    /// mapped to its container.
    #[serde(default)]
    pub is_allocated: bool,
    /// Shared by the tasks of an app.
    pub labels: L,
    /// Options that other labels of the port ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Box<PortOptions>>,
}

impl<N: Default, L: Default> TaskPort<N, L> {
    /// A port without name, numbers, networks and labels.
    pub fn new(protocol: Protocol) -> Self {
        Self {
            name: N::default(),
            protocol,
            port: None,
            host_port: None,
            networks: BTreeSet::new(),
            is_in_container: false,
            is_allocated: false,
            labels: L::default(),
            options: None,
        }
    }
}

impl TaskPort {
    /// Name of a port that its definition gives none.
    pub const UNNAMED: &str = "default";

    /// The port as a person would look for it: name and number.
    pub fn describe(&self) -> String {
        match self.host_port.or(self.port) {
            Some(number) => format!("{} {number}/{}", self.name, self.protocol),
            None => format!("{} {}", self.name, self.protocol),
        }
    }
}

/// A `VIP_N` label: its key and its value, as written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VipLabel {
    pub key: String,
    pub value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_app_of_a_task_is_what_its_author_cannot_choose() {
        let uuid = "4c3e-5d6f";
        let instance = format!("dev_web.instance-{uuid}._app.1");
        // Marathon names tasks too, and there an id beginning with the app's counts.
        assert_eq!(app_of(&instance, Some("another")), "dev_web");
        assert_eq!(app_of(&instance, None), "dev_web");
        assert_eq!(app_of("my.app.instance-1._app.1", None), "my.app");
        // An app cannot hide behind another one that its id seems to begin with.
        assert_eq!(app_of(&format!("web.instance-1.instance-{uuid}.db"), None), "web.instance-1");
        // Before Marathon 1.4, and tasks of other frameworks.
        assert_eq!(app_of("old.1f", None), "old");
        assert_eq!(app_of("17", Some("spark-worker")), "spark-worker");
        assert_eq!(app_of("17", Some("")), "17");
    }

    #[test]
    fn tasks_in_files_of_earlier_versions_are_read() {
        let text = r#"{"key":{"framework":"F","task":"web.1"},"agent_id":"S","state":"Running","healthy":null,
            "runtime":"Mesos","addresses":[],"ports":[]}"#;
        let task: Task = serde_json::from_str(text).unwrap();
        assert_eq!(&*task.app, "");
        assert!(!serde_json::to_string(&task).unwrap().contains("\"app\""));
    }
}
