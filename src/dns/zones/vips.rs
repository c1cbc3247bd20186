//! The names of VIPs: a zone with addresses, services, and the way back from address to name.
//!
//! Pure: a [`Zone`] is an immutable value built from what the kernel holds. Below its origin these
//! names exist for a VIP `web.marathon` on TCP port 80, which a task port `http` serves:
//!
//! * `web.marathon` with its addresses;
//! * `_80._web._tcp.marathon` and `_web._tcp.marathon`, and in the order of RFC 2782
//!   `_80._tcp.web.marathon`: SRV records with the port; the second has all TCP ports of the name;
//! * `_http._web._tcp.marathon` and `_http._tcp.web.marathon`: the same by the task port's name;
//! * the names between those and the origin (empty non-terminals, RFC 4592 section 2.2.2).
//!
//! The zone does not know under which origins it is served: that is left to [`super::catalog`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::shared::SharedNames;
use crate::cluster::dns_label::{MAX_LABEL, MAX_NAME, label};
use crate::cluster::{Protocol, SharedMap};
pub use crate::dns::protocol::record::NameError;
use crate::dns::protocol::record::{RData, encode, encode_origin};

pub use crate::vip::DEFAULT_ZONE as DEFAULT_ORIGIN;

/// Name of the name server in each zone.
pub const NAME_SERVER: &str = "ns";

/// Octets that the longest name of our own adds to an origin: `hostmaster` with its length, and the root.
const LONGEST_OWN: usize = 12;

/// Name of task ports that have none in Marathon's definition; it says nothing about the port.
const NO_PORT_NAME: &str = "default";

/// Reasons why a zone could not be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("origin `{origin}` {reason}: expected a name such as {DEFAULT_ORIGIN}")]
    Origin { origin: String, reason: NameError },
}

/// A VIP that the kernel holds: its name relative to the origin, its address, its port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedService {
    pub name: String,
    pub address: IpAddr,
    /// `None` where only the address is known.
    pub port: Option<ServicePort>,
}

/// A port of a VIP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    pub protocol: Protocol,
    pub number: u16,
    /// Names of the task ports that serve it, as written.
    pub names: Arc<BTreeSet<String>>,
}

impl From<(Protocol, u16)> for ServicePort {
    fn from((protocol, number): (Protocol, u16)) -> Self {
        Self { protocol, number, names: Arc::default() }
    }
}

/// Records of a name, in order, with the number of services that each comes from.
#[derive(Clone, Debug, Default)]
struct NameRecords {
    records: Vec<RData>,
    counts: Vec<u32>,
    /// Number of records below it that come from services: it exists as long as there are any.
    below: u32,
}

impl NameRecords {
    /// Adds a record, or takes it back as often as it was added.
    fn change(&mut self, data: RData, change: ZoneChange) {
        match (self.records.binary_search(&data), change) {
            (Ok(place), ZoneChange::Add) => {
                if let Some(count) = self.counts.get_mut(place) {
                    *count += 1;
                }
            }
            (Err(place), ZoneChange::Add) => {
                // Most names have one record, and a list that grows as usual begins with room for four.
                self.records.reserve_exact(1);
                self.counts.reserve_exact(1);
                self.records.insert(place, data);
                self.counts.insert(place, 1);
            }
            (Ok(place), ZoneChange::Remove) => {
                let left = self.counts.get_mut(place).map_or(0, |count| {
                    *count -= 1;
                    *count
                });
                if left == 0 {
                    self.records.remove(place);
                    self.counts.remove(place);
                }
            }
            (Err(_), ZoneChange::Remove) => {}
        }
    }

    fn exists(&self) -> bool {
        !self.records.is_empty() || self.below > 0
    }
}

/// Names of an address, in order, with the number of services that each comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ReverseNames(Vec<(Box<[u8]>, u32)>);

/// Direction of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZoneChange {
    Add,
    Remove,
}

impl ZoneChange {
    fn apply(self, count: &mut u32) {
        *count = match self {
            Self::Add => *count + 1,
            Self::Remove => count.saturating_sub(1),
        };
    }
}

/// An immutable set of names. Zones that were made from each other share what they have in common.
#[derive(Clone, Debug)]
pub struct Zone {
    origin: Box<[u8]>,
    serial: u32,
    /// False until the first records are known.
    is_loaded: bool,
    records: SharedNames<NameRecords>,
    /// Services by the names of task ports.
    by_port_name: SharedNames<NameRecords>,
    /// Names of an address, relative.
    reverse: SharedMap<IpAddr, Arc<ReverseNames>>,
    /// Names without a place in the zone, with the reason and the number of their services.
    left_out: Arc<BTreeMap<String, (NameError, u32)>>,
}

/// Compares what clients see.
impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        let records = |zone: &Self| -> BTreeMap<Box<[u8]>, Vec<RData>> {
            zone.iter().map(|(name, records)| (name.into(), records.to_vec())).collect()
        };
        let names = |zone: &Self| -> BTreeMap<IpAddr, Vec<Box<[u8]>>> {
            let names = |(address, names): (&IpAddr, &Arc<ReverseNames>)| {
                (*address, names.0.iter().map(|(name, _)| name.clone()).collect())
            };
            zone.reverse.iter().map(names).collect()
        };
        self.origin == other.origin
            && self.serial == other.serial
            && self.is_loaded == other.is_loaded
            && records(self) == records(other)
            && names(self) == names(other)
    }
}

impl Eq for Zone {}

impl Zone {
    /// A zone whose records are not known yet.
    ///
    /// # Errors
    /// When the origin is no name, or leaves no room for names below it.
    pub fn new(origin: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::Origin { origin: origin.to_owned(), reason };
        let octets = encode_origin(origin).map_err(invalid)?;
        if octets.len() + LONGEST_OWN > MAX_NAME {
            return Err(invalid(NameError::TooLong));
        }
        Ok(Self::unloaded(octets))
    }

    fn unloaded(origin: Box<[u8]>) -> Self {
        Self {
            origin,
            serial: 0,
            is_loaded: false,
            records: SharedNames::default(),
            by_port_name: SharedNames::default(),
            reverse: SharedMap::default(),
            left_out: Arc::default(),
        }
    }

    /// The zone of the same origin with exactly these services, and the names that were left out with the
    /// reason.
    ///
    /// `serial` goes into the SOA (RFC 1982: later is greater).
    pub fn with_services<'a>(
        &self,
        serial: u32,
        services: impl IntoIterator<Item = &'a NamedService>,
    ) -> (Self, BTreeMap<String, NameError>) {
        let zone = Self::unloaded(self.origin.clone()).with_changes(serial, [], services);
        let left_out = zone.left_out().collect();
        (zone, left_out)
    }

    /// The zone without the services `removed`, which are in it, and with `added`, which are not. It costs what
    /// they are, and is equal to the zone with exactly the services that result.
    pub fn with_changes<'a>(
        &self,
        serial: u32,
        removed: impl IntoIterator<Item = &'a NamedService>,
        added: impl IntoIterator<Item = &'a NamedService>,
    ) -> Self {
        let mut zone = Self { serial, is_loaded: true, ..self.clone() };
        for service in removed {
            zone.change(service, ZoneChange::Remove);
        }
        for service in added {
            zone.change(service, ZoneChange::Add);
        }
        zone
    }

    /// Adds a service or takes it back.
    fn change(&mut self, service: &NamedService, change: ZoneChange) {
        let owner = match self.owner(&service.name) {
            Ok(owner) => owner,
            Err(reason) => {
                // Served by its address all the same; the status names the reason.
                let left_out = Arc::make_mut(&mut self.left_out);
                let (_, count) = left_out.entry(service.name.clone()).or_insert((reason, 0));
                change.apply(count);
                if *count == 0 {
                    left_out.remove(&service.name);
                }
                return;
            }
        };
        // A name without a known port is still a name of its address.
        let mut names = self.reverse.remove(&service.address).unwrap_or_default();
        let counts = &mut Arc::make_mut(&mut names).0;
        match (counts.binary_search_by(|(name, _)| name.cmp(&owner)), change) {
            (Ok(place), _) => counts.get_mut(place).into_iter().for_each(|(_, count)| change.apply(count)),
            (Err(place), ZoneChange::Add) => {
                // An address mostly has one name.
                counts.reserve_exact(1);
                counts.insert(place, (owner.clone(), 1));
            }
            (Err(_), ZoneChange::Remove) => {}
        }
        counts.retain(|(_, count)| *count > 0);
        if !counts.is_empty() {
            self.reverse.insert(service.address, names);
        }
        if let Some(port) = &service.port {
            let data = RData::Srv { port: port.number, target: owner.clone() };
            for name in service_names(&service.name, port.protocol, &port.number.to_string()) {
                self.change_record(&name, data.clone(), change);
            }
            for label in port.names.iter().filter_map(|name| port_label(name)) {
                // The form without a port is there by the number already.
                let forms = service_names(&service.name, port.protocol, &label).into_iter().enumerate();
                for (_, name) in forms.filter(|(form, _)| *form != ALL_PORTS) {
                    self.by_port_name.update(&name, |node| {
                        node.change(data.clone(), change);
                        node.exists()
                    });
                }
            }
        }
        self.change_record(&owner, RData::from(service.address), change);
    }

    /// Changes a record, and the names between it and the origin, which exist with it.
    fn change_record(&mut self, name: &[u8], data: RData, change: ZoneChange) {
        let mut above = name;
        while let Some((length, rest)) = above.split_first() {
            above = rest.get(usize::from(*length)..).unwrap_or_default();
            if above.is_empty() {
                break;
            }
            self.records.update(above, |node| {
                change.apply(&mut node.below);
                node.exists()
            });
        }
        self.records.update(name, |node| {
            node.change(data, change);
            node.exists()
        });
    }

    /// The origin as it is configured, on the wire.
    pub fn origin(&self) -> &[u8] {
        &self.origin
    }

    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// True if it is known which names there are.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// The names that have no place in the zone, each with the reason.
    pub fn left_out(&self) -> impl Iterator<Item = (String, NameError)> {
        self.left_out.iter().map(|(name, (reason, _))| (name.clone(), *reason))
    }

    /// True if `other` leaves out the same names for certain.
    pub fn leaves_out_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.left_out, &other.left_out)
    }

    /// Records of a relative name in lower case, which is not the origin; `None` if it does not exist.
    pub fn get(&self, name: &[u8]) -> Option<&[RData]> {
        // A name that looks like a number, or like another VIP, does not hide what that has. Names above
        // are all there by the numbers.
        let node = self.records.get(name).or_else(|| self.by_port_name.get(name))?;
        Some(&node.records)
    }

    /// All names and their records, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[RData])> {
        let named = self.by_port_name.iter().filter(|(name, _)| self.records.get(name).is_none());
        self.records.iter().chain(named).map(|(name, node)| (name, node.records.as_slice()))
    }

    /// The names of an address, relative.
    pub fn names(&self, address: IpAddr) -> impl Iterator<Item = &[u8]> {
        self.reverse.get(&address).into_iter().flat_map(|names| &names.0).map(|(name, _)| &**name)
    }

    /// All addresses that have names, in their order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.reverse.iter().map(|(address, _)| *address)
    }

    /// True if any address from `first` to `last` has a name.
    pub fn has_names(&self, first: IpAddr, last: IpAddr) -> bool {
        first.is_ipv4() == last.is_ipv4()
            && self.reverse.first_from(&first).is_some_and(|(found, _)| *found <= last)
    }

    /// The name of a service on the wire, relative to the origin.
    fn owner(&self, name: &str) -> Result<Box<[u8]>, NameError> {
        let owner = encode(name)?;
        if owner.len() + self.origin.len() + 1 > MAX_NAME {
            return Err(NameError::TooLong);
        }
        if name.eq_ignore_ascii_case(NAME_SERVER) {
            return Err(NameError::Reserved);
        }
        Ok(owner)
    }
}

/// Place of the form without a port in [`service_names`].
const ALL_PORTS: usize = 1;

/// The names under which a port of a VIP is found; a form that is no valid name is left out.
fn service_names(name: &str, protocol: Protocol, port: &str) -> Vec<Box<[u8]>> {
    let (first, rest) =
        name.split_once('.').map_or((name, String::new()), |(first, rest)| (first, format!(".{rest}")));
    let names = [
        format!("_{port}._{first}._{protocol}{rest}"),
        format!("_{first}._{protocol}{rest}"),
        format!("_{port}._{protocol}.{name}"),
    ];
    names.iter().filter_map(|name| encode(name).ok()).collect()
}

/// A port's name as a label of an SRV name, to which an underscore is added; `None` if nothing is left of
/// it, or if it names no port in particular.
fn port_label(name: &str) -> Option<String> {
    let label = label(name);
    (!label.is_empty() && label.len() < MAX_LABEL && label != NO_PORT_NAME).then_some(label)
}

#[cfg(test)]
mod tests;
