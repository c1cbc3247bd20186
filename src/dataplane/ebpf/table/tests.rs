use proptest::prelude::*;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

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

/// Content of the maps.
#[derive(Default)]
struct Maps {
    vips: BTreeMap<ServiceKey, u64>,
    slots: Vec<Slot>,
}

impl Maps {
    fn decode(&self) -> BTreeMap<ServiceKey, PlacedService> {
        let keys: Vec<VipKey> = self.vips.keys().map(|key| VipKey::from(*key)).collect();
        let words: Vec<u64> = self.vips.values().copied().collect();
        decode(&keys, &words, &self.slots)
    }

    /// Does with a table what the data plane does with it and the kernel.
    fn carry_out(&mut self, table: &mut ServiceTable, ops: &[&Op]) -> Vec<(SocketAddr, u32)> {
        let (drafts, refused) = table.draft(ops);
        assert!(refused.is_empty(), "{refused:?}");
        let mut removed = Vec::new();
        for (key, draft) in drafts {
            let is_unejected = draft.is_unejected;
            let placed = draft.servers.map(|servers| {
                table.place(&key, &servers, is_unejected).or_else(|_| {
                    table.reclaim(|_| 0);
                    table.place(&key, &servers, is_unejected)
                })
            });
            let placed = placed.transpose().unwrap();
            match &placed {
                Some(placed) => {
                    for (index, slot) in (placed.base as usize..).zip(placed.slots(key)) {
                        self.slots.resize(self.slots.len().max(index + 1), Slot::new_zeroed());
                        self.slots[index] = slot;
                    }
                    self.vips.insert(key, placed.region().word());
                }
                None => drop(self.vips.remove(&key)),
            }
            removed.extend(table.commit(key, placed));
        }
        removed
    }
}

/// Operations on few services, including some that fail because of what exists.
fn steps() -> impl Strategy<Value = Vec<(u8, u8, u16, u32)>> {
    prop::collection::vec((0_u8..6, 0_u8..4, 1_u16..6, 0_u32..4), 0..60)
}

proptest! {
    #[test]
    fn decode_reads_what_was_placed(steps in steps()) {
        let (mut maps, mut table) = (Maps::default(), ServiceTable::adopt(BTreeMap::new()));
        let mut wanted: BTreeMap<ServiceKey, BTreeMap<SocketAddr, u32>> = BTreeMap::new();
        for (kind, last, port, weight) in steps {
            let (key, server, real) = (key(last), server(port), RealServer::masquerade(weight));
            let op = match kind {
                0 => Op::AddService(key, scheduling()),
                1 => Op::AddServer(key, server, real),
                2 => Op::SetServer(key, server, real),
                3 => Op::DelServer(key, server),
                4 => Op::SetService(key, Scheduling { flags: weight % 2 * UNEJECTED, ..scheduling() }),
                _ => Op::DelService(key),
            };
            let mut after = wanted.get(&key).cloned();
            if change(&mut after, &op).is_err() {
                continue;
            }
            maps.carry_out(&mut table, &[&op]);
            match after {
                Some(after) => drop(wanted.insert(key, after)),
                None => drop(wanted.remove(&key)),
            }
            prop_assert_eq!(&maps.decode(), &table.services);
            let weights = table.services.iter().map(|(key, placed)| {
                (*key, placed.servers.iter().map(|(address, member)| (*address, member.weight)).collect())
            });
            prop_assert_eq!(weights.collect::<BTreeMap<_, _>>(), wanted.clone());
            let ids: Vec<u32> = table.services.values().flat_map(|placed| placed.servers.values().map(|m| m.id)).collect();
            prop_assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        }
    }

    #[test]
    fn decode_takes_any_bytes(vips: Vec<[u8; 20]>, regions: Vec<u64>, slots: Vec<[[u8; 16]; 3]>) {
        let vips: Vec<VipKey> = vips.iter().map(|bytes| VipKey::read_from_bytes(bytes).unwrap()).collect();
        let slots: Vec<Slot> =
            slots.iter().map(|bytes| Slot::read_from_bytes(bytes.as_flattened()).unwrap()).collect();
        let found = decode(&vips, &regions, &slots);
        prop_assert!(slots_in_use(&regions) <= layout::SLOTS as usize);
        ServiceTable::adopt(found);
    }
}

#[test]
fn place_keeps_the_ids_of_servers_that_stay() {
    let (mut maps, mut table) = (Maps::default(), ServiceTable::adopt(BTreeMap::new()));
    let add = |port| Op::AddServer(key(1), server(port), RealServer::masquerade(1));
    maps.carry_out(&mut table, &[&Op::AddService(key(1), scheduling()), &add(1), &add(2)]);
    let before = table.services[&key(1)].servers.clone();
    let removed = maps.carry_out(&mut table, &[&add(3), &Op::DelServer(key(1), server(1))]);
    assert_eq!(removed, [(server(1), before[&server(1)].id)]);
    assert_eq!(table.services[&key(1)].servers[&server(2)], before[&server(2)]);
}

#[test]
fn decode_finds_a_damaged_service_unlike_any_wanted_one() {
    let (mut maps, mut table) = (Maps::default(), ServiceTable::adopt(BTreeMap::new()));
    for last in [1, 2] {
        let add = |port| Op::AddServer(key(last), server(port), RealServer::masquerade(1));
        maps.carry_out(&mut table, &[&Op::AddService(key(last), scheduling()), &add(1), &add(2)]);
    }
    let base = table.services[&key(1)].base as usize;
    for byte in [0, 20, 36] {
        maps.slots[base].as_mut_bytes()[byte] ^= 0x10;
    }
    let found = maps.decode();
    assert_eq!(found[&key(1)].service().scheduling, Scheduling::unknown());
    assert!(found[&key(1)].servers.is_empty());
    assert_eq!(found[&key(2)], table.services[&key(2)]);
    // The usual operations repair it.
    let mut table = ServiceTable::adopt(found);
    let add = Op::AddServer(key(1), server(1), RealServer::masquerade(1));
    maps.carry_out(&mut table, &[&Op::SetService(key(1), scheduling()), &add]);
    assert!(maps.decode().values().all(|placed| placed.sound));
}

#[test]
fn forget_frees_what_was_placed() {
    let mut table = ServiceTable::adopt(BTreeMap::new());
    table.reclaim(|_| 0);
    let before = format!("{table:?}").len();
    let servers = BTreeMap::from([(server(1), 1), (server(2), 0)]);
    let placed = table.place(&key(1), &servers, false).unwrap();
    assert_eq!(placed.region(), Region { base: placed.base, active: 1, total: 2 });
    table.forget(&key(1), &placed);
    assert_eq!(format!("{table:?}").len(), before);
}

#[test]
fn drop_added_leaves_what_a_service_has() {
    let servers = |ports: std::ops::Range<u16>| -> BTreeMap<SocketAddr, u32> {
        ports.map(|port| (server(port), 1)).collect()
    };
    let mut table = ServiceTable::default();
    let placed = (0..).zip(servers(0..100)).map(|(id, (at, weight))| (at, PlacedServer { weight, id }));
    table
        .services
        .insert(key(1), PlacedService { servers: placed.collect(), sound: true, ..PlacedService::default() });
    assert_eq!(table.added(&key(1), Some(&servers(50..150))), 50);
    let mut kept = servers(50..150);
    table.drop_added(&key(1), &mut kept);
    assert_eq!(kept, servers(50..100));
}

#[test]
fn slots_tell_whether_weights_differ_among_those_that_take_connections() {
    let (mut maps, mut table) = (Maps::default(), ServiceTable::adopt(BTreeMap::new()));
    let add = |port, weight| Op::AddServer(key(1), server(port), RealServer::masquerade(weight));
    maps.carry_out(&mut table, &[&Op::AddService(key(1), scheduling()), &add(1, 3), &add(2, 3), &add(3, 0)]);
    let is_weighted = |table: &ServiceTable| {
        let placed = &table.services[&key(1)];
        let flags: BTreeSet<bool> = placed.slots(key(1)).map(|slot| slot.flags().is_weighted).collect();
        (flags, placed.draws().count())
    };
    assert_eq!(is_weighted(&table), ([false].into(), 0), "which costs no client anything");
    maps.carry_out(&mut table, &[&Op::SetServer(key(1), server(3), RealServer::masquerade(1))]);
    assert_eq!(is_weighted(&table), ([true].into(), 3));
}
