//! The data plane: what the node's kernel should hold, what it does hold, and the operations that
//! lead from one to the other.
//!
//! What belongs here: the vocabulary ([`State`], [`Op`], [`Node`]), the comparison ([`diff`]), and
//! everything that reaches the kernel. [`State`] is the unit of comparison. [`crate::plan`] makes one
//! from the VIPs of the cluster, [`DataPlane::read`] makes one from the kernel, [`diff::diff`] lists
//! the [`Op`]s between them and [`DataPlane::apply`] carries them out. The vocabulary is plain data.
//!
//! In the kernel, a [`plane`] spreads connections over backends ([`ipvs`] or [`ebpf`]) and the [`host`]
//! has all else; [`kernel`] puts the two together. [`memory`] stands in for it in tests and dry runs.

use std::collections::BTreeSet;

pub mod connects;
pub mod diff;
pub mod ebpf;
mod effect;
mod error;
pub mod firewall;
pub mod host;
pub mod ipvs;
pub mod kernel;
pub mod lock;
pub mod memory;
mod node;
mod op;
pub mod plane;
mod reading;
pub mod rules;
pub mod settings;
mod state;
pub mod traffic;

pub use error::Error;
pub use node::{Capabilities, Node, PlaneBounds, PlaneChoice, PlaneKind};
pub use op::{Op, OpError};
pub use reading::{Actual, Depth, Unreached};
pub use state::{
    Connections, Foreign, Forwarding, Link, RealServer, Route, Scheduling, ServerKey, Service, ServiceKey,
    State, Timeouts, of_service,
};
use traffic::{Counted, WholeCount};

/// A place that VIPs can be programmed into: the kernel, or the simulated one of [`memory`].
#[allow(async_fn_in_trait)]
pub trait DataPlane {
    /// The plane in use, with the reason for it.
    fn choice(&self) -> PlaneChoice;

    /// Properties of that plane, which are also in each reading's [`Node`].
    fn capabilities(&self) -> Capabilities;

    /// Goes on with a look through everything of ours for some milliseconds, so that changes need not wait for all of
    /// it. Returns true when all has been looked through since the last [`Self::read`], which tells what was found.
    ///
    /// # Errors
    /// When the kernel does not answer; the next call starts anew.
    async fn look_on(&mut self) -> Result<bool, Error>;

    /// Reads everything of ours, with counters and the node's own network.
    ///
    /// # Errors
    /// When any of it can't be read; nothing is guessed from the rest.
    async fn read(&mut self, depth: Depth) -> Result<Actual, Error>;

    /// Counts the connections of some real servers, which costs nothing for all others. A server that the
    /// kernel does not hold is missing in the result.
    ///
    /// # Errors
    /// When the kernel does not answer.
    async fn count(&mut self, servers: &BTreeSet<ServerKey>) -> Result<Counted, Error>;

    /// Counts everything, if the plane does that in a few milliseconds.
    ///
    /// # Errors
    /// When the kernel does not answer.
    async fn count_all(&mut self) -> Result<Option<WholeCount>, Error>;

    /// Reads the node alone, which costs little beside the services.
    ///
    /// # Errors
    /// When the kernel does not tell its links, addresses or routes.
    async fn read_node(&mut self) -> Result<Node, Error>;

    /// Carries out `ops` in order and goes on after a failure; returns the failures.
    async fn apply(&mut self, ops: &[Op]) -> Vec<OpError>;

    /// Ends a pass, after as many [`Self::apply`] as it took: does what had to wait for the last
    /// operation. With `all_programmed`, which is true if no operation failed, programs and tables of an
    /// earlier run that served until now are removed.
    ///
    /// # Errors
    /// The step that was not possible, in words. It is tried again at the end of the next pass.
    async fn finish_pass(&mut self, all_programmed: bool) -> Result<(), String>;

    /// Returns what the last pass could not reach of the connections that it had to end.
    fn unreached(&self) -> Option<Unreached>;
}
