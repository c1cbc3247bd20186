//! `l4lbd plan`

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;

use super::ConfigFile;
use crate::cluster::belief::Belief;
use crate::config::Config;
use crate::daemon::wiring;
use crate::dataplane::diff::diff;
use crate::dataplane::kernel::{Access, Kernel, KernelOptions};
use crate::dataplane::{DataPlane, Depth};
use crate::plan::Planner;
use crate::source::combined::CombinedSource;
use crate::source::marathon::Earlier;
use crate::status::text::line;
use crate::store::saver::Loaded;
use crate::store::{Error, Store};
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
            let mut kernel =
                Kernel::open(&KernelOptions { access: Access::Look, ..wiring::kernel(&config) })?;
            let (Loaded { persisted, cluster, deadlines, marathon }, unused) = earlier_run(&config);
            for error in &unused {
                line(&mut io::stderr(), format_args!("l4lbd: warning: {error}"))?;
            }
            let mut planner = Planner::new(wiring::planner(&config), persisted);
            planner.resume_drains(deadlines.drains);
            let mut belief = Belief::resume(cluster).holding(deadlines.holds);
            let earlier = Earlier { memory: marathon, ..Earlier::default() };
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

/// Returns what the daemon would go on from, with the errors of files that it would leave out.
fn earlier_run(config: &Config) -> (Loaded, Vec<Error>) {
    Loaded::read(&Store::new(&config.daemon.state_dir), !wiring::is_file(config))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::mesos;
    use crate::store::Persisted;

    #[test]
    fn a_dry_run_goes_on_from_what_the_daemon_would() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let cluster = mesos::parse(br#"{"id":"M","slaves":[],"frameworks":[]}"#, None).unwrap();
        store.save_cluster(&cluster).unwrap();
        let of = |masters: &str| {
            let text = format!("source.masters = [{masters:?}]\ndaemon.state_dir = {:?}\n", directory.path());
            earlier_run(&Config::parse(Path::new("l4lbd.toml"), &text).unwrap())
        };
        assert_eq!(of("http://10.0.0.1:5050").0.cluster, Some(cluster));
        let (loaded, errors) = of("file:/state.json");
        assert!(loaded.cluster.is_none() && errors.is_empty(), "{errors:?}");
        // The daemon sets such a file aside and starts; a dry run leaves it where it is.
        let file = directory.path().join("leases.json");
        std::fs::write(&file, "{").unwrap();
        let (loaded, errors) = of("http://10.0.0.1:5050");
        assert_eq!((loaded.persisted, errors.len(), file.exists()), (Persisted::default(), 1, true));
    }
}
