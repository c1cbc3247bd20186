//! The loop that makes the kernel hold what the cluster needs, and says how that went.
//!
//! Every pass compares complete states, whatever woke it: a new snapshot, a change of the node's
//! network, the audit timer, or somebody who asks for the status. So start, restart, drift and retry
//! are one code path. What should be is decided in [`crate::plan`]; here are the kernel, the clock,
//! and the file that survives restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::belief::HoldReason;
use crate::config::Config;
use crate::dataplane::diff::{diff, most_used_first};
use crate::dataplane::{Actual, Connections, DataPlane, Depth, Link, Op, OpError, ServiceKey};
use crate::dns::zone::{Service, Zone};
use crate::plan::{Plan, Planner};
use crate::source::{Location, Report};
use crate::status::build::{crowded, held_names, reasons, shown, vips};
use crate::status::{self, Status};
use crate::store::{Persisted, Store};

/// Most operations that are sent before the status is published again. After somebody's flush the
/// kernel needs long for each, and an operator should see that it goes on.
const CHUNK: usize = 500;

/// A chunk that takes longer is followed by a pause of the same length: the kernel lets nobody else
/// program IPVS meanwhile, and gets faster when it has had time to forget deleted servers.
const BRISK: Duration = Duration::from_millis(50);

/// Skipped entries that a status lists; all are counted.
const SHOWN_SKIPPED: usize = 1000;

/// Several changes of the network within this time make one pass.
const COALESCE: Duration = Duration::from_millis(50);

/// First pause before operations that failed are tried again; doubles up to the audit interval.
const RETRY: Duration = Duration::from_secs(1);

/// Longest time for which a changed cluster is not written.
const CLUSTER_SAVED_EVERY: Duration = Duration::from_secs(10);

/// Until then there is a pause of so many times what the last writing took.
const CLUSTER_PAUSE: u32 = 50;

/// A full reading is done at least once in so many audits.
const FULL_READING_EVERY: u32 = 20;

/// Someone who waits for a status that is up to date.
#[derive(Debug)]
pub struct Inquiry {
    /// Whether tasks that are being held should first be given up.
    pub accept_loss: bool,
    pub answer: oneshot::Sender<Arc<Status>>,
}

/// What a pass needs besides the plan.
pub struct Reconciler<D> {
    dataplane: D,
    planner: Planner,
    store: Store,
    /// Name of the zone.
    origin: String,
    /// The zone without records.
    zone: Zone,
    zones: watch::Sender<Arc<Zone>>,
    /// What is published.
    records: Option<BTreeSet<Service>>,
    /// Complaints about names that DNS can't carry.
    unnamed: Vec<String>,
    statuses: watch::Sender<Arc<Status>>,
    status: Status,
    saved: Persisted,
    keeps_cluster: bool,
    /// When the cluster may be kept again, and whether it has changed since.
    cluster_due: Instant,
    cluster_changed: bool,
    store_error: Option<String>,
    /// Revision of the plan that the last pass left the kernel with, without an error.
    settled: Option<u64>,
    /// Revision of the plan that was last shown, and whether it was all in the kernel then.
    shown: Option<(u64, bool)>,
    /// Those who wait for the next pass.
    inquiries: Vec<Inquiry>,
    /// What every server had in the last pass.
    connections: BTreeMap<(ServiceKey, SocketAddr), Connections>,
    /// When the plan changes although nothing happens.
    due: Option<Timestamp>,
    /// How long the last pass took.
    took: Duration,
    passes: u32,
    report: Report,
    seed: u64,
    audit: Duration,
}

/// Where the reconciler publishes.
pub struct Outputs {
    pub zones: watch::Sender<Arc<Zone>>,
    pub statuses: watch::Sender<Arc<Status>>,
}

/// What wakes the reconciler.
pub struct Inputs {
    pub reports: watch::Receiver<Report>,
    pub inquiries: mpsc::Receiver<Inquiry>,
    /// The node's network has changed.
    pub network: Arc<Notify>,
    pub dns: watch::Receiver<status::Dns>,
}

impl<D: DataPlane> Reconciler<D> {
    /// Loads what an earlier run left; a damaged file is reported and does not stop anything.
    pub fn new(dataplane: D, config: &Config, zone: Zone, outputs: Outputs) -> Self {
        let store = Store::new(&config.daemon.state_dir);
        let mut store_error = None;
        let mut complain = |error| {
            let error = store.set_aside(error);
            tracing::error!(%error, "cannot go on from an earlier run");
            store_error = Some(error.to_string());
        };
        let memory = store.leases().map_err(&mut complain).unwrap_or_default();
        // A file is there as long as this node is, and may be of another cluster by now.
        let from_file = matches!(config.source.masters.as_slice(), [Location::File(_)]);
        let cluster = match from_file {
            true => None,
            false => store.cluster().map_err(&mut complain).unwrap_or_default(),
        };
        let hostname = hostname();
        let mut hasher = DefaultHasher::new();
        hostname.hash(&mut hasher);
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: status::Node { hostname, dataplane: dataplane.choice(), ..status::Node::default() },
            source: status::Source { configured: config.places(), ..status::Source::default() },
            ..Status::default()
        };
        Self {
            dataplane,
            keeps_cluster: !from_file,
            planner: Planner::new(config, memory.clone(), cluster),
            store,
            origin: config.dns.zone.clone(),
            zone,
            zones: outputs.zones,
            records: None,
            unnamed: Vec::new(),
            statuses: outputs.statuses,
            status,
            saved: memory,
            cluster_due: Instant::now(),
            cluster_changed: false,
            store_error,
            settled: None,
            shown: None,
            inquiries: Vec::new(),
            connections: BTreeMap::new(),
            due: None,
            took: Duration::ZERO,
            passes: 0,
            report: Report::default(),
            seed: hasher.finish(),
            audit: config.ipvs.audit.0,
        }
    }

    /// Runs passes until `shutdown`; leaves the kernel as it is then.
    pub async fn run(mut self, mut inputs: Inputs, shutdown: CancellationToken) {
        let mut retry = RETRY;
        loop {
            self.take_report(inputs.reports.borrow_and_update().clone());
            self.status.dns = inputs.dns.borrow_and_update().clone();
            if self.inquiries.iter().any(|inquiry| inquiry.accept_loss) {
                self.accept_loss();
            }
            self.pass().await;
            for inquiry in self.inquiries.drain(..) {
                // Nobody minds if the one who asked has gone.
                let _ = inquiry.answer.send(self.statuses.borrow().clone());
            }
            let pause = if self.status.pass.errors.is_empty() {
                retry = RETRY;
                self.until_due().min(self.audit)
            } else {
                retry = (retry * 2).min(self.audit);
                retry
            };
            let coalesce = tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => false,
                changed = inputs.reports.changed() => match changed {
                    Ok(()) => false,
                    // The source has heard of the shutdown first.
                    Err(_) => break,
                },
                Some(inquiry) = inputs.inquiries.recv() => {
                    self.inquiries.push(inquiry);
                    false
                }
                Ok(()) = inputs.dns.changed() => false,
                () = inputs.network.notified() => true,
            };
            if coalesce {
                // A node whose network changes all the time should not be busy with comparing. Documents,
                // questions and the end don't wait for that: a first pass takes seconds where it loads modules.
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep(COALESCE.max(4 * self.took).min(self.audit)) => {}
                    _ = inputs.reports.changed() => {}
                    Some(inquiry) = inputs.inquiries.recv() => self.inquiries.push(inquiry),
                }
            }
            while let Ok(inquiry) = inputs.inquiries.try_recv() {
                self.inquiries.push(inquiry);
            }
        }
        self.cluster_due = Instant::now();
        self.save();
    }

    fn until_due(&self) -> Duration {
        let until = |due: Timestamp| Duration::try_from(due.duration_since(Timestamp::now()));
        self.due.map_or(Duration::MAX, |due| until(due).unwrap_or_default())
    }

    /// Believes the last document as it is.
    pub fn accept_loss(&mut self) {
        if let Some(snapshot) = &self.report.snapshot {
            tracing::warn!("an operator gives up tasks that were being held");
            self.planner.accept(snapshot);
            self.cluster_changed = self.keeps_cluster;
        }
    }

    /// Takes in what a source reports.
    pub fn take_report(&mut self, report: Report) {
        let confirmed = report.good_at != self.report.good_at;
        let new = report.sequence != self.report.sequence;
        if let Some(snapshot) = &report.snapshot
            && (new || (confirmed && self.planner.is_holding()))
        {
            self.planner.learn(snapshot, Timestamp::now());
            self.cluster_changed = self.keeps_cluster;
        }
        self.report = report;
    }

    /// Compares the kernel with what it should hold, changes it, and publishes names and status.
    pub async fn pass(&mut self) {
        let started = Instant::now();
        let in_doubt = self.settled.is_none() || self.passes.is_multiple_of(FULL_READING_EVERY);
        self.passes = self.passes.wrapping_add(1);
        let depth = if in_doubt { Depth::Full } else { Depth::Audit };
        let actual = match self.dataplane.read(depth).await {
            Ok(actual) => actual,
            Err(error) => {
                tracing::error!(%error, "cannot read the kernel");
                self.settled = None;
                self.status.pass.errors = vec![error.to_string()];
                self.publish_status(None, &[], None);
                return;
            }
        };
        let Some(plan) = self.planner.plan(&actual, Timestamp::now()) else {
            return self.prepare(&actual).await;
        };
        self.due = plan.due;
        self.save();
        let mut ops = diff(&actual.state, &plan.desired.state, self.seed);
        let drift = self.settled == Some(plan.revision) && !ops.is_empty();
        if drift {
            most_used_first(&mut ops, &self.connections);
        }
        let errors = self.apply(&ops, drift).await;
        let finished = self.dataplane.finish_pass(errors.is_empty()).await;
        self.record(&ops, &errors, drift, started);
        if let Err(error) = finished {
            tracing::warn!(error, "will be tried again");
            self.status.pass.errors.push(error);
        }
        self.settled = errors.is_empty().then_some(plan.revision);
        let shown = Some((plan.revision, errors.is_empty()));
        if shown != self.shown || !errors.is_empty() {
            self.publish_zone(held_names(&plan.desired, &errors));
        }
        self.publish_status(Some(&plan), &errors, Some(&actual));
        self.shown = shown;
        self.connections = actual.connections;
        self.took = started.elapsed();
    }

    /// Before the first document nobody knows which VIPs there should be: what the kernel holds
    /// stays, and names that had their address before are served.
    async fn prepare(&mut self, actual: &Actual) {
        let listeners = &self.planner.settings.listeners;
        let mut state = actual.state.clone();
        state.link = Link::Up;
        state.addresses.extend(listeners.iter().filter(|address| !actual.node.addresses.contains(address)));
        let errors = self.apply(&diff(&actual.state, &state, self.seed), false).await;
        self.status.pass.errors = shown(&errors);
        let programmed: BTreeSet<IpAddr> = actual.state.services.keys().map(|key| key.address).collect();
        let memory = &self.planner.memory;
        let names = memory.leases4.iter().chain(memory.leases6.iter());
        let served = names.filter(|(_, address)| programmed.contains(address));
        let records =
            served.map(|(name, address)| Service { name: name.to_owned(), address, port: None }).collect();
        self.publish_zone(records);
        self.publish_status(None, &errors, Some(actual));
    }

    /// Carries out operations in chunks; a repair leaves the kernel room for others.
    async fn apply(&mut self, ops: &[Op], repair: bool) -> Vec<OpError> {
        let mut errors = Vec::new();
        let chunks = ops.chunks(CHUNK);
        let several = chunks.len() > 1;
        let mut done = 0;
        for chunk in chunks {
            let started = Instant::now();
            errors.extend(self.dataplane.apply(chunk).await);
            done += chunk.len();
            if several {
                tracing::debug!(done, of = ops.len(), "programming the kernel");
                self.status.pass.pending = ops.len() - done;
                self.statuses.send_replace(Arc::new(self.status.clone()));
                match started.elapsed() {
                    long if repair && long > BRISK && done < ops.len() => tokio::time::sleep(long).await,
                    _ => tokio::task::yield_now().await,
                }
            }
        }
        errors
    }

    fn record(&mut self, ops: &[Op], errors: &[OpError], drift: bool, started: Instant) {
        let now = Timestamp::now();
        for op in ops {
            tracing::debug!(%op, "kernel operation");
        }
        let shown = shown(errors);
        // Whoever asks for the status wakes a pass, and what fails once fails again for a while.
        if shown != self.status.pass.errors {
            for error in errors.iter().take(shown.len()) {
                tracing::warn!(op = %error.op, error = error.error, "kernel operation failed, will be tried again");
            }
        }
        let pass = &mut self.status.pass;
        pass.at = Some(now);
        pass.seconds = started.elapsed().as_secs_f64();
        pass.errors = shown;
        if ops.is_empty() {
            return;
        }
        pass.operations = ops.len();
        pass.changed_at = Some(now);
        if drift {
            pass.repaired += ops.len() as u64;
            pass.repaired_at = Some(now);
            let first = ops.first().map(Op::to_string);
            tracing::warn!(operations = ops.len(), first, "somebody else changed what is ours, repaired");
        } else {
            tracing::info!(operations = ops.len(), failed = errors.len(), "table changed");
        }
    }

    /// Addresses are kept before they are used. The cluster is larger, and may lag behind: a start
    /// goes by the kernel where they differ.
    fn save(&mut self) {
        let started = Instant::now();
        let due = started >= self.cluster_due;
        let cluster = self.planner.cluster().filter(|_| self.cluster_changed && due);
        let leases = (self.planner.memory != self.saved).then_some(&self.planner.memory);
        if leases.is_none() && cluster.is_none() {
            return;
        }
        let saved = leases
            .map_or(Ok(()), |memory| self.store.save_leases(memory))
            .and_then(|()| cluster.map_or(Ok(()), |cluster| self.store.save_cluster(cluster)));
        match saved {
            Ok(()) => {
                if cluster.is_some() {
                    let pause = started.elapsed() * CLUSTER_PAUSE;
                    self.cluster_due = Instant::now() + pause.min(CLUSTER_SAVED_EVERY);
                    self.cluster_changed = false;
                }
                self.saved = self.planner.memory.clone();
                self.store_error = None;
            }
            Err(error) => {
                if self.store_error.is_none() {
                    tracing::error!(%error, "cannot keep what the next start should know");
                }
                self.store_error = Some(error.to_string());
            }
        }
    }

    /// Publishes names with their addresses.
    fn publish_zone(&mut self, records: BTreeSet<Service>) {
        if self.records.as_ref() == Some(&records) {
            return;
        }
        let (zone, left_out) = self.zone.with_services(serial(), &records);
        self.unnamed = left_out
            .into_iter()
            .map(|(name, reason)| format!("{name} can only be reached by its address: the name {reason}"))
            .collect();
        self.zones.send_replace(Arc::new(zone));
        self.records = Some(records);
    }

    fn publish_status(&mut self, plan: Option<&Plan>, errors: &[OpError], actual: Option<&Actual>) {
        let now = Timestamp::now();
        let status = &mut self.status;
        status.at = now;
        status.pass.pending = 0;
        status.source.place = self.report.place.clone();
        status.source.good_at = self.report.good_at;
        status.source.pace = self.report.pace.clone();
        status.source.failure = self.report.failure.clone();
        if let Some(believed) = self.planner.believed() {
            status.source.master = believed.master.clone();
            status.source.agents = believed.agents;
            status.source.tasks = believed.tasks;
            status.source.held = believed.held.iter().map(HoldReason::to_string).collect();
        }
        if let (Some(plan), Some(actual)) = (plan, actual) {
            let current = self.shown.is_some_and(|(revision, _)| revision == plan.revision);
            if !current || !self.inquiries.is_empty() {
                let skipped = &plan.desired.skipped;
                status.skipped_total = skipped.len();
                status.skipped = Arc::new(skipped.iter().take(SHOWN_SKIPPED).cloned().collect());
                status.vips = Arc::new(vips(plan, &self.planner, actual, &self.origin));
                status.warnings = plan.desired.warnings.clone();
                status.warnings.extend(self.unnamed.iter().cloned());
                status.warnings.extend(crowded(actual));
                let resolved = status.dns.resolved.iter();
                status.warnings.extend(
                    resolved
                        .map(|error| format!("systemd-resolved does not ask us for VIPs' names: {error}")),
                );
            }
            status.node.address = plan.sources.v4;
            status.node.address6 = plan.sources.v6;
        }
        if let Some(actual) = actual {
            status.foreign.clone_from(&actual.foreign);
        }
        let believed = self.planner.believed();
        status.reasons = reasons(status, plan, believed, errors.len(), self.store_error.as_deref(), now);
        status.degraded = !status.reasons.is_empty();
        self.statuses.send_replace(Arc::new(status.clone()));
    }
}

/// Seconds since the epoch: later zones have greater serials, also after a restart.
fn serial() -> u32 {
    u32::try_from(Timestamp::now().as_second()).unwrap_or_default()
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests;
