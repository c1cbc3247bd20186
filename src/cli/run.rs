//! `l4lbd run`

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::ConfigFile;
use crate::api::ReloadRequest;
use crate::daemon::{self, Daemon, Start};

/// Longest wait at the end for threads that are blocked.
const LAST_THREADS: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Make one successful pass, leave the kernel programmed, and end
    #[arg(long)]
    once: bool,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        daemon::allocator::bound_allocator();
        let loaded = self.config.load_with_remarks()?;
        let config = loaded.config.clone();
        // After the file was read: its errors go to standard error in full, without the log's form. Lines that
        // are still queued are written when this function ends.
        let (_log, set_log, show) = super::log::start(&config.daemon.log.0);
        for remark in &loaded.remarks {
            tracing::info!(remark, "remark on the configuration");
        }
        let runtime = super::runtime()?;
        let ended = runtime.block_on(async {
            if self.once {
                let status = daemon::once(&config, show).await?;
                tracing::info!(
                    vips = status.numbers().vips,
                    skipped = status.skipped.len(),
                    "one pass done, the kernel is programmed"
                );
                return Ok(ExitCode::SUCCESS);
            }
            let shutdown = CancellationToken::new();
            // Before anything is started: from here on a signal ends the daemon in order.
            let signals = Signals::register()?;
            let start = Start { path: self.config.config, loaded, set_log, show };
            let daemon = Daemon::start(start, shutdown.clone()).await?;
            let reloads = daemon.reloads();
            tracing::info!(
                version = env!("CARGO_PKG_VERSION"),
                socket = %daemon.bound.socket.display(),
                source = ?config.source.masters,
                "started"
            );
            tokio::spawn(async move {
                signals.wait(reloads).await;
                tracing::info!("stopping, the kernel goes on forwarding");
                shutdown.cancel();
            });
            // Ends with the parts, whether a signal or a fault ended them.
            daemon.wait().await?;
            Ok(ExitCode::SUCCESS)
        });
        // A file or a name service that does not answer keeps a thread busy, for which a drop would wait.
        runtime.shutdown_timeout(LAST_THREADS);
        ended
    }
}

/// Signals that would end the process by default.
struct Signals {
    /// Signals that end the daemon.
    ending: [Signal; 3],
    /// Signals without an effect: administrators and log rotation send them to any daemon.
    survived: [(&'static str, Signal); 3],
    /// Signal to read the configuration again.
    hangup: Signal,
}

impl Signals {
    fn register() -> std::io::Result<Self> {
        Ok(Self {
            ending: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::quit())?,
            ],
            survived: [
                ("SIGUSR1", signal(SignalKind::user_defined1())?),
                ("SIGUSR2", signal(SignalKind::user_defined2())?),
                ("SIGALRM", signal(SignalKind::alarm())?),
            ],
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when a signal ends the daemon; logs the ones without an effect.
    async fn wait(self, reloads: mpsc::Sender<ReloadRequest>) {
        let Self { ending: [mut term, mut int, mut quit], survived, mut hangup } = self;
        let [mut usr1, mut usr2, mut alrm] = survived;
        loop {
            let name = tokio::select! {
                _ = term.recv() => return,
                _ = int.recv() => return,
                _ = quit.recv() => return,
                _ = hangup.recv() => {
                    // Where many wait already, one of them reads what this one would.
                    let _ = reloads.try_send(ReloadRequest { done: oneshot::channel().0 });
                    continue;
                }
                _ = usr1.1.recv() => usr1.0,
                _ = usr2.1.recv() => usr2.0,
                _ = alrm.1.recv() => alrm.0,
            };
            tracing::info!(signal = name, "signal has no effect; SIGHUP reads a changed configuration");
        }
    }
}
