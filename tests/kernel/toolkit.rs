//! What the tests are made of: hosts as network namespaces, state documents as Mesos would give
//! them, the daemon as a process, and the kernel as its own tools show it.

pub mod container;
pub mod daemon;
pub mod helper;
pub mod host;
pub mod kernel;
pub mod lab;
pub mod master;
pub mod plane;
pub mod state;
pub mod status;
pub mod unit;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything awaited may take. Far beyond what is needed: it only ends tests that cannot pass.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is there, for state that nobody announces.
pub fn await_some<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("waited {} s in vain: {what}", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
}
