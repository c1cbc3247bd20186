//! Readers that end with an error where a document is longer than any.

use std::io::Read;

/// Longest document in bytes; 100,000 tasks make about 150 MB.
pub const MAX_DOCUMENT: usize = 1 << 30;

/// Returns the error about a document that is longer.
pub fn too_long() -> String {
    format!(
        "the document has more than {MAX_DOCUMENT} bytes; is this the answer of a Mesos or Marathon server?"
    )
}

/// A reader that gives so many bytes at most.
pub struct Bounded<R> {
    inner: R,
    left: usize,
    error: String,
}

impl<R: Read> Bounded<R> {
    /// Reads `most` bytes; `error` is the text about one more.
    pub fn new(inner: R, most: usize, error: String) -> Self {
        Self { inner, left: most, error }
    }

    /// Reads as many bytes as any document may have.
    pub fn document(inner: R) -> Self {
        Self::new(inner, MAX_DOCUMENT, too_long())
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(room)?;
        // An error and no end: a document must not count as whole that was cut off.
        self.left = self.left.checked_sub(read).ok_or_else(|| std::io::Error::other(self.error.clone()))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_too_many_is_an_error_and_no_end() {
        let read = |text: &[u8]| {
            let mut all = Vec::new();
            Bounded::new(text, 3, "too long".to_owned()).read_to_end(&mut all).map(|_| all)
        };
        assert_eq!(read(b"abc").unwrap(), b"abc");
        assert_eq!(read(b"abcd").unwrap_err().to_string(), "too long");
    }
}
