use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::dataplane::Scheduling;
use crate::vip::{Host, VipKey};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1));
const LIMIT: Duration = Duration::from_secs(60);

fn key(protocol: Protocol) -> ServiceKey {
    ServiceKey { protocol, address: VIP, port: 80 }
}

fn server(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 8080))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn scheduling() -> Scheduling {
    Scheduling { scheduler: "wlc".to_owned(), flags: 0 }
}

fn ready(task: &str, drain: Option<Duration>) -> Backend {
    Backend { task: task.into(), drain, ..Backend::unknown(Condition::Ready) }
}

/// A plan for one service with these servers.
fn plan(protocol: Protocol, servers: &[u8]) -> Desired {
    let servers = servers.iter().map(|last| (server(*last), ready("t", None))).collect();
    let vip = VipKey { host: Host::Literal(VIP), protocol, port: 80 };
    let mut desired = Desired::default();
    desired.services.insert(
        key(protocol),
        Programmed { vip, scheduling: scheduling(), servers, port_names: Arc::default(), weights: None }
            .into(),
    );
    desired
}

/// A kernel with these servers, each with as many active connections.
fn kernel(protocol: Protocol, servers: &[(u8, u32)]) -> Actual {
    let mut actual = Actual {
        state: plan(protocol, &servers.iter().map(|(last, _)| *last).collect::<Vec<_>>()).state(),
        ..Actual::default()
    };
    for (last, active) in servers {
        let count = Connections { active: *active, inactive: 7 };
        actual.connections.insert((key(protocol), server(*last)), count);
    }
    actual
}

/// Nobody else has any place.
fn free(places: &[Place]) -> Vec<bool> {
    vec![false; places.len()]
}

/// Weights of the servers after an update.
fn weights(drain: &mut Drain, desired: &Desired, actual: &Actual, seconds: i64) -> Vec<(u8, u32)> {
    let mut desired = desired.clone();
    drain.update(&desired, &Services::default(), actual, (at(seconds), LIMIT), free);
    drain.apply(&mut desired);
    let state = desired.state();
    let services = state.services.values();
    let servers = services.flat_map(|service| &service.servers);
    servers
        .map(|(address, server)| match address.ip() {
            IpAddr::V4(v4) => (v4.octets()[3], server.weight),
            IpAddr::V6(_) => panic!("no such server"),
        })
        .collect()
}

#[test]
fn a_server_that_has_gone_stays_until_its_connections_have_ended() {
    let (mut drain, desired) = (Drain::default(), plan(Protocol::Tcp, &[1]));
    let busy = kernel(Protocol::Tcp, &[(1, 9), (2, 3)]);
    assert_eq!(weights(&mut drain, &desired, &busy, 0), [(1, 1), (2, 0)]);
    assert_eq!(weights(&mut drain, &desired, &busy, 30), [(1, 1), (2, 0)]);
    let idle = kernel(Protocol::Tcp, &[(1, 9), (2, 0)]);
    assert_eq!(weights(&mut drain, &desired, &idle, 31), [(1, 1)]);
    assert!(drain.is_empty());
}

#[test]
fn its_connections_end_at_the_deadline() {
    let (mut drain, desired) = (Drain::default(), plan(Protocol::Tcp, &[1]));
    let busy = kernel(Protocol::Tcp, &[(1, 9), (2, 3)]);
    assert_eq!(weights(&mut drain, &desired, &busy, 0), [(1, 1), (2, 0)]);
    assert_eq!(drain.deadline(&key(Protocol::Tcp), &server(2)), Some(at(60)));
    assert_eq!(weights(&mut drain, &desired, &busy, 59), [(1, 1), (2, 0)]);
    assert_eq!(weights(&mut drain, &desired, &busy, 60), [(1, 1)]);
}

#[test]
fn a_port_can_ask_for_a_deadline_of_its_own() {
    let (mut drain, desired) = (Drain::default(), plan(Protocol::Tcp, &[1]));
    let mut last = plan(Protocol::Tcp, &[1, 2]).services;
    let asked = ready("leaving", Some(Duration::from_secs(300)));
    Arc::make_mut(last.get_mut(&key(Protocol::Tcp)).unwrap()).servers.insert(server(2), asked);
    let busy = kernel(Protocol::Tcp, &[(1, 9), (2, 3)]);
    assert!(drain.update(&desired, &last, &busy, (at(0), LIMIT), free));
    assert_eq!(drain.deadline(&key(Protocol::Tcp), &server(2)), Some(at(300)));
    let mut shown = desired.clone();
    drain.apply(&mut shown);
    assert_eq!(&*shown.services[&key(Protocol::Tcp)].servers[&server(2)].task, "leaving");
}

#[test]
fn a_connection_in_the_making_is_not_cut_off() {
    let (mut drain, desired) = (Drain::default(), plan(Protocol::Tcp, &[1]));
    let idle = kernel(Protocol::Tcp, &[(1, 0), (2, 0)]);
    assert_eq!(weights(&mut drain, &desired, &idle, 0), [(1, 1), (2, 0)]);
    assert_eq!(weights(&mut drain, &desired, &idle, 1), [(1, 1), (2, 0)]);
    assert_eq!(weights(&mut drain, &desired, &idle, 2), [(1, 1)]);
}

#[test]
fn one_that_is_done_does_not_start_again_while_the_kernel_holds_it() {
    let (mut drain, desired) = (Drain::default(), plan(Protocol::Tcp, &[1]));
    let first = kernel(Protocol::Tcp, &[(1, 9), (2, 0)]);
    assert_eq!(weights(&mut drain, &desired, &first, 0), [(1, 1), (2, 0)]);
    // The other one leaves a second later, so that something is leaving when the first is done.
    let both = kernel(Protocol::Tcp, &[(1, 9), (2, 0), (3, 5)]);
    assert_eq!(weights(&mut drain, &desired, &both, 1), [(1, 1), (2, 0), (3, 0)]);
    for seconds in [2, 2, 3] {
        assert_eq!(weights(&mut drain, &desired, &both, seconds), [(1, 1), (3, 0)]);
    }
    assert_eq!(weights(&mut drain, &plan(Protocol::Tcp, &[1, 2]), &both, 4), [(1, 1), (2, 1), (3, 0)]);
    assert_eq!(weights(&mut drain, &desired, &both, 5), [(1, 1), (2, 0), (3, 0)]);
    assert_eq!(drain.deadline(&key(Protocol::Tcp), &server(2)), Some(at(65)));
}

#[test]
fn one_that_returns_is_used_again() {
    let mut drain = Drain::default();
    let busy = kernel(Protocol::Tcp, &[(1, 9), (2, 3)]);
    weights(&mut drain, &plan(Protocol::Tcp, &[1]), &busy, 0);
    assert_eq!(weights(&mut drain, &plan(Protocol::Tcp, &[1, 2]), &busy, 1), [(1, 1), (2, 1)]);
    assert!(drain.is_empty());
}

#[test]
fn udp_servers_leave_at_once() {
    let mut drain = Drain::default();
    let busy = kernel(Protocol::Udp, &[(1, 0), (2, 3)]);
    assert_eq!(weights(&mut drain, &plan(Protocol::Udp, &[1]), &busy, 0), [(1, 1)]);
}

#[test]
fn one_whose_address_another_task_has_leaves_at_once() {
    let (mut drain, desired) = (Drain::default(), plan(Protocol::Tcp, &[1]));
    let mut last = plan(Protocol::Tcp, &[1, 2]).services;
    let backend = Backend { agent: "S".into(), ..ready("leaving", None) };
    Arc::make_mut(last.get_mut(&key(Protocol::Tcp)).unwrap()).servers.insert(server(2), backend);
    let busy = kernel(Protocol::Tcp, &[(1, 9), (2, 3), (3, 3)]);
    let mut asked = Vec::new();
    let second = |places: &[Place]| {
        asked = places.to_vec();
        places.iter().map(|place| place.address == server(2)).collect()
    };
    assert!(drain.update(&desired, &last, &busy, (at(0), LIMIT), second));
    assert_eq!((asked[0].task.as_str(), asked[0].agent.as_str()), ("leaving", "S"));
    assert_eq!(drain.deadline(&key(Protocol::Tcp), &server(2)), None);
    assert!(drain.deadline(&key(Protocol::Tcp), &server(3)).is_some());
}
