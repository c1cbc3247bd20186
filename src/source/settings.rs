//! What the operator decides about sources; sections of the configuration file.

pub use super::http::credentials::Access;
use super::{Location, Mode};
use crate::units::{Rate, Span};

#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub masters: Vec<Location>,
    pub mode: Mode,
    pub interval: Span,
    pub resync: Span,
    pub timeout: Span,
    pub max_backoff: Span,
    pub failover_hold: Span,
    pub mass_loss_polls: u32,
    pub budget: Rate,
    /// The node's own agent, for [`Mode::Agent`].
    pub agent: Location,
    pub access: Access,
}

impl Source {
    /// Whether nobody but Marathon is asked.
    pub fn is_marathon_alone(&self) -> bool {
        self.masters.is_empty() && self.mode != Mode::Agent
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Marathon {
    pub urls: Vec<Location>,
    pub interval: Span,
    /// Without TLS, which is that of [`Source`].
    pub access: Access,
}
