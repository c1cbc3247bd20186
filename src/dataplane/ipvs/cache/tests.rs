use super::super::tests::{address, key, scheduling, seen, server};
use super::*;
use crate::dataplane::Forwarding;
use crate::netlink::ipvs::service;

type Change = fn(&mut Vec<Seen>);

/// What a full reading tells of one service of ours, at 11.0.0.1:80, and one that is not.
fn known() -> Known {
    let mut known = Known::default();
    let limited = RealServer { upper_threshold: 9, ..RealServer::masquerade(1) };
    let key = key(Protocol::Tcp, "11.0.0.1:80");
    known.services.insert(
        key,
        Service {
            scheduling: scheduling("wlc", 0x8),
            servers: BTreeMap::from([
                (address("10.0.2.2:80"), limited),
                (address("10.0.2.3:80"), RealServer::masquerade(1)),
            ]),
        },
    );
    let foreign = Foreign { service: "tcp 11.0.0.9:80".to_owned(), key: None };
    let identity = Identity::Address("TCP".to_owned(), address("11.0.0.9:80"));
    known.add_foreign(foreign, Some(Sight::of(identity, "rr", 0)));
    known
}

fn all_seen() -> Vec<Seen> {
    vec![
        seen(
            "TCP",
            "11.0.0.1:80",
            "wlc",
            &[
                server("10.0.2.2:80", Forwarding::Masquerade, 7),
                server("10.0.2.3:80", Forwarding::Masquerade, 1),
            ],
        ),
        seen("TCP", "11.0.0.9:80", "rr", &[server("10.0.2.4:80", Forwarding::Route, 1)]),
    ]
}

#[test]
fn completes_what_proc_shows() {
    let mut known = known();
    let key = key(Protocol::Tcp, "11.0.0.1:80");
    let table = known.complete(all_seen()).unwrap();
    let service = &table.services[&key];
    assert_eq!(service.scheduling, scheduling("wlc", 0x8));
    let limited = RealServer { upper_threshold: 9, ..RealServer::masquerade(7) };
    assert_eq!(service.servers[&address("10.0.2.2:80")], limited);
    assert_eq!(table.connections.len(), 2);
    assert_eq!(table.foreign.len(), 1);

    let mut fewer = all_seen();
    fewer[0].servers.remove(0);
    let table = known.complete(fewer).unwrap();
    assert_eq!(table.services[&key].servers.len(), 1);
    assert_eq!(known.complete(all_seen()), None, "it came back by another hand");

    let table = known.complete(all_seen().split_off(1)).unwrap();
    assert!(table.services.is_empty());
}

#[test]
fn doubts_what_it_does_not_know() {
    let changes: [(&str, Change); 10] = [
        ("a service", |seen| seen.push(self::seen("TCP", "11.0.0.2:80", "wlc", &[]))),
        ("a service twice", |seen| seen.push(seen[0].clone())),
        ("a protocol", |seen| seen[0] = self::seen("UDP", "11.0.0.1:80", "wlc", &[])),
        ("a scheduler", |seen| seen[0].sight.scheduler = "rr".to_owned()),
        ("persistence", |seen| seen[0].sight.persistent = true),
        ("one-packet", |seen| seen[0].sight.one_packet = true),
        ("a server", |seen| {
            seen[0].servers.push(server("10.0.2.9:80", Forwarding::Masquerade, 1));
        }),
        ("a forwarding method", |seen| seen[0].servers[0].forwarding = Forwarding::Route),
        ("a foreign service gone", |seen| seen.truncate(1)),
        ("a foreign service changed", |seen| seen[1].sight.persistent = true),
    ];
    for (what, change) in changes {
        let mut seen = all_seen();
        change(&mut seen);
        assert_eq!(known().complete(seen), None, "{what}");
    }
    let mut known = known();
    known.add_foreign(Foreign { service: "unintelligible".to_owned(), key: None }, None);
    assert_eq!(known.complete(all_seen()), None);
}

#[test]
fn follows_our_changes() {
    let mut known = known();
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
        known.apply(&op);
    }
    let mut seen = vec![
        seen("TCP", "11.0.0.1:80", "rr", &[server("10.0.2.2:80", Forwarding::Tunnel, 3)]),
        seen("UDP", "[fd01:c::1]:53", "rr", &[server("[fd01:c::9]:53", Forwarding::Masquerade, 1)]),
    ];
    seen.extend(all_seen().split_off(1));
    let table = known.complete(seen.clone()).unwrap();
    assert_eq!(table.services[&old].servers, BTreeMap::from([(first, tunnel)]));
    assert_eq!(table.services[&new].scheduling.flags, service::FLAG_ONE_PACKET);
    known.apply(&Op::DelService(new));
    assert_eq!(known.complete(seen), None);
}
