//! `l4lbd status`

use std::io::{self, Write};
use std::process::ExitCode;

use reqwest::Method;

use super::DEGRADED;
use super::client::RunningDaemon;
use crate::api::client::status_path;
use crate::status::text::{write_status, write_vips};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: RunningDaemon,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Compare the kernel with what it should hold first
    ///
    /// Repairs what another program has changed, and counts all connections. Without it the status tells of the
    /// last comparison, and counts connections anew if VIPs have no more than 64 backends together.
    #[arg(long)]
    compare: bool,
    /// Show the VIPs of this name or address alone
    ///
    /// A name with or without the zone behind it, or an address; each with or without ":PORT". It is an error if
    /// there is none.
    #[arg(value_name = "VIP")]
    vip: Option<String>,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let path = status_path(self.vip.as_deref(), self.compare);
        let (body, status) = self.daemon.ask(Method::GET, &path)?;
        if let Some(vip) = self.vip.as_ref().filter(|_| status.vips.is_empty()) {
            anyhow::bail!(
                "no VIP of this node has the name or address {vip:?}; l4lbd status lists all of them, and skipped \
                 labels with the reason"
            );
        }
        let mut out = io::stdout().lock();
        match (self.json, self.vip) {
            (true, _) => {
                out.write_all(&body)?;
                writeln!(out)?;
            }
            (false, None) => write_status(&mut out, &status)?,
            (false, Some(_)) => write_vips(&mut out, &status)?,
        }
        Ok(if status.degraded { ExitCode::from(DEGRADED) } else { ExitCode::SUCCESS })
    }
}
