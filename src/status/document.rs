//! The status document as it is sent: piece by piece, from where its parts are.
//!
//! 10,000 VIPs with 5 backends each are 12 MB of JSON. So VIPs are kept neither as a list nor as text: a piece has
//! as many of them as fit, and the next one is made when the client has taken it. Between pieces the daemon goes on
//! with its work. A document lists the VIPs that there were when it was begun, each as it is when its turn comes; one
//! that has gone by then is left out.
//!
//! ```text
//! Document::begin ─► text: {"version":...,"vips":[{...},{...}    rest: other VIPs, {"skipped":...}
//! Rest::go_on     ─► text: ,{...},{...}],"skipped":...}          rest: None
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;

use super::health::{VipHealth, vip_health};
use super::{Backend, BackendTraffic, Share, Status, Vip};
use crate::cluster::Protocol;
use crate::cluster::dns_label::fragment;
use crate::dataplane::connects::Seen;
use crate::dataplane::traffic::{ServerTraffic, Traffic};
use crate::dataplane::{Actual, Connections, ServerKey, ServiceKey};
use crate::plan::desired::Programmed;
use crate::plan::{Plan, Planner};
use crate::units::steady::shown;
use crate::vip::asked::asked;
use crate::vip::pattern::VipPattern;
use crate::vip::{self, Host, Tenant, VipKey};

/// Bytes from which a piece is long enough. Making one takes about a millisecond, in which nothing else happens.
const PIECE: usize = 512 * 1024;

/// Mark in a document without VIPs of the place where they belong. No text in it can be mistaken for it, because
/// quotes within text are escaped.
const PLACE: &str = "\"vips\":[]";

/// Bytes of the mark that come before the VIPs.
const OPENING: usize = PLACE.len() - 1;

/// Everything that VIPs are shown from.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub plan: &'a Plan,
    pub planner: &'a Planner,
    /// `None` where no kernel was asked.
    pub figures: Option<Figures<'a>>,
    /// Zone of the VIPs' names.
    pub origin: &'a str,
    /// Scheduler of a plane that has only one.
    pub own_scheduler: Option<&'static str>,
    /// Readings of the steady and of the system's clock at one moment.
    pub clocks: (Timestamp, Timestamp),
}

/// Figures of a reading of the kernel.
#[derive(Clone, Copy)]
pub struct Figures<'a> {
    pub connections: &'a BTreeMap<ServerKey, Connections>,
    /// What became of connects, if the kernel tells.
    pub seen: Option<&'a Seen>,
    /// Traffic of servers, if the kernel counts it.
    pub traffic: Option<&'a ServerTraffic>,
}

impl<'a> Figures<'a> {
    /// Returns the figures of a reading.
    pub fn of(actual: &'a Actual) -> Self {
        let Actual { connections, seen, traffic, .. } = actual;
        Self { connections, seen: seen.as_ref(), traffic: Some(traffic) }
    }
}

/// A piece of a document, and how to make the next one.
#[derive(Debug)]
pub struct Document {
    pub text: Vec<u8>,
    /// `None` after the last piece.
    pub rest: Option<Rest>,
}

/// Part of a document that is still to be made.
#[derive(Debug)]
pub struct Rest {
    selection: Selection,
    /// Number of VIPs that had their turn.
    done: usize,
    /// Set while no VIP has been written.
    is_first: bool,
    /// Text after the VIPs.
    end: Vec<u8>,
}

/// VIPs to be listed, in their order, with the connections of their servers.
#[derive(Debug)]
pub struct Selection {
    /// Keys, each with the place of its first server's connections.
    keys: Vec<(ServiceKey, usize)>,
    /// Connections in the order of the servers; to look for each server by its address would take as long as all
    /// the rest of a document.
    counts: Vec<Connections>,
    /// Revision of the plan whose servers these are.
    revision: u64,
}

impl Document {
    /// Writes a status with the selected VIPs.
    ///
    /// # Errors
    /// When something cannot be written as JSON.
    pub fn begin(status: &Status, selection: Selection, view: View<'_>) -> serde_json::Result<Self> {
        let mut text = serde_json::to_vec(status)?;
        let place = memchr::memmem::find(&text, PLACE.as_bytes()).map_or(text.len(), |place| place + OPENING);
        let end = text.split_off(place);
        Rest { selection, done: 0, is_first: true, end }.continued(text, view)
    }
}

impl Rest {
    /// Writes the next piece.
    ///
    /// # Errors
    /// When something cannot be written as JSON.
    pub fn go_on(self, view: View<'_>) -> serde_json::Result<Document> {
        self.continued(Vec::new(), view)
    }

    fn continued(mut self, mut text: Vec<u8>, view: View<'_>) -> serde_json::Result<Document> {
        let Selection { keys, counts, revision } = &self.selection;
        let is_same_plan = *revision == view.plan.revision;
        let mut keys = keys.iter().skip(self.done);
        let is_last = loop {
            if text.len() >= PIECE {
                break false;
            }
            let Some((key, first)) = keys.next() else { break true };
            self.done += 1;
            let Some(programmed) = view.plan.desired.services.get(key) else { continue };
            if !std::mem::take(&mut self.is_first) {
                text.push(b',');
            }
            // Counts of another plan may be those of other servers.
            let known = counts.get(*first..first + programmed.servers.len()).filter(|_| is_same_plan);
            let vip = match known {
                Some(counts) => view.vip(key, programmed, counts),
                None => view.vip(key, programmed, &view.counts(key, programmed)),
            };
            serde_json::to_writer(&mut text, &vip)?;
        };
        if is_last {
            text.append(&mut self.end);
        }
        Ok(Document { text, rest: (!is_last).then_some(self) })
    }
}

/// Wishes which VIPs a status lists; all of them count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VipFilter {
    /// Name, pattern or address of VIPs, or id of a task, as in [`View::find`].
    pub vip: Option<String>,
    /// Set for VIPs of which a backend takes no new connections although it should.
    pub unhealthy: bool,
    /// Id, name or address of an agent that has a backend.
    pub agent: Option<String>,
    /// Name or id of a framework that has a backend, or whose name the VIP has.
    pub framework: Option<String>,
}

impl<'a> View<'a> {
    /// Selects the VIPs that are asked for.
    pub fn select(&self, wanted: &VipFilter) -> Selection {
        let services = &self.plan.desired.services;
        if *wanted == VipFilter::default() {
            return self.selection(services.iter());
        }
        let agents = wanted.agent.as_deref().map(|agent| self.planner.agents(agent));
        let zone = wanted.framework.as_deref().map(|framework| format!(".{}", fragment(framework)));
        let is_wanted = |(_, programmed): &(&ServiceKey, &Arc<Programmed>)| {
            let mut members = programmed.servers.values();
            let is_unhealthy = || {
                let backends = programmed.servers.values();
                let backends = backends.map(|member| (member.weight(), Some(member.condition)));
                vip_health(backends) != VipHealth::Fine
            };
            let is_framework = |framework: &str, zone: &str| {
                let is_of = |tenant: &Tenant| tenant.name == framework || *tenant.framework == *framework;
                name(programmed).is_some_and(|name| name.ends_with(zone))
                    || programmed.servers.values().any(|member| member.tenants.iter().any(is_of))
            };
            (!wanted.unhealthy || is_unhealthy())
                && agents.as_ref().is_none_or(|agents| members.any(|member| agents.contains(&*member.agent)))
                && wanted
                    .framework
                    .as_deref()
                    .zip(zone.as_deref())
                    .is_none_or(|(framework, zone)| is_framework(framework, zone))
        };
        match &wanted.vip {
            None => self.selection(services.iter().filter(is_wanted)),
            Some(vip) => {
                let found = self.find(vip);
                let found = found.iter().filter_map(|key| services.get_key_value(key));
                self.selection(found.filter(is_wanted))
            }
        }
    }

    /// Returns a selection of `services`, which come in the order of their keys.
    fn selection<'p>(
        &self,
        services: impl Iterator<Item = (&'p ServiceKey, &'p Arc<Programmed>)>,
    ) -> Selection {
        let mut named = Vec::new();
        let mut counts = Vec::new();
        let mut counted = self.figures.map(|figures| figures.connections.range(..).peekable());
        for (key, programmed) in services {
            named.push((name(programmed), (*key, counts.len())));
            if let (Some(counted), Some(all)) =
                (&mut counted, self.figures.map(|figures| figures.connections))
            {
                // Both are in the same order, so that a place has to be looked for after a gap only.
                if counted.peek().is_none_or(|((next, _), _)| next != key) {
                    *counted = all.range(first_of(key)..).peekable();
                }
                counts.extend(counts_of(key, programmed, counted));
                while counted.next_if(|((next, _), _)| next == key).is_some() {}
            }
        }
        // By name as people look for it.
        named.sort_unstable_by(|(a, (x, _)), (b, (y, _))| {
            (a, x.port, x.protocol, x.address).cmp(&(b, y.port, y.protocol, y.address))
        });
        let keys = named.into_iter().map(|(_, key)| key).collect();
        Selection { keys, counts, revision: self.plan.revision }
    }

    /// Returns the connections of a VIP's servers in the order of these; none where no kernel was asked.
    fn counts(&self, key: &ServiceKey, programmed: &Programmed) -> Vec<Connections> {
        let counted = self.figures.map(|figures| figures.connections.range(first_of(key)..).peekable());
        counted.map(|mut counted| counts_of(key, programmed, &mut counted).collect()).unwrap_or_default()
    }

    /// Returns the keys of the VIPs of a pattern, or of the task with that id, in their order. A name or address is
    /// looked up; a pattern with `*` or `?` is compared with all of them.
    pub fn find(&self, wanted: &str) -> Vec<ServiceKey> {
        let pattern = VipPattern::parse(wanted, self.origin);
        let services = &self.plan.desired.services;
        if pattern.is_glob() {
            let of_pattern = services.iter().filter(|(_, programmed)| pattern.is_of(&programmed.vip));
            return of_pattern.map(|(key, _)| *key).collect();
        }
        let found = self.at(self.addresses(&pattern), pattern.port);
        if found.is_empty() { self.of_task(wanted) } else { found }
    }

    /// Returns the keys of the VIPs that a task asks for.
    fn of_task(&self, id: &str) -> Vec<ServiceKey> {
        let asked = self.planner.tasks(id).flat_map(|(task, framework)| asked(task, framework));
        let found = asked.flat_map(|key| {
            let pattern = VipPattern { host: host(&key), port: Some(key.port) };
            self.at(self.addresses(&pattern), pattern.port)
        });
        found.collect::<BTreeSet<ServiceKey>>().into_iter().collect()
    }

    /// Returns the addresses of a name, or the address that the pattern is.
    fn addresses(&self, pattern: &VipPattern) -> Vec<IpAddr> {
        if let Some(address) = pattern.address() {
            return vec![address];
        }
        let leases = [&self.planner.persisted.leases4, &self.planner.persisted.leases6];
        leases.iter().filter_map(|leases| leases.get(&pattern.host)).collect()
    }

    fn at(&self, addresses: Vec<IpAddr>, port: Option<u16>) -> Vec<ServiceKey> {
        let services = &self.plan.desired.services;
        let protocols = [Protocol::Tcp, Protocol::Udp];
        let places =
            protocols.into_iter().flat_map(|protocol| addresses.iter().map(move |ip| (protocol, *ip)));
        let found: BTreeSet<ServiceKey> = places
            .flat_map(|(protocol, address)| {
                let key = |port| ServiceKey { protocol, address, port };
                let (first, last) = (key(port.unwrap_or(0)), key(port.unwrap_or(u16::MAX)));
                let keys = services.iter_from(&first).map(|(key, _)| *key);
                keys.take_while(move |key| *key <= last)
            })
            .collect();
        found.into_iter().collect()
    }

    /// Returns a VIP, with text of its own.
    pub(super) fn owned(&self, key: &ServiceKey, programmed: &Programmed) -> Vip {
        self.vip(key, programmed, &self.counts(key, programmed)).into_owned()
    }

    /// Returns all VIPs, with text of their own.
    pub fn vips(&self) -> Vec<Vip> {
        let services = &self.plan.desired.services;
        let vip = |(key, _): &(ServiceKey, usize)| {
            let programmed = services.get(key)?;
            Some(self.owned(key, programmed))
        };
        self.select(&VipFilter::default()).keys.iter().filter_map(vip).collect()
    }

    /// Returns a VIP, with the connections of its servers in their order.
    fn vip<'p>(
        &self,
        key: &ServiceKey,
        programmed: &'p Programmed,
        counts: &[Connections],
    ) -> Vip<Cow<'p, str>>
    where
        'a: 'p,
    {
        let (steady, now) = self.clocks;
        let mut counts = counts.iter().copied();
        let seen = self.figures.and_then(|figures| figures.seen);
        let traffic = self.figures.and_then(|figures| figures.traffic?.get(key));
        let traffic_of = |address: &SocketAddr| {
            let of_service = traffic?;
            let traffic = of_service.of(address).filter(|traffic| *traffic != Traffic::default())?;
            Some(BackendTraffic { traffic, at: of_service.at })
        };
        let all = programmed.uneven_total();
        let backend = |(address, backend): (&SocketAddr, &'p vip::Backend)| Backend {
            address: address.ip(),
            port: address.port(),
            weight: backend.weight(),
            condition: Some(backend.condition),
            until: self.planner.deadline(key, address).map(|until| shown(until, steady, now)),
            task: Cow::Borrowed(&*backend.task),
            agent: Cow::Borrowed(&*backend.agent),
            connections: counts.next(),
            connects: seen.and_then(|seen| seen.servers.get(&(*key, *address)).copied()),
            ejected: seen.and_then(|seen| seen.ejected.get(&(*key, *address)).copied()),
            traffic: traffic_of(address),
            share: share(self.planner, programmed, (address, backend), all),
        };
        let backends = programmed.servers.iter().map(backend).collect();
        // A scheduler is shown where it differs, so that a column for all of them is not needed.
        let usual = self.own_scheduler.unwrap_or(&self.planner.settings.desired.scheduler);
        let scheduler = programmed.scheduling.scheduler.as_str();
        Vip {
            name: name(programmed).map(|name| Cow::Owned(format!("{name}.{}", self.origin))),
            protocol: key.protocol,
            address: key.address,
            port: key.port,
            scheduler: (scheduler != usual).then_some(Cow::Borrowed(scheduler)),
            connects: seen.and_then(|seen| seen.services.get(key).cloned()),
            no_ejection: self.own_scheduler.is_some() && programmed.scheduling.flags != 0,
            backends,
        }
    }
}

/// Returns the share of a backend, whose weight in the kernel is part of `all`; `None` where all are equal.
fn share(
    planner: &Planner,
    programmed: &Programmed,
    (address, backend): (&SocketAddr, &vip::Backend),
    all: Option<u32>,
) -> Option<Share> {
    // Without weights there is still something to say of a backend that its label keeps from connections.
    if all.is_none() && backend.label_weight > 0 {
        return None;
    }
    let kernel_weight = programmed.weight_of(address, backend);
    let percent = f64::from(kernel_weight) / f64::from(all.unwrap_or(0).max(1)) * 100.0;
    Some(Share {
        percent: (percent * 10.0).round() / 10.0,
        kernel_weight,
        label_weight: backend.label_weight,
        warm_percent: planner.warm_percent(&programmed.vip, backend),
    })
}

/// Returns what comes before all servers of a service.
pub fn first_of(key: &ServiceKey) -> ServerKey {
    (*key, SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))
}

/// Returns the connections of a VIP's servers in their order, from `counted`, which is at the first of them.
pub fn counts_of<'c>(
    key: &ServiceKey,
    programmed: &Programmed,
    counted: &mut Peekable<impl Iterator<Item = (&'c ServerKey, &'c Connections)>>,
) -> impl Iterator<Item = Connections> {
    programmed.servers.keys().map(move |address| {
        let server = (*key, *address);
        while counted.next_if(|(known, _)| **known < server).is_some() {}
        // A server that was just added has none.
        counted.next_if(|(known, _)| **known == server).map(|(_, count)| *count).unwrap_or_default()
    })
}

/// Returns the name of a VIP below the zone; `None` for one that is an address.
pub fn name(programmed: &Programmed) -> Option<&str> {
    match &programmed.vip.host {
        Host::Named(name) => Some(name),
        Host::Literal(_) => None,
    }
}

/// Returns the host of a VIP in words.
fn host(key: &VipKey) -> String {
    match &key.host {
        Host::Named(name) => name.clone(),
        Host::Literal(address) => address.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
