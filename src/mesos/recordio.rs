//! Splitting an event stream into records: RecordIO frames as they come in pieces of any size, and
//! recorded ones, which may also be JSON objects one after the other, usually one a line.

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

/// Digits of the longest length that makes sense.
const MAX_DIGITS: usize = 12;

/// Puts records together from pieces of a stream, wherever those begin and end.
#[derive(Debug)]
pub struct Decoder {
    /// What is not a whole record yet.
    buffer: Vec<u8>,
    max_record: usize,
}

/// Why a stream is no RecordIO, after which nothing in it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the length of a record is not a number; is this the answer to SUBSCRIBE?")]
    Length,
    #[error("a record of {0} bytes is longer than the {1} that are read")]
    TooLong(usize, usize),
}

impl Decoder {
    /// `max_record` bounds the memory that a stream can take.
    pub fn new(max_record: usize) -> Self {
        Self { buffer: Vec::new(), max_record }
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole record; `None` until more pieces have come.
    pub fn next_record(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let head = self.buffer.iter().take(MAX_DIGITS + 1);
        let Some(digits) = head.clone().position(|byte| *byte == b'\n') else {
            let wrong = head.clone().any(|byte| !byte.is_ascii_digit()) || head.len() > MAX_DIGITS;
            return if wrong { Err(FrameError::Length) } else { Ok(None) };
        };
        let length = self.buffer.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
        let length = length.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let length: usize = length.and_then(|digits| digits.parse().ok()).ok_or(FrameError::Length)?;
        if length > self.max_record {
            return Err(FrameError::TooLong(length, self.max_record));
        }
        let start = digits + 1;
        let Some(record) = self.buffer.get(start..start + length) else { return Ok(None) };
        let record = record.to_vec();
        self.buffer.drain(..start + length);
        // The first record is by far the longest.
        self.buffer.shrink_to(64 * 1024);
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(decoder: &mut Decoder, pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut records = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(record) = decoder.next_record()? {
                records.push(record);
            }
        }
        Ok(records)
    }

    proptest! {
        #[test]
        fn records_survive_any_chunking(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            sizes in proptest::collection::vec(1usize..30, 1..40),
        ) {
            let mut stream = Vec::new();
            for record in &records {
                stream.extend(format!("{}\n", record.len()).bytes());
                stream.extend(record);
            }
            let mut pieces = Vec::new();
            let mut rest = stream.as_slice();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, more) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            prop_assert_eq!(decode(&mut Decoder::new(40), &pieces).unwrap(), records);
        }

        #[test]
        fn nothing_makes_it_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..8)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let _ = decode(&mut Decoder::new(100), &pieces);
        }
    }

    #[test]
    fn what_is_no_recordio_is_refused() {
        let fail = |stream: &[u8]| decode(&mut Decoder::new(100), &[stream]).unwrap_err();
        assert_eq!(fail(b"<html>"), FrameError::Length);
        assert_eq!(fail(b"\n{}"), FrameError::Length);
        assert_eq!(fail(b"-1\n"), FrameError::Length);
        assert_eq!(fail(b"+1\n"), FrameError::Length);
        assert_eq!(fail(b"1111111111111"), FrameError::Length);
        assert_eq!(fail(b"101\n"), FrameError::TooLong(101, 100));
    }
}
