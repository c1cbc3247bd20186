//! Metrics of the whole daemon, put together when a program asks for them.
//!
//! What belongs here: one scrape (this file), the figures of VIPs and backends ([`table`]) with the choice of those
//! whose backends are told ([`mod@choice`]), what the status has (`overview`), and the process (`process`).
//! The counts of other modules are only written here.
//!
//! A scrape makes no pass. The figures of VIPs come from the reconciler in pages, each of which takes less than a
//! millisecond of its time; the kernel's counters come over a connection of their own; all else is in counters or in
//! the last status. There is one scrape at a time, and all who ask within a moment get the same.
//!
//! ```text
//! source, dns, reconcile ─ counters ──────────────────────────┐
//! reconciler ─ pages of 1,000 VIPs ─ choice ─ their backends ─┼─► Exposition ─► text
//! kernel ─ one dump of all services ──────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::dataplane::ServiceKey;
use crate::dataplane::traffic::{ReadTraffic, Traffic};
use crate::dns::metrics::DnsMetrics;
use crate::dns::usage::UsageRegistry;
use crate::metrics::histogram::Histogram;
use crate::metrics::{self, Collect, Family, Format, Writer};
use crate::reconcile::Question;
use crate::reconcile::figures::{FigurePage, PAGE, VipFigures, Wanted};
use crate::reconcile::metrics::PassMetrics;
use crate::source::metrics::SourceMetrics;
use crate::status::Status;
use choice::Choice;
use live::Live;
use overview::Overview;
use process::Process;
use table::Table;

pub mod choice;
pub mod live;
mod overview;
mod process;
pub mod table;

#[cfg(test)]
mod tests;

/// Time within which the same scrape is the answer to all who ask.
const SHARED: Duration = Duration::from_secs(1);

/// Longest wait for a page of the reconciler, which may be in a long change of the kernel.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bounds of the time of a scrape in seconds.
const BOUNDS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

const SCRAPES: Family = Family::histogram(
    "l4lbd_scrape_duration_seconds",
    &[],
    "Time to make earlier answers like this one; requests within a second of one another have the same answer",
);

/// Failure to write metrics.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("writing the metrics was cut short inside of l4lbd: {0}; see the log")]
    Task(#[from] tokio::task::JoinError),
    #[error("the metrics cannot be written")]
    Write(#[from] fmt::Error),
}

/// Settings of metrics.
#[derive(Clone, Copy, Debug)]
pub struct ExporterSettings {
    /// VIPs whose backends have metrics of their own.
    pub detailed: usize,
}

/// Ingredients of metrics.
pub struct Inputs {
    /// Counters of the daemon's parts.
    pub parts: Vec<Arc<dyn Collect>>,
    pub questions: mpsc::Sender<Question>,
    pub statuses: watch::Receiver<Arc<Status>>,
    /// Use of what clients of DNS share.
    pub dns_usage: UsageRegistry,
    /// Reader of the kernel's counters; `None` if the plane has none.
    pub traffic: Option<Box<dyn ReadTraffic>>,
}

/// Returns all families that the daemon exports, in their order.
///
/// # Errors
/// When they cannot be written, which a test shows not to happen.
pub fn families() -> Result<Vec<Family>, Error> {
    // Families do not depend on figures, so that empty parts show all of them.
    let own = own_parts(Overview::default(), Arc::default(), Arc::new(Took::default()), Process::default());
    let parts: [Arc<dyn Collect>; 3] =
        [Arc::<SourceMetrics>::default(), Arc::<PassMetrics>::default(), Arc::<DnsMetrics>::default()];
    Ok(metrics::write(own.into_iter().chain(parts).collect(), Format::Prometheus)?.1)
}

/// Makes scrapes. Copies share what is made.
#[derive(Clone)]
pub struct Exporter(Arc<ExporterState>);

struct ExporterState {
    settings: ExporterSettings,
    parts: Vec<Arc<dyn Collect>>,
    questions: mpsc::Sender<Question>,
    statuses: watch::Receiver<Arc<Status>>,
    dns_usage: UsageRegistry,
    traffic: Arc<Mutex<Option<Box<dyn ReadTraffic>>>>,
    /// Held while a scrape is made.
    last: tokio::sync::Mutex<Last>,
    took: Arc<Took>,
}

/// The last scrape.
#[derive(Default)]
struct Last {
    taken: Option<Taken>,
    /// Figures of the last scrape to which the reconciler gave them.
    table: Arc<Table>,
    choice: Choice,
    /// Figures for people, and the time of the reading.
    live: Live,
    live_at: Option<Instant>,
}

/// A scrape that is shared for a moment.
struct Taken {
    at: Instant,
    parts: Vec<Arc<dyn Collect>>,
    texts: Vec<(Format, Bytes)>,
}

/// Time of scrapes.
struct Took(Histogram);

impl Default for Took {
    fn default() -> Self {
        Self(Histogram::new(BOUNDS))
    }
}

impl Collect for Took {
    fn collect(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        writer.family(SCRAPES, |samples| samples.histogram([], &self.0.counts()))
    }
}

/// Returns what this module itself has to tell.
fn own_parts(
    overview: Overview,
    table: Arc<Table>,
    took: Arc<Took>,
    process: Process,
) -> [Arc<dyn Collect>; 4] {
    [Arc::new(overview), table, took, Arc::new(process)]
}

impl Exporter {
    pub fn new(settings: ExporterSettings, inputs: Inputs) -> Self {
        let Inputs { parts, questions, statuses, dns_usage, traffic } = inputs;
        Self(Arc::new(ExporterState {
            settings,
            parts,
            questions,
            statuses,
            dns_usage,
            traffic: Arc::new(Mutex::new(traffic)),
            last: tokio::sync::Mutex::default(),
            took: Arc::default(),
        }))
    }

    /// Returns the metrics as text.
    ///
    /// # Errors
    /// When they cannot be written.
    pub async fn scrape(&self, format: Format) -> Result<Bytes, Error> {
        let shared = &self.0;
        // Further clients wait here, and get the same.
        let mut last = shared.last.lock().await;
        let started = Instant::now();
        let is_fresh = |taken: &Taken| started.duration_since(taken.at) < SHARED;
        let taken = match last.taken.take().filter(is_fresh) {
            Some(taken) => taken,
            None => {
                let parts = shared.take(&mut last).await?;
                Taken { at: started, parts, texts: Vec::new() }
            }
        };
        let taken = last.taken.insert(taken);
        if let Some((_, text)) = taken.texts.iter().find(|(known, _)| *known == format) {
            return Ok(text.clone());
        }
        let parts = taken.parts.clone();
        // Megabytes for thousands of VIPs, which would keep an async thread busy.
        let written = tokio::task::spawn_blocking(move || metrics::write(parts, format)).await?;
        let text = Bytes::from(written?.0);
        taken.texts.push((format, text.clone()));
        shared.took.0.observe(started.elapsed());
        self.forget_later(started);
        Ok(text)
    }

    /// Returns the figures of all VIPs, as all who ask within a moment get them; `None` if the reconciler has none yet, or
    /// no time.
    pub async fn live(&self) -> Option<Live> {
        let shared = &self.0;
        let mut last = shared.last.lock().await;
        let now = Instant::now();
        if last.live_at.is_none_or(|at| now.duration_since(at) >= SHARED) {
            let (vips, read_at, leases) = shared.vips().await?;
            let traffic = shared.traffic().await.ok()?;
            let taken_at = Some(Timestamp::now());
            let table = Table { vips, detailed: Vec::new(), traffic, read_at, leases, taken_at };
            last.live = std::mem::take(&mut last.live).followed_by(Arc::new(table));
            last.live_at = Some(now);
            self.forget_live_later(now);
        }
        Some(last.live.clone())
    }

    /// Frees figures that nobody has asked for again, so that rates are not made of them either.
    fn forget_live_later(&self, taken_at: Instant) {
        let shared = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(live::LONGEST).await;
            if let Some(shared) = shared.upgrade() {
                let mut last = shared.last.lock().await;
                if last.live_at == Some(taken_at) {
                    (last.live, last.live_at) = (Live::default(), None);
                }
            }
        });
    }

    /// Frees a scrape once nothing can ask for it any more.
    fn forget_later(&self, taken_at: Instant) {
        let shared = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(SHARED).await;
            if let Some(shared) = shared.upgrade() {
                let mut last = shared.last.lock().await;
                last.taken.take_if(|taken| taken.at <= taken_at);
            }
        });
    }
}

impl ExporterState {
    /// Takes all figures as they are now.
    async fn take(&self, last: &mut Last) -> Result<Vec<Arc<dyn Collect>>, Error> {
        // Without an answer in time, the figures of the last scrape stay, with their time.
        if let Some(table) = self.table(last).await? {
            last.table = Arc::new(table);
        }
        let status = self.statuses.borrow().clone();
        // The last status: making a new one would be a pass in all but name.
        let overview = Overview { status, usage: self.dns_usage.read() };
        let own = own_parts(overview, last.table.clone(), self.took.clone(), Process::read());
        Ok(own.into_iter().chain(self.parts.iter().cloned()).collect())
    }

    /// Asks the reconciler for all VIPs, with the time of their connections and the number of leases.
    async fn vips(&self) -> Option<(Vec<VipFigures>, Option<Timestamp>, [usize; 2])> {
        // In pages, between which changes of the table have their turn.
        let mut vips = Vec::new();
        let mut next = None;
        loop {
            let FigurePage { vips: more, next: after, read_at, leases } =
                self.page(Wanted::After(next)).await?;
            vips.extend(more);
            next = after;
            if next.is_none() {
                return Some((vips, read_at, leases));
            }
        }
    }

    /// Asks the kernel for its counters.
    async fn traffic(&self) -> Result<Option<BTreeMap<ServiceKey, Traffic>>, Error> {
        let traffic = self.traffic.clone();
        // The dump of 10,000 services takes milliseconds of a thread.
        let traffic = tokio::task::spawn_blocking(move || {
            let mut reader = traffic.lock().unwrap_or_else(PoisonError::into_inner);
            reader.as_mut().map(|reader| reader.read()).transpose()
        });
        Ok(traffic.await?.unwrap_or_else(|error| {
            tracing::debug!(error, "cannot read the traffic of VIPs");
            None
        }))
    }

    /// Asks the reconciler for all VIPs and the backends of some, and the kernel for its counters.
    async fn table(&self, last: &mut Last) -> Result<Option<Table>, Error> {
        let Some((vips, read_at, leases)) = self.vips().await else { return Ok(None) };
        // Choosing anew at each scrape would cost more than the figures.
        if !last.choice.is_of(&vips) {
            last.choice = Choice::new(&vips, self.settings.detailed);
        }
        let chosen = &last.choice.chosen;
        let mut detailed = Vec::with_capacity(chosen.len());
        // Of the chosen VIPs alone: backends are most of the text.
        for keys in chosen.chunks(PAGE) {
            let wanted = Wanted::Backends(Arc::new(keys.to_vec()));
            let Some(page) = self.page(wanted).await else { return Ok(None) };
            detailed.extend(page.vips);
        }
        let traffic = self.traffic().await?;
        Ok(Some(Table { vips, detailed, traffic, read_at, leases, taken_at: Some(Timestamp::now()) }))
    }

    /// Asks for a page; `None` if the reconciler is busy.
    async fn page(&self, wanted: Wanted) -> Option<FigurePage> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.questions.send(Question::Figures { wanted, answer }).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
    }
}
