//! Numbers without locks.

use std::sync::atomic::{AtomicU64, Ordering};

/// Number that threads add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn add(&self, number: u64) {
        // Nothing else is ordered by it, and a scrape may be a moment late.
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub fn increment(&self) {
        self.add(1);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
