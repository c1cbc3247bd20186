//! `SUBSCRIBE` at the leading master: events as they come.
//!
//! The stream does not tell everything (an agent that is lost, a new address of a running task), so
//! the whole state is asked for now and then as well; events since that question are repeated over
//! the answer. A stream that has been silent for three heartbeats is given up. Events that come
//! together make one snapshot. While no master takes us as a subscriber, the state document is polled.

use std::time::Duration;

use reqwest::{Response, Url};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::http::{Accept, Ask, Document, cause};
use super::location::without_credentials;
use super::masters::{self, Masters};
use super::pace::Pace;
use super::poll::Poll;
use super::{Error, Fetched, Source, settings};
use crate::cluster::Snapshot;
use crate::mesos;
use crate::mesos::live::{Live, Told};
use crate::mesos::recordio::Decoder;

/// Longest record; the first one holds the whole state, 2 kB for a task.
const MAX_RECORD: usize = 1 << 30;

/// Records longer than this are read off the async threads.
const LONG_RECORD: usize = 64 * 1024;

/// Time between heartbeats, where the master does not say.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Heartbeats that may be missing.
const MISSING: u32 = 3;

/// A snapshot is made when no event has come for this long, and at the latest after `BURST`.
const QUIET: Duration = Duration::from_millis(2);
const BURST: Duration = Duration::from_millis(25);

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

/// A subscription.
struct Open {
    url: Url,
    since: Instant,
    response: Response,
    decoder: Decoder,
    live: Live,
    heartbeat: Duration,
    heard: Instant,
    resync_at: Instant,
    resync: Option<Resync>,
    /// When the first and the last event came that no snapshot has yet.
    changed: Option<(Instant, Instant)>,
}

/// A question for the whole state, and the records since it was asked.
struct Resync {
    answer: AbortOnDropHandle<Result<Document, String>>,
    since: Vec<String>,
}

/// What there is to do next.
enum Event {
    Piece(Option<Vec<u8>>),
    Silence,
    Quiet,
    ResyncDue,
    State(Result<Document, String>),
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

impl Open {
    async fn event(&mut self) -> Result<Event, String> {
        let silence = self.heard + self.heartbeat * MISSING;
        let quiet = self.changed.map(|(first, last)| (last + QUIET).min(first + BURST));
        if quiet.is_some_and(|quiet| Instant::now() >= quiet) {
            // However much there is to read.
            return Ok(Event::Quiet);
        }
        let waiting = self.resync.is_none();
        tokio::select! {
            piece = self.response.chunk() => match piece {
                Ok(piece) => Ok(Event::Piece(piece.map(Into::into))),
                Err(error) => Err(cause(&error)),
            },
            () = sleep_until(quiet.unwrap_or(silence)), if quiet.is_some() => Ok(Event::Quiet),
            () = sleep_until(silence) => Ok(Event::Silence),
            answer = answer(&mut self.resync), if !waiting => Ok(Event::State(answer)),
            () = sleep_until(self.resync_at), if waiting => Ok(Event::ResyncDue),
        }
    }

    /// Takes a piece of the stream in. Returns whether something was told, be it that the master lives.
    async fn take(&mut self, piece: &[u8]) -> Result<bool, String> {
        self.heard = Instant::now();
        self.decoder.push(piece);
        let mut told_any = false;
        while let Some(record) = self.decoder.next_record().map_err(|error| error.to_string())? {
            let record = String::from_utf8_lossy(&record).into_owned();
            let told = self.record(record).await?;
            told_any = true;
            match told {
                Told::Nothing => {}
                Told::Subscribed(heartbeat) => self.heartbeat = heartbeat.unwrap_or(HEARTBEAT),
                Told::Changed => {
                    let first = self.changed.map_or(self.heard, |(first, _)| first);
                    self.changed = Some((first, self.heard));
                }
            }
        }
        Ok(told_any)
    }

    async fn record(&mut self, record: String) -> Result<Told, String> {
        if record.len() < LONG_RECORD {
            let told = read_record(&mut self.live, &record)?;
            if let Some(resync) = &mut self.resync
                && told == Told::Changed
            {
                resync.since.push(record);
            }
            return Ok(told);
        }
        let mut live = std::mem::take(&mut self.live);
        let read = move || read_record(&mut live, &record).map(|told| (live, told));
        let (live, told) = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())??;
        self.live = live;
        Ok(told)
    }

    /// Puts the whole state in place of what events made of an earlier one. Returns whether that
    /// makes a difference.
    async fn resync(&mut self, document: Document) -> Result<bool, String> {
        let since = self.resync.take().map(|resync| resync.since).unwrap_or_default();
        let mut live = std::mem::take(&mut self.live);
        let read = move || {
            let before = live.snapshot().clone();
            let bytes = document.decode().map_err(|error| error.to_string())?;
            live.resync(&String::from_utf8_lossy(&bytes), since.iter().map(String::as_str))
                .map_err(|error| error.to_string())?;
            check_rights(&live, &bytes)?;
            let differs = *live.snapshot() != before;
            Ok::<_, String>((live, differs))
        };
        let (live, differs) =
            tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())??;
        self.live = live;
        let changed = self.changed.take().is_some();
        Ok(differs || changed)
    }
}

fn read_record(live: &mut Live, record: &str) -> Result<Told, String> {
    let told = live.record(record).map_err(|error| format!("an event that cannot be read: {error}"))?;
    if let Told::Subscribed(_) = told {
        check_rights(live, record.as_bytes())?;
    }
    Ok(told)
}

fn check_rights(live: &Live, document: &[u8]) -> Result<(), String> {
    match live.snapshot().tasks.is_empty() && mesos::hides_tasks(document) {
        true => Err(mesos::HIDDEN.to_owned()),
        false => Ok(()),
    }
}

async fn answer(resync: &mut Option<Resync>) -> Result<Document, String> {
    match resync {
        Some(resync) => (&mut resync.answer).await.unwrap_or_else(|error| Err(error.to_string())),
        None => std::future::pending().await,
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
