//! `SUBSCRIBE` at the leading master: events as they come.
//!
//! While no master takes this node as a subscriber, the state document is polled instead.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::masters::{self, Masters};
use super::poll::MesosPoll;
use super::subscription::Subscription;
use crate::cluster::Snapshot;
use crate::source::schedule::PollSchedule;
use crate::source::traffic::Traffic;
use crate::source::{Error, Fetched, Source, settings};

/// A stream that ended sooner than this is not opened again without a pause.
const SHORT: Duration = Duration::from_secs(30);

/// Longest pause before a stream that lasted longer is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// A source that follows the events of one master after the other.
pub struct MesosStream {
    masters: Masters,
    config: settings::Source,
    subscription: Option<Subscription>,
    /// The poll in place of a subscription.
    instead: Option<MesosPoll>,
}

impl MesosStream {
    /// Follows the leading one of `config.masters`, which needs an async runtime if there are elections.
    pub fn new(config: &settings::Source) -> Result<Self, Error> {
        let masters = Masters::new(config)?;
        Ok(Self { masters, config: config.clone(), subscription: None, instead: None })
    }

    /// Subscribes, or else asks for the state document.
    async fn subscribe_or_poll(&mut self) -> Result<Fetched, Error> {
        let error = match self.subscribe().await {
            Ok(fetched) => {
                self.instead = None;
                return Ok(fetched);
            }
            Err(error) => error,
        };
        // Warned once, and not for every poll.
        let is_new = self.instead.is_none();
        let traffic = self.traffic();
        let poll = match &mut self.instead {
            Some(poll) => poll,
            none => none.insert(MesosPoll::instead(&self.config, traffic)?),
        };
        // The reason for the failed subscription says more: it names every master as well.
        let Ok(fetched) = poll.next().await else { return Err(error) };
        if is_new {
            tracing::warn!(%error, "no master takes this node as a subscriber, polling the state document instead");
        }
        Ok(fetched)
    }

    /// Subscribes at the first master that allows it.
    async fn subscribe(&mut self) -> Result<Fetched, Error> {
        let (candidates, mut failures) = self.masters.candidates().await;
        for master in candidates {
            let url = masters::operator(&master);
            match Subscription::open(&self.masters.http, &url, &self.config).await {
                Ok(subscription) => {
                    self.masters.set_leader(&url, subscription.url());
                    let snapshot = subscription.snapshot().clone();
                    self.subscription = Some(subscription);
                    return Ok(Fetched::New(snapshot));
                }
                Err(failure) => failures.push(failure),
            }
        }
        // Next time the listed masters come first again: the leader may be another one.
        self.masters.forget_leader();
        Err(Error::Masters(failures))
    }
}

impl Source for MesosStream {
    type Item = Snapshot;

    async fn next(&mut self) -> Result<Fetched, Error> {
        // A stream can last for ever, and so would a wrong redirect.
        if self.masters.is_leader_overdue() && !self.masters.confirm_leader().await {
            self.subscription = None;
        }
        let Some(subscription) = &mut self.subscription else { return self.subscribe_or_poll().await };
        let (error, lasted) = match subscription.next().await {
            Ok(fetched) => return Ok(fetched),
            Err(error) => (error, subscription.opened().elapsed()),
        };
        self.subscription = None;
        tracing::info!(error, "the stream of events ended, subscribing again");
        // A master with too many subscribers drops the oldest one. If that came back at once, all of
        // them would take turns without an end.
        if lasted < SHORT {
            return Err(Error::Masters(vec![error]));
        }
        // All nodes lose their stream when a master ends, and should not meet the next one at once.
        tokio::time::sleep(REOPEN.mul_f64(rand::random())).await;
        self.subscribe_or_poll().await
    }

    fn origin(&self) -> String {
        match (&self.subscription, &self.instead) {
            (Some(subscription), _) => self.masters.origin(subscription.url()),
            (None, Some(poll)) => poll.origin(),
            (None, None) => String::new(),
        }
    }

    fn schedule(&self) -> PollSchedule {
        match (&self.subscription, &self.instead) {
            (None, Some(poll)) => PollSchedule { stream_refused: true, ..poll.schedule() },
            (Some(subscription), _) => subscription.schedule().clone(),
            (None, None) => PollSchedule::stream(self.config.budget, self.config.resync.0, 0, 0),
        }
    }

    fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(self.masters.http.traffic())
    }

    fn servers(&self) -> BTreeMap<IpAddr, String> {
        let instead = self.instead.iter().flat_map(Source::servers);
        instead.chain(self.masters.servers()).collect()
    }

    async fn wake(&mut self) {
        self.masters.leader_changed().await;
    }
}

#[cfg(test)]
mod tests;
