//! What a reading of the kernel yields.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::firewall::Dropped;
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
    /// Packets of containers that a firewall of the node keeps from us; `None` for none.
    pub dropped: Option<Dropped>,
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
