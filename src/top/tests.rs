//! The screen from answers and keys: what the model does, and pictures in 80 columns and 24 rows.

use std::net::IpAddr;
use std::time::Duration;

use crossterm::event::KeyCode;
use jiff::{SignedDuration, Timestamp};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;

use super::model::{Focus, SLOW, TREND, TopInput, TopModel};
use super::view::{draw, human};
use crate::cluster::Protocol;
use crate::dataplane::connects::Connects;
use crate::dataplane::traffic::Traffic;
use crate::dataplane::{Connections, PlaneKind};
use crate::status::top::{SortKey, TopAnswer, TopRow, TopTable, VipCounts};
use crate::status::{Backend, BackendTraffic, Vip};
use crate::vip::Condition;

fn at(second: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second as i64 + 1_000)
}

fn row(number: u8, rates: VipCounts<f64>, second: u64) -> TopRow {
    TopRow {
        name: (number != 3).then(|| format!("web-{number}.marathon")),
        protocol: Protocol::Tcp,
        address: [11, 0, 0, number].into(),
        port: 80,
        ready: usize::from(number != 2),
        all: 3,
        open: 1_200 * u64::from(number),
        // Of the last VIP they were counted some time ago.
        open_at: Some(if number == 4 { at(0) } else { at(second) }),
        totals: VipCounts::default(),
        rates,
    }
}

fn ipvs_rates(figure: f64) -> VipCounts<f64> {
    let (input, output) = (Some(figure * 900.0), Some(figure * 123_456.0));
    VipCounts { connections: Some(figure), in_bytes: input, out_bytes: output, failures: None }
}

fn ebpf_rates(figure: f64) -> VipCounts<f64> {
    VipCounts { connections: Some(figure), failures: Some(figure / 10.0), ..VipCounts::default() }
}

fn backend(number: u8, condition: Condition) -> Backend {
    Backend {
        address: IpAddr::from([10, 77, 0, 10 + number]),
        port: 31_000 + u16::from(number),
        weight: u32::from(condition == Condition::Ready),
        condition: Some(condition),
        until: (condition == Condition::Gone).then(|| at(70)),
        task: format!("web.{number}\x1b[2J"),
        agent: "S1".into(),
        connections: Some(Connections { active: 40 * u32::from(number), inactive: 3 }),
        connects: None,
        ejected: None,
        share: None,
        traffic: None,
    }
}

/// The answer at a second, with the first VIP chosen.
fn answer(plane: PlaneKind, second: u64) -> TopAnswer {
    let rates = match plane {
        PlaneKind::Ipvs => ipvs_rates,
        PlaneKind::Ebpf => ebpf_rates,
    };
    // Rates that go up and down.
    let wave = |number: u8| f64::from(number) * (1 + (second * u64::from(number)) % 9) as f64;
    let mut backends: Vec<Backend> =
        vec![backend(1, Condition::Ready), backend(2, Condition::Unhealthy), backend(3, Condition::Gone)];
    for backend in &mut backends {
        let connections = 7 * second * u64::from(backend.weight);
        match plane {
            PlaneKind::Ipvs => {
                let (in_bytes, out_bytes) = (1_000 * connections, 2_000 * connections);
                let traffic = Traffic { connections, in_bytes, out_bytes, ..Traffic::default() };
                backend.traffic = (connections > 0).then_some(BackendTraffic { traffic, at: at(second) });
            }
            PlaneKind::Ebpf => {
                backend.connects =
                    Some(Connects { begun: connections, refused: second, ..Connects::default() });
            }
        }
    }
    TopAnswer {
        hostname: "node-1".into(),
        version: "0.1.0".into(),
        dataplane: plane,
        started_at: at(0),
        at: at(second),
        vips: 24,
        dead: 1,
        sampled_at: Some(at(second)),
        seconds: (second > 0).then_some(1.0),
        table: TopTable {
            rows: (1..=4).rev().map(|number| row(number, rates(wave(number)), second)).collect(),
            matching: 24,
            open: 12_000,
            rates: rates(95.3),
            chosen: Some(Vip {
                name: Some("web-4.marathon.l4lb.thisdcos.directory".into()),
                protocol: Protocol::Tcp,
                address: [11, 0, 0, 4].into(),
                port: 80,
                scheduler: None,
                connects: None,
                no_ejection: false,
                backends,
            }),
            backends: 3,
        },
        ..TopAnswer::default()
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The screen after answers of so many seconds.
fn watched(plane: PlaneKind, until: u64) -> TopModel {
    (0..=until).fold(TopModel::default(), |model, second| {
        model.update(TopInput::Answered(Box::new(answer(plane, second))), seconds(second))
    })
}

fn press(model: TopModel, keys: &[KeyCode]) -> TopModel {
    keys.iter().fold(model, |model, key| model.update(TopInput::Key(*key), seconds(9)))
}

fn letter(letter: char) -> KeyCode {
    KeyCode::Char(letter)
}

fn buffer(model: &TopModel, columns: u16, rows: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, model, true)).unwrap();
    terminal.backend().buffer().clone()
}

fn picture(model: &TopModel, columns: u16, rows: u16) -> String {
    let buffer = buffer(model, columns, rows);
    let lines = buffer.content.chunks(usize::from(columns)).map(|row| {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn picture_of_ipvs() {
    insta::assert_snapshot!(picture(&watched(PlaneKind::Ipvs, 9), 80, 24));
}

#[test]
fn picture_of_ebpf() {
    insta::assert_snapshot!(picture(&watched(PlaneKind::Ebpf, 9), 80, 24));
}

#[test]
fn picture_of_one_vip_in_a_wide_terminal() {
    let model = press(watched(PlaneKind::Ipvs, 40), &[KeyCode::Down, KeyCode::Up, KeyCode::Enter]);
    insta::assert_snapshot!(picture(&model, 120, 16));
}

#[test]
fn picture_of_the_help() {
    insta::assert_snapshot!(picture(&press(watched(PlaneKind::Ipvs, 1), &[letter('?')]), 80, 24));
}

#[test]
fn a_picture_fits_whatever_the_size() {
    for (columns, rows) in [(80, 24), (40, 10), (20, 4), (1, 1), (200, 60)] {
        for keys in [&[][..], &[KeyCode::Enter], &[letter('?')], &[letter('/'), letter('x')]] {
            picture(&press(watched(PlaneKind::Ebpf, 3), keys), columns, rows);
        }
    }
    picture(&TopModel::default(), 80, 24);
}

#[test]
fn text_of_tenants_is_escaped() {
    let shown = picture(&watched(PlaneKind::Ipvs, 1), 140, 24);
    assert!(shown.contains("web.1\\u{1b}[2J"), "{shown}");
}

#[test]
fn colours_can_be_left_out() {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &watched(PlaneKind::Ipvs, 3), false)).unwrap();
    assert!(terminal.backend().buffer().content.iter().all(|cell| cell.fg == Color::Reset));
    let colored = buffer(&watched(PlaneKind::Ipvs, 3), 80, 24);
    assert!(colored.content.iter().any(|cell| cell.fg == Color::Green));
}

#[test]
fn what_is_not_counted_is_no_zero() {
    let shown = picture(&watched(PlaneKind::Ipvs, 2), 80, 24);
    assert!(
        shown.contains("failed/s -") && shown.contains("does not see whether a connect fails"),
        "{shown}"
    );
    let shown = picture(&watched(PlaneKind::Ebpf, 2), 80, 24);
    assert!(shown.contains("bytes in/s -   bytes out/s -") && shown.contains("counts no bytes"), "{shown}");
}

#[test]
fn the_chosen_vip_is_the_first_until_another_one_is_chosen_and_then_stays() {
    let model = watched(PlaneKind::Ipvs, 2);
    let first = model.rows()[0].key();
    assert_eq!(model.query().chosen, Some(first));
    let mut turned = answer(PlaneKind::Ipvs, 2);
    turned.table.rows.reverse();
    let leads = model.clone().update(TopInput::Answered(turned.into()), seconds(2));
    assert_eq!(leads.chosen, Some(leads.rows()[0].key()), "whoever leads");
    let model = press(model, &[KeyCode::Down]);
    let chosen = model.rows()[1].key();
    assert_eq!(model.query().chosen, Some(chosen));
    // In another order it is chosen all the same.
    let mut turned = answer(PlaneKind::Ipvs, 3);
    turned.table.rows.reverse();
    let model = model.update(TopInput::Answered(turned.clone().into()), seconds(3));
    assert_eq!((model.chosen, model.place()), (Some(chosen), Some(2)));
    // One that goes gives its place to another one.
    turned.table.rows.remove(2);
    turned.sampled_at = Some(at(4));
    let model = model.update(TopInput::Answered(turned.into()), seconds(4));
    assert_eq!((model.place(), model.chosen), (Some(2), Some(first)));
    let model = press(model, &[KeyCode::End, KeyCode::Home, KeyCode::PageUp, letter('k')]);
    assert_eq!(model.place(), Some(0));
    let empty = TopAnswer { table: TopTable::default(), ..answer(PlaneKind::Ipvs, 5) };
    let model = press(model.update(TopInput::Answered(empty.into()), seconds(5)), &[KeyCode::Down]);
    assert_eq!(model.chosen, None);
}

#[test]
fn keys_change_the_question() {
    let model = watched(PlaneKind::Ipvs, 1);
    let model = press(model, &[letter('b'), letter('i')]);
    assert_eq!((model.query().sort, model.query().is_reversed), (SortKey::Bytes, true));
    let model = press(model, &[KeyCode::Right, KeyCode::Right]);
    assert_eq!(model.sort, SortKey::Name);
    assert_eq!(press(model.clone(), &[KeyCode::Left]).sort, SortKey::Failures);
    // While the filter is written, letters are text.
    let model = press(model, &[letter('/'), letter('q'), letter('p'), letter('x'), KeyCode::Backspace]);
    assert_eq!((model.filter.as_str(), model.focus, model.is_paused), ("qp", Focus::Filter, false));
    let kept = press(model.clone(), &[KeyCode::Enter]);
    assert_eq!((kept.filter.as_str(), kept.focus), ("qp", Focus::List));
    assert_eq!(press(kept, &[KeyCode::Esc]).filter, "");
    assert_eq!(press(model, &[KeyCode::Esc]).filter, "");
    let long = press(TopModel::default(), &[letter('/')]);
    assert!(press(long, &[letter('y'); 500]).filter.len() < 100);
}

#[test]
fn a_daemon_that_is_gone_slow_or_new_is_told_and_its_figures_stay() {
    let model = watched(PlaneKind::Ipvs, 3);
    let gone = model.clone().update(TopInput::Failed("no daemon answers".into()), seconds(12));
    let shown = picture(&gone, 100, 24);
    assert!(shown.contains("no daemon answers; asked again; these figures are 9s old"), "{shown}");
    assert!(shown.contains("web-4.marathon:80"), "{shown}");
    let slow = model.update(TopInput::Asked, seconds(4)).update(TopInput::Tick, seconds(4) + SLOW);
    assert!(picture(&slow, 80, 24).contains("has not answered for 2s"), "{}", picture(&slow, 80, 24));
    // Its samples begin anew, and what was counted goes on.
    let new = TopAnswer { started_at: at(5), seconds: None, ..answer(PlaneKind::Ipvs, 7) };
    let new = slow.update(TopInput::Answered(new.into()), seconds(7));
    assert!(picture(&new, 80, 24).contains("the daemon was started 2s ago"), "{}", picture(&new, 80, 24));
    let later = new.update(TopInput::Tick, seconds(30));
    assert!(picture(&later, 80, 24).contains("\nok\n"), "{}", picture(&later, 80, 24));
}

#[test]
fn a_trend_has_a_point_for_each_sample_and_an_end() {
    let model = watched(PlaneKind::Ipvs, 2 * TREND as u64);
    let key = model.rows()[0].key();
    assert_eq!(model.trend(&key).unwrap().len(), TREND);
    // The same sample again, for another question.
    let model = watched(PlaneKind::Ipvs, 3);
    let again = model.clone().update(TopInput::Answered(answer(PlaneKind::Ipvs, 3).into()), seconds(3));
    assert_eq!(again.trend(&key).unwrap().len(), model.trend(&key).unwrap().len());
    // VIPs that no longer lead are forgotten after as many samples.
    let mut model = model;
    for second in 4..10 + TREND as u64 {
        let mut other = answer(PlaneKind::Ipvs, second);
        other.table.rows.remove(0);
        model = model.update(TopInput::Answered(other.into()), seconds(second));
    }
    assert!(model.trend(&key).is_none());
}

#[test]
fn backends_have_rates_from_two_answers() {
    for plane in PlaneKind::ALL {
        let model = watched(plane, 4);
        let ready = "10.77.0.11:31001".parse().unwrap();
        assert_eq!(model.backend_rates(&ready).connections, Some(7.0), "{plane}");
        // Another VIP has other backends.
        let other = TopAnswer { table: TopTable::default(), ..answer(plane, 5) };
        let model = model.update(TopInput::Answered(other.into()), seconds(5));
        assert_eq!(model.backend_rates(&ready), VipCounts::default());
    }
}

#[test]
fn numbers_are_short() {
    let shown = [0.0, 0.5, 9.96, 10.4, 9_999.0, 10_000.0, 99_960.0, 1_234_567.0, 9.9e11, 1e20].map(human);
    assert_eq!(shown, ["0", "0.5", "10.0", "10", "9999", "10.0k", "100k", "1.2M", "990G", "100000E"]);
}
