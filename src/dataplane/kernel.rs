//! The kernel of this node behind [`DataPlane`]: one [`Plane`] for the services, and the [`Host`] for all
//! else.
//!
//! What belongs here: the choice of a plane, and the order in which plane and host carry out
//! operations. A new plane gets its arms in [`capabilities`] and `open`.

use super::error::Error;
use super::host::{Host, HostReading};
use super::node::{Capabilities, Node, PlaneChoice, PlaneKind};
use super::op::{Op, OpError};
use super::plane::ebpf::{EbpfPlane, Leftovers};
use super::plane::ipvs::IpvsPlane;
use super::plane::{Plane, PlaneError, PlaneReading};
use super::reading::{Actual, Depth, Unreached};
use super::state::State;
use super::{DataPlane, diff, ebpf};

/// Choice of a plane, and the places in the kernel that are ours.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// Plane to use; `None` for the first of [`PlaneKind::ALL`] that this kernel has.
    pub plane: Option<PlaneKind>,
    /// Name of our link.
    pub link: String,
    pub ebpf: ebpf::Options,
    /// True if programs may be attached; if not, those that are pinned are only looked at.
    pub attach: bool,
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

/// Opens a plane.
fn open(kind: PlaneKind, options: &KernelOptions) -> Result<Box<dyn Plane>, PlaneError> {
    Ok(match kind {
        PlaneKind::Ipvs => Box::new(IpvsPlane::open()?),
        PlaneKind::Ebpf if options.attach => Box::new(EbpfPlane::attach(&options.ebpf)?),
        PlaneKind::Ebpf => Box::new(EbpfPlane::look(&options.ebpf)),
    })
}

/// Opens the configured plane, or the first that this kernel has, and tells the reason for it.
fn choose(options: &KernelOptions) -> Result<(Box<dyn Plane>, String), Error> {
    if let Some(kind) = options.plane {
        return Ok((open(kind, options)?, "as configured".to_owned()));
    }
    // Each failure is kept: it is the reason for a later plane, or part of the error if there is none.
    let mut errors: Vec<PlaneError> = Vec::new();
    for kind in PlaneKind::ALL {
        match open(kind, options) {
            Ok(plane) if errors.is_empty() => return Ok((plane, "the kernel has it".to_owned())),
            Ok(plane) => {
                let reasons: Vec<String> = errors.iter().map(PlaneError::to_string).collect();
                return Ok((plane, reasons.join("; ")));
            }
            Err(error) => errors.push(error),
        }
    }
    Err(Error::NoPlane(errors))
}

impl Kernel {
    /// Opens all sockets. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Without the wanted data plane in the kernel, or without the right to use it.
    pub fn open(options: &KernelOptions) -> Result<Self, Error> {
        let (plane, reason) = choose(options)?;
        let kind = plane.kind();
        Ok(Self {
            choice: PlaneChoice { plane: kind, reason },
            host: Host::open(&options.link, plane.capabilities())?,
            connection_buckets: None,
            // Programs act before there is a packet, and so would hide any other plane's services.
            leftovers: (kind != PlaneKind::Ebpf).then(|| Leftovers::new(options.ebpf.clone())),
            plane,
        })
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

    async fn read(&mut self, depth: Depth) -> Result<Actual, Error> {
        // The kernel answers at once or not at all, so blocking a worker thread for it is bounded.
        let PlaneReading { services, foreign, connections, timeouts, networks, connection_buckets } =
            tokio::task::block_in_place(|| self.plane.read(depth))?;
        let HostReading { link, addresses, routes, sysctls, rules, mut node } = self.host.read().await?;
        // The host cannot know the first, and a plane with networks of its own has no use for routes.
        self.connection_buckets = connection_buckets;
        node.connection_buckets = connection_buckets;
        let routes = networks.unwrap_or(routes);
        let state = State { services, link, addresses, routes, sysctls, rules, timeouts };
        Ok(Actual { state, foreign, connections, node })
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
