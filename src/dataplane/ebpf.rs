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
//! replaces the programs in the links while they stay attached. Each layout of the maps has its own
//! directory of pins. After an upgrade to another layout the new programs are attached beside the old
//! ones, which go on balancing until the new maps are filled ([`Ebpf::finish_pass`]).
//!
//! # Connection counts
//! The programs record the server of each connected socket in the socket's storage, count the
//! connection, and stop counting it when the socket is closed. MPTCP sockets and sockets of the kernel
//! itself are counted wrongly: they and MPTCP's subflows are closed without a call of our program, so
//! each counts until its server is deleted.
//!
//! # Files
//! `options`, `error`, `capabilities` and `mounts` know no maps. `bpf` has the system calls, `layout` the
//! types in the maps; `maps`, `object` and `pins` load, attach and pin. `slots` and `table` compute changes,
//! `publish` writes them, `reading` reads the maps, and `abort` ends connections.
//!
//! All calls block, mostly for microseconds. Only the end of a pass after servers were deleted takes
//! milliseconds: it waits for program runs to end, and if connections remain, it lists the sockets of
//! every network namespace.

use std::os::fd::AsFd;

use super::op::Op;
use abort::Targets;
use pins::Pins;
use publish::Removed;
use reading::Counts;
use table::ServiceTable;

mod abort;
mod bpf;
mod capabilities;
mod error;
mod layout;
mod maps;
mod mounts;
mod object;
mod options;
mod pins;
mod publish;
mod reading;
mod slots;
mod table;

pub use error::Error;
pub use mounts::cgroup_tree;
pub use options::{Options, SCHEDULER};
pub use reading::EbpfReading;

/// eBPF programs and their maps, attached and pinned.
#[derive(Debug)]
pub struct Ebpf {
    pins: Pins,
    /// Services as last read from the maps, with our changes since.
    table: ServiceTable,
    /// Servers that services lost and that may still have open connections.
    removed: Vec<Removed>,
}

impl Ebpf {
    /// Takes over what is pinned, and creates and attaches the rest.
    ///
    /// # Errors
    /// Without the capabilities, a cgroup v2 tree or a directory for the pins, and if something else is
    /// pinned under our names.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let pins = Pins::open(options)?;
        let table = ServiceTable::adopt(reading::services(&pins.maps)?);
        let missing = capabilities::missing_for_namespaces();
        if !missing.is_empty() {
            tracing::info!(
                missing = capabilities::names(&missing),
                "without these capabilities connections to deleted servers are ended in this network namespace only \
                 (systemd: install systemd/drop-ins/ebpf-containers.conf)"
            );
        }
        Ok(Self { pins, table, removed: Vec::new() })
    }

    /// Reads what is pinned without changing it; the reading is empty if nothing is pinned.
    ///
    /// # Errors
    /// Without the capabilities, and if something else is pinned under our names.
    pub fn look(options: &Options) -> Result<EbpfReading, Error> {
        match maps::Maps::look(&options.pins)? {
            Some(maps) => EbpfReading::new(&maps, &ServiceTable::adopt(reading::services(&maps)?)),
            None => Ok(EbpfReading::default()),
        }
    }

    /// Reads the maps and changes nothing. [`Self::repair`] checks that the programs are attached.
    ///
    /// # Errors
    /// If the kernel refuses to read a map.
    pub fn read(&mut self) -> Result<EbpfReading, Error> {
        let found = reading::services(&self.pins.maps)?;
        if found != self.table.services {
            self.table = ServiceTable::adopt(found);
        }
        EbpfReading::new(&self.pins.maps, &self.table)
    }

    /// Attaches and pins again what another program detached or removed; returns the names of the
    /// programs that were.
    ///
    /// # Errors
    /// If the cgroup is gone, something else is pinned under our names, or a program cannot be attached.
    pub fn repair(&mut self) -> Result<Vec<&'static str>, Error> {
        self.pins.repair_maps()?;
        self.pins.find_cgroup()?;
        let mut repaired = Vec::new();
        for hook in &layout::HOOKS {
            if self.pins.repair(hook)? {
                repaired.push(hook.name);
            }
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
        let published = publish::publish(maps, &mut self.table, ops);
        failures.extend(published.failures);
        self.removed.extend(published.removed);
        for (index, op) in ops.iter().enumerate() {
            if let Op::AddRoute(route) = op {
                let added = publish::add_network(maps, &route.destination);
                failures.extend(added.err().map(|error| (index, error)));
            }
        }
        failures.sort_by_key(|(index, _)| *index);
        failures
    }

    /// Ends the connections to deleted servers. Detaches the programs of other layouts if
    /// `all_programmed`, that is if all wanted services are in the maps. What fails is tried again in the next call.
    ///
    /// # Errors
    /// If connections could not be ended, or other programs not be detached.
    pub fn finish_pass(&mut self, all_programmed: bool) -> Result<(), Error> {
        let retired = if all_programmed { self.pins.retire_others() } else { Ok(()) };
        self.end_connections().and(retired)
    }

    /// Detaches all programs and removes all pins; succeeds if there are none. Connections stay open.
    ///
    /// # Errors
    /// If the pins are not on a BPF file system, or cannot be removed.
    pub fn purge(options: &Options) -> Result<(), Error> {
        pins::purge(&options.pins)
    }

    fn end_connections(&mut self) -> Result<(), Error> {
        if self.removed.is_empty() {
            return Ok(());
        }
        // An id is only given to a new server when it has no connections left.
        let used = self.table.ids_in_use();
        self.removed.retain(|removed| !used.contains(&removed.id));
        // From here on no socket is given a removed server any more, so the counts are final.
        bpf::wait_for_readers();
        let end = self.removed.iter().map(|removed| removed.id as usize + 1).max().unwrap_or(0);
        let counts = Counts::read(&self.pins.maps, end)
            .map_err(|source| reading::map_error(&layout::COUNTS, source))?;
        // Most servers are drained by now, and then no sockets have to be listed.
        self.removed.retain(|removed| counts.of(removed.id) != Some(0));
        if self.removed.is_empty() {
            return Ok(());
        }
        let mut targets = Targets::default();
        for removed in &self.removed {
            targets.add(&removed.service, removed.port, removed.id);
        }
        let maps = &self.pins.maps;
        let ended = abort::end(&targets, maps.sockets.as_fd(), &maps.datagrams).map_err(Error::Sockets)?;
        tracing::debug!(ended, "ended connections to deleted servers");
        self.removed.clear();
        Ok(())
    }
}
