//! One subscription to the events of a master.
//!
//! Events do not tell everything (an agent that is lost, a new address of a running task), so that the
//! whole state is requested now and then as well; events since that request are repeated over the
//! answer. A stream that has been silent for three heartbeats is given up. Events that come together
//! make one snapshot.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Response, Url};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;
use tokio_util::task::AbortOnDropHandle;

use super::masters::GET_MASTER;
use crate::cluster::{Snapshot, shortened};
use crate::mesos;
use crate::mesos::live::{EventEffect, LiveCluster};
use crate::mesos::recordio::RecordDecoder;
use crate::source::http::{Accept, Call, HttpClient, HttpDocument, cause};
use crate::source::location::without_credentials;
use crate::source::schedule::{PollSchedule, jittered};
use crate::source::{Fetched, settings};

/// Longest record in bytes; the first one holds the whole state, 2 kB for a task.
const MAX_RECORD: usize = 1 << 30;

/// Records longer than this are read off the async threads.
const LONG_RECORD: usize = 64 * 1024;

/// Time between heartbeats, unless the master states it.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Heartbeats that may be missing in a row.
const MISSING: u32 = 3;

/// A snapshot is made when no event has come for this long, and at the latest after `BURST`.
const QUIET: Duration = Duration::from_millis(2);
const BURST: Duration = Duration::from_millis(25);

const ENDED: &str = "the master ended the stream of events; has it more subscribers than its flag \
                     --max_operator_event_stream_subscribers allows?";

/// An open subscription, with the state that its events lead to.
pub struct Subscription {
    http: Arc<HttpClient>,
    url: Url,
    config: settings::Source,
    opened: Instant,
    response: Response,
    /// Bytes of the stream that are not a whole record yet.
    buffer: BytesMut,
    decoder: RecordDecoder,
    live: LiveCluster,
    heartbeat: Duration,
    /// Time of the last byte.
    heard: Instant,
    schedule: PollSchedule,
    resync_at: Instant,
    resync: Option<Resync>,
    /// Times of the first and the last event that no snapshot has yet.
    changed: Option<(Instant, Instant)>,
}

/// A request for the whole state under way.
struct Resync {
    answer: AbortOnDropHandle<Result<HttpDocument, String>>,
    /// Records since the request.
    since: Vec<String>,
}

/// Next thing to do for a subscription.
enum Step {
    /// Take in a piece of the stream; `None` at its end.
    Read(Option<Bytes>),
    /// Give up a silent stream.
    GiveUp,
    /// Make a snapshot of the events that came together.
    Publish,
    /// Request the whole state.
    Request,
    /// Take in the whole state.
    Replace(Result<HttpDocument, String>),
}

impl Subscription {
    /// Subscribes at a master and waits for its state.
    ///
    /// # Errors
    /// A text for an operator with the URL of the master.
    pub async fn open(http: &Arc<HttpClient>, url: &Url, config: &settings::Source) -> Result<Self, String> {
        // Events do not name the leader, by which a fail-over is recognised.
        let (url, document) = http.document(url, GET_MASTER).await?;
        let shown = without_credentials(&url);
        let fail = |error: String| format!("{shown}: {error}");
        let document = document.decode().map_err(|error| fail(error.to_string()))?;
        let leader = mesos::parse_master(&document).map_err(|error| fail(error.to_string()))?;
        let (url, response) =
            http.stream(&url, Call::Post(r#"{"type":"SUBSCRIBE"}"#), Accept::Records).await?;
        let now = Instant::now();
        // The stream has begun; its state is still to come.
        let mut live = LiveCluster::default();
        live.set_master(leader);
        let mut subscription = Self {
            http: http.clone(),
            url,
            config: config.clone(),
            opened: now,
            response,
            buffer: BytesMut::new(),
            decoder: RecordDecoder::new(MAX_RECORD),
            live,
            heartbeat: HEARTBEAT,
            heard: now,
            schedule: PollSchedule::stream(config.budget, config.resync.0, 0, 0),
            resync_at: now + jittered(config.resync.0),
            resync: None,
            changed: None,
        };
        // The first record is the state.
        let timeout = config.timeout.0;
        while !subscription.live.is_subscribed() {
            let piece = timeout_at(now + timeout, subscription.response.chunk()).await;
            let piece =
                piece.map_err(|_| fail(format!("no state within {timeout:?}, which is source.timeout")))?;
            let piece = piece.map_err(|error| fail(cause(&error)))?;
            let piece =
                piece.ok_or_else(|| fail("the stream of events ended before the state".to_owned()))?;
            subscription.take(&piece).await.map_err(fail)?;
        }
        // The caller takes this first state at once.
        subscription.changed = None;
        Ok(subscription)
    }

    /// Returns the URL of the master's operator API, perhaps with credentials.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the URL without credentials.
    pub fn origin(&self) -> String {
        without_credentials(&self.url)
    }

    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Returns the state after the last event.
    pub fn snapshot(&self) -> &Snapshot {
        self.live.snapshot()
    }

    pub fn schedule(&self) -> &PollSchedule {
        &self.schedule
    }

    /// Waits until the state has changed or was confirmed.
    ///
    /// # Errors
    /// A text for an operator; the subscription is of no use any more.
    pub async fn next(&mut self) -> Result<Fetched, String> {
        let origin = self.origin();
        let at_origin = |error: String| format!("{origin}: {error}");
        loop {
            match self.step().await.map_err(at_origin)? {
                Step::Read(None) => {
                    return Err(at_origin(ENDED.to_owned()));
                }
                Step::Read(Some(piece)) => {
                    // A heartbeat confirms the state; an event waits for those that come with it.
                    if self.take(&piece).await.map_err(at_origin)? && self.changed.is_none() {
                        return Ok(Fetched::Unchanged);
                    }
                }
                Step::GiveUp => {
                    let silence = self.heartbeat * MISSING;
                    return Err(at_origin(format!(
                        "no heartbeat for {silence:?}; is the connection broken, or the master overloaded?"
                    )));
                }
                Step::Publish => {
                    self.changed = None;
                    return Ok(Fetched::New(self.live.snapshot().clone()));
                }
                Step::Request => self.request_state(),
                Step::Replace(document) => {
                    // A failed request names its server already.
                    let document = document?;
                    return Ok(match self.replace_state(document).await.map_err(at_origin)? {
                        true => Fetched::New(self.live.snapshot().clone()),
                        false => Fetched::Unchanged,
                    });
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Step, String> {
        let silence = self.heard + self.heartbeat * MISSING;
        let quiet = self.changed.map(|(first, last)| (last + QUIET).min(first + BURST));
        // Before the stream is read: a flood of events must not hold snapshots back.
        if quiet.is_some_and(|quiet| Instant::now() >= quiet) {
            return Ok(Step::Publish);
        }
        // One request for the whole state at a time.
        let waiting = self.resync.is_none();
        tokio::select! {
            piece = self.response.chunk() => piece.map(Step::Read).map_err(|error| cause(&error)),
            () = sleep_until(quiet.unwrap_or(silence)), if quiet.is_some() => Ok(Step::Publish),
            () = sleep_until(silence) => Ok(Step::GiveUp),
            answer = answer(&mut self.resync), if !waiting => Ok(Step::Replace(answer)),
            () = sleep_until(self.resync_at), if waiting => Ok(Step::Request),
        }
    }

    /// Takes in a piece of the stream. Returns true if a whole record came with it, be it a heartbeat.
    async fn take(&mut self, piece: &[u8]) -> Result<bool, String> {
        self.heard = Instant::now();
        self.http.traffic().receive(piece.len());
        self.buffer.extend_from_slice(piece);
        let mut any = false;
        while let Some(record) = self.decoder.decode(&mut self.buffer).map_err(|error| error.to_string())? {
            any = true;
            match self.apply(String::from_utf8_lossy(&record).into_owned()).await? {
                EventEffect::None => {}
                EventEffect::Subscribed(heartbeat) => self.heartbeat = heartbeat.unwrap_or(HEARTBEAT),
                EventEffect::Changed => {
                    let first = self.changed.map_or(self.heard, |(first, _)| first);
                    self.changed = Some((first, self.heard));
                }
            }
        }
        Ok(any)
    }

    async fn apply(&mut self, record: String) -> Result<EventEffect, String> {
        let (effect, record) = if record.len() < LONG_RECORD {
            (read_record(&mut self.live, &record)?, record)
        } else {
            let mut live = std::mem::take(&mut self.live);
            let read = move || read_record(&mut live, &record).map(|effect| (live, effect, record));
            let read = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
            let (live, effect, record) = read?;
            self.live = live;
            (effect, record)
        };
        // The answer to a request under way may not know of this event yet.
        if effect == EventEffect::Changed
            && let Some(resync) = &mut self.resync
        {
            resync.since.push(record);
        }
        Ok(effect)
    }

    /// Starts a request for the whole state, beside the stream.
    fn request_state(&mut self) {
        let (http, url) = (self.http.clone(), self.url.clone());
        let asked = async move {
            let call = Call::Post(r#"{"type":"GET_STATE"}"#);
            http.document(&url, call).await.map(|(_, document)| document)
        };
        let answer = AbortOnDropHandle::new(tokio::spawn(asked));
        self.resync = Some(Resync { answer, since: Vec::new() });
    }

    /// Replaces the state by a whole one. Returns true if that, or an event before it, makes a
    /// difference.
    async fn replace_state(&mut self, document: HttpDocument) -> Result<bool, String> {
        let bytes = document.wire_size();
        let since = self.resync.take().map(|resync| resync.since).unwrap_or_default();
        let mut live = std::mem::take(&mut self.live);
        // Long documents are read off the async threads.
        let read = move || {
            let before = live.snapshot().clone();
            let answer = document.reader();
            live.resync(answer, since.iter().map(String::as_str)).map_err(|error| error.to_string())?;
            check_rights(&live)?;
            let differs = *live.snapshot() != before;
            Ok::<_, String>((live, differs))
        };
        let (live, differs) =
            tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())??;
        self.live = live;
        let agents = self.live.snapshot().agents.len();
        self.schedule = PollSchedule::stream(self.config.budget, self.config.resync.0, agents, bytes);
        self.resync_at = Instant::now() + jittered(self.schedule.interval);
        let changed = self.changed.take().is_some();
        Ok(differs || changed)
    }
}

fn read_record(live: &mut LiveCluster, record: &str) -> Result<EventEffect, String> {
    // The parser's text may quote the event.
    let unreadable = |error: String| format!("an event that cannot be read: {}", shortened(error));
    let effect = live.record(record).map_err(|error| unreadable(error.to_string()))?;
    if let EventEffect::Subscribed(_) = effect {
        check_rights(live)?;
    }
    Ok(effect)
}

/// Refuses a state without the tasks that run: every VIP would go.
fn check_rights(live: &LiveCluster) -> Result<(), String> {
    match live.hides_tasks() {
        true => Err(mesos::HIDDEN.to_owned()),
        false => Ok(()),
    }
}

async fn answer(resync: &mut Option<Resync>) -> Result<HttpDocument, String> {
    match resync {
        Some(resync) => (&mut resync.answer).await.unwrap_or_else(|error| Err(error.to_string())),
        None => std::future::pending().await,
    }
}
