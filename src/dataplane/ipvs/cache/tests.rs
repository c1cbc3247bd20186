use super::super::tests::{address, key, scheduling, server, shown};
use super::*;
use crate::dataplane::Forwarding;
use crate::netlink::ipvs::service;

type Change = fn(&mut Vec<ProcService>);

/// Cache after a full reading of one service of ours, at 11.0.0.1:80, and one that is not.
fn cache() -> Cache {
    let limited = RealServer { upper_threshold: 9, ..RealServer::masquerade(1) };
    let key = key(Protocol::Tcp, "11.0.0.1:80");
    let ours = Service {
        scheduling: scheduling("wlc", 0x8),
        servers: BTreeMap::from([
            (address("10.0.2.2:80"), limited),
            (address("10.0.2.3:80"), RealServer::masquerade(1)),
        ]),
    };
    let foreign = Foreign { service: "tcp 11.0.0.9:80".to_owned(), key: None };
    let identity = Identity::Address("TCP".to_owned(), address("11.0.0.9:80"));
    Cache::new(BTreeMap::from([(key, ours)]), vec![(foreign, Some(ProcEntry::new(identity, "rr", 0)))])
}

fn all_shown() -> Vec<ProcService> {
    vec![
        shown(
            "TCP",
            "11.0.0.1:80",
            "wlc",
            &[
                server("10.0.2.2:80", Forwarding::Masquerade, 7),
                server("10.0.2.3:80", Forwarding::Masquerade, 1),
            ],
        ),
        shown("TCP", "11.0.0.9:80", "rr", &[server("10.0.2.4:80", Forwarding::Route, 1)]),
    ]
}

#[test]
fn completes_what_proc_shows() {
    let mut cache = cache();
    let key = key(Protocol::Tcp, "11.0.0.1:80");
    let table = cache.complete(all_shown()).unwrap();
    let service = &table.services[&key];
    assert_eq!(service.scheduling, scheduling("wlc", 0x8));
    let limited = RealServer { upper_threshold: 9, ..RealServer::masquerade(7) };
    assert_eq!(service.servers[&address("10.0.2.2:80")], limited);
    assert_eq!(table.connections.len(), 2);
    assert_eq!(table.foreign.len(), 1);

    let mut fewer = all_shown();
    fewer[0].servers.remove(0);
    let table = cache.complete(fewer).unwrap();
    assert_eq!(table.services[&key].servers.len(), 1);
    assert_eq!(cache.complete(all_shown()), None, "it came back by another hand");

    let table = cache.complete(all_shown().split_off(1)).unwrap();
    assert!(table.services.is_empty());
}

#[test]
fn doubts_what_it_does_not_know() {
    let changes: [(&str, Change); 10] = [
        ("a service", |shown| shown.push(self::shown("TCP", "11.0.0.2:80", "wlc", &[]))),
        ("a service twice", |shown| shown.push(shown[0].clone())),
        ("a protocol", |shown| shown[0] = self::shown("UDP", "11.0.0.1:80", "wlc", &[])),
        ("a scheduler", |shown| shown[0].entry.scheduler = "rr".to_owned()),
        ("persistence", |shown| shown[0].entry.persistent = true),
        ("one-packet", |shown| shown[0].entry.one_packet = true),
        ("a server", |shown| {
            shown[0].servers.push(server("10.0.2.9:80", Forwarding::Masquerade, 1));
        }),
        ("a forwarding method", |shown| shown[0].servers[0].forwarding = Forwarding::Route),
        ("a foreign service gone", |shown| shown.truncate(1)),
        ("a foreign service changed", |shown| shown[1].entry.persistent = true),
    ];
    for (what, change) in changes {
        let mut shown = all_shown();
        change(&mut shown);
        assert_eq!(cache().complete(shown), None, "{what}");
    }
    let unknown = (Foreign { service: "unintelligible".to_owned(), key: None }, None);
    let mut cache = Cache::new(cache().services, vec![unknown]);
    assert_eq!(cache.complete(all_shown()[..1].to_vec()), None);
}

#[test]
fn follows_our_changes() {
    let mut cache = cache();
    let (old, new) = (key(Protocol::Tcp, "11.0.0.1:80"), key(Protocol::Udp, "[fd01:c::1]:53"));
    let (first, second) = (address("10.0.2.2:80"), address("10.0.2.3:80"));
    let tunnel = RealServer { forwarding: Forwarding::Tunnel, ..RealServer::masquerade(3) };
    for op in [
        Op::SetService(old, scheduling("rr", 0)),
        Op::SetServer(old, first, tunnel),
        Op::DelServer(old, second),
        Op::AddService(new, scheduling("rr", service::FLAG_ONE_PACKET)),
        Op::AddServer(new, address("[fd01:c::9]:53"), RealServer::masquerade(1)),
    ] {
        assert!(cache.apply(&op));
    }
    let mut shown = vec![
        shown("TCP", "11.0.0.1:80", "rr", &[server("10.0.2.2:80", Forwarding::Tunnel, 3)]),
        shown("UDP", "[fd01:c::1]:53", "rr", &[server("[fd01:c::9]:53", Forwarding::Masquerade, 1)]),
    ];
    shown.extend(all_shown().split_off(1));
    let table = cache.complete(shown.clone()).unwrap();
    assert_eq!(table.services[&old].servers, BTreeMap::from([(first, tunnel)]));
    assert_eq!(table.services[&new].scheduling.flags, service::FLAG_ONE_PACKET);
    assert!(cache.apply(&Op::DelService(new)));
    assert_eq!(cache.complete(shown), None);
}
