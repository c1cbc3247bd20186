//! Attribution of replies without a socket, and the socket with the controller family `nlctrl`,
//! which every Linux kernel has and any user may ask.

use libc::{EBUSY, EEXIST, EOPNOTSUPP};
use netlink_packet_core::{
    NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, NetlinkBuffer,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::netlink::frame::split;
use crate::netlink::ipvs::{IpvsAttribute, IpvsCommand, IpvsMessage};
use crate::netlink::replies::{Progress, Replies};

const FAMILY: u16 = 33;

fn frame(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes.extend_from_slice(payload);
    let length = bytes.len();
    let mut header = NetlinkBuffer::new(&mut bytes);
    header.set_length(length as u32);
    header.set_message_type(kind);
    header.set_flags(flags);
    header.set_sequence_number(sequence);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// An `NLMSG_ERROR` as with `NETLINK_CAP_ACK`: the number and the header of the request.
fn error(sequence: u32, errno: i32) -> Vec<u8> {
    let mut payload = (-errno).to_ne_bytes().to_vec();
    payload.extend_from_slice(&frame(FAMILY, 0, sequence, &[]));
    frame(NLMSG_ERROR, 0, sequence, &payload)
}

fn done(flags: u16, sequence: u32, errno: i32) -> Vec<u8> {
    frame(NLMSG_DONE, flags, sequence, &(-errno).to_ne_bytes())
}

fn window(base: u32, messages: usize) -> Window {
    let mut window = Window::new(100, base);
    let message = IpvsMessage::new(IpvsCommand::GetInfo);
    for _ in 0..messages {
        window.push(&message, frame::length(&Genl(&message)), FAMILY);
    }
    window
}

fn finish(window: Window, lost: bool) -> Vec<(usize, MessageError)> {
    let mut failures = Vec::new();
    window.finish(lost, &mut failures);
    failures
}

#[test]
fn errors_belong_to_their_messages() {
    for base in [0, 7, u32::MAX - 2] {
        let sequence = |position: u32| base.wrapping_add(position);
        let mut window = window(base, 5);
        assert!(!window.feed(&error(sequence(2), EEXIST)));
        assert!(!window.feed(&error(sequence(4), EBUSY)));
        assert!(!window.feed(&error(sequence(6), EBUSY)), "the next send's");
        assert!(!window.feed(&error(sequence(0), EBUSY)), "the previous send's");
        assert!(window.feed(&error(sequence(5), 0)));
        let expected = [(101, MessageError::Refused(EEXIST)), (103, MessageError::Refused(EBUSY))];
        assert_eq!(finish(window, false), expected);
    }
}

#[test]
fn the_last_message_may_fail() {
    let mut window = window(0, 2);
    assert!(window.feed(&[error(1, EEXIST), error(2, ENOENT)].concat()));
    let expected = [(100, MessageError::Refused(EEXIST)), (101, MessageError::Refused(ENOENT))];
    assert_eq!(finish(window, false), expected);
}

#[test]
fn lost_replies_leave_outcomes_unknown() {
    let mut window = window(0, 3);
    assert!(!window.feed(&error(2, EEXIST)));
    let expected =
        [(100, MessageError::Unknown), (101, MessageError::Refused(EEXIST)), (102, MessageError::Unknown)];
    assert_eq!(finish(window, true), expected);
}

#[test]
fn only_the_last_message_asks_for_an_acknowledgement() {
    let mut window = window(0, 3);
    window.request_acknowledgement();
    let flags: Vec<_> = split(window.bytes()).map(|message| message.flags()).collect();
    assert_eq!(flags, [NLM_F_REQUEST, NLM_F_REQUEST, NLM_F_REQUEST | NLM_F_ACK]);
    let numbers: Vec<_> = split(window.bytes()).map(|message| message.sequence_number()).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn dumps_come_in_parts() {
    let timeout = |seconds| frame(FAMILY, NLM_F_MULTIPART, 7, &config(seconds));
    let mut replies = Replies::new(7);
    let mut feed = |datagram: &[u8]| replies.feed(datagram, |bytes| decode(bytes, FAMILY));
    assert_eq!(feed(&[timeout(1), timeout(2)].concat()), Progress::More);
    assert_eq!(feed(&frame(FAMILY, NLM_F_MULTIPART, 6, &config(9))), Progress::More);
    assert_eq!(feed(&frame(FAMILY, NLM_F_MULTIPART, 7, &config(3)[..10])), Progress::More);
    assert_eq!(feed(&[timeout(4), done(0, 7, 0)].concat()), Progress::Done);
    let seconds: Vec<_> = replies
        .into_messages()
        .into_iter()
        .map(|message: Result<IpvsMessage, _>| message.ok().map(|message| message.attributes))
        .collect();
    let some = |seconds| Some(vec![IpvsAttribute::TimeoutTcp(seconds)]);
    assert_eq!(seconds, [some(1), some(2), None, some(4)]);
}

/// A generic netlink header and one timeout.
fn config(seconds: u32) -> Vec<u8> {
    let mut bytes = vec![12, 1, 0, 0];
    bytes.extend_from_slice(&8_u16.to_ne_bytes());
    bytes.extend_from_slice(&4_u16.to_ne_bytes());
    bytes.extend_from_slice(&seconds.to_ne_bytes());
    bytes
}

#[test]
fn requests_end_in_several_ways() {
    let part = frame(FAMILY, NLM_F_MULTIPART | NLM_F_DUMP_INTR, 7, &config(1));
    for (datagram, progress) in [
        (error(7, 0), Progress::Done),
        (error(7, EBUSY), Progress::Refused(EBUSY)),
        (done(0, 7, EEXIST), Progress::Refused(EEXIST)),
        (done(NLM_F_DUMP_INTR, 7, 0), Progress::Interrupted),
        ([part, done(0, 7, 0)].concat(), Progress::Interrupted),
        (frame(NLMSG_DONE, 0, 7, &[]), Progress::Done),
        (frame(NLMSG_OVERRUN, 0, 7, &[]), Progress::Lost),
        (vec![0; 40], Progress::More),
    ] {
        let mut replies = Replies::new(7);
        let parse = |bytes: &[u8]| decode::<IpvsMessage>(bytes, FAMILY);
        assert_eq!(replies.feed(&datagram, parse), progress, "{datagram:?}");
    }
}

#[test]
fn a_list_in_parts_is_the_list_and_leaves_the_connection_free() {
    let mut connection = GenlConnection::<GenlCtrl>::open().unwrap();
    let request = GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: Vec::new() };
    let mut parts = connection.begin_dump(&request).unwrap();
    let whole = connection.dump(&request).unwrap();
    let mut listed = Vec::new();
    while let Some(part) = parts.next_part().unwrap() {
        listed.extend(part);
        connection.resolve().unwrap();
    }
    assert!(!whole.is_empty());
    assert_eq!(format!("{listed:?}"), format!("{whole:?}"));
    assert!(parts.next_part().unwrap().is_none());
}

#[test]
fn finds_families() {
    let mut connection = GenlConnection::<GenlCtrl>::open().unwrap();
    assert_eq!(connection.family, GENL_ID_CTRL);
    let request = GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: Vec::new() };
    let families = connection.dump(&request).unwrap();
    let named = families
        .iter()
        .flatten()
        .any(|family| family.nlas.contains(&GenlCtrlAttrs::FamilyName("nlctrl".to_owned())));
    assert!(named, "{families:?}");
}

#[derive(Debug)]
struct Nobody;

impl GenlFamily for Nobody {
    fn family_name() -> &'static str {
        "l4lbd-nobody"
    }

    fn command(&self) -> u8 {
        0
    }

    fn version(&self) -> u8 {
        0
    }
}

impl Emitable for Nobody {
    fn buffer_len(&self) -> usize {
        0
    }

    fn emit(&self, _: &mut [u8]) {}
}

impl ParseableParametrized<[u8], GenlHeader> for Nobody {
    fn parse_with_param(_: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

#[test]
fn names_a_missing_family() {
    let error = GenlConnection::<Nobody>::open().unwrap_err();
    assert!(matches!(error, Error::NoFamily("l4lbd-nobody")), "{error}");
}

/// The controller has no command to add families, and answers a question about one.
#[test]
fn pipelines_over_several_sends() {
    let mut connection = GenlConnection::<GenlCtrl>::open().unwrap();
    let good = |index: usize| index % 40 == 1;
    let messages = (0..5000).map(|index| match good(index) {
        true => GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName("nlctrl".to_owned())],
        },
        false => GenlCtrl { cmd: GenlCtrlCmd::NewFamily, nlas: Vec::new() },
    });
    let failures = connection.pipeline(messages);
    let expected: Vec<_> = (0..5000)
        .filter(|index| !good(*index))
        .map(|index| (index, MessageError::Refused(EOPNOTSUPP)))
        .collect();
    assert_eq!(failures, expected);
    assert!(connection.socket.sequence > 5000);
}

/// With room for a few replies only, the others are lost; the next send is sound again.
#[test]
fn reports_lost_replies() {
    let mut connection = GenlConnection::<GenlCtrl>::open().unwrap();
    connection.socket.socket.set_rx_buf_sz(4096_i32).unwrap();
    let bad = || GenlCtrl { cmd: GenlCtrlCmd::NewFamily, nlas: Vec::new() };
    let failures = connection.pipeline((0..200).map(|_| bad()));
    assert_eq!(failures.len(), 200);
    let unknown = failures.iter().filter(|(_, failure)| *failure == MessageError::Unknown).count();
    assert!((1..200).contains(&unknown), "{unknown}");
    assert_eq!(connection.pipeline([bad()]), [(0, MessageError::Refused(EOPNOTSUPP))]);
}

proptest! {
    #[test]
    fn arbitrary_datagrams_do_not_panic(bytes in vec(any::<u8>(), 0..200), sequence in 0_u32..3) {
        let mut framed = bytes.clone();
        if framed.len() >= 16 {
            let length = framed.len() as u32;
            let mut header = NetlinkBuffer::new(&mut framed);
            header.set_length(length);
            header.set_sequence_number(sequence);
            header.set_message_type(u16::from(bytes[4]) % 5);
        }
        for datagram in [bytes, framed] {
            let mut window = window(0, 2);
            window.feed(&datagram);
            finish(window, true);
            let mut replies = Replies::new(sequence);
            replies.feed(&datagram, |bytes| decode::<IpvsMessage>(bytes, FAMILY));
            let _ = family_number(&datagram);
        }
    }
}
