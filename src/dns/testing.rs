//! Catalogs for the tests of this folder: the zones that are served by default.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use super::zones::catalog::{Catalog, Layout};
use super::zones::vips::{DEFAULT_ORIGIN, DEFAULT_TTL, Zone};
use crate::vip::alloc::AddressRange;

static ALIASES: LazyLock<[String; 3]> = LazyLock::new(|| {
    ["dclb.thisdcos.directory", "l4lb.thisdcos.global", "dclb.thisdcos.global"].map(str::to_owned)
});

/// Address of the name server.
const LISTENERS: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))];

/// The default zones and the zone `mesos`.
pub fn layout() -> Layout<'static> {
    Layout {
        zone: DEFAULT_ORIGIN,
        aliases: &*ALIASES,
        tasks: true,
        mesos: true,
        ranges: &[AddressRange::DCOS_V4, AddressRange::DCOS_V6],
        ttl: DEFAULT_TTL,
        listeners: LISTENERS,
    }
}

/// A catalog without any records.
pub fn catalog(layout: &Layout<'_>) -> Catalog {
    Catalog::new(layout, Arc::new(Zone::new(layout.zone).unwrap())).unwrap()
}
