//! The properties of the fuzz targets, on a bounded number of inputs: arbitrary bytes, and real ones
//! with some of them changed, moved, doubled or cut off.

// A test fails by panicking.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

// Models of clusters and followers, which the unit tests use for a few cases.
#[path = "../../src/replica/tests/clusters.rs"]
mod clusters;
#[path = "../../src/replica/tests/delivery.rs"]
mod delivery;
mod millions;
mod properties;
#[path = "../../src/replica/tests/random.rs"]
mod random;

use l4lbd::{cluster, replica};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// One change of some bytes.
#[derive(Clone, Debug)]
enum Damage {
    Replace(Index, u8),
    Swap(Index, Index),
    Repeat(Index, Index),
    Remove(Index, Index),
    Cut(Index),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            8 => any::<(Index, u8)>().prop_map(|(at, byte)| Self::Replace(at, byte)),
            // Bytes that mean something in most formats.
            8 => (any::<Index>(), select(&b"\0\x01\xff{}[]\":,0-.\n\\"[..]))
                .prop_map(|(at, byte)| Self::Replace(at, byte)),
            2 => any::<(Index, Index)>().prop_map(|(one, other)| Self::Swap(one, other)),
            2 => any::<(Index, Index)>().prop_map(|(from, to)| Self::Repeat(from, to)),
            2 => any::<(Index, Index)>().prop_map(|(from, to)| Self::Remove(from, to)),
            1 => any::<Index>().prop_map(Self::Cut),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        let range = |one: &Index, other: &Index| {
            let (one, other) = (one.index(length), other.index(length));
            one.min(other)..one.max(other).min(one.min(other) + 4096)
        };
        match self {
            Self::Replace(at, byte) => bytes[at.index(length)] = *byte,
            Self::Swap(one, other) => bytes.swap(one.index(length), other.index(length)),
            Self::Repeat(one, other) => {
                let part = bytes[range(one, other)].to_vec();
                let at = range(one, other).start;
                bytes.splice(at..at, part);
            }
            Self::Remove(one, other) => drop(bytes.drain(range(one, other))),
            Self::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
}

/// One of `seeds`, damaged or as it is, or any bytes at all.
fn bytes_like(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    assert!(!seeds.is_empty(), "there is nothing to damage");
    let damaged = (select(seeds), vec(Damage::any(), 0..6)).prop_map(|(mut bytes, damages)| {
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        bytes
    });
    prop_oneof![4 => damaged, 1 => vec(any::<u8>(), 0..200)]
}

fn check(cases: u32, seeds: Vec<Vec<u8>>, property: fn(&[u8])) {
    // What failed is shown; it belongs into a test of its own module.
    let config =
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 2000, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&bytes_like(seeds), |bytes| {
        property(&bytes);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn document() {
    let mut seeds = properties::seeds::documents();
    // Longer ones only take longer.
    seeds.retain(|document| document.len() < 20_000);
    check(600, seeds, properties::document);
}

#[test]
fn label() {
    check(8000, properties::seeds::labels(), properties::label);
}

#[test]
fn netlink() {
    check(8000, properties::seeds::netlink(), properties::netlink);
}

#[test]
fn question() {
    check(4000, properties::seeds::questions(), properties::question);
}

#[test]
fn events() {
    check(400, properties::seeds::events(), properties::events);
}

#[test]
fn state_file() {
    let mut seeds = properties::seeds::state_files();
    seeds.retain(|file| file.len() < 20_000);
    check(400, seeds, properties::state_file);
}

#[test]
fn stored_tables() {
    check(4000, properties::seeds::stored_tables(), properties::stored_table);
}

/// Whatever is lost, late, damaged, put back or published by another one: followers end with the publisher's
/// table, and never show one that it did not have.
#[test]
fn any_delivery_gives_the_publishers_table() {
    let shown: usize = (0..60).map(|seed| delivery::any_delivery_gives_the_publishers_table(seed, 150)).sum();
    assert!(shown > 400, "followers showed {shown} tables only");
}

#[test]
fn rows_tell_the_cluster() {
    (0..40).for_each(|seed| clusters::rows_and_back(seed, 40));
}
