//! Wire types of Marathon's JSON, reduced to the members that l4lbd uses. Every member may be missing.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

#[derive(Debug, Deserialize)]
pub struct MarathonApps {
    pub apps: Vec<MarathonApp>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarathonApp {
    pub id: String,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub networks: Vec<MarathonNetwork>,
    #[serde(default, deserialize_with = "nullable")]
    pub port_definitions: Vec<MarathonPort>,
    #[serde(default)]
    pub container: Option<MarathonContainer>,
    /// Present before Marathon 1.5 if the app has an address of its own.
    #[serde(default)]
    pub ip_address: Option<IpPerTask>,
    #[serde(default, deserialize_with = "nullable")]
    pub health_checks: Vec<HealthCheck>,
    #[serde(default, deserialize_with = "nullable")]
    pub readiness_checks: Vec<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "nullable")]
    pub readiness_check_results: Vec<ReadinessResult>,
    #[serde(default, deserialize_with = "nullable")]
    pub deployments: Vec<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "nullable")]
    pub tasks: Vec<MarathonTask>,
}

#[derive(Debug, Deserialize)]
pub struct MarathonNetwork {
    #[serde(default)]
    pub mode: NetworkMode,
    #[serde(default)]
    pub name: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum NetworkMode {
    #[default]
    #[serde(rename = "host")]
    Host,
    #[serde(rename = "container/bridge")]
    Bridge,
    #[serde(rename = "container")]
    Container,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarathonContainer {
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub port_mappings: Option<Vec<MarathonPort>>,
    #[serde(default)]
    pub docker: Option<MarathonDocker>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarathonDocker {
    #[serde(default)]
    pub network: Option<String>,
    #[serde(default)]
    pub port_mappings: Option<Vec<MarathonPort>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpPerTask {
    #[serde(default)]
    pub network_name: Option<String>,
}

/// A port definition or a port mapping.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarathonPort {
    #[serde(default)]
    pub container_port: u32,
    #[serde(default)]
    pub host_port: Option<u32>,
    #[serde(default)]
    pub protocol: Option<String>,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    pub network_names: Vec<String>,
}

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
    #[serde(default)]
    pub host: String,
    #[serde(default)]
    pub slave_id: Option<String>,
    /// Absent before Marathon 1.1, where a task that had started ran.
    #[serde(default)]
    pub state: Option<String>,
    #[serde(default)]
    pub started_at: Option<String>,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Vec<u16>,
    #[serde(default, deserialize_with = "nullable")]
    pub ip_addresses: Vec<MarathonAddress>,
    /// `null` in place of a check without a result yet.
    #[serde(default, deserialize_with = "nullable")]
    pub health_check_results: Vec<Option<HealthResult>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarathonAddress {
    pub ip_address: String,
}

#[derive(Debug, Deserialize)]
pub struct HealthResult {
    #[serde(default)]
    pub alive: bool,
}

#[derive(Debug, Deserialize)]
pub struct Pod {
    #[serde(default)]
    pub spec: PodSpec,
    #[serde(default, deserialize_with = "nullable")]
    pub instances: Vec<PodInstance>,
}

#[derive(Debug, Default, Deserialize)]
pub struct PodSpec {
    #[serde(default, deserialize_with = "nullable")]
    pub networks: Vec<MarathonNetwork>,
    #[serde(default, deserialize_with = "nullable")]
    pub containers: Vec<PodContainer>,
}

#[derive(Debug, Deserialize)]
pub struct PodContainer {
    pub name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub endpoints: Vec<PodEndpoint>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodEndpoint {
    pub name: String,
    #[serde(default)]
    pub container_port: Option<u16>,
    #[serde(default, deserialize_with = "nullable")]
    pub protocol: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    pub network_names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodInstance {
    #[serde(default)]
    pub agent_hostname: Option<String>,
    #[serde(default)]
    pub agent_id: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub networks: Vec<PodNetwork>,
    #[serde(default, deserialize_with = "nullable")]
    pub containers: Vec<PodContainerStatus>,
}

#[derive(Debug, Deserialize)]
pub struct PodNetwork {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub addresses: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodContainerStatus {
    pub name: String,
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub container_id: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub endpoints: Vec<PodEndpointStatus>,
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
