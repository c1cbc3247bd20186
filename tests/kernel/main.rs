//! Kernel tests: the daemon in a real `ip_vs` kernel, with network namespaces as the agent, other
//! machines and containers, and real connections through VIPs.
//!
//! One program in three places:
//! * started by `cargo test` it boots virtual machines through `tests/rig/vm`, runs itself in
//!   them and reports every test as one of its own ([`rig`]);
//! * in such a machine it runs its share of the tests one after the other and prints a line of JSON for each ([`guest`]);
//! * in a network namespace it is the servers and clients of that host ([`toolkit::helper`]).
//!
//! Without the machine, or without a result for a test, that test fails.

// A test fails by panicking.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod guest;
mod rig;
mod suite;
mod toolkit;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == toolkit::helper::ARGUMENT) {
        return toolkit::helper::serve();
    }
    if std::env::var_os(guest::VARIABLE).is_some() {
        return guest::run(&arguments);
    }
    rig::run()
}
