//! Shapes of the events of `SUBSCRIBE`.
//! (<https://mesos.apache.org/documentation/latest/operator-http-api/#event-stream>)

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mesos::wire::{Lenient, MesosAgent, MesosFramework, WrappedText};

/// An event: its type, and the member that goes with it.
#[derive(Deserialize)]
pub struct MesosEvent<'a> {
    #[serde(rename = "type", borrow, default)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub subscribed: Option<&'a RawValue>,
    #[serde(borrow)]
    pub task_added: Option<Lenient<TaskAdded<'a>>>,
    #[serde(borrow)]
    pub task_updated: Option<Lenient<TaskUpdated<'a>>>,
    #[serde(borrow)]
    pub agent_added: Option<Lenient<AgentAdded<'a>>>,
    #[serde(borrow)]
    pub agent_removed: Option<Lenient<AgentRemoved<'a>>>,
    #[serde(borrow)]
    pub framework_added: Option<Lenient<FrameworkChanged<'a>>>,
    #[serde(borrow)]
    pub framework_updated: Option<Lenient<FrameworkChanged<'a>>>,
    #[serde(borrow)]
    pub framework_removed: Option<Lenient<MesosFramework<'a>>>,
    /// The event itself, in recordings that wrap each one to add its time of receipt.
    #[serde(borrow)]
    pub event: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub struct TaskAdded<'a> {
    #[serde(borrow)]
    pub task: &'a RawValue,
}

#[derive(Deserialize)]
pub struct TaskUpdated<'a> {
    #[serde(borrow)]
    pub framework_id: Option<WrappedText<'a>>,
    #[serde(borrow)]
    pub status: &'a RawValue,
    /// Newest state, which may be ahead of the one in `status`.
    #[serde(borrow)]
    pub state: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub struct AgentAdded<'a> {
    #[serde(borrow)]
    pub agent: MesosAgent<'a>,
}

#[derive(Deserialize)]
pub struct AgentRemoved<'a> {
    #[serde(borrow)]
    pub agent_id: WrappedText<'a>,
}

#[derive(Deserialize)]
pub struct FrameworkChanged<'a> {
    #[serde(borrow)]
    pub framework: MesosFramework<'a>,
}

/// Shortest and longest time between heartbeats that a master can state, in seconds. Masters send one
/// every 15 s; a silent stream must not be waited for much longer.
const HEARTBEATS: (f64, f64) = (0.01, 300.0);

/// The member of `SUBSCRIBED` beside the state.
#[derive(Deserialize)]
pub struct Heartbeat {
    #[serde(rename = "heartbeat_interval_seconds")]
    seconds: Option<Lenient<f64>>,
}

impl Heartbeat {
    /// Returns the time between heartbeats, within bounds; `None` if it is missing or no duration.
    pub fn interval(&self) -> Option<Duration> {
        let seconds = *self.seconds.as_ref()?.as_read()?;
        let (shortest, longest) = HEARTBEATS;
        (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.clamp(shortest, longest)))
    }
}
