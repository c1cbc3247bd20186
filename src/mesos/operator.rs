//! The v1 operator API: the answer to `GET_STATE`, and the events of `SUBSCRIBE`.
//!
//! Events are folded into the state they lead to. They may come before the agent or framework they
//! belong to, may repeat, and a `TASK_UPDATED` has no discovery information of its own; so tasks
//! are kept as they came and normalised at the end.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use super::Error;
use super::fold::{Array, ArrayFold, Object, ObjectFold};
use super::normalise::{self, Ended};
use super::wire::{self, Lenient, Text};
use crate::task::{Skipped, Snapshot, TaskKey, TaskState};

/// Reads an answer to `GET_STATE`, of a master or an agent.
pub fn parse_state(text: &str) -> Result<Snapshot, Error> {
    let mut snapshot = Snapshot::default();
    let mut answer = Answer { snapshot: &mut snapshot, tasks: &mut Direct, found: false };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Object(&mut answer).deserialize(&mut deserializer)?;
    deserializer.end()?;
    if !answer.found {
        return Err(Error::Missing("get_state"));
    }
    Ok(snapshot)
}

/// Folds events into the state after the last one.
pub fn parse_events<'a>(records: impl Iterator<Item = Result<&'a str, Error>>) -> Result<Snapshot, Error> {
    let mut stream = Stream::default();
    for (index, record) in records.enumerate() {
        stream.record(record?).map_err(|error| Error::Event { record: index + 1, error })?;
    }
    if !stream.subscribed {
        return Err(Error::Missing("SUBSCRIBED event"));
    }
    let Stream { mut snapshot, tasks, .. } = stream;
    for task in tasks.into_values() {
        normalise::add_task(&mut snapshot, Lenient::Read(task));
    }
    Ok(snapshot)
}

/// Where the tasks of a `get_state` go.
trait TaskSink<'de> {
    fn task(&mut self, snapshot: &mut Snapshot, task: Lenient<wire::Task<'de>>);
}

/// Normalises each task as it comes.
struct Direct;

impl<'de> TaskSink<'de> for Direct {
    fn task(&mut self, snapshot: &mut Snapshot, task: Lenient<wire::Task<'de>>) {
        normalise::add_task(snapshot, task);
    }
}

/// Keeps tasks as they came, for events to change them.
type TaskTable<'de> = BTreeMap<TaskKey, wire::Task<'de>>;

impl<'de> TaskSink<'de> for TaskTable<'de> {
    fn task(&mut self, snapshot: &mut Snapshot, task: Lenient<wire::Task<'de>>) {
        match task {
            Lenient::Read(task) => {
                self.insert(key(&task.framework_id, &task.id), task);
            }
            unreadable @ Lenient::Unreadable { .. } => normalise::add_task(snapshot, unreadable),
        }
    }
}

fn key(framework: &Option<Text<'_>>, task: &Text<'_>) -> TaskKey {
    TaskKey {
        framework: framework.as_ref().map(|id| id.0.to_string()).unwrap_or_default(),
        task: task.0.to_string(),
    }
}

struct Answer<'a, S> {
    snapshot: &'a mut Snapshot,
    tasks: &'a mut S,
    found: bool,
}

impl<'de, S: TaskSink<'de>> ObjectFold<'de> for Answer<'_, S> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if key == "get_state" {
            self.found = true;
            return map.next_value_seed(Object(&mut State { snapshot: self.snapshot, tasks: self.tasks }));
        }
        map.next_value::<IgnoredAny>().map(drop)
    }
}

/// `get_state`, and its members `get_tasks`, `get_agents` and `get_frameworks`: their own members
/// have distinct names, so that one fold serves all four.
struct State<'a, S> {
    snapshot: &'a mut Snapshot,
    tasks: &'a mut S,
}

impl<'de, S: TaskSink<'de>> ObjectFold<'de> for State<'_, S> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "get_tasks" | "get_agents" | "get_frameworks" => map.next_value_seed(Object(self)),
            "tasks" | "launched_tasks" => {
                map.next_value_seed(Array(&mut Tasks { snapshot: self.snapshot, tasks: self.tasks }))
            }
            "completed_tasks" | "terminated_tasks" | "unreachable_tasks" => {
                map.next_value_seed(Array(&mut Ended(self.snapshot)))
            }
            "agents" => map.next_value_seed(Array(&mut Agents { snapshot: self.snapshot, recovered: false })),
            "recovered_agents" => {
                map.next_value_seed(Array(&mut Agents { snapshot: self.snapshot, recovered: true }))
            }
            "frameworks" => map.next_value_seed(Array(&mut Frameworks(self.snapshot))),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

struct Tasks<'a, S> {
    snapshot: &'a mut Snapshot,
    tasks: &'a mut S,
}

impl<'de, S: TaskSink<'de>> ArrayFold<'de> for Tasks<'_, S> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<Option<()>, A::Error> {
        let Some(task) = seq.next_element()? else { return Ok(None) };
        self.tasks.task(self.snapshot, task);
        Ok(Some(()))
    }
}

struct Agents<'a> {
    snapshot: &'a mut Snapshot,
    recovered: bool,
}

impl<'de> ArrayFold<'de> for Agents<'_> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<Option<()>, A::Error> {
        let Some(agent) = seq.next_element()? else { return Ok(None) };
        normalise::add_agent(self.snapshot, agent, self.recovered);
        Ok(Some(()))
    }
}

struct Frameworks<'a>(&'a mut Snapshot);

impl<'de> ArrayFold<'de> for Frameworks<'_> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<Option<()>, A::Error> {
        let Some(framework) = seq.next_element::<Lenient<wire::Framework<'de>>>()? else { return Ok(None) };
        add_framework(self.0, framework);
        Ok(Some(()))
    }
}

fn add_framework(snapshot: &mut Snapshot, framework: Lenient<wire::Framework<'_>>) {
    match framework {
        Lenient::Read(wire::Framework { framework_info: wire::FrameworkInfo { id: Some(id), name } }) => {
            snapshot.frameworks.insert(id.0.into_owned(), name.into_owned());
        }
        Lenient::Read(_) => {}
        Lenient::Unreadable { error, json } => snapshot.skipped.push(Skipped {
            task: "frameworks[]".to_owned(),
            value: Some(json),
            reason: format!("a framework that cannot be read: {error}"),
            ..Skipped::default()
        }),
    }
}

#[derive(Default)]
struct Stream<'a> {
    snapshot: Snapshot,
    tasks: TaskTable<'a>,
    subscribed: bool,
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
    task: wire::Task<'a>,
}

#[derive(Deserialize)]
struct TaskUpdated<'a> {
    #[serde(borrow)]
    framework_id: Option<Text<'a>>,
    #[serde(borrow)]
    status: wire::Status<'a>,
    /// The task's newest state, which may be ahead of the status.
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

impl<'a> Stream<'a> {
    fn record(&mut self, record: &'a str) -> Result<(), serde_json::Error> {
        let mut event: Event<'a> = serde_json::from_str(record)?;
        // Once only: how deep a document may nest them is up to whoever wrote it.
        if let Some(wrapped) = event.event {
            event = serde_json::from_str(wrapped.get())?;
        }
        match event.kind.as_ref() {
            "SUBSCRIBED" => self.subscribe(event.subscribed)?,
            "TASK_ADDED" => {
                if let Some(TaskAdded { task }) = self.read(event.task_added) {
                    self.add(task);
                }
            }
            "TASK_UPDATED" => {
                if let Some(update) = self.read(event.task_updated) {
                    self.update(update);
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
                    self.tasks.retain(|_, task| task.slave_id.as_ref().is_none_or(|id| id.0 != agent_id.0));
                }
            }
            "FRAMEWORK_ADDED" | "FRAMEWORK_UPDATED" => {
                let changed = event.framework_added.or(event.framework_updated);
                if let Some(FrameworkChanged { framework }) = self.read(changed) {
                    add_framework(&mut self.snapshot, Lenient::Read(framework));
                }
            }
            "FRAMEWORK_REMOVED" => {
                if let Some(framework) = self.read(event.framework_removed)
                    && let Some(id) = framework.framework_info.id
                {
                    self.snapshot.frameworks.remove(id.0.as_ref());
                    self.tasks.retain(|key, _| key.framework != id.0);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A new subscription starts from nothing.
    fn subscribe(&mut self, subscribed: Option<&'a RawValue>) -> Result<(), serde_json::Error> {
        *self = Self { subscribed: true, ..Self::default() };
        let Some(subscribed) = subscribed else { return Ok(()) };
        let mut answer = Answer { snapshot: &mut self.snapshot, tasks: &mut self.tasks, found: false };
        Object(&mut answer).deserialize(&mut serde_json::Deserializer::from_str(subscribed.get()))
    }

    /// An added task may be known already: agents that return list theirs again.
    fn add(&mut self, task: wire::Task<'a>) {
        let key = key(&task.framework_id, &task.id);
        if TaskState::parse(&task.state) == TaskState::Terminal {
            self.tasks.remove(&key);
        } else {
            self.tasks.insert(key, task);
        }
    }

    fn update(&mut self, update: TaskUpdated<'a>) {
        let TaskUpdated { framework_id, status, state } = update;
        let Some(id) = &status.task_id else { return };
        let key = key(&framework_id, id);
        let state = state.unwrap_or_else(|| status.state.clone());
        if TaskState::parse(&state) == TaskState::Terminal {
            self.tasks.remove(&key);
            self.snapshot.ended.insert(key);
        } else if let Some(task) = self.tasks.get_mut(&key) {
            task.state = state;
            task.statuses.get_or_insert_default().push(Lenient::Read(status));
        }
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
