//! Mesos' `/state` documents, as small as they can be: the fields that decide about VIPs, in the
//! shapes of a real master.

use serde_json::{Value, json};

use super::lab::{AGENT, REMOTE, THIRD};

/// What a master knows. Agents are the lab's; all tasks are Marathon's.
#[derive(Debug, Clone, Default)]
pub struct State {
    tasks: Vec<Task>,
    lost: Vec<Task>,
    /// A master that has just been elected and has heard from no agent.
    failed_over: bool,
}

#[derive(Debug, Clone)]
pub struct Task {
    id: String,
    agent: String,
    /// The container's own address, or the agent's on its network.
    address: String,
    network: Network,
    runner: Runner,
    protocol: &'static str,
    vips: Vec<String>,
    options: Vec<(String, String)>,
    state: &'static str,
    healthy: Option<bool>,
}

#[derive(Debug, Clone, Copy)]
enum Network {
    /// The agent's network: one port.
    Host { port: u16 },
    /// A network whose addresses all agents reach: one port of the container.
    Container { port: u16 },
    /// A port of the agent mapped to one of the container.
    Mapped { host_port: u16, container_port: u16 },
}

/// What runs a task. Each is told of in a shape of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runner {
    /// No container: a command of the Mesos containerizer.
    Command,
    Docker,
    Mesos,
    /// The Mesos containerizer, in the container of an executor. Only the status tells of the network.
    Pod,
}

impl State {
    pub fn of(tasks: impl IntoIterator<Item = Task>) -> Self {
        Self { tasks: tasks.into_iter().collect(), ..Self::default() }
    }

    /// With tasks on agents that the master has lost.
    pub fn lost(mut self, lost: impl IntoIterator<Item = Task>) -> Self {
        self.lost = lost.into_iter().map(|task| task.in_state("TASK_UNREACHABLE")).collect();
        self
    }

    /// What a new master knows at first: nothing but the ids of the agents.
    pub fn after_failover() -> Self {
        Self { failed_over: true, ..Self::default() }
    }

    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// Whether the task is in it, on a lost agent or not.
    pub fn knows(&self, task: &Task) -> bool {
        self.tasks.iter().chain(&self.lost).any(|own| own.is(task))
    }

    /// The document, with the tasks that have `ended` where a master keeps them: one that vanished
    /// without a trace would look like a fault of the master.
    pub fn document(&self, ended: &[Task]) -> Value {
        let agents = [AGENT, REMOTE, THIRD].map(|address| {
            json!({
                "id": agent_id(address), "hostname": address, "port": 5051, "active": true,
                "pid": format!("slave(1)@{address}:5051"), "attributes": {}, "capabilities": ["MULTI_ROLE"],
            })
        });
        let (id, elected, agents, awaited) = match self.failed_over {
            false => ("0b7c1f6e-6f0c-4a3a-9d53-4b8f3a5b7d10", 1_700_000_001.5, json!(agents), json!([])),
            true => ("77777777-6f0c-4a3a-9d53-4b8f3a5b7d10", 1_700_000_777.5, json!([]), json!(agents)),
        };
        json!({
            "version": "1.11.0",
            "id": id,
            "start_time": 1_700_000_000.5,
            "elected_time": elected,
            "pid": format!("master@{REMOTE}:5050"),
            "leader": format!("master@{REMOTE}:5050"),
            "slaves": agents,
            "recovered_slaves": awaited,
            "frameworks": [{
                "id": FRAMEWORK, "name": "marathon", "active": true, "connected": true, "recovered": false,
                "tasks": self.tasks.iter().map(Task::document).collect::<Vec<_>>(),
                "unreachable_tasks": self.lost.iter().map(Task::document).collect::<Vec<_>>(),
                "completed_tasks": ended.iter().map(Task::document).collect::<Vec<_>>(),
            }],
            "completed_frameworks": [],
            "orphan_tasks": [],
            "unregistered_frameworks": [],
        })
    }
}

/// Name of the network of containers with addresses of their own.
const USER_NETWORK: &str = "dcos";

const FRAMEWORK: &str = "0b7c1f6e-6f0c-4a3a-9d53-4b8f3a5b7d10-0000";

impl Task {
    /// On the agent's own network.
    pub fn host(id: &str, agent: &str, port: u16) -> Self {
        Self::new(id, agent, agent, Network::Host { port })
    }

    /// With an address of its own.
    pub fn container(id: &str, agent: &str, address: &str, port: u16) -> Self {
        Self::new(id, agent, address, Network::Container { port })
    }

    /// Behind a port of its agent, run by the Mesos containerizer.
    pub fn mapped(id: &str, agent: &str, address: &str, host_port: u16, container_port: u16) -> Self {
        Self::new(id, agent, address, Network::Mapped { host_port, container_port })
    }

    /// Behind a port of its agent, run by Docker.
    pub fn docker(id: &str, agent: &str, address: &str, host_port: u16, container_port: u16) -> Self {
        Self::mapped(id, agent, address, host_port, container_port).run_by(Runner::Docker)
    }

    /// Where it is not the usual one: no container on the agent's network, else the Mesos containerizer.
    pub fn run_by(mut self, runner: Runner) -> Self {
        self.runner = runner;
        self
    }

    fn new(id: &str, agent: &str, address: &str, network: Network) -> Self {
        Self {
            id: id.into(),
            agent: agent.into(),
            address: address.into(),
            network,
            runner: if matches!(network, Network::Host { .. }) { Runner::Command } else { Runner::Mesos },
            protocol: "tcp",
            vips: Vec::new(),
            options: Vec::new(),
            state: "TASK_RUNNING",
            healthy: None,
        }
    }

    /// As a master remembers it.
    pub fn ended(mut self) -> Self {
        self.state = "TASK_KILLED";
        self
    }

    pub fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Adds a VIP label to the task's port, such as `/web:80`.
    pub fn vip(mut self, label: &str) -> Self {
        self.vips.push(label.into());
        self
    }

    /// Adds a label beside the VIP, such as `L4LB_SCHEDULER`.
    pub fn option(mut self, key: &str, value: &str) -> Self {
        self.options.push((key.into(), value.into()));
        self
    }

    pub fn udp(mut self) -> Self {
        self.protocol = "udp";
        self
    }

    pub fn in_state(mut self, state: &'static str) -> Self {
        self.state = state;
        self
    }

    pub fn healthy(mut self, healthy: bool) -> Self {
        self.healthy = Some(healthy);
        self
    }

    fn document(&self) -> Value {
        let mut task = json!({
            "id": self.id, "name": self.id, "framework_id": FRAMEWORK, "executor_id": "", "role": "*",
            "slave_id": agent_id(&self.agent), "state": self.state,
            "resources": {"cpus": 0.1, "mem": 32.0, "disk": 0.0, "gpus": 0.0},
            "statuses": [self.status()],
            "discovery": {
                "visibility": "FRAMEWORK", "name": self.id,
                "ports": {"ports": [self.port()]},
            },
        });
        if let Some(container) = self.container_info() {
            task["container"] = container;
        }
        if self.runner == Runner::Pod {
            task["executor_id"] = format!("instance-{}", self.id).into();
        }
        task
    }

    fn status(&self) -> Value {
        let family = if self.address.contains(':') { "IPv6" } else { "IPv4" };
        let mut network = json!({"ip_addresses": [{"protocol": family, "ip_address": self.address}]});
        match self.network {
            Network::Container { .. } => network["name"] = USER_NETWORK.into(),
            Network::Mapped { host_port, container_port } if self.runner != Runner::Docker => {
                network["name"] = "mesos-bridge".into();
                network["port_mappings"] = self.mapping(host_port, container_port);
            }
            _ => {}
        }
        let mut status = json!({
            "state": self.state,
            "timestamp": 1_700_000_100.25,
            "container_status": {
                "container_id": {"value": format!("{}-container", self.id)},
                "network_infos": [network],
            },
        });
        if self.runner == Runner::Pod {
            status["container_status"]["container_id"]["parent"] =
                json!({"value": format!("{}-pod", self.id)});
        }
        if let Some(healthy) = self.healthy {
            status["healthy"] = healthy.into();
        }
        status
    }

    fn port(&self) -> Value {
        let mut labels: Vec<Value> = self
            .vips
            .iter()
            .enumerate()
            .map(|(index, vip)| json!({"key": format!("VIP_{index}"), "value": vip}))
            .collect();
        labels.extend(self.options.iter().map(|(key, value)| json!({"key": key, "value": value})));
        let (number, scope) = match self.network {
            Network::Host { port } => (port, None),
            Network::Container { port } => (port, Some("container")),
            Network::Mapped { host_port, .. } => (host_port, Some("host")),
        };
        if scope == Some("container") {
            labels.push(json!({"key": "network-name", "value": USER_NETWORK}));
        }
        labels.extend(scope.map(|scope| json!({"key": "network-scope", "value": scope})));
        json!({"number": number, "name": "main", "protocol": self.protocol, "labels": {"labels": labels}})
    }

    fn mapping(&self, host_port: u16, container_port: u16) -> Value {
        json!([{"host_port": host_port, "container_port": container_port, "protocol": self.protocol}])
    }

    fn container_info(&self) -> Option<Value> {
        match self.runner {
            Runner::Command | Runner::Pod => None,
            Runner::Docker => {
                let mut docker = json!({"image": "nginx", "privileged": false, "force_pull_image": false});
                let mut container = json!({"type": "DOCKER"});
                docker["network"] = match self.network {
                    Network::Host { .. } => "HOST",
                    Network::Mapped { .. } => "BRIDGE",
                    Network::Container { .. } => "USER",
                }
                .into();
                match self.network {
                    Network::Mapped { host_port, container_port } => {
                        docker["port_mappings"] = self.mapping(host_port, container_port);
                    }
                    Network::Container { .. } => {
                        container["network_infos"] = json!([{"name": USER_NETWORK}]);
                    }
                    Network::Host { .. } => {}
                }
                container["docker"] = docker;
                Some(container)
            }
            Runner::Mesos => {
                let network =
                    |name: &str| json!({"ip_addresses": [{"protocol": "IPv4"}], "name": name, "labels": {}});
                let mut container = json!({"type": "MESOS", "mesos": {}});
                match self.network {
                    Network::Mapped { host_port, container_port } => {
                        let mut bridge = network("mesos-bridge");
                        bridge["port_mappings"] = self.mapping(host_port, container_port);
                        container["network_infos"] = json!([bridge]);
                    }
                    Network::Container { .. } => container["network_infos"] = json!([network(USER_NETWORK)]),
                    Network::Host { .. } => {}
                }
                Some(container)
            }
        }
    }
}

fn agent_id(address: &str) -> String {
    let last = address.rsplit('.').next().unwrap_or(address);
    format!("0b7c1f6e-6f0c-4a3a-9d53-4b8f3a5b7d10-S{last}")
}
