//! The generation number of the nftables rules in a network namespace.
//!
//! Every transaction, whoever makes it, gives the rules a new number (`NFT_MSG_GETGEN`, see
//! `linux/netfilter/nf_tables.h`), so that one small question tells whether a listing is still true.
//! Rules themselves are left to the `nft` program.

use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr};

/// Netlink protocol of all netfilter subsystems.
const NETLINK_NETFILTER: isize = 12;

/// Subsystem nftables, message "get generation".
const NFT_MSG_GETGEN: u16 = 10 << 8 | 16;

/// Family, version and resource id, all zero, in front of the attributes.
const NFGENMSG: usize = 4;

const NFTA_GEN_ID: u16 = 1;

/// A socket for the question.
pub struct Generations(Socket);

impl Generations {
    /// Opens the socket in the current network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// The number of the rules as they are now.
    ///
    /// # Errors
    /// Without nftables in the kernel, or without `CAP_NET_ADMIN`.
    pub fn current(&mut self) -> io::Result<u32> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(Generation(None)));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let (answer, _) = self.0.recv_from_full()?;
        let answer = NetlinkMessage::<Generation>::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::InnerMessage(Generation(Some(number))) => Ok(number),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Err(io::Error::other("not the generation that was asked for")),
        }
    }
}

/// The question, and its answer.
#[derive(Debug)]
struct Generation(Option<u32>);

impl NetlinkSerializable for Generation {
    fn message_type(&self) -> u16 {
        NFT_MSG_GETGEN
    }

    fn buffer_len(&self) -> usize {
        NFGENMSG
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

impl NetlinkDeserializable for Generation {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        generation(payload).map(Self)
    }
}

/// The number in a message of the kernel, from its `nfgenmsg` on.
///
/// # Errors
/// Where the attributes do not fit the message.
pub fn generation(payload: &[u8]) -> Result<Option<u32>, DecodeError> {
    let attributes = payload.get(NFGENMSG..).unwrap_or_default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        if attribute.kind() == NFTA_GEN_ID
            && let Ok(number) = attribute.value().try_into()
        {
            return Ok(Some(u32::from_be_bytes(number)));
        }
    }
    Ok(None)
}

impl From<Generation> for NetlinkPayload<Generation> {
    fn from(message: Generation) -> Self {
        NetlinkPayload::InnerMessage(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_number_is_big_endian_behind_the_header() {
        let captured = [0, 0, 0, 3, 8, 0, 1, 0, 0, 0, 0, 3, 8, 0, 2, 0, 0, 0, 0x12, 0x34];
        let answer = Generation::deserialize(&NetlinkHeader::default(), &captured).unwrap();
        assert_eq!(answer.0, Some(3));
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Generation::deserialize(&NetlinkHeader::default(), &bytes);
        }
    }
}
