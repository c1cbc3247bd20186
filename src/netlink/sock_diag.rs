//! Messages of the kernel's socket diagnostics: listing sockets with their BPF storage, and ending them.
//!
//! Types are those of `linux/sock_diag.h` and `linux/inet_diag.h`; see also sock_diag(7). This is a
//! codec. Sending is left to [`super::socket::KernelSocket`], which reaches the sockets of one network
//! namespace. The crate netlink-packet-sock-diag 0.5 lacks the attributes of BPF storage.

use std::os::fd::RawFd;

use netlink_packet_core::{DecodeError, DefaultNla};
use zerocopy::byteorder::{BigEndian, U16};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::nla;

/// Type of a request that lists sockets, and of each reply to it.
pub const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Type of a request that ends a socket.
pub const SOCK_DESTROY: u16 = 21;

/// Port of [`list_request`] for all sockets.
pub const ANY_PORT: u16 = 0;

/// Attributes of a request, `INET_DIAG_REQ_SK_BPF_STORAGES` with `SK_DIAG_BPF_STORAGE_REQ_MAP_FD` in it.
const REQUEST_STORAGES: u16 = 2;
const REQUEST_MAP: u16 = 1;
/// Attributes of a reply, `INET_DIAG_SK_BPF_STORAGES` with `SK_DIAG_BPF_STORAGE` with
/// `SK_DIAG_BPF_STORAGE_MAP_VALUE` in it.
const STORAGES: u16 = 20;
const STORAGE: u16 = 1;
const STORAGE_VALUE: u16 = 3;

/// Bits of the TCP states that a client's socket can be in: all but LISTEN, TIME_WAIT and
/// NEW_SYN_RECV. UDP sockets have the states of TCP as well.
pub const ANY_STATE: u32 = 0b1011_1011_1110;
/// Bit of the TCP state of a connect that waits for its answer.
pub const SYN_SENT: u32 = 1 << TCP_SYN_SENT;

/// Number of that state in a reply.
const TCP_SYN_SENT: u8 = 2;

/// Addresses and cookie of a socket: `struct inet_diag_sockid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SocketId {
    own_port: U16<BigEndian>,
    peer_port: U16<BigEndian>,
    own_address: [u8; 16],
    peer_address: [u8; 16],
    interface: u32,
    cookie_low: u32,
    cookie_high: u32,
}

/// Start of both requests: `struct inet_diag_req_v2`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct RequestHead {
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    id: SocketId,
}

/// Start of a reply: `struct inet_diag_msg`.
#[derive(FromBytes)]
#[repr(C)]
struct ReplyHead {
    family: u8,
    state: u8,
    _timer: u8,
    _retransmissions: u8,
    id: SocketId,
    _counters: [u32; 5],
}

/// Socket in a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedSocket {
    /// `AF_INET` or `AF_INET6`.
    family: u8,
    state: u8,
    id: SocketId,
    /// Value of the requested map in the socket's BPF storage. The kernel shows it for TCP only.
    pub storage: Option<Vec<u8>>,
}

impl ListedSocket {
    pub fn peer_port(&self) -> u16 {
        self.id.peer_port.get()
    }

    /// Returns true for a TCP socket whose connect waits for its answer.
    pub fn is_connecting(&self) -> bool {
        self.state == TCP_SYN_SENT
    }

    /// Returns the number that BPF programs get from `bpf_get_socket_cookie`.
    pub fn cookie(&self) -> u64 {
        u64::from(self.id.cookie_low) | u64::from(self.id.cookie_high) << 32
    }
}

/// Encodes the payload of a request for the sockets that are connected to `peer_port`, with their
/// values in the BPF map `storage`. `family` is `AF_INET` or `AF_INET6`, `protocol` the number in an
/// IP header, `states` a set of bits such as [`ANY_STATE`].
pub fn list_request(family: u8, protocol: u8, peer_port: u16, states: u32, storage: RawFd) -> Vec<u8> {
    let id = SocketId { peer_port: peer_port.into(), ..SocketId::new_zeroed() };
    let map = [DefaultNla::new(REQUEST_MAP, storage.to_ne_bytes().to_vec())];
    let mut nested = vec![0; nla::length(&map)];
    nla::emit(&map, &mut nested);
    let storages = [DefaultNla::new(REQUEST_STORAGES, nested)];
    let mut request = head(family, protocol, states, id);
    let end = request.len();
    request.resize(end + nla::length(&storages), 0);
    nla::emit(&storages, request.get_mut(end..).unwrap_or_default());
    request
}

/// Encodes the payload of a request that ends a socket, whose user then gets `ECONNABORTED`.
pub fn destroy_request(socket: &ListedSocket, protocol: u8) -> Vec<u8> {
    head(socket.family, protocol, ANY_STATE, socket.id)
}

fn head(family: u8, protocol: u8, states: u32, id: SocketId) -> Vec<u8> {
    let head = RequestHead { family, protocol, extensions: 0, padding: 0, states, id };
    head.as_bytes().to_vec()
}

/// Decodes the payload of a reply.
///
/// # Errors
/// If it is too short, or its attributes do not fit it.
pub fn listed_socket(payload: &[u8]) -> Result<ListedSocket, DecodeError> {
    let (head, attributes) = ReplyHead::read_from_prefix(payload)
        .map_err(|_| DecodeError::from("a reply too short for a socket"))?;
    let mut value = nla::find(attributes, STORAGES)?;
    for kind in [STORAGE, STORAGE_VALUE] {
        value = value.map(|nested| nla::find(nested, kind)).transpose()?.flatten();
    }
    Ok(ListedSocket {
        family: head.family,
        state: head.state,
        id: head.id,
        storage: value.map(<[u8]>::to_vec),
    })
}

#[cfg(test)]
mod tests;
