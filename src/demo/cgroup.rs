//! The demonstration's own control group, which the eBPF data plane is attached to: no other process is affected.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::error::Error;
use crate::dataplane::ebpf::cgroup_tree;

/// Longest wait for killed processes to leave the group.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two attempts to remove the group.
const PAUSE: Duration = Duration::from_millis(20);

/// A directory of the cgroup2 file system, and the process that removes it even if this one is killed.
#[derive(Debug)]
pub struct PrivateCgroup {
    pub path: PathBuf,
    sweeper: Child,
}

impl PrivateCgroup {
    /// Creates a group below this process' own, or at the top where that is not possible. `None` on hosts without
    /// cgroup2. `sweeper` makes the command that removes a group once its standard input has ended.
    ///
    /// # Errors
    /// When the group cannot be created, or the sweeper not started.
    pub fn create(sweeper: impl FnOnce(&Path) -> Command) -> io::Result<Option<Self>> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let Some(top) = cgroup_tree() else { return Ok(None) };
        // Process ids are not unique: there may be demonstrations in other PID namespaces, or remains of earlier ones.
        let name = format!("l4lbd-demo-{:08x}", rand::random::<u32>());
        let below = own_path(&own).map(|own| top.join(own).join(&name));
        let path = match below.filter(|path| create(path).is_ok()) {
            Some(path) => path,
            None => {
                let path = top.join(&name);
                create(&path)?;
                path
            }
        };
        // The pipe to the sweeper closes with this process, however that ends.
        match sweeper(&path).stdin(Stdio::piped()).spawn() {
            Ok(sweeper) => Ok(Some(Self { path, sweeper })),
            Err(error) => {
                fs::remove_dir(&path)?;
                Err(error)
            }
        }
    }

    /// Removes the group, and returns when it is gone.
    ///
    /// # Errors
    /// When it could not be removed.
    pub fn remove(mut self) -> Result<(), Error> {
        drop(self.sweeper.stdin.take());
        // Only the sweeper can tell: this process is in the sandbox, which has its own /sys.
        let reason = match self.sweeper.wait() {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => format!("the process that removes it ended with {status}"),
            Err(error) => error.to_string(),
        };
        Err(Error::CgroupLeft { path: self.path, reason })
    }
}

/// Waits for the end of standard input, then kills the processes in the group and removes it.
///
/// # Errors
/// When the group cannot be removed.
pub fn sweep(cgroup: &Path) -> io::Result<()> {
    io::stdin().read_to_end(&mut Vec::new())?;
    let deadline = Instant::now() + REMOVAL_TIMEOUT;
    loop {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() != io::ErrorKind::NotFound && Instant::now() < deadline => {
                // Kernels older than 5.14 lack this file; the processes end with their parent anyway.
                let _ = fs::write(cgroup.join("cgroup.kill"), "1");
                std::thread::sleep(PAUSE);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => return removed,
        }
    }
}

/// Moves the calling process into the group.
pub fn join(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}

/// Creates a group and checks that processes can be in it, which is not so below a threaded group.
fn create(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    match fs::read_to_string(path.join("cgroup.type")) {
        Ok(kind) if kind.trim() == "domain" => Ok(()),
        _ => {
            fs::remove_dir(path)?;
            Err(io::Error::other(format!(
                "{} is of a threaded type and cannot hold processes",
                path.display()
            )))
        }
    }
}

/// Returns the path of this process' group, relative to the top.
fn own_path(groups: &str) -> Option<&str> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.starts_with("..")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swept_by(sweeper: &str) -> Result<(), Error> {
        let sweeper = Command::new(sweeper).spawn().unwrap();
        PrivateCgroup { path: "/sys/fs/cgroup/l4lbd-demo-1".into(), sweeper }.remove()
    }

    #[test]
    fn a_group_that_is_left_is_named_with_the_way_to_remove_it() {
        swept_by("true").unwrap();
        let error = swept_by("false").unwrap_err().to_string();
        assert!(
            error.contains("the control group /sys/fs/cgroup/l4lbd-demo-1 could not be removed"),
            "{error}"
        );
        assert!(error.ends_with("rmdir /sys/fs/cgroup/l4lbd-demo-1"), "{error}");
    }

    #[test]
    fn our_own_group_is_the_unified_one() {
        assert_eq!(own_path("4:memory:/a\n0::/user.slice/b.scope\n"), Some("user.slice/b.scope"));
        assert_eq!(own_path("0::/\n"), Some(""));
        assert_eq!(own_path("0::/../other\n"), None);
        assert_eq!(own_path("4:memory:/a\n"), None);
    }
}
