//! The registration with systemd-resolved, on a bus of its own: resolved and polkit are names on it, and
//! `resolvectl` is a script that notes its calls.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use l4lbd::dns::DnsState;
use l4lbd::dns::resolved::{self, Resolved, ResolvedSettings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longest wait for calls that an event leads to: half of the time after which they are repeated anyhow.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bus {
    process: Child,
    address: String,
}

impl Bus {
    fn start(directory: &Path) -> Self {
        let config = directory.join("bus.conf");
        let text = format!(
            "<busconfig><type>custom</type><listen>unix:path={}/bus</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            directory.display()
        );
        fs::write(&config, text).unwrap();
        let mut process = Command::new("dbus-daemon")
            .args(["--nofork", "--print-address", "--config-file"])
            .arg(&config)
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon is not installed: run tests/setup");
        let mut address = String::new();
        // It prints the address when it listens.
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { process, address: address.trim().to_owned() }
    }

    /// A service that owns `name` until it is dropped.
    async fn own(&self, name: &str) -> zbus::Connection {
        let builder = zbus::connection::Builder::address(self.address.as_str()).unwrap();
        let connecting = builder.name(name.to_owned()).unwrap().build();
        tokio::time::timeout(PATIENCE, connecting).await.expect("an answer of the bus").unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes a program in the place of `resolvectl`, and returns it with the file in which it notes its calls.
fn resolvectl(directory: &Path) -> (PathBuf, PathBuf) {
    let (program, calls) = (directory.join("resolvectl"), directory.join("calls"));
    fs::write(&program, format!("#!/bin/sh\necho \"$@\" >>{}\n", calls.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (program, calls)
}

/// Number of registrations so far, each of which ends with this call.
fn registrations(calls: &Path) -> usize {
    let text = fs::read_to_string(calls).unwrap_or_default();
    text.lines().filter(|line| line.starts_with("default-route ")).count()
}

/// Waits for more registrations than `before`, and then until there are no more of them.
async fn registered_again(calls: &Path, before: usize, event: &str) -> usize {
    let more = async {
        while registrations(calls) <= before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, more)
        .await
        .unwrap_or_else(|_| panic!("resolved is not told after {event}"));
    settled(calls).await
}

/// Waits until a second has passed without a registration.
async fn settled(calls: &Path) -> usize {
    loop {
        let before = registrations(calls);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if registrations(calls) == before {
            return before;
        }
    }
}

#[tokio::test]
async fn resolved_is_told_again_when_it_or_polkit_appears() {
    let directory = tempfile::tempdir().unwrap();
    let bus = Bus::start(directory.path());
    let (program, calls) = resolvectl(directory.path());
    let resolve1 = bus.own("org.freedesktop.resolve1").await;
    let settings = ResolvedSettings {
        mode: Resolved::On,
        link: "lo".to_owned(),
        domains: ["mesos".to_owned()].into(),
        program,
        bus: Some(bus.address.clone()),
    };
    let listening = DnsState { addresses: vec!["198.51.100.1:53".parse().unwrap()], ..DnsState::default() };
    let (publisher, _states) = watch::channel(listening);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(resolved::run(settings, publisher, shutdown.clone()));
    let first = registered_again(&calls, 0, "the start").await;

    // polkit starts on demand, and resolved anew.
    let polkit = bus.own("org.freedesktop.PolicyKit1").await;
    let second = registered_again(&calls, first, "the start of polkit").await;
    drop(resolve1);
    let resolve1 = bus.own("org.freedesktop.resolve1").await;
    let third = registered_again(&calls, second, "a new resolved").await;
    // Names that nothing here depends on, and ends of services, are no events.
    let _other = bus.own("org.example.Other").await;
    drop((polkit, resolve1));
    assert_eq!(settled(&calls).await, third);

    shutdown.cancel();
    running.await.unwrap();
    let said = fs::read_to_string(&calls).unwrap();
    assert!(said.ends_with("revert lo\n"), "{said}");
}
