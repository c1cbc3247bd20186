use std::net::SocketAddr;

use netlink_packet_core::DecodeError;

use super::table::DumpedService;
use super::*;
use crate::cluster::Protocol;
use crate::dataplane::traffic::Traffic;
use crate::dataplane::{Connections, Forwarding, RealServer, Scheduling};
use crate::netlink::batch::MessageError;
use crate::netlink::ipvs::{DestinationAttribute, Flags, ServiceAttribute, Stats, destination, service};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn key(protocol: Protocol, text: &str) -> ServiceKey {
    let address = address(text);
    ServiceKey { protocol, address: address.ip(), port: address.port() }
}

fn scheduling(scheduler: &str, flags: u32) -> Scheduling {
    Scheduling { scheduler: scheduler.to_owned(), flags }
}

/// A service message at 11.0.0.1:80 with some attributes replaced.
fn reply(protocol: u16, flags: u32, timeout: u32) -> Vec<ServiceAttribute> {
    vec![
        ServiceAttribute::Family(2),
        ServiceAttribute::Protocol(protocol),
        ServiceAttribute::Address(service::address_bytes(address("11.0.0.1:80").ip())),
        ServiceAttribute::Port(80),
        ServiceAttribute::Scheduler("wlc".to_owned()),
        ServiceAttribute::Flags(Flags { flags: flags | service::FLAG_HASHED, mask: u32::MAX }),
        ServiceAttribute::Timeout(timeout),
    ]
}

fn entry(service: Vec<ServiceAttribute>) -> DumpedService {
    DumpedService::from_reply(Ok(IpvsMessage::with_service(IpvsCommand::NewService, service)))
}

fn foreign_text(entry: DumpedService) -> (String, Option<ServiceKey>) {
    match entry {
        DumpedService::Foreign(foreign) => (foreign.service, foreign.key),
        DumpedService::Ours(..) => panic!("{entry:?}"),
    }
}

#[test]
fn tells_ours_from_others() {
    let ours = key(Protocol::Tcp, "11.0.0.1:80");
    let expected = DumpedService::Ours(ours, scheduling("wlc", 0x8));
    assert_eq!(entry(reply(service::PROTOCOL_TCP, 0x8, OWNER_TAG)), expected);
    assert!(matches!(entry(reply(service::PROTOCOL_UDP, 0, OWNER_TAG)), DumpedService::Ours(..)));

    for (flags, timeout) in [(0, 0), (0, 300), (service::FLAG_PERSISTENT, OWNER_TAG)] {
        let entry = entry(reply(service::PROTOCOL_TCP, flags, timeout));
        assert_eq!(foreign_text(entry), ("tcp 11.0.0.1:80".to_owned(), Some(ours)));
    }
    for (protocol, text) in [(service::PROTOCOL_SCTP, "sctp 11.0.0.1:80"), (50, "ip_50 11.0.0.1:80")] {
        let entry = entry(reply(protocol, 0, OWNER_TAG));
        assert_eq!(foreign_text(entry), (text.to_owned(), None));
    }
    let mark = |family| {
        vec![
            ServiceAttribute::Family(family),
            ServiceAttribute::FirewallMark(7),
            ServiceAttribute::Timeout(OWNER_TAG),
        ]
    };
    assert_eq!(foreign_text(entry(mark(2))), ("fwmark 7".to_owned(), None));
    assert_eq!(foreign_text(entry(mark(10))), ("fwmark 7 IPv6".to_owned(), None));
    let unknown_family = entry([reply(6, 0, OWNER_TAG), vec![ServiceAttribute::Family(99)]].concat());
    assert!(foreign_text(unknown_family).0.starts_with("unintelligible"));
    let undecodable = DumpedService::from_reply(Err(DecodeError::from("too short")));
    assert_eq!(foreign_text(undecodable).0, "unintelligible (too short)");
}

#[test]
fn reads_real_servers() {
    let key = key(Protocol::Tcp, "11.0.0.1:80");
    let attributes = vec![
        DestinationAttribute::Address(service::address_bytes(address("[fd01:c::9]:80").ip())),
        DestinationAttribute::Port(80),
        DestinationAttribute::ForwardMethod(destination::FORWARD_TUNNEL),
        DestinationAttribute::Weight(3),
        DestinationAttribute::UpperThreshold(20),
        DestinationAttribute::LowerThreshold(10),
        DestinationAttribute::ActiveConnections(1),
        DestinationAttribute::InactiveConnections(2),
        DestinationAttribute::Family(10),
        DestinationAttribute::Stats(Box::new(Stats { connections: 9, ..Stats::default() })),
    ];
    let reply =
        |attributes| Ok(IpvsMessage::with_destination(IpvsCommand::NewDestination, Vec::new(), attributes));
    let server =
        RealServer { weight: 3, forwarding: Forwarding::Tunnel, upper_threshold: 20, lower_threshold: 10 };
    let connections = Connections { active: 1, inactive: 2 };
    let traffic = Traffic { connections: 9, ..Traffic::default() };
    let expected = (address("[fd01:c::9]:80"), server, connections, traffic);
    assert_eq!(table::server(key, reply(attributes.clone())), Some(expected));
    assert_eq!(table::server(key, reply(attributes[1..].to_vec())), None);
    assert_eq!(table::server(key, Err(DecodeError::from("too short"))), None);
}

#[test]
fn tags_services() {
    let expected = |text: &str, flags, netmask| {
        vec![
            ServiceAttribute::Family(if text.starts_with('[') { 10 } else { 2 }),
            ServiceAttribute::Protocol(service::PROTOCOL_UDP),
            ServiceAttribute::Address(service::address_bytes(address(text).ip())),
            ServiceAttribute::Port(53),
            ServiceAttribute::Scheduler("rr".to_owned()),
            ServiceAttribute::Flags(Flags { flags, mask: u32::MAX }),
            ServiceAttribute::Timeout(19508),
            ServiceAttribute::Netmask(netmask),
        ]
    };
    for (text, netmask) in [("11.0.0.1:53", [0xff; 4]), ("[fd01::1]:53", 128_u32.to_ne_bytes())] {
        let key = key(Protocol::Udp, text);
        let add = request::change(&Op::AddService(key, scheduling("rr", 4))).unwrap();
        let set = request::change(&Op::SetService(key, scheduling("rr", 0))).unwrap();
        let del = request::change(&Op::DelService(key)).unwrap();
        let (new, identity) = (expected(text, 4, netmask), &expected(text, 0, netmask)[..4]);
        assert_eq!(add, IpvsMessage::with_service(IpvsCommand::NewService, new));
        let changed = expected(text, 0, netmask);
        assert_eq!(set, IpvsMessage::with_service(IpvsCommand::SetService, changed));
        assert_eq!((del.command, del.service()), (IpvsCommand::DelService, Some(identity)));
    }
    for scheduler in ["", "0123456789abcdef", "r\0r"] {
        let op = Op::AddService(key(Protocol::Udp, "11.0.0.1:53"), scheduling(scheduler, 0));
        assert_eq!(request::change(&op).unwrap_err().errno, Some(22), "{scheduler}");
    }
}

#[test]
fn encodes_real_servers() {
    let key = key(Protocol::Tcp, "11.0.0.1:80");
    let (backend, server) = (address("10.0.0.1:8080"), RealServer::masquerade(5));
    let identity = vec![
        DestinationAttribute::Family(2),
        DestinationAttribute::Address(service::address_bytes(backend.ip())),
        DestinationAttribute::Port(8080),
    ];
    let rest = vec![
        DestinationAttribute::ForwardMethod(0),
        DestinationAttribute::Weight(5),
        DestinationAttribute::UpperThreshold(0),
        DestinationAttribute::LowerThreshold(0),
    ];
    let full = [identity.clone(), rest].concat();
    for (op, command, attributes) in [
        (Op::AddServer(key, backend, server), IpvsCommand::NewDestination, &full),
        (Op::SetServer(key, backend, server), IpvsCommand::SetDestination, &full),
        (Op::DelServer(key, backend), IpvsCommand::DelDestination, &identity),
    ] {
        let message = request::change(&op).unwrap();
        assert_eq!(message.command, command);
        assert_eq!(message.destination(), Some(attributes.as_slice()));
        assert_eq!(message.service().map(<[_]>::len), Some(4));
    }
}

#[test]
fn encodes_timeouts() {
    let op = Op::SetTimeouts(Timeouts { tcp: 900, tcp_fin: 120, udp: 300 });
    let message = request::change(&op).unwrap();
    assert_eq!(message.command, IpvsCommand::SetConfig);
    let expected =
        [IpvsAttribute::TimeoutTcp(900), IpvsAttribute::TimeoutTcpFin(120), IpvsAttribute::TimeoutUdp(300)];
    assert_eq!(message.attributes, expected);
    let refusal = Refusal::new(&op, MessageError::Refused(22));
    assert!(refusal.text.contains("ipvs.tcp_timeout"), "{refusal}");
}

#[test]
fn explains_refusals() {
    let service = key(Protocol::Tcp, "11.0.0.1:80");
    let add = Op::AddService(service, scheduling("wrr", 0));
    let backend = |text: &str| Op::AddServer(service, address(text), RealServer::masquerade(1));
    for (op, errno, text) in [
        (&add, 2, "scheduler module ip_vs_wrr is not available (try: modprobe ip_vs_wrr)"),
        (&add, 17, "a service with this address exists already"),
        (&add, 1, "not allowed to program IPVS (needs CAP_NET_ADMIN)"),
        (&add, 12, "Cannot allocate memory"),
        (&Op::DelService(service), 3, "the service does not exist"),
        (&backend("10.0.0.1:80"), 3, "the service does not exist"),
        (&backend("10.0.0.1:80"), 17, "the service has this real server already"),
        (&backend("[fd01::1]:80"), 22, "a masqueraded real server needs the address family"),
        (&backend("224.0.0.1:80"), 22, "not an address for a real server"),
        (&Op::DelServer(service, address("10.0.0.1:80")), 2, "the service has no such real server"),
    ] {
        let refusal = Refusal::new(op, MessageError::Refused(errno));
        assert_eq!(refusal.errno, Some(errno));
        assert!(refusal.to_string().starts_with(text), "{op}: {refusal}");
    }
    let unknown = Refusal::new(&add, MessageError::Unknown);
    assert_eq!(unknown.errno, None);
    assert!(unknown.text.contains("reads the kernel again"), "{unknown}");
}
