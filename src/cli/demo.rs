//! `l4lbd demo`, and the hidden command of the processes that it starts.

use std::process::ExitCode;
use std::time::Duration;

use super::UNAVAILABLE;
use crate::dataplane::PlaneKind;
use crate::demo::scenario::{SHORTEST, USUAL};
use crate::demo::{self, Error, Options};

/// What scripts can go by.
const EXIT_CODES: &str = "Exit codes: 0 when no connection failed, also when you end it before its time; 1 when one \
    failed, or you end it before the first one; 69 when this kernel has no data plane";

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// Length of the demonstration, such as 45s or 5m
    #[arg(long, value_name = "TIME", value_parser = duration, default_value_t = Length(USUAL))]
    duration: Length,
    /// Data plane: ipvs, ebpf, or auto for IPVS where the kernel has it and eBPF elsewhere
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    dataplane: Wanted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    /// What this kernel has
    #[default]
    Auto,
    Ipvs,
    Ebpf,
}

/// A length of time as it is written.
#[derive(Clone, Copy, Debug)]
struct Length(Duration);

impl std::fmt::Display for Length {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

impl Args {
    /// To be called while there is one thread only.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let plane = match self.dataplane {
            Wanted::Auto => None,
            Wanted::Ipvs => Some(PlaneKind::Ipvs),
            Wanted::Ebpf => Some(PlaneKind::Ebpf),
        };
        match demo::run(Options { duration: self.duration.0, plane }) {
            Ok(outcome) if outcome.failed == 0 => Ok(ExitCode::SUCCESS),
            Ok(_) => Ok(ExitCode::FAILURE),
            Err(error @ Error::NoDataPlane(_)) => {
                super::report(&error.into());
                Ok(ExitCode::from(UNAVAILABLE))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Plays a part in the demonstration.
#[derive(Debug, clap::Args)]
pub struct PartArgs {
    #[command(flatten)]
    part: demo::process::Args,
}

impl PartArgs {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.part.run()?;
        Ok(ExitCode::SUCCESS)
    }
}

fn duration(text: &str) -> Result<Length, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a time such as 45s or 5m"))?;
    match Duration::try_from(span) {
        Ok(duration) if duration >= SHORTEST => Ok(Length(duration)),
        _ => Err(format!("the story takes {} s at least", SHORTEST.as_secs())),
    }
}
