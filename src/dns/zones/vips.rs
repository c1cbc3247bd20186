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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cluster::Protocol;
use crate::cluster::dns_label::{MAX_LABEL, MAX_NAME, label};
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
    pub names: BTreeSet<String>,
}

impl From<(Protocol, u16)> for ServicePort {
    fn from((protocol, number): (Protocol, u16)) -> Self {
        Self { protocol, number, names: BTreeSet::new() }
    }
}

/// Relative names on the wire with their records.
type RecordMap = HashMap<Box<[u8]>, Vec<RData>>;

/// An immutable set of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    origin: Box<[u8]>,
    serial: u32,
    /// `None` until the first records are known.
    records: Option<RecordMap>,
    /// Names of an address, relative.
    names4: BTreeMap<Ipv4Addr, Vec<Box<[u8]>>>,
    names6: BTreeMap<Ipv6Addr, Vec<Box<[u8]>>>,
}

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
        Ok(Self {
            origin: octets,
            serial: 0,
            records: None,
            names4: BTreeMap::new(),
            names6: BTreeMap::new(),
        })
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
        let (names4, names6) = (BTreeMap::new(), BTreeMap::new());
        let mut zone = Self { origin: self.origin.clone(), serial, records: None, names4, names6 };
        let mut records = RecordMap::new();
        let mut by_port_name = RecordMap::new();
        let mut left_out = BTreeMap::new();
        for service in services {
            let owner = match self.owner(&service.name) {
                Ok(owner) => owner,
                Err(reason) => {
                    // Served by its address all the same; the status names the reason.
                    left_out.insert(service.name.clone(), reason);
                    continue;
                }
            };
            // A name without a known port is still a name of its address.
            zone.add_reverse(service.address, &owner);
            if let Some(port) = &service.port {
                let data = RData::Srv { port: port.number, target: owner.clone() };
                for name in service_names(&service.name, port.protocol, &port.number.to_string()) {
                    add_with_parents(&mut records, name, data.clone());
                }
                for label in port.names.iter().filter_map(|name| port_label(name)) {
                    // The form without a port is there by the number already.
                    let forms = service_names(&service.name, port.protocol, &label).into_iter().enumerate();
                    for (_, name) in forms.filter(|(form, _)| *form != ALL_PORTS) {
                        add(&mut by_port_name, name, data.clone());
                    }
                }
            }
            add_with_parents(&mut records, owner, RData::from(service.address));
        }
        // A name that looks like a number, or like another VIP, does not hide what that has. Names above
        // are all there by the numbers.
        for (name, data) in by_port_name {
            records.entry(name).or_insert(data);
        }
        zone.records = Some(records);
        (zone, left_out)
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
        self.records.is_some()
    }

    /// Records of a relative name in lower case, which is not the origin; `None` if it does not exist.
    pub fn get(&self, name: &[u8]) -> Option<&[RData]> {
        self.records.as_ref()?.get(name).map(Vec::as_slice)
    }

    /// All names and their records, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[RData])> {
        self.records.iter().flatten().map(|(name, records)| (&**name, records.as_slice()))
    }

    /// The names of an address, relative.
    pub fn names(&self, address: IpAddr) -> &[Box<[u8]>] {
        let names = match address {
            IpAddr::V4(address) => self.names4.get(&address),
            IpAddr::V6(address) => self.names6.get(&address),
        };
        names.map(Vec::as_slice).unwrap_or_default()
    }

    /// True if any address from `first` to `last` has a name.
    pub fn has_names(&self, first: IpAddr, last: IpAddr) -> bool {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => self.names4.range(first..=last).next().is_some(),
            (IpAddr::V6(first), IpAddr::V6(last)) => self.names6.range(first..=last).next().is_some(),
            _ => false,
        }
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

    fn add_reverse(&mut self, address: IpAddr, name: &[u8]) {
        let names = match address {
            IpAddr::V4(address) => self.names4.entry(address).or_default(),
            IpAddr::V6(address) => self.names6.entry(address).or_default(),
        };
        if !names.iter().any(|known| **known == *name) {
            names.push(name.into());
        }
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

/// Adds a record, with the names between it and the origin.
fn add_with_parents(records: &mut RecordMap, name: Box<[u8]>, data: RData) {
    let mut above: &[u8] = &name;
    while let Some((length, rest)) = above.split_first() {
        above = rest.get(usize::from(*length)..).unwrap_or_default();
        // What exists has all names above it already.
        if above.is_empty() || records.contains_key(above) {
            break;
        }
        records.insert(above.into(), Vec::new());
    }
    add(records, name, data);
}

/// Adds a record once, in order.
fn add(records: &mut RecordMap, name: Box<[u8]>, data: RData) {
    let known = records.entry(name).or_default();
    if let Err(place) = known.binary_search(&data) {
        known.insert(place, data);
    }
}

/// A port's name as a label of an SRV name, to which an underscore is added; `None` if nothing is left of
/// it, or if it names no port in particular.
fn port_label(name: &str) -> Option<String> {
    let label = label(name);
    (!label.is_empty() && label.len() < MAX_LABEL && label != NO_PORT_NAME).then_some(label)
}

#[cfg(test)]
mod tests;
