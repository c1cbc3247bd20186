//! Programs, maps and links in the kernel, and the pins that keep them there.
//!
//! A pinned link goes on balancing while no process of ours runs, with the maps that its program has.
//! The next process finds both by their pins and puts its own program into the link:
//!
//! ```text
//! /sys/fs/bpf/l4lbd/          Options::pins
//!   v1/                       one directory for each layout of the maps
//!     vips slots counts ...   maps
//!     connect4 connect6 ...   links of programs to the cgroup
//! ```

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::Program;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::bpf;
use super::error::{self, Error};
use super::layout::{self, HOOKS, Hook, MAPS};
use super::maps::{self, Maps};
use super::mounts::{self, Cgroup};
use super::object;
use super::options::Options;

/// Loaded programs with their maps, attached to a cgroup and pinned.
#[derive(Debug)]
pub struct Pins {
    pub maps: Maps,
    programs: aya::Ebpf,
    cgroup: Cgroup,
    /// Path of the cgroup as configured. Without one it is the root of the tree, which never changes.
    configured_cgroup: Option<PathBuf>,
    /// Directory for the pins of this layout.
    directory: PathBuf,
    /// Directories of other layouts, whose programs balance until our maps are filled.
    others: Vec<PathBuf>,
}

impl Pins {
    /// Opens what is pinned, and creates, attaches and pins the rest.
    ///
    /// # Errors
    /// Without the capabilities, a cgroup v2 tree or a BPF file system, and if something else is
    /// pinned under our names.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let cgroup = mounts::cgroup(options.cgroup.as_deref())?;
        mounts::prepare(&options.pins)?;
        let directory = options.pins.join(layout::VERSION);
        fs::create_dir_all(&directory).map_err(|source| Error::Pin { path: directory.clone(), source })?;
        // The loader would take any pinned map, so foreign ones are refused before it sees them.
        for map in &MAPS {
            maps::is_pinned(&directory, map)?;
        }
        allow_locked_memory();
        let programs = object::load(&directory)?;
        let maps = Maps::open(&directory)?;
        let mut others =
            directories(&options.pins).map_err(|source| Error::Pin { path: options.pins.clone(), source })?;
        others.retain(|other| *other != directory);
        let configured_cgroup = options.cgroup.clone();
        let pins = Self { maps, programs, cgroup, configured_cgroup, directory, others };
        for hook in &HOOKS {
            pins.attach(hook)?;
        }
        Ok(pins)
    }

    /// Attaches a program again that was detached, and pins it again if its pin was removed. Returns
    /// true if it had to.
    pub fn repair(&self, hook: &Hook) -> Result<bool, Error> {
        match self.pinned(hook)? {
            Some((_, LinkState::OnOurCgroup)) => Ok(false),
            _ => self.attach(hook).map(|()| true),
        }
    }

    /// Opens the configured cgroup again, which may have been removed and created anew.
    pub fn find_cgroup(&mut self) -> Result<(), Error> {
        if self.configured_cgroup.is_some() {
            self.cgroup = mounts::cgroup(self.configured_cgroup.as_deref())?;
        }
        Ok(())
    }

    /// Pins maps again whose pins were removed.
    pub fn repair_maps(&self) -> Result<(), Error> {
        self.maps.repair(&self.directory)
    }

    /// Puts the current program into the hook's pinned link, or into a new one.
    fn attach(&self, hook: &Hook) -> Result<(), Error> {
        let path = self.directory.join(hook.name);
        let pin_failed = |source| Error::Pin { path: path.clone(), source };
        let program = self.program(hook.name)?;
        let old = match self.pinned(hook)? {
            // The usual case of a restart, in which no connection is missed.
            Some((link, LinkState::OnOurCgroup)) => match bpf::replace(link.as_fd(), program) {
                Ok(()) => return Ok(()),
                Err(_) => Some(link),
            },
            Some((link, LinkState::Elsewhere)) => Some(link),
            None => None,
        };
        let link = bpf::attach(program, self.cgroup.directory.as_fd(), hook.number).map_err(|source| {
            let (hook, cgroup) = (hook.name, self.cgroup.path.clone());
            match source.raw_os_error() {
                Some(libc::EPERM) => Error::Exclusive { hook, cgroup, source },
                _ => Error::Attach { hook, cgroup, source },
            }
        })?;
        // Only after the new link is there, so that connections are balanced all the time.
        if let Some(old) = old {
            // This fails if the cgroup of the old link was removed, and then there is nothing to detach.
            let _ = bpf::detach(old.as_fd());
            fs::remove_file(&path).map_err(pin_failed)?;
        }
        bpf::pin(link.as_fd(), &path).map_err(pin_failed)
    }

    /// Opens the pinned link of a hook; `None` if it is not pinned.
    fn pinned(&self, hook: &Hook) -> Result<Option<(OwnedFd, LinkState)>, Error> {
        let path = self.directory.join(hook.name);
        let link = match bpf::get(&path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Pin { path, source }),
        };
        let info = match bpf::link_info(link.as_fd()) {
            Ok(info) if info.kind == bpf::CGROUP_LINK && info.hook == hook.number => info,
            Ok(_) => return Err(Error::Foreign(path)),
            Err(source) => return Err(Error::Pin { path, source }),
        };
        let state = if info.cgroup == self.cgroup.id { LinkState::OnOurCgroup } else { LinkState::Elsewhere };
        Ok(Some((link, state)))
    }

    fn program(&self, name: &str) -> Result<BorrowedFd<'_>, Error> {
        let found = match self.programs.program(name) {
            Some(Program::CgroupSockAddr(program)) => program.fd(),
            Some(Program::CgroupSock(program)) => program.fd(),
            _ => return Err(Error::Load(format!("the compiled eBPF object has no program {name}"))),
        };
        Ok(found.map_err(|error| error::load(&error))?.as_fd())
    }

    /// Detaches the programs of other layouts. The caller has filled our maps.
    pub fn retire_others(&mut self) -> Result<(), Error> {
        while let Some(other) = self.others.last() {
            remove(other)?;
            self.others.pop();
        }
        Ok(())
    }
}

/// State of a pinned link.
enum LinkState {
    OnOurCgroup,
    /// On another cgroup, on one that was removed, or detached.
    Elsewhere,
}

/// Detaches all programs and removes all pins below `root`; succeeds if there are none.
///
/// # Errors
/// `NotBpf` if `root` is a directory on another file system, where nothing is removed.
pub fn purge(root: &Path) -> Result<(), Error> {
    let failed = |source| Error::Pin { path: root.to_owned(), source };
    if !root.try_exists().map_err(failed)? {
        return Ok(());
    }
    // A mistyped path could hold any files.
    if !mounts::is_bpf(root).map_err(failed)? {
        let parent = root.parent().unwrap_or(Path::new("/")).to_owned();
        return Err(Error::NotBpf { path: root.to_owned(), parent });
    }
    for directory in directories(root).map_err(failed)? {
        remove(&directory)?;
    }
    match fs::remove_dir(root) {
        // It stays if it is a mount point (systemd's BindPaths=), is in a directory of another user, or
        // has pins of other programs in it.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EBUSY | libc::EACCES | libc::EROFS | libc::ENOTEMPTY | libc::EPERM)
            ) =>
        {
            Ok(())
        }
        done => done.map_err(failed),
    }
}

/// Lists the directories of layouts; anything else below `root` belongs to other programs.
fn directories(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && is_version(&entry.file_name()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn is_version(name: &OsStr) -> bool {
    let number = name.as_encoded_bytes().strip_prefix(b"v");
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// Detaches and unpins everything in the directory of a layout, and removes it.
fn remove(directory: &Path) -> Result<(), Error> {
    let failed = |source| Error::Pin { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Ok(found) = bpf::get(&path)
            && bpf::link_info(found.as_fd()).is_ok_and(|info| info.kind == bpf::CGROUP_LINK)
        {
            // Otherwise the program stays attached until the kernel frees the link, some time later. This
            // fails if the cgroup was removed, and then there is nothing to detach.
            let _ = bpf::detach(found.as_fd());
        }
        fs::remove_file(&path).map_err(|source| Error::Pin { path, source })?;
    }
    fs::remove_dir(directory).map_err(failed)
}

/// Lifts the limit of locked memory, which kernels before 5.11 count maps as.
fn allow_locked_memory() {
    // If this is refused and the limit matters, creating a map fails and says so.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}
