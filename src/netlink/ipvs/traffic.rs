//! Counters of services alone, for who asks for those of all services again and again.
//!
//! [`super::IpvsMessage`] decodes every attribute of a service, with a list and boxes of its own for each: 10,000
//! services take 20 ms and more. Here one walk takes what identifies a service and its counters, and allocates nothing.

use std::net::IpAddr;

use netlink_packet_core::{DecodeError, Emitable, NLA_TYPE_MASK, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use super::service::{self, address};
use super::stats::{Stats, Width};
use super::{IPVS_CMD_ATTR_SERVICE, IPVS_CMD_GET_SERVICE};
use crate::netlink::nla::{self, array};

/// Counters of a service by its protocol, address and port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTraffic {
    /// `None` in a request, and for services by firewall mark.
    pub place: Option<(u16, IpAddr, u16)>,
    /// Connections scheduled.
    pub connections: u64,
    pub in_packets: u64,
    pub out_packets: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
}

impl GenlFamily for ServiceTraffic {
    fn family_name() -> &'static str {
        super::FAMILY_NAME
    }

    /// The request for all services.
    fn command(&self) -> u8 {
        IPVS_CMD_GET_SERVICE
    }

    fn version(&self) -> u8 {
        super::FAMILY_VERSION
    }
}

/// The request has no attributes.
impl Emitable for ServiceTraffic {
    fn buffer_len(&self) -> usize {
        0
    }

    fn emit(&self, _: &mut [u8]) {}
}

impl ParseableParametrized<[u8], GenlHeader> for ServiceTraffic {
    fn parse_with_param(bytes: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let service = nla::find(bytes, IPVS_CMD_ATTR_SERVICE)?;
        let service = service.ok_or_else(|| DecodeError::from("no service in the message"))?;
        let (mut family, mut protocol, mut bytes_of_address, mut port) = (None, None, None, None);
        let (mut narrow, mut wide) = (None, None);
        for attribute in nla::split(service) {
            let (kind, value) = attribute?;
            match kind & NLA_TYPE_MASK {
                service::IPVS_SVC_ATTR_AF => family = Some(u16::from_ne_bytes(array(value)?)),
                service::IPVS_SVC_ATTR_PROTOCOL => protocol = Some(u16::from_ne_bytes(array(value)?)),
                service::IPVS_SVC_ATTR_ADDR => bytes_of_address = Some(array(value)?),
                service::IPVS_SVC_ATTR_PORT => port = Some(u16::from_be_bytes(array(value)?)),
                service::IPVS_SVC_ATTR_STATS => narrow = Some(value),
                service::IPVS_SVC_ATTR_STATS64 => wide = Some(value),
                _ => {}
            }
        }
        let place = (|| Some((protocol?, address(family?, bytes_of_address?)?, port?)))();
        // Kernels before 4.1 have the narrow ones alone.
        let stats = match (wide, narrow) {
            (Some(wide), _) => Stats::read(wide, Width::Wide)?,
            (None, Some(narrow)) => Stats::read(narrow, Width::Mixed)?,
            (None, None) => Stats::default(),
        };
        let Stats { connections, in_packets, out_packets, in_bytes, out_bytes, .. } = stats;
        Ok(Self { place, connections, in_packets, out_packets, in_bytes, out_bytes })
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::super::{IpvsCommand, IpvsMessage, ServiceAttribute};
    use super::*;

    #[test]
    fn counters_are_those_of_the_whole_message() {
        let stats = Stats {
            connections: 5,
            in_packets: 1 << 40,
            out_packets: 3,
            in_bytes: 1 << 41,
            out_bytes: 9,
            ..Stats::default()
        };
        let service = |stats: ServiceAttribute| {
            IpvsMessage::with_service(
                IpvsCommand::NewService,
                vec![
                    ServiceAttribute::Family(super::super::AF_INET),
                    ServiceAttribute::Protocol(service::PROTOCOL_UDP),
                    ServiceAttribute::Address(service::address_bytes([11, 0, 0, 1].into())),
                    ServiceAttribute::Port(53),
                    ServiceAttribute::Scheduler("wlc".to_owned()),
                    stats,
                ],
            )
        };
        let header = GenlHeader { cmd: 1, version: 1 };
        for (message, packets) in [
            (service(ServiceAttribute::Stats64(Box::new(stats.clone()))), 1 << 40),
            // A number that is too large for 32 bits is the largest.
            (service(ServiceAttribute::Stats(Box::new(stats.clone()))), u64::from(u32::MAX)),
        ] {
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            let traffic = ServiceTraffic::parse_with_param(&bytes, header).unwrap();
            assert_eq!(traffic.place, Some((service::PROTOCOL_UDP, [11, 0, 0, 1].into(), 53)));
            assert_eq!((traffic.connections, traffic.in_packets, traffic.in_bytes), (5, packets, 1 << 41));
            assert_eq!((traffic.out_packets, traffic.out_bytes), (3, 9));
        }
        assert!(ServiceTraffic::parse_with_param(&[], header).is_err());
    }
}
