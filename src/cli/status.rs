//! `l4lbd status`

use std::io::{self, Write};
use std::process::ExitCode;

use reqwest::Method;

use super::DEGRADED;
use super::client::RunningDaemon;
use crate::status::text::write_status;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: RunningDaemon,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (body, status) = self.daemon.ask(Method::GET, "/status")?;
        let mut out = io::stdout().lock();
        if self.json {
            out.write_all(&body)?;
            writeln!(out)?;
        } else {
            write_status(&mut out, &status)?;
        }
        Ok(if status.degraded { ExitCode::from(DEGRADED) } else { ExitCode::SUCCESS })
    }
}
