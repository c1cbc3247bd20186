//! Programs, maps and links in the kernel, and the files that keep them there.
//!
//! A link that is pinned goes on balancing while no process of ours is there, with the maps that its
//! program has. The next process finds both by their pins, and puts its own program into the link.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::EbpfLoader;
use aya::programs::{CgroupSock, CgroupSockAddr, Program};

use super::bpf::{self, Map};
use super::layout::{self, HOOKS, Hook, MAPS, MapLayout};
use super::mounts::{self, Cgroup};
use super::{Error, Options, error};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/l4lbd.bpf.o"));

/// `BPF_LINK_TYPE_CGROUP`.
const CGROUP_LINK: u32 = 3;

/// The maps that the programs work with.
#[derive(Debug)]
pub struct Maps {
    pub vips: Map,
    pub slots: Map,
    pub counts: Map,
    pub networks: Map,
    pub sockets: Map,
    pub datagrams: Map,
}

impl Maps {
    /// Those that are pinned below `root`; `None` where there are none, or not all.
    pub fn look(root: &Path) -> Result<Option<Self>, Error> {
        let directory = root.join(layout::VERSION);
        for map in &MAPS {
            if !check_map(&directory.join(map.name), map)? {
                return Ok(None);
            }
        }
        Self::open(&directory).map(Some)
    }

    fn open(directory: &Path) -> Result<Self, Error> {
        let open = |map: &MapLayout| {
            let path = directory.join(map.name);
            bpf::get(&path).and_then(Map::new).map_err(|source| Error::Pin { path, source })
        };
        Ok(Self {
            vips: open(&layout::VIPS)?,
            slots: open(&layout::SLOTS_MAP)?,
            counts: open(&layout::COUNTS)?,
            networks: open(&layout::NETWORKS)?,
            sockets: open(&layout::SOCKETS)?,
            datagrams: open(&layout::DATAGRAMS)?,
        })
    }
}

/// What is loaded, attached and pinned.
#[derive(Debug)]
pub struct Pins {
    pub maps: Maps,
    programs: aya::Ebpf,
    cgroup: Cgroup,
    /// Where that is said to be; without it, it is the root of the tree, which stays.
    place: Option<PathBuf>,
    /// Of all layouts.
    root: PathBuf,
    /// Of this one.
    directory: PathBuf,
    /// Directories of other layouts, whose programs work until ours know as much.
    others: Vec<PathBuf>,
}

impl Pins {
    pub fn open(options: &Options) -> Result<Self, Error> {
        let cgroup = mounts::cgroup(options.cgroup.as_deref())?;
        mounts::prepare(&options.pins)?;
        let directory = options.pins.join(layout::VERSION);
        fs::create_dir_all(&directory).map_err(|source| Error::Pin { path: directory.clone(), source })?;
        for map in &MAPS {
            check_map(&directory.join(map.name), map)?;
        }
        allow_locked_memory();
        // Kernels below 5.18 have no bpf_set_retval, and what else is wrong is wrong without it, too.
        let programs = load(&directory, true).or_else(|_| load(&directory, false))?;
        let mut pins = Self {
            maps: Maps::open(&directory)?,
            programs,
            cgroup,
            place: options.cgroup.clone(),
            root: options.pins.clone(),
            directory,
            others: Vec::new(),
        };
        pins.others =
            directories(&pins.root).map_err(|source| Error::Pin { path: pins.root.clone(), source })?;
        pins.others.retain(|other| *other != pins.directory);
        for hook in &HOOKS {
            pins.attach(hook)?;
        }
        Ok(pins)
    }

    /// Attaches again what was detached, and pins again what is not; returns whether anything was.
    pub fn repair(&self, hook: &Hook) -> Result<bool, Error> {
        match self.pinned(hook)? {
            Some((_, State::Ours)) => Ok(false),
            _ => self.attach(hook).map(|()| true),
        }
    }

    /// Finds the configured cgroup again, which may have been removed and made anew.
    pub fn find_cgroup(&mut self) -> Result<(), Error> {
        if self.place.is_some() {
            self.cgroup = mounts::cgroup(self.place.as_deref())?;
        }
        Ok(())
    }

    /// Pins the maps again whose pins were removed.
    pub fn check_maps(&self) -> Result<(), Error> {
        let Maps { vips, slots, counts, networks, sockets, datagrams } = &self.maps;
        let used = [vips, slots, counts, networks, sockets, datagrams];
        for (map, layout) in used.into_iter().zip(&MAPS) {
            let path = self.directory.join(layout.name);
            let pinned = match bpf::get(&path) {
                Ok(fd) => {
                    bpf::map_info(fd.as_fd()).map_err(|source| Error::Pin { path: path.clone(), source })?
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    bpf::pin(map.as_fd(), &path)
                        .map_err(|source| Error::Pin { path: path.clone(), source })?;
                    continue;
                }
                Err(source) => return Err(Error::Pin { path, source }),
            };
            if pinned != *map.info() {
                return Err(Error::Foreign(path));
            }
        }
        Ok(())
    }

    /// Has the current program in a pinned link on the cgroup.
    fn attach(&self, hook: &Hook) -> Result<(), Error> {
        let path = self.directory.join(hook.name);
        let pin_failed = |source| Error::Pin { path: path.clone(), source };
        let program = self.program(hook.name)?;
        let old = match self.pinned(hook)? {
            Some((link, State::Ours)) => match bpf::replace(link.as_fd(), program) {
                Ok(()) => return Ok(()),
                Err(_) => Some(link),
            },
            Some((link, State::Elsewhere)) => Some(link),
            None => None,
        };
        let link = bpf::attach(program, self.cgroup.directory.as_fd(), hook.number).map_err(|source| {
            let (hook, cgroup) = (hook.name, self.cgroup.path.clone());
            match source.raw_os_error() {
                Some(libc::EPERM) => Error::Exclusive { hook, cgroup, source },
                _ => Error::Attach { hook, cgroup, source },
            }
        })?;
        if let Some(old) = old {
            // It may be on a cgroup that is configured no more; on one that is removed there is nothing to detach.
            let _ = bpf::detach(old.as_fd());
            fs::remove_file(&path).map_err(pin_failed)?;
        }
        bpf::pin(link.as_fd(), &path).map_err(pin_failed)
    }

    /// The link of a hook, and where it is attached; `None` without a pin.
    fn pinned(&self, hook: &Hook) -> Result<Option<(OwnedFd, State)>, Error> {
        let path = self.directory.join(hook.name);
        let link = match bpf::get(&path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Pin { path, source }),
        };
        let info = match bpf::link_info(link.as_fd()) {
            Ok(info) if info.kind == CGROUP_LINK && info.hook == hook.number => info,
            Ok(_) => return Err(Error::Foreign(path)),
            Err(source) => return Err(Error::Pin { path, source }),
        };
        let state = if info.cgroup == self.cgroup.id { State::Ours } else { State::Elsewhere };
        Ok(Some((link, state)))
    }

    fn program(&self, name: &str) -> Result<BorrowedFd<'_>, Error> {
        let found = match self.programs.program(name) {
            Some(Program::CgroupSockAddr(program)) => program.fd(),
            Some(Program::CgroupSock(program)) => program.fd(),
            _ => return Err(Error::Load(format!("the object has no program {name}"))),
        };
        Ok(found.map_err(|error| error::load(&error))?.as_fd())
    }

    /// Ends the work of other layouts' programs, once ours know what they knew.
    pub fn retire_others(&mut self) -> Result<(), Error> {
        while let Some(other) = self.others.last() {
            remove(other)?;
            self.others.pop();
        }
        Ok(())
    }
}

/// Of a pinned link.
enum State {
    /// On our cgroup.
    Ours,
    /// On none, or on another.
    Elsewhere,
}

/// Detaches and removes everything below `root`.
pub fn purge(root: &Path) -> Result<(), Error> {
    let failed = |source| Error::Pin { path: root.to_owned(), source };
    if !root.try_exists().map_err(failed)? {
        return Ok(());
    }
    // Anything may be below a wrong path.
    if !mounts::is_bpf(root).map_err(failed)? {
        let parent = root.parent().unwrap_or(Path::new("/")).to_owned();
        return Err(Error::NotBpf { path: root.to_owned(), parent });
    }
    for directory in directories(root).map_err(failed)? {
        remove(&directory)?;
    }
    match fs::remove_dir(root) {
        // A service is given its directory, by a mount or in one that is not its own; and others may use it, too.
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

/// The directories of layouts; what else is there is somebody else's.
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

/// Detaches and unpins what is in a layout's directory, and removes it.
fn remove(directory: &Path) -> Result<(), Error> {
    let failed = |source| Error::Pin { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Ok(found) = bpf::get(&path)
            && bpf::link_info(found.as_fd()).is_ok_and(|info| info.kind == CGROUP_LINK)
        {
            // Without this it would be attached until the kernel comes to it. One without a cgroup is detached.
            let _ = bpf::detach(found.as_fd());
        }
        fs::remove_file(&path).map_err(|source| Error::Pin { path, source })?;
    }
    fs::remove_dir(directory).map_err(failed)
}

/// Whether there is a pin, which has to be such a map.
fn check_map(path: &Path, map: &MapLayout) -> Result<bool, Error> {
    let failed = |source| Error::Pin { path: path.to_owned(), source };
    match bpf::get(path) {
        Ok(fd) if map.describes(&bpf::map_info(fd.as_fd()).map_err(failed)?) => Ok(true),
        Ok(_) => Err(Error::Foreign(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error::permission()),
        Err(source) => Err(failed(source)),
    }
}

/// Loads the programs with the maps that are pinned in `directory`, and pins those that are not.
fn load(directory: &Path, set_retval: bool) -> Result<aya::Ebpf, Error> {
    let flag = u32::from(set_retval);
    let mut loader = EbpfLoader::new();
    // Nothing in the program depends on the kernel's types, and reading them takes a while.
    loader.btf(None).override_global("has_set_retval", &flag, true);
    for map in &MAPS {
        loader.map_pin_path(map.name, directory.join(map.name));
    }
    let mut programs = loader.load(OBJECT).map_err(|error| error::load(&error))?;
    for (_, program) in programs.programs_mut() {
        let loaded = match program {
            Program::CgroupSockAddr(program) => CgroupSockAddr::load(program),
            Program::CgroupSock(program) => CgroupSock::load(program),
            _ => continue,
        };
        loaded.map_err(|error| error::load(&error))?;
    }
    Ok(programs)
}

/// Kernels below 5.11 count maps as locked memory, of which a process may have little.
fn allow_locked_memory() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    // Where it is refused and matters, the kernel refuses the map.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}
