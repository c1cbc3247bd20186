//! Metrics of VIPs and their backends.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use jiff::Timestamp;

use crate::cluster::{Protocol, shortened};
use crate::dataplane::ServiceKey;
use crate::dataplane::connects::{Connects, LatencyClass};
use crate::dataplane::traffic::Traffic;
use crate::metrics::bulk::LabelText;
use crate::metrics::histogram::Counts;
use crate::metrics::{Collect, Family, Writer};
use crate::reconcile::figures::{BackendFigures, VipFigures};
use crate::status::text::escape::escaped;

/// Labels of a VIP.
const VIP: &[&str] = &["vip", "protocol", "address"];

/// Labels of a backend.
const BACKEND: &[&str] = &["vip", "protocol", "address", "backend"];

const VIPS: Family = Family::gauge("l4lbd_vips", &[], "VIPs of this node, one for each address and port");
const DEAD: Family =
    Family::gauge("l4lbd_vips_without_backend", &[], "VIPs without a backend that gets new connections");
const LEASES: Family = Family::gauge(
    "l4lbd_leases",
    &["family"],
    "Addresses that names have, those kept for names that went too",
);
const READ_AT: Family = Family::gauge(
    "l4lbd_kernel_read_timestamp_seconds",
    &[],
    "Time at which connections were last counted, which every audit does (dataplane.audit)",
);
const TAKEN_AT: Family = Family::gauge(
    "l4lbd_figures_timestamp_seconds",
    &[],
    "Time of the figures of VIPs; they are those of an earlier answer while a change of the kernel takes long",
);
const ALL: Family =
    Family::gauge("l4lbd_vip_backends", VIP, "Backends of a VIP, those without new connections too");
const READY: Family =
    Family::gauge("l4lbd_vip_ready_backends", VIP, "Backends of a VIP that get new connections");
const ACTIVE: Family = Family::gauge(
    "l4lbd_vip_active_connections",
    VIP,
    "Established connections to a VIP, as of l4lbd_kernel_read_timestamp_seconds",
);
const CONNECTIONS: Family = Family::counter(
    "l4lbd_vip_connections",
    VIP,
    "New connections to a VIP, or flows of datagrams with the data plane ipvs. It starts again at 0 with the VIP in \
     the kernel",
);
const PACKETS: Family = Family::counter(
    "l4lbd_vip_packets",
    &["vip", "protocol", "address", "direction"],
    "Packets from clients (in) and to clients (out); with the data plane ipvs only",
);
const BYTES: Family = Family::counter(
    "l4lbd_vip_bytes",
    &["vip", "protocol", "address", "direction"],
    "Bytes from clients (in) and to clients (out); with the data plane ipvs only",
);
const CONNECTS: Family = Family::counter(
    "l4lbd_vip_connects",
    &["vip", "protocol", "address", "outcome"],
    "Connects to a VIP that ended: outcome is established, refused or timed_out; with the data plane ebpf only",
);
const RETRANSMISSIONS: Family = Family::counter(
    "l4lbd_syn_retransmissions",
    &[],
    "SYNs to all VIPs that were sent again; with the data plane ebpf only",
);
const LATENCY: Family = Family::histogram(
    "l4lbd_connect_duration_seconds",
    &[],
    "Time of established connects to all VIPs, whose sum is an estimate; with the data plane ebpf only",
);
const DETAILED: Family = Family::gauge(
    "l4lbd_detailed_vips",
    &[],
    "VIPs whose backends have series of their own, at most http.backends",
);
const WEIGHT: Family = Family::gauge(
    "l4lbd_backend_weight",
    BACKEND,
    "Share of new connections of a backend; 0 if it gets none",
);
const BACKEND_ACTIVE: Family = Family::gauge(
    "l4lbd_backend_active_connections",
    BACKEND,
    "Established connections to a backend, as of l4lbd_kernel_read_timestamp_seconds. The series with the backend \
     \"other\" has the sum over VIPs beyond http.backends",
);
const BACKEND_INACTIVE: Family = Family::gauge(
    "l4lbd_backend_inactive_connections",
    BACKEND,
    "Other connections to a backend, such as those that are closing, in the same way",
);
const BACKEND_CONNECTS: Family = Family::counter(
    "l4lbd_backend_connects",
    &["vip", "protocol", "address", "backend", "outcome"],
    "Connects to a backend that ended, as of a VIP; with the data plane ebpf only",
);

const BACKEND_CONNECTIONS: Family = Family::counter(
    "l4lbd_backend_connections",
    BACKEND,
    "New connections to a backend as of a VIP, or flows of datagrams; with the data plane ipvs only, as of \
     l4lbd_vip_backends_read_timestamp_seconds",
);
const BACKEND_BYTES: Family = Family::counter(
    "l4lbd_backend_bytes",
    &["vip", "protocol", "address", "backend", "direction"],
    "Bytes from clients (in) and to clients (out) of a backend as of a VIP, in the same way",
);
const BACKENDS_READ_AT: Family = Family::gauge(
    "l4lbd_vip_backends_read_timestamp_seconds",
    VIP,
    "Time at which the counters of the backends of a VIP were read, which audits do one VIP after the other; with \
     the data plane ipvs only",
);

/// Value of labels for what has no series of its own.
const OTHER: &str = "other";

/// Figures of one scrape.
#[derive(Default)]
pub struct Table {
    pub vips: Vec<VipFigures>,
    /// The chosen VIPs, with their backends.
    pub detailed: Vec<VipFigures>,
    /// `None` if the plane has none, or the kernel did not answer.
    pub traffic: Option<BTreeMap<ServiceKey, Traffic>>,
    pub read_at: Option<Timestamp>,
    pub leases: [usize; 2],
    /// `None` before the first figures.
    pub taken_at: Option<Timestamp>,
}

/// Returns the labels of a VIP.
fn labels(vip: &VipFigures) -> LabelText {
    let key = &vip.key;
    let text = match &vip.name {
        // Names are made of letters, digits, dots and dashes, but nothing here depends on it.
        Some(name) => format!("{}:{}", escaped(&shortened(name.clone())), key.port),
        None => SocketAddr::new(key.address, key.port).to_string(),
    };
    let protocol = match key.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    LabelText::new([("vip", &text), ("protocol", protocol), ("address", &key.address.to_string())])
}

/// Returns the ended ones of connects by their outcome.
fn outcomes(connects: &Connects) -> [(&'static str, u64); 3] {
    [("established", connects.established), ("refused", connects.refused), ("timed_out", connects.timed_out)]
}

fn timestamp(time: Option<Timestamp>) -> Option<f64> {
    time.map(|time| time.as_millisecond() as f64 / 1e3)
}

impl Collect for Table {
    fn collect(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        let is_known = self.taken_at.is_some();
        let number = |number: usize| is_known.then_some(number as f64);
        writer.gauge(VIPS, number(self.vips.len()))?;
        writer.gauge(DEAD, number(self.vips.iter().filter(|vip| vip.ready == 0).count()))?;
        writer.family(LEASES, |samples| {
            let families = ["ipv4", "ipv6"].into_iter().zip(self.leases).filter(|_| is_known);
            families.into_iter().try_for_each(|(family, leases)| samples.number([family], leases as u64))
        })?;
        writer.gauge(READ_AT, timestamp(self.read_at))?;
        writer.gauge(TAKEN_AT, timestamp(self.taken_at))?;
        writer.gauge(DETAILED, self.taken_at.map(|_| self.detailed.len() as f64))?;
        self.collect_totals(writer)?;
        self.collect_vips(writer);
        self.collect_backends(writer);
        Ok(())
    }
}

impl Table {
    fn collect_vips(&self, writer: &mut Writer<'_, '_>) {
        let labels: Vec<LabelText> = self.vips.iter().map(labels).collect();
        let vips = || labels.iter().zip(&self.vips);
        writer.bulk(ALL, vips().map(|(labels, vip)| (labels, vip.all as u64)));
        writer.bulk(READY, vips().map(|(labels, vip)| (labels, vip.ready as u64)));
        writer.bulk(ACTIVE, vips().map(|(labels, vip)| (labels, vip.connections.active.into())));
        // Both are in the order of their keys.
        let mut counted = self.traffic.iter().flatten().peekable();
        let traffic: Vec<Option<Traffic>> = self
            .vips
            .iter()
            .map(|vip| {
                while counted.next_if(|(key, _)| **key < vip.key).is_some() {}
                counted.next_if(|(key, _)| **key == vip.key).map(|(_, traffic)| *traffic)
            })
            .collect();
        let connections = vips().zip(&traffic).filter_map(|((labels, vip), traffic)| {
            let connects = vip.connects.as_ref().map(|connects| connects.connects.begun);
            Some((labels, traffic.map(|traffic| traffic.connections).or(connects)?))
        });
        writer.bulk(CONNECTIONS, connections);
        let direction = |name| labels.iter().map(move |labels| labels.with("direction", name));
        let both: Vec<(LabelText, LabelText)> = match &self.traffic {
            Some(_) => direction("in").zip(direction("out")).collect(),
            None => Vec::new(),
        };
        let mut directions = |family, numbers: fn(&Traffic) -> [u64; 2]| {
            let samples = both.iter().zip(&traffic).flat_map(|((input, output), traffic)| {
                let numbers = traffic.as_ref().map(numbers);
                [input, output].into_iter().zip(numbers.into_iter().flatten())
            });
            writer.bulk(family, samples);
        };
        directions(PACKETS, |traffic| [traffic.in_packets, traffic.out_packets]);
        directions(BYTES, |traffic| [traffic.in_bytes, traffic.out_bytes]);
        let connects: Vec<(LabelText, u64)> = vips()
            .filter_map(|(labels, vip)| Some((labels, outcomes(&vip.connects.as_ref()?.connects))))
            .flat_map(|(labels, outcomes)| {
                outcomes.map(|(outcome, number)| (labels.with("outcome", outcome), number))
            })
            .collect();
        writer.bulk(CONNECTS, connects.iter().map(|(labels, number)| (labels, *number)));
    }

    fn collect_totals(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        let seen = || self.vips.iter().filter_map(|vip| vip.connects.as_ref());
        let is_seen = seen().next().is_some();
        writer.family(RETRANSMISSIONS, |samples| {
            let total = seen().map(|connects| connects.connects.syn_retransmissions).sum();
            if is_seen { samples.counter([], total) } else { Ok(()) }
        })?;
        writer.family(LATENCY, |samples| {
            let counts = latency(seen().flat_map(|connects| &connects.latency));
            if is_seen { samples.histogram([], &counts) } else { Ok(()) }
        })
    }

    fn collect_backends(&self, writer: &mut Writer<'_, '_>) {
        let backends: Vec<(LabelText, &BackendFigures)> = self
            .detailed
            .iter()
            .flat_map(|vip| {
                let labels = labels(vip);
                vip.backends
                    .iter()
                    .map(move |backend| (labels.with("backend", &backend.address.to_string()), backend))
            })
            .collect();
        let backends = || backends.iter().map(|(labels, figures)| (labels, *figures));
        // Both are in the order of their keys.
        let mut chosen = self.detailed.iter().map(|vip| vip.key).peekable();
        let is_other = |vip: &&VipFigures| {
            while chosen.next_if(|key| *key < vip.key).is_some() {}
            chosen.peek() != Some(&vip.key)
        };
        let others: Vec<&VipFigures> = self.vips.iter().filter(is_other).collect();
        let other = LabelText::new([("vip", OTHER), ("protocol", ""), ("address", ""), ("backend", OTHER)]);
        let sum = |count: fn(&VipFigures) -> u32| {
            let sum = others.iter().map(|vip| u64::from(count(vip))).sum();
            (!others.is_empty()).then_some((&other, sum))
        };
        writer.bulk(WEIGHT, backends().map(|(labels, figures)| (labels, figures.weight.into())));
        let active = backends().map(|(labels, figures)| (labels, figures.connections.active.into()));
        writer.bulk(BACKEND_ACTIVE, active.chain(sum(|vip| vip.connections.active)));
        let inactive = backends().map(|(labels, figures)| (labels, figures.connections.inactive.into()));
        writer.bulk(BACKEND_INACTIVE, inactive.chain(sum(|vip| vip.connections.inactive)));
        self.collect_backend_traffic(writer);
        let mut total: Option<Connects> = None;
        for connects in others.iter().filter_map(|vip| vip.connects.as_ref()) {
            *total.get_or_insert_default() += connects.connects;
        }
        let each = backends().filter_map(|(labels, figures)| Some((labels, figures.connects?)));
        let connects: Vec<(LabelText, u64)> = each
            .chain(total.map(|total| (&other, total)))
            .flat_map(|(labels, connects)| {
                outcomes(&connects).map(|(outcome, number)| (labels.with("outcome", outcome), number))
            })
            .collect();
        writer.bulk(BACKEND_CONNECTS, connects.iter().map(|(labels, number)| (labels, *number)));
    }
}

impl Table {
    /// Writes the counters of backends of a plane that sees packets.
    fn collect_backend_traffic(&self, writer: &mut Writer<'_, '_>) {
        let read_at = self.detailed.iter().filter_map(|vip| {
            let at = vip.backends.iter().find_map(|backend| backend.traffic_at)?;
            Some((labels(vip), u64::try_from(at.as_second()).unwrap_or_default()))
        });
        let read_at: Vec<(LabelText, u64)> = read_at.collect();
        writer.bulk(BACKENDS_READ_AT, read_at.iter().map(|(labels, at)| (labels, *at)));
        let counted: Vec<(LabelText, Traffic)> = self
            .detailed
            .iter()
            .flat_map(|vip| {
                let labels = labels(vip);
                let counted =
                    vip.backends.iter().filter_map(|backend| Some((backend.address, backend.traffic?)));
                counted.map(move |(address, traffic)| (labels.with("backend", &address.to_string()), traffic))
            })
            .collect();
        writer
            .bulk(BACKEND_CONNECTIONS, counted.iter().map(|(labels, traffic)| (labels, traffic.connections)));
        let bytes = |(labels, traffic): &(LabelText, Traffic)| {
            [("in", traffic.in_bytes), ("out", traffic.out_bytes)]
                .map(|(name, number)| (labels.with("direction", name), number))
        };
        let bytes: Vec<(LabelText, u64)> = counted.iter().flat_map(bytes).collect();
        writer.bulk(BACKEND_BYTES, bytes.iter().map(|(labels, number)| (labels, *number)));
    }
}

/// Returns the classes of all VIPs together. The kernel keeps no sum, so that each connect counts with three quarters
/// of its bound: it took between half of it and all of it.
fn latency<'c>(classes: impl Iterator<Item = &'c LatencyClass>) -> Counts {
    let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
    for LatencyClass { below_us, connects } in classes {
        *sums.entry(below_us.unwrap_or(u64::MAX)).or_default() += connects;
    }
    let longest = sums.keys().copied().filter(|bound| *bound < u64::MAX).max().unwrap_or_default();
    // The class without a bound begins where the last one ends.
    let seconds =
        |bound: u64| if bound == u64::MAX { longest as f64 / 1e6 } else { bound as f64 * 0.75 / 1e6 };
    let sum = sums.iter().fold(0.0, |sum, (bound, connects)| sum + seconds(*bound) * *connects as f64);
    let beyond = sums.remove(&u64::MAX).unwrap_or_default();
    let bounded = sums.into_iter().map(|(bound, connects)| (bound as f64 / 1e6, connects));
    Counts { sum, buckets: bounded.chain([(f64::INFINITY, beyond)]).collect() }
}
