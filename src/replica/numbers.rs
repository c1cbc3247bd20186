//! Numbers that stand for ids of agents and frameworks in rows: ids take 40 octets, and each task has two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Numbers by id, each the lowest that was free.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Number, and how often it is used.
    by_id: BTreeMap<Arc<str>, (u32, usize)>,
    /// Free numbers below `next`.
    free: BTreeSet<u32>,
    next: u32,
    /// Numbers from `next` on that are taken: a faulty table may have the greatest number there is, and all
    /// numbers below it would take gigabytes.
    far: BTreeSet<u32>,
    /// Ids that may have become unused.
    idle: BTreeSet<Arc<str>>,
}

impl Numbers {
    /// Goes on with the numbers that a table gives.
    pub fn resume(numbers: &BTreeMap<u32, Arc<str>>) -> Self {
        let by_id: BTreeMap<Arc<str>, (u32, usize)> =
            numbers.iter().map(|(number, id)| (Arc::clone(id), (*number, 0))).collect();
        let mut far: BTreeSet<u32> = by_id.values().map(|(number, _)| *number).collect();
        let next = u32::try_from(far.len()).unwrap_or(u32::MAX);
        let free = (0..next).filter(|number| !far.remove(number)).collect();
        Self { idle: by_id.keys().cloned().collect(), by_id, free, next, far }
    }

    /// Counts a use of an id.
    pub fn take(&mut self, id: &str) {
        if let Some((_, uses)) = self.by_id.get_mut(id) {
            *uses += 1;
            return;
        }
        // Low numbers take fewer octets, and the rows of all tasks have them.
        let number = self.free.pop_first().unwrap_or_else(|| self.fresh());
        self.by_id.insert(id.into(), (number, 1));
    }

    /// Returns the lowest number from `next` on that is not taken.
    fn fresh(&mut self) -> u32 {
        while self.far.remove(&self.next) {
            self.next = self.next.saturating_add(1);
        }
        let number = self.next;
        self.next = self.next.saturating_add(1);
        number
    }

    /// Takes a use of an id back. Its number stays until [`Self::release`], so that no number means two ids within
    /// one change.
    pub fn give_back(&mut self, id: &str) {
        let Some((_, uses)) = self.by_id.get_mut(id) else { return };
        *uses = uses.saturating_sub(1);
        if *uses == 0 {
            self.idle.insert(id.into());
        }
    }

    /// Returns the number of an id that is used.
    pub fn number(&self, id: &str) -> Option<u32> {
        self.by_id.get(id).filter(|(_, uses)| *uses > 0).map(|(number, _)| *number)
    }

    /// Returns the number of an id that is used, or was until now.
    pub fn any_number(&self, id: &str) -> Option<u32> {
        self.by_id.get(id).map(|(number, _)| *number)
    }

    /// Frees the numbers of ids that nothing uses any more, and returns them.
    pub fn release(&mut self) -> Vec<u32> {
        let mut released = Vec::new();
        for id in std::mem::take(&mut self.idle) {
            if let Some((number, 0)) = self.by_id.get(&id).copied() {
                self.by_id.remove(&id);
                // One beyond `next` is met when `next` gets there: as a free one, it would be given twice.
                if !self.far.remove(&number) {
                    self.free.insert(number);
                }
                released.push(number);
            }
        }
        released
    }
}
