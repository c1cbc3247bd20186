//! Rows, and the digest by which two tables are known to be the same.

use std::fmt;
use std::sync::Arc;

use ring::digest::{Context, SHA256};

use super::messages::{FrameMessage, PutMessage};
use crate::cluster::SharedMap;

/// Octets that a row's key may have.
pub const MAX_KEY: usize = 1024;

/// Octets that a row's value may have.
pub const MAX_VALUE_SIZE: usize = 64 << 10;

/// Key or value.
pub type Octets = Arc<[u8]>;

/// Life of one table, by a random number, which is the key of its digests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub [u8; 16]);

impl Generation {
    /// Reads the octets of a message.
    pub fn read(octets: &[u8]) -> Option<Self> {
        // Zeros stand for a field that is missing.
        Some(Self(octets.try_into().ok()?)).filter(|generation| generation.0 != [0; 16])
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell two apart.
        self.0.iter().take(8).try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Sum of the keyed hashes of all rows, modulo 2^128.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u128);

impl Digest {
    /// Returns the digest as messages have it.
    pub fn octets(self) -> Vec<u8> {
        self.0.to_be_bytes().into()
    }

    /// Reads the octets of a message.
    pub fn read(octets: &[u8]) -> Option<Self> {
        Some(Self(u128::from_be_bytes(octets.try_into().ok()?)))
    }

    /// Returns the digest of one row.
    fn of_row(generation: Generation, key: &[u8], value: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&generation.0);
        // Without the length, octets could move from the key to the value under the same digest.
        context.update(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
        context.update(key);
        context.update(value);
        let digest = context.finish();
        let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
        Self(u128::from_be_bytes(first))
    }
}

/// Rows that are put, or dropped where there is no value, in the order in which it is done.
pub type RowChanges = Vec<(Octets, Option<Octets>)>;

/// Returns true if a row may have this key and value.
pub fn fits(key: &[u8], value: &[u8]) -> bool {
    (1..=MAX_KEY).contains(&key.len()) && value.len() <= MAX_VALUE_SIZE
}

/// All rows of one generation.
#[derive(Clone, Debug, PartialEq)]
pub struct RowTable {
    generation: Generation,
    rows: SharedMap<Octets, Octets>,
    digest: Digest,
}

impl RowTable {
    /// Returns the table without rows.
    pub fn new(generation: Generation) -> Self {
        Self { generation, rows: SharedMap::default(), digest: Digest::default() }
    }

    /// Returns the same rows as another generation.
    #[must_use]
    pub fn renewed(&self, generation: Generation) -> Self {
        Self::of(generation, self.rows.clone())
    }

    /// Returns the table of these rows.
    pub fn of(generation: Generation, rows: SharedMap<Octets, Octets>) -> Self {
        let of_row = |(key, value): (&Octets, &Octets)| Digest::of_row(generation, key, value).0;
        let digest = Digest(rows.iter().map(of_row).fold(0, u128::wrapping_add));
        Self { generation, rows, digest }
    }

    /// Returns the generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns the digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the rows.
    pub fn rows(&self) -> &SharedMap<Octets, Octets> {
        &self.rows
    }

    /// Puts or drops a row.
    pub fn apply(&mut self, key: &Octets, value: Option<&Octets>) {
        let old = match value {
            Some(value) => self.rows.insert(Arc::clone(key), Arc::clone(value)),
            None => self.rows.remove(key),
        };
        let of_row = |value: &Octets| Digest::of_row(self.generation, key, value).0;
        let (old, new) = (old.as_ref().map_or(0, of_row), value.map_or(0, of_row));
        self.digest = Digest(self.digest.0.wrapping_sub(old).wrapping_add(new));
    }

    /// Puts and drops rows in their order.
    pub fn apply_all(&mut self, changes: &RowChanges) {
        changes.iter().for_each(|(key, value)| self.apply(key, value.as_ref()));
    }
}

/// Returns a row as messages have it.
pub fn put(key: &Octets, value: &Octets) -> PutMessage {
    PutMessage { key: key.to_vec(), value: value.to_vec() }
}

/// Returns what a frame changes; `None` if a row of it has no size that a row may have.
pub fn changes_of(frame: FrameMessage) -> Option<RowChanges> {
    let puts = frame.put.into_iter().map(|row| {
        fits(&row.key, &row.value).then(|| (Octets::from(row.key), Some(Octets::from(row.value))))
    });
    let drops = frame.drop.into_iter().map(|key| fits(&key, &[]).then(|| (Octets::from(key), None)));
    puts.chain(drops).collect()
}
