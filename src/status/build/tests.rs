use super::*;
use crate::dataplane::Connections;
use crate::dataplane::firewall::Dropped;
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

#[test]
fn a_firewall_is_warned_of_with_the_commands_that_open_it() {
    let mut plan = Plan::default();
    let route = |net: &str| crate::dataplane::Route { destination: net.parse().unwrap(), source: None };
    plan.state.routes = ["11.0.0.0/8", "192.0.2.7/32"].map(route).into();
    plan.state.addresses = ["198.51.100.1".parse().unwrap()].into();
    let mut actual = Actual::default();
    let container = ("172.17.0.0/16".parse().unwrap(), "cni0".to_owned());
    let neighbour = ("10.0.0.0/24".parse().unwrap(), "eth0".to_owned());
    actual.node.inside = [container.0].into();
    actual.node.connected = [container, neighbour].into();
    assert_eq!(dropped_warning(&plan, &actual), None);

    let chain = Firewall::Nft { family: "inet".into(), table: "filter".into(), chain: "input".into() };
    let warned = |vips, dns, firewalls| {
        actual.dropped = Some(Dropped { vips, dns, firewalls });
        dropped_warning(&plan, &actual).unwrap()
    };
    let [by_ufw, by_nft, by_nobody] = [vec![Firewall::Ufw], vec![chain], vec![]].map({
        let mut warned = warned;
        move |firewalls| warned(true, firewalls.is_empty(), firewalls)
    });
    assert_eq!(
        by_ufw,
        "the firewall of this node (ufw) drops what containers send to VIPs, so that they get no answer; to let it \
         pass: ufw allow in on cni0 to 11.0.0.0/8 && ufw allow in on cni0 to 192.0.2.7 && \
         ufw allow in on cni0 to 198.51.100.1; see FIREWALLS in l4lbd-networks(7)"
    );
    assert!(by_nft.contains("(nftables, inet filter input)"), "{by_nft}");
    assert!(
        by_nft.contains(
            "nft insert rule inet filter input iifname cni0 ip daddr '{ 11.0.0.0/8, 192.0.2.7, 198.51.100.1 }' accept;"
        ),
        "{by_nft}"
    );
    assert!(by_nobody.starts_with("this node drops what containers send to VIPs and to the DNS server"));
}
