//! How often files are written that need not be on disk before something else happens.

use std::time::Duration;

/// Shortest time between two writings: events that come together are written together.
pub const SHORTEST: Duration = Duration::from_millis(200);

/// Longest time between two writings, and the pause after one that has failed.
pub const LONGEST: Duration = Duration::from_secs(10);

/// Pause after a writing, as a multiple of the time that it took: writing takes at most a fiftieth of a
/// processor.
const FACTOR: u32 = 50;

/// Returns the pause after a writing that took `took`. Disks and clusters differ by a factor of thousands.
pub fn pause(took: Duration) -> Duration {
    took.saturating_mul(FACTOR).clamp(SHORTEST, LONGEST)
}
