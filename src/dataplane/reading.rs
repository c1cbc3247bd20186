//! Results that a reading of the kernel yields.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::connects::Seen;
use super::effect::carry_out;
use super::firewall::Dropped;
use super::node::Node;
use super::op::Op;
use super::state::{Connections, Foreign, ServerKey, ServiceKey, State, of_service};
use super::traffic::{Counted, ServerTraffic, ServiceTraffic};

/// One reading of the kernel.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    pub state: State,
    /// Services that are not ours.
    pub foreign: Vec<Foreign>,
    /// Connections of each real server of ours.
    pub connections: BTreeMap<ServerKey, Connections>,
    /// Outcome of connects; `None` if the plane does not see it.
    pub seen: Option<Seen>,
    /// Traffic of the servers of each service; empty if the plane sees no packets.
    pub traffic: ServerTraffic,
    /// Packets of containers that a firewall of the node keeps from us; `None` for none.
    pub dropped: Option<Dropped>,
    pub node: Node,
}

impl Actual {
    /// Takes in what was counted since.
    pub fn note_counts(&mut self, counted: Counted) {
        self.connections.extend(counted.connections);
        self.note_traffic(counted.traffic);
    }

    /// Takes in the traffic of some services.
    pub fn note_traffic(&mut self, traffic: Vec<(ServiceKey, Arc<ServiceTraffic>)>) {
        for (key, service) in traffic {
            self.traffic.insert(key, service);
        }
    }

    /// Follows an operation that the kernel has carried out. Returns false if this reading did not let expect
    /// that, so that it is no longer to be trusted.
    #[must_use]
    pub fn follow(&mut self, op: &Op) -> bool {
        // The kernel has told that no service of another program is in the way.
        if carry_out(&mut self.state, &[], op).is_err() {
            return false;
        }
        // A server that is added later starts without connections.
        match op {
            Op::DelServer(key, address) => {
                self.connections.remove(&(*key, *address));
                self.seen.iter_mut().for_each(|seen| seen.forget_server(&(*key, *address)));
                ServiceTraffic::forget(&mut self.traffic, key, address);
            }
            Op::DelService(key) => {
                let gone: Vec<_> = of_service(&self.connections, key).map(|(server, _)| *server).collect();
                gone.iter().for_each(|server| {
                    self.connections.remove(server);
                });
                self.seen.iter_mut().for_each(|seen| seen.forget_service(key));
                self.traffic.remove(key);
            }
            _ => {}
        }
        true
    }
}

/// Thoroughness of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Enough after a look through everything, see [`super::DataPlane::look_on`]: may go by what that found and by
    /// what this program has changed since.
    Audit,
    /// Everything from the kernel itself, at once.
    Full,
}

/// Connections that should have been ended, and may still be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// Largest number that they can be: those are among them whose process has not noticed yet that they are closed.
    pub connections: u64,
    /// Reason why they were not reached, in words.
    pub reason: String,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, reason } = self;
        write!(f, "up to {connections} connections to servers that have gone were not ended: {reason}")
    }
}
