//! Dumps as the kernel sends them, put together by hand.

use netlink_packet_route::link::{InfoPortKind, LinkInfo};
use netlink_packet_route::route::{RouteNextHop, RouteVia};

use super::*;

/// Our link in these tests.
const OWN: &str = "minuteman";

fn link(index: u32, name: &str, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    if name == "lo" {
        link.header.flags = LinkFlags::Loopback;
    }
    link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    link.attributes.extend(attributes);
    link
}

fn of_kind(kind: InfoKind) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])
}

fn address(index: u32, text: &str) -> AddressMessage {
    let address: IpAddr = text.parse().unwrap();
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Address(address)];
    message
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

/// A unicast route of the main table.
fn route(index: u32, destination: &str) -> RouteMessage {
    let network: IpNet = destination.parse().unwrap();
    let mut route = RouteMessage::default();
    route.header.address_family =
        if network.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    route.header.destination_prefix_length = network.prefix_len();
    route.header.kind = RouteType::Unicast;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.attributes = vec![RouteAttribute::Oif(index)];
    // The kernel does not name the destination of a default route.
    if network.prefix_len() > 0 {
        route.attributes.push(RouteAttribute::Destination(route_address(network.addr())));
    }
    route
}

fn via(index: u32, destination: &str, gateway: &str) -> RouteMessage {
    let mut route = route(index, destination);
    route.attributes.push(RouteAttribute::Gateway(route_address(gateway.parse().unwrap())));
    route
}

fn local(index: u32, destination: &str, protocol: RouteProtocol) -> RouteMessage {
    let mut route = route(index, destination);
    route.header.kind = RouteType::Local;
    route.header.table = RT_TABLE_LOCAL;
    route.header.protocol = protocol;
    route
}

fn hop(index: u32, gateway: &str) -> RouteNextHop {
    let mut hop = RouteNextHop::default();
    hop.interface_index = index;
    hop.attributes = vec![RouteAttribute::Gateway(route_address(gateway.parse().unwrap()))];
    hop
}

fn ips<const N: usize>(texts: [&str; N]) -> BTreeSet<IpAddr> {
    texts.map(|text| text.parse().unwrap()).into()
}

fn nets<const N: usize>(texts: [&str; N]) -> BTreeSet<IpNet> {
    texts.map(|text| text.parse().unwrap()).into()
}

/// A node with a network card (eth0, default route), a second one (eth1), containers on a bridge and at
/// the end of a route of their own, and a tunnel to the containers of other nodes.
fn node() -> Inventory {
    let links = [
        link(1, "lo", vec![]),
        link(2, "eth0", vec![LinkAttribute::ParentDevName("virtio2".to_owned())]),
        link(3, "eth1", vec![]),
        link(4, "docker0", vec![of_kind(InfoKind::Bridge)]),
        link(
            5,
            "cali1",
            vec![of_kind(InfoKind::Veth), LinkAttribute::Link(2), LinkAttribute::LinkNetNsId(0)],
        ),
        link(6, "tunl0", vec![of_kind(InfoKind::IpIp)]),
        link(7, OWN, vec![of_kind(InfoKind::Dummy)]),
    ];
    let addresses = [
        address(1, "127.0.0.1"),
        address(2, "192.168.50.1"),
        address(2, "fd50::1"),
        address(7, "198.51.100.1"),
    ];
    let mut routes = vec![
        via(2, "0.0.0.0/0", "192.168.50.1"),
        route(2, "192.168.50.0/24"),
        route(3, "10.0.0.0/8"),
        route(4, "172.17.0.0/16"),
        route(5, "9.1.0.5/32"),
        via(6, "9.1.1.0/24", "192.168.50.2"),
        via(2, "::/0", "fd50::2"),
        route(2, "fd50::/64"),
        route(4, "fd01::/80"),
        route(4, "fe80::/64"),
        local(1, "127.0.0.1/32", RouteProtocol::Kernel),
        local(1, "127.0.0.0/8", RouteProtocol::Kernel),
        local(2, "192.168.50.1/32", RouteProtocol::Kernel),
        local(2, "fd50::1/128", RouteProtocol::Kernel),
        local(7, "11.0.0.0/8", RouteProtocol::Static),
        local(7, "11.1.1.1/32", RouteProtocol::Static),
    ];
    // A block of the node's own container network: what has no container in it is dropped.
    let mut blackhole = route(0, "9.1.0.0/26");
    blackhole.header.kind = RouteType::BlackHole;
    blackhole.attributes.remove(0);
    // Another table may be for a few packets only.
    let mut marked = route(4, "10.77.0.0/16");
    marked.header.table = 100;
    routes.extend([blackhole, marked]);
    Inventory::new(OWN, &links, &addresses, &routes)
}

#[test]
fn inside_has_containers_and_the_node_but_no_neighbours() {
    let inside = node().node.inside;
    let expected =
        nets(["127.0.0.1/32", "192.168.50.1/32", "fd50::1/128", "172.17.0.0/16", "9.1.0.5/32", "fd01::/80"]);
    assert_eq!(inside, expected);
}

#[test]
fn inside_has_no_network_of_a_link_on_hardware() {
    let device = LinkAttribute::ParentDevName("0000:00:03.0".to_owned());
    let links = [
        // In an order in which the upper ones come first.
        link(1, "vlan5", vec![of_kind(InfoKind::Vlan), LinkAttribute::Link(2)]),
        link(2, "br0", vec![of_kind(InfoKind::Bridge)]),
        link(3, "bond0", vec![of_kind(InfoKind::Bond), LinkAttribute::Controller(2)]),
        link(4, "eth0", vec![LinkAttribute::Controller(3)]),
        link(5, "docker0", vec![of_kind(InfoKind::Bridge)]),
        link(6, "veth1", vec![of_kind(InfoKind::Veth), LinkAttribute::Controller(5), LinkAttribute::Link(7)]),
        // The other end of a pair is a port of the bridge on hardware, and its number is not below.
        link(7, "veth2", vec![of_kind(InfoKind::Veth), LinkAttribute::Controller(2), LinkAttribute::Link(6)]),
        link(8, "ib0", vec![of_kind(InfoKind::Ipoib)]),
        link(9, "wwan0", vec![of_kind(InfoKind::Other("new".to_owned())), device]),
        link(10, "lo", vec![]),
        // On a link of another namespace, whose number is that of a network card here.
        link(
            11,
            "mv0",
            vec![of_kind(InfoKind::MacVlan), LinkAttribute::Link(4), LinkAttribute::LinkNetNsId(1)],
        ),
    ];
    let routes: Vec<RouteMessage> =
        (1..=11).map(|index| route(index, &format!("10.{index}.0.0/16"))).collect();
    let node = Inventory::new(OWN, &links, &[], &routes).node;
    let veths_and_docker0 = nets(["10.5.0.0/16", "10.6.0.0/16", "10.7.0.0/16", "10.11.0.0/16"]);
    assert_eq!(node.inside, veths_and_docker0);
}

#[test]
fn every_next_hop_of_a_default_route_leads_out() {
    let links = [2, 3, 4].map(|index| link(index, &format!("tap{index}"), vec![of_kind(InfoKind::Tun)]));
    let mut default = route(0, "0.0.0.0/0");
    default.attributes = vec![RouteAttribute::MultiPath(vec![hop(2, "10.2.0.1"), hop(3, "10.3.0.1")])];
    let routes = [default, route(2, "10.2.0.0/16"), route(3, "10.3.0.0/16"), route(4, "10.4.0.0/16")];
    let node = Inventory::new(OWN, &links, &[], &routes).node;
    assert_eq!(node.inside, nets(["10.4.0.0/16"]));
    assert_eq!(node.gateways, ips(["10.2.0.1", "10.3.0.1"]));
}

/// A node that is a container itself has a pair for its network card, and containers on a shim.
#[test]
fn a_shim_on_a_link_without_hardware_is_inside() {
    let links = [
        link(2, "eth0", vec![of_kind(InfoKind::Veth), LinkAttribute::Link(9), LinkAttribute::LinkNetNsId(0)]),
        link(3, "shim", vec![of_kind(InfoKind::MacVlan), LinkAttribute::Link(2)]),
    ];
    let routes =
        [via(2, "0.0.0.0/0", "192.168.50.2"), route(2, "192.168.50.0/24"), route(3, "192.168.50.61/32")];
    let node = Inventory::new(OWN, &links, &[], &routes).node;
    assert_eq!(node.inside, nets(["192.168.50.61/32"]));
}

#[test]
fn our_link_is_told_from_the_rest() {
    let Inventory { link, addresses, unrouted, routes, node } = node();
    assert_eq!(link, Link::Down);
    assert_eq!(addresses, ips(["198.51.100.1"]));
    assert_eq!(unrouted, addresses);
    let route = |destination: &str| Route { destination: destination.parse().unwrap(), source: None };
    assert_eq!(routes, [route("11.0.0.0/8"), route("11.1.1.1/32")].into());
    assert_eq!(node.addresses, ips(["127.0.0.1", "192.168.50.1", "fd50::1"]));
}

#[test]
fn addresses_of_our_link_are_unrouted_without_a_local_route_of_their_own() {
    let links = [link(3, OWN, vec![])];
    let addresses = ["198.51.100.1", "198.51.100.2", "fd01::1", "fd01::2"].map(|text| address(3, text));
    let routes = [
        local(3, "198.51.100.1/32", RouteProtocol::Kernel),
        // One that another program put in its place does as well.
        local(3, "fd01::1/128", RouteProtocol::Static),
        // These lead to other addresses, or not to this node.
        local(3, "198.51.100.0/24", RouteProtocol::Static),
        route(3, "fd01::2/128"),
    ];
    let inventory = Inventory::new(OWN, &links, &addresses, &routes);
    assert_eq!(inventory.unrouted, ips(["198.51.100.2", "fd01::2"]));
}

#[test]
fn addresses_that_are_being_checked_or_in_use_elsewhere_are_unready() {
    let mut addresses = ["fd50::1", "fd50::2", "fd50::3", "fd50::4"].map(|text| address(2, text));
    addresses[3].header.flags = AddressHeaderFlags::Tentative | AddressHeaderFlags::Optimistic;
    addresses[1].header.flags = AddressHeaderFlags::Tentative;
    addresses[2].header.flags = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    let node = Inventory::new(OWN, &[link(2, "eth0", vec![])], &addresses, &[]).node;
    assert_eq!(node.unready, ips(["fd50::2", "fd50::3"]));
    // No VIP may have them all the same.
    assert_eq!(node.addresses, ips(["fd50::1", "fd50::2", "fd50::3", "fd50::4"]));
    let asked = Some("fd50::2".parse().unwrap());
    assert_eq!(node.default_source(asked, false), Some("fd50::1".parse().unwrap()));
}

#[test]
fn our_link_is_absent_down_or_up() {
    let mut links = [link(2, "eth0", vec![]), link(3, OWN, vec![])];
    let state = |links: &[LinkMessage]| Inventory::new(OWN, links, &[], &[]).link;
    assert_eq!((state(&links[..1]), state(&links)), (Link::Absent, Link::Down));
    links[1].header.flags = LinkFlags::Up;
    assert_eq!(state(&links), Link::Up);
}

#[test]
fn our_routes_are_those_that_were_made_on_purpose() {
    let mut with_source = local(3, "11.0.0.0/8", RouteProtocol::Static);
    let source = Ipv4Addr::new(192, 168, 50, 1);
    with_source.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(source)));
    let routes = [
        with_source,
        local(3, "fd01:c::/64", RouteProtocol::Boot),
        local(3, "198.51.100.1/32", RouteProtocol::Kernel),
        route(3, "10.0.0.0/8"),
        local(2, "12.0.0.0/8", RouteProtocol::Static),
    ];
    let links = [link(2, "eth0", vec![]), link(3, OWN, vec![])];
    let found = Inventory::new(OWN, &links, &[], &routes).routes;
    let expected = [
        Route { destination: "11.0.0.0/8".parse().unwrap(), source: Some(source.into()) },
        Route { destination: "fd01:c::/64".parse().unwrap(), source: None },
    ];
    assert_eq!(found, expected.into());
}

#[test]
fn addresses_are_the_nodes_end_of_a_link() {
    let mut peer = address(2, "10.8.0.1");
    peer.attributes.insert(0, AddressAttribute::Local([10, 8, 0, 2].into()));
    // What the kernel gives to every link is no address of ours.
    let mut automatic = address(3, "fe80::1");
    automatic.header.scope = AddressScope::Link;
    let addresses = [peer, automatic, AddressMessage::default(), address(3, "198.51.100.1")];
    let links = [link(2, "tun0", vec![of_kind(InfoKind::Tun)]), link(3, OWN, vec![])];
    let inventory = Inventory::new(OWN, &links, &addresses, &[]);
    assert_eq!(inventory.node.addresses, ips(["10.8.0.2"]));
    assert_eq!(inventory.addresses, ips(["198.51.100.1"]));
}

#[test]
fn connected_networks_are_direct_and_routed() {
    let mut over_ipv6 = route(2, "10.9.0.0/16");
    over_ipv6.attributes.push(RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap())));
    let routes = [
        route(2, "192.168.50.0/24"),
        route(4, "fd01::/80"),
        route(1, "10.1.0.0/16"),
        via(2, "10.2.0.0/16", "192.168.50.2"),
        over_ipv6,
        route(2, "0.0.0.0/0"),
        route(2, "169.254.0.0/16"),
        route(4, "fe80::/64"),
        route(4, "ff00::/8"),
        local(2, "192.168.50.1/32", RouteProtocol::Kernel),
        route(9, "10.3.0.0/16"),
    ];
    let links =
        [link(1, "lo", vec![]), link(2, "eth0", vec![]), link(4, "docker0", vec![of_kind(InfoKind::Bridge)])];
    let node = Inventory::new(OWN, &links, &[], &routes).node;
    let connected = [("192.168.50.0/24", "eth0"), ("fd01::/80", "docker0")];
    let connected = connected.map(|(network, link)| (network.parse().unwrap(), link.to_owned()));
    assert_eq!(node.connected, connected.into());
    assert_eq!(node.gateways, ips(["192.168.50.2"]));
}

#[test]
fn bridges_without_hairpin_have_a_port_that_does_not_reflect() {
    let port = |index: u32, bridge: u32, hairpin: bool| {
        let data = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(hairpin)]);
        let infos = vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(data),
        ];
        let attributes = vec![LinkAttribute::LinkInfo(infos), LinkAttribute::Controller(bridge)];
        link(index, &format!("veth{index}"), attributes)
    };
    let links = [
        link(2, "docker0", vec![of_kind(InfoKind::Bridge)]),
        link(3, "cni0", vec![of_kind(InfoKind::Bridge)]),
        link(4, "empty0", vec![of_kind(InfoKind::Bridge)]),
        link(5, "vrf0", vec![of_kind(InfoKind::Vrf)]),
        port(6, 2, true),
        port(7, 2, false),
        port(8, 3, true),
        port(9, 5, false),
    ];
    let node = Inventory::new(OWN, &links, &[], &[]).node;
    assert_eq!(node.no_hairpin, BTreeSet::from(["docker0".to_owned()]));
}

#[test]
fn default_source_is_an_ordinary_address_of_the_node() {
    let own = ips(["127.0.0.1", "169.254.1.1", "192.168.50.1", "::1", "fe80::1", "fd50::1"]);
    let source = |asked: Option<&str>, ipv4: bool| {
        let asked = asked.map(|text| text.parse().unwrap());
        let node = Node { addresses: own.clone(), ..Node::default() };
        node.default_source(asked, ipv4).map(|address| address.to_string())
    };
    assert_eq!(source(Some("192.168.50.1"), true).as_deref(), Some("192.168.50.1"));
    // Of our own link, or of one that has gone meanwhile.
    assert_eq!(source(Some("198.51.100.1"), true).as_deref(), Some("192.168.50.1"));
    assert_eq!(source(None, false).as_deref(), Some("fd50::1"));
    assert_eq!(
        Node { addresses: ips(["127.0.0.1", "fe80::1"]), ..Node::default() }.default_source(None, true),
        None
    );
}
