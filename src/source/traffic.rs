//! Traffic with the servers of a source, counted where it happens.

use crate::metrics::Counter;

/// Reason why an HTTP request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFailure {
    Connect,
    Timeout,
    Status,
    Redirect,
    Credentials,
    Body,
}

impl RequestFailure {
    /// All reasons with their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Connect, "connect"),
        (Self::Timeout, "timeout"),
        (Self::Status, "status"),
        (Self::Redirect, "redirect"),
        (Self::Credentials, "credentials"),
        (Self::Body, "body"),
    ];
}

/// Traffic with the servers of a source.
#[derive(Debug, Default)]
pub struct Traffic {
    pub received: Counter,
    /// By reason.
    pub failures: [Counter; RequestFailure::ALL.len()],
}

impl Traffic {
    /// Counts bytes of an answer.
    pub fn receive(&self, bytes: usize) {
        self.received.add(bytes as u64);
    }

    /// Counts a request that failed.
    pub fn fail(&self, failure: RequestFailure) {
        if let Some(counter) = self.failures.get(failure as usize) {
            counter.increment();
        }
    }
}
