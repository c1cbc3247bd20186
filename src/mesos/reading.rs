//! Documents of one source, read one after the other at the cost of what changed.
//!
//! A document is a list of items (tasks, agents) in some frame, and its snapshot the sum of the items'
//! facts (`facts.rs`). Nearly all items of a document are, octet by octet, those of the last one. So the reader
//! remembers of each item how long it was, a keyed hash of its octets, and its facts. At the beginning of
//! an item it looks whether the octets there are the item that came next the last time. If they are, and
//! the item ends there, its facts are known and nothing of it is read. Else the end of the item is looked
//! for, then whether it was elsewhere in the last document, and only a new one is parsed. From items that
//! came and went follows what the snapshot gains and loses.
//!
//! For example, after a document with the items `a b c d`:
//!
//! | document | known by its place | found by its hash | parsed | snapshot |
//! |---|---|---|---|---|
//! | `a b c d` | a b c d | | | the same |
//! | `a B c d`, b has another count of restarts | a c d | | B | the same: the facts of B are those of b |
//! | `a b d x` | a b d | | x | without c, with x |
//! | `d a b` | b | d a | | without c |
//! | `a b c`, cut off | | | | an error; the next document is compared with `a b c d` again |
//!
//! The definition is that of a reader without memory, [`super::parse`]: a property test compares both
//! after each of many random changes.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::io::Read;
use std::sync::Arc;

use super::agents::executor_facts;
use super::cursor::{Cursor, text};
use super::error::Error;
use super::executors::Executors;
use super::facts::{Facts, ITEM, Kind};
use super::format::StateFormat;
use super::items::{self, Head, Items};
use super::skip::{MAX_SKIPPED, add_skipped};
use super::texts::Texts;
use super::wire::{Lenient, MesosExecutor};
use super::{operator, state};
use crate::cluster::{Skipped, Snapshot};

/// Reader of the documents of one source, with what it knows of the last one.
#[derive(Debug, Default)]
pub struct DocumentReader {
    /// Hashes are keyed by chance, since tenants write most of what is hashed.
    key: RandomState,
    texts: Texts,
    /// Items of the last document in its order.
    known: Vec<KnownItem>,
    head: Head,
    executors: Executors,
    /// `None` before the first document.
    snapshot: Option<Snapshot>,
    tally: Tally,
}

/// A document that was read.
#[derive(Debug)]
pub struct Reading {
    pub snapshot: Snapshot,
    /// True if the last document led to the same snapshot.
    pub is_same: bool,
    pub work: Work,
}

/// Items by what they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Items that were where they had been: hashed.
    pub recognised: usize,
    /// Items that were elsewhere: their end was looked for, and they were hashed.
    pub moved: usize,
    /// New items: parsed as well.
    pub parsed: usize,
}

/// An item of a document.
#[derive(Debug)]
struct KnownItem {
    kind: Kind,
    /// 0 for something that is never recognised.
    length: u32,
    hash: u64,
    facts: Facts,
}

/// Numbers of facts of a snapshot. As many as there are entries, unless two items have one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    tasks: usize,
    registered: usize,
    ended: usize,
    lost: usize,
}

impl Tally {
    fn of(snapshot: &Snapshot) -> Self {
        Self {
            tasks: snapshot.tasks.len(),
            registered: snapshot.names.len(),
            ended: snapshot.ended.len(),
            lost: snapshot.lost.len(),
        }
    }

    fn sum<'f>(facts: impl Iterator<Item = &'f Facts>) -> Self {
        let mut sum = Self::default();
        for facts in facts {
            match facts {
                Facts::Task { task, registered, .. } => {
                    sum.tasks += usize::from(task.is_some());
                    sum.registered += usize::from(registered.is_some());
                }
                Facts::Ended { is_lost, .. } => {
                    sum.ended += 1;
                    sum.lost += usize::from(*is_lost);
                }
                Facts::Nothing | Facts::Executor(_) | Facts::Agent(_) | Facts::Skipped(_) => {}
            }
        }
        sum
    }
}

impl DocumentReader {
    /// Reads a document whose text comes from any reader, such as one that decompresses. After an error the
    /// reader knows what it knew before.
    ///
    /// # Errors
    /// When the document as a whole cannot be read, or `shows_tasks` is asked for and the document was made
    /// for a client that may not see tasks.
    pub fn read(
        &mut self,
        document: impl Read,
        format: StateFormat,
        shows_tasks: bool,
    ) -> Result<Reading, Error> {
        let mut texts = std::mem::take(&mut self.texts);
        let mut items = FreshItems::new(self, &mut texts);
        let walked = walk(document, format, &mut items);
        let (is_in_use, work) = (items.is_in_use(), items.work);
        let (order, fresh, taken) = (items.order, items.fresh, items.taken);
        // Before the error is looked at, which must not cost the texts that are known.
        self.texts = texts;
        let head = walked?;
        // Without rights to see tasks a document looks like that of an empty cluster, and every VIP would go.
        if shows_tasks && head.is_idle && is_in_use {
            return Err(Error::Hidden);
        }
        let (snapshot, is_same) = self.learn(order, fresh, taken, head);
        Ok(Reading { snapshot, is_same, work })
    }

    /// Takes the items of a document in. Returns its snapshot, and true if it is the last one.
    fn learn(
        &mut self,
        mut order: Vec<Slot>,
        mut fresh: Vec<FreshItem>,
        mut taken: Vec<bool>,
        head: Head,
    ) -> (Snapshot, bool) {
        // An item that was rewritten and yet says what it said stays the same item.
        for slot in &mut order {
            if let Slot::Fresh(number) = *slot
                && let Some(FreshItem { item, expected }) = fresh.get(number as usize)
                && let Some(known) = self.known.get_mut(*expected)
                && let Some(is_taken) = taken.get_mut(*expected)
                && !*is_taken
                && known.kind == item.kind
                && known.facts == item.facts
            {
                (known.length, known.hash) = (item.length, item.hash);
                *is_taken = true;
                *slot = Slot::Known(u32::try_from(*expected).unwrap_or(u32::MAX));
            }
        }
        let places: Vec<u32> = order.iter().filter_map(|slot| slot.known()).collect();
        // Of two items with one key the later one counts, so that their order is part of what a document says.
        let is_reordered = !places.is_sorted();
        let is_whole = places.len() == self.known.len() && places.len() == order.len() && !is_reordered;
        let (snapshot, executors) = match &self.snapshot {
            Some(snapshot) if is_whole && head == self.head => (snapshot.clone(), None),
            _ => {
                let change =
                    Change { reader: self, order: &order, fresh: &mut fresh, taken: &taken, is_reordered };
                let executors = change.executors();
                let snapshot = change.snapshot(&head, executors.as_ref().unwrap_or(&self.executors));
                (snapshot, executors)
            }
        };
        if let Some(executors) = executors {
            self.executors = executors;
        }
        if !is_whole {
            self.rearrange(&order, fresh);
        }
        self.head = head;
        // Compared at last: parts that differ may say the same together.
        let is_same = self.snapshot.as_ref() == Some(&snapshot);
        // A new one that is equal would make all later comparisons go through it.
        if !is_same {
            self.snapshot = Some(snapshot.clone());
        }
        (snapshot, is_same)
    }

    /// Puts the items into the order of the document.
    fn rearrange(&mut self, order: &[Slot], fresh: Vec<FreshItem>) {
        let mut known: Vec<Option<KnownItem>> =
            std::mem::take(&mut self.known).into_iter().map(Some).collect();
        let mut fresh: Vec<Option<KnownItem>> = fresh.into_iter().map(|fresh| Some(fresh.item)).collect();
        let items = order.iter().filter_map(|slot| match slot {
            Slot::Known(number) => known.get_mut(*number as usize)?.take(),
            Slot::Fresh(number) => fresh.get_mut(*number as usize)?.take(),
        });
        // Collected without a known length, it would have room for twice as many.
        self.known = Vec::with_capacity(order.len());
        self.known.extend(items);
        // Records beyond those that a snapshot keeps are not kept either: their items are read anew each time.
        let mut records = 0;
        for item in &mut self.known {
            records += item.facts.skipped().len();
            if records > MAX_SKIPPED && !item.facts.skipped().is_empty() {
                item.length = 0;
                item.facts.forget_skipped();
            }
        }
        self.tally = Tally::sum(self.known.iter().map(|item| &item.facts));
    }

    fn hash(&self, kind: Kind, octets: &[u8]) -> u64 {
        let mut hasher = self.key.build_hasher();
        hasher.write_u8(kind as u8);
        hasher.write(octets);
        hasher.finish()
    }
}

/// Walks through a document in one of the shapes.
pub fn walk(document: impl Read, format: StateFormat, items: &mut impl Items) -> Result<Head, Error> {
    let mut cursor = Cursor::new(document);
    if cursor.peek()?.is_none() {
        return Err(Error::Empty);
    }
    match format {
        StateFormat::V0 => state::walk(&mut cursor, items),
        StateFormat::V1 => operator::walk(&mut cursor, items)?.ok_or(Error::Missing("get_state")),
    }
}

/// Items of a document, compared with those of the last one.
struct Change<'r> {
    reader: &'r DocumentReader,
    order: &'r [Slot],
    fresh: &'r mut [FreshItem],
    /// Items of the last document that this one has as well.
    taken: &'r [bool],
    is_reordered: bool,
}

impl Change<'_> {
    /// Returns the executors of the document; `None` if they are those of the last one.
    fn executors(&self) -> Option<Executors> {
        let mut differing = self.removed().chain(self.added());
        let differ = self.is_reordered || differing.any(|facts| matches!(facts, Facts::Executor(_)));
        // Few, and their order counts.
        differ.then(|| Facts::executors(self.facts()))
    }

    /// Returns the snapshot of the document, which has these executors.
    fn snapshot(mut self, head: &Head, executors: &Executors) -> Snapshot {
        // The first document has nothing to go by.
        let Some(before) = self.reader.snapshot.as_ref() else {
            let mut snapshot = self.whole(head, executors);
            // Filled in the order of a document, which leaves room in its parts.
            snapshot.pack();
            return snapshot;
        };
        self.share(before);
        // With two items of one key, the loss of one of them brings the other one to light.
        if self.reader.tally != Tally::of(before) {
            return self.whole(head, executors).sharing(before);
        }
        let mut snapshot = before.clone();
        // A task that changed goes and comes.
        for facts in self.removed() {
            facts.take_from(&mut snapshot);
        }
        for facts in self.added() {
            facts.add_to(&mut snapshot, executors);
            facts.share_task(&mut snapshot, before);
        }
        // An item that has come may have the key of one that stays; which of them counts, all items decide.
        if Tally::of(&snapshot) != Tally::sum(self.facts()) {
            return self.whole(head, executors).sharing(before);
        }
        // Tasks that stay, and whose executor came, went or has other ports.
        if *executors != self.reader.executors {
            for facts in self.facts().filter(|facts| facts.is_concerned(&self.reader.executors, executors)) {
                facts.add_task_to(&mut snapshot, executors);
                facts.share_task(&mut snapshot, before);
            }
        }
        let mut differing = self.removed().chain(self.added());
        let agents_differ = differing.any(|facts| matches!(facts, Facts::Agent(_)));
        if self.is_reordered || agents_differ || head != &self.reader.head {
            // Few, and their order counts.
            let mut origins = Snapshot::default();
            for facts in self.facts().filter(|facts| matches!(facts, Facts::Agent(_))) {
                facts.add_to(&mut origins, executors);
            }
            head.add_to(&mut origins);
            snapshot.agents = origins.agents.sharing(&before.agents);
            snapshot.recovered = origins.recovered.sharing(&before.recovered);
            snapshot.frameworks = origins.frameworks.sharing(&before.frameworks);
            snapshot.registered = origins.registered.sharing(&before.registered);
            let (known, named) = (&snapshot.names, &origins.names);
            if (known.leader, &known.schedulers) != (named.leader, &named.schedulers) {
                let names = Arc::make_mut(&mut snapshot.names);
                names.leader = origins.names.leader;
                names.schedulers.clone_from(&origins.names.schedulers);
            }
        }
        snapshot.master.clone_from(&head.master);
        // In the order of the document.
        snapshot.skipped.clear();
        for record in self.facts().flat_map(Facts::skipped).take(MAX_SKIPPED) {
            add_skipped(&mut snapshot.skipped, record.clone());
        }
        snapshot
    }

    /// Returns the snapshot as the sum of all facts, which is its definition.
    fn whole(&self, head: &Head, executors: &Executors) -> Snapshot {
        let mut snapshot = Snapshot { master: head.master.clone(), ..Snapshot::default() };
        for facts in self.facts() {
            facts.add_to(&mut snapshot, executors);
        }
        head.add_to(&mut snapshot);
        snapshot
    }

    /// Replaces what is equal to a part of the last snapshot by that very part.
    fn share(&mut self, before: &Snapshot) {
        for FreshItem { item, .. } in self.fresh.iter_mut() {
            // A task that says what it said becomes the same one, so that comparing snapshots passes over it.
            let Facts::Task { task, registered, .. } = &mut item.facts else { continue };
            if let Some(task) = task
                && let Some(known) = before.tasks.get(&task.key).filter(|known| *known == task)
            {
                *task = Arc::clone(known);
            }
            if let Some((key, task)) = registered
                && let Some(known) = before.names.tasks.get(key).filter(|known| *known == task)
            {
                *task = Arc::clone(known);
            }
        }
    }

    /// Iterates over the facts of all items in the order of the document.
    fn facts(&self) -> impl Iterator<Item = &Facts> {
        self.order.iter().filter_map(|slot| match slot {
            Slot::Known(number) => self.reader.known.get(*number as usize).map(|item| &item.facts),
            Slot::Fresh(number) => self.fresh.get(*number as usize).map(|fresh| &fresh.item.facts),
        })
    }

    /// Iterates over the facts of items that the document does not have any more.
    fn removed(&self) -> impl Iterator<Item = &Facts> {
        let items = self.reader.known.iter().zip(self.taken);
        items.filter(|(_, is_taken)| !**is_taken).map(|(item, _)| &item.facts)
    }

    /// Iterates over the facts of items that are new in the document.
    fn added(&self) -> impl Iterator<Item = &Facts> {
        self.order.iter().filter_map(|slot| match slot {
            Slot::Fresh(number) => self.fresh.get(*number as usize).map(|fresh| &fresh.item.facts),
            Slot::Known(_) => None,
        })
    }
}

/// An item of the document that is being read, by its number.
#[derive(Clone, Copy, Debug)]
enum Slot {
    /// One of the last document's.
    Known(u32),
    /// A new one.
    Fresh(u32),
}

impl Slot {
    fn known(self) -> Option<u32> {
        match self {
            Self::Known(number) => Some(number),
            Self::Fresh(_) => None,
        }
    }
}

/// A new item, and the place of the item of the last document that it may have replaced.
struct FreshItem {
    item: KnownItem,
    expected: usize,
}

/// Hashes are as good as random already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, octets: &[u8]) {
        octets.iter().for_each(|octet| self.0 = self.0.rotate_left(8) ^ u64::from(*octet));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Places of items by their hash.
type Places = HashMap<u64, u32, BuildHasherDefault<AsIs>>;

/// Items of the document that is being read.
struct FreshItems<'r> {
    reader: &'r DocumentReader,
    texts: &'r mut Texts,
    order: Vec<Slot>,
    fresh: Vec<FreshItem>,
    taken: Vec<bool>,
    /// Place of the item that comes next if nothing has changed.
    next: usize,
    /// Made for the first item that is not where it was.
    places: Option<Places>,
    /// Records in `fresh`.
    records: usize,
    work: Work,
}

impl<'r> FreshItems<'r> {
    fn new(reader: &'r DocumentReader, texts: &'r mut Texts) -> Self {
        Self {
            reader,
            texts,
            order: Vec::with_capacity(reader.known.len()),
            fresh: Vec::new(),
            taken: vec![false; reader.known.len()],
            next: 0,
            places: None,
            records: 0,
            work: Work::default(),
        }
    }

    /// Returns the item of the last document that the text at the cursor is, if it is one of those that are
    /// likely.
    fn recognise<R: Read>(&mut self, cursor: &mut Cursor<R>, kind: Kind) -> Result<Option<usize>, Error> {
        // After an item that came or went, those after it are one place further or nearer.
        let likely = [Some(self.next), self.next.checked_add(1), self.next.checked_sub(1)];
        for place in likely.into_iter().flatten() {
            let (Some(known), Some(false)) = (self.reader.known.get(place), self.taken.get(place)) else {
                continue;
            };
            let length = known.length as usize;
            if known.kind != kind || length == 0 || !cursor.ensure(length + 1)? {
                continue;
            }
            // The same octets could be the beginning of a longer item, were it not for what follows them.
            let is_end = |octet: &u8| matches!(octet, b',' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            if cursor.unread().get(length).is_some_and(is_end)
                && self.reader.hash(kind, cursor.octets(length)) == known.hash
            {
                cursor.advance(length);
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Returns the place of an item with this hash in the last document.
    fn find(&mut self, kind: Kind, length: usize, hash: u64) -> Option<usize> {
        let known = &self.reader.known;
        let places = self.places.get_or_insert_with(|| {
            let recognisable = known.iter().zip(0..).filter(|(item, _)| item.length > 0);
            recognisable.map(|(item, place)| (item.hash, place)).collect()
        });
        let place = *places.get(&hash)? as usize;
        let item = known.get(place)?;
        let is_this =
            item.kind == kind && item.length as usize == length && self.taken.get(place) == Some(&false);
        is_this.then_some(place)
    }

    fn take_known(&mut self, place: usize) {
        if let Some(is_taken) = self.taken.get_mut(place) {
            *is_taken = true;
        }
        self.order.push(Slot::Known(u32::try_from(place).unwrap_or(u32::MAX)));
        self.next = place + 1;
    }

    fn take_fresh(&mut self, item: KnownItem) {
        self.order.push(Slot::Fresh(u32::try_from(self.fresh.len()).unwrap_or(u32::MAX)));
        self.fresh.push(FreshItem { item, expected: self.next });
        // As if it had replaced an item.
        self.next += 1;
    }

    /// True if the resources of any agent are in use.
    fn is_in_use(&self) -> bool {
        let mut facts = self.order.iter().filter_map(|slot| match slot {
            Slot::Known(number) => self.reader.known.get(*number as usize).map(|item| &item.facts),
            Slot::Fresh(number) => self.fresh.get(*number as usize).map(|fresh| &fresh.item.facts),
        });
        facts.any(Facts::is_agent_in_use)
    }

    /// Bounds the records that are held until the document has ended. Those before them fill the snapshot's list
    /// by then, so that none is lost that the snapshot would have.
    fn bound(&mut self, item: &mut KnownItem) {
        let records = item.facts.skipped().len();
        if records > 0 && self.records >= MAX_SKIPPED {
            item.length = 0;
            item.facts.forget_skipped();
        }
        self.records += records;
    }
}

impl Items for FreshItems<'_> {
    fn item<R: Read>(&mut self, cursor: &mut Cursor<R>, kind: Kind) -> Result<(), Error> {
        // Past white space, to where the item begins.
        cursor.peek()?;
        if let Some(place) = self.recognise(cursor, kind)? {
            self.work.recognised += 1;
            self.take_known(place);
            return Ok(());
        }
        let Some(length) = cursor.value(ITEM)? else {
            self.record(kind.too_long());
            return Ok(());
        };
        let octets = cursor.octets(length);
        let hash = self.reader.hash(kind, octets);
        if let Some(place) = self.find(kind, length, hash) {
            self.work.moved += 1;
            self.take_known(place);
        } else {
            self.work.parsed += 1;
            let facts = items::facts(kind, &text(octets), self.texts);
            let facts = facts.map_err(|error| cursor.not_json(&error))?;
            let mut item = KnownItem { kind, length: u32::try_from(length).unwrap_or_default(), hash, facts };
            self.bound(&mut item);
            self.take_fresh(item);
        }
        cursor.advance(length);
        Ok(())
    }

    fn executor(&mut self, executor: MesosExecutor<'_>) {
        let facts = executor_facts(Lenient::Read(executor), self.texts);
        self.take_fresh(KnownItem { kind: Kind::Executor, length: 0, hash: 0, facts });
    }

    fn record(&mut self, record: Skipped) {
        let facts = Facts::Skipped(Box::new(record));
        let mut item = KnownItem { kind: Kind::Task, length: 0, hash: 0, facts };
        self.bound(&mut item);
        self.take_fresh(item);
    }
}

#[cfg(test)]
mod tests;
