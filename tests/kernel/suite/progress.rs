//! What the daemon tells the service manager while something takes long.

use std::os::unix::net::UnixDatagram;

use anyhow::{Result, ensure};

use super::{tests, web};
use crate::toolkit::await_some;
use crate::toolkit::lab::{Lab, REMOTE};
use crate::toolkit::state::{State, Task};

tests!["progress":
    waiting_for_the_first_state_is_told,
    ; ipvs:
    a_large_change_is_told_as_it_goes_on,
];

/// VIPs of a table that takes several parts of a pass.
const MANY: u16 = 260;

/// Waits for a notification with this text.
fn await_told(notifications: &UnixDatagram, text: &str) -> Result<String> {
    let mut told = String::new();
    await_some(&format!("a notification with {text:?}"), || {
        let mut buffer = [0; 4096];
        // Without one for a moment, it is looked for again.
        let Ok(length) = notifications.recv(&mut buffer) else { return Ok(None) };
        told += &String::from_utf8_lossy(&buffer[..length]);
        told.push('\n');
        Ok(told.lines().find(|line| line.contains(text)).map(str::to_owned))
    })
    .map_err(|error| error.context(format!("told was\n{told}")))
}

fn waiting_for_the_first_state_is_told() -> Result<()> {
    let lab = web::lab()?;
    lab.configure_daemon("")?;
    let (_daemon, notifications) = lab.start_told()?;
    let told = await_told(&notifications, "STATUS=waiting for ")?;
    ensure!(told.contains("the first state from file:") && told.contains("the kernel keeps"), "{told}");
    // Again after a second at the latest, with another time.
    let again = await_told(&notifications, "STATUS=waiting for ")?;
    ensure!(again != told, "told twice: {told}");
    lab.publish(&State::of([web::first()]))?;
    await_told(&notifications, "READY=1")?;
    await_told(&notifications, "STATUS=1 VIPs, 0 without a healthy backend")?;
    Ok(())
}

fn a_large_change_is_told_as_it_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    lab.configure_daemon("")?;
    let tasks = (0..MANY).map(|number| {
        Task::host(&format!("task-{number}"), REMOTE, 1_000 + number).vip(&format!("/app-{number}:80"))
    });
    lab.publish(&State::of(tasks))?;
    let (_daemon, notifications) = lab.start_told()?;
    let told = await_told(&notifications, "STATUS=programming the kernel: ")?;
    ensure!(told.contains(" of 5"), "there are two operations for each VIP: {told}");
    await_told(&notifications, "READY=1")?;
    await_told(&notifications, &format!("STATUS={MANY} VIPs"))?;
    lab.agent.run(&["ipvsadm", "-C"])?;
    await_told(&notifications, "STATUS=repairing what another program changed in the kernel: ")?;
    await_told(&notifications, &format!("STATUS={MANY} VIPs"))?;
    Ok(())
}
