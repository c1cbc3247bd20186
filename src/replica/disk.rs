//! The table in a file: what a follower goes on with after a restart, until it has caught up.
//!
//! | part | |
//! |---|---|
//! | u32 | length of what follows, big-endian |
//! | [`KeptTable`] | sealed as everything that is stored |
//! | u32, [`ChunkBody`] | length and rows, until the end |

use super::chunks::{cut, rows_between};
use super::envelope::{Refused, StoredKind, open, seal};
use super::messages::{ChunkBody, KeptTable};
use super::table::{Digest, Generation, Octets, RowTable, fits};
use crate::cluster::SharedMap;

/// Reason why a file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamagedTable {
    #[error("it ends within a part")]
    End,
    #[error("a part of it can't be read: {0}")]
    Part(#[from] Refused),
    #[error("its rows are not those that it was written with")]
    Digest,
}

/// Returns the content of the file.
pub fn write(table: &RowTable, seq: u64) -> Vec<u8> {
    let kept = KeptTable {
        generation: table.generation().0.into(),
        seq,
        digest: table.digest().octets(),
        rows: table.rows().len() as u64,
    };
    let mut file = Vec::new();
    add(&mut file, &seal(StoredKind::Kept, &kept));
    let (rows, _) = rows_between(table, &[], None, None);
    // In chunks: one body with all rows would be larger than a reader takes.
    for chunk in cut(&[], rows, seq, String::new) {
        add(&mut file, &chunk.stored);
    }
    file
}

/// Reads the table and its frame.
///
/// # Errors
/// When any octet of the file is not as it was written.
pub fn read(mut file: &[u8]) -> Result<(RowTable, u64), DamagedTable> {
    let kept: KeptTable = open(StoredKind::Kept, part(&mut file)?)?;
    let mut rows: Vec<(Octets, Octets)> = Vec::new();
    while !file.is_empty() {
        let body: ChunkBody = open(StoredKind::Chunk, part(&mut file)?)?;
        if !body.rows.iter().all(|row| fits(&row.key, &row.value)) {
            return Err(DamagedTable::Digest);
        }
        rows.extend(body.rows.into_iter().map(|row| (row.key.into(), row.value.into())));
    }
    let generation = Generation::read(&kept.generation).ok_or(DamagedTable::Digest)?;
    let table = RowTable::of(generation, SharedMap::from_iter(rows));
    let is_same =
        Digest::read(&kept.digest) == Some(table.digest()) && kept.rows == table.rows().len() as u64;
    is_same.then_some((table, kept.seq)).ok_or(DamagedTable::Digest)
}

fn add(file: &mut Vec<u8>, part: &[u8]) {
    file.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    file.extend_from_slice(part);
}

fn part<'f>(file: &mut &'f [u8]) -> Result<&'f [u8], DamagedTable> {
    let (length, rest) = file.split_first_chunk().ok_or(DamagedTable::End)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| DamagedTable::End)?;
    let (part, rest) = rest.split_at_checked(length).ok_or(DamagedTable::End)?;
    *file = rest;
    Ok(part)
}
