use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::cluster::Protocol;
use crate::dataplane::Connections;
use crate::demo::client::{NAME, Record};
use crate::status::{Backend, Vip};
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
    status_of(vec![
        backend(1, "web-v1.1", Condition::Ready, 3),
        backend(2, "web-v1.2", Condition::Unhealthy, 1),
        backend(3, "web-v1.3", Condition::Ready, 0),
    ])
}

fn status_of(backends: Vec<Backend>) -> Status {
    let vip = Vip {
        name: Some(NAME.into()),
        protocol: Protocol::Tcp,
        address: IpAddr::from([11, 225, 36, 193]),
        port: 80,
        scheduler: None,
        backends,
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
        plane: PlaneKind::Ipvs,
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
    let events = VecDeque::from(["  0:14  web-v1.2 fails its health check".to_owned()]);
    insta::assert_snapshot!(seen(&lines(&view(&status, &tally), &events, (120, 30))), @r"
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
    let text = seen(&lines(&view, &VecDeque::new(), (120, 30)));
    assert!(text.contains("the daemon is dead; below is what it said last"), "{text}");
    assert!(text.contains("41 connections, 1 failed"), "{text}");
}

#[test]
fn a_small_terminal_shows_the_newest_events_and_whole_percentages() {
    let task = |number: u8| format!("web-v1.{number}");
    let status =
        status_of((1..=10).map(|number| backend(number, &task(number), Condition::Ready, 1)).collect());
    let mut tally = Tally::default();
    for number in 1..=10 {
        let answered = Record::Answered { by: task(number), micros: 150, remembered: false };
        tally.take(answered, Duration::from_secs(20));
    }
    let mut events: VecDeque<String> =
        (1..EVENTS).map(|number| format!(" 0:1{number}  event {number}")).collect();
    events.push_back(" 0:20  FAILED: nothing came for 5 s".to_owned());
    let lines = lines(&view(&status, &tally), &events, (80, 24));
    let text = seen(&lines);
    assert!(lines.len() < 24, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(text.lines().filter(|line| line.ends_with(" 10 %")).count(), 10, "{text}");
    assert!(text.ends_with("event 7\n 0:20  FAILED: nothing came for 5 s"), "{text}");
    assert!(!text.contains("event 1"), "{text}");
}

#[test]
fn the_backends_come_before_events_where_there_is_no_room_for_both() {
    let (status, tally) = (status(), tally());
    let events = VecDeque::from([" 0:20  FAILED: refused".to_owned()]);
    let lines = lines(&view(&status, &tally), &events, (80, 10));
    let text = seen(&lines);
    assert_eq!(lines.len(), 9, "{text}");
    assert!(text.contains("web-v1.3") && !text.contains("FAILED"), "{text}");
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
    assert_eq!(bar(0.0, 100), "");
    assert_eq!(bar(0.001, 100), "█ 0 %");
    assert_eq!(bar(0.5, 100), format!("{} 50 %", "█".repeat(15)));
    assert_eq!(bar(1.0, 100), format!("{} 100 %", "█".repeat(30)));
}

#[test]
fn bars_leave_room_for_their_numbers() {
    assert_eq!(bar(1.0, 16), format!("{} 100 %", "█".repeat(10)));
    assert_eq!(bar(0.5, 16), format!("{} 50 %", "█".repeat(5)));
    assert_eq!(bar(1.0, 5), "100 %");
    assert_eq!(bar(0.0, 5), "");
}
