//! Programs, maps and links in the kernel, and the pins that keep them there.
//!
//! A pinned link goes on balancing while no process of ours runs, with the maps that its program has.
//! This process holds both by descriptors besides, so that VIPs work while the pins are gone or the file
//! system cannot be written. The next process finds both by their pins and puts its own program into the
//! link:
//!
//! ```text
//! /sys/fs/bpf/l4lbd/          Options::pins
//!   v1/                       one directory for each layout of the maps
//!     vips slots counts ...   maps
//!     connect4 connect6 ...   links of programs to the cgroup
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::Program;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::bpf::{self, LinkInfo};
use super::datagrams::ListedDatagrams;
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
    /// Links by the names of their hooks.
    links: BTreeMap<&'static str, OwnedFd>,
    cgroup: Cgroup,
    /// Path of the cgroup as configured. Without one it is the root of the tree, which never changes.
    configured_cgroup: Option<PathBuf>,
    /// Directory for the pins of all layouts.
    root: PathBuf,
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
        let programs = object::load(&directory, options)?;
        let maps = Maps::open(&directory)?;
        let mut others =
            directories(&options.pins).map_err(|source| Error::Pin { path: options.pins.clone(), source })?;
        others.retain(|other| *other != directory);
        let configured_cgroup = options.cgroup.clone();
        let root = options.pins.clone();
        let links = BTreeMap::new();
        let mut pins = Self { maps, programs, links, cgroup, configured_cgroup, root, directory, others };
        for hook in &HOOKS {
            pins.take_over(hook)?;
        }
        for unused in layout::UNUSED {
            // No program has them any more. One that stays pinned costs memory until the next boot.
            let _ = fs::remove_file(pins.directory.join(unused));
        }
        Ok(pins)
    }

    /// Lists connected UDP sockets whose server takes nothing new.
    ///
    /// # Errors
    /// If the kernel cannot list them.
    pub fn datagrams(&mut self) -> Result<ListedDatagrams<'_>, Error> {
        match self.programs.program_mut(layout::LIST_DATAGRAMS) {
            Some(Program::Iter(program)) => ListedDatagrams::list(program, &self.maps),
            _ => Err(no_program(layout::LIST_DATAGRAMS)),
        }
    }

    /// Attaches a program again that was detached. Returns true if it had to.
    pub fn repair(&mut self, hook: &Hook) -> Result<bool, Error> {
        let held = self.links.get(hook.name).and_then(|link| bpf::link_info(link.as_fd()).ok());
        // The kernel tells 0 of a link that was detached, or whose cgroup was removed.
        if held.is_some_and(|info| info.cgroup == self.cgroup.id) {
            return Ok(false);
        }
        let link = self.attach(hook)?;
        self.links.insert(hook.name, link);
        Ok(true)
    }

    /// Pins maps and links again whose pins were removed. Returns the names of these links.
    ///
    /// # Errors
    /// If the directory of the pins cannot be used, and `Foreign` if something else is pinned under our
    /// names. Programs and maps work as long as this process runs.
    pub fn pin_again(&self) -> Result<Vec<&'static str>, Error> {
        mounts::prepare(&self.root)?;
        fs::create_dir_all(&self.directory)
            .map_err(|source| Error::Pin { path: self.directory.clone(), source })?;
        self.maps.repair(&self.directory)?;
        let mut pinned = Vec::new();
        for hook in &HOOKS {
            if self.pin(hook)? {
                pinned.push(hook.name);
            }
        }
        Ok(pinned)
    }

    /// Opens the configured cgroup again, which may have been removed and created anew.
    pub fn find_cgroup(&mut self) -> Result<(), Error> {
        if self.configured_cgroup.is_some() {
            self.cgroup = mounts::cgroup(self.configured_cgroup.as_deref())?;
        }
        Ok(())
    }

    /// Puts the current program into the hook's pinned link, or into a new one.
    fn take_over(&mut self, hook: &Hook) -> Result<(), Error> {
        // The usual case of a restart, in which no connection is missed.
        if let Some((link, info)) = self.pinned(hook)?
            && info.cgroup == self.cgroup.id
            && bpf::replace(link.as_fd(), self.program(hook.name)?).is_ok()
        {
            self.links.insert(hook.name, link);
            return Ok(());
        }
        let link = self.attach(hook)?;
        self.links.insert(hook.name, link);
        self.pin(hook).map(drop)
    }

    /// Attaches the current program to the cgroup.
    fn attach(&self, hook: &Hook) -> Result<OwnedFd, Error> {
        let program = self.program(hook.name)?;
        bpf::attach(program, self.cgroup.directory.as_fd(), hook.number).map_err(|source| {
            let (hook, cgroup) = (hook.name, self.cgroup.path.clone());
            match source.raw_os_error() {
                Some(libc::EPERM) => Error::Exclusive { hook, cgroup, source },
                _ => Error::Attach { hook, cgroup, source },
            }
        })
    }

    /// Pins the hook's link, in place of any other one. Returns false if it is pinned already.
    fn pin(&self, hook: &Hook) -> Result<bool, Error> {
        let path = self.directory.join(hook.name);
        let failed = |source| Error::Pin { path: path.clone(), source };
        let Some(link) = self.links.get(hook.name) else { return Ok(false) };
        let ours = bpf::link_info(link.as_fd()).map_err(failed)?;
        if let Some((other, info)) = self.pinned(hook)? {
            if info.id == ours.id {
                return Ok(false);
            }
            // Our link is there already, so connections are balanced all the time. This fails if the cgroup
            // of the other link was removed, and then there is nothing to detach.
            let _ = bpf::detach(other.as_fd());
            fs::remove_file(&path).map_err(failed)?;
        }
        bpf::pin(link.as_fd(), &path).map_err(failed)?;
        Ok(true)
    }

    /// Opens the pinned link of a hook; `None` if it is not pinned.
    fn pinned(&self, hook: &Hook) -> Result<Option<(OwnedFd, LinkInfo)>, Error> {
        let path = self.directory.join(hook.name);
        let link = match bpf::get(&path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Pin { path, source }),
        };
        match bpf::link_info(link.as_fd()) {
            Ok(info) if info.kind == bpf::CGROUP_LINK && info.hook == hook.number => Ok(Some((link, info))),
            Ok(_) => Err(Error::Foreign(path)),
            Err(source) => Err(Error::Pin { path, source }),
        }
    }

    fn program(&self, name: &str) -> Result<BorrowedFd<'_>, Error> {
        let found = match self.programs.program(name) {
            Some(Program::CgroupSockAddr(program)) => program.fd(),
            Some(Program::CgroupSock(program)) => program.fd(),
            Some(Program::SockOps(program)) => program.fd(),
            _ => return Err(no_program(name)),
        };
        Ok(found.map_err(|error| error::load(&error))?.as_fd())
    }

    /// Detaches the programs of other layouts. The caller has filled our maps.
    pub fn retire_others(&mut self) -> Result<(), Error> {
        while let Some(other) = self.others.last() {
            // It stays in the list until it is gone, so that a failure is followed by another attempt.
            remove(other)?;
            self.others.pop();
        }
        Ok(())
    }
}

fn no_program(name: &str) -> Error {
    Error::Load(format!("the compiled eBPF object has no program {name}"))
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
    let entries = match fs::read_dir(directory) {
        // Another program removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
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
