//! The clock of deadlines, which goes on evenly when the system's clock is set.

use std::sync::OnceLock;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// Returns the time since the start of the program, added to the system's time at that start.
///
/// Holds, drains and other deadlines are measured on it, so that setting the system's clock neither ends nor prolongs
/// them. What people read comes from [`Timestamp::now`].
pub fn steady_now() -> Timestamp {
    static START: OnceLock<(Timestamp, Instant)> = OnceLock::new();
    let (time, start) = START.get_or_init(|| (Timestamp::now(), Instant::now()));
    let age = SignedDuration::try_from(start.elapsed()).unwrap_or(SignedDuration::MAX);
    time.checked_add(age).unwrap_or(Timestamp::MAX)
}

/// Returns the system's time for a time of the steady clock, at a moment at which the clocks show these times.
/// Clocks that agree to the second are taken for one.
pub fn shown(steady: Timestamp, steady_now: Timestamp, now: Timestamp) -> Timestamp {
    let step = now.duration_since(steady_now);
    let is_set = step.abs() >= SignedDuration::from_secs(1);
    if is_set { steady.checked_add(step).unwrap_or(steady) } else { steady }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_from_the_system_s_time() {
        let first = steady_now();
        let second = steady_now();
        assert!(first <= second && second.duration_since(first) < SignedDuration::from_mins(1));
    }

    #[test]
    fn a_set_clock_shows_the_rest_of_a_deadline() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let until = at(1060);
        for now in [at(1000), at(4600), at(-2600)] {
            assert_eq!(shown(until, at(1000), now).duration_since(now), SignedDuration::from_secs(60));
        }
    }
}
