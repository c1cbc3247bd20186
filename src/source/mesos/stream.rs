//! `SUBSCRIBE` at the leading master: events as they come.
//!
//! The stream does not tell everything (an agent that is lost, a new address of a running task), so
//! the whole state is asked for now and then as well; events since that question are repeated over
//! the answer. A stream that has been silent for three heartbeats is given up. Events that come
//! together make one snapshot. While no master takes us as a subscriber, the state document is polled.

use std::time::Duration;

use reqwest::Url;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::masters::{self, Masters};
use super::poll::Poll;
use super::subscription::{Event, HEARTBEAT, MAX_RECORD, MISSING, Open, Resync};
use crate::cluster::Snapshot;
use crate::mesos;
use crate::mesos::live::Live;
use crate::mesos::recordio::Decoder;
use crate::source::http::{Accept, Ask, cause};
use crate::source::location::without_credentials;
use crate::source::schedule::Pace;
use crate::source::{Error, Fetched, Source, settings};

/// A stream that ended sooner than this is not opened again without a pause.
const SHORT: Duration = Duration::from_secs(30);

/// Longest pause before one that lasted longer is.
const REOPEN: Duration = Duration::from_secs(1);

/// Follows the events of one master after the other.
pub struct Stream {
    masters: Masters,
    config: settings::Source,
    open: Option<Open>,
    /// For as long as there is no subscription.
    instead: Option<Poll>,
    place: String,
    pace: Pace,
}

impl Stream {
    /// Starts to follow elections where there are some; needs an async runtime then.
    pub fn new(config: &settings::Source) -> Result<Self, Error> {
        Ok(Self {
            masters: Masters::new(config)?,
            config: config.clone(),
            open: None,
            instead: None,
            place: String::new(),
            pace: Pace::events(config.resync.0, 0, 0, config.budget),
        })
    }

    /// Subscribes, or else asks for the state document.
    async fn open_or_poll(&mut self) -> Result<Fetched, Error> {
        let error = match self.open().await {
            Ok(fetched) => {
                self.instead = None;
                return Ok(fetched);
            }
            Err(error) => error,
        };
        let is_new = self.instead.is_none();
        let poll = match &mut self.instead {
            Some(poll) => poll,
            none => none.insert(Poll::new(&self.config)?),
        };
        let Ok(fetched) = poll.next().await else { return Err(error) };
        if is_new {
            tracing::warn!(%error, "no master tells of changes, asking for the whole state instead");
        }
        self.place = poll.place();
        self.pace = Pace { eventless: true, ..poll.pace() };
        Ok(fetched)
    }

    /// Subscribes at the first master that lets us.
    async fn open(&mut self) -> Result<Fetched, Error> {
        let (candidates, mut failures) = self.masters.candidates().await;
        for master in candidates {
            match self.subscribe(&master).await {
                Ok(open) => {
                    self.masters.found(&open.url);
                    self.place = without_credentials(&open.url);
                    self.pace = Pace::events(self.config.resync.0, 0, 0, self.config.budget);
                    return Ok(Fetched::New(self.open.insert(open).live.snapshot().clone()));
                }
                Err(failure) => failures.push(failure),
            }
        }
        self.masters.lost();
        Err(Error::Masters(failures))
    }

    async fn subscribe(&self, master: &Url) -> Result<Open, String> {
        let http = &self.masters.http;
        let url = masters::operator(master);
        // Events do not say who leads, which decides what is believed after a fail-over.
        let (url, document) = http.document(&url, Ask::Post(r#"{"type":"GET_MASTER"}"#)).await?;
        let shown = without_credentials(&url);
        let fail = |error: String| format!("{shown}: {error}");
        let document = document.decode().map_err(|error| fail(error.to_string()))?;
        let leader = mesos::parse_master(&document).map_err(|error| fail(error.to_string()))?;
        let (url, response) =
            http.stream(&url, Ask::Post(r#"{"type":"SUBSCRIBE"}"#), Accept::Records).await?;
        let now = Instant::now();
        let mut live = Live::default();
        live.set_master(leader);
        let mut open = Open {
            url,
            since: now,
            response,
            decoder: Decoder::new(MAX_RECORD),
            live,
            heartbeat: HEARTBEAT,
            heard: now,
            resync_at: now + self.config.resync.0.mul_f64(0.8 + 0.4 * rand::random::<f64>()),
            resync: None,
            changed: None,
        };
        let deadline = now + self.config.timeout.0;
        while !open.live.is_subscribed() {
            let piece = timeout_at(deadline, open.response.chunk()).await;
            let piece = piece.map_err(|_| fail("no state in time".to_owned()))?;
            let piece = piece.map_err(|error| fail(cause(&error)))?;
            let piece = piece.ok_or_else(|| fail("the stream ended before the state".to_owned()))?;
            open.take(&piece).await.map_err(fail)?;
        }
        open.changed = None;
        Ok(open)
    }
}

impl Source for Stream {
    type Item = Snapshot;

    async fn next(&mut self) -> Result<Fetched, Error> {
        let Some(since) = self.open.as_ref().map(|open| open.since) else { return self.open_or_poll().await };
        let error = match self.follow().await {
            Ok(followed) => return Ok(followed),
            Err(error) => format!("{}: {error}", self.place),
        };
        self.open = None;
        tracing::info!(error, "the stream of events ended");
        // A master with too many subscribers drops the oldest, who should not come back at once.
        if since.elapsed() < SHORT {
            return Err(Error::Masters(vec![error]));
        }
        tokio::time::sleep(REOPEN.mul_f64(rand::random())).await;
        self.open_or_poll().await
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn pace(&self) -> Pace {
        self.pace.clone()
    }

    async fn wake(&mut self) {
        self.masters.changed().await;
    }
}

impl Stream {
    async fn follow(&mut self) -> Result<Fetched, String> {
        let Some(open) = &mut self.open else { return Ok(Fetched::Unchanged) };
        loop {
            match open.event().await? {
                Event::Piece(None) => return Err("the master ended the stream".to_owned()),
                Event::Piece(Some(piece)) => {
                    if open.take(&piece).await? && open.changed.is_none() {
                        return Ok(Fetched::Unchanged);
                    }
                }
                Event::Silence => return Err(format!("no heartbeat for {:?}", open.heartbeat * MISSING)),
                Event::Quiet => {
                    open.changed = None;
                    return Ok(Fetched::New(open.live.snapshot().clone()));
                }
                Event::ResyncDue => {
                    let (http, url) = (self.masters.http.clone(), open.url.clone());
                    let asked = async move {
                        let ask = Ask::Post(r#"{"type":"GET_STATE"}"#);
                        http.document(&url, ask).await.map(|(_, document)| document)
                    };
                    open.resync = Some(Resync {
                        answer: AbortOnDropHandle::new(tokio::spawn(asked)),
                        since: Vec::new(),
                    });
                }
                Event::State(document) => {
                    let document = document?;
                    let bytes = document.wire_size();
                    let differs = open.resync(document).await?;
                    let snapshot = open.live.snapshot();
                    let agents = snapshot.agents.len();
                    self.pace = Pace::events(self.config.resync.0, agents, bytes, self.config.budget);
                    open.resync_at =
                        Instant::now() + self.pace.interval.mul_f64(0.8 + 0.4 * rand::random::<f64>());
                    return Ok(if differs { Fetched::New(snapshot.clone()) } else { Fetched::Unchanged });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
