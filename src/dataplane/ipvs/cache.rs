//! What is known of the kernel's table between full readings.

use std::collections::BTreeMap;

use crate::cluster::Protocol;

use super::IpvsTable;
use super::proc::{Identity, Seen, Sight};
use crate::dataplane::{Foreign, Op, RealServer, Scheduling, Service, ServiceKey};

#[cfg(test)]
mod tests;

/// The services that `/proc` should show, with what it does not show.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub services: BTreeMap<ServiceKey, Service>,
    /// Several may look alike: firewall marks of both families.
    foreign: BTreeMap<Sight, Vec<Foreign>>,
    /// Services that were read but can't be told in `/proc`.
    unrecognised: bool,
}

impl Known {
    /// Adds a service that is not ours.
    pub(super) fn add_foreign(&mut self, foreign: Foreign, sight: Option<Sight>) {
        match sight {
            Some(sight) => self.foreign.entry(sight).or_default().push(foreign),
            None => self.unrecognised = true,
        }
    }

    /// Follows an operation that the kernel carried out.
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::AddService(key, scheduling) => {
                let service = Service { scheduling: scheduling.clone(), servers: BTreeMap::new() };
                self.services.insert(*key, service);
            }
            Op::SetService(key, scheduling) => {
                if let Some(service) = self.services.get_mut(key) {
                    service.scheduling.clone_from(scheduling);
                }
            }
            Op::DelService(key) => {
                self.services.remove(key);
            }
            Op::AddServer(key, address, server) | Op::SetServer(key, address, server) => {
                if let Some(service) = self.services.get_mut(key) {
                    service.servers.insert(*address, *server);
                }
            }
            Op::DelServer(key, address) => {
                if let Some(service) = self.services.get_mut(key) {
                    service.servers.remove(address);
                }
            }
            _ => {}
        }
    }

    /// Completes what `/proc` shows to a table. `None` when it shows anything that is not known:
    /// a service or real server, another scheduler or forwarding method, or other foreign services.
    ///
    /// Services and real servers that vanished are forgotten.
    pub(super) fn complete(&mut self, seen: Vec<Seen>) -> Option<IpvsTable> {
        let mut table = IpvsTable::default();
        let mut foreign: BTreeMap<&Sight, usize> = BTreeMap::new();
        for service in &seen {
            match self.ours(&service.sight) {
                Some((key, known)) => {
                    let mut servers = BTreeMap::new();
                    for seen in &service.servers {
                        let known = known.servers.get(&seen.address)?;
                        if known.forwarding != seen.forwarding {
                            return None;
                        }
                        let server = RealServer { weight: seen.weight, ..*known };
                        servers.insert(seen.address, server);
                        table.connections.insert((key, seen.address), seen.connections);
                    }
                    let service = Service { scheduling: known.scheduling.clone(), servers };
                    if table.services.insert(key, service).is_some() {
                        return None;
                    }
                }
                None => *foreign.entry(&service.sight).or_default() += 1,
            }
        }
        let expected = self.foreign.iter().map(|(sight, foreign)| (sight, foreign.len()));
        if self.unrecognised || !expected.eq(foreign) {
            return None;
        }
        table.foreign = self.foreign.values().flatten().cloned().collect();
        table.foreign.sort();
        self.services.clone_from(&table.services);
        Some(table)
    }

    /// The service of ours that looks like `sight`.
    fn ours(&self, sight: &Sight) -> Option<(ServiceKey, &Service)> {
        let key = key(&sight.identity)?;
        let service = self.services.get(&key)?;
        let Scheduling { scheduler, flags } = &service.scheduling;
        sight.shows(scheduler, *flags).then_some((key, service))
    }
}

fn key(identity: &Identity) -> Option<ServiceKey> {
    let Identity::Address(protocol, address) = identity else {
        return None;
    };
    let protocol = match protocol.as_str() {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        _ => return None,
    };
    Some(ServiceKey { protocol, address: address.ip(), port: address.port() })
}
