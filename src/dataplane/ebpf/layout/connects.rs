//! Counts of connects, as the programs keep them.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::VipKey;
use crate::dataplane::connects::{Connects, LatencyClass, ServiceConnects};
use crate::dataplane::state::ServiceKey;

/// Classes of the time that a connect took. The first has those below 64 microseconds, each other one those
/// that took up to twice as long, and the last one the rest.
const LATENCIES: usize = 16;
/// Bound of the first class, as a power of 2 of microseconds.
const FIRST_LATENCY: u32 = 6;

/// Value of the map `connects`: `struct connects`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct ServerConnects {
    pub(super) begun: u32,
    pub(super) established: u32,
    pub(super) refused: u32,
    pub(super) timed_out: u32,
    pub(super) retransmissions: u32,
    /// Number of the VIP's element in `vip_connects`, counted from 1; 0 if it has none.
    pub vip: u32,
}

impl ServerConnects {
    /// The beginning, for a server of the VIP with this element.
    pub fn of(element: u32) -> Self {
        Self { vip: element + 1, ..Self::default() }
    }

    /// True if this is for a server of the VIP with this element.
    pub fn is_of(&self, element: u32) -> bool {
        self.vip == element + 1
    }

    pub fn connects(&self) -> Connects {
        Connects {
            begun: self.begun.into(),
            established: self.established.into(),
            refused: self.refused.into(),
            timed_out: self.timed_out.into(),
            syn_retransmissions: self.retransmissions.into(),
        }
    }
}

/// Value of the map `vip_connects`: `struct vip_connects`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct VipConnects {
    pub(super) vip: VipKey,
    pub(super) refused: u32,
    pub(super) begun: u64,
    pub(super) established: u64,
    pub(super) timed_out: u32,
    pub(super) retransmissions: u32,
    pub(super) latencies: [u32; LATENCIES],
}

impl VipConnects {
    /// The beginning, for a service.
    pub fn of(service: ServiceKey) -> Self {
        Self { vip: service.into(), ..Self::new_zeroed() }
    }

    /// Returns the service, unless the element is free.
    pub fn service(&self) -> Option<ServiceKey> {
        self.vip.service()
    }

    pub fn connects(&self) -> ServiceConnects {
        let bounds = (FIRST_LATENCY..).map(|power| 1 << power).take(LATENCIES - 1).map(Some).chain([None]);
        let classes = bounds.zip(self.latencies).filter(|(_, connects)| *connects > 0);
        ServiceConnects {
            connects: Connects {
                begun: self.begun,
                established: self.established,
                refused: self.refused.into(),
                timed_out: self.timed_out.into(),
                syn_retransmissions: self.retransmissions.into(),
            },
            latency: classes
                .map(|(below_us, connects)| LatencyClass { below_us, connects: connects.into() })
                .collect(),
        }
    }
}
