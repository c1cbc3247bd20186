//! The zones: which names exist, and the records that they have.
//!
//! What belongs here: one file for each kind of zone, and [`catalog`], which finds the zone of a name.
//! Pure values, replaced as a whole; who makes new ones is [`super::publisher`].

pub mod catalog;
mod directory;
pub mod reverse;
pub mod tasks;
pub mod vips;

pub use directory::{Directory, Group, TaskEntry};
