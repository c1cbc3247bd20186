//! Identity of a VIP.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::cluster::Protocol;

/// Host part of a VIP: the part that a client dials.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Host {
    /// Name below the zone, such as `web.marathon`; its address is allocated.
    Named(String),
    /// An address that the label gives itself.
    Literal(IpAddr),
}

/// Identity of a VIP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VipKey {
    pub host: Host,
    pub protocol: Protocol,
    pub port: u16,
}

impl VipKey {
    /// Returns the address of a literal VIP.
    pub fn literal(&self) -> Option<IpAddr> {
        match self.host {
            Host::Literal(address) => Some(address),
            Host::Named(_) => None,
        }
    }
}

impl fmt::Display for VipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Named(name) => write!(f, "{} {name}:{}", self.protocol, self.port),
            Host::Literal(address) => write!(f, "{} {}", self.protocol, SocketAddr::new(*address, self.port)),
        }
    }
}
