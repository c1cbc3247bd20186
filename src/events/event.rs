//! One event, and its words.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cluster::shortened;
use crate::vip::{Tenant, VipKey};

/// VIPs that one event names; a task can have 256.
const MAX_VIPS: usize = 8;

/// Characters of an event's sentence.
const MAX_TEXT: usize = 400;

/// Events that come of one document or pass at most; more are told by their number.
pub const MOST: usize = 500;

/// Kind of what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    DaemonStarted,
    DaemonStopped,
    VersionChanged,
    ConfigurationChanged,
    DataPlaneChanged,
    FirstState,
    SourceLost,
    SourceRegained,
    MasterChanged,
    HoldBegun,
    HoldOver,
    LossAccepted,
    AgentRegistered,
    AgentGone,
    TaskStarted,
    TaskHealthy,
    TaskUnhealthy,
    TaskStopping,
    TaskEnded,
    TaskLost,
    TaskVanished,
    TaskDisplaced,
    TaskChanged,
    LabelRefused,
    LabelAccepted,
    VipAdded,
    VipRemoved,
    VipDead,
    VipAlive,
    DrainBegun,
    DrainEnded,
    DrainCalledOff,
    DriftRepaired,
    NodeChanged,
    KernelRefused,
    KernelAgrees,
    /// More happened at once than is listed.
    LeftOut,
    /// Of a later version of the program.
    #[serde(other)]
    Unknown,
}

impl EventKind {
    /// All kinds.
    pub const ALL: &[Self] = &[
        Self::DaemonStarted,
        Self::DaemonStopped,
        Self::VersionChanged,
        Self::ConfigurationChanged,
        Self::DataPlaneChanged,
        Self::FirstState,
        Self::SourceLost,
        Self::SourceRegained,
        Self::MasterChanged,
        Self::HoldBegun,
        Self::HoldOver,
        Self::LossAccepted,
        Self::AgentRegistered,
        Self::AgentGone,
        Self::TaskStarted,
        Self::TaskHealthy,
        Self::TaskUnhealthy,
        Self::TaskStopping,
        Self::TaskEnded,
        Self::TaskLost,
        Self::TaskVanished,
        Self::TaskDisplaced,
        Self::TaskChanged,
        Self::LabelRefused,
        Self::LabelAccepted,
        Self::VipAdded,
        Self::VipRemoved,
        Self::VipDead,
        Self::VipAlive,
        Self::DrainBegun,
        Self::DrainEnded,
        Self::DrainCalledOff,
        Self::DriftRepaired,
        Self::NodeChanged,
        Self::KernelRefused,
        Self::KernelAgrees,
        Self::LeftOut,
        Self::Unknown,
    ];

    /// Returns true for what an operator may have to look at.
    pub fn is_warning(self) -> bool {
        matches!(
            self,
            Self::SourceLost
                | Self::HoldBegun
                | Self::TaskUnhealthy
                | Self::TaskLost
                | Self::TaskVanished
                | Self::TaskDisplaced
                | Self::LabelRefused
                | Self::VipDead
                | Self::DriftRepaired
                | Self::KernelRefused
        )
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The name that programs read is the one that people read.
        self.serialize(f)
    }
}

/// Something that happened, to whom, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    pub kind: EventKind,
    /// Sentence for people.
    pub text: String,
    /// Document, event or finding that it comes from, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<VipKey>,
    /// Address and port of the only VIP, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub task: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// Id of the framework; empty for what concerns the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub framework: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub app: String,
    /// Circumstances that the next start compares with its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

impl Happening {
    /// Something that concerns the node; text of unknown origin in `text` is cut.
    pub fn new(kind: EventKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            cause: String::new(),
            vips: Vec::new(),
            service: None,
            backend: None,
            task: String::new(),
            agent: String::new(),
            framework: String::new(),
            app: String::new(),
            facts: BTreeMap::new(),
        }
    }

    /// Says that more happened than is listed; `None` where nothing is left out. The number is rounded, so that the
    /// next flood is the same event once more.
    pub fn left_out(count: usize, things: &str) -> Option<Self> {
        let least = 1 << count.checked_ilog2()?;
        let text = format!("at least {least} more {things} at once, which are not listed");
        Some(Self::new(EventKind::LeftOut, text))
    }

    /// Adds the app whose share of the history this takes.
    #[must_use]
    pub fn of_tenant(self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self };
        Self { framework: tenant.framework.to_string(), app: tenant.app.to_string(), ..self }
    }

    /// Cuts what is long: foreign text is as long as its author wants.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.vips.truncate(MAX_VIPS);
        if let Some((end, _)) = self.text.char_indices().nth(MAX_TEXT) {
            self.text.truncate(end);
            self.text.push_str("...");
        }
        for field in [&mut self.cause, &mut self.task, &mut self.agent, &mut self.framework, &mut self.app] {
            *field = shortened(std::mem::take(field));
        }
        self
    }
}

/// An event of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows from event to event, across restarts too.
    pub id: u64,
    /// Time at which it happened, for the last time.
    pub at: Timestamp,
    /// Number of times that it happened.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub count: u64,
    /// Time at which it happened first, where that was more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_at: Option<Timestamp>,
    /// Id under which it was known when it had happened less often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u64>,
    #[serde(flatten)]
    pub what: Happening,
}

fn once() -> u64 {
    1
}

fn is_once(count: &u64) -> bool {
    *count == 1
}

/// A line for people, which the one who prints it has to escape.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Happening { kind, text, cause, vips, task, agent, .. } = &self.what;
        write!(f, "{:.0}  {:<15}  ", self.at, kind.to_string())?;
        if !vips.is_empty() {
            let vips: Vec<String> = vips.iter().map(VipKey::to_string).collect();
            write!(f, "{}: ", vips.join(", "))?;
        }
        f.write_str(text)?;
        let mut details = Vec::new();
        if !task.is_empty() {
            details.push(format!("task {task}"));
        }
        if !agent.is_empty() {
            details.push(format!("agent {agent}"));
        }
        if !cause.is_empty() {
            details.push(cause.clone());
        }
        if !details.is_empty() {
            write!(f, " ({})", details.join(", "))?;
        }
        match self.first_at {
            Some(first) => write!(f, " [{} times since {first:.0}]", self.count),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Protocol;
    use crate::vip::Host;

    fn event() -> Event {
        let host = Host::Named("web.marathon".to_owned());
        let mut what = Happening::new(EventKind::TaskUnhealthy, "its health check fails");
        what.vips = vec![VipKey { host, protocol: Protocol::Tcp, port: 80 }];
        (what.task, what.agent) = ("web.1".to_owned(), "S1".to_owned());
        what.cause = "document of http://m:5050/state".to_owned();
        Event { id: 7, at: Timestamp::UNIX_EPOCH, count: 1, first_at: None, replaces: None, what }
    }

    #[test]
    fn a_line_says_when_what_whom_and_why() {
        let mut event = event();
        let line = "1970-01-01T00:00:00Z  task-unhealthy   tcp web.marathon:80: its health check fails (task web.1, \
                    agent S1, document of http://m:5050/state)";
        assert_eq!(event.to_string(), line);
        (event.count, event.first_at) = (3, Some(Timestamp::UNIX_EPOCH));
        assert_eq!(event.to_string(), format!("{line} [3 times since 1970-01-01T00:00:00Z]"));
    }

    #[test]
    fn an_event_is_read_as_it_was_written_and_one_of_a_later_version_as_well() {
        let text = serde_json::to_string(&event()).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event());
        let later = text.replace("task-unhealthy", "task-moved").replace("\"id\"", "\"new\":1,\"id\"");
        assert_eq!(serde_json::from_str::<Event>(&later).unwrap().what.kind, EventKind::Unknown);
    }

    #[test]
    fn long_text_is_cut() {
        let long = "x".repeat(100_000);
        let mut what = Happening::new(EventKind::LabelRefused, long.clone());
        (what.task, what.app, what.cause) = (long.clone(), long.clone(), long);
        what.vips = vec![event().what.vips[0].clone(); 256];
        let octets = serde_json::to_string(&what.bounded()).unwrap().len();
        assert!(octets < 2_000, "{octets}");
    }
}
