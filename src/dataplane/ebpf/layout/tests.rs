use proptest::prelude::*;

use super::*;

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
    fn services_come_back(key in services()) {
        prop_assert_eq!(decode_vip(&vip(&key)), Some(key));
    }

    #[test]
    fn slots_come_back(service in services(), server: IpAddr, port: u16, id: u32, weight: u32) {
        let slot = Slot { service, server: SocketAddr::new(server.to_canonical(), port), id, weight };
        prop_assert_eq!(Slot::decode(&slot.encode()), Some(slot));
    }

    #[test]
    fn regions_come_back(base: u32, active: u16, total: u16) {
        let region = Region { base, active, total };
        prop_assert_eq!(Region::decode(region.encode()), region);
    }

    #[test]
    fn networks_come_back(address: IpAddr, prefix in 0_u8..=128) {
        let prefix = if address.is_ipv4() { prefix.min(32) } else { prefix };
        let net = IpNet::new(address, prefix).unwrap().trunc();
        // IPv6 networks around or in the mapped addresses are refused, or not told apart.
        prop_assume!(net.network().to_canonical() == net.network());
        prop_assert_eq!(decode_network(&network(&net)), Some(net));
    }

    #[test]
    fn any_bytes_are_read_without_harm(slot: [[u8; 16]; 3], key: [u8; 20]) {
        let _ = Slot::decode(slot.as_flattened().try_into().unwrap());
        let _ = (decode_vip(&key), decode_network(&key));
    }
}

#[test]
fn bytes_are_those_of_the_program() {
    let service = ServiceKey { protocol: Protocol::Udp, address: "10.1.2.3".parse().unwrap(), port: 53 };
    let key = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3, 0, 53, 17, 0];
    assert_eq!(vip(&service), key);
    let slot = Slot { service, server: "10.1.2.4:258".parse().unwrap(), id: 7, weight: 1 };
    let bytes = slot.encode();
    assert_eq!(bytes[..20], key);
    assert_eq!(bytes[20..40], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 4, 1, 2, 0, 0]);
    assert_eq!(bytes[40..], [7_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat());
    let mut taken = [0; TAKEN_SIZE];
    taken[40..].copy_from_slice(&7_u32.to_ne_bytes());
    assert_eq!(taken_id(&taken), Some(7));
    assert_eq!(network(&"10.0.0.0/8".parse().unwrap())[..4], 104_u32.to_ne_bytes());
}

#[test]
fn sizes_are_those_of_the_maps() {
    assert_eq!(VIPS.key_size as usize, VIP_SIZE);
    assert_eq!(SLOTS_MAP.value_size as usize, SLOT_SIZE);
    assert_eq!(SOCKETS.value_size as usize, TAKEN_SIZE);
    assert_eq!(SERVERS_PER_SERVICE, usize::from(u16::MAX));
}
