//! `l4lbd plan`

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;

use super::ConfigFile;
use crate::cluster::belief::Belief;
use crate::daemon::wiring;
use crate::dataplane::diff::diff;
use crate::dataplane::kernel::{Kernel, KernelOptions};
use crate::dataplane::{DataPlane, Depth};
use crate::plan::Planner;
use crate::source::combined::CombinedSource;
use crate::source::marathon::Earlier;
use crate::status::text::line;
use crate::store::Store;
use crate::units::steady::steady_now;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.config.load()?;
        super::runtime()?.block_on(async {
            // A dry run must not attach programs, not even those of the configured plane.
            let mut kernel = Kernel::open(&KernelOptions { attach: false, ..wiring::kernel(&config) })?;
            let store = Store::new(&config.daemon.state_dir);
            let mut planner = Planner::new(wiring::planner(&config), store.leases()?);
            let deadlines = store.deadlines()?;
            planner.resume_drains(deadlines.drains);
            let mut belief = Belief::resume(store.cluster()?).holding(deadlines.holds);
            let earlier = Earlier { memory: store.marathon()?, ..Earlier::default() };
            let now = steady_now();
            // One try, because an operator waits for the answer.
            let report = CombinedSource::new(&config.source, &config.marathon, earlier)?.first(1).await;
            let snapshot = report.snapshot.ok_or_else(|| {
                anyhow::anyhow!(report.failure.map(|failure| failure.error).unwrap_or_default())
            })?;
            // Judged as the daemon would: what it holds after a fail-over is planned here as well.
            planner.learn(&belief.take(snapshot, now, wiring::patience(&config)));
            let actual = kernel.read(Depth::Full).await?;
            let plan = planner
                .plan(&actual, now)
                .context("the state of the cluster led to no plan; this is a fault of l4lbd")?;
            // The seed only shuffles the order of new servers.
            let ops = diff(&actual.state, &plan.state, 0);
            let mut out = io::stdout().lock();
            for op in &ops {
                line(&mut out, op)?;
            }
            for skipped in &plan.desired.skipped {
                line(&mut out, format_args!("# skipped: {skipped}"))?;
            }
            for warning in &plan.desired.warnings {
                line(&mut out, format_args!("# warning: {warning}"))?;
            }
            writeln!(out, "# {} operations for {} virtual services", ops.len(), plan.state.services.len())?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
