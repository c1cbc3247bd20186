//! The IPVS table as far as it is known: what rounds found, with our own operations since.

use std::collections::BTreeSet;

use super::round::{Kernel, Round, forget_connections, look};
use super::table::IpvsTable;
use crate::dataplane::effect::carry_out_service;
use crate::dataplane::op::Op;
use crate::dataplane::state::ServiceKey;
use crate::dataplane::traffic::ServiceTraffic;

#[cfg(test)]
mod tests;

/// The table as it is known, and the round that looks through it.
#[derive(Debug, Default)]
pub(super) struct Cache {
    table: IpvsTable,
    /// Services of which an operation of ours was refused, or took against expectation.
    doubtful: BTreeSet<ServiceKey>,
    round: Option<Round>,
    /// Set when a round has ended since the table was last taken for an audit.
    is_looked_through: bool,
    /// Set after the first round.
    is_known: bool,
}

impl Cache {
    /// Follows an operation that was tried. What its answer leaves open is looked at before the table is used.
    pub(super) fn apply(&mut self, op: &Op, is_refused: bool) {
        let Some(key) = op.service() else { return };
        // Whatever became of it: an operation without an answer may have been carried out.
        if let Some(round) = &mut self.round {
            round.note_change(*key);
        }
        if is_refused || carry_out_service(&mut self.table.services, op).is_err() {
            self.doubtful.insert(*key);
            return;
        }
        match op {
            Op::DelServer(key, address) => {
                self.table.connections.remove(&(*key, *address));
                ServiceTraffic::forget(&mut self.table.traffic, key, address);
            }
            Op::DelService(key) => forget_connections(&mut self.table, key),
            // A server that is added starts without connections.
            Op::AddServer(key, address, _) => {
                self.table.connections.insert((*key, *address), Default::default());
            }
            _ => {}
        }
    }

    /// Goes on with a round until its end or until `is_over` says so, but makes one step at least. Returns true at the
    /// end, and from then on until the table is taken for an audit.
    ///
    /// # Errors
    /// When the kernel does not answer. The next round begins anew.
    pub(super) fn go_on<K: Kernel>(
        &mut self,
        kernel: &mut K,
        mut is_over: impl FnMut() -> bool,
    ) -> Result<bool, K::Error> {
        while !self.is_looked_through {
            // Taken out, so that an error leaves no round behind that is half done.
            let mut round = match self.round.take() {
                Some(round) => round,
                None => Round::begin(kernel)?,
            };
            if round.step(kernel, &mut self.table)? {
                (self.is_looked_through, self.is_known) = (true, true);
                break;
            }
            self.round = Some(round);
            if is_over() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns everything, read anew.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(super) fn read<K: Kernel>(&mut self, kernel: &mut K) -> Result<&IpvsTable, K::Error> {
        (self.round, self.is_looked_through) = (None, false);
        self.go_on(kernel, || false)?;
        self.current(kernel)
    }

    /// Returns what the last round and our own operations since tell; reads everything where there was no round yet.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(super) fn current<K: Kernel>(&mut self, kernel: &mut K) -> Result<&IpvsTable, K::Error> {
        if !self.is_known {
            self.go_on(kernel, || false)?;
        }
        while let Some(key) = self.doubtful.first().copied() {
            let foreign = look(kernel, &mut self.table, key, None)?;
            self.table.foreign.retain(|known| known.key != Some(key));
            self.table.foreign.extend(foreign);
            self.table.foreign.sort();
            // Only now, so that after a failure it is looked at again.
            self.doubtful.remove(&key);
        }
        self.is_looked_through = false;
        Ok(&self.table)
    }
}
