//! A map of names whose copies share what has not changed, so that a zone with one other name costs what it
//! changes.
//!
//! It is cut into parts. A copy has the same parts; a change copies the part that it concerns, if another copy
//! has it as well. Names are found by a hash, in the time that a question takes; where the order counts,
//! [`crate::cluster::SharedMap`] is the map to take.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Number of parts of a map.
const PARTS: usize = 256;

/// A map of names on the wire. Its hashes have random keys (SipHash): tenants choose the names.
#[derive(Clone, Debug)]
pub struct SharedNames<V> {
    hasher: RandomState,
    parts: Vec<Arc<MapPart<V>>>,
}

type MapPart<V> = HashMap<Arc<[u8]>, Arc<V>>;

impl<V> Default for SharedNames<V> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), parts: vec![Arc::default(); PARTS] }
    }
}

impl<V: Clone + Default> SharedNames<V> {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against an ordinary map, with a copy that must not change.
        #[test]
        fn maps_are_as_ordinary_ones_and_copies_stay(
            changes in proptest::collection::vec((0u32..600, any::<bool>()), 1..900),
        ) {
            let mut map = SharedNames::<u32>::default();
            let mut plain = BTreeMap::new();
            let mut copy = None;
            for (step, (key, is_kept)) in changes.iter().enumerate() {
                if step == changes.len() / 2 {
                    copy = Some((map.clone(), plain.clone()));
                }
                let change = |value: &mut u32| { *value += 1; *is_kept };
                map.update(&key.to_be_bytes(), change);
                *plain.entry(*key).or_insert(0u32) += 1;
                if !is_kept {
                    plain.remove(key);
                }
            }
            for (map, plain) in copy.into_iter().chain([(map, plain)]) {
                for key in 0..600u32 {
                    prop_assert_eq!(map.get(&key.to_be_bytes()), plain.get(&key));
                }
                prop_assert_eq!(map.iter().count(), plain.len());
            }
        }
    }

    /// Counts parts rather than time: those that a change of one name copies.
    #[test]
    fn a_change_copies_the_parts_that_it_concerns() {
        let mut map = SharedNames::<u32>::default();
        let set = |value: &mut u32| {
            *value = 1;
            true
        };
        for number in 0..10_000u32 {
            map.update(&number.to_be_bytes(), set);
        }
        let old_map = map.clone();
        map.update(&7u32.to_be_bytes(), |_| false);
        let same = map.parts.iter().zip(&old_map.parts).filter(|(new, old)| Arc::ptr_eq(new, old)).count();
        assert_eq!(old_map.parts.len() - same, 1);
    }
}
