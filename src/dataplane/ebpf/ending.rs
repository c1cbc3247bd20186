//! Ends connections to servers that are deleted, or take no new ones.
//!
//! A program may have found such a server just before it left, and count its connection a moment later. Waiting for
//! these programs takes as long as all else that a change does, so it is done once for all changes of a second: the
//! connections that are counted end at once, and those few that were under way at the next look.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::abort::{self, Targets};
use super::bpf;
use super::capabilities;
use super::datagrams::ListedDatagrams;
use super::error::Error;
use super::layout;
use super::leaving::LeavingServer;
use super::pins::Pins;
use super::reading::{self, map_error};
use super::table::ServiceTable;
use crate::dataplane::reading::Unreached;

/// Time after which connections are looked for again that were not found.
const SEARCH_AGAIN: Duration = Duration::from_secs(60);
/// Time after which servers that left are looked at once more.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Servers whose connections are to end.
#[derive(Debug, Default)]
pub struct Ending {
    /// Servers that services lost and that may still have open connections.
    deleted: Vec<LeavingServer>,
    /// Servers that take no new connections, and may still have some that are not established.
    halted: Vec<LeavingServer>,
    /// Servers that were looked at, and are to be looked at once more.
    again: Vec<Looked>,
    /// Time since which there are some.
    again_since: Option<Instant>,
    /// Servers that services lost and whose connections may be where this process cannot look.
    unreached: Option<EndingSearch>,
}

/// Server whose connections were ended, as far as they were counted.
#[derive(Debug)]
struct Looked {
    server: LeavingServer,
    is_halted: bool,
    /// Connections that were still counted after that. Those of UDP are until their program closes them.
    left: u64,
}

/// Search for connections that did not find all.
#[derive(Debug)]
struct EndingSearch {
    /// Servers with missing connections, by their ids, and the numbers of these connections.
    missing: BTreeMap<u32, (LeavingServer, u64)>,
    reason: String,
    ended: Instant,
}

impl Ending {
    /// Expects the connections to these servers to end at the next call of [`Self::end`].
    pub fn expect(
        &mut self,
        deleted: impl IntoIterator<Item = LeavingServer>,
        halted: impl IntoIterator<Item = LeavingServer>,
    ) {
        self.deleted.extend(deleted);
        self.halted.extend(halted);
    }

    /// Ends the connections to deleted servers, and to servers with weight 0 those that are not established yet. What
    /// fails is tried again in the next call.
    ///
    /// # Errors
    /// If connections could not be ended.
    pub fn end(&mut self, pins: &mut Pins, table: &ServiceTable) -> Result<(), Error> {
        // What was not reached may be by now: a namespace has another owner, or its process has gone.
        let is_due = self.unreached.as_ref().is_some_and(|search| search.ended.elapsed() >= SEARCH_AGAIN);
        let is_over = self.again_since.is_some_and(|since| since.elapsed() >= LOOK_AGAIN);
        if self.deleted.is_empty() && self.halted.is_empty() && !is_due && !is_over {
            return self.forget_closed(pins, table);
        }
        if is_over {
            self.look_again(pins, table)?;
        }
        // An id is only given to a new server when it has no connections left.
        self.deleted.retain(|server| !table.is_in_use(server.id));
        self.halted.retain(|server| table.is_in_use(server.id));
        let mut counts = counts(pins, self.deleted.iter().chain(&self.halted).map(|server| server.id))?;
        let looked =
            |is_halted: bool| move |server: &LeavingServer| Looked { server: *server, is_halted, left: 0 };
        let mut first: Vec<Looked> = self.deleted.iter().map(looked(false)).collect();
        first.extend(self.halted.iter().map(looked(true)));
        // Most servers are drained by now, and then no sockets have to be listed.
        let is_counted = |server: &LeavingServer| counts.get(&server.id) != Some(&0);
        self.deleted.retain(is_counted);
        self.halted.retain(is_counted);
        if !self.deleted.is_empty() || !self.halted.is_empty() || is_due {
            // What was not reached is looked for along with the rest.
            self.forget_closed(pins, table)?;
            for (id, (server, missing)) in self.unreached.take().into_iter().flat_map(|search| search.missing)
            {
                counts.insert(id, missing);
                self.deleted.push(server);
            }
            self.abort(pins, &counts)?;
            let left = self::counts(pins, first.iter().map(|looked| looked.server.id))?;
            first
                .iter_mut()
                .for_each(|looked| looked.left = left.get(&looked.server.id).copied().unwrap_or(0));
        }
        if !first.is_empty() {
            self.again_since.get_or_insert_with(Instant::now);
            self.again.extend(first);
        }
        Ok(())
    }

    /// Returns how many connections to deleted servers may still be open where this process cannot look.
    pub fn unreached(&self) -> Option<Unreached> {
        let search = self.unreached.as_ref()?;
        let connections = search.missing.values().map(|(_, connections)| connections).sum();
        Some(Unreached { connections, reason: search.reason.clone() })
    }

    /// Expects connections to end of servers that were given some since they were looked at.
    fn look_again(&mut self, pins: &Pins, table: &ServiceTable) -> Result<(), Error> {
        // From here on no socket is given one of these servers any more, so the counts are final.
        bpf::wait_for_readers();
        self.again.retain(|looked| table.is_in_use(looked.server.id) == looked.is_halted);
        let counts = counts(pins, self.again.iter().map(|looked| looked.server.id))?;
        self.again_since = None;
        for Looked { server, is_halted, left } in std::mem::take(&mut self.again) {
            // Those that are missing have a time of their own.
            let is_missing =
                self.unreached.as_ref().is_some_and(|search| search.missing.contains_key(&server.id));
            if counts.get(&server.id).is_none_or(|count| *count <= left) || is_missing {
                continue;
            }
            match is_halted {
                false => self.deleted.push(server),
                // It may take connections again by now.
                true if takes_connections(pins, server.id)? => {}
                true => self.halted.push(server),
            }
        }
        Ok(())
    }

    /// Ends the counted connections.
    fn abort(&mut self, pins: &mut Pins, counts: &BTreeMap<u32, u64>) -> Result<(), Error> {
        let mut targets = Targets::default();
        for server in &self.deleted {
            targets.add_deleted(server, counts.get(&server.id).copied().unwrap_or(0));
        }
        self.halted.iter().for_each(|server| targets.add_halted(server));
        let sockets = pins.maps.sockets.as_fd().try_clone_to_owned();
        let sockets = sockets.map_err(|source| map_error(&layout::SOCKETS, source))?;
        let datagrams = match targets.have_datagrams() {
            true => pins.datagrams(),
            false => Ok(ListedDatagrams::default()),
        };
        // TCP connections end all the same.
        let (datagrams, unlisted) = match datagrams {
            Ok(datagrams) => (datagrams, None),
            Err(error) => (ListedDatagrams::default(), Some(error)),
        };
        let server_of = |cookie| datagrams.server_of(cookie);
        let ended = abort::end(&targets, sockets.as_fd(), &server_of).map_err(Error::Sockets)?;
        tracing::debug!(ended = ended.connections, "ended connections to deleted servers");
        let deleted = std::mem::take(&mut self.deleted);
        self.halted.clear();
        let reason = ended.obstacle.map(|(failures, error)| obstacle(failures, &error));
        let reason = unlisted.map(|error| error.to_string()).or(reason);
        if let Some(reason) = reason
            && !ended.missing.is_empty()
        {
            let missing = deleted.into_iter().filter_map(|server| {
                let connections = ended.missing.get(&server.id)?;
                Some((server.id, (server, *connections)))
            });
            self.unreached = Some(EndingSearch { missing: missing.collect(), reason, ended: Instant::now() });
        }
        Ok(())
    }

    /// Forgets of the connections that were not reached those that are closed by now.
    fn forget_closed(&mut self, pins: &Pins, table: &ServiceTable) -> Result<(), Error> {
        let Some(mut search) = self.unreached.take() else { return Ok(()) };
        let counts = counts(pins, search.missing.keys().copied())?;
        search.missing.retain(|id, (_, missing)| {
            *missing = counts.get(id).copied().unwrap_or(0).min(*missing);
            *missing > 0 && !table.is_in_use(*id)
        });
        self.unreached = (!search.missing.is_empty()).then_some(search);
        Ok(())
    }
}

/// Reads the numbers of connections of servers, each by itself: of many servers few leave at once.
fn counts(pins: &Pins, ids: impl Iterator<Item = u32>) -> Result<BTreeMap<u32, u64>, Error> {
    ids.map(|id| Ok((id, reading::connections(&pins.maps.tables, id)?.active.into()))).collect()
}

/// Returns true if a server takes new connections.
fn takes_connections(pins: &Pins, id: u32) -> Result<bool, Error> {
    let term = pins.maps.active.lookup(&id).map_err(|source| map_error(&layout::ACTIVE, source))?;
    Ok(term.is_some_and(|term| term != 0))
}

/// Says why connections were not reached, and what to do.
fn obstacle(failures: usize, error: &str) -> String {
    let missing = capabilities::missing_for_namespaces();
    if missing.is_empty() {
        return format!("{failures} processes or network namespaces could not be looked into: {error}");
    }
    format!(
        "this daemon lacks {}, so it only reaches its own network namespace (systemd: install \
         systemd/drop-ins/ebpf-containers.conf)",
        capabilities::names(&missing)
    )
}
