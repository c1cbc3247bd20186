//! What is addressed to a VIP's address without being one is refused at once, and reaches nothing
//! else on the agent.

use anyhow::Result;

use super::tests;
use crate::toolkit::helper::Transport::{Tcp, Udp};
use crate::toolkit::lab::{Lab, REMOTE, REMOTE6, socket_address};
use crate::toolkit::state::{State, Task};

tests!["guard":
    unknown_port_reaches_no_listener_of_the_agent,
    unknown_udp_port_is_refused,
    address_of_no_vip_is_refused,
    ipv6_is_guarded_alike,
    other_addresses_of_the_agent_are_left_alone,
];

fn web() -> State {
    State::of([Task::host("web", REMOTE, 8080).vip("/web:80")])
}

fn unknown_port_reaches_no_listener_of_the_agent() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.agent.serve("0.0.0.0:9191", "LOCAL")?;
    let daemon = lab.start(&web())?;
    let mut unknown = daemon.socket_of("web", 80)?;
    unknown.set_port(9191);
    lab.agent.must_be_refused(Tcp, unknown)?;
    lab.container(11).must_be_refused(Tcp, unknown)?;
    unknown.set_port(9192);
    lab.agent.must_be_refused(Tcp, unknown)?;
    lab.container(11).must_be_refused(Tcp, unknown)
}

fn unknown_udp_port_is_refused() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.agent.serve_on(Udp, "0.0.0.0:9191", "LOCAL")?;
    let daemon = lab.start(&web())?;
    let mut unknown = daemon.socket_of("web", 80)?;
    // The port of the VIP, which is a TCP one, too.
    for port in [9191, 80] {
        unknown.set_port(port);
        lab.agent.must_be_refused(Udp, unknown)?;
        lab.container(11).must_be_refused(Udp, unknown)?;
    }
    Ok(())
}

fn address_of_no_vip_is_refused() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.agent.serve("0.0.0.0:80", "LOCAL")?;
    let _daemon = lab.start(&web())?;
    for address in ["11.77.77.77:80", "11.77.77.77:81"] {
        lab.agent.must_be_refused(Tcp, socket_address(address))?;
        lab.container(11).must_be_refused(Tcp, socket_address(address))?;
    }
    Ok(())
}

fn ipv6_is_guarded_alike() -> Result<()> {
    let lab = Lab::new()?;
    lab.agent.serve("[::]:9191", "LOCAL")?;
    lab.agent.serve_on(Udp, "[::]:9191", "LOCAL")?;
    let daemon = lab.start(&State::of([Task::container("web", REMOTE, REMOTE6, 8080).vip("/web:80")]))?;
    let mut unknown = daemon.socket_of("web", 80)?;
    unknown.set_port(9191);
    for transport in [Tcp, Udp] {
        lab.agent.must_be_refused(transport, unknown)?;
        lab.agent.must_be_refused(transport, socket_address("[fd01:c::77:77]:9191"))?;
    }
    Ok(())
}

fn other_addresses_of_the_agent_are_left_alone() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    lab.agent.serve("0.0.0.0:9191", "LOCAL")?;
    let _daemon = lab.start(&web())?;
    lab.remote.must_reach(Tcp, socket_address("192.168.50.1:9191"), "LOCAL")?;
    lab.container(11).must_reach(Tcp, socket_address("172.17.1.1:9191"), "LOCAL")?;
    lab.agent.must_reach(Tcp, socket_address("127.0.0.1:9191"), "LOCAL")?;
    lab.container(11).must_be_refused(Tcp, socket_address("172.17.1.1:9192"))
}
