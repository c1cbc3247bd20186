//! Asks Marathon, again when its events say that something has changed.
//!
//! Events have no promised order and may get lost, so that they only trigger questions. Every
//! Marathon answers for the leader, except for events, for which it redirects.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::http::{Accept, Ask, Http, cause};
use super::location::without_credentials;
use super::mesos::masters::below;
use super::schedule::Pace;
use super::settings::{self, Access};
use super::{Error, Fetched, Location, Source};
use crate::marathon::{APPS, INFO, Info, PODS, View};

/// Pause before events are followed again.
const RETRY: Duration = Duration::from_secs(5);

/// Events that come together make one question, and no two questions are closer than `SPACING`.
const SETTLE: Duration = Duration::from_millis(20);
const SPACING: Duration = Duration::from_millis(500);

/// Longest wait for the addresses of all agents.
const RESOLVING: Duration = Duration::from_secs(5);

/// Events after which tasks, their health or the apps themselves may be others.
const EVENTS: &str = "/v2/events?plan-format=light&event_type=status_update_event\
    &event_type=instance_health_changed_event&event_type=health_status_changed_event\
    &event_type=instance_changed_event&event_type=deployment_step_success&event_type=deployment_success\
    &event_type=deployment_failed";

/// The Marathons of a cluster, of which any will do.
#[derive(Debug)]
pub struct Marathon {
    http: Arc<Http>,
    urls: Vec<Url>,
    interval: Duration,
    /// Whether agents' addresses are needed, because nobody else tells them.
    alone: bool,
    /// Addresses by the names of hosts, as they were last found.
    hosts: BTreeMap<String, IpAddr>,
    last: Option<(String, View)>,
    asked: Option<Instant>,
    events: Arc<Notify>,
    _following: AbortOnDropHandle<()>,
}

impl Marathon {
    /// Starts to follow events; needs an async runtime.
    pub fn new(marathon: &settings::Marathon, source: &settings::Source) -> Result<Self, Error> {
        let access = Access {
            tls_ca: source.access.tls_ca.clone(),
            tls_cert: source.access.tls_cert.clone(),
            tls_key: source.access.tls_key.clone(),
            ..marathon.access.clone()
        };
        let http = Arc::new(Http::new(&access, source.timeout.0)?);
        let urls: Vec<Url> = marathon.urls.iter().filter_map(Location::url).cloned().collect();
        let events = Arc::new(Notify::new());
        let following = tokio::spawn(follow(http.clone(), urls.clone(), events.clone()));
        Ok(Self {
            http,
            urls,
            interval: marathon.interval.0,
            alone: source.is_marathon_alone(),
            hosts: BTreeMap::new(),
            last: None,
            asked: None,
            events,
            _following: AbortOnDropHandle::new(following),
        })
    }

    async fn ask(&self, marathon: &Url) -> Result<View, String> {
        let fail = |error: String| format!("{}: {error}", without_credentials(marathon));
        let info = Info::parse(&self.get(marathon, INFO).await?).map_err(|error| fail(error.to_string()))?;
        let apps = self.get(marathon, APPS).await?;
        let pods = if info.has_pods() { Some(self.get(marathon, PODS).await?) } else { None };
        let parsed = tokio::task::spawn_blocking(move || View::parse(&info, &apps, pods.as_deref())).await;
        parsed.map_err(|error| fail(error.to_string()))?.map_err(|error| fail(error.to_string()))
    }

    async fn get(&self, marathon: &Url, path: &str) -> Result<Vec<u8>, String> {
        let (url, document) = self.http.document(&at(marathon, path), Ask::Get).await?;
        let decoded =
            tokio::task::spawn_blocking(|| document.decode()).await.map_err(|error| error.to_string())?;
        decoded.map_err(|error| format!("{}: {error}", without_credentials(&url)))
    }

    /// Finds the addresses of agents that are known by name. One that can't be found any more keeps
    /// its last.
    async fn resolve(&mut self, view: &mut View) {
        let agents = view.snapshot.agents.values_mut().filter(|agent| agent.address.is_none());
        let lookups = agents.map(async |agent| {
            let found = tokio::net::lookup_host((agent.hostname.as_str(), 0)).await;
            agent.address = found.ok().and_then(|mut found| found.next()).map(|address| address.ip());
        });
        let _ = tokio::time::timeout(RESOLVING, futures_util::future::join_all(lookups)).await;
        for agent in view.snapshot.agents.values_mut() {
            match agent.address {
                Some(address) => drop(self.hosts.insert(agent.hostname.clone(), address)),
                None => agent.address = self.hosts.get(&agent.hostname).copied(),
            }
        }
    }
}

/// A path with a query below the address of a Marathon.
fn at(marathon: &Url, path: &str) -> Url {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut url = below(marathon, path);
    url.set_query(query);
    url
}

impl Source for Marathon {
    type Item = View;

    async fn next(&mut self) -> Result<Fetched<View>, Error> {
        self.asked = Some(Instant::now());
        let mut failures = Vec::new();
        for marathon in &self.urls {
            let mut view = match self.ask(marathon).await {
                Ok(view) => view,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            let place = without_credentials(marathon);
            if self.alone {
                self.resolve(&mut view).await;
            }
            if self.last.as_ref().is_some_and(|(_, last)| *last == view) {
                self.last = Some((place, view));
                return Ok(Fetched::Unchanged);
            }
            self.last = Some((place, view.clone()));
            return Ok(Fetched::New(view));
        }
        Err(Error::Marathon(failures))
    }

    fn place(&self) -> String {
        self.last.as_ref().map(|(place, _)| place.clone()).unwrap_or_default()
    }

    fn pace(&self) -> Pace {
        Pace { interval: self.interval, ..Pace::default() }
    }

    async fn wake(&mut self) {
        self.events.notified().await;
        tokio::time::sleep(SETTLE).await;
        if let Some(asked) = self.asked {
            tokio::time::sleep_until(asked + SPACING).await;
        }
    }
}

/// Tells of every event, for as long as this is not dropped.
async fn follow(http: Arc<Http>, urls: Vec<Url>, events: Arc<Notify>) {
    loop {
        for url in &urls {
            if let Err(error) = listen(&http, url, &events).await {
                tracing::debug!(error, "cannot follow Marathon's events, asking in intervals only");
            }
        }
        tokio::time::sleep(RETRY.mul_f64(0.8 + 0.4 * rand::random::<f64>())).await;
    }
}

async fn listen(http: &Http, marathon: &Url, events: &Notify) -> Result<(), String> {
    let (url, mut response) = http.stream(&at(marathon, EVENTS), Ask::Get, Accept::Events).await?;
    // What happened before may not have been told.
    events.notify_one();
    let read = async |response: &mut reqwest::Response| response.chunk().await.map_err(|error| cause(&error));
    while let Some(piece) =
        read(&mut response).await.map_err(|e| format!("{}: {e}", without_credentials(&url)))?
    {
        // Lines that say nothing only keep the connection alive.
        if piece.iter().any(|byte| !byte.is_ascii_whitespace() && *byte != b':') {
            events.notify_one();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
