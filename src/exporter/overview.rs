//! Metrics from the last status and from the use of what clients of DNS share.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::dns::usage::Usage;
use crate::metrics::{Collect, Family, Samples, Writer};
use crate::status::Status;

const BUILD: Family = Family::info("l4lbd_build", &["version"], "Version of the daemon");
const PLANE: Family = Family::info("l4lbd_dataplane", &["dataplane"], "Data plane at work: ipvs or ebpf");
const DEGRADED: Family = Family::gauge(
    "l4lbd_degraded",
    &[],
    "1 if something needs an operator, else 0; l4lbd status says what, and what to do",
);
const REASONS: Family =
    Family::gauge("l4lbd_degraded_reasons", &[], "Reasons for which the status is degraded");
const WARNINGS: Family =
    Family::gauge("l4lbd_warnings", &[], "Remarks of l4lbd status on VIPs that work, but not as expected");
const SKIPPED: Family =
    Family::gauge("l4lbd_skipped", &[], "Labels and tasks that give no VIP; l4lbd status says why");
const FOREIGN: Family =
    Family::gauge("l4lbd_foreign_services", &[], "Virtual services of other programs in the kernel");
const AGENTS: Family = Family::gauge("l4lbd_agents", &[], "Agents of the cluster");
const TASKS: Family = Family::gauge("l4lbd_tasks", &[], "Tasks of the cluster that have VIP labels");
const HOLDS: Family = Family::gauge(
    "l4lbd_holds",
    &[],
    "Reasons for which tasks are held although the last document lacks them, such as a fail-over of the master",
);
const FAILING: Family = Family::gauge(
    "l4lbd_source_failed_attempts",
    &[],
    "Failed attempts since the source last answered; 0 if it does",
);
const OVERDUE: Family = Family::gauge(
    "l4lbd_source_overdue",
    &[],
    "1 while an answer is so late that the state may be old, else 0",
);
const PASS_AT: Family = Family::gauge(
    "l4lbd_pass_timestamp_seconds",
    &[],
    "Time of the last comparison of the kernel with what it should hold",
);
const CHANGED_AT: Family =
    Family::gauge("l4lbd_change_timestamp_seconds", &[], "Time of the last pass that changed the kernel");
const PENDING: Family =
    Family::gauge("l4lbd_pending_operations", &[], "Operations left to do while a long pass is under way");
const FAILED: Family = Family::gauge(
    "l4lbd_pass_failing",
    &[],
    "Different errors of the last pass, the first of them; 0 if it had none",
);
const SHARED_USED: Family = Family::gauge(
    "l4lbd_shared_used",
    &["name"],
    "Use of what apps share (SHARED BOUNDS in l4lbd-labels(7))",
);
const SHARED_LIMIT: Family = Family::gauge("l4lbd_shared_limit", &["name"], "Bound of what apps share");
const LISTENING: Family =
    Family::gauge("l4lbd_dns_listening", &[], "Addresses on which the DNS server listens; 0 if it does not");
const PLACES_USED: Family = Family::gauge(
    "l4lbd_dns_places_used",
    &["name"],
    "Places for forwarded questions and for TCP connections that clients have taken",
);
const PLACES_LIMIT: Family = Family::gauge("l4lbd_dns_places_limit", &["name"], "Number of such places");
const PLACES_REFUSED: Family =
    Family::counter("l4lbd_dns_places_refused", &["name"], "Times that a client got no place");
const PLACES_DISPLACED: Family = Family::counter(
    "l4lbd_dns_places_displaced",
    &["name"],
    "Times that a client lost its place to another one",
);

/// The last status, and the use of the DNS server.
#[derive(Default)]
pub(super) struct Overview {
    pub status: Arc<Status>,
    pub usage: Vec<Usage>,
}

fn seconds(time: Option<Timestamp>) -> Option<f64> {
    time.map(|time| time.as_millisecond() as f64 / 1e3)
}

impl Collect for Overview {
    fn collect(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        let Status { node, source, pass, dns, .. } = &*self.status;
        writer.family(BUILD, |samples| samples.info([env!("CARGO_PKG_VERSION")]))?;
        writer.family(PLANE, |samples| samples.info([&node.dataplane.plane.to_string()]))?;
        // A source that answers has no failure, and its number of attempts is 0 then.
        let failed = source.failure.as_ref().map_or(0, |failure| failure.attempts);
        for (family, value) in [
            (DEGRADED, u64::from(self.status.degraded)),
            (REASONS, self.status.reasons.len() as u64),
            (WARNINGS, self.status.warnings.len() as u64),
            (SKIPPED, self.status.skipped_total as u64),
            (FOREIGN, self.status.foreign.len() as u64),
            (AGENTS, source.agents as u64),
            (TASKS, source.tasks as u64),
            (HOLDS, source.held.len() as u64),
            (FAILING, failed.into()),
            (OVERDUE, u64::from(source.overdue.is_some())),
            (PENDING, pass.pending as u64),
            (FAILED, pass.errors.len() as u64),
            (LISTENING, dns.addresses.len() as u64),
        ] {
            writer.family(family, |samples| samples.number([], value))?;
        }
        writer.gauge(PASS_AT, seconds(pass.at))?;
        writer.gauge(CHANGED_AT, seconds(pass.changed_at))?;
        // Each family in one go: the formats want all samples of a family together.
        let shared = &self.status.shared;
        writer.family(SHARED_USED, |samples| {
            shared.iter().try_for_each(|shared| samples.number([&shared.name], shared.used as u64))
        })?;
        writer.family(SHARED_LIMIT, |samples| {
            shared.iter().try_for_each(|shared| samples.number([&shared.name], shared.limit as u64))
        })?;
        let each = |samples: &mut Samples<'_>,
                    write: fn(&mut Samples<'_>, [&str; 1], &Usage) -> fmt::Result| {
            self.usage.iter().try_for_each(|usage| write(samples, [&usage.name], usage))
        };
        writer.family(PLACES_USED, |samples| {
            each(samples, |samples, labels, usage| samples.number(labels, usage.used as u64))
        })?;
        writer.family(PLACES_LIMIT, |samples| {
            each(samples, |samples, labels, usage| samples.number(labels, usage.limit as u64))
        })?;
        writer.family(PLACES_REFUSED, |samples| {
            each(samples, |samples, labels, usage| samples.counter(labels, usage.refused))
        })?;
        writer.family(PLACES_DISPLACED, |samples| {
            each(samples, |samples, labels, usage| samples.counter(labels, usage.displaced))
        })
    }
}
