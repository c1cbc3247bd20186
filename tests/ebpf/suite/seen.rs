//! What the kernel has seen of connects.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use l4lbd::dataplane::Op;
use l4lbd::dataplane::connects::{Connects, ServiceConnects};
use socket2::{Domain, Socket, Type};

use crate::helper::Helper;
use crate::toolkit::*;

/// Server that answers no SYN as long as its queue is full.
pub struct Silent {
    listener: Socket,
    pub address: SocketAddr,
    _waiting: TcpStream,
}

impl Silent {
    pub fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        Self { listener, address, _waiting: TcpStream::connect(address).unwrap() }
    }
}

/// Address at which nothing listens.
pub fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Begins a connect and does not wait for it.
pub fn begin(to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let error = socket.connect(&to.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EINPROGRESS));
    socket
}

fn of_vip(plane: &Plane, vip: l4lbd::dataplane::ServiceKey) -> ServiceConnects {
    plane.ebpf.seen().unwrap().services.get(&vip).cloned().unwrap_or_default()
}

pub fn of_connects_by_what_became_of_them() {
    let mut plane = Plane::new();
    let vip = tcp("10.99.0.1:80");
    let (open, closed) = (tcp_server("127.0.0.1"), closed_port());
    let silent = Silent::new();
    let lost = silent.address;
    plane.apply(&service(vip, &[open]));
    let before = plane.ebpf.seen().unwrap();
    assert_eq!((before.services, before.servers), Default::default());
    let held: Vec<_> = (0..10).map(|_| connect(address(vip)).unwrap()).collect();
    plane.apply(&[Op::DelServer(vip, open), Op::AddServer(vip, closed, masquerade())]);
    for _ in 0..3 {
        refused_by_server(address(vip));
    }
    plane.apply(&[Op::DelServer(vip, closed), Op::AddServer(vip, lost, masquerade())]);
    // One is given up at once, and one after its first SYN was not answered.
    drop(begin(address(vip)));
    let late = begin(address(vip));
    while of_vip(&plane, vip).connects.syn_retransmissions == 0 {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(plane.count(vip, lost), 1);
    drop(late);
    assert_eq!(plane.count(vip, lost), 0);
    let seen = plane.ebpf.seen().unwrap();
    let all = &seen.services[&vip];
    let retransmissions = all.connects.syn_retransmissions;
    let wanted = Connects {
        begun: 15,
        established: 10,
        refused: 3,
        timed_out: 1,
        syn_retransmissions: retransmissions,
    };
    assert_eq!(all.connects, wanted);
    assert_eq!(all.latency.iter().map(|class| class.connects).sum::<u64>(), 10);
    // On the loopback link none takes long; the machine may be slow.
    assert!(all.latency.iter().all(|class| class.below_us.is_some()), "{all:?}");
    let of_lost =
        Connects { begun: 2, timed_out: 1, syn_retransmissions: retransmissions, ..Connects::default() };
    assert_eq!(seen.servers, [((vip, lost), of_lost)].into());
    assert_eq!(seen.total(), wanted);
    drop(held);
    // A server begins at 0, whatever id it is given, and so does a service.
    plane.apply(&[Op::DelService(vip)]);
    plane.apply(&service(vip, &[open]));
    connect(address(vip)).unwrap();
    let one = Connects { begun: 1, established: 1, ..Connects::default() };
    assert_eq!(of_vip(&plane, vip).connects, one);
    assert_eq!(plane.ebpf.seen().unwrap().servers, [((vip, open), one)].into());
}

fn masquerade() -> l4lbd::dataplane::RealServer {
    l4lbd::dataplane::RealServer::masquerade(1)
}

fn refused_by_server(vip: SocketAddr) {
    let error = TcpStream::connect(vip).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// A connect that took longer than a second is not counted as a short one.
pub fn of_a_connect_that_took_long() {
    let mut plane = Plane::new();
    let vip = tcp("10.99.0.1:80");
    let server = Silent::new();
    plane.apply(&service(vip, &[server.address]));
    let second = begin(address(vip));
    while of_vip(&plane, vip).connects.syn_retransmissions == 0 {
        thread::sleep(Duration::from_millis(20));
    }
    server.listener.accept().unwrap();
    while of_vip(&plane, vip).connects.established == 0 {
        thread::sleep(Duration::from_millis(20));
    }
    let latency = of_vip(&plane, vip).latency;
    assert!(latency.iter().all(|class| class.below_us.is_none()), "{latency:?}");
    drop(second);
}

/// What cannot be trusted would send every plain connection to the other server.
pub fn of_multipath_tcp_ends_with_the_connection() {
    let mut plane = Plane::new();
    let vip = tcp("10.99.0.1:80");
    let servers = [tcp_server("127.0.0.1"), tcp_server("127.0.0.1")];
    plane.apply(&service(vip, &servers[..1]));
    for _ in 0..500 {
        let Some(mut stream) = multipath(address(vip)) else { return };
        assert_eq!(greeting(&mut stream).unwrap(), servers[0].port());
    }
    let held = multipath(address(vip)).unwrap();
    // The server closes what its clients have closed, and then the kernel ends the connection.
    while plane.total() > 1 {
        thread::sleep(Duration::from_millis(20));
    }
    drop(held);
    while plane.total() > 0 {
        thread::sleep(Duration::from_millis(20));
    }
    plane.apply(&[Op::AddServer(vip, servers[1], masquerade())]);
    let ports = tally((0..200).map(|_| connect(address(vip)).unwrap().1));
    assert!(ports.values().all(|count| *count >= 50) && ports.len() == 2, "{ports:?}");
}

/// A reset ends a connection whose client still has its socket.
pub fn of_a_connection_that_was_reset() {
    let mut plane = Plane::new();
    let vip = tcp("10.99.0.1:80");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    plane.apply(&service(vip, &[server]));
    let client = TcpStream::connect(address(vip)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert_eq!(plane.count(vip, server), 1);
    socket2::SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).unwrap();
    drop(accepted);
    while plane.count(vip, server) > 0 {
        thread::sleep(Duration::from_millis(20));
    }
    drop(client);
    assert_eq!(plane.count(vip, server), 0);
}

pub fn outlives_the_daemon() {
    let options = options();
    let server = tcp_server("127.0.0.1");
    let mut daemon = Helper::start(&[
        "load",
        options.cgroup.as_ref().unwrap().to_str().unwrap(),
        options.pins.to_str().unwrap(),
        "10.99.0.1:80",
        &server.to_string(),
    ]);
    assert_eq!(daemon.line(), "ready");
    let vip = tcp("10.99.0.1:80");
    let held = connect(address(vip)).unwrap();
    daemon.kill();
    connect(address(vip)).unwrap();
    let mut plane = Plane::open(options);
    let two = Connects { begun: 2, established: 2, ..Connects::default() };
    assert_eq!(plane.ebpf.seen().unwrap().servers, [((vip, server), two)].into());
    // Another VIP begins with its own figures, and leaves those of the first alone.
    let other = tcp("10.99.0.2:80");
    plane.apply(&service(other, &[server]));
    connect(address(other)).unwrap();
    plane.reopen();
    assert_eq!(of_vip(&plane, vip).connects, two);
    assert_eq!(of_vip(&plane, other).connects.established, 1);
    drop(held);
    assert_eq!(plane.count(vip, server), 0);
}

/// A version before counted connections, and saw nothing of what became of them.
pub fn after_an_upgrade() {
    let mut plane = Plane::new();
    let vip = tcp("10.99.0.1:80");
    let server = tcp_server("127.0.0.1");
    plane.apply(&service(vip, &[server]));
    let mut held = connect(address(vip)).unwrap();
    for name in ["connects", "vip_connects", "late", "locks", "sock_ops"] {
        fs::remove_file(plane.options.pins.join("v1").join(name)).unwrap();
    }
    plane.reopen();
    let before = plane.ebpf.seen().unwrap();
    assert_eq!((before.services, before.servers), Default::default());
    assert_eq!(plane.count(vip, server), 1);
    assert_eq!(held.0.peer_addr().unwrap(), address(vip));
    let second = connect(address(vip)).unwrap();
    assert_eq!(of_vip(&plane, vip).connects.established, 1);
    assert_eq!(plane.count(vip, server), 2);
    drop(second);
    assert_eq!(plane.count(vip, server), 1);
    plane.apply(&[Op::DelServer(vip, server)]);
    assert!(!is_alive(&mut held.0), "it ends with its server");
}
