//! Memory of servers that fail for a client.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Failures, VipKey};
use crate::dataplane::state::ServiceKey;

/// Key of the map `troubles`: `struct client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct ClientKey {
    /// Cookie of the network namespace.
    pub(super) namespace: u64,
    pub(super) vip: VipKey,
    pub(super) zero: u32,
}

impl ClientKey {
    /// Returns the service, unless this is a key that the programs would not write.
    pub fn service(&self) -> Option<ServiceKey> {
        self.vip.service()
    }
}

/// Value of the map `troubles`: `struct troubles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Troubles {
    pub failing: [FailingServer; 16],
}

/// Server that has failed for a client: `struct failing`. Times are in the programs' unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct FailingServer {
    /// Id of the server, counted from 1; 0 for none.
    pub(super) server: u32,
    /// Number of its stay.
    pub(super) stay: u32,
    pub(super) failures: u16,
    pub(super) ejections: u16,
    pub(super) until: u32,
    pub(super) trial: u32,
    pub(super) failed: u32,
}

impl FailingServer {
    /// Returns the id of the server if it has been ejected since its last success.
    pub fn ejected(&self) -> Option<u32> {
        self.server.checked_sub(1).filter(|_| self.ejections > 0)
    }

    /// Returns the time for which it is still ejected, given that it is `now`; `None` if that is over for another
    /// reason than the time: the server has begun to take connections anew, which `term` and `known` tell of, or its
    /// failure is older than `memory`. 0 stands for one that is tried by the next connect.
    pub fn left(&self, term: u32, known: Failures, now: u32, memory: u32) -> Option<u32> {
        // As the function stay_of() of the programs has it.
        let is_of_stay = term != 0 && self.stay == (term ^ known.begun) | 1;
        // Times of another processor may be a moment ahead, which is long ago by this difference.
        let is_remembered = now.wrapping_sub(self.failed) <= memory || self.failed.wrapping_sub(now) < memory;
        let left = self.until.wrapping_sub(now);
        (is_of_stay && is_remembered).then(|| if left.cast_signed() > 0 { left } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_is_of_this_stay_and_as_long_as_the_programs_remember() {
        let (term, known) = (7, Failures::none(12));
        let failing = FailingServer {
            server: 3,
            stay: (7 ^ 12) | 1,
            ejections: 1,
            until: 150,
            failed: 90,
            ..FailingServer::default()
        };
        assert_eq!(failing.ejected(), Some(2));
        assert_eq!(failing.left(term, known, 100, 60), Some(50));
        assert_eq!(failing.left(term, known, 149, 60), Some(1));
        assert_eq!(failing.left(term, known, 150, 60), Some(0), "the next connect tries it");
        assert_eq!(failing.left(term, known, 151, 60), None, "its failure is forgotten");
        assert_eq!(failing.left(0, known, 100, 60), None, "it takes no connections");
        assert_eq!(failing.left(term, Failures::none(14), 100, 60), None, "it has come back since");
        assert_eq!(FailingServer { ejections: 0, ..failing }.ejected(), None);
        // The count of units starts again after 52 days.
        let failing = FailingServer { until: 40, failed: u32::MAX - 9, ..failing };
        assert_eq!(failing.left(term, known, u32::MAX, 60), Some(41));
    }
}
