//! Rounds over a simulated table, with changes of ours and of others between their steps.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::table::{DumpedService, ShownServer};
use super::*;
use crate::cluster::{Protocol, SharedMap};
use crate::dataplane::state::{Connections, Foreign, RealServer, Scheduling, Service};
use crate::dataplane::traffic::Traffic;

/// A service in the simulated table.
#[derive(Clone, Debug)]
struct Held {
    is_tagged: bool,
    service: Service,
}

/// A table with the answers of the kernel: the list goes by position, so that changes between its parts make it lack
/// services or have them twice.
#[derive(Clone, Debug, Default)]
struct ListedTable {
    held: BTreeMap<ServiceKey, Held>,
    marks: BTreeMap<u32, ()>,
    position: usize,
    /// Services in each part of the list.
    part: usize,
    questions: usize,
}

impl Kernel for ListedTable {
    type Error = Infallible;

    fn begin(&mut self) -> Result<(), Infallible> {
        self.position = 0;
        Ok(())
    }

    fn next_part(&mut self) -> Result<Option<Vec<DumpedService>>, Infallible> {
        self.questions += 1;
        let services = self.held.iter().map(|(key, held)| dumped(*key, held));
        let all: Vec<_> =
            services.chain(self.marks.keys().map(|mark| DumpedService::Foreign(marked(*mark)))).collect();
        let part: Vec<_> = all.into_iter().skip(self.position).take(self.part).collect();
        self.position += part.len();
        Ok((!part.is_empty()).then_some(part))
    }

    fn service(&mut self, key: ServiceKey) -> Result<Option<DumpedService>, Infallible> {
        self.questions += 1;
        Ok(self.held.get(&key).map(|held| dumped(key, held)))
    }

    fn servers(&mut self, key: ServiceKey) -> Result<Vec<ShownServer>, Infallible> {
        self.questions += 1;
        let servers = self.held.get(&key).map(|held| held.service.servers.clone()).unwrap_or_default();
        Ok(servers
            .iter()
            .map(|(address, server)| (*address, *server, counted(server.weight), Traffic::default()))
            .collect())
    }
}

fn counted(weight: u32) -> Connections {
    Connections { active: weight, inactive: 0 }
}

fn marked(mark: u32) -> Foreign {
    Foreign { service: format!("fwmark {mark}"), key: None }
}

fn dumped(key: ServiceKey, held: &Held) -> DumpedService {
    match held.is_tagged {
        true => DumpedService::Ours(key, held.service.scheduling.clone()),
        false => DumpedService::Foreign(Foreign { service: key.to_string(), key: Some(key) }),
    }
}

impl ListedTable {
    /// Everything in the table, as a reading has to find it whose `known` is what was ours before.
    fn expected(&self, known: &SharedMap<ServiceKey, Arc<Service>>) -> IpvsTable {
        let mut table = IpvsTable::default();
        for (key, held) in &self.held {
            let servers = &held.service.servers;
            // One that has lost its tag and kept exactly our servers is ours.
            let is_same =
                |known: &Arc<Service>| !servers.is_empty() && known.servers.keys().eq(servers.keys());
            let scheduling = match held.is_tagged {
                true => held.service.scheduling.clone(),
                false if known.get(key).is_some_and(is_same) => Scheduling::unknown(),
                false => {
                    table.foreign.push(Foreign { service: key.to_string(), key: Some(*key) });
                    continue;
                }
            };
            let counts = servers.iter().map(|(address, server)| ((*key, *address), counted(server.weight)));
            table.connections.extend(counts);
            table.services.insert(*key, Service { scheduling, servers: servers.clone() }.into());
        }
        table.foreign.extend(self.marks.keys().map(|mark| marked(*mark)));
        table.foreign.sort();
        table
    }

    /// Carries out an operation as the kernel does, which knows nothing of owners. Returns true if it was refused.
    fn carry_out(&mut self, op: &Op) -> bool {
        let mut services: SharedMap<ServiceKey, Arc<Service>> =
            self.held.iter().map(|(key, held)| (*key, held.service.clone().into())).collect();
        if carry_out_service(&mut services, op).is_err() {
            return true;
        }
        let mut before = std::mem::take(&mut self.held);
        for (key, service) in &services {
            let is_set = matches!(op, Op::AddService(of, _) | Op::SetService(of, _) if of == key);
            let is_tagged = is_set || before.remove(key).is_some_and(|held| held.is_tagged);
            self.held.insert(*key, Held { is_tagged, service: Service::clone(service) });
        }
        false
    }
}

fn key(number: u8) -> ServiceKey {
    ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, number].into(), port: 80 }
}

fn server(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 80))
}

fn scheduling(number: u8) -> Scheduling {
    Scheduling { scheduler: ["wlc", "rr"][usize::from(number % 2)].to_owned(), flags: 0 }
}

/// An event between two steps.
#[derive(Clone, Debug)]
enum KernelEvent {
    Step,
    /// An operation of ours.
    Ours(Op),
    /// The same by another program, which leaves no tag on what it sets.
    Theirs(Op),
    /// Another program adds or removes a service by firewall mark.
    Mark(u32),
}

fn op() -> impl Strategy<Value = Op> {
    (0u8..6, 0u8..6, 0u8..4, 0u32..3).prop_map(|(kind, service, address, weight)| {
        let (key, address) = (key(service), server(address));
        match kind {
            0 => Op::AddService(key, scheduling(weight as u8)),
            1 => Op::SetService(key, scheduling(weight as u8)),
            2 => Op::DelService(key),
            3 => Op::AddServer(key, address, RealServer::masquerade(weight)),
            4 => Op::SetServer(key, address, RealServer::masquerade(weight)),
            _ => Op::DelServer(key, address),
        }
    })
}

fn event() -> impl Strategy<Value = KernelEvent> {
    prop_oneof![
        4 => Just(KernelEvent::Step),
        2 => op().prop_map(KernelEvent::Ours),
        2 => op().prop_map(KernelEvent::Theirs),
        1 => (0u32..3).prop_map(KernelEvent::Mark),
    ]
}

/// A daemon beside a table.
#[derive(Default)]
struct CacheBench {
    table: ListedTable,
    cache: Cache,
}

impl CacheBench {
    /// Carries out operations of ours on a table that is listed in parts of this size, and audits it.
    fn audited(ours: Vec<Op>, part: usize) -> Self {
        let mut bench = Self::default();
        bench.table.part = part;
        for op in ours {
            bench.live(&KernelEvent::Ours(op));
        }
        bench.audit();
        bench
    }

    fn live(&mut self, event: &KernelEvent) {
        match event {
            KernelEvent::Step => {
                self.cache.go_on(&mut self.table, || true).unwrap();
            }
            KernelEvent::Ours(op) => {
                let is_refused = self.table.carry_out(op);
                self.cache.apply(op, is_refused);
            }
            KernelEvent::Theirs(op) => {
                self.table.carry_out(op);
                if let (Op::AddService(..) | Op::SetService(..), Some(key)) = (op, op.service())
                    && let Some(held) = self.table.held.get_mut(key)
                {
                    held.is_tagged = false;
                }
            }
            KernelEvent::Mark(mark) => {
                if self.table.marks.remove(mark).is_none() {
                    self.table.marks.insert(*mark, ());
                }
            }
        }
    }

    /// Finishes the round under way in slices of one step, and takes the table for an audit.
    fn audit(&mut self) -> IpvsTable {
        while !self.cache.go_on(&mut self.table, || true).unwrap() {}
        // Its time is another one each time.
        self.cache.table.traffic.clear();
        self.cache.current(&mut self.table).unwrap().clone()
    }
}

proptest! {
    #![proptest_config(crate::units::cases(1024))]

    /// Whatever happened before and in the middle of a round, the round after it finds the table as it is.
    #[test]
    fn a_round_finds_everything_whatever_happened_before(
        events in prop::collection::vec(event(), 0..60),
        part in 1usize..4,
    ) {
        let mut bench = CacheBench::default();
        bench.table.part = part;
        for event in &events {
            bench.live(event);
        }
        // One that was under way may have passed by what changed behind it.
        bench.audit();
        let known = bench.cache.table.services.clone();
        let expected = bench.table.expected(&known);
        prop_assert_eq!(bench.audit(), expected.clone());
        // By the same steps without a pause, a reading in full finds the same.
        let mut whole = Cache { table: IpvsTable { services: known, ..IpvsTable::default() }, ..Cache::default() };
        let mut found = whole.read(&mut bench.table).unwrap().clone();
        found.traffic.clear();
        prop_assert_eq!(&found, &expected);
    }

    /// Changes of ours need no round, and none gets lost while one is under way.
    #[test]
    fn our_own_changes_are_known_at_once(
        first in prop::collection::vec(op(), 0..20),
        events in prop::collection::vec(prop_oneof![Just(KernelEvent::Step), op().prop_map(KernelEvent::Ours)], 0..60),
        part in 1usize..4,
    ) {
        let mut bench = CacheBench::audited(first, part);
        for event in &events {
            bench.live(event);
            let expected = bench.table.expected(&SharedMap::default());
            let known = bench.cache.current(&mut bench.table).unwrap();
            prop_assert_eq!(&known.services, &expected.services);
            prop_assert_eq!(&known.foreign, &expected.foreign);
        }
    }

    /// A change by another program is found by the round that begins after it, although ours go on meanwhile.
    #[test]
    fn drift_is_found_within_a_round_while_we_change_other_services(
        first in prop::collection::vec(op(), 0..20),
        theirs in prop::collection::vec(op(), 0..6),
        ours in prop::collection::vec(prop::option::of(op()), 0..40),
        part in 1usize..4,
    ) {
        let mut bench = CacheBench::audited(first, part);
        let known = bench.cache.table.services.clone();
        let touched: BTreeSet<ServiceKey> = theirs.iter().filter_map(Op::service).copied().collect();
        for op in theirs {
            bench.live(&KernelEvent::Theirs(op));
        }
        let mut is_over = false;
        for op in ours {
            let op = op.filter(|op| op.service().is_some_and(|key| !touched.contains(key)));
            op.into_iter().for_each(|op| bench.live(&KernelEvent::Ours(op)));
            if is_over {
                break;
            }
            is_over = bench.cache.go_on(&mut bench.table, || true).unwrap();
        }
        let found = bench.audit();
        let expected = bench.table.expected(&known);
        for key in touched {
            prop_assert_eq!(found.services.get(&key), expected.services.get(&key));
            // A new one of theirs may be missing in a list that changes of ours shift, until the next round.
            let theirs = |table: &IpvsTable| table.foreign.iter().any(|foreign| foreign.key == Some(key));
            prop_assert!(!theirs(&found) || theirs(&expected));
        }
    }
}

/// The kernel's list is quadratic where each part begins at the first service; servers are asked for once.
#[test]
fn a_round_asks_once_for_each_service_and_no_change_asks_at_all() {
    let mut bench = CacheBench::default();
    bench.table.part = 100;
    for number in 0..200 {
        bench.live(&KernelEvent::Ours(Op::AddService(key(number), scheduling(0))));
        bench.live(&KernelEvent::Ours(Op::AddServer(key(number), server(1), RealServer::masquerade(1))));
    }
    bench.audit();
    bench.table.questions = 0;
    bench.audit();
    assert_eq!(bench.table.questions, 200 + 3, "servers, parts of the list and its end");
    bench.table.questions = 0;
    bench.live(&KernelEvent::Ours(Op::SetServer(key(7), server(1), RealServer::masquerade(0))));
    let known = bench.cache.current(&mut bench.table).unwrap();
    assert_eq!(known.services[&key(7)].servers[&server(1)].weight, 0);
    assert_eq!(bench.table.questions, 0);
    // A refusal costs a look at that service.
    bench.table.held.remove(&key(7));
    bench.live(&KernelEvent::Ours(Op::DelServer(key(7), server(1))));
    let known = bench.cache.current(&mut bench.table).unwrap();
    assert!(!known.services.contains_key(&key(7)));
    assert_eq!(bench.table.questions, 1);
}
