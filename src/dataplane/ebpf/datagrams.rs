//! Connected UDP sockets and their servers, as far as connections end.
//!
//! The kernel's socket diagnostics tell the storage of TCP sockets only. So an iterator over that of UDP sockets lists
//! them, wherever they are. It is loaded when it is first needed, because that takes some milliseconds.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use aya::Btf;
use aya::programs::{Iter, ProgramError};

use super::bpf::{self, Map};
use super::error::Error;
use super::layout::{self, Listing};
use super::maps::Maps;
use super::reading::map_error;

/// Kind of the iterator, as the kernel names it.
const KIND: &str = "bpf_sk_storage_map";

/// Servers of connected UDP sockets, by the sockets' cookies.
#[derive(Debug, Default)]
pub struct ListedDatagrams<'a> {
    /// Ids of the servers. Sockets whose server takes new ones need not be here.
    listed: BTreeMap<u64, u32>,
    /// Notes of an earlier version of the programs on sockets that are not listed.
    earlier: Option<&'a Map<u64, u32>>,
}

impl<'a> ListedDatagrams<'a> {
    /// Lists the sockets by the iterator `program`.
    ///
    /// # Errors
    /// If the kernel has no such iterators, or does not describe its types.
    pub fn list(program: &mut Iter, maps: &'a Maps) -> Result<Self, Error> {
        if let Err(ProgramError::NotLoaded) = program.fd() {
            let types = Btf::from_sys_fs().map_err(|error| Error::Iterator(error.to_string()))?;
            program.load(KIND, &types).map_err(|error| Error::Iterator(error.to_string()))?;
        }
        let program = program.fd().map_err(|error| Error::Iterator(error.to_string()))?.as_fd();
        let failed = |source| map_error(&layout::LISTING, source);
        let mut listed = BTreeMap::new();
        let mut skipped = 0;
        loop {
            // What was noted by an earlier version must give way to what these programs know of the same socket.
            let start = Listing { skipped, found: 0, all: maps.earlier.is_some().into() };
            maps.listing.update(&0, &start).map_err(failed)?;
            bpf::iterate(program, maps.connected.as_fd())
                .map_err(|error: io::Error| Error::Iterator(error.to_string()))?;
            let end = maps.listing.lookup(&0).map_err(failed)?.unwrap_or(start);
            let found = end.found.saturating_sub(skipped);
            let (_, sockets) = maps.listed.read(found as usize).map_err(failed)?;
            listed.extend(sockets.iter().map(|socket| (socket.cookie, socket.id)));
            if found <= layout::LISTED_AT_ONCE {
                return Ok(Self { listed, earlier: maps.earlier.as_ref() });
            }
            skipped += layout::LISTED_AT_ONCE;
        }
    }

    /// Returns the id of the server that a socket was given, if that is known.
    pub fn server_of(&self, cookie: u64) -> Option<u32> {
        match self.listed.get(&cookie) {
            Some(id) => Some(*id),
            None => self.earlier?.lookup(&cookie).ok().flatten(),
        }
    }
}
