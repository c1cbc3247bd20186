//! Real servers that have gone: they get no new connections, and keep those that they have until
//! these end or a deadline passes.
//!
//! What the kernel holds beyond the desired state is what drains, so that a daemon that starts in the
//! middle of it goes on. UDP has no connections to wait for: there a server is deleted at once, and
//! the kernel sends the next datagram to another one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::desired::{Desired, Programmed};
use crate::cluster::Protocol;
use crate::dataplane::{Actual, Connections, RealServer, ServiceKey, State};
use crate::vip::{Backend, Condition};

/// How often the connections of leaving servers are counted.
pub const POLL: Duration = Duration::from_secs(1);

/// Shortest time with weight 0: a connection that the kernel is just making is not counted as active.
const SETTLING: Duration = Duration::from_secs(2);

/// Which server of which service.
type Place = (ServiceKey, SocketAddr);

/// The servers that are leaving.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    leaving: BTreeMap<Place, Leaving>,
}

/// A server that is leaving.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaving {
    backend: Backend,
    since: Timestamp,
    until: Timestamp,
}

impl Drain {
    /// Whether nothing is leaving.
    pub fn is_empty(&self) -> bool {
        self.leaving.is_empty()
    }

    /// When a server that is leaving will be deleted at the latest.
    pub fn deadline(&self, service: &ServiceKey, server: &SocketAddr) -> Option<Timestamp> {
        self.leaving.get(&(*service, *server)).map(|leaving| leaving.until)
    }

    /// Finds out anew what is leaving, by what the kernel holds beyond `desired`; returns whether that
    /// is something else than before. `last` is what was desired before, and knows the servers' tasks;
    /// `limit` holds for servers that ask for no time of their own.
    pub fn update(
        &mut self,
        desired: &Desired,
        last: &BTreeMap<ServiceKey, Programmed>,
        actual: &Actual,
        now: Timestamp,
        limit: Duration,
    ) -> bool {
        let mut next = BTreeMap::new();
        for place in surplus(&actual.state, desired) {
            let leaving = self.leaving.get(&place).cloned().unwrap_or_else(|| {
                let known = last.get(&place.0).and_then(|programmed| programmed.backends.get(&place.1));
                Leaving::new(known, now, limit)
            });
            let connections = actual.connections.get(&place).copied().unwrap_or_default();
            if !leaving.is_over(connections, now) {
                next.insert(place, leaving);
            }
        }
        let changed = !next.keys().eq(self.leaving.keys());
        self.leaving = next;
        changed
    }

    /// Puts the leaving servers into `desired`, in place of those that it has from before.
    pub fn apply(&self, desired: &mut Desired) {
        for (key, programmed) in &mut desired.services {
            let Some(service) = desired.state.services.get_mut(key) else { continue };
            programmed.backends.retain(|address, backend| {
                let stays = backend.condition != Condition::Gone;
                if !stays {
                    service.servers.remove(address);
                }
                stays
            });
        }
        for ((key, address), leaving) in &self.leaving {
            let (Some(programmed), Some(service)) =
                (desired.services.get_mut(key), desired.state.services.get_mut(key))
            else {
                continue;
            };
            programmed.backends.insert(*address, leaving.backend.clone());
            service.servers.insert(*address, RealServer::masquerade(0));
        }
    }
}

impl Leaving {
    fn new(known: Option<&Backend>, now: Timestamp, limit: Duration) -> Self {
        let backend = Backend {
            condition: Condition::Gone,
            ..known.cloned().unwrap_or_else(|| Backend::unknown(Condition::Gone))
        };
        let until = now.checked_add(backend.drain.unwrap_or(limit)).unwrap_or(Timestamp::MAX);
        Self { backend, since: now, until }
    }

    fn is_over(&self, connections: Connections, now: Timestamp) -> bool {
        let settled = Duration::try_from(now.duration_since(self.since)).is_ok_and(|age| age >= SETTLING);
        now >= self.until || (settled && connections.active == 0)
    }
}

/// TCP servers in the kernel that are not wanted, or only because they were leaving before.
fn surplus<'a>(state: &'a State, desired: &'a Desired) -> impl Iterator<Item = Place> + 'a {
    let services = state.services.iter().filter(|(key, _)| key.protocol == Protocol::Tcp);
    services.filter_map(|(key, found)| Some((key, found, desired.services.get(key)?))).flat_map(
        |(key, found, programmed)| {
            let wanted = |address: &&SocketAddr| {
                let backend = programmed.backends.get(*address);
                backend.is_some_and(|backend| backend.condition != Condition::Gone)
            };
            found.servers.keys().filter(move |address| !wanted(address)).map(|address| (*key, *address))
        },
    )
}

#[cfg(test)]
mod tests;
