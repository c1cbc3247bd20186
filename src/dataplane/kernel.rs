//! The kernel of this node behind [`DataPlane`]: one [`Plane`] for the services, and the [`Host`] for all
//! else.
//!
//! What belongs here: the choice of a plane, and the order in which plane and host carry out
//! operations. A new plane gets its arms in [`capabilities`] and `open`.

use std::collections::BTreeSet;

use super::error::Error;
use super::host::{Host, HostReading};
use super::lock::{self, Lock, Part};
use super::node::{Capabilities, Node, PlaneChoice, PlaneKind};
use super::op::{Op, OpError};
use super::plane::ebpf::{EbpfPlane, Leftovers};
use super::plane::ipvs::IpvsPlane;
use super::plane::{Plane, PlaneError, PlaneReading};
use super::reading::{Actual, Depth, Unreached};
use super::state::{ServerKey, State};
use super::traffic::{Counted, ReadTraffic, WholeCount};
use super::{DataPlane, diff, ebpf};

/// Choice of a plane, and the places in the kernel that are ours.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// Plane to use; `None` for the first of [`PlaneKind::ALL`] that this kernel has.
    pub plane: Option<PlaneKind>,
    /// Name of our link.
    pub link: String,
    pub ebpf: ebpf::Options,
    pub access: Access,
}

/// Extent to which a kernel is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only, also while a daemon runs.
    Look,
    /// Everything of ours is taken out, while no daemon runs.
    Remove,
    /// Services are programmed, and programs attached, by this process alone.
    Program,
}

/// Sockets to the kernel of the network namespace in which they were opened.
pub struct Kernel {
    choice: PlaneChoice,
    plane: Box<dyn Plane>,
    host: Host,
    /// Size of the plane's connection table in the last reading, which does not change.
    connection_buckets: Option<u32>,
    /// Programs that an earlier run may have left; `None` if the plane itself takes them over.
    leftovers: Option<Leftovers>,
    /// Released last, with the process at the latest.
    _locks: Vec<Lock>,
}

/// Result of a purge: what is gone, and what was left.
#[derive(Debug)]
pub struct Purged {
    /// Services that were removed together with the programs that served them; `None` if there were no
    /// programs.
    pub with_programs: Option<usize>,
    /// Operations that were carried out.
    pub done: Vec<Op>,
    pub errors: Vec<OpError>,
    /// Number of services in the plane's table that are not ours.
    pub foreign: usize,
}

/// Returns the capabilities of a plane, without opening it.
pub fn capabilities(kind: PlaneKind) -> Capabilities {
    match kind {
        PlaneKind::Ipvs => IpvsPlane::CAPABILITIES,
        PlaneKind::Ebpf => EbpfPlane::CAPABILITIES,
    }
}

/// Reason why a plane is not opened.
enum Refusal {
    /// The kernel does not have it, or this process may not use it; another one may do.
    Plane(PlaneError),
    /// Another daemon runs here, which no other plane helps against.
    Lock(lock::Error),
}

impl From<PlaneError> for Refusal {
    fn from(error: PlaneError) -> Self {
        Self::Plane(error)
    }
}

impl From<lock::Error> for Refusal {
    fn from(error: lock::Error) -> Self {
        Self::Lock(error)
    }
}

/// A plane with the locks on its part of the kernel.
type Locked = (Box<dyn Plane>, Vec<Lock>);

/// Opens a plane, and changes nothing before other daemons are locked out.
fn open(kind: PlaneKind, options: &KernelOptions) -> Result<Locked, Refusal> {
    let lock = |parts: &[Part]| parts.iter().map(Lock::take).collect::<Result<Vec<Lock>, _>>();
    Ok(match (kind, options.access) {
        (PlaneKind::Ipvs, access) => {
            // A kernel without IPVS has nothing to lock.
            let plane = Box::new(IpvsPlane::open()?);
            let parts = if access == Access::Look { None } else { Some(Part::ipvs()?) };
            (plane, lock(parts.as_slice())?)
        }
        (PlaneKind::Ebpf, Access::Program) => {
            // Attaching replaces the programs of a daemon that runs.
            let locks = lock(&EbpfPlane::parts(&options.ebpf)?)?;
            (Box::new(EbpfPlane::attach(&options.ebpf)?), locks)
        }
        (PlaneKind::Ebpf, Access::Remove) => {
            let locks = lock(&EbpfPlane::existing_parts(&options.ebpf))?;
            (Box::new(EbpfPlane::look(&options.ebpf)), locks)
        }
        (PlaneKind::Ebpf, Access::Look) => (Box::new(EbpfPlane::look(&options.ebpf)), Vec::new()),
    })
}

/// Opens the configured plane, or the first that this kernel has, and tells the reason for it.
fn choose(options: &KernelOptions) -> Result<(Locked, String), Error> {
    if let Some(kind) = options.plane {
        return match open(kind, options) {
            Ok(opened) => Ok((opened, "as configured".to_owned())),
            Err(Refusal::Plane(error)) => Err(error.into()),
            Err(Refusal::Lock(error)) => Err(error.into()),
        };
    }
    // Each failure is kept: it is the reason for a later plane, or part of the error if there is none.
    let mut errors: Vec<PlaneError> = Vec::new();
    for kind in PlaneKind::ALL {
        match open(kind, options) {
            Ok(opened) if errors.is_empty() => return Ok((opened, "the kernel has it".to_owned())),
            Ok(opened) => {
                let reasons: Vec<String> = errors.iter().map(PlaneError::to_string).collect();
                return Ok((opened, reasons.join("; ")));
            }
            Err(Refusal::Plane(error)) => errors.push(error),
            Err(Refusal::Lock(error)) => return Err(error.into()),
        }
    }
    Err(Error::NoPlane(errors))
}

impl Kernel {
    /// Opens all sockets. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Without the wanted data plane in the kernel, or without the right to use it; unless it is only looked
    /// at, also while another daemon has it.
    pub fn open(options: &KernelOptions) -> Result<Self, Error> {
        // First, because opening a plane may attach its programs: whatever the planes of two daemons, they
        // cannot share their link.
        let link = match options.access {
            Access::Look => None,
            Access::Remove | Access::Program => Some(Lock::take(&Part::link(&options.link)?)?),
        };
        let ((plane, locks), reason) = choose(options)?;
        let kind = plane.kind();
        Ok(Self {
            choice: PlaneChoice { plane: kind, reason },
            host: Host::open(&options.link, plane.capabilities())?,
            connection_buckets: None,
            leftovers: Leftovers::beside(kind, &options.ebpf),
            plane,
            _locks: link.into_iter().chain(locks).collect(),
        })
    }

    /// Opens a reader of the traffic through VIPs; `None` for a plane that sees no packets.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn traffic(&self) -> Result<Option<Box<dyn ReadTraffic>>, Error> {
        Ok(self.plane.traffic()?)
    }

    /// Takes everything of ours out of the plane and the host.
    ///
    /// # Errors
    /// When the kernel could not be read. What it refused to remove is in the result.
    pub async fn purge(&mut self) -> Result<Purged, Error> {
        // Before the reading, which then finds nothing that operations would have to remove.
        let with_programs = tokio::task::block_in_place(|| self.plane.purge())?;
        // In full, so that nothing of ours is left because a cheap reading did not show it.
        let actual = self.read(Depth::Full).await?;
        let mut done = diff::diff(&actual.state, &State::default(), 0);
        let errors = self.apply(&done).await;
        done.retain(|op| !errors.iter().any(|error| error.op == *op));
        Ok(Purged { with_programs, done, errors, foreign: actual.foreign.len() })
    }
}

impl DataPlane for Kernel {
    fn choice(&self) -> PlaneChoice {
        self.choice.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.plane.capabilities()
    }

    async fn look_on(&mut self) -> Result<bool, Error> {
        Ok(tokio::task::block_in_place(|| self.plane.look_on())?)
    }

    async fn read(&mut self, depth: Depth) -> Result<Actual, Error> {
        // The kernel answers at once or not at all, so blocking a worker thread for it is bounded.
        let reading = tokio::task::block_in_place(|| self.plane.read(depth))?;
        let PlaneReading {
            services,
            foreign,
            connections,
            seen,
            traffic,
            timeouts,
            networks,
            connection_buckets,
        } = reading;
        let HostReading { link, addresses, unrouted, routes, sysctls, rules, dropped, mut node } =
            self.host.read().await?;
        // The host cannot know the first, and a plane with networks of its own has no use for routes.
        self.connection_buckets = connection_buckets;
        node.connection_buckets = connection_buckets;
        let routes = networks.unwrap_or(routes);
        let state = State { services, link, addresses, unrouted, routes, sysctls, rules, timeouts };
        Ok(Actual { state, foreign, connections, seen, traffic, dropped, node })
    }

    async fn count(&mut self, servers: &BTreeSet<ServerKey>) -> Result<Counted, Error> {
        // The usual change: giving this thread up for a moment would cost more than the rest of it.
        if servers.is_empty() {
            return Ok(Counted::default());
        }
        Ok(tokio::task::block_in_place(|| self.plane.count(servers))?)
    }

    async fn count_all(&mut self) -> Result<Option<WholeCount>, Error> {
        Ok(tokio::task::block_in_place(|| self.plane.count_all())?)
    }

    async fn read_node(&mut self) -> Result<Node, Error> {
        let node = self.host.read_node().await?;
        Ok(Node { connection_buckets: self.connection_buckets, ..node })
    }

    async fn apply(&mut self, ops: &[Op]) -> Vec<OpError> {
        let mut errors = Vec::new();
        let mut rest = ops;
        while let Some((op, after)) = rest.split_first() {
            // A plane takes many operations in few system calls, so each stretch goes there as one.
            let length = rest.iter().take_while(|op| self.plane.takes(op)).count();
            if length == 0 {
                let result = self.host.apply(op).await;
                errors.extend(result.err().map(|error| OpError { op: op.clone(), error }));
                rest = after;
                continue;
            }
            let (stretch, after) = rest.split_at(length);
            let batch: Vec<&Op> = stretch.iter().collect();
            // The order between stretches is kept, because rules and link come before services, and
            // routes after them.
            let failures = tokio::task::block_in_place(|| self.plane.apply(&batch));
            errors.extend(failures.into_iter().filter_map(|(index, error)| {
                let op = stretch.get(index)?.clone();
                Some(OpError { op, error })
            }));
            rest = after;
        }
        errors
    }

    async fn finish_pass(&mut self, all_programmed: bool) -> Result<(), String> {
        tokio::task::block_in_place(|| {
            let finished = self.plane.finish_pass(all_programmed);
            // Until everything is programmed here, the leftovers serve what is still missing.
            let leftovers = self.leftovers.as_mut().filter(|_| all_programmed);
            finished.and(leftovers.map_or(Ok(()), Leftovers::remove))
        })
    }

    fn unreached(&self) -> Option<Unreached> {
        self.plane.unreached()
    }
}
