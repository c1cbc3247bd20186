//! Wire types of Marathon's JSON, reduced to the members that l4lbd uses. Every member may be missing
//! but the ids.
//!
//! Every list item is a [`Lenient`], so that a value of an unexpected type costs that item alone: an
//! app, a task, a port, a label. A member that decides what the rest means costs the item that it is
//! a member of.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::mesos::{Lenient, LenientList, present};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarathonApp {
    pub id: String,
    /// Number of tasks that there should be.
    #[serde(default)]
    pub instances: Option<Lenient<u64>>,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default)]
    pub networks: LenientList<MarathonNetwork>,
    #[serde(default)]
    pub port_definitions: LenientList<MarathonPort>,
    #[serde(default)]
    pub container: Option<MarathonContainer>,
    /// Present before Marathon 1.5 if the app has an address of its own.
    #[serde(default)]
    pub ip_address: Option<IpPerTask>,
    #[serde(default)]
    pub health_checks: LenientList<HealthCheck>,
    #[serde(default, deserialize_with = "nullable")]
    pub readiness_checks: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    pub readiness_check_results: LenientList<ReadinessResult>,
    #[serde(default, deserialize_with = "nullable")]
    pub deployments: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    pub tasks: LenientList<MarathonTask>,
}

#[derive(Debug, Deserialize)]
pub struct MarathonNetwork {
    #[serde(default)]
    pub mode: Option<String>,
    #[serde(default)]
    pub name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarathonContainer {
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub port_mappings: LenientList<MarathonPort>,
    #[serde(default)]
    pub docker: Option<MarathonDocker>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarathonDocker {
    #[serde(default)]
    pub network: Option<String>,
    #[serde(default)]
    pub port_mappings: LenientList<MarathonPort>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpPerTask {
    #[serde(default)]
    pub network_name: Option<String>,
}

/// A port definition or a port mapping. Only what is not an object is unreadable: the ports after it
/// are placed by its place in the list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarathonPort {
    #[serde(default)]
    pub container_port: Option<Lenient<u16>>,
    /// Presence of the member `hostPort`: the number that counts is the task's.
    #[serde(default, rename = "hostPort", deserialize_with = "present")]
    pub is_mapped: bool,
    #[serde(default)]
    pub protocol: Option<Lenient<String>>,
    #[serde(default)]
    pub name: Option<Lenient<String>>,
    #[serde(default)]
    pub labels: Option<Lenient<MarathonLabels>>,
    #[serde(default)]
    pub network_names: Option<Lenient<Vec<String>>>,
}

/// Labels of a port.
pub type MarathonLabels = BTreeMap<String, Lenient<String>>;

#[derive(Debug, Deserialize)]
pub struct HealthCheck {
    #[serde(default)]
    pub protocol: Option<String>,
}

impl HealthCheck {
    /// Returns true for a check that Marathon does itself, so that Mesos knows nothing of it. HTTP is the
    /// default.
    pub fn is_marathons(&self) -> bool {
        !self
            .protocol
            .as_deref()
            .is_some_and(|protocol| protocol.starts_with("MESOS_") || protocol == "COMMAND")
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessResult {
    pub task_id: String,
    #[serde(default)]
    pub ready: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarathonTask {
    pub id: String,
    #[serde(default, deserialize_with = "nullable")]
    pub host: String,
    #[serde(default)]
    pub slave_id: Option<String>,
    /// Absent before Marathon 1.1, where a task that had started ran.
    #[serde(default)]
    pub state: Option<String>,
    #[serde(default, rename = "startedAt", deserialize_with = "present")]
    pub has_started: bool,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default)]
    pub ports: LenientList<u16>,
    #[serde(default)]
    pub ip_addresses: LenientList<MarathonAddress>,
    /// `null` in place of a check without a result yet.
    #[serde(default)]
    pub health_check_results: LenientList<Option<HealthResult>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarathonAddress {
    pub ip_address: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthResult {
    #[serde(default)]
    pub alive: bool,
    #[serde(default)]
    consecutive_failures: Option<u64>,
    #[serde(default, rename = "lastFailure", deserialize_with = "present")]
    has_failed: bool,
}

impl HealthResult {
    /// Returns true for a failed check. Within the grace period Marathon ignores failures: such a task
    /// is not alive and has no failures.
    pub fn is_bad(&self) -> bool {
        !self.alive && (self.has_failed || self.consecutive_failures != Some(0))
    }
}

#[derive(Debug, Deserialize)]
pub struct Pod {
    #[serde(default)]
    pub id: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub spec: PodSpec,
    #[serde(default)]
    pub instances: LenientList<PodInstance>,
}

#[derive(Debug, Default, Deserialize)]
pub struct PodSpec {
    #[serde(default)]
    pub scaling: Option<Lenient<PodScaling>>,
    #[serde(default)]
    pub networks: LenientList<MarathonNetwork>,
    #[serde(default)]
    pub containers: LenientList<PodContainer>,
}

#[derive(Debug, Deserialize)]
pub struct PodScaling {
    /// Number of instances that there should be.
    #[serde(default)]
    pub instances: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodContainer {
    pub name: String,
    #[serde(default, rename = "healthCheck", deserialize_with = "present")]
    pub has_check: bool,
    #[serde(default)]
    pub endpoints: LenientList<PodEndpoint>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodEndpoint {
    pub name: String,
    #[serde(default)]
    pub container_port: Option<u16>,
    /// Presence of the member `hostPort`: the number that counts is the instance's.
    #[serde(default, rename = "hostPort", deserialize_with = "present")]
    pub is_mapped: bool,
    #[serde(default)]
    pub protocol: LenientList<String>,
    #[serde(default)]
    pub labels: Option<Lenient<MarathonLabels>>,
    #[serde(default, deserialize_with = "nullable")]
    pub network_names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodInstance {
    #[serde(default)]
    pub id: Option<String>,
    #[serde(default)]
    pub agent_hostname: Option<String>,
    #[serde(default)]
    pub agent_id: Option<String>,
    #[serde(default)]
    pub networks: LenientList<PodNetwork>,
    #[serde(default)]
    pub containers: LenientList<PodContainerStatus>,
}

#[derive(Debug, Deserialize)]
pub struct PodNetwork {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub addresses: LenientList<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodContainerStatus {
    pub name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub status: String,
    #[serde(default)]
    pub container_id: Option<String>,
    #[serde(default)]
    pub conditions: LenientList<PodCondition>,
    #[serde(default)]
    pub endpoints: LenientList<PodEndpointStatus>,
}

/// Something that is true of a container or not, such as `healthy` with the value `true` or `false`.
#[derive(Debug, Deserialize)]
pub struct PodCondition {
    pub name: String,
    #[serde(default)]
    pub value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodEndpointStatus {
    pub name: String,
    #[serde(default)]
    pub allocated_host_port: Option<u16>,
    #[serde(default)]
    pub healthy: Option<bool>,
}

/// Reads a member for which `null` means the same as its absence.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
