//! What clients ask the loop for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::figures::{FigurePage, Wanted};
use crate::dataplane::ServiceKey;
use crate::dataplane::connects::Connects;
use crate::status::document::{Document, Rest, VipFilter};
use crate::status::story::Stories;
use crate::status::top::{Rates, TopQuery, TopTable};
use crate::vip::VipKey;

/// Request to compare the kernel with what it should hold.
#[derive(Debug)]
pub struct PassRequest {
    /// Receives the time of the status that tells of the pass.
    pub done: oneshot::Sender<Timestamp>,
}

/// Question for the status or for metrics, which is answered without a pass, from what the last one left.
#[derive(Debug)]
pub enum Question {
    /// The beginning of the document that lists these VIPs.
    Status { wanted: VipFilter, answer: oneshot::Sender<Document> },
    /// The next piece of it.
    More { rest: Rest, answer: oneshot::Sender<Document> },
    /// Figures for metrics.
    Figures { wanted: Wanted, answer: oneshot::Sender<FigurePage> },
    /// Connects to all VIPs, counted anew with all connections; `None` where the plane cannot do that at once.
    CountAll { answer: oneshot::Sender<Option<BTreeMap<ServiceKey, Connects>>> },
    /// The VIPs that lead by a figure.
    Top { query: TopQuery, rates: Arc<Rates>, answer: oneshot::Sender<TopTable> },
    /// The stories of the VIPs of a pattern or a task.
    Story { vip: String, answer: oneshot::Sender<Stories> },
    /// The VIPs of a pattern or a task.
    Keys { vip: String, answer: oneshot::Sender<BTreeSet<VipKey>> },
}
