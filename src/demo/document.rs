//! The cluster model as the v0 `/state` document of a Mesos master.

use serde_json::{Value, json};

use super::scenario::{AgentId, ClusterModel, InstanceId, InstanceState};

/// Label `VIP_0` of each task's port.
const LABEL: &str = "/web:80";

const CLUSTER: &str = "7d0d4a86-2b0e-4f7c-9d5e-5f0a3c1b8e42";

/// Address of the master. Nothing connects to it: the daemon reads the document from a file.
const MASTER: &str = "10.77.0.250:5050";

/// Seconds since 1970 of every event in the document; the daemon's table does not depend on times.
const EPOCH: f64 = 1_700_000_000.25;

/// Returns the document of the leading master.
pub fn document(cluster: &ClusterModel) -> Value {
    let agents: Vec<Value> =
        AgentId::ALL.into_iter().filter(|agent| !cluster.lost.contains(agent)).map(agent).collect();
    let tasks = |wanted: fn(InstanceState) -> bool| -> Vec<Value> {
        cluster
            .instances
            .iter()
            .filter(|(_, state)| wanted(**state))
            .map(|(instance, state)| task(*instance, *state))
            .collect()
    };
    json!({
        "version": "1.11.0",
        "id": CLUSTER,
        "pid": format!("master@{MASTER}"),
        "leader": format!("master@{MASTER}"),
        "leader_info": {"id": CLUSTER, "pid": format!("master@{MASTER}"), "hostname": "master", "port": 5050},
        "start_time": EPOCH,
        "elected_time": EPOCH + 1.0,
        "activated_slaves": agents.len(),
        "deactivated_slaves": 0,
        "unreachable_slaves": cluster.lost.len(),
        "slaves": agents,
        "recovered_slaves": [],
        "frameworks": [{
            "id": framework(), "name": "marathon", "active": true, "connected": true, "recovered": false,
            "tasks": tasks(|state| !matches!(state, InstanceState::Ended | InstanceState::Unreachable)),
            "unreachable_tasks": tasks(|state| state == InstanceState::Unreachable),
            "completed_tasks": tasks(|state| state == InstanceState::Ended),
        }],
        "completed_frameworks": [],
        "orphan_tasks": [],
        "unregistered_frameworks": [],
    })
}

fn framework() -> String {
    format!("{CLUSTER}-0000")
}

fn agent_id(agent: AgentId) -> String {
    format!("{CLUSTER}-S{}", agent.0)
}

fn agent(agent: AgentId) -> Value {
    json!({
        "id": agent_id(agent), "hostname": agent.to_string(), "port": 5051, "active": true, "deactivated": false,
        "pid": format!("slave(1)@{}:5051", agent.address()), "registered_time": EPOCH + 2.0,
        "attributes": {}, "version": "1.11.0", "capabilities": ["MULTI_ROLE"],
    })
}

fn task(instance: InstanceId, state: InstanceState) -> Value {
    let (task_state, healthy) = match state {
        InstanceState::Starting => ("TASK_STARTING", None),
        InstanceState::Healthy => ("TASK_RUNNING", Some(true)),
        InstanceState::Unhealthy => ("TASK_RUNNING", Some(false)),
        InstanceState::Stopping => ("TASK_KILLING", Some(true)),
        InstanceState::Ended => ("TASK_KILLED", Some(true)),
        InstanceState::Unreachable => ("TASK_UNREACHABLE", None),
    };
    let mut status = json!({
        "state": task_state,
        "timestamp": EPOCH + 60.0,
        "container_status": {
            "container_id": {"value": format!("container-{}", instance.0)},
            "network_infos": [{
                "ip_addresses": [{"protocol": "IPv4", "ip_address": instance.agent().address().to_string()}],
            }],
        },
    });
    if let (Some(healthy), Some(status)) = (healthy, status.as_object_mut()) {
        status.insert("healthy".to_owned(), healthy.into());
    }
    json!({
        "id": instance.to_string(), "name": "web", "framework_id": framework(), "executor_id": "", "role": "*",
        "slave_id": agent_id(instance.agent()), "state": task_state,
        "resources": {
            "cpus": 0.1, "mem": 32.0, "disk": 0.0, "gpus": 0.0, "ports": format!("[{0}-{0}]", instance.port()),
        },
        "statuses": [status],
        "labels": [{"key": "version", "value": instance.version()}],
        "discovery": {
            "visibility": "FRAMEWORK", "name": "web",
            "ports": {"ports": [{
                "number": instance.port(), "name": "http", "protocol": "tcp",
                "labels": {"labels": [{"key": "VIP_0", "value": LABEL}]},
            }]},
        },
    })
}
