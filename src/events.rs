//! The history of this node: what changed in its table, when, and why.
//!
//! What belongs here: events and their words ([`event`]), how many are kept, in which shares ([`history`]), what
//! follows from two states of the cluster ([`cluster`]) and from a pass ([`table`]), which events a client asks for
//! ([`filter`]), and the part that writes them to the state directory and the log ([`recorder`]). All but the
//! recorder and the [`observer`] that feeds it is pure.
//!
//! An event is made from a difference that is known anyway: the tasks in which two snapshots differ, the operations
//! of a pass, the servers that begin or end to drain. Nothing goes through the table for it. At most
//! [`event::MOST`] events come of one document or pass, in fair shares; one more tells how many are left out.
//!
//! For example, a task with two connections that is killed gives
//!
//! ```text
//! 12:00:01  task-ended   web.marathon:80  the task has ended after it was told to stop   (task web.1)
//! 12:00:01  drain-begun  web.marathon:80  10.0.0.2:8080 keeps its 2 connections until 12:01:01
//! 12:01:01  drain-ended  web.marathon:80  10.0.0.2:8080 is deleted: 1 connection was cut
//! ```

pub mod cluster;
pub mod event;
pub mod filter;
pub mod history;
pub mod observer;
pub mod recorder;
pub mod table;

pub use event::{Event, EventKind, Happening};
pub use filter::EventFilter;
pub use recorder::Recorder;
