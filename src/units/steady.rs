//! The clock of deadlines, which goes on evenly when the system's clock is set.
//!
//! A [`Moment`] takes deadlines over to a later run: in the same boot of the kernel, the time between the two
//! runs counts; in another, all that was left is left.

use std::fs;
use std::sync::OnceLock;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Id of the kernel's boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Seconds since that boot, the time asleep included.
const UPTIME: &str = "/proc/uptime";

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

/// Readings of the clocks when times of the steady clock were written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Id of the kernel's boot, empty where it is not known.
    pub boot: String,
    /// Seconds since that boot.
    pub uptime: f64,
    pub steady: Timestamp,
}

impl Moment {
    /// Reads the clocks.
    pub fn now() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let uptime = read(UPTIME).split_whitespace().next().and_then(|seconds| seconds.parse().ok());
        Self {
            boot: read(BOOT_ID).trim().to_owned(),
            uptime: uptime.unwrap_or_default(),
            steady: steady_now(),
        }
    }

    /// Returns what to add to times that were written down at this moment, so that they are times of the steady
    /// clock at the moment `now`; whole seconds, because the two clocks are not read at once.
    pub fn shift_to(&self, now: &Self) -> SignedDuration {
        let is_same_boot = !self.boot.is_empty() && self.boot == now.boot;
        let between = if is_same_boot { (now.uptime - self.uptime).max(0.0) } else { 0.0 };
        // The file may say anything.
        let between = SignedDuration::try_from_secs_f64(between).unwrap_or_default();
        let shift = now.steady.duration_since(self.steady).checked_sub(between).unwrap_or_default();
        SignedDuration::from_secs(shift.as_secs_f64().round() as i64)
    }
}

/// Values with times of the steady clock.
pub trait Shift {
    /// Adds `by` to all of its times.
    fn shift(&mut self, by: SignedDuration);
}

impl Shift for Timestamp {
    fn shift(&mut self, by: SignedDuration) {
        *self = self.checked_add(by).unwrap_or(*self);
    }
}

impl<T: Shift> Shift for Option<T> {
    fn shift(&mut self, by: SignedDuration) {
        self.iter_mut().for_each(|value| value.shift(by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment in a boot, with what the system's clock made of the steady one.
    fn moment(boot: &str, uptime: f64, steady: i64) -> Moment {
        Moment { boot: boot.to_owned(), uptime, steady: Timestamp::from_second(steady).unwrap() }
    }

    #[test]
    fn a_deadline_goes_on_with_what_was_left_whatever_the_system_s_clock_shows() {
        let written = moment("a", 1_000.0, 50_000);
        let deadline = Timestamp::from_second(50_060).unwrap();
        for (now, left) in [
            // Restarted 20 s later, with the clock right, an hour ahead and an hour behind.
            (moment("a", 1_020.0, 50_020), 40),
            (moment("a", 1_020.0, 53_620), 40),
            (moment("a", 1_020.0, 46_420), 40),
            (moment("a", 2_000.0, 50_020), -940),
            // In another boot nothing is known of the time between.
            (moment("b", 30.0, 50_090), 60),
            (moment("b", 5_000.0, 0), 60),
            (moment("", 1_020.0, 50_020), 60),
            // Not a time that can be.
            (moment("a", 900.0, 50_020), 60),
            (moment("a", f64::MAX, 50_020), 60),
        ] {
            let mut until = deadline;
            until.shift(written.shift_to(&now));
            assert_eq!(until.duration_since(now.steady).as_secs(), left, "{now:?}");
        }
    }

    #[test]
    fn the_clocks_of_this_kernel_are_read() {
        let (first, second) = (Moment::now(), Moment::now());
        assert!(!first.boot.is_empty() && first.boot == second.boot);
        assert!(first.uptime > 0.0 && second.uptime >= first.uptime);
    }

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
