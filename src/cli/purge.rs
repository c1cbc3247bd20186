//! `l4lbd purge`

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;

use super::ConfigFile;
use crate::dataplane::diff::diff;
use crate::dataplane::ebpf::Ebpf;
use crate::dataplane::kernel::{Kernel, KernelOptions};
use crate::dataplane::rules::REQUIRED_SYSCTLS;
use crate::dataplane::{DataPlane, Depth, Error, Op, OpError, PlaneKind, State};

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
            let link = &config.ipvs.link;
            let mut errors = Vec::new();
            match Kernel::open(&KernelOptions { plane: Some(PlaneKind::Ipvs), ..options.clone() }) {
                Ok(kernel) => {
                    errors.extend(purge(kernel, link).await?);
                    let settings: Vec<&str> = REQUIRED_SYSCTLS.iter().map(|(path, _)| *path).collect();
                    writeln!(
                        io::stdout(),
                        "settings of the whole node stay, nobody knows what they were: {} and IPVS's timeouts",
                        settings.join(", ")
                    )?;
                }
                Err(Error::Ipvs(error)) if error.is_absence() => {
                    writeln!(io::stdout(), "the kernel has no IPVS, and so nothing of ours there")?;
                }
                Err(error) => return Err(error.into()),
            }
            if options.ebpf.pins.exists() {
                let services = Ebpf::look(&options.ebpf).map_or(0, |table| table.services.len());
                Ebpf::purge(&options.ebpf)?;
                writeln!(
                    io::stdout(),
                    "removed the programs, with {services} virtual services; connections go on"
                )?;
            }
            // The link, which both have.
            let rest = Kernel::open(&KernelOptions { plane: Some(PlaneKind::Ebpf), attach: false, ..options })?;
            errors.extend(purge(rest, link).await?);
            for error in &errors {
                writeln!(io::stderr(), "l4lbd: {error}")?;
            }
            Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }
}

/// Takes everything of ours out of a data plane and says what that was; returns what failed.
async fn purge(mut kernel: Kernel, link: &str) -> anyhow::Result<Vec<OpError>> {
    let actual = kernel.read(Depth::Full).await?;
    let ops = diff(&actual.state, &State::default(), 0);
    let errors = kernel.apply(&ops).await;
    let done = |is: fn(&Op) -> bool| {
        ops.iter().filter(|op| is(op) && !errors.iter().any(|error| error.op == **op)).count()
    };
    let mut removed = Vec::new();
    match done(|op| matches!(op, Op::DelService(_))) {
        0 => {}
        services => removed.push(format!("{services} virtual services")),
    }
    if done(|op| matches!(op, Op::DelLink)) > 0 {
        removed.push(format!("the link {link} with its addresses and routes"));
    }
    if done(|op| matches!(op, Op::DelRules)) > 0 {
        removed.push("the table inet l4lbd".to_owned());
    }
    let mut out = io::stdout().lock();
    if !removed.is_empty() {
        writeln!(out, "removed {}", removed.join(", "))?;
    }
    match actual.foreign.len() {
        0 => {}
        foreign => writeln!(out, "{foreign} virtual services of others stay")?,
    }
    Ok(errors)
}
