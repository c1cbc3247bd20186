//! The daemon with the rights that its systemd unit gives, and no others: it does all that it does
//! as root, and nobody else can talk to it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::tests;
use crate::toolkit::await_some;
use crate::toolkit::daemon::Daemon;
use crate::toolkit::helper::Outcome;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::host::Host;
use crate::toolkit::kernel::must_be_equal;
use crate::toolkit::lab::{Lab, REMOTE, REMOTE6};
use crate::toolkit::state::{State, Task};
use crate::toolkit::unit::{self, Caller, INSTALLED, PINS, SOCKET, STATE, Unit, systemctl};

tests!["rights":
    ; ipvs:
    service_does_its_work_without_root,
    nobody_else_can_talk_to_it,
    ; machine:
    service_balances_by_sockets_without_root,
    service_ends_connections_of_containers_with_more_rights,
    service_leaves_no_programs_when_it_changes_to_ipvs,
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

/// Requires that the daemon runs as its user, and has exactly the capabilities that the unit lists.
fn must_have_rights_of(unit: &Unit) -> Result<()> {
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
    Ok(())
}

fn service_does_its_work_without_root() -> Result<()> {
    let unit = Unit::install()?;
    let lab = lab()?;
    for key in SYSCTLS {
        lab.agent.sysctl(key, "0")?;
    }
    let daemon = unit.start(&lab, &state())?;

    must_have_rights_of(&unit)?;

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

    must_not_complain_of_programs(&lab)?;

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

fn ebpf_lab() -> Result<Lab> {
    let mut lab = lab()?;
    lab.remote.serve("192.168.50.2:8081", "B2")?;
    lab.pins = PathBuf::from(PINS);
    Ok(lab)
}

/// `web` has another server, and the time of the first one's connections is over.
fn move_web(lab: &Lab, daemon: &Daemon<'_>) -> Result<()> {
    lab.publish(&State::of([Task::host("web-2", REMOTE, 8081).vip("/web:80")]))?;
    daemon
        .await_status("the new server alone", |status| {
            status.vip("web", 80).is_some_and(|vip| vip.backends.len() == 1 && vip.backends[0].port == 8081)
        })
        .map(drop)
}

/// The ids of all that is pinned in the kernel: nothing that was made anew has its old one.
fn pinned(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    for kind in ["map", "link"] {
        let list: Vec<serde_json::Value> =
            serde_json::from_str(&lab.agent.run(&["bpftool", "-f", "-j", kind, "show"])?)?;
        for object in list {
            let pins = object["pinned"].as_array().into_iter().flatten();
            for pin in pins.filter_map(|pin| pin.as_str()?.strip_prefix(PINS)) {
                text += &format!("{pin} {kind} {}\n", object["id"]);
            }
        }
    }
    Ok(text)
}

fn service_balances_by_sockets_without_root() -> Result<()> {
    let unit = Unit::install_with(&["ebpf.conf"])?;
    let lab = ebpf_lab()?;
    // As root leaves it who has run the daemon by hand.
    fs::create_dir_all(lab.pins.join("v1"))?;
    let daemon = unit.start(&lab, &state())?;
    must_have_rights_of(&unit)?;
    daemon.await_dns()?;
    daemon.await_status("a status without complaints", |status| !status.degraded)?;
    let (web, six) = (daemon.socket_of("web", 80)?, daemon.socket_of("six", 80)?);
    for host in [&lab.agent, lab.container(11)] {
        host.must_reach(Tcp, web, "B")?;
    }
    lab.agent.must_reach(Tcp, six, "B6")?;
    let wanted = access(0o700, unit.user, unit.group);
    let found = access_of(&lab.pins)?;
    ensure!(found == wanted, "the pins: {found} instead of {wanted}");
    let found = access_of(Path::new("/sys/fs/bpf"))?;
    ensure!(
        found.contains("mode 0700, user 0,") || found.contains("mode 1700, user 0,"),
        "/sys/fs/bpf: {found}"
    );

    // The next one takes over what is there.
    let kept = [lab.agent.keep(web)?, lab.container(11).keep(web)?];
    let (before, pins, process) = (lab.snapshot()?, pinned(&lab)?, unit::process()?);
    ensure!(pins.lines().count() >= 6, "wanted maps and links: {pins}");
    systemctl(&["kill", "-s", "KILL", "l4lbd"])?;
    await_some(
        "another process",
        || Ok((unit::process().is_ok_and(|other| other != process)).then_some(())),
    )?;
    await_some("the next daemon's first pass", || {
        Ok(daemon.status().is_ok_and(|status| !status.vips.is_empty() && !status.degraded).then_some(()))
    })?;
    must_have_rights_of(&unit)?;
    must_be_equal(&before, &lab.snapshot()?, "after the daemon was killed and started again")?;
    must_be_equal(&pins, &pinned(&lab)?, "after the daemon was killed and started again")?;
    for connection in &kept {
        connection.must_live()?;
    }
    lab.agent.must_reach(Tcp, web, "B")?;

    // Somebody takes programs and pins away.
    fs::remove_file(lab.pins.join("v1/vips"))?;
    let links = pins.lines().filter(|line| line.contains(" link "));
    for id in links.filter_map(|line| line.rsplit(' ').next()) {
        lab.agent.run(&["bpftool", "link", "detach", "id", id])?;
    }
    await_some("all is attached and pinned again", || {
        let again = pinned(&lab)?;
        Ok((again.lines().count() == pins.lines().count() && again != pins).then_some(()))
    })?;
    lab.container(11).must_reach(Tcp, web, "B")?;

    // Connections in the node's own network are ended at the deadline, those in others are not.
    move_web(&lab, &daemon)?;
    let outcome = kept[0].ask()?;
    ensure!(outcome == Outcome::Reset, "wanted a reset at once, got {outcome:?}");
    kept[1].must_live()?;
    lab.agent.must_reach(Tcp, web, "B2")?;

    let before = lab.snapshot()?;
    systemctl(&["stop", "l4lbd"])?;
    must_be_equal(&before, &lab.snapshot()?, "after the service was stopped")?;
    for host in [&lab.agent, lab.container(11)] {
        host.must_reach(Tcp, web, "B2")?;
    }
    lab.agent.run(&[INSTALLED, "purge"])?;
    ensure!(!lab.pins.exists() && pinned(&lab)?.is_empty(), "something stays in {PINS}");
    Ok(())
}

fn service_ends_connections_of_containers_with_more_rights() -> Result<()> {
    let unit = Unit::install_with(&["ebpf.conf", "ebpf-containers.conf"])?;
    let lab = ebpf_lab()?;
    let daemon = unit.start(&lab, &state())?;
    must_have_rights_of(&unit)?;
    let web = daemon.socket_of("web", 80)?;
    let mut inhabitant = unit::inhabit(lab.container(11))?;
    let kept = lab.container(11).keep(web)?;
    move_web(&lab, &daemon)?;
    let outcome = kept.ask()?;
    inhabitant.kill()?;
    inhabitant.wait()?;
    ensure!(outcome == Outcome::Reset, "wanted a reset at once, got {outcome:?}");
    lab.container(11).must_reach(Tcp, web, "B2")?;
    Ok(())
}

/// With the drop-in still there; the directory for the pins stays, because it is a mount of the service's.
fn service_leaves_no_programs_when_it_changes_to_ipvs() -> Result<()> {
    let unit = Unit::install_with(&["ebpf.conf"])?;
    let lab = ebpf_lab()?;
    let daemon = unit.start(&lab, &state())?;
    let web = daemon.socket_of("web", 80)?;
    lab.agent.must_reach(Tcp, web, "B")?;
    let config = fs::read_to_string(unit::CONFIG)?;
    fs::write(unit::CONFIG, config.replace("\"ebpf\"", "\"ipvs\""))?;
    systemctl(&["restart", "l4lbd"])?;
    await_some("the programs go", || Ok(pinned(&lab)?.is_empty().then_some(())))?;
    ensure!(fs::read_dir(&lab.pins)?.next().is_none(), "something stays in {PINS}");
    ensure!(lab.agent.services()?.len() == 6, "IPVS has {:?}", lab.agent.services()?);
    for host in [&lab.agent, lab.container(11)] {
        host.must_reach(Tcp, web, "B")?;
    }
    systemctl(&["restart", "l4lbd"])?;
    must_not_complain_of_programs(&lab)
}

/// Neither where there are none nor where it may not look.
fn must_not_complain_of_programs(lab: &Lab) -> Result<()> {
    let log = fs::read_to_string(lab.path("daemon.log"))?;
    let alarm = log.lines().find(|line| line.contains("ERROR") && line.contains("earlier run"));
    ensure!(alarm.is_none(), "the daemon complains: {alarm:?}");
    Ok(())
}

fn must_be_one(host: &Host, key: &str, when: &str) -> Result<()> {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    let value = host.run(&["cat", &path])?;
    ensure!(value.trim() == "1", "{key} is {} {when}", value.trim());
    Ok(())
}
