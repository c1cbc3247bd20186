//! What rtnetlink's messages say about the node: our own link with all that is on it, and the links,
//! addresses and networks around it.
//!
//! Pure: [`super::link`] asks the kernel. Attributes and kinds that this program does not know are
//! passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridgePort, InfoKind, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};

use crate::dataplane::{Link, Node, Route};

/// The table of the node's own addresses (`linux/rtnetlink.h`).
pub const RT_TABLE_LOCAL: u8 = 255;

/// One reading of the node's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// State of our link.
    pub link: Link,
    /// Addresses on our link, without those that the kernel puts on every link.
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses on our link whose own `local` route is gone.
    pub unrouted: BTreeSet<IpAddr>,
    /// Our routes on our link.
    pub routes: BTreeSet<Route>,
    /// The rest of the node, as far as links, addresses and routes show it.
    pub node: Node,
}

impl Inventory {
    /// Interprets complete dumps of links, addresses and routes; `own_link` is the name of our link.
    pub fn new(
        own_link: &str,
        links: &[LinkMessage],
        addresses: &[AddressMessage],
        routes: &[RouteMessage],
    ) -> Self {
        // Addresses and routes name their link by index only.
        let names: BTreeMap<u32, &str> =
            links.iter().filter_map(|link| Some((link.header.index, name(link)?))).collect();
        let ours = links.iter().find(|link| name(link) == Some(own_link));
        let our_index = ours.map(|link| link.header.index);
        let mut inventory = Self {
            link: match ours {
                None => Link::Absent,
                Some(link) if link.header.flags.contains(LinkFlags::Up) => Link::Up,
                Some(_) => Link::Down,
            },
            ..Self::default()
        };
        let node = &mut inventory.node;

        // Addresses of our link are state that the diff compares, the rest describes the node.
        for message in addresses {
            let Some(address) = host_address(message) else { continue };
            if Some(message.header.index) != our_index {
                node.addresses.insert(address);
                node.unready.extend(is_unready(message).then_some(address));
            } else if message.header.scope != AddressScope::Link {
                inventory.addresses.insert(address);
            }
        }

        // Until a route is found below.
        inventory.unrouted.clone_from(&inventory.addresses);
        let uplinks = uplinks(links, routes);
        // Routes of our link are state as well, whatever they say of networks.
        for message in routes {
            // Before the link is asked for: a route with several next hops has none of its own.
            node.gateways.extend(gateways(&message.attributes));
            let Some(output) = output(&message.attributes) else { continue };
            if Some(output) == our_index {
                inventory.routes.extend(our_route(message));
                let of_address = own_address(message).map(|network| network.addr());
                inventory.unrouted.retain(|address| Some(*address) != of_address);
                continue;
            }
            node.inside.extend(own_address(message));
            let Some(link) = names.get(&output).filter(|name| **name != "lo") else { continue };
            // A network behind a gateway is elsewhere, whatever link leads to it.
            let Some(network) = direct(message) else { continue };
            if is_routed(&network) {
                node.connected.insert((network, (*link).to_owned()));
            }
            // IPv6 has its link-local network on every link, so that it does not tell one from another.
            if !uplinks.contains(&output) && !is_link_local6(&network) {
                node.inside.insert(network);
            }
        }
        node.no_hairpin = bridges_without_hairpin(links, &names);
        inventory
    }
}

/// Links and routes of the node as no pass needs them, beside the [`Inventory`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Routes to networks that do not lead to our link, each with the name of its link; default routes are left
    /// out.
    pub routes: BTreeSet<(IpNet, String)>,
    /// Largest packet of each link that is up, but ours and the loopback one.
    pub mtus: BTreeMap<String, u32>,
    /// Names of the links that lead out of the node.
    pub uplinks: BTreeSet<String>,
    /// Names of all links, those that are down among them.
    pub links: BTreeSet<String>,
}

impl Surroundings {
    /// Interprets complete dumps of links and routes; `own_link` is the name of our link.
    pub fn new(own_link: &str, links: &[LinkMessage], routes: &[RouteMessage]) -> Self {
        let names: BTreeMap<u32, &str> = links
            .iter()
            .filter_map(|link| Some((link.header.index, name(link)?)))
            .filter(|(_, name)| *name != own_link && *name != "lo")
            .collect();
        let named = |index: &u32| names.get(index).map(|name| (*name).to_owned());
        let mtu = |link: &LinkMessage| {
            link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            })
        };
        let is_up = |link: &&LinkMessage| link.header.flags.contains(LinkFlags::Up);
        let mtus = links
            .iter()
            .filter(is_up)
            .filter_map(|link| Some((named(&link.header.index)?, mtu(link)?)))
            .collect();
        // A default route has every range in it, and a local one is of the node itself.
        let unicast = routes.iter().filter(|route| {
            let header = &route.header;
            header.kind == RouteType::Unicast && header.destination_prefix_length > 0
        });
        let routed = unicast.flat_map(|route| {
            let links = outputs(&route.attributes).into_iter().filter_map(|index| named(&index));
            let network = destination(route).filter(is_routed);
            network.into_iter().flat_map(move |network| links.clone().map(move |link| (network, link)))
        });
        Self {
            routes: routed.collect(),
            mtus,
            uplinks: uplinks(links, routes).iter().filter_map(named).collect(),
            links: names.values().map(|name| (*name).to_owned()).collect(),
        }
    }
}

/// Links that lead out of the node: those with a default route, and hardware with every link on top of it
/// (a bond, a bridge or a VLAN of a network card). A link on top of another one that has a default route
/// is left: it may be the node's own end of a container network.
fn uplinks(links: &[LinkMessage], routes: &[RouteMessage]) -> BTreeSet<u32> {
    let defaults = routes.iter().filter(|route| {
        route.header.kind == RouteType::Unicast && route.header.destination_prefix_length == 0
    });
    let mut found: BTreeSet<u32> =
        links.iter().filter(|link| is_hardware(link)).map(|link| link.header.index).collect();
    // Links are stacked in any order, so that this is repeated until nothing is added.
    loop {
        let stacked = links.iter().flat_map(stacked).filter(|(lower, _)| found.contains(lower));
        let added: Vec<u32> =
            stacked.map(|(_, upper)| upper).filter(|upper| !found.contains(upper)).collect();
        if added.is_empty() {
            break;
        }
        found.extend(added);
    }
    // Behind the stacking, so that what is made on a link with a default route does not count as leading
    // out.
    found.extend(defaults.flat_map(|route| outputs(&route.attributes)));
    found
}

/// True if a driver serves the link rather than the kernel's own code. Links of drivers have no kind,
/// but for two kinds of child links; since Linux 5.14 the device above them is named as well.
fn is_hardware(link: &LinkMessage) -> bool {
    let has_device =
        link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::ParentDevName(_)));
    let is_driven = match kind(link) {
        None => !link.header.flags.contains(LinkFlags::Loopback),
        Some(kind) => matches!(kind, InfoKind::Ipoib | InfoKind::Wwan),
    };
    has_device || is_driven
}

/// Indexes of two links of which the second is on top of the first: a port and its bridge, bond or team,
/// and what a VLAN, macvlan or tunnel is made on.
fn stacked(link: &LinkMessage) -> Vec<(u32, u32)> {
    let own = link.header.index;
    // The other end of a pair is no part of it, and an index of another network namespace means nothing
    // in this one.
    let is_other_end = matches!(kind(link), Some(InfoKind::Veth | InfoKind::Vxcan | InfoKind::Netkit))
        || link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)));
    let pair = |attribute: &LinkAttribute| match attribute {
        LinkAttribute::Controller(upper) => Some((own, *upper)),
        LinkAttribute::Link(lower) if !is_other_end => Some((*lower, own)),
        _ => None,
    };
    link.attributes.iter().filter_map(pair).collect()
}

/// The routers of a route, of each next hop.
fn gateways(attributes: &[RouteAttribute]) -> Vec<IpAddr> {
    let gateway = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => vec![IpAddr::from(*address)],
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => vec![IpAddr::from(*address)],
        RouteAttribute::MultiPath(hops) => hops.iter().flat_map(|hop| gateways(&hop.attributes)).collect(),
        _ => Vec::new(),
    };
    attributes.iter().flat_map(gateway).collect()
}

/// Index of the link of a route with one next hop.
fn output(attributes: &[RouteAttribute]) -> Option<u32> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// Indexes of the links of a route, of each next hop.
fn outputs(attributes: &[RouteAttribute]) -> Vec<u32> {
    let hops = attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    });
    output(attributes).into_iter().chain(hops).collect()
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn kind(link: &LinkMessage) -> Option<&InfoKind> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        }),
        _ => None,
    })
}

/// The address that is the node's. On a point-to-point link the plain address is the peer's, so the
/// local one comes first.
fn host_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// True for an address that is no source: the kernel is still asking if another node has it, or another one
/// has. An optimistic one is used meanwhile.
fn is_unready(message: &AddressMessage) -> bool {
    let flags = message.header.flags;
    let is_checked =
        flags.contains(AddressHeaderFlags::Tentative) && !flags.contains(AddressHeaderFlags::Optimistic);
    is_checked || flags.contains(AddressHeaderFlags::Dadfailed)
}

/// A `local` route that was made on purpose; the kernel makes one for each address of a link.
fn our_route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let made = header.kind == RouteType::Local
        && header.table == RT_TABLE_LOCAL
        && header.protocol != RouteProtocol::Kernel;
    let source = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(address) => ip(address),
        _ => None,
    });
    made.then(|| Some(Route { destination: destination(message)?, source })).flatten()
}

/// The single address of a `local` route, which makes it the node's own.
fn own_address(message: &RouteMessage) -> Option<IpNet> {
    let network = destination(message).filter(|_| message.header.kind == RouteType::Local)?;
    (network.prefix_len() == network.max_prefix_len()).then_some(network)
}

/// The destination of a route of the main table that leads to a link without a gateway. Default routes
/// are left out: a link that takes everything does not say who is on it.
fn direct(message: &RouteMessage) -> Option<IpNet> {
    let header = &message.header;
    let has_gateway = message
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_)));
    let is_direct =
        header.kind == RouteType::Unicast && header.table == RouteHeader::RT_TABLE_MAIN && !has_gateway;
    destination(message).filter(|network| is_direct && network.prefix_len() > 0)
}

/// False for link-local networks, which no router forwards, and for multicast.
fn is_routed(network: &IpNet) -> bool {
    match network {
        IpNet::V4(network) => !network.network().is_link_local(),
        IpNet::V6(network) => !network.network().is_unicast_link_local() && !network.network().is_multicast(),
    }
}

fn is_link_local6(network: &IpNet) -> bool {
    matches!(network, IpNet::V6(_)) && !is_routed(network)
}

fn destination(message: &RouteMessage) -> Option<IpNet> {
    let length = message.header.destination_prefix_length;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    // The kernel leaves the destination of a default route out of the message.
    let any = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    IpNet::new(address.unwrap_or(any), length).ok()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Bridges with a port that does not send a frame back where it came from.
fn bridges_without_hairpin(links: &[LinkMessage], names: &BTreeMap<u32, &str>) -> BTreeSet<String> {
    // Hairpin mode is a setting of each port, and a new port has it off.
    let off = |link: &LinkMessage| {
        link.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.iter().any(|info| match info {
                LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                    port.contains(&InfoBridgePort::HairpinMode(false))
                }
                _ => false,
            }),
            _ => false,
        })
    };
    // The bridge of the port, which the warning names.
    let controller = |link: &LinkMessage| {
        link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        })
    };
    let bridges: BTreeSet<u32> = links
        .iter()
        .filter(|link| kind(link) == Some(&InfoKind::Bridge))
        .map(|link| link.header.index)
        .collect();
    links
        .iter()
        .filter(|link| off(link))
        .filter_map(controller)
        .filter(|index| bridges.contains(index))
        .filter_map(|index| names.get(&index).map(|name| (*name).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests;
