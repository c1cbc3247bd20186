//! Catalogs for the tests of this folder.

use super::settings::DnsSettings;
use super::zones::catalog::Catalog;
use crate::vip::alloc::AddressRange;

/// The zones of these settings, `mesos` among them if names of tasks are served, without any records.
pub fn catalog(settings: &DnsSettings) -> Catalog {
    settings.catalog(&[AddressRange::DCOS_V4, AddressRange::DCOS_V6], settings.tasks).unwrap()
}
