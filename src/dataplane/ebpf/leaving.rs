//! Servers that get no new connections, and may still have some.

use std::net::SocketAddr;

use crate::cluster::Protocol;
use crate::dataplane::state::ServiceKey;

/// Server that gets no new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeavingServer {
    /// Index into the map `counts`.
    pub id: u32,
    /// Protocol and port of the server; `None` if an earlier run deleted it, so that only its id is known.
    pub origin: Option<(Protocol, u16)>,
}

impl LeavingServer {
    pub fn new(service: &ServiceKey, server: &SocketAddr, id: u32) -> Self {
        Self { id, origin: Some((service.protocol, server.port())) }
    }
}
