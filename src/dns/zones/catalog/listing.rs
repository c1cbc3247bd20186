//! All names that are served, with their records, for people and programs that list them.
//!
//! A listing goes through names one after the other and keeps none, so that its memory does not grow with the
//! cluster. Zones that have several origins are listed once; the names under further origins follow from
//! [`Catalog::zones`].

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{AnswerWindow, Catalog, Lookup, Match, NAME_SERVER, ZoneKind, reverse};
use crate::dns::protocol::record::{RData, encode};
use crate::dns::protocol::wire::labels;
use crate::dns::zones::tasks::TaskName;
use crate::vip::pattern::VipPattern;

/// A zone with its origins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedZone {
    pub kind: ZoneKind,
    /// Names that its names end in. The first is the one that a listing has.
    pub origins: Vec<String>,
    /// False until it is known which names there are.
    pub loaded: bool,
}

/// A name with its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedName {
    pub name: String,
    pub zone: ZoneKind,
    pub records: Vec<ServedRecord>,
}

/// A record as programs read it: the keys are those of the original's interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServedRecord {
    /// A, AAAA, SRV or PTR.
    pub rtype: Cow<'static, str>,
    /// Address, `TARGET:PORT`, or name.
    pub host: String,
}

/// Names that a client asks for.
#[derive(Clone, Debug, Default)]
pub struct NameFilter {
    /// `None` for all names.
    pattern: Option<VipPattern>,
}

impl NameFilter {
    /// Reads what a person has written: a name, its first labels, or a pattern with `*` and `?` for all of it.
    pub fn parse(text: &str) -> Self {
        let host = text.trim().trim_end_matches('.').to_ascii_lowercase();
        Self { pattern: (!host.is_empty()).then_some(VipPattern { host, port: None }) }
    }

    /// Returns true for a name that is asked for.
    pub fn admits(&self, name: &str) -> bool {
        let Some(pattern) = &self.pattern else { return true };
        match pattern.is_glob() {
            true => pattern.is_name(name),
            // `web.marathon` is in several zones.
            false => {
                name.strip_prefix(&*pattern.host).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
        }
    }
}

impl Catalog {
    /// Returns the zones with their origins, in the order of a listing.
    pub fn zones(&self) -> Vec<ServedZone> {
        let kinds = [ZoneKind::Vips, ZoneKind::Dcos, ZoneKind::Mesos, ZoneKind::Node, ZoneKind::Reverse];
        let zone = |kind| {
            let of_kind = self.listed.iter().filter(|(_, own)| *own == kind);
            let origins: Vec<String> = of_kind.map(|(origin, _)| origin.clone()).collect();
            let place = Match { catalog: self, content: kind, depth: 0 };
            (!origins.is_empty()).then(|| ServedZone { kind, origins, loaded: place.is_loaded() })
        };
        kinds.into_iter().filter_map(zone).collect()
    }

    /// Returns the records of a name that is written in full; none if it does not exist.
    pub fn look_up(&self, name: &str) -> Vec<ServedRecord> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let Ok(octets) = encode(&name) else { return Vec::new() };
        let ends = std::iter::once(0).chain(name.match_indices('.').map(|(place, _)| place + 1));
        // The longest origin comes first, as for a question.
        let place = ends.filter_map(|start| Some((start, name.get(start..)?))).find_map(|(start, origin)| {
            let (_, kind) = self.listed.iter().find(|(own, _)| own == origin)?;
            Some((start, origin, *kind))
        });
        let Some((start, origin, kind)) = place else { return Vec::new() };
        // The octets of a name are as many as its characters and dots, and one more.
        let relative = octets.get(..start).unwrap_or_default();
        let place = Match { catalog: self, content: kind, depth: 0 };
        let origin = if kind == ZoneKind::Reverse { "" } else { origin };
        match place.find_in(relative, &octets, AnswerWindow::ALL) {
            Lookup::Found(records) => {
                records.iter().map(|record| ServedRecord::new(record, origin)).collect()
            }
            Lookup::Missing | Lookup::NotLoaded => Vec::new(),
        }
    }

    /// Returns a name of a zone with its records, below one of its origins; `None` if it has none.
    pub fn served(&self, zone: ZoneKind, name: TaskName, origin: &str) -> Option<ServedName> {
        let place = Match { catalog: self, content: zone, depth: 0 };
        let octets = if name.relative.is_empty() { Box::default() } else { encode(&name.relative).ok()? };
        let records = match name.records {
            Some(records) => Cow::Owned(records),
            None => match place.find_relative(&octets, AnswerWindow::ALL) {
                Lookup::Found(records) => records,
                Lookup::Missing | Lookup::NotLoaded => return None,
            },
        };
        let records: Vec<_> = records.iter().map(|record| ServedRecord::new(record, origin)).collect();
        let name = below(&name.relative, origin);
        // Names between others exist, and have nothing.
        (!records.is_empty()).then_some(ServedName { name, zone, records })
    }

    /// Returns all names of a zone that are asked for, in no order, under one of its origins.
    pub fn names<'c>(
        &'c self,
        kind: ZoneKind,
        origin: &'c str,
        filter: &'c NameFilter,
    ) -> Box<dyn Iterator<Item = ServedName> + 'c> {
        let found = move |name: TaskName| {
            filter.admits(&below(&name.relative, origin)).then(|| self.served(kind, name, origin)).flatten()
        };
        let server = found(NAME_SERVER.to_owned().into()).into_iter();
        match (kind, &self.tasks) {
            (ZoneKind::Vips, _) => {
                let mut names: Vec<(String, &[RData])> = self
                    .vips
                    .iter()
                    .filter(|(_, records)| !records.is_empty())
                    .map(|(name, records)| (text(name), records))
                    .filter(|(name, _)| filter.admits(&below(name, origin)))
                    .collect();
                names.sort_unstable();
                let served = move |(name, records): (String, &[RData])| ServedName {
                    name: below(&name, origin),
                    zone: kind,
                    records: records.iter().map(|record| ServedRecord::new(record, origin)).collect(),
                };
                Box::new(server.chain(names.into_iter().map(served)))
            }
            (ZoneKind::Dcos, Some(tasks)) => {
                let names = tasks.dcos_names().filter_map(found);
                Box::new(server.chain(names))
            }
            (ZoneKind::Mesos, Some(tasks)) => {
                let names = tasks.mesos_names().filter_map(found);
                Box::new(server.chain(names))
            }
            (ZoneKind::Node, _) => Box::new(server.chain(found(String::new().into()))),
            (ZoneKind::Reverse, _) => {
                let name = move |address| {
                    let name = reverse::name(address);
                    let is_asked = name.ends_with(&format!(".{origin}")) && filter.admits(&name);
                    let records =
                        is_asked.then(|| reverse::find(&self.vips, &encode(&name).ok()?)).flatten()?;
                    // Names in these records are absolute.
                    let records = records.iter().map(|record| ServedRecord::new(record, "")).collect();
                    Some(ServedName { name, zone: kind, records })
                };
                Box::new(self.vips.addresses().filter_map(name))
            }
            (ZoneKind::Dcos | ZoneKind::Mesos, None) => Box::new(server),
        }
    }
}

impl ServedRecord {
    fn new(record: &RData, origin: &str) -> Self {
        let (rtype, host) = match record {
            RData::A(address) => ("A", address.to_string()),
            RData::Aaaa(address) => ("AAAA", address.to_string()),
            RData::Srv { port, target } => ("SRV", format!("{}:{port}", below(&text(target), origin))),
            RData::Ptr(name) => ("PTR", text(name)),
        };
        Self { rtype: Cow::Borrowed(rtype), host }
    }
}

/// Returns a name below an origin; the origin itself for no name.
fn below(relative: &str, origin: &str) -> String {
    match (relative, origin) {
        ("", _) => origin.to_owned(),
        (_, "") => relative.to_owned(),
        _ => format!("{relative}.{origin}"),
    }
}

/// Returns a name as people write it.
fn text(name: &[u8]) -> String {
    let labels: Vec<Cow<'_, str>> = labels(name).map(String::from_utf8_lossy).collect();
    labels.join(".")
}

#[cfg(test)]
mod tests;
