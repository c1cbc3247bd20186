//! The authoritative zone: which names exist below the origin and what each question gets.
//!
//! Pure: a [`Zone`] is an immutable value built from a list of names and addresses, and
//! [`Zone::answer`] is a function of it and the question. Header flags, EDNS and size limits are
//! left to [`super::message`], sockets and the replacement of one zone by the next to
//! [`super::Listener`].
//!
//! Below the origin these names exist, everything else there is NXDOMAIN:
//!
//! * the origin itself, with SOA and NS;
//! * `ns.<origin>`, the target of NS, with the addresses the server listens on;
//! * the names given to [`Zone::with_records`];
//! * the names between those and the origin (empty non-terminals, RFC 4592 section 2.2.2 and
//!   RFC 8020), which have no records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, AAAA, NS, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Origin used when the configuration names none; the zone of DC/OS.
pub const DEFAULT_ORIGIN: &str = "l4lb.thisdcos.directory";

/// Time to live of every record, in seconds, when the configuration names none.
pub const DEFAULT_TTL: u32 = 5;

const REFRESH: i32 = 60;
const RETRY: i32 = 180;
const EXPIRE: i32 = 86_400;
/// Seconds a negative answer may be cached (RFC 2308): a VIP that just appeared is seen at once.
const MINIMUM: u32 = 1;

const NAME_SERVER: &str = "ns";
const HOSTMASTER: &str = "hostmaster";

/// What a zone says to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name has records of this type: NOERROR. Never empty; all records have the same type
    /// and carry the name as the question spelled it.
    Records(Vec<Record>),
    /// The name exists without records of this type: NOERROR with this SOA as authority.
    NoData(Box<Record>),
    /// The name does not exist: NXDOMAIN with this SOA as authority.
    NxDomain(Box<Record>),
    /// Not ours to answer: a name outside the zone, a class other than IN, a zone transfer.
    Refused,
    /// A name of ours before the first records are known: SERVFAIL, so that the client asks
    /// another server or again, instead of believing that the name does not exist.
    NotLoaded,
}

/// Why a name has no place in the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("has an empty label")]
    EmptyLabel,
    #[error("has a label longer than 63 octets")]
    LabelTooLong,
    #[error("is longer than 255 octets together with the origin")]
    TooLong,
    #[error("is reserved for the name server of the zone")]
    Reserved,
}

/// Why a zone could not be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("origin `{origin}` {reason}: expected a name such as {DEFAULT_ORIGIN}")]
    Origin { origin: String, reason: NameError },
}

/// An immutable authoritative zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    origin: Name,
    soa: SOA,
    ttl: u32,
    name_server: Node,
    /// `None` until the first records are known. [`Name`] orders canonically (RFC 4034
    /// section 6.1) and without regard to case, so the names below a name follow it directly.
    nodes: Option<BTreeMap<Name, Node>>,
}

/// The addresses of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    v4: BTreeSet<Ipv4Addr>,
    v6: BTreeSet<Ipv6Addr>,
}

impl Zone {
    /// A zone whose records are not known yet: it answers [`Answer::NotLoaded`] until it is
    /// replaced by the result of [`Zone::with_records`].
    ///
    /// `ttl` is in seconds. `name_servers` are the addresses `ns.<origin>` resolves to, normally
    /// those of the listener; unspecified ones (`0.0.0.0`, `::`) are left out.
    pub fn new(origin: &str, ttl: u32, name_servers: &[IpAddr]) -> Result<Self, Error> {
        let invalid = |reason| Error::Origin { origin: origin.to_owned(), reason };
        let absolute = origin.strip_suffix('.').unwrap_or(origin);
        let name = absolute_name(absolute, &Name::root()).map_err(invalid)?;
        let primary = absolute_name(NAME_SERVER, &name).map_err(invalid)?;
        let hostmaster = absolute_name(HOSTMASTER, &name).map_err(invalid)?;
        Ok(Self {
            origin: name,
            soa: SOA::new(primary, hostmaster, 0, REFRESH, RETRY, EXPIRE, MINIMUM),
            ttl,
            name_server: name_servers.iter().copied().filter(|address| !address.is_unspecified()).collect(),
            nodes: None,
        })
    }

    /// The same zone with exactly these records, and the names that were left out with the
    /// reason.
    ///
    /// Names are relative to the origin (`web.marathon`). A name that occurs several times gets
    /// all its addresses, each once. `serial` goes into the SOA (RFC 1982: later is greater).
    pub fn with_records<'a>(
        &self,
        serial: u32,
        records: impl IntoIterator<Item = (&'a str, IpAddr)>,
    ) -> (Self, BTreeMap<String, NameError>) {
        let mut nodes = BTreeMap::from([
            (self.origin.clone(), Node::default()),
            (self.soa.mname.clone(), self.name_server.clone()),
        ]);
        let mut left_out = BTreeMap::new();
        for (name, address) in records {
            match self.owner(name) {
                Ok(owner) => nodes.entry(owner).or_default().insert(address),
                Err(reason) => {
                    left_out.insert(name.to_owned(), reason);
                }
            }
        }
        let mut soa = self.soa.clone();
        soa.serial = serial;
        let zone = Self {
            origin: self.origin.clone(),
            soa,
            ttl: self.ttl,
            name_server: self.name_server.clone(),
            nodes: Some(nodes),
        };
        (zone, left_out)
    }

    /// Answers one question. Letter case does not matter (RFC 4343).
    ///
    /// ANY gets one of the record sets the name has (RFC 8482 section 4.1); zone transfers are
    /// refused (RFC 5936 section 2.2.1).
    pub fn answer(&self, query: &Query) -> Answer {
        let (name, kind) = (query.name(), query.query_type());
        let ours = query.query_class() == DNSClass::IN && self.origin.zone_of(name);
        if !ours || matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            return Answer::Refused;
        }
        let Some(nodes) = &self.nodes else {
            return Answer::NotLoaded;
        };
        let Some((next, node)) = nodes.range(name..).next() else {
            return Answer::NxDomain(self.negative());
        };
        if !name.zone_of(next) {
            return Answer::NxDomain(self.negative());
        }
        let data = if next == name { self.data(name, node, kind) } else { Vec::new() };
        if data.is_empty() {
            return Answer::NoData(self.negative());
        }
        let record = |data| Record::from_rdata(name.clone(), self.ttl, data);
        Answer::Records(data.into_iter().map(record).collect())
    }

    /// The records of one type at an existing name.
    fn data(&self, name: &Name, node: &Node, kind: RecordType) -> Vec<RData> {
        let apex = *name == self.origin;
        match kind {
            RecordType::SOA if apex => vec![RData::SOA(self.soa.clone())],
            RecordType::NS if apex => vec![RData::NS(NS(self.soa.mname.clone()))],
            RecordType::A => node.v4.iter().map(|ip| RData::A(A(*ip))).collect(),
            RecordType::AAAA => node.v6.iter().map(|ip| RData::AAAA(AAAA(*ip))).collect(),
            RecordType::ANY => [RecordType::SOA, RecordType::A, RecordType::AAAA]
                .into_iter()
                .map(|kind| self.data(name, node, kind))
                .find(|data| !data.is_empty())
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// The SOA of a negative answer; its own TTL must not outlive the negative one (RFC 2308
    /// section 3).
    fn negative(&self) -> Box<Record> {
        Box::new(Record::from_rdata(
            self.origin.clone(),
            self.ttl.min(self.soa.minimum),
            RData::SOA(self.soa.clone()),
        ))
    }

    fn owner(&self, name: &str) -> Result<Name, NameError> {
        let owner = absolute_name(name, &self.origin)?;
        if owner == self.soa.mname {
            return Err(NameError::Reserved);
        }
        Ok(owner)
    }
}

impl Node {
    fn insert(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(ip) => self.v4.insert(ip),
            IpAddr::V6(ip) => self.v6.insert(ip),
        };
    }
}

impl FromIterator<IpAddr> for Node {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        let mut node = Self::default();
        for address in addresses {
            node.insert(address);
        }
        node
    }
}

/// `<relative>.<origin>`, the octets taken literally: no escapes, no IDNA.
fn absolute_name(relative: &str, origin: &Name) -> Result<Name, NameError> {
    let labels = || relative.split('.').map(str::as_bytes);
    if labels().any(<[u8]>::is_empty) {
        return Err(NameError::EmptyLabel);
    }
    if labels().any(|label| label.len() > 63) {
        return Err(NameError::LabelTooLong);
    }
    Name::from_labels(labels().chain(origin.iter())).map_err(|_| NameError::TooLong)
}

#[cfg(test)]
mod tests;
