//! Several sources as one: masters, the node's own agent, and Marathon.
//!
//! Each is asked by itself, in its own time, and what they say is put together anew whenever one of
//! them says something else:
//!
//! - The agent knows best about its own tasks. While it does not answer, they are the masters' matter.
//! - Marathon's verdicts are added to the tasks of its framework.
//! - Nothing is said until the masters, where there are some, have given a state, and everybody else
//!   has answered or failed: a half of the cluster would look like the loss of the other one.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::configured::AnySource;
use super::driver::run;
use super::marathon::Marathon;
use super::mesos::poll::Poll;
use super::settings;
use super::{Error, Failure, Mode, Report};
use crate::cluster::Snapshot;
use crate::marathon::View;

/// The sources of a configuration.
pub struct Parts {
    cluster: Option<AnySource>,
    agent: Option<Poll>,
    marathon: Option<Marathon>,
    config: settings::Source,
    marathon_config: settings::Source,
}

/// What each of them said last; `None` for those that are not configured.
#[derive(Clone, Debug, Default)]
struct Reports {
    cluster: Option<Report>,
    agent: Option<Report>,
    marathon: Option<Report<View>>,
}

impl Parts {
    /// Needs an async runtime.
    pub fn new(source: &settings::Source, marathons: &settings::Marathon) -> Result<Self, Error> {
        let agent = match source.mode {
            Mode::Agent => Some(Poll::agent(source)?),
            Mode::Poll | Mode::Stream => None,
        };
        let cluster = (!source.masters.is_empty()).then(|| AnySource::new(source)).transpose()?;
        let marathon = (!marathons.urls.is_empty()).then(|| Marathon::new(marathons, source)).transpose()?;
        let marathon_config = settings::Source { interval: marathons.interval, ..source.clone() };
        Ok(Self { cluster, agent, marathon, config: source.clone(), marathon_config })
    }

    /// Asks all of them until `shutdown` and publishes what they say together.
    pub async fn run(self, reports: watch::Sender<Report>, shutdown: CancellationToken) {
        let Self { cluster, agent, marathon, config, marathon_config } = self;
        let cluster = match (cluster, &agent, &marathon) {
            // The usual case needs nobody in between.
            (Some(cluster), None, None) => return run(cluster, config, reports, shutdown).await,
            (cluster, _, _) => cluster,
        };
        let mut tasks = JoinSet::new();
        let (cluster_sender, mut clusters) = watch::channel(Report::default());
        let (agent_sender, mut agents) = watch::channel(Report::default());
        let (marathon_sender, mut marathons) = watch::channel(Report::default());
        let present = (cluster.is_some(), agent.is_some(), marathon.is_some());
        if let Some(cluster) = cluster {
            tasks.spawn(run(cluster, config.clone(), cluster_sender, shutdown.clone()));
        }
        if let Some(agent) = agent {
            tasks.spawn(run(agent, config, agent_sender, shutdown.clone()));
        }
        if let Some(marathon) = marathon {
            tasks.spawn(run(marathon, marathon_config, marathon_sender, shutdown.clone()));
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Ok(()) = clusters.changed(), if present.0 => {}
                Ok(()) = agents.changed(), if present.1 => {}
                Ok(()) = marathons.changed(), if present.2 => {}
                else => break,
            }
            let parts = Reports {
                cluster: present.0.then(|| clusters.borrow_and_update().clone()),
                agent: present.1.then(|| agents.borrow_and_update().clone()),
                marathon: present.2.then(|| marathons.borrow_and_update().clone()),
            };
            reports.send_modify(|report| parts.combine(report));
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl Parts {
    /// Asks until there is a state, or until there was none so often.
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

fn answered<T>(report: Option<&Report<T>>) -> bool {
    report.is_none_or(|report| report.snapshot.is_some() || report.failure.is_some())
}

impl Reports {
    /// Makes one report of them, from the last one.
    fn combine(self, report: &mut Report) {
        let (cluster, agent, marathon) = (self.cluster.as_ref(), self.agent.as_ref(), self.marathon.as_ref());
        let mut failures = Vec::new();
        let mut places = Vec::new();
        let mut paces = Vec::new();
        let mut good = Vec::new();
        for part in [cluster, agent].into_iter().flatten() {
            note(part, &mut failures, &mut places, &mut paces, &mut good);
        }
        if let Some(part) = marathon {
            note(part, &mut failures, &mut places, &mut paces, &mut good);
        }
        report.failure = failures.into_iter().reduce(|a, b| Failure {
            error: format!("{}; {}", a.error, b.error),
            at: a.at.min(b.at),
            attempts: a.attempts.max(b.attempts),
        });
        report.place = places.join(" and ");
        report.pace = paces.join("; ");
        let known = cluster.is_none_or(|cluster| cluster.snapshot.is_some());
        if !known || !answered(agent) || !answered(marathon) {
            return;
        }
        let Some(snapshot) = self.snapshot() else { return };
        // As old as the oldest part of it.
        report.good_at = good.into_iter().min();
        if report.snapshot.as_deref() != Some(&snapshot) {
            report.snapshot = Some(Arc::new(snapshot));
            report.sequence += 1;
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let cluster = self.cluster.as_ref().and_then(|report| report.snapshot.as_deref());
        let view = self.marathon.as_ref().and_then(|report| report.snapshot.as_deref());
        let agent = self.agent.as_ref();
        let own = agent.and_then(|report| report.snapshot.as_deref());
        // Without masters even the last word of the agent is better than none.
        let own = own.filter(|_| cluster.is_none() || agent.is_some_and(|report| report.failure.is_none()));
        let mut snapshot = match (cluster, own, view) {
            (Some(cluster), Some(own), _) => overlay(cluster, own),
            (Some(cluster), None, _) | (None, Some(cluster), _) => cluster.clone(),
            // Alone, it has judged already.
            (None, None, Some(view)) => return Some(view.snapshot.clone()),
            (None, None, None) => return None,
        };
        if let Some(view) = view {
            view.judge(&mut snapshot);
        }
        Some(snapshot)
    }
}

fn note<T>(
    part: &Report<T>,
    failures: &mut Vec<Failure>,
    places: &mut Vec<String>,
    paces: &mut Vec<String>,
    good: &mut Vec<jiff::Timestamp>,
) {
    failures.extend(part.failure.clone());
    places.extend((!part.place.is_empty()).then(|| part.place.clone()));
    paces.extend((!part.pace.is_empty()).then(|| part.pace.clone()));
    good.extend(part.good_at);
}

/// The cluster as masters see it, with an agent's own word for its tasks.
fn overlay(cluster: &Snapshot, own: &Snapshot) -> Snapshot {
    let mut merged = cluster.clone();
    let here = |agent: &String| own.agents.contains_key(agent);
    // Gone without having vanished: the agent says so.
    let gone =
        cluster.tasks.values().filter(|task| here(&task.agent_id) && !own.tasks.contains_key(&task.key));
    merged.ended.extend(gone.map(|task| task.key.clone()));
    merged.ended.extend(own.ended.iter().cloned());
    merged.ended.retain(|key| !own.tasks.contains_key(key));
    merged.lost.retain(|key| !own.tasks.contains_key(key));
    merged.tasks.retain(|_, task| !here(&task.agent_id));
    merged.tasks.extend(own.tasks.iter().map(|(key, task)| (key.clone(), task.clone())));
    merged.agents.extend(own.agents.iter().map(|(id, agent)| (id.clone(), agent.clone())));
    merged.recovered.retain(|agent| !here(agent));
    for (id, name) in &own.frameworks {
        merged.frameworks.entry(id.clone()).or_insert_with(|| name.clone());
    }
    let known: BTreeSet<_> = cluster.skipped.iter().collect();
    merged.skipped.extend(own.skipped.iter().filter(|skipped| !known.contains(skipped)).cloned());
    merged
}

#[cfg(test)]
mod tests;
