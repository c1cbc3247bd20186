//! Reading JSON objects and arrays piece by piece, without building them.
//!
//! serde offers this through seeds and visitors; the two traits here reduce it to one method each.
//! A value of another type than expected is passed over and reported through `mismatch`, never an
//! error: a document with one odd member stays readable.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Tasks of one document, those that have ended included; clusters have up to 100,000.
pub const MAX_TASKS: usize = 1_000_000;

/// Agents, frameworks and executors of one document together.
const MAX_ITEMS: usize = 1_000_000;

/// Items of a document that were read so far, in all of its lists together.
///
/// Counted while they are read: each item costs memory, and a few kilobytes of gzip hold millions.
#[derive(Debug, Default)]
pub struct ItemCount {
    tasks: Cell<usize>,
    rest: Cell<usize>,
}

impl ItemCount {
    fn add<E: Error>(&self, is_task: bool) -> Result<(), E> {
        let (count, most, what) = match is_task {
            true => (&self.tasks, MAX_TASKS, "tasks"),
            false => (&self.rest, MAX_ITEMS, "agents, frameworks and executors"),
        };
        count.set(count.get() + 1);
        match count.get() > most {
            true => Err(E::custom(format_args!("the document has more than {most} {what}"))),
            false => Ok(()),
        }
    }
}

/// Takes the members of a JSON object one at a time.
pub trait ObjectFold<'de> {
    /// Reads the value of `key` from `map`, exactly once.
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;

    /// Called for a value that is not an object.
    fn mismatch(&mut self) {}
}

/// Takes the items of a JSON array one at a time.
pub trait ArrayFold<'de> {
    /// True for a list of tasks.
    const HOLDS_TASKS: bool = false;

    /// Reads the next item from `seq`; `None` at the end.
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<Option<()>, A::Error>;

    /// Called for a value that is neither an array nor `null`.
    fn mismatch(&mut self) {}
}

/// A seed that hands an object to an [`ObjectFold`].
pub struct ObjectSeed<'a, F>(pub &'a mut F);

/// A seed that hands an array to an [`ArrayFold`], and counts its items.
pub struct ArraySeed<'a, F>(pub &'a mut F, pub &'a ItemCount);

impl<'de, F: ObjectFold<'de>> DeserializeSeed<'de> for ObjectSeed<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: ArrayFold<'de>> DeserializeSeed<'de> for ArraySeed<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Visits of every JSON type that is not the expected one. A macro, because the two visitors share no
/// type.
macro_rules! mismatches {
    () => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any JSON value")
        }

        fn visit_bool<E>(self, _: bool) -> Result<(), E> {
            self.0.mismatch();
            Ok(())
        }

        fn visit_i64<E>(self, _: i64) -> Result<(), E> {
            self.0.mismatch();
            Ok(())
        }

        fn visit_u64<E>(self, _: u64) -> Result<(), E> {
            self.0.mismatch();
            Ok(())
        }

        fn visit_f64<E>(self, _: f64) -> Result<(), E> {
            self.0.mismatch();
            Ok(())
        }

        fn visit_str<E>(self, _: &str) -> Result<(), E> {
            self.0.mismatch();
            Ok(())
        }
    };
}

impl<'de, F: ObjectFold<'de>> Visitor<'de> for ObjectSeed<'_, F> {
    type Value = ();

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // Keys are borrowed from the document unless they have escapes.
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            self.0.member(&key, &mut map)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.mismatch();
        // The parser stays in the middle of the document until all of the value is read.
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.mismatch();
        Ok(())
    }

    mismatches!();
}

impl<'de, F: ArrayFold<'de>> Visitor<'de> for ArraySeed<'_, F> {
    type Value = ();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while self.0.item(&mut seq)?.is_some() {
            self.1.add(F::HOLDS_TASKS)?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.mismatch();
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    mismatches!();
}
