//! What of the configuration the checks go by.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::dataplane::PlaneKind;
use crate::dataplane::kernel::{KernelOptions, capabilities};
use crate::source;
use crate::vip::alloc::AddressRange;

/// Settings of the checks.
#[derive(Clone, Debug)]
pub struct DoctorSettings {
    pub kernel: KernelOptions,
    /// Ranges of named VIPs, IPv4 and IPv6.
    pub ranges: [AddressRange; 2],
    /// Scheduler of virtual services.
    pub scheduler: String,
    /// Addresses of the DNS server.
    pub listen: Vec<SocketAddr>,
    /// True if names in none of the zones are forwarded rather than refused.
    pub forwards: bool,
    /// Socket of the daemon.
    pub socket: PathBuf,
    pub source: source::settings::Source,
    pub marathon: source::settings::Marathon,
    /// Addresses that the daemon depends on, with what each is.
    pub infrastructure: BTreeMap<IpAddr, &'static str>,
}

impl DoctorSettings {
    /// Returns the networks of named VIPs.
    pub fn networks(&self) -> Vec<IpNet> {
        self.ranges.iter().flat_map(AddressRange::networks).collect()
    }

    /// Returns the networks of VIPs of one family as a command names them; the largest one if there are many.
    pub fn range_of(&self, ipv4: bool) -> String {
        let networks = self.networks().into_iter().filter(|network| network.addr().is_ipv4() == ipv4);
        networks.min_by_key(IpNet::prefix_len).map(|network| network.to_string()).unwrap_or_default()
    }

    /// Returns true if packets to VIPs pass the network stack with this plane.
    pub fn has_packets(&self, plane: PlaneKind) -> bool {
        capabilities(plane).packets
    }
}
