use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const CAPACITY: u32 = 64;

/// What is asked of the regions.
#[derive(Clone, Copy, Debug)]
enum Step {
    Take(u32),
    Retire(usize),
    PutBack(usize),
    Reclaim,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_u32..12).prop_map(Step::Take),
        2 => any::<usize>().prop_map(Step::Retire),
        1 => any::<usize>().prop_map(Step::PutBack),
        1 => Just(Step::Reclaim),
    ];
    prop::collection::vec(step, 0..80)
}

fn slots(regions: impl IntoIterator<Item = (u32, u32)>) -> Vec<u32> {
    regions.into_iter().flat_map(|(start, length)| start..start + length).collect()
}

proptest! {
    #[test]
    fn every_slot_is_in_one_place(steps in steps()) {
        let mut regions = Regions::around(CAPACITY, []);
        regions.reclaim();
        let mut used: Vec<(u32, u32)> = Vec::new();
        for step in steps {
            match step {
                Step::Take(length) => match regions.take(length) {
                    Some(start) => used.push((start, length)),
                    None => prop_assert!(regions.free.values().all(|free| *free < length)),
                },
                Step::Retire(at) if !used.is_empty() => {
                    let (start, length) = used.swap_remove(at % used.len());
                    regions.retire(start, length);
                }
                Step::PutBack(at) if !used.is_empty() => {
                    let (start, length) = used.swap_remove(at % used.len());
                    regions.put_back(start, length);
                }
                Step::Reclaim => regions.reclaim(),
                _ => {}
            }
            let free = regions.free.iter().map(|(start, length)| (*start, *length));
            let all = slots(free.chain(regions.retired.iter().copied()).chain(used.iter().copied()));
            prop_assert_eq!(all.len(), CAPACITY as usize);
            prop_assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), (0..CAPACITY).collect());
            let mut last_end = None;
            for (start, length) in &regions.free {
                prop_assert!(last_end != Some(*start), "neighbours are one");
                last_end = Some(start + length);
            }
        }
    }

    #[test]
    fn what_is_adopted_is_not_given_out(used in prop::collection::vec((0_u32..70, 0_u32..8), 0..12)) {
        let mut regions = Regions::around(CAPACITY, used.iter().copied());
        prop_assert_eq!(regions.take(1), None, "readers first");
        regions.reclaim();
        let taken: BTreeSet<u32> = std::iter::from_fn(|| regions.take(1)).collect();
        let used: BTreeSet<u32> = slots(used).into_iter().collect();
        prop_assert_eq!(taken, (0..CAPACITY).filter(|slot| !used.contains(slot)).collect());
    }
}

#[test]
fn an_id_waits_for_its_sockets() {
    let mut ids = Ids::around(4, &BTreeSet::from([1]));
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
