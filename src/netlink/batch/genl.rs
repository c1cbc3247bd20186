//! Messages of generic netlink families (`linux/genetlink.h`).

use netlink_packet_core::Emitable;
use netlink_packet_generic::constants::GENL_HDRLEN;
use netlink_packet_generic::{GenlFamily, GenlHeader};

/// A message behind the header of its generic netlink family.
pub(super) struct Genl<'a, F>(pub &'a F);

impl<F: GenlFamily + Emitable> Emitable for Genl<'_, F> {
    fn buffer_len(&self) -> usize {
        GENL_HDRLEN + self.0.buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        if let Some((head, rest)) = buffer.split_at_mut_checked(GENL_HDRLEN) {
            GenlHeader { cmd: self.0.command(), version: self.0.version() }.emit(head);
            self.0.emit(rest);
        }
    }
}
