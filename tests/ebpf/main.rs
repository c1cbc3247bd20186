//! The eBPF data plane on the running kernel, with real sockets.
//!
//! Runs as root, in a cgroup, network namespace and mount namespace of its own ([`place`]), so that
//! no other process is balanced and nothing stays. One test at a time: all of them attach to
//! the one cgroup that this process is in. The program runs itself as the other processes ([`helper`]).
//!
//! Without root, cgroup v2 or a kernel with the hooks the tests fail.

// A test fails by panicking.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod helper;
mod place;
mod suite;
mod toolkit;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// Programs of the data plane, for a test that stands in for another tool.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/l4lbd.bpf.o"));

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((helper::ARGUMENT, rest)) =
        arguments.split_first().map(|(first, rest)| (first.as_str(), rest))
    {
        return helper::run(rest);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    // Listing the tests needs no namespaces.
    let place = if arguments.list { Ok(None) } else { place::enter().map(Some) };
    let trials = suite::TESTS.iter().map(|(name, test)| {
        let refused = place.as_ref().err().cloned();
        Trial::test(*name, move || match refused {
            Some(reason) => Err(Failed::from(reason)),
            None => {
                test();
                Ok(())
            }
        })
    });
    let trials = trials.collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Ok(Some(place)) = place {
        place.leave();
    }
    conclusion.exit_code()
}
