//! Names: looked up as a client would, then dialled.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::tests;
use crate::toolkit::await_some;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::host::Host;
use crate::toolkit::lab::{AGENT, Lab, REMOTE, REMOTE6};
use crate::toolkit::state::{State, Task};

tests!["names":
    looked_up_then_dialled,
    unknown_name_does_not_exist,
    name_goes_with_its_vip,
    every_kind_of_name,
    libc_finds_names,
    outsiders_get_no_answer,
    upstreams_that_do_not_answer,
];

const NAME: &str = "web.marathon.l4lb.thisdcos.directory";

/// The whole answer of the daemon's resolver.
fn dig(host: &Host, name: &str, options: &[&str]) -> Result<String> {
    let mut program = vec!["dig", "@198.51.100.1", "+time=15", "+tries=1", "+norecurse", name];
    program.extend(options);
    host.run(&program)
}

/// The addresses in an answer's own section, with their times to live.
fn addresses(answer: &str) -> Vec<(String, String)> {
    answer
        .lines()
        .filter(|line| !line.starts_with(';'))
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, ttl, "IN", "A" | "AAAA", address] = words[..] else {
                return None;
            };
            Some((address.to_owned(), ttl.to_owned()))
        })
        .collect()
}

fn looked_up_then_dialled() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    lab.remote.serve(&format!("[{REMOTE6}]:8080"), "B6")?;
    let daemon = lab.start(&State::of([
        Task::host("web", REMOTE, 8080).vip("/web:80"),
        Task::container("web6", REMOTE, REMOTE6, 8080).vip("/web:80"),
    ]))?;
    daemon.await_dns()?;
    for (host, options, server) in [
        (&lab.agent, &["A"][..], "B"),
        (&lab.agent, &["A", "+tcp"], "B"),
        (&lab.agent, &["AAAA"], "B6"),
        (lab.container(11), &["A"], "B"),
    ] {
        let answer = dig(host, NAME, options)?;
        ensure!(answer.contains("status: NOERROR"), "{}: {answer}", host.name);
        let found = addresses(&answer);
        ensure!(found.len() == 1 && found[0].1 == "5", "wanted one address for 5 s: {answer}");
        let address = found[0].0.parse().context(answer)?;
        host.must_reach(Tcp, SocketAddr::new(address, 80), server)?;
    }
    let status = daemon.status()?;
    ensure!(status.vips.len() == 2, "wanted one VIP of each family: {}", status.text);
    Ok(())
}

fn unknown_name_does_not_exist() -> Result<()> {
    let lab = Lab::new()?;
    let daemon = lab.start(&State::default())?;
    daemon.await_dns()?;
    let unknown = |what: &str| -> Result<()> {
        for options in [&["A"][..], &["A", "+tcp"]] {
            let answer = dig(&lab.agent, NAME, options)?;
            ensure!(answer.contains("status: NXDOMAIN") && answer.contains("SOA"), "{what}: {answer}");
        }
        Ok(())
    };
    unknown("before the first VIP")?;
    lab.publish(&State::of([Task::host("other", REMOTE, 8080).vip("/other:80")]))?;
    daemon.await_status("another VIP", |status| status.vip("other", 80).is_some())?;
    unknown("beside another VIP")
}

fn name_goes_with_its_vip() -> Result<()> {
    let lab = Lab::new()?;
    let daemon = lab.start_with(
        &State::of([Task::host("web", REMOTE, 8080).vip("/web:80")]),
        "[vips]\nlinger = \"1s\"",
    )?;
    ensure!(addresses(&dig(&lab.agent, NAME, &["A"])?).len() == 1, "the name is there while the VIP is");
    // It lingers for a second, refusing, in case the task comes back.
    lab.publish(&State::of([Task::host("other", REMOTE, 8080).vip("/other:80")]))?;
    daemon.await_status("the VIP goes", |status| status.vip("web", 80).is_none())?;
    await_some("the name goes with it", || {
        Ok(dig(&lab.agent, NAME, &["A"])?.contains("status: NXDOMAIN").then_some(()))
    })
}

fn every_kind_of_name() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    let daemon = lab.start(&State::of([
        Task::host("web", REMOTE, 8080).vip("/web:80"),
        Task::host("batch", AGENT, 9090),
    ]))?;
    daemon.await_dns()?;
    let address = daemon.vip("web", 80)?.socket().ip();
    let reverse: Vec<String> = address.to_string().rsplit('.').map(str::to_owned).collect();
    let reverse = format!("{}.in-addr.arpa", reverse.join("."));
    let zone = "l4lb.thisdcos.directory";
    for (name, kind, expected) in [
        ("web.marathon.dclb.thisdcos.directory", "A", address.to_string()),
        ("web.marathon.l4lb.thisdcos.global", "A", address.to_string()),
        ("_main._web._tcp.marathon.l4lb.thisdcos.directory", "SRV", format!("0 1 80 web.marathon.{zone}.")),
        ("_80._tcp.web.marathon.l4lb.thisdcos.directory", "SRV", format!("0 1 80 web.marathon.{zone}.")),
        (&reverse, "PTR", format!("web.marathon.{zone}.")),
        ("web.marathon.agentip.dcos.thisdcos.directory", "A", REMOTE.to_owned()),
        // A task without any VIP.
        ("batch.marathon.autoip.dcos.thisdcos.directory", "A", AGENT.to_owned()),
        ("batch.marathon.mesos", "A", AGENT.to_owned()),
        ("leader.mesos", "A", REMOTE.to_owned()),
        ("master.dcos.thisdcos.directory", "A", REMOTE.to_owned()),
        ("thisnode.thisdcos.directory", "A", AGENT.to_owned()),
    ] {
        let answer = dig(lab.container(11), name, &[kind, "+short"])?;
        ensure!(answer.trim() == expected, "{name} {kind}: wanted {expected}, got {answer}");
    }
    // Names of tasks go with the tasks, whatever the kernel holds.
    lab.publish(&State::of([Task::host("web", REMOTE, 8080).vip("/web:80")]))?;
    await_some("the task's name goes", || {
        Ok(dig(&lab.agent, "batch.marathon.mesos", &["A"])?.contains("status: NXDOMAIN").then_some(()))
    })
}

/// glibc's resolver, with a search list as container runtimes write it.
fn libc_finds_names() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    let daemon = lab.start(&State::of([Task::host("web", REMOTE, 8080).vip("/web:80")]))?;
    daemon.await_dns()?;
    let address = daemon.vip("web", 80)?.socket().ip().to_string();
    let file = lab.path("resolv.conf");
    std::fs::write(
        &file,
        "nameserver 198.51.100.1\nsearch marathon.l4lb.thisdcos.directory example.com\noptions ndots:5 timeout:15\n",
    )?;
    for host in [&lab.agent, lab.container(11)] {
        for name in ["web", NAME] {
            let script = format!(
                "mount --bind {} \"$(readlink -f /etc/resolv.conf)\" && getent ahosts {name}",
                file.display()
            );
            let found = host.run(&["unshare", "--mount", "sh", "-c", &script])?;
            ensure!(found.contains(&address), "{} looks up {name}: {found}", host.name);
        }
    }
    Ok(())
}

fn outsiders_get_no_answer() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.remote.run_line(&format!("ip route add 198.51.100.1 via {AGENT}"))?;
    let ask = |host: &Host, options: &[&str]| {
        let mut program = vec!["dig", "@198.51.100.1", "+time=3", "+tries=1", NAME];
        program.extend(options);
        host.run(&program)
    };
    let daemon = lab.start(&State::of([Task::host("web", REMOTE, 8080).vip("/web:80")]))?;
    daemon.await_dns()?;
    for options in [&["A"][..], &["A", "+tcp"]] {
        for host in [&lab.agent, lab.container(11)] {
            ensure!(ask(host, options)?.contains("status: NOERROR"), "{} {options:?}", host.name);
        }
        let answer = ask(&lab.remote, options);
        ensure!(answer.is_err(), "a neighbour was answered: {answer:?}");
    }
    daemon.terminate()?;
    lab.configure_daemon("[dns]\nclients = [\"node\", \"192.168.50.0/24\"]")?;
    let daemon = lab.start_again()?;
    daemon.await_dns()?;
    for options in [&["A"][..], &["A", "+tcp"]] {
        ensure!(ask(&lab.remote, options)?.contains("status: NOERROR"), "let in, and not answered");
    }
    Ok(())
}

fn upstreams_that_do_not_answer() -> Result<()> {
    let lab = Lab::new()?;
    // Nobody is at that address; packets to it vanish.
    let daemon = lab.start_with(
        &State::of([Task::host("web", REMOTE, 8080).vip("/web:80")]),
        "[dns]\nforward = [\"192.168.50.77\"]\nmesos = [\"198.51.100.1\", \"192.168.50.78\"]",
    )?;
    daemon.await_dns()?;
    let answer = dig(&lab.agent, "example.com", &["A"])?;
    ensure!(answer.contains("status: SERVFAIL") && answer.contains(" ra"), "{answer}");
    let answer = dig(&lab.agent, "leader.mesos", &["A"])?;
    ensure!(answer.contains("status: SERVFAIL"), "{answer}");
    ensure!(addresses(&dig(&lab.agent, NAME, &["A"])?).len() == 1, "our own names do not wait");
    Ok(())
}
