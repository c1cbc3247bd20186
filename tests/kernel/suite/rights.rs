//! The daemon with the rights that its systemd unit gives, and no others: it does all that it does
//! as root, and nobody else can talk to it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::tests;
use crate::toolkit::await_some;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::host::Host;
use crate::toolkit::kernel::must_be_equal;
use crate::toolkit::lab::{Lab, REMOTE, REMOTE6};
use crate::toolkit::state::{State, Task};
use crate::toolkit::unit::{self, Caller, SOCKET, STATE, Unit, systemctl};

tests!["rights":
    ; ipvs:
    service_does_its_work_without_root,
    nobody_else_can_talk_to_it,
];

/// Settings of a namespace's own that the daemon needs to be 1, and that root owns.
const SYSCTLS: &[&str] = &[
    "net.ipv4.vs.conntrack",
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.expire_quiescent_template",
    "net.ipv4.ip_forward",
];

fn state() -> State {
    State::of([
        Task::host("web", REMOTE, 8080).vip("/web:80"),
        Task::container("six", REMOTE, REMOTE6, 8080).vip("/six:80"),
        Task::host("dns", REMOTE, 5353).udp().vip("/dns:53"),
    ])
}

fn lab() -> Result<Lab> {
    let lab = Lab::with_containers(&[11])?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    lab.remote.serve(&format!("[{REMOTE6}]:8080"), "B6")?;
    Ok(lab)
}

/// One value of a process's `/proc/PID/status`.
fn of_process(process: u32, key: &str) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    Ok(value.with_context(|| format!("process {process} has no {key}"))?.trim().to_owned())
}

/// Mode and owners of a file, readable in a failure.
fn access(mode: u32, user: u32, group: u32) -> String {
    format!("mode {mode:04o}, user {user}, group {group}")
}

fn access_of(path: &Path) -> Result<String> {
    let metadata = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    Ok(access(metadata.mode() & 0o7777, metadata.uid(), metadata.gid()))
}

fn service_does_its_work_without_root() -> Result<()> {
    let unit = Unit::install()?;
    let lab = lab()?;
    for key in SYSCTLS {
        lab.agent.sysctl(key, "0")?;
    }
    let daemon = unit.start(&lab, &state())?;

    let process = unit::process()?;
    for (key, id) in [("Uid", unit.user), ("Gid", unit.group)] {
        let ids = of_process(process, key)?;
        ensure!(ids.split_whitespace().all(|own| own == id.to_string()), "{key} of the daemon: {ids}");
    }
    let groups = of_process(process, "Groups")?;
    ensure!(groups == unit.group.to_string(), "groups of the daemon: {groups}");
    ensure!(of_process(process, "NoNewPrivs")? == "1", "the daemon may get new privileges");
    let ambient = unit.capabilities("AmbientCapabilities")?;
    let bounding = unit.capabilities("CapabilityBoundingSet")?;
    let sets = [
        ("CapEff", ambient),
        ("CapPrm", ambient),
        ("CapInh", ambient),
        ("CapAmb", ambient),
        ("CapBnd", bounding),
    ];
    for (key, wanted) in sets {
        let set = of_process(process, key)?;
        ensure!(set == format!("{wanted:016x}"), "{key} of the daemon is {set} instead of {wanted:016x}");
    }

    daemon.await_dns()?;
    let fine = daemon.await_status("a status without complaints", |status| !status.degraded)?;
    let (web, six) = (daemon.socket_of("web", 80)?, daemon.socket_of("six", 80)?);
    ensure!(fine.vips.len() == 3, "wanted three VIPs: {}", fine.text);
    let name = "web.marathon.l4lb.thisdcos.directory";
    for host in [&lab.agent, lab.container(11)] {
        let answer = host.run(&["dig", "@198.51.100.1", "+short", "+time=15", "+norecurse", name, "A"])?;
        ensure!(answer.trim() == web.ip().to_string(), "{} gets {answer:?} for {name}", host.name);
        host.must_reach(Tcp, web, "B")?;
    }
    lab.agent.must_reach(Tcp, six, "B6")?;

    // What somebody else changes is mended with the same rights: files of root's, rules, a route.
    for key in SYSCTLS {
        must_be_one(&lab.agent, key, "after the start")?;
        lab.agent.sysctl(key, "0")?;
    }
    lab.agent.run_line("nft delete table inet l4lbd")?;
    lab.agent.run_line("ip link delete minuteman")?;
    lab.agent.ipvsadm("-C")?;
    await_some("everything is mended", || {
        let mended = lab.agent.run_line("nft list table inet l4lbd").is_ok()
            && SYSCTLS.iter().all(|key| must_be_one(&lab.agent, key, "").is_ok())
            && lab.agent.services()?.len() == 6;
        Ok(mended.then_some(()))
    })?;
    daemon.await_status("a status without complaints again", |status| !status.degraded)?;
    lab.agent.must_reach(Tcp, web, "B")?;
    lab.container(11).must_reach(Tcp, web, "B")?;

    // What it keeps on disk is its own, and nobody else's.
    let wanted = access(0o666 & !unit.mode("UMask")?, unit.user, unit.group);
    let files: Vec<_> = fs::read_dir(STATE)?.collect::<Result<_, _>>()?;
    ensure!(!files.is_empty(), "nothing is kept on disk");
    for file in files {
        let kept = access_of(&file.path())?;
        ensure!(kept == wanted, "{}: {kept} instead of {wanted}", file.path().display());
    }
    let found = access_of(Path::new(STATE))?;
    let wanted = access(unit.mode("StateDirectoryMode")?, unit.user, unit.group);
    ensure!(found == wanted, "the state directory: {found} instead of {wanted}");

    let before = lab.snapshot()?;
    systemctl(&["stop", "l4lbd"])?;
    must_be_equal(&before, &lab.snapshot()?, "after the service was stopped")?;
    ensure!(!Path::new(SOCKET).exists(), "the socket stays behind");
    lab.agent.must_reach(Tcp, web, "B")?;
    Ok(())
}

/// Its group may ask for the status, anybody may look up names, and that is all.
fn nobody_else_can_talk_to_it() -> Result<()> {
    let unit = Unit::install()?;
    let lab = lab()?;
    let daemon = unit.start(&lab, &state())?;
    daemon.await_status("a status without complaints", |status| !status.degraded)?;
    let socket = Path::new(SOCKET);
    let directory = socket.parent().context("a directory")?;
    for (path, mode) in [(socket, 0o660), (directory, unit.mode("RuntimeDirectoryMode")?)] {
        let (found, wanted) = (access_of(path)?, access(mode, unit.user, unit.group));
        ensure!(found == wanted, "{}: {found} instead of {wanted}", path.display());
    }
    for (who, caller) in [("the daemon's user", Caller::Daemon), ("a member of the group", Caller::Member)] {
        let (exit, text) = unit.ask_as(&caller)?;
        ensure!(exit == Some(0) && text.contains("web.marathon"), "{who} asks: {exit:?} {text}");
    }
    // Once by the directory that the service manager makes, and once by the socket alone.
    for mode in [unit.mode("RuntimeDirectoryMode")?, 0o755] {
        fs::set_permissions(directory, fs::Permissions::from_mode(mode))?;
        let (exit, text) = unit.ask_as(&Caller::Stranger)?;
        ensure!(
            exit == Some(1) && text.contains("no permission to use") && !text.contains("web.marathon"),
            "a stranger asks, with the directory's mode {mode:o}: {exit:?} {text}"
        );
    }
    daemon.await_dns()?;
    listens_for_names_and_the_status_alone(&lab)
}

fn listens_for_names_and_the_status_alone(lab: &Lab) -> Result<()> {
    // 198.51.100.1:53, as the kernel writes it.
    let dns = "016433C6:0035";
    for (protocol, state, wanted) in [
        ("tcp", "0A", &[dns][..]),
        ("udp", "07", &[dns]),
        ("tcp6", "0A", &[]),
        ("udp6", "07", &[]),
        ("raw", "07", &[]),
        ("raw6", "07", &[]),
    ] {
        let sockets = lab.agent.run(&["cat", &format!("/proc/net/{protocol}")])?;
        let bound: Vec<&str> = sockets
            .lines()
            .filter_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                (words.get(3) == Some(&state)).then(|| words[1])
            })
            .collect();
        ensure!(bound == wanted, "{protocol}: {bound:?} instead of {wanted:?} in\n{sockets}");
    }
    let sockets = lab.agent.run(&["cat", "/proc/net/packet"])?;
    ensure!(sockets.lines().count() == 1, "somebody reads packets: {sockets}");
    // Flags with __SO_ACCEPTCON: sockets that others may connect to, those of systemd aside.
    let sockets = lab.agent.run(&["cat", "/proc/net/unix"])?;
    let listening: Vec<&str> = sockets
        .lines()
        .filter(|line| line.split_whitespace().nth(3) == Some("00010000"))
        .filter_map(|line| line.split_whitespace().nth(7))
        .filter(|path| !path.starts_with("/run/systemd/"))
        .collect();
    ensure!(listening == [SOCKET], "wanted {SOCKET} alone: {listening:?}");
    Ok(())
}

fn must_be_one(host: &Host, key: &str, when: &str) -> Result<()> {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    let value = host.run(&["cat", &path])?;
    ensure!(value.trim() == "1", "{key} is {} {when}", value.trim());
    Ok(())
}
