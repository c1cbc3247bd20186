//! Warm-up: the share of a backend that is new rises in steps, for as long as its label says.
//!
//! The time counts from the moment at which this node first sees the backend ready. What was there when the daemon
//! began is warm: whether it is new cannot be told, and a restart must not move connections. So nothing has to be kept
//! on disk. The same holds for what appears while the cluster is not known as a whole, as after a fail-over.
//!
//! For example, with `L4LB_SLOW_START=30s` on two tasks, of which the second one becomes ready at 0:00:
//!
//! | time | warmth | share of the second one |
//! |---|---|---|
//! | 0:00 | 1 of 10 | 1/11 |
//! | 0:03 | 2 of 10 | 2/12 |
//! | 0:27 | 10 of 10 | 1/2 |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::cluster::TaskKey;
use crate::vip::{Backend, Condition, Vip, VipKey};

/// Steps of a warm-up. Few, because each of them is a change of the kernel.
pub const STEPS: u16 = 10;

/// Tasks by when they were first seen ready; `None` for those that are warm whatever the time.
type Seen = BTreeMap<Arc<str>, Option<Timestamp>>;

/// Backends whose label asks for a warm-up, and which of them are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmUps {
    seen: BTreeMap<VipKey, Seen>,
    /// VIPs of which a share is still rising, with the time of the next step, and that of the last look.
    due: BTreeMap<VipKey, (Timestamp, Timestamp)>,
    /// Set when the cluster has been known as a whole: what appears later may be new.
    has_begun: bool,
}

impl WarmUps {
    /// Notes which backends of a VIP are ready. `is_certain` tells whether the cluster is known as a whole; `askers`
    /// are the tasks that ask for the VIP's name, also those that are not reached now.
    pub fn note(
        &mut self,
        key: &VipKey,
        vip: Option<&Vip>,
        askers: &[TaskKey],
        (is_certain, now): (bool, Timestamp),
    ) {
        let backends = || vip.into_iter().flat_map(|vip| vip.backends.values());
        // The usual VIP has no such label.
        if !self.seen.contains_key(key) && !backends().any(|backend| backend.slow_start.is_some()) {
            return;
        }
        let since = Some(now).filter(|_| is_certain && self.has_begun);
        let mut seen = self.seen.remove(key).unwrap_or_default();
        // A task that an agent's loss has taken away for a while is not new when it is back.
        seen.retain(|task, _| {
            askers.iter().any(|asker| asker.task == *task) || backends().any(|backend| backend.task == *task)
        });
        for backend in backends().filter(|backend| backend.slow_start.is_some()) {
            if backend.condition == Condition::Ready {
                seen.entry(Arc::clone(&backend.task)).or_insert(since);
            }
        }
        let next = backends()
            .filter_map(|backend| next_step(backend, seen.get(&backend.task).copied()??, now))
            .min();
        match next {
            Some(next) => drop(self.due.insert(key.clone(), (next, now))),
            None => drop(self.due.remove(key)),
        }
        if !seen.is_empty() {
            self.seen.insert(key.clone(), seen);
        }
    }

    /// Lists the VIPs of which something is remembered.
    pub fn vips(&self) -> impl Iterator<Item = &VipKey> {
        self.seen.keys()
    }

    /// Notes that the cluster is known as a whole from now on.
    pub fn begin(&mut self) {
        self.has_begun = true;
    }

    /// Returns the steps of its warm-up that a backend has reached.
    pub fn warmth(&self, key: &VipKey, backend: &Backend, now: Timestamp) -> u16 {
        let since = self.seen.get(key).and_then(|seen| seen.get(&backend.task).copied()?);
        match (since, backend.slow_start) {
            (Some(since), Some(span)) => step(since, span, now),
            _ => STEPS,
        }
    }

    /// Returns the part of its share that a backend was given when its VIP was last looked at, in percent.
    pub fn percent(&self, key: &VipKey, backend: &Backend) -> u16 {
        let seen_at = self.due.get(key).map_or(STEPS, |(_, at)| self.warmth(key, backend, *at));
        seen_at * 100 / STEPS
    }

    /// Returns the VIPs whose next step is due.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = &VipKey> {
        self.due.iter().filter(move |(_, (due, _))| *due <= now).map(|(key, _)| key)
    }

    /// Returns the time of the first step that is not due yet.
    pub fn next(&self) -> Option<Timestamp> {
        self.due.values().map(|(due, _)| *due).min()
    }
}

/// Returns the step that is reached, from 1 on: a backend without any connection would never get warm.
fn step(since: Timestamp, span: Duration, now: Timestamp) -> u16 {
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let reached = age.as_nanos() * u128::from(STEPS) / span.as_nanos().max(1);
    u16::try_from(reached + 1).unwrap_or(STEPS).min(STEPS)
}

/// Returns the time of the next step; `None` for a backend that is warm.
fn next_step(backend: &Backend, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let span = backend.slow_start?;
    let reached = step(since, span, now);
    // Rounded up, so that the step is reached at that time and not just before.
    let after = Duration::from_nanos(
        u64::try_from((span.as_nanos() * u128::from(reached)).div_ceil(u128::from(STEPS))).ok()?,
    );
    (reached < STEPS).then(|| since.checked_add(after).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Protocol;
    use crate::vip::Host;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn key() -> VipKey {
        VipKey { host: Host::Named("web.marathon".to_owned()), protocol: Protocol::Tcp, port: 80 }
    }

    fn backend(task: &str) -> Backend {
        let slow_start = Some(Duration::from_secs(30));
        Backend { task: task.into(), slow_start, ..Backend::unknown(Condition::Ready) }
    }

    fn vip(tasks: &[&str]) -> Vip {
        let at = |(last, task): (u8, &&str)| (([10, 0, 0, last], 80).into(), backend(task));
        Vip { backends: (0..).zip(tasks).map(at).collect(), ..Vip::default() }
    }

    #[test]
    fn what_is_new_warms_up_and_what_was_there_at_the_start_is_warm() {
        let mut warm = WarmUps::default();
        warm.note(&key(), Some(&vip(&["old"])), &[], (true, at(0)));
        warm.begin();
        warm.note(&key(), Some(&vip(&["old", "new"])), &[], (true, at(100)));
        let mut warmth = Vec::new();
        while let Some(next) = warm.next() {
            assert_eq!(warm.due(next).collect::<Vec<_>>(), [&key()]);
            warm.note(&key(), Some(&vip(&["old", "new"])), &[], (true, next));
            warmth.push((next.as_second() - at(100).as_second(), warm.warmth(&key(), &backend("new"), next)));
        }
        let expected: Vec<_> = (1..10).map(|step| (step * 3, step as u16 + 1)).collect();
        assert_eq!(warmth, expected);
        assert_eq!(warm.warmth(&key(), &backend("old"), at(100)), STEPS);
        assert_eq!(warm.due(at(1_000)).count(), 0, "nothing is due any more");
    }

    #[test]
    fn what_comes_back_or_appears_in_a_fail_over_is_not_new() {
        let mut warm = WarmUps::default();
        warm.begin();
        let task = TaskKey { framework: "F".into(), task: "a".into() };
        warm.note(&key(), Some(&vip(&["a"])), &[], (true, at(0)));
        warm.note(&key(), None, std::slice::from_ref(&task), (true, at(40)));
        warm.note(&key(), Some(&vip(&["a", "b"])), &[], (false, at(60)));
        let warmth = |warm: &WarmUps, task| warm.warmth(&key(), &backend(task), at(60));
        assert_eq!((warmth(&warm, "a"), warmth(&warm, "b")), (STEPS, STEPS));
        // One whose task has ended is another when its id is used again.
        warm.note(&key(), None, &[], (true, at(61)));
        warm.note(&key(), Some(&vip(&["a"])), &[], (true, at(62)));
        assert_eq!(warm.warmth(&key(), &backend("a"), at(62)), 1);
    }
}
