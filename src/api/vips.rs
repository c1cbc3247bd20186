//! Requests for VIPs: rows for the page and for programs, all about one of them, and the list of the original.
//!
//! Rows are made of figures that all clients within a second share. Filters and order are applied here, beside the
//! reconcile loop, and an answer has one page of rows, so that a page of 10,000 VIPs costs a browser little.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use serde::Serialize;

use super::Access;
use crate::cluster::Protocol;
use crate::dataplane::ServiceKey;
use crate::exporter::live::{Live, VipCounts, VipRates};
use crate::reconcile::Question;
use crate::reconcile::figures::{FigurePage, VipFigures, Wanted};
use crate::status::health::VipHealth;
use crate::status::story::Stories;
use crate::vip::pattern::VipPattern;

/// Rows of an answer without a wish.
const ROWS: usize = 100;

/// Most rows of an answer.
const MOST_ROWS: usize = 1_000;

/// VIPs whose backends are asked for at a time.
const CHUNK: usize = 200;

/// Wishes in the query of a request for rows.
#[derive(Debug, Default, PartialEq)]
struct RowQuery {
    /// Part of a name or address in lower case, or a pattern for all of it.
    search: String,
    /// `None` for all.
    health: Option<HealthWish>,
    /// Name or id of a framework.
    framework: String,
    order: Order,
    offset: usize,
    limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum HealthWish {
    Is(VipHealth),
    Unhealthy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Order {
    #[default]
    Name,
    Health,
    Active,
    Connections,
    Bytes,
    Failures,
}

/// A page of rows.
#[derive(Serialize)]
struct Rows {
    /// Time of the figures.
    at: Option<Timestamp>,
    /// VIPs of this node, and those of them that are asked for.
    total: usize,
    matched: usize,
    offset: usize,
    vips: Vec<Row>,
}

/// Figures of one VIP.
#[derive(Serialize)]
struct Row {
    /// Full name; absent for a VIP that is an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    protocol: Protocol,
    address: IpAddr,
    port: u16,
    /// Framework and app that have it, or the first of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    framework: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    health: VipHealth,
    ready: usize,
    backends: usize,
    active: u32,
    inactive: u32,
    totals: VipCounts,
    per_second: VipRates,
}

/// All about one VIP.
#[derive(Serialize)]
struct VipDetail {
    #[serde(flatten)]
    stories: Stories,
    events: Vec<Arc<crate::events::Event>>,
    /// Rows of the same VIPs.
    figures: Vec<Row>,
}

/// A VIP in the form of the original.
#[derive(Serialize)]
struct PlainVip {
    vip: String,
    protocol: Protocol,
    backend: Vec<PlainBackend>,
}

#[derive(Serialize)]
struct PlainBackend {
    ip: IpAddr,
    port: u16,
}

impl RowQuery {
    fn by(query: &str) -> Result<Self, String> {
        let mut wanted = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let number = || value.parse().map_err(|_| format!("{key}: {value:?} is no number"));
            match &*key {
                "search" => wanted.search = value.trim().to_lowercase(),
                "framework" => wanted.framework = value.into_owned(),
                "health" => {
                    wanted.health = match &*value {
                        "" => None,
                        "fine" => Some(HealthWish::Is(VipHealth::Fine)),
                        "impaired" => Some(HealthWish::Is(VipHealth::Impaired)),
                        "dead" => Some(HealthWish::Is(VipHealth::Dead)),
                        "unhealthy" => Some(HealthWish::Unhealthy),
                        _ => return Err("health: must be fine, impaired, dead or unhealthy".to_owned()),
                    }
                }
                "order" => {
                    wanted.order = match &*value {
                        "name" => Order::Name,
                        "health" => Order::Health,
                        "active" => Order::Active,
                        "connections" => Order::Connections,
                        "bytes" => Order::Bytes,
                        "failures" => Order::Failures,
                        _ => {
                            let orders = "name, health, active, connections, bytes or failures";
                            return Err(format!("order: must be {orders}"));
                        }
                    }
                }
                "offset" => wanted.offset = number()?,
                "limit" => wanted.limit = Some(number()?),
                _ => {
                    let known = "search, health, framework, order, offset and limit";
                    return Err(format!("unknown parameter {key:?}: there are {known}"));
                }
            }
        }
        Ok(wanted)
    }

    fn admits(&self, vip: &VipFigures, origin: &str) -> bool {
        let is_health = match self.health {
            None => true,
            Some(HealthWish::Is(health)) => vip.health == health,
            Some(HealthWish::Unhealthy) => vip.health != VipHealth::Fine,
        };
        let is_framework = self.framework.is_empty()
            || vip
                .tenants
                .iter()
                .any(|own| *own.name == *self.framework || *own.framework == *self.framework);
        is_health && is_framework && (self.search.is_empty() || self.finds(vip, origin))
    }

    /// Returns true if the VIP has what is searched for in its name, address or app.
    fn finds(&self, vip: &VipFigures, origin: &str) -> bool {
        let text = match &vip.name {
            Some(name) => format!("{name}.{origin}:{}", vip.key.port),
            None => String::new(),
        };
        let place = std::net::SocketAddr::new(vip.key.address, vip.key.port).to_string();
        let pattern = VipPattern { host: self.search.clone(), port: None };
        if pattern.is_glob() {
            let below = vip.name.as_deref().unwrap_or_default();
            return [&*text, below, &*place].iter().any(|own| pattern.is_name(own));
        }
        let is_app = |app: &str| app.to_lowercase().contains(&self.search);
        text.contains(&self.search)
            || place.contains(&self.search)
            || vip.tenants.iter().any(|own| is_app(&own.app))
    }

    /// Makes the page of rows.
    fn rows(&self, live: &Live, origin: &str) -> Rows {
        let table = &live.table;
        let mut found: Vec<&VipFigures> = table.vips.iter().filter(|vip| self.admits(vip, origin)).collect();
        let by_name = |vip: &&VipFigures| (vip.name.is_none(), vip.name.clone(), vip.key);
        // Names first, so that VIPs of equal figures keep their places from answer to answer.
        found.sort_by_cached_key(by_name);
        let rate = |rate: Option<f64>| Reverse(rate.map(|rate| (rate * 1e3) as u64));
        match self.order {
            Order::Name => {}
            Order::Health => found.sort_by_key(|vip| vip.health),
            Order::Active => found.sort_by_key(|vip| Reverse(vip.connections.active)),
            Order::Connections => found.sort_by_cached_key(|vip| rate(live.rates(vip).connections)),
            Order::Bytes => found.sort_by_cached_key(|vip| rate(live.rates(vip).bytes)),
            Order::Failures => found.sort_by_cached_key(|vip| rate(live.rates(vip).failures)),
        }
        let limit = self.limit.unwrap_or(ROWS).min(MOST_ROWS);
        let vips = found.iter().skip(self.offset).take(limit).map(|vip| row(vip, live, origin)).collect();
        Rows { at: table.taken_at, total: table.vips.len(), matched: found.len(), offset: self.offset, vips }
    }
}

fn row(vip: &VipFigures, live: &Live, origin: &str) -> Row {
    let tenant = vip.tenants.iter().next();
    Row {
        name: vip.name.as_ref().map(|name| format!("{name}.{origin}")),
        protocol: vip.key.protocol,
        address: vip.key.address,
        port: vip.key.port,
        framework: tenant.map(|tenant| tenant.name.to_string()),
        app: tenant.map(|tenant| tenant.app.to_string()),
        health: vip.health,
        ready: vip.ready,
        backends: vip.all,
        active: vip.connections.active,
        inactive: vip.connections.inactive,
        totals: live.counts(vip),
        per_second: live.rates(vip),
    }
}

/// Answers with a page of rows.
pub(super) async fn rows(State(access): State<Access>, uri: Uri) -> Response {
    let wanted = match RowQuery::by(uri.query().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(error) => return (StatusCode::BAD_REQUEST, error).into_response(),
    };
    let Some(live) = access.parts.exporter.live().await else { return super::busy() };
    let origin = access.parts.catalogs.borrow().origin().to_owned();
    // Sorting 10,000 VIPs takes milliseconds, in which an async thread has other clients to serve.
    let made = tokio::task::spawn_blocking(move || super::json(&wanted.rows(&live, &origin))).await;
    made.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Answers with all about the VIPs of a name, pattern, address or task.
pub(super) async fn detail(State(access): State<Access>, Path(name): Path<String>) -> Response {
    let Some(answer) = access.story_of(name).await else { return super::busy() };
    if answer.stories.vips.is_empty() && answer.stories.skipped.is_empty() {
        return (StatusCode::NOT_FOUND, "no VIP has this name, address or task").into_response();
    }
    let origin = access.parts.catalogs.borrow().origin().to_owned();
    let live = access.parts.exporter.live().await.unwrap_or_default();
    let key = |vip: &crate::status::Vip| ServiceKey {
        protocol: vip.protocol,
        address: vip.address,
        port: vip.port,
    };
    let figures = answer.stories.vips.iter().filter_map(|story| live.vip(&key(&story.vip)));
    let figures = figures.map(|vip| row(vip, &live, &origin)).collect();
    super::json(&VipDetail { stories: answer.stories, events: answer.events, figures })
}

/// Lists all VIPs with the backends that take connections, as the original does.
pub(super) async fn plain(State(access): State<Access>) -> Response {
    let Some(live) = access.parts.exporter.live().await else { return super::busy() };
    let keys: Vec<ServiceKey> = live.table.vips.iter().map(|vip| vip.key).collect();
    let origin = access.parts.catalogs.borrow().origin().to_owned();
    let chunks: Vec<Vec<ServiceKey>> = keys.chunks(CHUNK).map(<[ServiceKey]>::to_vec).collect();
    // The first piece opens the list, the last one closes it; between them the loop has other work to do.
    let pieces =
        stream::try_unfold((access, chunks.into_iter(), Some(true)), move |(access, mut chunks, first)| {
            let origin = origin.clone();
            async move {
                let Some(is_first) = first else { return Ok(None) };
                let Some(keys) = chunks.next() else {
                    let end: &[u8] = if is_first { b"[]" } else { b"]" };
                    return Ok(Some((Bytes::from_static(end), (access, chunks, None))));
                };
                let wanted = Wanted::Backends(Arc::new(keys));
                let page = access.ask(|answer| Question::Figures { wanted, answer }).await;
                // The client sees an answer that is cut off, and no whole list.
                let page = page.ok_or(std::io::Error::from(std::io::ErrorKind::TimedOut))?;
                let text = plain_text(&page, &origin, is_first)?;
                let is_first = is_first && page.vips.is_empty();
                Ok::<_, std::io::Error>(Some((Bytes::from(text), (access, chunks, Some(is_first)))))
            }
        });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response()
}

/// Writes VIPs of a page as a part of a list.
fn plain_text(page: &FigurePage, origin: &str, is_first: bool) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    for (place, vip) in page.vips.iter().enumerate() {
        text.push(if is_first && place == 0 { b'[' } else { b',' });
        let backends = vip.backends.iter().filter(|backend| backend.weight > 0);
        let backend = backends.map(|own| PlainBackend { ip: own.address.ip(), port: own.address.port() });
        let ServiceKey { protocol, address, port } = vip.key;
        // Without brackets for IPv6, as programs of the original take it.
        let name = vip.name.as_ref().map_or(address.to_string(), |name| format!("{name}.{origin}"));
        let plain = PlainVip { vip: format!("{name}:{port}"), protocol, backend: backend.collect() };
        serde_json::to_writer(&mut text, &plain)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Connections;
    use crate::exporter::table::Table;

    fn vip(name: Option<&str>, last: u8, health: VipHealth, active: u32) -> VipFigures {
        VipFigures {
            key: ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, last].into(), port: 80 },
            name: name.map(str::to_owned),
            tenants: crate::vip::Tenants::default(),
            ready: 1,
            all: 2,
            health,
            connections: Connections { active, inactive: 0 },
            connects: None,
            backends: Vec::new(),
        }
    }

    fn asked(query: &str) -> (usize, Vec<u8>) {
        let vips = vec![
            vip(Some("web.marathon"), 1, VipHealth::Fine, 3),
            vip(Some("api.marathon"), 2, VipHealth::Dead, 0),
            vip(None, 3, VipHealth::Impaired, 9),
        ];
        let live = Live::default().followed_by(Arc::new(Table { vips, ..Table::default() }));
        let rows = RowQuery::by(query).unwrap().rows(&live, "l4lb");
        let last = |row: &Row| match row.address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => 0,
        };
        (rows.matched, rows.vips.iter().map(last).collect())
    }

    #[test]
    fn rows_are_searched_filtered_ordered_and_cut() {
        for (query, matched, rows) in [
            ("", 3, &[2, 1, 3][..]),
            ("search=MARATHON", 2, &[2, 1]),
            ("search=w*b.marathon", 1, &[1]),
            ("search=11.0.0.3:80", 1, &[3]),
            ("search=no", 0, &[]),
            ("health=unhealthy", 2, &[2, 3]),
            ("health=fine", 1, &[1]),
            ("order=active", 3, &[3, 1, 2]),
            ("order=health", 3, &[2, 3, 1]),
            ("offset=1&limit=1", 3, &[1]),
            ("offset=9", 3, &[]),
            ("framework=marathon", 0, &[]),
        ] {
            assert_eq!(asked(query), (matched, rows.to_vec()), "{query}");
        }
        for (query, part) in [
            ("order=x", "must be name"),
            ("health=x", "must be fine"),
            ("limit=-1", "no number"),
            ("page=1", "unknown parameter"),
        ] {
            assert!(RowQuery::by(query).unwrap_err().contains(part), "{query}");
        }
    }

    #[test]
    fn the_list_of_the_original_has_its_shape() {
        let mut web = vip(Some("web.marathon"), 1, VipHealth::Fine, 0);
        let backend = |port, weight| crate::reconcile::figures::BackendFigures {
            address: ([10, 0, 0, 1], port).into(),
            weight,
            connections: Connections::default(),
            connects: None,
            traffic: None,
            traffic_at: None,
        };
        web.backends = vec![backend(31_000, 1), backend(31_001, 0)];
        let mut literal = vip(None, 2, VipHealth::Dead, 0);
        literal.key.address = "fd01:c::1".parse().unwrap();
        let page = FigurePage { vips: vec![web, literal], ..FigurePage::default() };
        let text = String::from_utf8(plain_text(&page, "l4lb.thisdcos.directory", true).unwrap()).unwrap();
        let expected = r#"[{"vip":"web.marathon.l4lb.thisdcos.directory:80","protocol":"tcp","backend":[{"ip":"10.0.0.1","port":31000}]},{"vip":"fd01:c::1:80","protocol":"tcp","backend":[]}"#;
        assert_eq!(text, expected);
    }
}
