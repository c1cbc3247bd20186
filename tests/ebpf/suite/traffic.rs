//! Single connections and datagrams.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use l4lbd::dataplane::ebpf::{Ebpf, Options};
use l4lbd::dataplane::{Op, RealServer, ServiceKey};
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
        let ports = tally((0..64).map(|_| {
            let socket = udp_socket(vip);
            let (port, from) = ask_at(&socket, vip).unwrap();
            assert_eq!(from, vip);
            port
        }));
        assert_eq!(ports.len(), 2, "each socket is for itself: {ports:?}");
        // The same server, without a VIP, from another socket.
        let direct = udp_socket(vip);
        assert_eq!(ask_at(&direct, servers[0]).unwrap(), (servers[0].port(), servers[0]));
    }
}

/// Sessions of several datagrams: QUIC, DTLS, RADIUS.
pub fn unconnected_udp_keeps_its_server() {
    for (vip, host) in ["10.99.0.1:53", "[fd99::1]:53"].into_iter().zip(LOOPBACK) {
        let mut plane = Plane::new();
        let key = udp(vip);
        let (first, second, third) = (udp_server(host), udp_server(host), udp_server(host));
        plane.apply(&service(key, &[first, second]));
        let socket = udp_socket(address(key));
        let ports = |count| tally((0..count).map(|_| ask_at(&socket, address(key)).unwrap().0));
        let kept = ports(20);
        assert_eq!(kept.len(), 1, "{kept:?}");
        // Others come and go, and the daemon starts anew.
        plane.apply(&[Op::AddServer(key, third, RealServer::masquerade(1))]);
        plane.reopen();
        assert_eq!(ports(20), kept);
        let (own, other) = if kept.contains_key(&first.port()) { (first, second) } else { (second, first) };
        plane.apply(&[Op::DelServer(key, other)]);
        assert_eq!(ports(20), kept);
        // As with IPVS, whose entry is of the client's port.
        socket.connect(address(key)).unwrap();
        assert_eq!(ask(&socket).unwrap(), own.port());
        disconnect(&socket);
        assert_eq!(ports(20), kept);
        // It leaves with its server, for whatever reason it goes, and stays with the next one.
        plane.apply(&[weight(key, own, 0)]);
        assert_eq!(ports(20), [(third.port(), 20)].into());
        plane.apply(&[weight(key, own, 1)]);
        assert_eq!(ports(20), [(third.port(), 20)].into());
        plane.apply(&[Op::DelServer(key, third)]);
        assert_eq!(ports(20), kept);
        plane.apply(&[Op::DelServer(key, own)]);
        refused(socket.send_to(b"?", address(key)));
    }
}

/// A server that is gone may have given its id to another one.
pub fn unconnected_udp_whose_server_s_id_is_another_server_s() {
    let mut plane = Plane::new();
    let key = udp("10.99.0.1:53");
    let mut before = udp_server("127.0.0.1");
    plane.apply(&service(key, &[before]));
    let socket = udp_socket(address(key));
    for _ in 0..20 {
        assert_eq!(ask_at(&socket, address(key)).unwrap(), (before.port(), address(key)));
        let after = udp_server("127.0.0.1");
        plane.apply(&[Op::DelService(key)]);
        // A start forgets which ids were in use.
        plane.reopen();
        plane.apply(&service(key, &[after]));
        before = after;
    }
}

pub fn unconnected_udp_that_has_rested() {
    let mut plane = Plane::open(Options { udp_timeout: Duration::ZERO, ..options() });
    let key = udp("10.99.0.1:53");
    let servers = [udp_server("127.0.0.1"), udp_server("127.0.0.1")];
    plane.apply(&service(key, &servers));
    let socket = udp_socket(address(key));
    let mut reached = BTreeSet::new();
    while reached.len() < 2 {
        let (port, from) = ask_at(&socket, address(key)).unwrap();
        assert_eq!(from, address(key));
        reached.insert(port);
    }
}

/// One socket for many sessions, as QUIC has it.
pub fn unconnected_udp_with_very_many_vips() {
    let mut plane = Plane::new();
    let servers: Vec<SocketAddr> = (0..4).map(|_| udp_server("127.0.0.1")).collect();
    // As many as have a place, and others.
    let keys: Vec<ServiceKey> = (0..96).map(|port| udp(&format!("10.99.0.1:{}", 1000 + port))).collect();
    plane.apply(&keys.iter().flat_map(|key| service(*key, &servers)).collect::<Vec<_>>());
    let (keys, others) = keys.split_at(76);
    let socket = udp_socket(address(keys[0]));
    let ask_all = |keys: &[ServiceKey]| -> Vec<u16> {
        let each = keys.iter().map(|key| {
            let (port, from) = ask_at(&socket, address(*key)).unwrap();
            assert_eq!(from, address(*key));
            port
        });
        each.collect()
    };
    let kept = ask_all(keys);
    assert!(tally(kept.iter().copied()).len() > 1);
    assert_eq!(ask_all(keys), kept);
    servers.iter().for_each(|server| {
        assert_eq!(ask_at(&socket, *server).unwrap(), (server.port(), *server));
    });
    assert_eq!(ask_all(keys), kept);
    // What was used least recently makes room.
    let of_others = ask_all(others);
    let kept = ask_all(&keys[others.len() + 12..]);
    assert_eq!(ask_all(others), of_others);
    assert_eq!(ask_all(&keys[others.len() + 12..]), kept);
}

/// Each answer comes from the address that was asked.
pub fn unconnected_udp_that_asks_a_server_by_several_names() {
    for (vips, host) in
        [["10.99.0.1:53", "10.99.0.2:54"], ["[fd99::1]:53", "[fd99::2]:54"]].into_iter().zip(LOOPBACK)
    {
        let mut plane = Plane::new();
        let server = echo_server(host);
        let direct = server.local_addr().unwrap();
        for vip in vips {
            plane.apply(&service(udp(vip), &[direct]));
        }
        let [first, second] = vips.map(|vip| address(udp(vip)));
        let mut clients = vec![udp_socket(first)];
        if first.is_ipv4() {
            clients.push(UdpSocket::bind("[::]:0").unwrap());
        }
        for client in clients {
            let is_dual = client.local_addr().unwrap().is_ipv6() && first.is_ipv4();
            let name = |name: SocketAddr| if is_dual { mapped(name) } else { name };
            let sender = || {
                let mut byte = [0];
                let (_, from) = client.recv_from(&mut byte).unwrap();
                (byte[0], from)
            };
            let asked = |names: &[SocketAddr]| {
                for (number, to) in (0..).zip(names) {
                    client.send_to(&[number], name(*to)).unwrap();
                }
                // Answers may overtake each other only in a network.
                for (number, to) in (0..).zip(names) {
                    assert_eq!(sender(), (number, name(*to)), "{names:?}");
                }
            };
            let unasked = |from: SocketAddr| {
                let to = SocketAddr::new(direct.ip(), client.local_addr().unwrap().port());
                server.send_to(&[99], to).unwrap();
                assert_eq!(sender(), (99, name(from)));
            };
            asked(&[first]);
            unasked(first);
            asked(&[direct]);
            unasked(direct);
            asked(&[second]);
            unasked(second);
            asked(&[first, second]);
            asked(&[first, direct, second, second, direct, first, direct, first]);
            asked(&[first; 30]);
            asked(&[direct, first, second, direct]);
            // A client that looks at no sender, and one that is not answered, cost the next one nothing for long.
            client.send_to(&[1], name(first)).unwrap();
            client.recv(&mut [0]).unwrap();
            asked(&[first]);
        }
    }
}

/// No program runs when a socket disconnects.
pub fn udp_that_was_connected_and_is_no_longer() {
    for (vips, host) in
        [["10.99.0.1:53", "10.99.0.2:54"], ["[fd99::1]:53", "[fd99::2]:54"]].into_iter().zip(LOOPBACK)
    {
        let mut plane = Plane::new();
        let server = udp_server(host);
        let [vip, other] = vips.map(udp);
        plane.apply(&service(vip, &[server]));
        plane.apply(&service(other, &[server]));
        let socket = udp_socket(server);
        socket.connect(address(vip)).unwrap();
        assert_eq!(ask(&socket).unwrap(), server.port());
        // The socket gets another port when it disconnects, so the answer has to be there.
        socket.send(b"?").unwrap();
        socket.peek(&mut [0; 2]).unwrap();
        disconnect(&socket);
        assert_eq!(socket.recv_from(&mut [0; 2]).unwrap().1, address(vip));
        assert_eq!(plane.count(vip, server), 0, "it counts as no connection any more");
        for name in [server, address(other), server, address(vip)] {
            assert_eq!(ask_at(&socket, name).unwrap(), (server.port(), name));
        }
        socket.connect(address(vip)).unwrap();
        disconnect(&socket);
        assert_eq!(ask_at(&socket, server).unwrap(), (server.port(), server));
        socket.connect(server).unwrap();
        assert_eq!(ask(&socket).unwrap(), server.port());
        socket.send(b"?").unwrap();
        assert_eq!(socket.recv_from(&mut [0; 2]).unwrap().1, server);
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
    let mut plane = Plane::new();
    let (vip, server) = (tcp("10.99.0.1:80"), tcp_server("127.0.0.1"));
    plane.apply(&service(vip, &[server]));
    let Some(mut stream) = multipath(address(vip)) else { return };
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
