//! Documents of Mesos, read into [`Snapshot`]s.
//!
//! Three shapes are understood: the v0 `/state` of a master or an agent (`state`), the v1
//! `GET_STATE` answer of either (`operator`), and v1 `SUBSCRIBE` events (`live`; recorded ones in
//! `recording`). A document is folded: each task is read, normalised (`task`) and dropped before
//! the next one, so that memory follows the number of VIPs rather than the size of the document.
//!
//! What belongs here: the JSON of Mesos and Minuteman's rules for reading it. No I/O: requests are
//! made in [`crate::source`]. Which VIPs follow from a task is decided in [`crate::vip`].

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::cluster::Snapshot;

pub use error::Error;
pub use networks::container_address;
pub use operator::parse_master;
pub use ports::{is_vip_key, oversize};
pub use rights::{HIDDEN, hides_tasks};
pub use skip::{SkipLog, read_or_skip, unreadable};
pub use wire::{Lenient, LenientList, present, readable};

mod agents;
mod discovery;
mod error;
mod fold;
mod legacy;
pub mod live;
mod names;
mod networks;
mod operator;
mod ports;
mod recording;
pub mod recordio;
mod rights;
mod skip;
mod state;
mod task;
mod wire;

#[cfg(test)]
mod tests;

/// Shape of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// v0 `/state` or `/master/state` of a master, or `/state` of an agent.
    State,
    /// v1 answer to `GET_STATE`.
    V1State,
    /// v1 `SUBSCRIBE` events, one JSON object a line or in RecordIO frames.
    V1Events,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "state" => Ok(Self::State),
            "v1-state" => Ok(Self::V1State),
            "v1-events" => Ok(Self::V1Events),
            _ => Err(format!("unknown format {text:?}: use auto, state, v1-state or v1-events")),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::State => "state",
            Self::V1State => "v1-state",
            Self::V1Events => "v1-events",
        })
    }
}

/// Reads a document; without a `format`, its shape is detected.
///
/// Bytes that are not UTF-8 are replaced, so that one odd string costs at most its own task.
///
/// # Errors
/// Only when the document as a whole cannot be read; problems inside of it end up in
/// [`Snapshot::skipped`].
pub fn parse(document: &[u8], format: Option<Format>) -> Result<Snapshot, Error> {
    // Borrowed as long as every byte is text, which is nearly always.
    let text = String::from_utf8_lossy(document);
    if text.trim_ascii().is_empty() {
        return Err(Error::Empty);
    }
    let format = match format {
        Some(format) => format,
        None => detect(&text)?,
    };
    match format {
        Format::State => state::parse(&text),
        Format::V1State => operator::parse_state(&text),
        Format::V1Events => recording::parse(document),
    }
}

fn detect(text: &str) -> Result<Format, Error> {
    if recording::is_framed(text) {
        return Ok(Format::V1Events);
    }
    // A recording has one object after the other, of which the first is enough.
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Probe>();
    match values.next().transpose()? {
        Some(Probe { get_state: true, .. }) => Ok(Format::V1State),
        Some(Probe { kind: Some(_), .. } | Probe { event: true, .. }) => Ok(Format::V1Events),
        _ => Ok(Format::State),
    }
}

/// The keys by which the formats differ.
#[derive(serde::Deserialize)]
struct Probe<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "wire::present")]
    get_state: bool,
    #[serde(default, deserialize_with = "wire::present")]
    event: bool,
}
