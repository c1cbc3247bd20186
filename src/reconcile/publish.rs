//! What a pass publishes: the zone of the VIPs' names, and the status.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::cluster::belief::HoldReason;
use crate::dataplane::{Actual, Node, Op, PlaneChoice};
use crate::dns::DnsState;
use crate::dns::publisher::serial;
use crate::dns::zones::vips::{NamedService, Zone};
use crate::plan::desired::Sources;
use crate::plan::{NodeView, Plan, Planner};
use crate::source::Feed;
use crate::status::build::{conntab_warning, first_errors, reasons, unnamed_warnings, vips};
use crate::status::pass::PassReport;
use crate::status::{self, Status};
use crate::units::steady::{shown, steady_now};

/// Skipped entries that a status lists; all are counted.
const SHOWN_SKIPPED: usize = 1000;

/// Settings of what is published.
#[derive(Clone, Debug)]
pub struct PublisherSettings {
    /// Zone of the VIPs' names, without records.
    pub zone: Zone,
    /// Name of that zone.
    pub origin: String,
    /// URLs and paths of the configured sources, for people.
    pub sources: Vec<String>,
}

/// Channels of what is published.
pub struct Outputs {
    pub zones: watch::Sender<Arc<Zone>>,
    pub statuses: watch::Sender<Arc<Status>>,
    /// Receives the node after each reading of the kernel that found it changed; the last one stays when a
    /// reading fails.
    pub nodes: watch::Sender<Arc<NodeView>>,
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
    /// Set while a client waits for the status.
    pub is_asked: bool,
}

/// Publishes zones and statuses.
pub(super) struct Publisher {
    zones: watch::Sender<Arc<Zone>>,
    statuses: watch::Sender<Arc<Status>>,
    nodes: watch::Sender<Arc<NodeView>>,
    status: Status,
    settings: PublisherSettings,
    /// Records of the published zone.
    records: Option<BTreeSet<NamedService>>,
    /// Warnings about names that DNS can't carry.
    unnamed: Vec<String>,
    /// Revision of the plan that was last shown, and true if it was all in the kernel then.
    shown: Option<(u64, bool)>,
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
            zones: outputs.zones,
            statuses: outputs.statuses,
            nodes: outputs.nodes,
            status,
            settings,
            records: None,
            unnamed: Vec::new(),
            shown: None,
        }
    }

    pub(super) fn hostname(&self) -> &str {
        &self.status.node.hostname
    }

    /// Returns the last published status.
    pub(super) fn status(&self) -> Arc<Status> {
        self.statuses.borrow().clone()
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.status.pass.errors.is_empty()
    }

    pub(super) fn set_dns(&mut self, dns: DnsState) {
        self.status.dns = dns;
    }

    /// Returns true if the published VIPs are not those of `plan`, or were not all in the kernel.
    pub(super) fn is_outdated(&self, plan: &Plan, is_complete: bool) -> bool {
        self.shown != Some((plan.revision, is_complete))
    }

    pub(super) fn set_shown(&mut self, plan: &Plan, is_complete: bool) {
        self.shown = Some((plan.revision, is_complete));
    }

    /// Publishes the last status again while a long pass is under way.
    pub(super) fn publish_progress(&mut self, pending: usize) {
        self.status.pass.pending = pending;
        self.statuses.send_replace(Arc::new(self.status.clone()));
    }

    /// Logs what a pass did and notes it in the status. A pass that did not compare the kernel with a
    /// plan only has errors to tell.
    pub(super) fn record(&mut self, report: &PassReport, is_compared: bool) {
        for op in &report.operations {
            tracing::debug!(%op, "kernel operation");
        }
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
        let pass = &mut self.status.pass;
        pass.errors = errors;
        // A reading that failed says nothing of the table: the last comparison stays in the status.
        if !is_compared {
            return;
        }
        pass.at = Some(report.at);
        pass.seconds = report.timings.total.as_secs_f64();
        let operations = report.operations.len();
        // The figures are those of the last pass that changed something.
        if operations == 0 {
            return;
        }
        pass.operations = operations;
        pass.changed_at = Some(report.at);
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

    /// Publishes names with their addresses.
    pub(super) fn publish_zone(&mut self, records: BTreeSet<NamedService>) {
        // The same records keep their serial, and DNS its zone.
        if self.records.as_ref() == Some(&records) {
            return;
        }
        let (zone, left_out) = self.settings.zone.with_services(serial(), &records);
        self.unnamed = unnamed_warnings(left_out);
        self.zones.send_replace(Arc::new(zone));
        self.records = Some(records);
    }

    /// Notes the virtual services of other programs.
    pub(super) fn set_foreign(&mut self, actual: &Actual) {
        self.status.foreign.clone_from(&actual.foreign);
    }

    /// Publishes the last status with a new age of what is believed.
    pub(super) fn publish_age(&mut self, feed: &Feed) {
        self.status.at = Timestamp::now();
        self.status.source.good_at = feed.good_at;
        self.status.source.pace.clone_from(&feed.pace);
        self.statuses.send_replace(Arc::new(self.status.clone()));
    }

    /// Publishes the status after a pass.
    pub(super) fn publish_status(&mut self, inputs: StatusInputs<'_>) {
        let StatusInputs { report, planned, planner, feed, store_error, unused_files, is_asked } = inputs;
        let now = Timestamp::now();
        let status = &mut self.status;
        status.at = now;
        // A long pass may have left a number behind.
        status.pass.pending = 0;
        status.source.place.clone_from(&feed.place);
        status.source.good_at = feed.good_at;
        status.source.pace.clone_from(&feed.pace);
        status.source.failure.clone_from(&feed.failure);
        if let Some(cluster) = planner.cluster() {
            status.source.master.clone_from(&cluster.master);
            status.source.agents = cluster.agents;
            status.source.tasks = cluster.tasks;
            status.source.held = cluster.held.iter().map(HoldReason::to_string).collect();
        }
        if let Some((plan, actual)) = planned {
            status.node.address = plan.sources.v4;
            status.node.address6 = plan.sources.v6;
            // Listing VIPs costs time with their number: only when they have changed or a client waits.
            let is_current = self.shown.is_some_and(|(revision, _)| revision == plan.revision);
            if !is_current || is_asked {
                let skipped = &plan.desired.skipped;
                status.skipped_total = skipped.len();
                status.skipped = Arc::new(skipped.iter().take(SHOWN_SKIPPED).cloned().collect());
                let mut vips = vips(plan, planner, actual, &self.settings.origin);
                let steady = steady_now();
                for backend in vips.iter_mut().flat_map(|vip| &mut vip.backends) {
                    backend.until = backend.until.map(|until| shown(until, steady, now));
                }
                status.vips = Arc::new(vips);
                let mut warnings = self.warnings(plan, actual);
                warnings.extend(unused_files.iter().cloned());
                self.status.warnings = warnings;
            }
        }
        // Last, because reasons are read from the status as it is by now.
        let plan = planned.map(|(plan, _)| plan);
        let reasons = reasons(&self.status, plan, planner.cluster(), report, store_error, now);
        self.status.degraded = !reasons.is_empty();
        self.status.reasons = reasons;
        self.statuses.send_replace(Arc::new(self.status.clone()));
    }

    /// Returns remarks on VIPs that work, but not as their users may expect.
    fn warnings(&self, plan: &Plan, actual: &Actual) -> Vec<String> {
        let mut warnings = plan.desired.warnings.clone();
        warnings.extend(self.unnamed.iter().cloned());
        warnings.extend(conntab_warning(actual));
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
