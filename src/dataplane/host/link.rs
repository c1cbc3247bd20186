//! Links, addresses and routes through rtnetlink: our own link, and what the node's network is like.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::dataplane::{Link, Node, Op, Route};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_core::ErrorMessage;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridgePort, InfoKind, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{AddressMessageBuilder, Handle, LinkBridge, LinkDummy, LinkUnspec, RouteMessageBuilder};

/// The table of the node's own addresses (`linux/rtnetlink.h`).
const RT_TABLE_LOCAL: u8 = 255;

/// Why rtnetlink could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    #[error("{0}")]
    Netlink(#[from] rtnetlink::Error),
}

/// What a reading yields: our link with all that is on it, and the rest of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub link: Link,
    pub addresses: BTreeSet<IpAddr>,
    pub routes: BTreeSet<Route>,
    pub node: Node,
}

/// A netlink socket, and the link that is ours.
pub struct Routing {
    handle: Handle,
    link: String,
}

impl Routing {
    /// Opens a socket in the current network namespace. Must be called within a tokio runtime.
    pub fn open(link: &str) -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle, link: link.to_owned() })
    }

    /// Reads all links, addresses and routes once.
    pub async fn read(&self) -> Result<Reading, Error> {
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await?;
        let addresses: Vec<AddressMessage> = self.handle.address().get().execute().try_collect().await?;
        let mut routes: Vec<RouteMessage> = Vec::new();
        for message in
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            routes.extend(self.handle.route().get(message).execute().try_collect::<Vec<_>>().await?);
        }
        let mut reading = interpret(&self.link, &links, &addresses, &routes);
        let node = &mut reading.node;
        node.default_source4 = preferred_source((Ipv4Addr::new(192, 0, 2, 1), 9).into(), &node.addresses);
        node.default_source6 =
            preferred_source((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(), &node.addresses);
        Ok(reading)
    }

    /// Carries out a link, address or route operation; others are not for this module.
    pub async fn apply(&self, op: &Op) -> Result<(), Error> {
        match op {
            Op::AddLink => {
                let dummy = self.handle.link().add(LinkDummy::new(&self.link).build()).execute().await;
                // A bridge without ports does as well where the kernel lacks the module.
                match dummy {
                    Err(rtnetlink::Error::NetlinkError(error)) if is_unsupported(&error) => {
                        self.handle.link().add(LinkBridge::new(&self.link).build()).execute().await?;
                    }
                    added => added?,
                }
            }
            Op::SetLinkUp => {
                let message = LinkUnspec::new_with_index(self.index().await?).up().build();
                self.handle.link().set(message).execute().await?;
            }
            Op::DelLink => self.handle.link().del(self.index().await?).execute().await?,
            Op::AddAddress(address) => {
                let (index, length) = (self.index().await?, IpNet::from(*address).prefix_len());
                self.handle.address().add(index, *address, length).execute().await?;
            }
            Op::DelAddress(address) => {
                let message = self.address(*address).await?;
                self.handle.address().del(message).execute().await?;
            }
            // Replacing makes a change of the preferred source one atomic step.
            Op::AddRoute(route) => {
                self.handle.route().add(self.route(route).await?).replace().execute().await?;
            }
            Op::DelRoute(route) => self.handle.route().del(self.route(route).await?).execute().await?,
            _ => {}
        }
        Ok(())
    }

    async fn index(&self) -> Result<u32, Error> {
        let mut links = self.handle.link().get().match_name(self.link.clone()).execute();
        let link = links.try_next().await?;
        Ok(link.map(|link| link.header.index).unwrap_or_default())
    }

    async fn address(&self, address: IpAddr) -> Result<AddressMessage, Error> {
        let index = self.index().await?;
        Ok(match address {
            IpAddr::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(v4, 32).build(),
            IpAddr::V6(v6) => AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(v6, 128).build(),
        })
    }

    async fn route(&self, route: &Route) -> Result<RouteMessage, Error> {
        let index = self.index().await?;
        let length = route.destination.prefix_len();
        Ok(match route.destination {
            IpNet::V4(destination) => {
                let builder = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(destination.network(), length)
                    .scope(RouteScope::Host);
                match route.source {
                    Some(IpAddr::V4(source)) => local(builder.pref_source(source), index),
                    _ => local(builder, index),
                }
            }
            IpNet::V6(destination) => {
                let builder =
                    RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(destination.network(), length);
                match route.source {
                    Some(IpAddr::V6(source)) => local(builder.pref_source(source), index),
                    _ => local(builder, index),
                }
            }
        })
    }
}

fn is_unsupported(error: &ErrorMessage) -> bool {
    error.to_io().raw_os_error() == Some(nix::libc::EOPNOTSUPP)
}

fn local<T>(builder: RouteMessageBuilder<T>, index: u32) -> RouteMessage {
    builder.table_id(u32::from(RT_TABLE_LOCAL)).kind(RouteType::Local).output_interface(index).build()
}

/// The source address that the kernel would choose towards `target`. Connecting a UDP socket asks it
/// without sending anything. Without a route, the node's first ordinary address does.
fn preferred_source(target: SocketAddr, own: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let asked = UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect(target).and_then(|()| socket.local_addr()))
        .ok()
        .map(|address| address.ip())
        .filter(|address| own.contains(address));
    let ordinary = |address: &&IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    asked.or_else(|| own.iter().filter(|own| own.is_ipv4() == target.is_ipv4()).find(ordinary).copied())
}

fn interpret(
    own_link: &str,
    links: &[LinkMessage],
    addresses: &[AddressMessage],
    routes: &[RouteMessage],
) -> Reading {
    let names: BTreeMap<u32, &str> =
        links.iter().filter_map(|link| Some((link.header.index, name(link)?))).collect();
    let ours = links.iter().find(|link| name(link) == Some(own_link));
    let our_index = ours.map(|link| link.header.index);
    let mut reading = Reading {
        link: match ours {
            None => Link::Absent,
            Some(link) if link.header.flags.contains(LinkFlags::Up) => Link::Up,
            Some(_) => Link::Down,
        },
        ..Reading::default()
    };
    for message in addresses {
        let Some(address) = host_address(message) else { continue };
        if Some(message.header.index) != our_index {
            reading.node.addresses.insert(address);
        } else if message.header.scope != AddressScope::Link {
            reading.addresses.insert(address);
        }
    }
    for message in routes {
        reading.node.gateways.extend(gateways(&message.attributes));
        let output = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        let Some(output) = output else { continue };
        if Some(output) == our_index {
            reading.routes.extend(our_route(message));
        } else if let Some(name) = names.get(&output).filter(|name| **name != "lo") {
            reading.node.connected.extend(connected(message).map(|network| (network, (*name).to_owned())));
        }
    }
    reading.node.no_hairpin = bridges_without_hairpin(links, &names);
    reading
}

/// The routers that a route leads through, each way of it on its own.
fn gateways(attributes: &[RouteAttribute]) -> Vec<IpAddr> {
    let gateway = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => vec![IpAddr::from(*address)],
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => vec![IpAddr::from(*address)],
        RouteAttribute::MultiPath(hops) => hops.iter().flat_map(|hop| gateways(&hop.attributes)).collect(),
        _ => Vec::new(),
    };
    attributes.iter().flat_map(gateway).collect()
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// On a point-to-point link the plain address is the peer's, so the local one comes first.
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

/// A `local` route that the kernel did not make for an address of its own accord.
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

/// The destination of a route without a gateway.
fn connected(message: &RouteMessage) -> Option<IpNet> {
    let header = &message.header;
    let direct = header.kind == RouteType::Unicast
        && header.table == RouteHeader::RT_TABLE_MAIN
        && !message
            .attributes
            .iter()
            .any(|attribute| matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_)));
    let network = direct.then(|| destination(message)).flatten()?;
    // A default route through a link without gateway says nothing about who is on that link, and
    // link-local addresses are never routed.
    let useful = network.prefix_len() > 0
        && match network {
            IpNet::V4(network) => !network.network().is_link_local(),
            IpNet::V6(network) => {
                !network.network().is_unicast_link_local() && !network.network().is_multicast()
            }
        };
    useful.then_some(network)
}

fn destination(message: &RouteMessage) -> Option<IpNet> {
    let length = message.header.destination_prefix_length;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
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
    let is_bridge = |index: u32| {
        links.iter().filter(|link| link.header.index == index).any(|link| {
            link.attributes.iter().any(|attribute| match attribute {
                LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Bridge)),
                _ => false,
            })
        })
    };
    links
        .iter()
        .filter(|link| off(link))
        .filter_map(|link| {
            link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Controller(index) => Some(*index),
                _ => None,
            })
        })
        .filter(|index| is_bridge(*index))
        .filter_map(|index| names.get(&index).map(|name| (*name).to_owned()))
        .collect()
}
