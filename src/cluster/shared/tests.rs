use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A number that counts how often it is compared.
#[derive(Clone, Debug)]
struct Counted<'a>(u32, &'a Cell<usize>);

impl PartialEq for Counted<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.1.set(self.1.get() + 1);
        self.0 == other.0
    }
}

fn sane<K: Ord + Clone + fmt::Debug, V: Clone>(map: &SharedMap<K, V>) {
    assert!(map.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= MAX_CHUNK));
    let keys: Vec<K> = map.keys().cloned().collect();
    assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
    assert_eq!(keys.len(), map.len());
}

#[derive(Clone, Debug)]
enum MapEdit {
    Insert(u16, u8),
    Remove(u16),
    RemoveMany(u16),
}

fn edits(count: usize) -> impl Strategy<Value = Vec<MapEdit>> {
    let edit = prop_oneof![
        6 => (0u16..2_000, 0u8..4).prop_map(|(key, value)| MapEdit::Insert(key, value)),
        3 => (0u16..2_000).prop_map(MapEdit::Remove),
        1 => (1u16..6).prop_map(MapEdit::RemoveMany),
    ];
    prop::collection::vec(edit, 0..count)
}

fn apply(map: &mut SharedMap<u16, u8>, model: &mut BTreeMap<u16, u8>, edits: &[MapEdit]) {
    for edit in edits {
        match *edit {
            MapEdit::Insert(key, value) => assert_eq!(map.insert(key, value), model.insert(key, value)),
            MapEdit::Remove(key) => assert_eq!(map.remove(&key), model.remove(&key)),
            MapEdit::RemoveMany(part) => {
                map.retain(|key, _| key % part != 0);
                model.retain(|key, _| key % part != 0);
            }
        }
    }
}

proptest! {
    #![proptest_config(crate::units::cases(256))]
    #[test]
    fn a_shared_map_is_a_map_and_finds_every_difference(first in edits(1_500), second in edits(60), sorted: bool) {
        let (mut map, mut model) = (SharedMap::default(), BTreeMap::new());
        if sorted {
            model = (0..1_000).map(|key| (key, 0)).collect();
            map = model.iter().map(|(key, value)| (*key, *value)).collect();
        }
        apply(&mut map, &mut model, &first);
        sane(&map);
        prop_assert!(map.iter().eq(model.iter()));
        let (before, before_model) = (map.clone(), model.clone());
        let mut packed = map.clone();
        packed.pack();
        sane(&packed);
        prop_assert!(packed.iter().eq(model.iter()) && packed == map);
        prop_assert_eq!(packed.chunks.len(), map.len().div_ceil(MAX_CHUNK));
        apply(&mut map, &mut model, &second);
        sane(&map);
        prop_assert!(before.iter().eq(before_model.iter()), "a copy stays as it was");
        for key in (0..2_010).step_by(7) {
            prop_assert_eq!(map.first_from(&key), model.range(key..).next());
        }
        let mut expected = Vec::new();
        for key in before_model.keys().chain(model.keys()).collect::<std::collections::BTreeSet<_>>() {
            match (before_model.get_key_value(key), model.get_key_value(key)) {
                (None, Some((key, value))) => expected.push(Change::Added(key, value)),
                (Some((key, old)), Some((_, new))) if old != new => expected.push(Change::Changed(key, old, new)),
                (Some((key, old)), None) => expected.push(Change::Removed(key, old)),
                _ => {}
            }
        }
        prop_assert_eq!(before.changes(&map).collect::<Vec<_>>(), expected);
        prop_assert_eq!(before == map, before_model == model);
        // Made in another way, the same map has other chunks.
        let rebuilt: SharedMap<u16, u8> = model.iter().rev().map(|(key, value)| (*key, *value)).collect();
        prop_assert_eq!(&rebuilt, &map);
        let text = serde_json::to_string(&map).unwrap();
        prop_assert_eq!(&text, &serde_json::to_string(&model).unwrap());
        prop_assert_eq!(&serde_json::from_str::<SharedMap<u16, u8>>(&text).unwrap(), &map);
    }
}

#[test]
fn of_equal_keys_the_last_one_counts() {
    let map: SharedMap<u8, char> = [(2, 'a'), (1, 'b'), (2, 'c')].into_iter().collect();
    assert_eq!(map.iter().collect::<Vec<_>>(), [(&1, &'b'), (&2, &'c')]);
}

/// Counted, because time depends on the machine.
#[test]
fn differences_cost_what_differs_and_not_what_there_is() {
    let count = Cell::new(0);
    let map: SharedMap<u32, Counted<'_>> = (0..100_000).map(|n| (n * 2, Counted(n, &count))).collect();
    let mut newer = map.clone();
    newer.insert(5_001, Counted(0, &count));
    newer.remove(&100_000);
    newer.insert(150_000, Counted(7, &count));
    assert_eq!(
        map.changes(&newer).map(|change| *change.key()).collect::<Vec<_>>(),
        [5_001, 100_000, 150_000]
    );
    assert!(count.get() <= 3 * MAX_CHUNK, "{} comparisons", count.get());
    let shared = map.chunks.iter().filter(|chunk| newer.chunks.iter().any(|other| Arc::ptr_eq(chunk, other)));
    assert!(shared.count() >= map.chunks.len() - 3);
}
