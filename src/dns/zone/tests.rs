//! Which names exist, what each question gets, which names are left out.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

const SERIAL: u32 = 7;

fn empty_zone() -> Zone {
    let servers = [[198, 51, 100, 1].into(), [0, 0, 0, 0].into()];
    Zone::new(DEFAULT_ORIGIN, DEFAULT_TTL, &servers).unwrap()
}

fn zone(records: &[(&str, &str)]) -> Zone {
    let records = records.iter().map(|(name, ip)| (*name, ip.parse().unwrap()));
    let (zone, left_out) = empty_zone().with_records(SERIAL, records);
    assert_eq!(left_out, BTreeMap::new());
    zone
}

fn ask(zone: &Zone, name: &str, kind: RecordType) -> Answer {
    zone.answer(&Query::query(Name::from_ascii(name).unwrap(), kind))
}

/// `owner ttl data` per record, or the kind of negative answer.
fn show(answer: Answer) -> Vec<String> {
    let line = |record: &Record| format!("{} {} {}", record.name, record.ttl, record.data);
    match answer {
        Answer::Records(records) => records.iter().map(line).collect(),
        Answer::NoData(soa) => vec!["nodata".to_owned(), line(&soa)],
        Answer::NxDomain(soa) => vec!["nxdomain".to_owned(), line(&soa)],
        Answer::Refused => vec!["refused".to_owned()],
        Answer::NotLoaded => vec!["not loaded".to_owned()],
    }
}

const SOA_DATA: &str = "ns.l4lb.thisdcos.directory. hostmaster.l4lb.thisdcos.directory. \
                        7 60 180 86400 1";

fn negative(kind: &str) -> Vec<String> {
    let soa = format!("{DEFAULT_ORIGIN}. 1 {SOA_DATA}");
    vec![kind.to_owned(), soa]
}

#[test]
fn addresses_keep_the_case_of_the_question() {
    let zone = zone(&[
        ("web.marathon", "11.0.0.2"),
        ("web.marathon", "fd01:c::2"),
        ("web.marathon", "11.0.0.1"),
        ("web.marathon", "11.0.0.2"),
    ]);
    let name = "wEb.Marathon.L4LB.thisdcos.directorY.";
    assert_eq!(
        show(ask(&zone, name, RecordType::A)),
        [format!("{name} 5 11.0.0.1"), format!("{name} 5 11.0.0.2")]
    );
    assert_eq!(show(ask(&zone, name, RecordType::AAAA)), [format!("{name} 5 fd01:c::2")]);
}

#[test]
fn unknown_names_are_nxdomain_even_in_an_empty_zone() {
    for zone in [zone(&[]), zone(&[("web.marathon", "11.0.0.1")])] {
        for name in ["db.marathon", "x.web.marathon", "x.ns", "web", "*"] {
            let name = format!("{name}.{DEFAULT_ORIGIN}.");
            assert_eq!(show(ask(&zone, &name, RecordType::A)), negative("nxdomain"));
        }
    }
}

#[test]
fn existing_names_without_the_type_are_nodata() {
    let zone = zone(&[("web.marathon", "11.0.0.1"), ("a.b.c", "11.0.0.2")]);
    for (name, kind) in [
        ("web.marathon.", RecordType::AAAA),
        ("web.marathon.", RecordType::SOA),
        ("web.marathon.", RecordType::NS),
        ("web.marathon.", RecordType::RRSIG),
        ("marathon.", RecordType::A),
        ("Marathon.", RecordType::ANY),
        ("b.c.", RecordType::A),
        ("c.", RecordType::NS),
        ("ns.", RecordType::AAAA),
        ("", RecordType::A),
    ] {
        let answer = ask(&zone, &format!("{name}{DEFAULT_ORIGIN}."), kind);
        assert_eq!(show(answer), negative("nodata"), "{name} {kind}");
    }
}

#[test]
fn the_apex_has_soa_and_ns_and_the_name_server_its_address() {
    let zone = zone(&[]);
    let apex = format!("{DEFAULT_ORIGIN}.");
    assert_eq!(show(ask(&zone, &apex, RecordType::SOA)), [format!("{apex} 5 {SOA_DATA}")]);
    assert_eq!(show(ask(&zone, &apex, RecordType::NS)), [format!("{apex} 5 ns.{apex}")]);
    assert_eq!(show(ask(&zone, &format!("ns.{apex}"), RecordType::A)), [format!("ns.{apex} 5 198.51.100.1")]);
}

#[test]
fn any_gets_one_record_set() {
    let zone = zone(&[("both.m", "11.0.0.1"), ("both.m", "fd01:c::1"), ("six.m", "fd01:c::1")]);
    for (name, data) in [("both.m.", "11.0.0.1"), ("six.m.", "fd01:c::1"), ("", SOA_DATA)] {
        let name = format!("{name}{DEFAULT_ORIGIN}.");
        assert_eq!(show(ask(&zone, &name, RecordType::ANY)), [format!("{name} 5 {data}")]);
    }
}

#[test]
fn other_names_classes_and_transfers_are_refused() {
    let zone = zone(&[("web.marathon", "11.0.0.1")]);
    for name in [".", "directory.", "thisdcos.directory.", "example.com."] {
        assert_eq!(ask(&zone, name, RecordType::A), Answer::Refused);
    }
    assert_eq!(ask(&zone, "xl4lb.thisdcos.directory.", RecordType::A), Answer::Refused);
    let name = format!("web.marathon.{DEFAULT_ORIGIN}.");
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(ask(&zone, &name, kind), Answer::Refused);
    }
    for class in [DNSClass::CH, DNSClass::ANY, DNSClass::NONE] {
        let mut query = Query::query(Name::from_ascii(&name).unwrap(), RecordType::A);
        query.set_query_class(class);
        assert_eq!(zone.answer(&query), Answer::Refused);
    }
}

#[test]
fn before_the_first_records_nothing_is_denied() {
    let zone = empty_zone();
    let name = format!("web.marathon.{DEFAULT_ORIGIN}.");
    assert_eq!(ask(&zone, &name, RecordType::A), Answer::NotLoaded);
    assert_eq!(ask(&zone, "example.com.", RecordType::A), Answer::Refused);
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
    let ip = IpAddr::from([11, 0, 0, 1]);
    let good = ["web.marathon", fits.as_str()];
    let all = names.iter().map(|(name, _)| *name).chain(good);
    let (with_bad, left_out) = empty_zone().with_records(SERIAL, all.map(|name| (name, ip)));
    let expected = names.map(|(name, reason)| (name.to_owned(), reason));
    assert_eq!(left_out, BTreeMap::from(expected));
    let (without, _) = empty_zone().with_records(SERIAL, good.map(|name| (name, ip)));
    assert_eq!(with_bad, without);
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
        let error = Zone::new(origin, 5, &[]).unwrap_err();
        let origin = origin.to_owned();
        assert_eq!(error, Error::Origin { origin, reason });
    }
    assert_eq!(Zone::new("l4lb.thisdcos.directory.", 5, &[]), Zone::new("L4LB.thisdcos.directory", 5, &[]));
}

fn names() -> impl Strategy<Value = Vec<String>> {
    vec("[ab]{1,2}", 1..4)
}

proptest! {
    /// Against the definition: a name exists if it is a record's name or ends one.
    #[test]
    fn answers_agree_with_the_list_of_records(
        records in btree_map(names(), any::<[u8; 4]>(), 0..12),
        question in names(),
        upper in any::<bool>(),
    ) {
        let listed: Vec<_> = records.iter().map(|(n, ip)| (n.join("."), *ip)).collect();
        let pairs = listed.iter().map(|(name, ip)| (name.as_str(), IpAddr::from(*ip)));
        let (zone, left_out) = empty_zone().with_records(SERIAL, pairs);
        prop_assert!(left_out.is_empty());
        let mut name = format!("{}.{DEFAULT_ORIGIN}.", question.join("."));
        if upper {
            name = name.to_uppercase();
        }
        let expected = match records.get(&question) {
            Some(ip) => vec![format!("{name} 5 {}", Ipv4Addr::from(*ip))],
            None if records.keys().any(|n| n.ends_with(&question)) => negative("nodata"),
            None => negative("nxdomain"),
        };
        prop_assert_eq!(show(ask(&zone, &name, RecordType::A)), expected);
    }
}
