//! The kernel's IPVS table: tells our services from foreign ones, and changes ours.
//!
//! IPVS has no owners, but it keeps and returns the timeout of a service without using it unless
//! the service is persistent. So our services carry [`OWNER_TAG`] there, and a service is ours if
//! it is TCP or UDP, not by firewall mark, not persistent and has that timeout. Foreign services are
//! listed and left alone.
//!
//! What belongs here: `table` has what the kernel's lists say, `round` looks through them in slices, `cache` is the
//! table as far as it is known, and `request` has the messages for operations. Everything blocks and is meant for one
//! thread at a time, in the network namespace of that thread. What the table should hold is left to
//! [`super::diff`], when to look to the reconciler, and the wire format to [`crate::netlink`].
//!
//! `/proc/net/ip_vs` has all real servers in one file, but the kernel walks the table from its beginning for each
//! 4 KiB of it: 30,000 services with 5 servers each took 5 to 12 s there, and 9 s asked for one by one, on an emulated
//! 6.1 kernel. It lacks thresholds, flags and the owner tag, too. So nothing is read there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::netlink::batch::{self, GenlConnection, PartialDump};
use crate::netlink::ipvs::{IpvsAttribute, IpvsCommand, IpvsMessage};
use crate::netlink::socket;

use super::op::Op;
use super::state::{ServerKey, ServiceKey, Timeouts};
use super::traffic::Counted;
use cache::Cache;
use round::{Kernel, traffic_of};
use table::{DumpedService, ShownServer};

mod cache;
mod request;
mod round;
mod table;
#[cfg(test)]
mod tests;
mod traffic;

pub use request::Refusal;
pub use table::{IpvsTable, OWNER_TAG};
pub use traffic::TrafficReader;

/// Time after which a slice of a round ends.
const SLICE: Duration = Duration::from_millis(20);

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
    lists: Lists,
    cache: Cache,
}

/// Connection to the kernel, with a list that is read in parts.
#[derive(Debug)]
struct Lists {
    connection: GenlConnection<IpvsMessage>,
    services: Option<PartialDump<IpvsMessage>>,
}

impl Ipvs {
    /// Connects to the kernel's IPVS, which may load its module.
    ///
    /// # Errors
    /// [`Error::Absent`] without IPVS in the kernel, [`Error::Permission`] without `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, Error> {
        let lists = Lists { connection: GenlConnection::open()?, services: None };
        Ok(Self { lists, cache: Cache::default() })
    }

    /// Reads everything from the kernel: the list of all services, and the real servers of each service of ours.
    ///
    /// # Errors
    /// When the kernel does not answer. The next reading starts anew.
    pub fn read(&mut self) -> Result<IpvsTable, Error> {
        // The module may have been loaded anew since, with another family number.
        self.lists.connection.resolve()?;
        Ok(self.cache.read(&mut self.lists)?.clone())
    }

    /// Goes on looking through the table for a few milliseconds. Returns true when all of it has been looked through
    /// since the last [`Self::audit`].
    ///
    /// # Errors
    /// When the kernel does not answer. The next call starts anew.
    pub fn look_on(&mut self) -> Result<bool, Error> {
        let started = Instant::now();
        self.lists.connection.resolve()?;
        self.cache.go_on(&mut self.lists, || started.elapsed() >= SLICE)
    }

    /// Returns the table as it was when it was last looked through, with our own changes since. Reads everything where
    /// it never was.
    ///
    /// # Errors
    /// When the kernel has to be asked, and does not answer.
    pub fn audit(&mut self) -> Result<IpvsTable, Error> {
        self.lists.connection.resolve()?;
        Ok(self.cache.current(&mut self.lists)?.clone())
    }

    /// Counts the connections of some real servers: one dump for each service that has one of them.
    ///
    /// # Errors
    /// When a dump fails.
    pub fn count(&mut self, servers: &BTreeSet<ServerKey>) -> Result<Counted, Error> {
        let mut counted = Counted::default();
        if servers.is_empty() {
            return Ok(counted);
        }
        self.lists.connection.resolve()?;
        let services: BTreeSet<ServiceKey> = servers.iter().map(|(key, _)| *key).collect();
        for key in services {
            // A service that another program deleted has no servers to count; the next audit finds that.
            let found = self.lists.servers(key)?;
            counted.traffic.push((key, traffic_of(&found)));
            let found = found.into_iter().map(|(address, _, count, _)| ((key, address), count));
            counted.connections.extend(found.filter(|(server, _)| servers.contains(server)));
        }
        Ok(counted)
    }

    /// Carries out the operations on services, real servers and timeouts, in order, and goes on after a
    /// failure. Returns the failures by index into `ops`.
    pub fn apply(&mut self, ops: &[&Op]) -> Vec<(usize, Refusal)> {
        if ops.is_empty() {
            return Vec::new();
        }
        // The module may have been loaded anew since the last pass, with another family number.
        if let Err(error) = self.lists.connection.resolve() {
            ops.iter().for_each(|op| self.cache.apply(op, true));
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
        for (position, failure) in self.lists.connection.pipeline(messages) {
            if let Some((index, op)) = sent.get(position) {
                refusals.push((*index, Refusal::new(op, failure)));
            }
        }
        // Those of messages that were never sent are among them, and an operator reads them in order.
        refusals.sort_by_key(|(index, _)| *index);
        // A refusal means that the service is not what was believed, and it is looked at before anything goes by it.
        let mut refused = refusals.iter().map(|(index, _)| *index).peekable();
        for (index, op) in ops.iter().enumerate() {
            let is_refused = refused.next_if_eq(&index).is_some();
            self.cache.apply(op, is_refused);
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
        for reply in self.lists.connection.request(&IpvsMessage::new(command))? {
            attributes
                .extend(reply.map_err(|error| batch::Error::from(socket::Error::from(error)))?.attributes);
        }
        Ok(attributes)
    }
}

impl Kernel for Lists {
    type Error = Error;

    fn begin(&mut self) -> Result<(), Error> {
        self.services = Some(self.connection.begin_dump(&IpvsMessage::new(IpvsCommand::GetService))?);
        Ok(())
    }

    fn next_part(&mut self) -> Result<Option<Vec<DumpedService>>, Error> {
        let Some(services) = &mut self.services else { return Ok(None) };
        let part = services.next_part()?;
        if part.is_none() {
            self.services = None;
        }
        Ok(part.map(|part| part.into_iter().map(DumpedService::from_reply).collect()))
    }

    fn service(&mut self, key: ServiceKey) -> Result<Option<DumpedService>, Error> {
        match self.connection.request(&request::show_service(key)) {
            Ok(replies) => Ok(replies.into_iter().next().map(DumpedService::from_reply)),
            Err(batch::Error::Socket(socket::Error::Refused(error)))
                if error.raw_os_error() == Some(libc::ESRCH) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// One that can't be decoded is left out, and shows when adding it fails.
    fn servers(&mut self, key: ServiceKey) -> Result<Vec<ShownServer>, Error> {
        let replies = self.connection.dump(&request::list_servers(key))?;
        let mut servers: Vec<_> = replies.into_iter().filter_map(|reply| table::server(key, reply)).collect();
        servers.sort_by_key(|(address, ..)| *address);
        Ok(servers)
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
