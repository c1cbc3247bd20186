//! Erlang's `phash2` of a binary with a range of 2^32: Bob Jenkins' lookup2 hash.
//!
//! Algorithm as published by Bob Jenkins in Dr. Dobb's Journal (1997), placed in the public domain.

const GOLDEN: u32 = 0x9e37_79b9;

/// Start value that Erlang gives to binaries: 13 times the golden ratio.
const BINARY: u32 = 0x08d1_2e65;

/// Hash of `bytes`.
pub fn phash2(bytes: &[u8]) -> u32 {
    // Erlang gives an empty binary its start value, without mixing.
    if bytes.is_empty() {
        return BINARY;
    }
    let mut state = [GOLDEN, GOLDEN, BINARY];
    let mut chunks = bytes.chunks_exact(12);
    for chunk in chunks.by_ref() {
        add(&mut state, chunk, 0);
        mix(&mut state);
    }
    // The low byte of the last word holds the length, so that the tail's bytes move up there.
    let tail = chunks.remainder();
    let (head, last) = tail.split_at(tail.len().min(8));
    add(&mut state, head, 0);
    add(&mut state, last, 9);
    state[2] = state[2].wrapping_add(bytes.len() as u32);
    mix(&mut state);
    state[2]
}

/// Adds `bytes` as little-endian words, the first one at byte `offset` of the state.
fn add(state: &mut [u32; 3], bytes: &[u8], offset: usize) {
    for (index, &byte) in bytes.iter().enumerate() {
        let position = offset + index;
        if let Some(word) = state.get_mut(position / 4) {
            *word = word.wrapping_add(u32::from(byte) << (position % 4 * 8));
        }
    }
}

fn mix([a, b, c]: &mut [u32; 3]) {
    let step = |x: &mut u32, y: u32, z: u32, shifted: fn(u32) -> u32| {
        *x = x.wrapping_sub(y).wrapping_sub(z) ^ shifted(z);
    };
    step(a, *b, *c, |z| z >> 13);
    step(b, *c, *a, |z| z << 8);
    step(c, *a, *b, |z| z >> 13);
    step(a, *b, *c, |z| z >> 12);
    step(b, *c, *a, |z| z << 16);
    step(c, *a, *b, |z| z >> 5);
    step(a, *b, *c, |z| z >> 3);
    step(b, *c, *a, |z| z << 10);
    step(c, *a, *b, |z| z >> 15);
}
