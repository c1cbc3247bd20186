//! Events that the runner waits for.

use tokio::sync::mpsc::UnboundedSender;

use crate::demo::agent::AgentReport;
use crate::demo::client::ClientRecord;
use crate::demo::scenario::AgentId;
use crate::status::Status;

/// Report of a process of the demonstration.
#[derive(Debug)]
pub enum RunnerEvent {
    Agent(AgentId, AgentReport),
    Client(ClientRecord),
    /// The daemon has answered a request for its status.
    Status(Box<Status>),
    /// A process has closed its output; its name, for an error.
    Closed(String),
}

pub type EventSender = UnboundedSender<RunnerEvent>;
