//! Sorted maps and sets whose copies share what they have in common.
//!
//! A cluster has up to 100,000 tasks, of which an event changes one. [`SharedMap`] is a sorted list of
//! sorted chunks behind reference counts: a copy costs one counter, a change copies one chunk and the
//! list of chunks, and [`SharedMap::changes`] passes over the chunks that two maps share, so that it
//! takes as long as there are differences. The library for this (`imbl`) has a licence that asks for
//! more than a notice; two levels are enough here and need no unsafe code.
//!
//! For example, with chunks of 3, `b` after `b = a.clone(); b.remove(&5)`:
//!
//! ```text
//! a: [1 2 3] [4 5 6] [7 8]
//! b:    │    [4 6]      │     a.changes(&b): Removed(5), found by comparing the middle chunks only
//! ```

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// Entries of a chunk at most. A change copies up to so many of them.
const MAX_CHUNK: usize = 128;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// A sorted map; a copy shares its entries with the original until one of them changes.
pub struct SharedMap<K, V> {
    /// None of them is empty, and each has greater keys than the one before.
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

/// A difference between two maps.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<'a, K, V> {
    Added(&'a K, &'a V),
    /// Key, old value, new value.
    Changed(&'a K, &'a V, &'a V),
    Removed(&'a K, &'a V),
}

impl<'a, K, V> Change<'a, K, V> {
    /// Returns the key that differs.
    pub fn key(&self) -> &'a K {
        match self {
            Self::Added(key, _) | Self::Changed(key, ..) | Self::Removed(key, _) => key,
        }
    }
}

impl<K, V> SharedMap<K, V> {
    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true without any entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Iterates in the order of the keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(key, value)| (key, value)))
    }

    /// Iterates over the keys in their order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Iterates over the values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives back the room that chunks have for more entries, as far as no copy has them as well.
    pub fn shrink(&mut self) {
        let Some(chunks) = Arc::get_mut(&mut self.chunks) else { return };
        chunks.iter_mut().filter_map(Arc::get_mut).for_each(Vec::shrink_to_fit);
        chunks.shrink_to_fit();
    }

    /// Returns true if both are copies of one map that has not changed since.
    pub fn is_copy(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// Returns the places of the chunk that has `key` or should have it, and of the entry in it.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> (usize, Result<usize, usize>)
    where
        K: Borrow<Q>,
    {
        let is_before =
            |chunk: &Chunk<K, V>| chunk.last().is_some_and(|(last, _)| last.borrow().cmp(key).is_lt());
        let place = self.chunks.partition_point(is_before);
        let within = self
            .chunks
            .get(place)
            .map_or(Err(0), |chunk| chunk.binary_search_by(|(known, _)| known.borrow().cmp(key)));
        (place, within)
    }

    /// Returns the value of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (chunk, Ok(place)) = self.find(key) else { return None };
        self.chunks.get(chunk)?.get(place).map(|(_, value)| value)
    }

    /// Returns the entry of `key`.
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let (chunk, Ok(place)) = self.find(key) else { return None };
        self.chunks.get(chunk)?.get(place).map(|(key, value)| (key, value))
    }

    /// Returns the first entry whose key is `key` or greater.
    pub fn first_from(&self, key: &K) -> Option<(&K, &V)> {
        self.iter_from(key).next()
    }

    /// Iterates over the entries whose keys are `key` or greater, in their order.
    pub fn iter_from<'m>(&'m self, key: &K) -> impl Iterator<Item = (&'m K, &'m V)> + use<'m, K, V> {
        let (chunk, within) = self.find(key);
        let within = within.unwrap_or_else(|place| place);
        let chunks = self.chunks.get(chunk..).unwrap_or_default();
        chunks.iter().flat_map(|chunk| chunk.iter()).skip(within).map(|(key, value)| (key, value))
    }

    /// Returns true if there is an entry for `key`.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).1.is_ok()
    }
}

impl<K: Clone, V: Clone> SharedMap<K, V> {
    /// Fills all chunks but the last. Nothing is shared with copies of the map afterwards.
    pub fn pack(&mut self) {
        let mut entries = self.iter().map(|(key, value)| (key.clone(), value.clone()));
        let mut chunks = Vec::with_capacity(self.len.div_ceil(MAX_CHUNK));
        loop {
            let mut chunk =
                Vec::with_capacity(MAX_CHUNK.min(self.len.saturating_sub(chunks.len() * MAX_CHUNK)));
            chunk.extend(entries.by_ref().take(MAX_CHUNK));
            if chunk.is_empty() {
                break;
            }
            chunks.push(Arc::new(chunk));
        }
        drop(entries);
        self.chunks = Arc::new(chunks);
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> SharedMap<K, V> {
    /// Returns the same entries, shared with `older` where it has them too.
    #[must_use]
    pub fn sharing(self, older: &Self) -> Self {
        let mut shared = older.clone();
        for change in older.changes(&self) {
            match change {
                Change::Added(key, value) | Change::Changed(key, _, value) => {
                    shared.insert(key.clone(), value.clone());
                }
                Change::Removed(key, _) => {
                    shared.remove(key);
                }
            }
        }
        shared
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Adds an entry or replaces its value. Returns the value that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (place, within) = self.find(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        // The greatest key goes to the end of the last chunk.
        let is_last = place == chunks.len();
        let chunk = match is_last {
            true => chunks.last_mut(),
            false => chunks.get_mut(place),
        };
        match (chunk, within) {
            (Some(chunk), Ok(within)) => {
                return Arc::make_mut(chunk)
                    .get_mut(within)
                    .map(|(_, known)| std::mem::replace(known, value));
            }
            (Some(chunk), Err(_)) if is_last && chunk.len() < MAX_CHUNK => {
                Arc::make_mut(chunk).push((key, value));
            }
            // Sorted input fills one chunk after the other.
            (None, _) | (Some(_), Err(_)) if is_last => chunks.push(Arc::new(vec![(key, value)])),
            (Some(chunk), Err(within)) => {
                let chunk = Arc::make_mut(chunk);
                chunk.insert(within, (key, value));
                if chunk.len() > MAX_CHUNK {
                    let upper = chunk.split_off(chunk.len() / 2);
                    chunk.shrink_to_fit();
                    chunks.insert(place + 1, Arc::new(upper));
                }
            }
            (None, _) => {}
        }
        self.len += 1;
        None
    }

    /// Removes an entry and returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (place, Ok(within)) = self.find(key) else { return None };
        let chunks = Arc::make_mut(&mut self.chunks);
        let (_, value) = Arc::make_mut(chunks.get_mut(place)?).remove(within);
        self.len -= 1;
        Self::tidy(chunks, place);
        Some(value)
    }

    /// Joins a chunk that has become small with the one before it.
    fn tidy(chunks: &mut Vec<Chunk<K, V>>, place: usize) {
        let length = |chunks: &Vec<Chunk<K, V>>, place: usize| chunks.get(place).map(|chunk| chunk.len());
        if length(chunks, place) == Some(0) {
            chunks.remove(place);
        } else if let Some(before) = place.checked_sub(1)
            && let (Some(left), Some(right)) = (length(chunks, before), length(chunks, place))
            && left + right <= MAX_CHUNK / 2
        {
            let right = chunks.remove(place);
            if let Some(left) = chunks.get_mut(before) {
                Arc::make_mut(left).extend(right.iter().cloned());
            }
        }
    }

    /// Returns the value of `key`, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (chunk, Ok(place)) = self.find(key) else { return None };
        let chunk = Arc::make_mut(&mut self.chunks).get_mut(chunk)?;
        Arc::make_mut(chunk).get_mut(place).map(|(_, value)| value)
    }

    /// Iterates over the values in the order of their keys, to be changed. Copies all of them that
    /// another map has as well.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let chunks = Arc::make_mut(&mut self.chunks).iter_mut();
        chunks.flat_map(|chunk| Arc::make_mut(chunk).iter_mut().map(|(_, value)| value))
    }

    /// Iterates over the entries in the order of their keys, with values to be changed. Copies all of them that
    /// another map has as well.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let chunks = Arc::make_mut(&mut self.chunks).iter_mut();
        chunks.flat_map(|chunk| Arc::make_mut(chunk).iter_mut().map(|(key, value)| (&*key, value)))
    }

    /// Removes the entries for which `is_kept` does not hold. Chunks of which all entries stay remain shared.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&K, &V) -> bool) {
        let leaving: Vec<K> =
            self.iter().filter(|(key, value)| !is_kept(key, value)).map(|(key, _)| key.clone()).collect();
        for key in leaving {
            self.remove(&key);
        }
    }
}

impl<K: Ord, V: PartialEq> SharedMap<K, V> {
    /// Iterates over the differences from this map to `newer`, in the order of the keys.
    ///
    /// Takes as long as there are differences, and a little for each chunk, where one map came from the
    /// other by changes.
    pub fn changes<'a>(&'a self, newer: &'a Self) -> Changes<'a, K, V> {
        let chunks =
            if self.is_copy(newer) { (&[][..], &[][..]) } else { (&self.chunks[..], &newer.chunks[..]) };
        Changes { old: Place { chunks: chunks.0, within: 0 }, new: Place { chunks: chunks.1, within: 0 } }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> SharedMap<K, V> {
    /// Returns the entries that `before` has not, or not with this value.
    pub fn news(&self, before: &Self) -> Self {
        let news = before.changes(self).filter_map(|change| match change {
            Change::Added(key, value) | Change::Changed(key, _, value) => Some((key.clone(), value.clone())),
            Change::Removed(..) => None,
        });
        news.collect()
    }
}

/// A place in a map.
struct Place<'a, K, V> {
    /// The chunk of this place and those after it.
    chunks: &'a [Chunk<K, V>],
    within: usize,
}

impl<'a, K, V> Place<'a, K, V> {
    fn entry(&self) -> Option<(&'a K, &'a V)> {
        let (key, value) = self.chunks.first()?.get(self.within)?;
        Some((key, value))
    }

    fn advance(&mut self) {
        self.within += 1;
        if self.chunks.first().is_some_and(|chunk| self.within >= chunk.len()) {
            self.skip_chunk();
        }
    }

    fn skip_chunk(&mut self) {
        self.within = 0;
        self.chunks = self.chunks.get(1..).unwrap_or_default();
    }
}

/// Iterator over the differences between two maps.
pub struct Changes<'a, K, V> {
    old: Place<'a, K, V>,
    new: Place<'a, K, V>,
}

impl<'a, K: Ord, V: PartialEq> Iterator for Changes<'a, K, V> {
    type Item = Change<'a, K, V>;

    fn next(&mut self) -> Option<Change<'a, K, V>> {
        loop {
            let (old, new) = (&mut self.old, &mut self.new);
            // Both maps have the same chunk: nothing in it differs.
            if old.within == 0
                && new.within == 0
                && let (Some(ours), Some(theirs)) = (old.chunks.first(), new.chunks.first())
                && Arc::ptr_eq(ours, theirs)
            {
                old.skip_chunk();
                new.skip_chunk();
                continue;
            }
            let (known, found) = match (old.entry(), new.entry()) {
                (None, None) => return None,
                (known, found) => (known, found),
            };
            let order = match (known, found) {
                (Some((known, _)), Some((found, _))) => known.cmp(found),
                (Some(_), None) => Ordering::Less,
                _ => Ordering::Greater,
            };
            if order.is_le() {
                old.advance();
            }
            if order.is_ge() {
                new.advance();
            }
            match (known, found) {
                (Some((key, value)), _) if order.is_lt() => return Some(Change::Removed(key, value)),
                (_, Some((key, value))) if order.is_gt() => return Some(Change::Added(key, value)),
                (Some((key, before)), Some((_, after))) if before != after => {
                    return Some(Change::Changed(key, before, after));
                }
                _ => {}
            }
        }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

/// Copies no entry, so that neither type need be `Clone`.
impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: Arc::clone(&self.chunks), len: self.len }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.changes(other).next().is_none()
    }
}

impl<K: Ord, V: Eq> Eq for SharedMap<K, V> {}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

/// Keeps the last one of equal keys.
impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        // Stable, so that equal keys keep their order; the one that stays is the last.
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        entries.reverse();
        entries.dedup_by(|(a, _), (b, _)| a == b);
        entries.reverse();
        let len = entries.len();
        let mut chunks = Vec::with_capacity(len.div_ceil(MAX_CHUNK));
        let mut entries = entries.into_iter();
        loop {
            let chunk: Vec<(K, V)> = entries.by_ref().take(MAX_CHUNK).collect();
            if chunk.is_empty() {
                return Self { chunks: Arc::new(chunks), len };
            }
            chunks.push(Arc::new(chunk));
        }
    }
}

/// Keeps the last one of equal keys.
impl<K: Ord + Clone, V: Clone, const N: usize> From<[(K, V); N]> for SharedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Box<dyn Iterator<Item = (&'a K, &'a V)> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

/// Tests look for what they know is there.
#[cfg(test)]
impl<K: Ord, V> std::ops::Index<&K> for SharedMap<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).unwrap()
    }
}

/// Writes an object.
impl<K: Serialize, V: Serialize> Serialize for SharedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, K, V> Deserialize<'de> for SharedMap<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);

        impl<'de, K, V> Visitor<'de> for Entries<K, V>
        where
            K: Deserialize<'de> + Ord + Clone,
            V: Deserialize<'de> + Clone,
        {
            type Value = SharedMap<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = SharedMap::default();
                while let Some((key, value)) = map.next_entry()? {
                    entries.insert(key, value);
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// A sorted set; a copy shares its members with the original until one of them changes.
pub struct SharedSet<K>(SharedMap<K, ()>);

impl<K> SharedSet<K> {
    /// Removes all members.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the number of members.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true without any member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if both are copies of one set that has not changed since.
    pub fn is_copy(&self, other: &Self) -> bool {
        self.0.is_copy(&other.0)
    }

    /// Iterates in the order of the members.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.0.keys()
    }
}

impl<K: Ord> SharedSet<K> {
    /// Iterates over the members that are `first` or greater, in their order.
    pub fn iter_from<'m>(&'m self, first: &K) -> impl Iterator<Item = &'m K> + use<'m, K> {
        self.0.iter_from(first).map(|(member, ())| member)
    }

    /// Returns true for a member.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }
}

impl<K: Ord> SharedSet<K> {
    /// Iterates over the differences from this set to `newer`, see [`SharedMap::changes`].
    pub fn changes<'a>(&'a self, newer: &'a Self) -> Changes<'a, K, ()> {
        self.0.changes(&newer.0)
    }
}

impl<K: Ord + Clone> SharedSet<K> {
    /// Adds a member. Returns true if it was none before.
    pub fn insert(&mut self, key: K) -> bool {
        // Looked up first: a chunk is not copied for a member that is there.
        !self.0.contains_key(&key) && self.0.insert(key, ()).is_none()
    }

    /// Removes a member. Returns true if it was one.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.remove(key).is_some()
    }

    /// Fills all chunks but the last. Nothing is shared with copies of the set afterwards.
    pub fn pack(&mut self) {
        self.0.pack();
    }

    /// Returns the same members, shared with `older` where it has them too.
    #[must_use]
    pub fn sharing(self, older: &Self) -> Self {
        Self(self.0.sharing(&older.0))
    }

    /// Removes the members for which `is_kept` does not hold.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&K) -> bool) {
        self.0.retain(|key, ()| is_kept(key));
    }
}

impl<K> Default for SharedSet<K> {
    fn default() -> Self {
        Self(SharedMap::default())
    }
}

/// Copies no member, so that the type need not be `Clone`.
impl<K> Clone for SharedSet<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: fmt::Debug> fmt::Debug for SharedSet<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<K: Ord> PartialEq for SharedSet<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K: Ord> Eq for SharedSet<K> {}

impl<K: Ord + Clone> Extend<K> for SharedSet<K> {
    fn extend<I: IntoIterator<Item = K>>(&mut self, members: I) {
        for member in members {
            self.insert(member);
        }
    }
}

impl<K: Ord + Clone> FromIterator<K> for SharedSet<K> {
    fn from_iter<I: IntoIterator<Item = K>>(members: I) -> Self {
        Self(members.into_iter().map(|member| (member, ())).collect())
    }
}

impl<'a, K> IntoIterator for &'a SharedSet<K> {
    type Item = &'a K;
    type IntoIter = Box<dyn Iterator<Item = &'a K> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

/// Writes a list.
impl<K: Serialize> Serialize for SharedSet<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de, K: Deserialize<'de> + Ord + Clone> Deserialize<'de> for SharedSet<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<K>(PhantomData<K>);

        impl<'de, K: Deserialize<'de> + Ord + Clone> Visitor<'de> for Members<K> {
            type Value = SharedSet<K>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut members = SharedSet::default();
                while let Some(member) = seq.next_element()? {
                    members.insert(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_seq(Members(PhantomData))
    }
}

#[cfg(test)]
mod tests;
