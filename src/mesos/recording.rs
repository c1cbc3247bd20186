//! Recorded event streams: RecordIO frames, or JSON objects one after the other, usually one a line.

use std::borrow::Cow;

use serde_json::value::RawValue;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::Decoder;

use super::error::Error;
use super::live::LiveCluster;
use super::recordio::RecordDecoder;
use crate::cluster::Snapshot;

type Records<'a> = Box<dyn Iterator<Item = Result<Cow<'a, str>, Error>> + 'a>;

/// Folds recorded events into the state after the last one.
///
/// # Errors
/// When an event cannot be read, a frame is broken or cut off, or no subscription begins.
pub fn parse(document: &[u8]) -> Result<Snapshot, Error> {
    let text = String::from_utf8_lossy(document);
    // Lengths of frames count the octets as they were sent, so that these are split before any octet
    // is replaced.
    let records = if is_framed(&text) { frames(document) } else { values(&text) };
    let mut live = LiveCluster::default();
    for (index, record) in records.enumerate() {
        live.record(&record?).map_err(|error| Error::Event { record: index + 1, error })?;
    }
    if !live.is_subscribed() {
        return Err(Error::Missing("SUBSCRIBED event"));
    }
    Ok(live.into_snapshot())
}

/// Returns true for a document that begins with a length, as RecordIO does and JSON objects do not.
pub fn is_framed(text: &str) -> bool {
    text.trim_ascii_start().starts_with(|c: char| c.is_ascii_digit())
}

fn frames(document: &[u8]) -> Records<'_> {
    let mut buffer = BytesMut::from(document);
    // The whole document is in memory already, and bounds its records.
    let mut decoder = RecordDecoder::new(usize::MAX);
    Box::new(std::iter::from_fn(move || match decoder.decode_eof(&mut buffer) {
        Ok(None) => None,
        Ok(Some(record)) => Some(Ok(String::from_utf8_lossy(&record).into_owned().into())),
        Err(error) => Some(Err(error.into())),
    }))
}

fn values(text: &str) -> Records<'_> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    Box::new(values.enumerate().map(|(index, value)| match value {
        Ok(value) => Ok(value.get().into()),
        Err(error) => Err(Error::Event { record: index + 1, error }),
    }))
}
