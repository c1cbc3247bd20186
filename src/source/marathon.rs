//! Marathon as a source, asked in intervals and after its events.
//!
//! Events have no promised order and may get lost, so that they trigger requests, and otherwise tell only
//! which of the tasks have ended that an answer does not list any more. Every Marathon
//! answers for the leader, except for events, for which it redirects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::http::{Accept, Call, HttpClient, HttpDocument, TrustedServers, cause};
use super::location::{below, without_credentials};
use super::schedule::{PollSchedule, jittered};
use super::settings;
use super::traffic::Traffic;
use super::{Error, Fetched, Location, Source};
use crate::cluster::TaskKey;
use crate::marathon::{
    APPS, DepartedTasks, EventStream, INFO, MarathonInfo, MarathonMemory, MarathonView, PODS,
};
use crate::units::steady::steady_now;

/// Time after which the listed Marathons are asked again who tells the events.
const BELIEVED: Duration = Duration::from_secs(5 * 60);

/// Pause before events are followed again.
const RETRY: Duration = Duration::from_secs(5);

/// Events that come within `SETTLE` make one request, and requests are at least `SPACING` apart.
const SETTLE: Duration = Duration::from_millis(20);
const SPACING: Duration = Duration::from_millis(500);

/// Longest wait for the resolver to find the addresses of all agents.
const RESOLVING: Duration = Duration::from_secs(5);

/// Ends of tasks that events tell between two requests.
const MAX_ENDED: usize = 10_000;

/// Path of the events after which tasks, their health or apps may have changed.
const EVENTS: &str = "/v2/events?plan-format=light&event_type=status_update_event\
    &event_type=instance_health_changed_event&event_type=health_status_changed_event\
    &event_type=instance_changed_event&event_type=deployment_step_success&event_type=deployment_success\
    &event_type=deployment_failed";

/// The Marathons of a cluster, any of which answers for all.
///
/// Has no `Debug`: URLs may hold credentials.
pub struct MarathonSource {
    http: Arc<HttpClient>,
    urls: Vec<Url>,
    interval: Duration,
    /// Set if Marathon is the only source: agents' addresses are then known by their names only.
    alone: bool,
    memory: Arc<MarathonMemory>,
    departed: DepartedTasks,
    /// URL and content of the last good answer.
    last: Option<(String, MarathonView)>,
    /// Time of the last request.
    asked: Option<Instant>,
    events: Arc<Events>,
    _following: AbortOnDropHandle<()>,
}

/// News that events have brought since the last request.
#[derive(Default)]
struct Events {
    arrived: Notify,
    /// Ids of tasks that have ended.
    ended: Mutex<BTreeSet<String>>,
}

impl Events {
    fn add_ended(&self, ids: Vec<String>) {
        if ids.is_empty() {
            return;
        }
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_ENDED.saturating_sub(ended.len());
        ended.extend(ids.into_iter().take(room));
    }

    fn take_ended(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Knowledge of an earlier run.
#[derive(Clone, Debug, Default)]
pub struct Earlier {
    pub memory: Option<MarathonMemory>,
    /// Tasks that were believed.
    pub tasks: BTreeSet<TaskKey>,
}

impl MarathonSource {
    /// Goes on from what an earlier run knew, and starts to follow events, which needs an async runtime.
    pub fn new(
        marathon: &settings::Marathon,
        source: &settings::Source,
        earlier: Earlier,
    ) -> Result<Self, Error> {
        let urls: Vec<Url> = marathon.urls.iter().filter_map(Location::url).cloned().collect();
        let servers = TrustedServers::new("marathon.urls", &urls, source.redirects.clone());
        let http = Arc::new(HttpClient::new(&marathon.access(source), servers, source.timeout.0)?);
        let events = Arc::<Events>::default();
        let following = tokio::spawn(follow(http.clone(), urls.clone(), events.clone()));
        Ok(Self {
            http,
            urls,
            interval: marathon.interval.0,
            alone: source.is_marathon_alone(),
            memory: Arc::new(earlier.memory.unwrap_or_default()),
            departed: DepartedTasks::after(earlier.tasks),
            last: None,
            asked: None,
            events,
            _following: AbortOnDropHandle::new(following),
        })
    }

    /// Puts the answers of one Marathon together.
    async fn ask(&self, marathon: &Url) -> Result<MarathonView, String> {
        let fail = |error: String| format!("{}: {error}", without_credentials(marathon));
        let info = self.get(marathon, INFO).await?.decode().map_err(|error| fail(error.to_string()))?;
        let info = MarathonInfo::parse(&info).map_err(|error| fail(error.to_string()))?;
        let apps = self.get(marathon, APPS).await?;
        let pods = if info.has_pods() { Some(self.get(marathon, PODS).await?) } else { None };
        // Read in windows, off the async threads.
        let parse = move || MarathonView::read(&info, apps.reader(), pods.map(HttpDocument::reader));
        let parsed = tokio::task::spawn_blocking(parse).await;
        parsed.map_err(|error| fail(error.to_string()))?.map_err(|error| fail(error.to_string()))
    }

    async fn get(&self, marathon: &Url, path: &str) -> Result<HttpDocument, String> {
        self.http.document(&at(marathon, path), Call::Get).await.map(|(_, document)| document)
    }
}

/// Finds the addresses of agents that are known by name.
async fn resolve(view: &mut MarathonView) {
    let agents = view.snapshot.agents.values_mut().filter(|agent| agent.address.is_none());
    let lookups = agents.map(async |agent| {
        let found = tokio::net::lookup_host((agent.hostname.as_str(), 0)).await;
        agent.address = found.ok().and_then(|mut found| found.next()).map(|address| address.ip());
    });
    // All at once: in a large cluster one slow name would otherwise delay the rest.
    let _ = tokio::time::timeout(RESOLVING, futures_util::future::join_all(lookups)).await;
}

/// Returns the URL of a path with a query below the address of a Marathon.
fn at(marathon: &Url, path: &str) -> Url {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut url = below(marathon, path);
    url.set_query(query);
    url
}

impl Source for MarathonSource {
    type Item = MarathonView;

    async fn next(&mut self) -> Result<Fetched<MarathonView>, Error> {
        self.asked = Some(Instant::now());
        let mut failures = Vec::new();
        // The first that answers: each of them asks the leader.
        for marathon in &self.urls {
            let mut view = match self.ask(marathon).await {
                Ok(view) => view,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            let origin = without_credentials(marathon);
            let now = steady_now();
            let mut memory = MarathonMemory::clone(&self.memory);
            memory.judge(&mut view, now);
            let ended = self.events.take_ended();
            if self.alone {
                // Masters know the end of a task for certain.
                self.departed.tell(ended, now);
                self.departed.add(&mut view, now);
                resolve(&mut view).await;
                memory.complete_hosts(&mut view, now);
            }
            // The same one is not written again.
            if *self.memory != memory {
                self.memory = Arc::new(memory);
            }
            let is_known = self.last.as_ref().is_some_and(|(_, last)| *last == view);
            self.last = Some((origin, view.clone()));
            return Ok(if is_known { Fetched::Unchanged } else { Fetched::New(view) });
        }
        Err(Error::Marathon(failures))
    }

    fn origin(&self) -> String {
        self.last.as_ref().map(|(origin, _)| origin.clone()).unwrap_or_default()
    }

    fn memory(&self) -> Option<Arc<MarathonMemory>> {
        // Before the first answer of all runs there is none.
        (*self.memory != MarathonMemory::default()).then(|| Arc::clone(&self.memory))
    }

    fn schedule(&self) -> PollSchedule {
        PollSchedule { interval: self.interval, ..PollSchedule::default() }
    }

    fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(self.http.traffic())
    }

    fn servers(&self) -> BTreeMap<IpAddr, String> {
        self.http.asked().list()
    }

    async fn wake(&mut self) {
        self.events.arrived.notified().await;
        // A deployment makes many events at once.
        tokio::time::sleep(SETTLE).await;
        if let Some(asked) = self.asked {
            tokio::time::sleep_until(asked + SPACING).await;
        }
    }
}

/// Notifies of every event, at one Marathon after the other and without an end.
async fn follow(http: Arc<HttpClient>, urls: Vec<Url>, events: Arc<Events>) {
    loop {
        for url in &urls {
            // A Marathon to which only a redirect led is left after a while, as such a master is.
            let listened = timeout(BELIEVED, listen(&http, url, &events)).await;
            if let Ok(Err(error)) = listened {
                tracing::debug!(error, "cannot follow the events of Marathon, asking it in intervals only");
            }
        }
        tokio::time::sleep(jittered(RETRY)).await;
    }
}

/// Notifies of the events of one Marathon until their stream ends.
async fn listen(http: &HttpClient, marathon: &Url, events: &Events) -> Result<(), String> {
    let (url, mut response) = http.stream(&at(marathon, EVENTS), Call::Get, Accept::Events).await?;
    // Changes before the stream began had no event.
    events.arrived.notify_one();
    let mut stream = EventStream::default();
    let read = async |response: &mut reqwest::Response| response.chunk().await.map_err(|error| cause(&error));
    while let Some(piece) =
        read(&mut response).await.map_err(|e| format!("{}: {e}", without_credentials(&url)))?
    {
        http.traffic().receive(piece.len());
        events.add_ended(stream.push(&piece));
        // Empty lines and comments only keep the connection alive.
        if piece.iter().any(|byte| !byte.is_ascii_whitespace() && *byte != b':') {
            events.arrived.notify_one();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
