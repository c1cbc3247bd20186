//! Masters and agents of Mesos as sources.
//!
//! What belongs here: which master is asked for what. What an answer means is left to [`crate::mesos`].
//! [`poll`] asks for the state document, [`stream`] follows the events of the operator API. Both find
//! the leading master through [`masters`], which in turn follows [`election`]s in ZooKeeper.

pub mod election;
pub mod masters;
pub mod poll;
pub mod stream;
mod subscription;
