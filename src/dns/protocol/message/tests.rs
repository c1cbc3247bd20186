//! Header rules, EDNS and truncation, and that no octets make the server fail.

use std::net::{IpAddr, Ipv4Addr};

use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use proptest::prelude::*;

use super::{MAX_UDP_PAYLOAD, ResponseKind, Transport};
use crate::cluster::Protocol;
use crate::dns::settings::DnsSettings;
use crate::dns::testing;
use crate::dns::zones::catalog::Catalog;
use crate::dns::zones::vips::{DEFAULT_ORIGIN, NamedService, ServicePort};

fn unloaded() -> Catalog {
    testing::catalog(&DnsSettings::default())
}

fn loaded(records: impl IntoIterator<Item = (&'static str, IpAddr)>) -> Catalog {
    let port = Some(ServicePort::from((Protocol::Tcp, 80)));
    let records: Vec<NamedService> = records
        .into_iter()
        .map(|(name, address)| NamedService { name: name.to_owned(), address, port: port.clone() })
        .collect();
    let catalog = unloaded();
    let (zone, left_out) = catalog.vips().with_services(1, &records);
    assert!(left_out.is_empty());
    catalog.with_vips(Arc::new(zone))
}

fn catalog() -> Catalog {
    let many = (0..120).map(|n| ("many.marathon", IpAddr::from([11, 0, 0, n])));
    loaded(many.chain([("web.marathon", IpAddr::from([11, 0, 1, 1]))]))
}

fn respond(catalog: &Catalog, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let mut reply = vec![1, 2, 3];
    let outcome = super::respond(catalog, packet, transport, &mut reply).kind;
    (outcome != ResponseKind::Ignored).then_some(reply)
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
    let octets = respond(&catalog(), &request.to_vec().unwrap(), transport).unwrap();
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
    let catalog = unloaded();
    let request = query("web.marathon.", RecordType::A).to_vec().unwrap();
    let reply = respond(&catalog, &request, Transport::Udp).unwrap();
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
        let reply = respond(&catalog(), &request.to_vec().unwrap(), Transport::Udp).unwrap();
        assert_eq!(reply[3] & 15, 4);
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
        let reply = respond(&catalog(), &octets[..length], Transport::Udp);
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
    assert_eq!(respond(&catalog(), &octets, Transport::Tcp), None);
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
    let catalog = loaded((0..10_000u32).map(|n| ("web.marathon", Ipv4Addr::from(n).into())));
    let request = with_edns(query("web.marathon.", RecordType::A), 0, 1232);
    for (transport, limit) in [(Transport::Udp, 1232), (Transport::Tcp, 65535)] {
        let octets = respond(&catalog, &request.to_vec().unwrap(), transport).unwrap();
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
        let catalog = catalog();
        for (transport, limit) in [(Transport::Udp, 1232), (Transport::Tcp, 65535)] {
            let Some(reply) = respond(&catalog, &octets, transport) else {
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

/// Answers under `name`, as text.
fn answers(catalog: &Catalog, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>, Vec<String>) {
    let mut request = Message::new(0, MessageType::Query, OpCode::Query);
    request.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let octets = respond(catalog, &request.to_vec().unwrap(), Transport::Tcp).unwrap();
    let reply = Message::from_vec(&octets).unwrap();
    let show = |records: &[hickory_proto::rr::Record]| records.iter().map(|r| r.to_string()).collect();
    let rest: Vec<_> = [reply.authorities.as_slice(), reply.additionals.as_slice()].concat();
    (reply.response_code, show(&reply.answers), show(&rest))
}

#[test]
fn aliases_answer_under_the_name_that_was_asked() {
    let catalog = catalog();
    for origin in
        ["l4lb.thisdcos.directory", "dclb.thisdcos.directory", "L4lb.thisdcos.GLOBAL", "dclb.thisdcos.global"]
    {
        let name = format!("Web.marathon.{origin}.");
        let (code, found, _) = answers(&catalog, &name, RecordType::A);
        assert_eq!((code, found), (ResponseCode::NoError, vec![format!("{name} 5 IN A 11.0.1.1")]));
        let (code, _, rest) = answers(&catalog, &format!("no.{origin}."), RecordType::A);
        assert_eq!(code, ResponseCode::NXDomain);
        let soa = format!("{origin}. 1 IN SOA ns.{origin}. hostmaster.{origin}. 1 60 180 86400 1");
        assert_eq!(rest, [soa]);
    }
}

#[test]
fn services_come_with_their_addresses() {
    let origin = DEFAULT_ORIGIN;
    let target = format!("web.marathon.{origin}.");
    for name in ["_80._web._tcp.marathon", "_web._tcp.marathon", "_80._tcp.web.marathon"] {
        let (_, found, rest) = answers(&catalog(), &format!("{name}.{origin}."), RecordType::SRV);
        assert_eq!(found, [format!("{name}.{origin}. 5 IN SRV 0 1 80 {target}")]);
        assert_eq!(rest, [format!("{target} 5 IN A 11.0.1.1")]);
    }
    let (_, found, rest) = answers(&catalog(), &format!("{origin}."), RecordType::NS);
    assert_eq!(found, [format!("{origin}. 5 IN NS ns.{origin}.")]);
    assert_eq!(rest, [format!("ns.{origin}. 5 IN A 198.51.100.1")]);
}

#[test]
fn addresses_have_names() {
    let (_, found, _) = answers(&catalog(), "1.1.0.11.in-addr.arpa.", RecordType::PTR);
    assert_eq!(found, [format!("1.1.0.11.in-addr.arpa. 5 IN PTR web.marathon.{DEFAULT_ORIGIN}.")]);
    for (name, code) in [
        ("2.1.0.11.in-addr.arpa.", ResponseCode::NXDomain),
        ("1.0.11.in-addr.arpa.", ResponseCode::NoError),
        ("11.in-addr.arpa.", ResponseCode::NoError),
        ("1.0.0.12.in-addr.arpa.", ResponseCode::Refused),
    ] {
        assert_eq!(answers(&catalog(), name, RecordType::PTR).0, code, "{name}");
    }
}

#[test]
fn any_gets_one_record_set() {
    let v6: IpAddr = "fd01:c::1".parse().unwrap();
    let catalog = loaded([("both.m", IpAddr::from([11, 0, 0, 1])), ("both.m", v6), ("six.m", v6)]);
    for (name, data) in [("both.m.", "A 11.0.0.1"), ("six.m.", "AAAA fd01:c::1"), ("", "SOA ns.")] {
        let (_, found, _) = answers(&catalog, &format!("{name}{DEFAULT_ORIGIN}."), RecordType::ANY);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(&format!(" IN {data}")), "{found:?}");
    }
}

#[test]
fn transfers_are_refused() {
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        let (code, ..) = answers(&catalog(), &format!("{DEFAULT_ORIGIN}."), kind);
        assert_eq!(code, ResponseCode::Refused);
    }
}

#[test]
fn each_record_comes_first_in_turn() {
    let catalog = loaded((0..3).map(|n| ("web.m", IpAddr::from([11, 0, 0, n]))));
    let first = |id: u16| {
        let mut request = query("web.m.", RecordType::A);
        request.metadata.id = id;
        let octets = respond(&catalog, &request.to_vec().unwrap(), Transport::Udp).unwrap();
        let reply = Message::from_vec(&octets).unwrap();
        assert_eq!(reply.answers.len(), 3);
        reply.answers[0].data.to_string()
    };
    let firsts: Vec<String> = (6..9).map(first).collect();
    assert_eq!(firsts, ["11.0.0.0", "11.0.0.1", "11.0.0.2"]);
}

#[test]
fn names_elsewhere_may_be_forwarded() {
    let catalog = catalog();
    for (name, expected) in [
        ("example.com.", ResponseKind::Elsewhere),
        ("thisdcos.directory.", ResponseKind::Elsewhere),
        ("xl4lb.thisdcos.directory.", ResponseKind::Elsewhere),
        (".", ResponseKind::Elsewhere),
        ("x.l4lb.thisdcos.directory.", ResponseKind::Answered),
    ] {
        let mut request = Message::new(0, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        let outcome =
            super::respond(&catalog, &request.to_vec().unwrap(), Transport::Udp, &mut Vec::new()).kind;
        assert_eq!(outcome, expected, "{name}");
    }
}

/// Weight 0 on every record reads as maintenance to some clients.
#[test]
fn equal_servers_have_weight_1() {
    let (reply, _) = send(&query("_web._tcp.marathon.", RecordType::SRV), Transport::Tcp);
    assert!(!reply.answers.is_empty());
    for record in reply.answers {
        let RData::SRV(service) = record.data else { panic!("no SRV record") };
        assert_eq!((service.priority, service.weight), (0, 1));
    }
}
