//! `l4lbd purge`

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;

use super::ConfigFile;
use crate::dataplane::diff::diff;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::{DataPlane, Depth, State};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.config.load()?;
        let socket = &config.daemon.socket;
        if super::daemon_runs(socket) {
            bail!("a daemon answers on {}, which would undo this: stop it first", socket.display());
        }
        super::runtime()?.block_on(async {
            let mut kernel = Kernel::open(&config.ipvs.link)?;
            let actual = kernel.read(Depth::Full).await?;
            let ops = diff(&actual.state, &State::default(), 0);
            let errors = kernel.apply(&ops).await;
            let mut out = io::stdout().lock();
            writeln!(
                out,
                "removed {} virtual services, {} routes, the link {} and the table inet l4lbd; {} virtual services \
                 of others stay",
                actual.state.services.len(),
                actual.state.routes.len(),
                config.ipvs.link,
                actual.foreign.len()
            )?;
            for error in &errors {
                writeln!(io::stderr(), "l4lbd: {error}")?;
            }
            Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }
}
