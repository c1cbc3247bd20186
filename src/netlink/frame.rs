//! Netlink framing: requests into the bytes of a send, and a received datagram into messages.
//!
//! A message is a header of 16 bytes (`struct nlmsghdr` of `linux/netlink.h`), the payload of its
//! protocol, and padding to four bytes. Nothing here knows a protocol, touches a socket or panics on
//! what was received. How an answer ends is in [`super::replies`], attributes are in [`super::nla`].

use netlink_packet_core::{Emitable, NetlinkBuffer};

/// `NLMSG_HDRLEN` of `linux/netlink.h`.
const HEADER_LENGTH: usize = 16;
/// `NLMSG_ALIGNTO`.
const ALIGNMENT: usize = 4;

/// Fields of a message's header, apart from its length and the sender's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Message type (`nlmsg_type`): the family of generic netlink, elsewhere the request.
    pub kind: u16,
    /// `NLM_F_*` bits.
    pub flags: u16,
    /// Number that the kernel repeats in each reply.
    pub sequence: u32,
}

/// Payload whose bytes are at hand, for requests that need no codec.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Emitable for Bytes<'_> {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        super::nla::put(buffer, self.0);
    }
}

/// Length of a message with this payload, in bytes and without padding.
pub fn length(payload: &impl Emitable) -> usize {
    HEADER_LENGTH + payload.buffer_len()
}

/// Appends a message to `buffer`, padded. `length` is that of [`length`], which the caller needs first
/// to see if the message still fits a send.
pub fn append(buffer: &mut Vec<u8>, header: FrameHeader, payload: &impl Emitable, length: usize) {
    let start = buffer.len();
    buffer.resize(start + length.next_multiple_of(ALIGNMENT), 0);
    // Padding is behind the length that the header tells.
    let room = buffer.get_mut(start..start + length).unwrap_or_default();
    let Some((head, body)) = room.split_at_mut_checked(HEADER_LENGTH) else {
        return;
    };
    let mut head = NetlinkBuffer::new(head);
    head.set_length(u32::try_from(length).unwrap_or(u32::MAX));
    head.set_message_type(header.kind);
    head.set_flags(header.flags);
    head.set_sequence_number(header.sequence);
    payload.emit(body);
}

/// Returns one message as the bytes of a send.
pub fn message(header: FrameHeader, payload: &impl Emitable) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, header, payload, length(payload));
    bytes
}

/// Splits a datagram into its messages; ends at the first that does not fit it.
pub fn split(mut datagram: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        // This checks that the length covers a header and fits the datagram, so each step goes forward.
        let message = NetlinkBuffer::new_checked(datagram).ok()?;
        let length = usize::try_from(message.length()).ok()?;
        datagram = datagram.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(message)
    })
}

/// Returns the positive errno in the payload of an `NLMSG_ERROR` or `NLMSG_DONE`. 0 is success, and a
/// `NLMSG_DONE` without a number is one too.
pub fn errno(payload: &[u8]) -> i32 {
    let code = payload.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
    code.saturating_neg().max(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: FrameHeader = FrameHeader { kind: 20, flags: 0x301, sequence: 7 };

    #[test]
    fn message_has_length_type_flags_and_sequence() {
        let bytes = message(HEADER, &Bytes(&[0xaa; 5]));
        let mut expected = 21_u32.to_ne_bytes().to_vec();
        expected.extend(20_u16.to_ne_bytes());
        expected.extend(0x301_u16.to_ne_bytes());
        expected.extend(7_u32.to_ne_bytes());
        expected.extend([0; 4]);
        expected.extend([0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0, 0, 0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn errno_is_positive_and_zero_is_success() {
        assert_eq!(errno(&(-95_i32).to_ne_bytes()), 95);
        for payload in [&0_i32.to_ne_bytes()[..], &17_i32.to_ne_bytes(), &[], &[1, 2]] {
            assert_eq!(errno(payload), 0, "{payload:?}");
        }
        assert_eq!(errno(&i32::MIN.to_ne_bytes()), i32::MAX);
    }

    proptest! {
        #[test]
        fn split_returns_what_append_wrote(payloads in prop::collection::vec(any::<Vec<u8>>(), 0..5)) {
            let mut bytes = Vec::new();
            for payload in &payloads {
                append(&mut bytes, HEADER, &Bytes(payload), length(&Bytes(payload)));
            }
            let found: Vec<Vec<u8>> = split(&bytes).map(|message| message.payload().to_vec()).collect();
            prop_assert_eq!(found, payloads);
            prop_assert!(split(&bytes).all(|message| message.sequence_number() == HEADER.sequence));
        }

        #[test]
        fn split_takes_any_bytes(bytes: Vec<u8>) {
            prop_assert!(split(&bytes).count() <= bytes.len() / HEADER_LENGTH);
        }
    }
}
