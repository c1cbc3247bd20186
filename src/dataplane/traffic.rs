//! Traffic through VIPs and to their servers, where a plane counts it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::connects::Seen;
use super::state::{Connections, ServerKey, ServiceKey};
use crate::cluster::SharedMap;

/// Time within which all who ask for the traffic of services get the same.
const SHARED: Duration = Duration::from_millis(800);

/// Traffic of a service or a server since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// Traffic of the servers of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTraffic {
    /// Time at which it was read.
    pub at: Timestamp,
    /// In the order of their addresses.
    pub servers: Vec<(SocketAddr, Traffic)>,
}

/// Traffic of servers by their services, which copies share: each service is read on its own, and mostly alone.
pub type ServerTraffic = SharedMap<ServiceKey, Arc<ServiceTraffic>>;

impl ServiceTraffic {
    /// Returns the traffic of a server.
    pub fn of(&self, server: &SocketAddr) -> Option<Traffic> {
        let place = self.servers.binary_search_by_key(server, |(address, _)| *address).ok()?;
        self.servers.get(place).map(|(_, traffic)| *traffic)
    }

    /// Forgets a server in `all`, because one that is added again at its address starts from 0.
    pub fn forget(all: &mut ServerTraffic, key: &ServiceKey, server: &SocketAddr) {
        if let Some(service) = all.get_mut(key).filter(|service| service.of(server).is_some()) {
            Arc::make_mut(service).servers.retain(|(address, _)| address != server);
        }
    }
}

/// Counts of some servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub connections: BTreeMap<ServerKey, Connections>,
    /// Traffic of all servers of the services that were asked for; empty if the plane sees no packets.
    pub traffic: Vec<(ServiceKey, Arc<ServiceTraffic>)>,
}

/// All counts of a plane that reads them at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WholeCount {
    pub connections: BTreeMap<ServerKey, Connections>,
    pub seen: Seen,
}

/// Reader of traffic, beside the plane that is programmed. Blocks for milliseconds.
pub trait ReadTraffic: Send {
    /// Returns the traffic of all services of the node, those of other programs among them.
    ///
    /// # Errors
    /// When the kernel does not answer, in words.
    fn read(&mut self) -> Result<BTreeMap<ServiceKey, Traffic>, String>;
}

/// A reader that several parts of the daemon share, so that the kernel lists its services once for all who ask within
/// a moment.
#[derive(Clone)]
pub struct SharedTraffic(Arc<Mutex<LastTraffic>>);

struct LastTraffic {
    reader: Box<dyn ReadTraffic>,
    last: Option<(Instant, Arc<BTreeMap<ServiceKey, Traffic>>)>,
}

impl SharedTraffic {
    pub fn new(reader: Box<dyn ReadTraffic>) -> Self {
        Self(Arc::new(Mutex::new(LastTraffic { reader, last: None })))
    }

    /// Returns the traffic of all services with the time of its reading. Blocks as the reader does.
    ///
    /// # Errors
    /// When the kernel does not answer, in words.
    pub fn read_shared(&self) -> Result<(Instant, Arc<BTreeMap<ServiceKey, Traffic>>), String> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, traffic)) = shared.last.as_ref().filter(|(at, _)| at.elapsed() < SHARED) {
            return Ok((*at, Arc::clone(traffic)));
        }
        // Forgotten first, because a list of megabytes should not wait for the next who asks.
        shared.last = None;
        let traffic = Arc::new(shared.reader.read()?);
        let at = Instant::now();
        shared.last = Some((at, Arc::clone(&traffic)));
        Ok((at, traffic))
    }
}

impl ReadTraffic for SharedTraffic {
    fn read(&mut self) -> Result<BTreeMap<ServiceKey, Traffic>, String> {
        self.read_shared().map(|(_, traffic)| BTreeMap::clone(&traffic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Protocol;

    fn key() -> ServiceKey {
        ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, 1].into(), port: 80 }
    }

    /// Counts how often it is asked.
    struct Asked(u64);

    impl ReadTraffic for Asked {
        fn read(&mut self) -> Result<BTreeMap<ServiceKey, Traffic>, String> {
            self.0 += 1;
            Ok([(key(), Traffic { connections: self.0, ..Traffic::default() })].into())
        }
    }

    #[test]
    fn all_who_ask_within_a_moment_get_one_reading() {
        let shared = SharedTraffic::new(Box::new(Asked(0)));
        let mut other = shared.clone();
        let (at, first) = shared.read_shared().unwrap();
        assert_eq!(other.read().unwrap(), *first);
        assert_eq!(shared.read_shared().unwrap().0, at);
        assert_eq!(first[&key()].connections, 1);
    }

    #[test]
    fn a_server_that_goes_takes_its_traffic_along() {
        let server = |last: u8| SocketAddr::from(([10, 0, 0, last], 80));
        let servers = [1, 2].map(|last| (server(last), Traffic { connections: 7, ..Traffic::default() }));
        let service = ServiceTraffic { at: Timestamp::UNIX_EPOCH, servers: servers.to_vec() };
        let mut all: ServerTraffic = [(key(), Arc::new(service))].into_iter().collect();
        ServiceTraffic::forget(&mut all, &key(), &server(1));
        ServiceTraffic::forget(&mut all, &key(), &server(3));
        let left = &all[&key()];
        assert_eq!((left.of(&server(1)), left.of(&server(2)).unwrap().connections), (None, 7));
    }
}
