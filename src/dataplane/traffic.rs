//! Traffic through VIPs, where a plane counts it.

use std::collections::BTreeMap;

use super::state::ServiceKey;

/// Traffic of a service since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// New connections, or flows of datagrams.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
}

/// Reader of traffic, beside the plane that is programmed. Blocks for milliseconds.
pub trait ReadTraffic: Send {
    /// Returns the traffic of all services of the node, those of other programs among them.
    ///
    /// # Errors
    /// When the kernel does not answer, in words.
    fn read(&mut self) -> Result<BTreeMap<ServiceKey, Traffic>, String>;
}
