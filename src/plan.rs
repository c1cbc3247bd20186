//! From the believed cluster and the node's network to the state that its kernel should have: the
//! pure part of the reconcile loop, with the time as an argument.
//!
//! What belongs here: every decision about what a node serves. [`mod@desired`] decides which VIPs and
//! backends are usable here, [`addresses`] which name has which address, [`drain`] how long servers
//! stay whose tasks have gone, [`adopt`] what of an earlier run's table stays, [`bounds`] what finds no
//! place, [`shares`] what each tenant has of bounded things, [`mod@weights`] how connections are shared among backends,
//! and [`warmup`] how the share of a new one rises. [`Planner`] puts them together and makes a new [`Plan`] only when something has changed that it depends on.
//!
//! For example, with one task of `/web:80` at 10.0.0.2:8080 on an IPVS node:
//!
//! 1. [`Planner::learn`] makes the table: VIP `tcp web.marathon:80`, backend 10.0.0.2:8080, ready.
//! 2. [`Planner::plan`] gives `web.marathon` its address, 11.225.36.193, and desires the service
//!    `tcp 11.225.36.193:80` with the server 10.0.0.2:8080 at weight 1, a route for 11.0.0.0/8, rules
//!    and settings.
//! 3. The task is killed. The next plan still has the server, with weight 0 and the condition `gone`,
//!    until its connections have ended or `drain` has passed.
//! 4. Without another task the service stays without servers for `linger`, and refuses connections.

pub mod addresses;
pub mod adopt;
pub mod bounds;
pub mod desired;
pub mod drain;
pub mod shares;
pub mod warmup;
pub mod warnings;
pub mod weights;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::cluster::belief::{Accepted, HoldReason, SyncState};
use crate::cluster::claims::{Holder, Place, TasksByAgent, holders};
use crate::cluster::{SharedMap, SharedSet, Snapshot, Task, TaskKey};
use crate::dataplane::{Actual, Foreign, Node, ServerKey, ServiceKey, State};
use crate::store::{AskedServer, KeptDrain, Persisted, Tracked};
use crate::vip::{Backend, Condition, Host, LabelPolicy, TableMemory, Tenants, Vip, VipKey, VipTable};
use addresses::{assign, assign_to, forget, note_owners, remember, sources};
use adopt::Adopted;
use bounds::{Bounds, Used};
use desired::{Desired, DesiredSettings, Inputs, Programmed, Services, Sources, desired, needs_settings};
use drain::Drain;
use shares::SharedUse;
use warmup::WarmUps;
use warnings::{address_warnings, warnings};

/// Seconds of an hour.
const HOUR: i64 = 60 * 60;

/// Hours for which the address of a server counts that is not asked there any more.
const KEPT_HOURS: i64 = 24;

/// Addresses of servers that are kept.
const MAX_SERVERS: usize = 1024;

/// Operator's decisions about the table.
#[derive(Clone, Debug)]
pub struct PlannerSettings {
    pub desired: DesiredSettings,
    pub policy: LabelPolicy,
    /// Time for which a VIP without any task keeps its address and refuses connections.
    pub linger: Duration,
    /// Longest time for which connections of a task that has gone are kept.
    pub drain: Duration,
    /// Largest number of VIPs that are programmed, vacant ones among them.
    pub max_vips: usize,
    /// The node's own addresses, where the operator gives them.
    pub node: Sources,
}

/// The node as the last reading of the kernel found it, for consumers that take no part in programming.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    pub node: Node,
    /// The node's own addresses; unknown until the first plan.
    pub sources: Sources,
}

/// Remembers what documents said, which addresses names have, and what is leaving.
#[derive(Clone, Debug)]
pub struct Planner {
    pub settings: PlannerSettings,
    /// Addresses and VIPs that must survive a restart.
    pub persisted: Tracked<Persisted>,
    cluster: Option<ClusterView>,
    /// Last tenants of VIPs, which may be vacant.
    owners: SharedMap<VipKey, Tenants>,
    drain: Drain,
    warm: WarmUps,
    claims: ClaimMemory,
    /// Services that the kernel held at the start, until documents have told everything.
    adopted: Option<Adopted>,
    /// Dependencies of the plan; `None` when it has to be made anew.
    basis: Option<Basis>,
    /// VIPs that have changed since the plan was made.
    changed: BTreeSet<VipKey>,
    /// Set when the plan's warnings are those of an earlier table.
    has_old_warnings: bool,
    /// Set when table and plan have followed changes since they were made as a whole.
    has_followed: bool,
    /// Hour in which the addresses of servers were last gone through.
    reserved: Option<i64>,
    /// Number of servers in the plan, without those that are leaving.
    servers: usize,
    plan: Arc<Plan>,
}

/// Part of a plan that may differ from the plan before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of it.
    Everything,
    /// These services; with `names` set, which services there are or what their ports are called.
    Services { services: BTreeSet<ServiceKey>, names: bool },
}

/// Dependencies of a plan besides the cluster.
#[derive(Clone, Debug)]
struct Basis {
    node: Node,
    foreign: Vec<Foreign>,
    /// Time at which a VIP without tasks is forgotten.
    expires: Option<Timestamp>,
}

/// The cluster as the planner sees it until the next document.
#[derive(Clone, Debug)]
pub struct ClusterView {
    snapshot: Arc<Snapshot>,
    table: VipTable,
    sync: SyncState,
    pub held: Vec<HoldReason>,
    /// Id of the leading master.
    pub master: Option<String>,
    agent_addresses: BTreeSet<IpAddr>,
    /// Addresses of agents and masters, with what each is.
    infrastructure: BTreeMap<IpAddr, &'static str>,
    pub agents: usize,
    /// Number of tasks with VIP labels.
    pub tasks: usize,
}

impl ClusterView {
    fn new(accepted: &Accepted, policy: &LabelPolicy, memory: &TableMemory<'_>) -> Self {
        let snapshot = &accepted.snapshot;
        Self {
            snapshot: Arc::clone(snapshot),
            table: VipTable::after(snapshot, policy, memory),
            infrastructure: snapshot.infrastructure(),
            sync: accepted.sync,
            held: accepted.held.clone(),
            master: snapshot.master.as_ref().map(|master| master.id.clone()),
            agent_addresses: snapshot.agents.values().filter_map(|agent| agent.address).collect(),
            agents: snapshot.agents.len(),
            tasks: snapshot.tasks.len(),
        }
    }

    /// Returns the warnings about this cluster and what is `desired` for it.
    fn warnings(&self, desired: &Desired, configured: Sources, sources: Sources, node: &Node) -> Vec<String> {
        let mut all = self.table.warnings.clone();
        all.extend(warnings(&self.table, desired, sources, node));
        all.extend(address_warnings(&self.snapshot, configured, node));
        all
    }

    /// Returns the VIPs that are kept although all their backends are on lost agents.
    pub fn unreachable(&self) -> &SharedSet<VipKey> {
        &self.table.unreachable
    }
}

/// A desired state and its circumstances.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Counts the plans that differ.
    pub revision: u64,
    pub desired: Desired,
    /// Projection of `desired` that is compared with the kernel.
    pub state: State,
    pub sources: Sources,
    /// Number of VIPs with tasks that were left out because there are too many.
    pub beyond: usize,
    /// Number of names for which no address was free.
    pub unplaced: usize,
    /// Number of backends that were left out because the data plane holds no more.
    pub left_out: usize,
    /// Use of what tenants share.
    pub uses: Vec<SharedUse>,
    /// Time at which the plan changes although nothing happens.
    pub due: Option<Timestamp>,
}

impl Plan {
    /// Returns true if nothing was left out for want of a place.
    fn is_complete(&self) -> bool {
        self.beyond + self.unplaced + self.left_out == 0
    }

    /// Takes over some services of the desired state into the state to compare with the kernel.
    fn project(&mut self, services: &BTreeSet<ServiceKey>) {
        for key in services {
            match self.desired.services.get(key) {
                Some(programmed) => self.state.services.insert(*key, programmed.service().into()),
                None => self.state.services.remove(key),
            };
        }
    }
}

/// Services that [`Planner::patch`] has changed.
#[derive(Default)]
struct Patch {
    services: BTreeSet<ServiceKey>,
    /// Services of `services` as they were before, as far as there were any.
    before: Services,
    /// Set when which services there are has changed, or what their ports are called.
    names: bool,
}

impl Planner {
    /// Goes on with the addresses that an earlier run left, as far as names may have them.
    pub fn new(settings: PlannerSettings, persisted: Persisted) -> Self {
        let mut planner = Self {
            settings,
            persisted: Tracked::new(persisted),
            cluster: None,
            owners: SharedMap::default(),
            drain: Drain::default(),
            warm: WarmUps::default(),
            claims: ClaimMemory::default(),
            adopted: None,
            basis: None,
            changed: BTreeSet::new(),
            has_old_warnings: false,
            has_followed: false,
            reserved: None,
            servers: 0,
            plan: Arc::default(),
        };
        let PlannerSettings { policy, desired, .. } = &planner.settings;
        let open = policy.literals_in_range.as_ref();
        planner.persisted.leases4.confine(&desired.range4, open);
        planner.persisted.leases6.confine(&desired.range6, open);
        planner.settings.policy.asked = asked(&planner.persisted);
        planner
    }

    /// Plans by other settings from now on; the cluster has to be learnt again. The ranges of addresses stay, because
    /// names have theirs in them.
    pub fn configure(&mut self, settings: PlannerSettings) {
        self.settings = settings;
        self.settings.policy.asked = asked(&self.persisted);
        self.basis = None;
    }

    /// Goes on with the servers that were leaving when an earlier run ended.
    pub fn resume_drains(&mut self, drains: Vec<KeptDrain>) {
        self.drain = Drain::resume(drains);
    }

    /// Returns the servers that are leaving, for a later run.
    pub fn kept_drains(&self) -> Vec<KeptDrain> {
        self.drain.kept()
    }

    /// Takes in what is believed of the cluster from now on.
    pub fn learn(&mut self, accepted: &Accepted) {
        if self.follow(accepted).is_some() {
            return;
        }
        // Before the table, which is made with these times.
        self.persisted.note_registered(&accepted.snapshot);
        let cluster = ClusterView::new(accepted, &self.settings.policy, &memory(&self.persisted));
        self.has_followed = false;
        self.cluster = Some(cluster);
        self.claims = ClaimMemory::default();
        // The last plan is of the cluster before.
        self.basis = None;
    }

    /// Takes in a cluster that differs from the last one in a few tasks, at the cost of these. Returns `None`
    /// where the difference is another one, or the plan has to be made anew in any case.
    fn follow(&mut self, accepted: &Accepted) -> Option<()> {
        let cluster = self.cluster.as_mut()?;
        let is_certain = cluster.sync == SyncState::Synced && accepted.sync == SyncState::Synced;
        let is_plain = is_certain
            && self.basis.is_some()
            && cluster.held == accepted.held
            && accepted.displaced.is_empty();
        // What is held back depends on all tasks.
        if !is_plain {
            return None;
        }
        // No address stands: a label that asks for one has the whole table made anew.
        let memory =
            TableMemory { standing: BTreeSet::new(), registered: Cow::Borrowed(&self.persisted.registered) };
        let snapshot = &accepted.snapshot;
        let changed = cluster.table.follow(&cluster.snapshot, snapshot, &self.settings.policy, &memory)?;
        self.changed.extend(changed);
        self.has_followed = true;
        self.claims.follow(&cluster.snapshot, snapshot);
        cluster.snapshot = Arc::clone(snapshot);
        cluster.tasks = snapshot.tasks.len();
        Some(())
    }

    /// Takes in a cluster that gives the same table.
    pub fn learn_same(&mut self, accepted: &Accepted) {
        if let Some(cluster) = &mut self.cluster {
            self.claims.follow(&cluster.snapshot, &accepted.snapshot);
            cluster.snapshot = Arc::clone(&accepted.snapshot);
        }
        // What is inherited may be another task's by now.
        if self.adopted.is_some() {
            self.basis = None;
        }
    }

    /// Takes in which servers are asked now, at which addresses; those of earlier ones count for a day, across
    /// restarts too. Returns true if labels are to be judged anew for that.
    pub fn reserve(&mut self, servers: &BTreeMap<IpAddr, String>, now: Timestamp) -> bool {
        let hour = now.as_second().div_euclid(HOUR);
        let is_known = |(address, name): (&IpAddr, &String)| {
            let known = self.persisted.servers.get(address);
            known.is_some_and(|server| server.hour == hour && server.name == *name)
        };
        // Nothing can be outdated in an hour in which that was looked at.
        if self.reserved == Some(hour) && servers.iter().all(is_known) {
            return false;
        }
        self.reserved = Some(hour);
        let kept = &mut self.persisted.servers;
        kept.extend(
            servers.iter().map(|(address, name)| (*address, AskedServer { name: name.clone(), hour })),
        );
        // A clock that was wrong may have left hours of the future behind.
        kept.retain(|_, server| (0..=KEPT_HOURS).contains(&(hour - server.hour)));
        // The newest stay; what is asked now is fewer.
        while kept.len() > MAX_SERVERS
            && let Some(oldest) = kept.iter().min_by_key(|(_, server)| server.hour).map(|(ip, _)| *ip)
        {
            kept.remove(&oldest);
        }
        let asked = asked(&self.persisted);
        let is_new = asked != self.settings.policy.asked;
        self.settings.policy.asked = asked;
        if is_new {
            // All labels are to be judged by it.
            self.basis = None;
        }
        is_new
    }

    /// Returns what is believed now; `None` before the first document.
    pub fn cluster(&self) -> Option<&ClusterView> {
        self.cluster.as_ref()
    }

    /// Returns true if a document in which all tasks with VIPs are the same gives the same table. `before` is the
    /// one that was learnt.
    ///
    /// Tasks without VIPs may change it: a label may ask for the address of one, or a task for its port.
    pub fn gives_same_table(&self, before: &Accepted, accepted: &Accepted) -> bool {
        let Some(table) = self.cluster.as_ref().map(|cluster| &cluster.table) else { return false };
        let (old, new) = (&before.snapshot.names, &accepted.snapshot.names);
        let have_same_addresses = || !table.depends_on_names || old.has_same_addresses(new);
        let have_same_claims = || {
            let (places, known): (Vec<Place>, Vec<Option<Holder>>) = table.claims.iter().cloned().unzip();
            holders(&accepted.snapshot, &places) == known
        };
        before.gives_same_table(accepted) && have_same_addresses() && have_same_claims()
    }

    /// Returns the ids of the agents with this id, name or address.
    pub fn agents(&self, wanted: &str) -> BTreeSet<&str> {
        let snapshot = self.cluster.as_ref().map(|cluster| &cluster.snapshot);
        let address: Option<IpAddr> = wanted.parse().ok();
        let agents = snapshot.into_iter().flat_map(|snapshot| snapshot.agents.iter());
        let found = agents.filter(|(id, agent)| {
            *id == wanted || agent.hostname == wanted || (address.is_some() && agent.address == address)
        });
        found.map(|(id, _)| id.as_str()).collect()
    }

    /// Returns the tasks with this id, with the names of their frameworks.
    pub fn tasks<'a>(&'a self, id: &str) -> impl Iterator<Item = (&'a Task, &'a str)> + use<'a> {
        let snapshot = self.cluster.as_ref().map(|cluster| &cluster.snapshot);
        let id: Arc<str> = id.into();
        snapshot.into_iter().flat_map(move |snapshot| {
            let id = Arc::clone(&id);
            // There are few frameworks, and an id is one's own in each of them.
            snapshot.frameworks.iter().filter_map(move |(framework, name)| {
                let key = TaskKey { framework: framework.as_str().into(), task: Arc::clone(&id) };
                Some((&**snapshot.tasks.get(&key)?, name.as_str()))
            })
        })
    }

    /// Returns the tasks whose labels ask for this name or address, with the names of their frameworks and agents.
    pub fn askers<'a>(
        &'a self,
        host: &Host,
    ) -> impl Iterator<Item = (&'a Task, &'a str, Option<&'a str>)> + use<'a> {
        let cluster = self.cluster.as_ref();
        let asking = cluster.and_then(|cluster| Some((&cluster.snapshot, cluster.table.askers.get(host)?)));
        asking.into_iter().flat_map(|(snapshot, keys)| {
            keys.iter().filter_map(|key| {
                let task = snapshot.tasks.get(key)?;
                let framework = snapshot.frameworks.get(&*key.framework)?;
                let agent = snapshot.agents.get(&*task.agent_id);
                Some((&**task, framework.as_str(), agent.map(|agent| agent.hostname.as_str())))
            })
        })
    }

    /// Returns the last plan; `None` before the first.
    pub fn last(&self) -> Option<&Arc<Plan>> {
        self.basis.as_ref().map(|_| &self.plan)
    }

    /// Returns the plan that was made last, also where it has to be made anew; before the first, one without
    /// anything.
    pub fn latest(&self) -> &Plan {
        &self.plan
    }

    /// Returns the servers that are leaving: their connections decide what the next plan is.
    pub fn leaving(&self) -> BTreeSet<ServerKey> {
        self.drain.leaving()
    }

    /// Returns the part of its share that a backend is given while it is new, in percent.
    pub fn warm_percent(&self, vip: &VipKey, backend: &Backend) -> u16 {
        self.warm.percent(vip, backend)
    }

    /// Returns the time at which a leaving server is deleted at the latest.
    pub fn deadline(&self, service: &ServiceKey, server: &SocketAddr) -> Option<Timestamp> {
        self.drain.deadline(service, server)
    }

    /// Returns what the kernel should hold; `None` before the first document, when that is not known.
    /// The last plan is good as long as nothing has changed that it depends on.
    pub fn plan(&mut self, actual: &Actual, now: Timestamp) -> Option<Arc<Plan>> {
        self.cluster.as_ref()?;
        self.changed.extend(self.warm.due(now).cloned());
        // Every audit, request for the status and change of the network makes a pass, and most find nothing
        // new: with thousands of VIPs a new plan each time would keep a processor busy.
        let is_current = self.changed.is_empty() && self.is_current(actual, now);
        let last = if is_current { None } else { Some(self.remake(actual, now)?) };
        if self.has_old_warnings {
            self.renew_warnings(&actual.node);
        }
        self.drain(last, actual, now);
        Some(Arc::clone(&self.plan))
    }

    /// Returns what the kernel should hold, and in what that may differ from the plan before, where `actual` is
    /// all of that plan: nothing but the cluster and the time have changed since. Costs what has changed.
    pub fn plan_on(&mut self, actual: &Actual, now: Timestamp) -> Option<(Arc<Plan>, Reach)> {
        // Without an event: shares that rise are changes of these VIPs alone.
        self.changed.extend(self.warm.due(now).cloned());
        let patched = if self.is_current(actual, now) { self.patch(actual, now) } else { None };
        let Some(Patch { mut services, mut before, names }) = patched else {
            // The table has followed, and the plan cannot: it is made anew.
            self.basis = None;
            return Some((self.plan(actual, now)?, Reach::Everything));
        };
        // What is leaving may be done with it, in services that have not changed as well.
        for key in self.drain.services() {
            if services.insert(key)
                && let Some(programmed) = self.plan.desired.services.get(&key)
            {
                before.insert(key, Arc::clone(programmed));
            }
        }
        let are_taken = |places: &[Place]| match &self.cluster {
            Some(cluster) => self.claims.are_taken(cluster, places),
            None => Vec::new(),
        };
        let times = (now, self.settings.drain);
        let plan = Arc::make_mut(&mut self.plan);
        self.drain.update_in(&services, &plan.desired, &before, actual, times, are_taken);
        self.drain.apply_to(&services, &mut plan.desired);
        // Only a plan that differs gets a new revision, as in [`Self::drain`].
        let after = |key| plan.desired.services.get(key);
        let has_changed = services.iter().any(|key| before.get(key) != after(key));
        if has_changed {
            plan.revision += 1;
        }
        plan.project(&services);
        self.set_due(now);
        if has_changed {
            self.note_uses(actual);
        }
        Some((Arc::clone(&self.plan), Reach::Services { services, names }))
    }

    /// Returns table and plan as they are now, to be compared with ones that are made as a whole; `None` where they
    /// have been made as a whole since they were last asked for. To be called after a plan for the same `actual` and
    /// `now`.
    pub fn check(&mut self, actual: &Actual, now: Timestamp) -> Option<PlanCheck> {
        let is_current = self.changed.is_empty() && self.is_current(actual, now);
        if !std::mem::take(&mut self.has_followed) || !is_current {
            return None;
        }
        // Of 50,000 servers only those that are leaving are asked about.
        let leaving = self.drain.leaving();
        let counts = leaving.iter().filter_map(|server| Some((*server, *actual.connections.get(server)?)));
        let actual = Actual {
            state: actual.state.clone(),
            foreign: actual.foreign.clone(),
            connections: counts.collect(),
            node: actual.node.clone(),
            ..Actual::default()
        };
        Some(PlanCheck { planner: self.clone(), actual, now })
    }

    /// Makes the table as a whole, and the next plan from it.
    pub fn begin_anew(&mut self) {
        let memory = memory(&self.persisted);
        if let Some(cluster) = &mut self.cluster {
            cluster.table = VipTable::after(&cluster.snapshot, &self.settings.policy, &memory);
        }
        self.basis = None;
    }

    /// Returns true if the plan is still good but for the VIPs that have changed.
    fn is_current(&self, actual: &Actual, now: Timestamp) -> bool {
        self.basis.as_ref().is_some_and(|basis| {
            basis.expires.is_none_or(|expires| now <= expires)
                && basis.node == actual.node
                && basis.foreign == actual.foreign
        })
    }

    /// Puts the VIPs that have changed into the desired state, without what is leaving. Returns `None`, with the
    /// plan to be made anew, where a change concerns more than its VIP.
    fn patch(&mut self, actual: &Actual, now: Timestamp) -> Option<Patch> {
        if self.changed.is_empty() {
            return Some(Patch::default());
        }
        let cluster = self.cluster.as_ref()?;
        let changed = std::mem::take(&mut self.changed);
        let bounds = self.bounds(actual);
        // Which VIPs and backends have a place where not all have one depends on all of them. Asked before anything
        // is noted, because what is known has its place before what is new.
        let vips = changed.iter().filter_map(|key| cluster.table.vips.get_key_value(key));
        let new = vips.filter(|(key, vip)| self.is_new(key, vip)).count();
        if !self.plan.is_complete() || !bounds.are_ample(&self.persisted, new) {
            return None;
        }
        let persisted = &mut self.persisted;
        let mut vacant = BTreeSet::new();
        let mut vacancies_differ = false;
        for key in &changed {
            let before = persisted.vips.get(key).copied().flatten();
            if let Some(vip) = cluster.table.vips.get(key) {
                // A label that asks for an address has a say in those of all.
                if key.literal().is_some() {
                    return None;
                }
                // Only where it differs: what has been touched is compared with the file.
                if before.is_some() || !persisted.vips.contains_key(key) {
                    persisted.vips.insert(key.clone(), None);
                }
                note_owners(&mut self.owners, key, vip);
            } else if let Some(since) = persisted.vips.get_mut(key) {
                if cluster.table.awaited.contains(key) {
                    *since = None;
                } else {
                    since.get_or_insert(now);
                }
                vacant.insert(key.clone());
            }
            let vip = cluster.table.vips.get(key).map(|vip| &**vip);
            let askers = cluster.table.askers.get(&key.host).map_or(&[][..], |askers| &**askers);
            self.warm.note(key, vip, askers, (true, now));
            vacancies_differ |= persisted.vips.get(key).copied().flatten() != before;
        }
        // All new names are among the changed ones, so that they take the addresses that the whole plan gives them.
        let vips = changed.iter().filter_map(|key| cluster.table.vips.get_key_value(key));
        let DesiredSettings { range4, range6, .. } = &self.settings.desired;
        let literals = self.settings.policy.literals_in_range;
        if new > 0 && !assign_to(persisted, vips, range4, range6, literals).is_empty() {
            return None;
        }
        let part = Inputs {
            table: &cluster.table,
            vacant: &vacant,
            agents: &cluster.agent_addresses,
            leases4: &persisted.leases4,
            leases6: &persisted.leases6,
            settings: &self.settings.desired,
            sources: self.plan.sources,
            node: &actual.node,
            foreign: &actual.foreign,
            warm: (&self.warm, now),
        }
        .part(changed.iter());
        let desired = &self.plan.desired;
        let is_plain = |key: &VipKey| {
            !desired.refused.contains(key)
                && !part.refused.contains(key)
                && desired.unscheduled.contains(key) == part.unscheduled.contains(key)
        };
        // What is refused or remarked on is listed in an order that all VIPs decide.
        if !changed.iter().all(is_plain) {
            return None;
        }
        // A VIP's services are where its name has addresses, and no name has lost one: the old ones are among
        // these.
        let leases = [&persisted.leases4, &persisted.leases6];
        let held = changed.iter().flat_map(|key| {
            let addresses = leases.iter().filter_map(|leases| match &key.host {
                Host::Named(name) => leases.get(name),
                Host::Literal(_) => None,
            });
            addresses.map(|address| ServiceKey { protocol: key.protocol, address, port: key.port })
        });
        let services: BTreeSet<ServiceKey> = held.chain(part.services.keys().copied()).collect();
        let are_packets = actual.node.capabilities.packets;
        let (mut servers, mut largest) = (self.servers, 0);
        let mut names = false;
        for key in &services {
            let (old, new) = (desired.services.get(key), part.services.get(key));
            // A literal VIP may have the address and port of a name.
            if old.or(new).is_some_and(|programmed| !changed.contains(&programmed.vip)) {
                return None;
            }
            let are_needed =
                |programmed: &Arc<Programmed>| are_packets && needs_settings(&programmed.scheduling);
            if old.is_some_and(are_needed) != new.is_some_and(are_needed) {
                return None;
            }
            names |= old.map(|old| &old.port_names) != new.map(|new| &new.port_names);
            servers = servers.saturating_sub(old.map_or(0, staying)) + new.map_or(0, staying);
            largest = largest.max(new.map_or(0, staying));
        }
        if !bounds.are_ample_for(servers, largest) {
            return None;
        }
        self.servers = servers;
        let plan = Arc::make_mut(&mut self.plan);
        let mut before = Services::default();
        let mut part = part.services;
        for key in &services {
            let old = match part.remove(key) {
                Some(new) => plan.desired.services.insert(*key, new),
                None => plan.desired.services.remove(key),
            };
            before.extend(old.map(|old| (*key, old)));
        }
        // Going through all servers for them would cost more than the rest; they are read with the status.
        self.has_old_warnings |= are_packets;
        // Going through all VIPs for the next one that is forgotten is only of use where a vacancy began or ended.
        if let Some(basis) = self.basis.as_mut().filter(|_| vacancies_differ) {
            basis.expires = expiry(&self.persisted, self.settings.linger);
        }
        Some(Patch { services, before, names })
    }

    /// Makes the plan anew, but for what is leaving. Returns what was desired before, which knows the tasks of
    /// servers that have just gone.
    fn remake(&mut self, actual: &Actual, now: Timestamp) -> Option<Desired> {
        self.changed.clear();
        self.has_old_warnings = false;
        let cluster = self.cluster.as_ref()?;
        let is_synced = cluster.sync == SyncState::Synced;
        // Before everything is known, a VIP that seems to have lost its tasks may not have.
        let linger = if is_synced { self.settings.linger } else { Duration::MAX };
        let refuses =
            |address| self.settings.policy.refuse_address(address, &cluster.infrastructure).is_some();
        // In this order: what is forgotten leaves its place, and what has no place takes no address.
        forget(&mut self.persisted, &cluster.table, refuses, now, linger);
        let bounds = self.bounds(actual);
        let confined = bounds.confine_vips(&cluster.table, &mut self.persisted, &self.owners);
        let (table, beyond) = match confined {
            Some((table, beyond)) => (Cow::Owned(table), beyond),
            None => (Cow::Borrowed(&cluster.table), 0),
        };
        // Before addresses are assigned: a name keeps its address as long as one of its VIPs is
        // remembered.
        let vacant = remember(&mut self.persisted, &mut self.owners, &table);
        let DesiredSettings { range4, range6, .. } = &self.settings.desired;
        let open = self.settings.policy.literals_in_range;
        let unplaced = assign(&mut self.persisted, &table, range4, range6, open, &self.owners).len();
        let sources = sources(self.settings.node, &cluster.agent_addresses, &actual.node);
        // Those that have lost all backends as well: nothing of them is due any more.
        let lost: Vec<VipKey> =
            self.warm.vips().filter(|key| !table.vips.contains_key(key)).cloned().collect();
        let vips = table.vips.iter().map(|(key, vip)| (key, Some(&**vip)));
        for (key, vip) in vips.chain(lost.iter().map(|key| (key, None))) {
            let askers = table.askers.get(&key.host).map_or(&[][..], |askers| &**askers);
            self.warm.note(key, vip, askers, (is_synced, now));
        }
        // Only now: all of the first picture is warm.
        if is_synced {
            self.warm.begin();
        }
        let mut desired = desired(Inputs {
            table: &table,
            vacant: &vacant,
            agents: &cluster.agent_addresses,
            leases4: &self.persisted.leases4,
            leases6: &self.persisted.leases6,
            settings: &self.settings.desired,
            sources,
            node: &actual.node,
            foreign: &actual.foreign,
            warm: (&self.warm, now),
        });
        // Before adopted servers, which the kernel holds already.
        let left_out = bounds.confine_servers(&mut desired);
        self.drain.room = bounds.leaving();
        // From the desired state without adopted servers: a warning is about tasks that documents know.
        desired.warnings = cluster.warnings(&desired, self.settings.node, sources, &actual.node);
        self.basis = Some(Basis {
            node: actual.node.clone(),
            foreign: actual.foreign.clone(),
            expires: expiry(&self.persisted, linger),
        });
        // The kernel knows more than an older cluster on disk: what it holds stays until documents
        // have told of it.
        if is_synced {
            self.adopted = None;
        } else {
            let adopted = self.adopted.get_or_insert_with(|| Adopted::of(&actual.state));
            let last = &self.plan.desired.services;
            adopted.leave(|service, server| self.drain.was_leaving(service, server));
            if cluster.sync == SyncState::Partial {
                adopted.forget_known(&desired);
                adopted.give_way(&desired, last, |places| self.claims.are_taken(cluster, places));
            }
            adopted.keep(&mut desired, last);
        }
        self.servers = desired.services.values().map(staying).sum();
        let plan = Arc::make_mut(&mut self.plan);
        (plan.sources, plan.beyond, plan.unplaced, plan.left_out) = (sources, beyond, unplaced, left_out);
        Some(std::mem::replace(&mut plan.desired, desired))
    }

    /// Finds the warnings anew, for a plan of which a part has changed.
    fn renew_warnings(&mut self, node: &Node) {
        let Some(cluster) = &self.cluster else { return };
        let plan = Arc::make_mut(&mut self.plan);
        plan.desired.warnings = cluster.warnings(&plan.desired, self.settings.node, plan.sources, node);
        self.has_old_warnings = false;
    }

    /// Brings the plan up to date with what is leaving. `last` is the previous desired state where a
    /// new one was just made; the revision is raised only if the new one differs.
    fn drain(&mut self, last: Option<Desired>, actual: &Actual, now: Timestamp) {
        // The usual pass: the plan is the old one, and nothing is leaving or getting warm.
        if last.is_none() && self.drain.is_empty() {
            return;
        }
        let known = last.as_ref().map_or(&self.plan.desired.services, |last| &last.services);
        let are_taken = |places: &[Place]| match &self.cluster {
            Some(cluster) => self.claims.are_taken(cluster, places),
            None => Vec::new(),
        };
        let times = (now, self.settings.drain);
        let is_new = last.is_some();
        let has_changed = self.drain.update(&self.plan.desired, known, actual, times, are_taken);
        let plan = Arc::make_mut(&mut self.plan);
        // A new plan has no leaving servers yet, whether they have changed or not.
        if is_new || has_changed {
            self.drain.apply(&mut plan.desired);
        }
        // Only a plan that differs gets a new revision: by the revision a pass tells a repair from a
        // change.
        if last.map_or(has_changed, |last| last != plan.desired) {
            plan.revision += 1;
            plan.state = plan.desired.state();
        }
        self.set_due(now);
        if is_new || has_changed {
            self.note_uses(actual);
        }
    }

    /// Returns true if a VIP is not known yet, or its name needs another address.
    fn is_new(&self, key: &VipKey, vip: &Vip) -> bool {
        let Persisted { vips, leases4, leases6, .. } = &*self.persisted;
        // A literal VIP takes no address from a range: only its place among the VIPs counts.
        let Host::Named(name) = &key.host else { return !vips.contains_key(key) };
        let needs = |ipv4: bool| vip.backends.keys().any(|backend| backend.is_ipv4() == ipv4);
        !vips.contains_key(key)
            || (needs(true) && leases4.get(name).is_none())
            || (needs(false) && leases6.get(name).is_none())
    }

    /// Returns the bounds of this node.
    fn bounds(&self, actual: &Actual) -> Bounds {
        let PlannerSettings { desired, policy, max_vips, .. } = &self.settings;
        let literals = policy.literals_in_range.as_ref();
        Bounds::new(*max_vips, desired, literals, actual.node.capabilities.bounds)
    }

    /// Notes with the plan how much of each bounded thing is in use.
    fn note_uses(&mut self, actual: &Actual) {
        let used = Used { servers: self.servers, leaving: self.drain.len() };
        let uses = self.bounds(actual).uses(used, &self.plan.desired, &self.persisted, &self.owners);
        Arc::make_mut(&mut self.plan).uses = uses;
    }

    fn set_due(&mut self, now: Timestamp) {
        let expires = self.basis.as_ref().and_then(|basis| basis.expires);
        let plan = Arc::make_mut(&mut self.plan);
        // Connections end without an event, so they are counted again and again while servers leave.
        let due = if self.drain.is_empty() { expires } else { Some(later(now, drain::POLL)) };
        plan.due = due.into_iter().chain(self.warm.next()).min();
    }
}

#[cfg(test)]
impl Planner {
    /// Leaves a service out of the plan, as a defect would that comes of following changes.
    pub fn lose_service(&mut self) {
        let plan = Arc::make_mut(&mut self.plan);
        let first = plan.desired.services.keys().next().copied();
        if let Some(key) = first {
            plan.desired.services.remove(&key);
            plan.project(&[key].into());
        }
        plan.revision += 1;
        self.has_followed = true;
    }
}

/// Table and plan of one moment, which followed changes of the cluster. A copy that shares all large parts with the
/// planner's own: changes that come meanwhile wait for nothing, and make no difference to it.
#[derive(Debug)]
pub struct PlanCheck {
    planner: Planner,
    actual: Actual,
    now: Timestamp,
}

impl PlanCheck {
    /// Returns true if table and plan are those that are made as a whole. Anything else is a defect. Takes time
    /// with the size of the cluster.
    pub fn is_right(self) -> bool {
        let Self { mut planner, actual, now } = self;
        let memory = memory(&planner.persisted);
        let Some(cluster) = &mut planner.cluster else { return true };
        let table = VipTable::after(&cluster.snapshot, &planner.settings.policy, &memory);
        // Both are kept apart until here, so that a defect of one does not hide that of the other.
        let is_same = table == cluster.table;
        cluster.table = table;
        planner.basis = None;
        // A new plan that is the same keeps its revision.
        let revision = planner.plan.revision;
        planner.plan(&actual, now);
        is_same && planner.plan.revision == revision
    }
}

/// Answers to the question who has a place, as long as they are asked for, which hold until the next document.
#[derive(Clone, Debug, Default)]
struct ClaimMemory {
    answers: BTreeMap<Place, bool>,
    /// Tasks by where they run, from the first question on.
    by_agent: Option<TasksByAgent>,
}

impl ClaimMemory {
    /// Keeps the answers that a change of the cluster leaves as they are.
    fn follow(&mut self, before: &Snapshot, after: &Snapshot) {
        let Some(by_agent) = &mut self.by_agent else { return };
        by_agent.follow(before, after);
        if self.answers.is_empty() {
            return;
        }
        // A task that had a place may have ended.
        self.answers.retain(|_, is_taken| !*is_taken);
        let open: Vec<Place> = self.answers.keys().cloned().collect();
        let found = by_agent.are_taken_by(&after.news(before), &open);
        self.answers.extend(open.into_iter().zip(found));
    }

    /// Returns true for each place that a running task has by its agent's word.
    fn are_taken(&mut self, cluster: &ClusterView, places: &[Place]) -> Vec<bool> {
        // Before the first document the kernel knows more than the file of an earlier run.
        if cluster.sync == SyncState::Cold {
            return vec![false; places.len()];
        }
        // A server that leaves is asked about in every pass, and only the first time its machine's tasks are looked at.
        let is_new = |place: &&Place| !self.answers.contains_key(place);
        let new: Vec<Place> = places.iter().filter(is_new).cloned().collect();
        if !new.is_empty() {
            let by_agent = self.by_agent.get_or_insert_with(|| TasksByAgent::new(&cluster.snapshot));
            let found = by_agent.are_taken(&cluster.snapshot, &new);
            self.answers.extend(new.into_iter().zip(found));
        }
        // What is not asked about any more has left, and each change would look at it.
        if self.answers.len() > places.len() {
            let asked: BTreeSet<&Place> = places.iter().collect();
            self.answers.retain(|place, _| asked.contains(place));
        }
        places.iter().map(|place| self.answers.get(place).copied().unwrap_or_default()).collect()
    }
}

/// Returns the number of a service's servers that are not leaving.
fn staying(programmed: &Arc<Programmed>) -> usize {
    let conditions = programmed.servers.values().map(|backend| backend.condition);
    conditions.filter(|condition| *condition != Condition::Gone).count()
}

/// The addresses of servers that were asked, with their names.
fn asked(persisted: &Persisted) -> BTreeMap<IpAddr, String> {
    persisted.servers.iter().map(|(address, server)| (*address, server.name.clone())).collect()
}

/// Returns what this node knows beside documents: who had an address first is kept with the VIPs, so that a
/// restart changes nothing about it.
fn memory(persisted: &Persisted) -> TableMemory<'_> {
    let standing = persisted.vips.keys().filter_map(VipKey::literal).collect();
    TableMemory { standing, registered: Cow::Borrowed(&persisted.registered) }
}

/// Returns the time at which a VIP without tasks is forgotten: the one that has been vacant for longest comes
/// first, and no event would tell.
fn expiry(persisted: &Persisted, linger: Duration) -> Option<Timestamp> {
    persisted.vips.values().flatten().min().map(|since| later(*since, linger))
}

fn later(time: Timestamp, span: Duration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
