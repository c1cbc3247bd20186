//! What an operator sees: one serialisable document, shared by the daemon and its clients.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cluster::{Protocol, Skipped};
use crate::dataplane::{Connections, Foreign, PlaneChoice};
use crate::source::Failure;
use crate::vip::Condition;

pub mod build;
pub mod explain;
pub mod pass;

/// State of a daemon at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// Whether something needs an operator; [`Status::reasons`] says what.
    pub degraded: bool,
    pub reasons: Vec<String>,
    pub node: Node,
    pub source: Source,
    pub pass: Pass,
    pub dns: Dns,
    /// Shared, because it is large and seldom changes.
    pub vips: Arc<Vec<Vip>>,
    /// Labels and tasks that yield nothing, and why; the first of them.
    pub skipped: Arc<Vec<Skipped>>,
    /// How many they are.
    pub skipped_total: usize,
    /// What works, but not as its users may expect.
    pub warnings: Vec<String>,
    /// Virtual services of others.
    pub foreign: Vec<Foreign>,
    /// When this was written.
    pub at: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub hostname: String,
    pub address: Option<IpAddr>,
    pub address6: Option<IpAddr>,
    #[serde(default)]
    pub dataplane: PlaneChoice,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    pub configured: Vec<String>,
    /// Where the last good document came from.
    pub place: String,
    /// Id of the leading master.
    pub master: Option<String>,
    /// When the source last confirmed its document.
    pub good_at: Option<Timestamp>,
    pub failure: Option<Failure>,
    /// How often the source is asked, and why not more often.
    #[serde(default)]
    pub pace: String,
    pub agents: usize,
    /// Tasks with VIP labels.
    pub tasks: usize,
    /// What is kept although the newest document lacks it.
    pub held: Vec<String>,
}

/// The DNS server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Why it doesn't.
    pub error: Option<String>,
    /// Why systemd-resolved does not ask it, where it runs and should.
    #[serde(default)]
    pub resolved: Option<String>,
}

/// The last comparison of the kernel with what it should hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    pub at: Option<Timestamp>,
    pub seconds: f64,
    /// Operations of the last pass that changed anything.
    pub operations: usize,
    /// Operations left to do, while a long pass is under way.
    pub pending: usize,
    pub changed_at: Option<Timestamp>,
    pub errors: Vec<String>,
    /// Differences, since the daemon started, that somebody else had made and that were repaired.
    pub repaired: u64,
    pub repaired_at: Option<Timestamp>,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vip {
    /// Full name, for named VIPs.
    pub name: Option<String>,
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    /// Kernel name of the scheduler, where it is not the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    pub backends: Vec<Backend>,
}

/// A real server, with the task behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
    pub weight: u32,
    /// Why it has that weight; absent where only a document was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// When one that has gone is deleted at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Task id.
    pub task: String,
    /// Agent id.
    pub agent: String,
    /// Connections in the kernel; absent where no kernel was asked.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
}

impl Status {
    /// One line: what is wrong first of all, and how many VIPs there are.
    pub fn summary(&self) -> String {
        match self.reasons.first() {
            Some(reason) => format!("degraded: {reason} ({})", self.counts()),
            None => self.counts(),
        }
    }

    /// How many VIPs there are, and how many of them have nobody to serve them.
    pub fn counts(&self) -> String {
        let dead = |vip: &&Vip| vip.backends.iter().all(|backend| backend.weight == 0);
        format!(
            "{} VIPs, {} without a healthy backend, {} skipped",
            self.vips.len(),
            self.vips.iter().filter(dead).count(),
            self.skipped_total
        )
    }
}

/// Time from `then` to `now` in whole seconds, such as `3m 12s`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    format!("{:#}", jiff::SignedDuration::from_secs(seconds))
}

/// How a backend is, in words.
pub fn condition(backend: &Backend, now: Timestamp) -> String {
    let left = |until| format!("gone, kept for {}", age(now, until));
    match backend.condition {
        None if backend.weight > 0 => "ready".to_owned(),
        None => "no new connections".to_owned(),
        Some(Condition::Ready) => "ready".to_owned(),
        Some(Condition::Unreachable) => "agent lost".to_owned(),
        Some(Condition::Unhealthy) => "unhealthy".to_owned(),
        Some(Condition::Stopping) => "stopping".to_owned(),
        Some(Condition::Inherited) => "as before start".to_owned(),
        Some(Condition::Gone) => backend.until.map_or_else(|| "gone".to_owned(), left),
    }
}
