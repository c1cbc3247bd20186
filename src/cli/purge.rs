//! `l4lbd purge`

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;

use super::ConfigFile;
use crate::dataplane::diff::diff;
use crate::dataplane::ebpf::Ebpf;
use crate::dataplane::kernel::{Kernel, Options};
use crate::dataplane::{DataPlane, Depth, Error, OpError, Plane, State};

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
            let options = config.kernel();
            let mut errors = Vec::new();
            for plane in [Plane::Ipvs, Plane::Ebpf] {
                let has_programs = options.ebpf.pins.exists();
                if plane == Plane::Ebpf && !has_programs {
                    continue;
                }
                match Kernel::open(&Options { plane: Some(plane), ..options.clone() }) {
                    Ok(kernel) => errors.extend(purge(plane, kernel, &config.ipvs.link).await?),
                    Err(Error::Ipvs(error)) if error.is_absence() => {
                        writeln!(io::stdout(), "the kernel has no IPVS, and so nothing of ours there")?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ebpf::purge(&options.ebpf)?;
            for error in &errors {
                writeln!(io::stderr(), "l4lbd: {error}")?;
            }
            Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }
}

/// Empties one data plane; returns what failed.
async fn purge(plane: Plane, mut kernel: Kernel, link: &str) -> anyhow::Result<Vec<OpError>> {
    let actual = kernel.read(Depth::Full).await?;
    let ops = diff(&actual.state, &State::default(), 0);
    let errors = kernel.apply(&ops).await;
    let mut out = io::stdout().lock();
    write!(
        out,
        "removed {} virtual services, {} routes, ",
        actual.state.services.len(),
        actual.state.routes.len()
    )?;
    match plane {
        Plane::Ipvs => writeln!(
            out,
            "the link {link} and the table inet l4lbd; {} virtual services of others stay",
            actual.foreign.len()
        )?,
        Plane::Ebpf => writeln!(out, "the link {link} and all programs")?,
    }
    Ok(errors)
}
