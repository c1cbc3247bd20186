//! The captured bytes are those of a little-endian machine.
#![cfg(target_endian = "little")]

use std::net::IpAddr;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NET_BYTEORDER, NlasIterator, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};
use proptest::collection::vec;
use proptest::prelude::*;

use super::destination::{self, DestinationAttribute as Destination};
use super::service::{self, Flags, ServiceAttribute as Service};
use super::*;

mod captures;

const IPV6: [u8; 16] = [0xfd, 1, 0, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn decode(message: &[u8]) -> Result<IpvsMessage, DecodeError> {
    let header = GenlHeader::parse(message)?;
    IpvsMessage::parse_with_param(message.get(4..).unwrap_or_default(), header)
}

fn encode(message: &IpvsMessage) -> Vec<u8> {
    let header = GenlHeader { cmd: message.command(), version: message.version() };
    let mut bytes = vec![0xaa; header.buffer_len() + message.buffer_len()];
    header.emit(&mut bytes);
    message.emit(&mut bytes[header.buffer_len()..]);
    bytes
}

fn ipv4(a: u8, b: u8, c: u8, d: u8) -> [u8; 16] {
    service::address_bytes(IpAddr::from([a, b, c, d]))
}

/// The attributes of a captured service, less the counters, which are returned beside them.
fn captured_service(hex: &str) -> (Vec<Service>, Stats) {
    let message = decode(&bytes(hex)).unwrap();
    assert_eq!(message.command, IpvsCommand::NewService);
    let (stats, others): (Vec<_>, Vec<_>) = message
        .service()
        .unwrap()
        .iter()
        .cloned()
        .partition(|attribute| matches!(attribute, Service::Stats(_) | Service::Stats64(_)));
    match stats.as_slice() {
        [Service::Stats(narrow), Service::Stats64(wide)] => {
            assert_eq!(narrow, wide);
            (others, (**wide).clone())
        }
        other => panic!("{other:?}"),
    }
}

fn captured_destination(hex: &str) -> (Vec<Destination>, Stats) {
    let message = decode(&bytes(hex)).unwrap();
    assert_eq!(message.command, IpvsCommand::NewDestination);
    let (stats, others): (Vec<_>, Vec<_>) = message
        .destination()
        .unwrap()
        .iter()
        .cloned()
        .partition(|attribute| matches!(attribute, Destination::Stats(_) | Destination::Stats64(_)));
    match stats.as_slice() {
        [Destination::Stats(narrow), Destination::Stats64(wide)] => {
            assert_eq!(narrow, wide);
            (others, (**wide).clone())
        }
        other => panic!("{other:?}"),
    }
}

fn flags(flags: u32) -> Service {
    Service::Flags(Flags { flags, mask: u32::MAX })
}

#[test]
fn decodes_services_by_address() {
    let (attributes, stats) = captured_service(captures::WLC);
    assert_eq!(
        attributes,
        [
            Service::Family(AF_INET),
            Service::Protocol(service::PROTOCOL_TCP),
            Service::Address(ipv4(11, 0, 0, 1)),
            Service::Port(80),
            Service::Scheduler("wlc".to_owned()),
            flags(service::FLAG_HASHED),
            Service::Timeout(0),
            Service::Netmask([0xff; 4]),
        ]
    );
    assert_eq!(stats, Stats::default());

    let (attributes, _) = captured_service(captures::IPV6);
    assert_eq!(
        attributes,
        [
            Service::Family(AF_INET6),
            Service::Protocol(service::PROTOCOL_TCP),
            Service::Address(IPV6),
            Service::Port(443),
            Service::Scheduler("rr".to_owned()),
            flags(service::FLAG_HASHED),
            Service::Timeout(0),
            Service::Netmask(service::netmask(IpAddr::from(IPV6))),
        ]
    );
}

#[test]
fn decodes_protocols_and_flags() {
    let (udp, _) = captured_service(captures::UDP);
    assert!(udp.contains(&Service::Protocol(service::PROTOCOL_UDP)));
    let (sctp, _) = captured_service(captures::SCTP);
    assert!(sctp.contains(&Service::Protocol(service::PROTOCOL_SCTP)));
    assert!(sctp.contains(&Service::Port(36412)));
    let (one_packet, _) = captured_service(captures::ONE_PACKET);
    assert!(one_packet.contains(&flags(service::FLAG_HASHED | service::FLAG_ONE_PACKET)));
}

#[test]
fn decodes_services_by_firewall_mark() {
    let (attributes, _) = captured_service(captures::FWMARK);
    assert_eq!(
        attributes,
        [
            Service::Family(AF_INET),
            Service::FirewallMark(7),
            Service::Scheduler("wrr".to_owned()),
            flags(service::FLAG_HASHED),
            Service::Timeout(0),
            Service::Netmask([0xff; 4]),
        ]
    );
    let (attributes, _) = captured_service(captures::FWMARK_IPV6);
    assert_eq!(attributes[..2], [Service::Family(AF_INET6), Service::FirewallMark(7)]);
    assert!(attributes.contains(&flags(service::FLAG_HASHED | service::FLAG_PERSISTENT)));
    assert!(attributes.contains(&Service::Timeout(60)));
}

#[test]
fn decodes_persistent_services() {
    let (attributes, _) = captured_service(captures::PERSISTENT);
    let bits = service::FLAG_HASHED | service::FLAG_PERSISTENT | 0x18;
    assert_eq!(
        attributes[4..],
        [
            Service::Scheduler("sh".to_owned()),
            flags(bits),
            Service::Timeout(300),
            Service::Netmask([255, 255, 255, 0]),
        ]
    );
    let (attributes, _) = captured_service(captures::PERSISTENT_IPV6);
    assert_eq!(attributes.last(), Some(&Service::Netmask(64_u32.to_ne_bytes())));
}

#[test]
fn decodes_destinations() {
    let (attributes, stats) = captured_destination(captures::MASQUERADE);
    assert_eq!(
        attributes,
        [
            Destination::Address(ipv4(10, 0, 2, 2)),
            Destination::Port(5353),
            Destination::ForwardMethod(destination::FORWARD_MASQUERADE),
            Destination::Weight(5),
            Destination::TunnelType(0),
            Destination::TunnelPort(0),
            Destination::TunnelFlags(0),
            Destination::UpperThreshold(0),
            Destination::LowerThreshold(0),
            Destination::ActiveConnections(0),
            Destination::InactiveConnections(1),
            Destination::PersistentConnections(0),
            Destination::Family(AF_INET),
        ]
    );
    assert_eq!((stats.connections, stats.in_packets, stats.in_bytes), (1, 3, 384));
    let (_, service_stats) = captured_service(captures::UDP);
    assert_eq!(service_stats, stats);

    let (attributes, _) = captured_destination(captures::ROUTE);
    assert!(attributes.contains(&Destination::ForwardMethod(destination::FORWARD_ROUTE)));
    assert!(attributes.contains(&Destination::Port(80)));

    let (attributes, _) = captured_destination(captures::TUNNEL);
    for attribute in [
        Destination::ForwardMethod(destination::FORWARD_TUNNEL),
        Destination::TunnelType(1),
        Destination::TunnelPort(6080),
        Destination::UpperThreshold(100),
        Destination::LowerThreshold(50),
    ] {
        assert!(attributes.contains(&attribute), "{attribute:?}");
    }

    let (attributes, _) = captured_destination(captures::MASQUERADE_IPV6);
    assert_eq!(attributes.last(), Some(&Destination::Family(AF_INET6)));
}

#[test]
fn decodes_settings() {
    let info = decode(&bytes(captures::INFO)).unwrap();
    assert_eq!(info.command, IpvsCommand::SetInfo);
    assert_eq!(
        info.attributes,
        [IpvsAttribute::InfoVersion(0x01_02_01), IpvsAttribute::InfoConnectionTableSize(4096)]
    );
    let config = decode(&bytes(captures::CONFIG)).unwrap();
    assert_eq!(config.command, IpvsCommand::SetConfig);
    assert_eq!(
        config.attributes,
        [IpvsAttribute::TimeoutTcp(900), IpvsAttribute::TimeoutTcpFin(120), IpvsAttribute::TimeoutUdp(300),]
    );
}

/// Laid out by hand.
#[test]
fn encodes_requests() {
    let message = IpvsMessage::with_destination(
        IpvsCommand::NewDestination,
        vec![
            Service::Family(AF_INET6),
            Service::Protocol(service::PROTOCOL_TCP),
            Service::Address(IPV6),
            Service::Port(443),
            Service::Scheduler("rr".to_owned()),
            Service::Flags(Flags { flags: 0, mask: u32::MAX }),
            Service::Netmask(service::netmask(IpAddr::from(IPV6))),
        ],
        vec![Destination::Port(8443), Destination::Weight(7)],
    );
    let expected = "
        05010000 4c000180
        06000100 0a000000  06000200 06000000
        14000300 fd01000c 00000000 00000000 00000001
        06000400 01bb0000  07000600 72720000
        0c000700 00000000 ffffffff  08000900 80000000
        14000280
        06000200 20fb0000  08000400 07000000
    ";
    assert_eq!(encode(&message), bytes(expected));
}

#[test]
fn never_encodes_a_flush() {
    for number in 0..=u8::MAX {
        let command = IpvsCommand::from(number);
        let known = !matches!(command, IpvsCommand::Other(_));
        assert_eq!(u8::from(command), if known { number } else { 0 });
    }
    assert!(matches!(IpvsCommand::from(17), IpvsCommand::Other(other) if other.number() == 17));
}

#[test]
fn keeps_unknown_attributes() {
    let message = decode(&bytes("01010000 0c000100 05006300 aa000000 06006340 bbcc0000"));
    let other = |kind, value: &[u8]| DefaultNla::new(kind, value.to_vec());
    assert_eq!(
        message.unwrap().attributes,
        [
            IpvsAttribute::Service(vec![Service::Other(other(0x63, &[0xaa]))]),
            IpvsAttribute::Other(other(0x63 | NLA_F_NET_BYTEORDER, &[0xbb, 0xcc])),
        ]
    );
}

#[test]
fn refuses_odd_attributes() {
    for (hex, expected) in [
        ("01", "Buffer too small"),
        ("01010000 05", "NLA header"),
        ("01010000 03000100", "the NLA is 3 bytes"),
        ("01010000 09000100 00000000", "the NLA is 9 bytes"),
        ("01010000 06000100 06000000", "but an NLA header"),
        ("01010000 0c000100 08000400 12345678", "IPVS_SVC_ATTR 4"),
        ("05010000 0c000200 08000100 0a000001", "IPVS_DEST_ATTR 1"),
        ("05010000 10000200 0c000a00 08000b00 00000000", ""),
        ("05010000 14000200 10000a00 06000100 00000000 00000000", "IPVS_STATS_ATTR 1"),
    ] {
        match decode(&bytes(hex)) {
            Ok(message) => assert_eq!(expected, "", "{hex}: {message:?}"),
            Err(error) => assert!(error.to_string().contains(expected), "{hex}: {error}"),
        }
    }
}

fn other_nla(known: u16) -> impl Strategy<Value = DefaultNla> {
    let flag = prop_oneof![Just(0), Just(NLA_F_NESTED), Just(NLA_F_NET_BYTEORDER)];
    (known + 1..0x3fff, flag, vec(any::<u8>(), 0..20))
        .prop_map(|(kind, flag, value)| DefaultNla::new(kind | flag, value))
}

/// Counters, with numbers that fit 32 bits but for the bytes.
fn stats(limit: u64) -> impl Strategy<Value = Box<Stats>> {
    let numbers = proptest::array::uniform8(0..=limit);
    (numbers, any::<[u64; 2]>(), vec(other_nla(11), 0..2)).prop_map(|(n, bytes, other)| {
        Box::new(Stats {
            connections: n[0],
            in_packets: n[1],
            out_packets: n[2],
            in_bytes: bytes[0],
            out_bytes: bytes[1],
            connection_rate: n[3],
            in_packet_rate: n[4],
            out_packet_rate: n[5],
            in_byte_rate: n[6],
            out_byte_rate: n[7],
            other,
        })
    })
}

fn service_attribute() -> impl Strategy<Value = Service> {
    prop_oneof![
        any::<u16>().prop_map(Service::Family),
        any::<u16>().prop_map(Service::Protocol),
        any::<[u8; 16]>().prop_map(Service::Address),
        any::<u16>().prop_map(Service::Port),
        any::<u32>().prop_map(Service::FirewallMark),
        "[a-z]{0,15}".prop_map(Service::Scheduler),
        any::<[u32; 2]>().prop_map(|[flags, mask]| Service::Flags(Flags { flags, mask })),
        any::<u32>().prop_map(Service::Timeout),
        any::<[u8; 4]>().prop_map(Service::Netmask),
        stats(u32::MAX.into()).prop_map(Service::Stats),
        "[a-z]{0,15}".prop_map(Service::PersistenceEngine),
        stats(u64::MAX).prop_map(Service::Stats64),
        other_nla(12).prop_map(Service::Other),
    ]
}

fn destination_attribute() -> impl Strategy<Value = Destination> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(Destination::Address),
        any::<u16>().prop_map(Destination::Port),
        any::<u32>().prop_map(Destination::ForwardMethod),
        any::<u32>().prop_map(Destination::Weight),
        any::<u32>().prop_map(Destination::UpperThreshold),
        any::<u32>().prop_map(Destination::LowerThreshold),
        any::<u32>().prop_map(Destination::ActiveConnections),
        any::<u32>().prop_map(Destination::InactiveConnections),
        any::<u32>().prop_map(Destination::PersistentConnections),
        stats(u32::MAX.into()).prop_map(Destination::Stats),
        any::<u16>().prop_map(Destination::Family),
        stats(u64::MAX).prop_map(Destination::Stats64),
        any::<u8>().prop_map(Destination::TunnelType),
        any::<u16>().prop_map(Destination::TunnelPort),
        any::<u16>().prop_map(Destination::TunnelFlags),
        other_nla(15).prop_map(Destination::Other),
    ]
}

fn message() -> impl Strategy<Value = IpvsMessage> {
    let info = prop_oneof![
        any::<u32>().prop_map(IpvsAttribute::InfoVersion),
        any::<u32>().prop_map(IpvsAttribute::InfoConnectionTableSize),
        other_nla(2).prop_map(IpvsAttribute::Other),
    ];
    let attribute = prop_oneof![
        vec(service_attribute(), 0..9).prop_map(IpvsAttribute::Service),
        vec(destination_attribute(), 0..9).prop_map(IpvsAttribute::Destination),
        any::<u32>().prop_map(IpvsAttribute::TimeoutTcp),
        any::<u32>().prop_map(IpvsAttribute::TimeoutTcpFin),
        any::<u32>().prop_map(IpvsAttribute::TimeoutUdp),
        other_nla(6).prop_map(IpvsAttribute::Other),
    ];
    let commands = prop_oneof![1_u8..=8, 12_u8..=13, Just(15)].prop_map(IpvsCommand::from);
    prop_oneof![
        4 => (commands, vec(attribute, 0..4))
            .prop_map(|(command, attributes)| IpvsMessage { command, attributes }),
        1 => vec(info, 0..4)
            .prop_map(|attributes| IpvsMessage { command: IpvsCommand::SetInfo, attributes }),
    ]
}

/// Any of the captured messages.
fn captured() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(vec![
        captures::WLC,
        captures::FWMARK_IPV6,
        captures::PERSISTENT,
        captures::MASQUERADE,
        captures::TUNNEL,
        captures::INFO,
        captures::CONFIG,
    ])
    .prop_map(bytes)
}

proptest! {
    #[test]
    fn decoding_reverses_encoding(message in message()) {
        prop_assert_eq!(decode(&encode(&message)).unwrap(), message);
    }

    #[test]
    fn captured_messages_survive(bytes in captured()) {
        let message = decode(&bytes).unwrap();
        prop_assert_eq!(decode(&encode(&message)).unwrap(), message);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn damaged_messages_do_not_panic(
        mut bytes in captured(),
        damage in vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        length in any::<proptest::sample::Index>(),
    ) {
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(length.index(bytes.len() + 1));
        if let Ok(message) = decode(&bytes) {
            encode(&message);
        }
    }

    #[test]
    fn lists_are_encoded_as_by_the_core_crate(list in vec(service_attribute(), 0..9)) {
        let mut ours = vec![0xaa; nla::length(&list)];
        nla::emit(&list, &mut ours);
        let mut theirs = vec![0xbb; list.as_slice().buffer_len()];
        list.as_slice().emit(&mut theirs);
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn lists_are_split_as_by_the_core_crate(bytes in captured(), cut in 0_usize..400) {
        let list = &bytes[8.min(bytes.len())..cut.clamp(8, bytes.len())];
        let ours: Vec<_> = nla::split(list).map(|nla| nla.ok().map(|(_, value)| value)).collect();
        let theirs: Vec<_> = NlasIterator::new(list).map(|nla| nla.ok()).collect();
        prop_assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            prop_assert_eq!(*ours, theirs.as_ref().map(|nla| nla.value()));
        }
    }
}

/// Found by the fuzz property: a 64-bit number in the list of 32-bit ones.
#[test]
fn numbers_of_the_narrow_list_stay_what_they_are() {
    let number = (1_u64 << 40).to_ne_bytes();
    let bytes = [&[12, 0, 3, 0][..], &number].concat();
    let stats = stats::Stats::parse(&bytes, stats::Width::Mixed).unwrap();
    assert_eq!(stats.out_packets, u64::from(u32::MAX));
    assert_eq!(stats::Stats::parse(&bytes, stats::Width::Wide).unwrap().out_packets, 1 << 40);
}
