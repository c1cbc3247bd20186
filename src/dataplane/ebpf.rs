//! Data plane in the kernel's eBPF: connections are redirected in the client's own socket calls.
//!
//! What belongs here: everything that knows eBPF: programs, maps, pins, control groups. Which services
//! there should be is decided in [`crate::plan`].
//!
//! Programs at `connect` and `sendmsg` replace a VIP by a backend, so that packets go straight to the
//! backend and are never translated. The programs are C, in `ebpf/l4lbd.bpf.c`; `ebpf/layout.rs` has
//! the types of the maps that they share with this module. They are attached to a cgroup and hold for
//! every process in it, in whatever network namespace.
//!
//! # Atomic changes
//! A service is one word in a hash map: its first slot and its numbers of servers. A change writes the
//! new servers into free slots and then replaces the word. Old slots and server ids are used again
//! only when all program runs that may have found them have ended.
//!
//! # Restarts
//! Maps and links are pinned and outlive this process. [`Ebpf::open`] takes them over without a gap: it
//! replaces the programs in the links while they stay attached. Maps that an earlier version does not have are
//! created beside its own. Each layout of the maps has its own directory of pins. After an upgrade to another layout the new programs are attached beside the old
//! ones, which go on balancing until the new maps are filled ([`Ebpf::finish_pass`]).
//!
//! # Connection counts
//! The programs record the server of each connected socket in the socket's storage, count the
//! connection, and stop counting it when the socket or its connection is closed. The second is what ends
//! sockets of the kernel itself, as those of multipath TCP are, which are closed without a call of
//! `sock_release`. A program of the type sock_ops sees it, and counts what becomes of each connect; `seen` reads
//! that. Sockets that the kernel made for an earlier version of these programs count until their server is deleted.
//!
//! # Ejection
//! `sock_ops` notes failures of a server by the network namespace of the client, and the programs at `connect`
//! pass over a server that has failed there three times in a row. Each server has a time of its last failure,
//! so that connects to all other ones cost nothing. What is remembered of a server ends when it stops taking
//! connections: `publish` gives it another number when it begins to.
//!
//! # Files
//! `options`, `error`, `capabilities` and `mounts` know no maps. `bpf` has the system calls, `layout` the
//! types in the maps, `leaving` one for servers that leave; `maps`, `object` and `pins` load, attach and pin. `slots` and `table` compute changes,
//! `publish` writes them, `reading`, `seen` and `ejected` read the maps, `ending` says whose connections end, `abort` ends them,
//! those of `datagrams` too, and `exempt` keeps this process's own sockets from all that.
//!
//! All calls block, mostly for microseconds. The end of a pass after connected servers were deleted takes
//! milliseconds, because it lists the sockets of every network namespace; and once a second at most one waits for
//! program runs to end. What a change costs does not depend on the number of services.

use std::collections::{BTreeMap, BTreeSet};

use super::connects::Seen;
use super::lock::Part;
use super::node::PlaneBounds;
use super::op::Op;
use super::reading::Unreached;
use super::state::{Connections, ServerKey};
use ending::Ending;
use leaving::LeavingServer;
use pins::Pins;
use reading::Counts;
use seen::Elements;
use table::ServiceTable;

mod abort;
mod bpf;
mod capabilities;
mod datagrams;
mod descriptors;
mod draws;
mod ejected;
mod ending;
mod error;
mod exempt;
mod layout;
mod leaving;
mod maps;
mod mountinfo;
mod mounts;
mod object;
mod options;
mod pins;
mod publish;
mod reading;
mod seen;
mod slots;
mod table;

pub use bpf::{Work, work};
pub use capabilities::{lacking_for_ebpf, names as capability_names};
pub use descriptors::open_process;
pub use error::Error;
pub use exempt::Exemption;
pub use mountinfo::cgroup_tree;
pub use mounts::{cgroup, is_bpf};
pub use options::{Ejection, Options, SCHEDULER, UNEJECTED};
pub use reading::EbpfReading;

/// Bounds of the maps.
pub const BOUNDS: PlaneBounds = PlaneBounds {
    services: layout::SERVICES as usize,
    servers: layout::SERVERS as usize,
    servers_per_service: layout::SERVERS_PER_SERVICE,
};

/// eBPF programs and their maps, attached and pinned.
#[derive(Debug)]
pub struct Ebpf {
    pins: Pins,
    /// Services as last read from the maps, with our changes since.
    table: ServiceTable,
    /// Elements of the maps in which connects are counted.
    elements: Elements,
    /// Servers whose connections are to end.
    ending: Ending,
    /// Time for which failures are remembered, in the programs' unit.
    memory: u32,
    /// Reason why not all of it is pinned, until it is reported.
    unpinned: Option<Error>,
}

impl Ebpf {
    /// The control group, and the directory of the pins, which one daemon alone can have. Makes the directory
    /// as [`Self::open`] does.
    ///
    /// # Errors
    /// Without a cgroup v2 tree or a place for the pins.
    pub fn parts(options: &Options) -> Result<[Part; 2], Error> {
        let cgroup = mounts::cgroup(options.cgroup.as_deref())?;
        mounts::prepare(&options.pins)?;
        Ok([cgroup.part(), mounts::part(&options.pins)?])
    }

    /// The parts of [`Self::parts`] that are there already.
    pub fn existing_parts(options: &Options) -> Vec<Part> {
        let cgroup = mounts::cgroup(options.cgroup.as_deref()).map(|cgroup| cgroup.part());
        cgroup.into_iter().chain(mounts::part(&options.pins)).collect()
    }

    /// The directory of the pins as a part of the kernel that one daemon alone can have.
    ///
    /// # Errors
    /// If there is no such directory, or this process may not look for it.
    pub fn pins_part(options: &Options) -> Result<Part, Error> {
        mounts::part(&options.pins)
    }

    /// Takes over what is pinned, and creates and attaches the rest.
    ///
    /// # Errors
    /// Without the capabilities, a cgroup v2 tree or a directory for the pins, and if something else is
    /// pinned under our names.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let pins = Pins::open(options)?;
        let table = ServiceTable::adopt(reading::services(&pins.maps.tables)?);
        publish::align_active(&pins.maps, &table)?;
        publish::align_draws(&pins.maps, &table)?;
        let elements = seen::open(&pins.maps, &table)?;
        let missing = capabilities::missing_for_namespaces();
        if !missing.is_empty() {
            tracing::info!(
                missing = capabilities::names(&missing),
                "without these capabilities connections to deleted servers are ended in this network namespace only \
                 (systemd: install systemd/drop-ins/ebpf-containers.conf)"
            );
        }
        let mut ending = Ending::default();
        // An earlier run may have been killed before it ended what had to end.
        ending.expect(left_by_earlier_run(&pins.maps.tables, &table)?, table.all_halted());
        Ok(Self { pins, table, elements, ending, memory: object::memory(&options.ejection), unpinned: None })
    }

    /// Reads what is pinned without changing it; the reading is empty if nothing is pinned.
    ///
    /// # Errors
    /// Without the capabilities, and if something else is pinned under our names.
    pub fn look(options: &Options) -> Result<EbpfReading, Error> {
        match maps::Tables::look(&options.pins)? {
            Some(maps) => EbpfReading::new(&maps, &ServiceTable::adopt(reading::services(&maps)?)),
            None => Ok(EbpfReading::default()),
        }
    }

    /// Exempts the sockets of this process from the pinned programs, until the result is dropped; `None` if
    /// nothing is pinned, or the programs do not run for this process.
    ///
    /// # Errors
    /// Without the capabilities, and if something else is pinned under our names.
    pub fn exempt_this_process(options: &Options) -> Result<Option<Exemption>, Error> {
        maps::Tables::look(&options.pins)?.map_or(Ok(None), |maps| Exemption::announce(&maps))
    }

    /// Reads the maps and changes nothing. [`Self::repair`] checks that the programs are attached.
    ///
    /// # Errors
    /// If the kernel refuses to read a map.
    pub fn read(&mut self) -> Result<EbpfReading, Error> {
        let maps = &self.pins.maps;
        let found = reading::services(&maps.tables)?;
        if found != self.table.services {
            self.table = ServiceTable::adopt(found);
            publish::align_active(maps, &self.table)?;
            self.elements = seen::open(maps, &self.table)?;
        }
        EbpfReading::new(&maps.tables, &self.table)
    }

    /// Reads what the programs have seen of connects.
    ///
    /// # Errors
    /// If the kernel refuses to read a map.
    pub fn seen(&self) -> Result<Seen, Error> {
        let mut seen = seen::read(&self.pins.maps, &self.elements, &self.table)?;
        let (ejected, remembered) = ejected::read(&self.pins.maps, &self.table, self.memory)?;
        (seen.ejected, seen.remembered) = (ejected, Some(remembered));
        Ok(seen)
    }

    /// Reads the connections of all servers.
    ///
    /// # Errors
    /// If the kernel refuses to read the counts.
    pub fn connections(&self) -> Result<BTreeMap<ServerKey, Connections>, Error> {
        reading::all_connections(&self.pins.maps.tables, &self.table)
    }

    /// Counts the connections of some servers, as far as services have them.
    ///
    /// # Errors
    /// If the kernel refuses to read the counts.
    pub fn count(&self, servers: &BTreeSet<ServerKey>) -> Result<BTreeMap<ServerKey, Connections>, Error> {
        let mut counted = BTreeMap::new();
        for server in servers {
            let placed = self.table.services.get(&server.0).and_then(|placed| placed.servers.get(&server.1));
            let Some(placed) = placed else { continue };
            counted.insert(*server, reading::connections(&self.pins.maps.tables, placed.id)?);
        }
        Ok(counted)
    }

    /// Attaches and pins again what another program detached or removed; returns the names of the
    /// programs that were. What cannot be pinned is reported by [`Self::finish_pass`], because VIPs work
    /// without pins while this process runs.
    ///
    /// # Errors
    /// If the cgroup is gone, or a program cannot be attached.
    pub fn repair(&mut self) -> Result<Vec<&'static str>, Error> {
        self.pins.find_cgroup()?;
        let mut repaired = Vec::new();
        for hook in &layout::HOOKS {
            if self.pins.repair(hook)? {
                repaired.push(hook.name);
            }
        }
        match self.pins.pin_again() {
            Ok(pinned) => {
                self.unpinned = None;
                // A program that was attached again is in both lists.
                let only_pinned = pinned.into_iter().filter(|name| !repaired.contains(name));
                let only_pinned: Vec<_> = only_pinned.collect();
                repaired.extend(only_pinned);
            }
            Err(error) => self.unpinned = Some(Error::Unpinned { source: Box::new(error) }),
        }
        Ok(repaired)
    }

    /// Carries out the operations on services, servers and routes, and goes on after a failure.
    /// Returns the failures by their indexes in `ops`.
    ///
    /// A route is a network of VIPs, in which connections for no service are refused. Connections to
    /// deleted servers are ended by [`Self::finish_pass`].
    pub fn apply(&mut self, ops: &[&Op]) -> Vec<(usize, Error)> {
        let maps = &self.pins.maps;
        let mut failures = Vec::new();
        // Networks are deleted before services and added after them: no client is refused whose service
        // is in the same operations.
        for (index, op) in ops.iter().enumerate() {
            let done = match op {
                Op::DelRoute(route) => publish::delete_network(maps, &route.destination),
                Op::AddRoute(_) => continue,
                op if op.service().is_some() => continue,
                op => Err(Error::Unsupported((*op).clone())),
            };
            failures.extend(done.err().map(|error| (index, error)));
        }
        let published = publish::publish(maps, &mut self.table, &mut self.elements, ops);
        failures.extend(published.failures);
        self.ending.expect(published.deleted, published.halted);
        for (index, op) in ops.iter().enumerate() {
            if let Op::AddRoute(route) = op {
                let added = publish::add_network(maps, &route.destination);
                failures.extend(added.err().map(|error| (index, error)));
            }
        }
        failures.sort_by_key(|(index, _)| *index);
        failures
    }

    /// Ends the connections to deleted servers, and to servers with weight 0 those that are not established
    /// yet; of those that are just being opened some in a later call. Detaches the programs of other layouts if
    /// `all_programmed`, that is if all wanted services are in the maps. What fails is tried again in the next call.
    ///
    /// # Errors
    /// If connections could not be ended, other programs not be detached, or the last [`Self::repair`] could
    /// not pin everything.
    pub fn finish_pass(&mut self, all_programmed: bool) -> Result<(), Error> {
        let retired = if all_programmed { self.pins.retire_others() } else { Ok(()) };
        let pinned = self.unpinned.take().map_or(Ok(()), Err);
        self.ending.end(&mut self.pins, &self.table).and(retired).and(pinned)
    }

    /// Returns how many connections to deleted servers may still be open where this process cannot look.
    pub fn unreached(&self) -> Option<Unreached> {
        self.ending.unreached()
    }

    /// Detaches all programs and removes all pins; succeeds if there are none. Connections stay open.
    ///
    /// # Errors
    /// If the pins are not on a BPF file system, or cannot be removed.
    pub fn purge(options: &Options) -> Result<(), Error> {
        pins::purge(&options.pins)
    }
}

/// Lists the servers that have connections, but no service: they were deleted by a run that ended before
/// their connections did.
fn left_by_earlier_run(maps: &maps::Tables, table: &ServiceTable) -> Result<Vec<LeavingServer>, Error> {
    // The servers of a damaged service are unknown, and may be in use.
    if table.services.values().any(|placed| !placed.sound) {
        return Ok(Vec::new());
    }
    let counts = Counts::read(maps, layout::SERVERS as usize)
        .map_err(|source| reading::map_error(&layout::COUNTS, source))?;
    let left = counts.connected_ids().filter(|id| !table.is_in_use(*id));
    Ok(left.map(|id| LeavingServer { id, origin: None }).collect())
}
