//! The host's side: boots the machines for the selected tests and hands each result to its own trial.
//!
//! An emulated machine can freeze as a whole, so that no program in it runs any more. One that says
//! nothing for longer than any test may take is ended, and another one takes the remaining tests. A
//! test during which two machines froze has failed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::guest::{self, Report};
use crate::suite;

const VM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rig/vm");

/// Seconds that one machine may run: it is ended then.
const LIMIT: &str = "1200";

/// Longer than [`guest::LIMIT`]: a machine that is alive has said something by then.
const SILENCE: Duration = Duration::from_secs(150);

/// How many machines share the tests: each has one processor.
const AT_ONCE: usize = 2;

/// How many machines a share may use up.
const ATTEMPTS: usize = 3;

pub fn run() -> ExitCode {
    let arguments = Arguments::from_args();
    let selected: Vec<String> = suite::all()
        .map(|test| test.name)
        .filter(|name| is_selected(name, &arguments))
        .map(String::from)
        .collect();
    let machines = Machines::new(&selected);
    let trials = suite::all()
        .map(|test| {
            let machines = Arc::clone(&machines);
            Trial::test(test.name, move || machines.result_of(test.name))
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    machines.await_end();
    conclusion.exit_code()
}

/// The filter of `cargo test`: the guest has to be told beforehand what will be asked of it.
fn is_selected(name: &str, arguments: &Arguments) -> bool {
    let matches = |pattern: &String| {
        if arguments.exact { name == pattern } else { name.contains(pattern) }
    };
    arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
}

/// The virtual machines, booted when the first result is asked for.
struct Machines {
    /// The tests of each machine.
    shares: Vec<Vec<String>>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    started: bool,
    /// Shares that are not done.
    running: usize,
    reports: HashMap<String, Report>,
}

impl Machines {
    fn new(selected: &[String]) -> Arc<Self> {
        let share = |first| selected.iter().skip(first).step_by(AT_ONCE).cloned().collect();
        let shares = (0..AT_ONCE).map(share).filter(|share: &Vec<String>| !share.is_empty()).collect();
        Arc::new(Self { shares, progress: Mutex::default(), changed: Condvar::new() })
    }

    fn result_of(self: &Arc<Self>, name: &str) -> Result<(), Failed> {
        let mut progress = self.progress.lock().unwrap();
        if !progress.started {
            progress.started = true;
            progress.running = self.shares.len();
            for number in 0..self.shares.len() {
                let machines = Arc::clone(self);
                thread::spawn(move || machines.run(&machines.shares[number]));
            }
        }
        let progress = self
            .changed
            .wait_while(progress, |progress| progress.running > 0 && !progress.reports.contains_key(name))
            .unwrap();
        let report = progress.reports.get(name).ok_or("no machine has run this test")?;
        report.failure.clone().map_or(Ok(()), |text| Err(Failed::from(text)))
    }

    /// Returns when no machine runs.
    fn await_end(&self) {
        drop(
            self.changed.wait_while(self.progress.lock().unwrap(), |progress| progress.running > 0).unwrap(),
        );
    }

    /// Runs a share of the tests, on one machine after the other if need be.
    fn run(&self, share: &[String]) {
        let mut reason = String::new();
        let mut frozen_in: Option<String> = None;
        for _ in 0..ATTEMPTS {
            let remaining = self.remaining(share);
            let Some(next) = remaining.first() else { break };
            if frozen_in.as_ref() == Some(next) {
                self.file(Report::failed(
                    next,
                    "the machine froze in this test, and so did the next machine",
                ));
                continue;
            }
            reason = match self.follow(&remaining) {
                Ok(End::Exited(status)) => {
                    format!("the machine ended with {status} before this test did; its output is above")
                }
                Ok(End::Frozen) => "the machine froze before this test; its output is above".into(),
                Err(error) => format!("{VM} cannot be run: {error}"),
            };
            let Some(unfinished) = self.remaining(share).first().cloned() else { break };
            eprintln!("guest: {reason} ({unfinished})");
            frozen_in = Some(unfinished);
        }
        for name in self.remaining(share) {
            self.file(Report::failed(&name, &format!("no result: {reason}")));
        }
        self.progress.lock().unwrap().running -= 1;
        self.changed.notify_all();
    }

    /// The tests of a share without a report, in the order in which a machine runs them.
    fn remaining(&self, share: &[String]) -> Vec<String> {
        let progress = self.progress.lock().unwrap();
        share.iter().filter(|name| !progress.reports.contains_key(*name)).cloned().collect()
    }

    fn file(&self, report: Report) {
        self.progress.lock().unwrap().reports.insert(report.name.clone(), report);
        self.changed.notify_all();
    }

    /// Runs the machine to its end and files every report as it comes. Other output is for whoever
    /// reads along.
    fn follow(&self, tests: &[String]) -> std::io::Result<End> {
        let mut child = Command::new(VM)
            .args(["--mem", "2048", "--timeout", LIMIT])
            .arg("env")
            .arg(format!("{}=1", guest::VARIABLE))
            .arg(std::env::current_exe()?)
            .args(tests)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().expect("the output is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        loop {
            match lines.recv_timeout(SILENCE) {
                Ok(line) => match serde_json::from_str::<Report>(&line) {
                    Ok(report) => self.file(report),
                    Err(_) => eprintln!("guest: {line}"),
                },
                Err(RecvTimeoutError::Disconnected) => return child.wait().map(End::Exited),
                Err(RecvTimeoutError::Timeout) => {
                    // SIGTERM, so that the script ends its machine and tells what that said last.
                    Command::new("kill").arg(child.id().to_string()).status()?;
                    child.wait()?;
                    return Ok(End::Frozen);
                }
            }
        }
    }
}

enum End {
    Exited(ExitStatus),
    Frozen,
}
