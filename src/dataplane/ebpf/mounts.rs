//! The cgroup that the programs attach to, and the directory for the pins.
//!
//! `mountinfo` is parsed here: the crate procfs leaves the escapes of paths in, and fails over a single line.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use sha1::{Digest, Sha1};

use super::error::{self, Error};
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
        None => cgroup_tree().ok_or(Error::NoCgroup)?,
    };
    let failed = |source| Error::Cgroup { path: path.clone(), source };
    let directory = File::open(&path).map_err(failed)?;
    if statfs(&path).map_err(|error| failed(error.into()))?.filesystem_type() != CGROUP2_SUPER_MAGIC {
        return Err(Error::CgroupVersion(path));
    }
    let id = directory.metadata().map_err(failed)?.ino();
    Ok(Cgroup { path, directory, id })
}

/// Returns the directory on which the cgroup v2 tree is mounted, if it is mounted.
pub fn cgroup_tree() -> Option<PathBuf> {
    cgroup_root(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// Finds the cgroup v2 tree in the content of `mountinfo` (see proc(5)): the mount of its root if there
/// is one, or else of a part.
fn cgroup_root(mounts: &str) -> Option<PathBuf> {
    let found = mounts.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        (filesystem.split(' ').next()? == "cgroup2").then_some(())?;
        // Fields 4 and 5 are the mounted directory of the file system and the mount point.
        let mut fields = mount.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    });
    // Of equal ones this is the last, and a later mount hides an earlier one on the same directory.
    let (_, path) = found.max_by_key(|(root, _)| *root == "/")?;
    Some(PathBuf::from(std::ffi::OsString::from_vec(unescaped(path))))
}

/// Decodes a path of `mountinfo`, in which `\040` stands for a space and so on.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let octal = others.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = others.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    bytes
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

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
40 30 0:36 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 30 0:37 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
";

    #[test]
    fn cgroup_root_is_found_wherever_it_is_mounted() {
        assert_eq!(cgroup_root(HYBRID).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        let unified = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(cgroup_root(unified).unwrap(), Path::new("/sys/fs/cgroup"));
        let spaced = "29 23 0:26 / /mnt/c\\040d\\134 rw - cgroup2 none rw\n";
        assert_eq!(cgroup_root(spaced).unwrap(), Path::new("/mnt/c d\\"));
    }

    #[test]
    fn cgroup_root_prefers_the_root_to_a_part() {
        let both = "1 0 0:26 / /all rw - cgroup2 none rw\n2 0 0:26 /mesos /part rw - cgroup2 none rw\n";
        assert_eq!(cgroup_root(both).unwrap(), Path::new("/all"));
    }

    #[test]
    fn cgroup_root_is_none_without_a_tree() {
        assert_eq!(cgroup_root(""), None);
        assert_eq!(
            cgroup_root("31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup2 rw\nnonsense - cgroup2\n"),
            None
        );
    }
}
