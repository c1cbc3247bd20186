//! `l4lbd doctor`

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::ConfigFile;
use super::check::file_problems;
use crate::config::socket;
use crate::config::{Config, DEFAULT_PATH, Error, Loaded};
use crate::daemon::wiring;
use crate::doctor::connect::{self, Target};
use crate::doctor::facts::ConfigFacts;
use crate::doctor::finding::{Finding, Verdict};
use crate::doctor::place::NetworkPlace;
use crate::doctor::{examine, settings::DoctorSettings};
use crate::status::text::line;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Socket of the daemon [default: daemon.socket of the configuration]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Walk the path of one TCP connection instead: name, address, service, backends, and who answers
    #[arg(long, value_name = "NAME:PORT")]
    connect: Option<Target>,
    /// Walk it from this network namespace, such as /run/netns/NAME
    #[arg(long, value_name = "PATH", requires = "connect", conflicts_with = "container")]
    netns: Option<PathBuf>,
    /// Walk it from the container of this process, with its resolv.conf
    #[arg(long, value_name = "PID", requires = "connect", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    container: Option<u32>,
    /// Show checks that are fine or skipped, too
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// All findings, for programs.
#[derive(Serialize)]
struct DoctorReport<'f> {
    version: &'static str,
    faults: usize,
    warnings: usize,
    skipped: usize,
    findings: &'f [Finding],
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (mut settings, config) = self.load()?;
        if let Some(socket) = self.socket {
            settings.socket = socket;
        }
        let place = match (self.netns, self.container) {
            (Some(path), _) => NetworkPlace::Netns(path),
            (None, Some(process)) => NetworkPlace::Container(process),
            (None, None) => NetworkPlace::Node,
        };
        let runtime = super::runtime()?;
        let findings = match &self.connect {
            Some(target) => runtime.block_on(connect::walk(&settings, &place, target)),
            None => runtime.block_on(examine(&settings, config)),
        };
        // A lookup that hangs is not waited for.
        runtime.shutdown_background();
        let mut out = io::stdout().lock();
        match self.json {
            true => write_json(&mut out, &findings)?,
            // Each step of a path says something, also those that are fine.
            false => write(&mut out, &findings, self.verbose || self.connect.is_some())?,
        }
        Ok(match count(&findings, Verdict::Fault) {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }

    /// Reads the configuration. One with errors is a finding, and the defaults stand in for it.
    fn load(&self) -> anyhow::Result<(DoctorSettings, ConfigFacts)> {
        let path = self.config.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let file = path.display().to_string();
        match self.config.load_with_remarks() {
            Ok(Loaded { config, remarks, .. }) => {
                let problems = file_problems(&config, path);
                Ok((wiring::doctor(&config), ConfigFacts { file, problems, remarks }))
            }
            Err(error) => {
                let settings = DoctorSettings {
                    // A daemon may run with an earlier version of the file, whose socket is mostly the same.
                    socket: socket::find(self.config.config.as_deref())?.path,
                    ..wiring::doctor(&Config::defaults()?)
                };
                let problems = match error {
                    Error::Invalid { problems, .. } => problems,
                    other => vec![other.to_string()],
                };
                let remarks =
                    vec!["the checks below go by the defaults, because of errors in the file".to_owned()];
                Ok((settings, ConfigFacts { file, problems, remarks }))
            }
        }
    }
}

fn count(findings: &[Finding], verdict: Verdict) -> usize {
    findings.iter().filter(|finding| finding.verdict == verdict).count()
}

fn write_json(out: &mut impl Write, findings: &[Finding]) -> anyhow::Result<()> {
    let report = DoctorReport {
        version: env!("CARGO_PKG_VERSION"),
        faults: count(findings, Verdict::Fault),
        warnings: count(findings, Verdict::Warning),
        skipped: count(findings, Verdict::Skipped),
        findings,
    };
    serde_json::to_writer_pretty(&mut *out, &report).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Writes one line for each finding, and below it what mends it.
fn write(out: &mut impl Write, findings: &[Finding], all: bool) -> io::Result<()> {
    let is_shown = |finding: &&Finding| all || finding.verdict >= Verdict::Warning;
    for finding in findings.iter().filter(is_shown) {
        let Finding { check, verdict, what, place, mend } = finding;
        let place = if place.is_empty() { String::new() } else { format!(" ({place})") };
        line(out, format_args!("{:<8} {check}{place}: {what}", verdict.word()))?;
        if let Some(mend) = mend {
            line(out, format_args!("         mend: {mend}"))?;
        }
    }
    let [faults, warnings, skipped] =
        [Verdict::Fault, Verdict::Warning, Verdict::Skipped].map(|verdict| count(findings, verdict));
    let hint = if all || skipped == 0 { "" } else { " (--verbose shows them)" };
    writeln!(out, "faults: {faults}, warnings: {warnings}, skipped: {skipped}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fine_is_shown_on_demand_only() {
        let findings = [
            Finding::ok("kernel", "Linux 6.1"),
            Finding::skipped("mtu", "not root"),
            Finding::warning("rp_filter", "drops").at("eth0").mended_by("sysctl -w a=2"),
            Finding::fault("source", "refused: \u{1b}[2J\nok everything"),
        ];
        let shown = |all| {
            let mut out = Vec::new();
            write(&mut out, &findings, all).unwrap();
            String::from_utf8(out).unwrap()
        };
        insta::assert_snapshot!(shown(false), @r"
        warning  rp_filter (eth0): drops
                 mend: sysctl -w a=2
        fault    source: refused: \u{1b}[2J\u{a}ok everything
        faults: 1, warnings: 1, skipped: 1 (--verbose shows them)
        ");
        assert_eq!(shown(true).lines().count(), shown(false).lines().count() + 2);
    }

    #[test]
    fn json_has_the_names_of_its_fields_for_ever() {
        let mut out = Vec::new();
        write_json(
            &mut out,
            &[Finding::fault("source", "refused").at("source.masters").mended_by("start it")],
        )
        .unwrap();
        let report: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(report["faults"], 1);
        let finding = &report["findings"][0];
        for (field, value) in [
            ("check", "source"),
            ("verdict", "fault"),
            ("what", "refused"),
            ("where", "source.masters"),
            ("mend", "start it"),
        ] {
            assert_eq!(finding[field], value, "{field}");
        }
    }

    #[test]
    fn a_broken_configuration_is_a_finding_and_the_socket_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("l4lbd.toml");
        std::fs::write(&file, "[vips]\nmax = 0\n[daemon]\nsocket = \"/run/other.sock\"\n").unwrap();
        let args = Args {
            config: ConfigFile { config: Some(file) },
            socket: None,
            connect: None,
            netns: None,
            container: None,
            verbose: false,
            json: false,
        };
        let (settings, config) = args.load().unwrap();
        assert_eq!(settings.socket, Path::new("/run/other.sock"));
        assert!(config.problems[0].starts_with("vips.max: "), "{:?}", config.problems);
    }
}
