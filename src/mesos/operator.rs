//! The v1 operator API: answers to calls. Events are in [`super::live`].
//! (<https://mesos.apache.org/documentation/latest/operator-http-api/>)

use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use super::agents::{AgentList, add_framework, pid_address};
use super::error::Error;
use super::fold::{ArrayFold, ArraySeed, ItemCount, ObjectFold, ObjectSeed};
use super::task::{EndedList, add_task};
use super::wire::Lenient;
use crate::cluster::{Master, Snapshot};

/// Reads an answer to `GET_STATE`, of a master or an agent.
pub fn parse_state(text: &str) -> Result<Snapshot, Error> {
    let mut snapshot = Snapshot::default();
    let mut tasks = Direct;
    let mut answer = StateAnswer::new(&mut snapshot, &mut tasks);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    ObjectSeed(&mut answer).deserialize(&mut deserializer)?;
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
        elected_time: Option<Lenient<f64>>,
    }

    #[derive(Deserialize)]
    struct MasterInfo {
        id: String,
        pid: Option<String>,
    }

    let answer: Answer = serde_json::from_slice(answer)?;
    let GetMaster { master_info, elected_time } = answer.get_master.ok_or(Error::Missing("get_master"))?;
    let address = master_info.pid.as_deref().and_then(pid_address).map(|address| address.ip());
    // Only compared; one that is no number is that of no election.
    let elected_time = elected_time.as_ref().and_then(Lenient::as_read).copied().unwrap_or_default();
    Ok(Master { id: master_info.id, elected_time, address })
}

/// Receiver of the tasks of a `get_state`.
pub trait TaskSink<'de> {
    /// Takes one task in its own JSON, and adds it to `snapshot`.
    fn task(&mut self, snapshot: &mut Snapshot, task: &'de RawValue);
}

/// A receiver that keeps nothing of a task beside the snapshot.
struct Direct;

impl<'de> TaskSink<'de> for Direct {
    fn task(&mut self, snapshot: &mut Snapshot, task: &'de RawValue) {
        // Never an error: an unreadable task is a value of its own.
        if let Ok(task) = serde_json::from_str(task.get()) {
            add_task(snapshot, task);
        }
    }
}

/// An object with the member `get_state`: the answer to that call, or what `SUBSCRIBED` holds.
pub struct StateAnswer<'a, S> {
    pub snapshot: &'a mut Snapshot,
    pub tasks: &'a mut S,
    /// Set once `get_state` was found.
    pub found: bool,
    count: ItemCount,
}

impl<'a, S> StateAnswer<'a, S> {
    pub fn new(snapshot: &'a mut Snapshot, tasks: &'a mut S) -> Self {
        Self { snapshot, tasks, found: false, count: ItemCount::default() }
    }
}

impl<'de, S: TaskSink<'de>> ObjectFold<'de> for StateAnswer<'_, S> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if key == "get_state" {
            self.found = true;
            return map.next_value_seed(ObjectSeed(&mut StateMembers {
                snapshot: self.snapshot,
                tasks: self.tasks,
                count: &self.count,
            }));
        }
        map.next_value::<IgnoredAny>().map(drop)
    }
}

/// Fold over `get_state` and its members `get_tasks`, `get_agents` and `get_frameworks`: their own
/// members have distinct names, so that one fold serves all four.
struct StateMembers<'a, S> {
    snapshot: &'a mut Snapshot,
    tasks: &'a mut S,
    count: &'a ItemCount,
}

impl<'de, S: TaskSink<'de>> ObjectFold<'de> for StateMembers<'_, S> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            // The inner objects are folded by this same fold.
            "get_tasks" | "get_agents" | "get_frameworks" => map.next_value_seed(ObjectSeed(self)),
            // Masters list `tasks`, before 1.2 also those of frameworks that have not registered with a new
            // master; agents list `launched_tasks`.
            "tasks" | "orphan_tasks" | "launched_tasks" => {
                let mut tasks = AnswerTasks { snapshot: self.snapshot, tasks: self.tasks };
                map.next_value_seed(ArraySeed(&mut tasks, self.count))
            }
            "completed_tasks" | "terminated_tasks" | "unreachable_tasks" => {
                let unreachable = key == "unreachable_tasks";
                let mut ended = EndedList { snapshot: self.snapshot, unreachable };
                map.next_value_seed(ArraySeed(&mut ended, self.count))
            }
            "agents" | "recovered_agents" => {
                let recovered = key == "recovered_agents";
                let mut agents = AgentList { snapshot: self.snapshot, recovered };
                map.next_value_seed(ArraySeed(&mut agents, self.count))
            }
            "frameworks" => map.next_value_seed(ArraySeed(&mut AnswerFrameworks(self.snapshot), self.count)),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

struct AnswerTasks<'a, S> {
    snapshot: &'a mut Snapshot,
    tasks: &'a mut S,
}

impl<'de, S: TaskSink<'de>> ArrayFold<'de> for AnswerTasks<'_, S> {
    const HOLDS_TASKS: bool = true;

    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<Option<()>, A::Error> {
        let Some(task) = seq.next_element()? else { return Ok(None) };
        self.tasks.task(self.snapshot, task);
        Ok(Some(()))
    }
}

struct AnswerFrameworks<'a>(&'a mut Snapshot);

impl<'de> ArrayFold<'de> for AnswerFrameworks<'_> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<Option<()>, A::Error> {
        let Some(framework) = seq.next_element()? else { return Ok(None) };
        add_framework(self.0, framework);
        Ok(Some(()))
    }
}
