//! Splitting a recorded event stream into records: RecordIO frames, or JSON objects one after the
//! other, usually one a line.

use serde_json::value::RawValue;

use super::Error;

/// The records of a stream, in order. RecordIO is `LENGTH\n` followed by that many bytes, so it
/// starts with a digit. Ends after the first error, because nothing behind it can be trusted.
pub fn records(text: &str) -> Box<dyn Iterator<Item = Result<&str, Error>> + '_> {
    if is_framed(text) {
        Box::new(Frames { text, offset: 0 })
    } else {
        let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
        Box::new(values.enumerate().map(|(index, value)| match value {
            Ok(value) => Ok(value.get()),
            Err(error) => Err(Error::Event { record: index + 1, error }),
        }))
    }
}

/// Whether a document looks like RecordIO.
pub fn is_framed(text: &str) -> bool {
    text.trim_ascii_start().starts_with(|c: char| c.is_ascii_digit())
}

struct Frames<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a str, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.text.get(self.offset..)?;
        let frame = rest.trim_ascii_start();
        if frame.is_empty() {
            return None;
        }
        let start = self.offset + rest.len() - frame.len();
        match split(frame) {
            Ok((record, length)) => {
                self.offset = start + length;
                Some(Ok(record))
            }
            Err(reason) => {
                self.offset = self.text.len();
                Some(Err(Error::RecordIo { offset: start, reason }))
            }
        }
    }
}

/// The record at the front of `frame`, and the length of the whole frame.
fn split(frame: &str) -> Result<(&str, usize), &'static str> {
    let (length, _) = frame.split_once('\n').ok_or("there is no line break after the length")?;
    let start = length.len() + 1;
    let size: usize = length.trim().parse().map_err(|_| "the length is not a number")?;
    let end = start.checked_add(size).ok_or("the length is out of range")?;
    let record = frame.get(start..end).ok_or("the stream ends inside of the record")?;
    Ok((record, end))
}
