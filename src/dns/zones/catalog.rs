//! The catalog: all zones that are served, with their origins.
//!
//! Pure: a [`Catalog`] is an immutable value, replaced as a whole. A question goes to the zone with
//! the longest origin that its name ends in; aliases are further origins of the same zone, so that
//! answers come back under the name that was asked. [`mod@listing`] goes through all names.
//!
//! For example, `web.marathon.dclb.thisdcos.directory` ends in the alias `dclb.thisdcos.directory` of the
//! VIPs' zone, [`Catalog::place`] says so with a depth of three labels, and [`Match::find`] looks up
//! `web.marathon` in that zone.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::reverse;
use super::tasks::{AnswerWindow, TaskZone};
use super::vips::{self, NAME_SERVER, Zone};
use crate::dns::protocol::record::{NameError, RData, encode_origin};
use crate::dns::protocol::wire::QueryName;
use crate::vip::alloc::AddressRange;

pub mod listing;

/// Kind of the zone under an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZoneKind {
    /// Names of VIPs.
    Vips,
    /// Names of VIP addresses.
    Reverse,
    /// Names of tasks in the form of DC/OS.
    Dcos,
    /// Names of tasks in the form of mesos-dns.
    Mesos,
    /// Addresses of this node.
    Node,
}

/// Settings from which zones follow, whatever is in them.
#[derive(Clone, Debug)]
pub struct CatalogLayout<'a> {
    /// Origin of the VIPs' zone.
    pub zone: &'a str,
    /// Further origins of the VIPs' zone.
    pub aliases: &'a [String],
    /// True if names of tasks are served.
    pub tasks: bool,
    /// True if the zone `mesos` is served.
    pub mesos: bool,
    /// Ranges of VIP addresses, whose reverse zones are served.
    pub ranges: &'a [AddressRange],
    /// Seconds for which an answer may be cached.
    pub ttl: u32,
    /// Addresses that this server listens on.
    pub listeners: &'a [IpAddr],
}

/// Everything that can be answered at one moment.
#[derive(Clone, Debug)]
pub struct Catalog {
    origins: Arc<HashMap<Box<[u8]>, ZoneKind>>,
    /// The same in the order of the settings, as text.
    listed: Arc<Vec<(String, ZoneKind)>>,
    /// Number of labels of the longest origin.
    depth: usize,
    /// Seconds for which an answer may be cached.
    pub ttl: u32,
    /// Records of the name server.
    servers: Vec<RData>,
    vips: Arc<Zone>,
    /// `None` until the first document.
    tasks: Option<Arc<TaskZone>>,
    /// Addresses of this node; none until they are known.
    node: Vec<RData>,
}

/// The zone that a name is in.
#[derive(Clone, Copy, Debug)]
pub struct Match<'c> {
    catalog: &'c Catalog,
    content: ZoneKind,
    /// Number of labels of the origin.
    pub depth: usize,
}

/// Result of looking a name up in its zone.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<'c> {
    /// The name does not exist.
    Missing,
    /// Nothing is known of the zone yet: before the first document, or the first reading of the kernel.
    NotLoaded,
    /// The records of the name in their order, perhaps none, and no more than an answer can have. The apex has
    /// SOA and NS besides.
    Found(Cow<'c, [RData]>),
}

/// Origins of DC/OS' other zones.
const DCOS: [&str; 2] = ["dcos.thisdcos.directory", "dcos.thisdcos.global"];
const MESOS: [&str; 2] = ["mesos.thisdcos.directory", "mesos.thisdcos.global"];
const NODE: [&str; 2] = ["thisnode.thisdcos.directory", "thisnode.thisdcos.global"];

impl Catalog {
    /// A catalog in which nothing is known yet.
    ///
    /// # Errors
    /// When an origin is not a valid name.
    pub fn new(layout: &CatalogLayout<'_>, vips: Arc<Zone>) -> Result<Self, vips::Error> {
        let (mut origins, mut listed) = (HashMap::new(), Vec::new());
        // An origin that comes twice keeps its first meaning: the configured zone before those of DC/OS.
        let mut add = |origin: &str, content: ZoneKind| {
            let invalid = |reason: NameError| vips::Error::Origin { origin: origin.to_owned(), reason };
            if let Entry::Vacant(entry) = origins.entry(encode_origin(origin).map_err(invalid)?) {
                entry.insert(content);
                listed.push((origin.trim_end_matches('.').to_ascii_lowercase(), content));
            }
            Ok(())
        };
        add(layout.zone, ZoneKind::Vips)?;
        for alias in layout.aliases {
            add(alias, ZoneKind::Vips)?;
        }
        // Origins without content would deny names that another server may know.
        if layout.tasks {
            DCOS.iter().try_for_each(|origin| add(origin, ZoneKind::Dcos))?;
            MESOS.iter().try_for_each(|origin| add(origin, ZoneKind::Mesos))?;
        }
        if layout.mesos {
            add("mesos", ZoneKind::Mesos)?;
        }
        NODE.iter().try_for_each(|origin| add(origin, ZoneKind::Node))?;
        for origin in layout.ranges.iter().flat_map(reverse::origins) {
            add(&origin, ZoneKind::Reverse)?;
        }
        let depth = origins.keys().map(|origin| crate::dns::protocol::wire::labels(origin).count()).max();
        // The wildcard is an address to listen on, but none to ask.
        let listeners = layout.listeners.iter().filter(|address| !address.is_unspecified());
        let mut servers: Vec<RData> = listeners.map(|address| RData::from(*address)).collect();
        // As all records are.
        servers.sort_unstable();
        Ok(Self {
            origins: Arc::new(origins),
            listed: Arc::new(listed),
            depth: depth.unwrap_or_default(),
            ttl: layout.ttl,
            servers,
            vips,
            tasks: None,
            node: Vec::new(),
        })
    }

    /// Replaces the names of VIPs.
    pub fn with_vips(self, vips: Arc<Zone>) -> Self {
        Self { vips, ..self }
    }

    /// Returns the names of tasks, as soon as they are known.
    pub fn tasks(&self) -> Option<&TaskZone> {
        self.tasks.as_deref()
    }

    /// Replaces the names of tasks.
    pub fn with_tasks(self, tasks: Arc<TaskZone>) -> Self {
        Self { tasks: Some(tasks), ..self }
    }

    /// Replaces the addresses of this node.
    pub fn with_node(self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { node: addresses.into_iter().map(RData::from).collect(), ..self }
    }

    /// The zone of VIPs.
    pub fn vips(&self) -> &Arc<Zone> {
        &self.vips
    }

    /// True if the node has exactly these addresses, in this order.
    pub fn is_node(&self, addresses: impl IntoIterator<Item = IpAddr>) -> bool {
        self.node.iter().cloned().eq(addresses.into_iter().map(RData::from))
    }

    /// Finds the zone that a name is in; `None` if it is in none of ours.
    pub fn place(&self, name: &QueryName) -> Option<Match<'_>> {
        // From the longest origin that there may be to the shortest, each a look-up.
        (1..=name.labels().min(self.depth)).rev().find_map(|depth| {
            let content = *self.origins.get(name.split_at_end(depth).1)?;
            Some(Match { catalog: self, content, depth })
        })
    }
}

impl<'c> Match<'c> {
    /// Looks up the name of a question.
    pub fn find(&self, name: &QueryName, window: AnswerWindow) -> Lookup<'c> {
        self.find_in(name.split_at_end(self.depth).0, name.octets(), window)
    }

    /// Looks up a name relative to the origin, in lower case; not for reverse zones.
    pub fn find_relative(&self, name: &[u8], window: AnswerWindow) -> Lookup<'c> {
        self.find_in(name, &[], window)
    }

    fn find_in(&self, relative: &[u8], absolute: &[u8], window: AnswerWindow) -> Lookup<'c> {
        let catalog = self.catalog;
        // Every zone has the name server, whatever else is known.
        if relative.strip_prefix(&[2]) == Some(NAME_SERVER.as_bytes()) {
            return Lookup::Found(Cow::Borrowed(&catalog.servers));
        }
        if !self.is_loaded() {
            return Lookup::NotLoaded;
        }
        let found = match (self.content, &catalog.tasks) {
            (ZoneKind::Vips, _) => catalog.vips.get(relative).map(Cow::Borrowed),
            (ZoneKind::Reverse, _) => reverse::find(&catalog.vips, absolute).map(Cow::Owned),
            (ZoneKind::Node, _) => relative.is_empty().then_some(Cow::Borrowed(&*catalog.node)),
            (ZoneKind::Dcos, Some(tasks)) => tasks.dcos(relative, window).map(Cow::Owned),
            (ZoneKind::Mesos, Some(tasks)) => tasks.mesos(relative, window).map(Cow::Owned),
            (ZoneKind::Dcos | ZoneKind::Mesos, None) => None,
        };
        match found {
            Some(records) => Lookup::Found(records),
            // The apex exists in every zone.
            None if relative.is_empty() => Lookup::Found(Cow::Borrowed(&[])),
            None => Lookup::Missing,
        }
    }

    /// Returns the kind of the zone.
    pub fn kind(&self) -> ZoneKind {
        self.content
    }

    /// Serial number of the zone.
    pub fn serial(&self) -> u32 {
        match (self.content, &self.catalog.tasks) {
            (ZoneKind::Vips | ZoneKind::Reverse | ZoneKind::Node, _) => self.catalog.vips.serial(),
            (ZoneKind::Dcos | ZoneKind::Mesos, tasks) => tasks.as_ref().map_or(0, |tasks| tasks.serial),
        }
    }

    /// True if it is known which names the zone has: what is not known must not be denied.
    fn is_loaded(&self) -> bool {
        match self.content {
            ZoneKind::Vips | ZoneKind::Reverse => self.catalog.vips.is_loaded(),
            ZoneKind::Dcos | ZoneKind::Mesos => self.catalog.tasks.is_some(),
            ZoneKind::Node => !self.catalog.node.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests;
