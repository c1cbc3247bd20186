//! The story of one VIP: what it is made of, and what a connection to it would do.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::document::View;
use super::{Backend, Vip};
use crate::cluster::{Skipped, Task, TaskState};
use crate::dataplane::ServiceKey;
use crate::marathon::MarathonMemory;
use crate::plan::desired::Programmed;
use crate::vip::asked::labels;
use crate::vip::pattern::VipPattern;
use crate::vip::{Host, VipKey};

/// Stories that one answer has; a pattern can stand for thousands.
const MOST_STORIES: usize = 20;

/// Tasks that a story tells of.
const MOST_TASKS: usize = 100;

/// Warnings and refused labels that a story has of each.
const MOST_REMARKS: usize = 20;

/// Stories of the VIPs that a client means.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stories {
    pub vips: Vec<Story>,
    /// Number of these VIPs.
    pub total: usize,
    /// Labels and tasks that name the VIP and yield nothing.
    pub skipped: Vec<Skipped>,
}

/// Everything about a VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Story {
    #[serde(flatten)]
    pub vip: Vip,
    /// Scheduler by which a backend is chosen.
    pub chosen_by: String,
    /// Tasks whose labels ask for it; the first of them.
    pub tasks: Vec<TaskStory>,
    /// Number of these tasks.
    pub tasks_total: usize,
    /// Remarks that concern it.
    pub warnings: Vec<String>,
    /// Fate of a connection that is made now, in words.
    pub connection: String,
}

/// A task that asks for a VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskStory {
    pub task: String,
    pub app: String,
    /// Name of the framework.
    pub framework: String,
    /// Id of the agent, and its name.
    pub agent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    pub state: String,
    /// Result of its checks; absent without a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// The one who says so, in words.
    pub health_by: String,
    /// Labels that ask for the VIP, each with its port, as written.
    pub labels: Vec<String>,
}

impl View<'_> {
    /// Returns the stories of the VIPs of a pattern or a task, see [`Self::find`]. `warnings` and `skipped` are those of
    /// the status, and `marathon` knows whose checks decide.
    pub fn stories(
        &self,
        wanted: &str,
        (warnings, skipped): (&[String], &[Skipped]),
        marathon: Option<&MarathonMemory>,
    ) -> Stories {
        let keys = self.find(wanted);
        let services = &self.plan.desired.services;
        let found = keys.iter().take(MOST_STORIES).filter_map(|key| services.get_key_value(key));
        let vips = found.map(|(key, programmed)| self.story(key, programmed, warnings, marathon)).collect();
        let host = VipPattern::parse(wanted, self.origin).host;
        let of_vip = skipped.iter().filter(|entry| mentions(&entry.to_string(), &host));
        Stories { vips, total: keys.len(), skipped: of_vip.take(MOST_REMARKS).cloned().collect() }
    }

    /// Returns the VIPs of a pattern or a task.
    pub fn vip_keys(&self, wanted: &str) -> impl Iterator<Item = VipKey> {
        let services = &self.plan.desired.services;
        self.find(wanted).into_iter().filter_map(|key| Some(services.get(&key)?.vip.clone()))
    }

    fn story(
        &self,
        key: &ServiceKey,
        programmed: &Programmed,
        warnings: &[String],
        marathon: Option<&MarathonMemory>,
    ) -> Story {
        let vip = self.owned(key, programmed);
        let askers = || self.planner.askers(&programmed.vip.host);
        // A name has several ports, and a task may ask for another one of them.
        let of_port = |(task, framework): (&Task, &str)| {
            labels(task, framework).any(|(_, _, asked)| asked == programmed.vip)
        };
        let asking = askers().filter(|(task, framework, _)| of_port((task, framework)));
        let tasks = asking.map(|(task, framework, hostname)| TaskStory {
            task: task.key.task.to_string(),
            app: task.app.to_string(),
            framework: framework.to_owned(),
            agent: task.agent_id.to_string(),
            hostname: hostname.map(str::to_owned),
            state: state(task.state).to_owned(),
            healthy: task.healthy,
            health_by: health_by(task, marathon).to_owned(),
            labels: labels(task, framework)
                .filter(|(_, _, asked)| *asked == programmed.vip)
                .map(|(port, label, _)| format!("{}={} on port {}", label.key, label.value, port.describe()))
                .collect(),
        });
        let mut tasks: Vec<TaskStory> = tasks.collect();
        // Counted before it is cut, so that the rest is told as a number.
        let tasks_total = tasks.len();
        tasks.truncate(MOST_TASKS);
        let address = key.address.to_string();
        let name = match &programmed.vip.host {
            Host::Named(name) => name.as_str(),
            Host::Literal(_) => address.as_str(),
        };
        // Warnings are text; one that has this VIP's name or address in it is about it.
        let is_concerned = |text: &&String| mentions(text, name) || mentions(text, &address);
        let mut remarks: Vec<String> =
            warnings.iter().filter(is_concerned).take(MOST_REMARKS).cloned().collect();
        let is_unreachable =
            self.planner.cluster().is_some_and(|cluster| cluster.unreachable().contains(&programmed.vip));
        if is_unreachable {
            remarks.push("the master has lost the agents of all its backends, which stay in use".to_owned());
        }
        let chosen_by = programmed.scheduling.scheduler.clone();
        let connection = outcome(&vip, &chosen_by);
        Story { vip, chosen_by, tasks, tasks_total, warnings: remarks, connection }
    }
}

/// Returns what a connection would do.
fn outcome(vip: &Vip, scheduler: &str) -> String {
    // Weight alone decides in the kernel.
    let taking: Vec<&Backend> = vip.backends.iter().filter(|backend| backend.weight > 0).collect();
    let place = |backend: &Backend| SocketAddr::new(backend.address, backend.port);
    match taking.as_slice() {
        [] if vip.backends.is_empty() => "is refused: the VIP has no backend".to_owned(),
        [] => format!("is refused: none of the {} backends takes new connections", vip.backends.len()),
        [only] => format!("goes to {}, the only backend that takes new connections", place(only)),
        several => format!(
            "goes to one of {} backends, chosen by {scheduler}: {}",
            several.len(),
            crate::vip::summarize(several.iter().map(|backend| place(backend)))
        ),
    }
}

/// Returns a task's state as Mesos calls it.
fn state(state: TaskState) -> &'static str {
    match state {
        TaskState::Preparing => "starting",
        TaskState::Running => "running",
        TaskState::Killing => "told to stop",
        TaskState::Lost => "agent lost",
        TaskState::Terminal => "ended",
    }
}

fn health_by(task: &Task, marathon: Option<&MarathonMemory>) -> &'static str {
    match task.healthy {
        None => "no check",
        Some(_) if marathon.is_some_and(|marathon| marathon.has_verdict(&task.key)) => "Marathon's checks",
        Some(_) => "the task's Mesos check",
    }
}

/// Returns true if a text has `name` in it as a word of its own, and not as a part of another name.
fn mentions(text: &str, name: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '-';
    let is_bounded = |(at, _): (usize, &str)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text.get(at + name.len()..).unwrap_or_default();
        let mut after = after.chars();
        // A dot may end a sentence, or lead to another name.
        let is_end = match after.next() {
            Some('.') => !after.next().is_some_and(is_part),
            Some(next) => !is_part(next),
            None => true,
        };
        is_end && !before.is_some_and(|before| is_part(before) || before == '.')
    };
    !name.is_empty() && text.match_indices(name).any(is_bounded)
}

#[cfg(test)]
mod tests;
