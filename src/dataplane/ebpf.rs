//! Services in the kernel's eBPF: the client's own `connect` and `sendmsg` are sent to a backend, so
//! that no packet is ever translated and nothing is between two programs that have found each other.
//!
//! The programs are C, in `ebpf/l4lbd.bpf.c`; `ebpf/layout.rs` has what they and this module say to each other.
//! They are attached to a cgroup and hold for every process in it, of whatever network namespace.
//!
//! # No half change
//! A service is one word in a hash: first slot, and numbers of servers. Changing it writes its new
//! servers into free slots and then replaces the word. Old slots and ids are used anew only when all
//! program runs that may have found them are over.
//!
//! # No process needed
//! Maps and links are pinned. What [`Ebpf::open`] finds there goes on without a gap: it puts its own
//! programs into the links where they are attached. The directory of the pins has one directory for
//! each layout of the maps. A program with another layout attaches beside the old one, whose
//! programs go on balancing until the first [`Ebpf::apply`] has filled the new maps.
//!
//! # Counts
//! A socket that connects through us is noted in its own storage, counted, and counted no more when it
//! is closed, by whomever. Not counted right are MPTCP sockets and the kernel's own: it closes those, and
//! MPTCP's subflows, without telling, so that each one counts until its server is gone.
//!
//! Everything here blocks, mostly for microseconds. After a server was deleted, the end of the pass waits for
//! the readers, some milliseconds, and where connections remain it reads the sockets of every network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::{Connections, Op, Service, ServiceKey};
use abort::Targets;
use layout::HOOKS;
use pins::{Maps, Pins};
use table::{Book, Full, Placed};

mod abort;
mod bpf;
mod error;
mod layout;
mod mounts;
mod pins;
mod slots;
mod table;

pub use error::Error;
pub use mounts::cgroup_tree;

/// How a backend is chosen: of two at random the one with fewer connections for its weight. A
/// datagram of an unconnected socket goes to any.
pub const SCHEDULER: &str = "least-of-two";

/// Ids beyond those in use that are looked at first when some are needed.
const NEAR_IDS: usize = 1024;

/// Where to attach, and where to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whose processes are balanced; without one all of the node, by the root of its cgroup v2 tree.
    pub cgroup: Option<PathBuf>,
    /// Directory on a BPF file system, such as `/sys/fs/bpf/l4lbd`. It is made, and if there is no
    /// such file system, one is mounted on its parent.
    pub pins: PathBuf,
}

/// One reading of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub services: BTreeMap<ServiceKey, Service>,
    /// Where every connection is refused that no service takes.
    pub networks: BTreeSet<IpNet>,
    /// Sockets that are connected through us now, for each server.
    pub connections: BTreeMap<(ServiceKey, SocketAddr), Connections>,
}

/// The programs and their maps.
#[derive(Debug)]
pub struct Ebpf {
    pins: Pins,
    /// What the maps said when they were last read, and our changes since.
    book: Book,
    /// Servers that services have lost, with connections that may still have to end.
    gone: Vec<Gone>,
}

#[derive(Clone, Copy, Debug)]
struct Gone {
    service: ServiceKey,
    port: u16,
    id: u32,
}

impl Ebpf {
    /// Takes over what is pinned, and makes and attaches what is not.
    ///
    /// # Errors
    /// Without the rights, a cgroup v2 tree, or a place for the pins; and when something that is not
    /// ours is pinned there.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let pins = Pins::open(options)?;
        let book = Book::adopt(services(&pins.maps)?);
        let missing = error::missing_for_namespaces();
        if !missing.is_empty() {
            tracing::info!(
                "connections to servers that are gone are not ended in network namespaces of others, because this \
                 process lacks {}",
                missing.join(", ")
            );
        }
        Ok(Self { pins, book, gone: Vec::new() })
    }

    /// What is pinned, without touching it; empty where nothing is.
    ///
    /// # Errors
    /// Without the rights, and when something that is not ours is pinned there.
    pub fn look(options: &Options) -> Result<Table, Error> {
        match Maps::look(&options.pins)? {
            Some(maps) => table(&maps, &Book::adopt(services(&maps)?)),
            None => Ok(Table::default()),
        }
    }

    /// Reads everything from the maps; changes nothing. Whether the programs are attached is
    /// [`Self::repair`]'s to see.
    pub fn read(&mut self) -> Result<Table, Error> {
        let found = services(&self.pins.maps)?;
        if found != self.book.services {
            self.book = Book::adopt(found);
        }
        table(&self.pins.maps, &self.book)
    }

    /// Attaches and pins again what somebody detached or removed; returns the names of those hooks.
    pub fn repair(&mut self) -> Result<Vec<&'static str>, Error> {
        self.pins.check_maps()?;
        self.pins.find_cgroup()?;
        let mut repaired = Vec::new();
        for hook in &HOOKS {
            if self.pins.repair(hook)? {
                repaired.push(hook.name);
            }
        }
        Ok(repaired)
    }

    /// Carries out the operations on services, servers and routes, and goes on after a failure.
    /// Returns the failures by index into `ops`.
    ///
    /// A route is a network of VIPs. Networks that go are first and new ones last, so that nothing
    /// is refused whose service is on its way. Connections to servers that go end with [`Self::conclude`].
    pub fn apply(&mut self, ops: &[&Op]) -> Vec<(usize, Error)> {
        let mut failures = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            let done = match op {
                Op::DelRoute(route) => self.delete_network(&route.destination),
                Op::AddRoute(_) => continue,
                op if op.service().is_some() => continue,
                op => Err(Error::Unsupported((*op).clone())),
            };
            failures.extend(done.err().map(|error| (index, error)));
        }
        failures.extend(self.publish(ops));
        for (index, op) in ops.iter().enumerate() {
            if let Op::AddRoute(route) = op {
                failures.extend(self.add_network(&route.destination).err().map(|error| (index, error)));
            }
        }
        failures.sort_by_key(|(index, _)| *index);
        failures
    }

    /// Ends the connections to servers that are gone, and, where the services are `complete`, the work of
    /// another layout's programs. What fails is left for the next call.
    pub fn conclude(&mut self, complete: bool) -> Result<(), Error> {
        let retired = if complete { self.pins.retire_others() } else { Ok(()) };
        self.end_connections().and(retired)
    }

    /// Detaches everything and removes every pin; fine when there is nothing. Connections stay.
    pub fn purge(options: &Options) -> Result<(), Error> {
        pins::purge(&options.pins)
    }

    fn add_network(&self, network: &IpNet) -> Result<(), Error> {
        let holds_ipv4 = match network {
            IpNet::V4(_) => false,
            IpNet::V6(v6) => v6.contains(&std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()),
        };
        if holds_ipv4 {
            return Err(Error::Network(*network));
        }
        self.pins
            .maps
            .networks
            .update(&layout::network(network), &[1, 0, 0, 0])
            .map_err(map_error("networks"))
    }

    fn delete_network(&self, network: &IpNet) -> Result<(), Error> {
        self.pins.maps.networks.delete(&layout::network(network)).map_err(|source| {
            match source.raw_os_error() {
                Some(libc::ENOENT) => Error::NoNetwork(*network),
                _ => map_error("networks")(source),
            }
        })
    }

    /// Brings the operations on services into the maps.
    fn publish(&mut self, ops: &[&Op]) -> Vec<(usize, Error)> {
        let (drafts, mut failures) = self.book.draft(ops);
        let mut changes = Vec::new();
        let mut reclaimed = false;
        for (key, draft) in drafts {
            let placed = match &draft.servers {
                Some(servers) => self.place(&key, servers, &mut reclaimed).map(Some),
                None => Ok(None),
            };
            match placed {
                Ok(placed) => changes.push(Change { key, placed, ops: draft.ops }),
                Err(reason) => fail(&mut failures, &draft.ops, || reason.error()),
            }
        }
        let unwritten = self.write(&changes);
        for (position, change) in changes.into_iter().enumerate() {
            if let Some(source) = unwritten.get(&position) {
                if let Some(placed) = &change.placed {
                    self.book.forget(&change.key, placed);
                }
                fail(&mut failures, &change.ops, || match source.raw_os_error() {
                    Some(libc::E2BIG) => Error::Full { what: "services", limit: layout::SERVICES },
                    _ => map_error("vips")(again(source)),
                });
                continue;
            }
            let lost = self.book.commit(change.key, change.placed);
            let gone =
                |(server, id): (SocketAddr, u32)| Gone { service: change.key, port: server.port(), id };
            self.gone.extend(lost.into_iter().map(gone));
        }
        failures
    }

    /// `reclaimed` is whether this call has looked for what is free again, which takes a while.
    fn place(
        &mut self,
        key: &ServiceKey,
        servers: &BTreeMap<SocketAddr, u32>,
        reclaimed: &mut bool,
    ) -> Result<Placed, NoPlace> {
        let mut placed = self.book.place(key, servers);
        if placed.is_ok() || *reclaimed {
            return placed.map_err(NoPlace::Full);
        }
        bpf::wait_for_readers();
        // The kernel copies counts one by one, and low ids are all that most nodes ever use.
        let near = 2 * (self.book.ids_end() + servers.len()) + NEAR_IDS;
        for limit in [near, layout::SERVERS as usize] {
            // Without counts any id may still be in use.
            let counts = read_counts(&self.pins.maps, limit).map_err(NoPlace::Unknown)?;
            self.book.reclaim(|id| count_of(&counts, id).unwrap_or(u64::MAX));
            placed = self.book.place(key, servers);
            if placed.is_ok() {
                return placed.map_err(NoPlace::Full);
            }
        }
        *reclaimed = true;
        placed.map_err(NoPlace::Full)
    }

    /// Writes changes, slots before what points at them; returns those that failed by position.
    fn write(&self, changes: &[Change]) -> BTreeMap<usize, std::io::Error> {
        let mut failed = BTreeMap::new();
        let (mut indexes, mut slots, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (position, change) in changes.iter().enumerate() {
            let Some(placed) = &change.placed else { continue };
            for (index, slot) in (placed.base..).zip(placed.slots(change.key)) {
                indexes.extend(index.to_ne_bytes());
                slots.extend(slot.encode());
                owners.push(position);
            }
        }
        for (at, error) in self.pins.maps.slots.write(&indexes, &slots) {
            owners.get(at).map(|position| failed.insert(*position, error));
        }
        let (mut keys, mut values, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (position, change) in changes.iter().enumerate() {
            if failed.contains_key(&position) {
                continue;
            }
            let key = layout::vip(&change.key);
            match &change.placed {
                Some(placed) => {
                    keys.extend(key);
                    values.extend(placed.region().encode());
                    owners.push(position);
                }
                None => match self.pins.maps.vips.delete(&key) {
                    Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                        drop(failed.insert(position, error))
                    }
                    _ => {}
                },
            }
        }
        for (at, error) in self.pins.maps.vips.write(&keys, &values) {
            owners.get(at).map(|position| failed.insert(*position, error));
        }
        failed
    }

    fn end_connections(&mut self) -> Result<(), Error> {
        if self.gone.is_empty() {
            return Ok(());
        }
        // An id that is in use again had no connections left when it was given.
        let used = self.book.ids_in_use();
        self.gone.retain(|gone| !used.contains(&gone.id));
        // From here on no socket is given such a server any more, so that the counts tell.
        bpf::wait_for_readers();
        let end = self.gone.iter().map(|gone| gone.id as usize + 1).max().unwrap_or(0);
        let counts = counts(&self.pins.maps, end)?;
        self.gone.retain(|gone| count_of(&counts, gone.id) != Some(0));
        if self.gone.is_empty() {
            return Ok(());
        }
        let mut targets = Targets::default();
        for gone in &self.gone {
            targets.add(&gone.service, gone.port, gone.id);
        }
        let ended = abort::end(&targets, &self.pins.maps.sockets, &self.pins.maps.datagrams)
            .map_err(Error::Sockets)?;
        tracing::debug!(ended, "ended connections to servers that are gone");
        self.gone.clear();
        Ok(())
    }
}

/// A service on its way into the maps.
struct Change {
    key: ServiceKey,
    /// `None` where the service goes.
    placed: Option<Placed>,
    ops: Vec<usize>,
}

/// Why a service finds no place.
enum NoPlace {
    Full(Full),
    /// What is free can't be told.
    Unknown(std::io::Error),
}

impl NoPlace {
    fn error(&self) -> Error {
        match self {
            Self::Full(Full::Slots) => Error::Full { what: "slots of servers", limit: layout::SLOTS },
            Self::Full(Full::Ids) => Error::Full { what: "servers", limit: layout::SERVERS },
            Self::Unknown(source) => map_error("counts")(again(source)),
        }
    }
}

fn fail(failures: &mut Vec<(usize, Error)>, ops: &[usize], error: impl Fn() -> Error) {
    failures.extend(ops.iter().map(|index| (*index, error())));
}

/// The same error once more; the system's own ones are all numbers.
fn again(error: &std::io::Error) -> std::io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), std::io::Error::from_raw_os_error)
}

fn map_error(map: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Map { map, source }
}

/// Everything that the maps say, of which the book knows the services.
fn table(maps: &Maps, book: &Book) -> Result<Table, Error> {
    let counts = counts(maps, book.ids_end())?;
    let mut table = Table { networks: networks(maps)?, ..Table::default() };
    for (key, placed) in &book.services {
        for (address, member) in &placed.servers {
            // A connection is a descriptor of some process; there are not that many.
            let active = count_of(&counts, member.id).unwrap_or(0) as u32;
            table.connections.insert((*key, *address), Connections { active, inactive: 0 });
        }
        table.services.insert(*key, placed.service());
    }
    Ok(table)
}

fn services(maps: &Maps) -> Result<BTreeMap<ServiceKey, Placed>, Error> {
    let (keys, regions) = maps.vips.read(usize::MAX).map_err(map_error("vips"))?;
    let (_, slots) = maps.slots.read(table::slots_in_use(&regions)).map_err(map_error("slots"))?;
    Ok(table::decode(&keys, &regions, &slots))
}

/// Of the ids below `limit`, in one piece.
fn counts(maps: &Maps, limit: usize) -> Result<Vec<u8>, Error> {
    read_counts(maps, limit).map_err(map_error("counts"))
}

fn read_counts(maps: &Maps, limit: usize) -> std::io::Result<Vec<u8>> {
    maps.counts.read(limit.min(layout::SERVERS as usize)).map(|(_, counts)| counts)
}

/// `None` for an id whose count was not read.
fn count_of(counts: &[u8], id: u32) -> Option<u64> {
    let (counts, _) = counts.as_chunks::<8>();
    // Less than none are there where somebody made the map anew under sockets that were counted in the old one.
    counts.get(id as usize).map(|count| i64::from_ne_bytes(*count).max(0).unsigned_abs())
}

fn networks(maps: &Maps) -> Result<BTreeSet<IpNet>, Error> {
    let keys = maps.networks.keys().map_err(map_error("networks"))?;
    Ok(keys.iter().filter_map(|key| layout::decode_network(key.first_chunk()?)).collect())
}
