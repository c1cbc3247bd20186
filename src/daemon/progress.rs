//! What the daemon is busy with, for who waits: the service manager, the log, and a terminal.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

use super::notify;
use crate::status::Status;
use crate::status::progress::ToldWork;
use crate::status::text::escape::escaped;

/// Function that shows a line below the log, or none, where the log is on a terminal.
pub type ShowProgress = Box<dyn Fn(Option<&str>) + Send + Sync>;

/// Pause between two looks at the clock while something takes long.
const TICK: Duration = Duration::from_secs(1);

/// Shortest time between two notifications about the same work, which may have hundreds of steps a second.
const SPACING: Duration = Duration::from_millis(200);

/// Notifies the service manager of the first pass and of the status, and tells of long work, until `shutdown`.
pub(super) async fn report(
    mut statuses: watch::Receiver<Arc<Status>>,
    show: ShowProgress,
    shutdown: CancellationToken,
) {
    let mut ready = false;
    let mut last = String::new();
    let mut told = ToldWork::default();
    let mut clock = interval_at(Instant::now() + TICK, TICK);
    loop {
        let status = statuses.borrow_and_update().clone();
        // Ready means that the table is in the kernel, not that the process runs: dependent units start
        // then.
        if !ready && status.pass.at.is_some() {
            ready = true;
            tracing::info!(vips = status.numbers().vips, "first pass done, ready");
            notify(&[NotifyState::Ready]);
        }
        let now = Timestamp::now();
        let work = status.work(now);
        // Before the first status there is nothing to tell.
        if status.at != Timestamp::default() {
            let text = work.as_ref().map_or_else(|| status.summary(), |work| work.text.clone());
            // A line end would begin another notification.
            let text = escaped(&text).into_owned();
            if text != last {
                notify(&[NotifyState::Status(&text)]);
                show(work.is_some().then_some(&*text));
                last = text;
            }
        }
        match &work {
            Some(work) if told.is_due(work, now) => tracing::info!("{}", work.text),
            Some(_) => {}
            None if told.end() => tracing::info!("done: {}", status.summary()),
            None => {}
        }
        if work.is_some() {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(SPACING) => {}
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            // The time that it takes is news while something is under way.
            _ = clock.tick(), if work.is_some() => {}
            changed = statuses.changed() => if changed.is_err() { break },
        }
    }
    show(None);
}
