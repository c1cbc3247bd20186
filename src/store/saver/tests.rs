use super::*;
use crate::cluster::belief::Holds;
use crate::mesos;

fn cluster(id: &str) -> Arc<Snapshot> {
    let document = format!(r#"{{"id":"{id}","elected_time":1.0,"slaves":[],"frameworks":[]}}"#);
    Arc::new(mesos::parse(document.as_bytes(), None).unwrap())
}

fn kept(store: &Store) -> Option<String> {
    store.cluster().unwrap().map(|cluster| cluster.master.unwrap().id)
}

fn length(directory: &tempfile::TempDir) -> Option<u64> {
    std::fs::metadata(directory.path().join("cluster.journal")).ok().map(|file| file.len())
}

#[test]
fn the_newest_cluster_is_there_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    let (mut saver, loaded) = Saver::open(store.clone(), true);
    assert!(loaded.cluster.is_none() && saver.error().is_none());
    for id in ["A", "B", "C"] {
        saver.note_cluster(&cluster(id));
    }
    saver.finish(&mut Tracked::default());
    assert_eq!(kept(&store).as_deref(), Some("C"));
    saver.note_cluster(&cluster("D"));
    drop(saver);
    assert_eq!(kept(&store).as_deref(), Some("D"), "without a word of the end, too");
    assert_eq!(Saver::open(store, true).1.cluster.unwrap().master.unwrap().id, "D");
}

#[test]
fn nothing_is_written_while_nothing_changes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    store.save_cluster(&cluster("A")).unwrap();
    let written = length(&directory);
    // Also after a start, and where a document says the same.
    let (mut saver, _) = Saver::open(store.clone(), true);
    for _ in 0..2 {
        saver.note_cluster(&cluster("A"));
        saver.finish(&mut Tracked::default());
        assert_eq!(length(&directory), written);
    }
    std::fs::remove_file(directory.path().join("cluster.journal")).unwrap();
    saver.note_cluster(&cluster("A"));
    saver.finish(&mut Tracked::default());
    assert_eq!(length(&directory), None, "nothing was written");
    saver.note_cluster(&cluster("B"));
    saver.finish(&mut Tracked::default());
    assert_eq!(kept(&store).as_deref(), Some("B"));
}

fn memory(framework: &str) -> Arc<MarathonMemory> {
    let text =
        format!(r#"{{"framework":"{framework}","verdicts":{{"tasks":{{}},"apps":{{}}}},"hosts":{{}}}}"#);
    Arc::new(serde_json::from_str(&text).unwrap())
}

#[test]
fn verdicts_and_deadlines_are_kept_and_what_runs_on_is_measured_from_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    let (mut saver, _) = Saver::open(store.clone(), true);
    let running = |losses| Deadlines { holds: Holds { failover: None, losses }, drains: Vec::new() };
    let kept = || (store.marathon().unwrap(), store.deadlines().unwrap().holds.losses);
    for (framework, losses) in [("F", 1), ("G", 2)] {
        saver.note_marathon(&memory(framework));
        saver.note_deadlines(running(losses));
        saver.flush(&mut Tracked::default());
        assert_eq!(kept(), (Some((*memory(framework)).clone()), losses));
    }
    // What has not changed is not written, but for what runs on.
    for file in ["marathon.json", "deadlines.json"] {
        std::fs::remove_file(directory.path().join(file)).unwrap();
    }
    saver.note_marathon(&memory("G"));
    saver.note_deadlines(running(2));
    saver.flush(&mut Tracked::default());
    assert_eq!(kept(), (None, 0));
    saver.finish(&mut Tracked::default());
    assert_eq!(kept(), (None, 2));
}

#[test]
fn a_cluster_that_is_a_file_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    store.save_cluster(&cluster("old")).unwrap();
    let (mut saver, loaded) = Saver::open(store.clone(), false);
    assert!(loaded.cluster.is_none());
    saver.note_cluster(&cluster("new"));
    saver.finish(&mut Tracked::default());
    assert_eq!(kept(&store).as_deref(), Some("old"));
}

#[test]
fn an_error_lasts_until_a_writing_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("cluster.json"), "{").unwrap();
    let (mut saver, _) = Saver::open(Store::new(directory.path()), true);
    assert!(saver.error().unwrap().contains("damaged"));
    saver.note_cluster(&cluster("A"));
    saver.flush(&mut Tracked::default());
    assert_eq!(saver.error(), None);
    // The file is still where it was put.
    assert!(saver.unused().iter().any(|file| file.contains("was set aside as")), "{:?}", saver.unused());
    // A folder is in the way of the file.
    let journal = directory.path().join("cluster.journal");
    std::fs::remove_file(&journal).unwrap();
    std::fs::create_dir(&journal).unwrap();
    saver.note_cluster(&cluster("B"));
    saver.flush(&mut Tracked::default());
    assert!(saver.error().unwrap().contains("cluster.journal"), "{:?}", saver.error());
    std::fs::remove_dir(&journal).unwrap();
    // Without any news.
    saver.flush(&mut Tracked::default());
    assert_eq!(saver.error(), None);
    assert_eq!(kept(&Store::new(directory.path())).as_deref(), Some("B"));
}
