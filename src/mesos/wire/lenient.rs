//! Values that may have an unexpected type.

use std::cell::Cell;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use serde_json::value::RawValue;

use crate::cluster::shortened;

/// Characters of an unreadable value that are kept for the report about it.
const MAX_EXCERPT: usize = 120;

/// A value, or the reason why it cannot be read.
#[derive(Clone, Debug)]
pub enum Lenient<T> {
    Read(T),
    Unreadable {
        error: String,
        /// Beginning of the value's JSON.
        json: String,
    },
}

/// A list that may also be missing or `null`.
pub type LenientList<T> = Option<Vec<Lenient<T>>>;

impl<T> Lenient<T> {
    /// Bounds both texts: the error may quote the value, and a tenant may have written it.
    pub fn unreadable(error: &serde_json::Error, json: &str) -> Self {
        let json = json.chars().take(MAX_EXCERPT).collect();
        Self::Unreadable { error: shortened(error.to_string()), json }
    }

    /// Returns the value if it was readable.
    pub fn as_read(&self) -> Option<&T> {
        match self {
            Self::Read(value) => Some(value),
            Self::Unreadable { .. } => None,
        }
    }
}

thread_local! {
    /// Set while values of other types than expected are errors. Derived implementations of [`Deserialize`]
    /// leave no other way to tell it to the values inside of values.
    static IS_STRICT: Cell<bool> = const { Cell::new(false) };
}

/// Reads with `read` as if every [`Lenient`] were the value itself: an unexpected type is then an error of
/// the whole. Costs half of the lenient way, which cuts each value out before it is read.
pub fn strictly<T>(read: impl FnOnce() -> T) -> T {
    /// Also after a panic, which ends the reading of one document and not the thread.
    struct Restored(bool);

    impl Drop for Restored {
        fn drop(&mut self) {
            IS_STRICT.set(self.0);
        }
    }

    let _restored = Restored(IS_STRICT.replace(true));
    read()
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if IS_STRICT.get() {
            return T::deserialize(deserializer).map(Self::Read);
        }
        // The raw text is cut out first: an error inside of it then costs this value only, and not the
        // position in the rest of the document.
        let raw = <&'de RawValue>::deserialize(deserializer)?;
        Ok(match serde_json::from_str(raw.get()) {
            Ok(value) => Self::Read(value),
            Err(error) => Self::unreadable(&error, raw.get()),
        })
    }
}

/// Iterates over the items of a list that could be read.
pub fn readable<T>(list: &LenientList<T>) -> impl Iterator<Item = &T> {
    list.iter().flatten().filter_map(Lenient::as_read)
}

/// Returns true for a member that is present and not `null`, with a value of any type.
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<IgnoredAny>::deserialize(deserializer)?.is_some())
}
