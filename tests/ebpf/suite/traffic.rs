//! Single connections and datagrams.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use l4lbd::dataplane::Op;
use l4lbd::dataplane::ebpf::Ebpf;
use socket2::{Domain, Socket, Type};

use crate::helper::Helper;
use crate::place;
use crate::toolkit::*;

pub fn a_connection() {
    let mut plane = Plane::new();
    for (vip, host) in ["10.99.0.1:80", "[fd99::1]:80"].into_iter().zip(LOOPBACK) {
        let server = tcp_server(host);
        plane.apply(&service(tcp(vip), &[server]));
        let (mut stream, port) = connect(vip.parse().unwrap()).unwrap();
        assert_eq!(port, server.port());
        assert_eq!(stream.peer_addr().unwrap(), vip.parse().unwrap());
        assert_eq!(stream.local_addr().unwrap().ip(), server.ip());
        assert!(is_alive(&mut stream));
    }
}

pub fn connected_udp() {
    let mut plane = Plane::new();
    for (vip, host) in ["10.99.0.1:53", "[fd99::1]:53"].into_iter().zip(LOOPBACK) {
        let server = udp_server(host);
        plane.apply(&service(udp(vip), &[server]));
        let vip: SocketAddr = vip.parse().unwrap();
        let socket = udp_socket(vip);
        socket.connect(vip).unwrap();
        assert_eq!(ask(&socket).unwrap(), server.port());
        assert_eq!(socket.peer_addr().unwrap(), vip);
        socket.send(b"?").unwrap();
        assert_eq!(socket.recv_from(&mut [0; 2]).unwrap().1, vip);
    }
}

/// A connected socket receives from its own server only.
pub fn connected_udp_that_names_its_vip_again() {
    let mut plane = Plane::new();
    for (vip, host) in ["10.99.0.1:53", "[fd99::1]:53"].into_iter().zip(LOOPBACK) {
        plane.apply(&service(udp(vip), &[udp_server(host), udp_server(host), udp_server(host)]));
        let vip: SocketAddr = vip.parse().unwrap();
        let socket = udp_socket(vip);
        socket.connect(vip).unwrap();
        let port = ask(&socket).unwrap();
        for _ in 0..20 {
            assert_eq!(ask_at(&socket, vip).unwrap(), (port, vip));
        }
    }
}

/// The kernel leaves a refused socket connected as it was.
pub fn an_udp_socket_that_is_refused_another_vip() {
    let mut plane = Plane::new();
    let (vip, empty) = (udp("10.99.0.1:53"), udp("10.99.0.2:53"));
    let server = udp_server("127.0.0.1");
    plane.apply(&service(vip, &[server]));
    plane.apply(&service(empty, &[]));
    let socket = udp_socket(server);
    socket.connect(address(vip)).unwrap();
    refused(socket.connect(address(empty)));
    assert_eq!(ask(&socket).unwrap(), server.port());
    assert_eq!(socket.peer_addr().unwrap(), address(vip));
    assert_eq!(plane.count(vip, server), 1);
    plane.apply(&[Op::DelServer(vip, server)]);
    assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

pub fn unconnected_udp() {
    let mut plane = Plane::new();
    for (vip, host) in ["10.99.0.1:53", "[fd99::1]:53"].into_iter().zip(LOOPBACK) {
        let servers = [udp_server(host), udp_server(host)];
        plane.apply(&service(udp(vip), &servers));
        let vip: SocketAddr = vip.parse().unwrap();
        let socket = udp_socket(vip);
        let ports = tally((0..64).map(|_| {
            let (port, from) = ask_at(&socket, vip).unwrap();
            assert_eq!(from, vip);
            port
        }));
        assert_eq!(ports.len(), 2, "each datagram is for itself: {ports:?}");
        // The same server, without a VIP, from another socket.
        let direct = udp_socket(vip);
        assert_eq!(ask_at(&direct, servers[0]).unwrap(), (servers[0].port(), servers[0]));
    }
}

pub fn ipv4_on_an_ipv6_socket() {
    let mut plane = Plane::new();
    let (stream_server, datagram_server) = (tcp_server("127.0.0.1"), udp_server("127.0.0.1"));
    let vip: SocketAddr = "10.99.0.1:80".parse().unwrap();
    plane.apply(&service(tcp("10.99.0.1:80"), &[stream_server]));
    plane.apply(&service(udp("10.99.0.1:80"), &[datagram_server]));

    let mut stream = TcpStream::from(dual(Type::STREAM, vip).unwrap());
    assert_eq!(greeting(&mut stream).unwrap(), stream_server.port());
    assert_eq!(stream.peer_addr().unwrap(), mapped(vip));

    let connected = UdpSocket::from(dual(Type::DGRAM, vip).unwrap());
    assert_eq!(ask(&connected).unwrap(), datagram_server.port());
    assert_eq!(connected.peer_addr().unwrap(), mapped(vip));

    let unconnected = UdpSocket::bind("[::]:0").unwrap();
    assert_eq!(ask_at(&unconnected, mapped(vip)).unwrap(), (datagram_server.port(), mapped(vip)));
}

pub fn multipath_tcp() {
    const MPTCP: i32 = 262;
    let mut plane = Plane::new();
    let (vip, server) = (tcp("10.99.0.1:80"), tcp_server("127.0.0.1"));
    plane.apply(&service(vip, &[server]));
    let socket = match Socket::new(Domain::IPV4, Type::STREAM, Some(MPTCP.into())) {
        // Debian's 5.10 has none.
        Err(error) if kernel() < (5, 15) => {
            assert_eq!(error.raw_os_error(), Some(nix::libc::EPROTONOSUPPORT));
            return;
        }
        socket => socket.expect("a kernel with MPTCP"),
    };
    socket.connect(&address(vip).into()).unwrap();
    let mut stream = TcpStream::from(socket);
    assert_eq!(greeting(&mut stream).unwrap(), server.port());
    assert!(is_alive(&mut stream));
}

pub fn tcp_without_waiting() {
    let mut plane = Plane::new();
    let server = tcp_server("127.0.0.1");
    plane.apply(&service(tcp("10.99.0.1:80"), &[server]));
    let vip: SocketAddr = "10.99.0.1:80".parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let started = socket.connect(&vip.into()).unwrap_err();
    assert_eq!(started.raw_os_error(), Some(nix::libc::EINPROGRESS));
    socket.set_nonblocking(false).unwrap();
    let mut stream = TcpStream::from(socket);
    assert_eq!(greeting(&mut stream).unwrap(), server.port());
    assert_eq!(stream.peer_addr().unwrap(), vip);

    let refusing = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    refusing.set_nonblocking(true).unwrap();
    plane.apply(&[Op::AddRoute(route("10.99.0.0/24"))]);
    refused(refusing.connect(&"10.99.0.1:81".parse::<SocketAddr>().unwrap().into()));
}

pub fn an_udp_socket_that_connects_again() {
    let mut plane = Plane::new();
    let servers = [udp_server("127.0.0.1"), udp_server("127.0.0.1")];
    let keys = [udp("10.99.0.1:53"), udp("10.99.0.2:53")];
    for (key, server) in keys.into_iter().zip(servers) {
        plane.apply(&service(key, &[server]));
    }
    let socket = udp_socket(servers[0]);
    for round in 0..20 {
        let at = round % 2;
        socket.connect(address(keys[at])).unwrap();
        assert_eq!(ask(&socket).unwrap(), servers[at].port());
        assert_eq!(socket.peer_addr().unwrap(), address(keys[at]));
        assert_eq!(plane.count(keys[at], servers[at]), 1);
        assert_eq!(plane.count(keys[1 - at], servers[1 - at]), 0);
    }
    socket.connect(servers[0]).unwrap();
    assert_eq!(socket.peer_addr().unwrap(), servers[0]);
    assert_eq!(plane.total(), 0);
}

pub fn refused_at_once() {
    let mut plane = Plane::new();
    plane.apply(&[Op::AddRoute(route("10.99.0.0/24")), Op::AddRoute(route("fd99::/64"))]);
    let network = plane.read().networks;
    assert_eq!(network, ["10.99.0.0/24", "fd99::/64"].map(|text| text.parse().unwrap()).into());
    for vip in ["10.99.0.1:80", "[fd99::1]:80"] {
        let at: SocketAddr = vip.parse().unwrap();
        let refuses = || {
            refused(TcpStream::connect(at));
            let socket = udp_socket(at);
            refused(socket.send_to(b"?", at));
            refused(socket.connect(at));
            refused(dual(Type::STREAM, at));
        };
        // No service, one without servers, and one whose only server takes nothing new.
        refuses();
        for key in [tcp(vip), udp(vip)] {
            plane.apply(&service(key, &[]));
        }
        refuses();
        for key in [tcp(vip), udp(vip)] {
            let server =
                SocketAddr::new(if at.is_ipv4() { LOOPBACK[0] } else { LOOPBACK[1] }.parse().unwrap(), 9);
            plane.apply(&[Op::AddServer(key, server, l4lbd::dataplane::RealServer::masquerade(0))]);
        }
        refuses();
    }
    // The other protocol of a service's port is no service.
    let server = tcp_server("127.0.0.1");
    plane.apply(&service(tcp("10.99.0.9:80"), &[server]));
    refused(udp_socket(server).send_to(b"?", "10.99.0.9:80"));
    assert_eq!(connect("10.99.0.9:80".parse().unwrap()).unwrap().1, server.port());
    // Outside the networks our programs refuse nothing. Here the address has no route.
    plane.apply(&[Op::DelRoute(route("10.99.0.0/24"))]);
    let error = TcpStream::connect("10.99.0.200:80").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::ENETUNREACH));
}

pub fn a_server_that_refuses() {
    let mut plane = Plane::new();
    let nobody = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let key = tcp("10.99.0.1:80");
    plane.apply(&service(key, &[nobody]));
    assert_eq!(TcpStream::connect(address(key)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(plane.count(key, nobody), 0);
}

pub fn other_addresses_are_left_alone() {
    let mut plane = Plane::new();
    let (served, other) = (tcp_server("127.0.0.1"), tcp_server("127.0.0.1"));
    plane.apply(&service(tcp("10.99.0.1:80"), &[served]));
    plane.apply(&[Op::AddRoute(route("10.99.0.0/24"))]);
    for server in [served, other] {
        let (mut stream, port) = connect(server).unwrap();
        assert_eq!((port, stream.peer_addr().unwrap()), (server.port(), server));
        stream.write_all(b"x").unwrap();
    }
    assert_eq!(plane.total(), 0);
}

pub fn other_cgroups_are_left_alone() {
    let mut plane = Plane::new();
    let server = tcp_server("127.0.0.1");
    plane.apply(&service(tcp("10.99.0.1:80"), &[server]));
    for (inside, answer) in [(true, "connected"), (false, "NetworkUnreachable")] {
        let mut helper = Helper::start(&["try", "10.99.0.1:80"]);
        if !inside {
            place::join(place::outside(), helper.child.id()).unwrap();
        }
        helper.go_on();
        assert_eq!(helper.line(), answer);
    }
}

/// The daemon's own sockets, of whatever library and protocol, go where they are told.
pub fn of_an_exempt_process() {
    let mut plane = Plane::new();
    let servers = [tcp_server("127.0.0.1"), tcp_server("127.0.0.1")];
    // The daemon's own server has the address that a label asked for.
    plane.apply(&service(tcp(&servers[0].to_string()), &servers[1..]));
    plane.apply(&service(udp("10.99.0.1:53"), &[udp_server("127.0.0.1")]));
    plane.apply(&[Op::AddRoute(route("10.99.0.0/24"))]);
    let reached = || connect(servers[0]).map(|(_, port)| port).unwrap();
    assert_eq!(reached(), servers[1].port());

    let exemptions = [(); 2].map(|()| Ebpf::exempt_this_process(&plane.options).unwrap().expect("announced"));
    assert_eq!(reached(), servers[0].port());
    let socket = udp_socket(servers[0]);
    for port in [53, 54] {
        let error = socket.send_to(b"?", ("10.99.0.1", port)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENETUNREACH));
        assert_eq!(
            socket.connect(("10.99.0.1", port)).unwrap_err().raw_os_error(),
            Some(nix::libc::ENETUNREACH)
        );
    }
    assert_eq!(plane.total(), 0);
    // Other processes go on as before, and so does this one after its last exemption.
    let mut helper = Helper::start(&["reach", &servers[0].to_string()]);
    assert_eq!(helper.line(), servers[1].port().to_string());
    let [first, last] = exemptions;
    drop(first);
    assert_eq!(reached(), servers[0].port());
    drop(last);
    assert_eq!(reached(), servers[1].port());
}

/// The kernel may give its id to a client.
pub fn of_a_process_that_was_exempt_and_killed() {
    let mut plane = Plane::new();
    let (vip, server) = (tcp("10.99.0.1:80"), tcp_server("127.0.0.1"));
    plane.apply(&service(vip, &[server]));
    let pins = plane.options.pins.to_str().unwrap();
    for _ in 0..2 {
        let mut helper = Helper::start(&["exempt", pins, "10.99.0.1:80"]);
        assert_eq!(helper.line(), "NetworkUnreachable");
        assert_eq!(exempt_processes(&plane), 1);
        helper.kill();
        assert_eq!(exempt_processes(&plane), 0);
    }
}

fn exempt_processes(plane: &Plane) -> usize {
    let map = aya::maps::MapData::from_pin(plane.options.pins.join("v1/exempt")).unwrap();
    let map: aya::maps::HashMap<_, u32, u32> = aya::maps::Map::HashMap(map).try_into().unwrap();
    map.keys().count()
}
