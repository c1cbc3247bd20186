use proptest::prelude::*;

use super::*;
use crate::cluster::Protocol;

/// What went over the socket on a 6.18 kernel, when a service with one connection was deleted while
/// another socket was connected to the same server without us.
const LIST: &[u8] = include_bytes!("captures/list.bin");
const ANSWER: &[u8] = include_bytes!("captures/answer.bin");
const DESTROY: &[u8] = include_bytes!("captures/destroy.bin");

/// Of the backend's port and the descriptor of the map in that capture.
const PORT: u16 = 0xb653;
const MAP: RawFd = 0x1b;

const TCP: u8 = 6;
const IPV4: u8 = libc::AF_INET as u8;

#[test]
fn asks_as_captured() {
    assert_eq!(list(IPV4, TCP, PORT, MAP), LIST);
}

#[test]
fn reads_what_was_captured() {
    let answers = answers(ANSWER);
    let [Answer::Socket(first), Answer::Socket(second)] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!((first.family, second.family), (IPV4, IPV4));
    assert_eq!(first.id[2..4], PORT.to_be_bytes());
    assert!(first.server.is_some() && second.server.is_some() && first.server != second.server);
    assert_ne!(first.cookie(), second.cookie());
    let request =
        |sight: &Sight| finished(request(super::DESTROY, REQUEST | ACK, sight.family, TCP, &sight.id));
    assert!([request(first), request(second)].contains(&DESTROY.to_vec()));
}

#[test]
fn reads_ends() {
    let mut done = vec![20, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    done.extend(0_i32.to_ne_bytes());
    assert_eq!(answers(&done), [Answer::End(0)]);
    let mut refused = vec![20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    refused.extend((-libc::EOPNOTSUPP).to_ne_bytes());
    assert_eq!(answers(&refused), [Answer::End(libc::EOPNOTSUPP)]);
}

#[test]
fn targets_go_by_protocol() {
    let key = |protocol| ServiceKey { protocol, address: [10, 0, 0, 1].into(), port: 80 };
    let mut targets = Targets::default();
    targets.add(&key(Protocol::Tcp), 1, 7);
    targets.add(&key(Protocol::Udp), 2, 8);
    assert_eq!(targets.ports, [(6, [1].into()), (17, [2].into())].into());
    assert_eq!(targets.ids, [7, 8].into());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
        answers(&bytes);
        find(&bytes, STORAGES);
    }

    #[test]
    fn damaged_answers_are_read_without_harm(at in 0..ANSWER.len(), value: u8, end in 0..=ANSWER.len()) {
        let mut bytes = ANSWER.to_vec();
        bytes[at] = value;
        answers(&bytes[..end]);
    }
}
