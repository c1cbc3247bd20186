//! l4lbd: a layer-4 load balancer on every node of an Apache Mesos cluster.
//!
//! ```text
//!  source ─► Report ─► belief ─► Feed ─┬─► plan ─► Desired (State) ─┐
//!  (poll, stream, agent,   (holds)     │   vip: VipTable            ├─ diff ─► Op ─► DataPlane::apply ─► kernel
//!   marathon, file)                    │   leases                   │     ▲
//!                                      │                            DataPlane::read ◄──────────────────── kernel
//!                                      └─► dns ◄─ Zone ◄─ reconcile ─► PassReport ─► Status ─► api ─► cli
//! ```
//!
//! Everything between a document and a list of operations is pure; sockets, files and clocks are in
//! [`source`], [`dataplane::kernel`], [`dns`], [`api`], [`store`] and [`reconcile`]. Sources give
//! complete pictures and the reconciler compares complete states, so that start, restart, drift and
//! retry are one code path.
//!
//! A complete picture costs what changed in it. A document is decompressed and read in windows
//! ([`mesos::cursor`]), items that are those of the last document are recognised by their hash and not
//! read ([`mesos::reading`]), and snapshots share all that they have in common ([`cluster::shared`]). For
//! example, of 50,000 tasks of which one became unhealthy, one is parsed; the new snapshot has the 49,999
//! other [`cluster::Task`]s of the last one, and `old.tasks.changes(&new.tasks)` yields the one that differs.
//! A document that differs in nothing that is read, such as in offers, leads to no snapshot and to no pass.
//!
//! # Layers
//!
//! A module uses only modules of the lines above its own, and on its own line those to its left. A
//! test reads the imports and fails where that is not so.
//!
//! 1. [`units`], [`cluster`], [`netlink`]: data and codecs that know nothing of the rest
//! 2. [`mesos`], [`marathon`], [`vip`], [`dataplane`]: wire formats, VIPs, the kernel
//! 3. [`store`], [`plan`], [`source`]: files, decisions, and who is asked
//! 4. [`dns`], [`status`]: what clients and operators see
//! 5. [`reconcile`], [`api`]: the loop and the status socket
//! 6. [`config`], [`daemon`]: the configuration file, and the only place that wires everything
//! 7. [`terminal`], [`demo`], [`cli`]: what people start
//!
//! # Where new things go
//!
//! - **A source**: one file in `source/` that implements [`source::Source`], one arm in
//!   `source/configured.rs`, one settings struct in `source/settings.rs`.
//! - **A data plane**: one file `dataplane/plane/NAME.rs` that implements `plane::Plane` and states its
//!   capabilities, its name in [`dataplane::PlaneKind`], its arms in `dataplane::kernel::{capabilities,
//!   open}`, and its settings struct in `dataplane/settings.rs`. The plan, the status, purge and the
//!   monitors need no change.
//! - **A command**: one file in `cli/` and one arm of `cli::Command`.
//! - **A configuration key**: one field with its doc comment in the settings struct of its module; the
//!   sample file, `--help` and the man page follow.
//! - **A reason for which the status is degraded**: one entry in [`status::build::reasons`].
//! - **A figure about passes**: one field of [`status::pass::PassReport`].

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

#[cfg(test)]
mod layers;
