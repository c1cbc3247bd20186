//! The status document as it is sent: piece by piece, from where its parts are.
//!
//! 10,000 VIPs with 5 backends each are 12 MB of JSON. So VIPs are kept neither as a list nor as text: a piece has
//! as many of them as fit, and the next one is made when the client has taken it. Between pieces the daemon goes on
//! with its work. A document lists the VIPs that there were when it was begun, each as it is when its turn comes; one
//! that has gone by then is left out.
//!
//! ```text
//! Document::begin ─► text: {"version":...,"vips":[{...},{...}    rest: keys of VIPs, {"skipped":...}
//! Rest::go_on     ─► text: ,{...},{...}],"skipped":...}          rest: None
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;

use super::{Backend, Status, Vip};
use crate::cluster::Protocol;
use crate::dataplane::connects::Seen;
use crate::dataplane::{Actual, Connections, ServerKey, ServiceKey, of_service};
use crate::plan::desired::{Member, Programmed};
use crate::plan::{Plan, Planner};
use crate::units::steady::shown;
use crate::vip::Host;

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
}

impl<'a> Figures<'a> {
    /// Returns the figures of a reading.
    pub fn of(actual: &'a Actual) -> Self {
        Self { connections: &actual.connections, seen: actual.seen.as_ref() }
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
    keys: Vec<ServiceKey>,
    /// Number of those that had their turn.
    done: usize,
    /// Set while no VIP has been written.
    is_first: bool,
    /// Text after the VIPs.
    end: Vec<u8>,
}

impl Document {
    /// Writes a status, of which the VIPs are those of `keys`.
    ///
    /// # Errors
    /// When something cannot be written as JSON.
    pub fn begin(status: &Status, keys: Vec<ServiceKey>, view: View<'_>) -> serde_json::Result<Self> {
        let mut text = serde_json::to_vec(status)?;
        let place = memchr::memmem::find(&text, PLACE.as_bytes()).map_or(text.len(), |place| place + OPENING);
        let end = text.split_off(place);
        Rest { keys, done: 0, is_first: true, end }.continued(text, view)
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
        let mut keys = self.keys.iter().skip(self.done);
        let is_last = loop {
            if text.len() >= PIECE {
                break false;
            }
            let Some(key) = keys.next() else { break true };
            self.done += 1;
            let Some(programmed) = view.plan.desired.services.get(key) else { continue };
            if !std::mem::take(&mut self.is_first) {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, &view.vip(key, programmed))?;
        };
        if is_last {
            text.append(&mut self.end);
        }
        Ok(Document { text, rest: (!is_last).then_some(self) })
    }
}

impl<'a> View<'a> {
    /// Returns the keys of all VIPs, in the order in which they are shown.
    pub fn keys(&self) -> Vec<ServiceKey> {
        by_name(self.plan.desired.services.iter())
    }

    /// Returns the keys of the VIPs with this name or address, in the order of a whole list: `web.marathon`, with or
    /// without the zone's name behind it, `/web.marathon`, or `11.225.36.193`, each with or without `:PORT`.
    pub fn find(&self, wanted: &str) -> Vec<ServiceKey> {
        let (host, port) = split_port(wanted);
        let addresses: Vec<IpAddr> = match host.parse() {
            Ok(address) => vec![address],
            Err(_) => {
                let name = host.strip_prefix('/').unwrap_or(host);
                let name = name.strip_suffix('.').unwrap_or(name);
                let below = name.strip_suffix(self.origin).and_then(|name| name.strip_suffix('.'));
                let leases = [&self.planner.persisted.leases4, &self.planner.persisted.leases6];
                leases.iter().filter_map(|leases| leases.get(below.unwrap_or(name))).collect()
            }
        };
        let services = &self.plan.desired.services;
        let protocols = [Protocol::Tcp, Protocol::Udp];
        let places =
            protocols.into_iter().flat_map(|protocol| addresses.iter().map(move |ip| (protocol, *ip)));
        by_name(places.flat_map(|(protocol, address)| {
            let key = |port| ServiceKey { protocol, address, port };
            services.range(key(port.unwrap_or(0))..=key(port.unwrap_or(u16::MAX)))
        }))
    }

    /// Returns all VIPs, with text of their own.
    pub fn vips(&self) -> Vec<Vip> {
        let programmed = |key: &ServiceKey| Some((*key, self.plan.desired.services.get(key)?));
        let keys = self.keys();
        keys.iter().filter_map(programmed).map(|(key, vip)| self.vip(&key, vip).into_owned()).collect()
    }

    fn vip(&self, key: &ServiceKey, programmed: &'a Programmed) -> Vip<Cow<'a, str>> {
        let mut counted = self.figures.map(|figures| of_service(figures.connections, key).peekable());
        let seen = self.figures.and_then(|figures| figures.seen);
        // Both are in the order of their addresses, so that none has to be looked for.
        let mut count = |address: &SocketAddr| {
            let counted = counted.as_mut()?;
            while counted.next_if(|((_, known), _)| known < address).is_some() {}
            let known = counted.next_if(|((_, known), _)| known == address);
            Some(known.map(|(_, connections)| *connections).unwrap_or_default())
        };
        let (steady, now) = self.clocks;
        let backend = |(address, Member { backend, weight }): (&SocketAddr, &'a Member)| Backend {
            address: address.ip(),
            port: address.port(),
            weight: *weight,
            condition: Some(backend.condition),
            until: self.planner.deadline(key, address).map(|until| shown(until, steady, now)),
            task: Cow::Borrowed(&*backend.task),
            agent: Cow::Borrowed(&*backend.agent),
            connections: count(address),
            connects: seen.and_then(|seen| seen.servers.get(&(*key, *address)).copied()),
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
            backends,
        }
    }
}

/// Returns keys by name, as people look for a VIP; the plan has them by address.
fn by_name<'p>(services: impl Iterator<Item = (&'p ServiceKey, &'p Programmed)>) -> Vec<ServiceKey> {
    let mut named: Vec<_> = services.map(|(key, programmed)| (name(programmed), *key)).collect();
    named.sort_unstable_by(|(a, x), (b, y)| {
        (a, x.port, x.protocol, x.address).cmp(&(b, y.port, y.protocol, y.address))
    });
    named.into_iter().map(|(_, key)| key).collect()
}

/// Returns the name of a VIP below the zone; `None` for one that is an address.
fn name(programmed: &Programmed) -> Option<&str> {
    match &programmed.vip.host {
        Host::Named(name) => Some(name),
        Host::Literal(_) => None,
    }
}

/// Splits `HOST:PORT`, where there is a port. An IPv6 address with one is in brackets.
fn split_port(text: &str) -> (&str, Option<u16>) {
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    let split = text.rsplit_once(':').and_then(|(host, port)| Some((host, Some(port.parse().ok()?))));
    let (host, port) = split.unwrap_or((text, None));
    let within = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    (within.unwrap_or(host), port)
}

#[cfg(test)]
mod tests;
