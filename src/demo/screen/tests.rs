use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::dataplane::Connections;
use crate::demo::client::{NAME, Record};
use crate::status::{Backend, Vip};
use crate::task::Protocol;
use crate::vip::Condition;

fn backend(number: u8, task: &str, condition: Condition, active: u32) -> Backend {
    Backend {
        address: IpAddr::from([10, 77, 0, 10 + number]),
        port: 31_000 + u16::from(number),
        weight: u32::from(condition == Condition::Ready),
        condition: Some(condition),
        until: None,
        task: task.into(),
        agent: "S1".into(),
        connections: Some(Connections { active, inactive: 120 }),
    }
}

fn status() -> Status {
    let vip = Vip {
        name: Some(NAME.into()),
        protocol: Protocol::Tcp,
        address: IpAddr::from([11, 225, 36, 193]),
        port: 80,
        scheduler: None,
        backends: vec![
            backend(1, "web-v1.1", Condition::Ready, 3),
            backend(2, "web-v1.2", Condition::Unhealthy, 1),
            backend(3, "web-v1.3", Condition::Ready, 0),
        ],
    };
    Status { vips: Arc::new(vec![vip]), at: Timestamp::UNIX_EPOCH, ..Status::default() }
}

fn tally() -> Tally {
    let mut tally = Tally::default();
    for number in 0..40 {
        let by = if number % 4 == 0 { "web-v1.3" } else { "web-v1.1" };
        tally.take(
            Record::Answered { by: by.into(), micros: 150, remembered: number < 2 },
            Duration::from_secs(20),
        );
    }
    tally.take(Record::Kept { by: "web-v1.1".into() }, Duration::from_secs(20));
    tally
}

fn view<'a>(status: &'a Status, tally: &'a Tally) -> View<'a> {
    View {
        chapter: Chapter::Unhealthy,
        elapsed: Duration::from_secs(21),
        duration: Duration::from_secs(60),
        plane: Plane::Ipvs,
        status: Some(status),
        daemon_runs: true,
        tally,
    }
}

/// What a reader sees of it.
fn seen(lines: &[String]) -> String {
    let plain = |line: &String| {
        let mut text = String::new();
        let mut escape = false;
        for character in line.chars() {
            match character {
                '\x1b' => escape = true,
                end if escape => escape = !end.is_ascii_alphabetic(),
                other => text.push(other),
            }
        }
        text.trim_end().to_owned()
    };
    lines.iter().map(plain).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_screen_shows_backends_shares_and_counts() {
    let (status, tally) = (status(), tally());
    let events = ["  0:14  web-v1.2 fails its health check".to_owned()];
    insta::assert_snapshot!(seen(&lines(&view(&status, &tally), events.iter())), @r"
    l4lbd demo   data plane ipvs   0:21 of 1:00   part 3 of 7   Ctrl-C ends it

    An instance fails its health check: it gets no new connections until it recovers

    web.marathon.l4lb.thisdcos.directory is tcp 11.225.36.193:80   ok
    BACKEND           WEIGHT  ACTIVE  INACTIVE  STATE               TASK       CONNECTIONS OF THE LAST 5 s
    10.77.0.11:31001       1       3       120  ready               web-v1.1   ███████████████████████ 75 %
    10.77.0.12:31002       0       1       120  unhealthy           web-v1.2
    10.77.0.13:31003       1       0       120  ready               web-v1.3   ████████ 25 %

    40 connections, 0 failed   8/s, connect median 0.1 ms p99 0.1 ms
    kept connection: 1 answer, with web-v1.1; never moved
    while the daemon was dead nobody answered for its name: 2 connections by the address that was given before

      0:14  web-v1.2 fails its health check
    ");
}

#[test]
fn a_dead_daemon_and_failures_are_said() {
    let (status, mut tally) = (status(), tally());
    tally.take(Record::Failed { error: "refused".into() }, Duration::from_secs(20));
    let view = View { daemon_runs: false, ..view(&status, &tally) };
    let text = seen(&lines(&view, [].iter()));
    assert!(text.contains("the daemon is dead; below is what it said last"), "{text}");
    assert!(text.contains("41 connections, 1 failed"), "{text}");
}

#[test]
fn a_summary_is_one_line() {
    let (status, tally) = (status(), tally());
    assert_eq!(
        summary(&view(&status, &tally)),
        " 0:21  40 connections, 0 failed, 8/s, connect median 0.1 ms p99 0.1 ms; web-v1.1 75 %, web-v1.3 25 %"
    );
}

#[test]
fn the_verdict_is_the_last_line() {
    assert_eq!(
        verdict(&tally(), Duration::from_secs(61)),
        [
            "answered by: web-v1.1 30, web-v1.3 10",
            "kept connection: 1 answer, with web-v1.1; never moved",
            "while the daemon was dead nobody answered for its name: 2 connections by the address that was given before",
            "40 connections, 0 failed, in 61 s",
        ]
    );
}

#[test]
fn lines_are_cut_without_their_colours() {
    assert_eq!(cut("\x1b[1mbold\x1b[0m and plain", 6), "\x1b[1mbold\x1b[0m a");
    assert_eq!(cut("███", 2), "██");
    assert_eq!(cut("", 5), "");
}

#[test]
fn bars_are_as_long_as_shares() {
    assert_eq!(bar(0.0), "");
    assert_eq!(bar(0.001), "█ 0 %");
    assert_eq!(bar(0.5), format!("{} 50 %", "█".repeat(15)));
    assert_eq!(bar(1.0), format!("{} 100 %", "█".repeat(30)));
}
