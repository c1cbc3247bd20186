//! RecordIO, the framing of Mesos' event streams: `LENGTH\n` followed by that many octets.
//!
//! For example, `2\n{}15\n{"type":"X","y":1}` would be two records. White space before a length is
//! passed over, in a live stream as in a recorded one, which an editor may have given a final line
//! break. Nothing after a broken frame can be trusted, so that the first error ends a stream.
//! (<https://mesos.apache.org/documentation/latest/recordio/>)

use tokio_util::bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// Digits of the longest length that makes sense.
const MAX_DIGITS: usize = 12;

/// Records longer than this do not leave their memory with the buffer.
const LONG_RECORD: usize = 64 * 1024;

/// Splits a stream into records, whatever the pieces it comes in.
#[derive(Debug)]
pub struct RecordDecoder {
    max_record: usize,
    /// Octets of the stream in front of the buffer.
    offset: u64,
}

/// Reason why a stream is not RecordIO.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error(
        "RecordIO frame at byte {offset} does not begin with the length of a record; is this the answer to SUBSCRIBE?"
    )]
    Length { offset: u64 },
    #[error("RecordIO frame at byte {offset} announces a record of {length} bytes; at most {max} are read")]
    TooLong { offset: u64, length: usize, max: usize },
    #[error("RecordIO frame at byte {offset} is cut off: the stream ends inside of it")]
    CutOff { offset: u64 },
    /// Required by [`Decoder`]; the decoder itself does no I/O.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl RecordDecoder {
    /// `max_record` (octets) bounds the memory that a stream can take.
    pub fn new(max_record: usize) -> Self {
        Self { max_record, offset: 0 }
    }

    fn advance(&mut self, buffer: &mut BytesMut, octets: usize) {
        buffer.advance(octets);
        self.offset += octets as u64;
    }
}

impl Decoder for RecordDecoder {
    type Item = Bytes;
    type Error = FrameError;

    /// Takes the next whole record out of `buffer`; `None` until more of the stream has come.
    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        // The offset is that of the frame, so that an error names the place where it begins.
        let blanks = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.advance(buffer, blanks);
        let not_a_length = FrameError::Length { offset: self.offset };
        let head = buffer.iter().take(MAX_DIGITS + 1);
        let Some(digits) = head.clone().position(|byte| *byte == b'\n') else {
            // A peer that sends anything but digits is told at once, and not when the buffer is full.
            let wrong = head.clone().any(|byte| !byte.is_ascii_digit()) || head.len() > MAX_DIGITS;
            return if wrong { Err(not_a_length) } else { Ok(None) };
        };
        // `parse` alone would take a sign as well.
        let length = buffer.get(..digits).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let length = length.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let length: usize = length.ok_or(not_a_length)?;
        // Before the record is waited for: its memory would be taken by then.
        if length > self.max_record {
            return Err(FrameError::TooLong { offset: self.offset, length, max: self.max_record });
        }
        let header = digits + 1;
        if buffer.len().saturating_sub(header) < length {
            return Ok(None);
        }
        self.advance(buffer, header);
        let record = buffer.split_to(length).freeze();
        self.offset += length as u64;
        // Both parts share their memory. The first record, which holds the whole state, is by far the
        // longest, and its room would stay taken for as long as the stream is open. With more behind it
        // the next record does the same, so that long recordings are not copied again and again.
        if length > LONG_RECORD && buffer.len() < LONG_RECORD {
            *buffer = BytesMut::from(buffer.as_ref());
        }
        Ok(Some(record))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        match self.decode(buffer)? {
            // A master that fails within a record would else look like one that ends in good order.
            None if !buffer.is_empty() => Err(FrameError::CutOff { offset: self.offset }),
            decoded => Ok(decoded),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(decoder: &mut RecordDecoder, pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut buffer = BytesMut::new();
        let mut records = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(record) = decoder.decode(&mut buffer)? {
                records.push(record.to_vec());
            }
        }
        assert!(decoder.decode_eof(&mut buffer)?.is_none());
        Ok(records)
    }

    proptest! {
        #[test]
        fn records_survive_any_chunking(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            sizes in proptest::collection::vec(1usize..30, 1..40),
            blanks in "[ \r\n]{0,3}",
        ) {
            let mut stream = Vec::new();
            for record in &records {
                stream.extend(format!("{blanks}{}\n", record.len()).bytes());
                stream.extend(record);
            }
            stream.extend(blanks.bytes());
            let mut pieces = Vec::new();
            let mut rest = stream.as_slice();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, more) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            prop_assert_eq!(decode(&mut RecordDecoder::new(40), &pieces).unwrap(), records);
        }

        #[test]
        fn nothing_makes_it_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..8)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let _ = decode(&mut RecordDecoder::new(100), &pieces);
        }
    }

    #[test]
    fn what_is_no_recordio_is_refused() {
        let fail = |stream: &[u8]| decode(&mut RecordDecoder::new(100), &[stream]).unwrap_err();
        for stream in [&b"<html>"[..], b"\n{}", b"-1\n", b"+1\n", b"1 \n", b"1111111111111"] {
            assert!(matches!(fail(stream), FrameError::Length { .. }), "{stream:?}");
        }
        assert!(matches!(fail(b"101\n"), FrameError::TooLong { offset: 0, length: 101, max: 100 }));
        assert!(matches!(fail(b"2\n{} <html>"), FrameError::Length { offset: 5 }));
    }

    #[test]
    fn a_stream_that_ends_inside_of_a_frame_is_an_error() {
        let fail = |stream: &[u8]| decode(&mut RecordDecoder::new(100), &[stream]).unwrap_err();
        for stream in [&b"2\n{}10\n{"[..], b"2\n{}10\n", b"2\n{}10", b"2\n{}1"] {
            assert!(matches!(fail(stream), FrameError::CutOff { offset: 4 }), "{stream:?}");
        }
        assert_eq!(decode(&mut RecordDecoder::new(100), &[b""]).unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_long_record_leaves_no_memory_taken() {
        let mut buffer = BytesMut::from(format!("1000000\n{}2\n{{}}", " ".repeat(1_000_000)).as_bytes());
        let mut decoder = RecordDecoder::new(1 << 20);
        assert_eq!(decoder.decode(&mut buffer).unwrap().unwrap().len(), 1_000_000);
        assert!(buffer.capacity() < LONG_RECORD, "{}", buffer.capacity());
        assert_eq!(&decoder.decode(&mut buffer).unwrap().unwrap()[..], b"{}");
    }
}
