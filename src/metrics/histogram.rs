//! Counts by size, which threads add to without a lock.

use std::time::Duration;

use super::counter::Counter;

/// Times, counted by their length.
///
/// For example, with the bounds 0.001 and 1.0, a time of 5 ms counts in the second of three buckets.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds in seconds, ascending.
    bounds: &'static [f64],
    /// One more than there are bounds: the last has what is beyond them.
    buckets: Vec<Counter>,
    nanoseconds: Counter,
}

/// Numbers of a histogram at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Sum of all times in seconds.
    pub sum: f64,
    /// Upper bounds with the number of what is below each and not below the one before; the last is infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// A histogram with these upper bounds in seconds, ascending.
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| Counter::new()).collect();
        Self { bounds, buckets, nanoseconds: Counter::new() }
    }

    /// Counts a time.
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let place = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.increment();
        }
        self.nanoseconds.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Returns the numbers as they are now.
    pub fn counts(&self) -> Counts {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        Counts {
            sum: Duration::from_nanos(self.nanoseconds.get()).as_secs_f64(),
            buckets: bounds.zip(self.buckets.iter().map(Counter::get)).collect(),
        }
    }
}
