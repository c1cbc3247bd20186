//! Connections to deleted servers.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use caps::{CapSet, Capability};
use l4lbd::dataplane::Op;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::helper::Helper;
use crate::toolkit::*;

fn is_aborted(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::ConnectionAborted)
}

pub fn ends_the_right_connections() {
    for (vips, host) in
        [["10.99.0.1:80", "10.99.0.2:80"], ["[fd99::1]:80", "[fd99::2]:80"]].into_iter().zip(LOOPBACK)
    {
        let mut plane = Plane::new();
        let (gone, stays) = (tcp_server(host), tcp_server(host));
        let [vip, other] = vips.map(tcp);
        plane.apply(&service(vip, &[gone, stays]));
        plane.apply(&service(other, &[gone]));
        let mut ours = Vec::new();
        let mut theirs = vec![connect(gone).unwrap().0, connect(address(other)).unwrap().0];
        for _ in 0..20 {
            let (stream, port) = connect(address(vip)).unwrap();
            if port == gone.port() {
                ours.push(stream)
            } else {
                theirs.push(stream)
            }
            let mut stream = TcpStream::from(dual(Type::STREAM, address(vip)).unwrap());
            if greeting(&mut stream).unwrap() == gone.port() {
                ours.push(stream)
            } else {
                theirs.push(stream)
            }
        }
        assert!(!ours.is_empty() && theirs.len() > 2);
        plane.apply(&[weight(vip, gone, 0)]);
        assert!(ours.iter_mut().all(is_alive), "weight 0 ends nothing");
        plane.apply(&[Op::DelServer(vip, gone)]);
        assert!(ours.iter_mut().all(is_aborted));
        assert!(theirs.iter_mut().all(is_alive));
    }
}

pub fn ends_connected_udp() {
    for (text, host) in ["10.99.0.1:53", "[fd99::1]:53"].into_iter().zip(LOOPBACK) {
        let mut plane = Plane::new();
        let (gone, stays) = (udp_server(host), udp_server(host));
        let vip = udp(text);
        plane.apply(&service(vip, &[gone]));
        let ours = udp_socket(gone);
        ours.connect(address(vip)).unwrap();
        let both = UdpSocket::from(dual(Type::DGRAM, address(vip)).unwrap());
        let direct = udp_socket(gone);
        direct.connect(gone).unwrap();
        let unconnected = udp_socket(gone);
        assert_eq!(ask_at(&unconnected, address(vip)).unwrap().0, gone.port());
        plane.apply(&[
            Op::DelServer(vip, gone),
            Op::AddServer(vip, stays, l4lbd::dataplane::RealServer::masquerade(1)),
        ]);
        for socket in [&ours, &both] {
            assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        }
        assert_eq!(ask(&direct).unwrap(), gone.port());
        assert_eq!(ask_at(&unconnected, address(vip)).unwrap(), (stays.port(), address(vip)));
    }
}

/// The service has no other rights than these for its own network namespace.
pub fn ends_connected_udp_with_the_rights_of_the_service() {
    let mut plane = Plane::new();
    let (vip, gone) = (udp("10.99.0.1:53"), udp_server("127.0.0.1"));
    plane.apply(&service(vip, &[gone]));
    let socket = udp_socket(gone);
    socket.connect(address(vip)).unwrap();
    let all = caps::read(None, CapSet::Effective).unwrap();
    let few = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];
    caps::set(None, CapSet::Effective, &few.into_iter().collect()).unwrap();
    let failures = plane.ebpf.apply(&[&Op::DelServer(vip, gone)]);
    let finished = plane.ebpf.finish_pass(true);
    caps::set(None, CapSet::Effective, &all).unwrap();
    assert!(failures.is_empty(), "{failures:?}");
    finished.unwrap();
    assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

/// What l4lbd-networks(7) says of errors, each by the call that comes first after the end.
pub fn of_connected_udp_is_told_as_the_manual_says() {
    use ErrorKind::ConnectionAborted;
    let mut plane = Plane::new();
    let (gone, stays, vip) = (udp_server("127.0.0.1"), udp_server("127.0.0.1"), udp("10.99.0.1:53"));
    plane.apply(&service(vip, &[gone]));
    let sockets = [(); 5].map(|()| udp_socket(gone));
    for socket in &sockets {
        socket.connect(address(vip)).unwrap();
        assert_eq!(ask(socket).unwrap(), gone.port());
    }
    let add = Op::AddServer(vip, stays, l4lbd::dataplane::RealServer::masquerade(1));
    plane.apply(&[Op::DelServer(vip, gone), add]);
    let [receives, looks, sends, sends_again, names_it] = &sockets;
    let works = |socket: &UdpSocket| {
        socket.connect(address(vip)).unwrap();
        assert_eq!(ask(socket).unwrap(), stays.port());
        assert_eq!(socket.peer_addr().unwrap(), address(vip));
    };
    // Whoever receives, or looks at SO_ERROR, has the error once.
    assert_eq!(receives.recv(&mut [0]).unwrap_err().kind(), ConnectionAborted);
    works(receives);
    assert_eq!(looks.take_error().unwrap().unwrap().kind(), ConnectionAborted);
    works(looks);
    // Whoever sends is told that there is no destination, which does not take the error away.
    let unconnected = |socket: &UdpSocket| {
        assert_eq!(socket.send(b"?").unwrap_err().raw_os_error(), Some(nix::libc::EDESTADDRREQ));
        assert!(socket.peer_addr().is_err());
    };
    unconnected(sends);
    assert_eq!(sends.take_error().unwrap().unwrap().kind(), ConnectionAborted);
    works(sends);
    unconnected(sends_again);
    sends_again.connect(address(vip)).unwrap();
    assert_eq!(sends_again.send(b"?").unwrap_err().kind(), ConnectionAborted);
    works(sends_again);
    assert_eq!(names_it.send_to(b"?", address(vip)).unwrap_err().kind(), ConnectionAborted);
    assert_eq!(ask_at(names_it, address(vip)).unwrap(), (stays.port(), address(vip)));
}

/// Starts a client in a network namespace of its own that is connected through a VIP of one server.
fn client_elsewhere(plane: &mut Plane, kind: &str, vip: &str) -> (Helper, Op) {
    let key = tcp(vip);
    let free: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    plane.apply(&service(key, &[free]));
    let mut helper = Helper::start(&[kind, vip, &free.to_string()]);
    assert_eq!(helper.line(), vip);
    assert_eq!(plane.count(key, free), 1);
    (helper, Op::DelServer(key, free))
}

/// Those of a process, of one thread alone, and those that no process is in any more.
pub fn ends_connections_of_other_network_namespaces() {
    let mut plane = Plane::new();
    for kind in ["elsewhere", "elsewhere-in-a-thread", "elsewhere-and-back"] {
        let (mut helper, end) = client_elsewhere(&mut plane, kind, "10.99.0.1:80");
        plane.apply(&[end]);
        assert_eq!(helper.line(), ErrorKind::ConnectionAborted.to_string(), "{kind}");
        assert_eq!(plane.ebpf.unreached(), None, "{kind}");
        plane.apply(&[Op::DelService(tcp("10.99.0.1:80"))]);
    }
}

/// Without these rights the daemon cannot look into other processes.
pub fn of_other_namespaces_is_told_where_it_is_not_allowed() {
    let rights = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE];
    let mut plane = Plane::new();
    let (mut helper, end) = client_elsewhere(&mut plane, "elsewhere", "10.99.0.1:80");
    let (closed, end_of_closed) = client_elsewhere(&mut plane, "elsewhere", "10.99.0.2:80");
    rights.iter().for_each(|right| caps::drop(None, CapSet::Effective, *right).unwrap());
    assert!(plane.ebpf.apply(&[&end, &end_of_closed]).is_empty());
    let finished = plane.ebpf.finish_pass(true);
    let unreached = plane.ebpf.unreached();
    rights.iter().for_each(|right| caps::raise(None, CapSet::Effective, *right).unwrap());
    finished.unwrap();
    let unreached = unreached.expect("a report");
    assert_eq!(unreached.connections, 2);
    assert!(unreached.reason.contains("CAP_SYS_PTRACE, CAP_SYS_ADMIN"), "{}", unreached.reason);
    // What is closed needs no end.
    closed.kill();
    plane.apply(&[]);
    assert_eq!(plane.ebpf.unreached().map(|unreached| unreached.connections), Some(1));
    // The next search, in which there is more to look for, finds it.
    let (mut other, end) = client_elsewhere(&mut plane, "elsewhere", "10.99.0.3:80");
    plane.apply(&[end]);
    for helper in [&mut helper, &mut other] {
        assert_eq!(helper.line(), ErrorKind::ConnectionAborted.to_string());
    }
    assert_eq!(plane.ebpf.unreached(), None);
}

pub fn ends_later_what_it_could_not_end() {
    let mut plane = Plane::new();
    let (vip, gone) = (tcp("10.99.0.1:80"), tcp_server("127.0.0.1"));
    plane.apply(&service(vip, &[gone]));
    let (mut stream, _) = connect(address(vip)).unwrap();
    assert!(plane.ebpf.apply(&[&Op::DelServer(vip, gone)]).is_empty());
    // Without a free file descriptor no netlink socket can be opened.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
    let finished = plane.ebpf.finish_pass(true);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert!(finished.is_err());
    assert!(is_alive(&mut stream));
    plane.ebpf.finish_pass(true).unwrap();
    assert!(is_aborted(&mut stream));
}

pub fn a_service_that_goes() {
    let mut plane = Plane::new();
    let (vip, other) = (tcp("10.99.0.1:80"), tcp("10.99.0.1:81"));
    let server = tcp_server("127.0.0.1");
    plane.apply(&service(vip, &[server]));
    plane.apply(&service(other, &[server]));
    plane.apply(&[Op::AddRoute(route("10.99.0.0/24"))]);
    let (mut ours, mut theirs) = (connect(address(vip)).unwrap().0, connect(address(other)).unwrap().0);
    plane.apply(&[Op::DelService(vip)]);
    assert!(is_aborted(&mut ours));
    assert!(is_alive(&mut theirs));
    refused(TcpStream::connect(address(vip)));
    assert_eq!(plane.read().services.keys().copied().collect::<Vec<_>>(), [other]);
}

/// A daemon may be killed while it ends connections.
pub fn ends_what_an_earlier_run_left() {
    let mut plane = Plane::new();
    let (gone, drains) = (tcp_server("127.0.0.1"), tcp_server("127.0.0.1"));
    let (vip, other) = (tcp("10.99.0.1:80"), tcp("10.99.0.2:80"));
    plane.apply(&service(vip, &[gone]));
    plane.apply(&service(other, &[drains]));
    let datagrams = udp_server("127.0.0.1");
    plane.apply(&service(udp("10.99.0.1:53"), &[datagrams]));
    let socket = udp_socket(datagrams);
    socket.connect("10.99.0.1:53").unwrap();
    let (mut ours, mut theirs) = (connect(address(vip)).unwrap().0, connect(address(other)).unwrap().0);
    let mut direct = connect(gone).unwrap().0;
    plane.apply(&[weight(other, drains, 0)]);
    let ops = [Op::DelService(vip), Op::DelServer(udp("10.99.0.1:53"), datagrams)];
    assert!(plane.ebpf.apply(&ops.iter().collect::<Vec<_>>()).is_empty());
    plane.reopen();
    assert!(is_alive(&mut ours));
    plane.apply(&[]);
    assert!(is_aborted(&mut ours));
    assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert!(is_alive(&mut theirs) && is_alive(&mut direct));
}

/// A server that is gone may never answer, and there is nothing to drain.
pub fn ends_a_connect_that_waits() {
    let mut plane = Plane::new();
    let vip = tcp("10.99.0.1:80");
    // With its queue full, the listener drops what asks for a connection.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let server = full.local_addr().unwrap().as_socket().unwrap();
    plane.apply(&service(vip, &[server]));
    let mut established = TcpStream::connect(address(vip)).unwrap();
    for is_restarted in [false, true] {
        let waiting = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        waiting.set_nonblocking(true).unwrap();
        assert!(waiting.connect(&address(vip).into()).is_err());
        assert!(waiting.take_error().unwrap().is_none());
        assert!(plane.ebpf.apply(&[&weight(vip, server, 0)]).is_empty());
        if is_restarted {
            plane.reopen();
        }
        plane.apply(&[]);
        let ended = waiting.take_error().unwrap().map(|error| error.kind());
        assert_eq!(ended, Some(ErrorKind::ConnectionAborted));
        plane.apply(&[weight(vip, server, 1)]);
    }
    established.set_nonblocking(true).unwrap();
    assert_eq!(established.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}
