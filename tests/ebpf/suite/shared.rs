//! What one client opens takes nothing from another.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use l4lbd::dataplane::Op;
use l4lbd::dataplane::ebpf::{Ejection, Options};

use super::seen::closed_port;
use crate::helper::{Helper, vip_of_flood};
use crate::toolkit::*;

/// Clients, and UDP sockets of each. Together they are more than any list of the kernel's had a place for that clients
/// shared, and than one run of the iterator lists.
const CLIENTS: usize = 4;
const SOCKETS: usize = 16_500;

/// Clients in network namespaces of their own, which have no other addresses than this one.
pub fn connected_udp_is_told_however_many_others_there_are() {
    let mut plane = Plane::new();
    let (gone, flooded) = (udp_server("127.0.0.1"), udp_server("127.0.0.1"));
    let (vip, other) = (udp("10.99.0.1:53"), udp("10.99.0.2:53"));
    plane.apply(&service(vip, &[gone]));
    plane.apply(&service(other, &[flooded]));
    let ours = udp_socket(gone);
    ours.connect(address(vip)).unwrap();
    let sockets = SOCKETS.to_string();
    let mut clients: Vec<Helper> = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Helper::start(&["flood-elsewhere", "10.99.0.2:53", &sockets]);
        assert_eq!(client.line(), "ready");
        clients.push(client);
    }
    plane.apply(&[Op::DelServer(vip, gone)]);
    assert_eq!(ours.take_error().unwrap().map(|error| error.kind()), Some(ErrorKind::ConnectionAborted));
    let told = |clients: &mut Vec<Helper>| -> Vec<String> {
        let each = clients.iter_mut().map(|client| {
            client.go_on();
            client.line()
        });
        each.collect()
    };
    assert_eq!(told(&mut clients), ["0"; CLIENTS]);
    // All of so many are found as well.
    plane.apply(&[Op::DelServer(other, flooded)]);
    assert_eq!(told(&mut clients), [sockets.as_str(); CLIENTS]);
}

/// VIPs whose servers fail for one client, which are more than are remembered of all clients.
const FAILING: u16 = 20_000;

pub fn failures_are_remembered_however_many_others_there_are() {
    let hour = Duration::from_secs(3600);
    let ejection = Ejection { after: 3, time: hour, limit: hour };
    let mut plane = Plane::open(Options { ejection, ..options() });
    let (vip, dead) = (tcp("10.99.0.1:80"), [closed_port(), closed_port()]);
    plane.apply(&service(vip, &[dead[0], tcp_server("127.0.0.1")]));
    let others = (0..FAILING).flat_map(|number| service(tcp(&vip_of_flood(number).to_string()), &dead));
    plane.apply(&others.collect::<Vec<_>>());
    let failed = |count: usize| (0..count).filter(|_| TcpStream::connect(address(vip)).is_err()).count();
    assert_eq!(failed(100), 3);
    let mut other = Helper::start(&["fail-at-many-elsewhere", &FAILING.to_string()]);
    assert_eq!(other.line(), format!("{FAILING} failed"));
    assert_eq!(failed(100), 0, "it has been forgotten that a server was ejected");
}
