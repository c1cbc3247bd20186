//! Traffic of all services, on a connection of its own: reading it holds up no change of the table.

use std::collections::BTreeMap;

use super::Error;
use super::table::protocol_of;
use crate::dataplane::state::ServiceKey;
use crate::dataplane::traffic::{ReadTraffic, Traffic};
use crate::netlink::batch::GenlConnection;
use crate::netlink::ipvs::traffic::ServiceTraffic;

/// Reader of the kernel's counters in the network namespace in which it was opened.
#[derive(Debug)]
pub struct TrafficReader(GenlConnection<ServiceTraffic>);

impl TrafficReader {
    /// Connects to the kernel's IPVS.
    ///
    /// # Errors
    /// As [`super::Ipvs::open`].
    pub fn open() -> Result<Self, Error> {
        Ok(Self(GenlConnection::open()?))
    }
}

impl ReadTraffic for TrafficReader {
    fn read(&mut self) -> Result<BTreeMap<ServiceKey, Traffic>, String> {
        let mut read = || {
            // The module may have been loaded anew since, with another family number.
            self.0.resolve()?;
            self.0.dump(&ServiceTraffic::default())
        };
        let services = read().map_err(|error| Error::from(error).to_string())?;
        // What cannot be decoded is not ours.
        let traffic = services.into_iter().flatten().filter_map(|service| {
            let (protocol, address, port) = service.place?;
            let key = ServiceKey { protocol: protocol_of(protocol)?, address, port };
            let ServiceTraffic { connections, in_packets, out_packets, in_bytes, out_bytes, .. } = service;
            Some((key, Traffic { connections, in_packets, out_packets, in_bytes, out_bytes }))
        });
        Ok(traffic.collect())
    }
}
