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

/// The chosen VIPs, and those that there were to choose from.
#[derive(Debug, Default)]
pub struct Choice {
    /// Keys in their order.
    pub chosen: Vec<ServiceKey>,
    known: Vec<(ServiceKey, Tenants)>,
}

impl Choice {
    /// Chooses at most `room` of these VIPs, which are in the order of their keys.
    pub fn new(vips: &[VipFigures], room: usize) -> Self {
        let tenants: Vec<&Tenants> = vips.iter().map(|vip| &vip.tenants).collect();
        let admitted = divide(&tenants, room).admitted;
        let chosen = vips.iter().zip(admitted).filter(|(_, is_admitted)| *is_admitted);
        Self {
            chosen: chosen.map(|(vip, _)| vip.key).collect(),
            known: vips.iter().map(|vip| (vip.key, vip.tenants.clone())).collect(),
        }
    }

    /// Returns true if it is the choice among these VIPs. That costs a tenth of choosing anew.
    pub fn is_of(&self, vips: &[VipFigures]) -> bool {
        let known = self.known.iter().map(|(key, tenants)| (key, tenants));
        known.eq(vips.iter().map(|vip| (&vip.key, &vip.tenants)))
    }
}
