//! What the operator decides about sources; sections of the configuration file.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::credentials::TokenScheme;
use super::secret::Keeper;
use super::size::Rate;
use super::{Location, Mode};

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

/// How to show servers who asks, and how to know them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    pub basic: Option<Keeper>,
    pub token: Option<Keeper>,
    pub token_scheme: TokenScheme,
    pub service_account: Option<Keeper>,
    pub tls_ca: Option<PathBuf>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
}

/// A length of time, written like `2s`, `10m` or `24h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub fn as_seconds(self) -> u32 {
        u32::try_from(self.0.as_secs()).unwrap_or(u32::MAX)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let span: jiff::SignedDuration = text.parse().map_err(|_| {
            serde::de::Error::custom(format!("{text:?} is not a time such as 2s, 10m or 24h"))
        })?;
        Duration::try_from(span).map(Self).map_err(|_| serde::de::Error::custom("a time can't be negative"))
    }
}
