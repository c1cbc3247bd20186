//! `l4lbd check`

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use super::ConfigFile;
use crate::config::{DEFAULT_PATH, Loaded};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Loaded { remarks, .. } = self.config.load_with_remarks()?;
        let path = self.config.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let remark = if path.exists() { "is valid" } else { "does not exist, the defaults apply" };
        writeln!(io::stdout(), "{} {remark}", path.display())?;
        for remark in remarks {
            writeln!(io::stdout(), "{remark}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
