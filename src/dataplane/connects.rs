//! Outcome of connects, where a plane sees them.

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
    /// Servers that clients pass over now, because connects have failed.
    pub ejected: BTreeMap<ServerKey, Ejected>,
    /// Room for what is remembered of failures; `None` if the plane has none.
    pub remembered: Option<Remembered>,
}

/// Ejection of a server. Each client finds out for itself, and clients of one network namespace together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejected {
    /// Network namespaces whose clients pass over the server.
    pub namespaces: usize,
    /// Time in milliseconds for which the longest of these ejections was to last when the kernel was read. After that
    /// a single connect tries the server, whenever there is one.
    pub left_ms: u64,
}

/// Pairs of VIP and network namespace of which the kernel remembers failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    pub used: usize,
    pub limit: usize,
}

impl Seen {
    /// Forgets a server that is deleted; what its VIP had stays.
    pub fn forget_server(&mut self, server: &ServerKey) {
        self.servers.remove(server);
        self.ejected.remove(server);
    }

    /// Forgets a service that is deleted, with its servers.
    pub fn forget_service(&mut self, service: &ServiceKey) {
        self.services.remove(service);
        let gone: Vec<_> = of_service(&self.servers, service).map(|(server, _)| *server).collect();
        let ejected: Vec<_> = of_service(&self.ejected, service).map(|(server, _)| *server).collect();
        gone.iter().chain(&ejected).for_each(|server| self.forget_server(server));
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
