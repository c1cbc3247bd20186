//! Free slots and free ids.
//!
//! A program that looked a service up just before it changed still reads its old slots for a moment.
//! So slots and ids that are given back are only retired. When no free ones are left, the caller
//! waits for those programs ([`super::bpf::wait_for_readers`]) and then reclaims what is retired.
//!
//! For example, with 8 slots of which 0 to 2 are in use:
//!
//! ```text
//! around(8, [(0, 3)])   free: -       retired: 3-7
//! take(2)               None, because readers may still use 3-7
//! reclaim()             free: 3-7     retired: -
//! take(2)               3             free: 5-7
//! retire(0, 3)          free: 5-7     retired: 0-2
//! ```

use std::collections::{BTreeMap, BTreeSet};

/// Allocator of contiguous regions of slots. Slots in use are in neither list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotAllocator {
    /// First slot to length. No two regions touch, so that each is as long as it can be.
    free: BTreeMap<u32, u32>,
    /// First slots and lengths.
    retired: Vec<(u32, u32)>,
}

impl SlotAllocator {
    /// Retires all slots below `capacity` except `used`: pairs of first slot and length, in any
    /// order, which may overlap.
    pub fn around(capacity: u32, used: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut used: Vec<(u32, u32)> = used.into_iter().collect();
        used.sort_unstable();
        let mut slots = Self::default();
        // Each gap between two used regions is free, and so is what follows the last one.
        let mut start = 0;
        for (first, length) in used {
            if first > start {
                slots.retire(start, first.min(capacity) - start);
            }
            start = start.max(first.saturating_add(length)).min(capacity);
        }
        slots.retire(start, capacity - start);
        slots
    }

    /// Takes the first free region of `length` slots; `None` if there is none.
    pub fn take(&mut self, length: u32) -> Option<u32> {
        // The lowest one, because a reading takes all slots up to the highest in use.
        let (start, free) =
            self.free.iter().find(|(_, free)| **free >= length).map(|(start, free)| (*start, *free))?;
        self.free.remove(&start);
        if free > length {
            self.free.insert(start + length, free - length);
        }
        Some(start)
    }

    /// Gives back slots that programs may still read.
    pub fn retire(&mut self, start: u32, length: u32) {
        if length > 0 {
            self.retired.push((start, length));
        }
    }

    /// Gives back slots that no program can have seen.
    pub fn put_back(&mut self, start: u32, length: u32) {
        if length == 0 {
            return;
        }
        let mut start = start;
        let mut end = start + length;
        // Merge with the region in front and with the one behind.
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

    /// Frees all retired slots. The caller has waited for the readers.
    pub fn reclaim(&mut self) {
        for (start, length) in std::mem::take(&mut self.retired) {
            self.put_back(start, length);
        }
    }
}

/// Allocator of server ids. The map `counts` has the connections of each id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdAllocator {
    free: Vec<u32>,
    retired: Vec<u32>,
}

impl IdAllocator {
    /// Retires all ids below `capacity` except `used`.
    pub fn around(capacity: u32, used: &BTreeSet<u32>) -> Self {
        // The last one is taken first, and low ids make reading the counts cheap.
        Self { free: Vec::new(), retired: (0..capacity).rev().filter(|id| !used.contains(id)).collect() }
    }

    /// Takes a free id, if there is one.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Gives back an id that sockets may still have.
    pub fn retire(&mut self, id: u32) {
        self.retired.push(id);
    }

    /// Gives back an id that no socket can have.
    pub fn put_back(&mut self, id: u32) {
        self.free.push(id);
    }

    /// Frees the retired ids with a `count` of 0 connections. The caller has waited for the readers.
    pub fn reclaim(&mut self, count: impl Fn(u32) -> u64) {
        // A socket that still has the id would be counted for the next server that gets it.
        let (free, retired) = std::mem::take(&mut self.retired).into_iter().partition(|id| count(*id) == 0);
        self.free.extend::<Vec<u32>>(free);
        self.retired = retired;
    }
}

#[cfg(test)]
mod tests;
