//! Mounts that this process sees: the cgroup v2 tree and network namespaces.
//!
//! `mountinfo` is parsed here: the crate procfs leaves the escapes of paths in, and fails over a single line.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Returns the directory on which the cgroup v2 tree is mounted, if it is mounted.
pub fn cgroup_tree() -> Option<PathBuf> {
    cgroup_root(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// Finds the cgroup v2 tree in the content of `mountinfo` (see proc(5)): the mount of its root if there
/// is one, or else of a part.
fn cgroup_root(mounts: &str) -> Option<PathBuf> {
    let found = mounts.lines().filter_map(|line| mounted(line, "cgroup2"));
    // Of equal ones this is the last, and a later mount hides an earlier one on the same directory.
    found.max_by_key(|(root, _)| *root == "/").map(|(_, path)| path)
}

/// Returns the mounted directory of the file system, and the mount point, of a line of `mountinfo` that is of
/// this kind of file system.
fn mounted<'l>(line: &'l str, kind: &str) -> Option<(&'l str, PathBuf)> {
    // Any number of optional fields is in front of this dash.
    let (mount, filesystem) = line.split_once(" - ")?;
    (filesystem.split(' ').next()? == kind).then_some(())?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    Some((root, PathBuf::from(OsString::from_vec(unescaped(point)))))
}

/// Lists the network namespaces that are mounted where this process sees them, as `ip netns` and container
/// runtimes do.
pub fn network_namespaces() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter_map(mounted_namespace).collect()
}

/// Returns the mount point in a line of `mountinfo` if a network namespace is mounted there.
fn mounted_namespace(line: &str) -> Option<PathBuf> {
    mounted(line, "nsfs").filter(|(root, _)| root.starts_with("net:[")).map(|(_, point)| point)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

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
    fn mounted_namespaces_are_found_among_other_mounts() {
        let namespace = "71 30 0:4 net:[4026532182] /run/netns/a\\040b rw shared:35 - nsfs nsfs rw";
        assert_eq!(mounted_namespace(namespace), Some(PathBuf::from("/run/netns/a b")));
        for other in [
            "72 30 0:4 mnt:[4026532183] /run/snapd/ns/lxd.mnt rw - nsfs nsfs rw",
            "73 30 0:21 /net:[1] /srv rw shared:1 - tmpfs tmpfs rw",
            "",
        ] {
            assert_eq!(mounted_namespace(other), None, "{other}");
        }
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
