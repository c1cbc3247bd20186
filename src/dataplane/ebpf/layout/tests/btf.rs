//! Structures in BTF (`linux/btf.h`), as far as their layout goes.

use std::collections::BTreeMap;

/// Size of a structure and the offsets of its fields, in bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    pub size: usize,
    pub fields: BTreeMap<String, usize>,
}

/// Numbers of a section, in the machine's byte order, and the names that they point at.
struct Reader<'a> {
    words: &'a [[u8; 4]],
    names: &'a [u8],
}

impl Reader<'_> {
    fn word(&mut self) -> u32 {
        let (first, rest) = self.words.split_first().unwrap();
        self.words = rest;
        u32::from_ne_bytes(*first)
    }

    fn name(&mut self) -> String {
        let start = self.word() as usize;
        let text = self.names[start..].split(|byte| *byte == 0).next().unwrap();
        String::from_utf8(text.to_vec()).unwrap()
    }

    fn skip(&mut self, words: usize) {
        self.words = &self.words[words..];
    }
}

/// Lists the named structures of a `.BTF` section.
pub fn structs(section: &[u8]) -> BTreeMap<String, Layout> {
    // struct btf_header: magic, version and flags, header's length, then offset and length of both parts.
    let (header, _) = section.as_chunks::<4>();
    let header: Vec<usize> = header[..6].iter().map(|word| u32::from_ne_bytes(*word) as usize).collect();
    let [_, length, types, types_length, names, names_length] = header[..] else { unreachable!() };
    let (words, _) = section[length + types..][..types_length].as_chunks::<4>();
    let mut reader = Reader { words, names: &section[length + names..][..names_length] };
    let mut structs = BTreeMap::new();
    while !reader.words.is_empty() {
        // struct btf_type: name, info (kind and number of members), size or another type.
        let (name, info, size) = (reader.name(), reader.word(), reader.word() as usize);
        let (kind, members) = (info >> 24 & 0x1f, info as usize & 0xffff);
        match kind {
            // A structure or union; its offsets are in bits.
            4 | 5 => {
                let fields = (0..members).map(|_| {
                    let field = reader.name();
                    reader.skip(1);
                    (field, reader.word() as usize / 8)
                });
                let fields = fields.collect();
                if kind == 4 && !name.is_empty() {
                    structs.insert(name, Layout { size, fields });
                }
            }
            // Pointer, forward declaration, typedef, qualifiers, function, float, type tag.
            2 | 7..=12 | 16 | 18 => {}
            // Integer, variable, declaration tag.
            1 | 14 | 17 => reader.skip(1),
            // Enumeration and parameters of a function.
            6 | 13 => reader.skip(2 * members),
            // Array.
            3 => reader.skip(3),
            // Section of variables, and enumeration of 64-bit numbers.
            15 | 19 => reader.skip(3 * members),
            kind => panic!("kind {kind}"),
        }
    }
    structs
}
