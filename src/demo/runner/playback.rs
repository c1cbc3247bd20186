//! Position in the scenario: which step is next, and whether the node is ready for it. No clock and no process here.
//!
//! Real clusters leave tasks time: a kill has its grace period, and an agent is declared lost after minutes. The
//! scenario is shorter. So an instance ends, and an agent goes off the network, only once the daemon's status says that
//! no new connections are sent there, and a little later. For example, `End(1)` is taken at its time if the status shows
//! instance 1 with weight 0 since [`SETTLING`], and otherwise as soon as that is so.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::demo::scenario::{ClusterModel, InstanceId, Phase, Scenario, Step};

/// Time that connections under way get to end, once no new ones are made.
const SETTLING: Duration = Duration::from_millis(500);

/// Longest wait for the node to be ready for a step.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Time after the last step for which the result is shown even if the scenario is late.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Facts about the node on which the next step depends. Times are those of the caller's clock.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    /// Instances that get new connections; `None` without a status that has the VIP.
    pub serving: Option<BTreeSet<InstanceId>>,
    /// True if the status is one of the running daemon, after that has become ready.
    pub is_current: bool,
    /// Instances that have listened.
    pub listening: BTreeSet<InstanceId>,
    /// Time since which the daemon has been down.
    pub down_since: Option<Duration>,
}

/// Answer to the question for the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// No step is to be taken now.
    Nothing,
    /// The step is to be taken now. It counts as taken.
    Now { step: Step, changes_document: bool },
    /// The node has not become ready for the step in time.
    Overdue(Step),
}

/// Progress of the scenario.
#[derive(Debug)]
pub struct Playback {
    pub scenario: Scenario,
    pub model: ClusterModel,
    /// Current phase; `None` before the first step.
    pub phase: Option<Phase>,
    /// Number of steps that have been taken.
    taken: usize,
    /// Time of the last one.
    taken_at: Duration,
    /// Time since which the next step waits for the node.
    waiting_since: Option<Duration>,
    /// Time since which the node has been ready for a step that waits for connections to end.
    settled_since: Option<Duration>,
}

impl Playback {
    pub fn new(scenario: Scenario) -> Self {
        Self {
            scenario,
            model: ClusterModel::default(),
            phase: None,
            taken: 0,
            taken_at: Duration::ZERO,
            waiting_since: None,
            settled_since: None,
        }
    }

    /// Returns the step to take at this time, and advances past it.
    pub fn next(&mut self, now: Duration, node: &NodeState) -> Due {
        let Some((at, step)) = self.scenario.step(self.taken) else { return Due::Nothing };
        if now < at {
            return Due::Nothing;
        }
        if !self.is_ready(step, now, node) {
            let since = *self.waiting_since.get_or_insert(now);
            return if now.saturating_sub(since) > READY_TIMEOUT { Due::Overdue(step) } else { Due::Nothing };
        }
        (self.waiting_since, self.settled_since) = (None, None);
        self.taken += 1;
        self.taken_at = now;
        if let Step::Begin(phase) = step {
            self.phase = Some(phase);
        }
        Due::Now { step, changes_document: self.model.apply(step) }
    }

    /// True if all steps have been taken, and the last one could be seen.
    pub fn is_over(&self, now: Duration) -> bool {
        self.scenario.step(self.taken).is_none()
            && now >= self.scenario.duration
            && now.saturating_sub(self.taken_at) >= LAST_LOOK
    }

    /// True if the node is ready for the step.
    fn is_ready(&mut self, step: Step, now: Duration, node: &NodeState) -> bool {
        let still_serves = |gone: &dyn Fn(InstanceId) -> bool| {
            // Without a status it is not known, and so it may.
            node.serving.as_ref().is_none_or(|serving| serving.iter().any(|instance| gone(*instance)))
        };
        let still_serves = match step {
            Step::Begin(_) => return true,
            Step::StartDaemon => {
                let downtime = self.scenario.downtime();
                return node.down_since.is_some_and(|since| now.saturating_sub(since) >= downtime);
            }
            // One change at a time, so that the screen shows what each one does.
            Step::Start(_) | Step::BecomeUnhealthy(_) | Step::Stop(_) | Step::Lose(_) | Step::KillDaemon => {
                return self.has_followed(node);
            }
            // The master would not report an instance as healthy that does not listen.
            Step::BecomeHealthy(instance) => {
                return self.has_followed(node) && node.listening.contains(&instance);
            }
            Step::End(instance) => still_serves(&|other| other == instance),
            Step::Disconnect(agent) => still_serves(&|other| other.agent() == agent),
        };
        if still_serves || !node.is_current {
            self.settled_since = None;
            return false;
        }
        let since = *self.settled_since.get_or_insert(now);
        now.saturating_sub(since) >= SETTLING
    }

    /// True if exactly the healthy instances get new connections.
    fn has_followed(&self, node: &NodeState) -> bool {
        let healthy: BTreeSet<InstanceId> = self.model.healthy().collect();
        node.is_current && node.serving.as_ref() == Some(&healthy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::scenario::{AgentId, DEFAULT_DURATION};

    /// A node that has followed every step at once.
    fn follower(playback: &Playback) -> NodeState {
        NodeState {
            serving: Some(playback.model.healthy().collect()),
            is_current: true,
            listening: InstanceId::ALL.into(),
            down_since: Some(Duration::ZERO),
        }
    }

    /// Steps that are taken up to one that is not, each with its time, where the node follows at once.
    fn play(until: impl Fn(Step) -> bool) -> (Playback, Vec<(Duration, Step)>) {
        let mut playback = Playback::new(Scenario { duration: DEFAULT_DURATION });
        let mut steps = Vec::new();
        for tick in 0..2000 {
            let now = Duration::from_millis(50 * tick);
            loop {
                if playback.scenario.step(playback.taken).is_some_and(|(_, step)| until(step)) {
                    return (playback, steps);
                }
                let node = follower(&playback);
                match playback.next(now, &node) {
                    Due::Now { step, .. } => steps.push((now, step)),
                    Due::Nothing => break,
                    Due::Overdue(step) => panic!("{step}"),
                }
            }
        }
        (playback, steps)
    }

    #[test]
    fn every_step_is_taken_at_its_time_where_the_node_follows() {
        let (playback, steps) = play(|_| false);
        for (number, (at, step)) in steps.iter().enumerate() {
            let (wanted, same) = playback.scenario.step(number).unwrap();
            assert_eq!(*step, same);
            // Ends and losses wait for connections to end.
            assert!(
                *at >= wanted && *at <= wanted + SETTLING + Duration::from_millis(50),
                "{step} at {at:?}"
            );
        }
        assert!(playback.scenario.step(steps.len()).is_none(), "all of them");
        assert_eq!(playback.phase, Some(Phase::Closing));
        assert!(playback.is_over(DEFAULT_DURATION));
        assert!(!playback.is_over(DEFAULT_DURATION - Duration::from_millis(1)));
    }

    #[test]
    fn a_step_waits_until_the_node_has_followed_the_one_before() {
        let (mut playback, _) = play(|step| step == Step::BecomeUnhealthy(InstanceId(2)));
        let now = Duration::from_secs(20);
        let mut node = follower(&playback);
        node.serving = Some([InstanceId(1), InstanceId(2), InstanceId(3)].into());
        assert_eq!(playback.next(now, &node), Due::Nothing, "instance 4 gets no connections yet");
        node = NodeState { is_current: false, ..follower(&playback) };
        assert_eq!(playback.next(now, &node), Due::Nothing, "the status is an old one");
        let step = Step::BecomeUnhealthy(InstanceId(2));
        let due = playback.next(now, &follower(&playback));
        assert_eq!(due, Due::Now { step, changes_document: true });
    }

    #[test]
    fn an_instance_becomes_healthy_only_once_it_listens() {
        let (mut playback, _) = play(|step| step == Step::BecomeHealthy(InstanceId(3)));
        let now = Duration::from_secs(20);
        let node = NodeState { listening: [InstanceId(1), InstanceId(2)].into(), ..follower(&playback) };
        assert_eq!(playback.next(now, &node), Due::Nothing);
        assert!(matches!(playback.next(now, &follower(&playback)), Due::Now { .. }));
    }

    #[test]
    fn an_instance_ends_only_when_it_has_had_no_new_connections_for_a_while() {
        let (mut playback, _) = play(|step| step == Step::End(InstanceId(1)));
        let (second, wait) = (Duration::from_secs(1), SETTLING);
        let mut serving = follower(&playback);
        serving.serving.as_mut().unwrap().insert(InstanceId(1));
        let unknown = NodeState { serving: None, ..follower(&playback) };
        let quiet = follower(&playback);
        let start = 40 * second;
        assert_eq!(playback.next(start, &serving), Due::Nothing);
        assert_eq!(playback.next(start + second, &quiet), Due::Nothing, "the wait begins");
        assert_eq!(playback.next(start + second + wait / 2, &unknown), Due::Nothing, "and begins anew");
        assert_eq!(playback.next(start + 2 * second, &quiet), Due::Nothing);
        let due = playback.next(start + 2 * second + wait, &quiet);
        assert_eq!(due, Due::Now { step: Step::End(InstanceId(1)), changes_document: true });
    }

    #[test]
    fn an_agent_is_cut_off_only_when_none_of_its_instances_gets_connections() {
        let (mut playback, _) = play(|step| step == Step::Disconnect(AgentId(2)));
        let mut serving = follower(&playback);
        serving.serving.as_mut().unwrap().insert(InstanceId(8));
        let now = Duration::from_secs(50);
        assert_eq!(playback.next(now, &serving), Due::Nothing);
        assert_eq!(playback.next(now + 2 * SETTLING, &serving), Due::Nothing);
        assert_eq!(playback.next(now + 3 * SETTLING, &follower(&playback)), Due::Nothing);
        let due = playback.next(now + 4 * SETTLING, &follower(&playback));
        assert_eq!(due, Due::Now { step: Step::Disconnect(AgentId(2)), changes_document: false });
    }

    #[test]
    fn the_daemon_is_down_for_its_time() {
        let (mut playback, _) = play(|step| step == Step::StartDaemon);
        let killed = Duration::from_secs(30);
        let node = NodeState { down_since: Some(killed), is_current: false, ..follower(&playback) };
        let downtime = playback.scenario.downtime();
        assert_eq!(playback.next(killed + downtime - Duration::from_millis(1), &node), Due::Nothing);
        let due = playback.next(killed + downtime, &node);
        assert_eq!(due, Due::Now { step: Step::StartDaemon, changes_document: false });
    }

    #[test]
    fn a_node_that_never_follows_is_named_with_the_step_that_waits() {
        let (mut playback, _) = play(|step| step == Step::Stop(InstanceId(1)));
        let node = NodeState::default();
        let now = Duration::from_secs(31);
        assert_eq!(playback.next(now, &node), Due::Nothing);
        assert_eq!(playback.next(now + READY_TIMEOUT, &node), Due::Nothing);
        let due = playback.next(now + READY_TIMEOUT + Duration::from_millis(1), &node);
        assert_eq!(due, Due::Overdue(Step::Stop(InstanceId(1))));
    }
}
