//! What one pass of the reconcile loop did: the one value that status, events and metrics read.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::dataplane::{Op, OpError, ServiceKey, Unreached};

/// Event that made the loop run a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// A client asked for an up-to-date status.
    Request,
    /// Operations of the last pass failed.
    Retry,
    /// A server has drained, or a VIP is to be forgotten.
    Due,
    /// The audit interval has passed.
    Audit,
}

/// Part of the kernel that a pass changed or tried to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub services: BTreeSet<ServiceKey>,
    /// Set when something besides services was concerned: link, addresses, routes, rules or settings.
    pub surroundings: bool,
}

impl Scope {
    /// Returns what `ops` concern.
    pub fn of(ops: &[Op]) -> Self {
        let services = ops.iter().filter_map(Op::service).copied().collect();
        Self { services, surroundings: ops.iter().any(|op| op.service().is_none()) }
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
    /// Set when the operations repair what another program changed.
    pub is_repair: bool,
    pub timings: Timings,
}

impl PassReport {
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
        assert_eq!(Scope::of(&ops), Scope { services: [key].into(), surroundings: false });
        assert_eq!(Scope::of(&[Op::AddLink]), Scope { services: BTreeSet::new(), surroundings: true });
        assert_eq!(Scope::of(&[]), Scope::default());
    }
}
