use std::collections::BTreeMap;
use std::mem::offset_of;

use proptest::prelude::*;

use super::*;

mod btf;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/l4lbd.bpf.o"));

fn services() -> impl Strategy<Value = ServiceKey> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    (protocol, any::<IpAddr>(), any::<u16>()).prop_map(|(protocol, address, port)| ServiceKey {
        protocol,
        address: address.to_canonical(),
        port,
    })
}

proptest! {
    #[test]
    fn vip_key_returns_its_service(key in services()) {
        prop_assert_eq!(VipKey::from(key).service(), Some(key));
    }

    #[test]
    fn slot_returns_its_parts(service in services(), server: IpAddr, port: u16, numbers: (u32, u32), flags: (bool, bool)) {
        let server = SocketAddr::new(server.to_canonical(), port);
        let flags = SlotFlags { is_weighted: flags.0, is_unejected: flags.1 };
        let slot = Slot::new(service, server, numbers, flags);
        prop_assert_eq!((slot.service(), slot.server(), slot.flags()), (Some(service), server, flags));
        prop_assert_eq!((slot.id, slot.weight), numbers);
    }

    #[test]
    fn region_returns_from_its_word(base: u32, active: u16, total: u16) {
        let region = Region { base, active, total };
        prop_assert_eq!(Region::from_word(region.word()), region);
    }

    #[test]
    fn network_key_returns_its_network(address: IpAddr, prefix in 0_u8..=128) {
        let prefix = if address.is_ipv4() { prefix.min(32) } else { prefix };
        let net = IpNet::new(address, prefix).unwrap().trunc();
        // An IPv6 network around or in the mapped addresses is refused, or is the same as an IPv4 one.
        prop_assume!(net.network().to_canonical() == net.network());
        prop_assert_eq!(NetworkKey::from(&net).network(), Some(net));
    }

    #[test]
    fn decoding_takes_any_bytes(slot: [[u8; 16]; 3], key: [u8; 20]) {
        let slot = Slot::read_from_bytes(slot.as_flattened()).unwrap();
        let _ = (slot.service(), slot.server());
        let _ = VipKey::read_from_bytes(&key).unwrap().service();
        let _ = NetworkKey::read_from_bytes(&key).unwrap().network();
    }
}

#[test]
fn bytes_are_in_network_order_where_the_program_expects_it() {
    let service = ServiceKey { protocol: Protocol::Udp, address: "10.1.2.3".parse().unwrap(), port: 53 };
    let key = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3, 0, 53, 17, 0];
    assert_eq!(VipKey::from(service).as_bytes(), key);
    let slot = Slot::new(service, "10.1.2.4:258".parse().unwrap(), (7, 1), SlotFlags::default());
    let bytes = slot.as_bytes();
    assert_eq!(bytes[..20], key);
    assert_eq!(bytes[20..40], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 4, 1, 2, 0, 0]);
    assert_eq!(bytes[40..], [7_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat());
    let network = NetworkKey::from(&"10.0.0.0/8".parse().unwrap());
    assert_eq!(network.as_bytes()[..4], 104_u32.to_ne_bytes());
}

/// Sockets keep their servers over a restart, and not over a change of what an id stands for.
#[test]
fn terms_are_the_same_in_every_run_and_others_for_other_servers() {
    let vips = ["10.1.2.3", "10.1.2.4", "fd00::1"].map(|address| ServiceKey {
        protocol: Protocol::Udp,
        address: address.parse().unwrap(),
        port: 53,
    });
    let none = SlotFlags::default();
    let servers = ["10.0.0.1:53", "10.0.0.1:54", "10.0.0.2:53"];
    let slots = vips
        .iter()
        .flat_map(|vip| servers.map(|server| Slot::new(*vip, server.parse().unwrap(), (7, 1), none)));
    let terms: std::collections::BTreeSet<u32> = slots.map(|slot| slot.term()).collect();
    assert_eq!(terms.len(), 9);
    assert!(!terms.contains(&0));
    // Another number would take their servers from all sockets of a node that is upgraded.
    let again =
        Slot::new(vips[0], servers[0].parse().unwrap(), (8, 3), SlotFlags { is_weighted: true, ..none });
    assert_eq!(again.term(), 2_505_530_248);
}

#[test]
fn maps_are_those_of_the_compiled_program() {
    let object = aya_obj::Object::parse(OBJECT).unwrap();
    let mut maps: BTreeMap<&str, [u32; 5]> = BTreeMap::new();
    for (name, map) in &object.maps {
        let sizes = [map.map_type(), map.key_size(), map.value_size(), map.max_entries(), map.map_flags()];
        maps.insert(name, sizes);
    }
    // The program's constants, which are no map of ours.
    assert!(maps.remove(".rodata").is_some());
    let ours =
        MAPS.map(|map| (map.name, [map.kind, map.key_size, map.value_size, map.max_entries, map.flags]));
    assert_eq!(maps, ours.into());
    assert_eq!(SERVERS_PER_SERVICE, usize::from(u16::MAX));
}

#[test]
fn hooks_are_those_of_the_compiled_program() {
    let object = aya_obj::Object::parse(OBJECT).unwrap();
    let mut names: Vec<&str> = object.programs.keys().map(String::as_str).collect();
    let mut ours: Vec<&str> = HOOKS.iter().map(|hook| hook.name).chain([LIST_DATAGRAMS]).collect();
    names.sort_unstable();
    ours.sort_unstable();
    assert_eq!(names, ours);
}

/// Size of a type here, and offset and size of each of its fields.
macro_rules! layout_of {
    ($type:ty { $($field:ident),* $(,)? }) => {
        btf::Layout {
            size: size_of::<$type>(),
            fields: [$((stringify!($field).to_owned(), offset_of!($type, $field))),*].into(),
        }
    };
}

#[test]
fn types_are_those_of_the_compiled_program() {
    let object = aya_obj::Object::parse(OBJECT).unwrap();
    let structs = btf::structs(&object.btf.unwrap().to_bytes());
    assert_eq!(structs["address"].size, size_of::<MappedAddress>());
    assert_eq!(structs["vip"], layout_of!(VipKey { address, port, protocol, zero }));
    assert_eq!(structs["slot"], layout_of!(Slot { vip, address, port, flags, id, weight }));
    assert_eq!(structs["draw"], layout_of!(Draw { moved, other }));
    assert_eq!(structs["taken"], layout_of!(SocketServer { vip, address, port, counted, id }));
    assert_eq!(structs["network"], layout_of!(NetworkKey { prefix, address }));
    assert_eq!((structs["keeps"].size, structs["more"].size), (size_of::<Keeps>(), size_of::<More>()));
    assert_eq!(structs["datagram"], layout_of!(ConnectedDatagram { cookie, id, zero }));
    assert_eq!(structs["listing"], layout_of!(Listing { skipped, found, all }));
    assert_eq!(structs["failures"], layout_of!(Failures { failed, begun }));
    assert_eq!(structs["client"], layout_of!(ClientKey { namespace, vip, zero }));
    assert_eq!(structs["troubles"], layout_of!(Troubles { failing }));
    assert_eq!(
        structs["failing"],
        layout_of!(troubles::FailingServer { server, stay, failures, ejections, until, trial, failed })
    );
    assert_eq!(
        structs["connects"],
        layout_of!(ServerConnects { begun, established, refused, timed_out, retransmissions, vip })
    );
    assert_eq!(
        structs["vip_connects"],
        layout_of!(VipConnects { vip, refused, begun, established, timed_out, retransmissions, latencies })
    );
}

/// An element that one client adds there takes the place of another's. What is remembered of sockets goes with them.
#[test]
fn clients_share_nothing_but_what_is_remembered_of_failures() {
    let shared: Vec<&str> = MAPS.iter().filter(|map| map.kind == bpf::LRU_HASH).map(|map| map.name).collect();
    assert_eq!(shared, ["troubles", "shares"]);
}

/// The manual page states it.
#[test]
fn what_is_counted_of_connects_takes_less_than_16_megabytes() {
    let bytes = |map: &MapLayout| u64::from(map.value_size) * u64::from(map.max_entries);
    let all: u64 = [COUNTS, CONNECTS, VIP_CONNECTS, LOCKS].iter().map(bytes).sum();
    assert!(all < 16_000_000, "{all}");
    assert!(
        [COUNTS, CONNECTS, VIP_CONNECTS, LOCKS]
            .iter()
            .all(|map| map.kind == bpf::ARRAY && map.value_size % 8 == 0)
    );
}

#[test]
fn latency_classes_have_their_bounds_and_none_is_listed_without_connects() {
    let mut found =
        VipConnects::of(ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, 1].into(), port: 80 });
    (found.latencies[0], found.latencies[1], found.latencies[14], found.latencies[15]) = (1, 2, 3, 4);
    let classes: Vec<_> =
        found.connects().latency.iter().map(|class| (class.below_us, class.connects)).collect();
    assert_eq!(classes, [(Some(64), 1), (Some(128), 2), (Some(1_048_576), 3), (None, 4)]);
}
