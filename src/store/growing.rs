//! A file that grows by records, as this run writes it.

use std::fs::File;
use std::io::{self, Write};

use super::directory::Directory;

/// A file to which records are appended until it has reached its limit, and which is then begun anew.
#[derive(Debug, Default)]
pub(super) struct GrowingFile {
    /// The file with its octets, once this run has made it. One of an earlier run is only read: what it is, and
    /// whose, is not to be relied on.
    open: Option<(File, u64)>,
}

impl GrowingFile {
    /// Appends lines and waits until they are on disk. Returns false where the file has to be begun instead, because
    /// this run has not made it, because it would have more than `limit` octets, or because it was put away.
    ///
    /// # Errors
    /// When the file cannot be written. The next call returns false.
    pub fn append(
        &mut self,
        directory: &Directory,
        name: &str,
        lines: &[u8],
        limit: u64,
    ) -> io::Result<bool> {
        // Without it after an error, when a line may be there in part, and nothing may follow that.
        let Some((mut file, size)) = self.open.take() else { return Ok(false) };
        let size = size + lines.len() as u64;
        // An operator may have put it away.
        if size > limit || !directory.has(name, &file) {
            return Ok(false);
        }
        file.write_all(lines)?;
        // fdatasync(2) includes the file's new length, without which the lines cannot be read.
        file.sync_data()?;
        self.open = Some((file, size));
        Ok(true)
    }

    /// Replaces the file by one with `lines`, which are made one after the other. Returns its octets.
    ///
    /// # Errors
    /// When the directory cannot be written; the old file stays then, and is not written further.
    pub fn begin(
        &mut self,
        directory: &Directory,
        name: &str,
        lines: impl IntoIterator<Item = io::Result<Vec<u8>>>,
    ) -> io::Result<u64> {
        // Before the attempt: the old file must not be written further whatever comes of it.
        self.open = None;
        let mut size = 0;
        let file = directory.replace_by(name, |file| {
            for line in lines {
                let line = line?;
                size += line.len() as u64;
                file.write_all(&line)?;
            }
            Ok(())
        })?;
        self.open = Some((file, size));
        Ok(size)
    }

    /// Returns true if this run has made the file, and writes it further.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}
