//! Distribution of connections over servers, and changes of services.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use l4lbd::dataplane::{Forwarding, Op, RealServer, Scheduling, ServiceKey};

use crate::helper::Helper;
use crate::toolkit::*;

pub fn over_all_servers() {
    let mut plane = Plane::new();
    let key = tcp("10.99.0.1:80");
    let servers: Vec<SocketAddr> = (0..5).map(|_| tcp_server("127.0.0.1")).collect();
    plane.apply(&service(key, &servers));
    let held: Vec<_> = (0..100).map(|_| connect(address(key)).unwrap()).collect();
    let ports = tally(held.iter().map(|(_, port)| *port));
    assert_eq!(ports.len(), 5, "{ports:?}");
    // Least of two leaves the fullest and the emptiest of five only few apart.
    assert!(ports.values().all(|count| (10..=30).contains(count)), "{ports:?}");
    for server in servers {
        assert_eq!(plane.count(key, server), ports[&server.port()]);
    }
}

pub fn weight_0_gets_nothing() {
    let mut plane = Plane::new();
    let (stream, datagram) = (tcp("10.99.0.1:80"), udp("10.99.0.1:80"));
    let streams = [tcp_server("127.0.0.1"), tcp_server("127.0.0.1")];
    let datagrams = [udp_server("127.0.0.1"), udp_server("127.0.0.1")];
    plane.apply(&service(stream, &streams));
    plane.apply(&service(datagram, &datagrams));
    let mut held: Vec<_> = (0..20).map(|_| connect(address(stream)).unwrap()).collect();
    plane.apply(&[weight(stream, streams[0], 0), weight(datagram, datagrams[0], 0)]);
    for _ in 0..50 {
        assert_eq!(connect(address(stream)).unwrap().1, streams[1].port());
        let socket = udp_socket(datagrams[0]);
        assert_eq!(ask_at(&socket, address(datagram)).unwrap().0, datagrams[1].port());
        socket.connect(address(datagram)).unwrap();
        assert_eq!(ask(&socket).unwrap(), datagrams[1].port());
    }
    assert!(held.iter_mut().all(|(stream, _)| is_alive(stream)), "those that were there stay");
    let table = plane.read();
    assert_eq!(table.services[&stream].servers.get(&streams[0]), Some(&RealServer::masquerade(0)));
    assert_eq!(table.services[&stream].servers.get(&streams[1]), Some(&RealServer::masquerade(1)));
    assert!(table.connections[&(stream, streams[0])].active > 0);
    plane.apply(&[weight(stream, streams[0], 1)]);
    let ports = tally((0..64).map(|_| connect(address(stream)).unwrap().1));
    assert_eq!(ports.len(), 2, "{ports:?}");
}

pub fn counts_go_up_and_back_to_0() {
    let mut plane = Plane::new();
    let (stream, datagram) = (tcp("10.99.0.1:80"), udp("10.99.0.1:80"));
    plane.apply(&service(stream, &[tcp_server("127.0.0.1")]));
    plane.apply(&service(datagram, &[udp_server("127.0.0.1")]));
    let held: Vec<_> = (0..7).map(|_| connect(address(stream)).unwrap()).collect();
    let socket = udp_socket("127.0.0.1:1".parse().unwrap());
    socket.connect(address(datagram)).unwrap();
    assert_eq!(plane.total(), 8);
    // Writing the service again keeps the counts.
    plane.apply(&[Op::AddServer(stream, "127.0.0.1:9".parse().unwrap(), RealServer::masquerade(0))]);
    assert_eq!(plane.total(), 8);
    let mut helper = Helper::start(&["hold", "10.99.0.1:80", "5"]);
    assert_eq!(helper.line(), "ready");
    assert_eq!(plane.total(), 13);
    helper.kill();
    assert_eq!(plane.total(), 8);
    drop(socket);
    drop(held);
    assert_eq!(plane.total(), 0);
}

pub fn to_who_has_fewer() {
    let mut plane = Plane::new();
    let key = tcp("10.99.0.1:80");
    let (old, new) = (tcp_server("127.0.0.1"), tcp_server("127.0.0.1"));
    plane.apply(&service(key, &[old]));
    let _held: Vec<_> = (0..20).map(|_| connect(address(key)).unwrap()).collect();
    plane.apply(&[Op::AddServer(key, new, RealServer::masquerade(1))]);
    // With two servers, both are compared for every connection.
    let ports = tally((0..20).map(|_| connect(address(key)).unwrap().1));
    assert_eq!(ports, [(new.port(), 20)].into());
}

pub fn changes_under_constant_connects() {
    const SERVICES: usize = 3;
    const ROUNDS: u32 = 300;
    const CONNECTS: u32 = 500;
    let mut plane = Plane::new();
    let keys: Vec<ServiceKey> = (0..SERVICES).map(|n| tcp(&format!("10.99.0.{n}:80"))).collect();
    let servers: Vec<Vec<SocketAddr>> =
        keys.iter().map(|_| (0..4).map(|_| tcp_server("127.0.0.1")).collect()).collect();
    for (key, servers) in keys.iter().zip(&servers) {
        plane.apply(&service(*key, servers));
    }
    plane.apply(&[Op::AddRoute(route("10.99.0.0/24"))]);
    let (over, made) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        for (key, servers) in keys.iter().zip(&servers) {
            let (over, made) = (&over, &made);
            scope.spawn(move || {
                let ports: BTreeSet<u16> = servers.iter().map(SocketAddr::port).collect();
                while !over.load(Ordering::Relaxed) {
                    let (_, port) = connect(address(*key)).expect("no connect may fail");
                    assert!(ports.contains(&port), "a server of another service");
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut round = 0;
        while round < ROUNDS || made.load(Ordering::Relaxed) < CONNECTS {
            round += 1;
            for (key, servers) in keys.iter().zip(&servers) {
                let ops: Vec<Op> = servers
                    .iter()
                    .zip(0..)
                    .map(|(server, n)| weight(*key, *server, u32::from((n + round) % 2 == 0)))
                    .collect();
                plane.apply(&ops);
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(plane.total(), 0);
}

pub fn operations_that_are_refused() {
    let mut plane = Plane::new();
    let key = tcp("10.99.0.1:80");
    let (server, absent) = (tcp_server("127.0.0.1"), "127.0.0.1:9".parse().unwrap());
    let server_of = RealServer::masquerade;
    assert!(plane.refusal(Op::DelService(key)).contains("does not exist"));
    assert!(plane.refusal(Op::AddServer(key, server, server_of(1))).contains("does not exist"));
    plane.apply(&service(key, &[server]));
    let scheduling = |name: &str| Scheduling { scheduler: name.to_owned(), flags: 0 };
    assert!(
        plane
            .refusal(Op::AddService(key, scheduling(l4lbd::dataplane::ebpf::SCHEDULER)))
            .contains("exists already")
    );
    assert!(plane.refusal(Op::SetService(key, scheduling("wlc"))).contains("least-of-two"));
    assert!(plane.refusal(Op::AddServer(key, server, server_of(1))).contains("already"));
    assert!(plane.refusal(Op::DelServer(key, absent)).contains("no server"));
    assert!(plane.refusal(Op::SetServer(key, absent, server_of(1))).contains("no server"));
    assert!(plane.refusal(Op::AddServer(key, "[::1]:9".parse().unwrap(), server_of(1))).contains("family"));
    let tunnel = RealServer { forwarding: Forwarding::Tunnel, ..server_of(1) };
    assert!(plane.refusal(Op::AddServer(key, absent, tunnel)).contains("forwarding"));
    assert!(plane.refusal(Op::AddRoute(route("::/0"))).contains("IPv4"));
    assert!(plane.refusal(Op::DelRoute(route("10.1.0.0/16"))).contains("no network"));
    assert!(plane.refusal(Op::AddLink).contains("not an operation"));
    // The other operations of a call are carried out.
    let ops = [Op::AddServer(key, server, server_of(1)), Op::AddServer(key, absent, server_of(1))];
    let failures = plane.ebpf.apply(&[&ops[0], &ops[1]]);
    assert_eq!(failures.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0]);
    assert_eq!(plane.read().services[&key].servers.len(), 2);
}

pub fn many_services_at_once() {
    let mut plane = Plane::new();
    let keys: Vec<ServiceKey> =
        (0..10_000).map(|n| tcp(&format!("10.98.{}.{}:80", n / 250, n % 250))).collect();
    let servers: Vec<SocketAddr> = (1..=5).map(|port| SocketAddr::new([127, 0, 0, 1].into(), port)).collect();
    let ops: Vec<Op> = keys.iter().flat_map(|key| service(*key, &servers)).collect();
    plane.apply(&ops);
    let table = plane.read();
    assert_eq!(table.services.len(), 10_000);
    assert!(table.services.values().all(|service| service.servers.keys().eq(&servers)));
    plane.reopen();
    assert_eq!(plane.read(), table);
    plane.apply(&keys.iter().map(|key| Op::DelService(*key)).collect::<Vec<_>>());
    assert_eq!(plane.read(), Default::default());
}
