//! Locks on the parts of a kernel that only one daemon can have: two that program the same part undo each
//! other's work, and each believes that all is well.
//!
//! What belongs here: the lock files. A lock is named after what it is for, such as a network namespace or a
//! control group, so that it holds whatever sockets, state directories and configuration files the daemons
//! have. It lies in a directory that only its owner writes, in a file that only its owner opens: any
//! process could hold a lock on the namespace or the control group itself. The kernel releases it when the process ends,
//! however it does.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::geteuid;

/// Directory of the locks. It does not depend on the configuration: two daemons with two configurations have
/// one kernel.
pub const DIRECTORY: &str = "/run/l4lbd";

/// File whose inode number is that of the network namespace.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Mode of the directory where it is created.
const DIRECTORY_MODE: u32 = 0o755;

/// Mode of the files: who may open one may lock it.
const FILE_MODE: u32 = 0o600;

/// Write permission of all but the owner.
const OTHERS_WRITE: u32 = 0o022;

/// Bytes of a file that are read: a number and the end of its line.
const MAX_NUMBER: u64 = 16;

/// Attempts to lock a file that is removed meanwhile, as a daemon does when it ends.
const ATTEMPTS: u32 = 10;

/// Failure to take a lock.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "another l4lbd{} uses {what}, and two would undo each other's changes; stop that one first \
         (systemctl stop l4lbd){}",
        process(.holder, " (process ", ")"),
        process(.holder, ", or end it with: kill ", "")
    )]
    Held { what: String, holder: Option<u32> },
    #[error(
        "cannot use {path}, where l4lbd notes what part of the kernel it uses: {error}. It must be a directory that \
         this user can write and others cannot (systemd: RuntimeDirectory=l4lbd; else as root: install -d -m 0755 \
         -o USER {path})"
    )]
    Directory { path: PathBuf, error: io::Error },
    #[error("cannot read which network namespace this is, from {NAMESPACE}: {0}")]
    Namespace(io::Error),
}

fn process(holder: &Option<u32>, before: &str, after: &str) -> String {
    holder.map(|pid| format!("{before}{pid}{after}")).unwrap_or_default()
}

/// Part of a kernel that one daemon can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Name of the file, which is the same for the same part.
    pub name: String,
    /// Text for people, which follows "uses".
    pub what: String,
}

impl Part {
    /// IPVS of this thread's network namespace.
    ///
    /// # Errors
    /// Without a `/proc`.
    pub fn ipvs() -> Result<Self, Error> {
        let namespace = namespace()?;
        Ok(Self { name: format!("ipvs-{namespace}"), what: "IPVS of this network namespace".to_owned() })
    }

    /// A link of this thread's network namespace, with its addresses and routes.
    ///
    /// # Errors
    /// Without a `/proc`.
    pub fn link(name: &str) -> Result<Self, Error> {
        let namespace = namespace()?;
        Ok(Self {
            name: format!("link-{namespace}-{name}"),
            what: format!("the link {name} of this network namespace"),
        })
    }
}

/// Number of this thread's network namespace, which no other one has as long as it exists.
fn namespace() -> Result<u64, Error> {
    fs::metadata(NAMESPACE).map(|metadata| metadata.ino()).map_err(Error::Namespace)
}

/// A lock that is held until this is dropped, or the process ends.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: Flock<File>,
}

impl Lock {
    /// Takes the lock of a part, in [`DIRECTORY`].
    ///
    /// # Errors
    /// When another process has it, or the directory cannot be used.
    pub fn take(part: &Part) -> Result<Self, Error> {
        Self::take_in(Path::new(DIRECTORY), part)
    }

    fn take_in(directory: &Path, part: &Part) -> Result<Self, Error> {
        let failed = |error| Error::Directory { path: directory.to_owned(), error };
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed)?;
        // No link is followed, which could lead to a directory of another user's choice.
        let owner = fs::symlink_metadata(directory).map_err(failed)?;
        if !owner.is_dir() {
            return Err(failed(io::Error::other("it is not a directory")));
        }
        // A process that can write here could remove a lock file, and a second daemon would lock a new one.
        if owner.mode() & OTHERS_WRITE != 0 {
            return Err(failed(io::Error::other("others than its owner can write it")));
        }
        let path = directory.join(format!("lock-{}", part.name));
        for _ in 0..ATTEMPTS {
            let file = open(&path, &owner).map_err(failed)?;
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((file, Errno::EWOULDBLOCK)) => {
                    return Err(Error::Held { what: part.what.clone(), holder: holder(file) });
                }
                Err((_, error)) => return Err(failed(error.into())),
            };
            // The holder before may have removed the file between the two calls: no other process would find
            // this lock.
            if is_at(&file, &path) {
                // For the error of the next one; the lock holds without it.
                if let Err(error) = sign(&mut file) {
                    tracing::debug!(%error, path = %path.display(), "cannot note the process in its lock");
                }
                return Ok(Self { path, file });
            }
        }
        Err(failed(io::Error::other("its files are removed all the time")))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Network namespaces come and go, and each would leave a file. The lock is released behind this.
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a lock file, and creates it where it is missing. If root does, it belongs to the owner of the
/// directory, who needs it at the next start.
fn open(path: &Path, owner: &fs::Metadata) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).custom_flags(flags.bits());
    let file = options.open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other(format!("{} is not a regular file", path.display())));
    }
    if geteuid().is_root() && found.nlink() == 1 {
        file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(file)
}

/// True if the open file is the one at the path.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let there = fs::symlink_metadata(path).map(identity);
    matches!((file.metadata().map(identity), there), (Ok(ours), Ok(there)) if ours == there)
}

/// Writes the number of this process into the file. One with a second name may be any file of the node, which a
/// user of the directory has put there.
fn sign(file: &mut File) -> io::Result<()> {
    if file.metadata()?.nlink() != 1 {
        return Ok(());
    }
    // A longer number of an earlier holder would leave digits behind.
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

/// Reads the number of the process that has the lock on the file, if it is there.
fn holder(file: File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_NUMBER).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str) -> Part {
        Part { name: name.to_owned(), what: format!("the part {name}") }
    }

    #[test]
    fn take_refuses_what_another_has_and_names_it() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("locks");
        let first = Lock::take_in(&directory, &part("ipvs-1")).unwrap();
        let refused = Lock::take_in(&directory, &part("ipvs-1")).unwrap_err().to_string();
        let pid = std::process::id();
        let start = format!("another l4lbd (process {pid}) uses the part ipvs-1, and ");
        assert!(refused.starts_with(&start) && refused.ends_with(&format!("kill {pid}")), "{refused}");
        // Another part is free meanwhile.
        drop(Lock::take_in(&directory, &part("ipvs-2")).unwrap());
        drop(first);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        Lock::take_in(&directory, &part("ipvs-1")).unwrap();
    }

    #[test]
    fn take_does_not_trust_a_file_that_was_left_or_removed() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("locks");
        fs::create_dir(&directory).unwrap();
        // A process that was killed leaves its file, without a lock on it.
        fs::write(directory.join("lock-a"), "").unwrap();
        let first = Lock::take_in(&directory, &part("a")).unwrap();
        // With its file gone, the first must not remove that of the second.
        fs::remove_file(directory.join("lock-a")).unwrap();
        let second = Lock::take_in(&directory, &part("a")).unwrap();
        drop(first);
        assert!(matches!(Lock::take_in(&directory, &part("a")), Err(Error::Held { .. })));
        drop(second);
    }

    #[test]
    fn take_refuses_a_place_that_others_can_write_or_that_leads_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("locks");
        let refusal = || Lock::take_in(&directory, &part("a")).unwrap_err().to_string();
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(refusal().contains("others than its owner can write it"), "{}", refusal());
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o750)).unwrap();
        std::os::unix::fs::symlink("elsewhere", directory.join("lock-a")).unwrap();
        assert!(refusal().contains("symbolic link"), "{}", refusal());
        assert!(!directory.join("elsewhere").exists());
        fs::remove_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink(root.path(), &directory).unwrap();
        assert!(refusal().contains("not a directory"), "{}", refusal());
    }

    #[test]
    fn take_writes_into_no_file_that_has_another_name() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("locks");
        fs::create_dir(&directory).unwrap();
        let precious = root.path().join("precious");
        fs::write(&precious, "content").unwrap();
        fs::hard_link(&precious, directory.join("lock-a")).unwrap();
        let _lock = Lock::take_in(&directory, &part("a")).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "content");
        let refused = Lock::take_in(&directory, &part("a")).unwrap_err().to_string();
        assert!(refused.starts_with("another l4lbd uses the part a"), "{refused}");
    }
}
