//! `l4lbd purge`

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;

use super::ConfigFile;
use crate::daemon::wiring;
use crate::dataplane::kernel::{Access, Kernel, KernelOptions, Purged};
use crate::dataplane::{DataPlane, Op, PlaneKind, rules};
use crate::status::text::line;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.config.load()?;
        let socket = &config.daemon.socket;
        // Its next pass would program everything again.
        if super::daemon_runs(socket) {
            bail!(
                "a daemon answers on {} and would undo this; stop it first (systemctl stop l4lbd)",
                socket.display()
            );
        }
        super::runtime()?.block_on(async {
            let mut errors = Vec::new();
            // An earlier configuration may have used any plane, so each is looked at.
            for kind in PlaneKind::ALL {
                let options = KernelOptions { plane: Some(kind), access: Access::Remove, ..wiring::kernel(&config) };
                let mut kernel = match Kernel::open(&options) {
                    Ok(kernel) => kernel,
                    // A kernel without a plane has nothing to remove, which is no failure.
                    Err(error) if error.absent_plane().is_some() => {
                        writeln!(io::stdout(), "the kernel has no {kind}, and so nothing of l4lbd in it")?;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let purged = kernel.purge().await?;
                tell(&purged, &options.link)?;
                let settings = rules::sysctls(kernel.capabilities(), false);
                if !settings.is_empty() {
                    let paths: Vec<String> = settings.into_keys().collect();
                    writeln!(
                        io::stdout(),
                        "settings of the whole node stay, because their earlier values are not known: {} and the \
                         timeouts of connections",
                        paths.join(", ")
                    )?;
                }
                errors.extend(purged.errors);
            }
            // After all planes, so that a failure in one does not hide what happened in the next.
            for error in &errors {
                line(&mut io::stderr(), format_args!("l4lbd: {error}"))?;
            }
            Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }
}

/// Prints what is gone, and the services that were left because they are not ours.
fn tell(purged: &Purged, link: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if let Some(services) = purged.with_programs {
        writeln!(out, "removed the programs, with {services} virtual services; connections go on")?;
    }
    // Counted by kind: a list of 10,000 services would hide what is left.
    let done = |is: fn(&Op) -> bool| purged.done.iter().filter(|op| is(op)).count();
    let mut removed = Vec::new();
    match done(|op| matches!(op, Op::DelService(_))) {
        0 => {}
        services => removed.push(format!("{services} virtual services")),
    }
    if done(|op| matches!(op, Op::DelLink)) > 0 {
        removed.push(format!("the link {link} with its addresses and routes"));
    }
    if done(|op| matches!(op, Op::DelRules)) > 0 {
        removed.push(format!("the table inet {}", rules::TABLE));
    }
    if !removed.is_empty() {
        writeln!(out, "removed {}", removed.join(", "))?;
    }
    match purged.foreign {
        0 => Ok(()),
        foreign => writeln!(out, "{foreign} virtual services of other programs stay"),
    }
}
