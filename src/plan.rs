//! From the believed cluster and the node's network to the state that its kernel should have: the
//! pure part of the reconcile loop, with the time as an argument.
//!
//! What belongs here: every decision about what a node serves. [`mod@desired`] decides which VIPs and
//! backends are usable here, [`addresses`] which name has which address, [`drain`] how long servers
//! stay whose tasks have gone, [`adopt`] what of an earlier run's table stays. [`Planner`] puts them
//! together and makes a new [`Plan`] only when something has changed that it depends on.
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
pub mod desired;
pub mod drain;
pub mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::cluster::Snapshot;
use crate::cluster::belief::{Accepted, HoldReason, SyncState};
use crate::cluster::claims::{Holder, Place, holders};
use crate::dataplane::{Actual, Foreign, Node, ServiceKey, State};
use crate::store::{KeptDrain, Persisted};
use crate::vip::{LabelPolicy, VipKey, VipTable};
use addresses::{assign, remember, sources};
use adopt::Adopted;
use desired::{Desired, DesiredSettings, Inputs, Sources, desired};
use drain::Drain;
use warnings::warnings;

/// Operator's decisions about the table.
#[derive(Clone, Debug)]
pub struct PlannerSettings {
    pub desired: DesiredSettings,
    pub policy: LabelPolicy,
    /// Time for which a VIP without any task keeps its address and refuses connections.
    pub linger: Duration,
    /// Longest time for which connections of a task that has gone are kept.
    pub drain: Duration,
    /// Largest number of VIPs that are programmed.
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
#[derive(Debug)]
pub struct Planner {
    pub settings: PlannerSettings,
    /// Addresses and VIPs that must survive a restart.
    pub persisted: Persisted,
    cluster: Option<ClusterView>,
    drain: Drain,
    claims: ClaimMemory,
    /// Services that the kernel held at the start, until documents have told everything.
    adopted: Option<Adopted>,
    /// Dependencies of the plan; `None` when it has to be made anew.
    basis: Option<Basis>,
    plan: Arc<Plan>,
}

/// Dependencies of a plan besides the cluster.
#[derive(Debug)]
struct Basis {
    node: Node,
    foreign: Vec<Foreign>,
    /// Time at which a VIP without tasks is forgotten.
    expires: Option<Timestamp>,
}

/// The cluster as the planner sees it until the next document.
#[derive(Debug)]
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
    /// Number of VIPs that were left out because there are more than `max_vips`.
    pub beyond: usize,
}

impl ClusterView {
    fn new(accepted: &Accepted, policy: &LabelPolicy, standing: &BTreeSet<IpAddr>) -> Self {
        let snapshot = &accepted.snapshot;
        Self {
            snapshot: Arc::clone(snapshot),
            table: VipTable::after(snapshot, policy, standing),
            infrastructure: snapshot.infrastructure(),
            sync: accepted.sync,
            held: accepted.held.clone(),
            master: snapshot.master.as_ref().map(|master| master.id.clone()),
            agent_addresses: snapshot.agents.values().filter_map(|agent| agent.address).collect(),
            agents: snapshot.agents.len(),
            tasks: snapshot.tasks.len(),
            beyond: 0,
        }
    }

    /// Returns the VIPs that are kept although all their backends are on lost agents.
    pub fn unreachable(&self) -> &BTreeSet<VipKey> {
        &self.table.unreachable
    }

    /// Leaves out what is more than `max`; VIPs that are known stay before new ones.
    fn confine(&mut self, max: usize, known: &BTreeMap<VipKey, Option<Timestamp>>) {
        self.beyond = self.table.vips.len().saturating_sub(max);
        if self.beyond == 0 {
            return;
        }
        let (old, new): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.table.vips).into_iter().partition(|(key, _)| known.contains_key(key));
        self.table.vips = old.into_iter().chain(new).take(max).collect();
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
    /// Number of names for which no address was free.
    pub unplaced: usize,
    /// Time at which the plan changes although nothing happens.
    pub due: Option<Timestamp>,
}

impl Planner {
    /// Goes on with the addresses that an earlier run left, as far as names may have them.
    pub fn new(settings: PlannerSettings, persisted: Persisted) -> Self {
        let mut planner = Self {
            settings,
            persisted,
            cluster: None,
            drain: Drain::default(),
            claims: ClaimMemory::default(),
            adopted: None,
            basis: None,
            plan: Arc::default(),
        };
        let PlannerSettings { policy, desired, .. } = &planner.settings;
        let open = policy.literals_in_range.as_ref();
        planner.persisted.leases4.confine(&desired.range4, open);
        planner.persisted.leases6.confine(&desired.range6, open);
        planner
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
        // Who had an address first is kept with the VIPs, so that a restart changes nothing about it.
        let standing = self.persisted.vips.keys().filter_map(VipKey::literal).collect();
        let mut cluster = ClusterView::new(accepted, &self.settings.policy, &standing);
        // Before the table is used: what is beyond the limit takes no address either.
        cluster.confine(self.settings.max_vips, &self.persisted.vips);
        self.cluster = Some(cluster);
        self.claims = ClaimMemory::default();
        // The last plan is of the cluster before.
        self.basis = None;
    }

    /// Takes in a cluster that gives the same table.
    pub fn learn_same(&mut self, accepted: &Accepted) {
        if let Some(cluster) = &mut self.cluster {
            cluster.snapshot = Arc::clone(&accepted.snapshot);
        }
        self.claims = ClaimMemory::default();
        // What is inherited may be another task's by now.
        if self.adopted.is_some() {
            self.basis = None;
        }
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
        let have_same_addresses = || !table.depends_on_names || old.addresses().eq(new.addresses());
        let have_same_claims = || {
            let (places, known): (Vec<Place>, Vec<Option<Holder>>) = table.claims.iter().cloned().unzip();
            holders(&accepted.snapshot, &places) == known
        };
        before.gives_same_table(accepted) && have_same_addresses() && have_same_claims()
    }

    /// Returns the time at which a leaving server is deleted at the latest.
    pub fn deadline(&self, service: &ServiceKey, server: &SocketAddr) -> Option<Timestamp> {
        self.drain.deadline(service, server)
    }

    /// Returns what the kernel should hold; `None` before the first document, when that is not known.
    /// The last plan is good as long as nothing has changed that it depends on.
    pub fn plan(&mut self, actual: &Actual, now: Timestamp) -> Option<Arc<Plan>> {
        let cluster = self.cluster.as_ref()?;
        // Every audit, request for the status and change of the network makes a pass, and most find nothing
        // new: with thousands of VIPs a new plan each time would keep a processor busy.
        let is_current = self.basis.as_ref().is_some_and(|basis| {
            basis.expires.is_none_or(|expires| now <= expires)
                && basis.node == actual.node
                && basis.foreign == actual.foreign
        });
        let mut last = None;
        if !is_current {
            let is_synced = cluster.sync == SyncState::Synced;
            // Before everything is known, a VIP that seems to have lost its tasks may not have.
            let linger = if is_synced { self.settings.linger } else { Duration::MAX };
            let refuses =
                |address| self.settings.policy.refuse_address(address, &cluster.infrastructure).is_some();
            // Before addresses are assigned: a name keeps its address as long as one of its VIPs is
            // remembered.
            let vacant = remember(&mut self.persisted, &cluster.table, refuses, now, linger);
            let DesiredSettings { range4, range6, .. } = &self.settings.desired;
            let open = self.settings.policy.literals_in_range;
            let unplaced = assign(&mut self.persisted, &cluster.table, range4, range6, open).len();
            let sources = sources(self.settings.node, &cluster.agent_addresses, &actual.node);
            let mut desired = desired(Inputs {
                table: &cluster.table,
                vacant: &vacant,
                agents: &cluster.agent_addresses,
                leases4: &self.persisted.leases4,
                leases6: &self.persisted.leases6,
                settings: &self.settings.desired,
                sources,
                node: &actual.node,
                foreign: &actual.foreign,
            });
            // From the desired state without adopted servers: a warning is about tasks that documents know.
            desired.warnings = warnings(&desired, sources, &actual.node);
            // The VIP that has been vacant for longest is forgotten first, which no event would tell.
            let expires = self.persisted.vips.values().flatten().min();
            self.basis = Some(Basis {
                node: actual.node.clone(),
                foreign: actual.foreign.clone(),
                expires: expires.map(|since| later(*since, linger)),
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
            let plan = Arc::make_mut(&mut self.plan);
            // The plan before knows the tasks of servers that have just gone.
            last = Some(std::mem::replace(&mut plan.desired, desired));
            (plan.sources, plan.unplaced) = (sources, unplaced);
        }
        self.drain(last, actual, now);
        Some(Arc::clone(&self.plan))
    }

    /// Brings the plan up to date with what is leaving. `last` is the previous desired state where a
    /// new one was just made; the revision is raised only if the new one differs.
    fn drain(&mut self, last: Option<Desired>, actual: &Actual, now: Timestamp) {
        // The usual pass: the plan is the old one, and nothing is leaving.
        if last.is_none() && self.drain.is_empty() {
            return;
        }
        let known = last.as_ref().map_or(&self.plan.desired.services, |last| &last.services);
        let are_taken = |places: &[Place]| match &self.cluster {
            Some(cluster) => self.claims.are_taken(cluster, places),
            None => Vec::new(),
        };
        let times = (now, self.settings.drain);
        let has_changed = self.drain.update(&self.plan.desired, known, actual, times, are_taken);
        let plan = Arc::make_mut(&mut self.plan);
        // A new plan has no leaving servers yet, whether they have changed or not.
        if last.is_some() || has_changed {
            self.drain.apply(&mut plan.desired);
        }
        // Only a plan that differs gets a new revision: by the revision a pass tells a repair from a
        // change.
        if last.map_or(has_changed, |last| last != plan.desired) {
            plan.revision += 1;
            plan.state = plan.desired.state();
        }
        let expires = self.basis.as_ref().and_then(|basis| basis.expires);
        // Connections end without an event, so they are counted again and again while servers leave.
        plan.due = if self.drain.is_empty() { expires } else { Some(later(now, drain::POLL)) };
    }
}

/// Answers to the question who has a place, which hold until the next document.
#[derive(Debug, Default)]
struct ClaimMemory(BTreeMap<Place, bool>);

impl ClaimMemory {
    /// Returns true for each place that a running task has by its agent's word.
    fn are_taken(&mut self, cluster: &ClusterView, places: &[Place]) -> Vec<bool> {
        // Before the first document the kernel knows more than the file of an earlier run.
        if cluster.sync == SyncState::Cold {
            return vec![false; places.len()];
        }
        // A server that leaves is asked about in every pass, and a large cluster is searched once.
        let new: Vec<Place> = places.iter().filter(|place| !self.0.contains_key(place)).cloned().collect();
        let found = holders(&cluster.snapshot, &new);
        self.0.extend(new.iter().cloned().zip(found.iter().map(Option::is_some)));
        places.iter().map(|place| self.0.get(place).copied().unwrap_or_default()).collect()
    }
}

fn later(time: Timestamp, span: Duration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
