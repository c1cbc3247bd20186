//! Counts of what strangers cause, which are logged now and then rather than one line each.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two log lines about one kind of event.
const PAUSE: Duration = Duration::from_secs(60);

/// Events since the last log line, and the time of that line.
#[derive(Debug, Default)]
pub struct Tally(Mutex<(u64, Option<Instant>)>);

impl Tally {
    /// Counts an event. Returns the number of events since the last log line if another one is due.
    pub fn count(&self, now: Instant) -> Option<u64> {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, logged) = &mut *tally;
        *count += 1;
        if logged.is_some_and(|logged| now.saturating_duration_since(logged) < PAUSE) {
            return None;
        }
        *logged = Some(now);
        Some(std::mem::take(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_logged_once_a_minute_with_their_number() {
        let tally = Tally::default();
        let start = Instant::now();
        assert_eq!(tally.count(start), Some(1));
        assert_eq!((1..50).map(|n| tally.count(start + n * PAUSE / 50)).max(), Some(None));
        assert_eq!(tally.count(start + PAUSE), Some(50));
    }
}
