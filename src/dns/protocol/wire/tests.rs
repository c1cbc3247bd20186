//! Against hickory's encoder, and that no octets are too odd.

use hickory_proto::op::{Message, MessageType, OpCode, Query as Asked};
use hickory_proto::rr::{Name, RecordType};
use proptest::prelude::*;

use super::*;

fn read(packet: &[u8]) -> Option<Query<'_>> {
    Query::read(MessageHeader::read(packet)?, packet)
}

fn packet(name: &str, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.add_query(Asked::query(Name::from_ascii(name).unwrap(), RecordType::SRV));
    if let Some(payload) = edns {
        let mut edns = hickory_proto::op::Edns::new();
        edns.set_max_payload(payload).set_dnssec_ok(true);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

#[test]
fn a_query_is_read() {
    let packet = packet("wEb.Marathon.mesos.", Some(4096));
    let query = read(&packet).unwrap();
    assert_eq!(query.name.octets(), b"\x03web\x08marathon\x05mesos");
    assert_eq!((query.kind, query.class, query.name.labels()), (kind::SRV, IN, 3));
    assert_eq!(query.edns, Some(Edns { version: 0, payload: 4096, dnssec_ok: true }));
    assert_eq!(query.name.split_at_end(1), (&b"\x03web\x08marathon"[..], &b"\x05mesos"[..]));
    assert_eq!(query.name.split_at_end(3).0, b"");
    assert_eq!(query.name.split_at_end(0).1, b"");
    assert_eq!(query.question, &packet[HEADER..HEADER + 24]);
    assert_eq!(labels(query.name.octets()).collect::<Vec<_>>(), [&b"web"[..], b"marathon", b"mesos"]);
}

#[test]
fn the_root_and_the_longest_name_are_names() {
    assert_eq!(read(&packet(".", None)).unwrap().name.octets(), b"");
    let longest = ["a"; 127].join(".") + ".";
    assert_eq!(read(&packet(&longest, None)).unwrap().name.labels(), 127);
}

#[test]
fn odd_questions_are_not_read() {
    let good = packet("a.b.", Some(512));
    let with = |position: usize, octet: u8| {
        let mut packet = good.clone();
        packet[position] = octet;
        packet
    };
    assert!(read(&good).is_some());
    for (what, packet) in [
        ("no question", with(5, 0)),
        ("two questions", with(5, 2)),
        ("a pointer", with(12, 0xc0)),
        ("a label of an unknown kind", with(12, 0x41)),
        ("a record that is not there", with(11, 2)),
        ("an OPT with a name", with(21, 1)),
    ] {
        assert!(read(&packet).is_none(), "{what}");
    }
    let mut two_opts = with(11, 2);
    two_opts.extend_from_slice(&good[21..]);
    assert!(read(&two_opts).is_none());
}

proptest! {
    #[test]
    fn any_octets_are_read_or_not(packet in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Some(query) = read(&packet) {
            prop_assert!(query.name.octets().len() < MAX_NAME);
            prop_assert_eq!(labels(query.name.octets()).count(), query.name.labels());
        }
    }

    #[test]
    fn what_is_written_is_read(name in "([a-z0-9]{1,20}\\.){1,8}", payload in proptest::option::of(512u16..)) {
        let packet = packet(&name, payload);
        let query = read(&packet).unwrap();
        let text: Vec<u8> = labels(query.name.octets()).flat_map(|label| [label, b"."].concat()).collect();
        prop_assert_eq!(text, name.as_bytes());
        prop_assert_eq!(query.edns.map(|edns| edns.payload), payload);
    }
}
