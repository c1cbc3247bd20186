//! `l4lbd run`

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::ConfigFile;
use crate::config::Loaded;
use crate::daemon::{self, Daemon};

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
        // After the file was read: its errors go to standard error in full, without the log's form.
        super::log();
        for remark in remarks {
            tracing::info!(remark, "remark on the configuration");
        }
        super::runtime()?.block_on(async {
            if self.once {
                let status = daemon::once(&config).await?;
                tracing::info!(
                    vips = status.vips.len(),
                    skipped = status.skipped.len(),
                    "one pass done, the kernel is programmed"
                );
                return Ok(ExitCode::SUCCESS);
            }
            let shutdown = CancellationToken::new();
            // Before anything is started: from here on a signal ends the daemon in order.
            let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let daemon = Daemon::start(&config, shutdown.clone()).await?;
            tracing::info!(
                version = env!("CARGO_PKG_VERSION"),
                socket = %daemon.bound.socket.display(),
                source = ?config.source.masters,
                "started"
            );
            tokio::spawn(async move {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                tracing::info!("stopping, the kernel goes on forwarding");
                shutdown.cancel();
            });
            // Ends with the parts, whether a signal or a fault ended them.
            daemon.wait().await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
