use std::sync::Arc;

use super::*;
use crate::cluster::{Protocol, Skipped};
use crate::dataplane::connects::Ejected;
use crate::dataplane::{Connections, Foreign};
use crate::dns::DnsState;
use crate::dns::usage::Usage;
use crate::plan::shares::SharedUse;
use crate::source::Failure;
use crate::status::Node;
use crate::status::pass::{Cause, Change};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn backend(last: u8, condition: Condition, connections: (u32, u32)) -> Backend {
    Backend {
        address: [10, 0, 0, last].into(),
        port: 31000 + u16::from(last),
        weight: u32::from(matches!(condition, Condition::Ready | Condition::Unreachable)),
        condition: Some(condition),
        until: (condition == Condition::Gone).then(|| at(1041)),
        task: format!("web.{last}"),
        agent: format!("S{last}"),
        connections: Some(Connections { active: connections.0, inactive: connections.1 }),
        connects: None,
        ejected: None,
        traffic: None,
        share: None,
    }
}

fn status() -> Status {
    let vip = |name: Option<&str>, address: [u8; 4], backends| Vip {
        name: name.map(str::to_owned),
        protocol: Protocol::Tcp,
        address: address.into(),
        port: 80,
        scheduler: None,
        connects: None,
        no_ejection: false,
        backends,
    };
    let vips = vec![
        vip(
            Some("web.marathon.l4lb.thisdcos.directory"),
            [11, 225, 36, 193],
            vec![
                backend(1, Condition::Ready, (12, 3)),
                backend(2, Condition::Unhealthy, (0, 0)),
                backend(3, Condition::Gone, (1, 0)),
            ],
        ),
        Vip { scheduler: Some("mh".to_owned()), ..vip(None, [10, 9, 8, 7], Vec::new()) },
    ];
    Status {
        version: "1.2.3".to_owned(),
        node: Node { hostname: "node-1".to_owned(), address: Some([10, 0, 0, 9].into()), ..Node::default() },
        source: Source {
            configured: vec!["http://10.0.0.11:5050".to_owned()],
            place: "http://10.0.0.11:5050/master/state".to_owned(),
            master: Some("M".to_owned()),
            good_at: Some(at(998)),
            pace: "every 2s".to_owned(),
            agents: 3,
            tasks: 4,
            ..Source::default()
        },
        pass: Pass {
            at: Some(at(1000)),
            seconds: 0.0041,
            operations: 5,
            changed_at: Some(at(940)),
            change: Some(Change {
                cause: Cause::Cluster,
                services: 2,
                beside_services: true,
                read_seconds: 0.0012,
                plan_seconds: 0.0008,
                apply_seconds: 0.0021,
            }),
            ..Pass::default()
        },
        dns: DnsState { addresses: vec!["198.51.100.1:53".parse().unwrap()], ..DnsState::default() },
        vips,
        at: at(1000),
        ..Status::default()
    }
}

fn text(status: &Status) -> String {
    let mut text = Vec::new();
    write_status(&mut text, status).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_good_status() {
    insta::assert_snapshot!(text(&status()));
}

#[test]
fn a_degraded_status_has_its_reasons_first() {
    let failure = Failure { error: "no answer".to_owned(), at: at(990), attempts: 3 };
    let mut status = Status {
        degraded: true,
        reasons: vec!["source: the state is 2m old: no answer".to_owned()],
        warnings: vec!["a warning".to_owned()],
        skipped: Arc::new(vec![Skipped {
            task: "odd.1".to_owned(),
            label: Some("VIP_0".to_owned()),
            value: Some("x".to_owned()),
            reason: "no port".to_owned(),
            ..Skipped::default()
        }]),
        skipped_total: 7,
        foreign: vec![Foreign { service: "fwmark 7".to_owned(), key: None }],
        dns: DnsState::default(),
        ..status()
    };
    status.dns.usage = vec![Usage {
        name: "forwarded questions".to_owned(),
        used: 780,
        limit: 1024,
        clients: 2,
        share: 341,
        largest: Some(("172.17.0.2".to_owned(), 768)),
        refused: 12,
        displaced: 0,
    }];
    status.source.failure = Some(failure);
    status.pass.repaired = 2;
    status.pass.repaired_at = Some(at(995));
    status.pass.pending = 17;
    insta::assert_snapshot!(text(&status));
}

#[test]
fn before_the_first_document() {
    let status = Status {
        source: Source { configured: vec!["file:/x".to_owned()], ..Source::default() },
        ..Status::default()
    };
    insta::assert_snapshot!(text(&status));
}

#[test]
fn text_of_tenants_stays_in_its_line_and_cell() {
    let evil = "\x1b[2J\x07\nok: all is well\u{202e}";
    let mut status = status();
    let vips = &mut status.vips;
    vips[0].name = Some(format!("日本{evil}"));
    vips[0].backends[0].task = format!("web.1{evil}");
    vips[0].backends[1].agent = format!("S{evil}");
    status.source.master = Some(evil.to_owned());
    status.reasons = vec![evil.to_owned()];
    status.warnings = vec![evil.to_owned()];
    status.skipped = Arc::new(vec![Skipped { reason: evil.to_owned(), ..Skipped::default() }]);
    let text = text(&status);
    assert!(!text.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{text}");
    assert!(!text.lines().any(|line| line.trim_start().starts_with("ok: all")), "{text}");
    assert_eq!(text.matches(r"\u{1b}[2J\u{7}\u{a}ok: all is well\u{202e}").count(), 7, "{text}");
    // Columns are aligned by what is shown.
    let start_of_state = |line: &str| {
        let start = ["STATE ", "ready ", "unhealthy "].iter().find_map(|state| line.find(state))?;
        Some(line[..start].width())
    };
    let states: Vec<usize> = text.lines().filter_map(start_of_state).collect();
    assert!(states.len() == 3 && states.iter().all(|column| *column == states[0]), "{text}");
}

#[test]
fn the_use_of_what_tenants_share_is_listed() {
    let shared = |name: &str, used, limit| SharedUse { name: name.to_owned(), used, limit, largest: None };
    let status = Status {
        shared: vec![shared("VIPs", 24, 32_768), shared("backends in the eBPF maps", 70, 262_144)],
        ..status()
    };
    let expected = "shared   VIPs: 24 of 32768\n         backends in the eBPF maps: 70 of 262144\n";
    assert!(text(&status).contains(expected), "{}", text(&status));
}

#[test]
fn ejected_backends_are_told_with_their_condition() {
    let mut status = status();
    let of = |namespaces| Some(Ejected { namespaces, left_ms: 900 });
    status.vips[0].backends[0].ejected = of(1);
    status.vips[0].backends[1].ejected = of(3);
    status.pass.ejected = 2;
    let text = text(&status);
    assert!(text.contains("ready, ejected for 1 network namespace "), "{text}");
    assert!(text.contains("unhealthy, ejected for 3 network namespaces "), "{text}");
    assert!(text.contains(", 2 backends ejected by clients"), "{text}");
}
