//! Which names exist, what they have, and which are left out.

use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;
use crate::cluster::Protocol::{Tcp, Udp};

const SERIAL: u32 = 7;

fn service(name: &str, address: &str, port: Option<(Protocol, u16)>) -> NamedService {
    let port = port.map(ServicePort::from);
    NamedService { name: name.to_owned(), address: address.parse().unwrap(), port }
}

/// A service on a TCP port that task ports of these names serve.
fn named(name: &str, address: &str, number: u16, names: &[&str]) -> NamedService {
    let names = Arc::new(names.iter().map(|name| (*name).to_owned()).collect());
    let port = Some(ServicePort { names, ..ServicePort::from((Tcp, number)) });
    NamedService { port, ..service(name, address, None) }
}

fn zone(services: &[NamedService]) -> Zone {
    let (zone, left_out) = Zone::new(DEFAULT_ORIGIN).unwrap().with_services(SERIAL, services);
    assert_eq!(left_out, BTreeMap::new());
    zone
}

fn get<'z>(zone: &'z Zone, name: &str) -> Option<&'z [RData]> {
    zone.get(&encode(name).unwrap())
}

#[test]
fn addresses_come_once_and_in_order() {
    let zone = zone(&[
        service("Web.marathon", "11.0.0.2", Some((Tcp, 80))),
        service("web.marathon", "fd01:c::2", None),
        service("web.marathon", "11.0.0.1", None),
        service("web.marathon", "11.0.0.2", Some((Tcp, 443))),
    ]);
    let expected = ["11.0.0.1", "11.0.0.2", "fd01:c::2"].map(|a| RData::from(a.parse::<IpAddr>().unwrap()));
    assert_eq!(get(&zone, "web.marathon"), Some(&expected[..]));
    assert_eq!(get(&zone, "marathon"), Some(&[][..]));
    assert_eq!(get(&zone, "x.web.marathon"), None);
    assert!(zone.names([11, 0, 0, 2].into()).eq([&*encode("web.marathon").unwrap()]));
    assert!(zone.has_names([11, 0, 0, 0].into(), [11, 0, 0, 255].into()));
    assert!(!zone.has_names([11, 0, 1, 0].into(), [11, 0, 1, 255].into()));
}

#[test]
fn services_have_the_names_of_each_protocol() {
    let zone = zone(&[
        service("web.marathon", "11.0.0.1", Some((Tcp, 80))),
        service("web.marathon", "11.0.0.1", Some((Tcp, 443))),
        service("web.marathon", "11.0.0.1", Some((Udp, 53))),
    ]);
    let ports = |name: &str| -> Vec<u16> {
        let port = |data: &RData| match data {
            RData::Srv { port, target } if *target == encode("web.marathon").unwrap() => *port,
            other => panic!("{other:?}"),
        };
        get(&zone, name).unwrap().iter().map(port).collect()
    };
    assert_eq!(ports("_web._tcp.marathon"), [80, 443]);
    assert_eq!(ports("_web._udp.marathon"), [53]);
    assert_eq!(ports("_443._web._tcp.marathon"), [443]);
    assert_eq!(ports("_443._tcp.web.marathon"), [443]);
    assert!(ports("_tcp.web.marathon").is_empty());
    assert_eq!(get(&zone, "_53._web._tcp.marathon"), None);
}

#[test]
fn services_have_the_names_of_their_task_ports() {
    let zone = zone(&[
        named("web.marathon", "11.0.0.1", 80, &["http", "Web_UI"]),
        // The other family of the same service, which one instance calls otherwise.
        named("web.marathon", "fd01:c::1", 80, &["http", "default", ""]),
        named("web.marathon", "11.0.0.1", 443, &["http"]),
        // A name that is the number of another port, and one that is another service.
        named("web.marathon", "11.0.0.1", 8443, &["80"]),
        named("x.marathon", "11.0.0.2", 81, &["web"]),
        service("_web._tcp.x.marathon", "11.0.0.3", None),
    ]);
    let ports = |name: &str| -> Option<Vec<u16>> {
        let port = |data: &RData| match data {
            RData::Srv { port, .. } => Some(*port),
            _ => None,
        };
        get(&zone, name).map(|records| records.iter().filter_map(port).collect())
    };
    for (name, expected) in [
        ("_http._web._tcp.marathon", Some(vec![80, 443])),
        ("_http._tcp.web.marathon", Some(vec![80, 443])),
        ("_web-ui._web._tcp.marathon", Some(vec![80])),
        ("_80._web._tcp.marathon", Some(vec![80])),
        ("_80._tcp.web.marathon", Some(vec![80])),
        ("_web._tcp.marathon", Some(vec![80, 443, 8443])),
        ("_web._x._tcp.marathon", Some(vec![81])),
        ("_web._tcp.x.marathon", Some(vec![])),
        ("_http._web._udp.marathon", None),
        ("_http._x._tcp.marathon", None),
        ("_default._web._tcp.marathon", None),
    ] {
        assert_eq!(ports(name), expected, "{name}");
    }
}

#[test]
fn port_names_are_labels() {
    assert_eq!(port_label("HTTP_api").as_deref(), Some("http-api"));
    for name in ["", "default", "---", &"x".repeat(63)] {
        assert_eq!(port_label(name), None, "{name}");
    }
}

#[test]
fn names_without_a_place_are_left_out_with_the_reason() {
    let long_label = "a".repeat(64);
    // 255 octets on the wire: the labels with their lengths, the origin, the root.
    let label = "b".repeat(63);
    let room = 255 - (DEFAULT_ORIGIN.len() + 2) - 3 * 64;
    let fits = format!("{label}.{label}.{label}.{}", "c".repeat(room - 1));
    let too_long = format!("{fits}c");
    let names = [
        ("", NameError::EmptyLabel),
        (".marathon", NameError::EmptyLabel),
        ("web..marathon", NameError::EmptyLabel),
        ("web.", NameError::EmptyLabel),
        (&long_label, NameError::LabelTooLong),
        (&too_long, NameError::TooLong),
        ("ns", NameError::Reserved),
    ];
    let good = ["web.marathon", fits.as_str()];
    let all = names.iter().map(|(name, _)| *name).chain(good);
    let all: Vec<NamedService> = all.map(|name| service(name, "11.0.0.1", None)).collect();
    let (with_bad, left_out) = Zone::new(DEFAULT_ORIGIN).unwrap().with_services(SERIAL, &all);
    let expected = names.map(|(name, reason)| (name.to_owned(), reason));
    assert_eq!(left_out, BTreeMap::from(expected));
    assert_eq!(with_bad, zone(&good.map(|name| service(name, "11.0.0.1", None))));
}

#[test]
fn origins_that_are_no_names_are_errors() {
    let long = ["d".repeat(62).as_str(); 4].join(".");
    for (origin, reason) in [
        ("", NameError::EmptyLabel),
        (".", NameError::EmptyLabel),
        ("a..b", NameError::EmptyLabel),
        (&"e".repeat(64), NameError::LabelTooLong),
        (&long, NameError::TooLong),
    ] {
        let error = Zone::new(origin).unwrap_err();
        let origin = origin.to_owned();
        assert_eq!(error, Error::Origin { origin, reason });
    }
    assert_eq!(Zone::new("l4lb.thisdcos.directory."), Zone::new("L4LB.thisdcos.directory"));
}

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[ab]{1,2}", 1..4)
}

proptest! {
    #![proptest_config(crate::units::cases(256))]
    /// Against the definition: a name exists if it is a record's name or ends one.
    #[test]
    fn names_agree_with_the_list_of_records(
        records in btree_map(names(), any::<[u8; 4]>(), 0..12),
        question in names(),
    ) {
        let services: Vec<NamedService> = records
            .iter()
            .map(|(name, ip)| NamedService { name: name.join("."), address: (*ip).into(), port: None })
            .collect();
        let zone = zone(&services);
        let expected = match records.get(&question) {
            Some(ip) => Some(vec![RData::A((*ip).into())]),
            None => records.keys().any(|name| name.ends_with(&question)).then(Vec::new),
        };
        prop_assert_eq!(get(&zone, &question.join(".")), expected.as_deref());
    }
}

/// Names, addresses and ports that collide in every way: a few names, some without a place.
fn any_service() -> impl Strategy<Value = NamedService> {
    let name = prop::sample::select(vec![
        "a.m",
        "A.m",
        "b.a.m",
        "_80._tcp.a.m",
        "_a._tcp.m",
        "_a._tcp.a.m",
        "m",
        "ns",
        "a..m",
        "",
        "x",
    ]);
    let ports =
        prop::collection::btree_set(prop::sample::select(vec!["http", "HTTP", "80", "a", "default"]), 0..3);
    let port = prop::option::of((any::<bool>(), 79u16..82, ports));
    (name, 0u8..3, any::<bool>(), port).prop_map(|(name, host, ipv4, port)| NamedService {
        name: name.to_owned(),
        address: if ipv4 { [11, 0, 0, host].into() } else { [0xfd01, 0, 0, 0, 0, 0, 0, host.into()].into() },
        port: port.map(|(tcp, number, names)| ServicePort {
            protocol: if tcp { Tcp } else { Udp },
            number,
            names: Arc::new(names.into_iter().map(str::to_owned).collect()),
        }),
    })
}

proptest! {
    #![proptest_config(crate::units::cases(256))]
    /// The definition: the zone with exactly these services.
    #[test]
    fn a_zone_that_was_changed_is_the_zone_made_in_full(
        steps in prop::collection::vec(prop::collection::btree_set(any_service(), 0..12), 1..6),
    ) {
        let empty = Zone::new(DEFAULT_ORIGIN).unwrap();
        let mut held: BTreeSet<NamedService> = BTreeSet::new();
        let mut changed = empty.clone();
        for (serial, services) in (1..).zip(steps) {
            let before = (changed.clone(), held.clone());
            changed = changed.with_changes(serial, held.difference(&services), services.difference(&held));
            held = services;
            let (full, left_out) = empty.with_services(serial, &held);
            prop_assert_eq!(&changed, &full);
            prop_assert_eq!(changed.left_out().collect::<BTreeMap<_, _>>(), left_out);
            // What answers questions meanwhile stays as it was.
            prop_assert_eq!(&before.0.with_changes(0, [], []), &empty.with_services(0, &before.1).0);
        }
        let gone = changed.with_changes(0, &held, []);
        prop_assert_eq!(gone.iter().count(), 0);
    }
}
