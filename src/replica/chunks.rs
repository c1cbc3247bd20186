//! The table in chunks, for those who know none of it or too little.
//!
//! A chunk has the rows of a range of keys as of some frame. It is stored once and never changed; the manifest
//! names the chunks that count. They may be of different ages, because all frames since the oldest are applied to
//! all of them, and a row is what the last frame that has it says.

use ring::digest::{SHA256, digest};

use super::envelope::{StoredKind, seal};
use super::messages::{ChunkBody, ChunkMessage, PutMessage};
use super::table::{Octets, RowTable, put};

/// Octets of rows in a chunk at most, so that it can be stored whole where nothing of it can be deflated.
pub const MAX_CHUNK_SIZE: usize = 448 << 10;

/// Octets of rows below which a chunk is joined with the next.
const SMALL: usize = 96 << 10;

/// Octets that a row takes beside its key and its value, at most.
pub const ROW_OVERHEAD: usize = 12;

/// A chunk to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredChunk {
    pub entry: ChunkMessage,
    pub stored: Vec<u8>,
}

/// Returns the SHA-256 of a chunk as stored. It is not cut short, because tenants can prepare what it has at
/// leisure.
pub fn sha(stored: &[u8]) -> Vec<u8> {
    digest(&SHA256, stored).as_ref().into()
}

/// Returns the rows of a table from `start` to before `end`, and false. Few rows are joined with those up to `beyond`,
/// if that is given: these and true are returned then.
pub fn rows_between(
    table: &RowTable,
    start: &[u8],
    end: Option<&[u8]>,
    beyond: Option<Option<&[u8]>>,
) -> (Vec<PutMessage>, bool) {
    let collect = |end: Option<&[u8]>| -> Vec<PutMessage> {
        let rows = table.rows().iter_from(&Octets::from(start));
        rows.take_while(|(key, _)| end.is_none_or(|end| &***key < end))
            .map(|(key, value)| put(key, value))
            .collect()
    };
    let rows = collect(end);
    match beyond {
        Some(beyond) if size(&rows) < SMALL => (collect(beyond), true),
        _ => (rows, false),
    }
}

/// Cuts sorted rows into chunks, the first of which begins at `start`. `name` gives each a name of its own.
pub fn cut(
    start: &[u8],
    rows: Vec<PutMessage>,
    as_of: u64,
    mut name: impl FnMut() -> String,
) -> Vec<StoredChunk> {
    let mut pieces: Vec<Vec<PutMessage>> = vec![Vec::new()];
    let mut room = MAX_CHUNK_SIZE;
    for row in rows {
        let size = row_size(&row);
        // A row is never divided: the largest one that fits a table is far smaller than a chunk.
        if size > room {
            pieces.push(Vec::new());
            room = MAX_CHUNK_SIZE;
        }
        room = room.saturating_sub(size);
        if let Some(piece) = pieces.last_mut() {
            piece.push(row);
        }
    }
    let mut chunks = Vec::with_capacity(pieces.len());
    for rows in pieces {
        let first_key = match rows.first() {
            Some(row) if !chunks.is_empty() => row.key.clone(),
            // Not the first row's key: a row that is put before it later might be in no chunk's range.
            _ => start.to_vec(),
        };
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let stored = seal(StoredKind::Chunk, &ChunkBody { rows });
        let bytes = u32::try_from(stored.len()).unwrap_or(u32::MAX);
        let entry = ChunkMessage { first_key, node: name(), as_of, sha: sha(&stored), bytes, rows: count };
        chunks.push(StoredChunk { entry, stored });
    }
    chunks
}

fn size(rows: &[PutMessage]) -> usize {
    rows.iter().map(row_size).sum()
}

fn row_size(row: &PutMessage) -> usize {
    row.key.len() + row.value.len() + ROW_OVERHEAD
}
