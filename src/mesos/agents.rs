//! Agents, frameworks and their schedulers.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::de::SeqAccess;

use super::fold::ArrayFold;
use super::skip::read_or_skip;
use super::wire::{Lenient, MesosAgent, MesosFramework};
use crate::cluster::registry::Scheduler;
use crate::cluster::{Agent, Snapshot};

/// A list of agents: those that are registered, or those that a new master still awaits.
pub struct AgentList<'a> {
    pub snapshot: &'a mut Snapshot,
    /// True for the list of agents that have not registered again after a fail-over.
    pub recovered: bool,
}

impl<'de> ArrayFold<'de> for AgentList<'_> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<Option<()>, A::Error> {
        let Some(agent) = seq.next_element()? else { return Ok(None) };
        add_agent(self.snapshot, agent, self.recovered);
        Ok(Some(()))
    }
}

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

/// Adds an agent that is registered, or (`recovered`) one that a new master still awaits.
pub fn add_agent(snapshot: &mut Snapshot, agent: Lenient<MesosAgent<'_>>, recovered: bool) {
    let Some(agent) = read_or_skip(snapshot, agent, "agents[]", "an agent") else { return };
    let MesosAgent { id, hostname, pid, agent_info } = agent;
    // v1 has id and hostname one level further down.
    let info = agent_info.map(|info| *info);
    let (info_id, info_hostname) = info.map_or((None, None), |info| (info.id, info.hostname));
    // Without an id no task can name it.
    let Some(id) = id.or(info_id) else { return };
    let id = id.0.into_owned();
    // An agent that has registered again is not awaited any more.
    if recovered {
        snapshot.recovered.insert(id);
    } else {
        snapshot.recovered.remove(&id);
        let hostname = hostname.or(info_hostname).unwrap_or_default().into_owned();
        snapshot.agents.insert(id, self::agent(hostname, pid.as_deref()));
    }
}

/// Notes the name of a v1 framework, and where its scheduler is.
pub fn add_framework(snapshot: &mut Snapshot, framework: Lenient<MesosFramework<'_>>) {
    let Some(framework) = read_or_skip(snapshot, framework, "frameworks[]", "a framework") else { return };
    let info = framework.framework_info;
    if let Some(id) = info.id {
        add_scheduler(snapshot, &id.0, None, info.hostname.as_deref());
        let id = id.0.into_owned();
        let time = framework.registered_time.as_ref().and_then(Lenient::as_read);
        if let Some(time) = time.and_then(|time| time.timestamp()) {
            snapshot.registered.insert(id.clone(), time);
        }
        snapshot.frameworks.insert(id, info.name.into_owned());
    }
}

/// Notes where a framework's scheduler is: in its libprocess `pid`, else at its hostname where that is
/// numeric.
pub fn add_scheduler(snapshot: &mut Snapshot, framework: &str, pid: Option<&str>, hostname: Option<&str>) {
    let at_pid = pid.and_then(pid_address).map(|pid| Scheduler { address: pid.ip(), port: Some(pid.port()) });
    // A scheduler that uses HTTP has no pid, and no known port.
    let at_host = || Some(Scheduler { address: hostname?.parse().ok()?, port: None });
    if let Some(scheduler) = at_pid.or_else(at_host) {
        Arc::make_mut(&mut snapshot.names).schedulers.insert(framework.to_owned(), scheduler);
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
    fn add_scheduler_prefers_the_pid_to_the_hostname() {
        let scheduler = |pid, hostname| {
            let mut snapshot = Snapshot::default();
            add_scheduler(&mut snapshot, "F", pid, hostname);
            snapshot.names.schedulers.get("F").copied()
        };
        let at = |address: &str, port| Some(Scheduler { address: address.parse().unwrap(), port });
        let pid = Some("scheduler-1@10.0.0.1:15000");
        assert_eq!(scheduler(pid, Some("10.0.0.2")), at("10.0.0.1", Some(15000)));
        assert_eq!(scheduler(Some("nonsense"), Some("10.0.0.2")), at("10.0.0.2", None));
        assert_eq!(scheduler(None, Some("marathon.example")), None);
    }
}
