//! `l4lbd run`

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::ConfigFile;
use crate::config::Loaded;
use crate::daemon::{self, Daemon};

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
        let Loaded { config, remarks } = self.config.load_with_remarks()?;
        // After the file was read: its errors go to standard error in full, without the log's form. Lines that
        // are still queued are written when this function ends.
        let _log = super::log::start();
        for remark in remarks {
            tracing::info!(remark, "remark on the configuration");
        }
        let runtime = super::runtime()?;
        let ended = runtime.block_on(async {
            if self.once {
                let status = daemon::once(&config).await?;
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
            let daemon = Daemon::start(&config, shutdown.clone()).await?;
            tracing::info!(
                version = env!("CARGO_PKG_VERSION"),
                socket = %daemon.bound.socket.display(),
                source = ?config.source.masters,
                "started"
            );
            tokio::spawn(async move {
                signals.wait().await;
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
    survived: [(&'static str, Signal); 4],
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
                ("SIGHUP", signal(SignalKind::hangup())?),
                ("SIGUSR1", signal(SignalKind::user_defined1())?),
                ("SIGUSR2", signal(SignalKind::user_defined2())?),
                ("SIGALRM", signal(SignalKind::alarm())?),
            ],
        })
    }

    /// Returns when a signal ends the daemon; logs the ones without an effect.
    async fn wait(self) {
        let Self { ending: [mut term, mut int, mut quit], survived } = self;
        let [mut hup, mut usr1, mut usr2, mut alrm] = survived;
        loop {
            let name = tokio::select! {
                _ = term.recv() => return,
                _ = int.recv() => return,
                _ = quit.recv() => return,
                _ = hup.1.recv() => hup.0,
                _ = usr1.1.recv() => usr1.0,
                _ = usr2.1.recv() => usr2.0,
                _ = alrm.1.recv() => alrm.0,
            };
            tracing::info!(
                signal = name,
                "signal has no effect; restart the daemon to read a changed configuration"
            );
        }
    }
}
