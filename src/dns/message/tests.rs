//! Header rules, EDNS and truncation, and that no octets make the server fail.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::Query;
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use proptest::prelude::*;

use super::*;
use crate::dns::zone::{DEFAULT_ORIGIN, DEFAULT_TTL};

fn loaded(records: impl IntoIterator<Item = (&'static str, IpAddr)>) -> Zone {
    let zone = Zone::new(DEFAULT_ORIGIN, DEFAULT_TTL, &[]).unwrap();
    zone.with_records(1, records).0
}

fn zone() -> Zone {
    let many = (0..120).map(|n| ("many.marathon", IpAddr::from([11, 0, 0, n])));
    loaded(many.chain([("web.marathon", IpAddr::from([11, 0, 1, 1]))]))
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(format!("{name}{DEFAULT_ORIGIN}.")).unwrap();
    message.add_query(Query::query(name, kind));
    message
}

fn with_edns(mut message: Message, version: u8, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_version(version).set_max_payload(payload).set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

fn send(request: &Message, transport: Transport) -> (Message, usize) {
    let octets = respond(&zone(), &request.to_vec().unwrap(), transport).unwrap();
    let reply = Message::from_vec(&octets).unwrap();
    assert_eq!(reply.id, request.id);
    assert_eq!(reply.message_type, MessageType::Response);
    assert!(!reply.recursion_available);
    (reply, octets.len())
}

/// As a number, because BADVERS and BADSIG share theirs.
fn code(request: &Message) -> u16 {
    send(request, Transport::Udp).0.response_code.into()
}

#[test]
fn answers_are_authoritative_and_repeat_the_question() {
    let request = query("wEB.marathon.", RecordType::A);
    let (reply, _) = send(&request, Transport::Udp);
    assert!(reply.authoritative && reply.recursion_desired && !reply.truncation);
    assert_eq!(reply.queries, request.queries);
    assert!(reply.queries[0].name().eq_case(request.queries[0].name()));
    assert!(reply.answers[0].name.eq_case(request.queries[0].name()));
    assert_eq!(reply.answers[0].data, RData::A(Ipv4Addr::new(11, 0, 1, 1).into()));
    assert_eq!(reply.edns, None);
}

#[test]
fn negative_answers_are_authoritative_and_carry_the_soa() {
    for (name, kind, code) in [
        ("db.marathon.", RecordType::A, ResponseCode::NXDomain),
        ("web.marathon.", RecordType::AAAA, ResponseCode::NoError),
        ("marathon.", RecordType::A, ResponseCode::NoError),
    ] {
        let (reply, _) = send(&query(name, kind), Transport::Udp);
        assert_eq!((reply.response_code, reply.authoritative), (code, true));
        assert!(reply.answers.is_empty());
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
        assert_eq!(reply.authorities[0].ttl, 1);
    }
}

#[test]
fn what_is_not_ours_is_refused_without_authority() {
    let mut request = query("web.marathon.", RecordType::A);
    request.queries[0].set_query_class(DNSClass::CH);
    let (reply, _) = send(&request, Transport::Udp);
    assert_eq!(reply.response_code, ResponseCode::Refused);
    assert!(!reply.authoritative && reply.authorities.is_empty());
}

#[test]
fn a_zone_without_records_yet_is_servfail() {
    let zone = Zone::new(DEFAULT_ORIGIN, DEFAULT_TTL, &[]).unwrap();
    let request = query("web.marathon.", RecordType::A).to_vec().unwrap();
    let reply = respond(&zone, &request, Transport::Udp).unwrap();
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.response_code, ResponseCode::ServFail);
}

#[test]
fn edns_is_answered_with_our_own_record() {
    let request = with_edns(query("web.marathon.", RecordType::A), 0, 4096);
    let (reply, _) = send(&request, Transport::Udp);
    let edns = reply.edns.unwrap();
    assert_eq!((edns.version(), edns.max_payload()), (0, MAX_UDP_PAYLOAD));
    assert!(edns.flags().dnssec_ok);
}

#[test]
fn protocol_errors_have_their_codes() {
    let good = query("web.marathon.", RecordType::A);
    assert_eq!(code(&with_edns(good.clone(), 1, 1232)), u16::from(ResponseCode::BADVERS));
    for op_code in [OpCode::Update, OpCode::Notify, OpCode::Status, OpCode::Unknown(9)] {
        let mut request = good.clone();
        request.metadata.op_code = op_code;
        assert_eq!(code(&request), u16::from(ResponseCode::NotImp));
    }
    let mut two = good.clone();
    two.add_query(good.queries[0].clone());
    assert_eq!(code(&two), u16::from(ResponseCode::FormErr));
    let mut none = good.clone();
    none.queries.clear();
    assert_eq!(code(&none), u16::from(ResponseCode::FormErr));
}

#[test]
fn messages_cut_anywhere_get_formerr_or_nothing() {
    let octets = with_edns(query("web.marathon.", RecordType::A), 0, 1232).to_vec().unwrap();
    for length in 0..octets.len() {
        let reply = respond(&zone(), &octets[..length], Transport::Udp);
        assert_eq!(reply.is_some(), length >= 12);
        if let Some(reply) = reply {
            let reply = Message::from_vec(&reply).unwrap();
            assert_eq!((reply.id, reply.response_code), (0x1234, ResponseCode::FormErr));
        }
    }
}

#[test]
fn responses_are_not_answered() {
    let request = query("web.marathon.", RecordType::A).into_response();
    let octets = request.to_vec().unwrap();
    assert_eq!(respond(&zone(), &octets, Transport::Tcp), None);
}

#[test]
fn long_answers_are_truncated_on_udp_only() {
    let plain = query("many.marathon.", RecordType::A);
    for (request, limit) in [
        (plain.clone(), 512),
        (with_edns(plain.clone(), 0, 100), 512),
        (with_edns(plain.clone(), 0, 800), 800),
        (with_edns(plain.clone(), 0, 65535), 1232),
    ] {
        let (reply, length) = send(&request, Transport::Udp);
        assert!(reply.truncation && length <= limit && length > limit / 3, "{length}");
        assert_eq!(reply.edns.is_some(), request.edns.is_some());
        let (reply, _) = send(&request, Transport::Tcp);
        assert_eq!((reply.truncation, reply.answers.len()), (false, 120));
    }
}

#[test]
fn answers_beyond_any_message_are_truncated_on_tcp() {
    let zone = loaded((0..10_000u32).map(|n| ("web.marathon", Ipv4Addr::from(n).into())));
    let request = with_edns(query("web.marathon.", RecordType::A), 0, 1232);
    for (transport, limit) in [(Transport::Udp, 1232), (Transport::Tcp, 65535)] {
        let octets = respond(&zone, &request.to_vec().unwrap(), transport).unwrap();
        assert!(octets.len() <= limit);
        assert!(Message::from_vec(&octets).unwrap().truncation);
    }
}

/// Octets that come close to a query: a good one with a few of them replaced.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let request = with_edns(query("many.marathon.", RecordType::A), 0, 4096);
    let octets = request.to_vec().unwrap();
    let position = 0..octets.len();
    proptest::collection::vec((position, any::<u8>()), 0..6).prop_map(move |changes| {
        let mut octets = octets.clone();
        for (position, octet) in changes {
            octets[position] = octet;
        }
        octets
    })
}

proptest! {
    #[test]
    fn any_octets_get_a_well_formed_answer_or_none(
        octets in prop_oneof![damaged(), proptest::collection::vec(any::<u8>(), 0..80)],
    ) {
        let zone = zone();
        for (transport, limit) in [(Transport::Udp, 1232), (Transport::Tcp, 65535)] {
            let Some(reply) = respond(&zone, &octets, transport) else {
                prop_assert!(octets.len() < 12 || octets[2] & 0x80 != 0);
                continue;
            };
            prop_assert!(reply.len() <= limit);
            prop_assert_eq!(&reply[..2], &octets[..2]);
            let reply = Message::from_vec(&reply);
            prop_assert!(reply.is_ok(), "{reply:?}");
        }
    }
}
