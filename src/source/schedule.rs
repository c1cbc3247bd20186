//! Intervals of the requests, so that a whole cluster of daemons does not overload its masters.
//!
//! Every node asks by itself, so that a master has to send `agents × document size` per interval. The
//! document tells both numbers, and all nodes see the same document: each of them computes the same
//! interval, in which all of them together stay within the budget.
//!
//! For example, 1,000 agents that each get 1 MB within a budget of 50 MB/s ask every 20 s.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;

use crate::units::Rate;

/// Longest interval that a document's numbers can lead to: one wrong document must not silence a node.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Interval of the requests to a source, and the reasons for its length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollSchedule {
    pub interval: Duration,
    /// Set for a stream of events: the interval is then the one between whole states.
    pub streams: bool,
    /// Set while a stream is configured, but no master offers one.
    pub stream_refused: bool,
    /// Cause of an interval that is longer than configured.
    pub stretched: Option<Stretched>,
}

/// Numbers by which an interval became longer than configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretched {
    /// Nodes that ask.
    pub agents: usize,
    /// Bytes that each of them gets on the wire.
    pub bytes: usize,
    pub budget: Rate,
}

impl PollSchedule {
    /// Returns the interval at which `agents` nodes that each get `bytes` bytes stay within `budget`,
    /// at least `shortest`, and at most an hour unless `shortest` is longer.
    pub fn within(budget: Rate, shortest: Duration, agents: usize, bytes: usize) -> Self {
        let needed = agents as f64 * bytes as f64 / budget.0 as f64;
        // A load that no duration can spread is the largest of all.
        let needed = Duration::try_from_secs_f64(needed).unwrap_or(Duration::MAX);
        if needed <= shortest {
            // The configured interval is enough.
            return Self { interval: shortest, ..Self::default() };
        }
        let stretched = Some(Stretched { agents, bytes, budget });
        Self { interval: needed.min(LONGEST.max(shortest)), stretched, ..Self::default() }
    }

    /// Returns the schedule of a stream of events, with the interval between whole states.
    pub fn stream(budget: Rate, shortest: Duration, agents: usize, bytes: usize) -> Self {
        Self { streams: true, ..Self::within(budget, shortest, agents, bytes) }
    }

    /// Returns the pause after a good answer; none for a stream.
    pub fn pause(&self) -> Duration {
        if self.streams { Duration::ZERO } else { self.interval }
    }
}

/// Completes the sentence "asked ...".
impl fmt::Display for PollSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interval = SignedDuration::try_from(self.interval).unwrap_or_default();
        // People need no more than milliseconds.
        let interval = SignedDuration::from_millis(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX));
        if self.streams {
            f.write_str("for events as they come, with a full resync ")?;
        }
        write!(f, "every {interval:#}")?;
        if self.stream_refused {
            f.write_str(", because no master takes this node as a subscriber to its events (see the log)")?;
        }
        if let Some(Stretched { agents, bytes, budget }) = self.stretched {
            write!(
                f,
                " (longer than configured, so that {agents} agents that each get {bytes} bytes stay within \
                 source.budget, {budget})"
            )?;
        }
        Ok(())
    }
}

/// Returns a duration that is up to a fifth shorter or longer, by chance, so that the nodes of a
/// cluster do not ask all at once.
pub fn jittered(duration: Duration) -> Duration {
    varied(duration, rand::random())
}

/// `random` is in 0..1.
fn varied(duration: Duration, random: f64) -> Duration {
    let varied = duration.as_secs_f64() * (0.8 + 0.4 * random.clamp(0.0, 1.0));
    // Only the longest of all durations has no longer one.
    Duration::try_from_secs_f64(varied).unwrap_or(duration)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn small_clusters_keep_the_configured_interval() {
        let schedule = PollSchedule::within(Rate(50_000_000), SECOND * 2, 100, 1_000_000);
        assert_eq!(schedule, PollSchedule { interval: SECOND * 2, ..PollSchedule::default() });
        assert_eq!(schedule.to_string(), "every 2s");
    }

    #[test]
    fn large_clusters_ask_less_often_and_say_why() {
        let schedule = PollSchedule::within(Rate(50_000_000), SECOND * 2, 1_000, 1_000_000);
        assert_eq!(schedule.interval, SECOND * 20);
        assert_eq!(
            schedule.to_string(),
            "every 20s (longer than configured, so that 1000 agents that each get 1000000 bytes stay within \
             source.budget, 50MB/s)"
        );
    }

    #[test]
    fn no_document_silences_a_node() {
        // The second is more than a duration can say, and not less of a load for that.
        for (agents, bytes) in [(1_000_000, 1 << 30), (usize::MAX, usize::MAX)] {
            let schedule = PollSchedule::within(Rate(1), SECOND * 2, agents, bytes);
            assert_eq!(schedule.interval, LONGEST, "{schedule}");
        }
        assert_eq!(PollSchedule::within(Rate(1), SECOND * 2, 0, usize::MAX).interval, SECOND * 2);
        assert_eq!(PollSchedule::within(Rate(1), LONGEST * 2, 1_000, 1 << 30).interval, LONGEST * 2);
    }

    #[test]
    fn streams_need_no_pause_and_name_their_resync() {
        let schedule = PollSchedule::stream(Rate(50_000_000), SECOND * 60, 0, 0);
        assert_eq!(schedule.pause(), Duration::ZERO);
        assert_eq!(schedule.to_string(), "for events as they come, with a full resync every 1m");
    }

    proptest! {
        #[test]
        fn the_budget_holds(nodes in 0usize..100_000, bytes in 0usize..1 << 30, budget in 1u64..1 << 40) {
            let schedule = PollSchedule::within(Rate(budget), SECOND, nodes, bytes);
            prop_assert!(schedule.interval >= SECOND);
            let rate = nodes as f64 * bytes as f64 / schedule.interval.as_secs_f64();
            prop_assert!(rate <= budget as f64 * 1.001 || schedule.interval == LONGEST);
        }

        #[test]
        fn jitter_is_a_fifth_either_way(seconds: u64, random in 0.0f64..1.0) {
            let duration = Duration::from_secs(seconds);
            let varied = varied(duration, random).as_secs_f64();
            let exact = duration.as_secs_f64();
            prop_assert!(varied >= exact * 0.8 && varied <= exact * 1.2);
        }
    }

    #[test]
    fn jitter_of_the_longest_duration_is_no_panic() {
        assert!(varied(Duration::MAX, 1.0) == Duration::MAX && varied(Duration::ZERO, 1.0).is_zero());
    }
}
