//! From what was read to what is wrong: one function for each check, all of them pure.
//!
//! A check that cannot be made says so, with the reason. A new check is a function here or in a module below,
//! and its line in [`findings`]; what it goes by is a field of [`NodeFacts`], which [`super::gather`] fills in.

use super::facts::NodeFacts;
use super::finding::Finding;
use super::settings::DoctorSettings;

mod cluster;
mod firewall;
mod kernel;
pub mod names;
mod network;
mod others;

/// Judges everything that was read, in the order in which causes come before what follows from them.
pub fn findings(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    let checks: [&dyn Fn() -> Vec<Finding>; 24] = [
        &|| others::config(facts),
        &|| others::daemon(facts),
        &|| others::capabilities(settings, facts),
        &|| kernel::release(facts),
        &|| kernel::modules(settings, facts),
        &|| kernel::nft(settings, facts),
        &|| kernel::sysctls(settings, facts),
        &|| kernel::rp_filter(facts),
        &|| kernel::mounts(settings, facts),
        &|| kernel::conntrack(facts),
        &|| kernel::conn_tab(facts),
        &|| others::listeners(settings, facts),
        &|| others::programs(settings, facts),
        &|| others::foreign(settings, facts),
        &|| network::ranges(settings, facts),
        &|| network::mtu(facts),
        &|| firewall::input(settings, facts),
        &|| firewall::forward(settings, facts),
        &|| firewall::output(settings, facts),
        &|| firewall::docker(settings, facts),
        &|| cluster::source(settings, facts),
        &|| cluster::clocks(facts),
        &|| names::node(settings, facts),
        &|| names::containers(settings, facts),
    ];
    checks.iter().flat_map(|check| check()).collect()
}

#[cfg(test)]
mod tests;
