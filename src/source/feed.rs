//! What consumers see of the sources: the believed cluster, and how the source is doing.
//!
//! [`Believer`] runs between the sources and everything that reads them. It applies
//! [`Belief`] once, so that the planner, DNS and the file on disk go
//! by the same snapshot, and `l4lbd accept-loss` counts for all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::report::{Failure, Report};
use crate::cluster::Snapshot;
use crate::cluster::belief::{Accepted, Belief, Displaced, Holds, Patience};
use crate::marathon::MarathonMemory;
use crate::units::steady::steady_now;

/// The believed cluster and the state of its source.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    /// `None` before the first document where no earlier run left one. Replaced as a whole: consumers
    /// compare pointers to see whether it is new.
    pub accepted: Option<Arc<Accepted>>,
    /// Time at which the document of it was read; `None` for what an earlier run left.
    pub accepted_at: Option<Instant>,
    /// URL or path of the last good answer.
    pub place: String,
    /// Time at which the source last confirmed its document.
    pub good_at: Option<Timestamp>,
    /// Interval between two questions, with its reason, for people.
    pub pace: String,
    /// Addresses of the servers that were asked, with their names.
    pub servers: Arc<BTreeMap<IpAddr, String>>,
    /// Set while a request has had no answer for so long that the cluster may be outdated, in words.
    pub overdue: Option<String>,
    pub failure: Option<Failure>,
    /// Memory of Marathon's answers, for a later run.
    pub marathon: Option<Arc<MarathonMemory>>,
}

/// Request to believe the last document as it is; answered when the feed has it.
#[derive(Debug)]
pub struct AcceptLoss {
    pub done: oneshot::Sender<()>,
}

/// Turns reports of sources into the feed.
#[derive(Debug)]
pub struct Believer {
    belief: Belief,
    patience: Patience,
    feed: Feed,
    /// Last document as the source gave it, and its number.
    document: Option<Arc<Snapshot>>,
    sequence: u64,
}

impl Believer {
    /// Goes on from `cluster`, which an earlier run believed, with its holds.
    pub fn new(patience: Patience, cluster: Option<Snapshot>, holds: Holds) -> Self {
        let belief = Belief::resume(cluster).holding(holds);
        let feed = Feed { accepted: belief.accepted().map(Arc::new), ..Feed::default() };
        Self { belief, patience, feed, document: None, sequence: 0 }
    }

    /// Returns the feed as it is now.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Takes a report in. A document is judged once, and again at each confirmation while something of
    /// an earlier one is held, because holds end with time.
    pub fn take(&mut self, report: Report, now: Timestamp) {
        // Before it is judged, which takes a part of the time until the kernel has it.
        let read_at = Instant::now();
        let is_new = report.sequence != self.sequence;
        let is_confirmed = report.good_at != self.feed.good_at;
        let is_holding = self.feed.accepted.as_ref().is_some_and(|accepted| accepted.is_holding);
        if let Some(document) = report.snapshot
            && (is_new || (is_confirmed && is_holding))
        {
            let accepted = self.belief.take(Arc::clone(&document), now, self.patience);
            for Displaced { task, address, holder } in &accepted.displaced {
                tracing::warn!(
                    task = &*task.task,
                    framework = &*task.framework,
                    %address,
                    by = holder.task,
                    agent = holder.agent,
                    "a task that was kept is given up, because a running task has its address and port now"
                );
            }
            self.feed.accepted = Some(Arc::new(accepted));
            self.feed.accepted_at = Some(read_at);
            self.document = Some(document);
        }
        self.sequence = report.sequence;
        self.feed.place = report.place;
        self.feed.good_at = report.good_at;
        self.feed.pace = report.pace;
        self.feed.servers = report.servers;
        self.feed.overdue = report.overdue;
        self.feed.failure = report.failure;
        self.feed.marathon = report.marathon;
    }

    /// Believes the last document as it is; does nothing before the first one.
    pub fn accept_loss(&mut self) {
        if let Some(document) = &self.document {
            tracing::warn!("tasks that were held are given up on an operator's request (accept-loss)");
            self.feed.accepted = Some(Arc::new(self.belief.accept(Arc::clone(document))));
        }
    }

    /// Publishes the feed after each report and request, until `shutdown`.
    pub async fn run(
        mut self,
        (mut reports, mut requests, mut patiences): (
            watch::Receiver<Report>,
            mpsc::Receiver<AcceptLoss>,
            watch::Receiver<Patience>,
        ),
        feeds: watch::Sender<Feed>,
        shutdown: CancellationToken,
    ) {
        loop {
            let mut answer = None;
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = reports.changed() => if changed.is_err() {
                    // The source ended with the shutdown; the feed stays as it is until then.
                    return shutdown.cancelled().await;
                },
                Some(request) = requests.recv() => answer = Some(request.done),
                // Counts from the next report on, which judges what is held anew.
                Ok(()) = patiences.changed() => {
                    self.patience = *patiences.borrow_and_update();
                    continue;
                }
            }
            let report = reports.borrow_and_update().clone();
            self.take(report, steady_now());
            if let Some(done) = answer {
                self.accept_loss();
                feeds.send_replace(self.feed.clone());
                // The asking client may have gone; the loss is accepted all the same.
                let _ = done.send(());
            } else {
                feeds.send_replace(self.feed.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos;

    fn report(sequence: u64, good_at: i64, tasks: &str) -> Report {
        let text = format!(
            r#"{{"id":"M","elected_time":1.0,"slaves":[{{"id":"S","pid":"slave(1)@10.0.0.2:5051"}}],
            "frameworks":[{{"id":"F","name":"marathon","tasks":[{tasks}]}}]}}"#
        );
        Report {
            snapshot: Some(Arc::new(mesos::parse(text.as_bytes(), None).unwrap())),
            sequence,
            good_at: Some(Timestamp::from_second(good_at).unwrap()),
            ..Report::default()
        }
    }

    const WEB: &str = r#"{"id":"t","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","discovery":{"ports":
        {"ports":[{"number":80,"protocol":"tcp","labels":{"labels":[{"key":"VIP_0","value":"/web:80"}]}}]}}}"#;

    fn believer() -> Believer {
        let patience = Patience {
            failover: std::time::Duration::from_secs(900),
            mass_loss: 2,
            spacing: std::time::Duration::ZERO,
        };
        Believer::new(patience, None, Holds::default())
    }

    fn tasks(believer: &Believer) -> usize {
        believer.feed().accepted.as_ref().unwrap().snapshot.tasks.len()
    }

    #[test]
    fn a_confirmation_counts_only_while_something_is_held() {
        let now = Timestamp::UNIX_EPOCH;
        let mut believer = believer();
        believer.take(report(1, 1, WEB), now);
        let first = believer.feed().accepted.clone().unwrap();
        believer.take(report(1, 2, WEB), now);
        assert!(Arc::ptr_eq(&first, believer.feed().accepted.as_ref().unwrap()), "nothing new");
        assert_eq!(believer.feed().good_at.unwrap().as_second(), 2);
        // An empty document is held back twice, and the source need not send it again for that.
        believer.take(report(2, 3, ""), now);
        assert_eq!(tasks(&believer), 1);
        believer.take(report(2, 4, ""), now);
        assert_eq!(tasks(&believer), 1);
        believer.take(report(2, 5, ""), now);
        assert_eq!(tasks(&believer), 0);
    }

    #[tokio::test]
    async fn an_accepted_loss_is_in_the_feed_before_the_answer() {
        let (reports, report_receiver) = watch::channel(Report::default());
        let (requests, request_receiver) = mpsc::channel(1);
        let (_patiences, patience_receiver) = watch::channel(believer().patience);
        let believer = believer();
        let (feeds, mut feed) = watch::channel(believer.feed().clone());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(believer.run(
            (report_receiver, request_receiver, patience_receiver),
            feeds,
            shutdown.clone(),
        ));
        reports.send_replace(report(1, 1, WEB));
        feed.changed().await.unwrap();
        reports.send_replace(report(2, 2, ""));
        feed.wait_for(|feed| feed.good_at.is_some_and(|at| at.as_second() == 2)).await.unwrap();
        assert_eq!(feed.borrow().accepted.as_ref().unwrap().snapshot.tasks.len(), 1);
        let (done, answered) = oneshot::channel();
        requests.send(AcceptLoss { done }).await.unwrap();
        answered.await.unwrap();
        assert_eq!(feed.borrow().accepted.as_ref().unwrap().snapshot.tasks.len(), 0);
        shutdown.cancel();
        running.await.unwrap();
    }
}
