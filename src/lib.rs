//! l4lbd: a layer-4 load balancer on every node of an Apache Mesos cluster.
//!
//! ```text
//!  source ─► mesos ─► Snapshot ─► vip ─► VipTable ─► plan ─► dataplane::State (desired)
//!  (poll, stream, agent, marathon, file)  Leases             │
//!                                                            ├─ diff ─► Op ─► DataPlane::apply ─► kernel
//!                                                            │     ▲
//!                                                            │     DataPlane::read ◄──────────── kernel
//!                                                            └─► Zone ─► dns     Status ─► api ─► cli
//! ```
//!
//! Everything between a document and a list of operations is pure; sockets, files and clocks are in
//! [`source`], [`dataplane::kernel`], [`dns`], [`api`], [`store`] and [`reconcile`]. Sources give
//! complete pictures and the reconciler compares complete states, so that start, restart, drift and
//! retry are one code path. [`daemon`] is the only module that knows all the others.

// Only the calls that eBPF has no library for; see dataplane::ebpf.
#![deny(unsafe_code)]
// No input may end the daemon; tests may.
#![cfg_attr(
    not(test),
    warn(
        clippy::dbg_macro,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::todo,
        clippy::unwrap_used
    )
)]

pub mod api;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod demo;
pub mod dns;
pub mod marathon;
pub mod mesos;
pub mod netlink;
pub mod plan;
pub mod reconcile;
pub mod source;
pub mod status;
pub mod store;
pub mod terminal;
pub mod units;
pub mod vip;
