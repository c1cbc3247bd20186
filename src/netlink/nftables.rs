//! The generation number of the nftables rules in a network namespace, and the counters of a table.
//!
//! Every transaction of any program gives the rules a new number (`NFT_MSG_GETGEN`, see
//! `linux/netfilter/nf_tables.h`), so that one small question tells whether a listing is still true.
//! Counters change with every packet and are asked for often (`NFT_MSG_GETOBJ`). Rules themselves are left to
//! the `nft` program.

use std::collections::BTreeMap;

use netlink_packet_core::{DecodeError, NLA_ALIGNTO, NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::frame::Bytes;
use super::nla;
use super::socket::{Error, KernelSocket};

/// Subsystem nftables, message "get generation".
const NFT_MSG_GETGEN: u16 = 10 << 8 | 16;

/// Family, version and resource id, all zero, in front of the attributes.
const NFGENMSG: usize = 4;

const NFTA_GEN_ID: u16 = 1;

/// Subsystem nftables, message "get objects".
const NFT_MSG_GETOBJ: u16 = 10 << 8 | 19;

/// Family of tables for both versions of IP.
const NFPROTO_INET: u8 = 1;

const NFTA_OBJ_TABLE: u16 = 1;
const NFTA_OBJ_NAME: u16 = 2;
const NFTA_OBJ_TYPE: u16 = 3;
const NFTA_OBJ_DATA: u16 = 4;
const NFT_OBJECT_COUNTER: u32 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;

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

    /// Returns the packets of each counter of a table in family `inet`; none without the table.
    ///
    /// # Errors
    /// Without nftables in the kernel, or without `CAP_NET_ADMIN`.
    pub fn counters(&mut self, table: &str) -> Result<BTreeMap<String, u64>, Error> {
        let mut request = vec![NFPROTO_INET, 0, 0, 0];
        let name: Vec<u8> = table.bytes().chain([0]).collect();
        put_attribute(&mut request, NFTA_OBJ_TABLE, &name);
        put_attribute(&mut request, NFTA_OBJ_TYPE, &NFT_OBJECT_COUNTER.to_be_bytes());
        let answers = self.0.exchange(NFT_MSG_GETOBJ, NLM_F_DUMP, &Bytes(&request), counter)?;
        answers
            .into_iter()
            .filter_map(Result::transpose)
            .map(|counter| counter.map_err(Error::Decode))
            .collect()
    }
}

/// Appends an attribute with its padding.
fn put_attribute(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(NLA_HEADER_SIZE + value.len()).unwrap_or(u16::MAX);
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(value);
    request.resize(request.len().next_multiple_of(NLA_ALIGNTO), 0);
}

/// Returns name and packets in a message about an object, from its `nfgenmsg` on; `None` for another object.
///
/// # Errors
/// When the attributes do not fit the message, or the number is not one of 64 bits.
pub fn counter(payload: &[u8]) -> Result<Option<(String, u64)>, DecodeError> {
    let attributes = payload.get(NFGENMSG..).unwrap_or_default();
    let (Some(name), Some(data)) =
        (nla::find(attributes, NFTA_OBJ_NAME)?, nla::find(attributes, NFTA_OBJ_DATA)?)
    else {
        return Ok(None);
    };
    let name = String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned();
    let packets = nla::find(data, NFTA_COUNTER_PACKETS)?;
    packets.map(|packets| Ok((name, u64::from_be_bytes(nla::array(packets)?)))).transpose()
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

    #[test]
    fn a_counter_has_its_name_and_packets() {
        let mut data = Vec::new();
        put_attribute(&mut data, 1, &9000_u64.to_be_bytes());
        put_attribute(&mut data, NFTA_COUNTER_PACKETS, &7_u64.to_be_bytes());
        let mut message = vec![NFPROTO_INET, 0, 0, 0];
        put_attribute(&mut message, NFTA_OBJ_TABLE, b"l4lbd\0");
        put_attribute(&mut message, NFTA_OBJ_NAME, b"vips_reached\0");
        let without_data = message.clone();
        put_attribute(&mut message, NFTA_OBJ_DATA, &data);
        assert_eq!(counter(&message).unwrap(), Some(("vips_reached".to_owned(), 7)));
        assert_eq!(counter(&without_data).unwrap(), None);
        assert!(counter(&message[..message.len() - 9]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = generation(&bytes);
            let _ = counter(&bytes);
        }
    }
}
