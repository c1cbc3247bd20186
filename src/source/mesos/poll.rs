//! `GET /master/state` of the leading master, again and again.

use std::time::Duration;

use super::masters::{self, Masters, below};
use crate::cluster::Snapshot;
use crate::mesos::{self, Format};
use crate::source::http::{Ask, Document};
use crate::source::location::without_credentials;
use crate::source::schedule::Pace;
use crate::source::{Error, Fetched, Location, Source, settings};

/// Polls the state document.
#[derive(Debug)]
pub struct Poll {
    masters: Masters,
    config: settings::Source,
    /// What the last good answer was like.
    last: Option<Last>,
}

#[derive(Clone, Debug)]
struct Last {
    place: String,
    hash: u64,
    agents: usize,
    bytes: usize,
}

impl Poll {
    pub fn new(config: &settings::Source) -> Result<Self, Error> {
        Ok(Self { masters: Masters::new(config)?, config: config.clone(), last: None })
    }
}

impl Poll {
    /// Polls the node's own agent instead, whose document has the same shape.
    pub fn agent(config: &settings::Source) -> Result<Self, Error> {
        let state = config.agent.url().map(|agent| Location::Http(below(agent, "/state")));
        let masters = state.into_iter().collect();
        Self::new(&settings::Source { masters, ..config.clone() })
    }
}

impl Source for Poll {
    type Item = Snapshot;

    async fn next(&mut self) -> Result<Fetched, Error> {
        let (candidates, mut failures) = self.masters.candidates().await;
        for master in candidates {
            let url = masters::state(&master);
            let (url, document) = match self.masters.http.document(&url, Ask::Get).await {
                Ok(answer) => answer,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            let place = without_credentials(&url);
            let (hash, bytes) = (document.hash(), document.wire_size());
            if let Some(last) = self.last.as_mut().filter(|last| last.hash == hash) {
                last.place = place;
                self.masters.found(&url);
                return Ok(Fetched::Unchanged);
            }
            match tokio::task::spawn_blocking(move || read(document, Format::State)).await? {
                Ok(snapshot) => {
                    self.masters.found(&url);
                    self.last = Some(Last { place, hash, agents: snapshot.agents.len(), bytes });
                    return Ok(Fetched::New(snapshot));
                }
                Err(error) => failures.push(format!("{place}: {error}")),
            }
        }
        self.masters.lost();
        Err(Error::Masters(failures))
    }

    fn place(&self) -> String {
        self.last.as_ref().map(|last| last.place.clone()).unwrap_or_default()
    }

    fn pace(&self) -> Pace {
        let (agents, bytes) = self.last.as_ref().map_or((0, 0), |last| (last.agents, last.bytes));
        Pace::new(self.config.interval.0, agents, bytes, self.config.budget)
    }

    async fn wake(&mut self) {
        self.masters.changed().await;
        // The new leader needs a moment until it answers.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Decompresses and reads a document of a master.
pub fn read(document: Document, format: Format) -> Result<Snapshot, String> {
    let bytes = document.decode().map_err(|error| format!("cannot decompress the answer: {error}"))?;
    let snapshot = mesos::parse(&bytes, Some(format)).map_err(|error| error.to_string())?;
    if snapshot.tasks.is_empty() && mesos::hides_tasks(&bytes) {
        return Err(mesos::HIDDEN.to_owned());
    }
    Ok(snapshot)
}

#[cfg(test)]
mod tests;
