//! Wire types of Mesos' JSON, reduced to the members that l4lbd uses.
//!
//! One set of types serves v0 and v1: they differ in a few names and wrappers (`"id": "x"` and
//! `"task_id": {"value": "x"}`). Every list item is a [`Lenient`], so that a value of an unexpected
//! type costs that item alone. The types carry the names of the messages in `mesos.proto` where
//! those are unambiguous; the rest start with `Mesos`.
//!
//! What belongs here: shapes only. The rules for reading a task's ports, addresses and health are in
//! [`super::task`], [`super::ports`] and [`super::networks`].

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

pub use lenient::{Lenient, LenientList, present, readable, strictly};
pub use registered::RegisteredTime;
pub use resources::PortResources;
pub use text::{Labels, MesosLabel, WrappedText};

mod lenient;
mod registered;
mod resources;
mod text;

/// A task of a framework, with everything that its agent and its scheduler reported.
#[derive(Clone, Debug, Deserialize)]
pub struct MesosTask<'a> {
    #[serde(borrow, alias = "task_id")]
    pub id: WrappedText<'a>,
    #[serde(borrow)]
    pub framework_id: Option<WrappedText<'a>>,
    #[serde(borrow, alias = "agent_id")]
    pub slave_id: Option<WrappedText<'a>>,
    /// Empty in v0 and absent in v1 for a task that is started by a command.
    #[serde(borrow)]
    pub executor_id: Option<WrappedText<'a>>,
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub state: Cow<'a, str>,
    #[serde(borrow)]
    pub statuses: LenientList<TaskStatus<'a>>,
    #[serde(borrow)]
    pub discovery: Option<DiscoveryInfo<'a>>,
    #[serde(borrow)]
    pub container: Option<ContainerInfo<'a>>,
    /// True if the task has a health check.
    #[serde(default, deserialize_with = "present")]
    pub health_check: bool,
    #[serde(borrow)]
    pub labels: Option<Labels<'a>>,
    #[serde(default)]
    pub resources: PortResources,
}

/// An executor of v0 `executors` of a master, or of v1 `executors`.
#[derive(Debug, Deserialize)]
pub struct MesosExecutor<'a> {
    #[serde(borrow)]
    pub executor_id: Option<WrappedText<'a>>,
    #[serde(borrow)]
    pub framework_id: Option<WrappedText<'a>>,
    #[serde(borrow, alias = "agent_id")]
    pub slave_id: Option<WrappedText<'a>>,
    #[serde(default)]
    pub resources: PortResources,
    #[serde(borrow)]
    pub executor_info: Option<Box<MesosExecutor<'a>>>,
}

/// Identity and last state of a task that has ended.
#[derive(Debug, Deserialize)]
pub struct EndedTask<'a> {
    #[serde(borrow, alias = "task_id")]
    pub id: WrappedText<'a>,
    #[serde(borrow)]
    pub framework_id: Option<WrappedText<'a>>,
    #[serde(borrow)]
    pub state: Option<Cow<'a, str>>,
}

/// A status update of a task.
#[derive(Clone, Debug, Deserialize)]
pub struct TaskStatus<'a> {
    #[serde(borrow)]
    pub state: Cow<'a, str>,
    /// Seconds since the epoch.
    pub timestamp: Option<f64>,
    /// Result of the health check, absent until the first one.
    pub healthy: Option<bool>,
    #[serde(borrow)]
    pub container_status: Option<MesosContainerStatus<'a>>,
    /// Present in v1 only.
    #[serde(borrow)]
    pub task_id: Option<WrappedText<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct MesosContainerStatus<'a> {
    #[serde(borrow)]
    pub network_infos: LenientList<NetworkInfo<'a>>,
}

/// A network of a container, with its addresses.
#[derive(Clone, Debug, Deserialize)]
pub struct NetworkInfo<'a> {
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub ip_addresses: LenientList<NetworkAddress<'a>>,
    /// Address of the network in Mesos before 0.27, which had no list.
    #[serde(borrow)]
    pub ip_address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub port_mappings: LenientList<PortMapping<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct NetworkAddress<'a> {
    #[serde(borrow)]
    pub ip_address: Option<Cow<'a, str>>,
}

/// A port of the agent that leads to a port of the container.
#[derive(Clone, Debug, Deserialize)]
pub struct PortMapping<'a> {
    pub host_port: u64,
    pub container_port: u64,
    #[serde(borrow)]
    pub protocol: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ContainerInfo<'a> {
    /// `MESOS` or `DOCKER`.
    #[serde(borrow, rename = "type")]
    pub kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub docker: Option<DockerInfo<'a>>,
    #[serde(borrow)]
    pub network_infos: LenientList<NetworkInfo<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct DockerInfo<'a> {
    #[serde(borrow)]
    pub port_mappings: LenientList<PortMapping<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct DiscoveryInfo<'a> {
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub ports: Option<DiscoveryPorts<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct DiscoveryPorts<'a> {
    #[serde(borrow)]
    pub ports: LenientList<DiscoveryPort<'a>>,
}

/// A port that a framework announces, with the labels that ask for VIPs.
#[derive(Clone, Debug, Deserialize)]
pub struct DiscoveryPort<'a> {
    pub number: Option<u64>,
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub protocol: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub labels: Option<Labels<'a>>,
}

/// An agent of v0 `slaves`, of v1 `agents`, or the bare `AgentInfo` of v1 `recovered_agents`.
#[derive(Debug, Deserialize)]
pub struct MesosAgent<'a> {
    #[serde(borrow)]
    pub id: Option<WrappedText<'a>>,
    #[serde(borrow)]
    pub hostname: Option<Cow<'a, str>>,
    /// libprocess identity, such as `slave(1)@10.0.0.1:5051`.
    #[serde(borrow)]
    pub pid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub agent_info: Option<Box<MesosAgent<'a>>>,
    /// Resources in use, in v0.
    pub used_resources: Option<Lenient<UsedResources>>,
    /// Resources in use, in v1.
    pub allocated_resources: LenientList<IgnoredAny>,
}

/// Resources of an agent that tasks and executors use.
#[derive(Debug, Deserialize)]
pub struct UsedResources {
    #[serde(default)]
    pub cpus: f64,
    #[serde(default)]
    pub mem: f64,
}

/// A v1 framework.
#[derive(Debug, Deserialize)]
pub struct MesosFramework<'a> {
    #[serde(borrow)]
    pub framework_info: FrameworkInfo<'a>,
    pub registered_time: Option<Lenient<RegisteredTime>>,
}

#[derive(Debug, Deserialize)]
pub struct FrameworkInfo<'a> {
    #[serde(borrow)]
    pub id: Option<WrappedText<'a>>,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub hostname: Option<Cow<'a, str>>,
}
