//! Several sources as one: masters, the node's own agent, and Marathon.
//!
//! Each is asked by itself, in its own time. Their answers are put together anew whenever one of them
//! changes:
//!
//! - The agent's view of its own tasks wins. While it does not answer, the masters' view is used.
//! - Marathon's verdicts are added to the tasks of its framework.
//! - No snapshot is published until the masters, if there are some, have given a state, and each other
//!   source has answered or failed: half of a cluster would look like the loss of the other half.
//!
//! For example, with a task that the masters call running and its agent calls killing, the task is
//! killing; when the agent stops answering, it is running again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::configured::ConfiguredSources;
use super::driver::{Backoff, run};
use super::marathon::Earlier;
use super::metrics::SourceMetrics;
use super::{Error, Failure, Report, settings};
use crate::cluster::{Skipped, Snapshot};
use crate::marathon::{MarathonMemory, MarathonView};
use crate::units::steady::steady_now;

/// The configured sources, as one.
pub struct CombinedSource {
    sources: ConfiguredSources,
    /// Memory of an earlier run, which counts until Marathon answers.
    memory: Option<Arc<MarathonMemory>>,
    backoff: Backoff,
    marathon_backoff: Backoff,
    metrics: Arc<SourceMetrics>,
}

/// Last report of each source; `None` for those that are not configured.
#[derive(Clone, Debug, Default)]
struct LatestReports {
    cluster: Option<Report>,
    agent: Option<Report>,
    marathon: Option<Report<MarathonView>>,
}

impl CombinedSource {
    /// Opens the configured sources, which go on from what an earlier run knew. Needs an async runtime.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub fn new(
        source: &settings::Source,
        marathon: &settings::Marathon,
        earlier: Earlier,
    ) -> Result<Self, Error> {
        let memory = earlier.memory.clone().map(Arc::new);
        let sources = ConfiguredSources::open(source, marathon, earlier)?;
        let backoff = Backoff { interval: source.interval.0, max: source.max_backoff.0 };
        let marathon_backoff = Backoff { interval: marathon.interval.0, ..backoff };
        let metrics = Arc::<SourceMetrics>::default();
        metrics.set_mode(source.mode);
        Ok(Self { sources, memory, backoff, marathon_backoff, metrics })
    }

    /// Goes on with the metrics of the sources before, whose mode may have been another one.
    pub fn counting(mut self, metrics: Arc<SourceMetrics>) -> Self {
        // Counters go on, so that a reload looks like no restart to those who watch.
        metrics.set_mode(self.metrics.mode());
        let ConfiguredSources { cluster, agent, marathon } = &self.sources;
        let present = [cluster.is_some(), agent.is_some(), marathon.is_some()];
        let meters = [&metrics.cluster, &metrics.agent, &metrics.marathon];
        for (meter, _) in meters.into_iter().zip(present).filter(|(_, is_present)| !is_present) {
            meter.end();
        }
        self.metrics = metrics;
        self
    }

    /// Returns the metrics of all sources, which go on being counted.
    pub fn metrics(&self) -> &Arc<SourceMetrics> {
        &self.metrics
    }

    /// Asks all sources until `shutdown` and publishes their combined report.
    pub async fn run(self, reports: watch::Sender<Report>, shutdown: CancellationToken) {
        let Self { sources, memory, backoff, marathon_backoff, metrics } = self;
        let ConfiguredSources { cluster, agent, marathon } = sources;
        let cluster = match (cluster, &agent, &marathon) {
            // The usual case needs no copy of the snapshot.
            (Some(cluster), None, None) => {
                let cluster = (cluster, Arc::clone(&metrics.cluster));
                return run(cluster, backoff, reports, shutdown).await;
            }
            (cluster, _, _) => cluster,
        };
        // One loop for each source: a slow one must not hold up the rest.
        let mut tasks = JoinSet::new();
        let (cluster_sender, mut clusters) = watch::channel(Report::default());
        let (agent_sender, mut agents) = watch::channel(Report::default());
        let remembered = Report { marathon: memory, ..Report::default() };
        let (marathon_sender, mut marathons) = watch::channel(remembered);
        let present = (cluster.is_some(), agent.is_some(), marathon.is_some());
        if let Some(cluster) = cluster {
            let cluster = (cluster, Arc::clone(&metrics.cluster));
            tasks.spawn(run(cluster, backoff, cluster_sender, shutdown.clone()));
        }
        if let Some(agent) = agent {
            let agent = (agent, Arc::clone(&metrics.agent));
            tasks.spawn(run(agent, backoff, agent_sender, shutdown.clone()));
        }
        if let Some(marathon) = marathon {
            let marathon = (marathon, Arc::clone(&metrics.marathon));
            tasks.spawn(run(marathon, marathon_backoff, marathon_sender, shutdown.clone()));
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Ok(()) = clusters.changed(), if present.0 => {}
                Ok(()) = agents.changed(), if present.1 => {}
                Ok(()) = marathons.changed(), if present.2 => {}
                else => break,
            }
            let latest = LatestReports {
                cluster: present.0.then(|| clusters.borrow_and_update().clone()),
                agent: present.1.then(|| agents.borrow_and_update().clone()),
                marathon: present.2.then(|| marathons.borrow_and_update().clone()),
            };
            reports.send_modify(|report| latest.combine(report));
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Asks until there is a state, or until so many attempts have failed.
    pub async fn first(self, attempts: u32) -> Report {
        let (sender, mut reports) = watch::channel(Report::default());
        let asking = CancellationToken::new();
        let asked = tokio::spawn(self.run(sender, asking.clone()));
        let enough = |report: &Report| {
            report.snapshot.is_some()
                || report.failure.as_ref().is_some_and(|failure| failure.attempts >= attempts)
        };
        let report = reports.wait_for(enough).await.map(|report| report.clone()).unwrap_or_default();
        asking.cancel();
        let _ = asked.await;
        report
    }
}

/// Returns true if a source has given a snapshot or failed, or is not configured.
fn answered<T>(report: Option<&Report<T>>) -> bool {
    report.is_none_or(|report| report.snapshot.is_some() || report.failure.is_some())
}

impl LatestReports {
    /// Makes one report of them, based on the last one.
    fn combine(self, report: &mut Report) {
        let mut health = Health::default();
        for part in [&self.cluster, &self.agent].into_iter().flatten() {
            health.add(part);
        }
        if let Some(part) = &self.marathon {
            health.add(part);
        }
        report.marathon = self.marathon.as_ref().and_then(|part| part.marathon.clone());
        report.failure = health.failure;
        report.place = health.origins.join(" and ");
        report.pace = health.schedules.join("; ");
        if *report.servers != health.servers {
            report.servers = Arc::new(health.servers);
        }
        report.overdue = (!health.overdue.is_empty()).then(|| health.overdue.join("; "));
        // Health is published at once, a snapshot only when it is whole.
        let known = self.cluster.as_ref().is_none_or(|cluster| cluster.snapshot.is_some());
        if !known || !answered(self.agent.as_ref()) || !answered(self.marathon.as_ref()) {
            return;
        }
        let Some(snapshot) = self.snapshot(report.snapshot.as_deref()) else { return };
        report.good_at = health.good_at;
        // Most answers say what the last ones said, and readers take each sequence for a change.
        if report.snapshot.as_deref() != Some(&snapshot) {
            report.snapshot = Some(Arc::new(snapshot));
            report.sequence += 1;
        }
    }

    /// Returns the snapshot that all agree on; `before` is the last one.
    fn snapshot(&self, before: Option<&Snapshot>) -> Option<Snapshot> {
        let cluster = self.cluster.as_ref().and_then(|report| report.snapshot.as_deref());
        let view = self.marathon.as_ref().and_then(|report| report.snapshot.as_deref());
        let agent = self.agent.as_ref();
        let own = agent.and_then(|report| report.snapshot.as_deref());
        // Without masters even the last answer of the agent is better than none.
        let own = own.filter(|_| cluster.is_none() || agent.is_some_and(|report| report.failure.is_none()));
        let mut snapshot = match (cluster, own, view) {
            (Some(cluster), Some(own), _) => overlay(cluster, own),
            (Some(cluster), None, _) => cluster.clone(),
            (None, Some(own), _) => {
                Snapshot { own_agents: own.agents.keys().cloned().collect(), ..own.clone() }
            }
            // Alone, Marathon's tasks have its verdicts already.
            (None, None, Some(view)) => return Some(view.snapshot.clone()),
            (None, None, None) => return None,
        };
        // Until Marathon answers, what its answers to an earlier run said.
        let remembered = match (&self.marathon, view) {
            (Some(part), None) => part.marathon.as_ref().map(|memory| memory.view(steady_now())),
            _ => None,
        };
        if self.marathon.is_some() && view.is_none() && remembered.is_none() {
            snapshot.skipped.push(Skipped {
                task: "marathon".to_owned(),
                reason:
                    "no Marathon has answered since the first start, so that its checks do not count: tasks \
                         get connections by what Mesos knows until it answers"
                        .to_owned(),
                ..Skipped::default()
            });
        }
        if let Some(view) = view.or(remembered.as_ref()) {
            let skipped = snapshot.skipped.len();
            view.judge(&mut snapshot, before);
            for record in snapshot.skipped.iter().skip(skipped) {
                // Once for each app: the status shows it as long as it holds.
                if before.is_none_or(|before| !before.skipped.contains(record)) {
                    tracing::warn!(
                        app = record.task,
                        reason = record.reason,
                        "verdicts of Marathon are missing"
                    );
                }
            }
        }
        Some(snapshot)
    }
}

/// Health of several sources together.
#[derive(Default)]
struct Health {
    failure: Option<Failure>,
    origins: Vec<String>,
    schedules: Vec<String>,
    overdue: Vec<String>,
    servers: BTreeMap<IpAddr, String>,
    /// Time of the oldest part of the snapshot.
    good_at: Option<jiff::Timestamp>,
}

impl Health {
    fn add<T>(&mut self, part: &Report<T>) {
        self.failure = match (self.failure.take(), part.failure.clone()) {
            (Some(a), Some(b)) => Some(Failure {
                error: format!("{}; {}", a.error, b.error),
                at: a.at.min(b.at),
                attempts: a.attempts.max(b.attempts),
            }),
            (a, b) => a.or(b),
        };
        self.origins.extend((!part.place.is_empty()).then(|| part.place.clone()));
        self.schedules.extend((!part.pace.is_empty()).then(|| part.pace.clone()));
        self.overdue.extend(part.overdue.clone());
        self.servers.extend(part.servers.iter().map(|(address, name)| (*address, name.clone())));
        self.good_at = self.good_at.into_iter().chain(part.good_at).min();
    }
}

/// Returns the cluster as masters see it, with an agent's own view of its tasks.
fn overlay(cluster: &Snapshot, own: &Snapshot) -> Snapshot {
    let mut merged = cluster.clone();
    let here = |agent: &str| own.agents.contains_key(agent);
    // Tasks that the agent does not have any more have ended, and did not just vanish: belief holds no
    // backends for them.
    let gone =
        cluster.tasks.values().filter(|task| here(&task.agent_id) && !own.tasks.contains_key(&task.key));
    merged.ended.extend(gone.map(|task| task.key.clone()));
    merged.ended.extend(own.ended.iter().cloned());
    merged.ended.retain(|key| !own.tasks.contains_key(key));
    merged.lost.retain(|key| !own.tasks.contains_key(key));
    merged.tasks.retain(|_, task| !here(&task.agent_id));
    merged.tasks.extend(own.tasks.iter().map(|(key, task)| (key.clone(), Arc::clone(task))));
    merged.agents.extend(own.agents.iter().map(|(id, agent)| (id.clone(), agent.clone())));
    merged.own_agents = own.agents.keys().cloned().collect();
    merged.recovered.retain(|agent| !here(agent));
    for (id, name) in &own.frameworks {
        if !merged.frameworks.contains_key(id) {
            merged.frameworks.insert(id.clone(), name.clone());
        }
    }
    for (id, time) in &own.registered {
        if !merged.registered.contains_key(id) {
            merged.registered.insert(id.clone(), *time);
        }
    }
    // Both read the same tasks, and mostly skip the same labels.
    let known: BTreeSet<_> = cluster.skipped.iter().collect();
    merged.skipped.extend(own.skipped.iter().filter(|skipped| !known.contains(skipped)).cloned());
    merged
}

#[cfg(test)]
mod tests;
