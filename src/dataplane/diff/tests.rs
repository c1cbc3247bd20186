use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use super::*;
use crate::cluster::Protocol;
use crate::dataplane::memory::SimulatedKernel;
use crate::dataplane::rules::RuleSet;
use crate::dataplane::{DataPlane, Depth, Forwarding, Node, Route, Scheduling, Timeouts};

fn address() -> impl Strategy<Value = IpAddr> {
    (0u8..6).prop_map(|last| Ipv4Addr::new(10, 0, 0, last).into())
}

fn scheduling() -> impl Strategy<Value = Scheduling> {
    (prop::sample::select(vec!["wlc", "rr"]), 0u32..2)
        .prop_map(|(scheduler, flags)| Scheduling { scheduler: scheduler.to_owned(), flags })
}

fn server() -> impl Strategy<Value = RealServer> {
    (0u32..3, any::<bool>()).prop_map(|(weight, tampered)| RealServer {
        forwarding: if tampered { Forwarding::Route } else { Forwarding::Masquerade },
        ..RealServer::masquerade(weight)
    })
}

fn service() -> impl Strategy<Value = Service> {
    let server_address = (address(), 1u16..4).prop_map(SocketAddr::from);
    (scheduling(), btree_map(server_address, server(), 0..6))
        .prop_map(|(scheduling, servers)| Service { scheduling, servers: servers.into_iter().collect() })
}

fn key() -> impl Strategy<Value = ServiceKey> {
    (prop::sample::select(vec![Protocol::Tcp, Protocol::Udp]), address(), 1u16..4)
        .prop_map(|(protocol, address, port)| ServiceKey { protocol, address, port })
}

fn state() -> impl Strategy<Value = State> {
    let route = (address(), prop::option::of(address()))
        .prop_map(|(destination, source)| Route { destination: destination.into(), source });
    let rules = btree_set(address(), 0..3)
        .prop_map(|vips| RuleSet::listed(&format!("table inet l4lbd {{\n{vips:?}\n}}")));
    (
        btree_map(key(), service(), 0..8),
        btree_set(route, 0..5),
        btree_set(address(), 0..3),
        prop::option::of(rules),
        prop::sample::select(vec![Link::Absent, Link::Down, Link::Up]),
        (1u32..4).prop_map(|tcp| Timeouts { tcp, tcp_fin: 1, udp: 1 }),
        btree_map("[ab]", "[01]", 0..2),
        0..3usize,
    )
        .prop_map(|(services, routes, addresses, rules, link, timeouts, sysctls, lost)| State {
            services: services.into_iter().map(|(key, service)| (key, service.into())).collect(),
            // A kernel has one route for a destination, and routes only on a link that is up.
            routes: match link {
                Link::Up => routes.into_iter().map(|r| (r.destination, r)).collect::<BTreeMap<_, _>>(),
                _ => BTreeMap::new(),
            }
            .into_values()
            .collect(),
            // Routes of addresses are lost on a link that is up.
            unrouted: addresses.iter().take(lost).filter(|_| link == Link::Up).copied().collect(),
            addresses: if link == Link::Absent { BTreeSet::new() } else { addresses },
            rules,
            link,
            timeouts: Some(timeouts),
            sysctls,
        })
}

/// States that are desired have their link up, or nothing at all.
fn desired() -> impl Strategy<Value = State> {
    prop_oneof![
        9 => state().prop_map(|state| State { link: Link::Up, unrouted: BTreeSet::new(), ..state }),
        1 => Just(State::default()),
    ]
}

fn kernel(state: State) -> SimulatedKernel {
    SimulatedKernel::new(state, Node::default())
}

/// What is left to compare: settings that are not asked for stay as they are.
fn comparable(mut actual: State, desired: &State) -> State {
    actual.sysctls.retain(|path, _| desired.sysctls.contains_key(path));
    if desired.timeouts.is_none() {
        actual.timeouts = None;
    }
    actual
}

proptest! {
    #![proptest_config(crate::units::cases(1000))]

    #[test]
    fn replaying_the_difference_leads_there(actual in state(), desired in desired(), seed: u64) {
        let mut kernel = kernel(actual.clone());
        for op in diff(&actual, &desired, seed) {
            prop_assert_eq!(kernel.execute(&op), Ok(()), "{}", op);
        }
        prop_assert_eq!(comparable(kernel.state, &desired), desired);
    }

    #[test]
    fn nothing_is_done_where_nothing_differs(state in desired(), seed: u64) {
        prop_assert_eq!(diff(&state, &state, seed), vec![]);
    }

    /// However many operations fail in a pass, the passes after it reach the goal.
    #[test]
    fn failures_are_made_up_for(
        actual in state(), desired in desired(), faults in btree_set(0usize..30, 0..10), seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut kernel = kernel(actual);
        kernel.faults = faults;
        let reached = runtime.block_on(async {
            for _ in 0..40 {
                let actual = kernel.read(Depth::Full).await.unwrap().state;
                let ops = diff(&actual, &desired, seed);
                if ops.is_empty() {
                    return true;
                }
                kernel.apply(&ops).await;
            }
            false
        });
        prop_assert!(reached);
        prop_assert_eq!(comparable(kernel.state, &desired), desired);
    }

    /// The order of addition differs between nodes, the set does not.
    #[test]
    fn seeds_only_shuffle(actual in state(), desired in desired(), one: u64, other: u64) {
        let sorted = |seed| {
            let mut ops: Vec<String> = diff(&actual, &desired, seed).iter().map(Op::to_string).collect();
            ops.sort();
            ops
        };
        prop_assert_eq!(sorted(one), sorted(other));
    }
}

#[test]
fn nodes_add_servers_in_different_orders() {
    let servers = (1..=20).map(|port| (SocketAddr::from(([10, 0, 0, 1], port)), RealServer::masquerade(1)));
    let service = Service {
        scheduling: Scheduling { scheduler: "wlc".to_owned(), flags: 0 },
        servers: servers.collect(),
    };
    let key = ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, 1].into(), port: 80 };
    let desired = State { services: [(key, service.into())].into(), ..State::default() };
    let lasts: BTreeSet<String> = (0..20)
        .filter_map(|seed| diff(&State::default(), &desired, seed).last().map(Op::to_string))
        .collect();
    assert!(lasts.len() > 5, "the kernel gives the first connection to the last server: {lasts:?}");
}

#[test]
fn a_change_never_leaves_a_service_without_servers() {
    let key = ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, 1].into(), port: 80 };
    let with = |port: u16| State {
        services: [(
            key,
            Arc::new(Service {
                scheduling: Scheduling { scheduler: "wlc".to_owned(), flags: 0 },
                servers: [(([10, 0, 0, 1], port).into(), RealServer::masquerade(1))].into(),
            }),
        )]
        .into(),
        ..State::default()
    };
    let ops = diff(&with(1), &with(2), 0);
    assert!(matches!(ops.as_slice(), [Op::AddServer(..), Op::DelServer(..)]), "{ops:?}");
}

/// A plane may be full: what only goes makes room for what comes.
#[test]
fn what_only_goes_comes_before_what_is_added() {
    let server = |port: u16| (SocketAddr::from(([10, 0, 0, 9], port)), RealServer::masquerade(1));
    let service = |ports: std::ops::Range<u16>| Service {
        scheduling: Scheduling { scheduler: "wlc".to_owned(), flags: 0 },
        servers: ports.map(server).collect(),
    };
    let key = |port| ServiceKey { protocol: Protocol::Tcp, address: [10, 0, 0, 1].into(), port };
    let of = |services: Vec<(u16, Service)>| State {
        services: services.into_iter().map(|(port, service)| (key(port), service.into())).collect(),
        ..State::default()
    };
    let actual = of(vec![(1, service(1..3)), (2, service(1..9)), (3, service(1..9))]);
    let desired = of(vec![(1, service(1..4)), (2, service(1..2)), (4, service(1..3))]);
    let ops = diff(&actual, &desired, 7);
    let last_gone = ops.iter().rposition(|op| matches!(op, Op::DelService(_) | Op::DelServer(..))).unwrap();
    let first_added = ops.iter().position(|op| matches!(op, Op::AddService(..) | Op::AddServer(..))).unwrap();
    assert!(last_gone < first_added, "{ops:?}");
}
