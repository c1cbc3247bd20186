//! A model of publishers, of the store between, and of followers that read through all kinds of faults.
//!
//! The model knows each table that was ever published, by its digest. A follower may show none but these, and
//! once faults end it has to show the last one.

use std::collections::BTreeMap;

use super::random::Random;
use crate::cluster::SharedMap;
use crate::replica::catch_up::{CatchUp, Needed};
use crate::replica::envelope::{StoredKind, open};
use crate::replica::messages::{FactsMessage, FrameMessage, HeadMessage, ManifestMessage, PublisherMessage};
use crate::replica::press::{Press, Shelf, Transaction};
use crate::replica::table::{Digest, Generation, Octets, RowChanges, RowTable, changes_of};

type Stored = SharedMap<String, Octets>;

/// The store at one time, and the table that it stands for.
#[derive(Clone)]
struct State {
    stored: Stored,
    table: RowTable,
}

struct Follower {
    catch_up: CatchUp,
    /// Oldest state that its session may be shown.
    seen: usize,
}

pub struct Model {
    random: Random,
    states: Vec<State>,
    /// `None` between the end of one publisher and the next one's begin.
    press: Option<Press>,
    published: BTreeMap<(Generation, Digest), RowTable>,
    followers: Vec<Follower>,
    /// Tables that followers have shown.
    pub shown: usize,
}

fn octets(text: String) -> Octets {
    text.into_bytes().into()
}

impl Model {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let table = RowTable::new(Self::generation(&mut random));
        let states = vec![State { stored: Stored::default(), table: table.clone() }];
        let followers = (0..3).map(|_| Follower { catch_up: CatchUp::default(), seen: 0 }).collect();
        let mut model = Self { random, states, press: None, published: BTreeMap::new(), followers, shown: 0 };
        model.begin(table, usize::MAX);
        model
    }

    fn generation(random: &mut Random) -> Generation {
        Generation((u128::from(random.next()) << 64 | u128::from(random.next())).to_be_bytes())
    }

    fn state(&self) -> &State {
        self.states.last().unwrap()
    }

    /// Stores the first `limit` transactions; a publisher that stores fewer than all has died.
    fn commit(&mut self, transactions: Vec<Transaction>, limit: usize) {
        if transactions.len() > limit {
            self.press = None;
        }
        for transaction in transactions.into_iter().take(limit) {
            let mut state = self.state().clone();
            for (shelf, bytes) in &transaction {
                state.stored.insert(shelf.path(), bytes.clone().into());
            }
            let frame = transaction.iter().find(|(shelf, _)| matches!(shelf, Shelf::Slot(_)));
            let head = transaction.iter().find(|(shelf, _)| *shelf == Shelf::Head);
            if let Some((_, frame)) = frame {
                let frame: FrameMessage = open(StoredKind::Frame, frame).unwrap();
                state.table.apply_all(&changes_of(frame).unwrap());
            } else if head.is_some() && transaction.len() == 2 {
                state.table = self.press.as_ref().unwrap().table().clone();
            }
            let key = (state.table.generation(), state.table.digest());
            self.published.insert(key, state.table.clone());
            self.states.push(state);
            self.invariants();
        }
    }

    /// What is stored leads a new follower to the table.
    fn invariants(&mut self) {
        let State { stored, table } = self.state();
        let Some(head) = stored.get("head") else { return };
        let head: HeadMessage = open(StoredKind::Head, head).unwrap();
        let manifest: ManifestMessage = open(StoredKind::Manifest, stored.get("manifest").unwrap()).unwrap();
        let oldest = manifest.chunks.iter().map(|chunk| chunk.as_of).min().unwrap();
        assert!(head.ring_first <= oldest + 1, "frames {} to {} are lost", oldest + 1, head.ring_first);
        assert_eq!(Digest::read(&head.digest), Some(table.digest()));
        assert!(manifest.chunks.is_sorted_by(|a, b| a.first_key < b.first_key));
        assert_eq!(manifest.chunks[0].first_key, b"");
        assert!(stored.iter().all(|(_, bytes)| bytes.len() <= 512 << 10));
        if self.random.once_in(40) {
            let mut fresh = CatchUp::default();
            let (stored, table) = (self.state().stored.clone(), self.state().table.clone());
            follow(&mut fresh, false, |path| stored.get(path).map(|bytes| bytes.to_vec()));
            assert_eq!(fresh.known().unwrap().0, &table);
        }
    }

    fn begin(&mut self, table: RowTable, limit: usize) {
        let term = self.press.as_ref().map_or(self.states.len() as u64, Press::term);
        let (press, transactions) =
            Press::begin(table, term, PublisherMessage::default(), FactsMessage::default());
        self.press = Some(press);
        self.commit(transactions, limit);
    }

    /// Another publisher, which knows the table `own` or none, takes the office.
    fn take_over(&mut self, own: Option<(RowTable, u64)>) {
        let stored = self.state().stored.clone();
        let read = |path: &str| stored.get(path).map(|bytes| bytes.to_vec());
        let mut catch_up =
            own.clone().map_or_else(CatchUp::default, |(table, seq)| CatchUp::resume(table, seq));
        let head = read("head").and_then(|head| open::<HeadMessage>(StoredKind::Head, &head).ok());
        let manifest =
            read("manifest").and_then(|read| open::<ManifestMessage>(StoredKind::Manifest, &read).ok());
        // Older than what it has published itself: what it knows is begun anew.
        let is_behind = head.as_ref().zip(own.as_ref()).is_some_and(|(head, (table, seq))| {
            Generation::read(&head.generation) == Some(table.generation())
                && (head.seq < *seq || head.seq == *seq && Digest::read(&head.digest) != Some(table.digest()))
        });
        follow(&mut catch_up, false, read);
        let generation = Self::generation(&mut self.random);
        match (head, manifest, catch_up.known(), own) {
            (_, _, _, Some((table, _))) if is_behind => self.begin(table.renewed(generation), usize::MAX),
            (Some(head), Some(manifest), Some((table, _)), _)
                if Generation::read(&head.generation) == Some(table.generation())
                    && head.generation == manifest.generation =>
            {
                let press = Press::resume(&head, manifest, table.clone(), PublisherMessage::default());
                let heartbeat = press.heartbeat(FactsMessage::default());
                self.press = Some(press);
                self.commit(vec![heartbeat], usize::MAX);
            }
            (_, _, _, own) => {
                let table = own.map_or_else(|| RowTable::new(generation), |(table, _)| table);
                self.begin(table.renewed(generation), usize::MAX);
            }
        }
    }

    fn press(&mut self) -> &mut Press {
        if self.press.is_none() {
            self.take_over(None);
        }
        self.press.as_mut().unwrap()
    }

    fn edits(&mut self, most: u64) -> RowChanges {
        let count = 1 + self.random.below(most);
        let random = &mut self.random;
        let edit = |_| {
            let key = octets(format!("{}{}", random.below(9), random.below(60)));
            // Some are long, so that heads have no room for their frames.
            let length = if random.once_in(30) { 3_000 } else { random.below(12) };
            let value = (0..length).map(|_| random.next() as u8).collect();
            (key, (!random.once_in(3)).then_some(value))
        };
        (0..count).map(edit).collect()
    }

    fn publish(&mut self, most: u64, limit: usize) {
        let changes = self.edits(most);
        let transactions = self.press().publish(&changes, &FactsMessage::default());
        self.commit(transactions, limit);
    }

    /// One thing happens.
    pub fn step(&mut self) {
        match self.random.below(100) {
            0..30 => self.publish(4, usize::MAX),
            30..36 => {
                let most = if self.random.once_in(4) { 1_100 } else { 40 };
                for _ in 0..self.random.below(most) {
                    self.publish(2, usize::MAX);
                    if self.random.once_in(20) {
                        let transactions = self.press().tend();
                        self.commit(transactions, usize::MAX);
                    }
                }
            }
            36..38 => self.publish(300, usize::MAX),
            38..42 => {
                let (most, limit) = (1 + self.random.below(300), self.random.below(3) as usize);
                self.publish(most, limit);
            }
            42..45 => {
                let (table, limit) = (self.press().table().clone(), self.random.below(3) as usize);
                let limit = if self.random.once_in(2) { usize::MAX } else { limit };
                let generation = Self::generation(&mut self.random);
                self.begin(table.renewed(generation), limit);
            }
            45..49 => {
                let transactions = self.press().renew();
                let limit = if self.random.once_in(2) { usize::MAX } else { self.random.below(2) as usize };
                self.commit(transactions, limit);
            }
            49..52 => {
                let heartbeat = self.press().heartbeat(FactsMessage::default());
                self.commit(vec![heartbeat], usize::MAX);
            }
            52..57 => {
                let own = self.press.take().map(|press| (press.table().clone(), press.seq()));
                let own = own.filter(|_| self.random.once_in(2));
                self.take_over(own);
            }
            57..60 => {
                // A backup is put back; all sessions end with it.
                let state = self.random.below(self.states.len() as u64) as usize;
                self.states.push(self.states[state].clone());
                let now = self.states.len() - 1;
                self.followers.iter_mut().for_each(|follower| follower.seen = now);
                let own = self.press.take().map(|press| (press.table().clone(), press.seq()));
                let own = own.filter(|_| self.random.once_in(2));
                self.take_over(own);
            }
            60..64 => {
                // A session ends, and the next one may land on an older server.
                let follower = self.random.below(self.followers.len() as u64) as usize;
                self.followers[follower].seen = self.followers[follower].seen.saturating_sub(30);
            }
            64..66 => {
                let follower = self.random.below(self.followers.len() as u64) as usize;
                self.followers[follower].catch_up = CatchUp::default();
            }
            _ => {
                let follower = self.random.below(self.followers.len() as u64) as usize;
                self.read(follower);
            }
        }
    }

    /// A follower reads, perhaps from old states, in the middle of changes, and with damage.
    fn read(&mut self, follower: usize) {
        let Follower { catch_up, seen } = &mut self.followers[follower];
        let (states, random) = (&self.states, &mut self.random);
        let is_faulty = random.once_in(3);
        let patience = !random.once_in(6);
        follow(catch_up, patience, |path| {
            let late = random.below(20).min((states.len() - 1 - *seen) as u64) as usize;
            // An event was missed, or a server is late; but what was seen stays seen.
            *seen = (states.len() - 1 - late).max(*seen);
            let mut bytes = states[*seen].stored.get(path)?.to_vec();
            match random.below(if is_faulty { 30 } else { u64::MAX }) {
                0 => return None,
                1 => bytes.truncate(random.below(bytes.len() as u64) as usize),
                2 => {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << random.below(8);
                }
                _ => {}
            }
            Some(bytes)
        });
        self.check(follower);
    }

    fn check(&mut self, follower: usize) {
        if let Some(caught_up) = self.followers[follower].catch_up.take() {
            let key = (caught_up.table.generation(), caught_up.table.digest());
            let known = self.published.get(&key).expect("a table was shown that nobody published");
            assert_eq!(known.rows(), caught_up.table.rows());
            self.shown += 1;
        }
    }

    /// Faults end, and the publisher gives one more sign of life.
    pub fn end(&mut self) {
        let heartbeat = self.press().heartbeat(FactsMessage::default());
        self.commit(vec![heartbeat], usize::MAX);
        let State { stored, table } = self.state().clone();
        assert_eq!(self.press().table(), &table);
        for follower in 0..self.followers.len() {
            follow(&mut self.followers[follower].catch_up, false, |path| {
                stored.get(path).map(|bytes| bytes.to_vec())
            });
            self.check(follower);
            assert_eq!(self.followers[follower].catch_up.known().unwrap().0, &table);
        }
    }
}

/// Reads what a follower needs until it needs no more, or something can't be read.
fn follow(catch_up: &mut CatchUp, is_patient: bool, mut read: impl FnMut(&str) -> Option<Vec<u8>>) {
    let mut needed = Needed::Head;
    for _ in 0..12 {
        needed = match needed {
            Needed::Nothing => return,
            Needed::Wait if is_patient => return,
            Needed::Wait => catch_up.give_up(),
            Needed::Head => match read("head").map(|head| catch_up.head(&head)) {
                Some(Ok(needed)) => needed,
                _ => return,
            },
            Needed::Frames(range) => {
                let mut next = Needed::Head;
                for seq in range {
                    next = catch_up.slot(seq, read(&Shelf::of_frame(seq).path()).as_deref());
                    if !matches!(next, Needed::Frames(_)) {
                        break;
                    }
                }
                next
            }
            Needed::Manifest(_) => match read("manifest").map(|manifest| catch_up.manifest(&manifest)) {
                Some(Ok(chunks)) => {
                    let mut next = Needed::Head;
                    for chunk in chunks {
                        next = catch_up
                            .chunk(&chunk.node, read(&Shelf::Chunk(chunk.node.clone()).path()).as_deref());
                        if next != Needed::Head {
                            break;
                        }
                    }
                    next
                }
                _ => return,
            },
        };
    }
}

/// One case: so many things happen, and then followers have the publisher's table.
pub fn any_delivery_gives_the_publishers_table(seed: u64, steps: usize) -> usize {
    let mut model = Model::new(seed);
    (0..steps).for_each(|_| model.step());
    model.end();
    model.shown
}
