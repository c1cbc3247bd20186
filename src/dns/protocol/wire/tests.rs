//! Against hickory's encoder and decoder, and that no octets are too odd.

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

/// A name on the wire: labels as they come, now and then too long or too many, and an end that may be a
/// pointer (RFC 1035 section 4.1.4) or of a kind that nothing has.
fn wire_name() -> impl Strategy<Value = Vec<u8>> {
    let label = prop_oneof![
        20 => proptest::collection::vec(any::<u8>(), 1..12),
        1 => proptest::collection::vec(any::<u8>(), 60..66),
    ];
    let labels = prop_oneof![
        20 => proptest::collection::vec(label.clone(), 0..6),
        1 => proptest::collection::vec(label, 20..140),
    ];
    let end = prop_oneof![
        20 => Just(vec![0]),
        2 => (0u8..40).prop_map(|offset| vec![0xc0, offset]),
        1 => (0x40u8..0xc0).prop_map(|kind| vec![kind]),
    ];
    (labels, end).prop_map(|(labels, end)| {
        let labels = labels.into_iter().flat_map(|label| [vec![label.len() as u8], label].concat());
        labels.chain(end).collect()
    })
}

/// A record: OPT at the root with or without options, or another one with data that need not be right.
fn wire_record() -> impl Strategy<Value = Vec<u8>> {
    let other = any::<u16>().prop_filter("is OPT", |kind| *kind != kind::OPT);
    let other = prop_oneof![Just(kind::A), Just(kind::SRV), other];
    let start = prop_oneof![
        3 => Just((vec![0], kind::OPT)),
        1 => (wire_name(), other),
    ];
    let data = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec![0, 10, 0, 2, 1, 2]),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    (start, any::<u16>(), any::<u32>(), data).prop_map(|((name, kind), class, ttl, data)| {
        let fixed = [&kind.to_be_bytes()[..], &class.to_be_bytes(), &ttl.to_be_bytes()].concat();
        [name, fixed, (data.len() as u16).to_be_bytes().to_vec(), data].concat()
    })
}

/// A message whose counts, questions and records need not agree, and of which a part may be missing.
fn wire_message() -> impl Strategy<Value = Vec<u8>> {
    let question = || {
        let class = prop_oneof![Just([0, 1]), any::<[u8; 2]>()];
        let question = (wire_name(), any::<[u8; 2]>(), class);
        question.prop_map(|(name, kind, class)| [name, kind.to_vec(), class.to_vec()].concat())
    };
    let questions = prop_oneof![
        10 => proptest::collection::vec(question(), 1..2),
        1 => proptest::collection::vec(question(), 0..3),
    ];
    let sections = proptest::collection::vec(proptest::collection::vec(wire_record(), 0..2), 3);
    let miscounted = prop_oneof![10 => Just(0), 1 => 1u16..3];
    let cut = prop_oneof![10 => Just(0), 1 => 0usize..40];
    (any::<[u8; 4]>(), questions, sections, miscounted, cut).prop_map(
        |(start, questions, sections, miscounted, cut)| {
            let mut message = start.to_vec();
            message.extend((questions.len() as u16).to_be_bytes());
            for records in &sections {
                message.extend((records.len() as u16 + miscounted).to_be_bytes());
            }
            message.extend(questions.concat());
            message.extend(sections.concat().concat());
            message.truncate(message.len().saturating_sub(cut).max(HEADER));
            message
        },
    )
}

/// The same message without its records.
fn without_records(message: &[u8]) -> Vec<u8> {
    [&message[..6], &[0; 6], &message[HEADER..]].concat()
}

/// The octets of a name as [`QueryName::octets`] has them.
fn octets_of(name: &Name) -> Vec<u8> {
    name.iter().flat_map(|label| [vec![label.len() as u8], label.to_ascii_lowercase()].concat()).collect()
}

fn decode(message: &[u8]) -> Option<Message> {
    Message::from_vec(message).ok()
}

/// True if the name of the first question points back, to the header as nothing else is there.
fn points_back(message: &[u8]) -> bool {
    let mut rest = &message[HEADER..];
    while let Some((&length @ 1..=63, after)) = rest.split_first() {
        rest = after.get(usize::from(length)..).unwrap_or_default();
    }
    rest.first().is_some_and(|length| *length >= 0xc0)
}

proptest! {
    #![proptest_config(crate::units::cases(4000))]

    /// One question is read exactly as hickory reads it. hickory also reads what nobody asks: no question or
    /// several (RFC 9619), and a name that points into the header.
    #[test]
    fn questions_are_read_as_by_hickory(message in wire_message()) {
        let message = without_records(&message);
        let theirs = decode(&message).filter(|theirs| theirs.queries.len() == 1 && !points_back(&message));
        let ours = read(&message);
        prop_assert_eq!(ours.is_some(), theirs.is_some(), "{:?}", theirs);
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            let query = &theirs.queries[0];
            prop_assert_eq!(ours.name.octets(), octets_of(query.name()));
            prop_assert_eq!(ours.kind, u16::from(query.query_type()));
            prop_assert_eq!(ours.class, u16::from(query.query_class()));
            prop_assert_eq!(ours.edns, None);
        }
    }

    /// What hickory reads with records is read here with the same EDNS. hickory refuses more: it looks into
    /// the data of records, which no answer depends on. Only an OPT record with a name is refused here alone
    /// (RFC 6891 section 6.1.2; `odd_questions_are_not_read` has one).
    #[test]
    fn records_are_passed_over_as_by_hickory(message in wire_message()) {
        let Some(theirs) = decode(&message).filter(|theirs| theirs.queries.len() == 1 && !points_back(&message))
        else { return Ok(()) };
        let ours = read(&message);
        prop_assert!(ours.is_some(), "{:?}", theirs);
        let edns = ours.unwrap().edns.map(|edns| (edns.version, edns.payload.max(512), edns.dnssec_ok));
        let expected = theirs.edns.map(|edns| (edns.version(), edns.max_payload(), edns.flags().dnssec_ok));
        prop_assert_eq!(edns, expected);
    }
}
