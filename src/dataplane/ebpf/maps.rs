//! The pinned maps of the programs.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::bpf::{self, Element, Map};
use super::error::{self, Error};
use super::layout::{
    self, ClientKey, ConnectedDatagram, Draw, Failures, Keeps, Listing, MapLayout, More, NetworkKey,
    ServerConnects, Slot, SocketServer, TABLES, Troubles, VipConnects, VipKey,
};

/// Maps that a reading needs, which an earlier version of the programs has as well.
#[derive(Debug)]
pub struct Tables {
    pub vips: Map<VipKey, u64>,
    pub slots: Map<u32, Slot>,
    pub counts: Map<u32, i64>,
    pub networks: Map<NetworkKey, u32>,
    pub announcers: Map<u32, u32>,
}

/// All maps of the programs.
#[derive(Debug)]
pub struct Maps {
    pub tables: Tables,
    pub draws: Map<u32, Draw>,
    pub sockets: Map<u32, SocketServer>,
    pub connected: Map<u32, ConnectedDatagram>,
    pub listed: Map<u32, ConnectedDatagram>,
    pub listing: Map<u32, Listing>,
    /// Ids of the servers of connected UDP sockets that an earlier version connected, by their cookies.
    pub earlier: Option<Map<u64, u32>>,
    pub active: Map<u32, u32>,
    pub connects: Map<u32, ServerConnects>,
    pub vip_connects: Map<u32, VipConnects>,
    pub failures: Map<u32, Failures>,
    pub troubles: Map<ClientKey, Troubles>,
    /// Only pinned here, as the next.
    unconnected: Map<u32, Keeps>,
    more: Map<u32, More>,
    exempt: Map<u32, u32>,
    late: Map<u32, u64>,
    locks: Map<u32, u64>,
    shares: Map<u64, u64>,
    no_troubles: Map<u32, Troubles>,
    namespaces: Map<u32, u64>,
}

impl Tables {
    /// Opens the maps that are pinned below `root`; `None` if one of them is not pinned.
    pub fn look(root: &Path) -> Result<Option<Self>, Error> {
        let directory = root.join(layout::VERSION);
        for map in &TABLES {
            if !is_pinned(&directory, map)? {
                return Ok(None);
            }
        }
        Self::open(&directory).map(Some)
    }

    fn open(directory: &Path) -> Result<Self, Error> {
        Ok(Self {
            vips: open(directory, &layout::VIPS)?,
            slots: open(directory, &layout::SLOTS_MAP)?,
            counts: open(directory, &layout::COUNTS)?,
            networks: open(directory, &layout::NETWORKS)?,
            announcers: open(directory, &layout::ANNOUNCERS)?,
        })
    }
}

impl Maps {
    /// Opens the maps that are pinned in `directory`.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        Ok(Self {
            tables: Tables::open(directory)?,
            draws: open(directory, &layout::DRAWS)?,
            sockets: open(directory, &layout::SOCKETS)?,
            connected: open(directory, &layout::CONNECTED)?,
            listed: open(directory, &layout::LISTED)?,
            listing: open(directory, &layout::LISTING)?,
            earlier: match is_pinned(directory, &layout::DATAGRAMS)? {
                true => Some(open(directory, &layout::DATAGRAMS)?),
                false => None,
            },
            active: open(directory, &layout::ACTIVE)?,
            unconnected: open(directory, &layout::UNCONNECTED)?,
            more: open(directory, &layout::MORE)?,
            exempt: open(directory, &layout::EXEMPT)?,
            connects: open(directory, &layout::CONNECTS)?,
            vip_connects: open(directory, &layout::VIP_CONNECTS)?,
            late: open(directory, &layout::LATE)?,
            locks: open(directory, &layout::LOCKS)?,
            failures: open(directory, &layout::FAILURES)?,
            troubles: open(directory, &layout::TROUBLES)?,
            shares: open(directory, &layout::SHARES)?,
            no_troubles: open(directory, &layout::NO_TROUBLES)?,
            namespaces: open(directory, &layout::NAMESPACES)?,
        })
    }

    /// Pins those maps in `directory` again whose pins were removed.
    ///
    /// # Errors
    /// `Foreign` if something else was pinned in a map's place.
    pub fn repair(&self, directory: &Path) -> Result<(), Error> {
        let Self { tables, sockets, connected, listed, listing, active, unconnected, more, exempt, .. } =
            self;
        let Tables { vips, slots, counts, networks, announcers } = tables;
        repair(directory, &layout::VIPS, vips)?;
        repair(directory, &layout::SLOTS_MAP, slots)?;
        repair(directory, &layout::DRAWS, &self.draws)?;
        repair(directory, &layout::COUNTS, counts)?;
        repair(directory, &layout::NETWORKS, networks)?;
        repair(directory, &layout::SOCKETS, sockets)?;
        repair(directory, &layout::CONNECTED, connected)?;
        repair(directory, &layout::LISTED, listed)?;
        repair(directory, &layout::LISTING, listing)?;
        if let Some(earlier) = &self.earlier {
            repair(directory, &layout::DATAGRAMS, earlier)?;
        }
        repair(directory, &layout::ANNOUNCERS, announcers)?;
        repair(directory, &layout::ACTIVE, active)?;
        repair(directory, &layout::UNCONNECTED, unconnected)?;
        repair(directory, &layout::MORE, more)?;
        repair(directory, &layout::EXEMPT, exempt)?;
        repair(directory, &layout::CONNECTS, &self.connects)?;
        repair(directory, &layout::VIP_CONNECTS, &self.vip_connects)?;
        repair(directory, &layout::LATE, &self.late)?;
        repair(directory, &layout::LOCKS, &self.locks)?;
        repair(directory, &layout::FAILURES, &self.failures)?;
        repair(directory, &layout::TROUBLES, &self.troubles)?;
        repair(directory, &layout::SHARES, &self.shares)?;
        repair(directory, &layout::NO_TROUBLES, &self.no_troubles)?;
        repair(directory, &layout::NAMESPACES, &self.namespaces)
    }
}

fn open<K: Element, V: Element>(directory: &Path, layout: &MapLayout) -> Result<Map<K, V>, Error> {
    let path = directory.join(layout.name);
    bpf::get(&path).and_then(Map::new).map_err(|source| Error::Pin { path, source })
}

fn repair<K: Element, V: Element>(
    directory: &Path,
    layout: &MapLayout,
    map: &Map<K, V>,
) -> Result<(), Error> {
    let path = directory.join(layout.name);
    let found = match bpf::get(&path) {
        Ok(fd) => bpf::map_info(fd.as_fd()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return bpf::pin(map.as_fd(), &path).map_err(|source| Error::Pin { path, source });
        }
        Err(error) => Err(error),
    };
    match found {
        // The map's id is compared as well: one of the same shape is not the one in use.
        Ok(info) if info == *map.info() => Ok(()),
        Ok(_) => Err(Error::Foreign(path)),
        Err(source) => Err(Error::Pin { path, source }),
    }
}

/// Returns true if the map is pinned in `directory`.
///
/// # Errors
/// `Foreign` if the pin is no map, or one of another definition.
pub fn is_pinned(directory: &Path, map: &MapLayout) -> Result<bool, Error> {
    let path = directory.join(map.name);
    let failed = |source| Error::Pin { path: path.clone(), source };
    match bpf::get(&path) {
        Ok(fd) if map.describes(&bpf::map_info(fd.as_fd()).map_err(failed)?) => Ok(true),
        Ok(_) => Err(Error::Foreign(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error::permission()),
        Err(source) => Err(failed(source)),
    }
}
