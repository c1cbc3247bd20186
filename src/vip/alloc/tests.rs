use std::collections::BTreeSet;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::vip::vip_name;

#[derive(Deserialize)]
struct Vectors {
    vectors_no_collision: Vec<Vector>,
    collision_scenarios: Vec<Scenario>,
    collision_out_of_ips: OutOfIps,
    collision_ipv6: Sequence,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    phash2_32: u32,
    ipv4_code_default: IpAddr,
    ipv4_dcos_default: IpAddr,
    ipv4_test_range: IpAddr,
    ipv6_default: IpAddr,
}

#[derive(Deserialize)]
struct Scenario {
    title: String,
    min_named_ip: IpAddr,
    max_named_ip: IpAddr,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    input_in_processing_order: Vec<Input>,
    mapping_after_cleanup: Vec<Mapping>,
}

#[derive(Deserialize)]
struct Input {
    label: String,
    framework: String,
}

#[derive(Debug, Deserialize)]
struct Mapping {
    label: Option<String>,
    framework: Option<String>,
    ip: IpAddr,
}

#[derive(Deserialize)]
struct OutOfIps {
    min_named_ip: IpAddr,
    max_named_ip: IpAddr,
    one_by_one: Vec<AllocStep>,
}

#[derive(Deserialize)]
struct AllocStep {
    label: String,
    framework: String,
    result: String,
}

#[derive(Deserialize)]
struct Sequence {
    min_named_ip6: IpAddr,
    max_named_ip6: IpAddr,
    sequence: Vec<Mapping>,
    fourth: IpAddr,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../tests/fixtures/vip_allocation.json")).unwrap()
}

fn range(text: &str) -> AddressRange {
    text.parse().unwrap()
}

fn first(range: &AddressRange, name: &str) -> IpAddr {
    let mut leases = Leases::default();
    assert_eq!(leases.assign(range, [name], []), Vec::<String>::new());
    leases.get(name).unwrap()
}

#[test]
fn every_vector_of_the_peer() {
    for vector in vectors().vectors_no_collision {
        assert_eq!(phash::phash2(vector.name.as_bytes()), vector.phash2_32, "{}", vector.name);
        let code = range("11.0.0.0-11.255.255.254");
        assert_eq!(first(&code, &vector.name), vector.ipv4_code_default);
        assert_eq!(first(&AddressRange::DCOS_V4, &vector.name), vector.ipv4_dcos_default);
        assert_eq!(first(&range("11.0.0.0-11.0.0.254"), &vector.name), vector.ipv4_test_range);
        assert_eq!(first(&AddressRange::DCOS_V6, &vector.name), vector.ipv6_default);
    }
}

/// Where Minuteman gives each of several labels with one name an address of its own, we give them
/// the one that it gives to the first of them.
#[test]
fn every_collision_scenario_of_the_peer() {
    for scenario in vectors().collision_scenarios {
        let range = AddressRange { min: scenario.min_named_ip, max: scenario.max_named_ip };
        let mut leases = Leases::default();
        for event in scenario.events {
            let inputs = event.input_in_processing_order.iter();
            let names: Vec<String> = inputs.map(|input| vip_name(&input.label, &input.framework)).collect();
            assert_eq!(leases.assign(&range, names.iter().map(String::as_str), []), Vec::<String>::new());
            leases.retain(|name| names.iter().any(|known| known == name));
            let mut expected = BTreeMap::new();
            for mapping in event.mapping_after_cleanup.iter().rev() {
                let name = vip_name(mapping.label.as_deref().unwrap(), mapping.framework.as_deref().unwrap());
                expected.entry(name).or_insert(mapping.ip);
            }
            assert_eq!(leases.held, expected.into_iter().collect(), "{}", scenario.title);
        }
    }
}

#[test]
fn out_of_addresses_leaves_out_only_what_does_not_fit() {
    let vectors = vectors().collision_out_of_ips;
    let range = AddressRange { min: vectors.min_named_ip, max: vectors.max_named_ip };
    let mut leases = Leases::default();
    for step in vectors.one_by_one {
        let name = vip_name(&step.label, &step.framework);
        let unplaced = leases.assign(&range, [name.as_str()], []);
        match step.result.parse::<IpAddr>() {
            Ok(address) => assert_eq!(leases.get(&name), Some(address)),
            Err(_) => assert_eq!(unplaced, [name]),
        }
    }
}

#[test]
fn ipv6_collisions() {
    let vectors = vectors().collision_ipv6;
    let range = AddressRange { min: vectors.min_named_ip6, max: vectors.max_named_ip6 };
    let mut leases = Leases::default();
    for mapping in &vectors.sequence {
        let name = vip_name(mapping.label.as_ref().unwrap(), mapping.framework.as_ref().unwrap());
        leases.assign(&range, [name.as_str()], []);
        assert_eq!(leases.get(&name), Some(mapping.ip));
    }
    let full: BTreeSet<IpAddr> = leases.iter().map(|(_, address)| address).collect();
    assert!(!full.contains(&vectors.fourth));
}

fn single(address: IpAddr) -> AddressRange {
    AddressRange { min: address, max: address }
}

#[test]
fn taken_addresses_are_stepped_over_and_wrapped() {
    let range = range("11.0.0.0-11.0.0.3");
    let all = ["11.0.0.0", "11.0.0.1", "11.0.0.2", "11.0.0.3"].map(|a| a.parse().unwrap());
    for free in all {
        let mut leases = Leases::default();
        let unplaced = leases.assign(&range, ["x.y"], all.into_iter().filter(|&a| a != free).map(single));
        // One of the four is never tried: the one before the start.
        assert!(leases.get("x.y") == Some(free) || unplaced == ["x.y"]);
    }
    assert_eq!(Leases::default().assign(&range, ["x.y"], all.map(single)), ["x.y"]);
}

proptest! {
    #![proptest_config(crate::units::cases(256))]
    #[test]
    fn names_get_distinct_stable_addresses(
        names in prop::collection::btree_set("[a-z]{1,4}\\.m", 0..40),
        more in prop::collection::btree_set("[a-z]{1,4}\\.m", 0..40),
        avoid in (0u8..64, 0u8..64),
    ) {
        let range = range("10.0.0.0-10.0.0.63");
        let excluded = [AddressRange { min: Ipv4Addr::new(10, 0, 0, avoid.0).into(), max: Ipv4Addr::new(10, 0, 0, avoid.0.max(avoid.1)).into() }];
        let mut leases = Leases::default();
        leases.assign(&range, names.iter().map(String::as_str), excluded);
        let before = leases.held.clone();
        leases.assign(&range, more.iter().map(String::as_str), excluded);
        for (name, address) in &before {
            prop_assert_eq!(leases.get(name), Some(*address));
        }
        let distinct: BTreeSet<IpAddr> = leases.held.values().copied().collect();
        prop_assert_eq!(distinct.len(), leases.held.len());
        prop_assert!(distinct.iter().all(|a| range.contains(*a) && !excluded[0].contains(*a)));
    }

    /// What is known of taken addresses follows what is given and taken back.
    #[test]
    fn addresses_are_those_that_are_found_by_going_through_all(
        steps in prop::collection::vec(
            (prop::collection::btree_set("[a-z]{1,2}\\.m", 0..20), "[a-z]"), 1..12),
        literals in prop::option::of(0u8..32),
    ) {
        let range = range("10.0.0.0-10.0.0.63");
        let literals = literals.map(|first| AddressRange {
            min: Ipv4Addr::new(10, 0, 0, first).into(),
            max: Ipv4Addr::new(10, 0, 0, first + 7).into(),
        });
        let mut leases = Leases::default();
        for (names, gone) in steps {
            let names = || names.iter().map(String::as_str);
            // A copy knows nothing of what is taken.
            let mut anew = leases.clone();
            prop_assert_eq!(leases.assign(&range, names(), literals), anew.assign(&range, names(), literals));
            prop_assert_eq!(&leases, &anew);
            leases.retain(|name| !name.starts_with(&gone));
        }
    }

    #[test]
    fn modulo_is_the_remainder(value: u128, divisor in 1u128..) {
        prop_assert_eq!(modulo(&value.to_be_bytes(), divisor), value % divisor);
    }

    #[test]
    fn networks_cover_exactly_the_range(min: u32, length in 0u32..5000) {
        let max = min.saturating_add(length);
        let range = AddressRange { min: Ipv4Addr::from(min).into(), max: Ipv4Addr::from(max).into() };
        let mut next = u64::from(min);
        for network in range.networks() {
            prop_assert_eq!(number(network.network()), u128::from(next));
            next += 1u64 << (32 - network.prefix_len());
        }
        prop_assert_eq!(next, u64::from(max) + 1);
    }
}
