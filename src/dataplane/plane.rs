//! The seam between the node's kernel and what spreads connections in it: one [`Plane`] per mechanism.
//!
//! What belongs here: the trait, and one file for each implementation. A plane holds services and their
//! servers, and states its [`Capabilities`] once; from these the core knows what the desired state
//! needs beside services. Links, addresses, netfilter rules and kernel settings are the same for every
//! plane and belong to [`super::host`]. [`super::kernel`] chooses and opens a plane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::connects::Seen;
use super::node::{Capabilities, PlaneKind};
use super::op::Op;
use super::reading::{Depth, Unreached};
use super::state::{Connections, Foreign, Route, ServerKey, Service, ServiceKey, Timeouts};
use super::traffic::{Counted, ReadTraffic, ServerTraffic, WholeCount};
use crate::cluster::SharedMap;

pub mod ebpf;
pub mod ipvs;

/// A mechanism of the kernel that spreads connections to VIPs over backends. All calls block, mostly
/// for microseconds, and act in the network namespace in which the plane was opened.
pub trait Plane: Send {
    /// The plane's name in configuration and status.
    fn kind(&self) -> PlaneKind;

    /// Properties that decide what the desired state needs beside services.
    fn capabilities(&self) -> Capabilities;

    /// True if the plane itself carries out this operation; if not, the host does.
    fn takes(&self, op: &Op) -> bool;

    /// Goes on with a look through everything that the plane holds, for a few milliseconds, and returns true when that
    /// is done: then [`Self::read`] tells what was found. A plane that is read fast enough at once has nothing to do.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn look_on(&mut self) -> Result<bool, PlaneError> {
        Ok(true)
    }

    /// Reads everything of ours that the plane holds, with counters.
    ///
    /// # Errors
    /// When the kernel does not answer, or with something that cannot be understood.
    fn read(&mut self, depth: Depth) -> Result<PlaneReading, PlaneError>;

    /// Counts the connections of some real servers; those that the plane does not hold are left out.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn count(&mut self, servers: &BTreeSet<ServerKey>) -> Result<Counted, PlaneError>;

    /// Counts everything, if that takes some milliseconds only; `None` for a plane that has to ask for each service.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn count_all(&mut self) -> Result<Option<WholeCount>, PlaneError> {
        Ok(None)
    }

    /// Opens a reader of traffic; `None` for a plane that sees no packets.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn traffic(&self) -> Result<Option<Box<dyn ReadTraffic>>, PlaneError> {
        Ok(None)
    }

    /// Carries out operations that the plane [takes](Self::takes), in order, and goes on after a
    /// failure. Returns the failures by index into `ops`, in words.
    fn apply(&mut self, ops: &[&Op]) -> Vec<(usize, String)>;

    /// Ends a pass: does what had to wait for its last operation. With `all_programmed` the table is
    /// complete, and programs and tables of an earlier run that served until now are removed.
    ///
    /// # Errors
    /// The step that failed, in words. The next pass tries it again.
    fn finish_pass(&mut self, all_programmed: bool) -> Result<(), String> {
        // A plane whose operations take effect at once has nothing left to do.
        let _ = all_programmed;
        Ok(())
    }

    /// Returns what the last pass could not reach of the connections that it had to end.
    fn unreached(&self) -> Option<Unreached> {
        // A plane that translates packets ends them with the server.
        None
    }

    /// Removes at once what no single operation removes, such as attached programs. Returns the number
    /// of services that were removed with it, or `None` if nothing was there.
    ///
    /// # Errors
    /// When something was left.
    fn purge(&mut self) -> Result<Option<usize>, PlaneError> {
        Ok(None)
    }
}

/// Everything that a plane holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaneReading {
    pub services: SharedMap<ServiceKey, Arc<Service>>,
    /// Services in the same table that are not ours.
    pub foreign: Vec<Foreign>,
    pub connections: BTreeMap<ServerKey, Connections>,
    /// Outcome of connects, if the plane sees it.
    pub seen: Option<Seen>,
    /// Traffic of servers, if the plane sees packets.
    pub traffic: ServerTraffic,
    /// Idle timeouts, if the plane has any.
    pub timeouts: Option<Timeouts>,
    /// Networks of VIPs, if the plane keeps them itself instead of as routes on our link.
    pub networks: Option<BTreeSet<Route>>,
    /// Buckets of the connection table, if the plane has one of fixed size.
    pub connection_buckets: Option<u32>,
}

/// Failure to open, read or purge a plane.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct PlaneError {
    pub plane: PlaneKind,
    /// True if the kernel lacks the mechanism altogether, so that nothing of ours can be in it.
    pub is_absence: bool,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl PlaneError {
    /// An error of a mechanism that the kernel has.
    pub fn new(plane: PlaneKind, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { plane, is_absence: false, source: Box::new(source) }
    }

    /// An error of a mechanism that the kernel lacks.
    pub fn absence(plane: PlaneKind, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { plane, is_absence: true, source: Box::new(source) }
    }
}

#[cfg(test)]
mod tests {
    use super::ebpf::EbpfPlane;
    use super::ipvs::IpvsPlane;
    use super::*;

    #[test]
    fn planes_differ_in_packets_schedulers_and_port_mappings() {
        let Capabilities { packets, own_scheduler, unejected, bypasses_port_mappings, bounds } =
            IpvsPlane::CAPABILITIES;
        assert!(packets && bypasses_port_mappings && bounds.is_none());
        assert_eq!((own_scheduler, unejected), (None, None));
        let Capabilities { packets, own_scheduler, unejected, bypasses_port_mappings, bounds } =
            EbpfPlane::CAPABILITIES;
        assert!(!packets && !bypasses_port_mappings);
        assert_eq!(bounds.unwrap().servers, 262_144);
        assert_eq!((own_scheduler, unejected), (Some("least-of-two"), Some(1)));
    }

    #[test]
    fn capabilities_by_default_are_those_of_the_first_plane() {
        assert_eq!(PlaneKind::ALL.first(), Some(&PlaneKind::Ipvs));
        assert_eq!(Capabilities::default(), IpvsPlane::CAPABILITIES);
    }
}
