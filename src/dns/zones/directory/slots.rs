//! Values by numbers that stay the same while other values come and go.

use std::sync::Arc;

/// Values of a chunk. A change copies as many.
const CHUNK: usize = 128;

/// Values by number; a copy shares them with the original until they change.
#[derive(Clone, Debug)]
pub(super) struct Slots<T> {
    chunks: Vec<Arc<Vec<Option<T>>>>,
    /// Numbers that were given up.
    free: Vec<u32>,
    /// Number that no value has had.
    next: u32,
}

impl<T> Slots<T> {
    /// Returns the value of a number.
    pub fn get(&self, number: u32) -> Option<&T> {
        let number = number as usize;
        self.chunks.get(number / CHUNK)?.get(number % CHUNK)?.as_ref()
    }

    /// Returns true if most numbers have no value, so that numbering anew saves room.
    pub fn is_sparse(&self) -> bool {
        self.free.len() > CHUNK && self.free.len() > self.next as usize / 2
    }
}

impl<T: Clone> Slots<T> {
    /// Adds a value and returns its number.
    pub fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.set(number, Some(value));
            return number;
        }
        let number = self.next;
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => Arc::make_mut(chunk).push(Some(value)),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(Some(value));
                self.chunks.push(Arc::new(chunk));
            }
        }
        self.next = number.saturating_add(1);
        number
    }

    /// Gives up a number and its value.
    pub fn remove(&mut self, number: u32) {
        self.set(number, None);
        self.free.push(number);
    }

    fn set(&mut self, number: u32, value: Option<T>) {
        let (chunk, place) = (number as usize / CHUNK, number as usize % CHUNK);
        if let Some(slot) = self.chunks.get_mut(chunk).and_then(|chunk| Arc::make_mut(chunk).get_mut(place)) {
            *slot = value;
        }
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), next: 0 }
    }
}

#[cfg(test)]
impl<T> Slots<T> {
    /// Number of chunks that are not those of `other`.
    pub fn copied(&self, other: &Self) -> usize {
        self.chunks.iter().filter(|chunk| !other.chunks.iter().any(|known| Arc::ptr_eq(chunk, known))).count()
    }
}
