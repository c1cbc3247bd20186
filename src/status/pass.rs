//! What one pass of the reconcile loop did: the one value that status, events and metrics read.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dataplane::connects::Connects;
use crate::dataplane::{Op, OpError, ServiceKey, Unreached};

/// Event that made the loop run a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// First pass after the start.
    #[default]
    Start,
    /// The believed cluster has changed.
    Cluster,
    /// The source was confirmed, failed or answers again; the believed cluster is the same.
    Source,
    /// Links, addresses, routes or netfilter rules of the node have changed.
    Network,
    /// The state of the DNS server has changed.
    Dns,
    /// The state of the HTTP server has changed.
    Http,
    /// A client asked for a comparison.
    Request,
    /// Operations of the last pass failed.
    Retry,
    /// A server has drained, or a VIP is to be forgotten.
    Due,
    /// The audit interval has passed.
    Audit,
    /// The configuration was read again.
    Configuration,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 11] = [
        Self::Start,
        Self::Cluster,
        Self::Source,
        Self::Network,
        Self::Dns,
        Self::Http,
        Self::Request,
        Self::Retry,
        Self::Due,
        Self::Audit,
        Self::Configuration,
    ];

    /// Returns the cause as programs know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Cluster => "cluster",
            Self::Source => "source",
            Self::Network => "network",
            Self::Dns => "dns",
            Self::Http => "http",
            Self::Request => "request",
            Self::Retry => "retry",
            Self::Due => "due",
            Self::Audit => "audit",
            Self::Configuration => "configuration",
        }
    }
}

/// Completes the sentence "..., because".
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "the daemon had started",
            Self::Cluster => "the cluster had changed",
            Self::Source => "the source had answered or failed",
            Self::Network => "the node's network had changed",
            Self::Dns => "the DNS server had changed",
            Self::Http => "the HTTP server had changed",
            Self::Request => "a client had asked for a comparison",
            Self::Retry => "operations had failed",
            Self::Due => "the time of a backend or VIP was over",
            Self::Audit => "the audit was due",
            Self::Configuration => "the configuration had changed",
        })
    }
}

/// Part of the kernel that a pass changed or tried to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub services: BTreeSet<ServiceKey>,
    /// Set when something besides services was concerned: link, addresses, routes, rules or settings.
    pub beside_services: bool,
}

impl Scope {
    /// Returns what `ops` concern.
    pub fn of(ops: &[Op]) -> Self {
        let services = ops.iter().filter_map(Op::service).copied().collect();
        Self { services, beside_services: ops.iter().any(|op| op.service().is_none()) }
    }
}

/// Time that the parts of a pass took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    pub read: Duration,
    pub plan: Duration,
    pub apply: Duration,
    pub total: Duration,
}

/// Result of one pass.
#[derive(Clone, Debug, Default)]
pub struct PassReport {
    pub at: Timestamp,
    pub cause: Cause,
    pub scope: Scope,
    /// Operations in the order in which they were carried out.
    pub operations: Vec<Op>,
    /// Operations that failed; they are among `operations`.
    pub failed: Vec<OpError>,
    /// Error that concerns the pass as a whole: the kernel could not be read, or the plane could not
    /// finish.
    pub error: Option<String>,
    /// Connections to deleted servers that could not be ended, because they are where this daemon cannot look.
    pub unreached: Option<Unreached>,
    /// What had become of connects to all VIPs when the kernel was read, if it tells.
    pub connects: Option<Connects>,
    /// Number of servers that clients passed over then.
    pub ejected: usize,
    /// Set when the operations repair what another program changed.
    pub is_repair: bool,
    pub timings: Timings,
}

/// A change of the kernel in several parts that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongChange {
    pub operations: usize,
    pub since: Timestamp,
    /// Set if it repairs what another program changed.
    pub is_repair: bool,
}

/// Cause, scope and times of a pass with operations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub cause: Cause,
    /// Number of virtual services.
    pub services: usize,
    pub beside_services: bool,
    pub read_seconds: f64,
    pub plan_seconds: f64,
    pub apply_seconds: f64,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beside = if self.beside_services { " and what is beside them" } else { "" };
        write!(
            f,
            "of {} services{beside}, because {}; read in {:.3} s, planned in {:.3} s, applied in {:.3} s",
            self.services, self.cause, self.read_seconds, self.plan_seconds, self.apply_seconds
        )
    }
}

impl PassReport {
    /// Returns what the status tells of a pass with operations.
    pub fn change(&self) -> Change {
        Change {
            cause: self.cause,
            services: self.scope.services.len(),
            beside_services: self.scope.beside_services,
            read_seconds: self.timings.read.as_secs_f64(),
            plan_seconds: self.timings.plan.as_secs_f64(),
            apply_seconds: self.timings.apply.as_secs_f64(),
        }
    }

    /// Returns the number of errors.
    pub fn error_count(&self) -> usize {
        self.failed.len() + usize::from(self.error.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Protocol;

    #[test]
    fn a_scope_has_each_service_once() {
        let key = ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, 1].into(), port: 80 };
        let server = "10.0.0.1:80".parse().unwrap();
        let ops = [Op::DelServer(key, server), Op::DelService(key)];
        assert_eq!(Scope::of(&ops), Scope { services: [key].into(), beside_services: false });
        assert_eq!(Scope::of(&[Op::AddLink]), Scope { services: BTreeSet::new(), beside_services: true });
        assert_eq!(Scope::of(&[]), Scope::default());
    }
}
