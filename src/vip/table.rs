//! Tasks to VIPs: which backends each VIP has, and with which weight.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::endpoints::{Endpoint, endpoints};
use super::label::{self, LabelHost};
use super::{LabelPolicy, PortOptions, vip_name};
use crate::cluster::claims::{Holder, Place, holders, is_vouched};
use crate::cluster::{Protocol, Skipped, Snapshot, Task, TaskKey, TaskPort, TaskState};

/// Host part of a VIP: the part that a client dials.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Host {
    /// Name below the zone, such as `web.marathon`; its address is allocated.
    Named(String),
    /// An address that the label gives itself.
    Literal(IpAddr),
}

/// Identity of a VIP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VipKey {
    pub host: Host,
    pub protocol: Protocol,
    pub port: u16,
}

impl VipKey {
    /// Returns the address of a literal VIP.
    pub fn literal(&self) -> Option<IpAddr> {
        match self.host {
            Host::Literal(address) => Some(address),
            Host::Named(_) => None,
        }
    }
}

impl fmt::Display for VipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Named(name) => write!(f, "{} {name}:{}", self.protocol, self.port),
            Host::Literal(address) => write!(f, "{} {}", self.protocol, SocketAddr::new(*address, self.port)),
        }
    }
}

/// A VIP with its backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vip {
    /// Backends by address as other nodes see it; a named VIP may have both families.
    pub backends: BTreeMap<SocketAddr, Backend>,
    /// Place in the order in which new names get their addresses, highest first.
    pub rank: Rank,
    /// Scheduler that a label asks for; `None` as configured.
    pub scheduler: Option<String>,
    /// Set when its connections should survive any idle time.
    pub sticky_idle: bool,
    /// Names of the task ports that serve it, as written; DNS makes SRV records of them.
    pub port_names: BTreeSet<String>,
}

/// The peer's processing order: protocol, label and framework as written, port.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(Option<(Protocol, String, String, u16)>);

/// One instance behind a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub condition: Condition,
    /// Task id.
    pub task: String,
    /// Agent id.
    pub agent: String,
    /// Address on the backend's own node, when the agent's port is mapped into a container: the
    /// node's mapping is not applied to packets that IPVS sends.
    pub local: Option<SocketAddr>,
    /// Longest time that connections to it are kept when it has gone; `None` as configured.
    pub drain: Option<Duration>,
    /// Set when its task is kept although the last document does not list it as running.
    pub is_kept: bool,
}

/// Reason for which a backend gets new connections, or not. If two tasks claim one address, the
/// variant listed first wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Runs and is not known to be unhealthy.
    Ready,
    /// Its agent is lost, but so are those of all other backends of its VIP.
    Unreachable,
    Unhealthy,
    /// Told to stop.
    Stopping,
    /// Kept from before the daemon's start: no document has told of it yet.
    Inherited,
    /// No longer in the cluster; keeps the connections that it has for a while.
    Gone,
}

impl Condition {
    fn of(task: &Task) -> Self {
        match task.state {
            TaskState::Lost => Self::Unreachable,
            TaskState::Killing => Self::Stopping,
            _ if task.is_ready() => Self::Ready,
            _ => Self::Unhealthy,
        }
    }
}

impl Backend {
    /// A backend whose task is not known.
    pub fn unknown(condition: Condition) -> Self {
        Self {
            condition,
            task: String::new(),
            agent: String::new(),
            local: None,
            drain: None,
            is_kept: false,
        }
    }

    /// IPVS weight: 1, or 0 when it should get no new connections.
    pub fn weight(&self) -> u32 {
        u32::from(matches!(self.condition, Condition::Ready | Condition::Unreachable))
    }

    /// Returns the place that the backend has at `address`.
    pub fn place(&self, address: SocketAddr) -> Place {
        Place {
            address,
            framework: None,
            task: self.task.clone(),
            agent: self.agent.clone(),
            is_containers: false,
        }
    }

    /// The address to program on a node that has the addresses `own`.
    pub fn seen_from(&self, address: SocketAddr, own: &BTreeSet<IpAddr>) -> SocketAddr {
        match self.local {
            Some(local) if own.contains(&address.ip()) => local,
            _ => address,
        }
    }
}

/// All VIPs of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VipTable {
    /// VIPs with at least one backend, be its weight 0.
    pub vips: BTreeMap<VipKey, Vip>,
    /// VIPs that tasks name which do not serve yet or not now.
    pub awaited: BTreeSet<VipKey>,
    /// VIPs whose backends are all on lost agents, or would get no new connections.
    pub unreachable: BTreeSet<VipKey>,
    pub skipped: Vec<Skipped>,
    /// Set when the addresses of tasks without VIPs mattered: a label asks for an address.
    pub depends_on_names: bool,
    /// Places that a task may not have although it says so, with the task that has it, perhaps one without
    /// VIPs.
    pub claims: Vec<(Place, Option<Holder>)>,
}

impl VipTable {
    /// Applies the rules of labels, networks, states and health to every task, on a node without memory.
    pub fn new(snapshot: &Snapshot, rules: &LabelPolicy) -> Self {
        Self::after(snapshot, rules, &BTreeSet::new())
    }

    /// Applies the rules on a node where literal VIPs have the addresses `standing` already. A task's own
    /// address can't become a VIP; but an executor may report any address for its task, and that takes no
    /// VIP away which stands.
    pub fn after(snapshot: &Snapshot, rules: &LabelPolicy, standing: &BTreeSet<IpAddr>) -> Self {
        let mut builder = TableBuilder {
            snapshot,
            rules,
            cluster: snapshot.infrastructure(),
            standing,
            tasks: OnceCell::new(),
            lost: BTreeMap::new(),
            table: Self { skipped: snapshot.skipped.clone(), ..Self::default() },
        };
        // Once for all labels of a port: they lead to the same backends.
        let ports: Vec<PlacedPort<'_>> = snapshot
            .tasks
            .values()
            .flat_map(|task| task.ports.iter().map(move |port| (task, port)))
            .map(|(task, port)| PlacedPort { task, port, backends: endpoints(snapshot, task, port) })
            .collect();
        let mut taken = builder.taken(&ports);
        for mut placed in ports {
            builder.drop_taken(&mut placed, &mut taken);
            builder.add(&placed);
        }
        builder.finish()
    }
}

/// A port of a task with its addresses, or the reason why it has none.
struct PlacedPort<'a> {
    task: &'a Task,
    port: &'a TaskPort,
    backends: Result<Vec<Endpoint>, String>,
}

/// Holders of backends that tasks claim without their agent's word, by task and address.
type Taken<'a> = BTreeMap<(&'a TaskKey, SocketAddr), Holder>;

impl VipTable {
    /// Refuses backends of running tasks at the address and port of a backend of another VIP that is kept: what
    /// their agents vouch for has taken the place already, and the rest takes nothing from others.
    fn refuse_claims_to_kept(&mut self) {
        let mut kept: BTreeMap<(Protocol, SocketAddr), String> = BTreeMap::new();
        for (key, vip) in &self.vips {
            for (address, backend) in vip.backends.iter().filter(|(_, backend)| backend.is_kept) {
                kept.entry((key.protocol, *address)).or_insert_with(|| backend.task.clone());
            }
        }
        // The usual case: nothing is kept.
        if kept.is_empty() {
            return;
        }
        let mut refused = Vec::new();
        for (key, vip) in &mut self.vips {
            vip.backends.retain(|address, backend| {
                let holder = kept.get(&(key.protocol, *address)).filter(|_| !backend.is_kept);
                refused.extend(holder.map(|holder| Skipped {
                    task: backend.task.clone(),
                    value: Some(address.to_string()),
                    reason: format!(
                        "{key} can't use this backend: the task {holder}, which is kept, had {address} before, and \
                         no agent says that this task has it now"
                    ),
                    ..Skipped::default()
                }));
                holder.is_none()
            });
        }
        let Self { vips, awaited, .. } = self;
        vips.retain(|key, vip| {
            // Its task runs, so that its address stays.
            if vip.backends.is_empty() {
                awaited.insert(key.clone());
            }
            !vip.backends.is_empty()
        });
        self.skipped.extend(refused);
    }
}

/// A table that is being built.
struct TableBuilder<'a> {
    snapshot: &'a Snapshot,
    rules: &'a LabelPolicy,
    /// Addresses of agents and masters, with what each is.
    cluster: BTreeMap<IpAddr, &'static str>,
    /// Addresses that literal VIPs have already.
    standing: &'a BTreeSet<IpAddr>,
    /// Addresses of running tasks, collected for the first literal VIP.
    tasks: OnceCell<BTreeSet<IpAddr>>,
    /// Backends of tasks on lost agents.
    lost: BTreeMap<VipKey, Vec<(SocketAddr, Backend)>>,
    table: VipTable,
}

impl<'a> TableBuilder<'a> {
    /// Finds the running tasks whose agents gave them what other running tasks only say to have: an executor
    /// may report any address, and a port at an agent's address that is not among its task's resources may be
    /// another's.
    fn taken(&mut self, ports: &[PlacedPort<'a>]) -> Taken<'a> {
        let snapshot = self.snapshot;
        let agents: BTreeSet<IpAddr> = snapshot.agents.values().filter_map(|agent| agent.address).collect();
        let (mut owners, mut asked) = (Vec::new(), Vec::new());
        // Kept tasks have given way before.
        let running = ports.iter().filter(|placed| !snapshot.kept.contains(&placed.task.key));
        for PlacedPort { task, backends, .. } in running {
            for &(address, _) in backends.iter().flatten() {
                if agents.contains(&address.ip()) && !is_vouched(snapshot, task, address) {
                    owners.push((&task.key, address));
                    asked.push(Place {
                        address,
                        framework: Some(task.key.framework.clone()),
                        task: task.key.task.clone(),
                        agent: String::new(),
                        is_containers: false,
                    });
                }
            }
        }
        let found = holders(snapshot, &asked);
        self.table.claims = asked.into_iter().zip(found).collect();
        let found = owners.into_iter().zip(&self.table.claims);
        found.filter_map(|(owner, (_, holder))| Some((owner, holder.clone()?))).collect()
    }

    /// Removes the backends of a port that another task has.
    fn drop_taken(&mut self, placed: &mut PlacedPort<'a>, taken: &mut Taken<'a>) {
        let PlacedPort { task, port, backends: Ok(backends) } = placed else { return };
        let mut reasons = Vec::new();
        backends.retain(|(address, _)| {
            let holder = taken.get(&(&task.key, *address));
            reasons.extend(holder.map(|holder| {
                format!("{address} was given to {holder}, so that this task can't be a backend there")
            }));
            holder.is_none()
        });
        if backends.is_empty()
            && let Some(reason) = reasons.pop()
        {
            // Said with each of its labels.
            placed.backends = Err(reason);
        }
        self.table.skipped.extend(reasons.into_iter().map(|reason| Skipped {
            task: task.key.task.clone(),
            port: Some(port.describe()),
            reason,
            ..Skipped::default()
        }));
    }

    fn add(&mut self, placed: &PlacedPort<'_>) {
        let PlacedPort { task, port, backends } = placed;
        let framework = self.snapshot.frameworks.get(&task.key.framework);
        for label in &port.labels {
            let added = match (framework, backends) {
                (None, _) => {
                    Err(format!("framework {} is not in the state of the cluster", task.key.framework))
                }
                (Some(framework), Ok(backends)) => {
                    self.add_vip(task, port, &label.value, framework, backends)
                }
                (_, Err(reason)) => Err(reason.clone()),
            };
            if let Err(reason) = added
                && task.state.is_serving()
            {
                self.skip(task, port, &label.key, &label.value, reason);
            }
        }
    }

    fn add_vip(
        &mut self,
        task: &Task,
        port: &TaskPort,
        value: &str,
        framework: &str,
        backends: &[Endpoint],
    ) -> Result<(), String> {
        let LabelPolicy { ipv6, .. } = *self.rules;
        let (host, vip_port) = label::parse(value).map_err(|error| error.to_string())?;
        // From the label as written, since the peer sorts before it makes names of them.
        let rank = match host {
            LabelHost::Named(label) => {
                Rank(Some((port.protocol, label.to_owned(), framework.to_owned(), vip_port)))
            }
            LabelHost::Literal(_) => Rank::default(),
        };
        let (host, refused) = match host {
            LabelHost::Named(label) => {
                let name = vip_name(label, framework);
                let refused = self.rules.refuse_name(&name);
                (Host::Named(name), refused)
            }
            LabelHost::Literal(address) => (Host::Literal(address), self.refuse_literal(address)),
        };
        // Whatever the task's state: a refused label never reserves an address.
        if let Some(reason) = refused {
            return Err(reason);
        }
        // IPVS translates addresses within a family only.
        let usable = |address: &SocketAddr| match &host {
            Host::Literal(literal) => literal.is_ipv4() == address.is_ipv4() && (ipv6 || address.is_ipv4()),
            Host::Named(_) => ipv6 || address.is_ipv4(),
        };
        let usable: Vec<_> = backends.iter().filter(|(address, _)| usable(address)).collect();
        if usable.is_empty() {
            return Err(match host {
                Host::Literal(IpAddr::V6(_)) if !ipv6 => "IPv6 is off".to_owned(),
                Host::Literal(IpAddr::V6(_)) => "the task has no IPv6 address for an IPv6 VIP".to_owned(),
                Host::Literal(IpAddr::V4(_)) => "the task has no IPv4 address for an IPv4 VIP".to_owned(),
                Host::Named(_) => "the task has only IPv6 addresses and IPv6 is off (vips.ipv6)".to_owned(),
            });
        }
        let key = VipKey { host, protocol: port.protocol, port: vip_port };
        let is_kept = self.snapshot.kept.contains(&task.key);
        let backends = usable
            .into_iter()
            .map(|&(address, local)| (address, Backend { is_kept, ..backend(task, port, local) }));
        // Kept apart until all tasks are known: lost backends serve only where no other one does.
        if task.state == TaskState::Lost {
            self.lost.entry(key).or_default().extend(backends);
            return Ok(());
        }
        // No backend yet, but its VIP is not forgotten while the task starts.
        if !task.state.is_serving() {
            self.table.awaited.insert(key);
            return Ok(());
        }
        // The highest rank of its tasks decides, so that their order does not matter.
        let vip = self.table.vips.entry(key).or_default();
        vip.rank = std::mem::take(&mut vip.rank).max(rank);
        for (address, backend) in backends {
            vip.add(address, backend);
        }
        // Looked up first: the tasks of a VIP have the same port name, and cloning it for each is in vain.
        if !vip.port_names.contains(&port.name) {
            vip.port_names.insert(port.name.clone());
        }
        vip.ask(&port.options)
    }

    /// Returns the reason why a label can't have a literal VIP at `address`.
    fn refuse_literal(&self, address: IpAddr) -> Option<String> {
        let of_a_task = || {
            let tasks = self.tasks.get_or_init(|| {
                let running = self.snapshot.tasks.values().filter(|task| task.state.is_serving());
                let reported = running.flat_map(|task| &task.addresses).map(|reported| reported.address);
                reported.chain(self.snapshot.names.addresses()).collect()
            });
            (!self.standing.contains(&address) && tasks.contains(&address)).then(|| {
                format!(
                    "{address} is the address of a running task, which can't become a VIP: take another one"
                )
            })
        };
        self.rules.refuse_address(address, &self.cluster).or_else(of_a_task)
    }

    fn finish(self) -> VipTable {
        let Self { lost, mut table, tasks, .. } = self;
        table.depends_on_names = tasks.get().is_some();
        for (key, backends) in lost {
            let serves = |vip: &Vip| vip.backends.values().any(|backend| backend.weight() > 0);
            // A backend that is known to run is better than one of which nothing is known.
            if table.vips.get(&key).is_some_and(serves) {
                continue;
            }
            // Who is unreachable for the master may still be reachable from here.
            let vip = table.vips.entry(key.clone()).or_default();
            for (address, backend) in backends {
                vip.add(address, backend);
            }
            table.unreachable.insert(key);
        }
        table.refuse_claims_to_kept();
        table.awaited.retain(|key| !table.vips.contains_key(key));
        table
    }

    fn skip(&mut self, task: &Task, port: &TaskPort, label: &str, value: &str, reason: String) {
        self.table.skipped.push(Skipped {
            task: task.key.task.clone(),
            port: Some(port.describe()),
            label: Some(label.to_owned()),
            value: Some(value.to_owned()),
            reason,
        });
    }
}

impl Vip {
    /// The tasks of a VIP may disagree, as during an upgrade; the first that asks for something decides.
    fn ask(&mut self, options: &PortOptions) -> Result<(), String> {
        self.sticky_idle |= options.sticky_idle;
        match (&self.scheduler, &options.scheduler) {
            (Some(first), Some(wanted)) if first != wanted => {
                Err(format!("another task of this VIP asks for scheduler {first}, this one for {wanted}"))
            }
            (None, wanted) => {
                self.scheduler.clone_from(wanted);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Two tasks can claim one address for a moment; the one that takes connections has it.
    fn add(&mut self, address: SocketAddr, backend: Backend) {
        match self.backends.get(&address) {
            Some(known) if known.condition <= backend.condition => {}
            _ => {
                self.backends.insert(address, backend);
            }
        }
    }
}

fn backend(task: &Task, port: &TaskPort, local: Option<SocketAddr>) -> Backend {
    Backend {
        condition: Condition::of(task),
        task: task.key.task.clone(),
        agent: task.agent_id.clone(),
        local,
        drain: port.options.drain,
        is_kept: false,
    }
}

#[cfg(test)]
mod tests;
