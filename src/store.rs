//! What must survive a restart: files that are replaced as a whole, one that grows by what changes
//! ([`journal`]), and one that grows by what happens ([`mod@history`]). [`saver`] decides when, [`directory`] reads and writes them.
//!
//! What belongs here: formats of the state directory and how its files are read and replaced. What is
//! kept is decided in [`crate::plan`] and [`crate::cluster::belief`].

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cluster::Snapshot;
use crate::cluster::belief::Holds;
use crate::dataplane::ServiceKey;
use crate::marathon::MarathonMemory;
use crate::units::steady::{Moment, Shift};

pub mod delta;
pub mod directory;
mod document;
mod growing;
pub mod history;
pub mod journal;
pub mod leases;
pub mod pace;
mod persisted;
pub mod records;
pub mod saver;
mod tracked;
mod writer;

use directory::Directory;
use document::{StoredDocument, Unusable, VERSION, decode, encode};
use history::{HISTORY, HistoryFile, KeptRecords};
use journal::{JOURNAL, Journal, JournalWritten, REFERENCE, Unreadable};
use leases::{CHANGES, LEASES, LeasesFile};
pub use persisted::{AskedServer, Persisted};
pub use tracked::Tracked;

/// File of deadlines that go on after a restart.
const DEADLINES: &str = "deadlines.json";

/// File of what Marathon's answers have said.
const MARATHON: &str = "marathon.json";

/// Largest size of a file in bytes; a cluster of a million tasks has about half as many.
const MAX_BYTES: u64 = 1 << 30;

/// Deadlines that go on after a restart, besides those of VIPs without backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    #[serde(default)]
    pub holds: Holds,
    #[serde(default)]
    pub drains: Vec<KeptDrain>,
}

/// A server that is leaving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDrain {
    pub service: ServiceKey,
    pub server: SocketAddr,
    pub since: Timestamp,
    pub until: Timestamp,
    /// Id of the task that has gone, empty where it is not known.
    #[serde(default)]
    pub task: String,
    /// Id of its agent.
    #[serde(default)]
    pub agent: String,
}

impl Shift for Deadlines {
    fn shift(&mut self, by: SignedDuration) {
        self.holds.failover.shift(by);
        for drain in &mut self.drains {
            drain.since.shift(by);
            drain.until.shift(by);
        }
    }
}

/// Has no times of the steady clock.
impl Shift for Snapshot {
    fn shift(&mut self, _: SignedDuration) {}
}

/// Failure to read or write a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error(
        "cannot write {path}: {error}; the next start will know less (is daemon.state_dir writable, is the disk full?)"
    )]
    Write { path: PathBuf, error: io::Error },
    #[error("{path} is damaged ({reason}){}; the start goes on without it", set_aside(aside))]
    Damaged { path: PathBuf, reason: String, aside: Option<PathBuf> },
    #[error(
        "{path} was written by a later version of l4lbd (its format is {version}, this version reads {newest}){}; \
         the start goes on without it. To go back, stop l4lbd, install the later version and rename the file back",
        set_aside(aside)
    )]
    Later { path: PathBuf, version: u32, newest: u32, aside: Option<PathBuf> },
}

/// The files of a state directory.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Reads the addresses that were kept; none where there is no file.
    pub fn leases(&self) -> Result<Persisted, Error> {
        let Some((mut memory, token)) = self.read_with_token::<Persisted>(LEASES)? else {
            return Ok(Persisted::default());
        };
        if let Some(token) = token
            && let Some(changes) = self.read_bytes(CHANGES)?
        {
            let lost = leases::apply_changes(&changes, &token, &Moment::now(), &mut memory);
            self.tell_lost(CHANGES, lost);
        }
        Ok(memory)
    }

    /// Logs what a crash has cut off.
    fn tell_lost(&self, file: &str, lost: usize) {
        if lost > 0 {
            tracing::info!(
                path = %self.directory.join(file).display(),
                lost,
                "the end of a file was not written whole before a crash, and is left out"
            );
        }
    }

    /// Reads the cluster that was kept; `None` where there is no file.
    pub fn cluster(&self) -> Result<Option<Snapshot>, Error> {
        match self.read(REFERENCE) {
            Err(Error::Later { version, .. }) if version == journal::VERSION => self.read_journal(),
            // Of an earlier version, which knows of no journal: one that is there is older.
            Err(Error::Later { path, version, aside, .. }) => {
                Err(Error::Later { path, version, aside, newest: journal::VERSION })
            }
            read => read,
        }
    }

    fn read_journal(&self) -> Result<Option<Snapshot>, Error> {
        let path = self.directory.join(JOURNAL);
        // An earlier start has put a damaged one away.
        let Some(bytes) = self.read_bytes(JOURNAL)? else { return Ok(None) };
        match journal::read(&bytes) {
            Ok(journal::Read { cluster, lost }) => {
                self.tell_lost(JOURNAL, lost);
                Ok(Some(cluster))
            }
            Err(Unreadable::Damaged(reason)) => Err(Error::Damaged { path, reason, aside: None }),
            Err(Unreadable::Later(version)) => {
                Err(Error::Later { path, version, newest: journal::VERSION, aside: None })
            }
        }
    }

    /// Reads the records of the history that were kept, as far as they are whole; none where there is no file.
    pub fn history(&self) -> Result<KeptRecords, Error> {
        let Some(bytes) = self.read_bytes(HISTORY)? else { return Ok(KeptRecords::default()) };
        history::read(&bytes).map_err(|version| Error::Later {
            path: self.directory.join(HISTORY),
            version,
            newest: history::VERSION,
            aside: None,
        })
    }

    /// Appends records to the history, or replaces it by those of `all`, see [`HistoryFile`].
    pub fn append_history(
        &self,
        file: &mut HistoryFile,
        new: &[Vec<u8>],
        all: impl FnOnce() -> Vec<Vec<u8>>,
    ) -> Result<(), Error> {
        let append = || file.append(&Directory::create(&self.directory)?, new, all);
        append().map_err(|error| Error::Write { path: self.directory.join(HISTORY), error })
    }

    /// Replaces the addresses that are kept.
    pub fn save_leases(&self, memory: &Persisted) -> Result<(), Error> {
        self.write_leases(|directory| LeasesFile::default().save(directory, memory)).map(drop)
    }

    /// Writes addresses by one of the steps of [`LeasesFile`].
    fn write_leases(
        &self,
        write: impl FnOnce(&dyn Fn() -> io::Result<Directory>) -> io::Result<bool>,
    ) -> Result<bool, Error> {
        write(&|| Directory::create(&self.directory))
            .map_err(|error| Error::Write { path: self.directory.join(LEASES), error })
    }

    /// Replaces the cluster that is kept.
    pub fn save_cluster(&self, cluster: &Snapshot) -> Result<(), Error> {
        self.write_cluster(&mut Journal::new(None), &Arc::new(cluster.clone())).map(drop)
    }

    /// Writes what has changed of the cluster that is kept. Returns false if nothing has.
    fn write_cluster(&self, journal: &mut Journal, cluster: &Arc<Snapshot>) -> Result<bool, Error> {
        let written = journal
            .save(|| Directory::create(&self.directory), cluster)
            .map_err(|error| Error::Write { path: self.directory.join(JOURNAL), error })?;
        Ok(written != JournalWritten::Nothing)
    }

    /// Reads the deadlines that were kept; none where there is no file.
    pub fn deadlines(&self) -> Result<Deadlines, Error> {
        self.read(DEADLINES).map(Option::unwrap_or_default)
    }

    /// Reads what Marathon's answers have said; `None` where there is no file.
    pub fn marathon(&self) -> Result<Option<MarathonMemory>, Error> {
        self.read(MARATHON)
    }

    /// Replaces the deadlines that are kept.
    pub fn save_deadlines(&self, deadlines: &Deadlines) -> Result<(), Error> {
        self.replace(DEADLINES, deadlines)
    }

    /// Replaces what is kept of Marathon's answers.
    pub fn save_marathon(&self, memory: &MarathonMemory) -> Result<(), Error> {
        self.replace(MARATHON, memory)
    }

    /// Renames a file that cannot be used, so that replacing it does not destroy it. Other errors, and how that went,
    /// are in the error that is returned.
    pub fn set_aside(&self, error: Error) -> Error {
        let (path, kind) = match &error {
            Error::Damaged { path, aside: None, .. } => (path, "damaged"),
            Error::Later { path, aside: None, .. } => (path, "later"),
            _ => return error,
        };
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        // The time in the name keeps what an earlier start set aside.
        let name = format!("{file}.{kind}-{}", Timestamp::now().as_second());
        let renamed = Directory::open(&self.directory).and_then(|directory| directory.rename(&file, &name));
        match (renamed, error) {
            (Ok(()), Error::Damaged { path, reason, .. }) => {
                Error::Damaged { aside: Some(path.with_file_name(name)), path, reason }
            }
            (Ok(()), Error::Later { path, version, newest, .. }) => {
                Error::Later { aside: Some(path.with_file_name(name)), path, version, newest }
            }
            (Err(error), Error::Damaged { path, .. } | Error::Later { path, .. }) => {
                Error::Read { path, error }
            }
            (_, other) => other,
        }
    }

    /// Removes temporary files that killed writers have left. To be called by the only writer.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn remove_leftovers(&self) -> Result<(), Error> {
        let remove = || {
            let directory = match Directory::open(&self.directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                directory => directory?,
            };
            [LEASES, CHANGES, REFERENCE, JOURNAL, DEADLINES, MARATHON, HISTORY]
                .into_iter()
                .try_for_each(|file| directory.remove_leftovers(file))
        };
        remove().map_err(|error| Error::Write { path: self.directory.clone(), error })
    }

    /// Reads a file, with its times as they are on the steady clock of this run.
    fn read<T: DeserializeOwned + Shift>(&self, file: &str) -> Result<Option<T>, Error> {
        Ok(self.read_with_token(file)?.map(|(content, _)| content))
    }

    /// Reads a file as [`Self::read`] does, and the token by which changes refer to it.
    fn read_with_token<T: DeserializeOwned + Shift>(
        &self,
        file: &str,
    ) -> Result<Option<(T, Option<String>)>, Error> {
        let path = self.directory.join(file);
        let Some(bytes) = self.read_bytes(file)? else { return Ok(None) };
        match decode(&bytes) {
            Ok(StoredDocument { mut content, written, journal, .. }) => {
                // Times without a moment are of the system's clock, at which the steady one starts.
                if let Some(written) = written {
                    T::shift(&mut content, written.shift_to(&Moment::now()));
                }
                Ok(Some((content, journal)))
            }
            Err(Unusable::Later(version)) => {
                Err(Error::Later { path, version, newest: VERSION, aside: None })
            }
            Err(Unusable::Damaged(reason)) => Err(Error::Damaged { path, reason, aside: None }),
        }
    }

    /// Reads the bytes of a file; `None` on the first start of a node.
    fn read_bytes(&self, file: &str) -> Result<Option<Vec<u8>>, Error> {
        match Directory::open(&self.directory).and_then(|open| open.read(file, MAX_BYTES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map_err(|error| Error::Read { path: self.directory.join(file), error }),
        }
    }

    /// A reader or a crash sees the old file or the new one.
    fn replace<T: Serialize>(&self, file: &str, content: &T) -> Result<(), Error> {
        let write = || {
            let bytes = encode(None, content)?;
            Directory::create(&self.directory)?.replace(file, &bytes)
        };
        write().map_err(|error| Error::Write { path: self.directory.join(file), error })
    }
}

fn set_aside(aside: &Option<PathBuf>) -> String {
    aside.as_ref().map(|aside| format!(" and was set aside as {}", aside.display())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::cluster::Protocol;
    use crate::mesos;
    use crate::units::steady::steady_now;
    use crate::vip::alloc::AddressRange;
    use crate::vip::{Host, VipKey};

    #[test]
    fn what_is_saved_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(&directory.path().join("new/below"));
        assert_eq!(store.leases().unwrap(), Persisted::default());
        assert_eq!(store.cluster().unwrap(), None);
        let mut memory = Persisted::default();
        memory.leases4.assign(&AddressRange::DCOS_V4, ["web.marathon"], []);
        memory.leases6.assign(&AddressRange::DCOS_V6, ["web.marathon"], []);
        for (host, since) in [
            (Host::Named("web.marathon".to_owned()), None),
            (Host::Literal([10, 0, 0, 1].into()), Some(Timestamp::UNIX_EPOCH)),
        ] {
            memory.vips.insert(VipKey { host, protocol: Protocol::Udp, port: 53 }, since);
        }
        store.save_leases(&memory).unwrap();
        assert_eq!(store.leases().unwrap(), memory);

        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/captures/master_state.json");
        let mut cluster = mesos::parse(&fs::read(path).unwrap(), None).unwrap();
        store.save_cluster(&cluster).unwrap();
        // What a document says of itself alone is not kept.
        cluster.ended.clear();
        cluster.skipped.clear();
        cluster.names = Default::default();
        assert_eq!(store.cluster().unwrap(), Some(cluster));
    }

    /// Puts a file's moment of writing back by `seconds`, in this boot of the kernel or in another.
    fn age(path: &Path, seconds: f64, is_same_boot: bool) {
        let mut document: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let written = document["written"].as_object_mut().unwrap();
        let uptime = written["uptime"].as_f64().unwrap();
        written.insert("uptime".to_owned(), (uptime - seconds).into());
        if !is_same_boot {
            written.insert("boot".to_owned(), "another".into());
        }
        fs::write(path, document.to_string()).unwrap();
    }

    #[test]
    fn deadlines_go_on_with_what_was_left() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let until = steady_now() + Duration::from_secs(60);
        let server = SocketAddr::from(([10, 0, 0, 1], 80));
        let service = ServiceKey { protocol: Protocol::Tcp, address: server.ip(), port: 80 };
        let (task, agent) = ("t".to_owned(), "S".to_owned());
        let drain = KeptDrain { service, server, since: until, until, task, agent };
        let kept = Deadlines { holds: Holds { failover: Some(until), losses: 2 }, drains: vec![drain] };
        let mut vacant = Persisted::default();
        let vip = VipKey { host: Host::Literal(server.ip()), protocol: Protocol::Tcp, port: 80 };
        vacant.vips.insert(vip.clone(), Some(until));
        for (is_same_boot, left) in [(true, 40), (false, 60)] {
            store.save_deadlines(&kept).unwrap();
            store.save_leases(&vacant).unwrap();
            age(&directory.path().join(DEADLINES), 20.0, is_same_boot);
            age(&directory.path().join(LEASES), 20.0, is_same_boot);
            let Deadlines { holds, drains } = store.deadlines().unwrap();
            let times = [
                holds.failover,
                Some(drains[0].until),
                Some(drains[0].since),
                store.leases().unwrap().vips[&vip],
            ];
            for time in times {
                let rest = time.unwrap().duration_since(steady_now()).as_secs_f64();
                assert!((rest - f64::from(left)).abs() < 10.0, "{rest} s instead of {left} s");
            }
            assert_eq!((holds.losses, drains[0].task.as_str()), (2, "t"));
        }
    }

    #[test]
    fn files_of_earlier_versions_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let vacant = r#"{"version":1,"content":{"leases4":{},"leases6":{},"vips":[{"host":{"named":"web.marathon"},
            "protocol":"tcp","port":80,"vacant_since":"2026-11-26T12:00:00Z"}]}}"#;
        fs::write(directory.path().join(LEASES), vacant).unwrap();
        let since = *store.leases().unwrap().vips.values().next().unwrap();
        assert_eq!(since.unwrap().to_string(), "2026-11-26T12:00:00Z");
        assert_eq!((store.deadlines().unwrap(), store.marathon().unwrap()), (Deadlines::default(), None));
    }

    #[test]
    fn a_master_is_recognised_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        for time in ["1736845354.9963357702", "1785211216.1159103536", "0.1"] {
            let document = format!(r#"{{"id":"M","elected_time":{time},"slaves":[],"frameworks":[]}}"#);
            let cluster = mesos::parse(document.as_bytes(), None).unwrap();
            store.save_cluster(&cluster).unwrap();
            assert_eq!(store.cluster().unwrap().unwrap().master, cluster.master);
        }
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        for damage in ["", "{", "[]", r#"{"version":0,"content":{"leases4":{},"leases6":{},"vips":[]}}"#] {
            fs::write(directory.path().join(LEASES), damage).unwrap();
            let error = store.leases().unwrap_err();
            let Error::Damaged { aside: Some(aside), .. } = store.set_aside(error) else {
                panic!("{damage} was accepted")
            };
            assert_eq!(fs::read_to_string(aside).unwrap(), damage);
            assert_eq!(store.leases().unwrap(), Persisted::default());
        }
    }

    #[test]
    fn a_file_of_a_later_version_is_called_that_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let later = r#"{"version":2,"content":["of any shape"]}"#;
        fs::write(directory.path().join(LEASES), later).unwrap();
        let error = store.set_aside(store.leases().unwrap_err());
        let Error::Later { version: 2, aside: Some(aside), .. } = &error else { panic!("{error}") };
        assert_eq!(fs::read_to_string(aside).unwrap(), later);
        assert!(error.to_string().contains("written by a later version of l4lbd"), "{error}");
        assert_eq!(store.leases().unwrap(), Persisted::default());
    }
}
