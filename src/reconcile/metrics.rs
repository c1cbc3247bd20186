//! Metrics of passes: their time, their operations, and what was repaired.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::dataplane::Op;
use crate::metrics::histogram::Histogram;
use crate::metrics::{Collect, Counter, Family, Writer};
use crate::status::pass::{Cause, PassReport};

/// Bounds of the time of a pass in seconds.
const BOUNDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

const PASSES: Family = Family::histogram(
    "l4lbd_pass_duration_seconds",
    &["cause"],
    "Time of passes by their cause: start, cluster, source, network, dns, request, retry, due or audit",
);
const LATENCY: Family = Family::histogram(
    "l4lbd_document_to_kernel_seconds",
    &[],
    "Time from a document or event that was read until the kernel had what it changed. Reading it is a part of \
     l4lbd_source_duration_seconds",
);
const OPERATIONS: Family = Family::counter(
    "l4lbd_pass_operations",
    &["operation"],
    "Operations on the kernel that passes carried out or tried",
);
const REFUSED: Family = Family::counter(
    "l4lbd_pass_operation_errors",
    &["operation"],
    "Operations that the kernel refused; they are tried again",
);
const ERRORS: Family = Family::counter(
    "l4lbd_pass_errors",
    &[],
    "Passes that could not read the kernel, or not make their last step",
);
const DRIFT: Family = Family::counter(
    "l4lbd_drift_repaired",
    &[],
    "Operations that repaired what another program had changed in the kernel",
);
const DEFECTS: Family = Family::counter(
    "l4lbd_plan_defects",
    &[],
    "Audits that found a plan which followed changes to differ from the whole plan, which is a defect of l4lbd",
);

/// Operations that failed, and all.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    all: u64,
    refused: u64,
}

/// Metrics of passes.
#[derive(Debug)]
pub struct PassMetrics {
    /// By cause.
    passes: BTreeMap<&'static str, Histogram>,
    latency: Histogram,
    /// By kind of operation.
    operations: Mutex<BTreeMap<&'static str, Tries>>,
    errors: Counter,
    drift: Counter,
    defects: Counter,
}

impl Default for PassMetrics {
    fn default() -> Self {
        Self {
            passes: Cause::ALL.iter().map(|cause| (cause.name(), Histogram::new(BOUNDS))).collect(),
            latency: Histogram::new(BOUNDS),
            operations: Mutex::new(Op::KINDS.iter().map(|kind| (*kind, Tries::default())).collect()),
            errors: Counter::default(),
            drift: Counter::default(),
            defects: Counter::default(),
        }
    }
}

impl PassMetrics {
    /// Counts what a pass did. `age` is the time since the news that it carried out was read.
    pub fn record(&self, report: &PassReport, age: Option<Duration>) {
        if let Some(passes) = self.passes.get(report.cause.name()) {
            passes.observe(report.timings.total);
        }
        if let Some(age) = age.filter(|_| !report.operations.is_empty()) {
            self.latency.observe(age);
        }
        self.errors.add(u64::from(report.error.is_some()));
        if report.is_repair {
            self.drift.add(report.operations.len() as u64);
        }
        let mut counted = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        for op in &report.operations {
            counted.entry(op.kind()).or_default().all += 1;
        }
        for failed in &report.failed {
            counted.entry(failed.op.kind()).or_default().refused += 1;
        }
    }

    /// Counts a plan that was not what it should have been.
    pub fn defect(&self) {
        self.defects.increment();
    }
}

impl Collect for PassMetrics {
    fn collect(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        writer.family(PASSES, |samples| {
            self.passes.iter().try_for_each(|(cause, times)| samples.histogram([cause], &times.counts()))
        })?;
        writer.family(LATENCY, |samples| samples.histogram([], &self.latency.counts()))?;
        // Copied, so that a pass does not wait for the writer.
        let operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        writer.family(OPERATIONS, |samples| {
            operations.iter().try_for_each(|(kind, tries)| samples.counter([kind], tries.all))
        })?;
        writer.family(REFUSED, |samples| {
            operations.iter().try_for_each(|(kind, tries)| samples.counter([kind], tries.refused))
        })?;
        writer.counter(ERRORS, self.errors.get())?;
        writer.counter(DRIFT, self.drift.get())?;
        writer.counter(DEFECTS, self.defects.get())
    }
}
