//! How a follower comes from the table that it has to the one that is published.
//!
//! The caller reads what is asked for and hands in what it got, in any state and however old: a table is shown only
//! if its digest is that of a head. For example, a follower that has frame 17:
//!
//! | handed in | needs |
//! |---|---|
//! | head of frame 18, with it | nothing; frame 18 is shown |
//! | head of frame 40, with frames 38 to 40 | the slots of frames 19 to 37 |
//! | head of frame 2,000, whose ring begins at 977 | the manifest, its chunks, then the head again |
//! | head of frame 12 | to wait: the server lags behind |

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::chunks::sha;
use super::envelope::{FORMAT, Refused, StoredKind, open};
use super::messages::{ChunkBody, ChunkMessage, FrameMessage, HeadMessage, ManifestMessage};
use super::table::{Digest, Generation, Octets, RowChanges, RowTable, changes_of, fits};
use crate::cluster::SharedMap;

/// Octets that all chunks may have; those of a million tasks have a fifth of it.
const MAX_LOADED: u64 = 256 << 20;

/// Reason for which the whole table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadCause {
    /// No table is known.
    Start,
    /// A new generation has begun.
    Generation,
    /// Slots no longer have the frames that are missing.
    Gap,
    /// The published table is older than the known one, and stays so.
    Behind,
    /// A frame or the table is another one than the head tells.
    Digest,
    /// Something that was read is damaged.
    Corrupt,
}

/// Next thing to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needed {
    /// The table is that of the head.
    Nothing,
    /// The server lags behind: the next event, or [`CatchUp::give_up`] when none comes.
    Wait,
    /// The head, once more.
    Head,
    /// The slots of these frames.
    Frames(RangeInclusive<u64>),
    /// The manifest, its chunks, and then the head.
    Manifest(ReloadCause),
}

/// Reason why a head or a manifest cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfollowable {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("it is written for readers of format {0}, this l4lbd reads {FORMAT}: upgrade it")]
    Newer(u32),
    #[error("its content contradicts itself: a faulty version or somebody else wrote it")]
    Content,
    #[error("its chunks have more than {MAX_LOADED} octets")]
    Large,
}

/// A table that a head tells of, to be shown.
#[derive(Clone, Debug)]
pub struct CaughtUp {
    pub table: RowTable,
    pub seq: u64,
    /// Changes that led to it; `None` where all of it was read.
    pub changes: Option<RowChanges>,
}

/// The table of a head.
#[derive(Clone, Debug)]
struct Goal {
    generation: Generation,
    seq: u64,
    digest: Digest,
    rows: u64,
    /// Oldest frame in the ring.
    ring_first: u64,
}

/// A table that is read from chunks.
#[derive(Clone, Debug)]
struct Load {
    generation: Generation,
    /// Chunks that are missing, by name.
    missing: BTreeMap<String, ChunkMessage>,
    rows: Vec<(Octets, Octets)>,
    /// Last frames that are in all chunks, and in one at least.
    oldest: u64,
    newest: u64,
}

/// A follower's table and what it has read of a newer one.
#[derive(Clone, Debug, Default)]
pub struct CatchUp {
    known: Option<(RowTable, u64)>,
    load: Option<Load>,
    goal: Option<Goal>,
    /// First frame that is missing, and those that were read.
    from: u64,
    frames: BTreeMap<u64, FrameMessage>,
    caught_up: Option<CaughtUp>,
    failed_loads: u32,
}

impl CatchUp {
    /// Goes on with a table as of a frame, such as that of the disk.
    pub fn resume(table: RowTable, seq: u64) -> Self {
        Self { known: Some((table, seq)), ..Self::default() }
    }

    /// Returns the table that is known, and its frame.
    pub fn known(&self) -> Option<(&RowTable, u64)> {
        self.known.as_ref().map(|(table, seq)| (table, *seq))
    }

    /// Returns how often in a row the whole table was read in vain. Twice means that what is stored contradicts
    /// itself, and that reading it again and again would only load the servers.
    pub fn failed_loads(&self) -> u32 {
        self.failed_loads
    }

    /// Takes a table that has been caught up with and not been taken yet.
    pub fn take(&mut self) -> Option<CaughtUp> {
        self.caught_up.take()
    }

    /// Takes in a head.
    ///
    /// # Errors
    /// When it can't be read; the known table stays.
    pub fn head(&mut self, stored: &[u8]) -> Result<Needed, Unfollowable> {
        let (head, goal) = read_head(stored)?;
        self.frames.clear();
        // Chunks of which some are missing make no table.
        let load = self.load.take().filter(|load| load.missing.is_empty());
        let load = load.filter(|load| load.generation == goal.generation);
        let known = self.known.as_ref().filter(|(table, _)| table.generation() == goal.generation);
        let base = match (&load, known) {
            // Rows of newer chunks cannot be taken back to the frame of this head.
            (Some(load), _) if goal.seq < load.newest => {
                self.load = Some(load.clone());
                return Ok(Needed::Wait);
            }
            (Some(load), _) => load.oldest,
            (None, Some((table, seq))) if *seq == goal.seq => {
                // The number alone does not tell: only the digest shows that the rows are the same.
                let is_same = table.digest() == goal.digest;
                return Ok(if is_same { Needed::Nothing } else { Needed::Manifest(ReloadCause::Digest) });
            }
            (None, Some((_, seq))) if *seq > goal.seq => return Ok(Needed::Wait),
            (None, Some((_, seq))) => *seq,
            (None, None) if self.known.is_some() => return Ok(Needed::Manifest(ReloadCause::Generation)),
            (None, None) => return Ok(Needed::Manifest(ReloadCause::Start)),
        };
        // The ring has gone on while the chunks were read.
        if goal.ring_first > base + 1 {
            return Ok(Needed::Manifest(ReloadCause::Gap));
        }
        let inline = head.frames.iter().rev().zip(0..).filter_map(|(stored, back)| {
            // Its slot has it as well, should it be unreadable here.
            let frame: FrameMessage = open(StoredKind::Frame, stored).ok()?;
            let seq = goal.seq.checked_sub(back)?;
            (seq > base && frame.seq == seq).then_some((seq, frame))
        });
        self.frames = inline.collect();
        self.from = base + 1;
        self.goal = Some(goal);
        self.load = load;
        Ok(self.missing_frames())
    }

    /// Takes in what the slot of a frame has; `None` if it does not exist.
    pub fn slot(&mut self, seq: u64, stored: Option<&[u8]>) -> Needed {
        // An answer to the question of an earlier head may come late.
        let Some(goal) = self.goal.as_ref().filter(|goal| (self.from..=goal.seq).contains(&seq)) else {
            return Needed::Head;
        };
        match stored.map(|stored| open::<FrameMessage>(StoredKind::Frame, stored)) {
            Some(Ok(frame)) if frame.seq == seq && frame.generation == goal.generation.0 => {
                self.frames.insert(seq, frame);
                self.missing_frames()
            }
            // Overwritten since: the head tells whether the ring still reaches back far enough.
            Some(Ok(frame)) if frame.seq > seq => Needed::Head,
            Some(Ok(_)) | None => self.reload(ReloadCause::Gap),
            Some(Err(_)) => self.reload(ReloadCause::Corrupt),
        }
    }

    /// Ends the wait for a server that lags behind: what is published has become older.
    pub fn give_up(&mut self) -> Needed {
        self.reload(ReloadCause::Behind)
    }

    /// Takes in the manifest, and returns the chunks that have to be read.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn manifest(&mut self, stored: &[u8]) -> Result<Vec<ChunkMessage>, Unfollowable> {
        self.load = None;
        let manifest: ManifestMessage = open(StoredKind::Manifest, stored)?;
        let generation = Generation::read(&manifest.generation).ok_or(Unfollowable::Content)?;
        let chunks = manifest.chunks;
        let ages = || chunks.iter().map(|chunk| chunk.as_of);
        // Even a table without rows has one chunk.
        let (Some(oldest), Some(newest)) = (ages().min(), ages().max()) else {
            return Err(Unfollowable::Content);
        };
        // Before any chunk is read: their memory would be taken by then.
        if chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum::<u64>() > MAX_LOADED {
            return Err(Unfollowable::Large);
        }
        let missing: BTreeMap<String, ChunkMessage> =
            chunks.iter().map(|chunk| (chunk.node.clone(), chunk.clone())).collect();
        // Names become paths.
        let is_name = |name: &str| {
            (1..=64).contains(&name.len())
                && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
        };
        if missing.len() != chunks.len() || !missing.keys().all(|name| is_name(name)) {
            return Err(Unfollowable::Content);
        }
        self.load = Some(Load { generation, missing, rows: Vec::new(), oldest, newest });
        Ok(chunks)
    }

    /// Takes in a chunk of the manifest; `None` if it does not exist any more.
    pub fn chunk(&mut self, node: &str, stored: Option<&[u8]>) -> Needed {
        let Some(load) = &mut self.load else { return Needed::Manifest(ReloadCause::Gap) };
        let Some(entry) = load.missing.remove(node) else { return Needed::Head };
        // Removed because a newer manifest does not name it.
        let Some(stored) = stored else { return self.reload(ReloadCause::Gap) };
        // The digest first: what the publisher did not write is not even inflated.
        let body = (sha(stored) == entry.sha).then(|| open::<ChunkBody>(StoredKind::Chunk, stored));
        let Some(Ok(body)) = body else { return self.reload(ReloadCause::Corrupt) };
        if !body.rows.iter().all(|row| fits(&row.key, &row.value)) {
            return self.reload(ReloadCause::Corrupt);
        }
        load.rows.extend(body.rows.into_iter().map(|row| (row.key.into(), row.value.into())));
        Needed::Head
    }

    fn reload(&mut self, cause: ReloadCause) -> Needed {
        self.load = None;
        self.goal = None;
        self.frames.clear();
        Needed::Manifest(cause)
    }

    /// Returns the frames that are missing; puts the table together when none is.
    fn missing_frames(&mut self) -> Needed {
        let Some(goal) = &self.goal else { return Needed::Head };
        let mut missing = (self.from..=goal.seq).filter(|seq| !self.frames.contains_key(seq));
        match (missing.next(), missing.next_back()) {
            (Some(first), last) => Needed::Frames(first..=last.unwrap_or(first)),
            (None, _) => self.settle(),
        }
    }

    fn settle(&mut self) -> Needed {
        let Some(goal) = self.goal.take() else { return Needed::Head };
        let frames = std::mem::take(&mut self.frames);
        let load = self.load.take();
        let is_load = load.is_some();
        let start = match (load, &self.known) {
            (Some(load), _) => RowTable::of(goal.generation, SharedMap::from_iter(load.rows)),
            (None, Some((table, _))) => table.clone(),
            (None, None) => return Needed::Manifest(ReloadCause::Start),
        };
        let found = apply(start, frames.into_values(), &goal, !is_load);
        let Some((table, changes)) = found else {
            // Frames that do not fit a known table say nothing about the chunks.
            self.failed_loads += u32::from(is_load);
            return Needed::Manifest(ReloadCause::Digest);
        };
        self.failed_loads = 0;
        // Not taken yet: what led to the one before has led to this one too.
        let changes = match (is_load, self.caught_up.take()) {
            (true, _) => None,
            (false, None) => Some(changes),
            (false, Some(before)) => before.changes.map(|before| [before, changes].concat()),
        };
        self.known = Some((table.clone(), goal.seq));
        self.caught_up = Some(CaughtUp { table, seq: goal.seq, changes });
        Needed::Nothing
    }
}

/// Applies frames in their order, and returns the table if it is the goal. Of a table whose parts are of different
/// ages only the end can be compared.
fn apply(
    mut table: RowTable,
    frames: impl Iterator<Item = FrameMessage>,
    goal: &Goal,
    is_exact: bool,
) -> Option<(RowTable, RowChanges)> {
    let mut all = RowChanges::new();
    for frame in frames {
        let digest = |octets: &[u8]| Digest::read(octets).filter(|_| is_exact);
        let (before, after) = (digest(&frame.before), digest(&frame.after));
        // Frames that came within a head have not been compared with its generation so far.
        if Generation::read(&frame.generation) != Some(goal.generation)
            || before.is_some_and(|before| before != table.digest())
        {
            return None;
        }
        let mut changes = changes_of(frame)?;
        table.apply_all(&changes);
        if after.is_some_and(|after| after != table.digest()) {
            return None;
        }
        all.append(&mut changes);
    }
    let is_goal = table.digest() == goal.digest && table.rows().len() as u64 == goal.rows;
    is_goal.then_some((table, all))
}

fn read_head(stored: &[u8]) -> Result<(HeadMessage, Goal), Unfollowable> {
    let head: HeadMessage = open(StoredKind::Head, stored)?;
    if head.min_reader > u32::from(FORMAT) {
        return Err(Unfollowable::Newer(head.min_reader));
    }
    let (generation, digest) = (Generation::read(&head.generation), Digest::read(&head.digest));
    let (Some(generation), Some(digest)) = (generation, digest) else { return Err(Unfollowable::Content) };
    // A ring is never so long that going through it takes time.
    if head
        .seq
        .checked_add(1)
        .is_none_or(|next| next.saturating_sub(head.ring_first) > u64::from(head.ring_slots))
        || u64::from(head.ring_slots) > super::press::RING_SLOTS
    {
        return Err(Unfollowable::Content);
    }
    let goal = Goal { generation, seq: head.seq, digest, rows: head.rows, ring_first: head.ring_first };
    Ok((head, goal))
}

/// Returns the publisher's last word, for people.
///
/// # Errors
/// When the head can't be read.
pub fn word(stored: &[u8]) -> Result<Arc<HeadMessage>, Unfollowable> {
    read_head(stored).map(|(head, _)| Arc::new(head))
}
