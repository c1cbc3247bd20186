use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use proptest::prelude::*;

use super::*;
use crate::netlink::frame::{self, Bytes, FrameHeader};

/// Messages captured on a 6.18 kernel when a service with one connection was deleted, while another
/// service with a connection had the same server.
const LIST: &[u8] = include_bytes!("captures/list.bin");
const ANSWER: &[u8] = include_bytes!("captures/answer.bin");
const DESTROY: &[u8] = include_bytes!("captures/destroy.bin");

/// The server's port and the map's descriptor in that capture.
const PORT: u16 = 0xb653;
const MAP: RawFd = 0x1b;

const TCP: u8 = 6;
const IPV4: u8 = libc::AF_INET as u8;

fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    frame::message(FrameHeader { kind, flags: NLM_F_REQUEST | flags, sequence: 0 }, &Bytes(payload))
}

fn sockets(datagram: &[u8]) -> Vec<Result<ListedSocket, DecodeError>> {
    frame::split(datagram).map(|message| listed_socket(message.payload())).collect()
}

#[test]
fn list_request_is_as_captured() {
    assert_eq!(
        message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &list_request(IPV4, TCP, PORT, ANY_STATE, MAP)),
        LIST
    );
}

#[test]
fn listed_socket_and_destroy_request_are_as_captured() {
    let found = sockets(ANSWER);
    let [Ok(first), Ok(second)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((first.family, second.family), (IPV4, IPV4));
    assert_eq!((first.peer_port(), second.peer_port()), (PORT, PORT));
    assert_ne!(first.cookie(), second.cookie());
    // The server has an id in each of the two services.
    let storages = [first, second].map(|socket| socket.storage.clone().unwrap());
    assert_eq!(storages.each_ref().map(Vec::len), [44, 44]);
    assert_ne!(storages[0], storages[1]);
    let requests =
        [first, second].map(|socket| message(SOCK_DESTROY, NLM_F_ACK, &destroy_request(socket, TCP)));
    assert!(requests.contains(&DESTROY.to_vec()));
}

#[test]
fn cookie_has_its_low_half_first() {
    let id = SocketId { cookie_low: 7, cookie_high: 1, ..SocketId::new_zeroed() };
    assert_eq!(ListedSocket { family: IPV4, state: 1, id, storage: None }.cookie(), 1 << 32 | 7);
}

proptest! {
    #[test]
    fn listed_socket_takes_any_bytes(bytes: Vec<u8>) {
        let _ = listed_socket(&bytes);
    }

    #[test]
    fn listed_socket_takes_damaged_answers(at in 0..ANSWER.len(), value: u8, end in 0..=ANSWER.len()) {
        let mut bytes = ANSWER.to_vec();
        bytes[at] = value;
        let _ = sockets(&bytes[..end]);
    }
}
