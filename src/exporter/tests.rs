//! What is exported, against the manual; `tests/monitoring` has promtool look at it.

use std::collections::BTreeSet;
use std::fs;

use super::*;
use crate::dataplane::ServiceKey;
use crate::dataplane::traffic::Traffic;
use crate::reconcile::figures::VipFigures;
use crate::status::document::tests::{Planned, names};
use crate::vip::{Tenant, Tenants};

/// Traffic of these services.
struct Counted(Vec<ServiceKey>);

impl ReadTraffic for Counted {
    fn read(&mut self) -> Result<std::collections::BTreeMap<ServiceKey, Traffic>, String> {
        let traffic =
            Traffic { connections: 3, in_packets: 30, out_packets: 20, in_bytes: 300, out_bytes: 1 << 40 };
        Ok(self.0.iter().map(|key| (*key, traffic)).collect())
    }
}

/// Scrapes a daemon with these VIPs, of which some have their backends told.
async fn scraped(planned: Planned, detailed: usize) -> String {
    let (questions, mut asked) = mpsc::channel(1);
    let (_statuses, status_receiver) = watch::channel(Arc::default());
    let keys = planned.view().plan.desired.services.keys().copied().collect();
    let exporter = Exporter::new(
        ExporterSettings { detailed },
        Inputs {
            parts: vec![
                Arc::<SourceMetrics>::default(),
                Arc::<PassMetrics>::default(),
                Arc::<DnsMetrics>::default(),
            ],
            questions,
            statuses: status_receiver,
            dns_usage: UsageRegistry::default(),
            traffic: Some(Box::new(Counted(keys))),
        },
    );
    let answering = async {
        while let Some(question) = asked.recv().await {
            let Question::Figures { wanted, answer } = question else { panic!("{question:?}") };
            answer.send(planned.view().page(&wanted)).unwrap();
        }
        unreachable!("the exporter goes on asking")
    };
    let text = tokio::select! {
        text = exporter.scrape(Format::Prometheus) => text.unwrap(),
        () = answering => unreachable!(),
    };
    String::from_utf8(text.to_vec()).unwrap()
}

/// Returns the names of the families that a text in Prometheus' form declares.
fn declared(text: &str) -> Vec<&str> {
    let declared = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    declared.map(|(name, _)| name).collect()
}

#[tokio::test]
async fn every_exported_metric_is_in_the_manual_and_no_other() {
    let text = scraped(Planned::new(&names(3)), 10).await;
    let mut exported: Vec<String> = declared(&text).into_iter().map(str::to_owned).collect();
    let mut known: Vec<String> = families().unwrap().iter().map(Family::exposed).collect();
    // Those with many samples are last in the text.
    exported.sort_unstable();
    known.sort_unstable();
    assert_eq!(exported, known);
    assert_eq!(BTreeSet::from_iter(&known).len(), known.len(), "each once");
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/man/l4lbd-metrics.7")).unwrap();
    let tags = page.lines().filter_map(|line| line.strip_prefix(".BR ")?.split_once(" \" ("));
    let described: BTreeSet<&str> = tags.map(|(name, _)| name).collect();
    assert_eq!(described, known.iter().map(String::as_str).collect());
}

#[tokio::test]
async fn a_vip_has_all_its_figures() {
    let text = scraped(Planned::new(&["/web:80".to_owned()]), 10).await;
    let labels = "vip=\"web.marathon:80\",protocol=\"tcp\",address=\"";
    let of_vip: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(labels))
        .map(|line| line.split('{').next().unwrap())
        .collect();
    let expected = [
        "l4lbd_vip_backends",
        "l4lbd_vip_ready_backends",
        "l4lbd_vip_active_connections",
        "l4lbd_vip_connections_total",
        "l4lbd_vip_packets_total",
        "l4lbd_vip_bytes_total",
        "l4lbd_backend_weight",
        "l4lbd_backend_active_connections",
        "l4lbd_backend_inactive_connections",
    ];
    assert_eq!(of_vip, BTreeSet::from(expected));
    assert!(
        text.contains("direction=\"out\"} 1099511627776\n")
            && text.contains("backend=\"10.0.0.2:1000\"} 1\n"),
        "{text}"
    );
    assert!(!text.contains("backend=\"other\""), "{text}");
}

#[tokio::test]
async fn backends_beyond_the_bound_are_summed_up() {
    let text = scraped(Planned::new(&names(30)), 10).await;
    let weights = text.lines().filter(|line| line.starts_with("l4lbd_backend_weight{")).count();
    assert_eq!(weights, 10);
    let other =
        "l4lbd_backend_active_connections{vip=\"other\",protocol=\"\",address=\"\",backend=\"other\"} 0\n";
    assert!(text.contains(other) && text.contains("\nl4lbd_detailed_vips 10\n"), "{text}");
    let vips = text.lines().filter(|line| line.starts_with("l4lbd_vip_backends{")).count();
    assert_eq!(vips, 30, "each VIP has its own figures");
}

/// Figures of a VIP of this app.
fn vip(number: u8, app: &str) -> VipFigures {
    let tenant = Tenant { framework: "f".into(), name: "marathon".into(), app: app.into() };
    VipFigures {
        key: ServiceKey {
            protocol: crate::cluster::Protocol::Tcp,
            address: [11, 0, 0, number].into(),
            port: 80,
        },
        name: None,
        tenants: Tenants::from(tenant),
        ready: 1,
        all: 1,
        health: crate::status::health::VipHealth::Fine,
        connections: crate::dataplane::Connections::default(),
        connects: None,
        backends: Vec::new(),
    }
}

#[test]
fn an_app_with_many_vips_leaves_room_for_others() {
    let mut vips: Vec<VipFigures> = (0..20).map(|number| vip(number, "/greedy")).collect();
    vips.push(vip(200, "/small"));
    let choice = Choice::new(&vips, 5);
    assert!(choice.is_of(&vips));
    let chosen = choice.chosen;
    let addresses: Vec<String> = chosen.iter().map(|key| key.address.to_string()).collect();
    assert_eq!(addresses, ["11.0.0.0", "11.0.0.1", "11.0.0.2", "11.0.0.3", "11.0.0.200"]);
    // One more at the end changes nothing of it.
    vips.insert(20, vip(100, "/greedy"));
    assert_eq!(Choice::new(&vips, 5).chosen, chosen);
    assert_eq!(Choice::new(&vips, 100).chosen.len(), 22);
}
