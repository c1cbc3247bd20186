//! `GET /master/state` of the leading master, or `GET /state` of the node's own agent, again and again.

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::masters::{self, Masters};
use crate::cluster::Snapshot;
use crate::mesos::StateFormat;
use crate::mesos::reading::{DocumentReader, Reading};
use crate::source::http::Call;
use crate::source::location::{below, without_credentials};
use crate::source::schedule::PollSchedule;
use crate::source::traffic::Traffic;
use crate::source::{Error, Fetched, Location, Source, settings};

/// Pause between an election and the request to the new leader, which needs a moment until it answers.
const ELECTED: Duration = Duration::from_millis(100);

/// A source that polls the state document of masters, or of the node's own agent.
pub struct MesosPoll {
    masters: Masters,
    config: settings::Source,
    is_agent: bool,
    /// Knows the items of the last document.
    reader: DocumentReader,
    /// Key of the hash of whole answers.
    key: RandomState,
    last: Option<PolledDocument>,
}

/// Properties of the last good answer.
struct PolledDocument {
    origin: String,
    hash: u64,
    agents: usize,
    bytes: usize,
}

impl MesosPoll {
    /// Polls the leading one of `config.masters`, which needs an async runtime if there are elections.
    pub fn new(config: &settings::Source) -> Result<Self, Error> {
        Ok(Self::of(Masters::new(config)?, config))
    }

    /// Polls as [`Self::new`] does, in place of another source that has this traffic.
    pub fn instead(config: &settings::Source, traffic: Arc<Traffic>) -> Result<Self, Error> {
        Ok(Self::of(Masters::counting(config, traffic)?, config))
    }

    /// Polls the node's own agent, whose document has the same shape.
    pub fn agent(config: &settings::Source) -> Result<Self, Error> {
        let state = config.agent.url().map(|agent| Location::Http(below(agent, "/state")));
        let masters = state.into_iter().collect();
        let config = settings::Source { masters, ..config.clone() };
        let masters = Masters::listed_in("source.agent", &config, Arc::default())?;
        Ok(Self { is_agent: true, ..Self::of(masters, &config) })
    }

    fn of(masters: Masters, config: &settings::Source) -> Self {
        Self {
            masters,
            config: config.clone(),
            is_agent: false,
            reader: DocumentReader::default(),
            key: RandomState::new(),
            last: None,
        }
    }
}

impl Source for MesosPoll {
    type Item = Snapshot;

    async fn next(&mut self) -> Result<Fetched, Error> {
        let (candidates, mut failures) = self.masters.candidates().await;
        for master in candidates {
            let asked = masters::state(&master);
            let (url, document) = match self.masters.http.document(&asked, Call::Get).await {
                Ok(answer) => answer,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            // Most documents are those of the last time, and need not be read again.
            let (hash, bytes) = (document.hash(&self.key), document.wire_size());
            if let Some(last) = self.last.as_mut().filter(|last| last.hash == hash) {
                self.masters.set_leader(&asked, &url);
                last.origin = self.masters.origin(&url);
                return Ok(Fetched::Unchanged);
            }
            // Documents may have many megabytes, which would keep an async thread busy for seconds.
            let mut reader = std::mem::take(&mut self.reader);
            let read = move || {
                let read = reader.read(document.reader(), StateFormat::V0, true);
                (reader, read)
            };
            let (reader, read) = tokio::task::spawn_blocking(read).await?;
            self.reader = reader;
            match read {
                Ok(Reading { snapshot, is_same, .. }) => {
                    self.masters.set_leader(&asked, &url);
                    let origin = self.masters.origin(&url);
                    self.last = Some(PolledDocument { origin, hash, agents: snapshot.agents.len(), bytes });
                    // Offers, resources in use and other members differ all the time and matter to nothing here.
                    return Ok(if is_same { Fetched::Unchanged } else { Fetched::New(snapshot) });
                }
                Err(error) => failures.push(format!("{}: {error}", without_credentials(&url))),
            }
        }
        // Next time the listed masters come first again: the leader may be another one.
        self.masters.forget_leader();
        Err(if self.is_agent { Error::Agent(failures) } else { Error::Masters(failures) })
    }

    fn origin(&self) -> String {
        self.last.as_ref().map(|last| last.origin.clone()).unwrap_or_default()
    }

    fn schedule(&self) -> PollSchedule {
        let (agents, bytes) = self.last.as_ref().map_or((0, 0), |last| (last.agents, last.bytes));
        PollSchedule::within(self.config.budget, self.config.interval.0, agents, bytes)
    }

    fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(self.masters.http.traffic())
    }

    fn servers(&self) -> BTreeMap<IpAddr, String> {
        self.masters.servers()
    }

    async fn wake(&mut self) {
        self.masters.leader_changed().await;
        tokio::time::sleep(ELECTED).await;
    }
}

#[cfg(test)]
mod tests;
