//! The tests, by what a user would notice.

mod churn;
mod doctor;
mod drain;
mod events;
mod faults;
mod firewall;
mod foreign;
mod guard;
mod matrix;
mod metrics;
mod migrate;
mod names;
mod networks;
mod planes;
mod progress;
mod reach;
mod reload;
mod repair;
mod restart;
mod rights;
mod single;
mod top;
mod topologies;
mod web;
mod weights;

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

impl Test {
    const fn ipvs(name: &'static str, run: fn() -> Result<()>) -> Self {
        Self { name, plane: Plane::Ipvs, emulated: true, run }
    }

    const fn ebpf(name: &'static str, emulated: bool, run: fn() -> Result<()>) -> Self {
        Self { name, plane: Plane::Ebpf, emulated, run }
    }
}

/// The functions of a module, as tests named after both: those that hold for every data plane once for
/// each, then those that are about one of them alone; last those about eBPF that need a machine of their own.
macro_rules! tests {
    ($module:literal: $($any:ident),* $(,)? $(; ipvs: $($ipvs:ident),+ $(,)?)?
     $(; ebpf: $($ebpf:ident),+ $(,)?)? $(; machine: $($machine:ident),+ $(,)?)?) => {
        pub const TESTS: &[$crate::suite::Test] = &[
            $($crate::suite::Test::ipvs(concat!($module, "::", stringify!($any)), $any),
            $crate::suite::Test::ebpf(concat!("ebpf::", $module, "::", stringify!($any)), false, $any),)*
            $($($crate::suite::Test::ipvs(concat!($module, "::", stringify!($ipvs)), $ipvs),)+)?
            $($($crate::suite::Test::ebpf(concat!("ebpf::", $module, "::", stringify!($ebpf)), false, $ebpf),)+)?
            $($($crate::suite::Test::ebpf(concat!("ebpf::", $module, "::", stringify!($machine)), true, $machine),)+)?
        ];
    };
}
use tests;

pub fn all() -> impl Iterator<Item = Test> {
    [
        reach::TESTS,
        matrix::TESTS,
        metrics::TESTS,
        top::TESTS,
        topologies::TESTS,
        guard::TESTS,
        firewall::TESTS,
        networks::TESTS,
        migrate::TESTS,
        names::TESTS,
        churn::TESTS,
        drain::TESTS,
        weights::TESTS,
        events::TESTS,
        faults::TESTS,
        reload::TESTS,
        restart::TESTS,
        repair::TESTS,
        foreign::TESTS,
        planes::TESTS,
        progress::TESTS,
        rights::TESTS,
        single::TESTS,
        doctor::TESTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}
