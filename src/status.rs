//! The status that operators see: one serialisable document, shared by the daemon and its clients.
//!
//! What belongs here: the document (this file), what it is made of ([`build`], [`pass`], [`health`]), what takes long ([`progress`]), how it is written
//! ([`mod@document`]), the story of one VIP ([`story`]), its text form ([`text`]), the VIPs that lead by a figure ([`top`]), and the table of a
//! document without a kernel ([`explain`]).

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use health::{ReasonDetail, VipHealth, details, vip_health};
use jiff::Timestamp;
use pass::{Change, LongChange};
use serde::{Deserialize, Serialize};

use crate::cluster::{Protocol, Skipped};
use crate::dataplane::connects::{Connects, Ejected, ServiceConnects};
use crate::dataplane::traffic::Traffic;
use crate::dataplane::{Connections, Foreign, PlaneChoice};
use crate::dns::DnsState;
use crate::plan::shares::SharedUse;
use crate::source::Failure;
use crate::vip::Condition;

pub mod build;
pub mod document;
pub mod explain;
pub mod health;
pub mod pass;
pub mod progress;
pub mod story;
pub mod text;
pub mod top;

/// State of a daemon at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// Set when something needs an operator; [`Status::reasons`] says what.
    pub degraded: bool,
    pub reasons: Vec<String>,
    /// Time from which it has been degraded, or has not been; absent in statuses of older daemons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Additions to the reasons, in their order.
    #[serde(default)]
    pub details: Vec<ReasonDetail>,
    pub node: Node,
    pub source: Source,
    pub pass: Pass,
    pub dns: DnsState,
    /// State of the HTTP server; absent in statuses of older daemons.
    #[serde(default)]
    pub http: HttpState,
    /// Empty within the daemon, which makes them while they are sent; see [`document`].
    pub vips: Vec<Vip>,
    /// Numbers of all VIPs, whichever are listed; without them those that are listed count.
    #[serde(default, rename = "counts", skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counts>,
    /// Use of what tenants share.
    #[serde(default)]
    pub shared: Vec<SharedUse>,
    /// Labels and tasks that yield nothing, and why; the first of them.
    pub skipped: Arc<Vec<Skipped>>,
    /// Number of all skipped entries.
    pub skipped_total: usize,
    /// Remarks on VIPs that work, but not as their users may expect.
    pub warnings: Vec<String>,
    /// Virtual services of other programs.
    pub foreign: Vec<Foreign>,
    /// Time of this status.
    pub at: Timestamp,
}

/// State of the HTTP server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpState {
    /// Address that it listens on; absent if it does not.
    pub address: Option<SocketAddr>,
    /// Reason why it does not, although it should.
    pub error: Option<String>,
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
    /// URL or path of the last good document.
    pub place: String,
    /// Id of the leading master.
    pub master: Option<String>,
    /// Time at which the source last confirmed its document.
    pub good_at: Option<Timestamp>,
    pub failure: Option<Failure>,
    /// Set while an answer is so late that the state may be outdated, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overdue: Option<String>,
    /// Interval between two questions, with its reason.
    #[serde(default)]
    pub pace: String,
    pub agents: usize,
    /// Tasks with VIP labels.
    pub tasks: usize,
    /// Reasons for which tasks are kept although the newest document lacks them.
    pub held: Vec<String>,
}

/// Figures of the passes, each of the last pass that had it to tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// Time of the last comparison of the kernel with what it should hold.
    pub at: Option<Timestamp>,
    /// Duration of that pass.
    pub seconds: f64,
    /// Number of operations of the last pass that had any.
    pub operations: usize,
    /// Operations left to do, while a long pass is under way.
    pub pending: usize,
    /// That pass; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<LongChange>,
    /// Time of the last pass that had operations.
    pub changed_at: Option<Timestamp>,
    /// Cause, scope and times of that pass; absent in statuses of older daemons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// Errors of the last pass, also of one that came to no comparison; the first of them.
    pub errors: Vec<String>,
    /// Number of repaired differences that other programs had made since the daemon started.
    pub repaired: u64,
    pub repaired_at: Option<Timestamp>,
    /// Number of audits that found the plan to be another one than the whole plan, which is a defect.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub defects: u64,
    /// What became of connects to all VIPs; absent where the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connects: Option<Connects>,
    /// Number of backends that clients pass over, because connects have failed; absent for none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub ejected: usize,
}

fn is_none(number: &usize) -> bool {
    *number == 0
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A virtual service. `T` is its text, which the daemon borrows from where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vip<T = String> {
    /// Full name, for named VIPs.
    pub name: Option<T>,
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    /// Kernel name of the scheduler, where it is not the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<T>,
    /// Counts of connects by their outcome; absent where the kernel does not tell, or has seen none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connects: Option<ServiceConnects>,
    /// Set if a label keeps its backends from being ejected; false where the data plane ejects none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_ejection: bool,
    pub backends: Vec<Backend<T>>,
}

/// Share of new connections that a backend is given, where backends of its VIP are given different ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Share in percent, to a tenth.
    pub percent: f64,
    /// Weight in the kernel.
    pub kernel_weight: u32,
    /// Weight by the label of its task.
    pub label_weight: u16,
    /// Part of its own share that it is given while it is new, in percent; 100 for any other.
    pub warm_percent: u16,
}

/// A real server, with the task behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend<T = String> {
    pub address: IpAddr,
    pub port: u16,
    pub weight: u32,
    /// Reason for the weight; absent in statuses of older daemons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// Latest time at which a server whose task has gone is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Task id.
    pub task: T,
    /// Agent id.
    pub agent: T,
    /// Connections in the kernel; absent where no kernel was asked.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// What became of connects to this backend; absent where the VIP has no such figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connects: Option<Connects>,
    /// Set while clients pass over this backend, because connects have failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected: Option<Ejected>,
    /// Traffic to this backend through the VIP; absent where the kernel does not count it, or has counted none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<BackendTraffic>,
    /// Share of new connections; absent where all backends of the VIP that take some have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

/// Traffic of a backend, read in rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTraffic {
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Time at which it was read.
    pub at: Timestamp,
}

/// Numbers of VIPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub vips: usize,
    /// VIPs without a backend that takes new connections.
    pub dead: usize,
}

impl Vip<Cow<'_, str>> {
    /// Returns the same with text of its own.
    pub fn into_owned(self) -> Vip {
        let Self { name, protocol, address, port, scheduler, connects, no_ejection, backends } = self;
        let backend = |backend: Backend<Cow<'_, str>>| Backend {
            address: backend.address,
            port: backend.port,
            weight: backend.weight,
            condition: backend.condition,
            until: backend.until,
            task: backend.task.into_owned(),
            agent: backend.agent.into_owned(),
            connections: backend.connections,
            connects: backend.connects,
            ejected: backend.ejected,
            traffic: backend.traffic,
            share: backend.share,
        };
        Vip {
            name: name.map(Cow::into_owned),
            protocol,
            address,
            port,
            scheduler: scheduler.map(Cow::into_owned),
            connects,
            no_ejection,
            backends: backends.into_iter().map(backend).collect(),
        }
    }
}

impl Vip {
    /// Returns how well it is.
    pub fn health(&self) -> VipHealth {
        vip_health(self.backends.iter().map(|backend| (backend.weight, backend.condition)))
    }
}

impl Status {
    /// Takes in the reasons of now.
    pub fn note_reasons(&mut self, reasons: Vec<String>, now: Timestamp) {
        let is_degraded = !reasons.is_empty();
        if self.since.is_none() || self.degraded != is_degraded {
            self.since = Some(now);
        }
        self.details = details(&reasons, &self.details, now);
        self.degraded = is_degraded;
        self.reasons = reasons;
    }

    /// One line: what is wrong first of all, and how many VIPs there are.
    pub fn summary(&self) -> String {
        match self.reasons.first() {
            Some(reason) => format!("degraded: {reason} ({})", self.counts()),
            None => self.counts(),
        }
    }

    /// Returns the numbers of VIPs.
    pub fn numbers(&self) -> Counts {
        let is_dead = |vip: &&Vip| vip.backends.iter().all(|backend| backend.weight == 0);
        let listed = || Counts { vips: self.vips.len(), dead: self.vips.iter().filter(is_dead).count() };
        self.counted.unwrap_or_else(listed)
    }

    /// Returns the numbers of VIPs, of those without a healthy backend, and of skipped entries.
    pub fn counts(&self) -> String {
        let Counts { vips, dead } = self.numbers();
        format!("{vips} VIPs, {dead} without a healthy backend, {} skipped", self.skipped_total)
    }
}
