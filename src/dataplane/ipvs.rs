//! The kernel's IPVS table: tells our services from foreign ones, and changes ours.
//!
//! IPVS has no owners, but it keeps and returns the timeout of a service without using it unless
//! the service is persistent. So our services carry [`OWNER_TAG`] there, and a service is ours if
//! it is TCP or UDP, not by firewall mark, not persistent and has that timeout. Foreign services are
//! listed and left alone.
//!
//! What belongs here: `table` has what dumps say, `proc` what `/proc` shows, `cache` joins the two,
//! and `request` has the messages for operations. Everything blocks and is meant for one thread at a
//! time, in the network namespace of that thread. What the table should hold is left to
//! [`super::diff`], when to look to the reconciler, and the wire format to [`crate::netlink`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::netlink::batch::{self, GenlConnection};
use crate::netlink::ipvs::{IpvsAttribute, IpvsCommand, IpvsMessage};
use crate::netlink::socket;

use super::op::Op;
use super::state::{Connections, Foreign, RealServer, Scheduling, ServerKey, Service, ServiceKey, Timeouts};
use cache::Cache;
use proc::ProcEntry;
use table::DumpedService;

mod cache;
mod proc;
mod request;
mod table;
#[cfg(test)]
mod tests;

pub use request::Refusal;
pub use table::{IpvsTable, OWNER_TAG};

/// The kernel's view of the calling thread's network namespace. It lacks thresholds, flags and the
/// owner tag, but has all real servers in one file.
const PROC: &str = "/proc/thread-self/net/ip_vs";

/// Failure to open or read the kernel's table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this kernel has no IPVS, or its module is not loaded (try: modprobe ip_vs)")]
    Absent,
    #[error("not allowed to program IPVS (needs CAP_NET_ADMIN; run as root, or by systemd/l4lbd.service)")]
    Permission,
    #[error(transparent)]
    Netlink(batch::Error),
    #[error("the kernel's answer about IPVS lacks {0}: this kernel has an IPVS that l4lbd does not know")]
    Lacking(&'static str),
}

/// The IPVS table of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Ipvs {
    connection: GenlConnection<IpvsMessage>,
    /// The last full reading with our own changes since; `None` when in doubt.
    cache: Option<Cache>,
}

impl Ipvs {
    /// Connects to the kernel's IPVS, which may load its module.
    ///
    /// # Errors
    /// [`Error::Absent`] without IPVS in the kernel, [`Error::Permission`] without `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { connection: GenlConnection::open()?, cache: None })
    }

    /// Reads everything from the kernel: one dump of all services, and one of the real servers of
    /// each service of ours. The kernel does not mark dumps that miss a service or show it twice
    /// because another program changes the table; a later reading is right again.
    ///
    /// # Errors
    /// When a dump fails. The next reading starts anew.
    pub fn read(&mut self) -> Result<IpvsTable, Error> {
        let before = self.cache.take().map(|cache| cache.services).unwrap_or_default();
        // The module may have been loaded anew since, with another family number.
        self.connection.resolve()?;
        // Filled in two steps, because servers are listed by service.
        let mut table = IpvsTable::default();
        let mut foreign: Vec<(Foreign, Option<ProcEntry>)> = Vec::new();
        // Services at the keys of ours that have lost the owner tag.
        let mut unmarked = Vec::new();
        for reply in self.connection.dump(&IpvsMessage::new(IpvsCommand::GetService))? {
            match DumpedService::from_reply(reply) {
                DumpedService::Ours(key, scheduling) => {
                    let service = Service { scheduling, servers: BTreeMap::new() };
                    table.services.insert(key, service);
                }
                DumpedService::Foreign(other, entry) => {
                    match other.key.and_then(|key| before.get_key_value(&key)) {
                        Some((key, ours)) => unmarked.push((*key, ours, other, entry)),
                        None => foreign.push((other, entry)),
                    }
                }
            }
        }
        // A dump of one service at a time, because the kernel has none for all real servers.
        for (key, service) in &mut table.services {
            for (address, server, count) in self.servers(*key)? {
                service.servers.insert(address, server);
                table.connections.insert((*key, address), count);
            }
        }
        // Editing a service with ipvsadm takes the tag off it. One that still has exactly our servers is
        // ours, and is repaired; any other was made by another program in its place.
        for (key, ours, other, entry) in unmarked {
            let found = self.servers(key)?;
            if found.is_empty() || !found.iter().map(|(address, ..)| address).eq(ours.servers.keys()) {
                foreign.push((other, entry));
                continue;
            }
            table.connections.extend(found.iter().map(|(address, _, count)| ((key, *address), *count)));
            let servers = found.into_iter().map(|(address, server, _)| (address, server)).collect();
            table.services.insert(key, Service { scheduling: Scheduling::unknown(), servers });
        }
        table.foreign = foreign.iter().map(|(foreign, _)| foreign.clone()).collect();
        table.foreign.sort();
        self.cache = Some(Cache::new(table.services.clone(), foreign));
        Ok(table)
    }

    /// Real servers of a service, by address. One that can't be decoded is left out, and shows when adding
    /// it fails.
    fn servers(&mut self, key: ServiceKey) -> Result<Vec<(SocketAddr, RealServer, Connections)>, Error> {
        let replies = self.connection.dump(&request::list_servers(key))?;
        let mut servers: Vec<_> = replies.into_iter().filter_map(|reply| table::server(key, reply)).collect();
        servers.sort_by_key(|(address, ..)| *address);
        Ok(servers)
    }

    /// Counts the connections of some real servers: one dump for each service that has one of them.
    ///
    /// # Errors
    /// When a dump fails.
    pub fn count(
        &mut self,
        servers: &BTreeSet<ServerKey>,
    ) -> Result<BTreeMap<ServerKey, Connections>, Error> {
        if servers.is_empty() {
            return Ok(BTreeMap::new());
        }
        // The module may have been loaded anew since, with another family number.
        self.connection.resolve()?;
        let services: BTreeSet<ServiceKey> = servers.iter().map(|(key, _)| *key).collect();
        let mut counted = BTreeMap::new();
        for key in services {
            // A service that another program deleted has no servers to count; the next audit finds that.
            let found = self.servers(key)?;
            let found = found.into_iter().map(|(address, _, count)| ((key, address), count));
            counted.extend(found.filter(|(server, _)| servers.contains(server)));
        }
        Ok(counted)
    }

    /// Reads services, weights and connections from `/proc/net/ip_vs`, and takes the rest from the
    /// cache. Anything unexpected there makes it [`Self::read`].
    ///
    /// Not noticed are thresholds and flags that another program changed, and a service of ours that it
    /// replaced by its own with the same scheduler and servers.
    ///
    /// # Errors
    /// Those of [`Self::read`], if that becomes necessary.
    pub fn audit(&mut self) -> Result<IpvsTable, Error> {
        // One file instead of a dump for each service: at 10,000 services that is most of a pass.
        let shown = std::fs::read_to_string(PROC).ok().and_then(|text| proc::parse(&text));
        let table = match (&mut self.cache, shown) {
            (Some(cache), Some(shown)) => cache.complete(shown),
            _ => None,
        };
        match table {
            Some(table) => Ok(table),
            None => self.read(),
        }
    }

    /// Carries out the operations on services, real servers and timeouts, in order, and goes on after a
    /// failure. Returns the failures by index into `ops`.
    pub fn apply(&mut self, ops: &[&Op]) -> Vec<(usize, Refusal)> {
        if ops.is_empty() {
            return Vec::new();
        }
        // The module may have been loaded anew since the last pass, with another family number.
        if let Err(error) = self.connection.resolve() {
            self.cache = None;
            let refusal = Refusal::unsent(&error);
            return (0..ops.len()).map(|index| (index, refusal.clone())).collect();
        }
        let mut refusals = Vec::new();
        // Position among the messages to the operation, because not each operation has a message.
        let mut sent = Vec::with_capacity(ops.len());
        let messages = ops.iter().zip(0..).filter_map(|(op, index)| match request::change(op) {
            Ok(message) => {
                sent.push((index, *op));
                Some(message)
            }
            Err(refusal) => {
                refusals.push((index, refusal));
                None
            }
        });
        for (position, failure) in self.connection.pipeline(messages) {
            if let Some((index, op)) = sent.get(position) {
                refusals.push((*index, Refusal::new(op, failure)));
            }
        }
        // Those of messages that were never sent are among them, and an operator reads them in order.
        refusals.sort_by_key(|(index, _)| *index);
        // A refusal means that the table is not what was believed, so the next audit reads all of it.
        let followed = refusals.is_empty()
            && self.cache.as_mut().is_some_and(|cache| ops.iter().all(|op| cache.apply(op)));
        if !followed {
            self.cache = None;
        }
        refusals
    }

    /// Reads the idle timeouts of the network namespace.
    ///
    /// # Errors
    /// [`Error::Lacking`] when the answer has not all of them.
    pub fn timeouts(&mut self) -> Result<Timeouts, Error> {
        let attributes = self.ask(IpvsCommand::GetConfig)?;
        let find = |name, pick: fn(&IpvsAttribute) -> Option<u32>| {
            attributes.iter().find_map(pick).ok_or(Error::Lacking(name))
        };
        Ok(Timeouts {
            tcp: find("the TCP timeout", |attribute| match attribute {
                IpvsAttribute::TimeoutTcp(seconds) => Some(*seconds),
                _ => None,
            })?,
            tcp_fin: find("the TCP FIN timeout", |attribute| match attribute {
                IpvsAttribute::TimeoutTcpFin(seconds) => Some(*seconds),
                _ => None,
            })?,
            udp: find("the UDP timeout", |attribute| match attribute {
                IpvsAttribute::TimeoutUdp(seconds) => Some(*seconds),
                _ => None,
            })?,
        })
    }

    /// Reads the number of buckets of the connection table, a parameter of the module (`conn_tab_bits`).
    ///
    /// # Errors
    /// [`Error::Lacking`] when the answer does not have it.
    pub fn connection_table_size(&mut self) -> Result<u32, Error> {
        self.ask(IpvsCommand::GetInfo)?
            .iter()
            .find_map(|attribute| match attribute {
                IpvsAttribute::InfoConnectionTableSize(buckets) => Some(*buckets),
                _ => None,
            })
            .ok_or(Error::Lacking("the size of the connection table"))
    }

    /// Returns the attributes of the answer to a command without attributes.
    fn ask(&mut self, command: IpvsCommand) -> Result<Vec<IpvsAttribute>, Error> {
        let mut attributes = Vec::new();
        for reply in self.connection.request(&IpvsMessage::new(command))? {
            attributes
                .extend(reply.map_err(|error| batch::Error::from(socket::Error::from(error)))?.attributes);
        }
        Ok(attributes)
    }
}

impl From<batch::Error> for Error {
    fn from(error: batch::Error) -> Self {
        match error {
            batch::Error::NoFamily(_) => Self::Absent,
            batch::Error::Socket(socket::Error::Refused(cause))
                if cause.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Self::Permission
            }
            other => Self::Netlink(other),
        }
    }
}
