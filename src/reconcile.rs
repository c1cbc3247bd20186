//! The loop that makes the kernel hold what the cluster needs, and says how that went.
//!
//! What belongs here: the loop (this file), one pass ([`pass`]) and what it publishes ([`publish`]).
//! Every pass compares complete states, whatever woke it: a new snapshot, a change of the node's
//! network, the audit timer, or a client that asks for the status. So start, restart, drift and retry
//! are one code path. What should be is decided in [`crate::plan`]; here are the kernel, the clock,
//! and the file that survives restarts.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::dataplane::DataPlane;
use crate::dns::DnsState;
use crate::dns::zones::vips::Zone;
use crate::plan::{NodeView, Planner, PlannerSettings};
use crate::source::Feed;
use crate::status::Status;
use crate::status::pass::Cause;
use crate::store::Persisted;
use crate::store::saver::Saver;

mod pass;
mod publish;

use pass::Progress;
use publish::Publisher;

/// Time within which several changes of the network make one pass.
const COALESCE: Duration = Duration::from_millis(50);

/// First pause before operations that failed are tried again; doubles up to the audit interval.
const RETRY: Duration = Duration::from_secs(1);

/// Request for a status that is up to date.
#[derive(Debug)]
pub struct StatusRequest {
    pub answer: oneshot::Sender<Arc<Status>>,
}

/// Settings of the loop.
#[derive(Clone, Debug)]
pub struct ReconcilerSettings {
    pub planner: PlannerSettings,
    /// Time between two comparisons when nothing else happens.
    pub audit: Duration,
    /// Zone of the VIPs' names, without records.
    pub zone: Zone,
    /// Name of that zone.
    pub origin: String,
    /// URLs and paths of the configured sources, for people.
    pub sources: Vec<String>,
}

/// Makes the kernel hold what the believed cluster needs.
pub struct Reconciler<D> {
    dataplane: D,
    planner: Planner,
    saver: Saver,
    publisher: Publisher,
    feed: Feed,
    progress: Progress,
    /// Clients that wait for the next pass.
    requests: Vec<StatusRequest>,
    /// Time at which the plan changes although nothing happens.
    due: Option<Timestamp>,
    audit: Duration,
}

/// Receivers of what the reconciler publishes.
pub struct Outputs {
    pub zones: watch::Sender<Arc<Zone>>,
    pub statuses: watch::Sender<Arc<Status>>,
    /// Receives the node after each reading of the kernel that found it changed; the last one stays when a
    /// reading fails.
    pub nodes: watch::Sender<Arc<NodeView>>,
}

/// Everything that wakes the reconciler.
pub struct Inputs {
    pub feeds: watch::Receiver<Feed>,
    pub requests: mpsc::Receiver<StatusRequest>,
    /// Notified when the node's network has changed.
    pub network: Arc<Notify>,
    pub dns: watch::Receiver<DnsState>,
}

impl<D: DataPlane> Reconciler<D> {
    /// Goes on with the addresses that an earlier run left, which `saver` keeps from now on.
    pub fn new(
        dataplane: D,
        settings: ReconcilerSettings,
        saver: Saver,
        persisted: Persisted,
        outputs: Outputs,
    ) -> Self {
        let publisher = Publisher::new(&settings, dataplane.choice(), outputs);
        Self {
            dataplane,
            planner: Planner::new(settings.planner, persisted),
            saver,
            progress: Progress::new(publisher.hostname()),
            publisher,
            feed: Feed::default(),
            requests: Vec::new(),
            due: None,
            audit: settings.audit,
        }
    }

    /// Runs passes until `shutdown`; leaves the kernel as it is then.
    pub async fn run(mut self, mut inputs: Inputs, shutdown: CancellationToken) {
        let mut retry = RETRY;
        let mut cause = Cause::Start;
        loop {
            // Everything that has happened by now is part of this pass.
            let is_new = self.take_feed(inputs.feeds.borrow_and_update().clone());
            self.publisher.set_dns(inputs.dns.borrow_and_update().clone());
            while let Ok(request) = inputs.requests.try_recv() {
                self.requests.push(request);
            }
            if is_new && cause == Cause::Source {
                cause = Cause::Cluster;
            }
            self.pass(cause).await;
            for request in self.requests.drain(..) {
                // The asking client may have gone.
                let _ = request.answer.send(self.publisher.status());
            }
            let (pause, next) = if self.publisher.has_errors() {
                retry = (retry * 2).min(self.audit);
                (retry, Cause::Retry)
            } else {
                retry = RETRY;
                let until_due = self.until_due();
                if until_due < self.audit { (until_due, Cause::Due) } else { (self.audit, Cause::Audit) }
            };
            cause = tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => next,
                changed = inputs.feeds.changed() => match changed {
                    Ok(()) => Cause::Source,
                    // The source has heard of the shutdown first.
                    Err(_) => break,
                },
                Some(request) = inputs.requests.recv() => {
                    self.requests.push(request);
                    Cause::Request
                }
                Ok(()) = inputs.dns.changed() => Cause::Dns,
                () = inputs.network.notified() => Cause::Network,
            };
            if cause == Cause::Network {
                // A node whose network changes all the time should not be busy with comparing. Documents,
                // questions and the end don't wait for that: a first pass takes seconds where it loads
                // modules.
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep(COALESCE.max(4 * self.progress.took).min(self.audit)) => {}
                    _ = inputs.feeds.changed() => cause = Cause::Source,
                    Some(request) = inputs.requests.recv() => self.requests.push(request),
                }
            }
        }
        self.saver.finish(&self.planner.persisted);
    }

    fn until_due(&self) -> Duration {
        let until = |due: Timestamp| Duration::try_from(due.duration_since(Timestamp::now()));
        self.due.map_or(Duration::MAX, |due| until(due).unwrap_or_default())
    }

    /// Takes in what the sources say; returns true if the believed cluster is a new one.
    pub fn take_feed(&mut self, feed: Feed) -> bool {
        let is_new = match (&feed.accepted, &self.feed.accepted) {
            (Some(new), Some(known)) => !Arc::ptr_eq(new, known),
            (new, _) => new.is_some(),
        };
        if let Some(accepted) = feed.accepted.as_ref().filter(|_| is_new) {
            self.planner.learn(accepted);
            self.saver.note_cluster(&accepted.snapshot);
        }
        self.feed = feed;
        is_new
    }
}

#[cfg(test)]
mod tests;
