//! Our own link with its addresses and routes, written and read through rtnetlink, and the node's
//! network around it.
//!
//! What the kernel's messages mean is worked out in [`super::inventory`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_core::ErrorMessage;
use netlink_packet_route::address::{AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::{AddressMessageBuilder, Handle, LinkBridge, LinkDummy, LinkUnspec, RouteMessageBuilder};

use super::inventory::{Inventory, RT_TABLE_LOCAL, Surroundings};
use crate::dataplane::{Op, Route};

/// An address of each family that no node has (RFC 5737, RFC 3849), to ask the kernel for the source
/// address that it uses towards the rest of the world.
const OUTSIDE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The discard port.
const DISCARD: u16 = 9;

/// Reasons why rtnetlink could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    #[error("{0}")]
    Netlink(#[from] rtnetlink::Error),
}

/// Complete dumps of one reading.
struct Dumps {
    links: Vec<LinkMessage>,
    addresses: Vec<AddressMessage>,
    routes: Vec<RouteMessage>,
}

/// A netlink socket, and the name of our link.
pub struct Routing {
    handle: Handle,
    link: String,
}

impl Routing {
    /// Opens a socket in the current network namespace. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open(link: &str) -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle, link: link.to_owned() })
    }

    /// Reads all links, addresses and routes once.
    ///
    /// # Errors
    /// When the kernel does not answer, or not in full.
    pub async fn read(&self) -> Result<Inventory, Error> {
        Ok(self.interpreted(&self.dump().await?))
    }

    /// Reads the same, with what else the links and routes say of the node.
    ///
    /// # Errors
    /// When the kernel does not answer, or not in full.
    pub async fn survey(&self) -> Result<(Inventory, Surroundings), Error> {
        let dumps = self.dump().await?;
        let surroundings = Surroundings::new(&self.link, &dumps.links, &dumps.routes);
        Ok((self.interpreted(&dumps), surroundings))
    }

    async fn dump(&self) -> Result<Dumps, Error> {
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await?;
        let addresses: Vec<AddressMessage> = self.handle.address().get().execute().try_collect().await?;
        let mut routes: Vec<RouteMessage> = Vec::new();
        // One request for each family: the kernel dumps routes of one at a time.
        for message in
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            routes.extend(self.handle.route().get(message).execute().try_collect::<Vec<_>>().await?);
        }
        Ok(Dumps { links, addresses, routes })
    }

    fn interpreted(&self, Dumps { links, addresses, routes }: &Dumps) -> Inventory {
        let mut inventory = Inventory::new(&self.link, links, addresses, routes);
        let node = &mut inventory.node;
        // Rules and source routing can make it another one than that of the default route's link.
        let asked = preferred_source((OUTSIDE4, DISCARD).into());
        node.default_source4 = node.default_source(asked, true);
        let asked = preferred_source((OUTSIDE6, DISCARD).into());
        node.default_source6 = node.default_source(asked, false);
        inventory
    }

    /// Carries out an operation on our link, its addresses or its routes; does nothing for any other kind.
    ///
    /// # Errors
    /// The kernel's answer, or a link that does not exist.
    pub async fn apply(&self, op: &Op) -> Result<(), Error> {
        match op {
            Op::AddLink => {
                let dummy = self.handle.link().add(LinkDummy::new(&self.link).build()).execute().await;
                // Where the kernel lacks the dummy module, a bridge without ports does the same.
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
                let mut request = self.handle.address().add(index, *address, length);
                // No other node is on this link. A bridge without ports would never come to an end of asking,
                // and the address of no use until then.
                if address.is_ipv6() {
                    request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
                }
                request.execute().await?;
            }
            Op::DelAddress(address) => {
                let message = self.address(*address).await?;
                self.handle.address().del(message).execute().await?;
            }
            Op::AddLocalRoute(address) => {
                // As in the route that the kernel makes, which has a source for IPv4 alone.
                let source = Some(*address).filter(IpAddr::is_ipv4);
                let mut message = self.route(&Route { destination: (*address).into(), source }).await?;
                // As the kernel makes it, which takes it away with the address.
                message.header.protocol = RouteProtocol::Kernel;
                self.handle.route().add(message).replace().execute().await?;
            }
            // Replacing makes a change of the preferred source one atomic step, without a moment in which
            // the route is missing.
            Op::AddRoute(route) => {
                self.handle.route().add(self.route(route).await?).replace().execute().await?;
            }
            Op::DelRoute(route) => {
                let mut message = self.route(route).await?;
                // Of whatever program: the kernel finds no route of another one if this names us.
                message.header.protocol = RouteProtocol::Unspec;
                self.handle.route().del(message).execute().await?;
            }
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
                    // The kernel refuses a local route of a wider scope.
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
/// without sending anything.
fn preferred_source(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_is_inside_itself() {
        let node = Routing::open("no-such-link").unwrap().read().await.unwrap().node;
        for source in [node.default_source4, node.default_source6].into_iter().flatten() {
            assert!(node.inside.contains(&IpNet::from(source)), "{source} is not in {:?}", node.inside);
        }
        assert!(!node.inside.iter().any(|network| network.contains(&IpAddr::from(OUTSIDE4))));
    }
}
