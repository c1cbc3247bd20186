//! How often to ask, so that a whole cluster of daemons does not wear its masters out.
//!
//! Every node asks by itself, so what a master has to send grows with `agents × document size`. The
//! document tells both, and all nodes see the same document: each takes its own share of a budget
//! without any of them knowing of the others.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;

use crate::units::Rate;

/// How often a source is asked, and why not more often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    pub interval: Duration,
    /// Whether changes are told in between, so that there is no need to wait.
    pub events: bool,
    /// Whether they should be and no master does.
    pub eventless: bool,
    /// What makes the interval longer than configured: nodes, bytes that an answer has on the wire.
    pub stretched: Option<(usize, usize, Rate)>,
}

impl Pace {
    /// The interval at which `nodes` nodes that each get `bytes` bytes stay within `budget`, and at
    /// least `shortest`.
    pub fn new(shortest: Duration, nodes: usize, bytes: usize, budget: Rate) -> Self {
        let needed = nodes as f64 * bytes as f64 / budget.0 as f64;
        match Duration::try_from_secs_f64(needed) {
            Ok(needed) if needed <= shortest => Self { interval: shortest, ..Self::default() },
            Ok(needed) => {
                Self { interval: needed, stretched: Some((nodes, bytes, budget)), ..Self::default() }
            }
            // Without a budget nothing is too much.
            Err(_) => Self { interval: shortest, ..Self::default() },
        }
    }

    /// The same where events tell of changes and the interval is between whole answers.
    pub fn events(shortest: Duration, nodes: usize, bytes: usize, budget: Rate) -> Self {
        Self { events: true, ..Self::new(shortest, nodes, bytes, budget) }
    }

    /// How long to wait after a good answer.
    pub fn pause(&self) -> Duration {
        if self.events { Duration::ZERO } else { self.interval }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interval = SignedDuration::try_from(self.interval).unwrap_or_default();
        let interval = SignedDuration::from_millis(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX));
        if self.events {
            f.write_str("for changes as they come, and for everything ")?;
        }
        write!(f, "every {interval:#}")?;
        if self.eventless {
            f.write_str(", because no master tells of changes as they come (see the log)")?;
        }
        if let Some((nodes, bytes, budget)) = self.stretched {
            write!(
                f,
                " ({nodes} agents that each get {bytes} bytes must stay within source.budget, {budget})"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn small_clusters_keep_the_configured_interval() {
        let pace = Pace::new(SECOND * 2, 100, 1_000_000, Rate(50_000_000));
        assert_eq!(pace, Pace { interval: SECOND * 2, ..Pace::default() });
        assert_eq!(pace.to_string(), "every 2s");
    }

    #[test]
    fn large_clusters_ask_less_often_and_say_why() {
        let pace = Pace::new(SECOND * 2, 1_000, 1_000_000, Rate(50_000_000));
        assert_eq!(pace.interval, SECOND * 20);
        assert_eq!(
            pace.to_string(),
            "every 20s (1000 agents that each get 1000000 bytes must stay within source.budget, 50MB/s)"
        );
    }

    proptest! {
        #[test]
        fn the_budget_holds(nodes in 0usize..100_000, bytes in 0usize..1 << 30, budget in 1u64..1 << 40) {
            let pace = Pace::new(SECOND, nodes, bytes, Rate(budget));
            prop_assert!(pace.interval >= SECOND);
            let rate = nodes as f64 * bytes as f64 / pace.interval.as_secs_f64();
            prop_assert!(rate <= budget as f64 * 1.001);
        }
    }
}
