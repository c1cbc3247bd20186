//! The tests, by what a user would notice.

mod churn;
mod drain;
mod faults;
mod foreign;
mod guard;
mod matrix;
mod names;
mod planes;
mod reach;
mod repair;
mod restart;
mod rights;
mod topologies;
mod web;

use anyhow::Result;

use crate::toolkit::plane::Plane;

#[derive(Debug, Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub plane: Plane,
    /// Whether it needs a machine of its own.
    pub emulated: bool,
    pub run: fn() -> Result<()>,
}

/// The functions of a module, as tests named after both: those that hold for every data plane once for
/// each, then those that are about one of them alone; last those about eBPF that need a machine of their own.
macro_rules! tests {
    ($module:literal: $($any:ident),* $(,)? $(; ipvs: $($ipvs:ident),+ $(,)?)?
     $(; ebpf: $($ebpf:ident),+ $(,)?)? $(; machine: $($machine:ident),+ $(,)?)?) => {
        pub const TESTS: &[$crate::suite::Test] = &[
            $($crate::suite::Test {
                name: concat!($module, "::", stringify!($any)),
                plane: $crate::toolkit::plane::Plane::Ipvs,
                emulated: true,
                run: $any,
            },
            $crate::suite::Test {
                name: concat!("ebpf::", $module, "::", stringify!($any)),
                plane: $crate::toolkit::plane::Plane::Ebpf,
                emulated: false,
                run: $any,
            },)*
            $($($crate::suite::Test {
                name: concat!($module, "::", stringify!($ipvs)),
                plane: $crate::toolkit::plane::Plane::Ipvs,
                emulated: true,
                run: $ipvs,
            },)+)?
            $($($crate::suite::Test {
                name: concat!("ebpf::", $module, "::", stringify!($ebpf)),
                plane: $crate::toolkit::plane::Plane::Ebpf,
                emulated: false,
                run: $ebpf,
            },)+)?
            $($($crate::suite::Test {
                name: concat!("ebpf::", $module, "::", stringify!($machine)),
                plane: $crate::toolkit::plane::Plane::Ebpf,
                emulated: true,
                run: $machine,
            },)+)?
        ];
    };
}
use tests;

pub fn all() -> impl Iterator<Item = Test> {
    [
        reach::TESTS,
        matrix::TESTS,
        topologies::TESTS,
        guard::TESTS,
        names::TESTS,
        churn::TESTS,
        drain::TESTS,
        faults::TESTS,
        restart::TESTS,
        repair::TESTS,
        foreign::TESTS,
        planes::TESTS,
        rights::TESTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}
