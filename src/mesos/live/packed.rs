//! Texts that are alike, each in little room.
//!
//! Tasks of a cluster have the same members, and differ in ids, names and numbers. So the first one is the
//! sample of all: LZ4 writes what a text has in common with it as references. Of a task with 1 kB some 140 octets are
//! left. A text that has nothing in common with the sample takes a little more than unpacked.

use std::sync::Arc;

use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};

/// Octets of a sample. All of it is looked through for each text.
const MAX_SAMPLE: usize = 4 << 10;

/// Packer of the texts of one list.
#[derive(Clone, Debug, Default)]
pub struct Packer {
    /// `None` before the first text.
    sample: Option<Arc<[u8]>>,
}

/// A text that its packer can read.
#[derive(Clone, Debug)]
pub struct PackedText(Box<[u8]>);

impl Packer {
    /// Packs a text; the first one becomes the sample.
    pub fn pack(&mut self, text: &str) -> PackedText {
        let octets = text.as_bytes();
        let sample = self.sample.get_or_insert_with(|| octets.iter().copied().take(MAX_SAMPLE).collect());
        PackedText(compress_prepend_size_with_dict(octets, sample).into())
    }

    /// Returns a text that this packer has packed.
    pub fn unpack(&self, packed: &PackedText) -> String {
        let sample = self.sample.as_deref().unwrap_or_default();
        // Neither fails: all octets come from `pack`.
        let octets = decompress_size_prepended_with_dict(&packed.0, sample).unwrap_or_default();
        String::from_utf8(octets).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_that_is_like_the_first_one_takes_little_room() {
        let text = |n: usize| {
            format!(
                r#"{{"task_id":{{"value":"web.instance-{n:08x}-1efb-42d9-a839-{n:012x}._app.1"}},"state":"TASK_RUNNING",
                "statuses":[{{"state":"TASK_RUNNING","timestamp":1795232398.{n},"container_status":{{"network_infos":
                [{{"ip_addresses":[{{"protocol":"IPv4","ip_address":"10.0.0.{n}"}}]}}]}}}}]}}"#
            )
        };
        let mut packer = Packer::default();
        let packed: Vec<PackedText> = (0..100).map(|n| packer.pack(&text(n))).collect();
        for (n, packed) in packed.iter().enumerate() {
            assert_eq!(packer.unpack(packed), text(n));
            assert!(packed.0.len() < text(n).len() / 3, "{} octets", packed.0.len());
        }
    }

    proptest! {
        #![proptest_config(crate::units::cases(256))]
        #[test]
        fn a_packed_text_is_read_as_it_was(texts in prop::collection::vec("(?s).{0,3000}", 1..5)) {
            let mut packer = Packer::default();
            let packed: Vec<PackedText> = texts.iter().map(|text| packer.pack(text)).collect();
            for (text, packed) in texts.iter().zip(&packed) {
                prop_assert_eq!(&packer.unpack(packed), text);
            }
        }
    }
}
