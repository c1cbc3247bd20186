//! The loop that makes the kernel hold what the cluster needs, and says how that went.
//!
//! What belongs here: the loop (this file), one pass (`pass.rs`), what it publishes (`publish.rs`), and the answers
//! to questions between passes (`answers.rs`).
//! Every pass compares complete states, whatever woke it: a new snapshot, a change of the node's
//! network, the audit timer, or a client that asks for a comparison. So start, restart, drift and retry
//! are one code path. What should be is decided in [`crate::plan`]; here are the kernel, the clock,
//! and the file that survives restarts.
//!
//! A pass for a new snapshot, or for a server that may have drained, takes the kernel to be as the last pass
//! left it; every other pass reads it. Before an audit everything is looked through in slices, and a change waits for
//! one of them at most. After it the plan is compared with one that is made as a whole, by another thread. What
//! another program changes is therefore found by the next audit, or at once where the kernel tells of it. A poll
//! that brings nothing new makes no pass.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dataplane::DataPlane;
use crate::dns::DnsState;
use crate::events::observer::Observer;
use crate::plan::{Planner, PlannerSettings};
use crate::source::Feed;
use crate::status::HttpState;
use crate::status::pass::Cause;
use crate::store::saver::Saver;
use crate::store::{KeptDrain, Persisted};
use crate::units::steady::steady_now;

mod answers;
pub mod figures;
pub mod metrics;
pub mod names;
mod pass;
mod publish;
mod question;

pub use pass::News;
use pass::Passes;
use publish::Publisher;
pub use publish::{Outputs, PublisherSettings};
pub use question::{PassRequest, Question};

/// Time within which several changes of the network make one pass.
const COALESCE: Duration = Duration::from_millis(50);

/// Time after a pass that a client asked for in which further requests are collected for one pass.
const REQUEST_SPACING: Duration = Duration::from_millis(200);

/// Longest such time, however long a pass takes: a client waits a few seconds at most.
const LONGEST_REQUEST_SPACING: Duration = Duration::from_secs(1);

/// First pause before operations that failed are tried again; doubles up to the audit interval.
const RETRY: Duration = Duration::from_secs(1);

/// Question whether the loop still runs, which is its answer.
#[derive(Debug)]
pub struct Ping {
    pub answer: oneshot::Sender<()>,
}

/// Settings of the loop.
#[derive(Clone, Debug)]
pub struct ReconcilerSettings {
    pub planner: PlannerSettings,
    pub publisher: PublisherSettings,
    /// Time between two comparisons when nothing else happens.
    pub audit: Duration,
}

/// Makes the kernel hold what the believed cluster needs.
pub struct Reconciler<D> {
    passes: Passes<D>,
    /// Clients that wait for the next pass.
    requests: Vec<PassRequest>,
    /// Time before which requests alone cause no pass.
    requests_due: Instant,
}

/// Everything that wakes the reconciler.
pub struct Inputs {
    pub feeds: watch::Receiver<Feed>,
    pub requests: mpsc::Receiver<PassRequest>,
    pub questions: mpsc::Receiver<Question>,
    pub pings: mpsc::Receiver<Ping>,
    /// Notified when the node's network has changed.
    pub network: Arc<Notify>,
    pub dns: watch::Receiver<DnsState>,
    pub http: watch::Receiver<HttpState>,
    /// Settings that replace those from the start; `None` until there are some.
    pub settings: watch::Receiver<Option<ReconcilerSettings>>,
}

impl<D: DataPlane> Reconciler<D> {
    /// Goes on with the addresses and the leaving servers that an earlier run left, which `saver` keeps from now
    /// on.
    pub fn new(
        dataplane: D,
        settings: ReconcilerSettings,
        mut saver: Saver,
        (persisted, drains): (Persisted, Vec<KeptDrain>),
        outputs: Outputs,
    ) -> Self {
        outputs.events.unused().into_iter().for_each(|error| saver.add_unused(error.to_owned()));
        let observer = Observer::new(outputs.events.clone(), &drains);
        let publisher = Publisher::new(settings.publisher, dataplane.choice(), outputs);
        let mut planner = Planner::new(settings.planner, persisted);
        planner.resume_drains(drains);
        let passes = Passes::new(dataplane, planner, saver, (publisher, observer), settings.audit);
        Self { passes, requests: Vec::new(), requests_due: Instant::now() }
    }

    /// Runs passes until `shutdown`; leaves the kernel as it is then.
    pub async fn run(mut self, mut inputs: Inputs, shutdown: CancellationToken) {
        let mut retry = RETRY;
        let mut cause = Cause::Start;
        // Time and cause of the pass that is due where nothing happens before.
        let mut next = (Instant::now(), Cause::Start);
        loop {
            if cause == Cause::Configuration
                && let Some(ReconcilerSettings { planner, publisher, audit }) =
                    inputs.settings.borrow_and_update().clone()
            {
                self.passes.configure(planner, publisher, audit);
            }
            // Everything that has happened by now is part of this pass.
            let news = self.passes.take_feed(inputs.feeds.borrow_and_update().clone());
            self.passes.publisher.set_dns(inputs.dns.borrow_and_update().clone());
            self.passes.publisher.set_http(inputs.http.borrow_and_update().clone());
            while let Ok(request) = inputs.requests.try_recv() {
                self.requests.push(request);
            }
            // Most polls confirm what is known, and cost as much as telling so.
            let is_news = matches!(cause, Cause::Source | Cause::Dns | Cause::Http);
            if is_news && news != News::Vips {
                self.passes.publish_news();
            } else {
                if is_news {
                    cause = Cause::Cluster;
                }
                self.passes.pass(cause, &mut inputs.questions).await;
                // Who asked for a comparison waits for one.
                if matches!(cause, Cause::Audit | Cause::Request | Cause::Start) {
                    self.answer();
                }
                next = self.next(&mut retry);
            }
            // Nothing is polled: each of these events makes a pass, and what several of them changed is one
            // pass.
            cause = loop {
                tokio::select! {
                    () = shutdown.cancelled() => return self.passes.finish(),
                    () = tokio::time::sleep_until(next.0) => {
                        // An audit begins with a look through the kernel in slices. After each one there is as much
                        // time for anything else, which no more than a slice delays.
                        let started = Instant::now();
                        let is_look = matches!(next.1, Cause::Audit | Cause::Request);
                        if !is_look || self.passes.look_on().await {
                            break next.1;
                        }
                        next.0 = Instant::now() + started.elapsed();
                    }
                    changed = inputs.feeds.changed() => match changed {
                        Ok(()) => break Cause::Source,
                        // The source has heard of the shutdown first.
                        Err(_) => return self.passes.finish(),
                    },
                    () = collect(&mut self.requests, &mut inputs.requests, self.requests_due),
                        if next.1 != Cause::Request =>
                    {
                        next = (Instant::now(), Cause::Request);
                    }
                    Some(ping) = inputs.pings.recv() => {
                        // The asking task may have gone.
                        let _ = ping.answer.send(());
                    }
                    Some(question) = inputs.questions.recv() => self.passes.answer(question).await,
                    Ok(()) = inputs.dns.changed() => break Cause::Dns,
                    Ok(()) = inputs.http.changed() => break Cause::Http,
                    // The next pass goes by the book: what is wrong is the plan.
                    is_wrong = self.passes.end_check() => if is_wrong {
                        break Cause::Cluster;
                    },
                    () = inputs.network.notified() => break Cause::Network,
                    Ok(()) = inputs.settings.changed() => break Cause::Configuration,
                }
            };
            // A container that starts changes links, addresses and routes one after the other.
            if cause == Cause::Network {
                match self.settle(&mut inputs, &shutdown).await {
                    Some(next) => cause = next,
                    None => return self.passes.finish(),
                }
            }
        }
    }

    /// Returns when the next pass is due if nothing happens before, and its cause. `retry` is the pause after
    /// the next failure.
    fn next(&self, retry: &mut Duration) -> (Instant, Cause) {
        let now = Instant::now();
        // What the kernel refused once it mostly refuses again: ever longer pauses keep the node free.
        if self.passes.publisher.has_errors() {
            let pause = *retry;
            *retry = (pause * 2).min(self.passes.audit);
            return (now + pause, Cause::Retry);
        }
        *retry = RETRY;
        // A leaving server or a vacant VIP may end before the audit is due.
        let until_due = self.until_due();
        let until_audit = self.passes.until_audit();
        match until_due < until_audit {
            true => (now + until_due, Cause::Due),
            false => (now + until_audit, Cause::Audit),
        }
    }

    /// Answers the requests that waited for a comparison.
    fn answer(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        // Clients that ask all the time get at most half of the time that passes take.
        let spacing = REQUEST_SPACING.max(self.passes.took()).min(LONGEST_REQUEST_SPACING);
        self.requests_due = Instant::now() + spacing;
        for request in self.requests.drain(..) {
            // The asking client may have gone.
            let _ = request.done.send(self.passes.publisher.status().at);
        }
    }

    /// Waits before a pass that a change of the network causes: a node whose network changes all the time
    /// should not be busy with comparing. Returns the cause of the pass, or `None` at shutdown.
    ///
    /// Documents, requests and the shutdown don't wait: a first pass takes seconds where it loads modules.
    /// Nor does DNS, which answers the containers of a new network only when it knows that network.
    async fn settle(&mut self, inputs: &mut Inputs, shutdown: &CancellationToken) -> Option<Cause> {
        // Passes take at most a fifth of the time; the audit's interval bounds the wait.
        let pause = COALESCE.max(4 * self.passes.took()).min(self.passes.audit);
        let settled = tokio::time::sleep(pause);
        tokio::pin!(settled);
        loop {
            let started = Instant::now();
            self.passes.refresh_node().await;
            // At most a tenth of the time goes into reading.
            let spacing = COALESCE.max(9 * started.elapsed());
            let changed_again = async {
                inputs.network.notified().await;
                tokio::time::sleep(spacing).await;
            };
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = &mut settled => return Some(Cause::Network),
                // A pass that goes by the book would not see the changed network.
                _ = inputs.feeds.changed() => return Some(Cause::Network),
                () = collect(&mut self.requests, &mut inputs.requests, self.requests_due) => {
                    return Some(Cause::Request);
                }
                Some(ping) = inputs.pings.recv() => {
                    let _ = ping.answer.send(());
                }
                Some(question) = inputs.questions.recv() => self.passes.answer(question).await,
                () = changed_again => {}
            }
        }
    }

    fn until_due(&self) -> Duration {
        let until = |due: Timestamp| Duration::try_from(due.duration_since(steady_now()));
        self.passes.due().map_or(Duration::MAX, |due| until(due).unwrap_or_default())
    }

    /// Takes in what the sources say.
    pub fn take_feed(&mut self, feed: Feed) -> News {
        self.passes.take_feed(feed)
    }

    /// Makes one pass, and another one if its plan turns out to be wrong.
    pub async fn pass(&mut self, cause: Cause) {
        // Nothing can ask.
        let (_, mut questions) = mpsc::channel(1);
        self.passes.pass(cause, &mut questions).await;
        if self.passes.is_checking() && self.passes.end_check().await {
            self.passes.pass(Cause::Cluster, &mut questions).await;
        }
    }
}

/// Takes requests in, and returns when there are some and `due` has come. Nothing is lost if the caller stops
/// waiting.
async fn collect(requests: &mut Vec<PassRequest>, receiver: &mut mpsc::Receiver<PassRequest>, due: Instant) {
    while requests.is_empty() || Instant::now() < due {
        tokio::select! {
            request = receiver.recv() => match request {
                Some(request) => requests.push(request),
                // Nothing can ask any more.
                None => return std::future::pending().await,
            },
            () = tokio::time::sleep_until(due), if !requests.is_empty() => {}
        }
    }
}

#[cfg(test)]
mod tests;
