//! The history over restarts, with files that are damaged or cannot be written.

use std::fs;
use std::path::Path;

use super::*;

const LIMIT: u64 = 100_000;

fn open(directory: &Path) -> Recorder {
    Recorder::open(Store::new(directory), LIMIT, "l4lb")
}

fn happening(text: &str) -> Happening {
    Happening { app: text.to_owned(), ..Happening::new(EventKind::TaskStarted, text) }
}

fn texts(recorder: &Recorder) -> Vec<String> {
    let events = recorder.select(&EventFilter::default()).events;
    events.iter().map(|event| format!("{} {}", event.count, event.what.text)).collect()
}

#[test]
fn a_restart_goes_on_with_what_was_noted() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = open(directory.path());
    recorder.note(vec![happening("a"), happening("b")]);
    recorder.note(vec![happening("a")]);
    recorder.close();
    let recorder = open(directory.path());
    assert_eq!(texts(&recorder), ["1 b", "2 a"]);
    recorder.note(vec![happening("b")]);
    let newest = recorder.select(&EventFilter::default()).newest;
    recorder.close();
    let recorder = open(directory.path());
    assert_eq!(
        (texts(&recorder), recorder.select(&EventFilter::default()).newest),
        (vec!["2 a".into(), "2 b".into()], newest)
    );
}

#[test]
fn an_event_is_on_disk_without_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = open(directory.path());
    recorder.note(vec![happening("a")]);
    // As the reader of a killed daemon's directory sees it.
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    while Store::new(directory.path()).history().unwrap().records.is_empty() {
        assert!(Instant::now() < deadline, "not written");
        thread::yield_now();
    }
    recorder.close();
}

#[test]
fn a_flood_is_bounded_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = open(directory.path());
    for round in 0..200 {
        recorder.note((0..100).map(|number| happening(&format!("{round} {number}"))).collect());
    }
    recorder.close();
    let size = fs::metadata(directory.path().join("events.journal")).unwrap().len();
    assert!(size > 0 && size <= LIMIT, "{size}");
    assert!(texts(&open(directory.path())).len() > 100);
}

#[test]
fn a_file_of_a_later_version_is_said_and_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let mut later = record(&serde_json::json!({ "version": 2 })).unwrap();
    later.extend(b"of any form\n");
    fs::write(directory.path().join("events.journal"), &later).unwrap();
    let recorder = open(directory.path());
    let error = recorder.error().unwrap();
    assert!(error.contains("later version"), "{error}");
    recorder.note(vec![happening("a")]);
    recorder.close();
    assert_eq!((recorder.error(), texts(&open(directory.path()))), (None, vec!["1 a".to_owned()]));
    let aside = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside = aside.filter(|path| path.to_string_lossy().contains("later")).collect::<Vec<_>>();
    assert_eq!(fs::read(&aside[0]).unwrap(), later);
}

#[test]
fn a_directory_that_cannot_be_written_is_said_and_loses_nothing_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let recorder = open(&file.join("below"));
    recorder.note(vec![happening("a")]);
    recorder.close();
    assert!(recorder.error().unwrap().contains("events.journal"), "{:?}", recorder.error());
    assert_eq!(texts(&recorder), ["1 a"]);
}

#[test]
fn a_start_tells_what_has_changed_since_the_last_one() {
    let recorder = Recorder::in_memory("l4lb");
    let facts = |plane: &str, vips: &str| StartFacts {
        data_plane: plane.to_owned(),
        sections: [("vips", vips), ("dns", "1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    };
    recorder.note_start(facts("ipvs", "1"));
    assert_eq!(texts(&recorder), ["1 the daemon has started"]);
    recorder.note(vec![Happening::new(EventKind::DaemonStopped, "end")]);
    recorder.note_start(facts("ebpf", "2"));
    let told = texts(&recorder).split_off(2);
    assert_eq!(
        told,
        ["1 the daemon has started", "1 ebpf after ipvs", "1 the configuration has changed in [vips]"]
    );
    recorder.note_start(facts("ebpf", "2"));
    assert!(texts(&recorder).pop().unwrap().contains("was killed"), "{:?}", texts(&recorder));
}
