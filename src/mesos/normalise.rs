//! From the wire's tasks and agents to the normalised ones.
//!
//! The rules of the peer that l4lbd replaces decide what a port is: a task's port mappings, its
//! port resources (for legacy `vip_portN` labels) and its discovery ports are merged, two entries
//! being the same port if their protocol and either of their numbers agree. Unlike the peer's, an
//! entry that makes no sense costs that entry alone and is recorded.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::de::SeqAccess;

use super::fold::ArrayFold;
use super::wire::{self, Labels, Lenient, List};
use crate::cluster::port_options::{self, PortOptions};
use crate::cluster::registry::{Described, NamedPort, Scheduler};
use crate::cluster::{
    Agent, MAX_LABELS, MAX_VALUE, Protocol, Runtime, Skipped, Snapshot, Task, TaskAddress, TaskKey, TaskPort,
    TaskState, VipLabel, shortened,
};

/// Notes the tasks that a document lists as ended or unreachable.
pub struct Ended<'a> {
    pub snapshot: &'a mut Snapshot,
    /// Whether it is the list of those whose agent the master has lost.
    pub unreachable: bool,
}

impl<'de> ArrayFold<'de> for Ended<'_> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<Option<()>, A::Error> {
        let Some(task) = seq.next_element::<Lenient<wire::EndedTask<'de>>>()? else { return Ok(None) };
        if let Lenient::Read(wire::EndedTask { id, framework_id: Some(framework), state }) = task {
            let key = TaskKey { framework: framework.0.into_owned(), task: id.0.into_owned() };
            // An operator who marks an agent as gone ends its tasks without having asked them.
            let gone = state.is_some_and(|state| matches!(&*state, "TASK_GONE" | "TASK_GONE_BY_OPERATOR"));
            if self.unreachable || gone {
                self.snapshot.lost.insert(key.clone());
            }
            self.snapshot.ended.insert(key);
        }
        Ok(Some(()))
    }
}

/// The address in a libprocess `pid`, such as `slave(1)@10.0.0.1:5051`.
pub fn pid_address(pid: &str) -> Option<IpAddr> {
    let (_, address) = pid.rsplit_once('@')?;
    Some(address.parse::<SocketAddr>().ok()?.ip())
}

/// An agent's address is in its `pid`; the hostname is often a name, which only helps where it is
/// numeric.
pub fn agent(hostname: String, pid: Option<&str>) -> Agent {
    let address = pid.and_then(pid_address).or_else(|| hostname.parse().ok());
    Agent { hostname, address }
}

/// Adds an agent that is registered, or one that a new master still awaits.
pub fn add_agent(snapshot: &mut Snapshot, agent: Lenient<wire::Agent<'_>>, recovered: bool) {
    let agent_fields = match agent {
        Lenient::Read(fields) => fields,
        Lenient::Unreadable { error, json } => {
            snapshot.skipped.push(Skipped {
                task: "agents[]".to_owned(),
                value: Some(json),
                reason: format!("an agent that cannot be read: {error}"),
                ..Skipped::default()
            });
            return;
        }
    };
    let wire::Agent { id, hostname, pid, agent_info } = agent_fields;
    let info = agent_info.map(|info| *info);
    let (info_id, info_hostname) = info.map_or((None, None), |info| (info.id, info.hostname));
    let Some(id) = id.or(info_id) else { return };
    let id = id.0.into_owned();
    if recovered {
        snapshot.recovered.insert(id);
    } else {
        snapshot.recovered.remove(&id);
        let hostname = hostname.or(info_hostname).unwrap_or_default().into_owned();
        snapshot.agents.insert(id, self::agent(hostname, pid.as_deref()));
    }
}

/// Adds a task if it carries VIP labels and has not ended.
pub fn add_task(snapshot: &mut Snapshot, task: Lenient<wire::Task<'_>>) {
    match task {
        Lenient::Read(task) => match TaskState::parse(&task.state) {
            state @ (TaskState::Terminal | TaskState::Lost) => {
                if let Some(framework) = task.framework_id {
                    let key = TaskKey { framework: framework.0.into_owned(), task: task.id.0.into_owned() };
                    if state == TaskState::Lost {
                        snapshot.lost.insert(key.clone());
                    }
                    snapshot.ended.insert(key);
                }
            }
            state => {
                if state == TaskState::Running {
                    name_task(snapshot, &task);
                }
                let reading = Reading { skipped: &mut snapshot.skipped, task: &task, state };
                if let Some(task) = reading.task() {
                    snapshot.tasks.insert(task.key.clone(), task);
                }
            }
        },
        Lenient::Unreadable { error, json } => snapshot.skipped.push(Skipped {
            task: "tasks[]".to_owned(),
            value: Some(json),
            reason: format!("a task that cannot be read: {error}"),
            ..Skipped::default()
        }),
    }
}

/// Notes where a framework's scheduler is: in its libprocess `pid`, else its hostname where that is
/// numeric.
pub fn add_scheduler(snapshot: &mut Snapshot, framework: &str, pid: Option<&str>, hostname: Option<&str>) {
    let pid = pid.and_then(|pid| pid.rsplit_once('@')).and_then(|(_, at)| at.parse::<SocketAddr>().ok());
    let scheduler = match pid {
        Some(pid) => Some(Scheduler { address: pid.ip(), port: Some(pid.port()) }),
        None => hostname
            .and_then(|hostname| hostname.parse().ok())
            .map(|address| Scheduler { address, port: None }),
    };
    if let Some(scheduler) = scheduler {
        Arc::make_mut(&mut snapshot.names).schedulers.insert(framework.to_owned(), scheduler);
    }
}

/// Notes what the resolver needs of a running task.
fn name_task(snapshot: &mut Snapshot, task: &wire::Task<'_>) {
    let (Some(framework), Some(agent)) = (&task.framework_id, &task.slave_id) else { return };
    let discovery = task.discovery.as_ref();
    let discovered =
        discovery.and_then(|discovery| discovery.name.as_deref()).filter(|name| !name.is_empty());
    let ports =
        || discovery.into_iter().filter_map(|d| d.ports.as_ref()).flat_map(|ports| read(&ports.ports));
    let reading = Reading { skipped: &mut Vec::new(), task, state: TaskState::Running };
    let on_agent = |port: &wire::DiscoveryPort<'_>| {
        port.labels
            .iter()
            .flat_map(read_labels)
            .any(|label| label.key == "network-scope" && label.value.as_deref() == Some("host"))
    };
    let legacy = |label: &wire::Label<'_>| {
        label.key.get(.."vip_port".len()).is_some_and(|start| start.eq_ignore_ascii_case("vip_port"))
    };
    let described = Described {
        name: discovered.or(task.name.as_deref()).unwrap_or_default(),
        is_published: ports().any(on_agent)
            || !reading.mappings().is_empty()
            || task.labels.iter().flat_map(read_labels).any(legacy),
        addresses: reading.networks().flat_map(network_addresses).filter_map(address).collect(),
        ports: discovered.map(|_| ports().filter_map(named_port).collect()),
        resources: &task.resources.0,
    };
    let id = task.id.0.as_ref();
    Arc::make_mut(&mut snapshot.names).add(id, &framework.0, &agent.0, described);
}

/// A port of any protocol is one of both.
fn named_port(port: &wire::DiscoveryPort<'_>) -> Option<NamedPort> {
    let protocol = match port.protocol.as_deref() {
        None | Some("") => None,
        Some(protocol) => Some(Protocol::parse(protocol)?),
    };
    let label = crate::cluster::dns_label::label(port.name.as_deref().unwrap_or_default()).into();
    Some(NamedPort { label, protocol, number: bound_port(port.number?)? })
}

/// The CNI isolator reports IPv6 addresses with their prefix length.
fn address(text: &str) -> Option<IpAddr> {
    text.split_once('/').map_or(text, |(address, _)| address).parse().ok()
}

/// One task on its way from the wire.
struct Reading<'a, 'de> {
    skipped: &'a mut Vec<Skipped>,
    task: &'a wire::Task<'de>,
    state: TaskState,
}

/// One entry of the three lists that are merged into ports.
#[derive(Default)]
struct Entry {
    name: Option<String>,
    port: Option<u16>,
    host_port: Option<u16>,
    networks: BTreeSet<String>,
    labels: Vec<VipLabel>,
    options: PortOptions,
}

impl Reading<'_, '_> {
    fn task(mut self) -> Option<Task> {
        let ports = self.ports();
        if ports.is_empty() {
            return None;
        }
        let (Some(framework), Some(agent)) = (&self.task.framework_id, &self.task.slave_id) else {
            self.skip(None, None, None, "the task names no framework or no agent");
            return None;
        };
        Some(Task {
            key: TaskKey { framework: framework.0.to_string(), task: self.task.id.0.to_string() },
            agent_id: agent.0.to_string(),
            state: self.state,
            healthy: self.healthy(),
            runtime: match self.container_type() {
                Some("DOCKER") => Runtime::Docker,
                _ => Runtime::Mesos,
            },
            addresses: self.addresses(),
            ports,
        })
    }

    fn container_type(&self) -> Option<&str> {
        self.task.container.as_ref().and_then(|container| container.kind.as_deref())
    }

    /// The newest status decides; without a result there, a task with a health check counts as
    /// unhealthy until its first one.
    fn healthy(&self) -> Option<bool> {
        let newest = self.newest_status(|_| true).and_then(|status| status.healthy);
        newest.or(self.task.health_check.then_some(false))
    }

    /// The newest status that `wanted` accepts; of equal times the later in the list.
    fn newest_status(&self, wanted: impl Fn(&wire::Status<'_>) -> bool) -> Option<&wire::Status<'_>> {
        read(&self.task.statuses)
            .filter(|status| wanted(status))
            .max_by(|a, b| a.timestamp.unwrap_or_default().total_cmp(&b.timestamp.unwrap_or_default()))
    }

    /// Networks of the newest TASK_RUNNING status that has any: in other states Mesos fills in the
    /// agent's address for a container's.
    fn networks(&self) -> impl Iterator<Item = &wire::NetworkInfo<'_>> {
        let located = |status: &wire::Status<'_>| {
            read(container_networks(status)).any(|network| network_addresses(network).next().is_some())
        };
        self.newest_status(|status| status.state == "TASK_RUNNING" && located(status))
            .or_else(|| self.newest_status(located))
            .into_iter()
            .flat_map(|status| read(container_networks(status)))
    }

    fn addresses(&mut self) -> Vec<TaskAddress> {
        let mut addresses = Vec::new();
        let mut odd = Vec::new();
        for network in self.networks() {
            for text in network_addresses(network) {
                match address(text) {
                    Some(address) => addresses.push(TaskAddress {
                        address,
                        network: network.name.as_deref().filter(|name| !name.is_empty()).map(str::to_owned),
                    }),
                    None => odd.push(text.to_owned()),
                }
            }
        }
        for text in odd {
            self.skip(None, None, Some(text), "not an IP address");
        }
        addresses
    }

    /// Ports with VIP labels.
    fn ports(&mut self) -> Vec<TaskPort> {
        let mut ports: Vec<(Protocol, Entry)> = Vec::new();
        let discovered = self.discovered();
        let legacy = self.legacy();
        if discovered.iter().chain(&legacy).all(|(_, entry)| entry.labels.is_empty()) {
            return Vec::new();
        }
        for (protocol, entry) in self.mappings().into_iter().chain(legacy).chain(discovered) {
            merge(&mut ports, protocol, entry);
        }
        self.bound(&mut ports);
        ports
            .into_iter()
            .filter(|(_, entry)| !entry.labels.is_empty())
            .map(|(protocol, entry)| TaskPort {
                name: entry.name.unwrap_or_else(|| "default".to_owned()),
                protocol,
                port: entry.port,
                host_port: entry.host_port,
                networks: entry.networks,
                labels: entry.labels,
                options: entry.options,
            })
            .collect()
    }

    /// Port mappings of the container: Docker keeps its own, others have them per network, and pods
    /// only in their status.
    fn mappings(&self) -> Vec<(Protocol, Entry)> {
        let mappings: Vec<&wire::PortMapping<'_>> = match &self.task.container {
            Some(container) if self.container_type() == Some("DOCKER") => {
                container.docker.iter().flat_map(|docker| read(&docker.port_mappings)).collect()
            }
            Some(container) if container.network_infos.is_some() => {
                read(&container.network_infos).flat_map(|network| read(&network.port_mappings)).collect()
            }
            _ => self.networks().flat_map(|network| read(&network.port_mappings)).collect(),
        };
        let entry = |mapping: &wire::PortMapping<'_>| {
            let protocol = Protocol::parse(mapping.protocol.as_deref().unwrap_or("tcp"))?;
            let port = Some(bound_port(mapping.container_port)?);
            let host_port = Some(bound_port(mapping.host_port)?);
            Some((protocol, Entry { port, host_port, ..Entry::default() }))
        };
        mappings.into_iter().filter_map(entry).collect()
    }

    /// Task labels `vip_portN = tcp://VIP`, where N counts the task's port resources.
    fn legacy(&mut self) -> Vec<(Protocol, Entry)> {
        let Some(labels) = &self.task.labels else { return Vec::new() };
        let mut entries = Vec::new();
        for label in read_labels(labels) {
            let key = label.key.to_ascii_lowercase();
            let (Some(index), Some(value)) = (key.strip_prefix("vip_port"), label.value.as_deref()) else {
                continue;
            };
            match self.legacy_port(index, value) {
                Ok((protocol, host_port, vip)) => {
                    let labels = vec![VipLabel { key: label.key.to_string(), value: vip.to_owned() }];
                    entries
                        .push((protocol, Entry { host_port: Some(host_port), labels, ..Entry::default() }));
                }
                Err(reason) => {
                    self.skip(None, Some(label.key.to_string()), Some(value.to_owned()), &reason);
                }
            }
        }
        entries
    }

    fn legacy_port<'v>(&self, index: &str, value: &'v str) -> Result<(Protocol, u16, &'v str), String> {
        let (protocol, vip) = if let Some(vip) = value.strip_prefix("tcp://") {
            (Protocol::Tcp, vip)
        } else if let Some(vip) = value.strip_prefix("udp://") {
            (Protocol::Udp, vip)
        } else {
            return Err("the value must start with tcp:// or udp://".to_owned());
        };
        let number: u64 = index.parse().map_err(|_| "vip_port must be followed by a number".to_owned())?;
        match self.task.resources.nth(number).and_then(bound_port) {
            Some(port) => Ok((protocol, port, vip)),
            None => Err(format!("the task has no port resource number {number} (they are counted from 0)")),
        }
    }

    fn discovered(&mut self) -> Vec<(Protocol, Entry)> {
        let ports = self.task.discovery.as_ref().and_then(|discovery| discovery.ports.as_ref());
        let mut entries = Vec::new();
        for port in ports.and_then(|ports| ports.ports.as_ref()).into_iter().flatten() {
            match port {
                Lenient::Read(port) => entries.extend(self.discovery_port(port)),
                Lenient::Unreadable { error, json } => {
                    let reason = format!("a port that cannot be read: {error}");
                    self.skip(None, None, Some(json.clone()), &reason);
                }
            }
        }
        entries
    }

    /// A port without VIP labels matters as well: a legacy label may be on the same one.
    fn discovery_port(&mut self, port: &wire::DiscoveryPort<'_>) -> Option<(Protocol, Entry)> {
        let mut entry = Entry { name: port.name.as_deref().map(str::to_owned), ..Entry::default() };
        let mut scopes = BTreeSet::new();
        for label in port.labels.iter().flat_map(|labels| &labels.0) {
            let label = match label {
                Lenient::Read(label) => label,
                Lenient::Unreadable { error, json } => {
                    let reason = format!("a label that cannot be read: {error}");
                    self.skip(Some(describe(port)), None, Some(json.clone()), &reason);
                    continue;
                }
            };
            match (label.key.as_ref(), label.value.as_deref()) {
                ("network-scope", Some(scope)) => {
                    scopes.insert(scope);
                }
                ("network-name", Some(network)) => {
                    entry.networks.insert(network.to_owned());
                }
                (key, Some(value)) if key.starts_with("VIP") || key.starts_with("vip") => {
                    entry.labels.push(VipLabel { key: key.to_owned(), value: value.to_owned() });
                }
                (key, Some(value)) if key.starts_with(port_options::PREFIX) => {
                    if let Err(reason) = entry.options.set(key, value) {
                        self.skip(
                            Some(describe(port)),
                            Some(key.to_owned()),
                            Some(value.to_owned()),
                            &reason,
                        );
                    }
                }
                (key, None) if key.starts_with("VIP") || key.starts_with("vip") => {
                    self.skip(Some(describe(port)), Some(key.to_owned()), None, "the label has no value");
                }
                _ => {}
            }
        }
        match place(port, &scopes, &mut entry) {
            Ok(protocol) => Some((protocol, entry)),
            Err(reason) => {
                for label in entry.labels {
                    self.skip(Some(describe(port)), Some(label.key), Some(label.value), &reason);
                }
                None
            }
        }
    }

    /// Leaves out labels that nobody needs and that would cost every node dearly.
    fn bound(&mut self, ports: &mut [(Protocol, Entry)]) {
        let mut room = MAX_LABELS;
        let mut beyond = 0;
        for (_, entry) in ports {
            for label in std::mem::take(&mut entry.labels) {
                if label.value.len() > MAX_VALUE || label.key.len() > MAX_VALUE {
                    let length = label.value.len().max(label.key.len());
                    let reason =
                        format!("the label has {length} bytes, and a VIP never needs more than {MAX_VALUE}");
                    self.skip(entry.name.clone(), Some(label.key), Some(label.value), &reason);
                } else if room > 0 {
                    room -= 1;
                    entry.labels.push(label);
                } else {
                    beyond += 1;
                }
            }
        }
        if beyond > 0 {
            let reason = format!("a task can have {MAX_LABELS} VIP labels, and this has {beyond} more");
            self.skip(None, None, None, &reason);
        }
    }

    fn skip(&mut self, port: Option<String>, label: Option<String>, value: Option<String>, reason: &str) {
        if self.state.is_serving() {
            let task = self.task.id.0.to_string();
            let (label, value) = (label.map(shortened), value.map(shortened));
            self.skipped.push(Skipped { task, port, label, value, reason: reason.to_owned() });
        }
    }
}

/// Finds out whether the number of a discovery port is the container's or the agent's.
fn place(
    port: &wire::DiscoveryPort<'_>,
    scopes: &BTreeSet<&str>,
    entry: &mut Entry,
) -> Result<Protocol, String> {
    let protocol = port.protocol.as_deref().ok_or("the port has no protocol")?;
    let protocol =
        Protocol::parse(protocol).ok_or_else(|| format!("protocol {protocol:?} is neither tcp nor udp"))?;
    let number = port.number.ok_or("the port has no number")?;
    let number = bound_port(number).ok_or_else(|| format!("port number {number} is not in 1-65535"))?;
    let mut scopes = scopes.iter();
    match (scopes.next().copied(), scopes.next()) {
        (None | Some("container"), None) => entry.port = Some(number),
        (Some("host"), None) => entry.host_port = Some(number),
        (Some(scope), None) => {
            return Err(format!("network-scope {scope:?} is neither host nor container"));
        }
        _ => return Err("the port has several different network-scope labels".to_owned()),
    }
    Ok(protocol)
}

fn merge(ports: &mut Vec<(Protocol, Entry)>, protocol: Protocol, entry: Entry) {
    let agrees = |a: Option<u16>, b: Option<u16>| a.is_some() && a == b;
    let same = ports.iter_mut().find(|(other, known)| {
        *other == protocol && (agrees(known.port, entry.port) || agrees(known.host_port, entry.host_port))
    });
    let Some((_, known)) = same else {
        ports.push((protocol, entry));
        return;
    };
    known.name = known.name.take().or(entry.name);
    known.port = known.port.or(entry.port);
    known.host_port = known.host_port.or(entry.host_port);
    known.networks.extend(entry.networks);
    if known.options.is_empty() {
        known.options = entry.options;
    }
    for label in entry.labels {
        if !known.labels.contains(&label) {
            known.labels.push(label);
        }
    }
}

fn bound_port(number: u64) -> Option<u16> {
    u16::try_from(number).ok().filter(|&port| port != 0)
}

fn describe(port: &wire::DiscoveryPort<'_>) -> String {
    let name = port.name.as_deref().unwrap_or("default");
    match port.number {
        Some(number) => format!("{name} {number}"),
        None => name.to_owned(),
    }
}

fn container_networks<'s, 'de>(status: &'s wire::Status<'de>) -> &'s List<wire::NetworkInfo<'de>> {
    status.container_status.as_ref().map_or(&None, |container| &container.network_infos)
}

fn network_addresses<'n>(network: &'n wire::NetworkInfo<'_>) -> impl Iterator<Item = &'n str> {
    let listed = read(&network.ip_addresses).filter_map(|entry| entry.ip_address.as_deref());
    let old = network.ip_address.as_deref().filter(|_| network.ip_addresses.is_none());
    listed.chain(old)
}

fn read_labels<'l, 'de>(labels: &'l Labels<'de>) -> impl Iterator<Item = &'l wire::Label<'de>> {
    labels.0.iter().filter_map(Lenient::as_read)
}

fn read<T>(list: &List<T>) -> impl Iterator<Item = &T> {
    list.iter().flatten().filter_map(Lenient::as_read)
}
