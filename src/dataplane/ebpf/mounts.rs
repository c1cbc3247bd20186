//! The cgroup that the programs attach to, and the directory for the pins.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use sha1::{Digest, Sha1};

use super::error::{self, Error};
use super::mountinfo;
use crate::dataplane::lock::Part;

/// Open directory of a cgroup.
#[derive(Debug)]
pub struct Cgroup {
    pub path: PathBuf,
    pub directory: File,
    /// Inode number, which identifies the cgroup in [`super::bpf::LinkInfo`].
    pub id: u64,
}

impl Cgroup {
    /// The cgroup as a part of the kernel that one daemon alone can have.
    pub fn part(&self) -> Part {
        Part { name: format!("ebpf-{}", self.id), what: format!("the control group {}", self.path.display()) }
    }
}

/// A directory of pins as a part of the kernel that one daemon alone can have.
///
/// # Errors
/// If it does not exist, or this process may not look for it.
pub fn part(pins: &Path) -> Result<Part, Error> {
    let failed = |source| error::pin(pins, source);
    let path = fs::canonicalize(pins).map_err(failed)?;
    // Another mount namespace may have another file system there. The directory itself has no lasting number:
    // it can be removed and made anew.
    let device = fs::metadata(&path).map_err(failed)?.dev();
    let digest = Sha1::digest(path.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Part {
        name: format!("pins-{device}-{name}"),
        what: format!("the programs pinned in {}", pins.display()),
    })
}

/// Opens a cgroup; without a path the root of the tree, which has every process of the node.
///
/// # Errors
/// If there is no cgroup v2 tree, or `path` is not in one or cannot be opened.
pub fn cgroup(path: Option<&Path>) -> Result<Cgroup, Error> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => mountinfo::cgroup_tree().ok_or(Error::NoCgroup)?,
    };
    let failed = |source| Error::Cgroup { path: path.clone(), source };
    let directory = File::open(&path).map_err(failed)?;
    if statfs(&path).map_err(|error| failed(error.into()))?.filesystem_type() != CGROUP2_SUPER_MAGIC {
        return Err(Error::CgroupVersion(path));
    }
    let id = directory.metadata().map_err(failed)?.ino();
    Ok(Cgroup { path, directory, id })
}

/// Creates the directory for the pins, after mounting a BPF file system on its parent if there is none.
///
/// # Errors
/// If there is no BPF file system and the parent has files in it, which the mount would hide; if it
/// cannot be mounted, or the directory cannot be created.
pub fn prepare(pins: &Path) -> Result<(), Error> {
    let failed = |source| error::pin(pins, source);
    if !is_bpf(pins).map_err(failed)? {
        let parent = pins.parent().unwrap_or(Path::new("/")).to_owned();
        fs::create_dir_all(&parent).map_err(failed)?;
        if fs::read_dir(&parent).map_err(failed)?.next().is_some() {
            return Err(Error::NotBpf { path: pins.to_owned(), parent });
        }
        // Closed to other users: a process that can open the maps decides where connections go.
        mount(Some("bpf"), &parent, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(|error| {
            Error::Mount { path: pins.to_owned(), parent: parent.clone(), source: error.into() }
        })?;
    }
    fs::create_dir_all(pins).map_err(failed)
}

/// Returns true if a path is on a BPF file system, or would be once it is created.
pub fn is_bpf(path: &Path) -> io::Result<bool> {
    for ancestor in path.ancestors() {
        match statfs(ancestor) {
            Ok(found) => return Ok(found.filesystem_type() == BPF_FS_MAGIC),
            Err(nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}
