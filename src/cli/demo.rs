//! `l4lbd demo`, and the hidden command of the processes that it starts.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use super::UNAVAILABLE;
use crate::dataplane::PlaneKind;
use crate::demo::process::RoleOptions;
use crate::demo::scenario::{DEFAULT_DURATION, SHORTEST};
use crate::demo::{self, DemoOptions};

/// End of the help.
const EXIT_CODES: &str = "Exit codes: 0 when no connection failed, also if you quit before the end; 1 when a connection \
    failed, the demonstration could not be shown, or you quit before the first connection; 69 when this kernel has no \
    data plane";

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// Length of the demonstration, such as 45s or 5m; at least 15s
    #[arg(long, value_name = "TIME", value_parser = duration, default_value_t = DemoDuration(DEFAULT_DURATION))]
    duration: DemoDuration,
    /// Data plane to show
    #[arg(long, value_enum, default_value_t)]
    dataplane: DataPlaneArg,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum DataPlaneArg {
    /// IPVS if this kernel has it, otherwise eBPF
    #[default]
    Auto,
    Ipvs,
    Ebpf,
}

/// A duration, printed in seconds.
#[derive(Clone, Copy, Debug)]
struct DemoDuration(Duration);

impl fmt::Display for DemoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

impl Args {
    /// Shows the demonstration. To be called while the process has one thread only.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let plane = match self.dataplane {
            DataPlaneArg::Auto => None,
            DataPlaneArg::Ipvs => Some(PlaneKind::Ipvs),
            DataPlaneArg::Ebpf => Some(PlaneKind::Ebpf),
        };
        match demo::run(DemoOptions { duration: self.duration.0, plane }) {
            Ok(outcome) if outcome.failed == 0 => Ok(ExitCode::SUCCESS),
            Ok(_) => Ok(ExitCode::FAILURE),
            Err(error) if error.is_no_data_plane() => {
                super::report(&error.into());
                Ok(ExitCode::from(UNAVAILABLE))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Does the job of one of the demonstration's processes.
#[derive(Debug, clap::Args)]
pub struct RoleArgs {
    #[command(flatten)]
    options: RoleOptions,
}

impl RoleArgs {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.options.run()?;
        Ok(ExitCode::SUCCESS)
    }
}

fn duration(text: &str) -> Result<DemoDuration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a time such as 45s or 5m"))?;
    match Duration::try_from(span) {
        Ok(duration) if duration >= SHORTEST => Ok(DemoDuration(duration)),
        _ => Err(format!("the demonstration takes at least {} s", SHORTEST.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_too_short_ones_refused() {
        assert_eq!(duration("45s").unwrap().0, Duration::from_secs(45));
        assert_eq!(duration("5m").unwrap().to_string(), "300s");
        assert!(duration("14s").unwrap_err().contains("at least 15 s"));
        assert!(duration("-1m").is_err());
        assert!(duration("soon").unwrap_err().contains("\"soon\""));
    }
}
