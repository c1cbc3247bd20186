//! What clients ask the loop for.

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::figures::{FigurePage, Wanted};
use crate::status::document::{Document, Rest};

/// Request to compare the kernel with what it should hold.
#[derive(Debug)]
pub struct PassRequest {
    /// Receives the time of the status that tells of the pass.
    pub done: oneshot::Sender<Timestamp>,
}

/// Question for the status or for metrics, which is answered without a pass, from what the last one left.
#[derive(Debug)]
pub enum Question {
    /// The beginning of the document; with a name or an address of a VIP, one that lists that VIP alone.
    Status { vip: Option<String>, answer: oneshot::Sender<Document> },
    /// The next piece of it.
    More { rest: Rest, answer: oneshot::Sender<Document> },
    /// Figures for metrics.
    Figures { wanted: Wanted, answer: oneshot::Sender<FigurePage> },
}
