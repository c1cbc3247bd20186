//! Lists of netlink attributes (`struct nlattr` of `linux/netlink.h`): a length and a type of two
//! bytes each, the value, and padding to four bytes.
//!
//! The bytes are those of `NlasIterator` and of `Emitable` for slices of netlink-packet-core. These
//! functions go over a list once and don't assert lengths. That halves the time: to decode an IPVS
//! destination takes 0.6 µs instead of 1.2, beside some 1.5 that the kernel needs to add one.

use netlink_packet_core::{DecodeError, NLA_ALIGNTO, NLA_HEADER_SIZE, NLA_TYPE_MASK, Nla};

/// Returns type, with its flag bits, and value of every attribute; ends after the first that doesn't fit.
pub fn split(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), DecodeError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        // Taken, so that the iterator is at its end after an error.
        let list = std::mem::take(&mut bytes);
        let Some([l0, l1, k0, k1]) = list.first_chunk::<NLA_HEADER_SIZE>().copied() else {
            return Some(Err(DecodeError::nla_buffer_too_small(list.len(), NLA_HEADER_SIZE)));
        };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = list.get(NLA_HEADER_SIZE..length) else {
            return Some(Err(DecodeError::nla_length_mismatch(list.len(), length)));
        };
        bytes = list.get(length.next_multiple_of(NLA_ALIGNTO)..).unwrap_or_default();
        Some(Ok((u16::from_ne_bytes([k0, k1]), value)))
    })
}

/// Returns the value of the first attribute of type `kind`, whatever its flag bits.
///
/// # Errors
/// When an attribute before it does not fit the list.
pub fn find(bytes: &[u8], kind: u16) -> Result<Option<&[u8]>, DecodeError> {
    for nla in split(bytes) {
        let (found, value) = nla?;
        if found & NLA_TYPE_MASK == kind {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Decodes a list; the first attribute that can't be decoded fails it.
pub fn parse<A>(
    bytes: &[u8],
    parse: impl Fn(u16, &[u8]) -> Result<A, DecodeError>,
) -> Result<Vec<A>, DecodeError> {
    split(bytes).map(|nla| nla.and_then(|(kind, value)| parse(kind, value))).collect()
}

/// Returns the length that [`emit`] writes, in bytes.
pub fn length(list: &[impl Nla]) -> usize {
    list.iter().map(|nla| NLA_HEADER_SIZE + nla.value_len().next_multiple_of(NLA_ALIGNTO)).sum()
}

/// Encodes a list to the start of `buffer`, and as much of it as fits.
pub fn emit(list: &[impl Nla], mut buffer: &mut [u8]) {
    for nla in list {
        let length = NLA_HEADER_SIZE + nla.value_len();
        let padded = length.next_multiple_of(NLA_ALIGNTO);
        let Some((room, rest)) = buffer.split_at_mut_checked(padded) else {
            return;
        };
        buffer = rest;
        put(room, &u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        put(room.get_mut(2..).unwrap_or_default(), &nla.kind().to_ne_bytes());
        if let Some(value) = room.get_mut(NLA_HEADER_SIZE..length) {
            nla.emit_value(value);
        }
        // The buffer may hold older bytes, which must not reach the kernel.
        room.get_mut(length..).unwrap_or_default().fill(0);
    }
}

/// Returns a value of `N` bytes.
pub fn array<const N: usize>(value: &[u8]) -> Result<[u8; N], DecodeError> {
    value.try_into().map_err(|_| DecodeError::invalid_number(N, value.len()))
}

/// Returns a 32-bit number in host byte order.
pub fn number(value: &[u8]) -> Result<u32, DecodeError> {
    array(value).map(u32::from_ne_bytes)
}

/// Writes `bytes` to the start of `buffer`, whose length `value_len` announced.
pub fn put(buffer: &mut [u8], bytes: &[u8]) {
    if let Some(start) = buffer.get_mut(..bytes.len()) {
        start.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn find_ignores_flag_bits_and_looks_into_nested_lists() {
        let encode = |list: &[DefaultNla]| {
            let mut bytes = vec![0; length(list)];
            emit(list, &mut bytes);
            bytes
        };
        let inner = encode(&[DefaultNla::new(3, vec![7]), DefaultNla::new(3, vec![8])]);
        let outer = encode(&[DefaultNla::new(1, vec![9; 5]), DefaultNla::new(2 | NLA_F_NESTED, inner)]);
        let nested = find(&outer, 2).unwrap().unwrap();
        assert_eq!(find(nested, 3).unwrap(), Some([7].as_slice()));
        assert_eq!(find(&outer, 3).unwrap(), None);
        assert!(find(&outer[..outer.len() - 4], 2).is_err());
        assert_eq!(find(&outer[..9], 1).unwrap(), Some([9; 5].as_slice()));
    }

    proptest! {
        #[test]
        fn find_takes_any_bytes(bytes: Vec<u8>, kind in 0_u16..8) {
            let _ = find(&bytes, kind);
        }
    }
}
