//! Where things are: the cgroup that the programs are attached to, and the directory of the pins.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::{Error, error};

/// A cgroup, open.
#[derive(Debug)]
pub struct Cgroup {
    pub path: PathBuf,
    pub directory: File,
    /// What the kernel calls it.
    pub id: u64,
}

/// Opens a cgroup; without a path the root of the tree, which is every process of the node.
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

/// Where the cgroup v2 tree is mounted; `None` where it is not.
pub fn cgroup_tree() -> Option<PathBuf> {
    cgroup_root(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// The same from the content of `mountinfo`; the tree's root rather than a part of it.
fn cgroup_root(mounts: &str) -> Option<PathBuf> {
    let found = mounts.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        (filesystem.split(' ').next()? == "cgroup2").then_some(())?;
        let mut fields = mount.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    });
    // Later mounts hide earlier ones at the same place.
    let (_, path) = found.max_by_key(|(root, _)| *root == "/")?;
    Some(PathBuf::from(std::ffi::OsString::from_vec(unescaped(path))))
}

/// The kernel writes spaces and the like as a backslash and three octal digits.
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

/// Makes the directory of the pins, and mounts a BPF file system on its parent if there is none.
pub fn prepare(pins: &Path) -> Result<(), Error> {
    let failed = |source| error::pin(pins, source);
    if !is_bpf(pins).map_err(failed)? {
        let parent = pins.parent().unwrap_or(Path::new("/")).to_owned();
        fs::create_dir_all(&parent).map_err(failed)?;
        // Files of others would be hidden by the mount.
        if fs::read_dir(&parent).map_err(failed)?.next().is_some() {
            return Err(Error::NotBpf { path: pins.to_owned(), parent });
        }
        mount(Some("bpf"), &parent, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(|error| {
            Error::Mount { path: pins.to_owned(), parent: parent.clone(), source: error.into() }
        })?;
    }
    fs::create_dir_all(pins).map_err(failed)
}

/// Whether a path is, or would be, on a BPF file system.
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
    fn finds_the_tree_wherever_it_is_mounted() {
        assert_eq!(cgroup_root(HYBRID).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        let unified = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(cgroup_root(unified).unwrap(), Path::new("/sys/fs/cgroup"));
        let spaced = "29 23 0:26 / /mnt/c\\040d\\134 rw - cgroup2 none rw\n";
        assert_eq!(cgroup_root(spaced).unwrap(), Path::new("/mnt/c d\\"));
    }

    #[test]
    fn prefers_the_root_of_the_tree() {
        let both = "1 0 0:26 / /all rw - cgroup2 none rw\n2 0 0:26 /mesos /part rw - cgroup2 none rw\n";
        assert_eq!(cgroup_root(both).unwrap(), Path::new("/all"));
    }

    #[test]
    fn finds_nothing_where_nothing_is() {
        assert_eq!(cgroup_root(""), None);
        assert_eq!(
            cgroup_root("31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup2 rw\nnonsense - cgroup2\n"),
            None
        );
    }
}
