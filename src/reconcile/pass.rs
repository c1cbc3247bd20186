//! One pass: read the kernel, plan, compare, change, publish.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::publish::{Publisher, StatusInputs};
use crate::dataplane::diff::{diff, most_used_first};
use crate::dataplane::{Actual, Connections, DataPlane, Depth, Link, Op, OpError, ServiceKey};
use crate::dns::zones::vips::NamedService;
use crate::plan::{Plan, Planner};
use crate::source::Feed;
use crate::status::build::held_names;
use crate::status::pass::{Cause, PassReport, Scope};
use crate::store::saver::Saver;
use crate::units::steady::steady_now;

/// Largest number of operations that are sent before the status is published again: after a flush the
/// kernel needs long for each, and an operator should see progress.
const CHUNK: usize = 500;

/// A chunk that takes longer is followed by a pause of the same length: the kernel lets no other
/// program change IPVS meanwhile, and gets faster when it has had time to forget deleted servers.
const BRISK: Duration = Duration::from_millis(50);

/// Number of passes among which at least one reads the kernel in full.
const FULL_READING_EVERY: u32 = 20;

/// Makes passes, and remembers what the next one needs of the last.
pub(super) struct Passes<D> {
    pub(super) dataplane: D,
    pub(super) planner: Planner,
    saver: Saver,
    pub(super) publisher: Publisher,
    feed: Feed,
    /// Time at which the plan changes although nothing happens.
    due: Option<Timestamp>,
    progress: Progress,
}

/// Findings of earlier passes.
struct Progress {
    /// Revision of the plan with which the last pass left the kernel without an error.
    settled: Option<u64>,
    /// Connections of every server in the last pass.
    connections: BTreeMap<(ServiceKey, SocketAddr), Connections>,
    /// Duration of the last pass.
    took: Duration,
    passes: u32,
    /// Shuffles the order in which servers are added, differently on each node.
    seed: u64,
}

impl Progress {
    fn new(hostname: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        hostname.hash(&mut hasher);
        Self {
            settled: None,
            connections: BTreeMap::new(),
            took: Duration::ZERO,
            passes: 0,
            seed: hasher.finish(),
        }
    }
}

impl<D: DataPlane> Passes<D> {
    pub(super) fn new(dataplane: D, planner: Planner, saver: Saver, publisher: Publisher) -> Self {
        let progress = Progress::new(publisher.hostname());
        Self { dataplane, planner, saver, publisher, feed: Feed::default(), due: None, progress }
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    pub(super) fn took(&self) -> Duration {
        self.progress.took
    }

    /// Takes in what the sources say; returns true if the believed cluster is a new one.
    pub(super) fn take_feed(&mut self, feed: Feed) -> bool {
        let is_new = match (&feed.accepted, &self.feed.accepted) {
            (Some(new), Some(known)) => !Arc::ptr_eq(new, known),
            (new, _) => new.is_some(),
        };
        if let Some(accepted) = feed.accepted.as_ref().filter(|_| is_new) {
            // Comparing costs a fraction of making the table and the plan anew.
            let is_same = self.feed.accepted.as_ref().is_some_and(|known| {
                let (old, new) = (&known.snapshot.names, &accepted.snapshot.names);
                known.gives_same_table(accepted)
                    && (!self.planner.depends_on_names() || old.addresses().eq(new.addresses()))
            });
            if is_same {
                self.saver.note_same_cluster(&accepted.snapshot);
            } else {
                self.planner.learn(accepted);
                self.saver.note_cluster(&accepted.snapshot);
            }
        }
        self.feed = feed;
        is_new
    }

    /// Takes in that a source has confirmed what is believed, without a pass: only the age is published. Returns
    /// false where the feed needs a pass.
    pub(super) fn confirm(&mut self, feed: Feed) -> bool {
        let is_known = match (&feed.accepted, &self.feed.accepted) {
            (Some(new), Some(known)) => Arc::ptr_eq(new, known),
            _ => false,
        };
        // A failure begins or ends, or another server answers.
        let is_source_same =
            feed.failure.is_none() && self.feed.failure.is_none() && feed.place == self.feed.place;
        // Servers that drain may have lost their last connection.
        if !is_known || !is_source_same || self.due.is_some() {
            return false;
        }
        let had_error = self.saver.error().is_some();
        // The cluster may have become due to be written.
        self.saver.save(&self.planner.persisted);
        if had_error != self.saver.error().is_some() {
            return false;
        }
        self.publisher.publish_age(&feed);
        self.feed = feed;
        true
    }

    /// Writes what the next start should know.
    pub(super) fn finish(&mut self) {
        self.saver.finish(&self.planner.persisted);
    }

    /// Publishes the status after a pass, with what of the plan and the kernel is known.
    fn publish_status(&mut self, report: &PassReport, planned: Option<(&Plan, &Actual)>, is_asked: bool) {
        self.publisher.publish_status(StatusInputs {
            report,
            planned,
            planner: &self.planner,
            feed: &self.feed,
            store_error: self.saver.error(),
            unused_files: self.saver.unused(),
            is_asked,
        });
    }

    /// Reads and publishes the node without a pass. A failure is left to the pass that follows, and the last
    /// view of the node stays.
    pub(super) async fn refresh_node(&mut self) {
        match self.dataplane.read_node().await {
            Ok(node) => self.publisher.publish_node(&node, None),
            Err(error) => {
                tracing::debug!(%error, "cannot read the node's network, the next pass tries again")
            }
        }
    }

    /// Compares the kernel with what it should hold, changes it, and publishes names and status.
    /// `is_asked` is set while a client waits for the status.
    pub(super) async fn pass(&mut self, cause: Cause, is_asked: bool) {
        let started = Instant::now();
        // After an error, and now and then, attributes that a cheap reading trusts are read as well.
        let is_doubtful =
            self.progress.settled.is_none() || self.progress.passes.is_multiple_of(FULL_READING_EVERY);
        self.progress.passes = self.progress.passes.wrapping_add(1);
        let depth = if is_doubtful { Depth::Full } else { Depth::Audit };
        // Filled in step by step; whatever ends the pass early still publishes what is known.
        let mut report = PassReport { cause, ..PassReport::default() };
        let actual = match self.dataplane.read(depth).await {
            Ok(actual) => actual,
            Err(error) => {
                tracing::error!(%error, "cannot read the kernel, nothing is changed until a reading succeeds");
                // The next reading is a full one, and its differences are no repair: what happened
                // meanwhile is unknown.
                self.progress.settled = None;
                report.error = Some(error.to_string());
                self.publisher.record(&report, false);
                self.publish_status(&report, None, is_asked);
                return;
            }
        };
        report.timings.read = started.elapsed();
        // DNS waits for the node's networks, and a plan that is carried out can take seconds.
        self.publisher.publish_node(&actual.node, None);
        let Some(plan) = self.planner.plan(&actual, steady_now()) else {
            return self.prepare(report, &actual, is_asked).await;
        };
        report.timings.plan = started.elapsed() - report.timings.read;
        // Known now, so that the loop wakes in time even if this pass fails below.
        self.due = plan.due;
        self.publisher.publish_node(&actual.node, Some(plan.sources));
        // Addresses are on disk before the kernel has them.
        self.saver.save(&self.planner.persisted);

        let mut ops = diff(&actual.state, &plan.state, self.progress.seed);
        // The last pass left this very plan in the kernel, so every difference is another program's work.
        report.is_repair = self.progress.settled == Some(plan.revision) && !ops.is_empty();
        if report.is_repair {
            // Clients wait for the services with most connections.
            most_used_first(&mut ops, &self.progress.connections);
        }
        let applying = Instant::now();
        report.failed = self.apply(&ops, report.is_repair).await;
        let is_complete = report.failed.is_empty();
        // A plane may only replace what must not be seen half done when all operations have succeeded.
        report.error = self.dataplane.finish_pass(is_complete).await.err();
        report.at = Timestamp::now();
        report.scope = Scope::of(&ops);
        report.operations = ops;
        report.timings.apply = applying.elapsed();
        report.timings.total = started.elapsed();

        // Only where all of the plan was in the kernel can a later difference be another program's work.
        self.progress.settled = is_complete.then_some(plan.revision);
        self.publisher.record(&report, true);
        // A name appears only after the kernel has its service.
        if self.publisher.is_outdated(&plan, is_complete) || !is_complete {
            self.publisher.publish_zone(held_names(&plan.desired, &report.failed));
        }
        // Before the status, which lists them.
        self.publisher.set_foreign(&actual);
        self.publish_status(&report, Some((&plan, &actual)), is_asked);
        // After the status, which compares with what was shown before.
        self.publisher.set_shown(&plan, is_complete);
        self.progress.connections = actual.connections;
        self.progress.took = started.elapsed();
    }

    /// Makes a pass before the first document, when it is not known which VIPs there should be: what
    /// the kernel holds stays, and names that had their address before are served.
    async fn prepare(&mut self, mut report: PassReport, actual: &Actual, is_asked: bool) {
        // The DNS server answers at these addresses, and does so before the first document.
        let listeners = &self.planner.settings.desired.listeners;
        let mut state = actual.state.clone();
        state.link = Link::Up;
        state.addresses.extend(listeners.iter().filter(|address| !actual.node.addresses.contains(address)));
        // Against the kernel's own state: nothing is removed, so connections survive a slow master.
        let ops = diff(&actual.state, &state, self.progress.seed);
        report.failed = self.apply(&ops, false).await;
        report.scope = Scope::of(&ops);
        report.operations = ops;
        self.publisher.record(&report, false);

        // Only names whose service is in the kernel: any other address would lead nowhere.
        let programmed: BTreeSet<IpAddr> = actual.state.services.keys().map(|key| key.address).collect();
        let persisted = &self.planner.persisted;
        let names = persisted.leases4.iter().chain(persisted.leases6.iter());
        let served = names.filter(|(_, address)| programmed.contains(address));
        let records = served
            .map(|(name, address)| NamedService { name: name.to_owned(), address, port: None })
            .collect();
        self.publisher.publish_zone(records);
        self.publisher.set_foreign(actual);
        self.publish_status(&report, None, is_asked);
    }

    /// Carries out operations in chunks; a repair leaves the kernel room for other programs.
    async fn apply(&mut self, ops: &[Op], is_repair: bool) -> Vec<OpError> {
        let mut errors = Vec::new();
        let chunks = ops.chunks(CHUNK);
        let are_several = chunks.len() > 1;
        let mut done = 0;
        for chunk in chunks {
            let started = Instant::now();
            errors.extend(self.dataplane.apply(chunk).await);
            done += chunk.len();
            if are_several {
                tracing::debug!(done, of = ops.len(), "programming the kernel");
                self.publisher.publish_progress(ops.len() - done);
                // Another program's table is what it repairs against; without a pause neither would come to
                // an end.
                match started.elapsed() {
                    long if is_repair && long > BRISK && done < ops.len() => tokio::time::sleep(long).await,
                    _ => tokio::task::yield_now().await,
                }
            }
        }
        errors
    }
}
