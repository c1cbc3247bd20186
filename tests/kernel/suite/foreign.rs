//! What is not ours is never touched, and what is ours can be taken away to the last bit.

use anyhow::{Result, ensure};

use super::tests;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::kernel::must_be_equal;
use crate::toolkit::lab::{Lab, REMOTE, REMOTE6, THIRD, socket_address};
use crate::toolkit::state::{State, Task};

tests!["foreign":
    ; ipvs:
    services_of_others_stay_as_they_are,
    taken_address_is_reported_and_left,
    purge_removes_all_of_ours_and_nothing_else,
    vips_that_share_a_backend_are_warned_of,
];

/// One of each kind: in the range and out of it, by mark, direct routing, tunnel, persistent, SCTP,
/// IPv6, thresholds.
const FOREIGN: &[&str] = &[
    "-A -t 11.0.0.200:80 -s rr",
    "-a -t 11.0.0.200:80 -r 192.168.50.2:80 -g -w 3",
    "-A -t 11.0.0.201:80 -s wlc -p 360 -M 255.255.255.0",
    "-a -t 11.0.0.201:80 -r 192.168.50.2:8080 -m -w 5 -x 100 -y 50",
    "-A -u 192.0.2.9:53 -s rr",
    "-a -u 192.0.2.9:53 -r 192.168.50.3:53 -i -w 1",
    "-A -f 19508 -s wlc",
    "-a -f 19508 -r 192.168.50.2:0 -g -w 1",
    "-A --sctp-service 11.0.0.202:9 -s rr",
    "-a --sctp-service 11.0.0.202:9 -r 192.168.50.2:9 -m -w 1",
    "-A -t [fd01:c::200]:80 -s rr",
    "-a -t [fd01:c::200]:80 -r [fd50::2]:80 -g -w 2",
    "-A -t 11.0.0.203:80 -s wlc",
];

fn foreign_services(lab: &Lab) -> Result<()> {
    FOREIGN.iter().try_for_each(|words| lab.agent.ipvsadm(words))
}

fn web() -> State {
    State::of([
        Task::host("web", REMOTE, 8080).vip("/web:80").vip("10.99.0.7:6666"),
        Task::container("six", REMOTE, REMOTE6, 8080).vip("/six:80"),
    ])
}

fn services_of_others_stay_as_they_are() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.remote.serve("192.168.50.2:8080", "B")?;
    foreign_services(&lab)?;
    let foreign = lab.agent.services()?;
    let are_there = |when: &str| -> Result<()> {
        let now = lab.agent.services()?;
        let missing: Vec<&String> = foreign.iter().filter(|line| !now.contains(line)).collect();
        ensure!(missing.is_empty(), "{when} these are gone or changed: {missing:?}");
        Ok(())
    };

    let daemon = lab.start(&web())?;
    are_there("after the first pass")?;
    lab.agent.must_reach(Tcp, daemon.socket_of("web", 80)?, "B")?;
    lab.agent.must_reach(Tcp, socket_address("11.0.0.201:80"), "B")?;

    lab.publish(&State::default())?;
    daemon.await_status("no task is left", |status| {
        status.vips.iter().all(|vip| vip.backends.iter().all(|backend| backend.weight == 0))
    })?;
    are_there("without any task")?;
    daemon.kill()?;
    lab.l4lbd(&["purge"])?;
    ensure!(lab.agent.services()? == foreign, "after purge: {:?}", lab.agent.services()?);
    Ok(())
}

fn taken_address_is_reported_and_left() -> Result<()> {
    let lab = Lab::new()?;
    lab.remote.serve("192.168.50.2:8080", "OURS")?;
    lab.remote.serve("192.168.50.2:8081", "FREE")?;
    lab.remote.serve("192.168.50.3:8080", "THEIRS")?;
    lab.agent.ipvsadm("-A -t 11.0.0.80:80 -s rr")?;
    lab.agent.ipvsadm("-a -t 11.0.0.80:80 -r 192.168.50.3:8080 -m -w 1")?;
    let foreign = lab.agent.services()?;
    let state = State::of([
        Task::host("taken", REMOTE, 8080).vip("11.0.0.80:80"),
        Task::host("free", REMOTE, 8081).vip("11.0.0.81:80"),
    ]);
    let daemon = lab.start_with(&state, "[vips]\nliterals_in_range = \"11.0.0.80-11.0.0.89\"")?;
    daemon.await_status("a complaint about the taken address", |status| {
        status.complaints().contains("11.0.0.80:80") && status.degraded && status.text.contains("\"blocked: ")
    })?;
    let now = lab.agent.services()?;
    ensure!(foreign.iter().all(|line| now.contains(line)), "it was overwritten: {now:?}");
    ensure!(
        !now.iter().any(|line| line.contains("-a -t 11.0.0.80:80 -r 192.168.50.2")),
        "it was added to: {now:?}"
    );
    lab.agent.must_reach(Tcp, socket_address("11.0.0.80:80"), "THEIRS")?;
    lab.agent.must_reach(Tcp, socket_address("11.0.0.81:80"), "FREE")?;

    // The other one leaves: the VIP gets its address.
    lab.agent.ipvsadm("-D -t 11.0.0.80:80")?;
    daemon.await_status("no complaint when the address is free", |status| {
        !status.complaints().contains("11.0.0.80:80") && !status.degraded
    })?;
    lab.agent.must_reach(Tcp, socket_address("11.0.0.80:80"), "OURS")?;
    Ok(())
}

fn purge_removes_all_of_ours_and_nothing_else() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    foreign_services(&lab)?;
    lab.agent.nft(
        "table inet l4lbd-of-another {
           chain input {
             type filter hook input priority 5
           }
         }",
    )?;
    lab.agent
        .configure("link add minuteman2 type dummy\nroute add local 10.98.0.0/16 dev lo table local\n")?;
    let before = lab.snapshot()?;
    let daemon = lab.start(&web())?;
    ensure!(lab.snapshot()? != before, "the daemon did nothing");
    daemon.terminate()?;
    lab.l4lbd(&["purge"])?;
    must_be_equal(&before, &lab.snapshot()?, "after purge")?;
    // Where there is nothing to remove, it is content.
    lab.l4lbd(&["purge"])?;
    must_be_equal(&before, &lab.snapshot()?, "after the second purge")?;
    Ok(())
}

/// IPVS cannot keep two such VIPs apart when a client uses one port for both.
fn vips_that_share_a_backend_are_warned_of() -> Result<()> {
    let lab = Lab::new()?;
    let daemon = lab.start(&State::of([
        Task::host("web", REMOTE, 8080).vip("10.99.0.80:80").vip("10.99.0.81:81"),
        Task::host("single", THIRD, 8080).vip("10.99.0.82:80"),
    ]))?;
    let status = daemon.await_status("a warning of both", |status| {
        let complaints = status.complaints();
        complaints.contains("10.99.0.80:80") && complaints.contains("10.99.0.81:81")
    })?;
    ensure!(
        !status.complaints().contains("10.99.0.82"),
        "one VIP alone is warned of: {}",
        status.complaints()
    );
    ensure!(!status.degraded, "a warning is no degradation: {}", status.text);
    Ok(())
}
