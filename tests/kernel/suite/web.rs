//! The service of most tests: `web`, port 80, with a task on each of two other nodes.

use anyhow::Result;

use crate::toolkit::daemon::Daemon;
use crate::toolkit::lab::{Lab, REMOTE, THIRD};
use crate::toolkit::state::Task;

/// Where the tasks serve, and what their servers are called.
pub const FIRST: &str = "192.168.50.2:8080";
pub const SECOND: &str = "192.168.50.3:8080";
pub const FIRST_NAME: &str = "B1";
pub const SECOND_NAME: &str = "B2";

pub fn first() -> Task {
    Task::host("web-1", REMOTE, 8080).vip("/web:80")
}

pub fn second() -> Task {
    Task::host("web-2", THIRD, 8080).vip("/web:80")
}

/// A lab in which both servers run.
pub fn lab() -> Result<Lab> {
    let lab = Lab::new()?;
    serve(&lab)?;
    Ok(lab)
}

pub fn serve(lab: &Lab) -> Result<()> {
    lab.remote.serve(FIRST, FIRST_NAME)?;
    lab.remote.serve(SECOND, SECOND_NAME)
}

/// Waits for a weight of the first server; `None` is for when it is not there.
pub fn await_weight(daemon: &Daemon<'_>, weight: Option<u32>) -> Result<()> {
    let what = format!("the first server at weight {weight:?}");
    daemon
        .await_status(&what, |status| status.vip("web", 80).is_some_and(|vip| vip.weight_of(FIRST) == weight))
        .map(drop)
}
