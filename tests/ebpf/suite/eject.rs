//! Ejection of servers that fail.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use l4lbd::dataplane::connects::{Connects, Ejected, Remembered};
use l4lbd::dataplane::ebpf::{Ejection, Options};
use l4lbd::dataplane::{Op, RealServer, ServiceKey};

use super::seen::{Silent, begin, closed_port};
use crate::helper::Helper;
use crate::toolkit::*;

/// Data plane whose ejections are so long that none ends during a test.
fn patient() -> Plane {
    let hour = Duration::from_secs(3600);
    Plane::open(Options { ejection: Ejection { after: 3, time: hour, limit: hour }, ..options() })
}

fn seen(plane: &Plane, vip: ServiceKey, server: SocketAddr) -> Connects {
    plane.ebpf.seen().unwrap().servers.get(&(vip, server)).copied().unwrap_or_default()
}

/// Connects a number of times, and returns how many were refused.
fn refusals(vip: ServiceKey, count: usize) -> usize {
    let refused = |_: &usize| match TcpStream::connect(address(vip)) {
        Ok(_) => false,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => true,
        Err(error) => panic!("{error}"),
    };
    (0..count).filter(refused).count()
}

/// A task that was killed: its node refuses connections, and Mesos does not know yet.
pub fn a_server_that_refuses() {
    let mut plane = patient();
    let vip = tcp("10.99.0.1:80");
    let dead = closed_port();
    let mut servers: Vec<SocketAddr> = (0..3).map(|_| tcp_server("127.0.0.1")).collect();
    servers.push(dead);
    plane.apply(&service(vip, &servers));
    assert_eq!(refusals(vip, 400), 3, "of 400 connects");
    assert_eq!(seen(&plane, vip, dead).begun, 3);
    // It is told, and of this server alone.
    let told = plane.ebpf.seen().unwrap();
    let ejected: Vec<_> = told.ejected.iter().collect();
    let [((of_vip, server), Ejected { namespaces: 1, left_ms })] = ejected.as_slice() else {
        panic!("{ejected:?}")
    };
    assert_eq!((*of_vip, *server), (vip, dead));
    assert!((3_000_000..=3_600_000).contains(left_ms), "{left_ms}");
    assert_eq!(told.remembered, Some(Remembered { used: 1, limit: 8192 }));
    // It is decided in the kernel, so a restart changes nothing.
    plane.ebpf = l4lbd::dataplane::ebpf::Ebpf::open(&plane.options).unwrap();
    assert_eq!(refusals(vip, 100), 0);
}

pub fn comes_back_by_itself() {
    let mut plane = Plane::open(Options {
        ejection: Ejection { after: 3, time: Duration::from_millis(200), limit: Duration::from_secs(1) },
        ..options()
    });
    let vip = tcp("10.99.0.1:80");
    let (dead, alive) = (closed_port(), tcp_server("127.0.0.1"));
    plane.apply(&service(vip, &[dead, alive]));
    // One connection tries it after each ejection, and each ejection is longer than the one before.
    let start = Instant::now();
    let mut refused = 0;
    while refused < 6 {
        refused += refusals(vip, 1);
    }
    // The programs count in units of about a millisecond, and cut off.
    assert!(start.elapsed() >= Duration::from_millis(199 + 398 + 796), "{:?}", start.elapsed());
    let listener = TcpListener::bind(dead).unwrap();
    let mut accepted = 0;
    let over = Instant::now() + Duration::from_secs(60);
    listener.set_nonblocking(true).unwrap();
    while accepted < 10 {
        assert!(Instant::now() < over, "it gets {accepted} connections");
        refused += refusals(vip, 1);
        accepted += usize::from(listener.accept().is_ok());
    }
    assert_eq!(refused, 6);
}

/// A node that is cut off.
pub fn a_server_that_does_not_answer() {
    let mut plane = patient();
    let vip = tcp("10.99.0.1:80");
    let silent = Silent::new();
    let mut servers: Vec<SocketAddr> = (0..3).map(|_| tcp_server("127.0.0.1")).collect();
    servers.push(silent.address);
    plane.apply(&service(vip, &servers));
    let mut begun = Vec::new();
    while seen(&plane, vip, silent.address).begun < 5 {
        begun.push(begin(address(vip)));
    }
    let before = seen(&plane, vip, silent.address).begun;
    while seen(&plane, vip, silent.address).syn_retransmissions < before {
        thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..100 {
        connect(address(vip)).unwrap();
    }
    assert_eq!(seen(&plane, vip, silent.address).begun, before);
}

pub fn at_most_half_and_never_the_last() {
    let mut plane = patient();
    let (one, many) = (tcp("10.99.0.1:80"), tcp("10.99.0.2:80"));
    let (dead, second, third) = (closed_port(), closed_port(), closed_port());
    plane.apply(&service(one, &[dead]));
    assert_eq!(refusals(one, 50), 50);
    assert_eq!(seen(&plane, one, dead).begun, 50, "all were sent there");
    plane.apply(&service(many, &[dead, second, third, tcp_server("127.0.0.1")]));
    assert!(refusals(many, 200) > 20);
    let mut begun = [dead, second, third].map(|server| seen(&plane, many, server).begun);
    begun.sort_unstable();
    // Two of four are ejected; the last of those that refuse takes its part.
    assert!(begun[..2] == [3, 3] && begun[2] > 20, "{begun:?}");
}

/// Clients are tenants. What fails for one of them says nothing to another.
pub fn only_for_its_network_namespace() {
    let mut plane = patient();
    let vip = tcp("10.99.0.1:80");
    let servers = [tcp_server("127.0.0.1"), tcp_server("127.0.0.1")];
    plane.apply(&service(vip, &servers));
    // Nothing listens on the loopback link of another namespace; before it is up, there is no route either.
    for lo in ["up", "down"] {
        let mut elsewhere = Helper::start(&["fail-elsewhere", "10.99.0.1:80", "50", lo]);
        assert_eq!(elsewhere.line(), "50 failed");
    }
    let ports = tally((0..100).map(|_| connect(address(vip)).unwrap().1));
    assert!(ports.len() == 2 && ports.values().all(|count| *count >= 25), "{ports:?}");
}

/// A client that hangs up before an answer came has seen nothing.
pub fn not_for_a_connect_that_was_given_up() {
    let mut plane = patient();
    let vip = tcp("10.99.0.1:80");
    let silent = Silent::new();
    plane.apply(&service(vip, &[silent.address, tcp_server("127.0.0.1")]));
    for _ in 0..40 {
        drop(begin(address(vip)));
    }
    assert!(seen(&plane, vip, silent.address).begun >= 10);
}

/// A success between them shows that the failures have other causes.
pub fn not_for_failures_that_are_not_in_a_row() {
    let mut plane = patient();
    let vip = tcp("10.99.0.1:80");
    let flapping = closed_port();
    plane.apply(&service(vip, &[flapping, tcp_server("127.0.0.1")]));
    for round in 1..=5 {
        let wanted = Connects {
            begun: 3 * round - 1,
            refused: 2 * round,
            established: round - 1,
            ..Connects::default()
        };
        while seen(&plane, vip, flapping).refused < 2 * round {
            refusals(vip, 1);
        }
        assert_eq!(seen(&plane, vip, flapping), wanted);
        let listener = TcpListener::bind(flapping).unwrap();
        while seen(&plane, vip, flapping).established < round {
            refusals(vip, 1);
        }
        drop(listener);
    }
}

/// Another task may be given the id of one that was ejected, and so may the same one when it is ready again.
pub fn ends_by_the_word_of_mesos() {
    let mut plane = patient();
    let vip = tcp("10.99.0.1:80");
    let (dead, alive) = (closed_port(), tcp_server("127.0.0.1"));
    plane.apply(&service(vip, &[dead, alive]));
    refusals(vip, 50);
    assert_eq!(seen(&plane, vip, dead).refused, 3);
    plane.apply(&[weight(vip, dead, 0)]);
    plane.apply(&[weight(vip, dead, 1)]);
    refusals(vip, 50);
    assert_eq!(seen(&plane, vip, dead).refused, 6);
    plane.apply(&[Op::DelServer(vip, dead)]);
    plane.apply(&[Op::AddServer(vip, dead, RealServer::masquerade(1))]);
    refusals(vip, 50);
    assert_eq!(seen(&plane, vip, dead).refused, 3);
}

pub fn not_where_it_is_switched_off() {
    let options = Options { ejection: Ejection { after: 0, ..Ejection::default() }, ..options() };
    let mut plane = Plane::open(options);
    let vip = tcp("10.99.0.1:80");
    plane.apply(&service(vip, &[closed_port(), tcp_server("127.0.0.1")]));
    assert!(refusals(vip, 100) > 20);
}
