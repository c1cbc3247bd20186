//! The guest's side: runs the named tests one after the other in this kernel and prints a
//! [`Report`] for each.

use std::fs;
use std::io::Write;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::suite::{self, Test};
use crate::toolkit::{lab, plane};

/// Set in the guest, with the names of the tests as arguments: [`MACHINE`], or the cgroup to be in.
pub const VARIABLE: &str = "L4LBD_GUEST";

/// Says that this machine is there for the tests alone.
pub const MACHINE: &str = "machine";

/// A test that takes longer hangs, and is left behind so that the others get their turn.
pub const LIMIT: Duration = Duration::from_secs(120);

/// What the kernel must have before any test makes sense. Everything else the daemon has to load by itself.
const MODULES: &[&str] = &["ip_vs", "veth", "bridge", "br_netfilter"];

#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub name: String,
    pub failure: Option<String>,
    pub milliseconds: u128,
}

impl Report {
    pub fn failed(name: &str, text: &str) -> Self {
        Self { name: name.into(), failure: Some(text.into()), milliseconds: 0 }
    }
}

pub fn run(names: &[String]) -> ExitCode {
    if let Err(reason) = prepare() {
        eprintln!("guest: {reason}");
        return ExitCode::FAILURE;
    }
    panic::set_hook(Box::new(|info| eprintln!("guest: {info}")));
    for test in suite::all().filter(|test| names.iter().any(|name| name == test.name)) {
        let report = run_one(test);
        eprintln!("guest: {} took {} ms", report.name, report.milliseconds);
        let line = serde_json::to_string(&report).expect("a report is plain data");
        println!("{line}");
        let _ = std::io::stdout().flush();
    }
    ExitCode::SUCCESS
}

/// The cgroup that everything is in; `None` where the whole machine is the tests'.
pub fn cgroup() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|value| value != MACHINE).map(PathBuf::from)
}

fn prepare() -> Result<(), String> {
    match cgroup() {
        Some(group) => settle(&group),
        None => load_modules(),
    }?;
    lab::prepare().map_err(|error| format!("{error:#}"))
}

/// Leaves the machine's own /run alone, which names its network namespaces.
fn settle(group: &Path) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{}: {error}", group.display());
    fs::write(group.join("cgroup.procs"), "0").map_err(told)?;
    let mount = Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).status();
    match mount.is_ok_and(|status| status.success()) {
        true => Ok(()),
        false => Err("cannot mount a /run for the tests".into()),
    }
}

fn load_modules() -> Result<(), String> {
    for module in MODULES {
        let loaded = Command::new("modprobe").arg(module).status().is_ok_and(|status| status.success());
        if !loaded {
            return Err(format!(
                "this kernel has no module {module}: the tests need one with IPVS and bridges"
            ));
        }
    }
    if !Path::new("/proc/net/ip_vs").exists() {
        return Err("this kernel has no IPVS (/proc/net/ip_vs is missing)".into());
    }
    Ok(())
}

fn run_one(test: Test) -> Report {
    let started = Instant::now();
    let (sender, receiver) = mpsc::channel();
    let worker = thread::Builder::new().name(test.name.into()).spawn(move || {
        plane::set(test.plane);
        let outcome = panic::catch_unwind(test.run);
        let failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(told(&error)),
            Err(payload) => Some(text_of(&*payload)),
        };
        let _ = sender.send(failure);
    });
    let failure = match worker {
        Err(error) => Some(format!("no thread for the test: {error}")),
        Ok(_) => receiver
            .recv_timeout(LIMIT)
            .unwrap_or_else(|_| Some(format!("did not end in {} s", LIMIT.as_secs()))),
    };
    let failure = failure.map(|text| match lab::take_last_words(test.name) {
        words if words.is_empty() => text,
        words => format!("{text}\n{words}"),
    });
    Report { name: test.name.into(), failure, milliseconds: started.elapsed().as_millis() }
}

/// The error and its causes, one below the other.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\n  because ")
}

fn text_of(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked".into())
}
