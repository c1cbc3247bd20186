//! Requests for events, and for the story of a VIP with its last ones.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::Access;
use crate::cluster::shortened;
use crate::events::recorder::Selected;
use crate::events::{Event, EventFilter};
use crate::reconcile::Question;
use crate::status::story::Stories;

/// Parameter of a request for events: time from which they count (RFC 3339).
pub const SINCE: &str = "since";

/// Parameter of a request for events: id of the last one that the client knows.
pub const AFTER: &str = "after";

/// Parameter of a request for events: name, pattern or address of a VIP, or id of a task that has some.
pub const VIP: &str = "vip";

/// Parameter of a request for events: id of a task.
pub const TASK: &str = "task";

/// Parameter of a request for events: wait for one if there is none yet.
pub const WAIT: &str = "wait";

/// Longest wait for an event, after which the answer has none. Shorter than clients wait for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// Media type of server-sent events.
const STREAM: &str = "text/event-stream";

/// Places for clients that follow events as a stream.
pub(super) const MOST_STREAMS: usize = 32;

/// Life of a stream, which ends before that of its connection, so that no event is cut off.
const STREAM_LIFE: Duration = Duration::from_secs(50);

/// Time without an event after which a stream shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Events of a VIP that its story has.
const OF_STORY: usize = 10;

/// Answer to a request for events.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct EventsAnswer {
    pub events: Vec<Arc<Event>>,
    /// Id of the newest event of all, after which the next request goes on.
    pub newest: u64,
}

/// Answer to a request for the story of a VIP.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StoryAnswer {
    #[serde(flatten)]
    pub stories: Stories,
    /// The last events of these VIPs.
    pub events: Vec<Arc<Event>>,
}

pub(super) async fn events(State(access): State<Access>, uri: Uri) -> Response {
    let (mut filter, vip, waits) = match wishes(uri.query().unwrap_or_default()) {
        Ok(wishes) => wishes,
        Err(error) => return (StatusCode::BAD_REQUEST, error).into_response(),
    };
    if let Some(vip) = vip {
        filter = access.of_vip(filter, vip).await;
    }
    let Some(selected) = access.await_events(&filter, waits).await else {
        let busy = "too many clients wait for events; ask again later, or without waiting";
        return (StatusCode::SERVICE_UNAVAILABLE, busy).into_response();
    };
    super::json(&EventsAnswer { events: selected.events, newest: selected.newest })
}

/// Reads the query of a request for events: the filter without its VIP, that VIP, and true to wait.
fn wishes(query: &str) -> Result<(EventFilter, Option<String>, bool), String> {
    let (mut filter, mut vip, mut waits) = (EventFilter::default(), None, false);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            SINCE => {
                let since = value.parse().map_err(|_| format!("{value:?} is no time by RFC 3339"))?;
                filter.since = Some(since);
            }
            AFTER => {
                filter.after = Some(value.parse().map_err(|_| format!("{value:?} is no id of an event"))?)
            }
            VIP => vip = Some(value.into_owned()),
            // As events have it.
            TASK => filter.task = Some(shortened(value.into_owned())),
            WAIT => waits = true,
            _ => {
                return Err(format!(
                    "unknown parameter {key:?}: there are {SINCE}, {AFTER}, {VIP}, {TASK} and {WAIT}"
                ));
            }
        }
    }
    Ok((filter, vip, waits))
}

pub(super) async fn story(State(access): State<Access>, uri: Uri) -> Response {
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let Some((_, name)) = query.find(|(key, _)| key == VIP) else {
        return (StatusCode::BAD_REQUEST, format!("the parameter {VIP} is missing")).into_response();
    };
    match access.story_of(name.into_owned()).await {
        Some(answer) => super::json(&answer),
        None => super::busy(),
    }
}

/// Answers with events, or goes on with them as they come if the client takes a stream.
pub(super) async fn on_port(State(access): State<Access>, headers: HeaderMap, uri: Uri) -> Response {
    let (mut filter, vip, waits) = match wishes(uri.query().unwrap_or_default()) {
        Ok(wishes) => wishes,
        Err(error) => return (StatusCode::BAD_REQUEST, error).into_response(),
    };
    if waits {
        let text = format!("{WAIT}: ask for a stream instead (Accept: {STREAM})");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    if let Some(vip) = vip {
        filter = access.of_vip(filter, vip).await;
    }
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if !accepts.into_iter().any(|accepts| accepts.contains(STREAM)) {
        let Selected { events, newest } = access.parts.events.select(&filter);
        return super::json(&EventsAnswer { events, newest });
    }
    // As browsers say where they were cut off.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    filter.after = last.or(filter.after);
    access.stream(filter)
}

impl Access {
    /// Returns all about the VIPs of a name, pattern, address or task; `None` if the daemon is busy.
    pub(super) async fn story_of(&self, wanted: String) -> Option<StoryAnswer> {
        let asked = self.ask(|answer| Question::Story { vip: wanted.clone(), answer }).await;
        let stories = asked?;
        // After the stories, so that an event that they do not show yet is among these.
        let filter = self.of_vip(EventFilter::default(), wanted).await;
        let mut events = self.parts.events.select(&filter).events;
        events.drain(..events.len().saturating_sub(OF_STORY));
        Some(StoryAnswer { stories, events })
    }

    /// Sends events as they come, each with its id.
    ///
    /// Nothing is kept for a client that takes them slowly: what it gets next is looked up once it has taken the last,
    /// and its connection ends with its life like any other. It goes on after the last id then.
    fn stream(&self, filter: EventFilter) -> Response {
        let Ok(place) = Arc::clone(&self.streams).try_acquire_owned() else {
            let busy = "too many clients follow events; ask again later, or without a stream";
            return (StatusCode::SERVICE_UNAVAILABLE, busy).into_response();
        };
        let mut newest = self.parts.events.watch();
        newest.mark_changed();
        let end = tokio::time::Instant::now() + STREAM_LIFE;
        let state = (self.clone(), filter, newest, place);
        let pieces = stream::unfold(state, move |(access, mut filter, mut newest, place)| async move {
            loop {
                tokio::select! {
                    biased;
                    () = access.shutdown.cancelled() => return None,
                    () = tokio::time::sleep_until(end) => return None,
                    changed = newest.changed() => changed.ok()?,
                    // Tells programs between the two that the connection is in use, and this one if it is not.
                    () = tokio::time::sleep(HEARTBEAT) => {
                        let text = Bytes::from_static(b":\n\n");
                        return Some((Ok::<_, Infallible>(text), (access, filter, newest, place)));
                    }
                }
                let Selected { events, newest: last } = access.parts.events.select(&filter);
                let is_first = filter.after.replace(last).is_none();
                // A client without a last id has asked for what comes from now on.
                if events.is_empty() || is_first {
                    continue;
                }
                let text: String = events.iter().filter_map(|event| event_text(event)).collect();
                return Some((Ok(Bytes::from(text)), (access, filter, newest, place)));
            }
        });
        let content = [(header::CONTENT_TYPE, STREAM)];
        (content, Body::from_stream(pieces)).into_response()
    }

    /// Adds a VIP to a filter: by its name, and by the VIPs that the name stands for now.
    async fn of_vip(&self, filter: EventFilter, vip: String) -> EventFilter {
        let pattern = Some(self.parts.events.pattern(&vip));
        // A daemon that is busy does not know, and names are found all the same.
        let vips = self.ask(|answer| Question::Keys { vip, answer }).await.unwrap_or_default();
        EventFilter { vip: pattern, vips, ..filter }
    }

    /// Returns events, and waits for one if there is none and `waits` is set; `None` if too many wait.
    async fn await_events(&self, filter: &EventFilter, waits: bool) -> Option<Selected> {
        let mut newest = self.parts.events.watch();
        // Before the selection: an event between the two wakes the wait at once.
        newest.mark_unchanged();
        let selected = self.parts.events.select(filter);
        if !waits || !selected.events.is_empty() {
            return Some(selected);
        }
        // Taken only for a wait: answers that are there cost nothing that has to be shared.
        let _place = self.followers.try_acquire().ok()?;
        let wait = async {
            while newest.changed().await.is_ok() {
                let selected = self.parts.events.select(filter);
                if !selected.events.is_empty() {
                    return selected;
                }
            }
            self.parts.events.select(filter)
        };
        tokio::select! {
            selected = wait => Some(selected),
            // Known by now: those that came meanwhile were not asked for.
            () = tokio::time::sleep(LONGEST_WAIT) => Some(self.parts.events.select(filter)),
            () = self.shutdown.cancelled() => Some(self.parts.events.select(filter)),
        }
    }
}

/// Returns an event as a stream has it; `None` for one that is no JSON, which none is. JSON has no line ends.
fn event_text(event: &Event) -> Option<String> {
    Some(format!("id: {}\ndata: {}\n\n", event.id, serde_json::to_string(event).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read_and_errors_say_what_is_wrong() {
        let (filter, vip, waits) =
            wishes("since=2026-11-27T03:00:00Z&after=7&vip=w%2Aeb&task=t&wait").unwrap();
        assert_eq!(filter.since.unwrap().to_string(), "2026-11-27T03:00:00Z");
        assert_eq!((filter.after, filter.task.as_deref()), (Some(7), Some("t")));
        assert!(vip.as_deref() == Some("w*eb") && waits);
        let long = "t".repeat(500);
        let (filter, ..) = wishes(&format!("task={long}")).unwrap();
        assert_eq!(filter.task, Some(shortened(long)));
        assert!(wishes("since=yesterday").unwrap_err().contains("\"yesterday\" is no time"));
        assert!(wishes("after=x").unwrap_err().contains("no id"));
        assert!(wishes("what=x").unwrap_err().contains("unknown parameter \"what\""));
    }
}
