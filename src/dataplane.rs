//! The data plane: what the node's kernel should hold, what it does hold, and the operations that
//! lead from one to the other.
//!
//! What belongs here: the vocabulary ([`State`], [`Op`], [`Node`]), the comparison ([`diff`]), and
//! everything that reaches the kernel. [`State`] is the unit of comparison. [`crate::plan`] makes one
//! from the VIPs of the cluster, [`DataPlane::read`] makes one from the kernel, [`diff::diff`] lists
//! the [`Op`]s between them and [`DataPlane::apply`] carries them out. The vocabulary is plain data;
//! the kernel is reached in [`kernel`], and [`memory`] stands in for it in tests and dry runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;

pub mod diff;
pub mod ebpf;
pub mod host;
pub mod ipvs;
pub mod kernel;
pub mod memory;
mod node;
mod op;
pub mod rules;
mod state;

pub use kernel::Error;
pub use node::{Node, PlaneChoice, PlaneKind};
pub use op::{Op, OpError};
pub use state::{
    Connections, Foreign, Forwarding, Link, RealServer, Route, Scheduling, Service, ServiceKey, State,
    Timeouts,
};

/// One reading of the kernel.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    pub state: State,
    pub foreign: Vec<Foreign>,
    pub connections: BTreeMap<(ServiceKey, SocketAddr), Connections>,
    pub node: Node,
}

/// How closely [`DataPlane::read`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Cheap and enough for a regular audit: may trust what an earlier full reading said about
    /// attributes that the cheap source lacks.
    Audit,
    /// Everything from the kernel itself.
    Full,
}

/// A place that VIPs can be programmed into: the kernel, or the simulated one of [`memory`].
#[allow(async_fn_in_trait)]
pub trait DataPlane {
    /// What it is, and why.
    fn choice(&self) -> PlaneChoice;

    /// Reads everything of ours, with counters and the node's own network.
    async fn read(&mut self, depth: Depth) -> Result<Actual, Error>;

    /// Carries out `ops` in order and goes on after a failure; returns the failures.
    async fn apply(&mut self, ops: &[Op]) -> Vec<OpError>;

    /// Ends a pass, after as many [`Self::apply`] as it took: what could not be done before. `complete` is whether
    /// everything is there that should be, so that what stood in for it may go.
    ///
    /// # Errors
    /// What was not possible. It is tried again in the next pass.
    async fn conclude(&mut self, complete: bool) -> Result<(), String>;
}
