//! What the programs have seen of connects: whose element of a map is whose, and reading them.
//!
//! Each service has an element of the map `vip_connects`, which names it, and the element of each of its servers in
//! `connects` has the number of that. Both outlive this process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use zerocopy::FromZeros;

use super::error::Error;
use super::layout::{self, ServerConnects, VipConnects};
use super::maps::Maps;
use super::reading::map_error;
use super::table::{PlacedService, ServiceTable};
use crate::dataplane::connects::{Connects, Seen};
use crate::dataplane::state::ServiceKey;

/// Elements of the map `vip_connects` by their services.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Elements {
    of: BTreeMap<ServiceKey, u32>,
    /// Free elements below `end`.
    free: BTreeSet<u32>,
    /// One past the highest element that was ever used.
    end: u32,
}

impl Elements {
    /// Takes over the elements of services that are in `table`, and frees the rest.
    pub fn adopt(table: &ServiceTable, elements: &[VipConnects]) -> Self {
        let mut adopted = Self::default();
        for (number, element) in (0..).zip(elements) {
            let service = element.service().filter(|key| table.services.contains_key(key));
            let Some(key) = service.filter(|key| !adopted.of.contains_key(key)) else { continue };
            adopted.of.insert(key, number);
            adopted.free.extend(adopted.end..number);
            adopted.end = number + 1;
        }
        adopted
    }

    /// Returns the element of a service, and true if it has just been given it. There is none if there are more
    /// services than elements, of which the map `vips` allows none.
    fn take(&mut self, key: ServiceKey) -> Option<(u32, bool)> {
        if let Some(number) = self.of.get(&key) {
            return Some((*number, false));
        }
        let number = match self.free.pop_first() {
            Some(number) => number,
            None if self.end < layout::SERVICES => {
                self.end += 1;
                self.end - 1
            }
            None => return None,
        };
        self.of.insert(key, number);
        Some((number, true))
    }

    /// Frees the element of a service that is gone.
    fn release(&mut self, key: &ServiceKey) -> Option<u32> {
        let number = self.of.remove(key)?;
        self.free.insert(number);
        Some(number)
    }
}

/// Takes over what is in the maps, and lets the count begin where a server or a service has none: an earlier
/// version of this program may have changed them without it.
pub fn open(maps: &Maps, table: &ServiceTable) -> Result<Elements, Error> {
    let (_, found) = maps
        .vip_connects
        .read(layout::SERVICES as usize)
        .map_err(|source| map_error(&layout::VIP_CONNECTS, source))?;
    let mut elements = Elements::adopt(table, &found);
    let (_, servers) =
        maps.connects.read(table.ids_end()).map_err(|source| map_error(&layout::CONNECTS, source))?;
    begin(maps, &mut elements, table.services.iter(), |_, _, id, element| {
        servers.get(id as usize).is_some_and(|found| found.is_of(element))
    });
    Ok(elements)
}

/// Lets the counts of services begin that have no element, and of servers for which `is_counted` is false, which is
/// asked for service and server, the server's id, and the service's element.
pub fn begin<'a>(
    maps: &Maps,
    elements: &mut Elements,
    services: impl Iterator<Item = (&'a ServiceKey, &'a PlacedService)>,
    is_counted: impl Fn(&ServiceKey, &SocketAddr, u32, u32) -> bool,
) {
    let (mut vips, mut servers) = (Vec::new(), Vec::new());
    for (key, placed) in services {
        let Some((element, is_new)) = elements.take(*key) else { continue };
        if is_new {
            vips.push((element, VipConnects::of(*key)));
        }
        for (address, server) in &placed.servers {
            // The element may have been another service's, so that its servers are counted anew with it.
            if is_new || !is_counted(key, address, server.id, element) {
                servers.push((server.id, ServerConnects::of(element)));
            }
        }
    }
    // An array takes every value. What is not counted is no reason to balance nothing.
    let failed = maps.vip_connects.write(vips).into_iter().chain(maps.connects.write(servers));
    for (_, error) in failed {
        tracing::warn!(%error, "cannot begin to count connects: figures of some backends will be those of others");
    }
}

/// Frees the element of a service that is gone.
pub fn end(maps: &Maps, elements: &mut Elements, key: &ServiceKey) {
    let Some(number) = elements.release(key) else { return };
    if let Err(error) = maps.vip_connects.update(&number, &VipConnects::new_zeroed()) {
        tracing::debug!(%error, "cannot clear the counts of connects to a VIP that is gone");
    }
}

/// Reads what was seen of the services in `table`.
pub fn read(maps: &Maps, elements: &Elements, table: &ServiceTable) -> Result<Seen, Error> {
    let (_, vips) = maps
        .vip_connects
        .read(elements.end as usize)
        .map_err(|source| map_error(&layout::VIP_CONNECTS, source))?;
    let (_, servers) =
        maps.connects.read(table.ids_end()).map_err(|source| map_error(&layout::CONNECTS, source))?;
    let mut seen = Seen::default();
    for (key, placed) in &table.services {
        let Some(element) = elements.of.get(key).copied() else { continue };
        let vip = vips.get(element as usize).map(VipConnects::connects);
        // A VIP's counts include those of its servers, which are all 0 as well.
        let Some(vip) = vip.filter(|vip| vip.connects != Connects::default()) else { continue };
        seen.services.insert(*key, vip);
        for (address, server) in &placed.servers {
            let of_server = servers.get(server.id as usize).filter(|server| server.is_of(element));
            let connects = of_server.map(ServerConnects::connects).unwrap_or_default();
            seen.servers.insert((*key, *address), connects);
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Protocol;

    fn service(last: u8) -> ServiceKey {
        ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, last].into(), port: 80 }
    }

    fn table(services: &[u8]) -> ServiceTable {
        let placed = PlacedService { sound: true, ..PlacedService::default() };
        ServiceTable::adopt(services.iter().map(|last| (service(*last), placed.clone())).collect())
    }

    #[test]
    fn elements_of_services_that_stay_are_kept_and_others_used_again() {
        let found = [1, 2, 3, 2].map(|last| VipConnects::of(service(last)));
        let mut elements = Elements::adopt(&table(&[2, 3, 4]), &found);
        assert_eq!(elements.take(service(2)), Some((1, false)));
        assert_eq!(elements.take(service(3)), Some((2, false)));
        assert_eq!(elements.take(service(4)), Some((0, true)));
        assert_eq!(elements.take(service(5)), Some((3, true)));
        assert_eq!(elements.release(&service(3)), Some(2));
        assert_eq!(elements.release(&service(3)), None);
        assert_eq!(elements.take(service(6)), Some((2, true)));
    }
}
