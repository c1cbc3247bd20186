//! The file of the history: a bounded list of records that each stand for themselves.
//!
//! A record is appended when something has happened. When the file has reached its limit, it is replaced by one
//! with what the history still has, which is half of the limit at most. So an event costs twice its size of writing
//! at most, and the file is read in a moment.
//!
//! ```text
//! {"version":1}                        5bbd2b39
//! {"id":41,"kind":"task-unhealthy"...} 0a3f10c2
//! {"id":42,"kind":"dra                          ── cut off by a crash, or damaged: left out alone
//! {"id":43,"kind":"task-healthy"...}   77ab01f0
//! ```

use std::io;

use serde::{Deserialize, Serialize};

use super::directory::Directory;
use super::growing::GrowingFile;
use super::records::{IntactRecords, record};

/// File of the history.
pub(super) const HISTORY: &str = "events.journal";

/// Format of the file.
pub(super) const VERSION: u32 = 1;

/// First record of the file.
#[derive(Serialize, Deserialize)]
struct HistoryHead {
    version: u32,
}

/// The file as this run writes it.
#[derive(Debug)]
pub struct HistoryFile {
    /// Octets that the file may have.
    limit: u64,
    file: GrowingFile,
}

impl HistoryFile {
    /// A file of `limit` octets at most.
    pub fn new(limit: u64) -> Self {
        Self { limit, file: GrowingFile::default() }
    }

    /// Appends records, or replaces the file by one with the records of `all` where there is no room. Both are lines
    /// as [`record`] makes them.
    ///
    /// # Errors
    /// When the directory cannot be written. The next call replaces the file.
    pub(super) fn append(
        &mut self,
        directory: &Directory,
        new: &[Vec<u8>],
        all: impl FnOnce() -> Vec<Vec<u8>>,
    ) -> io::Result<()> {
        if self.file.append(directory, HISTORY, &new.concat(), self.limit)? {
            return Ok(());
        }
        let head = record(&HistoryHead { version: VERSION });
        let lines = std::iter::once(head).chain(all().into_iter().map(Ok));
        self.file.begin(directory, HISTORY, lines).map(drop)
    }
}

/// Records that were read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeptRecords {
    /// JSON of each record that is whole.
    pub records: Vec<Vec<u8>>,
    /// Octets of the file that are of no use.
    pub lost: usize,
}

/// Reads what is whole in a file. Fails with the version of a file that is of a later one.
pub(super) fn read(bytes: &[u8]) -> Result<KeptRecords, u32> {
    let mut kept = KeptRecords::default();
    let mut records = IntactRecords(bytes);
    let mut is_first = true;
    while !records.rest().is_empty() {
        let is_head = std::mem::take(&mut is_first);
        match records.next() {
            // Goes on behind it: damage to one record takes no other one away.
            None => kept.lost += records.skip_line(),
            Some(record) if is_head => match serde_json::from_slice::<HistoryHead>(record) {
                Ok(head) if head.version > VERSION => return Err(head.version),
                Ok(_) => {}
                Err(_) => kept.lost += record.len(),
            },
            Some(record) => kept.records.push(record.to_vec()),
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::*;

    fn lines(numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
        numbers.map(|number| record(&number).unwrap()).collect()
    }

    fn numbers(kept: &KeptRecords) -> Vec<u32> {
        kept.records.iter().map(|record| serde_json::from_slice(record).unwrap()).collect()
    }

    /// Returns a directory with a file of 40 records.
    fn written() -> (tempfile::TempDir, Directory, HistoryFile) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::create(folder.path()).unwrap();
        let mut file = HistoryFile::new(4096);
        file.append(&directory, &lines(20..21), || lines(0..21)).unwrap();
        for number in 21..40 {
            file.append(&directory, &lines(number..number + 1), || panic!("there is room")).unwrap();
        }
        (folder, directory, file)
    }

    fn content(directory: &Directory) -> Vec<u8> {
        directory.read(HISTORY, 1 << 20).unwrap().unwrap()
    }

    /// Returns the same file without a disk, on which each case would wait.
    fn octets() -> Vec<u8> {
        static OCTETS: OnceLock<Vec<u8>> = OnceLock::new();
        let written = || {
            let (_folder, directory, _) = written();
            content(&directory)
        };
        OCTETS.get_or_init(written).clone()
    }

    #[test]
    fn a_full_file_is_replaced_by_what_is_still_known() {
        let (_folder, directory, mut file) = written();
        assert_eq!(numbers(&read(&content(&directory)).unwrap()), (0..40).collect::<Vec<_>>());
        let before = content(&directory).len();
        file.limit = before as u64 + 5;
        file.append(&directory, &lines(40..41), || lines(30..41)).unwrap();
        assert_eq!(numbers(&read(&content(&directory)).unwrap()), (30..41).collect::<Vec<_>>());
        assert!(content(&directory).len() < before);
    }

    #[test]
    fn a_file_that_was_put_away_is_made_anew_and_not_written_further() {
        let (folder, directory, mut file) = written();
        fs::rename(folder.path().join(HISTORY), folder.path().join("away")).unwrap();
        file.append(&directory, &lines(40..41), || lines(39..41)).unwrap();
        assert_eq!(numbers(&read(&content(&directory)).unwrap()), [39, 40]);
    }

    #[test]
    fn a_later_version_is_told_and_an_empty_file_is_empty() {
        let mut later = record(&HistoryHead { version: 2 }).unwrap();
        later.extend(b"of another form\n");
        assert_eq!(read(&later), Err(2));
        assert_eq!(read(b""), Ok(KeptRecords::default()));
    }

    proptest! {
        #[test]
        fn a_file_that_is_cut_anywhere_has_the_records_before(cut in 0_usize..1000) {
            let mut bytes = octets();
            bytes.truncate(cut.min(bytes.len()));
            let kept = read(&bytes).unwrap();
            let found = numbers(&kept);
            prop_assert_eq!(&found, &(0..found.len() as u32).collect::<Vec<_>>());
            let whole = bytes.iter().filter(|octet| **octet == b'\n').count().saturating_sub(1);
            prop_assert_eq!(found.len(), whole);
        }

        /// A flipped line end joins two lines, so that two records at most are lost.
        #[test]
        fn a_flipped_octet_takes_its_own_record_and_no_other(at in 0_usize..1000, flip in 1_u8..) {
            let mut bytes = octets();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            match read(&bytes) {
                Ok(kept) => {
                    let found = numbers(&kept);
                    prop_assert!(found.len() >= 38, "{:?}", found);
                    prop_assert!(found.is_sorted() && found.iter().all(|number| *number < 40));
                    // A digit of a checksum is the same in both cases.
                    prop_assert!(kept.lost > 0 || found.len() == 40);
                }
                Err(version) => prop_assert!(false, "a damaged head says {}", version),
            }
        }

        #[test]
        fn no_content_is_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }
}
