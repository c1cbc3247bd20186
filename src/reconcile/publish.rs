//! What a pass publishes: the zone of the VIPs' names, and the status.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::watch;

use super::metrics::PassMetrics;
use super::names::{NameChanges, PublishedNames};
use crate::cluster::belief::HoldReason;
use crate::dataplane::connects::{Connects, Remembered};
use crate::dataplane::{Actual, Node, Op, OpError, PlaneChoice, ServiceKey, Unreached};
use crate::dns::DnsState;
use crate::dns::publisher::serial;
use crate::dns::usage::UsageRegistry;
use crate::dns::zones::vips::{NamedService, Zone};
use crate::events::Recorder;
use crate::plan::desired::{Desired, Sources};
use crate::plan::shares::{self, SharedUse};
use crate::plan::{NodeView, Plan, Planner};
use crate::source::Feed;
use crate::status::build::{
    conntab_warning, counts, dropped_warning, first_errors, reasons, unnamed_warnings,
};
use crate::status::pass::{Cause, LongChange, PassReport};
use crate::status::{self, HttpState, Status};

/// Skipped entries that a status lists; all are counted.
const SHOWN_SKIPPED: usize = 1000;

/// Services that are few enough for all of the status to be renewed after each pass that changes them.
const FEW_SERVICES: usize = 200;

/// Settings of what is published.
#[derive(Clone, Debug)]
pub struct PublisherSettings {
    /// Zone of the VIPs' names, without records.
    pub zone: Zone,
    /// Name of that zone.
    pub origin: String,
    /// URLs and paths of the configured sources, for people.
    pub sources: Vec<String>,
    /// Use of what clients of DNS share.
    pub dns_usage: UsageRegistry,
    pub metrics: Arc<PassMetrics>,
}

/// Channels of what is published.
pub struct Outputs {
    pub zones: watch::Sender<Arc<Zone>>,
    pub statuses: watch::Sender<Arc<Status>>,
    /// Receives the node after each reading of the kernel that found it changed; the last one stays when a
    /// reading fails.
    pub nodes: watch::Sender<Arc<NodeView>>,
    /// History of what has changed.
    pub events: Recorder,
}

/// Ingredients of a status, besides what the publisher remembers.
pub(super) struct StatusInputs<'a> {
    pub report: &'a PassReport,
    /// Plan and reading of the pass; `None` where it came to neither.
    pub planned: Option<(&'a Plan, &'a Actual)>,
    pub planner: &'a Planner,
    pub feed: &'a Feed,
    pub store_error: Option<&'a str>,
    /// Files that the start could not use.
    pub unused_files: &'a [String],
    /// Set to renew what costs time with the number of VIPs: a client waits for it, or nothing else does.
    pub details: bool,
}

/// Publishes zones and statuses.
pub(super) struct Publisher {
    zones: watch::Sender<Arc<Zone>>,
    statuses: watch::Sender<Arc<Status>>,
    nodes: watch::Sender<Arc<NodeView>>,
    status: Status,
    settings: PublisherSettings,
    /// The zone that was published last, and the names in it.
    zone: Arc<Zone>,
    names: PublishedNames,
    /// Warnings about names that DNS can't carry.
    unnamed: Vec<String>,
    /// Revision of the plan from which the status has what costs time with the number of VIPs.
    detailed: Option<u64>,
    /// Revision of the plan that was last shown, and true if it was all in the kernel then.
    shown: Option<(u64, bool)>,
    /// Connections that the last pass could not end.
    unreached: u64,
    /// Time at which the believed cluster was read.
    news_at: Option<Instant>,
}

impl Publisher {
    pub(super) fn new(settings: PublisherSettings, dataplane: PlaneChoice, outputs: Outputs) -> Self {
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: status::Node { hostname: hostname(), dataplane, ..status::Node::default() },
            source: status::Source { configured: settings.sources.clone(), ..status::Source::default() },
            ..Status::default()
        };
        Self {
            zone: Arc::new(settings.zone.clone()),
            names: PublishedNames::default(),
            zones: outputs.zones,
            statuses: outputs.statuses,
            nodes: outputs.nodes,
            status,
            settings,
            unnamed: Vec::new(),
            detailed: None,
            shown: None,
            unreached: 0,
            news_at: None,
        }
    }

    /// Shows other sources as the configured ones from now on.
    pub(super) fn configure(&mut self, settings: PublisherSettings) {
        self.status.source.configured.clone_from(&settings.sources);
        self.settings.sources = settings.sources;
    }

    pub(super) fn hostname(&self) -> &str {
        &self.status.node.hostname
    }

    /// Returns the last status, which has no VIPs in it.
    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    /// Returns the name of a service that was published last.
    pub(super) fn name_of(&self, service: &ServiceKey) -> Option<String> {
        self.names.name_of(service).map(str::to_owned)
    }

    /// Returns the zone of the VIPs' names.
    pub(super) fn origin(&self) -> &str {
        &self.settings.origin
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.status.pass.errors.is_empty()
    }

    pub(super) fn set_dns(&mut self, dns: DnsState) {
        self.status.dns = dns;
    }

    pub(super) fn set_http(&mut self, http: HttpState) {
        self.status.http = http;
    }

    /// Returns true if the published VIPs are not those of `plan`, or were not all in the kernel.
    pub(super) fn is_outdated(&self, plan: &Plan, is_complete: bool) -> bool {
        self.shown != Some((plan.revision, is_complete))
    }

    /// Notes when the believed cluster was read.
    pub(super) fn note_news(&mut self, read_at: Option<Instant>) {
        self.news_at = read_at;
    }

    /// Counts a plan that was not what it should have been.
    pub(super) fn count_defect(&mut self) {
        self.status.pass.defects += 1;
        self.settings.metrics.defect();
    }

    /// Returns true once counts, warnings and skipped entries are those of a plan.
    pub(super) fn is_detailed(&self) -> bool {
        self.detailed.is_some()
    }

    /// Returns true if counts, warnings and skipped entries are not those of `plan`.
    pub(super) fn are_details_outdated(&self, plan: &Plan) -> bool {
        self.detailed != Some(plan.revision)
    }

    pub(super) fn set_shown(&mut self, plan: &Plan, is_complete: bool) {
        self.shown = Some((plan.revision, is_complete));
    }

    /// Publishes the last status again while a long pass is under way.
    pub(super) fn publish_progress(&mut self, pending: usize, change: LongChange) {
        self.status.at = Timestamp::now();
        self.status.pass.pending = pending;
        self.status.pass.under_way = Some(change);
        self.statuses.send_replace(Arc::new(self.status.clone()));
    }

    /// Logs what a pass did and notes it in the status. A pass that did not compare the kernel with a
    /// plan only has errors to tell.
    pub(super) fn record(&mut self, report: &PassReport, is_compared: bool) {
        for op in &report.operations {
            tracing::debug!(%op, "kernel operation");
        }
        // A pass for anything else finds the news carried out.
        let age = self.news_at.filter(|_| report.cause == Cause::Cluster).map(|read| read.elapsed());
        self.settings.metrics.record(report, age);
        // Cut to a few: a kernel without a module refuses all of 10,000 operations with the same words.
        let mut errors = first_errors(&report.failed);
        // Each request for the status makes a pass, and what fails once fails again for a while: it is
        // logged when it changes.
        if is_compared && errors != self.status.pass.errors {
            for error in report.failed.iter().take(errors.len()) {
                tracing::warn!(op = %error.op, error = error.error, "kernel operation failed, will be tried again");
            }
        }
        if let Some(error) = &report.error {
            if is_compared {
                tracing::warn!(error, "the last step of a pass failed, the next pass tries it again");
            }
            errors.push(error.clone());
        }
        if is_compared {
            let unreached = report.unreached.as_ref();
            let connections = unreached.map_or(0, |unreached| unreached.connections);
            // They get less as they are closed, which is no news.
            if let Some(unreached) = unreached.filter(|_| connections > self.unreached) {
                tracing::warn!("{unreached}");
            }
            self.unreached = connections;
        }
        let pass = &mut self.status.pass;
        pass.errors = errors;
        // A reading that failed says nothing of the table: the last comparison stays in the status.
        if !is_compared {
            return;
        }
        if let Some(connects) = report.connects.filter(|connects| pass.connects != Some(*connects)) {
            let Connects { begun, established, refused, timed_out, syn_retransmissions } = connects;
            tracing::debug!(begun, established, refused, timed_out, syn_retransmissions, "connects to VIPs");
            pass.connects = Some(connects);
        }
        pass.ejected = report.ejected;
        pass.at = Some(report.at);
        pass.seconds = report.timings.total.as_secs_f64();
        let operations = report.operations.len();
        // The figures are those of the last pass that changed something.
        if operations == 0 {
            return;
        }
        pass.operations = operations;
        pass.changed_at = Some(report.at);
        pass.change = Some(report.change());
        if report.is_repair {
            pass.repaired += operations as u64;
            pass.repaired_at = Some(report.at);
            let first = report.operations.first().map(Op::to_string);
            tracing::warn!(
                operations,
                first,
                "another program changed what l4lbd keeps in the kernel, repaired"
            );
        } else {
            tracing::info!(operations, failed = report.failed.len(), "table changed");
        }
    }

    /// Publishes the node if it has changed; without a plan its own addresses stay as they were.
    pub(super) fn publish_node(&self, node: &Node, sources: Option<Sources>) {
        // DNS threads wake for each change, and most readings find none.
        self.nodes.send_if_modified(|view| {
            let sources = sources.unwrap_or(view.sources);
            let is_new = view.node != *node || view.sources != sources;
            if is_new {
                *view = Arc::new(NodeView { node: node.clone(), sources });
            }
            is_new
        });
    }

    /// Publishes the names of the services that the kernel holds.
    pub(super) fn publish_names(&mut self, desired: &Desired, errors: &[OpError]) {
        let changes = self.names.follow(desired, errors);
        self.publish_zone(changes);
    }

    /// Publishes names of which only the address is known.
    pub(super) fn publish_addresses(&mut self, names: BTreeSet<NamedService>) {
        let changes = self.names.follow_addresses(names);
        self.publish_zone(changes);
    }

    fn publish_zone(&mut self, changes: NameChanges) {
        // The same records keep their serial, and DNS its zone.
        if changes.is_empty() && self.zone.is_loaded() {
            return;
        }
        let zone = Arc::new(self.zone.with_changes(serial(), &changes.removed, &changes.added));
        if !zone.leaves_out_as(&self.zone) {
            self.unnamed = unnamed_warnings(zone.left_out());
        }
        self.zones.send_replace(Arc::clone(&zone));
        self.zone = zone;
    }

    /// Notes the virtual services of other programs.
    pub(super) fn set_foreign(&mut self, actual: &Actual) {
        self.status.foreign.clone_from(&actual.foreign);
    }

    /// Publishes the status after a pass.
    pub(super) fn publish_status(&mut self, inputs: StatusInputs<'_>) {
        let StatusInputs { report, planned, planner, feed, store_error, unused_files, details } = inputs;
        let now = Timestamp::now();
        let status = &mut self.status;
        status.at = now;
        status.dns.usage = self.settings.dns_usage.read();
        // A long pass may have left a number behind.
        status.pass.pending = 0;
        status.pass.under_way = None;
        status.source.place.clone_from(&feed.place);
        status.source.good_at = feed.good_at;
        status.source.pace.clone_from(&feed.pace);
        status.source.failure.clone_from(&feed.failure);
        status.source.overdue.clone_from(&feed.overdue);
        if let Some(cluster) = planner.cluster() {
            status.source.master.clone_from(&cluster.master);
            status.source.agents = cluster.agents;
            status.source.tasks = cluster.tasks;
            status.source.held = cluster.held.iter().map(HoldReason::to_string).collect();
        }
        if let Some((plan, actual)) = planned {
            status.node.address = plan.sources.v4;
            status.node.address6 = plan.sources.v6;
            let is_short =
                self.detailed != Some(plan.revision) && plan.desired.services.len() <= FEW_SERVICES;
            if details || is_short {
                self.detailed = Some(plan.revision);
                let skipped = &plan.desired.skipped;
                status.skipped_total = skipped.len();
                status.skipped = Arc::new(shares::shown(skipped, SHOWN_SKIPPED));
                status.counted = Some(counts(&plan.desired));
                status.shared.clone_from(&plan.uses);
                status.shared.extend(remembered_failures(actual));
                let mut warnings = self.warnings(plan, actual);
                warnings.extend(unused_files.iter().cloned());
                warnings.extend(report.unreached.as_ref().map(Unreached::to_string));
                self.status.warnings = warnings;
            }
        }
        // Last, because reasons are read from the status as it is by now.
        let plan = planned.map(|(plan, _)| plan).or(planner.last().map(Arc::as_ref));
        let reasons = reasons(&self.status, plan, planner.cluster(), report, store_error, now);
        self.status.note_reasons(reasons, now);
        self.statuses.send_replace(Arc::new(self.status.clone()));
    }

    /// Returns remarks on VIPs that work, but not as their users may expect.
    fn warnings(&self, plan: &Plan, actual: &Actual) -> Vec<String> {
        let mut warnings = plan.desired.warnings.clone();
        warnings.extend(self.unnamed.iter().cloned());
        warnings.extend(dropped_warning(plan, actual));
        warnings.extend(conntab_warning(actual));
        warnings.extend(plan.uses.iter().filter_map(SharedUse::warning));
        warnings.extend(remembered_failures(actual).and_then(|failures| forgetting(&failures)));
        if self.status.pass.defects > 0 {
            warnings.push(
                "a plan that followed changes of the cluster was wrong, and was corrected by an audit: this is a \
                 defect of l4lbd, please report it with the log"
                    .to_owned(),
            );
        }
        let resolved = self.status.dns.resolved.iter();
        warnings.extend(
            resolved.map(|error| format!("systemd-resolved does not ask l4lbd for names of VIPs: {error}")),
        );
        warnings
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Returns the use of the room for failures that clients have seen, where the kernel has such.
fn remembered_failures(actual: &Actual) -> Option<SharedUse> {
    let Remembered { used, limit } = actual.seen.as_ref()?.remembered?;
    Some(SharedUse { name: "failures that clients have seen".to_owned(), used, limit, largest: None })
}

/// Returns a remark once three quarters of that room are in use.
fn forgetting(failures: &SharedUse) -> Option<String> {
    (!shares::is_ample(failures.used, failures.limit)).then(|| {
        format!(
            "{failures} are remembered; when all are, those that were used longest ago are forgotten, and clients \
             with them connect to backends that fail (see SHARED BOUNDS in l4lbd-labels(7))"
        )
    })
}
