//! The normalised cluster: what every source produces, whatever its wire format.
//!
//! Plain data without behaviour beyond parsing and display. Which tasks become backends of which
//! VIP is decided in [`crate::vip::table`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub mod name;
pub mod names;
pub mod options;

pub use names::Names;
pub use options::Options;

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// Reads a Mesos port protocol; case does not matter. Anything but TCP and UDP is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("tcp") {
            Some(Self::Tcp)
        } else if text.eq_ignore_ascii_case("udp") {
            Some(Self::Udp)
        } else {
            None
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

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

    /// Whether a task in this state serves connections, new or old.
    pub fn is_serving(self) -> bool {
        matches!(self, Self::Running | Self::Killing)
    }
}

/// What runs the container; Docker publishes ports by itself, so its ports aren't rewritten locally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Runtime {
    Mesos,
    Docker,
}

/// Identity of a task in a cluster; task ids alone are unique only within their framework.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    pub framework: String,
    pub task: String,
}

/// A task with at least one VIP label that could be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Framework and task id.
    pub key: TaskKey,
    pub agent_id: String,
    pub state: TaskState,
    /// Result of the task's Mesos health check: `None` without a check, `Some(false)` until the
    /// first result of one.
    pub healthy: Option<bool>,
    pub runtime: Runtime,
    /// In the order in which the agent reports them.
    pub addresses: Vec<TaskAddress>,
    /// Only ports that carry VIP labels.
    pub ports: Vec<TaskPort>,
}

impl Task {
    /// Whether it should get new connections.
    pub fn is_ready(&self) -> bool {
        self.state == TaskState::Running && self.healthy != Some(false)
    }
}

/// An address of a task on one of its networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAddress {
    pub address: IpAddr,
    /// Name of the container network; host networks and older Mesos versions have none.
    pub network: Option<String>,
}

/// A port of a task after discovery, port mappings and port resources were merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPort {
    pub name: String,
    pub protocol: Protocol,
    /// Port at the task's own address.
    pub port: Option<u16>,
    /// Port at the agent's address.
    pub host_port: Option<u16>,
    /// Networks that the port is on; empty means any.
    pub networks: BTreeSet<String>,
    pub labels: Vec<VipLabel>,
    /// What other labels of the port ask for.
    #[serde(default, skip_serializing_if = "Options::is_empty")]
    pub options: Options,
}

impl TaskPort {
    /// The port as a person would look for it: name and number.
    pub fn describe(&self) -> String {
        match self.host_port.or(self.port) {
            Some(number) => format!("{} {number}/{}", self.name, self.protocol),
            None => format!("{} {}", self.name, self.protocol),
        }
    }
}

/// A `VIP_N` label: its key and its value, as written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VipLabel {
    pub key: String,
    pub value: String,
}

/// An agent that is registered with the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub hostname: String,
    /// From the libprocess `pid`, else from a numeric hostname.
    pub address: Option<IpAddr>,
}

/// Which master answered; id and time change at a fail-over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Master {
    pub id: String,
    /// Seconds since the epoch.
    pub elected_time: f64,
    /// From its libprocess `pid`.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

impl Master {
    /// Whether both mean one election.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && self.elected_time.total_cmp(&other.elected_time).is_eq()
    }
}

/// Everything that one document says: a complete picture of the cluster, never a change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Absent for documents of agents and of the v1 API, which do not name it.
    pub master: Option<Master>,
    /// By agent id.
    pub agents: BTreeMap<String, Agent>,
    /// Ids of agents that a new master knows of but that have not registered again.
    pub recovered: BTreeSet<String>,
    /// Framework id to framework name.
    pub frameworks: BTreeMap<String, String>,
    /// Tasks with VIP labels that are not terminal.
    #[serde(serialize_with = "as_list", deserialize_with = "from_list")]
    pub tasks: BTreeMap<TaskKey, Task>,
    /// Tasks that the document calls ended or unreachable: these did not just vanish.
    #[serde(skip)]
    pub ended: BTreeSet<TaskKey>,
    /// Those of them whose agent the master has lost.
    #[serde(skip)]
    pub lost: BTreeSet<TaskKey>,
    #[serde(skip)]
    pub skipped: Vec<Skipped>,
    /// Names of all running tasks; shared, because it is the largest part and few look at it.
    #[serde(skip)]
    pub names: Arc<Names>,
}

impl Snapshot {
    /// Addresses of all agents and of the master.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let agents = self.agents.values().filter_map(|agent| agent.address);
        agents.chain(self.master.as_ref().and_then(|master| master.address)).collect()
    }
}

/// Each task holds its own key, and keys of a JSON object can only be strings.
fn as_list<S: Serializer>(tasks: &BTreeMap<TaskKey, Task>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(tasks.values())
}

fn from_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<TaskKey, Task>, D::Error> {
    let tasks = Vec::<Task>::deserialize(deserializer)?;
    Ok(tasks.into_iter().map(|task| (task.key.clone(), task)).collect())
}

/// VIP labels of one task.
pub const MAX_LABELS: usize = 256;

/// Octets of a VIP label's key or value; a name in DNS has 253.
pub const MAX_VALUE: usize = 512;

/// Characters of a label that are shown when it is left out.
const MAX_SHOWN: usize = 120;

/// What is shown of a text that anybody may have written.
pub fn shortened(text: String) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Something in a document that yields nothing, and why; the rest of the document is not affected.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skipped {
    /// Task id, or the place in the document where it should be.
    pub task: String,
    /// Port, as [`TaskPort::describe`] shows it.
    pub port: Option<String>,
    /// Key of the label.
    pub label: Option<String>,
    /// Value of the label, or the value that could not be used.
    pub value: Option<String>,
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.task)?;
        if let Some(port) = &self.port {
            write!(f, " port {port}")?;
        }
        match (&self.label, &self.value) {
            (Some(label), Some(value)) => write!(f, " {label}={value}")?,
            (Some(text), None) | (None, Some(text)) => write!(f, " {text}")?,
            (None, None) => {}
        }
        write!(f, ": {}", self.reason)
    }
}
