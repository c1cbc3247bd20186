//! l4lbd: a layer-4 load balancer on every node of an Apache Mesos cluster.
//!
//! ```text
//!                                          ┌─ reconcile::pass ──────────────────────────────────┐
//!  source ─► Report ─► Believer ─► Feed ─┬─┼─► plan ─► Desired (State) ─┐                       │
//!  (poll, stream,      (belief:          │ │   vip: VipTable            ├─ diff ─► Op ─► apply ─┼─► kernel
//!   agent, marathon,    holds tasks)     │ │   leases                   │                       │
//!   file)                                │ │          Actual (State) ◄──┴─ read ◄───────────────┼── kernel
//!                                        │ └──────┬──────────────┬──────────────────────────────┘
//!                                        │       Zone        PassReport
//!                                        │        ▼              ▼
//!                                        └─────► dns          Status ─► api ─► cli
//! ```
//!
//! Everything between a document and a list of operations is pure; sockets, files and clocks are in
//! [`source`], [`dataplane::kernel`], [`dns`], [`api`], [`store`] and [`reconcile`]. Sources give
//! complete pictures and the reconciler compares complete states, so that start, restart, drift and
//! retry are one code path.
//!
//! Minuteman is the load balancer of DC/OS, whose labels, names and addresses this one takes over.
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
//! A module uses only modules above it in this list. A test reads the list and the imports, and fails
//! where that is not so.
//!
//! Data and codecs, which know nothing of the rest:
//!
//! 1. [`units`]: times, rates and addresses as people write them, the clock of deadlines, and programs of the node
//! 2. [`metrics`]: counters, and their form for Prometheus
//! 3. [`cluster`]: the cluster as every source reports it, and how much of a new picture is believed
//! 4. [`netlink`]: wire formats and sockets of the kernel
//!
//! Wire formats, VIPs and the kernel:
//!
//! 5. [`mesos`]: documents and events of Mesos, read into the cluster
//! 6. [`marathon`]: answers of Marathon, read into verdicts on tasks
//! 7. [`vip`]: which VIPs tasks ask for, and which address each name gets; the same on all nodes
//! 8. [`dataplane`]: what the kernel should hold and does hold, and the operations between the two
//!
//! Files, decisions, and who is asked:
//!
//! 9. [`replica`]: the table by which one node tells all others what it believes
//! 10. [`store`]: files that survive a restart
//! 11. [`plan`]: which VIPs and backends this node serves
//! 12. [`source`]: requests to masters, agent, Marathon and files
//!
//! What clients and operators see:
//!
//! 13. [`dns`]: the DNS server and its zones
//! 14. [`status`]: the status document, its text, and the reasons for which an operator is needed
//! 15. [`events`]: the history of what changed, and why
//!
//! What runs:
//!
//! 16. [`reconcile`]: the loop that makes passes, and what a pass does
//! 17. [`exporter`]: metrics, when a program asks for them
//! 18. [`sampler`]: counters of all VIPs as they are now, while somebody looks on
//! 19. [`api`]: the status socket and its client, and HTTP for other programs
//! 20. [`doctor`]: what is wrong with a node, and what mends it
//! 21. [`config`]: the configuration file as a whole, which only `daemon` and `cli` see
//! 22. [`daemon`]: all parts wired, started and ended; settings of each part from the configuration
//!
//! What people start:
//!
//! 23. [`terminal`]: full-screen use of the terminal
//! 24. [`top`]: the screen of the VIPs that lead by a figure
//! 25. [`demo`]: the demonstration
//! 26. [`cli`]: commands, output and exit codes
//!
//! # Where new things go
//!
//! Each list is complete. A test looks whether the places exist. Paths are below `src/` unless they
//! start with another directory of the project.
//!
//! **A source** of the cluster's state:
//!
//! - `source/NAME.rs`: implements [`source::Source`], with a variant of `source.rs::Error` for its failures
//! - `source/configured.rs::sources`: its line; `source/configured.rs::open`: the settings for which it is
//!   opened, and its role
//! - `source/settings.rs`: its keys, each as below, and with them a variant of `source.rs::Mode` or
//!   `source/location.rs::Location`
//! - `config/check.rs::servers`: which of its keys go together
//! - `daemon/wiring.rs::origins`: its servers for the status; `daemon/wiring.rs::infrastructure`: their
//!   addresses, which no label may ask for
//! - `cli/check.rs::named_files`: files that its keys name
//! - `systemd/man/l4lbd.toml.5`: the section SOURCES
//!
//! **A data plane**:
//!
//! - `dataplane/plane/NAME.rs`: implements [`dataplane::plane::Plane`] and states its
//!   [`dataplane::Capabilities`]; its module is declared in `dataplane/plane.rs`
//! - `dataplane/node.rs::PlaneKind`: its name, in `ALL` and `Display` too
//! - `dataplane/kernel.rs::capabilities`, `dataplane/kernel.rs::open`: its arms;
//!   `dataplane/kernel.rs::KernelOptions`: its options
//! - `dataplane/settings.rs`: its settings struct; `config.rs::Config`: the section;
//!   `daemon/wiring.rs::kernel`: options from settings
//! - `doctor/gather.rs::table`, `doctor/judge/others.rs::capabilities`: its arms
//! - `cli/demo.rs::DataPlaneArg`: its name for the demonstration
//! - `tests/kernel/toolkit/plane.rs::Plane`: its name for the tests; `tests/kernel/suite.rs::tests`: they run
//!   once for each plane
//! - `systemd/man/l4lbd-networks.7`: how it differs
//!
//! The plan, the status and the monitors need no change: they ask for capabilities, never for the plane.
//! `purge` asks every plane.
//!
//! **A command**:
//!
//! - `cli/NAME.rs`: its `Args`, with a method `run`; its module is declared in `cli.rs`
//! - `cli.rs::Command`: a variant, whose doc comment is the help; `cli.rs::run`: its arm
//! - `L4LBD_WRITE=1 cargo test --test pages` writes its part of l4lbd(8), and `L4LBD_WRITE=1 cargo test --test
//!   package` the completions
//!
//! **A configuration key**:
//!
//! - the settings struct of its section, in `settings` of its module or in `config.rs`: one field, whose doc
//!   comment is the help
//! - `daemon/wiring.rs`: its value, as the module takes it
//! - `config/check.rs::problems`: limits that its type does not have, and keys that it goes with
//! - `config/tests.rs::DEFAULTS`: its default, which no upgrade may change by accident
//! - `L4LBD_WRITE=1 cargo test --lib config` writes the sample file, and `L4LBD_WRITE=1 cargo test --test
//!   pages` l4lbd.toml(5)
//!
//! **A reason for which the status is degraded**:
//!
//! - `status/build.rs::table_reasons` if it follows from cluster, configuration and node alone, so that
//!   `l4lbd explain` shows it as well; otherwise `status/build.rs::reasons`
//! - `systemd/man/l4lbd.8`: the section "Reasons for DEGRADED"
//!
//! **A warning about a label** that gives a VIP but was probably meant otherwise:
//!
//! - `vip/doubtful.rs::doubt`: how it is found, and its sentence
//! - `systemd/man/l4lbd-labels.7`: the section "Labels that were probably meant otherwise"
//!
//! **A warning** about VIPs that work, but not as their users may expect:
//!
//! - `plan/warnings.rs::warnings`, from what `plan/desired.rs::Desired` holds; `l4lbd explain` and
//!   `l4lbd plan` show it as well
//! - `reconcile/publish.rs::warnings` if it follows from a reading of the kernel or from DNS
//!
//! **A fact about tasks, agents or frameworks** that labels, policy or balance read, so that followers have it:
//!
//! - `replica/messages.rs`: a field with a number of its own, which no older format has
//! - `replica/encode.rs::task_row`, `replica/encode.rs::agent_row`, `replica/encode.rs::framework_row`,
//!   `replica/decode.rs::Decoder`: how it is written and read
//! - `replica/tests/clusters.rs`: clusters at random have it
//!
//! **A label** beside `VIP_N`:
//!
//! - `cluster/port_options.rs::PortOptions`: its value, and how it is read
//! - `vip/table.rs::ask`: what it means for a VIP whose tasks disagree
//! - `systemd/man/l4lbd-labels.7`: the section "Labels beside it"
//!
//! **A check of `l4lbd doctor`**:
//!
//! - `doctor/facts.rs::NodeFacts`: what it goes by; `doctor/gather.rs::facts` reads it, and changes nothing
//! - `doctor/judge.rs::findings`: its line, with a pure function in a module below
//! - `systemd/man/l4lbd.8`: the section DOCTOR
//!
//! **An event** of the history:
//!
//! - `events/event.rs::EventKind`: its name; `events/event.rs::is_warning`: whether an operator may have to look
//! - `events/cluster.rs::changes` if it follows from two feeds, `events/table.rs::PassView` if it follows from a
//!   pass, otherwise `events/recorder.rs::note` where it happens
//! - `systemd/man/l4lbd.8`: the section EVENTS, where a test misses it
//!
//! **A metric**:
//!
//! - `source/metrics.rs`, `dns/metrics.rs`, `reconcile/metrics.rs`: a [`metrics::Family`] and its samples, where it
//!   is known; `exporter/table.rs` for a figure of VIPs, `exporter/overview.rs` for one of the status
//! - `tests/pages/generate.rs::group`: the heading under which l4lbd-metrics(7) has it, which `L4LBD_WRITE=1 cargo
//!   test --test pages` writes
//! - `systemd/monitoring/grafana.json`, `systemd/monitoring/l4lbd.rules.yml`: a panel, or an alert with its test
//!
//! **A figure about passes**:
//!
//! - `status/pass.rs::PassReport`: one field; `reconcile/pass.rs::pass` fills it in
//! - `status.rs::Pass`: the figure for programs, with `serde(default)`; `reconcile/publish.rs::record` takes it
//!   from the report. A figure of passes that change something goes into `status/pass.rs::Change` instead
//! - `status/text.rs::kernel`, or `Display` of `Change`: the figure for people
//! - `systemd/man/l4lbd.8`: the section JSON, where a test misses it

// Only the calls that eBPF has no library for, and one of the allocator; see dataplane::ebpf and daemon::allocator.
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
pub mod doctor;
pub mod events;
pub mod exporter;
pub mod marathon;
pub mod mesos;
pub mod metrics;
pub mod netlink;
pub mod plan;
pub mod reconcile;
pub mod replica;
pub mod sampler;
pub mod source;
pub mod status;
pub mod store;
pub mod terminal;
pub mod top;
pub mod units;
pub mod vip;

#[cfg(test)]
mod layers;
