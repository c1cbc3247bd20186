//! Netlink framing: messages into a send, and a datagram into messages.

use netlink_packet_core::{Emitable, NetlinkBuffer};
use netlink_packet_generic::constants::GENL_HDRLEN;
use netlink_packet_generic::{GenlFamily, GenlHeader};

/// `NLMSG_HDRLEN` of `linux/netlink.h`.
const HEADER_LENGTH: usize = 16;
/// `NLMSG_ALIGNTO`.
const ALIGNMENT: usize = 4;

/// What a message's header says apart from its length.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub family: u16,
    pub flags: u16,
    pub sequence: u32,
}

/// Length of `payload` with both headers, in bytes; attributes are padded, so that it needs none.
pub fn length<F: Emitable>(payload: &F) -> usize {
    HEADER_LENGTH + GENL_HDRLEN + payload.buffer_len()
}

/// Appends a message whose [`length`] is known to `buffer`.
pub fn append<F: GenlFamily + Emitable>(buffer: &mut Vec<u8>, payload: &F, length: usize, header: Header) {
    let start = buffer.len();
    buffer.resize(start + length.next_multiple_of(ALIGNMENT), 0);
    let room = buffer.get_mut(start..start + length).unwrap_or_default();
    let Some((head, body)) = room.split_at_mut_checked(HEADER_LENGTH) else {
        return;
    };
    let mut head = NetlinkBuffer::new(head);
    head.set_length(u32::try_from(length).unwrap_or(u32::MAX));
    head.set_message_type(header.family);
    head.set_flags(header.flags);
    head.set_sequence_number(header.sequence);
    if let Some((head, rest)) = body.split_at_mut_checked(GENL_HDRLEN) {
        GenlHeader { cmd: payload.command(), version: payload.version() }.emit(head);
        payload.emit(rest);
    }
}

/// The messages of a datagram, up to the first that does not fit it.
pub fn split(mut datagram: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(datagram).ok()?;
        let length = usize::try_from(message.length()).ok()?;
        datagram = datagram.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(message)
    })
}
