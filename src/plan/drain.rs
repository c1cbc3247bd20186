//! Draining: servers whose tasks have gone get no new connections, and keep those that they have
//! until these end or a deadline passes.
//!
//! What the kernel holds beyond the desired state is what drains, so that a daemon that starts in the
//! middle of it goes on. UDP has no connections to wait for: there a server is deleted at once, and
//! the kernel sends the next datagram to another one. A server leaves at once when a running task has its
//! address and port, see [`crate::cluster::claims`]: what its connections lead to is another task.
//!
//! For example, with a limit of 60 s and a task that is killed at 0:00 with two open connections:
//!
//! | time | kernel before | desired |
//! |---|---|---|
//! | 0:00 | server, weight 1, 2 active | server, weight 0, condition gone, until 1:00 |
//! | 0:20 | weight 0, 1 active | the same |
//! | 0:45 | weight 0, 0 active | no server: deleted (at 1:00 with any number of connections) |

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::desired::{Desired, Programmed, Services};
use super::shares::divide;
use crate::cluster::Protocol;
use crate::cluster::claims::Place;
use crate::dataplane::{Actual, Connections, ServerKey, Service, ServiceKey, of_service};
use crate::store::KeptDrain;
use crate::vip::{Backend, Condition, Tenants};

/// Time between two counts of the connections of leaving servers.
pub const POLL: Duration = Duration::from_secs(1);

/// Shortest time with weight 0: a connection that the kernel is just making is not counted as active.
const MIN_DRAIN: Duration = Duration::from_secs(2);

/// The servers that are leaving.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    leaving: BTreeMap<ServerKey, Leaving>,
    /// Servers that were leaving when an earlier run ended, until they are found or wanted again.
    resumed: BTreeMap<ServerKey, Leaving>,
    /// Servers that are done with leaving, and that the kernel held in the last update. They start no second time
    /// where one pass plans twice, or where the kernel refuses to delete them.
    done: BTreeSet<ServerKey>,
    /// Most servers that are kept; what is more goes at once, in fair shares. `None` without a bound.
    pub room: Option<usize>,
}

/// A server that is leaving.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaving {
    backend: Backend,
    since: Timestamp,
    until: Timestamp,
}

impl Drain {
    /// Goes on with the servers that were leaving when an earlier run ended.
    pub fn resume(drains: Vec<KeptDrain>) -> Self {
        let leaving = |drain: KeptDrain| {
            let KeptDrain { service, server, since, until, task, agent } = drain;
            let backend =
                Backend { task: task.into(), agent: agent.into(), ..Backend::unknown(Condition::Gone) };
            ((service, server), Leaving { backend, since, until })
        };
        Self { resumed: drains.into_iter().map(leaving).collect(), ..Self::default() }
    }

    /// Returns the servers that are leaving, for a later run.
    pub fn kept(&self) -> Vec<KeptDrain> {
        let kept = |((service, server), leaving): (&ServerKey, &Leaving)| KeptDrain {
            service: *service,
            server: *server,
            since: leaving.since,
            until: leaving.until,
            task: leaving.backend.task.to_string(),
            agent: leaving.backend.agent.to_string(),
        };
        // Those of an earlier run as well: this one may end before it has found them.
        self.leaving.iter().chain(&self.resumed).map(kept).collect()
    }

    /// Returns true for a server that was leaving when an earlier run ended.
    pub fn was_leaving(&self, service: &ServiceKey, server: &SocketAddr) -> bool {
        let key = (*service, *server);
        self.resumed.contains_key(&key) || self.leaving.contains_key(&key)
    }

    /// Returns true when nothing is leaving.
    pub fn is_empty(&self) -> bool {
        self.leaving.is_empty()
    }

    /// Returns the number of servers that are leaving.
    pub fn len(&self) -> usize {
        self.leaving.len()
    }

    /// Returns the servers that are leaving.
    pub fn leaving(&self) -> BTreeSet<ServerKey> {
        self.leaving.keys().copied().collect()
    }

    /// Returns the time at which a leaving server is deleted at the latest.
    pub fn deadline(&self, service: &ServiceKey, server: &SocketAddr) -> Option<Timestamp> {
        self.leaving.get(&(*service, *server)).map(|leaving| leaving.until)
    }

    /// Finds out anew what is leaving: what the kernel holds beyond `desired`. Returns true when that has
    /// changed. `last` is what was desired before, and knows the servers' tasks; `limit` holds for
    /// servers whose task asks for no time of its own; `are_taken` finds the places that running tasks have.
    pub fn update(
        &mut self,
        desired: &Desired,
        last: &Services,
        actual: &Actual,
        (now, limit): (Timestamp, Duration),
        are_taken: impl FnOnce(&[Place]) -> Vec<bool>,
    ) -> bool {
        let servers: Vec<ServerKey> = surplus(actual.state.services.iter(), desired).collect();
        self.update_to(servers, desired, last, actual, (now, limit), are_taken)
    }

    /// Finds out anew what is leaving of some services, where the rest holds what is desired.
    pub fn update_in(
        &mut self,
        services: &BTreeSet<ServiceKey>,
        desired: &Desired,
        last: &Services,
        actual: &Actual,
        times: (Timestamp, Duration),
        are_taken: impl FnOnce(&[Place]) -> Vec<bool>,
    ) -> bool {
        let held = services.iter().filter_map(|key| actual.state.services.get_key_value(key));
        let servers: Vec<ServerKey> = surplus(held, desired).collect();
        self.update_to(servers, desired, last, actual, times, are_taken)
    }

    /// Makes `servers` those that are leaving, except for those that are done with it.
    fn update_to(
        &mut self,
        servers: Vec<ServerKey>,
        desired: &Desired,
        last: &Services,
        actual: &Actual,
        (now, limit): (Timestamp, Duration),
        are_taken: impl FnOnce(&[Place]) -> Vec<bool>,
    ) -> bool {
        let mut next = BTreeMap::new();
        // One whose task is there again starts anew when it leaves another time.
        self.resumed.retain(|(service, server), _| {
            let backend = desired.services.get(service).and_then(|programmed| programmed.servers.get(server));
            backend.is_none_or(|backend| matches!(backend.condition, Condition::Gone | Condition::Inherited))
        });
        // A server that is wanted again is not in the surplus, and by that no longer leaves.
        for server in servers.iter().copied().filter(|server| !self.done.contains(server)) {
            let known = self.leaving.get(&server).cloned().or_else(|| self.resumed.remove(&server));
            let leaving = known.unwrap_or_else(|| {
                // Only the plan before can name the task; after a start there is none, and the limit is the
                // usual one.
                let known = last.get(&server.0).and_then(|programmed| programmed.servers.get(&server.1));
                Leaving::new(known, now, limit)
            });
            let connections = actual.connections.get(&server).copied().unwrap_or_default();
            if !leaving.is_over(connections, now) {
                next.insert(server, leaving);
            }
        }
        // All with one question, because the answer takes a walk over all running tasks.
        let places: Vec<Place> =
            next.iter().map(|((_, address), leaving)| leaving.backend.place(*address)).collect();
        let mut taken = are_taken(&places).into_iter();
        next.retain(|_, _| taken.next() != Some(true));
        if let Some(room) = self.room.filter(|room| next.len() > *room) {
            let items: Vec<&Tenants> = next.values().map(|leaving| &leaving.backend.tenants).collect();
            let mut admitted = divide(&items, room).admitted.into_iter();
            next.retain(|_, _| admitted.next() != Some(false));
        }
        // Connection counts are not compared: they change all the time, and the table does not.
        let changed = !next.keys().eq(self.leaving.keys());
        // Also those that gave way or found no room: whatever the reason, they are to be deleted.
        self.done = servers.into_iter().filter(|server| !next.contains_key(server)).collect();
        self.leaving = next;
        changed
    }

    /// Puts the leaving servers into `desired`, in place of those that it has from before.
    pub fn apply(&self, desired: &mut Desired) {
        // Looked for first: what is not changed stays shared with the plan before.
        let outdated: Vec<ServiceKey> =
            desired.services.iter().filter(|(_, known)| has_gone(known)).map(|(key, _)| *key).collect();
        for key in outdated {
            desired.services.get_mut(&key).into_iter().for_each(forget_gone);
        }
        self.add_leaving(desired, &self.leaving);
    }

    /// Puts the leaving servers into some services of `desired`; the rest has its own.
    pub fn apply_to(&self, services: &BTreeSet<ServiceKey>, desired: &mut Desired) {
        for key in services {
            desired.services.get_mut(key).into_iter().for_each(forget_gone);
            self.add_leaving(desired, of_service(&self.leaving, key));
        }
    }

    fn add_leaving<'l>(
        &self,
        desired: &mut Desired,
        leaving: impl IntoIterator<Item = (&'l ServerKey, &'l Leaving)>,
    ) {
        for ((key, address), leaving) in leaving {
            if let Some(programmed) = desired.services.get_mut(key) {
                Arc::make_mut(programmed).servers.insert(*address, leaving.backend.clone());
            }
        }
    }

    /// Returns the services of which servers are leaving.
    pub fn services(&self) -> BTreeSet<ServiceKey> {
        self.leaving.keys().map(|(key, _)| *key).collect()
    }
}

impl Leaving {
    fn new(known: Option<&Backend>, now: Timestamp, limit: Duration) -> Self {
        let backend = Backend {
            condition: Condition::Gone,
            held_weight: None,
            ..known.cloned().unwrap_or_else(|| Backend::unknown(Condition::Gone))
        };
        // The configured limit has no upper bound, so the sum may be beyond the calendar.
        let until = now.checked_add(backend.drain.unwrap_or(limit)).unwrap_or(Timestamp::MAX);
        Self { backend, since: now, until }
    }

    fn is_over(&self, connections: Connections, now: Timestamp) -> bool {
        // A clock that was set back gives a negative age, which counts as too young; the deadline holds
        // anyway.
        let is_old_enough =
            Duration::try_from(now.duration_since(self.since)).is_ok_and(|age| age >= MIN_DRAIN);
        now >= self.until || (is_old_enough && connections.active == 0)
    }
}

/// Removes the servers that were leaving in the plan before: some may have been deleted since.
fn forget_gone(programmed: &mut Arc<Programmed>) {
    if has_gone(programmed) {
        Arc::make_mut(programmed).servers.retain(|_, backend| backend.condition != Condition::Gone);
    }
}

fn has_gone(programmed: &Programmed) -> bool {
    programmed.servers.values().any(|backend| backend.condition == Condition::Gone)
}

/// Returns the TCP servers among `held` that are not wanted, or only because they were leaving before.
fn surplus<'a>(
    held: impl Iterator<Item = (&'a ServiceKey, &'a Arc<Service>)>,
    desired: &'a Desired,
) -> impl Iterator<Item = ServerKey> {
    // UDP has no connections whose end could be waited for.
    let services = held.filter(|(key, _)| key.protocol == Protocol::Tcp);
    services.filter_map(|(key, found)| Some((key, found, desired.services.get(key)?))).flat_map(
        |(key, found, programmed)| {
            let wanted = |address: &&SocketAddr| {
                let backend = programmed.servers.get(*address);
                backend.is_some_and(|backend| backend.condition != Condition::Gone)
            };
            found.servers.keys().filter(move |address| !wanted(address)).map(|address| (*key, *address))
        },
    )
}

#[cfg(test)]
mod tests;
