//! The processes of the agents, and what they have reported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::event::{EventSender, RunnerEvent};
use crate::demo::agent::{AgentCommand, AgentReport};
use crate::demo::error::{Error, setup};
use crate::demo::process::{ChildOutput, ChildProcess, Role};
use crate::demo::sandbox;
use crate::demo::scenario::{AgentId, InstanceId};

/// All agents of the demonstration.
#[derive(Default)]
pub struct AgentFleet {
    agents: BTreeMap<AgentId, AgentProcess>,
    /// Instances that have begun to listen.
    pub listening: BTreeSet<InstanceId>,
}

struct AgentProcess {
    process: ChildProcess,
    last_report: Option<AgentReport>,
}

impl AgentFleet {
    /// Starts the process of an agent, which then enters a network namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, agent: AgentId, cgroup: Option<&Path>, events: EventSender) -> Result<(), Error> {
        let process = ChildProcess::start(&Role::Agent, cgroup, events, move |output| match output {
            ChildOutput::Line(report) => RunnerEvent::Agent(agent, report),
            ChildOutput::Closed => RunnerEvent::Closed(agent.to_string()),
        })
        .map_err(|error| setup("start an agent", error))?;
        self.agents.insert(agent, AgentProcess { process, last_report: None });
        Ok(())
    }

    /// Connects an agent's network namespace with the node. Needs the report [`AgentReport::Entered`].
    ///
    /// # Errors
    /// When the agent has ended, or the link cannot be created.
    pub fn connect(&self, agent: AgentId) -> Result<(), Error> {
        let process =
            self.agents.get(&agent).and_then(|agent| agent.process.id()).ok_or_else(|| lost(agent))?;
        sandbox::connect(agent, process).map_err(|error| setup("connect an agent", error))
    }

    /// Sends a command to an agent.
    ///
    /// # Errors
    /// When the agent has ended.
    pub async fn send(&mut self, agent: AgentId, command: &AgentCommand) -> Result<(), Error> {
        let process = &mut self.agents.get_mut(&agent).ok_or_else(|| lost(agent))?.process;
        process.send(command).await.map_err(|_| lost(agent))
    }

    /// Takes a report in.
    ///
    /// # Errors
    /// When the report says that a command failed.
    pub fn take_report(&mut self, agent: AgentId, report: AgentReport) -> Result<(), Error> {
        match &report {
            AgentReport::Failed(error) => {
                return Err(Error::AgentFailed { agent: agent.to_string(), error: error.clone() });
            }
            AgentReport::Listening(instance) => {
                self.listening.insert(*instance);
            }
            AgentReport::Entered | AgentReport::Reachable => {}
        }
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.last_report = Some(report);
        }
        Ok(())
    }

    /// True if this was the agent's last report.
    pub fn has_reported(&self, agent: AgentId, report: &AgentReport) -> bool {
        self.agents.get(&agent).is_some_and(|agent| agent.last_report.as_ref() == Some(report))
    }

    /// Kills all agents.
    pub async fn kill(&mut self) {
        for (_, agent) in std::mem::take(&mut self.agents) {
            agent.process.kill().await;
        }
    }
}

/// Returns the error of an agent that has ended or does not answer.
pub fn lost(agent: AgentId) -> Error {
    Error::ProcessLost(agent.to_string())
}
