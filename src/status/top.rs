//! The VIPs that lead by a figure, for who looks on: bounded, sorted and filtered here, whatever number of VIPs there are.
//!
//! ```text
//! kernel ─ one reading of counters ─ Rates ─┐
//! query ────────────────────────────────────┴─► View::leaders ─► View::top ─► a few rows, and one VIP with its backends
//! ```
//!
//! What a plane does not count has no number, which is not 0.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Vip;
use super::document::{View, counts_of, first_of, name};
use crate::cluster::Protocol;
use crate::dataplane::connects::Connects;
use crate::dataplane::traffic::Traffic;
use crate::dataplane::{PlaneKind, ServerKey, ServiceKey};
use crate::plan::desired::Programmed;
use crate::vip::pattern::VipPattern;

/// Rows that an answer has at most.
pub const MOST_ROWS: usize = 200;

/// Backends of the chosen VIP that an answer has at most.
pub const MOST_BACKENDS: usize = 200;

/// Bytes of a filter.
const LONGEST_FILTER: usize = 256;

/// Leading VIPs whose connections are counted anew for an answer: as many as a screen shows.
const COUNTED: usize = 32;

/// Servers that are counted anew for an answer.
const COUNTED_SERVERS: usize = 1_000;

/// Figure by which VIPs are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SortKey {
    /// Open connections.
    Connections,
    /// New connections a second.
    #[default]
    Rate,
    /// Bytes a second, in both directions.
    Bytes,
    /// Connects a second that failed.
    Failures,
    Name,
}

impl SortKey {
    /// All keys, in the order of the columns.
    pub const ALL: [Self; 5] = [Self::Name, Self::Connections, Self::Rate, Self::Bytes, Self::Failures];
}

impl fmt::Display for SortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "connections",
            Self::Rate => "rate",
            Self::Bytes => "bytes",
            Self::Failures => "failures",
            Self::Name => "name",
        })
    }
}

impl FromStr for SortKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|key| key.to_string() == text);
        found.ok_or_else(|| {
            let all = Self::ALL.map(|key| key.to_string()).join(", ");
            format!("cannot sort by {text:?}: there are {all}")
        })
    }
}

/// Wishes of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopQuery {
    pub sort: SortKey,
    /// Set for the smallest first.
    pub is_reversed: bool,
    /// Part of the names or addresses of VIPs, or a pattern with `*` or `?`; empty for all.
    pub filter: String,
    /// Number of rows, up to [`MOST_ROWS`].
    pub rows: usize,
    /// VIP whose backends are told.
    pub chosen: Option<ServiceKey>,
}

/// Figures of a VIP since its service was made, or for each second. What the plane does not count is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VipCounts<T> {
    /// New connections, or flows of datagrams.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub connections: Option<T>,
    /// Bytes from clients.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub in_bytes: Option<T>,
    /// Bytes to clients.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub out_bytes: Option<T>,
    /// Connects that were refused or timed out.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub failures: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

impl<T> VipCounts<T> {
    /// Combines two of them, figure by figure.
    fn zip<U, V>(
        self,
        other: VipCounts<U>,
        combine: impl Fn(Option<T>, Option<U>) -> Option<V>,
    ) -> VipCounts<V> {
        VipCounts {
            connections: combine(self.connections, other.connections),
            in_bytes: combine(self.in_bytes, other.in_bytes),
            out_bytes: combine(self.out_bytes, other.out_bytes),
            failures: combine(self.failures, other.failures),
        }
    }
}

impl VipCounts<f64> {
    /// Returns the sum of both; what only one has counts alone.
    fn plus(self, other: Self) -> Self {
        self.zip(other, |a, b| Some(a.unwrap_or(0.0) + b?).or(a))
    }

    /// Returns the bytes in both directions.
    pub fn bytes(&self) -> Option<f64> {
        self.in_bytes.zip(self.out_bytes).map(|(input, output)| input + output)
    }
}

impl VipCounts<u64> {
    /// Returns what came in each second since `before`. A figure that is smaller than before has begun anew, and has no
    /// rate.
    pub fn rates_since(self, before: Self, seconds: f64) -> VipCounts<f64> {
        self.zip(before, |now, before| {
            let grown = now?.checked_sub(before?)?;
            // A tenth is as fine as anybody looks at it, and shorter as text.
            (seconds > 0.0).then(|| (grown as f64 / seconds * 10.0).round() / 10.0)
        })
    }
}

impl From<Traffic> for VipCounts<u64> {
    fn from(traffic: Traffic) -> Self {
        let Traffic { connections, in_bytes, out_bytes, .. } = traffic;
        Self {
            connections: Some(connections),
            in_bytes: Some(in_bytes),
            out_bytes: Some(out_bytes),
            failures: None,
        }
    }
}

impl From<Connects> for VipCounts<u64> {
    fn from(connects: Connects) -> Self {
        let failures = Some(connects.refused + connects.timed_out);
        Self { connections: Some(connects.begun), failures, ..Self::default() }
    }
}

/// One reading of the counters of all VIPs.
#[derive(Clone, Debug)]
pub enum CounterReading {
    /// Of a plane that sees packets; services of other programs are among them.
    Traffic(Arc<BTreeMap<ServiceKey, Traffic>>),
    /// Of a plane that sees connects of TCP; services without any are left out.
    Connects(BTreeMap<ServiceKey, Connects>),
}

impl CounterReading {
    /// Returns the counters of a VIP.
    fn of(&self, key: &ServiceKey) -> VipCounts<u64> {
        match self {
            Self::Traffic(traffic) => traffic.get(key).copied().map(VipCounts::from).unwrap_or_default(),
            Self::Connects(connects) => match connects.get(key) {
                Some(connects) => (*connects).into(),
                None => self.unlisted(key),
            },
        }
    }

    /// Returns the counters of a VIP that the reading does not list.
    fn unlisted(&self, key: &ServiceKey) -> VipCounts<u64> {
        match self {
            Self::Connects(_) if key.protocol == Protocol::Tcp => Connects::default().into(),
            _ => VipCounts::default(),
        }
    }

    fn keys(&self) -> Vec<ServiceKey> {
        match self {
            Self::Traffic(traffic) => traffic.keys().copied().collect(),
            Self::Connects(connects) => connects.keys().copied().collect(),
        }
    }
}

/// Counters of all VIPs and how fast they grow.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// In the order of their keys.
    of: Vec<(ServiceKey, VipCounts<u64>, VipCounts<f64>)>,
    newest: Option<Arc<CounterReading>>,
    /// Time between the two readings; `None` after the first one.
    pub seconds: Option<f64>,
    /// Time of the newer one.
    pub at: Option<Timestamp>,
}

impl Rates {
    /// Compares a reading with the one that was made so many seconds before it, if there is one.
    pub fn between(before: Option<(&CounterReading, f64)>, newest: Arc<CounterReading>) -> Self {
        let rated = |key: ServiceKey| {
            let counts = newest.of(&key);
            let rates = before.map(|(before, seconds)| counts.rates_since(before.of(&key), seconds));
            (key, counts, rates.unwrap_or_default())
        };
        let of = newest.keys().into_iter().map(rated).collect();
        let seconds = before.map(|(_, seconds)| seconds);
        Self { of, seconds, newest: Some(newest), at: Some(Timestamp::now()) }
    }

    /// Returns the figures of a VIP, from `listed`, which is at or before it.
    fn figures<'r>(
        &self,
        key: &ServiceKey,
        listed: &mut std::iter::Peekable<
            impl Iterator<Item = &'r (ServiceKey, VipCounts<u64>, VipCounts<f64>)>,
        >,
    ) -> (VipCounts<u64>, VipCounts<f64>) {
        while listed.next_if(|(known, ..)| known < key).is_some() {}
        if let Some((_, counts, rates)) = listed.next_if(|(known, ..)| known == key) {
            return (*counts, *rates);
        }
        let counts = self.newest.as_ref().map(|newest| newest.unlisted(key)).unwrap_or_default();
        let rates = self.seconds.map(|seconds| counts.rates_since(counts, seconds));
        (counts, rates.unwrap_or_default())
    }
}

/// One VIP of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopRow {
    /// Name below the zone, for named VIPs.
    pub name: Option<String>,
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    /// Backends that get new connections.
    pub ready: usize,
    pub all: usize,
    /// Established connections.
    pub open: u64,
    /// Time at which these were counted.
    pub open_at: Option<Timestamp>,
    /// Since the service was made.
    pub totals: VipCounts<u64>,
    /// For each second.
    pub rates: VipCounts<f64>,
}

impl TopRow {
    pub fn key(&self) -> ServiceKey {
        ServiceKey { protocol: self.protocol, address: self.address, port: self.port }
    }

    /// Returns the name with the port, or the address with it.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("{name}:{}", self.port),
            None => SocketAddr::new(self.address, self.port).to_string(),
        }
    }
}

/// Answer of the reconciler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopTable {
    pub rows: Vec<TopRow>,
    /// VIPs that the filter leaves.
    pub matching: usize,
    /// Sum over these.
    pub open: u64,
    pub rates: VipCounts<f64>,
    /// The chosen VIP with its backends, the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Vip>,
    /// Number of its backends.
    #[serde(default)]
    pub backends: usize,
}

/// Answer to a client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopAnswer {
    pub hostname: String,
    pub version: String,
    pub dataplane: PlaneKind,
    /// Start of the daemon.
    pub started_at: Timestamp,
    pub at: Timestamp,
    /// First reason for which an operator is needed, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// VIPs of the node, and those without a backend that takes new connections.
    pub vips: usize,
    pub dead: usize,
    /// Time of the last sample of counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_at: Option<Timestamp>,
    /// Time over which rates are; absent until there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Reason why the kernel's counters are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(flatten)]
    pub table: TopTable,
}

/// VIPs in the order of an answer, with sums over all that match.
#[derive(Debug, Default)]
pub struct Leaders {
    pub keys: Vec<ServiceKey>,
    matching: usize,
    open: u64,
    rates: VipCounts<f64>,
}

/// Reads what [`ServiceKey`] is displayed as.
pub fn service_key(text: &str) -> Option<ServiceKey> {
    let (protocol, address) = text.split_once(' ')?;
    let protocols = [Protocol::Tcp, Protocol::Udp];
    let protocol = protocols.into_iter().find(|known| known.to_string() == protocol)?;
    let address: SocketAddr = address.parse().ok()?;
    Some(ServiceKey { protocol, address: address.ip(), port: address.port() })
}

/// Filter of names and addresses.
enum TopFilter {
    Everything,
    Pattern(VipPattern),
    /// In lower case, as names are.
    Part(String),
}

impl TopFilter {
    fn new(text: &str, origin: &str) -> Self {
        let end = (0..=text.len().min(LONGEST_FILTER)).rev().find(|end| text.is_char_boundary(*end));
        let text = text.get(..end.unwrap_or_default()).unwrap_or_default();
        let pattern = VipPattern::parse(text, origin);
        match text {
            "" => Self::Everything,
            _ if pattern.is_glob() => Self::Pattern(pattern),
            part => Self::Part(part.to_ascii_lowercase()),
        }
    }

    fn is_of(&self, key: &ServiceKey, programmed: &Programmed) -> bool {
        match self {
            Self::Everything => true,
            Self::Pattern(pattern) => pattern.is_of(&programmed.vip),
            Self::Part(part) => {
                name(programmed).is_some_and(|name| format!("{name}:{}", key.port).contains(part))
                    || SocketAddr::new(key.address, key.port).to_string().contains(part)
            }
        }
    }
}

impl View<'_> {
    /// Sorts the VIPs that a client asks for; one walk, whose cost is that of comparing numbers.
    pub(crate) fn leaders(&self, query: &TopQuery, rates: &Rates) -> Leaders {
        let filter = TopFilter::new(&query.filter, self.origin);
        let mut listed = rates.of.iter().peekable();
        let mut counted = self.figures.map(|figures| figures.connections.iter().peekable());
        let mut leaders = Leaders::default();
        let mut ranked = Vec::new();
        for (key, programmed) in self.plan.desired.services.iter() {
            if !filter.is_of(key, programmed) {
                continue;
            }
            let (_, rates) = rates.figures(key, &mut listed);
            let open = counted.as_mut().map_or(0, |counted| {
                while counted.next_if(|(known, _)| **known < first_of(key)).is_some() {}
                counts_of(key, programmed, counted).map(|count| u64::from(count.active)).sum()
            });
            leaders.matching += 1;
            leaders.open += open;
            leaders.rates = leaders.rates.plus(rates);
            let value = match query.sort {
                SortKey::Connections => Some(open as f64),
                SortKey::Rate => rates.connections,
                SortKey::Bytes => rates.bytes(),
                SortKey::Failures => rates.failures,
                SortKey::Name => None,
            };
            // What is not counted comes last.
            ranked.push((Reverse(Ranked(value.unwrap_or(-1.0))), name(programmed).unwrap_or("~"), *key));
        }
        let compare = |a: &(Reverse<Ranked>, &str, ServiceKey), b: &(Reverse<Ranked>, &str, ServiceKey)| {
            let is_name = query.sort == SortKey::Name;
            let by_value = if query.is_reversed { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) };
            let by_name = (a.1, a.2).cmp(&(b.1, b.2));
            by_value.then(if is_name && query.is_reversed { by_name.reverse() } else { by_name })
        };
        let rows = query.rows.clamp(1, MOST_ROWS);
        // Sorting all of them would cost more than the walk.
        if ranked.len() > rows {
            ranked.select_nth_unstable_by(rows, compare);
            ranked.truncate(rows);
        }
        ranked.sort_unstable_by(compare);
        leaders.keys = ranked.into_iter().map(|(.., key)| key).collect();
        leaders
    }

    /// Returns the servers whose connections are to be counted for an answer, those of the chosen VIP first.
    pub(crate) fn counted_anew(&self, query: &TopQuery, leaders: &Leaders) -> BTreeSet<ServerKey> {
        let keys = query.chosen.iter().chain(leaders.keys.iter().take(COUNTED));
        let services = keys.filter_map(|key| self.plan.desired.services.get_key_value(key));
        let servers = services.flat_map(|(key, programmed)| {
            let servers = programmed.servers.keys().take(MOST_BACKENDS);
            servers.map(move |address| (*key, *address))
        });
        servers.take(COUNTED_SERVERS).collect()
    }

    /// Returns the rows of an answer. Connections of the services in `fresh` were counted just now, and those of all
    /// others at `read_at`.
    pub(crate) fn top(
        &self,
        query: &TopQuery,
        rates: &Rates,
        leaders: &Leaders,
        (fresh, read_at): (&BTreeSet<ServiceKey>, Option<Timestamp>),
    ) -> TopTable {
        let services = &self.plan.desired.services;
        let row = |key: &ServiceKey| {
            let programmed = services.get(key)?;
            let from = rates.of.partition_point(|(known, ..)| known < key);
            let mut listed = rates.of.iter().skip(from).peekable();
            let (totals, rates) = rates.figures(key, &mut listed);
            let counted = self.figures.map(|figures| figures.connections.range(first_of(key)..).peekable());
            let open = counted.map(|mut counted| {
                counts_of(key, programmed, &mut counted).map(|count| u64::from(count.active)).sum()
            });
            Some(TopRow {
                name: name(programmed).map(str::to_owned),
                protocol: key.protocol,
                address: key.address,
                port: key.port,
                ready: programmed.servers.values().filter(|member| member.weight() > 0).count(),
                all: programmed.servers.len(),
                open: open.unwrap_or_default(),
                open_at: if fresh.contains(key) { Some(self.clocks.1) } else { read_at },
                totals,
                rates,
            })
        };
        let chosen = query.chosen.and_then(|key| services.get_key_value(&key));
        let mut chosen = chosen.map(|(key, programmed)| self.owned(key, programmed));
        let backends = chosen.as_ref().map_or(0, |vip| vip.backends.len());
        chosen.iter_mut().for_each(|vip| vip.backends.truncate(MOST_BACKENDS));
        TopTable {
            rows: leaders.keys.iter().filter_map(row).collect(),
            matching: leaders.matching,
            open: leaders.open,
            rates: leaders.rates,
            chosen,
            backends,
        }
    }
}

/// A figure with a total order.
#[derive(Clone, Copy, PartialEq)]
struct Ranked(f64);

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
