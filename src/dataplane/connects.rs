//! What became of connects, where a plane sees them.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::state::{ServerKey, ServiceKey, of_service};

/// Connects to a server or a VIP, by what became of them. Those that are missing in the sum are under way, or
/// were given up by the client before the first answer was due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connects {
    /// Connects whose first SYN was to be sent.
    pub begun: u64,
    pub established: u64,
    /// Connects that were answered by a reset.
    pub refused: u64,
    /// Connects that ended without an answer, at least a second after they began.
    pub timed_out: u64,
    /// SYNs that were sent again.
    pub syn_retransmissions: u64,
}

impl AddAssign for Connects {
    fn add_assign(&mut self, other: Self) {
        self.begun += other.begun;
        self.established += other.established;
        self.refused += other.refused;
        self.timed_out += other.timed_out;
        self.syn_retransmissions += other.syn_retransmissions;
    }
}

/// Connects to a VIP, with those to servers that it lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConnects {
    #[serde(flatten)]
    pub connects: Connects,
    /// Classes of the established ones by the time that their connect took; those without connects are left out.
    pub latency: Vec<LatencyClass>,
}

/// Connects that took less time than a bound, and at least half of it unless it is the lowest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyClass {
    /// Bound in microseconds; `None` for the class of the longest ones.
    pub below_us: Option<u64>,
    pub connects: u64,
}

/// All that a plane has seen of connects. What had none is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub services: BTreeMap<ServiceKey, ServiceConnects>,
    pub servers: BTreeMap<ServerKey, Connects>,
}

impl Seen {
    /// Forgets a server that is deleted; what its VIP had stays.
    pub fn forget_server(&mut self, server: &ServerKey) {
        self.servers.remove(server);
    }

    /// Forgets a service that is deleted, with its servers.
    pub fn forget_service(&mut self, service: &ServiceKey) {
        self.services.remove(service);
        let gone: Vec<_> = of_service(&self.servers, service).map(|(server, _)| *server).collect();
        gone.iter().for_each(|server| self.forget_server(server));
    }

    /// Returns the sum over all VIPs.
    pub fn total(&self) -> Connects {
        // Of the services alone, which include their servers and keep what lost ones had.
        self.services.values().fold(Connects::default(), |mut sum, service| {
            sum += service.connects;
            sum
        })
    }
}
