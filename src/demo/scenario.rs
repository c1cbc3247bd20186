//! What is shown, and when: from a time to the state of the cluster, without any clock.
//!
//! The whole story is one list of cues. Everything that is true at some moment follows from the cues up to
//! it, so that each moment's document can be checked without a kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Shortest story: below that a node has no time to follow it.
pub const SHORTEST: Duration = Duration::from_secs(15);

/// How long it takes unless said otherwise.
pub const USUAL: Duration = Duration::from_secs(60);

/// The length of the story in the units of [`SCRIPT`].
const LENGTH: u32 = 600;

/// For how long the daemon is dead.
const ABSENCE: u32 = 30;

/// Longest time without the daemon: a service manager starts it again sooner.
const LONGEST_ABSENCE: Duration = Duration::from_secs(2);

/// A part of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chapter {
    Opening,
    ScaleUp,
    Unhealthy,
    Absence,
    Upgrade,
    Loss,
    Rest,
}

impl Chapter {
    /// In their order.
    pub const ALL: [Self; 7] =
        [Self::Opening, Self::ScaleUp, Self::Unhealthy, Self::Absence, Self::Upgrade, Self::Loss, Self::Rest];

    /// From 1 on.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|chapter| *chapter == self).unwrap_or_default() + 1
    }
}

impl fmt::Display for Chapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "Two instances of /web serve its VIP, on two agents",
            Self::ScaleUp => {
                "Scale up: two more instances, which get connections as soon as they are healthy"
            }
            Self::Unhealthy => {
                "An instance fails its health check: it gets no new connections until it recovers"
            }
            Self::Absence => "The daemon is killed (SIGKILL) and starts again: the kernel goes on without it",
            Self::Upgrade => {
                "Rolling upgrade from v1 to v2: start a new one, wait until it is healthy, end an old one"
            }
            Self::Loss => {
                "An agent is lost: its instances leave at once, and Marathon starts others elsewhere"
            }
            Self::Rest => "Four instances of v2 on the two agents that are left",
        })
    }
}

/// A machine with instances on it, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Agent(pub u8);

impl Agent {
    pub const ALL: [Self; 3] = [Self(1), Self(2), Self(3)];

    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 10 + self.0)
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "agent-{}", self.0)
    }
}

/// An instance of /web, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance(pub u8);

impl Instance {
    pub const ALL: [Self; 10] =
        [Self(1), Self(2), Self(3), Self(4), Self(5), Self(6), Self(7), Self(8), Self(9), Self(10)];

    pub fn version(self) -> &'static str {
        if self.0 <= 4 { "v1" } else { "v2" }
    }

    pub fn agent(self) -> Agent {
        Agent(match self.0 {
            1 | 4 | 7 | 9 => 1,
            2 | 5 | 8 => 2,
            _ => 3,
        })
    }

    pub fn port(self) -> u16 {
        31_000 + u16::from(self.0)
    }

    /// The instance with this task id.
    pub fn of_task(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|instance| instance.to_string() == id)
    }
}

/// The id of its task.
impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "web-{}.{}", self.version(), self.0)
    }
}

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Starting,
    Healthy,
    Unhealthy,
    Stopping,
    Ended,
    /// Its agent has been lost.
    Unreachable,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cue {
    Begin(Chapter),
    Start(Instance),
    /// The health check passes, for the first time or again.
    Pass(Instance),
    Fail(Instance),
    Stop(Instance),
    End(Instance),
    /// Mesos gives the agent up.
    Lose(Agent),
    /// The agent's machine is really gone.
    Cut(Agent),
    KillDaemon,
    StartDaemon,
}

/// One line for whoever watches.
impl fmt::Display for Cue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(chapter) => chapter.fmt(f),
            Self::Start(instance) => write!(f, "{instance} starts on {}", instance.agent()),
            Self::Pass(instance) => write!(f, "{instance} is healthy"),
            Self::Fail(instance) => write!(f, "{instance} fails its health check"),
            Self::Stop(instance) => write!(f, "{instance} is told to stop"),
            Self::End(instance) => write!(f, "{instance} has ended"),
            Self::Lose(agent) => write!(f, "{agent} is unreachable, says the master"),
            Self::Cut(agent) => write!(f, "{agent} goes off the network"),
            Self::KillDaemon => f.write_str("kill -9 of the daemon"),
            Self::StartDaemon => f.write_str("the daemon starts again"),
        }
    }
}

/// Every cue with its time, in order.
const SCRIPT: &[(u32, Cue)] = &[
    (0, Cue::Begin(Chapter::Opening)),
    (60, Cue::Begin(Chapter::ScaleUp)),
    (62, Cue::Start(Instance(3))),
    (66, Cue::Start(Instance(4))),
    (85, Cue::Pass(Instance(3))),
    (92, Cue::Pass(Instance(4))),
    (140, Cue::Begin(Chapter::Unhealthy)),
    (145, Cue::Fail(Instance(2))),
    (200, Cue::Pass(Instance(2))),
    (215, Cue::Begin(Chapter::Absence)),
    (220, Cue::KillDaemon),
    (220, Cue::StartDaemon),
    (290, Cue::Begin(Chapter::Upgrade)),
    (295, Cue::Start(Instance(5))),
    (305, Cue::Pass(Instance(5))),
    (307, Cue::Stop(Instance(1))),
    (323, Cue::End(Instance(1))),
    (333, Cue::Start(Instance(6))),
    (343, Cue::Pass(Instance(6))),
    (345, Cue::Stop(Instance(2))),
    (361, Cue::End(Instance(2))),
    (371, Cue::Start(Instance(7))),
    (381, Cue::Pass(Instance(7))),
    (383, Cue::Stop(Instance(3))),
    (399, Cue::End(Instance(3))),
    (409, Cue::Start(Instance(8))),
    (419, Cue::Pass(Instance(8))),
    (421, Cue::Stop(Instance(4))),
    (437, Cue::End(Instance(4))),
    (450, Cue::Begin(Chapter::Loss)),
    (455, Cue::Lose(Agent(2))),
    (475, Cue::Cut(Agent(2))),
    (500, Cue::Start(Instance(9))),
    (505, Cue::Start(Instance(10))),
    (515, Cue::Pass(Instance(9))),
    (520, Cue::Pass(Instance(10))),
    (560, Cue::Begin(Chapter::Rest)),
];

/// The cluster at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cast {
    pub instances: BTreeMap<Instance, Life>,
    /// Agents that the master has given up.
    pub lost: BTreeSet<Agent>,
    /// Agents that are off the network.
    pub cut: BTreeSet<Agent>,
}

impl Default for Cast {
    /// Before the first cue.
    fn default() -> Self {
        Self {
            instances: [(Instance(1), Life::Healthy), (Instance(2), Life::Healthy)].into(),
            lost: BTreeSet::new(),
            cut: BTreeSet::new(),
        }
    }
}

impl Cast {
    /// Goes on by one cue; whether the master's document says something else then.
    pub fn perform(&mut self, cue: Cue) -> bool {
        let mut live = |instance, life| self.instances.insert(instance, life) != Some(life);
        match cue {
            Cue::Start(instance) => live(instance, Life::Starting),
            Cue::Pass(instance) => live(instance, Life::Healthy),
            Cue::Fail(instance) => live(instance, Life::Unhealthy),
            Cue::Stop(instance) => live(instance, Life::Stopping),
            Cue::End(instance) => live(instance, Life::Ended),
            Cue::Lose(agent) => {
                for (instance, life) in &mut self.instances {
                    if instance.agent() == agent && *life != Life::Ended {
                        *life = Life::Unreachable;
                    }
                }
                self.lost.insert(agent)
            }
            Cue::Cut(agent) => {
                self.cut.insert(agent);
                false
            }
            Cue::Begin(_) | Cue::KillDaemon | Cue::StartDaemon => false,
        }
    }

    /// Those that should get new connections.
    pub fn healthy(&self) -> impl Iterator<Item = Instance> {
        self.instances.iter().filter(|(_, life)| **life == Life::Healthy).map(|(instance, _)| *instance)
    }
}

/// The story, told in some time.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    pub duration: Duration,
}

impl Story {
    /// The cue with this number and its time; `None` after the last one.
    pub fn cue(&self, number: usize) -> Option<(Duration, Cue)> {
        let (at, cue) = *SCRIPT.get(number)?;
        Some((self.duration * at / LENGTH, cue))
    }

    /// How long there is no daemon.
    pub fn absence(&self) -> Duration {
        (self.duration * ABSENCE / LENGTH).min(LONGEST_ABSENCE)
    }

    /// The cluster after so many cues.
    pub fn cast_after(&self, cues: usize) -> Cast {
        let mut cast = Cast::default();
        for (_, cue) in SCRIPT.iter().take(cues) {
            cast.perform(*cue);
        }
        cast
    }
}

#[cfg(test)]
mod tests;
