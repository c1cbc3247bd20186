//! `l4lbd metrics`

use std::io::{self, Write};
use std::process::ExitCode;

use super::client::RunningDaemon;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: RunningDaemon,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let text = self.daemon.fetch("/metrics")?;
        io::stdout().lock().write_all(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}
