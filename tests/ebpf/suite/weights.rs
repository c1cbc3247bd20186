//! Shares of servers with weights.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use l4lbd::dataplane::ebpf::{SCHEDULER, UNEJECTED};
use l4lbd::dataplane::{Op, RealServer, Scheduling, ServiceKey};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::seen::closed_port;
use crate::toolkit::*;

const CONNECTIONS: usize = 10_000;

/// Weights whose shares a choice of the better of two would miss by far if it took no account of them when it draws.
const CASES: [&[u32]; 3] = [&[1, 3], &[1, 1, 1, 1, 6], &[1, 1000, 0, 999]];

/// Lists the operations that create a service with weights.
fn weighted(key: ServiceKey, servers: &[SocketAddr], weights: &[u32]) -> Vec<Op> {
    let set = servers.iter().zip(weights).map(|(server, share)| weight(key, *server, *share));
    service(key, servers).into_iter().chain(set).collect()
}

/// Fails unless each server has its share of the connections, to 5 percentage points.
fn assert_shares(counts: &[u32], weights: &[u32]) {
    let (all, total): (u32, u32) = (counts.iter().sum(), weights.iter().sum());
    assert_eq!(all as usize, CONNECTIONS);
    for (count, weight) in counts.iter().zip(weights) {
        let share = |part: u32, whole: u32| f64::from(part) / f64::from(whole) * 100.0;
        let distance = (share(*count, all) - share(*weight, total)).abs();
        assert!(distance <= 5.0, "{counts:?} of {weights:?}");
        assert!(*weight > 0 || *count == 0, "{counts:?} of {weights:?}");
    }
}

/// Starts a TCP server that closes each connection, and counts them.
fn counting_server() -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for connection in listener.incoming() {
            // Counted first: the client goes on when it is closed.
            counted.fetch_add(1, Ordering::SeqCst);
            drop(connection);
        }
    });
    (address, count)
}

pub fn of_connections_that_are_closed_at_once() {
    let mut plane = Plane::new();
    for (number, weights) in CASES.iter().enumerate() {
        let vip = tcp(&format!("10.99.0.{number}:80"));
        let servers: Vec<_> = weights.iter().map(|_| counting_server()).collect();
        let addresses: Vec<SocketAddr> = servers.iter().map(|(address, _)| *address).collect();
        plane.apply(&weighted(vip, &addresses, weights));
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address(vip)).unwrap();
            let end = std::io::Read::read(&mut stream, &mut [0]).unwrap();
            assert_eq!(end, 0);
        }
        let counts: Vec<u32> = servers.iter().map(|(_, count)| count.load(Ordering::SeqCst)).collect();
        assert_shares(&counts, weights);
    }
}

pub fn of_connections_that_are_held() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.max(20_000), hard.max(20_000)).unwrap();
    let mut plane = Plane::new();
    for (number, weights) in CASES.iter().enumerate() {
        let vip = udp(&format!("10.99.0.{number}:80"));
        let servers: Vec<SocketAddr> = weights.iter().map(|_| udp_server("127.0.0.1")).collect();
        plane.apply(&weighted(vip, &servers, weights));
        // A connected socket counts whatever its protocol, and a datagram socket takes one descriptor alone.
        let held: Vec<UdpSocket> = (0..CONNECTIONS)
            .map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect(address(vip)).unwrap();
                socket
            })
            .collect();
        let counts: Vec<u32> = servers.iter().map(|server| plane.count(vip, *server)).collect();
        drop(held);
        assert_shares(&counts, weights);
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
}

pub fn of_datagrams() {
    let mut plane = Plane::new();
    let (vip, weights) = (udp("10.99.0.1:80"), CASES[1]);
    let servers: Vec<SocketAddr> = weights.iter().map(|_| udp_server("127.0.0.1")).collect();
    plane.apply(&weighted(vip, &servers, weights));
    let mut counts = vec![0; servers.len()];
    for _ in 0..CONNECTIONS {
        let socket = udp_socket(servers[0]);
        let (port, _) = ask_at(&socket, address(vip)).unwrap();
        counts[servers.iter().position(|server| server.port() == port).unwrap()] += 1;
    }
    assert_shares(&counts, weights);
}

/// A daemon that starts finds the weights as they are, and another program's removal of the pin mends itself.
pub fn outlive_the_daemon() {
    let mut plane = Plane::new();
    let (vip, weights) = (udp("10.99.0.1:80"), [1, 1, 98]);
    let servers: Vec<SocketAddr> = weights.iter().map(|_| udp_server("127.0.0.1")).collect();
    plane.apply(&weighted(vip, &servers, &weights));
    std::fs::remove_file(plane.options.pins.join("v1/draws")).unwrap();
    plane.ebpf = l4lbd::dataplane::ebpf::Ebpf::open(&plane.options).unwrap();
    let found = plane.read();
    let found: Vec<u32> =
        servers.iter().map(|server| found.services[&vip].servers.get(server).unwrap().weight).collect();
    assert_eq!(found, weights);
    let heaviest = (0..200).filter(|_| {
        let socket = udp_socket(servers[0]);
        ask_at(&socket, address(vip)).unwrap().0 == servers[2].port()
    });
    assert!(heaviest.count() > 150);
}

/// A VIP whose label switches ejection off is sent to failing servers as before.
pub fn and_a_vip_without_ejection() {
    let mut plane = Plane::new();
    let (vip, other) = (tcp("10.99.0.1:80"), tcp("10.99.0.2:80"));
    let (dead, alive) = (closed_port(), tcp_server("127.0.0.1"));
    let scheduling = |flags| Scheduling { scheduler: SCHEDULER.to_owned(), flags };
    plane.apply(&service(vip, &[dead, alive]));
    plane.apply(&[Op::SetService(vip, scheduling(UNEJECTED))]);
    plane.apply(&service(other, &[dead, alive]));
    let refused = |vip| (0..100).filter(|_| TcpStream::connect(address(vip)).is_err()).count();
    assert!(refused(vip) > 20);
    assert!(plane.ebpf.seen().unwrap().ejected.is_empty());
    assert_eq!(refused(other), 3, "another VIP with the same servers ejects");
    plane.ebpf = l4lbd::dataplane::ebpf::Ebpf::open(&plane.options).unwrap();
    assert_eq!(plane.read().services[&vip].scheduling, scheduling(UNEJECTED));
    assert_eq!(plane.read().services[&other].scheduling, scheduling(0));
    plane.apply(&[Op::SetService(vip, scheduling(0)), Op::SetServer(vip, alive, RealServer::masquerade(2))]);
    assert_eq!(refused(vip), 3, "with the label gone, and weights that differ");
}
