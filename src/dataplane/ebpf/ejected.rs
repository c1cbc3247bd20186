//! Servers that the programs pass over, because they have failed for a client.

use std::collections::BTreeMap;

use nix::time::{ClockId, clock_gettime};

use super::error::Error;
use super::layout::{self, Failures};
use super::maps::Maps;
use super::object::{milliseconds, time_of_clock};
use super::reading::map_error;
use super::table::ServiceTable;
use crate::dataplane::connects::{Ejected, Remembered};
use crate::dataplane::state::ServerKey;

/// Reads for how many network namespaces each server is ejected, and how much is remembered of failures. `memory` is
/// the time in the programs' unit for which that is.
pub fn read(
    maps: &Maps,
    table: &ServiceTable,
    memory: u32,
) -> Result<(BTreeMap<ServerKey, Ejected>, Remembered), Error> {
    let limit = layout::TROUBLES.max_entries as usize;
    let failed = |source| map_error(&layout::TROUBLES, source);
    // Mostly nothing fails, and the room for all elements need not be made.
    let (clients, troubles) = match maps.troubles.is_empty().map_err(failed)? {
        true => Default::default(),
        false => maps.troubles.read(usize::MAX).map_err(failed)?,
    };
    let now = now()?;
    let mut ejected: BTreeMap<ServerKey, Ejected> = BTreeMap::new();
    // What is known of a server is read once, however many clients it has failed for.
    let mut known = BTreeMap::new();
    for (client, troubles) in clients.iter().zip(&troubles) {
        let placed = client.service().and_then(|key| Some((key, table.services.get(&key)?)));
        let Some((key, placed)) = placed else { continue };
        for failing in &troubles.failing {
            let Some(id) = failing.ejected() else { continue };
            let Some((address, _)) = placed.servers.iter().find(|(_, server)| server.id == id) else {
                continue;
            };
            let (term, failures) = match known.get(&id) {
                Some(known) => *known,
                None => *known.entry(id).or_insert(of_server(maps, id)?),
            };
            let Some(left) = failing.left(term, failures, now, memory) else { continue };
            let ejected = ejected.entry((key, *address)).or_default();
            ejected.namespaces += 1;
            ejected.left_ms = ejected.left_ms.max(milliseconds(left));
        }
    }
    Ok((ejected, Remembered { used: clients.len(), limit }))
}

/// Reads what tells the stay of a server.
fn of_server(maps: &Maps, id: u32) -> Result<(u32, Failures), Error> {
    let term = maps.active.lookup(&id).map_err(|source| map_error(&layout::ACTIVE, source))?;
    let failures = maps.failures.lookup(&id).map_err(|source| map_error(&layout::FAILURES, source))?;
    Ok((term.unwrap_or(0), failures.unwrap_or(Failures::none(0))))
}

/// Returns the time in the programs' unit.
fn now() -> Result<u32, Error> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|error| Error::Clock(error.into()))?;
    Ok(time_of_clock(now.into()))
}
