//! Refused labels, over lists of the status.

use super::*;
use crate::events::EventFilter;

fn entry(task: &str, reason: &str) -> Skipped {
    Skipped {
        task: task.to_owned(),
        label: Some("VIP_0".to_owned()),
        value: Some("x".to_owned()),
        reason: reason.to_owned(),
        framework: Some("F".to_owned()),
        app: Some(task.to_owned()),
        ..Skipped::default()
    }
}

fn told(recorder: &Recorder) -> Vec<(EventKind, String)> {
    let events = recorder.select(&EventFilter::default()).events;
    events
        .iter()
        .map(|event| (event.what.kind, format!("{}: {}", event.what.task, event.what.text)))
        .collect()
}

#[test]
fn a_refused_label_is_told_once_and_so_is_its_end() {
    let recorder = Recorder::in_memory("l4lb");
    let mut observer = Observer::new(recorder.clone(), &[]);
    let first = Arc::new(vec![entry("a", "no port"), entry(&"long".repeat(100), &"words ".repeat(200))]);
    observer.note_skipped(&first, 2);
    observer.note_skipped(&first, 2);
    observer.note_skipped(&Arc::new(first.to_vec()), 2);
    let refused = told(&recorder);
    assert_eq!(refused[0], (EventKind::LabelRefused, "a: VIP_0=x: no port".to_owned()));
    assert_eq!(refused.len(), 2);
    // A daemon that starts anew, on the same history.
    let mut observer = Observer::new(recorder.clone(), &[]);
    observer.note_skipped(&first, 2);
    assert_eq!(told(&recorder), refused);
    observer.note_skipped(&Arc::new(Vec::new()), 0);
    let accepted = told(&recorder).swap_remove(2);
    assert_eq!(accepted, (EventKind::LabelAccepted, "a: no longer refused: VIP_0=x: no port".to_owned()));
}

#[test]
fn an_entry_that_finds_no_place_in_the_list_is_not_called_accepted() {
    let recorder = Recorder::in_memory("l4lb");
    let mut observer = Observer::new(recorder.clone(), &[]);
    observer.note_skipped(&Arc::new(vec![entry("a", "no port")]), 1);
    observer.note_skipped(&Arc::new(vec![entry("b", "no port")]), 2);
    observer.note_skipped(&Arc::new(vec![entry("a", "no port"), entry("b", "no port")]), 2);
    assert!(
        told(&recorder).iter().all(|(kind, _)| *kind == EventKind::LabelRefused),
        "{:?}",
        told(&recorder)
    );
}

#[test]
fn the_kernel_s_refusals_are_told_when_they_begin_and_end() {
    let recorder = Recorder::in_memory("l4lb");
    let mut observer = Observer::new(recorder.clone(), &[]);
    observer.note_unread("no ip_vs");
    observer.note_unread("no ip_vs, still");
    let over = observer.errors(&[], None);
    assert_eq!(over.map(|what| what.kind), Some(EventKind::KernelAgrees));
    assert_eq!(told(&recorder), [(EventKind::KernelRefused, ": no ip_vs; it is tried again".to_owned())]);
}
