use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const CAPACITY: u32 = 64;

/// Call of the allocator.
#[derive(Clone, Copy, Debug)]
enum SlotStep {
    Take(u32),
    Retire(usize),
    PutBack(usize),
    Reclaim,
}

fn steps() -> impl Strategy<Value = Vec<SlotStep>> {
    let step = prop_oneof![
        4 => (1_u32..12).prop_map(SlotStep::Take),
        2 => any::<usize>().prop_map(SlotStep::Retire),
        1 => any::<usize>().prop_map(SlotStep::PutBack),
        1 => Just(SlotStep::Reclaim),
    ];
    prop::collection::vec(step, 0..80)
}

fn slots_of(regions: impl IntoIterator<Item = (u32, u32)>) -> Vec<u32> {
    regions.into_iter().flat_map(|(start, length)| start..start + length).collect()
}

proptest! {
    #[test]
    fn slot_allocator_has_every_slot_in_one_place(steps in steps()) {
        let mut slots = SlotAllocator::around(CAPACITY, []);
        slots.reclaim();
        let mut used: Vec<(u32, u32)> = Vec::new();
        for step in steps {
            match step {
                SlotStep::Take(length) => match slots.take(length) {
                    Some(start) => used.push((start, length)),
                    None => prop_assert!(slots.free.values().all(|free| *free < length)),
                },
                SlotStep::Retire(at) if !used.is_empty() => {
                    let (start, length) = used.swap_remove(at % used.len());
                    slots.retire(start, length);
                }
                SlotStep::PutBack(at) if !used.is_empty() => {
                    let (start, length) = used.swap_remove(at % used.len());
                    slots.put_back(start, length);
                }
                SlotStep::Reclaim => slots.reclaim(),
                _ => {}
            }
            let free = slots.free.iter().map(|(start, length)| (*start, *length));
            let all = slots_of(free.chain(slots.retired.iter().copied()).chain(used.iter().copied()));
            prop_assert_eq!(all.len(), CAPACITY as usize);
            prop_assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), (0..CAPACITY).collect());
            let mut last_end = None;
            for (start, length) in &slots.free {
                prop_assert!(last_end != Some(*start), "two free regions touch");
                last_end = Some(start + length);
            }
        }
    }

    #[test]
    fn around_never_gives_out_used_slots(used in prop::collection::vec((0_u32..70, 0_u32..8), 0..12)) {
        let mut slots = SlotAllocator::around(CAPACITY, used.iter().copied());
        prop_assert_eq!(slots.take(1), None, "free before the readers were awaited");
        slots.reclaim();
        let taken: BTreeSet<u32> = std::iter::from_fn(|| slots.take(1)).collect();
        let used: BTreeSet<u32> = slots_of(used).into_iter().collect();
        prop_assert_eq!(taken, (0..CAPACITY).filter(|slot| !used.contains(slot)).collect());
    }
}

#[test]
fn take_finds_nothing_before_reclaim() {
    // The example of the module's documentation.
    let mut slots = SlotAllocator::around(8, [(0, 3)]);
    assert_eq!(slots.take(2), None);
    slots.reclaim();
    assert_eq!(slots.take(2), Some(3));
    slots.retire(0, 3);
    assert_eq!(slots.take(4), None);
    slots.reclaim();
    assert_eq!((slots.take(3), slots.take(3)), (Some(0), Some(5)));
}

#[test]
fn id_allocator_frees_ids_without_connections_only() {
    let mut ids = IdAllocator::around(4, &BTreeSet::from([1]));
    assert_eq!(ids.take(), None);
    ids.reclaim(|id| u64::from(id == 2));
    let mut taken = [ids.take().unwrap(), ids.take().unwrap()];
    taken.sort_unstable();
    assert_eq!(taken, [0, 3]);
    assert_eq!(ids.take(), None);
    ids.reclaim(|_| 0);
    assert_eq!(ids.take(), Some(2));
    ids.retire(2);
    ids.put_back(3);
    assert_eq!(ids.take(), Some(3));
    assert_eq!(ids.take(), None);
}
