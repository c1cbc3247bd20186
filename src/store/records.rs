//! Framing of files that grow by records: each is a line of JSON with its checksum.
//!
//! ```text
//! {"version":1}<tab>5bbd2b39
//! {"id":7,...}<tab>0a3f10c2
//! ```
//!
//! A line whose checksum is another one was cut off by a crash, or is damaged. What that means for the records
//! around it is left to the file's own module.

use std::io::{self, Write};

use serde::Serialize;

/// Octets of a line behind its record: a tab, the checksum in hexadecimal digits, and the line end.
const END: usize = 10;

/// Returns the line of a record.
///
/// # Errors
/// When `content` cannot be written as JSON.
pub fn record(content: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(content)?;
    let sum = crc32fast::hash(&line);
    writeln!(line, "\t{sum:08x}")?;
    Ok(line)
}

/// Records of a file up to the first one that is damaged.
#[derive(Clone, Copy, Debug)]
pub struct IntactRecords<'a>(pub &'a [u8]);

impl<'a> IntactRecords<'a> {
    /// Returns the octets that were not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Passes over the next line, whatever it is, and returns the number of its octets; 0 at the end.
    pub fn skip_line(&mut self) -> usize {
        let length = memchr::memchr(b'\n', self.0).map_or(self.0.len(), |end| end + 1);
        self.0 = self.0.get(length..).unwrap_or_default();
        length
    }
}

impl<'a> Iterator for IntactRecords<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        // JSON on one line: line ends within its texts are escaped.
        let (line, rest) = self.0.split_at_checked(memchr::memchr(b'\n', self.0)? + 1)?;
        let (record, end) = line.split_at_checked(line.len().checked_sub(END)?)?;
        let sum = end.strip_prefix(b"\t")?.strip_suffix(b"\n")?;
        let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
        (sum == crc32fast::hash(record)).then_some(())?;
        self.0 = rest;
        Some(record)
    }
}
