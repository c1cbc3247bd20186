//! The scenario: every step with its time, and the state of the cluster that follows from the steps. No clock here.
//!
//! The whole scenario is one list of steps. The state of the cluster at any moment follows from the steps up to it, so
//! that each moment's document can be checked without a kernel. For example, after the steps
//! `Start(3)`, `BecomeHealthy(3)` and `BecomeUnhealthy(2)` of a model that begins with instances 1 and 2, the healthy
//! instances are 1 and 3.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Shortest duration: below that a node has no time to follow the steps.
pub const SHORTEST: Duration = Duration::from_secs(15);

/// Duration unless another one is requested.
pub const DEFAULT_DURATION: Duration = Duration::from_secs(60);

/// Length of the scenario in the units of [`STEPS`].
const LENGTH: u32 = 600;

/// Time without a daemon, in the same units.
const DOWNTIME: u32 = 30;

/// Longest time without a daemon: a service manager restarts it sooner.
const LONGEST_DOWNTIME: Duration = Duration::from_secs(2);

/// A part of the scenario that shows one capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Opening,
    ScaleUp,
    Unhealthy,
    DaemonRestart,
    Upgrade,
    AgentLoss,
    Closing,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 7] = [
        Self::Opening,
        Self::ScaleUp,
        Self::Unhealthy,
        Self::DaemonRestart,
        Self::Upgrade,
        Self::AgentLoss,
        Self::Closing,
    ];

    /// Number of the phase, from 1 on.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|phase| *phase == self).unwrap_or_default() + 1
    }
}

/// A sentence for the screen, short enough for an event of 80 columns.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "Two instances of /web serve its VIP, on two agents",
            Self::ScaleUp => "Scale up: two more instances get connections once healthy",
            Self::Unhealthy => "A health check fails: no new connections until it passes again",
            Self::DaemonRestart => "Daemon killed and restarted: the kernel goes on without it",
            Self::Upgrade => "Rolling upgrade to v2: start one, wait until healthy, stop one",
            Self::AgentLoss => "Agent lost: its instances leave at once, others start elsewhere",
            Self::Closing => "Four instances of v2 serve the VIP, on the two agents left",
        })
    }
}

/// Number of an agent, from 1 on. Each agent is a network namespace with instances in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentId(pub u8);

impl AgentId {
    pub const ALL: [Self; 3] = [Self(1), Self(2), Self(3)];

    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 10 + self.0)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "agent-{}", self.0)
    }
}

/// Number of an instance of /web, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceId(pub u8);

impl InstanceId {
    pub const ALL: [Self; 10] =
        [Self(1), Self(2), Self(3), Self(4), Self(5), Self(6), Self(7), Self(8), Self(9), Self(10)];

    pub fn version(self) -> &'static str {
        if self.0 <= 4 { "v1" } else { "v2" }
    }

    /// Returns the agent that the instance runs on.
    pub fn agent(self) -> AgentId {
        AgentId(match self.0 {
            1 | 4 | 7 | 9 => 1,
            2 | 5 | 8 => 2,
            _ => 3,
        })
    }

    pub fn port(self) -> u16 {
        31_000 + u16::from(self.0)
    }

    /// Returns the instance with this task id.
    pub fn of_task(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|instance| instance.to_string() == id)
    }
}

/// The id of the instance's task.
impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "web-{}.{}", self.version(), self.0)
    }
}

/// State of an instance as the master reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    Starting,
    Healthy,
    Unhealthy,
    Stopping,
    Ended,
    /// Its agent has been lost.
    Unreachable,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Begin(Phase),
    Start(InstanceId),
    /// The health check passes, for the first time or again.
    BecomeHealthy(InstanceId),
    BecomeUnhealthy(InstanceId),
    Stop(InstanceId),
    End(InstanceId),
    /// The master declares the agent unreachable.
    Lose(AgentId),
    /// The agent's network is really gone.
    Disconnect(AgentId),
    KillDaemon,
    StartDaemon,
}

/// One line for the screen.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(phase) => phase.fmt(f),
            Self::Start(instance) => write!(f, "{instance} starts on {}", instance.agent()),
            Self::BecomeHealthy(instance) => write!(f, "{instance} is healthy"),
            Self::BecomeUnhealthy(instance) => write!(f, "{instance} fails its health check"),
            Self::Stop(instance) => write!(f, "{instance} is told to stop"),
            Self::End(instance) => write!(f, "{instance} has ended"),
            Self::Lose(agent) => write!(f, "{agent} is reported as unreachable by the master"),
            Self::Disconnect(agent) => write!(f, "{agent} is cut off the network"),
            Self::KillDaemon => f.write_str("the daemon is killed (SIGKILL)"),
            Self::StartDaemon => f.write_str("the daemon is started again"),
        }
    }
}

/// Every step with its time, in order.
const STEPS: &[(u32, Step)] = &[
    (0, Step::Begin(Phase::Opening)),
    (60, Step::Begin(Phase::ScaleUp)),
    (62, Step::Start(InstanceId(3))),
    (66, Step::Start(InstanceId(4))),
    (85, Step::BecomeHealthy(InstanceId(3))),
    (92, Step::BecomeHealthy(InstanceId(4))),
    (140, Step::Begin(Phase::Unhealthy)),
    (145, Step::BecomeUnhealthy(InstanceId(2))),
    (200, Step::BecomeHealthy(InstanceId(2))),
    (215, Step::Begin(Phase::DaemonRestart)),
    (220, Step::KillDaemon),
    (220, Step::StartDaemon),
    (290, Step::Begin(Phase::Upgrade)),
    (295, Step::Start(InstanceId(5))),
    (305, Step::BecomeHealthy(InstanceId(5))),
    (307, Step::Stop(InstanceId(1))),
    (323, Step::End(InstanceId(1))),
    (333, Step::Start(InstanceId(6))),
    (343, Step::BecomeHealthy(InstanceId(6))),
    (345, Step::Stop(InstanceId(2))),
    (361, Step::End(InstanceId(2))),
    (371, Step::Start(InstanceId(7))),
    (381, Step::BecomeHealthy(InstanceId(7))),
    (383, Step::Stop(InstanceId(3))),
    (399, Step::End(InstanceId(3))),
    (409, Step::Start(InstanceId(8))),
    (419, Step::BecomeHealthy(InstanceId(8))),
    (421, Step::Stop(InstanceId(4))),
    (437, Step::End(InstanceId(4))),
    (450, Step::Begin(Phase::AgentLoss)),
    (455, Step::Lose(AgentId(2))),
    (475, Step::Disconnect(AgentId(2))),
    (500, Step::Start(InstanceId(9))),
    (505, Step::Start(InstanceId(10))),
    (515, Step::BecomeHealthy(InstanceId(9))),
    (520, Step::BecomeHealthy(InstanceId(10))),
    (560, Step::Begin(Phase::Closing)),
];

/// State of the cluster between two steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterModel {
    pub instances: BTreeMap<InstanceId, InstanceState>,
    /// Agents that the master has declared unreachable.
    pub lost: BTreeSet<AgentId>,
    /// Agents that are off the network.
    pub disconnected: BTreeSet<AgentId>,
}

impl Default for ClusterModel {
    /// Returns the cluster before the first step: two healthy instances.
    fn default() -> Self {
        Self {
            instances: [(InstanceId(1), InstanceState::Healthy), (InstanceId(2), InstanceState::Healthy)]
                .into(),
            lost: BTreeSet::new(),
            disconnected: BTreeSet::new(),
        }
    }
}

impl ClusterModel {
    /// Applies a step. True if the master's document changes by it.
    pub fn apply(&mut self, step: Step) -> bool {
        let mut set = |instance, state| self.instances.insert(instance, state) != Some(state);
        match step {
            Step::Start(instance) => set(instance, InstanceState::Starting),
            Step::BecomeHealthy(instance) => set(instance, InstanceState::Healthy),
            Step::BecomeUnhealthy(instance) => set(instance, InstanceState::Unhealthy),
            Step::Stop(instance) => set(instance, InstanceState::Stopping),
            Step::End(instance) => set(instance, InstanceState::Ended),
            Step::Lose(agent) => {
                for (instance, state) in &mut self.instances {
                    if instance.agent() == agent && *state != InstanceState::Ended {
                        *state = InstanceState::Unreachable;
                    }
                }
                self.lost.insert(agent)
            }
            // The master has lost the agent before: its document says nothing new.
            Step::Disconnect(agent) => {
                self.disconnected.insert(agent);
                false
            }
            Step::Begin(_) | Step::KillDaemon | Step::StartDaemon => false,
        }
    }

    /// Returns the instances that should get new connections.
    pub fn healthy(&self) -> impl Iterator<Item = InstanceId> {
        let healthy = self.instances.iter().filter(|(_, state)| **state == InstanceState::Healthy);
        healthy.map(|(instance, _)| *instance)
    }
}

/// The steps, stretched over a duration.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub duration: Duration,
}

impl Scenario {
    /// Returns the step with this number, from 0 on, and its time; `None` after the last one.
    pub fn step(&self, number: usize) -> Option<(Duration, Step)> {
        let (at, step) = *STEPS.get(number)?;
        Some((self.duration * at / LENGTH, step))
    }

    /// Returns the time for which there is no daemon.
    pub fn downtime(&self) -> Duration {
        (self.duration * DOWNTIME / LENGTH).min(LONGEST_DOWNTIME)
    }
}

#[cfg(test)]
mod tests;
