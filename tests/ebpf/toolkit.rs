//! Servers, clients and a data plane with pins of its own.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use l4lbd::cluster::Protocol;
use l4lbd::dataplane::ebpf::{Ebpf, EbpfReading, Ejection, Options, SCHEDULER};
use l4lbd::dataplane::{Op, RealServer, Route, Scheduling, ServiceKey};
use socket2::{Domain, Socket, Type};

use crate::place;

/// Timeout of reads, after which a test fails.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

pub const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

/// Data plane with pins of its own, which are removed when it is dropped.
pub struct Plane {
    pub ebpf: Ebpf,
    pub options: Options,
}

impl Drop for Plane {
    fn drop(&mut self) {
        Ebpf::purge(&self.options).expect("purge");
    }
}

pub fn options() -> Options {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Options {
        cgroup: Some(place::cgroup().to_owned()),
        pins: PathBuf::from(format!("{}/{number}", place::BPF)),
        udp_timeout: Duration::from_secs(3600),
        ejection: Ejection::default(),
    }
}

impl Plane {
    pub fn new() -> Self {
        Self::open(options())
    }

    pub fn open(options: Options) -> Self {
        Self { ebpf: Ebpf::open(&options).expect("open"), options }
    }

    /// Opens what is pinned anew, as the next process would.
    pub fn reopen(&mut self) {
        self.ebpf = Ebpf::open(&self.options).expect("open again");
    }

    pub fn apply(&mut self, ops: &[Op]) {
        let failures = self.ebpf.apply(&ops.iter().collect::<Vec<_>>());
        assert!(failures.is_empty(), "{failures:?}");
        self.ebpf.finish_pass(true).expect("finish the pass");
    }

    /// Returns the message of an operation that fails.
    pub fn refusal(&mut self, op: Op) -> String {
        let failures = self.ebpf.apply(&[&op]);
        let [(0, error)] = failures.as_slice() else { panic!("{failures:?}") };
        error.to_string()
    }

    pub fn read(&mut self) -> EbpfReading {
        self.ebpf.read().expect("read")
    }

    /// Returns the number of connections of a server.
    pub fn count(&mut self, key: ServiceKey, server: SocketAddr) -> u32 {
        self.read().connections[&(key, server)].active
    }

    pub fn total(&mut self) -> u32 {
        self.read().connections.values().map(|count| count.active).sum()
    }
}

pub fn key(protocol: Protocol, vip: &str) -> ServiceKey {
    let vip: SocketAddr = vip.parse().unwrap();
    ServiceKey { protocol, address: vip.ip(), port: vip.port() }
}

pub fn tcp(vip: &str) -> ServiceKey {
    key(Protocol::Tcp, vip)
}

pub fn udp(vip: &str) -> ServiceKey {
    key(Protocol::Udp, vip)
}

pub fn address(key: ServiceKey) -> SocketAddr {
    SocketAddr::new(key.address, key.port)
}

/// Lists the operations that create a service.
pub fn service(key: ServiceKey, servers: &[SocketAddr]) -> Vec<Op> {
    let scheduling = Scheduling { scheduler: SCHEDULER.to_owned(), flags: 0 };
    let add = servers.iter().map(|server| Op::AddServer(key, *server, RealServer::masquerade(1)));
    std::iter::once(Op::AddService(key, scheduling)).chain(add).collect()
}

pub fn weight(key: ServiceKey, server: SocketAddr, weight: u32) -> Op {
    Op::SetServer(key, server, RealServer::masquerade(weight))
}

pub fn route(network: &str) -> Route {
    Route { destination: network.parse().unwrap(), source: None }
}

/// Returns an IPv4 address in its IPv6 form.
pub fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V6(v4.to_ipv6_mapped()), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Starts a TCP server that sends its port to each client, then returns what it is sent.
pub fn tcp_server(host: &str) -> SocketAddr {
    let listener = TcpListener::bind((host, 0)).expect("listen");
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("accept");
            thread::spawn(move || {
                let _ = connection.write_all(&address.port().to_be_bytes());
                let mut bytes = [0; 16];
                while let Ok(count @ 1..) = connection.read(&mut bytes) {
                    if connection.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Starts a UDP server that answers every datagram with its port.
pub fn udp_server(host: &str) -> SocketAddr {
    let socket = UdpSocket::bind((host, 0)).expect("bind");
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 16];
        while let Ok((_, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&address.port().to_be_bytes(), from);
        }
    });
    address
}

/// Starts a UDP server that returns what it is sent; returns its socket.
pub fn echo_server(host: &str) -> UdpSocket {
    let socket = UdpSocket::bind((host, 0)).expect("bind");
    let own = socket.try_clone().expect("another descriptor");
    thread::spawn(move || {
        let mut bytes = [0; 16];
        while let Ok((count, from)) = own.recv_from(&mut bytes) {
            let _ = own.send_to(&bytes[..count], from);
        }
    });
    socket
}

/// Disconnects a UDP socket.
pub fn disconnect(socket: &UdpSocket) {
    let nowhere = nix::libc::sockaddr { sa_family: nix::libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    // SAFETY: the kernel reads as many bytes as the size says.
    let result = unsafe { nix::libc::connect(socket.as_raw_fd(), &nowhere, size_of_val(&nowhere) as u32) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Opens a TCP connection; returns it with the port of the server that it reached.
pub fn connect(to: SocketAddr) -> std::io::Result<(TcpStream, u16)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(PATIENCE)?;
    let port = greeting(&mut stream)?;
    Ok((stream, port))
}

/// Opens a connection of multipath TCP; `None` if the kernel has none.
pub fn multipath(to: SocketAddr) -> Option<TcpStream> {
    const MPTCP: i32 = 262;
    let socket = match Socket::new(Domain::IPV4, Type::STREAM, Some(MPTCP.into())) {
        // Debian's 5.10 has none.
        Err(error) if kernel() < (5, 15) => {
            assert_eq!(error.raw_os_error(), Some(nix::libc::EPROTONOSUPPORT));
            return None;
        }
        socket => socket.expect("a kernel with MPTCP"),
    };
    socket.connect(&to.into()).unwrap();
    Some(TcpStream::from(socket))
}

pub fn greeting(stream: &mut TcpStream) -> std::io::Result<u16> {
    let mut port = [0; 2];
    stream.read_exact(&mut port)?;
    Ok(u16::from_be_bytes(port))
}

/// Returns true if a connection still carries a byte there and back.
pub fn is_alive(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 1];
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut bytes).is_ok()
}

/// Connects an IPv6 socket that may use IPv4 as well.
pub fn dual(kind: Type, to: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, None)?;
    socket.set_only_v6(false)?;
    socket.set_read_timeout(PATIENCE)?;
    socket.connect(&mapped(to).into())?;
    Ok(socket)
}

/// Opens a UDP socket that may send to any address of the family of `like`.
pub fn udp_socket(like: SocketAddr) -> UdpSocket {
    let any = if like.is_ipv4() { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).expect("bind");
    socket.set_read_timeout(PATIENCE).unwrap();
    socket
}

/// Sends a datagram on a connected socket; returns the port that the server answers.
pub fn ask(socket: &UdpSocket) -> std::io::Result<u16> {
    socket.send(b"?")?;
    let mut port = [0; 2];
    socket.recv(&mut port)?;
    Ok(u16::from_be_bytes(port))
}

/// Sends a datagram with `sendto`; returns the port that the server answers, and the answer's sender.
pub fn ask_at(socket: &UdpSocket, to: SocketAddr) -> std::io::Result<(u16, SocketAddr)> {
    socket.send_to(b"?", to)?;
    let mut port = [0; 2];
    let (_, from) = socket.recv_from(&mut port)?;
    Ok((u16::from_be_bytes(port), from))
}

/// Counts how often each port was reached.
pub fn tally(ports: impl IntoIterator<Item = u16>) -> BTreeMap<u16, u32> {
    let mut tally = BTreeMap::new();
    for port in ports {
        *tally.entry(port).or_default() += 1;
    }
    tally
}

/// Asserts that a connection or datagram was refused by our programs.
pub fn refused<T: std::fmt::Debug>(result: std::io::Result<T>) {
    let error = result.expect_err("this should be refused");
    // Programs cannot choose the error before 5.18.
    let expected =
        if kernel() < (5, 18) { ErrorKind::PermissionDenied } else { ErrorKind::ConnectionRefused };
    assert_eq!(error.kind(), expected, "{error}");
}

/// Returns the version of the running kernel.
pub fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel has a release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    (numbers.next().expect("major"), numbers.next().expect("minor"))
}
