//! `l4lbd plan`

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use jiff::Timestamp;

use super::ConfigFile;
use crate::dataplane::diff::diff;
use crate::dataplane::kernel::{Kernel, KernelOptions};
use crate::dataplane::{DataPlane, Depth};
use crate::plan::Planner;
use crate::source::combined::CombinedSource;
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.config.load()?;
        super::runtime()?.block_on(async {
            let mut kernel = Kernel::open(&KernelOptions { attach: false, ..config.kernel() })?;
            let store = Store::new(&config.daemon.state_dir);
            let mut planner = Planner::new(&config, store.leases()?, store.cluster()?);
            let now = Timestamp::now();
            let report = CombinedSource::new(&config.source, &config.marathon)?.first(1).await;
            match (report.snapshot, report.failure) {
                (Some(snapshot), _) => planner.learn(&snapshot, now),
                (None, failure) => anyhow::bail!(failure.map(|failure| failure.error).unwrap_or_default()),
            }
            let actual = kernel.read(Depth::Full).await?;
            let plan = planner.plan(&actual, now).context("the source gave no state")?;
            let ops = diff(&actual.state, &plan.desired.state, 0);
            let mut out = io::stdout().lock();
            for op in &ops {
                writeln!(out, "{op}")?;
            }
            for skipped in &plan.desired.skipped {
                writeln!(out, "# skipped: {skipped}")?;
            }
            for warning in &plan.desired.warnings {
                writeln!(out, "# warning: {warning}")?;
            }
            writeln!(
                out,
                "# {} operations for {} virtual services",
                ops.len(),
                plan.desired.state.services.len()
            )?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
