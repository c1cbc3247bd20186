//! From documents and the node's network to the state that its kernel should have: the pure part of
//! the reconcile loop, with the time as an argument.

pub mod adopt;
pub mod desired;
pub mod drain;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::cluster::Snapshot;
use crate::cluster::belief::{Belief, HoldReason, Patience};
use crate::config::Config;
use crate::daemon::wiring;
use crate::dataplane::{Actual, Foreign, Node, ServiceKey};
use crate::plan::adopt::Adopted;
use crate::plan::desired::{Desired, Settings, Sources, desired};
use crate::plan::drain::Drain;
use crate::source::Location;
use crate::store::Persisted;
use crate::vip::alloc::AddressRange;
use crate::vip::{Host, LabelPolicy, VipKey, VipTable};

/// Remembers what documents said, which addresses names have, and what is held back.
#[derive(Debug)]
pub struct Planner {
    pub settings: Settings,
    pub memory: Persisted,
    patience: Patience,
    linger: Duration,
    drain_limit: Duration,
    max_vips: usize,
    rules: LabelPolicy,
    configured: Sources,
    holder: Belief,
    believed: Option<Believed>,
    drain: Drain,
    told: Told,
    /// What the kernel held at the start, until all is told.
    inherited: Option<Adopted>,
    /// What the plan was made from; `None` when it has to be made anew.
    basis: Option<Basis>,
    plan: Arc<Plan>,
}

/// What documents of this run have told of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Part,
    All,
}

/// What a plan depends on besides what is believed.
#[derive(Debug)]
struct Basis {
    node: Node,
    foreign: Vec<Foreign>,
    /// When a VIP without tasks is to be forgotten.
    expires: Option<Timestamp>,
}

/// What the planner goes by until the next document.
#[derive(Debug)]
pub struct Believed {
    table: VipTable,
    pub held: Vec<HoldReason>,
    /// Id of the leading master.
    pub master: Option<String>,
    agent_addresses: BTreeSet<IpAddr>,
    pub agents: usize,
    /// Tasks with VIP labels.
    pub tasks: usize,
    /// VIPs that were left out because there are too many.
    pub beyond: usize,
}

impl Believed {
    fn new(snapshot: &Snapshot, held: Vec<HoldReason>, rules: &LabelPolicy) -> Self {
        Self {
            table: VipTable::new(snapshot, rules),
            held,
            master: snapshot.master.as_ref().map(|master| master.id.clone()),
            agent_addresses: snapshot.agents.values().filter_map(|agent| agent.address).collect(),
            agents: snapshot.agents.len(),
            tasks: snapshot.tasks.len(),
            beyond: 0,
        }
    }

    /// VIPs that are kept although all their backends are on lost agents.
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

/// A desired state, and for whom it is.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Counts the plans that differ.
    pub revision: u64,
    pub desired: Desired,
    pub sources: Sources,
    /// Names that found no address.
    pub unplaced: usize,
    /// When the plan changes although nothing happens.
    pub due: Option<Timestamp>,
}

impl Planner {
    /// `memory` and `cluster` are what an earlier run left.
    pub fn new(config: &Config, memory: Persisted, cluster: Option<Snapshot>) -> Self {
        let mut planner = Self {
            settings: wiring::desired(config),
            memory,
            patience: Patience {
                failover: config.source.failover_hold.0,
                // A file is the operator's own word.
                mass_loss: match config.source.masters.as_slice() {
                    [Location::File(_)] => 0,
                    _ => config.source.mass_loss_polls,
                },
                spacing: config.source.interval.0 / 2,
            },
            linger: config.vips.linger.0,
            drain_limit: config.dataplane.drain.0,
            max_vips: config.vips.max,
            configured: Sources { v4: config.node.address, v6: config.node.address6 },
            believed: None,
            rules: wiring::label_policy(config),
            holder: Belief::default(),
            drain: Drain::default(),
            told: Told::Nothing,
            inherited: None,
            basis: None,
            plan: Arc::default(),
        };
        planner.memory.leases4.confine(&planner.settings.range4);
        planner.memory.leases6.confine(&planner.settings.range6);
        if let Some(cluster) = &cluster {
            planner.believe(Believed::new(cluster, Vec::new(), &planner.rules));
        }
        planner.holder = Belief::resume(cluster);
        planner
    }

    /// Takes a document in.
    pub fn learn(&mut self, snapshot: &Snapshot, now: Timestamp) {
        let (snapshot, held) = self.holder.take(snapshot.clone(), now, self.patience);
        let believed = Believed::new(snapshot, held, &self.rules);
        if self.told != Told::All {
            self.told = if self.holder.is_certain() { Told::All } else { Told::Part };
        }
        self.believe(believed);
    }

    /// Takes a document in and holds nothing back.
    pub fn accept(&mut self, snapshot: &Snapshot) {
        let believed = Believed::new(self.holder.accept(snapshot.clone()), Vec::new(), &self.rules);
        self.told = Told::All;
        self.believe(believed);
    }

    fn believe(&mut self, mut believed: Believed) {
        believed.confine(self.max_vips, &self.memory.vips);
        self.believed = Some(believed);
        self.basis = None;
    }

    /// The cluster that is believed, for a later run to go on from.
    pub fn cluster(&self) -> Option<&Snapshot> {
        self.holder.believed()
    }

    /// What is believed now; `None` before the first document.
    pub fn believed(&self) -> Option<&Believed> {
        self.believed.as_ref()
    }

    /// Whether the same document, seen again, may mean something else.
    pub fn is_holding(&self) -> bool {
        self.believed.as_ref().is_some_and(|believed| !believed.held.is_empty())
    }

    /// When a server that is leaving will be deleted at the latest.
    pub fn deadline(&self, service: &ServiceKey, server: &SocketAddr) -> Option<Timestamp> {
        self.drain.deadline(service, server)
    }

    /// What the kernel should hold; `None` before the first document, when nobody knows. The last plan
    /// is good as long as nothing has changed that it depends on.
    pub fn plan(&mut self, actual: &Actual, now: Timestamp) -> Option<Arc<Plan>> {
        let believed = self.believed.as_ref()?;
        let is_current = self.basis.as_ref().is_some_and(|basis| {
            basis.expires.is_none_or(|expires| now <= expires)
                && basis.node == actual.node
                && basis.foreign == actual.foreign
        });
        let mut last = None;
        if !is_current {
            // Nobody knows yet whether a VIP has lost its tasks.
            let linger = if self.told == Told::All { self.linger } else { Duration::MAX };
            let vacant = remember(&mut self.memory, &believed.table, now, linger);
            let unplaced =
                assign(&mut self.memory, &believed.table, &self.settings.range4, &self.settings.range6).len();
            let sources = sources(self.configured, &believed.agent_addresses, &actual.node);
            let mut desired = desired(
                &believed.table,
                &vacant,
                (&self.memory.leases4, &self.memory.leases6),
                &self.settings,
                sources,
                &actual.node,
                &actual.foreign,
            );
            let expires = self.memory.vips.values().flatten().min();
            self.basis = Some(Basis {
                node: actual.node.clone(),
                foreign: actual.foreign.clone(),
                expires: expires.map(|since| later(*since, linger)),
            });
            match self.told {
                Told::All => self.inherited = None,
                told => {
                    let inherited = self.inherited.get_or_insert_with(|| Adopted::of(&actual.state));
                    if told == Told::Part {
                        inherited.forget_known(&desired);
                    }
                    inherited.keep(&mut desired);
                }
            }
            let plan = Arc::make_mut(&mut self.plan);
            last = Some(std::mem::replace(&mut plan.desired, desired));
            (plan.sources, plan.unplaced) = (sources, unplaced);
        }
        self.drain(last, actual, now);
        Some(Arc::clone(&self.plan))
    }

    /// Brings the plan up to date with what is leaving. `last` is what a plan that was just made anew
    /// takes the place of: often it is the same, because most of what happens in a cluster is no
    /// matter of VIPs.
    fn drain(&mut self, last: Option<Desired>, actual: &Actual, now: Timestamp) {
        if last.is_none() && self.drain.is_empty() {
            return;
        }
        let known = last.as_ref().map_or(&self.plan.desired.services, |last| &last.services);
        let changed = self.drain.update(&self.plan.desired, known, actual, now, self.drain_limit);
        let plan = Arc::make_mut(&mut self.plan);
        if last.is_some() || changed {
            self.drain.apply(&mut plan.desired);
        }
        if last.map_or(changed, |last| last != plan.desired) {
            plan.revision += 1;
        }
        let expires = self.basis.as_ref().and_then(|basis| basis.expires);
        plan.due = if self.drain.is_empty() { expires } else { Some(later(now, drain::POLL)) };
    }
}

fn later(time: Timestamp, span: Duration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// Notes which VIPs there are, and returns those that have lost all backends but are not forgotten.
fn remember(memory: &mut Persisted, table: &VipTable, now: Timestamp, linger: Duration) -> BTreeSet<VipKey> {
    for key in table.vips.keys() {
        memory.vips.insert(key.clone(), None);
    }
    memory.vips.retain(|key, since| {
        if table.vips.contains_key(key) {
            return true;
        }
        if table.awaited.contains(key) {
            *since = None;
            return true;
        }
        let since = *since.get_or_insert(now);
        Duration::try_from(now.duration_since(since)).unwrap_or_default() <= linger
    });
    memory.vips.keys().filter(|key| !table.vips.contains_key(*key)).cloned().collect()
}

/// Gives every name of the table an address, in the peer's order, and takes back those of names that
/// are forgotten. New names come first, as with the peer. Returns the names that found none.
pub fn assign(
    memory: &mut Persisted,
    table: &VipTable,
    range4: &AddressRange,
    range6: &AddressRange,
) -> Vec<String> {
    let mut ranked: Vec<_> = table.vips.iter().collect();
    ranked.sort_by(|(_, a), (_, b)| b.rank.cmp(&a.rank));
    let names = |ipv4: bool| {
        ranked.iter().filter_map(move |(key, vip)| match &key.host {
            Host::Named(name) if vip.backends.keys().any(|backend| backend.is_ipv4() == ipv4) => {
                Some(name.as_str())
            }
            _ => None,
        })
    };
    let literals = || {
        table.vips.keys().filter_map(|key| match key.host {
            Host::Literal(address) => Some(address),
            Host::Named(_) => None,
        })
    };
    let mut unplaced = memory.leases4.assign(range4, names(true), literals());
    unplaced.extend(memory.leases6.assign(range6, names(false), literals()));
    let named = |key: &VipKey| match &key.host {
        Host::Named(name) => Some(name.clone()),
        Host::Literal(_) => None,
    };
    let known: BTreeSet<String> = table.vips.keys().chain(memory.vips.keys()).filter_map(named).collect();
    memory.leases4.retain(|name| known.contains(name));
    memory.leases6.retain(|name| known.contains(name));
    unplaced
}

/// The node's own address: as configured, else the one under which Mesos knows it, else the one that
/// the kernel prefers.
fn sources(configured: Sources, agents: &BTreeSet<IpAddr>, node: &Node) -> Sources {
    let as_agent = |ipv4: bool| {
        let own = |address: &&IpAddr| {
            address.is_ipv4() == ipv4 && !address.is_loopback() && node.addresses.contains(*address)
        };
        agents.iter().find(own).copied()
    };
    Sources {
        v4: configured.v4.or_else(|| as_agent(true)).or(node.default_source4),
        v6: configured.v6.or_else(|| as_agent(false)).or(node.default_source6),
    }
}

#[cfg(test)]
mod tests;
