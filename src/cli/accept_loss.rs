//! `l4lbd accept-loss`

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use reqwest::Method;

use super::client::RunningDaemon;
use crate::status::Status;
use crate::status::text::escape::escaped;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: RunningDaemon,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (_, status): (_, Status) = self.daemon.ask(Method::POST, "/accept-loss")?;
        if let Some(held) = status.source.held.first() {
            bail!("the loss is not accepted yet: {}; ask again with l4lbd status", escaped(held));
        }
        writeln!(
            io::stdout(),
            "the last state is believed as it is: {} tasks with VIPs, {}",
            status.source.tasks,
            status.counts()
        )?;
        Ok(ExitCode::SUCCESS)
    }
}
