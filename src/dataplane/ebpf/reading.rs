//! Reading the maps: services, networks and connections.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::error::Error;
use super::layout::{self, MapLayout};
use super::maps::Tables;
use super::table::{self, PlacedService, ServiceTable};
use crate::dataplane::state::{Connections, Service, ServiceKey};

/// Content of the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EbpfReading {
    pub services: BTreeMap<ServiceKey, Service>,
    /// Networks in which connections are refused that are for no service.
    pub networks: BTreeSet<IpNet>,
    /// Sockets that are connected through our programs, for each server.
    pub connections: BTreeMap<(ServiceKey, SocketAddr), Connections>,
}

impl EbpfReading {
    /// Adds the networks and connections in the maps to the services in `table`.
    pub fn new(maps: &Tables, table: &ServiceTable) -> Result<Self, Error> {
        let connections = all_connections(maps, table)?;
        let services = table.services.iter().map(|(key, placed)| (*key, placed.service())).collect();
        Ok(Self { services, networks: networks(maps)?, connections })
    }
}

/// Reads all services.
pub fn services(maps: &Tables) -> Result<BTreeMap<ServiceKey, PlacedService>, Error> {
    let (keys, regions) = maps.vips.read(usize::MAX).map_err(|source| map_error(&layout::VIPS, source))?;
    // After the words, because slots are written before the word that points at them.
    let (_, slots) = maps
        .slots
        .read(table::slots_in_use(&regions))
        .map_err(|source| map_error(&layout::SLOTS_MAP, source))?;
    Ok(table::decode(&keys, &regions, &slots))
}

fn networks(maps: &Tables) -> Result<BTreeSet<IpNet>, Error> {
    let keys = maps.networks.keys().map_err(|source| map_error(&layout::NETWORKS, source))?;
    Ok(keys.iter().filter_map(|key| key.network()).collect())
}

/// Reads the connections of all servers in `table`.
pub fn all_connections(
    maps: &Tables,
    table: &ServiceTable,
) -> Result<BTreeMap<(ServiceKey, SocketAddr), Connections>, Error> {
    let counts = Counts::read(maps, table.ids_end()).map_err(|source| map_error(&layout::COUNTS, source))?;
    let servers = table.services.iter().flat_map(|(key, placed)| {
        placed.servers.iter().map(move |(address, server)| ((*key, *address), server.id))
    });
    let count = |id| Connections { active: counts.of(id).unwrap_or(0) as u32, inactive: 0 };
    Ok(servers.map(|(server, id)| (server, count(id))).collect())
}

/// Reads the connections of one server.
pub fn connections(maps: &Tables, id: u32) -> Result<Connections, Error> {
    let count = maps.counts.lookup(&id).map_err(|source| map_error(&layout::COUNTS, source))?;
    Ok(Connections { active: active(count.unwrap_or(0)), inactive: 0 })
}

/// Converts a count of connections. Every connection needs a file descriptor, so their number fits into 32
/// bits; and a count goes negative if the map was created anew while counted sockets were open.
fn active(count: i64) -> u32 {
    count.max(0) as u32
}

/// Numbers of connections of the servers with the lowest ids.
pub struct Counts(Vec<i64>);

impl Counts {
    /// Reads the counts of the ids below `limit`.
    pub fn read(maps: &Tables, limit: usize) -> io::Result<Self> {
        maps.counts.read(limit.min(layout::SERVERS as usize)).map(|(_, counts)| Self(counts))
    }

    /// Lists the ids that have connections.
    pub fn connected_ids(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.0).filter(|(_, count)| **count > 0).map(|(id, _)| id)
    }

    /// Returns the connections of a server; `None` if its count was not read.
    pub fn of(&self, id: u32) -> Option<u64> {
        self.0.get(id as usize).map(|count| u64::from(active(*count)))
    }
}

/// Converts a failure to read or write a map.
pub fn map_error(map: &MapLayout, source: io::Error) -> Error {
    Error::Map { map: map.name, source }
}
