//! The v1 operator API: answers to calls. Events are in [`super::live`].

use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use super::Error;
use super::fold::{Array, ArrayFold, Object, ObjectFold};
use super::normalise::{self, Ended};
use super::wire::{self, Lenient};
use crate::cluster::{Master, Skipped, Snapshot};

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

/// Reads an answer to `GET_MASTER`.
pub fn parse_master(answer: &[u8]) -> Result<Master, Error> {
    #[derive(Deserialize)]
    struct Answer {
        get_master: Option<GetMaster>,
    }

    #[derive(Deserialize)]
    struct GetMaster {
        master_info: MasterInfo,
        elected_time: Option<f64>,
    }

    #[derive(Deserialize)]
    struct MasterInfo {
        id: String,
        pid: Option<String>,
    }

    let answer: Answer = serde_json::from_slice(answer)?;
    let GetMaster { master_info, elected_time } = answer.get_master.ok_or(Error::Missing("get_master"))?;
    let address = master_info.pid.as_deref().and_then(normalise::pid_address);
    Ok(Master { id: master_info.id, elected_time: elected_time.unwrap_or_default(), address })
}

/// Where the tasks of a `get_state` go.
pub trait TaskSink<'de> {
    fn task(&mut self, snapshot: &mut Snapshot, task: &'de RawValue);
}

/// Normalises each task as it comes.
struct Direct;

impl<'de> TaskSink<'de> for Direct {
    fn task(&mut self, snapshot: &mut Snapshot, task: &'de RawValue) {
        if let Ok(task) = serde_json::from_str(task.get()) {
            normalise::add_task(snapshot, task);
        }
    }
}

/// An object with the member `get_state`: the answer to that call, or what `SUBSCRIBED` holds.
pub struct Answer<'a, S> {
    pub snapshot: &'a mut Snapshot,
    pub tasks: &'a mut S,
    pub found: bool,
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
                let unreachable = key == "unreachable_tasks";
                map.next_value_seed(Array(&mut Ended { snapshot: self.snapshot, unreachable }))
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

/// Notes a framework's name.
pub fn add_framework(snapshot: &mut Snapshot, framework: Lenient<wire::Framework<'_>>) {
    match framework {
        Lenient::Read(wire::Framework {
            framework_info: wire::FrameworkInfo { id: Some(id), name, hostname },
        }) => {
            normalise::add_scheduler(snapshot, &id.0, None, hostname.as_deref());
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
