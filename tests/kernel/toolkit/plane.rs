//! Which data plane the daemon of the running test uses.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    Ipvs,
    Ebpf,
}

impl Plane {
    /// As in the daemon's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipvs => "ipvs",
            Self::Ebpf => "ebpf",
        }
    }
}

thread_local! {
    static CURRENT: Cell<Plane> = const { Cell::new(Plane::Ipvs) };
}

/// For the test that this thread runs.
pub fn set(plane: Plane) {
    CURRENT.set(plane);
}

pub fn current() -> Plane {
    CURRENT.get()
}
