//! Programs of the host that the demonstration runs.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Where `ip`, `nft` and `modprobe` are besides, which is not in everybody's `PATH`.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// Runs commands of `ip` in the calling thread's network namespace.
pub fn ip(commands: &str) -> io::Result<()> {
    let mut child = Command::new("ip")
        .env("PATH", search_path())
        .args(["-batch", "-"])
        // It is not meant by the terminal's signals, as nobody is but the director.
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
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(said.lines().next().unwrap_or("ip failed").to_owned()))
}

/// Where programs are looked for.
pub fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(SYSTEM_PATH);
    path
}
