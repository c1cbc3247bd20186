//! `l4lbd doctor`: each thing that is broken is named, with the command that mends it, and a connection is walked to
//! the task that answers.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::tests;
use crate::toolkit::daemon::{Daemon, PROGRAM};
use crate::toolkit::helper::Transport::{Tcp, Udp};
use crate::toolkit::host::{Host, inside};
use crate::toolkit::lab::{Lab, REMOTE};
use crate::toolkit::master::Behaviour;
use crate::toolkit::state::{State, Task};

tests!["doctor":
    connection_is_walked_to_the_task_that_answers,
    dead_backend_is_named,
    step_that_fails_is_named,
    other_listener_and_route_in_the_range_are_named,
    reverse_path_filter_that_drops_is_named,
    master_that_is_silent_or_refuses_and_its_clock_are_named,
    resolver_that_asks_another_server_first_is_named,
    search_domain_of_a_container_with_musl_is_named,
    hostile_files_of_a_container_are_not_read,
    narrow_links_and_other_programs_are_named,
    ; ipvs:
    services_of_others_are_named,
    firewall_that_denies_is_named_until_its_command_has_run,
];

const NAME: &str = "web.marathon.l4lb.thisdcos.directory";

/// Whom the daemon's resolver asks, and what a container has in its resolver's file.
const OWN: &str = "nameserver 198.51.100.1\n";

#[derive(Debug, Deserialize)]
struct Report {
    faults: usize,
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    check: String,
    verdict: String,
    what: String,
    r#where: String,
    mend: Option<String>,
}

impl Report {
    /// Requires a finding of a check with this text in it.
    fn must_have(&self, check: &str, verdict: &str, text: &str) -> Result<&Finding> {
        let is_it = |finding: &&Finding| {
            finding.check == check
                && finding.verdict == verdict
                && format!("{} {}", finding.r#where, finding.what).contains(text)
        };
        self.findings
            .iter()
            .find(is_it)
            .with_context(|| format!("no {verdict} of {check} with {text:?}: {self:#?}"))
    }

    fn must_not_have(&self, check: &str, verdict: &str) -> Result<()> {
        let found = self.findings.iter().find(|finding| finding.check == check && finding.verdict == verdict);
        ensure!(found.is_none(), "{found:#?}");
        Ok(())
    }
}

/// Runs the command in a host, whatever its exit code is.
fn doctor(lab: &Lab, host: &Host, arguments: &str) -> Result<Report> {
    let config = lab.path("l4lbd.toml");
    let command = format!("{PROGRAM} doctor --json --config {} {arguments}; echo $? >&2", config.display());
    run(host, &command)
}

fn run(host: &Host, command: &str) -> Result<Report> {
    let printed = host.run(&["sh", "-c", command])?;
    serde_json::from_str(&printed).with_context(|| format!("{command}: {printed}"))
}

fn web() -> State {
    State::of([Task::host("web", REMOTE, 8080).vip("/web:80")])
}

fn served(containers: &[u8]) -> Result<Lab> {
    let lab = Lab::with_containers(containers)?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    Ok(lab)
}

/// Runs the daemon until it answers DNS for the VIP.
fn ready(lab: &Lab) -> Result<Daemon<'_>> {
    let daemon = lab.start(&web())?;
    daemon.await_dns()?;
    Ok(daemon)
}

fn connection_is_walked_to_the_task_that_answers() -> Result<()> {
    let lab = served(&[11])?;
    let daemon = ready(&lab)?;
    let vip = daemon.socket_of("web", 80)?;
    let from_node = doctor(&lab, &lab.agent, &format!("--connect {vip}"))?;
    ensure!(from_node.faults == 0, "{from_node:#?}");
    from_node.must_have("service", "ok", &vip.to_string())?;
    from_node.must_have("backend", "ok", "192.168.50.2:8080")?;
    from_node.must_have("connect", "ok", "192.168.50.2:8080, task web, answered in")?;

    // By name, from a container's namespace with a resolver of its own.
    let namespace = &lab.container(11).name;
    let files = Path::new("/etc/netns").join(namespace);
    fs::create_dir_all(&files)?;
    fs::write(files.join("resolv.conf"), OWN)?;
    let walked = doctor(&lab, &lab.agent, &format!("--connect {NAME}:80 --netns /run/netns/{namespace}"));
    fs::remove_dir_all(&files)?;
    // Only if it was not there before.
    let _ = fs::remove_dir("/etc/netns");
    let walked = walked?;
    ensure!(walked.faults == 0, "{walked:#?}");
    walked.must_have("name", "ok", &format!("is {} by 198.51.100.1:53", vip.ip()))?;
    walked.must_have("connect", "ok", "192.168.50.2:8080, task web, answered in")?;
    Ok(())
}

fn dead_backend_is_named() -> Result<()> {
    let lab = served(&[])?;
    let tasks =
        [Task::host("web", REMOTE, 8080).vip("/web:80"), Task::host("dead", REMOTE, 8081).vip("/web:80")];
    let daemon = lab.start(&State::of(tasks))?;
    let vip = daemon.socket_of("web", 80)?;
    let report = doctor(&lab, &lab.agent, &format!("--connect {vip}"))?;
    let dead = report.must_have("backend", "fault", "refused, task dead")?;
    ensure!(dead.r#where == "192.168.50.2:8081", "{dead:?}");
    report.must_have("backend", "ok", "task web")?;
    Ok(())
}

fn step_that_fails_is_named() -> Result<()> {
    let lab = served(&[])?;
    let daemon = ready(&lab)?;
    let vip = daemon.socket_of("web", 80)?;
    let report = doctor(&lab, &lab.agent, &format!("--connect {}:81", vip.ip()))?;
    report.must_have("service", "fault", "there is none at this port; the VIP has tcp 80")?;
    let report = doctor(&lab, &lab.agent, "--connect 11.99.99.99:80")?;
    report.must_have("address", "fault", "no VIP of this node has it")?;
    let report = doctor(&lab, &lab.agent, "--connect other.marathon.l4lb.thisdcos.directory:80")?;
    report.must_have("name", "fault", "no VIP of l4lbd has this name")?;
    for place in ["--netns /nowhere", "--netns /dev/null", "--container 4194304"] {
        let report = doctor(&lab, &lab.agent, &format!("--connect {NAME}:80 {place}"))?;
        report.must_have("name", "fault", "")?;
        ensure!(report.findings.len() == 1, "{report:#?}");
    }
    Ok(())
}

fn other_listener_and_route_in_the_range_are_named() -> Result<()> {
    let lab = Lab::new()?;
    lab.publish(&web())?;
    lab.configure_daemon("")?;
    let report = doctor(&lab, &lab.agent, "")?;
    report.must_not_have("listeners", "fault")?;
    report.must_not_have("ranges", "fault")?;
    report.must_have("daemon", "fault", "no daemon answers")?;

    lab.agent.serve_on(Udp, "0.0.0.0:53", "other")?;
    lab.agent.run_line("ip route add 11.7.0.0/16 via 192.168.50.2")?;
    let report = doctor(&lab, &lab.agent, "")?;
    report.must_have("listeners", "fault", "has udp 0.0.0.0:53")?;
    let route = report.must_have("ranges", "fault", "11.7.0.0/16 dev lan")?;
    ensure!(route.mend.as_ref().is_some_and(|mend| mend.contains("vips.range4")), "{route:?}");
    Ok(())
}

/// An answer that comes in by another link than its route is what a strict filter takes for a forgery.
fn reverse_path_filter_that_drops_is_named() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.publish(&web())?;
    lab.configure_daemon("")?;
    lab.agent.sysctl("net.ipv4.conf.lan.rp_filter", "1")?;
    doctor(&lab, &lab.agent, "")?.must_not_have("rp_filter", "warning")?;
    // The filter drops questions for the link address as well, so that the neighbour must know it before.
    lab.remote.must_be_refused(Tcp, "192.168.50.1:9".parse()?)?;
    lab.agent.run_line("ip route add 10.99.1.1 dev docker0")?;
    lab.remote.run_line("ip addr add 10.99.1.1/32 dev eth0")?;
    lab.remote.run_line("ip route add 192.168.50.1 dev eth0 src 10.99.1.1")?;
    lab.remote.must_hear_nothing("192.168.50.1:9".parse()?)?;
    let report = doctor(&lab, &lab.agent, "")?;
    let found = report.must_have("rp_filter", "warning", "has dropped")?;
    ensure!(
        found.mend.as_ref().is_some_and(|mend| mend.contains("net/ipv4/conf/lan/rp_filter=2")),
        "{found:?}"
    );
    lab.agent.run(&["sh", "-c", found.mend.as_deref().unwrap_or_default()])?;
    doctor(&lab, &lab.agent, "")?.must_not_have("rp_filter", "warning")
}

fn master_that_is_silent_or_refuses_and_its_clock_are_named() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.source = "http://192.168.50.2:5050".to_owned();
    lab.configure_daemon("")?;
    let report = doctor(&lab, &lab.agent, "")?;
    report.must_have("source", "fault", "onnection refused")?;
    report.must_have("clock", "skipped", "")?;

    lab.remote.master("192.168.50.2:5050")?;
    let body = String::new();
    lab.remote.behave(Behaviour::Answer { status: "401 Unauthorized".to_owned(), body })?;
    let report = doctor(&lab, &lab.agent, "")?;
    let refused = report.must_have("source", "fault", "401")?;
    ensure!(refused.mend.as_ref().is_some_and(|mend| mend.contains("source.basic")), "{refused:?}");

    // A header more, by a status with a line more.
    let status = "200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT".to_owned();
    lab.remote.behave(Behaviour::Answer { status, body: web().document(&[]).to_string() })?;
    let report = doctor(&lab, &lab.agent, "")?;
    report.must_have("source", "ok", "3 agents, 1 tasks with VIPs")?;
    report.must_have("clock", "fault", "of the server")?;

    // One that says nothing costs no more than its deadline.
    lab.remote.behave(Behaviour::Stall(60))?;
    let report = doctor(&lab, &lab.agent, "")?;
    report.must_have("source", "fault", "no answer in")?;
    Ok(())
}

/// Runs the command where the node's resolver has this file.
fn with_resolver(lab: &Lab, text: &str) -> Result<Report> {
    let file = lab.path("resolv.conf");
    fs::write(&file, text)?;
    let config = lab.path("l4lbd.toml");
    let command = format!(
        "unshare --mount sh -c 'mount --bind {} /etc/resolv.conf && {PROGRAM} doctor --json --config {}; echo $? >&2'",
        file.display(),
        config.display()
    );
    run(&lab.agent, &command)
}

fn resolver_that_asks_another_server_first_is_named() -> Result<()> {
    let lab = served(&[])?;
    let _daemon = ready(&lab)?;
    with_resolver(&lab, OWN)?.must_have("resolver", "ok", NAME)?;
    // A server that does not know the name is believed, so the order matters.
    lab.agent.run_line("ip addr add 192.168.50.9/32 dev lo")?;
    let other = Daemon::of(&lab, other_server(&lab)?);
    let report = with_resolver(&lab, "nameserver 192.168.50.9\nnameserver 198.51.100.1\n")?;
    let found = report.must_have("resolver", "fault", "and is asked before l4lbd")?;
    ensure!(found.what.contains("nameservers: 192.168.50.9, 198.51.100.1"), "{found:?}");
    ensure!(found.mend.as_ref().is_some_and(|mend| mend.contains("nameserver 198.51.100.1")), "{found:?}");
    drop(other);
    Ok(())
}

/// Runs a DNS server that knows no name.
fn other_server(lab: &Lab) -> Result<Child> {
    let script = lab.path("nxdomain.py");
    fs::write(
        &script,
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.bind(('192.168.50.9', 53))\n\
         print('ready', flush=True)\n\
         while True:\n\
         \x20   q, a = s.recvfrom(4096)\n\
         \x20   end = 12\n\
         \x20   while q[end]:\n\
         \x20       end += q[end] + 1\n\
         \x20   s.sendto(q[:2] + b'\\x81\\x83\\x00\\x01' + bytes(6) + q[12:end + 5], a)\n",
    )?;
    let mut child = inside(&lab.agent.name).arg("python3").arg(script).stdout(Stdio::piped()).spawn()?;
    await_ready(&mut child)?;
    Ok(child)
}

/// Waits until a process says that it is ready.
fn await_ready(process: &mut Child) -> Result<()> {
    let mut line = String::new();
    let output = process.stdout.as_mut().context("its output")?;
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line == "ready\n", "{line:?}");
    Ok(())
}

/// A process of a container, with a root of its own that has musl's loader.
struct Tenant(Child);

impl Tenant {
    fn start(lab: &Lab, prepare: impl Fn(&Path) -> Result<()>) -> Result<Self> {
        let root = lab.path("root");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("etc"))?;
        fs::create_dir_all(root.join("lib"))?;
        fs::write(root.join("lib/ld-musl-x86_64.so.1"), "")?;
        // Statically linked, so that it needs nothing of the root.
        fs::copy("/usr/bin/busybox", root.join("busybox"))?;
        fs::set_permissions(root.join("busybox"), fs::Permissions::from_mode(0o755))?;
        prepare(&root.join("etc/resolv.conf"))?;
        let mut command = inside(&lab.container(11).name);
        let mut child = command
            .args(["unshare", "--mount", "chroot"])
            .arg(&root)
            .args(["/busybox", "sh", "-c", "echo ready; exec /busybox sleep 600"])
            .stdout(Stdio::piped())
            .spawn()?;
        await_ready(&mut child)?;
        Ok(Self(child))
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn search_domain_of_a_container_with_musl_is_named() -> Result<()> {
    let lab = served(&[11])?;
    let daemon = ready(&lab)?;
    let file = format!("{OWN}search svc.cluster.local\noptions ndots:5\n");
    let tenant = Tenant::start(&lab, |path| Ok(fs::write(path, &file)?))?;
    let walk = format!("--connect {NAME}:80 --container {}", tenant.0.id());
    let report = doctor(&lab, &lab.agent, &walk)?;
    report.must_have("name", "fault", &format!("answers REFUSED to {NAME}.svc.cluster.local"))?;
    // The connection itself is fine, which the walk shows as well.
    report.must_have("connect", "ok", "192.168.50.2:8080")?;
    let report = doctor(&lab, &lab.agent, "")?;
    let found = report.must_have("containers", "fault", "musl takes that for silence")?;
    ensure!(found.mend.as_ref().is_some_and(|mend| mend.contains("dns.forward")), "{found:?}");
    drop(tenant);

    // With enough dots musl asks for the name itself.
    let tenant = Tenant::start(&lab, |path| Ok(fs::write(path, OWN)?))?;
    let report = doctor(&lab, &lab.agent, &format!("--connect {NAME}:80 --container {}", tenant.0.id()))?;
    ensure!(report.faults == 0, "{report:#?}");
    report.must_have("name", "ok", &daemon.socket_of("web", 80)?.ip().to_string())?;
    Ok(())
}

fn hostile_files_of_a_container_are_not_read() -> Result<()> {
    type Prepare = fn(&Path) -> Result<()>;
    let lab = served(&[11])?;
    let _daemon = ready(&lab)?;
    let cases: [(Prepare, &str); 4] = [
        (|path| Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU)?), "is no regular file"),
        (|path| Ok(fs::File::create(path)?.set_len(1 << 40)?), "has more than 65536 octets"),
        (|path| Ok(symlink("/etc/passwd", path)?), "there is no /etc/resolv.conf"),
        (|path| Ok(symlink("../../../../../../etc/passwd", path)?), "there is no /etc/resolv.conf"),
    ];
    for (prepare, expected) in cases {
        let tenant = Tenant::start(&lab, prepare)?;
        let report = doctor(&lab, &lab.agent, &format!("--connect {NAME}:80 --container {}", tenant.0.id()))?;
        report.must_have("name", "fault", expected)?;
    }
    Ok(())
}

fn firewall_that_denies_is_named_until_its_command_has_run() -> Result<()> {
    let lab = served(&[11])?;
    lab.publish(&web())?;
    lab.configure_daemon("")?;
    lab.agent.nft(super::firewall::DENIES)?;
    lab.agent.nft(
        "table inet textbook {
           chain outgoing {
             type filter hook output priority filter; policy drop
             oif lo accept
             ct state established,related accept
           }
         }",
    )?;
    let report = doctor(&lab, &lab.agent, "")?;
    report.must_not_have("firewall-forward", "fault")?;
    for check in ["firewall-input", "firewall-output"] {
        let command =
            report.must_have(check, "warning", "textbook")?.mend.as_deref().context("no command")?;
        ensure!(command.starts_with("nft insert rule inet textbook"), "{command}");
    }
    let denying = report.findings.iter().filter(|finding| finding.r#where.contains("textbook"));
    for command in denying.filter_map(|finding| finding.mend.as_deref()) {
        lab.agent.run(&["sh", "-c", command])?;
    }
    let report = doctor(&lab, &lab.agent, "")?;
    for check in ["firewall-input", "firewall-output"] {
        report.must_have(check, "ok", "")?;
        report.must_not_have(check, "warning")?;
    }
    // What was opened by these commands is enough for a container.
    let daemon = ready(&lab)?;
    let vip = daemon.socket_of("web", 80)?;
    lab.container(11).must_reach(Tcp, vip, "B")?;
    Ok(())
}

/// A program of another name that does nothing, in the agent.
fn program(lab: &Lab, name: &str, argument: &str) -> Result<Tenant> {
    let directory = lab.path(name);
    fs::create_dir_all(&directory)?;
    fs::copy(fs::canonicalize("/bin/sh")?, directory.join(name))?;
    fs::write(directory.join(argument), "echo ready; read line\n")?;
    let mut command = inside(&lab.agent.name);
    let mut child = command
        .arg(directory.join(name))
        .arg(argument)
        .current_dir(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    await_ready(&mut child)?;
    Ok(Tenant(child))
}

fn narrow_links_and_other_programs_are_named() -> Result<()> {
    let lab = served(&[11])?;
    let _daemon = ready(&lab)?;
    let report = doctor(&lab, &lab.agent, "")?;
    for check in ["mtu", "programs", "capabilities", "kernel", "sysctls", "cgroup", "bpf"] {
        report.must_have(check, "ok", "")?;
    }
    lab.agent.run_line("ip link set lan mtu 1400")?;
    let running = ["l4lbd", "beam.smp"]
        .map(|name| program(&lab, name, if name == "l4lbd" { "run" } else { "dcos-net" }));
    let report = doctor(&lab, &lab.agent, "")?;
    let mtu = report.must_have(
        "mtu",
        "warning",
        "docker0 containers send packets of 1500 octets, and lan takes 1400",
    )?;
    ensure!(
        mtu.mend.as_ref().is_some_and(|mend| mend.starts_with("ip link set dev docker0 mtu 1400")),
        "{mtu:?}"
    );
    let [other, _] = running;
    let other = other?.0.id();
    let found = report.must_have("programs", "fault", "another l4lbd runs")?;
    ensure!(found.mend.as_deref() == Some(&format!("kill {other}")), "{found:?}");
    report.must_have("programs", "fault", "dcos-net runs")?;
    Ok(())
}

fn services_of_others_are_named() -> Result<()> {
    let lab = served(&[])?;
    lab.agent.ipvsadm("-A -t 11.0.0.200:80 -s rr")?;
    lab.agent.ipvsadm("-A -u 192.0.2.9:53 -s rr")?;
    let _daemon = ready(&lab)?;
    let report = doctor(&lab, &lab.agent, "")?;
    let found = report.must_have("foreign", "fault", "tcp 11.0.0.200:80")?;
    ensure!(found.mend.as_deref() == Some("ipvsadm -D -t 11.0.0.200:80"), "{found:?}");
    report.must_have("foreign", "warning", "udp 192.0.2.9:53")?;
    Ok(())
}
