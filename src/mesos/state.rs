//! v0 `/state` of a master or an agent.
//!
//! A master lists running tasks under `frameworks[].tasks`, and before Mesos 1.2 those of frameworks that
//! have not registered with a new master under `orphan_tasks`; an agent lists them under
//! `frameworks[].executors[].tasks`. Agents and framework names are resolved after the whole
//! document was read, because their order in it is not promised.

use std::sync::Arc;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};

use super::agents::{self, AgentList};
use super::error::Error;
use super::fold::{ArrayFold, ArraySeed, ItemCount, ObjectFold, ObjectSeed};
use super::skip::add_skipped;
use super::task::{EndedList, add_task};
use super::wire::{Lenient, RegisteredTime};
use crate::cluster::{Master, Skipped, Snapshot};

/// Reads the `/state` of a master or an agent.
pub fn parse(text: &str) -> Result<Snapshot, Error> {
    let mut document = StateDocument::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    ObjectSeed(&mut document).deserialize(&mut deserializer)?;
    deserializer.end()?;
    document.finish()
}

/// Members of a document as they come, in any order.
#[derive(Default)]
struct StateDocument {
    snapshot: Snapshot,
    count: ItemCount,
    has_frameworks: bool,
    id: Option<String>,
    elected_time: Option<f64>,
    pid: Option<String>,
    hostname: Option<String>,
    leader: Option<String>,
    /// Set by a member that only masters have.
    is_master: bool,
}

impl StateDocument {
    fn finish(self) -> Result<Snapshot, Error> {
        let Self { mut snapshot, has_frameworks, id, elected_time, pid, hostname, leader, is_master, .. } =
            self;
        if !has_frameworks {
            return Err(Error::Missing("frameworks"));
        }
        if is_master {
            let address = pid.as_deref().and_then(agents::pid_address).map(|address| address.ip());
            // A master that answers leads itself: standby masters know no state and redirect.
            let leader = leader.or(pid).as_deref().and_then(agents::pid_address);
            Arc::make_mut(&mut snapshot.names).leader = leader;
            snapshot.master =
                id.map(|id| Master { id, elected_time: elected_time.unwrap_or_default(), address });
        } else if let Some(id) = id {
            // An agent describes itself at the top of its own document.
            let agent = agents::agent(hostname.unwrap_or_default(), pid.as_deref());
            snapshot.agents.insert(id, agent);
        }
        Ok(snapshot)
    }
}

impl<'de> ObjectFold<'de> for StateDocument {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.id = read(map)?,
            "elected_time" => self.elected_time = read(map)?,
            "pid" => self.pid = read(map)?,
            "hostname" => self.hostname = read(map)?,
            "leader" => self.leader = read(map)?,
            // An agent's document has no such list.
            "slaves" => {
                self.is_master = true;
                let mut agents = AgentList { snapshot: &mut self.snapshot, recovered: false };
                map.next_value_seed(ArraySeed(&mut agents, &self.count))?;
            }
            "recovered_slaves" => {
                let mut agents = AgentList { snapshot: &mut self.snapshot, recovered: true };
                map.next_value_seed(ArraySeed(&mut agents, &self.count))?;
            }
            // The names of their frameworks are in no list.
            "orphan_tasks" => {
                map.next_value_seed(ArraySeed(&mut StateTasks(&mut self.snapshot), &self.count))?;
            }
            "frameworks" => {
                self.has_frameworks = true;
                let mut frameworks = StateFrameworks(&mut self.snapshot, &self.count);
                map.next_value_seed(ArraySeed(&mut frameworks, &self.count))?;
            }
            _ => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct StateFrameworks<'a>(&'a mut Snapshot, &'a ItemCount);

impl<'de> ArrayFold<'de> for StateFrameworks<'_> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<Option<()>, A::Error> {
        // Its name may come after its tasks, so that it is added when all members are known.
        let (snapshot, count) = (&mut *self.0, self.1);
        let mut framework = StateFramework {
            snapshot,
            count,
            id: None,
            name: None,
            registered: None,
            pid: None,
            hostname: None,
        };
        let Some(()) = seq.next_element_seed(ObjectSeed(&mut framework))? else { return Ok(None) };
        // A framework without a name gives no names to VIPs, and its tasks are reported as skipped.
        let StateFramework { id, name, registered, pid, hostname, .. } = framework;
        if let (Some(id), Some(name)) = (id, name) {
            agents::add_scheduler(self.0, &id, pid.as_deref(), hostname.as_deref());
            if let Some(time) = registered.and_then(|time| time.timestamp()) {
                self.0.registered.insert(id.clone(), time);
            }
            self.0.frameworks.insert(id, name);
        }
        Ok(Some(()))
    }

    fn mismatch(&mut self) {
        add_skipped(&mut self.0.skipped, misplaced("frameworks", "not a list"));
    }
}

struct StateFramework<'a> {
    snapshot: &'a mut Snapshot,
    count: &'a ItemCount,
    id: Option<String>,
    name: Option<String>,
    registered: Option<RegisteredTime>,
    pid: Option<String>,
    hostname: Option<String>,
}

impl<'de> ObjectFold<'de> for StateFramework<'_> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.id = read(map)?,
            "name" => self.name = read(map)?,
            "registered_time" => self.registered = read(map)?,
            "pid" => self.pid = read(map)?,
            "hostname" => self.hostname = read(map)?,
            "tasks" => map.next_value_seed(ArraySeed(&mut StateTasks(self.snapshot), self.count))?,
            // Agents list their tasks one level further down.
            "executors" => {
                let mut executors = StateExecutors(self.snapshot, self.count);
                map.next_value_seed(ArraySeed(&mut executors, self.count))?;
            }
            "completed_tasks" | "unreachable_tasks" => {
                let unreachable = key == "unreachable_tasks";
                let mut ended = EndedList { snapshot: self.snapshot, unreachable };
                map.next_value_seed(ArraySeed(&mut ended, self.count))?;
            }
            _ => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn mismatch(&mut self) {
        add_skipped(&mut self.snapshot.skipped, misplaced("frameworks[]", "a framework is not an object"));
    }
}

struct StateExecutors<'a>(&'a mut Snapshot, &'a ItemCount);

impl<'de> ArrayFold<'de> for StateExecutors<'_> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<Option<()>, A::Error> {
        seq.next_element_seed(ObjectSeed(&mut StateExecutor(self.0, self.1)))
    }
}

struct StateExecutor<'a>(&'a mut Snapshot, &'a ItemCount);

impl<'de> ObjectFold<'de> for StateExecutor<'_> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "tasks" => map.next_value_seed(ArraySeed(&mut StateTasks(self.0), self.1)),
            "completed_tasks" => {
                let mut ended = EndedList { snapshot: self.0, unreachable: false };
                map.next_value_seed(ArraySeed(&mut ended, self.1))
            }
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

struct StateTasks<'a>(&'a mut Snapshot);

impl<'de> ArrayFold<'de> for StateTasks<'_> {
    const HOLDS_TASKS: bool = true;

    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<Option<()>, A::Error> {
        let Some(task) = seq.next_element()? else { return Ok(None) };
        add_task(self.0, task);
        Ok(Some(()))
    }

    fn mismatch(&mut self) {
        add_skipped(&mut self.0.skipped, misplaced("tasks", "not a list"));
    }
}

/// Reads a scalar member; `None` if it has another type.
fn read<'de, T: serde::Deserialize<'de>, A: MapAccess<'de>>(map: &mut A) -> Result<Option<T>, A::Error> {
    Ok(match map.next_value::<Lenient<T>>()? {
        Lenient::Read(value) => Some(value),
        Lenient::Unreadable { .. } => None,
    })
}

fn misplaced(place: &str, reason: &str) -> Skipped {
    Skipped { task: place.to_owned(), reason: reason.to_owned(), ..Skipped::default() }
}
