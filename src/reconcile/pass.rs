//! One pass: read the kernel, plan, compare, change, publish.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::publish::{Publisher, PublisherSettings, StatusInputs};
use super::question::Question;
use crate::dataplane::connects::Seen;
use crate::dataplane::diff::{diff, diff_services, most_used_first};
use crate::dataplane::{Actual, Connections, DataPlane, Depth, Error, Link, Op, OpError, ServerKey};
use crate::dns::zones::vips::NamedService;
use crate::events::observer::Observer;
use crate::events::table::PassView;
use crate::marathon::MarathonMemory;
use crate::plan::{Plan, Planner, PlannerSettings, Reach};
use crate::source::Feed;
use crate::status::document::Figures;
use crate::status::pass::{Cause, LongChange, PassReport, Scope};
use crate::store::Deadlines;
use crate::store::saver::Saver;
use crate::units::steady::steady_now;

/// Largest number of operations that are sent before the status is published again: after a flush the
/// kernel needs long for each, and an operator should see progress.
const CHUNK: usize = 500;

/// A chunk that takes longer is followed by a pause of the same length: the kernel lets no other
/// program change IPVS meanwhile, and gets faster when it has had time to forget deleted servers.
const BRISK: Duration = Duration::from_millis(50);

/// Makes passes, and remembers what the next one needs of the last.
pub(super) struct Passes<D> {
    pub(super) dataplane: D,
    pub(super) planner: Planner,
    saver: Saver,
    pub(super) publisher: Publisher,
    observer: Observer,
    /// Time between two readings when nothing else happens.
    pub(super) audit: Duration,
    feed: Feed,
    /// Time at which the plan changes although nothing happens.
    due: Option<Timestamp>,
    /// The kernel as the last pass left it; `None` where that is in doubt. Passes for new facts go by it,
    /// because reading 10,000 services takes a thousand times as long as changing one.
    pub(super) book: Option<Actual>,
    /// Report of the last pass that came to an end.
    pub(super) last: PassReport,
    pub(super) progress: Progress,
    /// Comparison of the plan with the whole one, on a thread of its own.
    check: Option<JoinHandle<bool>>,
}

/// Origin of what a pass knows of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    Reading,
    /// All of the plan before, see [`Passes::book`].
    Book,
}

/// News of the cluster that a feed brings, beside news of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The believed cluster is the one from before.
    Nothing,
    /// Another cluster, of which the same VIPs follow.
    SameVips,
    /// A cluster of which other VIPs may follow.
    Vips,
}

/// Findings of earlier passes.
pub(super) struct Progress {
    /// Revision of the plan with which the last pass left the kernel without an error.
    settled: Option<u64>,
    /// Time of the last reading of the kernel.
    pub(super) read_at: Option<Timestamp>,
    /// Connections of every server in the last pass.
    pub(super) connections: BTreeMap<ServerKey, Connections>,
    /// Duration of the last pass.
    took: Duration,
    /// Time from which the kernel is to be read again.
    audit_due: Instant,
    /// Shuffles the order in which servers are added, differently on each node.
    seed: u64,
}

impl Progress {
    fn new(hostname: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        hostname.hash(&mut hasher);
        Self {
            settled: None,
            read_at: None,
            connections: BTreeMap::new(),
            took: Duration::ZERO,
            audit_due: Instant::now(),
            seed: hasher.finish(),
        }
    }
}

impl<D: DataPlane> Passes<D> {
    pub(super) fn new(
        dataplane: D,
        planner: Planner,
        saver: Saver,
        (publisher, observer): (Publisher, Observer),
        audit: Duration,
    ) -> Self {
        let progress = Progress::new(publisher.hostname());
        Self {
            dataplane,
            planner,
            saver,
            publisher,
            observer,
            audit,
            feed: Feed::default(),
            due: None,
            book: None,
            last: PassReport::default(),
            progress,
            check: None,
        }
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Returns the time until the next audit.
    pub(super) fn until_audit(&self) -> Duration {
        self.progress.audit_due.saturating_duration_since(Instant::now())
    }

    pub(super) fn took(&self) -> Duration {
        self.progress.took
    }

    /// Goes by other settings from now on: all labels are judged anew.
    pub(super) fn configure(
        &mut self,
        planner: PlannerSettings,
        publisher: PublisherSettings,
        audit: Duration,
    ) {
        self.audit = audit;
        self.publisher.configure(publisher);
        self.planner.configure(planner);
        if let Some(accepted) = &self.feed.accepted {
            self.planner.learn(accepted);
        }
    }

    /// Takes in what the sources say.
    pub(super) fn take_feed(&mut self, feed: Feed) -> News {
        let mut news = News::Nothing;
        let known = self.feed.accepted.as_ref();
        // A server's name may have led to an address that a literal VIP has.
        let has_moved = self.planner.reserve(&feed.servers, Timestamp::now());
        // Feeds are compared by pointer: one that brings nothing costs nothing.
        let is_new =
            |accepted: &&Arc<_>| has_moved || known.is_none_or(|known| !Arc::ptr_eq(known, accepted));
        if let Some(accepted) = feed.accepted.as_ref().filter(is_new) {
            // Comparing costs a fraction of making the table and the plan anew.
            let is_same =
                !has_moved && known.is_some_and(|known| self.planner.gives_same_table(known, accepted));
            // Whatever VIPs follow of it: the next start goes on from the cluster and not from the table.
            self.saver.note_cluster(&accepted.snapshot);
            if is_same {
                self.planner.learn_same(accepted);
                news = News::SameVips;
            } else {
                self.planner.learn(accepted);
                news = News::Vips;
            }
        }
        if let Some(memory) = &feed.marathon {
            self.saver.note_marathon(memory);
        }
        self.publisher.note_news(feed.accepted_at);
        self.observer.note_feed(&self.feed, &feed);
        self.feed = feed;
        news
    }

    /// Returns the memory of Marathon's answers.
    pub(super) fn marathon(&self) -> Option<&MarathonMemory> {
        self.feed.marathon.as_deref()
    }

    /// Writes what a start after a kill at this moment should know.
    #[cfg(test)]
    pub(super) fn flush(&mut self) {
        self.saver.flush(&mut self.planner.persisted);
    }

    /// Writes what the next start should know.
    pub(super) fn finish(&mut self) {
        self.saver.finish(&mut self.planner.persisted);
        self.observer.finish();
    }

    /// Publishes the status after a pass, with what of the plan and the kernel is known.
    pub(super) fn publish_status(
        &mut self,
        report: &PassReport,
        planned: Option<(&Plan, &Actual)>,
        details: bool,
    ) {
        self.publisher.publish_status(StatusInputs {
            report,
            planned,
            planner: &self.planner,
            feed: &self.feed,
            store_error: self.saver.error().or_else(|| self.observer.error()).as_deref(),
            unused_files: self.saver.unused(),
            details,
        });
        // Before the first plan there is no list, which is not an empty one.
        if self.publisher.is_detailed() {
            let status = self.publisher.status();
            self.observer.note_skipped(&status.skipped, status.skipped_total);
        }
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

    /// Publishes what has changed of the source and of DNS without a pass: neither changes what the kernel
    /// should hold.
    pub(super) fn publish_news(&mut self) {
        // Servers that are asked count among the addresses, also where no pass follows.
        self.saver.save(&mut self.planner.persisted);
        let report = std::mem::take(&mut self.last);
        self.publish_status(&report, None, false);
        self.last = report;
    }

    /// Begins to compare a plan that followed changes with the one that is made as a whole, which takes so long
    /// that changes must not wait for it.
    fn begin_check(&mut self, actual: &Actual, now: Timestamp) {
        // One at a time: the next audit compares what follows until then.
        if self.check.is_none()
            && let Some(check) = self.planner.check(actual, now)
        {
            self.check = Some(tokio::task::spawn_blocking(move || check.is_right()));
        }
    }

    /// Waits for the end of a comparison of plans, and for ever without one. Returns true if a pass is to mend what
    /// it has found.
    pub(super) async fn end_check(&mut self) -> bool {
        let Some(check) = &mut self.check else { return std::future::pending().await };
        let ended = check.await;
        self.check = None;
        match ended {
            Ok(true) => false,
            Ok(false) => {
                tracing::error!(
                    "a plan that followed changes of the cluster differs from the whole one, which counts from now on; \
                     this is a defect of l4lbd, please report it with the log before this line"
                );
                self.publisher.count_defect();
                self.planner.begin_anew();
                true
            }
            // Its panic is in the log, and the next audit begins another one.
            Err(error) => {
                tracing::error!(%error, "cannot compare the plan with the whole one");
                false
            }
        }
    }

    /// Returns true while plans are compared.
    pub(super) fn is_checking(&self) -> bool {
        self.check.is_some()
    }

    /// Returns what the kernel holds: by the book where only the cluster or the time brought this pass, else
    /// by a reading.
    async fn look(&mut self, cause: Cause) -> Result<(Actual, Knowledge), Error> {
        let is_reading = !matches!(cause, Cause::Cluster | Cause::Due);
        // Taken, so that a pass which fails leaves no book behind that may be wrong.
        if let Some(mut book) = self.book.take() {
            if !is_reading {
                self.count_leaving(&mut book).await?;
                return Ok((book, Knowledge::Book));
            }
            // A repair begins where the connections were.
            self.progress.connections = book.connections;
        }
        // What other causes read is the part of the kernel that tells of its changes itself, and our own changes.
        if matches!(cause, Cause::Audit | Cause::Request) {
            while !self.dataplane.look_on().await? {}
        }
        if matches!(cause, Cause::Audit | Cause::Request | Cause::Start) {
            self.progress.audit_due = Instant::now() + self.audit;
        }
        let mut actual = self.dataplane.read(Depth::Audit).await?;
        self.progress.read_at = Some(Timestamp::now());
        // What was looked through in slices may have been counted long ago.
        self.count_leaving(&mut actual).await?;
        Ok((actual, Knowledge::Reading))
    }

    /// Counts the connections of the servers that are leaving: they end without an event, and the next plan waits for
    /// that.
    async fn count_leaving(&mut self, actual: &mut Actual) -> Result<(), Error> {
        let leaving = self.planner.leaving();
        let counted = self.dataplane.count(&leaving).await?;
        // A server that the kernel does not hold any more is not among the counted, and has no connections.
        for server in leaving {
            actual.connections.insert(server, counted.connections.get(&server).copied().unwrap_or_default());
        }
        actual.note_traffic(counted.traffic);
        Ok(())
    }

    /// Counts the connections of the servers that have begun to leave. The last reading may be older than they are, and
    /// the history tells of them.
    async fn count_begun(&mut self, were_leaving: &BTreeSet<ServerKey>, actual: &mut Actual) {
        let leaving = self.planner.leaving();
        let begun: BTreeSet<ServerKey> = leaving.difference(were_leaving).copied().collect();
        match self.dataplane.count(&begun).await {
            Ok(counted) => actual.note_counts(counted),
            Err(error) => tracing::debug!(%error, "cannot count the connections of servers that leave"),
        }
    }

    /// Goes on with the look through the kernel that an audit begins with, and returns true when the audit is due.
    pub(super) async fn look_on(&mut self) -> bool {
        // An error is the audit's to tell.
        self.dataplane.look_on().await.unwrap_or(true)
    }

    /// Compares the kernel with what it should hold, changes it, and publishes names and status.
    /// While it takes long, `questions` are answered between operations.
    pub(super) async fn pass(&mut self, cause: Cause, questions: &mut mpsc::Receiver<Question>) {
        let started = Instant::now();
        // Filled in step by step; whatever ends the pass early still publishes what is known.
        let mut report = PassReport { cause, ..PassReport::default() };
        let (mut actual, knowledge) = match self.look(cause).await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::error!(%error, "cannot read the kernel, nothing is changed until a reading succeeds");
                // Differences that the next reading finds are no repair: what happened meanwhile is unknown.
                self.progress.settled = None;
                let error = error.to_string();
                self.observer.note_unread(&error);
                report.error = Some(error);
                report.timings.total = started.elapsed();
                self.publisher.record(&report, false);
                self.publish_status(&report, None, false);
                self.last = report;
                return;
            }
        };
        report.timings.read = started.elapsed();
        // DNS waits for the node's networks, and a plan that is carried out can take seconds.
        self.publisher.publish_node(&actual.node, None);
        let were_leaving = self.planner.leaving();
        let planned = match knowledge {
            Knowledge::Book => self.planner.plan_on(&actual, steady_now()),
            Knowledge::Reading => {
                let now = steady_now();
                let plan = self.planner.plan(&actual, now);
                if cause == Cause::Audit {
                    self.begin_check(&actual, now);
                }
                plan.map(|plan| (plan, Reach::Everything))
            }
        };
        let Some((plan, reach)) = planned else {
            return self.prepare(report, &actual, questions).await;
        };
        report.timings.plan = started.elapsed() - report.timings.read;
        // Known now, so that the loop wakes in time even if this pass fails below.
        self.due = plan.due;
        self.publisher.publish_node(&actual.node, Some(plan.sources));
        let holds = self.feed.accepted.as_ref().map(|accepted| accepted.holds).unwrap_or_default();
        let drains = self.planner.kept_drains();
        self.saver.note_deadlines(Deadlines { holds, drains: drains.clone() });
        // Addresses are on disk before the kernel has them.
        self.saver.save(&mut self.planner.persisted);

        let seed = self.progress.seed;
        let mut ops = match &reach {
            Reach::Everything => diff(&actual.state, &plan.state, seed),
            Reach::Services { services, .. } => diff_services(&actual.state, &plan.state, services, seed),
        };
        // The last pass left this very plan in the kernel, so every difference is another program's work.
        report.is_repair = self.progress.settled == Some(plan.revision) && !ops.is_empty();
        if report.is_repair {
            // Clients wait for the services with most connections.
            most_used_first(&mut ops, &self.progress.connections);
        }
        let applying = Instant::now();
        report.failed = self.apply(&ops, report.is_repair, &actual, questions).await;
        let is_complete = report.failed.is_empty();
        // A plane may only replace what must not be seen half done when all operations have succeeded.
        report.error = self.dataplane.finish_pass(is_complete).await.err();
        report.unreached = self.dataplane.unreached();
        report.connects = actual.seen.as_ref().map(Seen::total);
        report.ejected = actual.seen.as_ref().map_or(0, |seen| seen.ejected.len());
        // By the system's clock and not the steady one: people read it.
        report.at = Timestamp::now();
        report.scope = Scope::of(&ops);
        report.operations = ops;
        report.timings.apply = applying.elapsed();
        report.timings.total = started.elapsed();

        // Only where all of the plan was in the kernel can a later difference be another program's work.
        self.progress.settled = is_complete.then_some(plan.revision);
        self.publisher.record(&report, true);
        self.count_begun(&were_leaving, &mut actual).await;
        let clocks = (steady_now(), Timestamp::now());
        let view = PassView { report: &report, plan: &plan, actual: &actual, clocks };
        // Before names are published: those of services that have gone are known until then.
        self.observer.note_pass(view, drains, &|service| self.publisher.name_of(service));
        // A name appears only after the kernel has its service.
        let are_names_outdated = match reach {
            Reach::Everything => self.publisher.is_outdated(&plan, is_complete),
            Reach::Services { names, .. } => names,
        };
        // Under the same plan the kernel may have refused other services than the last time.
        if are_names_outdated || !is_complete {
            self.publisher.publish_names(&plan.desired, &report.failed);
        }
        // Before the status, which lists them.
        self.publisher.set_foreign(&actual);
        self.publish_status(&report, Some((&plan, &actual)), knowledge == Knowledge::Reading);
        self.publisher.set_shown(&plan, is_complete);
        // What the kernel refused, or took against expectation, says that the book is wrong.
        let is_sound = report.error_count() == 0 && report.operations.iter().all(|op| actual.follow(op));
        if is_sound {
            // Mostly all of it: kept once.
            actual.state.services = actual.state.services.sharing(&plan.state.services);
            self.book = Some(actual);
        } else {
            self.progress.connections = actual.connections;
        }
        self.progress.took = started.elapsed();
        self.last = report;
    }

    /// Makes a pass before the first document, when it is not known which VIPs there should be: what
    /// the kernel holds stays, and names that had their address before are served.
    async fn prepare(
        &mut self,
        mut report: PassReport,
        actual: &Actual,
        questions: &mut mpsc::Receiver<Question>,
    ) {
        // The DNS server answers at these addresses, and does so before the first document.
        let listeners = &self.planner.settings.desired.listeners;
        let mut state = actual.state.clone();
        state.link = Link::Up;
        state.addresses.extend(listeners.iter().filter(|address| !actual.node.addresses.contains(address)));
        // Against the kernel's own state: nothing is removed, so connections survive a slow master.
        let ops = diff(&actual.state, &state, self.progress.seed);
        let applying = Instant::now();
        report.failed = self.apply(&ops, false, actual, questions).await;
        report.scope = Scope::of(&ops);
        report.operations = ops;
        report.timings.apply = applying.elapsed();
        report.timings.total = report.timings.read + report.timings.apply;
        self.publisher.record(&report, false);

        // Only names whose service is in the kernel: any other address would lead nowhere.
        let programmed: BTreeSet<IpAddr> = actual.state.services.keys().map(|key| key.address).collect();
        let persisted = &self.planner.persisted;
        let names = persisted.leases4.iter().chain(persisted.leases6.iter());
        let served = names.filter(|(_, address)| programmed.contains(address));
        let records = served
            .map(|(name, address)| NamedService { name: name.to_owned(), address, port: None })
            .collect();
        self.publisher.publish_addresses(records);
        self.publisher.set_foreign(actual);
        self.publish_status(&report, None, false);
        self.last = report;
    }

    /// Carries out operations in chunks; a repair leaves the kernel room for other programs.
    /// Meanwhile `questions` are answered, with the connections of `actual`.
    async fn apply(
        &mut self,
        ops: &[Op],
        is_repair: bool,
        actual: &Actual,
        questions: &mut mpsc::Receiver<Question>,
    ) -> Vec<OpError> {
        let mut errors = Vec::new();
        let chunks = ops.chunks(CHUNK);
        let are_several = chunks.len() > 1;
        let mut done = 0;
        let change = LongChange { operations: ops.len(), since: Timestamp::now(), is_repair };
        if are_several {
            self.publisher.publish_progress(ops.len(), change);
        }
        for chunk in chunks {
            let started = Instant::now();
            errors.extend(self.dataplane.apply(chunk).await);
            done += chunk.len();
            if are_several {
                tracing::debug!(done, of = ops.len(), "programming the kernel");
                self.publisher.publish_progress(ops.len() - done, change);
                while let Ok(question) = questions.try_recv() {
                    self.answer_with(question, Figures::of(actual));
                }
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
