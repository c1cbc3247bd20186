use super::*;
use crate::dataplane::Connections;
use crate::dns::usage::Usage;
use crate::source::Failure;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn key() -> ServiceKey {
    ServiceKey { protocol: crate::cluster::Protocol::Tcp, address: [11, 0, 0, 1].into(), port: 80 }
}

fn failed(count: usize) -> PassReport {
    let error = |number| OpError { op: Op::DelService(key()), error: format!("refused {number}") };
    PassReport { failed: (0..count).map(error).collect(), ..PassReport::default() }
}

/// Reasons at second 100 of a daemon whose source was good at `good`.
fn listed(good: Option<i64>, failure: Option<&str>, report: &PassReport, store: Option<&str>) -> Vec<String> {
    let mut status = Status::default();
    status.source.good_at = good.map(at);
    status.source.failure = failure.map(|error| Failure { error: error.to_owned(), at: at(90), attempts: 2 });
    status.pass.errors = first_errors(&report.failed);
    reasons(&status, None, None, report, store, at(100))
}

#[test]
fn a_daemon_that_works_has_no_reason() {
    assert_eq!(listed(Some(99), None, &failed(0), None), [""; 0]);
}

#[test]
fn reasons_come_in_the_order_of_their_weight() {
    assert_eq!(
        listed(Some(40), Some("no answer"), &failed(3), Some("disk full")),
        [
            "source: the state is 1m old: no answer",
            "kernel: delete service tcp 11.0.0.1:80: refused 0 (and 2 more)",
            "store: disk full",
        ]
    );
    assert_eq!(listed(None, None, &failed(0), None), ["source: waiting for the first state"]);
    assert_eq!(
        listed(None, Some("no answer"), &failed(1), None),
        [
            "source: there was no state since the start: no answer",
            "kernel: delete service tcp 11.0.0.1:80: refused 0",
        ]
    );
}

#[test]
fn the_age_of_the_state_is_said_while_an_answer_is_late() {
    let mut status = Status::default();
    status.source.good_at = Some(at(91));
    status.source.overdue = Some("http://m:5050 has not answered for 3 intervals, asked every 2s".to_owned());
    assert_eq!(
        reasons(&status, None, None, &failed(0), None, at(100)),
        ["source: the state is 9s old: http://m:5050 has not answered for 3 intervals, asked every 2s"]
    );
}

#[test]
fn what_clients_of_dns_share_is_told_before_it_is_full() {
    let mut status = Status::default();
    status.source.good_at = Some(at(99));
    let usage =
        |used| Usage { name: "forwarded questions".to_owned(), used, limit: 1024, ..Usage::default() };
    let mut listed = |used| {
        status.dns.usage = vec![usage(used)];
        reasons(&status, None, None, &failed(0), None, at(100))
    };
    assert_eq!(listed(767), [""; 0]);
    assert!(listed(768)[0].contains("forwarded questions: 768 of 1024"), "{:?}", listed(768));
}

#[test]
fn errors_that_are_listed_are_bounded() {
    assert_eq!(first_errors(&failed(SHOWN_ERRORS + 5).failed).len(), SHOWN_ERRORS);
}

#[test]
fn a_small_connection_table_is_warned_of_only_with_many_connections() {
    let server = "10.0.0.1:80".parse().unwrap();
    let warned = |buckets, active| {
        let mut actual = Actual::default();
        actual.node.connection_buckets = buckets;
        actual.connections.insert((key(), server), Connections { active, inactive: 0 });
        conntab_warning(&actual).is_some()
    };
    assert!(warned(Some(1 << 12), 25_000));
    assert!(!warned(Some(1 << 12), 15_000) && !warned(Some(1 << 20), 25_000) && !warned(None, 25_000));
}
