//! Figures of VIPs and backends for metrics, in pages between which a change has its turn.
//!
//! A page is made between passes from what the last one left, as a piece of a status is, and nothing is read for it.
//! It costs less than a millisecond. So metrics neither make a pass nor wait for one, but a long change of the
//! kernel, between whose parts they are answered as well.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::dataplane::connects::{Connects, ServiceConnects};
use crate::dataplane::traffic::Traffic;
use crate::dataplane::{Connections, ServiceKey};
use crate::plan::desired::Programmed;
use crate::status::document::{Figures, View, counts_of, first_of, name};
use crate::status::health::{VipHealth, vip_health};
use crate::vip::Tenants;

/// VIPs of a page.
pub const PAGE: usize = 1_000;

/// Question for the figures of VIPs.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The VIPs after a key, or the first ones; without their backends.
    After(Option<ServiceKey>),
    /// These VIPs, with their backends; at most [`PAGE`] of them.
    Backends(Arc<Vec<ServiceKey>>),
}

/// Figures of some VIPs.
#[derive(Clone, Debug, Default)]
pub struct FigurePage {
    pub vips: Vec<VipFigures>,
    /// Last key of the page, if more may follow.
    pub next: Option<ServiceKey>,
    /// Time of the reading that counted connections.
    pub read_at: Option<Timestamp>,
    /// Number of addresses that names have, of either family.
    pub leases: [usize; 2],
}

/// Figures of a VIP.
#[derive(Clone, Debug)]
pub struct VipFigures {
    pub key: ServiceKey,
    /// Name below the zone, for named VIPs.
    pub name: Option<String>,
    pub tenants: Tenants,
    /// Backends that get new connections.
    pub ready: usize,
    pub all: usize,
    pub health: VipHealth,
    pub connections: Connections,
    /// Connects by their outcome, if the plane sees it.
    pub connects: Option<ServiceConnects>,
    /// Empty unless they were wanted.
    pub backends: Vec<BackendFigures>,
}

/// Figures of a backend.
#[derive(Clone, Debug)]
pub struct BackendFigures {
    pub address: SocketAddr,
    pub weight: u32,
    pub connections: Connections,
    pub connects: Option<Connects>,
    /// Traffic, if the plane counts it, and the time at which it was read.
    pub traffic: Option<Traffic>,
    pub traffic_at: Option<Timestamp>,
}

impl View<'_> {
    /// Returns the figures of some VIPs.
    pub(crate) fn page(&self, wanted: &Wanted) -> FigurePage {
        let services = &self.plan.desired.services;
        let persisted = &self.planner.persisted;
        let leases = [persisted.leases4.len(), persisted.leases6.len()];
        let page = FigurePage { leases, ..FigurePage::default() };
        match wanted {
            Wanted::After(key) => {
                let figures = |(key, programmed): (_, &Arc<Programmed>)| self.figures(key, programmed, false);
                let vips: Vec<VipFigures> = match key {
                    None => services.iter().take(PAGE).map(figures).collect(),
                    Some(last) => {
                        let rest = services.iter_from(last).filter(|(key, _)| *key != last);
                        rest.take(PAGE).map(figures).collect()
                    }
                };
                // A short page is the last one; a full one may be, and then an empty page follows.
                let next = vips.last().filter(|_| vips.len() == PAGE).map(|vip| vip.key);
                FigurePage { vips, next, ..page }
            }
            Wanted::Backends(keys) => {
                // A client may ask for VIPs that have gone meanwhile.
                let known = keys.iter().take(PAGE).filter_map(|key| services.get_key_value(key));
                FigurePage {
                    vips: known.map(|(key, programmed)| self.figures(key, programmed, true)).collect(),
                    ..page
                }
            }
        }
    }

    fn figures(&self, key: &ServiceKey, programmed: &Programmed, has_backends: bool) -> VipFigures {
        let Figures { connections, seen, traffic } = match self.figures {
            Some(figures) => figures,
            None => return VipFigures::unknown(key, programmed),
        };
        // Both are in the order of keys, so that one walk finds the counts of all servers.
        let mut counted = connections.range(first_of(key)..).peekable();
        let mut vip = VipFigures::unknown(key, programmed);
        for ((address, member), count) in
            programmed.servers.iter().zip(counts_of(key, programmed, &mut counted))
        {
            vip.connections.active = vip.connections.active.saturating_add(count.active);
            vip.connections.inactive = vip.connections.inactive.saturating_add(count.inactive);
            if has_backends {
                let traffic = traffic.and_then(|traffic| traffic.get(key));
                vip.backends.push(BackendFigures {
                    address: *address,
                    weight: member.weight(),
                    connections: count,
                    connects: seen
                        .map(|seen| seen.servers.get(&(*key, *address)).copied().unwrap_or_default()),
                    traffic: traffic.and_then(|traffic| traffic.of(address)),
                    traffic_at: traffic.map(|traffic| traffic.at),
                });
            }
        }
        vip.connects = seen.map(|seen| seen.services.get(key).cloned().unwrap_or_default());
        vip
    }
}

impl VipFigures {
    /// Figures of a VIP of which the kernel told nothing.
    fn unknown(key: &ServiceKey, programmed: &Programmed) -> Self {
        let mut tenants = programmed.servers.values().map(|member| &member.tenants);
        let health = programmed.servers.values().map(|member| (member.weight(), Some(member.condition)));
        Self {
            key: *key,
            name: name(programmed).map(str::to_owned),
            // Of the first backend alone: a share is for the app that has the VIP.
            tenants: tenants.next().cloned().unwrap_or_default(),
            ready: programmed.servers.values().filter(|member| member.weight() > 0).count(),
            all: programmed.servers.len(),
            health: vip_health(health),
            connections: Connections::default(),
            connects: None,
            backends: Vec::new(),
        }
    }
}
