use proptest::prelude::*;

use super::*;
use crate::cluster::Protocol;

fn key(last: u8) -> ServiceKey {
    ServiceKey { protocol: Protocol::Tcp, address: IpAddr::from([10, 0, 0, last]), port: 80 }
}

fn server(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn scheduling() -> Scheduling {
    Scheduling { scheduler: SCHEDULER.to_owned(), flags: 0 }
}

/// The three maps, as bytes.
#[derive(Default)]
struct Maps {
    vips: BTreeMap<Vec<u8>, [u8; 8]>,
    slots: Vec<u8>,
}

impl Maps {
    fn decode(&self) -> BTreeMap<ServiceKey, Placed> {
        let keys: Vec<u8> = self.vips.keys().flatten().copied().collect();
        let values: Vec<u8> = self.vips.values().flatten().copied().collect();
        decode(&keys, &values, &self.slots)
    }

    /// Does with a book what the data plane does with it and the kernel.
    fn carry_out(&mut self, book: &mut Book, ops: &[&Op]) -> Vec<(SocketAddr, u32)> {
        let (drafts, refused) = book.draft(ops);
        assert!(refused.is_empty(), "{refused:?}");
        let mut gone = Vec::new();
        for (key, draft) in drafts {
            let placed = draft.servers.map(|servers| {
                book.place(&key, &servers).or_else(|_| {
                    book.reclaim(|_| 0);
                    book.place(&key, &servers)
                })
            });
            let placed = placed.transpose().unwrap();
            match &placed {
                Some(placed) => {
                    for (index, slot) in (placed.base as usize..).zip(placed.slots(key)) {
                        self.slots.resize(self.slots.len().max((index + 1) * SLOT_SIZE), 0);
                        self.slots[index * SLOT_SIZE..][..SLOT_SIZE].copy_from_slice(&slot.encode());
                    }
                    self.vips.insert(layout::vip(&key).to_vec(), placed.region().encode());
                }
                None => drop(self.vips.remove(layout::vip(&key).as_slice())),
            }
            gone.extend(book.commit(key, placed));
        }
        gone
    }
}

/// A few operations on few services, those that fail for what is there included.
fn steps() -> impl Strategy<Value = Vec<(u8, u8, u16, u32)>> {
    prop::collection::vec((0_u8..5, 0_u8..4, 1_u16..6, 0_u32..3), 0..60)
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(steps in steps()) {
        let (mut maps, mut book) = (Maps::default(), Book::adopt(BTreeMap::new()));
        let mut wanted: BTreeMap<ServiceKey, BTreeMap<SocketAddr, u32>> = BTreeMap::new();
        for (kind, last, port, weight) in steps {
            let (key, server, real) = (key(last), server(port), RealServer::masquerade(weight));
            let op = match kind {
                0 => Op::AddService(key, scheduling()),
                1 => Op::AddServer(key, server, real),
                2 => Op::SetServer(key, server, real),
                3 => Op::DelServer(key, server),
                _ => Op::DelService(key),
            };
            let mut after = wanted.get(&key).cloned();
            if change(&mut after, &op).is_err() {
                continue;
            }
            maps.carry_out(&mut book, &[&op]);
            match after {
                Some(after) => drop(wanted.insert(key, after)),
                None => drop(wanted.remove(&key)),
            }
            prop_assert_eq!(&maps.decode(), &book.services);
            let weights = book.services.iter().map(|(key, placed)| {
                (*key, placed.servers.iter().map(|(address, member)| (*address, member.weight)).collect())
            });
            prop_assert_eq!(weights.collect::<BTreeMap<_, _>>(), wanted.clone());
            let ids: Vec<u32> = book.services.values().flat_map(|placed| placed.servers.values().map(|m| m.id)).collect();
            prop_assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(vips: Vec<u8>, regions: Vec<u8>, slots: Vec<u8>) {
        let found = decode(&vips, &regions, &slots);
        prop_assert!(slots_in_use(&regions) <= layout::SLOTS as usize);
        Book::adopt(found);
    }
}

#[test]
fn a_server_keeps_its_id_while_it_is_there() {
    let (mut maps, mut book) = (Maps::default(), Book::adopt(BTreeMap::new()));
    let add = |port| Op::AddServer(key(1), server(port), RealServer::masquerade(1));
    maps.carry_out(&mut book, &[&Op::AddService(key(1), scheduling()), &add(1), &add(2)]);
    let before = book.services[&key(1)].servers.clone();
    let gone = maps.carry_out(&mut book, &[&add(3), &Op::DelServer(key(1), server(1))]);
    assert_eq!(gone, [(server(1), before[&server(1)].id)]);
    assert_eq!(book.services[&key(1)].servers[&server(2)], before[&server(2)]);
}

#[test]
fn a_damaged_service_is_no_wanted_one() {
    let (mut maps, mut book) = (Maps::default(), Book::adopt(BTreeMap::new()));
    for last in [1, 2] {
        let add = |port| Op::AddServer(key(last), server(port), RealServer::masquerade(1));
        maps.carry_out(&mut book, &[&Op::AddService(key(last), scheduling()), &add(1), &add(2)]);
    }
    let base = book.services[&key(1)].base as usize;
    for byte in [0, 20, 36] {
        maps.slots[base * SLOT_SIZE + byte] ^= 0x10;
    }
    let found = maps.decode();
    assert_eq!(found[&key(1)].service().scheduling, Scheduling::unknown());
    assert!(found[&key(1)].servers.is_empty());
    assert_eq!(found[&key(2)], book.services[&key(2)]);
    // Which the ordinary operations mend.
    let mut book = Book::adopt(found);
    let add = Op::AddServer(key(1), server(1), RealServer::masquerade(1));
    maps.carry_out(&mut book, &[&Op::SetService(key(1), scheduling()), &add]);
    assert!(maps.decode().values().all(|placed| placed.sound));
}

#[test]
fn what_was_placed_in_vain_is_free_again() {
    let mut book = Book::adopt(BTreeMap::new());
    book.reclaim(|_| 0);
    let before = format!("{book:?}").len();
    let servers = BTreeMap::from([(server(1), 1), (server(2), 0)]);
    let placed = book.place(&key(1), &servers).unwrap();
    assert_eq!(placed.region(), Region { base: placed.base, active: 1, total: 2 });
    book.forget(&key(1), &placed);
    assert_eq!(format!("{book:?}").len(), before);
}
