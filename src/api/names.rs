//! Requests for the names that DNS serves: for `l4lbd names`, and in the shapes of the original and of mesos-dns.
//!
//! A cluster of 100,000 tasks has about a million names. So a thread works them out piece by piece, as fast as the
//! client takes them, and none are kept.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Access;
use crate::dns::zones::catalog::listing::{NameFilter, ServedName, ServedRecord, ServedZone};
use crate::dns::zones::catalog::{Catalog, ZoneKind};

/// Parameter of a request for names: a name, its first labels, or a pattern.
pub const PATTERN: &str = "pattern";

/// Listings that are made at a time, each by a thread.
pub(super) const MOST_LISTINGS: usize = 4;

/// Octets from which a piece is sent.
const PIECE: usize = 64 * 1024;

/// Answer to a request for names. Those below further origins of a zone are not listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamesAnswer {
    /// Seconds for which clients may keep an answer of DNS.
    pub ttl: u32,
    pub zones: Vec<ServedZone>,
    /// By zones, in no further order.
    pub names: Vec<ServedName>,
}

/// A record in the form of the original.
#[derive(Serialize)]
struct FlatRecord<'a> {
    name: &'a str,
    host: &'a str,
    rtype: &'a str,
}

/// An address of a host, in the form of mesos-dns.
#[derive(Default, Serialize)]
struct HostAddress {
    host: String,
    ip: String,
}

/// A place of a service, in the form of mesos-dns.
#[derive(Default, Serialize)]
struct ServicePlace {
    service: String,
    host: String,
    ip: String,
    port: String,
}

/// Lists all names, or those of a pattern.
pub(super) async fn names(State(access): State<Access>, uri: Uri) -> Response {
    let mut filter = NameFilter::default();
    for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*key {
            PATTERN => filter = NameFilter::parse(&value),
            _ => {
                let text = format!("unknown parameter {key:?}: there is {PATTERN}");
                return (StatusCode::BAD_REQUEST, text).into_response();
            }
        }
    }
    access.listing(move |catalog, text| {
        let zones = catalog.zones();
        // As `NamesAnswer` is written, but not kept.
        write!(text, "{{\"ttl\":{},\"zones\":", catalog.ttl)?;
        serde_json::to_writer(&mut *text, &zones)?;
        text.write_all(b",\"names\":[")?;
        let firsts = zones.iter().filter_map(|zone| Some((zone.kind, zone.origins.first()?)));
        let origins = zones.iter().flat_map(|zone| match zone.kind {
            // Each of these is a part of the addresses.
            ZoneKind::Reverse => zone.origins.iter().collect(),
            _ => Vec::new(),
        });
        let reverse = origins.map(|origin| (ZoneKind::Reverse, origin));
        let firsts = firsts.filter(|(kind, _)| *kind != ZoneKind::Reverse);
        let names = firsts.chain(reverse).flat_map(|(kind, origin)| catalog.names(kind, origin, &filter));
        write_list(text, names)?;
        text.write_all(b"}")
    })
}

/// Lists the records of all zones under all their origins, as the original does.
pub(super) async fn records(State(access): State<Access>) -> Response {
    access.listing(|catalog, text| {
        text.write_all(b"[")?;
        let all = NameFilter::default();
        let mut is_first = true;
        let zones = catalog.zones();
        let origins = zones.iter().flat_map(|zone| zone.origins.iter().map(|origin| (zone.kind, origin)));
        // Names of addresses are not among those of the original.
        for (kind, origin) in origins.filter(|(kind, _)| *kind != ZoneKind::Reverse) {
            for name in catalog.names(kind, origin, &all) {
                for record in rooted(&name) {
                    separate(text, &mut is_first)?;
                    let [name, host, rtype] = &record;
                    serde_json::to_writer(&mut *text, &FlatRecord { name, host, rtype })?;
                }
            }
        }
        text.write_all(b"]")
    })
}

/// Lists the names of tasks by framework, as mesos-dns does. Tasks of one name are one entry.
pub(super) async fn enumerate(State(access): State<Access>) -> Response {
    access.listing(|catalog, text| {
        text.write_all(b"{\"frameworks\":[")?;
        let mut is_first = true;
        let frameworks = catalog.tasks().into_iter().flat_map(|tasks| tasks.frameworks());
        for (name, tasks) in frameworks {
            separate(text, &mut is_first)?;
            text.write_all(b"{\"name\":")?;
            serde_json::to_writer(&mut *text, name)?;
            text.write_all(b",\"tasks\":[")?;
            let mut is_first_task = true;
            for (label, names) in tasks {
                separate(text, &mut is_first_task)?;
                let served =
                    names.into_iter().filter_map(|name| catalog.served(ZoneKind::Mesos, name, "mesos"));
                let records: Vec<[String; 3]> = served.flat_map(|name| rooted(&name)).collect();
                let flat = records.iter().map(|[name, host, rtype]| FlatRecord { name, host, rtype });
                // Ids of tasks are not kept, because they would take more room than all the rest.
                let task =
                    serde_json::json!({ "name": label, "id": "", "records": flat.collect::<Vec<_>>() });
                serde_json::to_writer(&mut *text, &task)?;
            }
            text.write_all(b"]}")?;
        }
        text.write_all(b"]}")
    })
}

/// Lists the addresses of a name, as mesos-dns does: an empty entry for a name that has none.
pub(super) async fn hosts(State(access): State<Access>, Path(name): Path<String>) -> Response {
    let catalog = access.parts.catalogs.borrow().clone();
    let host = with_root(&name.to_ascii_lowercase());
    let addresses = addresses(&catalog, &name);
    let mut found: Vec<HostAddress> = addresses.map(|ip| HostAddress { host: host.clone(), ip }).collect();
    if found.is_empty() {
        found.push(HostAddress::default());
    }
    super::json(&found)
}

/// Lists the places of a service, as mesos-dns does: an empty entry for a name that has none.
pub(super) async fn services(State(access): State<Access>, Path(name): Path<String>) -> Response {
    let catalog = access.parts.catalogs.borrow().clone();
    // Many ports can be at one host.
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let records = catalog.look_up(&name).into_iter().filter(|record| record.rtype == "SRV");
    let mut found: Vec<ServicePlace> = records
        .filter_map(|record| {
            let (host, port) = record.host.rsplit_once(':')?;
            let first = || addresses(&catalog, host).next().unwrap_or_default();
            let ip = known.entry(host.to_owned()).or_insert_with(first).clone();
            Some(ServicePlace { service: name.clone(), host: with_root(host), ip, port: port.to_owned() })
        })
        .collect();
    if found.is_empty() {
        found.push(ServicePlace::default());
    }
    super::json(&found)
}

/// Tells the version, in the form of mesos-dns.
pub(super) async fn version() -> Response {
    super::json(&serde_json::json!({ "Service": "l4lbd", "Version": env!("CARGO_PKG_VERSION"), "URL": "" }))
}

/// Returns the addresses of a name.
fn addresses(catalog: &Catalog, name: &str) -> impl Iterator<Item = String> + use<> {
    let records = catalog.look_up(name).into_iter();
    records.filter(|record| ["A", "AAAA"].contains(&&*record.rtype)).map(|record| record.host)
}

/// Returns each record of a name as its name, host and type, with names as programs compare them.
fn rooted(name: &ServedName) -> Vec<[String; 3]> {
    let host = |record: &ServedRecord| match (&*record.rtype, record.host.rsplit_once(':')) {
        ("SRV", Some((target, port))) => format!("{}:{port}", with_root(target)),
        _ => record.host.clone(),
    };
    let record =
        |record: &ServedRecord| [with_root(&name.name), host(record), record.rtype.clone().into_owned()];
    name.records.iter().map(record).collect()
}

/// Returns a name with the dot of the root at its end.
fn with_root(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn write_list<T: Serialize>(text: &mut Pieces, list: impl Iterator<Item = T>) -> io::Result<()> {
    let mut is_first = true;
    for item in list {
        separate(text, &mut is_first)?;
        serde_json::to_writer(&mut *text, &item)?;
    }
    text.write_all(b"]")
}

/// Writes a comma, but before the first item.
fn separate(text: &mut Pieces, is_first: &mut bool) -> io::Result<()> {
    if std::mem::take(is_first) { Ok(()) } else { text.write_all(b",") }
}

/// Text that goes to a client piece by piece.
struct Pieces {
    piece: Vec<u8>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Pieces {
    /// Waits until the client has taken the piece before, and fails if it has gone.
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(text);
        if self.piece.len() >= PIECE {
            self.send()?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Access {
    /// Answers with JSON that `write` makes of the names as they are now.
    fn listing(
        &self,
        write: impl FnOnce(&Catalog, &mut Pieces) -> io::Result<()> + Send + 'static,
    ) -> Response {
        let Ok(place) = Arc::clone(&self.listings).try_acquire_owned() else {
            let busy = "too many clients list names; ask again later";
            return (StatusCode::SERVICE_UNAVAILABLE, busy).into_response();
        };
        let catalog = self.parts.catalogs.borrow().clone();
        let (sender, receiver) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || {
            let mut pieces = Pieces { piece: Vec::new(), sender };
            // A client that has gone needs no more.
            let _ = write(&catalog, &mut pieces).and_then(|()| pieces.flush());
            drop(place);
        });
        let pieces = stream::unfold(receiver, async |mut receiver| {
            let piece: io::Result<Bytes> = receiver.recv().await?;
            Some((piece, receiver))
        });
        ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response()
    }
}
