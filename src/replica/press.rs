//! Writes of a publisher and their order, so that it may stop between any two transactions.
//!
//! For example, three tasks change after 1,100 frames, when one chunk has the rows as of frame 70:
//!
//! ```text
//! 1. chunks/4-17                   the chunk's rows as of frame 1,100
//! 2. manifest                      names 4-17; frames 71 to 1,100 are no longer needed
//! 3. ring/077, head                frame 1,101 in the place of frame 77, and the head that names it
//! ```

use std::collections::{BTreeMap, VecDeque};

use prost::Message;

use super::chunks::{ROW_OVERHEAD, StoredChunk, cut, rows_between};
use super::envelope::{StoredKind, seal};
use super::messages::{
    ChunkMessage, FactsMessage, FrameMessage, HeadMessage, ManifestMessage, PublisherMessage,
};
use super::table::{Octets, RowChanges, RowTable, put};

/// Frames that are kept in slots.
pub const RING_SLOTS: u64 = 1024;

/// Frames after which a chunk is stored anew if rows of it have changed: half of the ring, so that a publisher that
/// is behind with it has as much time again.
const CHUNK_AGE: u64 = RING_SLOTS / 2;

/// Rows of a frame at most.
const MAX_FRAME_ROWS: usize = 4_000;

/// Octets of a frame at most, so that it can be stored whole where nothing of it can be deflated.
const MAX_FRAME_SIZE: usize = 256 << 10;

/// Octets of frames in a head: all followers read it at each change.
const INLINE: usize = 2 << 10;

/// Changes of rows for which a new generation costs followers less than frames.
const MANY: usize = 50_000;

/// Where something is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shelf {
    Head,
    Slot(u64),
    Manifest,
    Chunk(String),
}

impl Shelf {
    /// Returns the place of a frame.
    pub fn of_frame(seq: u64) -> Self {
        Self::Slot(seq % RING_SLOTS)
    }

    /// Returns the path below that of the table.
    pub fn path(&self) -> String {
        match self {
            Self::Head => "head".to_owned(),
            Self::Slot(slot) => format!("ring/{slot:03x}"),
            Self::Manifest => "manifest".to_owned(),
            Self::Chunk(node) => format!("chunks/{node}"),
        }
    }
}

/// Writes that are stored together or not at all.
pub type Transaction = Vec<(Shelf, Vec<u8>)>;

/// A chunk that the manifest names.
#[derive(Clone, Debug)]
struct Named {
    entry: ChunkMessage,
    /// Set if rows of it may have changed since.
    is_changed: bool,
}

/// The publisher's table, and how far it is stored.
#[derive(Clone, Debug)]
pub struct Press {
    table: RowTable,
    seq: u64,
    term: u64,
    ring_first: u64,
    /// The last frames as stored, as far as a head has room for them.
    recent: VecDeque<Vec<u8>>,
    chunks: Vec<Named>,
    /// Number of the next chunk of this term.
    next_chunk: u64,
    publisher: PublisherMessage,
}

impl Press {
    /// Begins a generation with the rows of `table`. The first transactions store what no reader knows until
    /// the last one, which replaces manifest and head.
    pub fn begin(
        table: RowTable,
        term: u64,
        publisher: PublisherMessage,
        facts: FactsMessage,
    ) -> (Self, Vec<Transaction>) {
        let mut press = Self {
            table,
            seq: 0,
            term,
            ring_first: 1,
            recent: VecDeque::new(),
            chunks: Vec::new(),
            next_chunk: 0,
            publisher,
        };
        let (rows, _) = rows_between(&press.table, &[], None, None);
        let chunks = press.cut(&[], rows);
        let mut transactions = press.name(0..0, chunks);
        // Together: a head beside the manifest of another generation would lead followers nowhere.
        transactions.push(vec![press.manifest(), press.head(facts)]);
        (press, transactions)
    }

    /// Goes on where another publisher, or this one in an earlier time of office, has ended; `table` is what
    /// `head` and `manifest` lead to.
    pub fn resume(
        head: &HeadMessage,
        manifest: ManifestMessage,
        table: RowTable,
        publisher: PublisherMessage,
    ) -> Self {
        // It is not known what the frames since have changed.
        let named = |entry: ChunkMessage| Named { is_changed: entry.as_of < head.seq, entry };
        Self {
            table,
            seq: head.seq,
            // Names of chunks begin with it, so that none of an earlier time of office is overwritten.
            term: head.term.saturating_add(1),
            ring_first: head.ring_first,
            recent: head.frames.iter().cloned().collect(),
            chunks: manifest.chunks.into_iter().map(named).collect(),
            next_chunk: 0,
            publisher,
        }
    }

    /// Returns the table as it is once everything is stored.
    pub fn table(&self) -> &RowTable {
        &self.table
    }

    /// Returns the number of the last frame.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Returns the time of office.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Returns true if a new generation costs less than so many changes.
    pub fn is_better_renewed(&self, changes: usize) -> bool {
        changes >= MANY || (changes > 1_000 && changes > self.table.rows().len() / 2)
    }

    /// Returns the names of the chunks that count; all other ones can be removed when no follower reads them
    /// any more.
    pub fn chunks(&self) -> impl Iterator<Item = &str> {
        self.chunks.iter().map(|named| named.entry.node.as_str())
    }

    /// Returns the head with new facts, which tells that a node publishes although nothing changes.
    pub fn heartbeat(&self, facts: FactsMessage) -> Transaction {
        vec![self.head(facts)]
    }

    /// Returns what stores these changes.
    pub fn publish(&mut self, changes: &RowChanges, facts: &FactsMessage) -> Vec<Transaction> {
        let mut transactions = Vec::new();
        let mut rest = changes.as_slice();
        while !rest.is_empty() {
            // A slot is needed until no chunk is older than its frame.
            while self.oldest() + RING_SLOTS <= self.seq + 1 {
                transactions.append(&mut self.renew_oldest());
            }
            let length = frame_length(rest);
            let (part, further) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = further;
            transactions.push(self.frame(part, facts));
        }
        transactions
    }

    /// Returns what stores the oldest chunk anew, if it is time to. Called between changes, a few times a second.
    pub fn tend(&mut self) -> Vec<Transaction> {
        match self.oldest() + CHUNK_AGE < self.seq {
            true => self.renew_oldest(),
            false => Vec::new(),
        }
    }

    /// Applies a part of the changes as one frame.
    fn frame(&mut self, part: &[(Octets, Option<Octets>)], facts: &FactsMessage) -> Transaction {
        let before = self.table.digest();
        let mut frame = FrameMessage {
            generation: self.table.generation().0.into(),
            seq: self.seq + 1,
            before: before.octets(),
            heard_ms: facts.written_ms,
            ..FrameMessage::default()
        };
        // A frame's puts come before its drops, so that a row can be in it once: as its last change left it.
        let last: BTreeMap<&Octets, usize> =
            part.iter().zip(0..).map(|((key, _), place)| (key, place)).collect();
        for ((key, value), place) in part.iter().zip(0..) {
            if last.get(key) != Some(&place) {
                continue;
            }
            self.table.apply(key, value.as_ref());
            match value {
                Some(value) => frame.put.push(put(key, value)),
                None => frame.drop.push(key.to_vec()),
            }
            let after = self.chunks.partition_point(|named| *named.entry.first_key <= **key);
            if let Some(named) = after.checked_sub(1).and_then(|place| self.chunks.get_mut(place)) {
                named.is_changed = true;
            }
        }
        frame.after = self.table.digest().octets();
        self.seq += 1;
        self.ring_first = self.ring_first.max((self.seq + 1).saturating_sub(RING_SLOTS));
        let stored = seal(StoredKind::Frame, &frame);
        self.recent.push_back(stored.clone());
        while self.recent.iter().map(Vec::len).sum::<usize>() > INLINE {
            self.recent.pop_front();
        }
        // Together: a head must not name a frame whose slot still has an older one.
        vec![(Shelf::of_frame(self.seq), stored), self.head(facts.clone())]
    }

    /// Returns the last frame that is in all chunks.
    fn oldest(&self) -> u64 {
        self.chunks.iter().map(|named| named.entry.as_of).min().unwrap_or(self.seq)
    }

    /// Stores the oldest chunk anew whatever its age, such as one that was found to be damaged.
    pub fn renew(&mut self) -> Vec<Transaction> {
        self.renew_oldest()
    }

    /// Stores the oldest chunk anew, and brings all chunks up to date of which nothing has changed.
    fn renew_oldest(&mut self) -> Vec<Transaction> {
        let changed = self.chunks.iter().enumerate().filter(|(_, named)| named.is_changed);
        let oldest = changed.min_by_key(|(_, named)| named.entry.as_of).map(|(place, _)| place);
        let mut transactions = Vec::new();
        if let Some(place) = oldest {
            let first_key =
                |place: usize| self.chunks.get(place).map(|named| named.entry.first_key.as_slice());
            let (start, end) = (first_key(place).unwrap_or_default().to_vec(), first_key(place + 1));
            let beyond = end.map(|_| first_key(place + 2));
            let (rows, is_joined) = rows_between(&self.table, &start, end, beyond);
            let replaced = place..place + 1 + usize::from(is_joined);
            let chunks = self.cut(&start, rows);
            transactions = self.name(replaced, chunks);
        }
        // A chunk without a changed row is what it would be if it were made now: its entry is all it costs.
        for named in self.chunks.iter_mut().filter(|named| !named.is_changed) {
            named.entry.as_of = self.seq;
        }
        transactions.push(vec![self.manifest()]);
        transactions
    }

    fn cut(&mut self, start: &[u8], rows: Vec<super::messages::PutMessage>) -> Vec<StoredChunk> {
        let (term, next) = (self.term, &mut self.next_chunk);
        // Of the generation, too: a term may come again after its store was put back to an earlier state.
        let generation = self.table.generation();
        cut(start, rows, self.seq, || {
            *next += 1;
            format!("{term}-{next}-{generation}")
        })
    }

    /// Puts chunks in the place of other ones, and returns what stores them.
    fn name(&mut self, replaced: std::ops::Range<usize>, chunks: Vec<StoredChunk>) -> Vec<Transaction> {
        let replaced = replaced.start.min(self.chunks.len())..replaced.end.min(self.chunks.len());
        let named = chunks.iter().map(|chunk| Named { entry: chunk.entry.clone(), is_changed: false });
        self.chunks.splice(replaced, named.collect::<Vec<_>>());
        chunks.into_iter().map(|chunk| vec![(Shelf::Chunk(chunk.entry.node), chunk.stored)]).collect()
    }

    fn manifest(&self) -> (Shelf, Vec<u8>) {
        let chunks = self.chunks.iter().map(|named| named.entry.clone()).collect();
        let message = ManifestMessage { generation: self.table.generation().0.into(), chunks };
        (Shelf::Manifest, seal(StoredKind::Manifest, &message))
    }

    fn head(&self, facts: FactsMessage) -> (Shelf, Vec<u8>) {
        let message = HeadMessage {
            min_reader: super::envelope::FORMAT.into(),
            generation: self.table.generation().0.into(),
            seq: self.seq,
            digest: self.table.digest().octets(),
            rows: self.table.rows().len() as u64,
            ring_first: self.ring_first,
            ring_slots: RING_SLOTS as u32,
            term: self.term,
            publisher: Some(self.publisher.clone()),
            facts: Some(facts),
            frames: self.recent.iter().cloned().collect(),
        };
        (Shelf::Head, seal(StoredKind::Head, &message))
    }
}

/// Returns how many changes go into one frame, which is one at least.
fn frame_length(changes: &[(Octets, Option<Octets>)]) -> usize {
    let mut room = MAX_FRAME_SIZE - FrameMessage::default().encoded_len() - 128;
    let fits = |(key, value): &&(Octets, Option<Octets>)| {
        let size = key.len() + value.as_ref().map_or(0, |value| value.len()) + ROW_OVERHEAD;
        room.checked_sub(size).inspect(|left| room = *left).is_some()
    };
    // One in any case, because a publisher that puts none into a frame would never come to an end.
    changes.iter().take(MAX_FRAME_ROWS).take_while(fits).count().max(1)
}
