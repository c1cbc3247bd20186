//! The kernel's table of virtual services: reads ours apart from all others, and changes ours.
//!
//! IPVS has no owners, but it keeps and returns the timeout of a service without using it unless
//! the service is persistent. So our services carry [`OWNER_TAG`] there, and a service is ours when
//! it is TCP or UDP, not by firewall mark, not persistent and has that timeout. Others are listed
//! and otherwise left alone.
//!
//! Everything here blocks and is meant for one thread at a time, in the network namespace of that
//! thread. What the table should hold is left to [`super::diff`], when to look to the reconciler,
//! and the messages to [`crate::netlink`].

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::netlink::batch::{self, GenlConnection};
use crate::netlink::ipvs::{IpvsAttribute, IpvsCommand, IpvsMessage};
use crate::netlink::socket;

use super::{Connections, Foreign, Op, RealServer, Scheduling, Service, ServiceKey, Timeouts};
use known::Known;
use table::Entry;

mod known;
mod proc;
mod request;
mod table;
#[cfg(test)]
mod tests;

pub use request::Refusal;

/// Timeout, in seconds, that marks a service as ours.
pub const OWNER_TAG: u32 = 19508;

/// What the kernel shows of the calling thread's network namespace; lacks thresholds, flags and
/// the owner tag, but has all real servers in one file.
const PROC: &str = "/proc/thread-self/net/ip_vs";

/// One reading of the kernel's services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The services that are ours.
    pub services: BTreeMap<ServiceKey, Service>,
    /// All other services, sorted.
    pub foreign: Vec<Foreign>,
    /// Connections of every real server of ours.
    pub connections: BTreeMap<(ServiceKey, SocketAddr), Connections>,
}

impl Table {
    fn add_foreign(&mut self, known: &mut Known, foreign: Foreign, sight: Option<proc::Sight>) {
        known.add_foreign(foreign.clone(), sight);
        self.foreign.push(foreign);
    }
}

/// Why the kernel's table can't be read, or its settings not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not allowed to program IPVS (needs CAP_NET_ADMIN)")]
    Permission,
    #[error(transparent)]
    Netlink(batch::Error),
    #[error("the kernel's answer lacks {0} (does this kernel have a different IPVS?)")]
    Lacking(&'static str),
}

impl Error {
    /// Whether the kernel has no IPVS at all.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Netlink(batch::Error::NoFamily(_)))
    }
}

/// The table of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Ipvs {
    connection: GenlConnection<IpvsMessage>,
    /// What the last full reading and our own changes since tell; `None` when in doubt.
    known: Option<Known>,
}

impl Ipvs {
    /// Connects to the kernel's IPVS.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { connection: GenlConnection::open()?, known: None })
    }

    /// Reads everything from the kernel: one dump of all services, and one of the real servers of
    /// each service of ours. The kernel does not mark dumps that somebody's changes made miss a
    /// service or show it twice; a later reading is right again.
    pub fn read(&mut self) -> Result<Table, Error> {
        let before = self.known.take().map(|known| known.services).unwrap_or_default();
        self.connection.resolve()?;
        let mut table = Table::default();
        let mut known = Known::default();
        let mut unmarked = Vec::new();
        for reply in self.connection.dump(&IpvsMessage::new(IpvsCommand::GetService))? {
            match Entry::from_reply(reply) {
                Entry::Ours(key, scheduling) => {
                    let service = Service { scheduling, servers: BTreeMap::new() };
                    table.services.insert(key, service);
                }
                Entry::Foreign(foreign, sight) => {
                    match foreign.key.and_then(|key| before.get_key_value(&key)) {
                        Some((key, known)) => unmarked.push((*key, known, foreign, sight)),
                        None => table.add_foreign(&mut known, foreign, sight),
                    }
                }
            }
        }
        for (key, service) in &mut table.services {
            for (address, server, count) in self.servers(*key)? {
                service.servers.insert(address, server);
                table.connections.insert((*key, address), count);
            }
        }
        // Editing a service takes our mark off it; one with our servers is still ours.
        for (key, service, foreign, sight) in unmarked {
            let found = self.servers(key)?;
            if found.is_empty() || !found.iter().map(|(address, ..)| address).eq(service.servers.keys()) {
                table.add_foreign(&mut known, foreign, sight);
                continue;
            }
            table.connections.extend(found.iter().map(|(address, _, count)| ((key, *address), *count)));
            let servers = found.into_iter().map(|(address, server, _)| (address, server)).collect();
            table.services.insert(key, Service { scheduling: Scheduling::unknown(), servers });
        }
        table.foreign.sort();
        known.services.clone_from(&table.services);
        self.known = Some(known);
        Ok(table)
    }

    /// The real servers of a service, by address. One that can't be decoded shows when we fail to add it.
    fn servers(&mut self, key: ServiceKey) -> Result<Vec<(SocketAddr, RealServer, Connections)>, Error> {
        let replies = self.connection.dump(&request::list_servers(key))?;
        let mut servers: Vec<_> = replies.into_iter().filter_map(|reply| table::server(key, reply)).collect();
        servers.sort_by_key(|(address, ..)| *address);
        Ok(servers)
    }

    /// Reads services, weights and connections from `/proc/net/ip_vs`, and takes the rest from the
    /// last full reading and our changes since. Anything unexpected there makes it [`Self::read`].
    ///
    /// Left unseen: thresholds and flags that somebody else changed, and a service of ours that
    /// somebody replaced by his own with the same scheduler.
    pub fn audit(&mut self) -> Result<Table, Error> {
        let seen = std::fs::read_to_string(PROC).ok().and_then(|text| proc::parse(&text));
        let table = match (&mut self.known, seen) {
            (Some(known), Some(seen)) => known.complete(seen),
            _ => None,
        };
        match table {
            Some(table) => Ok(table),
            None => self.read(),
        }
    }

    /// Carries out the operations on services and real servers, in order, and goes on after a
    /// failure. Returns the failures by index into `ops`.
    pub fn apply(&mut self, ops: &[&Op]) -> Vec<(usize, Refusal)> {
        if ops.is_empty() {
            return Vec::new();
        }
        if let Err(error) = self.connection.resolve() {
            self.known = None;
            let refusal = Refusal::unsent(&error);
            return (0..ops.len()).map(|index| (index, refusal.clone())).collect();
        }
        let mut refusals = Vec::new();
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
        refusals.sort_by_key(|(index, _)| *index);
        match &mut self.known {
            Some(known) if refusals.is_empty() => ops.iter().for_each(|op| known.apply(op)),
            known => *known = None,
        }
        refusals
    }

    /// Reads the idle timeouts.
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

    /// Sets the idle timeouts; 0 leaves one as it is.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Error> {
        let message = IpvsMessage {
            command: IpvsCommand::SetConfig,
            attributes: vec![
                IpvsAttribute::TimeoutTcp(timeouts.tcp),
                IpvsAttribute::TimeoutTcpFin(timeouts.tcp_fin),
                IpvsAttribute::TimeoutUdp(timeouts.udp),
            ],
        };
        self.connection.request(&message)?;
        Ok(())
    }

    /// Buckets of the connection table, a parameter of the module (`conn_tab_bits`).
    pub fn connection_table_size(&mut self) -> Result<u32, Error> {
        self.ask(IpvsCommand::GetInfo)?
            .iter()
            .find_map(|attribute| match attribute {
                IpvsAttribute::InfoConnectionTableSize(buckets) => Some(*buckets),
                _ => None,
            })
            .ok_or(Error::Lacking("the size of the connection table"))
    }

    /// The attributes of the answer to a question without attributes.
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
            batch::Error::Socket(socket::Error::Refused(cause))
                if cause.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Self::Permission
            }
            other => Self::Netlink(other),
        }
    }
}
