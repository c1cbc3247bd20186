//! What the kernel held when the daemon started, and what of it is to stay until documents have told
//! all there is.
//!
//! The cluster that an earlier run kept may be older than the table that it left in the kernel,
//! because it can be killed between the two. Where they differ, the kernel knows more.

use std::collections::BTreeMap;

use super::desired::Desired;
use crate::dataplane::{RealServer, Service, ServiceKey, State};
use crate::vip::{Backend, Condition};

/// Services of an earlier run.
#[derive(Clone, Debug)]
pub struct Adopted(BTreeMap<ServiceKey, Service>);

impl Adopted {
    /// All that the kernel holds.
    pub fn of(state: &State) -> Self {
        Self(state.services.clone())
    }

    /// Gives up the servers that `desired` knows: their tasks have been heard of.
    pub fn forget_known(&mut self, desired: &Desired) {
        for (key, service) in &mut self.0 {
            let Some(known) = desired.services.get(key) else { continue };
            service.servers.retain(|address, _| !known.backends.contains_key(address));
        }
    }

    /// Puts the rest into the services of `desired`, with the weights that it has.
    pub fn keep(&self, desired: &mut Desired) {
        for (key, programmed) in &mut desired.services {
            let (Some(held), Some(service)) = (self.0.get(key), desired.state.services.get_mut(key)) else {
                continue;
            };
            if programmed.backends.is_empty() && !held.servers.is_empty() {
                programmed.scheduling.clone_from(&held.scheduling);
                service.scheduling.clone_from(&held.scheduling);
            }
            for (address, server) in &held.servers {
                let server = RealServer::masquerade(server.weight);
                if service.servers.insert(*address, server) != Some(server) {
                    let known = programmed.backends.entry(*address);
                    known.or_insert_with(|| Backend::unknown(Condition::Inherited)).condition =
                        Condition::Inherited;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use super::*;
    use crate::cluster::Protocol;
    use crate::dataplane::Scheduling;
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
        State { services: [(KEY, service)].into(), ..State::default() }
    }

    /// What is wanted when these servers are ready.
    fn wanted(servers: &[u8]) -> Desired {
        let servers: Vec<_> = servers.iter().map(|last| (*last, 1)).collect();
        let state = kernel("wlc", &servers);
        let backends =
            state.services[&KEY].servers.keys().map(|a| (*a, Backend::unknown(Condition::Ready))).collect();
        let vip = VipKey { host: Host::Literal(VIP), protocol: Protocol::Tcp, port: 80 };
        let programmed = Programmed { vip, backends, scheduling: scheduling("wlc") };
        Desired { state, services: [(KEY, programmed)].into(), ..Desired::default() }
    }

    fn weights(desired: &Desired) -> Vec<(u8, u32, Condition)> {
        let (service, programmed) = (&desired.state.services[&KEY], &desired.services[&KEY]);
        let places: BTreeSet<_> = service.servers.keys().collect();
        assert!(programmed.backends.keys().eq(places));
        (1..10)
            .filter_map(|last| {
                let address = server(last);
                let condition = programmed.backends.get(&address)?.condition;
                Some((last, service.servers[&address].weight, condition))
            })
            .collect()
    }

    #[test]
    fn where_the_kernel_and_the_kept_cluster_differ_the_kernel_knows_more() {
        let inherited = Adopted::of(&kernel("wlc", &[(1, 1), (2, 0), (3, 1)]));
        let mut desired = wanted(&[1, 2, 4]);
        inherited.keep(&mut desired);
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
        inherited.keep(&mut desired);
        assert_eq!(weights(&desired), [(1, 1, Condition::Ready), (2, 1, Condition::Inherited)]);
        // What was known once is no longer inherited, wherever it goes.
        inherited.forget_known(&wanted(&[2]));
        let mut desired = wanted(&[]);
        inherited.keep(&mut desired);
        assert_eq!(weights(&desired), []);
    }

    #[test]
    fn a_vip_of_which_no_task_is_known_keeps_its_scheduler() {
        let inherited = Adopted::of(&kernel("mh", &[(1, 1)]));
        let mut desired = wanted(&[]);
        inherited.keep(&mut desired);
        assert_eq!(desired.state.services[&KEY].scheduling, scheduling("mh"));
        assert_eq!(desired.services[&KEY].scheduling, scheduling("mh"));
        let mut desired = wanted(&[1]);
        inherited.keep(&mut desired);
        assert_eq!(desired.state.services[&KEY].scheduling, scheduling("wlc"));
    }
}
