//! The generation number of the nftables rules in a network namespace.
//!
//! Every transaction of any program gives the rules a new number (`NFT_MSG_GETGEN`, see
//! `linux/netfilter/nf_tables.h`), so that one small question tells whether a listing is still true.
//! Rules themselves are left to the `nft` program.

use netlink_packet_core::{DecodeError, NLM_F_ACK};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::frame::Bytes;
use super::nla;
use super::socket::{Error, KernelSocket};

/// Subsystem nftables, message "get generation".
const NFT_MSG_GETGEN: u16 = 10 << 8 | 16;

/// Family, version and resource id, all zero, in front of the attributes.
const NFGENMSG: usize = 4;

const NFTA_GEN_ID: u16 = 1;

/// A socket to the netfilter subsystems of one network namespace.
#[derive(Debug)]
pub struct Generations(KernelSocket);

impl Generations {
    /// Opens the socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no netfilter sockets.
    pub fn open() -> Result<Self, Error> {
        KernelSocket::open(NETLINK_NETFILTER).map(Self)
    }

    /// Returns the number of the rules as they are now.
    ///
    /// # Errors
    /// Without nftables in the kernel, or without `CAP_NET_ADMIN`.
    pub fn current(&mut self) -> Result<u32, Error> {
        let request = Bytes(&[0; NFGENMSG]);
        let answers = self.0.exchange(NFT_MSG_GETGEN, NLM_F_ACK, &request, generation)?;
        // It is the only message; the acknowledgement behind it ends the answer.
        match answers.into_iter().next() {
            Some(number) => number?.ok_or(Error::Decode("no generation in it".into())),
            None => Err(Error::Decode("no message with a generation".into())),
        }
    }
}

/// Returns the number in a message of the kernel, from its `nfgenmsg` on, if it has one.
///
/// # Errors
/// When the attributes do not fit the message, or the number is not one of 32 bits.
pub fn generation(payload: &[u8]) -> Result<Option<u32>, DecodeError> {
    // The kernel's numbers of netfilter are in network byte order.
    let number = nla::find(payload.get(NFGENMSG..).unwrap_or_default(), NFTA_GEN_ID)?;
    number.map(|number| nla::array(number).map(u32::from_be_bytes)).transpose()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_number_is_big_endian_behind_the_header() {
        let captured = [0, 0, 0, 3, 8, 0, 1, 0, 0, 0, 0, 3, 8, 0, 2, 0, 0, 0, 0x12, 0x34];
        assert_eq!(generation(&captured).unwrap(), Some(3));
        assert_eq!(generation(&captured[..4]).unwrap(), None);
        assert!(generation(&captured[..11]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = generation(&bytes);
        }
    }
}
