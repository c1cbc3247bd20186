//! Which slots and ids are free.
//!
//! What is given back is still being read for a moment, by programs that found it just before, so it
//! is only retired. When nothing free is left, the caller waits for those programs and then has the
//! retired reclaimed.

use std::collections::BTreeMap;

/// Stretches of slots. Those in use are not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    /// First slot to length; no two touch.
    free: BTreeMap<u32, u32>,
    retired: Vec<(u32, u32)>,
}

impl Regions {
    /// Has all slots below `capacity` retired but `used`, as (first, length), in any order. Slots
    /// used twice are used.
    pub fn around(capacity: u32, used: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut used: Vec<(u32, u32)> = used.into_iter().collect();
        used.sort_unstable();
        let mut regions = Self::default();
        let mut start = 0;
        for (first, length) in used {
            if first > start {
                regions.retire(start, first.min(capacity) - start);
            }
            start = start.max(first.saturating_add(length)).min(capacity);
        }
        regions.retire(start, capacity - start);
        regions
    }

    /// Takes a stretch of free slots; `None` if there is none of that length.
    pub fn take(&mut self, length: u32) -> Option<u32> {
        let (start, free) =
            self.free.iter().find(|(_, free)| **free >= length).map(|(start, free)| (*start, *free))?;
        self.free.remove(&start);
        if free > length {
            self.free.insert(start + length, free - length);
        }
        Some(start)
    }

    /// Gives slots back, for later.
    pub fn retire(&mut self, start: u32, length: u32) {
        if length > 0 {
            self.retired.push((start, length));
        }
    }

    /// Gives back slots that no program was ever told of.
    pub fn put_back(&mut self, start: u32, length: u32) {
        if length == 0 {
            return;
        }
        let mut start = start;
        let mut end = start + length;
        if let Some((before, free)) =
            self.free.range(..start).next_back().map(|(before, free)| (*before, *free))
            && before + free == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(free) = self.free.remove(&end) {
            end += free;
        }
        self.free.insert(start, end - start);
    }

    /// Frees what is retired; the caller has waited for the readers.
    pub fn reclaim(&mut self) {
        for (start, length) in std::mem::take(&mut self.retired) {
            self.put_back(start, length);
        }
    }
}

/// Numbers of servers, under which their connections are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    free: Vec<u32>,
    retired: Vec<u32>,
}

impl Ids {
    /// Has all ids below `capacity` retired but those in `used`.
    pub fn around(capacity: u32, used: &std::collections::BTreeSet<u32>) -> Self {
        Self { free: Vec::new(), retired: (0..capacity).rev().filter(|id| !used.contains(id)).collect() }
    }

    pub fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    pub fn retire(&mut self, id: u32) {
        self.retired.push(id);
    }

    pub fn put_back(&mut self, id: u32) {
        self.free.push(id);
    }

    /// Frees those of the retired that no socket has; the caller has waited for the readers.
    pub fn reclaim(&mut self, count: impl Fn(u32) -> u64) {
        let (free, retired) = std::mem::take(&mut self.retired).into_iter().partition(|id| count(*id) == 0);
        self.free.extend::<Vec<u32>>(free);
        self.retired = retired;
    }
}

#[cfg(test)]
mod tests;
