//! A control group of the demonstration's own: what the eBPF data plane is attached to, and nobody else is in.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::{Error, process};
use crate::dataplane::ebpf::cgroup_tree;

/// How long processes that were killed may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(20);

/// A directory of the cgroup2 file system, and who removes it, whatever becomes of this process.
#[derive(Debug)]
pub struct Cgroup {
    pub path: PathBuf,
    sweeper: Child,
}

impl Cgroup {
    /// Makes one below this process' own, or at the top where that can't be; `None` on hosts without cgroup2.
    ///
    /// # Errors
    /// When none can be made, or nobody can be started who removes it.
    pub fn make() -> io::Result<Option<Self>> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let Some(top) = cgroup_tree() else { return Ok(None) };
        // Ids of processes are not unique: there may be demonstrations in other namespaces, or remains of some.
        let name = format!("l4lbd-demo-{:08x}", rand::random::<u32>());
        let below = own_path(&own).map(|own| top.join(own).join(&name));
        let path = match below.filter(|path| make(path).is_ok()) {
            Some(path) => path,
            None => {
                let path = top.join(&name);
                make(&path)?;
                path
            }
        };
        let sweeper =
            process::command(&process::Part::Sweep { group: path.clone() }).stdin(Stdio::piped()).spawn();
        match sweeper {
            Ok(sweeper) => Ok(Some(Self { path, sweeper })),
            Err(error) => {
                fs::remove_dir(&path)?;
                Err(error)
            }
        }
    }

    /// Returns when it is gone.
    ///
    /// # Errors
    /// When it is not.
    pub fn sweep(mut self) -> Result<(), Error> {
        drop(self.sweeper.stdin.take());
        // Only the sweeper can tell: this process is on the stage, which has a /sys of its own.
        let why = match self.sweeper.wait() {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => format!("who was to remove it ended with {status}"),
            Err(error) => error.to_string(),
        };
        Err(Error::Left { path: self.path, why })
    }
}

/// Waits for the end of whoever holds the other end of our input, and leaves neither processes nor the group.
///
/// # Errors
/// When the group can't be removed.
pub fn sweep(cgroup: &Path) -> io::Result<()> {
    io::stdin().read_to_end(&mut Vec::new())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() != io::ErrorKind::NotFound && Instant::now() < deadline => {
                // Kernels older than 5.14 don't have it; the processes end with their parent anyway.
                let _ = fs::write(cgroup.join("cgroup.kill"), "1");
                std::thread::sleep(PAUSE);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => return removed,
        }
    }
}

/// Moves the calling process.
pub fn join(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}

/// Makes a group that processes can be in, which those below a threaded one are not.
fn make(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    match fs::read_to_string(path.join("cgroup.type")) {
        Ok(kind) if kind.trim() == "domain" => Ok(()),
        _ => {
            fs::remove_dir(path)?;
            Err(io::Error::other(format!("{} can't hold processes", path.display())))
        }
    }
}

/// This process' group, relative to the top.
fn own_path(groups: &str) -> Option<&str> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.starts_with("..")).then_some(path)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn swept_by(sweeper: &str) -> Result<(), Error> {
        let sweeper = Command::new(sweeper).spawn().unwrap();
        Cgroup { path: "/sys/fs/cgroup/l4lbd-demo-1".into(), sweeper }.sweep()
    }

    #[test]
    fn a_group_that_is_left_is_named_with_the_way_to_remove_it() {
        swept_by("true").unwrap();
        let error = swept_by("false").unwrap_err().to_string();
        assert!(error.contains("/sys/fs/cgroup/l4lbd-demo-1 is left"), "{error}");
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
