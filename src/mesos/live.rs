//! The cluster that `SUBSCRIBE` events lead to.
//!
//! What belongs here: events, what is kept between them, and their effect on the snapshot.
//!
//! Events may come before the agent or framework they belong to, may repeat, and a `TASK_UPDATED`
//! has no discovery information of its own. So every task is kept as it came, with the updates after
//! that, and normalised again when it changes; the rest of the snapshot stays as it is.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::agents::{self, FrameworkFacts};
use super::cursor::{Cursor, parsed, text};
use super::error::Error;
use super::executors::Executors;
use super::facts::{Facts, ITEM, Kind};
use super::format::StateFormat;
use super::items::{self, Items, MAX_TASKS};
use super::reading::walk;
use super::skip::{add_skipped, read_or_skip};
use super::task;
use super::texts::Texts;
use super::wire::{Lenient, MesosExecutor, MesosFramework, MesosTask, TaskStatus};
use crate::cluster::registry::RegisteredKey;
use crate::cluster::{Master, Skipped, Snapshot, TaskKey, TaskState};
use events::{AgentAdded, AgentRemoved, FrameworkChanged, Heartbeat, MesosEvent, TaskAdded, TaskUpdated};
use kept::{KeptTask, KeptTasks, key, read};
use packed::Packer;

mod events;
mod kept;
mod packed;

/// Effect of an event on the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventEffect {
    /// A new subscription has begun, with the time between heartbeats if the master states it.
    Subscribed(Option<Duration>),
    /// The snapshot may have changed.
    Changed,
    /// No effect: a heartbeat, or an event of no interest here.
    None,
}

/// The cluster after the last event.
#[derive(Clone, Debug, Default)]
pub struct LiveCluster {
    snapshot: Snapshot,
    tasks: KeptTasks,
    packer: Packer,
    texts: Texts,
    /// Executors of the last whole state: no event tells of one.
    executors: Executors,
    subscribed: bool,
    /// Set when the last whole state was made for a client that may not see tasks.
    hides_tasks: bool,
}

impl LiveCluster {
    /// Returns true once a subscription has begun; before that nothing is known.
    pub fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// Returns the cluster as it is now.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub fn into_snapshot(self) -> Snapshot {
        self.snapshot
    }

    /// Returns true if the last whole state left out the tasks for lack of rights.
    pub fn hides_tasks(&self) -> bool {
        self.hides_tasks
    }

    /// Sets the master that the events come from; they do not name it.
    pub fn set_master(&mut self, master: Master) {
        self.snapshot.master = Some(master);
    }

    /// Applies an event, given as JSON.
    ///
    /// # Errors
    /// When it is not JSON, or has not even the outer shape of an event.
    pub fn record(&mut self, record: &str) -> Result<EventEffect, serde_json::Error> {
        let mut event: MesosEvent<'_> = serde_json::from_str(record)?;
        // Unwrapped once only: a document may nest them as deep as it likes, and each level takes its
        // part of the stack.
        if let Some(wrapped) = event.event {
            event = serde_json::from_str(wrapped.get())?;
        }
        match event.kind.as_ref() {
            "SUBSCRIBED" => return self.subscribe(event.subscribed).map(EventEffect::Subscribed),
            "TASK_ADDED" => {
                if let Some(TaskAdded { task }) = self.read(event.task_added) {
                    // As a document is refused that has more; the stream is then opened anew.
                    if self.tasks.len() >= MAX_TASKS {
                        return Err(serde::de::Error::custom(format_args!(
                            "the events lead to more than {MAX_TASKS} tasks"
                        )));
                    }
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
                    agents::facts(Lenient::Read(agent), false).add_to(&mut self.snapshot, &self.executors);
                }
            }
            // Tasks of a removed agent or framework get no event of their own.
            "AGENT_REMOVED" => {
                if let Some(AgentRemoved { agent_id }) = self.read(event.agent_removed) {
                    self.snapshot.agents.remove(agent_id.0.as_ref());
                    self.snapshot.recovered.remove(agent_id.0.as_ref());
                    self.remove(|_, kept| kept.agent.as_deref() == Some(&*agent_id.0));
                }
            }
            "FRAMEWORK_ADDED" | "FRAMEWORK_UPDATED" => {
                let changed = event.framework_added.or(event.framework_updated);
                if let Some(FrameworkChanged { framework }) = self.read(changed) {
                    self.add_framework(framework);
                }
            }
            "FRAMEWORK_REMOVED" => {
                if let Some(framework) = self.read(event.framework_removed)
                    && let Some(id) = framework.framework_info.id
                {
                    self.snapshot.frameworks.remove(&*id.0);
                    self.snapshot.registered.remove(&*id.0);
                    self.remove(|key, _| *key.framework == *id.0);
                }
            }
            _ => return Ok(EventEffect::None),
        }
        Ok(EventEffect::Changed)
    }

    /// Replaces everything by an answer to `GET_STATE`, and repeats the events since it was requested.
    ///
    /// Events that the answer already includes change nothing, because the last event of a task
    /// decides. After an error the cluster is as it was before.
    pub fn resync<'a>(
        &mut self,
        answer: impl Read,
        since: impl Iterator<Item = &'a str>,
    ) -> Result<(), Error> {
        // Made beside the present state, which an error leaves as it is.
        let mut fresh = Self { subscribed: true, ..Self::default() };
        fresh.snapshot.master = self.snapshot.master.clone();
        fresh.read_state(answer)?;
        for record in since {
            fresh.record(record)?;
        }
        // Readers find what differs by what is not shared.
        fresh.snapshot = fresh.snapshot.sharing(&self.snapshot);
        *self = fresh;
        Ok(())
    }

    /// Reads an object with the member `get_state`.
    fn read_state(&mut self, answer: impl Read) -> Result<(), Error> {
        let head = walk(answer, StateFormat::V1, self)?;
        head.add_to(&mut self.snapshot);
        self.add_executors();
        // Filled in the order of a document, which leaves room in its parts.
        self.snapshot.pack();
        self.hides_tasks = head.is_idle && self.hides_tasks;
        Ok(())
    }

    /// Adds the ports of executors, which a state lists after its tasks, to tasks.
    fn add_executors(&mut self) {
        if self.executors.is_empty() {
            return;
        }
        for kept in self.tasks.values().filter(|kept| kept.has_executor) {
            let json = kept.json(&self.packer);
            if let Some(task) = kept.task(&json) {
                let facts = task::facts(Lenient::Read(task), &mut self.texts);
                facts.add_task_to(&mut self.snapshot, &self.executors);
            }
        }
    }

    /// Starts from nothing with the state of a new subscription. Returns the time between heartbeats.
    fn subscribe(&mut self, subscribed: Option<&RawValue>) -> Result<Option<Duration>, serde_json::Error> {
        // The event does not name the master, which was asked beforehand.
        let master = self.snapshot.master.take();
        // All of it: what happened between two subscriptions is not known.
        *self = Self { subscribed: true, ..Self::default() };
        self.snapshot.master = master;
        let Some(subscribed) = subscribed else { return Ok(None) };
        match self.read_state(subscribed.get().as_bytes()) {
            // Some versions begin with nothing but the heartbeat.
            Ok(()) | Err(Error::Missing(_)) => {}
            Err(error) => return Err(serde::de::Error::custom(error)),
        }
        // A second reading of the same text; the first one walks through the state and keeps nothing else.
        let heartbeat: Heartbeat = serde_json::from_str(subscribed.get())?;
        Ok(heartbeat.interval())
    }

    /// Adds a framework, or its new name.
    fn add_framework(&mut self, framework: MesosFramework<'_>) {
        let time = framework.registered_time.as_ref().and_then(Lenient::as_read).copied();
        match FrameworkFacts::of_info(framework.framework_info) {
            Ok(Some(framework)) => framework.registered_at(time).add_to(&mut self.snapshot),
            Ok(None) => {}
            Err(record) => add_skipped(&mut self.snapshot.skipped, *record),
        }
    }

    /// Adds a task to those that are kept, and what follows from it to the snapshot.
    fn keep(&mut self, json: &str, read: Lenient<MesosTask<'_>>) {
        let kept = match &read {
            Lenient::Read(task) => {
                let key = key(&task.framework_id, &task.id, &mut self.texts);
                let agent = task.slave_id.as_ref().map(|id| self.texts.shared(&id.0));
                let has_executor = task.executor_id.as_ref().is_some_and(|id| !id.0.is_empty());
                Some((key, KeptTask::new(self.packer.pack(json), agent, has_executor)))
            }
            Lenient::Unreadable { .. } => None,
        };
        let facts = task::facts(read, &mut self.texts);
        facts.add_to(&mut self.snapshot, &self.executors);
        if let Some((key, kept)) = kept {
            // The key that is there already, whose texts are in memory once.
            let shared = match &facts {
                Facts::Task { task: Some(task), .. } if task.key == key => task.key.clone(),
                _ => key,
            };
            self.tasks.insert(shared, kept);
        }
    }

    /// Adds a task, which may be known already: agents that register again list their tasks again.
    fn add(&mut self, task: &RawValue) {
        let read = match read(task.get()) {
            Lenient::Read(read) => read,
            // Recorded as skipped.
            unreadable => return self.keep(task.get(), unreadable),
        };
        // What was known of it goes first: the registry of names has no place to replace an entry.
        let key = key(&read.framework_id, &read.id, &mut self.texts);
        self.forget(&key);
        if TaskState::parse(&read.state) != TaskState::Terminal {
            self.keep(task.get(), Lenient::Read(read));
        }
    }

    /// Applies a status update. Updates of unknown tasks only tell whether the task has ended.
    fn update(&mut self, update: &TaskUpdated<'_>) -> Result<(), serde_json::Error> {
        let status: TaskStatus<'_> = serde_json::from_str(update.status.get())?;
        // v1 always names the task.
        let Some(id) = &status.task_id else { return Ok(()) };
        let key = key(&update.framework_id, id, &mut self.texts);
        // The update's own state is the newest; its status may be one that was repeated after a lost
        // acknowledgement.
        let state = update.state.as_ref().unwrap_or(&status.state);
        if TaskState::parse(state) == TaskState::Terminal {
            self.forget(&key);
            // Tasks of an agent that an operator marked as gone end without having been asked.
            if state.starts_with("TASK_GONE") {
                self.snapshot.lost.insert(key.clone());
            }
            self.snapshot.ended.insert(key);
        } else if let Some(mut kept) = self.tasks.remove(&key) {
            // Normalised anew: which status is the newest decides about health and addresses.
            self.forget(&key);
            kept.update(state, update.status);
            let json = kept.json(&self.packer);
            if let Some(task) = kept.task(&json) {
                let facts = task::facts(Lenient::Read(task), &mut self.texts);
                facts.add_to(&mut self.snapshot, &self.executors);
            }
            self.tasks.insert(key, kept);
        }
        Ok(())
    }

    /// Removes the tasks for which `gone` holds.
    fn remove(&mut self, gone: impl Fn(&TaskKey, &KeptTask) -> bool) {
        let keys = self.tasks.iter().filter(|(key, kept)| gone(key, kept));
        let keys: Vec<TaskKey> = keys.map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.forget(key);
        }
    }

    /// Removes everything that is known of a task.
    fn forget(&mut self, key: &TaskKey) {
        // Every list that may have it: a task that is added again must not be found twice.
        self.tasks.remove(key);
        self.snapshot.tasks.remove(key);
        self.snapshot.ended.remove(key);
        self.snapshot.lost.remove(key);
        Arc::make_mut(&mut self.snapshot.names).remove(&RegisteredKey::of(key));
        self.snapshot.skipped.retain(|skipped| *skipped.task != *key.task);
    }

    fn read<T>(&mut self, value: Option<Lenient<T>>) -> Option<T> {
        read_or_skip(&mut self.snapshot, value?, "event", "an event")
    }
}

/// Items of a whole state.
impl Items for LiveCluster {
    fn item<R: Read>(&mut self, cursor: &mut Cursor<R>, kind: Kind) -> Result<(), Error> {
        // One item beyond the bound is left out alone: the rest of the state is still of use.
        let Some(length) = cursor.value(ITEM)? else {
            Items::record(self, kind.too_long());
            return Ok(());
        };
        let text = text(cursor.octets(length));
        let not_json = |error| cursor.not_json(&error);
        if kind == Kind::Task {
            let read = parsed(&text).map_err(not_json)?;
            self.keep(&text, read);
        } else {
            let facts = items::facts(kind, &text, &mut self.texts).map_err(not_json)?;
            self.hides_tasks |= facts.is_agent_in_use();
            facts.add_executor_to(&mut self.executors);
            facts.add_to(&mut self.snapshot, &self.executors);
        }
        cursor.advance(length);
        Ok(())
    }

    fn executor(&mut self, executor: MesosExecutor<'_>) {
        let facts = agents::executor_facts(Lenient::Read(executor), &mut self.texts);
        facts.add_executor_to(&mut self.executors);
    }

    fn record(&mut self, record: Skipped) {
        add_skipped(&mut self.snapshot.skipped, record);
    }
}

#[cfg(test)]
mod tests;
