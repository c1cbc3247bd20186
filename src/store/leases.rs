//! The names' addresses on disk: a file with all of them, and one beside it that grows by what changes.
//!
//! With 10,000 names the whole is 1.5 MB, and it is written before an address is used. A name that is new, or a VIP
//! that has lost its last backend, is one line:
//!
//! ```text
//! leases.json      {"version":1,"journal":"6d0c1e7a90b1f2c3","content":{...}}
//!
//! leases.journal   {"version":1,"of":"6d0c1e7a90b1f2c3"}                               5bbd2b39
//!                  {"written":{...},"leases4":{"set":[["web.marathon","11.1.2.3"]]}}    0a3f10c2
//! ```
//!
//! A journal is of the whole whose token it has. Any other is of an earlier whole, and is passed over: so a crash
//! between the two files loses nothing. Versions that know of no journal read the whole, which every orderly end
//! writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::delta::{Edits, pair};
use super::directory::Directory;
use super::document::encode;
use super::growing::GrowingFile;
use super::journal::{LEAST, SHARE};
use super::persisted::{AskedServer, Persisted};
use super::records::{IntactRecords, record};
use crate::units::steady::{Moment, Shift};
use crate::vip::VipKey;

/// File of the names' addresses and the known VIPs.
pub(super) const LEASES: &str = "leases.json";

/// File of what has changed in it.
pub(super) const CHANGES: &str = "leases.journal";

/// Format of that file.
const VERSION: u32 = 1;

/// First record of the file.
#[derive(Serialize, Deserialize)]
struct ChangesHead {
    version: u32,
    /// Token of the whole that was changed.
    of: String,
}

/// Record of a change.
#[derive(Serialize, Deserialize)]
struct LeasesChange {
    written: Moment,
    #[serde(flatten)]
    delta: LeasesDelta,
}

/// Everything in which one state of the addresses differs from another.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct LeasesDelta {
    #[serde(skip_serializing_if = "Edits::is_empty")]
    leases4: Edits<String, (String, IpAddr)>,
    #[serde(skip_serializing_if = "Edits::is_empty")]
    leases6: Edits<String, (String, IpAddr)>,
    #[serde(skip_serializing_if = "Edits::is_empty")]
    vips: Edits<VipKey, (VipKey, Option<Timestamp>)>,
    /// All of them, if one has changed: frameworks are few and seldom register.
    #[serde(skip_serializing_if = "Option::is_none")]
    registered: Option<BTreeMap<String, Timestamp>>,
    /// All of them, if one has changed: servers are few, and are noted once an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<BTreeMap<IpAddr, AskedServer>>,
}

impl LeasesDelta {
    /// Returns what turns `old` into `new`. Takes as long as there are differences.
    fn between(old: &Persisted, new: &Persisted) -> Self {
        // Without `..`, so that a new part is not forgotten here.
        let Persisted { leases4, leases6, vips, registered, servers } = new;
        Self {
            leases4: Edits::of(old.leases4.held().changes(leases4.held()), pair),
            leases6: Edits::of(old.leases6.held().changes(leases6.held()), pair),
            vips: Edits::of(old.vips.changes(vips), pair),
            registered: (*registered != old.registered).then(|| registered.clone()),
            servers: (*servers != old.servers).then(|| servers.clone()),
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn apply(self, memory: &mut Persisted) {
        let Self { leases4, leases6, vips, registered, servers } = self;
        for (edits, leases) in [(leases4, &mut memory.leases4), (leases6, &mut memory.leases6)] {
            if !edits.is_empty() {
                let mut held = leases.held().clone();
                edits.apply(&mut held);
                *leases = held.into();
            }
        }
        vips.apply(&mut memory.vips);
        memory.registered = registered.unwrap_or_else(|| std::mem::take(&mut memory.registered));
        memory.servers = servers.unwrap_or_else(|| std::mem::take(&mut memory.servers));
    }
}

impl Shift for LeasesDelta {
    fn shift(&mut self, by: SignedDuration) {
        self.vips.set.iter_mut().for_each(|(_, since)| since.shift(by));
    }
}

/// The addresses as this run writes them.
#[derive(Debug, Default)]
pub struct LeasesFile {
    /// Content of the files; `None` where that is in doubt.
    kept: Option<Persisted>,
    /// The whole that this run has written. One of an earlier run is only read.
    whole: Option<WholeLeases>,
    changes: GrowingFile,
}

/// A whole that was written.
#[derive(Debug)]
struct WholeLeases {
    token: String,
    octets: u64,
    file: File,
}

impl LeasesFile {
    /// Goes on from what an earlier run left.
    pub fn new(kept: Persisted) -> Self {
        Self { kept: Some(kept), ..Self::default() }
    }

    /// Makes the files say `memory`, which they do on return. Writes what has changed or nothing, and returns true
    /// if it wrote something.
    ///
    /// # Errors
    /// When the directory cannot be written. The next call writes everything.
    pub(super) fn save(
        &mut self,
        directory: impl FnOnce() -> io::Result<Directory>,
        memory: &Persisted,
    ) -> io::Result<bool> {
        // Without it after an error, when it is not known what the files say.
        let delta = self.kept.take().map(|kept| LeasesDelta::between(&kept, memory));
        let differs = delta.as_ref().is_none_or(|delta| !delta.is_empty());
        match delta {
            Some(delta) if delta.is_empty() => {}
            Some(delta) => {
                let directory = directory()?;
                if !self.append(&directory, delta)? {
                    self.begin(&directory, memory)?;
                }
            }
            None => self.begin(&directory()?, memory)?,
        }
        self.kept = Some(memory.clone());
        Ok(differs)
    }

    /// Writes everything where changes stand in a file of their own, or times go on that are measured from the
    /// writing.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(super) fn finish(
        &mut self,
        directory: impl FnOnce() -> io::Result<Directory>,
        memory: &Persisted,
    ) -> io::Result<bool> {
        let goes_on = memory.vips.values().any(Option::is_some);
        // An earlier version reads the whole alone, and finds everything there after an orderly end.
        if self.changes.is_open() || goes_on || self.kept.as_ref() != Some(memory) {
            self.kept = None;
        }
        self.save(directory, memory)
    }

    /// Appends a change; returns false where everything is to be written instead.
    fn append(&mut self, directory: &Directory, delta: LeasesDelta) -> io::Result<bool> {
        let Some(WholeLeases { token, octets, file }) = &self.whole else { return Ok(false) };
        // An operator may have put it away, and changes alone are of no use.
        if !directory.has(LEASES, file) {
            return Ok(false);
        }
        // A start reads all changes, so that they may only take a share of the whole.
        let limit = (octets / SHARE).max(LEAST);
        let line = record(&LeasesChange { written: Moment::now(), delta })?;
        // The line that begins a file of changes is bounded here only.
        if line.len() as u64 > limit {
            return Ok(false);
        }
        if self.changes.is_open() {
            return self.changes.append(directory, CHANGES, &line, limit);
        }
        let head = record(&ChangesHead { version: VERSION, of: token.clone() });
        self.changes.begin(directory, CHANGES, [head, Ok(line)]).map(|_| true)
    }

    /// Replaces the whole.
    fn begin(&mut self, directory: &Directory, memory: &Persisted) -> io::Result<()> {
        // Of the old whole from here on, whatever comes of the new one.
        (self.changes, self.whole) = Default::default();
        let token = format!("{:016x}", rand::random::<u64>());
        let bytes = encode(Some(&token), memory)?;
        let file = directory.replace_by(LEASES, |file| file.write_all(&bytes))?;
        self.whole = Some(WholeLeases { token, octets: bytes.len() as u64, file });
        Ok(())
    }
}

/// Takes in the changes of the whole with this token. Returns the octets at the end of the file that are of no use.
pub(super) fn apply_changes(bytes: &[u8], token: &str, now: &Moment, memory: &mut Persisted) -> usize {
    let mut records = IntactRecords(bytes);
    let head = records.next().and_then(|head| serde_json::from_slice::<ChangesHead>(head).ok());
    // One of a later version cannot be read, and the whole is the best that is known.
    if head.is_none_or(|head| head.of != token || head.version > VERSION) {
        return 0;
    }
    let mut lost = records.rest().len();
    // A crash leaves an end that is damaged, which is no error.
    while let Some(record) = records.next()
        && let Ok(LeasesChange { written, mut delta }) = serde_json::from_slice(record)
    {
        // Each is of its own time.
        delta.shift(written.shift_to(now));
        delta.apply(memory);
        lost = records.rest().len();
    }
    lost
}

#[cfg(test)]
mod tests;
