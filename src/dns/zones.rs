//! The zones: which names exist, and the records that they have.
//!
//! What belongs here: one file for each kind of zone ([`vips`], [`reverse`], [`tasks`] over the
//! [`Directory`]), and [`catalog`], which finds the zone of a name. Pure values, replaced as a whole; new
//! ones are made by [`super::publisher`].

pub mod catalog;
mod directory;
pub mod reverse;
mod shared;
pub mod tasks;
pub mod vips;

pub use directory::{Directory, Group, TaskEntry};
pub use tasks::AnswerWindow;
