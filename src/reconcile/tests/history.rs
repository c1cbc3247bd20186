//! What passes tell the history.

use super::*;
use crate::events::{Event, EventFilter, EventKind};
use crate::units::steady::steady_now;

/// Second server of a VIP with two tasks.
const SECOND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 1001);

/// Events after the known ones, each as kind, VIPs and text.
struct Told(u64);

impl Told {
    fn next(&mut self, bench: &Bench) -> Vec<String> {
        let filter = EventFilter { after: Some(self.0), ..EventFilter::default() };
        let selected = bench.events.select(&filter);
        self.0 = selected.newest;
        let text = |event: &Arc<Event>| {
            let vips: Vec<String> = event.what.vips.iter().map(ToString::to_string).collect();
            format!("{} [{}] {}", event.what.kind, vips.join(","), event.what.text)
        };
        selected.events.iter().map(text).collect()
    }
}

fn assert_told(told: &[String], expected: &[(&str, &str)]) {
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (line, (start, part)) in told.iter().zip(expected) {
        assert!(line.starts_with(start) && line.contains(part), "{start}, {part}: {told:#?}");
    }
}

#[tokio::test]
async fn the_end_of_a_task_is_told_up_to_its_last_connection() {
    let mut bench = Bench::with("[dataplane]\ndrain = \"1ms\"\n");
    let mut told = Told(0);
    bench.learn(&document(&["/web:80", "/web:80"])).await;
    assert_told(
        &told.next(&bench),
        &[
            ("first-state", "2 tasks with VIPs"),
            ("node-changed", "brought up to date"),
            ("vip-added [tcp web.marathon:80]", "takes connections"),
        ],
    );
    bench.kernel().connections.insert((WEB, SECOND), Connections { active: 3, inactive: 0 });
    bench.pass().await;
    assert_told(&told.next(&bench), &[]);
    bench.learn(&document(&["/web:80"])).await;
    assert_told(
        &told.next(&bench),
        &[
            ("task-vanished [tcp web.marathon:80]", "without a word"),
            ("drain-begun [tcp web.marathon:80] 10.0.0.2:1001", "keeps its 3 connections until"),
        ],
    );
    let until = bench.reconciler.passes.planner.deadline(&WEB, &SECOND).unwrap();
    while steady_now() < until {
        std::thread::yield_now();
    }
    bench.reconciler.pass(Cause::Due).await;
    assert_told(&told.next(&bench), &[("drain-ended [tcp web.marathon:80]", "3 connections were cut")]);
    let events = bench.events.select(&EventFilter { task: Some("t1".to_owned()), ..EventFilter::default() });
    let kinds: Vec<EventKind> = events.events.iter().map(|event| event.what.kind).collect();
    assert_eq!(kinds, [EventKind::TaskVanished, EventKind::DrainBegun, EventKind::DrainEnded]);
}

#[tokio::test]
async fn a_task_that_returns_calls_its_drain_off_and_a_restart_tells_none_twice() {
    let mut bench = Bench::new();
    let both = document(&["/web:80", "/web:80"]);
    bench.learn(&both).await;
    bench.kernel().connections.insert((WEB, SECOND), Connections { active: 1, inactive: 0 });
    bench.learn(&document(&["/web:80"])).await;
    let newest = bench.events.select(&EventFilter::default()).newest;
    bench.reconciler.passes.finish();
    let mut bench = bench.restart();
    let mut told = Told(newest);
    bench.pass().await;
    assert_told(
        &told.next(&bench),
        &[("daemon-stopped", "goes on forwarding"), ("first-state", "1 tasks with VIPs")],
    );
    bench.learn(&both).await;
    let after = told.next(&bench);
    assert!(after.iter().any(|line| line.starts_with("drain-called-off")), "{after:#?}");
    assert!(!after.iter().any(|line| line.starts_with("drain-begun")), "{after:#?}");
}

#[tokio::test]
async fn drift_is_told_with_what_was_found() {
    let mut bench = Bench::new();
    bench.learn(&document(&["/web:80", "/web:80"])).await;
    let mut told = Told(bench.events.select(&EventFilter::default()).newest);
    let service = Arc::make_mut(bench.kernel().state.services.get_mut(&WEB).unwrap());
    service.servers.remove(&SECOND);
    service.servers.values_mut().for_each(|server| server.weight = 7);
    bench.pass().await;
    let lines = told.next(&bench);
    assert_told(&lines, &[("drift-repaired [tcp web.marathon:80]", "weight 7 instead of 1")]);
    assert!(lines[0].contains("server 10.0.0.2:1001 was missing"), "{lines:?}");
    bench.pass().await;
    assert_told(&told.next(&bench), &[]);
}

#[tokio::test]
async fn refusals_of_labels_and_of_the_kernel_are_told() {
    let mut bench = Bench::new();
    bench.learn(&document(&[])).await;
    let mut told = Told(bench.events.select(&EventFilter::default()).newest);
    let next = bench.kernel().writes;
    bench.kernel().faults.insert(next);
    bench.learn(&document(&["/web:80", "nonsense"])).await;
    let lines = told.next(&bench);
    for start in ["task-started", "kernel-refused", "label-refused [] port  1001/tcp VIP_0=nonsense: no port"]
    {
        let start = start.replace("  ", " default ");
        assert!(lines.iter().any(|line| line.starts_with(&start)), "{start}: {lines:#?}");
    }
    bench.pass().await;
    assert!(told.next(&bench).iter().any(|line| line.starts_with("kernel-agrees")));
}

#[tokio::test]
async fn a_vip_that_loses_all_backends_is_told_dead_and_alive_again() {
    let mut bench = Bench::new();
    let all = document(&["/api:80", "/db:80", "/web:80"]);
    bench.learn(&all).await;
    let mut told = Told(bench.events.select(&EventFilter::default()).newest);
    bench.learn(&document(&["/api:80", "/db:80"])).await;
    let lines = told.next(&bench);
    assert!(lines.iter().any(|line| line.starts_with("vip-dead [tcp web.marathon:80]")), "{lines:#?}");
    bench.learn(&all).await;
    let lines = told.next(&bench);
    assert!(lines.iter().any(|line| line.starts_with("vip-alive [tcp web.marathon:80]")), "{lines:#?}");
}

#[tokio::test]
async fn a_history_of_a_later_version_is_warned_of_and_does_not_degrade() {
    let directory = state_directory();
    let head = crate::store::records::record(&serde_json::json!({ "version": 2 })).unwrap();
    std::fs::write(directory.path().join("events.journal"), head).unwrap();
    let mut bench = Bench::on(Kernel::new(State::default(), node()), directory);
    bench.learn(&document(&["/web:80"])).await;
    let status = bench.ask().await;
    assert!(status.warnings.iter().any(|warning| warning.contains("later version")), "{:?}", status.warnings);
}
