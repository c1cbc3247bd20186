//! The DNS server: gives the node and its containers the addresses of VIPs, tasks and this node.
//!
//! What belongs here:
//!
//! * [`zones`] (pure): which names exist, and their records;
//! * [`protocol`] (pure): one message in, one out;
//! * [`publisher`]: replaces the catalog when VIPs, tasks or this node change;
//! * [`server`]: UDP and TCP sockets, clients and their limits, shutdown;
//! * [`forward`]: names in none of our zones, which upstreams answer;
//! * [`metrics`]: questions and answers as Prometheus counts them;
//! * [`usage`]: how much of what clients share is in use;
//! * [`resolved`]: the registration with systemd-resolved.
//!
//! The catalog is replaced as a whole through a `watch` channel and each query is answered from the
//! newest one, so a client never sees half of a change. When a VIP's name is published (after the
//! kernel knows its address) is decided by the reconcile loop.

pub mod forward;
pub mod metrics;
pub mod protocol;
pub mod publisher;
pub mod resolved;
pub mod server;
pub mod settings;
#[cfg(test)]
pub(crate) mod testing;
pub mod usage;
pub mod zones;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use usage::Usage;

pub use server::rules::ServiceRules;
pub use server::{Error, Listener, Responder};

/// State of the DNS server, as a part of the daemon's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsState {
    /// Addresses that it listens on.
    pub addresses: Vec<SocketAddr>,
    /// Reason why it does not listen.
    pub error: Option<String>,
    /// Reason why systemd-resolved does not ask it, where it runs and should.
    #[serde(default)]
    pub resolved: Option<String>,
    /// Use of what its clients share.
    #[serde(default)]
    pub usage: Vec<Usage>,
}
