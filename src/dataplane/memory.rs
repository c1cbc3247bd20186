//! A simulated kernel: the same answers to the same operations, in memory.
//!
//! It refuses what the kernel refuses (adding what exists, changing what does not), so that tests of
//! the core against it mean something, and dry runs can start from a copy of the real kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::DataPlane;
use super::error::Error;
use super::node::{Capabilities, Node, PlaneChoice};
use super::op::{Op, OpError};
use super::reading::{Actual, Depth, Unreached};
use super::state::{Connections, Foreign, Link, Service, ServiceKey, State};

/// The simulated kernel. Its parts are public, so that tests can change them as other programs would.
#[derive(Clone, Debug, Default)]
pub struct SimulatedKernel {
    pub state: State,
    pub foreign: Vec<Foreign>,
    pub connections: BTreeMap<(ServiceKey, SocketAddr), Connections>,
    pub node: Node,
    /// The plane that it says it is; the node beside it has the capabilities.
    pub choice: PlaneChoice,
    /// Number of operations that had an effect.
    pub writes: usize,
    /// Operations, counted over all calls from 0, that fail without effect.
    pub faults: BTreeSet<usize>,
    /// Duration of a reading.
    pub delay: Duration,
    /// Error at the end of every pass.
    pub unfinished: Option<String>,
    /// Connections that no pass reaches.
    pub unreached: Option<Unreached>,
    attempts: usize,
}

impl SimulatedKernel {
    /// A kernel that holds `state`, on a node like `node`.
    pub fn new(state: State, node: Node) -> Self {
        Self { state, node, ..Self::default() }
    }

    /// Number of operations that were asked for, failures included.
    pub fn attempts(&self) -> usize {
        self.attempts
    }

    /// Returns what [`DataPlane::read`] does, at once.
    pub fn read_now(&self) -> Actual {
        Actual {
            state: self.state.clone(),
            foreign: self.foreign.clone(),
            connections: self.connections.clone(),
            node: self.node.clone(),
        }
    }

    /// Carries out one operation.
    ///
    /// # Errors
    /// The refusal that the kernel would answer with.
    pub fn execute(&mut self, op: &Op) -> Result<(), String> {
        // Faults count attempts, so that a test can let a retry succeed.
        let attempt = self.attempts;
        self.attempts += 1;
        if self.faults.contains(&attempt) {
            return Err("simulated fault".to_owned());
        }
        // A refused operation has no effect, and so does not count.
        self.change(op)?;
        self.writes += 1;
        Ok(())
    }

    fn change(&mut self, op: &Op) -> Result<(), String> {
        let state = &mut self.state;
        match op {
            // Any value of any setting: the kernel checks them, and this does not know its limits.
            Op::SetSysctl { path, value } => {
                state.sysctls.insert(path.clone(), value.clone());
            }
            Op::SetTimeouts(timeouts) => state.timeouts = Some(*timeouts),
            Op::AddLink => absent(state.link == Link::Absent).map(|()| state.link = Link::Down)?,
            Op::SetLinkUp => present(state.link != Link::Absent).map(|()| state.link = Link::Up)?,
            Op::DelLink => {
                present(state.link != Link::Absent)?;
                state.link = Link::Absent;
                // The kernel takes addresses and routes along with their link.
                state.addresses.clear();
                state.routes.clear();
            }
            Op::AddAddress(address) => {
                present(state.link != Link::Absent)?;
                absent(state.addresses.insert(*address))?;
            }
            Op::DelAddress(address) => present(state.addresses.remove(address))?,
            Op::ReplaceRules(rules) => state.rules = Some(rules.clone()),
            Op::DelRules => state.rules = None,
            Op::AddRoute(route) => {
                // A link that is down takes no routes. Adding one replaces that to the same destination.
                present(state.link == Link::Up)?;
                state.routes.retain(|known| known.destination != route.destination);
                state.routes.insert(*route);
            }
            Op::DelRoute(route) => present(state.routes.remove(route))?,
            Op::AddService(key, scheduling) => {
                absent(!state.services.contains_key(key))?;
                // The kernel has one table for services of all programs.
                absent(!self.foreign.iter().any(|foreign| foreign.key == Some(*key)))?;
                let service = Service { scheduling: scheduling.clone(), servers: BTreeMap::new() };
                state.services.insert(*key, service);
            }
            Op::SetService(key, scheduling) => service(state, key)?.scheduling = scheduling.clone(),
            Op::DelService(key) => present(state.services.remove(key).is_some())?,
            Op::AddServer(key, address, server) => {
                let servers = &mut service(state, key)?.servers;
                // Before the insertion, which must not change a server that exists.
                absent(!servers.contains_key(address))?;
                servers.insert(*address, *server);
            }
            Op::SetServer(key, address, server) => {
                let servers = &mut service(state, key)?.servers;
                present(servers.insert(*address, *server).is_some())?;
            }
            Op::DelServer(key, address) => present(service(state, key)?.servers.remove(address).is_some())?,
        }
        Ok(())
    }
}

impl DataPlane for SimulatedKernel {
    fn choice(&self) -> PlaneChoice {
        self.choice.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.node.capabilities
    }

    async fn read(&mut self, _: Depth) -> Result<Actual, Error> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        Ok(self.read_now())
    }

    async fn read_node(&mut self) -> Result<Node, Error> {
        Ok(self.node.clone())
    }

    async fn apply(&mut self, ops: &[Op]) -> Vec<OpError> {
        let execute = |op: &Op| {
            let error = self.execute(op).err()?;
            Some(OpError { op: op.clone(), error })
        };
        ops.iter().filter_map(execute).collect()
    }

    async fn finish_pass(&mut self, _: bool) -> Result<(), String> {
        self.unfinished.clone().map_or(Ok(()), Err)
    }

    fn unreached(&self) -> Option<Unreached> {
        self.unreached.clone()
    }
}

fn service<'s>(state: &'s mut State, key: &ServiceKey) -> Result<&'s mut Service, String> {
    state.services.get_mut(key).ok_or_else(|| "no such service".to_owned())
}

fn absent(condition: bool) -> Result<(), String> {
    condition.then_some(()).ok_or_else(|| "exists already".to_owned())
}

fn present(condition: bool) -> Result<(), String> {
    condition.then_some(()).ok_or_else(|| "does not exist".to_owned())
}
