//! `l4lbd check`

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use super::ConfigFile;
use crate::config::DEFAULT_PATH;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.config.load()?;
        let path = self.config.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let remark = if path.exists() { "is valid" } else { "does not exist, the defaults apply" };
        writeln!(io::stdout(), "{} {remark}", path.display())?;
        if let Some(remark) = config.mesos_remark() {
            writeln!(io::stdout(), "{remark}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
