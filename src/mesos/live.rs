//! The state that `SUBSCRIBE` events lead to.
//!
//! Events may come before the agent or framework they belong to, may repeat, and a `TASK_UPDATED`
//! has no discovery information of its own. So every task is kept as it came, with the updates after
//! that, and normalised again when it changes; all others stay as they are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeSeed;
use serde_json::value::RawValue;

use super::Error;
use super::fold::Object;
use super::normalise;
use super::operator::{self, Answer, TaskSink};
use super::wire::{self, Lenient, Text};
use crate::cluster::{Master, Skipped, Snapshot, TaskKey, TaskState};

/// Updates of one task that are kept. Mesos itself replaces the last one of a state.
const MAX_STATUSES: usize = 16;

/// What an event was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A new subscription, with the time between heartbeats.
    Subscribed(Option<Duration>),
    Changed,
    /// A heartbeat, or something of no interest here.
    Nothing,
}

/// The cluster after the last event.
#[derive(Debug, Default)]
pub struct Live {
    snapshot: Snapshot,
    tasks: Tasks,
    subscribed: bool,
}

/// Folds events into the state after the last one.
pub fn parse_events<'a>(records: impl Iterator<Item = Result<&'a str, Error>>) -> Result<Snapshot, Error> {
    let mut live = Live::default();
    for (index, record) in records.enumerate() {
        live.record(record?).map_err(|error| Error::Event { record: index + 1, error })?;
    }
    if !live.is_subscribed() {
        return Err(Error::Missing("SUBSCRIBED event"));
    }
    Ok(live.into_snapshot())
}

/// Tasks in their own JSON, about 2 kB each.
type Tasks = BTreeMap<TaskKey, Kept>;

#[derive(Debug)]
struct Kept {
    task: Box<str>,
    /// The newest state, which may be ahead of the newest status.
    state: Option<Box<str>>,
    statuses: Vec<Box<str>>,
}

impl<'de> TaskSink<'de> for Tasks {
    fn task(&mut self, snapshot: &mut Snapshot, task: &'de RawValue) {
        match read(task) {
            Lenient::Read(read) => {
                self.insert(key(&read.framework_id, &read.id), Kept::new(task.get()));
                normalise::add_task(snapshot, Lenient::Read(read));
            }
            unreadable => normalise::add_task(snapshot, unreadable),
        }
    }
}

impl Kept {
    fn new(task: &str) -> Self {
        Self { task: task.into(), state: None, statuses: Vec::new() }
    }

    fn update(&mut self, state: &str, status: &RawValue) {
        self.state = Some(state.into());
        let replaced = self.statuses.last().is_some_and(|last| state_of(last) == state_of(status.get()));
        if replaced || self.statuses.len() == MAX_STATUSES {
            let index = if replaced { self.statuses.len() - 1 } else { 0 };
            self.statuses.remove(index);
        }
        self.statuses.push(status.get().into());
    }

    /// The task with its updates.
    fn task(&self) -> Option<wire::Task<'_>> {
        let mut task: wire::Task<'_> = serde_json::from_str(&self.task).ok()?;
        if let Some(state) = &self.state {
            task.state = Cow::Borrowed(state);
        }
        let statuses = self.statuses.iter().filter_map(|status| serde_json::from_str(status).ok());
        task.statuses.get_or_insert_default().extend(statuses.map(Lenient::Read));
        Some(task)
    }
}

fn state_of(status: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct State {
        state: String,
    }
    serde_json::from_str::<State>(status).ok().map(|status| status.state)
}

fn read(task: &RawValue) -> Lenient<wire::Task<'_>> {
    // Never fails: what can't be read is a value of its own.
    serde_json::from_str(task.get())
        .unwrap_or_else(|error| Lenient::Unreadable { error: error.to_string(), json: String::new() })
}

fn key(framework: &Option<Text<'_>>, task: &Text<'_>) -> TaskKey {
    TaskKey {
        framework: framework.as_ref().map(|id| id.0.to_string()).unwrap_or_default(),
        task: task.0.to_string(),
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    subscribed: Option<&'a RawValue>,
    #[serde(borrow)]
    task_added: Option<Lenient<TaskAdded<'a>>>,
    #[serde(borrow)]
    task_updated: Option<Lenient<TaskUpdated<'a>>>,
    #[serde(borrow)]
    agent_added: Option<Lenient<AgentAdded<'a>>>,
    #[serde(borrow)]
    agent_removed: Option<Lenient<AgentRemoved<'a>>>,
    #[serde(borrow)]
    framework_added: Option<Lenient<FrameworkChanged<'a>>>,
    #[serde(borrow)]
    framework_updated: Option<Lenient<FrameworkChanged<'a>>>,
    #[serde(borrow)]
    framework_removed: Option<Lenient<wire::Framework<'a>>>,
    /// A recording may wrap each event to add its time of receipt.
    #[serde(borrow)]
    event: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct TaskAdded<'a> {
    #[serde(borrow)]
    task: &'a RawValue,
}

#[derive(Deserialize)]
struct TaskUpdated<'a> {
    #[serde(borrow)]
    framework_id: Option<Text<'a>>,
    #[serde(borrow)]
    status: &'a RawValue,
    #[serde(borrow)]
    state: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct AgentAdded<'a> {
    #[serde(borrow)]
    agent: wire::Agent<'a>,
}

#[derive(Deserialize)]
struct AgentRemoved<'a> {
    #[serde(borrow)]
    agent_id: Text<'a>,
}

#[derive(Deserialize)]
struct FrameworkChanged<'a> {
    #[serde(borrow)]
    framework: wire::Framework<'a>,
}

#[derive(Deserialize)]
struct Heartbeat {
    heartbeat_interval_seconds: Option<f64>,
}

impl Live {
    /// Whether a subscription has begun; before that nothing is known.
    pub fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// The picture now.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub fn into_snapshot(self) -> Snapshot {
        self.snapshot
    }

    /// Notes whose picture it is; events do not say.
    pub fn set_master(&mut self, master: Master) {
        self.snapshot.master = Some(master);
    }

    /// Takes an event in.
    ///
    /// # Errors
    /// When it is not JSON, or has not even the outer shape of an event.
    pub fn record(&mut self, record: &str) -> Result<Told, serde_json::Error> {
        let mut event: Event<'_> = serde_json::from_str(record)?;
        // Once only: how deep a document may nest them is up to whoever wrote it.
        if let Some(wrapped) = event.event {
            event = serde_json::from_str(wrapped.get())?;
        }
        match event.kind.as_ref() {
            "SUBSCRIBED" => return self.subscribe(event.subscribed).map(Told::Subscribed),
            "TASK_ADDED" => {
                if let Some(TaskAdded { task }) = self.read(event.task_added) {
                    self.add(task);
                }
            }
            "TASK_UPDATED" => {
                if let Some(update) = self.read(event.task_updated) {
                    self.update(&update)?;
                }
            }
            "AGENT_ADDED" => {
                if let Some(AgentAdded { agent }) = self.read(event.agent_added) {
                    normalise::add_agent(&mut self.snapshot, Lenient::Read(agent), false);
                }
            }
            "AGENT_REMOVED" => {
                if let Some(AgentRemoved { agent_id }) = self.read(event.agent_removed) {
                    self.snapshot.agents.remove(agent_id.0.as_ref());
                    self.snapshot.recovered.remove(agent_id.0.as_ref());
                    self.remove(|_, task| task.slave_id.is_some_and(|id| id.0 == agent_id.0));
                }
            }
            "FRAMEWORK_ADDED" | "FRAMEWORK_UPDATED" => {
                let changed = event.framework_added.or(event.framework_updated);
                if let Some(FrameworkChanged { framework }) = self.read(changed) {
                    operator::add_framework(&mut self.snapshot, Lenient::Read(framework));
                }
            }
            "FRAMEWORK_REMOVED" => {
                if let Some(framework) = self.read(event.framework_removed)
                    && let Some(id) = framework.framework_info.id
                {
                    self.snapshot.frameworks.remove(id.0.as_ref());
                    self.remove(|key, _| key.framework == id.0);
                }
            }
            _ => return Ok(Told::Nothing),
        }
        Ok(Told::Changed)
    }

    /// Replaces everything by an answer to `GET_STATE`, and repeats the events since it was asked
    /// for. Those that the answer already knows of change nothing: the last one of a task decides.
    pub fn resync<'a>(&mut self, answer: &str, since: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        let mut fresh = Self { subscribed: true, ..Self::default() };
        fresh.snapshot.master = self.snapshot.master.clone();
        if !fresh.read_state(answer)? {
            return Err(Error::Missing("get_state"));
        }
        for record in since {
            fresh.record(record)?;
        }
        *self = fresh;
        Ok(())
    }

    fn read_state(&mut self, answer: &str) -> Result<bool, serde_json::Error> {
        let mut answered = Answer { snapshot: &mut self.snapshot, tasks: &mut self.tasks, found: false };
        Object(&mut answered).deserialize(&mut serde_json::Deserializer::from_str(answer))?;
        Ok(answered.found)
    }

    /// A new subscription starts from nothing.
    fn subscribe(&mut self, subscribed: Option<&RawValue>) -> Result<Option<Duration>, serde_json::Error> {
        let master = self.snapshot.master.take();
        *self = Self { subscribed: true, ..Self::default() };
        self.snapshot.master = master;
        let Some(subscribed) = subscribed else { return Ok(None) };
        self.read_state(subscribed.get())?;
        let heartbeat: Heartbeat = serde_json::from_str(subscribed.get())?;
        let seconds = heartbeat.heartbeat_interval_seconds.filter(|seconds| *seconds > 0.0);
        Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
    }

    /// An added task may be known already: agents that return list theirs again.
    fn add(&mut self, task: &RawValue) {
        let Lenient::Read(read) = read(task) else {
            return self.tasks.task(&mut self.snapshot, task);
        };
        let key = key(&read.framework_id, &read.id);
        self.forget(&key);
        if TaskState::parse(&read.state) != TaskState::Terminal {
            self.tasks.task(&mut self.snapshot, task);
        }
    }

    fn update(&mut self, update: &TaskUpdated<'_>) -> Result<(), serde_json::Error> {
        let status: wire::Status<'_> = serde_json::from_str(update.status.get())?;
        let Some(id) = &status.task_id else { return Ok(()) };
        let key = key(&update.framework_id, id);
        let state = update.state.as_ref().unwrap_or(&status.state);
        if TaskState::parse(state) == TaskState::Terminal {
            self.forget(&key);
            if state.starts_with("TASK_GONE") {
                self.snapshot.lost.insert(key.clone());
            }
            self.snapshot.ended.insert(key);
        } else if let Some(mut kept) = self.tasks.remove(&key) {
            self.forget(&key);
            kept.update(state, update.status);
            if let Some(task) = kept.task() {
                normalise::add_task(&mut self.snapshot, Lenient::Read(task));
            }
            self.tasks.insert(key, kept);
        }
        Ok(())
    }

    fn remove(&mut self, gone: impl Fn(&TaskKey, wire::Task<'_>) -> bool) {
        let keys = self.tasks.iter().filter(|(key, kept)| kept.task().is_some_and(|task| gone(key, task)));
        let keys: Vec<TaskKey> = keys.map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.forget(key);
        }
    }

    /// Takes everything of a task back.
    fn forget(&mut self, key: &TaskKey) {
        self.tasks.remove(key);
        self.snapshot.tasks.remove(key);
        self.snapshot.ended.remove(key);
        self.snapshot.lost.remove(key);
        Arc::make_mut(&mut self.snapshot.names).remove(&key.task, &key.framework);
        self.snapshot.skipped.retain(|skipped| skipped.task != key.task);
    }

    fn read<T>(&mut self, value: Option<Lenient<T>>) -> Option<T> {
        match value? {
            Lenient::Read(value) => Some(value),
            Lenient::Unreadable { error, json } => {
                self.snapshot.skipped.push(Skipped {
                    task: "event".to_owned(),
                    value: Some(json),
                    reason: format!("an event that cannot be read: {error}"),
                    ..Skipped::default()
                });
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
