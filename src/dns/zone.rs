//! The names of VIPs: a zone with addresses, services, and the way back from address to name.
//!
//! Pure: a [`Zone`] is an immutable value built from what the kernel holds. Below its origin these
//! names exist for a VIP `web.marathon` on TCP port 80:
//!
//! * `web.marathon` with its addresses;
//! * `_80._web._tcp.marathon` and `_web._tcp.marathon`, and in the order of RFC 2782
//!   `_80._tcp.web.marathon`: SRV records with the port; the second has all TCP ports of the name;
//! * the same with the name of the task's port instead of its number, see [`Zone::port_names`];
//! * the names between those and the origin (empty non-terminals, RFC 4592 section 2.2.2).
//!
//! The zone does not know under which origins it is served: that is left to [`super::catalog`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use super::record::NameError;
use super::record::{Data, encode, encode_origin};
use super::wire::{MAX_LABEL, MAX_NAME};
use crate::cluster::Protocol;

pub use crate::vip::DEFAULT_ZONE as DEFAULT_ORIGIN;

/// Name of the name server in each zone.
pub const NAME_SERVER: &str = "ns";

/// Why a zone could not be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("origin `{origin}` {reason}: expected a name such as {DEFAULT_ORIGIN}")]
    Origin { origin: String, reason: NameError },
}

/// A VIP that the kernel holds: its name relative to the origin, its address, its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    pub name: String,
    pub address: IpAddr,
    /// `None` where only the address is known.
    pub port: Option<(Protocol, u16)>,
}

/// Names of task ports, by VIP name, protocol and the VIP's port.
pub type PortNames = BTreeMap<(String, Protocol, u16), BTreeSet<String>>;

/// Relative names on the wire and what they have.
pub type Nodes = HashMap<Box<[u8]>, Vec<Data>>;

/// An immutable set of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    origin: Box<[u8]>,
    serial: u32,
    /// `None` until the first records are known.
    nodes: Option<Nodes>,
    /// Names of an address, relative.
    names4: BTreeMap<Ipv4Addr, Vec<Box<[u8]>>>,
    names6: BTreeMap<Ipv6Addr, Vec<Box<[u8]>>>,
}

impl Zone {
    /// A zone whose records are not known yet.
    pub fn new(origin: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::Origin { origin: origin.to_owned(), reason };
        let octets = encode_origin(origin).map_err(invalid)?;
        // There must be room for at least `hostmaster`.
        if octets.len() + 12 > MAX_NAME {
            return Err(invalid(NameError::TooLong));
        }
        Ok(Self { origin: octets, serial: 0, nodes: None, names4: BTreeMap::new(), names6: BTreeMap::new() })
    }

    /// The same zone with exactly these services, and the names that were left out with the reason.
    ///
    /// `serial` goes into the SOA (RFC 1982: later is greater).
    pub fn with_services<'a>(
        &self,
        serial: u32,
        services: impl IntoIterator<Item = &'a Service>,
    ) -> (Self, BTreeMap<String, NameError>) {
        let mut zone = Self { serial, ..Self { nodes: None, ..self.clone() } };
        zone.names4.clear();
        zone.names6.clear();
        let mut nodes = Nodes::new();
        let mut left_out = BTreeMap::new();
        for service in services {
            match self.owner(&service.name) {
                Ok(owner) => {
                    zone.add_reverse(service.address, &owner);
                    if let Some((protocol, port)) = service.port {
                        for name in service_names(&service.name, protocol, &port.to_string()) {
                            add(&mut nodes, name, Data::Srv { port, target: owner.clone() });
                        }
                    }
                    add(&mut nodes, owner, Data::from(service.address));
                }
                Err(reason) => {
                    left_out.insert(service.name.clone(), reason);
                }
            }
        }
        zone.nodes = Some(nodes);
        (zone, left_out)
    }

    /// The origin as it is configured, on the wire.
    pub fn origin(&self) -> &[u8] {
        &self.origin
    }

    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Whether it is known which names there are.
    pub fn is_loaded(&self) -> bool {
        self.nodes.is_some()
    }

    /// Records of a relative name in lower case, which is not the origin; `None` if it does not exist.
    pub fn get(&self, name: &[u8]) -> Option<&[Data]> {
        self.nodes.as_ref()?.get(name).map(Vec::as_slice)
    }

    /// All names and their records, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[Data])> {
        self.nodes.iter().flatten().map(|(name, records)| (&**name, records.as_slice()))
    }

    /// The names of an address, relative.
    pub fn names(&self, address: IpAddr) -> &[Box<[u8]>] {
        let names = match address {
            IpAddr::V4(address) => self.names4.get(&address),
            IpAddr::V6(address) => self.names6.get(&address),
        };
        names.map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether any address from `first` to `last` has a name.
    pub fn has_names(&self, first: IpAddr, last: IpAddr) -> bool {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => self.names4.range(first..=last).next().is_some(),
            (IpAddr::V6(first), IpAddr::V6(last)) => self.names6.range(first..=last).next().is_some(),
            _ => false,
        }
    }

    /// The SRV names that the names of ports give, for the services of this zone.
    pub fn port_names(&self, port_names: &PortNames) -> Nodes {
        let mut nodes = Nodes::new();
        for ((name, protocol, port), labels) in port_names {
            let Ok(owner) = self.owner(name) else { continue };
            let by_number = service_names(name, *protocol, &port.to_string());
            if by_number.first().is_none_or(|name| self.get(name).is_none()) {
                continue;
            }
            for label in labels {
                // The form without a port name is the same for all of them.
                let forms = service_names(name, *protocol, label).into_iter().enumerate();
                for (_, form) in forms.filter(|(form, _)| *form != ALL_PORTS) {
                    if self.get(&form).is_none() {
                        let data = Data::Srv { port: *port, target: owner.clone() };
                        nodes.entry(form).or_default().push(data);
                    }
                }
            }
        }
        nodes
    }

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

/// The names under which a port of a VIP is found; those that are no names are left out.
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

/// Adds a record once, with the names between it and the origin.
fn add(nodes: &mut Nodes, name: Box<[u8]>, data: Data) {
    let mut above: &[u8] = &name;
    while let Some((length, rest)) = above.split_first() {
        above = rest.get(usize::from(*length)..).unwrap_or_default();
        if above.is_empty() || nodes.contains_key(above) {
            break;
        }
        nodes.insert(above.into(), Vec::new());
    }
    let records = nodes.entry(name).or_default();
    if let Err(place) = records.binary_search(&data) {
        records.insert(place, data);
    }
}

/// A port's name as a label of an SRV name; `None` if nothing is left of it.
pub fn port_label(name: &str) -> Option<String> {
    let label = crate::cluster::dns_label::label(name);
    // The underscore takes one octet, and a task port without a name is called so.
    (!label.is_empty() && label.len() < MAX_LABEL && label != "default").then_some(label)
}

#[cfg(test)]
mod tests;
