//! A simulated kernel: the same answers to the same operations, in memory.
//!
//! It refuses what the kernel refuses (adding what exists, changing what does not), so that tests of
//! the core against it mean something, and dry runs can start from a copy of the real kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::DataPlane;
use super::connects::Seen;
use super::effect::carry_out;
use super::error::Error;
use super::firewall::Dropped;
use super::node::{Capabilities, Node, PlaneChoice};
use super::op::{Op, OpError};
use super::reading::{Actual, Depth, Unreached};
use super::state::{Connections, Foreign, ServerKey, State};
use super::traffic::{Counted, ServerTraffic, WholeCount};

/// The simulated kernel. Its parts are public, so that tests can change them as other programs would.
#[derive(Clone, Debug, Default)]
pub struct SimulatedKernel {
    pub state: State,
    pub foreign: Vec<Foreign>,
    pub connections: BTreeMap<ServerKey, Connections>,
    /// Packets of containers that a firewall drops.
    pub dropped: Option<Dropped>,
    pub node: Node,
    /// The plane that it says it is; the node beside it has the capabilities.
    pub choice: PlaneChoice,
    /// Number of operations that had an effect.
    pub writes: usize,
    /// Operations, counted over all calls from 0, that fail without effect.
    pub faults: BTreeSet<usize>,
    /// Slices in which everything is looked through before a reading.
    pub slices: usize,
    /// Slices of the look that is under way.
    pub looked: usize,
    /// Number of readings of everything.
    pub readings: usize,
    /// Servers whose connections were counted apart from such a reading.
    pub counted: Vec<ServerKey>,
    /// Duration of a reading, and of a slice.
    pub delay: Duration,
    /// Error at the end of every pass.
    pub unfinished: Option<String>,
    /// Connections that no pass reaches.
    pub unreached: Option<Unreached>,
    /// Outcome of connects.
    pub seen: Option<Seen>,
    /// Traffic of servers.
    pub traffic: ServerTraffic,
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
            seen: self.seen.clone(),
            connections: self.connections.clone(),
            traffic: self.traffic.clone(),
            dropped: self.dropped.clone(),
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
        carry_out(&mut self.state, &self.foreign, op)?;
        self.writes += 1;
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

    async fn look_on(&mut self) -> Result<bool, Error> {
        if self.looked < self.slices {
            tokio::time::sleep(self.delay).await;
            self.looked += 1;
        }
        Ok(self.looked == self.slices)
    }

    async fn read(&mut self, _: Depth) -> Result<Actual, Error> {
        self.looked = 0;
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        self.readings += 1;
        Ok(self.read_now())
    }

    async fn count(&mut self, servers: &BTreeSet<ServerKey>) -> Result<Counted, Error> {
        self.counted.extend(servers);
        let counted = servers.iter().filter_map(|server| Some((*server, *self.connections.get(server)?)));
        let services: BTreeSet<_> = servers.iter().map(|(key, _)| *key).collect();
        let traffic = services.iter().filter_map(|key| Some((*key, self.traffic.get(key)?.clone())));
        Ok(Counted { connections: counted.collect(), traffic: traffic.collect() })
    }

    async fn count_all(&mut self) -> Result<Option<WholeCount>, Error> {
        let whole = |seen: &Seen| WholeCount { connections: self.connections.clone(), seen: seen.clone() };
        Ok(self.seen.as_ref().map(whole))
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
