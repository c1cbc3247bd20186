//! The screen of `l4lbd top`: VIPs with what flows through them.
//!
//! What belongs here: the model, which input changes ([`model`]), and its picture ([`view`]). Both are pure; the command
//! asks the daemon, reads the keys, and draws.
//!
//! ```text
//! key, answer, failure, time ─► TopModel::update ─► TopModel ─► view::draw ─► one frame
//!                                                      └──────► TopModel::query ─► the next question
//! ```

pub mod model;
pub mod view;

#[cfg(test)]
mod tests;
