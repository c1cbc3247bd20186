//! What a reading of the kernel yields.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use super::node::Node;
use super::state::{Connections, Foreign, ServiceKey, State};

/// One reading of the kernel.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    pub state: State,
    /// Services that are not ours.
    pub foreign: Vec<Foreign>,
    /// Connections of each real server of ours.
    pub connections: BTreeMap<(ServiceKey, SocketAddr), Connections>,
    pub node: Node,
}

/// Thoroughness of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Cheap and enough for a regular audit: may trust what an earlier full reading said about
    /// attributes that the cheap source lacks.
    Audit,
    /// Everything from the kernel itself.
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
