//! Files of a container, which its tenant writes.
//!
//! A path is resolved below the root of the container (`RESOLVE_IN_ROOT` of openat2(2)), so that no link in it
//! leads to a file of the node. Nothing but a regular file is read: a FIFO is opened without waiting and told by its
//! kind. The process is held by a descriptor, so that its number cannot pass to another one meanwhile.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::resolver::Libc;
use crate::dataplane::ebpf::open_process;

/// Octets of a file that is read; a real `resolv.conf` has some hundred.
const MAX_OCTETS: u64 = 64 * 1024;

/// Entries of a directory that are looked at.
const MAX_ENTRIES: usize = 4096;

/// Directories in which the C library's loader is.
const LIBRARIES: [&str; 3] = ["lib", "lib64", "lib/x86_64-linux-gnu"];

/// A process, its root directory, and what is below it.
#[derive(Debug)]
pub struct Container {
    process: OwnedFd,
    root: OwnedFd,
}

impl Container {
    /// Opens the process and its root.
    ///
    /// # Errors
    /// Without such a process, or the right to look into it.
    pub fn open(process: u32) -> Result<Self, String> {
        let failed = |error: io::Error| match error.raw_os_error() {
            Some(libc::ESRCH | libc::ENOENT) => format!("there is no process {process}"),
            Some(libc::EINVAL) => format!("{process} is no process but a thread of one"),
            Some(libc::EACCES | libc::EPERM) => {
                format!("not allowed to look into process {process}: run as root")
            }
            _ => format!("process {process}: {error}"),
        };
        let handle = open_process(process).map_err(failed)?;
        let root = File::open(format!("/proc/{process}/root")).map_err(failed)?;
        // Only then was the root that of the held process: its number cannot have passed to another one before.
        if !is_alive(handle.as_fd()) {
            return Err(format!("process {process} has ended"));
        }
        Ok(Self { process: handle, root: root.into() })
    }

    /// Returns the descriptor that stands for the process.
    pub fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Reads a file below the root.
    ///
    /// # Errors
    /// What it is instead of a regular file of a sensible size.
    pub fn read(&self, path: &str) -> Result<String, String> {
        read_below(self.root.as_fd(), Path::new(path))
    }

    /// Returns the C library of the container, by the loaders that it has.
    pub fn libc(&self) -> Libc {
        libc_below(self.root.as_fd())
    }
}

/// Returns true if the process of a descriptor has not been waited for.
fn is_alive(process: BorrowedFd<'_>) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd()));
    let number =
        |text: String| text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i64>().ok());
    info.ok().and_then(number).is_some_and(|number| number > 0)
}

fn open_below(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<File, Errno> {
    let always = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let how = OpenHow::new()
        .flags(always | flags)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how).map(File::from)
}

/// Reads a regular file of at most [`MAX_OCTETS`].
fn read_below(root: BorrowedFd<'_>, path: &Path) -> Result<String, String> {
    let shown = path.display();
    let file = open_below(root, path, OFlag::empty()).map_err(|error| match error {
        Errno::ENOENT => format!("there is no {shown}"),
        // The kernel's answer for a UNIX socket, which cannot be opened.
        Errno::ENXIO => format!("{shown} is no regular file"),
        error => format!("{shown}: {}", error.desc()),
    })?;
    let metadata = file.metadata().map_err(|error| format!("{shown}: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is no regular file"));
    }
    let mut octets = Vec::new();
    // Its size may change after it was looked at.
    file.take(MAX_OCTETS + 1).read_to_end(&mut octets).map_err(|error| format!("{shown}: {error}"))?;
    if octets.len() as u64 > MAX_OCTETS {
        return Err(format!("{shown} has more than {MAX_OCTETS} octets"));
    }
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

fn libc_below(root: BorrowedFd<'_>) -> Libc {
    let mut found = Libc::Unknown;
    for directory in LIBRARIES {
        let Ok(directory) = open_below(root, Path::new(directory), OFlag::O_DIRECTORY) else { continue };
        // The directory itself, wherever its path may lead by now.
        let Ok(entries) = std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd())) else {
            continue;
        };
        for entry in entries.take(MAX_ENTRIES).filter_map(Result::ok) {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            // A system of glibc may have musl beside it, for programs that are built with it.
            if name.starts_with(b"ld-linux") || name == b"libc.so.6" {
                return Libc::Glibc;
            }
            if name.starts_with(b"ld-musl-") {
                found = Libc::Musl;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    /// Reads `/etc/resolv.conf` of a root with what `prepare` puts there.
    fn read(prepare: impl Fn(&Path)) -> Result<String, String> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        prepare(&root.path().join("etc/resolv.conf"));
        read_below(File::open(root.path()).unwrap().as_fd(), Path::new("/etc/resolv.conf"))
    }

    #[test]
    fn a_regular_file_is_read_and_nothing_else() {
        assert_eq!(
            read(|path| fs::write(path, "nameserver 10.0.0.2\n").unwrap()).unwrap(),
            "nameserver 10.0.0.2\n"
        );
        // Opening a FIFO for reading would wait for its writer, for ever.
        let refused = read(|path| mkfifo(path, Mode::S_IRWXU).unwrap()).unwrap_err();
        assert_eq!(refused, "/etc/resolv.conf is no regular file");
        let refused = read(|path| fs::create_dir(path).unwrap()).unwrap_err();
        assert_eq!(refused, "/etc/resolv.conf is no regular file");
        assert_eq!(read(|_| {}).unwrap_err(), "there is no /etc/resolv.conf");
    }

    #[test]
    fn a_huge_file_is_not_read() {
        let refused = read(|path| File::create(path).unwrap().set_len(1 << 40).unwrap()).unwrap_err();
        assert_eq!(refused, "/etc/resolv.conf has more than 65536 octets");
    }

    #[test]
    fn a_link_leads_to_no_file_of_the_node() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        fs::write(secret.path(), "secret").unwrap();
        let up = format!("../../../../../../../..{}", secret.path().display());
        for target in [secret.path().to_owned(), up.into(), "/proc/self/root/etc/passwd".into()] {
            let refused = read(|path| symlink(&target, path).unwrap()).unwrap_err();
            assert_eq!(refused, "there is no /etc/resolv.conf", "{}", target.display());
        }
        // Within the root it is followed.
        let found = read(|path| {
            fs::write(path.with_file_name("other"), "nameserver 10.0.0.3").unwrap();
            symlink("/etc/other", path).unwrap();
        });
        assert_eq!(found.unwrap(), "nameserver 10.0.0.3");
        let refused = read(|path| symlink("resolv.conf", path).unwrap()).unwrap_err();
        assert!(refused.contains("symbolic links"), "{refused}");
    }

    #[test]
    fn the_library_is_told_by_its_loader() {
        let library = |files: &[&str]| {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("lib")).unwrap();
            files.iter().for_each(|file| fs::write(root.path().join("lib").join(file), "").unwrap());
            libc_below(File::open(root.path()).unwrap().as_fd())
        };
        assert_eq!(library(&["ld-musl-x86_64.so.1", "libz.so"]), Libc::Musl);
        assert_eq!(library(&["ld-musl-x86_64.so.1", "ld-linux-x86-64.so.2"]), Libc::Glibc);
        assert_eq!(library(&[]), Libc::Unknown);
    }

    #[test]
    fn a_process_that_has_ended_is_told() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let number = child.id();
        child.wait().unwrap();
        assert_eq!(Container::open(number).unwrap_err(), format!("there is no process {number}"));
        // This process itself has a root and a library.
        assert!(Container::open(std::process::id()).is_ok());
    }
}
