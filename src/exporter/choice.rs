//! Choice of the VIPs whose backends have metrics of their own.
//!
//! Every backend is some lines of text, and apps decide how many there are. So at most a configured number of VIPs
//! have them. Pure and stable: the same VIPs give the same choice, in fair shares among frameworks and their apps
//! ([`crate::plan::shares`]), and of one app the VIPs with the lowest protocol, address and port. Addresses of VIPs
//! rarely change, so that a VIP that comes or goes changes the choice of few others.

use crate::dataplane::ServiceKey;
use crate::plan::shares::divide;
use crate::reconcile::figures::VipFigures;
use crate::vip::Tenants;

/// Returns the keys of at most `room` VIPs, in the order of `vips`.
pub fn choose(vips: &[VipFigures], room: usize) -> Vec<ServiceKey> {
    let tenants: Vec<&Tenants> = vips.iter().map(|vip| &vip.tenants).collect();
    let admitted = divide(&tenants, room).admitted;
    vips.iter().zip(admitted).filter(|(_, is_admitted)| *is_admitted).map(|(vip, _)| vip.key).collect()
}
