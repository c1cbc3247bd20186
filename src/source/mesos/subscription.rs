//! One subscription to the events of a master.

use std::time::Duration;

use reqwest::{Response, Url};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::mesos;
use crate::mesos::live::{Live, Told};
use crate::mesos::recordio::Decoder;
use crate::source::http::{Document, cause};

/// Longest record; the first one holds the whole state, 2 kB for a task.
pub const MAX_RECORD: usize = 1 << 30;

/// Records longer than this are read off the async threads.
const LONG_RECORD: usize = 64 * 1024;

/// Time between heartbeats, where the master does not say.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Heartbeats that may be missing.
pub const MISSING: u32 = 3;

/// A snapshot is made when no event has come for this long, and at the latest after `BURST`.
const QUIET: Duration = Duration::from_millis(2);
const BURST: Duration = Duration::from_millis(25);

/// A subscription.
pub struct Open {
    pub url: Url,
    pub since: Instant,
    pub response: Response,
    pub decoder: Decoder,
    pub live: Live,
    pub heartbeat: Duration,
    pub heard: Instant,
    pub resync_at: Instant,
    pub resync: Option<Resync>,
    /// When the first and the last event came that no snapshot has yet.
    pub changed: Option<(Instant, Instant)>,
}

/// A question for the whole state, and the records since it was asked.
pub struct Resync {
    pub answer: AbortOnDropHandle<Result<Document, String>>,
    pub since: Vec<String>,
}

/// What there is to do next.
pub enum Event {
    Piece(Option<Vec<u8>>),
    Silence,
    Quiet,
    ResyncDue,
    State(Result<Document, String>),
}

impl Open {
    pub async fn event(&mut self) -> Result<Event, String> {
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
    pub async fn take(&mut self, piece: &[u8]) -> Result<bool, String> {
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
    pub async fn resync(&mut self, document: Document) -> Result<bool, String> {
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
