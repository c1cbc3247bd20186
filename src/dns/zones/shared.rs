//! Maps whose copies share what has not changed, so that a zone with one other name costs what it changes.
//!
//! Each map is cut into parts. A copy has the same parts; a change copies the parts that it concerns, if
//! another copy has them as well.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

/// Number of parts of a [`SharedMap`].
const PARTS: usize = 256;

/// Largest number of entries in a part of a [`SharedIndex`].
const LONGEST: usize = 256;

/// A map of names on the wire. Its hashes have random keys (SipHash): tenants choose the names.
#[derive(Clone, Debug)]
pub struct SharedMap<V> {
    hasher: RandomState,
    parts: Vec<Arc<MapPart<V>>>,
}

type MapPart<V> = HashMap<Arc<[u8]>, Arc<V>>;

impl<V> Default for SharedMap<V> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), parts: vec![Arc::default(); PARTS] }
    }
}

impl<V: Clone + Default> SharedMap<V> {
    fn place(&self, name: &[u8]) -> usize {
        // A remainder of 256 parts.
        usize::from(self.hasher.hash_one(name).to_le_bytes()[0])
    }

    /// Returns the value of a name.
    pub fn get(&self, name: &[u8]) -> Option<&V> {
        self.parts.get(self.place(name))?.get(name).map(Arc::as_ref)
    }

    /// Changes the value of a name, which is a new one if it has none. It is removed if `change` returns false.
    pub fn update(&mut self, name: &[u8], change: impl FnOnce(&mut V) -> bool) {
        let place = self.place(name);
        let Some(part) = self.parts.get_mut(place).map(Arc::make_mut) else { return };
        let is_kept = match part.get_mut(name) {
            Some(value) => change(Arc::make_mut(value)),
            None => {
                let mut value = V::default();
                let is_kept = change(&mut value);
                part.insert(name.into(), Arc::new(value));
                is_kept
            }
        };
        if !is_kept {
            part.remove(name);
        }
    }

    /// All names with their values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        self.parts.iter().flat_map(|part| part.iter()).map(|(name, value)| (&**name, &**value))
    }
}

/// A map of addresses that knows their order.
#[derive(Clone, Debug)]
pub struct SharedIndex<V> {
    /// Entries in their order, none of the parts empty.
    parts: Vec<Arc<IndexPart<V>>>,
}

type IndexPart<V> = Vec<(IpAddr, Arc<V>)>;

impl<V> Default for SharedIndex<V> {
    fn default() -> Self {
        Self { parts: Vec::new() }
    }
}

impl<V: Clone + Default> SharedIndex<V> {
    /// The part in which an address is, or would be.
    fn part(&self, address: IpAddr) -> usize {
        let is_before = |part: &Arc<IndexPart<V>>| part.first().is_some_and(|(a, _)| *a <= address);
        self.parts.partition_point(is_before).saturating_sub(1)
    }

    /// Returns the value of an address.
    pub fn get(&self, address: IpAddr) -> Option<&V> {
        let part = self.parts.get(self.part(address))?;
        let place = part.binary_search_by_key(&address, |(own, _)| *own).ok()?;
        part.get(place).map(|(_, value)| &**value)
    }

    /// True if any address from `first` to `last` has a value.
    pub fn has_any(&self, first: IpAddr, last: IpAddr) -> bool {
        let number = self.part(first);
        let next = |part: &Arc<IndexPart<V>>| {
            part.get(part.partition_point(|(own, _)| *own < first)).map(|(own, _)| *own)
        };
        // If all of the part are before it, the next part begins behind it.
        let found =
            [number, number + 1].into_iter().filter_map(|number| self.parts.get(number)).find_map(next);
        found.is_some_and(|found| found <= last)
    }

    /// Changes the value of an address, which is a new one if it has none. It is removed if `change` returns
    /// false.
    pub fn update(&mut self, address: IpAddr, change: impl FnOnce(&mut V) -> bool) {
        let number = self.part(address);
        if self.parts.is_empty() {
            self.parts.push(Arc::default());
        }
        let Some(part) = self.parts.get_mut(number).map(Arc::make_mut) else { return };
        let place = match part.binary_search_by_key(&address, |(own, _)| *own) {
            Ok(place) => place,
            Err(place) => {
                part.insert(place, (address, Arc::default()));
                place
            }
        };
        if !part.get_mut(place).is_some_and(|(_, value)| change(Arc::make_mut(value))) {
            part.remove(place);
        }
        if part.is_empty() {
            self.parts.remove(number);
        } else if part.len() > LONGEST {
            let second = part.split_off(LONGEST / 2);
            self.parts.insert(number + 1, Arc::new(second));
        }
    }

    /// All addresses with their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &V)> {
        self.parts.iter().flat_map(|part| part.iter()).map(|(address, value)| (*address, &**value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    proptest! {
        /// Against an ordinary map, with a copy that must not change.
        #[test]
        fn maps_are_as_ordinary_ones_and_copies_stay(
            changes in proptest::collection::vec((0u32..600, any::<bool>()), 1..900),
        ) {
            let (mut map, mut index) = (SharedMap::<u32>::default(), SharedIndex::<u32>::default());
            let mut plain = BTreeMap::new();
            let mut copy = None;
            for (step, (key, is_kept)) in changes.iter().enumerate() {
                if step == changes.len() / 2 {
                    copy = Some((map.clone(), index.clone(), plain.clone()));
                }
                let change = |value: &mut u32| { *value += 1; *is_kept };
                map.update(&key.to_be_bytes(), change);
                index.update(address(*key), change);
                *plain.entry(*key).or_insert(0u32) += 1;
                if !is_kept {
                    plain.remove(key);
                }
            }
            for (map, index, plain) in copy.into_iter().chain([(map, index, plain)]) {
                for key in 0..600u32 {
                    prop_assert_eq!(map.get(&key.to_be_bytes()), plain.get(&key));
                    prop_assert_eq!(index.get(address(key)), plain.get(&key));
                    let has_any = plain.range(key..=key + 9).next().is_some();
                    prop_assert_eq!(index.has_any(address(key), address(key + 9)), has_any);
                }
                prop_assert_eq!(map.iter().count(), plain.len());
                prop_assert!(index.iter().map(|(own, _)| own).eq(plain.keys().map(|key| address(*key))));
            }
        }
    }

    /// Counts parts rather than time: those that a change of one name copies.
    #[test]
    fn a_change_copies_the_parts_that_it_concerns() {
        let (mut map, mut index) = (SharedMap::<u32>::default(), SharedIndex::<u32>::default());
        let set = |value: &mut u32| {
            *value = 1;
            true
        };
        for number in 0..10_000u32 {
            map.update(&number.to_be_bytes(), set);
            index.update(address(number), set);
        }
        let (old_map, old_index) = (map.clone(), index.clone());
        map.update(&7u32.to_be_bytes(), |_| false);
        index.update(address(7), |_| false);
        let copied = |old: usize, same: usize| old - same;
        let same = map.parts.iter().zip(&old_map.parts).filter(|(new, old)| Arc::ptr_eq(new, old)).count();
        assert_eq!(copied(old_map.parts.len(), same), 1);
        let same =
            index.parts.iter().zip(&old_index.parts).filter(|(new, old)| Arc::ptr_eq(new, old)).count();
        assert_eq!(copied(old_index.parts.len(), same), 1);
    }
}
