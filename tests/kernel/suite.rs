//! The tests, by what a user would notice.

mod churn;
mod drain;
mod faults;
mod foreign;
mod guard;
mod matrix;
mod names;
mod reach;
mod repair;
mod restart;
mod rights;
mod topologies;
mod web;

use anyhow::Result;

#[derive(Debug, Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub run: fn() -> Result<()>,
}

/// The functions of a module, as tests named after both.
macro_rules! tests {
    ($module:literal: $($function:ident),+ $(,)?) => {
        pub const TESTS: &[$crate::suite::Test] = &[$($crate::suite::Test {
            name: concat!($module, "::", stringify!($function)),
            run: $function,
        }),+];
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
        rights::TESTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}
