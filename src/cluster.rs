//! The normalised cluster: the form in which every source reports it, whatever its wire format.
//!
//! What belongs here: plain data about tasks, agents, masters and frameworks, Minuteman's rules for
//! labels and names, [`belief`], which decides how much of a new snapshot is believed, and [`claims`],
//! which finds who has an address. No I/O, no clock, and no import of another module of this crate.
//! Which tasks become backends of which
//! VIP is decided in [`crate::vip`].

pub mod belief;
pub mod claims;
pub mod dns_label;
mod few;
pub mod port_options;
mod protocol;
pub mod registry;
pub mod shared;
mod skipped;
mod snapshot;
mod task;

pub use few::Few;
pub use port_options::{Locality, PortOptions};
pub use protocol::Protocol;
pub use registry::TaskRegistry;
pub use shared::{SharedMap, SharedSet};
pub use skipped::{Skipped, shortened};
pub use snapshot::{Agent, Master, Snapshot};
pub use task::{
    MAX_LABELS, MAX_VALUE, Runtime, Task, TaskAddress, TaskKey, TaskPort, TaskState, VipLabel, app_of,
};
