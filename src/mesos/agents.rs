//! Agents and their executors, frameworks and their schedulers.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::executors::ExecutorKey;
use super::facts::{AgentFacts, Facts, Kind, MAX_NAME, oversized, unread};
use super::texts::Texts;
use super::wire::{FrameworkInfo, Lenient, MesosAgent, MesosExecutor, RegisteredTime};
use crate::cluster::registry::{Scheduler, port_ranges};
use crate::cluster::{Agent, Skipped, Snapshot};

/// Returns the address in a libprocess `pid`, such as `slave(1)@10.0.0.1:5051`.
pub fn pid_address(pid: &str) -> Option<SocketAddr> {
    pid.rsplit_once('@')?.1.parse().ok()
}

/// Returns an agent with the address from its `pid`; the hostname is often a name, which only helps
/// where it is numeric.
pub fn agent(hostname: String, pid: Option<&str>) -> Agent {
    let at = pid.and_then(pid_address);
    let address = at.map(|at| at.ip()).or_else(|| hostname.parse().ok());
    Agent { hostname, address, port: at.map(|at| at.port()) }
}

/// Returns the facts of an agent that is registered, or (`is_recovered`) of one that a new master still
/// awaits.
pub fn facts(agent: Lenient<MesosAgent<'_>>, is_recovered: bool) -> Facts {
    let agent = match agent {
        Lenient::Read(agent) => agent,
        Lenient::Unreadable { error, json } => return unread(&error, json, Kind::Agent, "an agent"),
    };
    let MesosAgent { id, hostname, pid, agent_info, used_resources, allocated_resources } = agent;
    // v1 has id and hostname one level further down.
    let info = agent_info.map(|info| *info);
    let (info_id, info_hostname) = info.map_or((None, None), |info| (info.id, info.hostname));
    // Without an id no task can name it.
    let Some(id) = id.or(info_id) else { return Facts::Nothing };
    let hostname = hostname.or(info_hostname).unwrap_or_default();
    if let Some(oversized) = oversized(Kind::Agent, [&*id.0, &*hostname]) {
        return oversized;
    }
    // An agent in use, in a document without tasks, tells that they are hidden from this client.
    let used = used_resources.as_ref().and_then(Lenient::as_read);
    let is_in_use = used.is_some_and(|used| used.cpus > 0.0 || used.mem > 0.0)
        || allocated_resources.is_some_and(|allocated| !allocated.is_empty());
    let id = id.0.into_owned();
    let agent = (!is_recovered).then(|| self::agent(hostname.into_owned(), pid.as_deref()));
    Facts::Agent(Box::new(AgentFacts { id, agent, is_in_use }))
}

/// Returns the facts of an executor; without ports it is of no interest.
pub fn executor_facts(executor: Lenient<MesosExecutor<'_>>, texts: &mut Texts) -> Facts {
    let executor = match executor {
        Lenient::Read(executor) => executor,
        Lenient::Unreadable { error, json } => return unread(&error, json, Kind::Executor, "an executor"),
    };
    // v1 has all but the agent one level further down.
    let agent = executor.slave_id;
    let MesosExecutor { executor_id, framework_id, resources, .. } = match executor.executor_info {
        Some(info) => *info,
        None => MesosExecutor { slave_id: None, executor_info: None, ..executor },
    };
    let (Some(executor), Some(framework)) = (executor_id, framework_id) else { return Facts::Nothing };
    let agent = agent.as_ref().map(|id| &*id.0).unwrap_or_default();
    let ports = port_ranges(&resources.0);
    let longest = [executor.0.len(), framework.0.len(), agent.len()].into_iter().max();
    // The tasks of one with a longer id do not name it either.
    if ports.is_empty() || longest > Some(MAX_NAME) {
        return Facts::Nothing;
    }
    let key = ExecutorKey {
        framework: texts.shared(&framework.0),
        executor: texts.shared(&executor.0),
        agent: texts.shared(agent),
    };
    Facts::Executor(Box::new((key, ports)))
}

/// A framework, if it has an id, or the record of one that is left out.
pub type FrameworkRead = Result<Option<FrameworkFacts>, Box<Skipped>>;

/// A framework as a document has it.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameworkFacts {
    pub id: String,
    pub name: String,
    pub scheduler: Option<Scheduler>,
    /// Time at which it registered with the master.
    pub registered: Option<Timestamp>,
}

impl FrameworkFacts {
    /// Returns a framework with its scheduler, which is in its libprocess `pid`, else at its hostname where
    /// that is numeric.
    pub fn new(id: String, name: String, pid: Option<&str>, hostname: Option<&str>) -> Self {
        let at_pid = pid.and_then(pid_address);
        let at_pid = at_pid.map(|pid| Scheduler { address: pid.ip(), port: Some(pid.port()) });
        // A scheduler that uses HTTP has no pid, and no known port.
        let at_host = || Some(Scheduler { address: hostname?.parse().ok()?, port: None });
        Self { id, name, scheduler: at_pid.or_else(at_host), registered: None }
    }

    /// Returns the framework with the time of its registration, where there is one.
    #[must_use]
    pub fn registered_at(self, time: Option<RegisteredTime>) -> Self {
        Self { registered: time.and_then(RegisteredTime::timestamp), ..self }
    }

    /// Adds the framework's name, its scheduler, and when it registered; what it does not tell stays as it was.
    pub fn add_to(&self, snapshot: &mut Snapshot) {
        if let Some(scheduler) = self.scheduler {
            Arc::make_mut(&mut snapshot.names).schedulers.insert(self.id.clone(), scheduler);
        }
        if let Some(time) = self.registered {
            snapshot.registered.insert(self.id.clone(), time);
        }
        snapshot.frameworks.insert(self.id.clone(), self.name.clone());
    }

    /// Reads a v1 framework; `None` without an id, by which alone tasks find it.
    ///
    /// # Errors
    /// A record of a framework with an id or a name that is too long.
    pub fn of_info(info: FrameworkInfo<'_>) -> FrameworkRead {
        let Some(id) = info.id else { return Ok(None) };
        let longest = id.0.len().max(info.name.len());
        if longest > MAX_NAME {
            let reason =
                format!("an id or a name with {longest} bytes, of which at most {MAX_NAME} are read");
            return Err(Box::new(Skipped { task: "frameworks[]".to_owned(), reason, ..Skipped::default() }));
        }
        Ok(Some(Self::new(id.0.into_owned(), info.name.into_owned(), None, info.hostname.as_deref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_takes_its_address_from_the_pid_and_else_from_a_numeric_hostname() {
        let address = |hostname: &str, pid: Option<&str>| {
            agent(hostname.to_owned(), pid).address.map(|address| address.to_string())
        };
        assert_eq!(address("10.0.0.9", Some("slave(1)@10.0.0.1:5051")).as_deref(), Some("10.0.0.1"));
        assert_eq!(address("10.0.0.9", Some("slave(1)@n1:5051")).as_deref(), Some("10.0.0.9"));
        assert_eq!(address("fd00::9", None).as_deref(), Some("fd00::9"));
        assert_eq!(address("n9", None), None);
    }

    #[test]
    fn a_scheduler_is_at_its_pid_rather_than_at_its_hostname() {
        let scheduler = |pid, hostname| {
            FrameworkFacts::new("F".to_owned(), "marathon".to_owned(), pid, hostname).scheduler
        };
        let at = |address: &str, port| Some(Scheduler { address: address.parse().unwrap(), port });
        let pid = Some("scheduler-1@10.0.0.1:15000");
        assert_eq!(scheduler(pid, Some("10.0.0.2")), at("10.0.0.1", Some(15000)));
        assert_eq!(scheduler(Some("nonsense"), Some("10.0.0.2")), at("10.0.0.2", None));
        assert_eq!(scheduler(None, Some("marathon.example")), None);
    }
}
