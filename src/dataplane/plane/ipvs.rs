//! The plane of virtual services that packets pass.

use std::collections::BTreeSet;

use crate::dataplane::ipvs::{Error, Ipvs, IpvsTable, TrafficReader};
use crate::dataplane::node::{Capabilities, PlaneKind};
use crate::dataplane::op::Op;
use crate::dataplane::plane::{Plane, PlaneError, PlaneReading};
use crate::dataplane::reading::Depth;
use crate::dataplane::state::ServerKey;
use crate::dataplane::traffic::{Counted, ReadTraffic};

/// The kernel's IPVS, in one network namespace.
pub struct IpvsPlane {
    ipvs: Ipvs,
    /// Read once, because it is fixed when the module is loaded.
    connection_buckets: Option<u32>,
}

impl IpvsPlane {
    /// The capabilities of IPVS. It translates addresses after the port mappings of container runtimes
    /// had their turn, and therefore has to send to the container's own address.
    pub const CAPABILITIES: Capabilities = Capabilities {
        packets: true,
        own_scheduler: None,
        unejected: None,
        bypasses_port_mappings: true,
        bounds: None,
    };

    /// Connects to the kernel's IPVS, which may load its module.
    ///
    /// # Errors
    /// Without IPVS in the kernel, or without the right to program it.
    pub fn open() -> Result<Self, PlaneError> {
        let mut ipvs = Ipvs::open().map_err(error)?;
        // Only a warning depends on it, so that a kernel which does not tell is good enough.
        Ok(Self { connection_buckets: ipvs.connection_table_size().ok(), ipvs })
    }
}

impl Plane for IpvsPlane {
    fn kind(&self) -> PlaneKind {
        PlaneKind::Ipvs
    }

    fn capabilities(&self) -> Capabilities {
        Self::CAPABILITIES
    }

    fn takes(&self, op: &Op) -> bool {
        op.service().is_some() || matches!(op, Op::SetTimeouts(_))
    }

    fn look_on(&mut self) -> Result<bool, PlaneError> {
        self.ipvs.look_on().map_err(error)
    }

    fn read(&mut self, depth: Depth) -> Result<PlaneReading, PlaneError> {
        let table = match depth {
            Depth::Audit => self.ipvs.audit(),
            Depth::Full => self.ipvs.read(),
        };
        let IpvsTable { services, foreign, connections, traffic } = table.map_err(error)?;
        Ok(PlaneReading {
            services,
            foreign,
            connections,
            seen: None,
            traffic,
            timeouts: Some(self.ipvs.timeouts().map_err(error)?),
            networks: None,
            connection_buckets: self.connection_buckets,
        })
    }

    fn count(&mut self, servers: &BTreeSet<ServerKey>) -> Result<Counted, PlaneError> {
        self.ipvs.count(servers).map_err(error)
    }

    fn traffic(&self) -> Result<Option<Box<dyn ReadTraffic>>, PlaneError> {
        Ok(Some(Box::new(TrafficReader::open().map_err(error)?)))
    }

    fn apply(&mut self, ops: &[&Op]) -> Vec<(usize, String)> {
        let refusals = self.ipvs.apply(ops);
        refusals.into_iter().map(|(index, refusal)| (index, refusal.to_string())).collect()
    }
}

fn error(error: Error) -> PlaneError {
    match error {
        Error::Absent => PlaneError::absence(PlaneKind::Ipvs, error),
        other => PlaneError::new(PlaneKind::Ipvs, other),
    }
}
