//! The host's side: boots the machines for the selected tests and hands each result to its own trial.
//!
//! An emulated machine can freeze as a whole, so that no program in it runs any more. One that says
//! nothing for longer than any test may take is ended, and another one takes the remaining tests. A
//! test during which two machines froze has failed.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use l4lbd::dataplane::ebpf::cgroup_tree;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::guest::{self, Report};
use crate::suite::{self, Test};

const VM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rig/vm");

/// Whose kernel the machines have; where it is set, no test runs on this one's.
const RELEASE: &str = "L4LBD_RIG_RELEASE";

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
    let selected: Vec<Test> = suite::all().filter(|test| is_selected(test.name, &arguments)).collect();
    let machines = Machines::new(selected);
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
    shares: Vec<Share>,
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

/// Tests that run one after the other, and where.
#[derive(Debug, Clone)]
struct Share {
    place: Place,
    tests: Vec<String>,
}

impl Machines {
    fn new(selected: Vec<Test>) -> Arc<Self> {
        let elsewhere = std::env::var_os(RELEASE).is_some_and(|release| !release.is_empty());
        let (emulated, here): (Vec<Test>, Vec<Test>) =
            selected.into_iter().partition(|test| test.emulated || elsewhere);
        let share = |place, tests: &[Test], first, step| Share {
            place,
            tests: tests.iter().skip(first).step_by(step).map(|test| test.name.to_owned()).collect(),
        };
        let machines = (0..AT_ONCE).map(|first| share(Place::Machine, &emulated, first, AT_ONCE));
        let shares = machines.chain([share(Place::Here, &here, 0, 1)]);
        let shares = shares.filter(|share| !share.tests.is_empty()).collect();
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
    fn run(&self, share: &Share) {
        let mut reason = String::new();
        let mut frozen_in: Option<String> = None;
        for _ in 0..ATTEMPTS {
            let remaining = self.remaining(&share.tests);
            let Some(next) = remaining.first() else { break };
            if frozen_in.as_ref() == Some(next) {
                self.file(Report::failed(
                    next,
                    "the machine froze in this test, and so did the next machine",
                ));
                continue;
            }
            reason = match self.follow(share.place, &remaining) {
                Ok(End::Exited(status)) => {
                    format!("the machine ended with {status} before this test did; its output is above")
                }
                Ok(End::Frozen) => "the machine froze before this test; its output is above".into(),
                Err(error) => format!("no place for tests: {error}"),
            };
            let Some(unfinished) = self.remaining(&share.tests).first().cloned() else { break };
            eprintln!("guest: {reason} ({unfinished})");
            frozen_in = Some(unfinished);
        }
        for name in self.remaining(&share.tests) {
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
    fn follow(&self, place: Place, tests: &[String]) -> std::io::Result<End> {
        let group = Group::new(place)?;
        let mut child = place
            .enter(&group)
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

/// Where tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// An emulated machine with Debian's kernel, because few kernels have IPVS, and what a service
    /// manager makes of a node is not for this one.
    Machine,
    /// This machine, in namespaces and a cgroup of its own: nearly every kernel has eBPF.
    Here,
}

impl Place {
    fn enter(self, group: &Group) -> Command {
        let mut command = match self {
            Self::Machine => {
                let mut command = Command::new(VM);
                command.args(["--mem", "2048", "--timeout", LIMIT]);
                command
            }
            Self::Here => {
                let mut command = Command::new("unshare");
                command.args(["--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]);
                command
            }
        };
        command.arg("env").arg(format!("{}={}", guest::VARIABLE, group.name()));
        command
    }
}

/// The cgroup of tests on this machine; it goes when they have ended.
struct Group(Option<PathBuf>);

impl Group {
    fn new(place: Place) -> std::io::Result<Self> {
        if place == Place::Machine {
            return Ok(Self(None));
        }
        let tree = cgroup_tree().ok_or_else(|| {
            std::io::Error::other("no cgroup v2 tree (try: mount -t cgroup2 none /sys/fs/cgroup)")
        })?;
        let group = tree.join(format!("l4lbd-test-{}", std::process::id()));
        fs::create_dir_all(&group)?;
        Ok(Self(Some(group)))
    }

    fn name(&self) -> String {
        self.0.as_ref().map_or_else(|| guest::MACHINE.to_owned(), |group| group.display().to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(group) = &self.0 else { return };
        // The kernel lets go of its last process a moment after that has ended.
        for _ in 0..100 {
            if fs::remove_dir(group).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} is left behind", group.display());
    }
}

enum End {
    Exited(ExitStatus),
    Frozen,
}
