//! Masters, agent and Marathon: what the daemon would hear from them, and what their clocks say.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use reqwest::Url;
use reqwest::header::DATE;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cluster::Snapshot;
use crate::doctor::facts::{Known, ServerFacts};
use crate::doctor::settings::DoctorSettings;
use crate::source::configured::ConfiguredSources;
use crate::source::http::credentials::Access;
use crate::source::http::redirects::Redirects;
use crate::source::http::{Accept, Call, HttpClient, TrustedServers};
use crate::source::location::{below, without_credentials};
use crate::source::marathon::Earlier;
use crate::source::{Fetched, Location, Mode, Source, settings};

/// Longest wait for a state document.
const STATE: Duration = Duration::from_secs(8);

/// Longest wait for a clock.
const CLOCK: Duration = Duration::from_secs(3);

/// Servers whose clocks are looked at.
const MAX_CLOCKS: usize = 8;

/// Asks every server once, as the daemon does.
pub async fn ask(doctor: &DoctorSettings) -> Vec<ServerFacts> {
    // One document rather than events, of which a master can serve few clients.
    let mode = if doctor.source.mode == Mode::Agent { Mode::Agent } else { Mode::Poll };
    // However long the daemon may wait, a slow server must not hold up the other checks.
    let timeout = crate::units::Span(doctor.source.timeout.0.min(STATE));
    let source = settings::Source { mode, timeout, ..doctor.source.clone() };
    let (mut states, clocks) =
        tokio::join!(states(&source, &doctor.marathon), clocks(&source, &doctor.marathon));
    // A leader that was found by an election or a redirect has a clock as well.
    let known: BTreeSet<String> = clocks.iter().map(|server| server.url.clone()).collect();
    for state in &mut states {
        let Some(origin) = Url::parse(&state.url).ok().filter(|_| matches!(state.state, Some(Ok(_)))) else {
            continue;
        };
        let mut root = origin;
        root.set_path("");
        root.set_query(None);
        if state.key != "marathon.urls" && !known.contains(&without_credentials(&root)) {
            state.clock =
                clock(&source.access(), source.redirects.clone(), state.key, &root, "/health").await;
        }
    }
    states.into_iter().chain(clocks).collect()
}

async fn states(source: &settings::Source, marathon: &settings::Marathon) -> Vec<ServerFacts> {
    let facts = |key, url, state| ServerFacts { key, url, state: Some(state), clock: Err(String::new()) };
    let sources = match ConfiguredSources::open(source, marathon, Earlier::default()) {
        Ok(sources) => sources,
        Err(error) => return vec![facts("source", String::new(), Err(error.to_string()))],
    };
    let ConfiguredSources { cluster, agent, marathon } = sources;
    let cluster = async {
        match cluster {
            Some(source) => Some(first(source, |snapshot: &Snapshot| counted(snapshot)).await),
            None => None,
        }
    };
    let agent = async {
        match agent {
            Some(source) => Some(first(source, |snapshot: &Snapshot| counted(snapshot)).await),
            None => None,
        }
    };
    let marathon = async {
        match marathon {
            Some(source) => Some(first(source, |_| "apps and pods can be read".to_owned()).await),
            None => None,
        }
    };
    let (cluster, agent, marathon) = tokio::join!(cluster, agent, marathon);
    let keyed = [("source.masters", cluster), ("source.agent", agent), ("marathon.urls", marathon)];
    keyed.into_iter().filter_map(|(key, asked)| asked.map(|(url, state)| facts(key, url, state))).collect()
}

fn counted(snapshot: &Snapshot) -> String {
    format!("{} agents, {} tasks with VIPs", snapshot.agents.len(), snapshot.tasks.len())
}

/// Asks a source once; returns where its answer came from, and what is in it.
async fn first<S: Source>(mut source: S, describe: impl Fn(&S::Item) -> String) -> (String, Known<String>) {
    let asked = timeout(STATE, source.next()).await;
    let state = match asked {
        Ok(Ok(Fetched::New(item))) => Ok(describe(&item)),
        Ok(Ok(Fetched::Unchanged)) => Ok("unchanged".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "no answer in {} s; is the server overloaded, or a firewall in between?",
            STATE.as_secs()
        )),
    };
    (source.origin(), state)
}

/// Looks at the clocks of the servers that are configured by URL.
async fn clocks(source: &settings::Source, marathon: &settings::Marathon) -> Vec<ServerFacts> {
    let masters = source.masters.iter().filter_map(Location::url);
    let masters = masters.map(|url| ("source.masters", url, "/health", source.access()));
    let agent = (source.mode == Mode::Agent).then(|| source.agent.url()).flatten();
    let agent = agent.map(|url| ("source.agent", url, "/health", source.access()));
    let marathons = marathon.urls.iter().filter_map(Location::url);
    let marathons = marathons.map(|url| ("marathon.urls", url, "/ping", marathon.access(source)));
    // Each by itself: one that does not answer must not hold up the rest.
    let mut looks = JoinSet::new();
    for (key, url, path, access) in masters.chain(agent).chain(marathons).take(MAX_CLOCKS) {
        let (url, redirects) = (url.clone(), source.redirects.clone());
        looks.spawn(async move {
            let clock = clock(&access, redirects, key, &url, path).await;
            ServerFacts { key, url: without_credentials(&url), state: None, clock }
        });
    }
    looks.join_all().await
}

/// Returns the seconds that a server's clock is ahead, by the header of its answer to a question that needs no
/// rights.
async fn clock(
    access: &Access,
    redirects: Redirects,
    key: &'static str,
    url: &Url,
    path: &str,
) -> Known<i64> {
    let servers = TrustedServers::new(key, [url], redirects);
    let client = HttpClient::new(access, servers, CLOCK).map_err(|error| error.to_string())?;
    let sent = SystemTime::now();
    let (_, response) = client.stream(&below(url, path), Call::Get, Accept::Json).await?;
    // The server has written its time about halfway between question and answer.
    let half = sent.elapsed().unwrap_or_default() / 2;
    let date = response.headers().get(DATE).and_then(|value| value.to_str().ok());
    let date = date.and_then(|text| jiff::fmt::rfc2822::parse(text).ok()).ok_or("it tells no time")?;
    let here = jiff::Timestamp::try_from(sent + half).map_err(|error| error.to_string())?;
    Ok(date.timestamp().as_second() - here.as_second())
}
