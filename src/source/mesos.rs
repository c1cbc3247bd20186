//! Masters and agents of Mesos as sources.

pub mod election;
pub mod masters;
pub mod poll;
pub mod stream;
pub mod subscription;
