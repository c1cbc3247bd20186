//! Screens of 80 columns and 24 lines.

use jiff::Timestamp;

use super::*;
use crate::cluster::Protocol;
use crate::status::{Backend, Node, Source};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn vip(number: usize, conditions: &[Condition]) -> Vip {
    let backend = |(last, condition): (usize, &Condition)| Backend {
        address: [10, 0, (number % 250) as u8, last as u8].into(),
        port: 31_000,
        weight: u32::from(matches!(condition, Condition::Ready | Condition::Unreachable)),
        condition: Some(*condition),
        until: None,
        task: format!("app-{number}.{last}"),
        agent: "S1".to_owned(),
        connections: None,
        connects: None,
        ejected: None,
        traffic: None,
        share: None,
    };
    Vip {
        name: Some(format!("app-{number}.marathon.l4lb.thisdcos.directory")),
        protocol: Protocol::Tcp,
        address: [11, 0, (number / 250) as u8, (number % 250) as u8].into(),
        port: 80,
        scheduler: None,
        connects: None,
        no_ejection: false,
        backends: conditions.iter().enumerate().map(backend).collect(),
    }
}

fn status(vips: Vec<Vip>, reasons: &[&str]) -> Status {
    let mut status = Status {
        version: "1.2.3".to_owned(),
        node: Node { hostname: "node-1".to_owned(), address: Some([10, 0, 0, 9].into()), ..Node::default() },
        source: Source {
            place: "http://10.0.0.11:5050/master/state".to_owned(),
            good_at: Some(at(998)),
            ..Source::default()
        },
        vips,
        at: at(1000),
        ..Status::default()
    };
    status.note_reasons(reasons.iter().map(|reason| (*reason).to_owned()).collect(), at(880));
    status
}

fn shown(status: &Status, size: Option<(usize, usize)>) -> Vec<String> {
    let lines = overview(status, Screen { size, lists_all: false });
    lines.into_iter().map(|line| line.text).collect()
}

use Condition::{Gone, Ready, Unhealthy};

#[test]
fn a_large_table_with_many_troubles_is_told_on_one_screen() {
    let mut vips: Vec<Vip> = (0..10_000).map(|number| vip(number, &[Ready, Ready])).collect();
    vips[7_000] = vip(7_000, &[Unhealthy, Unhealthy, Gone]);
    vips[8_000] = vip(8_000, &[Ready, Unhealthy]);
    vips[9_999] = vip(9_999, &[]);
    let long = format!("kernel: {}", "the kernel refused a part of it ".repeat(20));
    let reasons = ["source: the state is 2m old: no answer", &long, "store: full", "dns: in use", "held: x"];
    let lines = shown(&status(vips, &reasons), Some((80, 24)));
    assert!(lines.len() <= 23, "{lines:#?}");
    assert!(lines.iter().all(|line| line.width() <= 80), "{lines:#?}");
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_small_table_is_shown_with_its_backends_the_worst_first() {
    let vips = vec![vip(1, &[Ready, Ready]), vip(2, &[Unhealthy])];
    insta::assert_snapshot!(shown(&status(vips, &[]), Some((120, 24))).join("\n"));
}

#[test]
fn more_unwell_vips_than_fit_are_counted() {
    let vips = (0..100).map(|number| vip(number, &[Unhealthy])).collect();
    let lines = shown(&status(vips, &[]), Some((80, 24)));
    assert!(lines.len() <= 23 && lines.last().unwrap().contains("more VIPs are not well"), "{lines:#?}");
}

#[test]
fn in_a_pipe_nothing_is_cut() {
    let long = format!("kernel: {}", "x".repeat(500));
    let mut status = status(vec![vip(1, &[Ready])], &[&long]);
    status.warnings = vec!["first".to_owned(), "second".to_owned()];
    let lines = shown(&status, None);
    assert!(lines.iter().any(|line| line.contains(&long)), "{lines:#?}");
    assert!(
        lines.ends_with(&["WARNINGS (2)".to_owned(), "  first".to_owned(), "  second".to_owned()]),
        "{lines:#?}"
    );
}

#[test]
fn text_of_tenants_is_escaped_and_cut_by_what_is_shown() {
    let mut one = vip(1, &[Ready]);
    one.name = Some("\x1b[2J日本".to_owned());
    let lines = shown(&status(vec![one], &["held: \x07bell"]), Some((40, 24)));
    assert!(lines.iter().all(|line| !line.contains(char::is_control) && line.width() <= 40), "{lines:#?}");
}

#[test]
fn words_stay_whole_where_they_fit() {
    assert_eq!(wrap("one two three", 8, 2), ["one two", "  three"]);
    assert_eq!(wrap("a b c d e f g h", 5, 2), ["a b c", "  d …"]);
    assert_eq!(wrap("abcdefghij", 4, 0), ["abcd", "efg…"]);
    assert_eq!(wrap("日本日本", 4, 0), ["日本", "日本"]);
}
