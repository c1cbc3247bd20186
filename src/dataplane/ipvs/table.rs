//! Decoder of the kernel's dumps: our services, foreign ones, and real servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use netlink_packet_core::DecodeError;

use crate::cluster::{Protocol, SharedMap};
use crate::netlink::ipvs::{
    AF_INET, AF_INET6, DestinationAttribute, IpvsMessage, ServiceAttribute, Stats, destination, service,
};

use crate::dataplane::state::{
    Connections, Foreign, Forwarding, RealServer, Scheduling, Service, ServiceKey,
};
use crate::dataplane::traffic::{ServerTraffic, Traffic};

/// Timeout, in seconds, that marks a service as ours.
pub const OWNER_TAG: u32 = 19508;

/// One reading of the kernel's services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpvsTable {
    /// The services that are ours.
    pub services: SharedMap<ServiceKey, Arc<Service>>,
    /// All other services, sorted.
    pub foreign: Vec<Foreign>,
    /// Connections of every real server of ours.
    pub connections: BTreeMap<(ServiceKey, SocketAddr), Connections>,
    /// Their traffic, as each service was last looked at.
    pub traffic: ServerTraffic,
}

/// A real server with its address, connections and traffic.
pub(super) type ShownServer = (SocketAddr, RealServer, Connections, Traffic);

/// A service in a list, by its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DumpedService {
    Ours(ServiceKey, Scheduling),
    Foreign(Foreign),
}

/// Attributes of a service that tell identity, owner and scheduling.
#[derive(Default)]
struct Raw<'a> {
    family: Option<u16>,
    protocol: Option<u16>,
    address: Option<[u8; 16]>,
    port: Option<u16>,
    mark: u32,
    scheduler: &'a str,
    flags: u32,
    timeout: u32,
}

impl DumpedService {
    /// Sorts a reply by owner. A service that can't be decoded or understood is not ours.
    pub(super) fn from_reply(reply: Result<IpvsMessage, DecodeError>) -> Self {
        match &reply {
            Ok(message) => match message.service() {
                Some(attributes) => Self::from_attributes(attributes),
                None => Self::unintelligible("no service in the message"),
            },
            Err(error) => Self::unintelligible(error),
        }
    }

    fn from_attributes(attributes: &[ServiceAttribute]) -> Self {
        let raw = Raw::new(attributes);
        // We make no services by firewall mark. They have no address.
        if raw.mark != 0 {
            let family = if raw.family == Some(AF_INET6) { " IPv6" } else { "" };
            let text = format!("fwmark {}{family}", raw.mark);
            return Self::Foreign(Foreign { service: text, key: None });
        }
        let (Some(protocol), Some(address)) = (raw.protocol, raw.address()) else {
            return Self::unintelligible("no protocol, address or port");
        };
        // SCTP and the like have no key, because no VIP of ours can want it.
        let name = protocol_name(protocol);
        let key = protocol_of(protocol).map(|protocol| ServiceKey {
            protocol,
            address: address.ip(),
            port: address.port(),
        });
        match key {
            // In a persistent service the timeout has a meaning of its own, and so is no mark.
            Some(key) if raw.flags & service::FLAG_PERSISTENT == 0 && raw.timeout == OWNER_TAG => {
                // The kernel's own bit is no part of what was asked for.
                let flags = raw.flags & !service::FLAG_HASHED;
                Self::Ours(key, Scheduling { scheduler: raw.scheduler.to_owned(), flags })
            }
            _ => {
                let text = format!("{} {address}", name.to_ascii_lowercase());
                Self::Foreign(Foreign { service: text, key })
            }
        }
    }

    fn unintelligible(why: impl std::fmt::Display) -> Self {
        Self::Foreign(Foreign { service: format!("unintelligible ({why})"), key: None })
    }
}

/// Decodes a real server of `key` in a dump; `None` if the reply is not about one.
pub(super) fn server(key: ServiceKey, reply: Result<IpvsMessage, DecodeError>) -> Option<ShownServer> {
    let message = reply.ok()?;
    // Before Linux 3.18 servers have no family of their own.
    let mut family = service::family(key.address);
    let (mut address, mut port) = (None, None);
    let mut server = RealServer::masquerade(0);
    let mut connections = Connections::default();
    let (mut narrow, mut wide) = (None, None);
    for attribute in message.destination()? {
        match attribute {
            DestinationAttribute::Family(value) => family = *value,
            DestinationAttribute::Address(value) => address = Some(*value),
            DestinationAttribute::Port(value) => port = Some(*value),
            DestinationAttribute::ForwardMethod(value) => server.forwarding = forwarding(*value),
            DestinationAttribute::Weight(value) => server.weight = *value,
            DestinationAttribute::UpperThreshold(value) => server.upper_threshold = *value,
            DestinationAttribute::LowerThreshold(value) => server.lower_threshold = *value,
            DestinationAttribute::ActiveConnections(value) => connections.active = *value,
            DestinationAttribute::InactiveConnections(value) => connections.inactive = *value,
            DestinationAttribute::Stats(value) => narrow = Some(value),
            DestinationAttribute::Stats64(value) => wide = Some(value),
            _ => {}
        }
    }
    let address = service::address(family, address?)?;
    // Kernels before 4.1 have the narrow ones alone.
    let traffic = wide.or(narrow).map(|stats| traffic(stats)).unwrap_or_default();
    Some((SocketAddr::new(address, port?), server, connections, traffic))
}

fn traffic(stats: &Stats) -> Traffic {
    let Stats { connections, in_packets, out_packets, in_bytes, out_bytes, .. } = *stats;
    Traffic { connections, in_packets, out_packets, in_bytes, out_bytes }
}

/// Returns the forwarding method of a number (`IP_VS_CONN_F_*`).
pub(super) const fn forwarding(method: u32) -> Forwarding {
    match method {
        destination::FORWARD_MASQUERADE => Forwarding::Masquerade,
        destination::FORWARD_LOCAL => Forwarding::Local,
        destination::FORWARD_TUNNEL => Forwarding::Tunnel,
        destination::FORWARD_ROUTE => Forwarding::Route,
        other => Forwarding::Other(other),
    }
}

impl<'a> Raw<'a> {
    fn new(attributes: &'a [ServiceAttribute]) -> Self {
        let mut raw = Self::default();
        for attribute in attributes {
            match attribute {
                ServiceAttribute::Family(value) => raw.family = Some(*value),
                ServiceAttribute::Protocol(value) => raw.protocol = Some(*value),
                ServiceAttribute::Address(value) => raw.address = Some(*value),
                ServiceAttribute::Port(value) => raw.port = Some(*value),
                ServiceAttribute::FirewallMark(value) => raw.mark = *value,
                ServiceAttribute::Scheduler(value) => raw.scheduler = value,
                ServiceAttribute::Flags(value) => raw.flags = value.flags,
                ServiceAttribute::Timeout(value) => raw.timeout = *value,
                _ => {}
            }
        }
        raw
    }

    fn address(&self) -> Option<SocketAddr> {
        let address = service::address(self.family.unwrap_or(AF_INET), self.address?)?;
        Some(SocketAddr::new(address, self.port?))
    }
}

pub(super) fn protocol_of(number: u16) -> Option<Protocol> {
    match number {
        service::PROTOCOL_TCP => Some(Protocol::Tcp),
        service::PROTOCOL_UDP => Some(Protocol::Udp),
        _ => None,
    }
}

/// The kernel's name of a protocol (`ip_vs_proto_name` in `net/netfilter/ipvs/ip_vs_core.c`).
fn protocol_name(number: u16) -> String {
    match number {
        service::PROTOCOL_TCP => "TCP".to_owned(),
        service::PROTOCOL_UDP => "UDP".to_owned(),
        service::PROTOCOL_SCTP => "SCTP".to_owned(),
        other => format!("IP_{other}"),
    }
}
