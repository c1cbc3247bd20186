use jiff::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use std::net::IpAddr;

use super::*;
use crate::cluster::Protocol;
use crate::dataplane::Connections;
use crate::demo::client::{ClientRecord, NAME};
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
        connects: None,
        ejected: None,
        traffic: None,
        share: None,
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
        connects: None,
        no_ejection: false,
        backends,
    };
    Status { vips: vec![vip], at: Timestamp::UNIX_EPOCH, ..Status::default() }
}

/// The largest table that the scenario can lead to, with the longest texts.
fn full_status() -> Status {
    let mut backends: Vec<Backend> =
        (1..=10).map(|number| backend(number, &format!("web-v2.{number}"), Condition::Gone, 1)).collect();
    for backend in &mut backends {
        backend.until = Some(Timestamp::from_second(59).unwrap());
    }
    status_of(backends)
}

fn tally() -> Tally {
    tally_of(&["web-v1.3", "web-v1.1", "web-v1.1", "web-v1.1"])
}

/// Ten connections to each of these, all in the last seconds, two of them without an answer of the DNS server.
fn tally_of(tasks: &[&str]) -> Tally {
    let mut tally = Tally::default();
    for number in 0..10 {
        for by in tasks {
            let stale_address = number < 2 && by == tasks.first().unwrap();
            let answered = ClientRecord::Answered { by: (*by).into(), micros: 150, stale_address };
            tally.add(answered, Duration::from_secs(20));
        }
    }
    tally.add(ClientRecord::LongLivedAnswered { by: "web-v1.1".into() }, Duration::from_secs(20));
    tally
}

fn state<'a>(status: &'a Status, tally: &'a Tally) -> ViewState<'a> {
    ViewState {
        phase: Some(Phase::Unhealthy),
        elapsed: Duration::from_secs(21),
        duration: Duration::from_secs(60),
        plane: PlaneKind::Ipvs,
        status: Some(status),
        daemon_runs: true,
        tally,
    }
}

fn events(texts: impl IntoIterator<Item = &'static str>) -> VecDeque<String> {
    texts.into_iter().map(str::to_owned).collect()
}

/// The screen of a terminal with so many columns and rows.
fn screen(state: &ViewState<'_>, events: &VecDeque<String>, (columns, rows): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, state, events)).unwrap();
    terminal.backend().buffer().clone()
}

/// Every row of a screen, without the blanks at its end.
fn rows(screen: &Buffer) -> Vec<String> {
    let cells: Vec<&str> = screen.content().iter().map(|cell| cell.symbol()).collect();
    cells.chunks(screen.area.width.into()).map(|row| row.concat().trim_end().to_owned()).collect()
}

fn text(screen: &Buffer) -> String {
    rows(screen).join("\n").trim_end().to_owned()
}

/// Colour and weight of the first cell of a text on the screen.
fn style_of(screen: &Buffer, wanted: &str) -> (Color, Modifier) {
    let width = usize::from(screen.area.width);
    let symbols: Vec<&str> = screen.content().iter().map(|cell| cell.symbol()).collect();
    let at = (0..symbols.len()).find(|at| {
        let row_end = (at / width + 1) * width;
        symbols.get(*at..row_end).is_some_and(|rest| rest.concat().starts_with(wanted))
    });
    let cell = &screen.content()[at.unwrap_or_else(|| panic!("{wanted:?} is not in\n{}", text(screen)))];
    (cell.fg, cell.modifier)
}

#[test]
fn a_wide_screen_shows_backends_with_bars_and_counts() {
    let (status, tally) = (status(), tally());
    let screen =
        screen(&state(&status, &tally), &events(["  0:14  web-v1.2 fails its health check"]), (120, 30));
    insta::assert_snapshot!(text(&screen), @r"
    l4lbd demo   data plane ipvs   0:21 of 1:00   part 3 of 7   q or Ctrl-C quits

    A health check fails: no new connections until it passes again

    web.marathon.l4lb.thisdcos.directory is tcp 11.225.36.193:80   ok
    BACKEND           WEIGHT  ACTIVE  INACTIVE  STATE               TASK       CONNECTIONS OF THE LAST 5 s
    10.77.0.11:31001       1       3       120  ready               web-v1.1   ███████████████████████ 75 %
    10.77.0.12:31002       0       1       120  unhealthy           web-v1.2
    10.77.0.13:31003       1       0       120  ready               web-v1.3   ████████ 25 %

    40 connections, 0 failed   8/s, connect time median 0.1 ms, p99 0.1 ms
    long-lived connection: 1 answer, now from web-v1.1; reopened 0 times
    2 connections by the last known address while the daemon's DNS was down

      0:14  web-v1.2 fails its health check
    ");
    assert_eq!(style_of(&screen, "l4lbd demo").1, Modifier::BOLD);
    assert_eq!(style_of(&screen, "0 failed"), (Color::Green, Modifier::BOLD));
    assert_eq!(style_of(&screen, "ok").0, Color::Green);
    assert_eq!(style_of(&screen, "ready").0, Color::Green);
    assert_eq!(style_of(&screen, "unhealthy").1, Modifier::DIM);
}

#[test]
fn a_usual_terminal_shows_the_largest_table_in_full_and_the_newest_events() {
    let status = full_status();
    let tally = tally_of(&[
        "web-v2.1",
        "web-v2.2",
        "web-v2.3",
        "web-v2.4",
        "web-v2.5",
        "web-v2.6",
        "web-v2.7",
        "web-v2.8",
        "web-v2.9",
        "web-v2.10",
    ]);
    let events = events([
        " 0:11  event 1",
        " 0:12  event 2",
        " 0:13  event 3",
        " 0:14  event 4",
        " 0:20  FAILED: no answer for 5 s",
    ]);
    let state = ViewState { phase: Some(Phase::AgentLoss), ..state(&status, &tally) };
    insta::assert_snapshot!(text(&screen(&state, &events, (80, 24))), @r"
    l4lbd demo   data plane ipvs   0:21 of 1:00   part 6 of 7   q or Ctrl-C quits

    Agent lost: its instances leave at once, others start elsewhere

    web.marathon.l4lb.thisdcos.directory is tcp 11.225.36.193:80   ok
    BACKEND           WEIGHT  ACTIVE  INACTIVE  STATE               TASK       SHARE
    10.77.0.11:31001       0       1       120  gone, kept for 59s  web-v2.1   10 %
    10.77.0.12:31002       0       1       120  gone, kept for 59s  web-v2.2   10 %
    10.77.0.13:31003       0       1       120  gone, kept for 59s  web-v2.3   10 %
    10.77.0.14:31004       0       1       120  gone, kept for 59s  web-v2.4   10 %
    10.77.0.15:31005       0       1       120  gone, kept for 59s  web-v2.5   10 %
    10.77.0.16:31006       0       1       120  gone, kept for 59s  web-v2.6   10 %
    10.77.0.17:31007       0       1       120  gone, kept for 59s  web-v2.7   10 %
    10.77.0.18:31008       0       1       120  gone, kept for 59s  web-v2.8   10 %
    10.77.0.19:31009       0       1       120  gone, kept for 59s  web-v2.9   10 %
    10.77.0.20:31010       0       1       120  gone, kept for 59s  web-v2.10  10 %

    100 connections, 0 failed   20/s, connect time median 0.1 ms, p99 0.1 ms
    long-lived connection: 1 answer, now from web-v1.1; reopened 0 times
    2 connections by the last known address while the daemon's DNS was down

     0:13  event 3
     0:14  event 4
     0:20  FAILED: no answer for 5 s
    ");
}

#[test]
fn the_last_column_has_room_for_every_percentage() {
    let (status, tally) = (status(), tally_of(&["web-v1.1"]));
    let rows = rows(&screen(&state(&status, &tally), &VecDeque::new(), (80, 24)));
    assert!(rows.iter().any(|row| row.ends_with("web-v1.1   100 %")), "{rows:#?}");
}

#[test]
fn while_processes_are_started_there_are_no_table_and_no_counts_yet() {
    let tally = Tally::default();
    let status = Status::default();
    let state = ViewState { phase: None, status: None, daemon_runs: false, ..state(&status, &tally) };
    insta::assert_snapshot!(text(&screen(&state, &events([" 0:00  setting up"]), (80, 24))), @r"
    l4lbd demo   data plane ipvs   0:21 of 1:00   setting up   q or Ctrl-C quits

    Setting up: agents with instances, the daemon, then a client

     0:00  setting up
    ");
}

#[test]
fn a_daemon_that_is_down_is_said_in_few_columns_too() {
    let (status, mut tally) = (status(), tally());
    tally.add(ClientRecord::Failed { error: "refused".into() }, Duration::from_secs(20));
    let state = ViewState { daemon_runs: false, ..state(&status, &tally) };
    let wide = screen(&state, &VecDeque::new(), (120, 30));
    assert_eq!(style_of(&wide, "the daemon is down; this is its last status").0, Color::Red);
    assert_eq!(style_of(&wide, "1 failed"), (Color::Red, Modifier::BOLD));
    assert!(text(&wide).contains("41 connections, 1 failed"), "{}", text(&wide));
    let narrow = screen(&state, &VecDeque::new(), (80, 24));
    assert!(rows(&narrow).iter().any(|row| row.ends_with(":80   daemon is down")), "{}", text(&narrow));
}

#[test]
fn a_degraded_daemon_says_why_on_a_line_of_its_own() {
    let (mut status, tally) = (status(), tally());
    status.reasons = vec!["the state document cannot be read".into(), "another".into()];
    let shown = screen(&state(&status, &tally), &VecDeque::new(), (80, 24));
    assert!(
        rows(&shown).contains(&"degraded: the state document cannot be read".to_owned()),
        "{}",
        text(&shown)
    );
    assert_eq!(style_of(&shown, "degraded: the state").0, Color::Red);
    let down = ViewState { daemon_runs: false, ..state(&status, &tally) };
    let down = screen(&down, &VecDeque::new(), (80, 24));
    assert!(!text(&down).contains("degraded"), "a dead daemon is not degraded\n{}", text(&down));
}

#[test]
fn every_phase_and_the_largest_counts_fit_in_80_columns() {
    let status = full_status();
    let mut tally = tally_of(&["web-v2.10"]);
    tally.made = 99_999;
    tally.stale_address = 9_999;
    tally.long_lived.answers = 99_999;
    tally.long_lived.reopened = 99;
    tally.long_lived.task = Some("web-v2.10".into());
    for phase in Phase::ALL.map(Some).into_iter().chain([None]) {
        for daemon_runs in [true, false] {
            let state = ViewState {
                phase,
                daemon_runs,
                elapsed: Duration::from_secs(3599),
                duration: Duration::from_secs(3600),
                plane: PlaneKind::Ebpf,
                ..state(&status, &tally)
            };
            // The header of the last column is the only text that is longer where there is room for it.
            let wide = rows(&screen(&state, &VecDeque::new(), (104, 24)));
            for row in wide.iter().filter(|row| !row.starts_with("BACKEND")) {
                let columns = row.trim_end_matches("; this is its last status").chars().count();
                assert!(columns <= 80, "{columns}: {row}");
            }
        }
    }
}

#[test]
fn the_backends_come_before_events_where_there_is_no_room_for_both() {
    let (status, tally) = (status(), tally());
    let shown = screen(&state(&status, &tally), &events([" 0:20  FAILED: refused"]), (80, 10));
    let text = text(&shown);
    assert!(text.contains("web-v1.3") && !text.contains("FAILED"), "{text}");
}

#[test]
fn no_size_of_a_terminal_is_too_small_to_draw() {
    let (status, tally) = (full_status(), tally());
    let events = events([" 0:20  FAILED: refused"]);
    for columns in [1, 2, 10, 79, 80, 81, 300] {
        for rows in [1, 2, 5, 16, 24, 200] {
            screen(&state(&status, &tally), &events, (columns, rows));
        }
    }
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
