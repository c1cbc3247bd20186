//! Programs of the host that the demonstration runs: where they are, and the one call of `ip`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::error::Error;

/// Directories of `ip`, `nft` and `modprobe`, which are not in every user's `PATH`.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// A program of the host, and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    program: &'static str,
    package: &'static str,
}

pub const IP: Tool = Tool { program: "ip", package: "iproute2" };

/// Needed for IPVS alone.
pub const NFT: Tool = Tool { program: "nft", package: "nftables" };

impl Tool {
    /// Checks that the program is installed.
    ///
    /// # Errors
    /// When it is not.
    pub fn require(self) -> Result<(), Error> {
        let Self { program, package } = self;
        match std::env::split_paths(&search_path()).any(|directory| directory.join(program).is_file()) {
            true => Ok(()),
            false => Err(Error::MissingProgram { program, package }),
        }
    }
}

/// Returns the user's `PATH` followed by the system directories.
pub fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(SYSTEM_PATH);
    path
}

/// Runs commands of `ip`, one a line, in the calling thread's network namespace.
///
/// # Errors
/// When `ip` cannot be run, or with the first line of its complaint.
pub fn ip(commands: &str) -> io::Result<()> {
    let mut child = Command::new("ip")
        .env("PATH", search_path())
        .args(["-batch", "-"])
        // Ctrl-C in the terminal ends the demonstration in order, not `ip` in the middle of a command.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let first = complaint.lines().next().map_or_else(|| output.status.to_string(), str::to_owned);
    Err(io::Error::other(format!("ip: {first}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_is_named_with_its_package() {
        Tool { program: "sh", package: "dash" }.require().unwrap();
        let error = Tool { program: "no-such-program", package: "some-package" }.require().unwrap_err();
        assert!(error.to_string().ends_with("apt-get install some-package"), "{error}");
    }
}
