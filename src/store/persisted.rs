//! The addresses of names and the known VIPs, as they are kept.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cluster::{SharedMap, Snapshot};
use crate::units::steady::Shift;
use crate::vip::VipKey;
use crate::vip::alloc::Leases;

/// Names' addresses and known VIPs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persisted {
    pub leases4: Leases,
    pub leases6: Leases,
    /// VIPs with the time since when they have no backend; `None` while one has some, or while tasks for it
    /// start.
    #[serde(serialize_with = "as_list", deserialize_with = "from_list")]
    pub vips: SharedMap<VipKey, Option<Timestamp>>,
    /// Earliest known registration of each framework: with a new master all of them register anew.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub registered: BTreeMap<String, Timestamp>,
    /// Addresses of servers that were asked, which no VIP may have.
    #[serde(default)]
    pub servers: BTreeMap<IpAddr, AskedServer>,
}

impl Persisted {
    /// Notes when the frameworks of a document registered, and forgets those that it does not list.
    pub fn note_registered(&mut self, snapshot: &Snapshot) {
        self.registered.retain(|id, _| snapshot.frameworks.contains_key(id));
        for (id, time) in &snapshot.registered {
            match self.registered.get_mut(id) {
                // The order in which frameworks register after a fail-over says nothing about their age.
                Some(known) => *known = (*known).min(*time),
                None => drop(self.registered.insert(id.clone(), *time)),
            }
        }
    }
}

/// A server that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedServer {
    /// Name that led to its address.
    pub name: String,
    /// Hour in which it was last known, so that the file is written once an hour at most for it.
    pub hour: i64,
}

impl Shift for Persisted {
    fn shift(&mut self, by: SignedDuration) {
        self.vips.values_mut().for_each(|since| since.shift(by));
    }
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    vip: VipKey,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    vacant_since: Option<Timestamp>,
}

/// Keys of a JSON object can only be strings.
fn as_list<S: Serializer>(
    vips: &SharedMap<VipKey, Option<Timestamp>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(vips.iter().map(|(vip, since)| Entry { vip: vip.clone(), vacant_since: *since }))
}

fn from_list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SharedMap<VipKey, Option<Timestamp>>, D::Error> {
    let entries = Vec::<Entry>::deserialize(deserializer)?;
    Ok(entries.into_iter().map(|entry| (entry.vip, entry.vacant_since)).collect())
}
