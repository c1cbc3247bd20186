//! Adoption: what the kernel held when the daemon started stays until documents have told of it.
//!
//! The cluster that an earlier run kept on disk may be older than the table that it left in the
//! kernel, because it can be killed between the two. Where they differ, the kernel knows more.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::desired::{Desired, Services};
use crate::cluster::claims::Place;
use crate::cluster::{Protocol, SharedMap, Skipped};
use crate::dataplane::{RealServer, ServerKey, Service, ServiceKey, State};
use crate::vip::{Backend, Condition};

/// Services that an earlier run left in the kernel.
#[derive(Clone, Debug)]
pub struct Adopted(SharedMap<ServiceKey, Arc<Service>>);

impl Adopted {
    /// Adopts everything that the kernel holds.
    pub fn of(state: &State) -> Self {
        Self(state.services.clone())
    }

    /// Gives up the servers that `desired` knows: documents have told of their tasks.
    pub fn forget_known(&mut self, desired: &Desired) {
        // Servers that no document has named stay: their tasks may be on agents that have not
        // registered yet.
        self.retain(|key, address, _| {
            desired.services.get(key).is_none_or(|known| !known.servers.contains_key(address))
        });
    }

    /// Gives up the servers for which `is_kept` does not hold.
    fn retain(&mut self, is_kept: impl Fn(&ServiceKey, &SocketAddr, &RealServer) -> bool) {
        let leaving = |(key, held): (&ServiceKey, &Arc<Service>)| {
            let servers = held.servers.iter().filter(|(address, server)| !is_kept(key, address, server));
            servers.map(|(address, _)| (*key, *address)).collect::<Vec<_>>()
        };
        let leaving: Vec<ServerKey> = self.0.iter().flat_map(leaving).collect();
        leaving.iter().for_each(|server| self.give_up(server));
    }

    fn give_up(&mut self, (key, address): &ServerKey) {
        if let Some(held) = self.0.get_mut(key) {
            Arc::make_mut(held).servers.remove(address);
        }
    }

    /// Gives up the servers whose address and port a running task has by now, as `are_taken` finds. They do not
    /// come back when that one ends.
    pub fn give_way(
        &mut self,
        desired: &Desired,
        last: &Services,
        are_taken: impl FnOnce(&[Place]) -> Vec<bool>,
    ) {
        let is_unknown = |key: &ServiceKey, address: &SocketAddr| {
            desired.services.get(key).is_some_and(|programmed| !programmed.servers.contains_key(address))
        };
        let servers =
            self.0.iter().flat_map(|(key, held)| held.servers.keys().map(move |server| (key, server)));
        let (unknown, places): (Vec<(ServiceKey, SocketAddr)>, Vec<Place>) = servers
            .filter(|(key, server)| is_unknown(key, server))
            .map(|(key, server)| ((*key, *server), backend(last, key, server).place(*server)))
            .unzip();
        for ((key, server), is_taken) in unknown.into_iter().zip(are_taken(&places)) {
            if is_taken {
                self.give_up(&(key, server));
            }
        }
    }

    /// Gives up the servers that were leaving when the earlier run ended, as `was_leaving` tells: they go on
    /// leaving. One with a weight was wanted again since that was written down.
    pub fn leave(&mut self, was_leaving: impl Fn(&ServiceKey, &SocketAddr) -> bool) {
        self.retain(|key, address, server| server.weight > 0 || !was_leaving(key, address));
    }

    /// Puts the rest into the services of `desired`, with the weights that it has in the kernel. `last` knows
    /// the tasks of some of them.
    pub fn keep(&self, desired: &mut Desired, last: &Services) {
        let mut inherited = BTreeSet::new();
        for (key, held) in &self.0 {
            let Some(programmed) = desired.services.get_mut(key) else { continue };
            let programmed = Arc::make_mut(programmed);
            // Without a task there is no label that could say which scheduler is wanted.
            if programmed.servers.is_empty() && !held.servers.is_empty() {
                programmed.scheduling.clone_from(&held.scheduling);
            }
            for (address, server) in &held.servers {
                let known = programmed.servers.get(address);
                if known.is_none() {
                    inherited.insert((key.protocol, *address));
                }
                // The kernel's weight is newer than the file's: the earlier run knew of a health check or a
                // kill.
                if known.is_none_or(|known| (known.weight() > 0) != (server.weight > 0)) {
                    let known = known.cloned().unwrap_or_else(|| backend(last, key, address));
                    let inherited = Backend {
                        condition: Condition::Inherited,
                        held_weight: Some(server.weight),
                        ..known
                    };
                    programmed.servers.insert(*address, inherited);
                }
            }
        }
        // After all services, because a claim may come before the inherited server in their order.
        self.refuse_claims(desired, &inherited);
    }

    /// Refuses servers of running tasks at the address and port of an inherited server of another service,
    /// unless the kernel had them there as well: what an agent vouches for has taken the place already.
    fn refuse_claims(&self, desired: &mut Desired, inherited: &BTreeSet<(Protocol, SocketAddr)>) {
        if inherited.is_empty() {
            return;
        }
        let had = |key: &ServiceKey, address: &SocketAddr| {
            self.0.get(key).is_some_and(|held| held.servers.contains_key(address))
        };
        let mut refused: Vec<ServerKey> = Vec::new();
        for (key, programmed) in &desired.services {
            let vip = &programmed.vip;
            for (address, backend) in &programmed.servers {
                if !inherited.contains(&(key.protocol, *address)) || had(key, address) {
                    continue;
                }
                desired.skipped.push(Skipped {
                    task: backend.task.to_string(),
                    value: Some(address.to_string()),
                    reason: format!(
                        "{vip} can't use this backend: another VIP had {address} before the start, and no \
                         agent says that this task has it now"
                    ),
                    ..Skipped::default()
                });
                refused.push((*key, *address));
            }
        }
        for (key, address) in refused {
            if let Some(programmed) = desired.services.get_mut(&key) {
                Arc::make_mut(programmed).servers.remove(&address);
            }
        }
    }
}

/// Returns the backend of an inherited server, with its task if the plan before knew it.
fn backend(last: &Services, key: &ServiceKey, address: &SocketAddr) -> Backend {
    let known = last.get(key).and_then(|programmed| programmed.servers.get(address));
    match known {
        Some(known) => Backend { condition: Condition::Inherited, ..known.clone() },
        None => Backend::unknown(Condition::Inherited),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use super::*;
    use crate::cluster::Protocol;
    use crate::dataplane::{RealServer, Scheduling};
    use crate::plan::desired::Programmed;
    use crate::vip::{Host, VipKey};

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1));
    const KEY: ServiceKey = ServiceKey { protocol: Protocol::Tcp, address: VIP, port: 80 };

    fn server(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 8080))
    }

    fn scheduling(scheduler: &str) -> Scheduling {
        Scheduling { scheduler: scheduler.to_owned(), flags: 0 }
    }

    fn kernel(scheduler: &str, servers: &[(u8, u32)]) -> State {
        let servers =
            servers.iter().map(|(last, weight)| (server(*last), RealServer::masquerade(*weight))).collect();
        let service = Service { scheduling: scheduling(scheduler), servers };
        State { services: [(KEY, service.into())].into(), ..State::default() }
    }

    /// What is wanted when these servers are ready.
    fn wanted(servers: &[u8]) -> Desired {
        let ready = |last: &u8| (server(*last), Backend::unknown(Condition::Ready));
        let vip = VipKey { host: Host::Literal(VIP), protocol: Protocol::Tcp, port: 80 };
        let servers = servers.iter().map(ready).collect();
        let programmed = Programmed {
            vip,
            scheduling: scheduling("wlc"),
            servers,
            port_names: Arc::default(),
            weights: None,
        };
        Desired { services: [(KEY, programmed.into())].into(), ..Desired::default() }
    }

    fn weights(desired: &Desired) -> Vec<(u8, u32, Condition)> {
        (1..10)
            .filter_map(|last| {
                let member = desired.services[&KEY].servers.get(&server(last))?;
                Some((last, member.weight(), member.condition))
            })
            .collect()
    }

    #[test]
    fn where_the_kernel_and_the_kept_cluster_differ_the_kernel_knows_more() {
        let inherited = Adopted::of(&kernel("wlc", &[(1, 1), (2, 0), (3, 1)]));
        let mut desired = wanted(&[1, 2, 4]);
        inherited.keep(&mut desired, &Services::default());
        assert_eq!(
            weights(&desired),
            [
                (1, 1, Condition::Ready),
                (2, 0, Condition::Inherited),
                (3, 1, Condition::Inherited),
                (4, 1, Condition::Ready)
            ]
        );
    }

    #[test]
    fn of_a_task_that_documents_tell_of_they_know_more() {
        let mut inherited = Adopted::of(&kernel("wlc", &[(1, 0), (2, 1)]));
        let mut desired = wanted(&[1]);
        inherited.forget_known(&desired);
        inherited.keep(&mut desired, &Services::default());
        assert_eq!(weights(&desired), [(1, 1, Condition::Ready), (2, 1, Condition::Inherited)]);
        // What was known once is no longer inherited, wherever it goes.
        inherited.forget_known(&wanted(&[2]));
        let mut desired = wanted(&[]);
        inherited.keep(&mut desired, &Services::default());
        assert_eq!(weights(&desired), []);
    }

    #[test]
    fn a_server_whose_address_a_task_has_does_not_come_back() {
        let mut inherited = Adopted::of(&kernel("wlc", &[(1, 1), (2, 1), (3, 1)]));
        let second =
            |places: &[Place]| places.iter().map(|place| place.address == server(2)).collect::<Vec<_>>();
        inherited.give_way(&wanted(&[1]), &Services::default(), second);
        let mut desired = wanted(&[1]);
        inherited.keep(&mut desired, &Services::default());
        assert_eq!(weights(&desired), [(1, 1, Condition::Ready), (3, 1, Condition::Inherited)]);
    }

    #[test]
    fn a_claim_to_an_inherited_server_is_refused() {
        let inherited = Adopted::of(&kernel("wlc", &[(1, 1)]));
        let other = ServiceKey { port: 81, ..KEY };
        let mut desired = wanted(&[]);
        let claims = wanted(&[1, 2]).services.remove(&KEY).unwrap();
        desired.services.insert(other, claims);
        inherited.keep(&mut desired, &Services::default());
        assert_eq!(desired.services[&other].servers.keys().copied().collect::<Vec<_>>(), [server(2)]);
        assert_eq!(weights(&desired), [(1, 1, Condition::Inherited)]);
        assert!(desired.skipped[0].reason.contains("another VIP had 10.0.0.1:8080"), "{:?}", desired.skipped);
    }

    #[test]
    fn a_vip_of_which_no_task_is_known_keeps_its_scheduler() {
        let inherited = Adopted::of(&kernel("mh", &[(1, 1)]));
        let mut desired = wanted(&[]);
        inherited.keep(&mut desired, &Services::default());
        assert_eq!(desired.services[&KEY].scheduling, scheduling("mh"));
        let mut desired = wanted(&[1]);
        inherited.keep(&mut desired, &Services::default());
        assert_eq!(desired.services[&KEY].scheduling, scheduling("wlc"));
    }
}
