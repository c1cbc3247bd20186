//! Documents of Mesos, read into [`Snapshot`]s.
//!
//! Three shapes are understood: the v0 `/state` of a master or an agent (`state`), the v1
//! `GET_STATE` answer of either (`operator`), and v1 `SUBSCRIBE` events (`live`; recorded ones in
//! `recording`). A document is walked through in a window ([`cursor`]): each item of its lists is read,
//! normalised (`task`, `agents`) to what it contributes (`facts`), and dropped before the next one, so that
//! memory follows the number of VIPs rather than the size of the document. Of the next document only
//! items that changed are read ([`reading`]).
//!
//! What belongs here: the JSON of Mesos and Minuteman's rules for reading it. No I/O: requests are
//! made in [`crate::source`]. Which VIPs follow from a task is decided in [`crate::vip`].

use std::io::Read;

use crate::cluster::Snapshot;
use cursor::Cursor;
use reading::DocumentReader;

pub use error::Error;
pub use format::{Format, StateFormat};
pub use items::MAX_TASKS;
pub use networks::container_address;
pub use operator::parse_master;
pub use ports::{is_vip_key, oversize};
pub use rights::HIDDEN;
pub use skip::{SkipLog, read_or_skip, unreadable};
pub use wire::{Lenient, LenientList, present, readable};

mod agents;
pub mod cursor;
mod discovery;
mod error;
mod executors;
mod facts;
mod format;
mod items;
mod legacy;
pub mod live;
mod names;
mod networks;
mod operator;
mod ports;
pub mod reading;
mod recording;
pub mod recordio;
mod rights;
mod skip;
mod state;
mod task;
mod texts;
mod wire;

#[cfg(test)]
mod tests;

/// Reads a document; without a `format`, its shape is detected.
///
/// Bytes that are not UTF-8 are replaced, so that one odd string costs at most its own task.
///
/// # Errors
/// Only when the document as a whole cannot be read; problems inside of it end up in
/// [`Snapshot::skipped`].
pub fn parse(document: &[u8], format: Option<Format>) -> Result<Snapshot, Error> {
    let format = match format {
        Some(format) => format,
        None => detect(document)?,
    };
    match StateFormat::of(format) {
        Some(format) => {
            DocumentReader::default().read(document, format, false).map(|reading| reading.snapshot)
        }
        None => recording::parse(document),
    }
}

/// Returns the format of a document, of which it may read all.
///
/// # Errors
/// When it is empty, or does not begin with JSON or with a frame.
pub fn detect(document: impl Read) -> Result<Format, Error> {
    let mut cursor = Cursor::new(document);
    match cursor.peek()? {
        None => return Err(Error::Empty),
        Some(first) if first.is_ascii_digit() => return Ok(Format::V1Events),
        Some(_) => {}
    }
    // A recording has one object after the other, of which the first is enough.
    if !cursor.enter(b'{')? {
        return Ok(Format::State);
    }
    let (mut is_event, mut is_first) = (false, true);
    while let Some(key) = cursor.next_key(&mut is_first)? {
        let is_null = cursor.peek()? == Some(b'n');
        match key.as_str() {
            // An answer has a type as well.
            "get_state" if !is_null => return Ok(Format::V1State),
            "type" | "event" if !is_null => is_event = true,
            _ => {}
        }
        cursor.skip()?;
    }
    Ok(if is_event { Format::V1Events } else { Format::State })
}
