//! Names: looked up as a client would, then dialled.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::tests;
use crate::toolkit::await_some;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::host::Host;
use crate::toolkit::lab::{Lab, REMOTE, REMOTE6};
use crate::toolkit::state::{State, Task};

tests!["names":
    looked_up_then_dialled,
    unknown_name_does_not_exist,
    name_goes_with_its_vip,
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
