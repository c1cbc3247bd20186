//! Tasks to VIPs: which backends each VIP has, and with which weight.

use std::borrow::Cow;
use std::cell::{LazyCell, OnceCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::contest::{self, Claims, Contest};
use super::doubtful::DoubtfulLabels;
use super::endpoints::{Endpoint, endpoints};
use super::label::{self, LabelHost};
use super::settings::{BackendPorts, SharedVips};
use super::tenant::{Tenant, Tenants};
use super::{Host, LabelPolicy, PortOptions, VipKey, vip_name};
use crate::cluster::claims::{Holder, Place, holders, is_vouched};
use crate::cluster::{
    Protocol, SharedMap, SharedSet, Skipped, Snapshot, Task, TaskKey, TaskPort, TaskState, VipLabel,
    shortened,
};

mod follow;

/// A VIP with its backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vip {
    /// Backends by address as other nodes see it; a named VIP may have both families.
    pub backends: SharedMap<SocketAddr, Backend>,
    /// Place in the order in which new names get their addresses, highest first.
    pub rank: Rank,
    /// Scheduler that a label asks for; `None` as configured.
    pub scheduler: Option<String>,
    /// Set when its connections should survive any idle time.
    pub sticky_idle: bool,
    /// Set when backends that fail are not ejected.
    pub no_ejection: bool,
    /// Names of the task ports that serve it, as written; DNS makes SRV records of them. Shared by VIPs that have the
    /// same.
    pub port_names: Arc<BTreeSet<String>>,
    /// Apps that have tasks behind it; `None` without tasks.
    pub tenants: Option<Tenants>,
}

/// Minuteman's processing order: protocol, label and framework as written, port. `None` for literal VIPs,
/// which need no address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(Option<(Protocol, String, String, u16)>);

/// One instance behind a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub condition: Condition,
    /// Task id, shared with the task as that of its agent: each backend is in several places.
    pub task: Arc<str>,
    /// Agent id.
    pub agent: Arc<str>,
    /// Address on the backend's own node, when the agent's port is mapped into a container: the
    /// node's mapping is not applied to packets that IPVS sends.
    pub local: Option<SocketAddr>,
    /// Longest time that connections to it are kept when it has gone; `None` as configured.
    pub drain: Option<Duration>,
    /// Share of new connections among the tasks of its framework, as its label says; 1 without one.
    pub label_weight: u16,
    /// Time for which its share rises when it is new; `None` if it has all of it at once.
    pub slow_start: Option<Duration>,
    /// Weight that the kernel has had for it since before the daemon's start; `None` if it is the condition's.
    pub held_weight: Option<u32>,
    /// Set when its task is kept although the last document does not list it as running.
    pub is_kept: bool,
    /// Apps that claim to be here: the task's, and those of other tasks with the same address.
    pub tenants: Tenants,
}

/// Reason for which a backend gets new connections, or not. If two tasks claim one address, the
/// variant listed first wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Runs and is not known to be unhealthy.
    Ready,
    /// Its agent is lost, but no other backend of its VIP takes new connections.
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
            task: Arc::default(),
            agent: Arc::default(),
            local: None,
            drain: None,
            label_weight: 1,
            slow_start: None,
            held_weight: None,
            is_kept: false,
            tenants: Tenants::default(),
        }
    }

    /// Returns 1, or 0 when it should get no new connections; what an earlier run left in the kernel keeps its own
    /// weight. How connections are shared among those that get some is another question, see
    /// [`crate::plan::weights`].
    pub fn weight(&self) -> u32 {
        let is_serving = matches!(self.condition, Condition::Ready | Condition::Unreachable);
        let by_condition = || u32::from(is_serving && self.label_weight > 0);
        self.held_weight.unwrap_or_else(by_condition)
    }

    /// Decides between two tasks that claim one address, as can be for a moment: the one that takes connections has
    /// it. The apps of both count, so that a task that claims another's address takes no share from its app.
    pub fn meet(&mut self, mut other: Self) {
        if other.condition < self.condition {
            std::mem::swap(self, &mut other);
        }
        self.tenants.join(&other.tenants);
    }

    /// Returns the place that the backend has at `address`.
    pub fn place(&self, address: SocketAddr) -> Place {
        Place {
            address,
            framework: None,
            task: self.task.to_string(),
            agent: self.agent.to_string(),
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
    /// VIPs with at least one backend, be its weight 0. A copy of the table shares them.
    pub vips: SharedMap<VipKey, Arc<Vip>>,
    /// VIPs that tasks name which do not serve yet or not now.
    pub awaited: SharedSet<VipKey>,
    /// VIPs whose only backends that take new connections are on lost agents.
    pub unreachable: SharedSet<VipKey>,
    pub skipped: Vec<Skipped>,
    /// Remarks on names and addresses that several frameworks ask for.
    pub warnings: Vec<String>,
    /// Labels that give a VIP but were probably meant otherwise.
    pub doubtful: DoubtfulLabels,
    /// Set when the addresses of tasks without VIPs mattered: a label asks for an address.
    pub depends_on_names: bool,
    /// Tasks whose labels ask for each name or address, refused ones included, in their order.
    pub askers: SharedMap<Host, Arc<[TaskKey]>>,
    /// Places that a task may not have although it says so, with the task that has it, perhaps one without
    /// VIPs.
    pub claims: Vec<(Place, Option<Holder>)>,
}

impl VipTable {
    /// Applies the rules of labels, networks, states and health to every task, on a node where no literal VIP
    /// stands yet.
    pub fn new(snapshot: &Snapshot, rules: &LabelPolicy) -> Self {
        Self::after(snapshot, rules, &TableMemory::default())
    }

    /// Applies the rules on a node that remembers what was before. A task's own address can't become a VIP;
    /// but an executor may report any address for its task, and that takes no VIP away which stands.
    pub fn after(snapshot: &Snapshot, rules: &LabelPolicy, memory: &TableMemory<'_>) -> Self {
        let mut builder = TableBuilder::new(snapshot, rules, memory);
        let ports = builder.place();
        // What was recorded with the addresses stays; what labels record comes anew with a second round.
        let skipped = builder.table.skipped.len();
        ports.iter().for_each(|placed| builder.add(placed));
        let contests = std::mem::take(&mut builder.claims).contests(snapshot, &memory.registered);
        if !contests.is_empty() {
            // Who comes first is only known when all labels are: then once more, with that knowledge.
            builder.begin_again(contests, skipped);
            ports.iter().for_each(|placed| builder.add(placed));
        }
        builder.finish()
    }
}

/// Knowledge of a node beside the document.
#[derive(Clone, Debug, Default)]
pub struct TableMemory<'a> {
    /// Addresses that literal VIPs have already.
    pub standing: BTreeSet<IpAddr>,
    /// Earliest known registrations of frameworks, by their ids.
    pub registered: Cow<'a, BTreeMap<String, Timestamp>>,
}

/// A port of a task with its addresses, or the reason why it has none.
struct PlacedPort<'a> {
    task: &'a Task,
    port: &'a TaskPort,
    backends: Result<Vec<Endpoint>, String>,
    tenants: Tenants,
}

/// Holders of backends that tasks claim without their agent's word, by task and address.
type Taken<'a> = BTreeMap<(&'a TaskKey, SocketAddr), Holder>;

impl VipTable {
    /// Refuses backends of running tasks at the address and port of a backend of another VIP that is kept: what
    /// their agents vouch for has taken the place already, and the rest takes nothing from other VIPs.
    fn refuse_claims_to_kept(&mut self, vips: &mut BTreeMap<VipKey, Vip>, awaited: &mut BTreeSet<VipKey>) {
        let mut kept: BTreeMap<(Protocol, SocketAddr), Arc<str>> = BTreeMap::new();
        for (key, vip) in &*vips {
            for (address, backend) in vip.backends.iter().filter(|(_, backend)| backend.is_kept) {
                kept.entry((key.protocol, *address)).or_insert_with(|| backend.task.clone());
            }
        }
        // The usual case: nothing is kept.
        if kept.is_empty() {
            return;
        }
        let mut refused = Vec::new();
        for (key, vip) in &mut *vips {
            vip.backends.retain(|address, backend| {
                let holder = kept.get(&(key.protocol, *address)).filter(|_| !backend.is_kept);
                refused.extend(holder.map(|holder| Skipped {
                    task: backend.task.to_string(),
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
    /// Addresses of agents and masters, with what each is; collected for the first that asks.
    cluster: OnceCell<BTreeMap<IpAddr, &'static str>>,
    memory: &'a TableMemory<'a>,
    /// Addresses of running tasks, collected for the first literal VIP.
    tasks: OnceCell<BTreeSet<IpAddr>>,
    /// Backends of tasks on lost agents.
    lost: BTreeMap<VipKey, Vec<(SocketAddr, Backend)>>,
    /// Frameworks that ask for names and addresses; collected until it is known who comes first.
    claims: Claims<'a>,
    /// Names and addresses that several frameworks ask for.
    contests: BTreeMap<Host, Contest<'a>>,
    /// Number of labels that give no VIP, by framework and app.
    skipped: BTreeMap<(&'a str, &'a str), usize>,
    vips: BTreeMap<VipKey, Vip>,
    awaited: BTreeSet<VipKey>,
    /// Tasks that ask for each name or address, in their order; each perhaps several times.
    askers: BTreeMap<Host, Vec<TaskKey>>,
    /// The rest of the table.
    table: VipTable,
}

/// Labels of one app that are listed with the reason why they give no VIP; more are only counted.
const MAX_SKIPPED: usize = 100;

impl<'a> TableBuilder<'a> {
    fn new(snapshot: &'a Snapshot, rules: &'a LabelPolicy, memory: &'a TableMemory<'a>) -> Self {
        Self {
            snapshot,
            rules,
            cluster: OnceCell::new(),
            memory,
            tasks: OnceCell::new(),
            lost: BTreeMap::new(),
            claims: Claims::default(),
            contests: BTreeMap::new(),
            skipped: BTreeMap::new(),
            vips: BTreeMap::new(),
            awaited: BTreeSet::new(),
            askers: BTreeMap::new(),
            table: VipTable { skipped: snapshot.skipped.clone(), ..VipTable::default() },
        }
    }

    /// Returns the addresses of agents and masters, with what each is.
    fn cluster(&self) -> &BTreeMap<IpAddr, &'static str> {
        self.cluster.get_or_init(|| self.snapshot.infrastructure())
    }

    /// Finds the addresses of all ports with VIP labels, once for all labels of a port: they lead to the same
    /// backends.
    fn place(&mut self) -> Vec<PlacedPort<'a>> {
        let snapshot = self.snapshot;
        // Keyed by chance, since tenants choose the names of apps.
        let mut known: HashMap<(&str, &str), Tenants> = HashMap::new();
        let mut tenants = |task: &'a Task| {
            let tenant = || Tenant {
                framework: Arc::clone(&task.key.framework),
                name: snapshot.frameworks.get(&*task.key.framework).cloned().unwrap_or_default(),
                app: Arc::clone(&task.app),
            };
            known.entry((&task.key.framework, &task.app)).or_insert_with(|| tenant().into()).clone()
        };
        let ports = snapshot.tasks.values().flat_map(|task| task.ports.iter().map(move |port| (task, port)));
        let mut ports: Vec<PlacedPort<'_>> = ports
            .map(|(task, port)| {
                let found = endpoints(snapshot, task, port);
                let backends = found.and_then(|found| self.allocated(task, port, found));
                PlacedPort { task, port, backends, tenants: tenants(task) }
            })
            .collect();
        let mut taken = self.taken(&ports);
        ports.iter_mut().for_each(|placed| self.drop_taken(placed, &mut taken));
        ports
    }

    /// Forgets the VIPs, and all but the first `skipped` entries, but not what several frameworks ask for.
    fn begin_again(&mut self, contests: BTreeMap<Host, Contest<'a>>, skipped: usize) {
        self.contests = contests;
        self.lost.clear();
        self.skipped.clear();
        self.vips.clear();
        self.awaited.clear();
        self.askers.clear();
        self.table.doubtful = DoubtfulLabels::default();
        self.table.skipped.truncate(skipped);
    }

    /// Finds the running tasks whose agents gave them what other running tasks only say to have: an executor
    /// may report any address, and a port at an agent's address that is not among its task's resources may be
    /// another's.
    fn taken(&mut self, ports: &[PlacedPort<'a>]) -> Taken<'a> {
        let snapshot = self.snapshot;
        // Asked for by few: most tasks have the ports that they announce.
        let agents: LazyCell<BTreeSet<IpAddr>, _> =
            LazyCell::new(|| snapshot.agents.values().filter_map(|agent| agent.address).collect());
        let (mut owners, mut asked) = (Vec::new(), Vec::new());
        // Kept tasks have given way before.
        let running = ports.iter().filter(|placed| !snapshot.kept.contains(&placed.task.key));
        for PlacedPort { task, backends, .. } in running {
            for &(address, _) in backends.iter().flatten() {
                if !is_vouched(snapshot, task, address) && agents.contains(&address.ip()) {
                    owners.push((&task.key, address));
                    asked.push(Place {
                        address,
                        framework: Some(task.key.framework.to_string()),
                        task: task.key.task.to_string(),
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
        let PlacedPort { task, port, backends: Ok(backends), .. } = placed else { return };
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
            task: task.key.task.to_string(),
            port: Some(port.describe()),
            reason,
            ..Skipped::default()
        }));
    }

    fn add(&mut self, placed: &PlacedPort<'a>) {
        let PlacedPort { task, port, backends, tenants } = placed;
        let framework = self.snapshot.frameworks.get(&*task.key.framework);
        for label in port.labels.iter() {
            let added = match (framework, backends) {
                (None, _) => {
                    Err(format!("framework {} is not in the state of the cluster", task.key.framework))
                }
                (Some(framework), Ok(backends)) => {
                    self.add_vip((task, port, tenants), label, framework, backends)
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
        (task, port, tenants): (&'a Task, &TaskPort, &Tenants),
        written: &VipLabel,
        framework: &str,
        backends: &[Endpoint],
    ) -> Result<(), String> {
        let LabelPolicy { ipv6, .. } = *self.rules;
        let (label_host, vip_port) = label::parse(&written.value).map_err(|error| error.to_string())?;
        // From the label as written, since Minuteman sorts before it makes names of them.
        let rank = match label_host {
            LabelHost::Named(label) => {
                Rank(Some((port.protocol, label.to_owned(), framework.to_owned(), vip_port)))
            }
            LabelHost::Literal(_) => Rank::default(),
        };
        let (host, refused) = match label_host {
            LabelHost::Named(label) => {
                let name = vip_name(label, framework);
                let refused = self.rules.refuse_name(&name);
                (Host::Named(name), refused)
            }
            LabelHost::Literal(address) => (Host::Literal(address), self.refuse_literal(address)),
        };
        // Tasks come one after the other, so that one that is known is the last.
        match self.askers.get_mut(&host) {
            Some(askers) if askers.last() == Some(&task.key) => {}
            Some(askers) => askers.push(task.key.clone()),
            None => drop(self.askers.insert(host.clone(), vec![task.key.clone()])),
        }
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
        let first = self.contest(&key, &task.key.framework)?;
        let is_kept = self.snapshot.kept.contains(&task.key);
        let backends = usable
            .into_iter()
            .map(|&(address, local)| (address, Backend { is_kept, ..backend((task, port, tenants), local) }));
        // Kept apart until all tasks are known: lost backends serve only where no other one does.
        if task.state == TaskState::Lost {
            self.lost.entry(key).or_default().extend(backends);
            return Ok(());
        }
        // No backend yet, but its VIP is not forgotten while the task starts.
        if !task.state.is_serving() {
            self.awaited.insert(key);
            return Ok(());
        }
        self.table.doubtful.note((task, port), written, &label_host, (framework, &key), self.rules);
        // The highest rank of its tasks decides, so that their order does not matter.
        let vip = self.vips.entry(key).or_default();
        vip.rank = std::mem::take(&mut vip.rank).max(rank);
        vip.join(tenants);
        for (address, backend) in backends {
            vip.add(address, backend);
        }
        // Looked up first: the tasks of a VIP have the same port name, and cloning it for each is in vain.
        if !vip.port_names.contains(&*port.name) {
            Arc::make_mut(&mut vip.port_names).insert(port.name.to_string());
        }
        let Some(options) = port.options.as_deref() else { return Ok(()) };
        match first {
            Some(first) if options.concerns_all() => {
                Err(format!("the options of this VIP are those of the framework {first}, which comes first"))
            }
            Some(_) => Ok(()),
            None => vip.ask(options),
        }
    }

    /// Leaves out the backends at ports of agents that the task was not given, where that matters.
    ///
    /// # Errors
    /// With the reason if none is left.
    fn allocated(&self, task: &Task, port: &TaskPort, found: Vec<Endpoint>) -> Result<Vec<Endpoint>, String> {
        if self.rules.ports == BackendPorts::Any {
            return Ok(found);
        }
        let own = self.snapshot.agents.get(&*task.agent_id).and_then(|agent| agent.address);
        let refuse = |address: &SocketAddr| {
            let kind = self.cluster().get(&address.ip())?;
            if own != Some(address.ip()) {
                return Some(format!(
                    "{} is {kind} that the task does not run on (vips.ports)",
                    address.ip()
                ));
            }
            (!port.is_allocated).then(|| {
                format!(
                    "{address} is at {kind}, and port {} is neither among the port resources of the task or \
                     its executor nor mapped to its container (vips.ports)",
                    address.port()
                )
            })
        };
        let (kept, refused): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(address, _)| refuse(address).is_none());
        // As long as one address is left the port serves, which is worth no record.
        match refused.first().and_then(|(address, _)| refuse(address)).filter(|_| kept.is_empty()) {
            Some(reason) => Err(reason),
            None => Ok(kept),
        }
    }

    /// Notes that a framework asks for a VIP. Returns the framework that comes before it, if there is one.
    ///
    /// # Errors
    /// When that one keeps the VIP for itself.
    fn contest(&mut self, key: &VipKey, framework: &'a str) -> Result<Option<String>, String> {
        let Some(contest) = self.contests.get_mut(&key.host) else {
            // Alone in the cluster, a framework meets no other.
            if self.contests.is_empty() && self.snapshot.frameworks.len() > 1 {
                self.claims.add(&key.host, framework);
            }
            return Ok(None);
        };
        if !contest.vips.contains(key) {
            contest.vips.insert(key.clone());
        }
        if contest.owner == framework {
            return Ok(None);
        }
        let (first, own) = (contest.owner, framework);
        let [first, own] = [first, own].map(|id| contest::framework(self.snapshot, id));
        match self.rules.shared {
            SharedVips::Warn => Ok(Some(first)),
            SharedVips::Refuse => Err(format!(
                "{key} belongs to the framework {first}, which comes before this task's, {own} (vips.shared)"
            )),
        }
    }

    /// Returns the reason why a label can't have a literal VIP at `address`.
    fn refuse_literal(&self, address: IpAddr) -> Option<String> {
        let of_a_task = || {
            let tasks = self.tasks.get_or_init(|| {
                let running = self.snapshot.tasks.values().filter(|task| task.state.is_serving());
                let reported = running.flat_map(|task| &task.addresses).map(|reported| reported.address);
                reported.chain(self.snapshot.names.addresses()).collect()
            });
            (!self.memory.standing.contains(&address) && tasks.contains(&address)).then(|| {
                format!(
                    "{address} is the address of a running task, which can't become a VIP: take another one"
                )
            })
        };
        self.rules.refuse_address(address, self.cluster()).or_else(of_a_task)
    }

    fn finish(self) -> VipTable {
        let Self { lost, mut table, tasks, contests, skipped, snapshot, rules, .. } = self;
        let (mut vips, mut awaited, askers) = (self.vips, self.awaited, self.askers);
        for ((framework, app), count) in skipped.into_iter().filter(|(_, count)| *count > MAX_SKIPPED) {
            table.skipped.push(Skipped {
                task: shortened(app.to_owned()),
                reason: format!("{} more labels of this app give no VIP", count - MAX_SKIPPED),
                framework: Some(framework.to_owned()),
                app: Some(app.to_owned()),
                ..Skipped::default()
            });
        }
        table.warnings = contest::warnings(&contests, snapshot, rules.shared);
        table.depends_on_names = tasks.get().is_some();
        for (key, backends) in lost {
            let serves = |vip: &Vip| vip.backends.values().any(|backend| backend.weight() > 0);
            // A backend that is known to run is better than one of which nothing is known.
            if vips.get(&key).is_some_and(serves) {
                continue;
            }
            // Who is unreachable for the master may still be reachable from here.
            let vip = vips.entry(key.clone()).or_default();
            for (address, backend) in backends {
                vip.join(&backend.tenants);
                vip.add(address, backend);
            }
            table.unreachable.insert(key);
        }
        table.refuse_claims_to_kept(&mut vips, &mut awaited);
        awaited.retain(|key| !vips.contains_key(key));
        table.awaited = awaited.into_iter().collect();
        // Most ports are called alike, and the sets would take as much room as the backends.
        let mut known: BTreeSet<Arc<BTreeSet<String>>> = BTreeSet::new();
        for vip in vips.values_mut() {
            vip.backends.shrink();
            match known.get(&vip.port_names) {
                Some(names) => vip.port_names = Arc::clone(names),
                None => drop(known.insert(Arc::clone(&vip.port_names))),
            }
        }
        table.vips = vips.into_iter().map(|(key, vip)| (key, Arc::new(vip))).collect();
        table.askers = askers.into_iter().map(|(host, tasks)| (host, tasks.into())).collect();
        table
    }

    fn skip(&mut self, task: &'a Task, port: &TaskPort, label: &str, value: &str, reason: String) {
        let skipped = self.skipped.entry((&task.key.framework, &task.app)).or_default();
        *skipped += 1;
        // Tenants decide how many there are, and no operator reads more.
        if *skipped > MAX_SKIPPED {
            return;
        }
        self.table.skipped.push(Skipped {
            task: task.key.task.to_string(),
            port: Some(port.describe()),
            label: Some(label.to_owned()),
            value: Some(value.to_owned()),
            reason,
            framework: Some(task.key.framework.to_string()),
            app: Some(task.app.to_string()),
        });
    }
}

impl Vip {
    /// The tasks of a VIP may disagree, as during an upgrade; the first that asks for something decides.
    fn ask(&mut self, options: &PortOptions) -> Result<(), String> {
        self.sticky_idle |= options.sticky_idle;
        self.no_ejection |= options.no_ejection;
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

    fn add(&mut self, address: SocketAddr, backend: Backend) {
        match self.backends.get_mut(&address) {
            Some(known) => known.meet(backend),
            None => drop(self.backends.insert(address, backend)),
        }
    }

    fn join(&mut self, tenants: &Tenants) {
        match &mut self.tenants {
            Some(known) => known.join(tenants),
            None => self.tenants = Some(tenants.clone()),
        }
    }
}

fn backend((task, port, tenants): (&Task, &TaskPort, &Tenants), local: Option<SocketAddr>) -> Backend {
    let options = port.options.as_deref();
    Backend {
        condition: Condition::of(task),
        task: Arc::clone(&task.key.task),
        agent: Arc::clone(&task.agent_id),
        local,
        drain: options.and_then(|options| options.drain),
        label_weight: options.and_then(|options| options.weight).unwrap_or(1),
        slow_start: options.and_then(|options| options.slow_start).filter(|span| !span.is_zero()),
        held_weight: None,
        tenants: tenants.clone(),
        is_kept: false,
    }
}

#[cfg(test)]
mod tests;
