//! The IPVS table as it should be between full readings, to complete what `/proc` shows.

use std::collections::BTreeMap;

use crate::cluster::Protocol;

use super::proc::{Identity, ProcEntry, ProcService};
use super::table::IpvsTable;
use crate::dataplane::effect::carry_out_service;
use crate::dataplane::op::Op;
use crate::dataplane::state::{Foreign, RealServer, Scheduling, Service, ServiceKey};

#[cfg(test)]
mod tests;

/// The services that `/proc` should show, with the attributes that it does not show.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pub services: BTreeMap<ServiceKey, Service>,
    /// Services that are not ours. Several may look alike: firewall marks of both families.
    foreign: BTreeMap<ProcEntry, Vec<Foreign>>,
    /// True if there are services that cannot be recognised in `/proc`, which then is no use.
    unrecognised: bool,
}

impl Cache {
    /// Remembers a full reading; services that are not ours come with their line in `/proc`, if that is
    /// known.
    pub(super) fn new(
        services: BTreeMap<ServiceKey, Service>,
        others: Vec<(Foreign, Option<ProcEntry>)>,
    ) -> Self {
        let mut cache = Self { services, ..Self::default() };
        for (foreign, entry) in others {
            match entry {
                Some(entry) => cache.foreign.entry(entry).or_default().push(foreign),
                // Without its line in the file it could not be told from a new one.
                None => cache.unrecognised = true,
            }
        }
        cache
    }

    /// Follows an operation that the kernel carried out. Returns false if the cache did not let expect that, so
    /// that it is no longer to be trusted.
    #[must_use]
    pub(super) fn apply(&mut self, op: &Op) -> bool {
        carry_out_service(&mut self.services, op).is_ok()
    }

    /// Completes the services that `/proc` shows to a table. Returns `None` if it shows anything that is
    /// not in the cache: a service or real server, another scheduler or forwarding method, or other
    /// services that are not ours.
    ///
    /// Services and real servers that vanished are forgotten.
    pub(super) fn complete(&mut self, shown: Vec<ProcService>) -> Option<IpvsTable> {
        let mut table = IpvsTable::default();
        let mut foreign: BTreeMap<&ProcEntry, usize> = BTreeMap::new();
        for service in &shown {
            let Some((key, known)) = self.ours(&service.entry) else {
                *foreign.entry(&service.entry).or_default() += 1;
                continue;
            };
            let mut servers = BTreeMap::new();
            for shown in &service.servers {
                // A server that is not known was added by another program, with thresholds that the file
                // lacks.
                let known = known.servers.get(&shown.address)?;
                if known.forwarding != shown.forwarding {
                    return None;
                }
                // Another program may have changed the weight, which the file has; thresholds it lacks.
                let server = RealServer { weight: shown.weight, ..*known };
                servers.insert(shown.address, server);
                table.connections.insert((key, shown.address), shown.connections);
            }
            let service = Service { scheduling: known.scheduling.clone(), servers };
            // A service twice in the file was moved while it was read.
            if table.services.insert(key, service).is_some() {
                return None;
            }
        }
        // Foreign services are shown in the status, so a new or changed one has to be read in full.
        let expected = self.foreign.iter().map(|(entry, foreign)| (entry, foreign.len()));
        if self.unrecognised || !expected.eq(foreign) {
            return None;
        }
        table.foreign = self.foreign.values().flatten().cloned().collect();
        table.foreign.sort();
        // A server that comes back later was not added by us, and is to be read in full.
        self.services.clone_from(&table.services);
        Some(table)
    }

    /// Returns our service that appears as `entry`.
    fn ours(&self, entry: &ProcEntry) -> Option<(ServiceKey, &Service)> {
        let key = key(&entry.identity)?;
        let service = self.services.get(&key)?;
        let Scheduling { scheduler, flags } = &service.scheduling;
        entry.shows(scheduler, *flags).then_some((key, service))
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
