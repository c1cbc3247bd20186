use std::fs;
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::cluster::{Agent, Few, Master, Runtime, Task, TaskKey, TaskState};
use crate::store::{Error, Store};

/// A step from one picture of a cluster to the next.
#[derive(Clone, Debug)]
enum JournalStep {
    Task(u8, bool),
    End(u8),
    Agent(u8, u8),
    Leave(u8),
    Framework(u8, u8),
    Recover(u8),
    Elect(Option<u8>),
    Empty,
}

fn step() -> impl Strategy<Value = JournalStep> {
    prop_oneof![
        6 => (any::<u8>(), any::<bool>()).prop_map(|(task, health)| JournalStep::Task(task, health)),
        3 => any::<u8>().prop_map(JournalStep::End),
        2 => (0u8..8, any::<u8>()).prop_map(|(agent, address)| JournalStep::Agent(agent, address)),
        1 => (0u8..8).prop_map(JournalStep::Leave),
        1 => (0u8..4, any::<u8>()).prop_map(|(framework, name)| JournalStep::Framework(framework, name)),
        1 => (0u8..8).prop_map(JournalStep::Recover),
        1 => prop::option::of(any::<u8>()).prop_map(JournalStep::Elect),
        1 => Just(JournalStep::Empty),
    ]
}

fn key(task: u8) -> TaskKey {
    TaskKey { framework: "F".into(), task: format!("web.{task}").into() }
}

fn take(cluster: &mut Snapshot, step: &JournalStep) {
    match *step {
        JournalStep::Task(number, healthy) => {
            let task = Task {
                key: key(number),
                app: "app".into(),
                agent_id: "S".into(),
                state: TaskState::Running,
                healthy: Some(healthy),
                runtime: Runtime::Mesos,
                addresses: Few::default(),
                ports: Few::default(),
                resources: Few::default(),
            };
            cluster.tasks.insert(key(number), Arc::new(task));
        }
        JournalStep::End(number) => drop(cluster.tasks.remove(&key(number))),
        JournalStep::Agent(number, address) => {
            let agent = Agent {
                hostname: "line\nend\ttab".to_owned(),
                address: Some([10, 0, 0, address].into()),
                port: None,
            };
            cluster.agents.insert(format!("S{number}"), agent);
            cluster.recovered.remove(&format!("S{number}"));
        }
        JournalStep::Leave(number) => drop(cluster.agents.remove(&format!("S{number}"))),
        JournalStep::Framework(number, name) => {
            cluster.frameworks.insert(format!("F{number}"), format!("marathon{name}"));
            cluster.registered.insert(format!("F{number}"), jiff::Timestamp::UNIX_EPOCH);
        }
        JournalStep::Recover(number) => drop(cluster.recovered.insert(format!("S{number}"))),
        JournalStep::Elect(number) => {
            cluster.master = number.map(|number| Master {
                id: format!("M{number}"),
                elected_time: 1_736_845_354.996_335_8,
                address: None,
            });
        }
        JournalStep::Empty => *cluster = Snapshot::default(),
    }
}

/// Writes the pictures of a history one after the other, and returns them with the file.
fn history(directory: &Path, start: u8, steps: &[JournalStep]) -> (Vec<Snapshot>, Vec<u8>) {
    let open = || Directory::open(directory);
    let mut cluster = Snapshot::default();
    (0..start).for_each(|task| take(&mut cluster, &JournalStep::Task(task, true)));
    let mut journal = Journal::new(None);
    let mut believed = vec![cluster.clone()];
    journal.save(open, &Arc::new(cluster.clone())).unwrap();
    for step in steps {
        take(&mut cluster, step);
        let is_same = believed.last() == Some(&cluster);
        let written = journal.save(open, &Arc::new(cluster.clone())).unwrap();
        assert_eq!(written, if is_same { JournalWritten::Nothing } else { JournalWritten::Change });
        believed.push(cluster.clone());
    }
    (believed, fs::read(directory.join(JOURNAL)).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_file_reads_as_a_picture_that_was_believed(
        start in 0u8..20,
        steps in prop::collection::vec(step(), 0..12),
        places in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..40),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (believed, whole) = history(directory.path(), start, &steps);
        let last = read(&whole).unwrap();
        prop_assert_eq!((Some(&last.cluster), last.lost), (believed.last(), 0));
        let check = |bytes: &[u8]| match read(bytes) {
            Ok(Read { cluster, .. }) => assert!(believed.contains(&cluster), "never believed: {cluster:?}"),
            Err(Unreadable::Damaged(_)) => {}
            Err(Unreadable::Later(version)) => panic!("of version {version}"),
        };
        for (place, flip) in places {
            let place = place.index(whole.len());
            // Cut off, and one octet that differs, with all behind it.
            check(&whole[..place]);
            let mut damaged = whole.clone();
            damaged[place] ^= flip;
            check(&damaged);
            // A file system that has enlarged a file, and not written it.
            damaged.truncate(place);
            damaged.resize(whole.len(), 0);
            check(&damaged);
        }
    }
}

fn with_tasks(range: Range<u32>) -> Arc<Snapshot> {
    let mut cluster = Snapshot::default();
    for number in range {
        let key = TaskKey { framework: "F".into(), task: format!("task.{number}").into() };
        let task = Task {
            key: key.clone(),
            app: "app".into(),
            agent_id: "S".into(),
            state: TaskState::Running,
            healthy: None,
            runtime: Runtime::Docker,
            addresses: Few::default(),
            ports: Few::default(),
            resources: Few::default(),
        };
        cluster.tasks.insert(key, Arc::new(task));
    }
    Arc::new(cluster)
}

fn size(directory: &Path) -> u64 {
    fs::metadata(directory.join(JOURNAL)).unwrap().len()
}

#[test]
fn a_change_costs_what_has_changed_until_changes_are_a_part_of_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Directory::open(directory.path());
    let mut journal = Journal::new(None);
    let mut cluster = Snapshot::clone(&with_tasks(0..10_000));
    assert_eq!(journal.save(open, &Arc::new(cluster.clone())).unwrap(), JournalWritten::Everything);
    let whole = size(directory.path());
    let mut everything = 0;
    let mut last = whole;
    for step in 0..1000u32 {
        for number in 4 * step..4 * (step + 1) {
            let key = TaskKey { framework: "F".into(), task: format!("task.{number}").into() };
            Arc::make_mut(cluster.tasks.get_mut(&key).unwrap()).healthy = Some(number % 2 == 0);
        }
        let now = Arc::new(cluster.clone());
        match journal.save(open, &now).unwrap() {
            JournalWritten::Change => {
                let size = size(directory.path());
                assert!(size - last < 4 * 400, "{size} after {last}");
                assert!(size < whole * 3 / 2);
                last = size;
            }
            written => {
                assert_eq!(written, JournalWritten::Everything);
                everything += 1;
                last = size(directory.path());
            }
        }
    }
    assert_eq!(everything, 1, "changes that fill a quarter of the file");
    assert_eq!(Store::new(directory.path()).cluster().unwrap(), Some(cluster));
}

#[test]
fn the_file_of_an_earlier_version_is_read_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    let cluster = with_tasks(0..3);
    let earlier = format!(r#"{{"version":1,"content":{}}}"#, serde_json::to_string(&*cluster).unwrap());
    // Left behind by this version before the earlier one was installed.
    store.save_cluster(&with_tasks(0..9)).unwrap();
    fs::write(directory.path().join("cluster.json"), &earlier).unwrap();
    assert_eq!(store.cluster().unwrap().as_ref(), Some(&*cluster));
    let newer = with_tasks(0..4);
    store.save_cluster(&newer).unwrap();
    assert_eq!(store.cluster().unwrap().as_ref(), Some(&*newer));
}

/// What an earlier version reads is the number alone, and then sets the file aside; the journal stays.
#[test]
fn an_earlier_version_finds_the_number_of_a_later_one() {
    let directory = tempfile::tempdir().unwrap();
    Store::new(directory.path()).save_cluster(&with_tasks(0..3)).unwrap();
    let bytes = fs::read(directory.path().join("cluster.json")).unwrap();
    let Err(crate::store::Unusable::Later(2)) = crate::store::decode::<Snapshot>(&bytes) else {
        panic!("{}", String::from_utf8_lossy(&bytes))
    };
}

#[test]
fn a_journal_of_a_later_version_is_set_aside_with_a_word_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    store.save_cluster(&with_tasks(0..3)).unwrap();
    let later = record(&JournalHead { version: 3, parts: 0 }).unwrap();
    fs::write(directory.path().join(JOURNAL), &later).unwrap();
    let error = store.set_aside(store.cluster().unwrap_err());
    let Error::Later { version: 3, newest: 2, aside: Some(aside), .. } = &error else { panic!("{error}") };
    assert_eq!(fs::read(aside).unwrap(), later);
    assert_eq!(store.cluster().unwrap(), None);
    fs::write(directory.path().join("cluster.json"), r#"{"version":3,"content":[]}"#).unwrap();
    assert!(matches!(store.cluster(), Err(Error::Later { version: 3, newest: 2, .. })));
}

#[test]
fn only_a_file_that_this_run_has_made_is_written_further() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Directory::open(directory.path());
    let path = directory.path().join(JOURNAL);
    let target = directory.path().join("target");
    fs::write(&target, "precious").unwrap();
    let mut journal = Journal::new(None);
    journal.save(open, &with_tasks(0..3)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(journal.save(open, &with_tasks(0..4)).unwrap(), JournalWritten::Change);
    fs::remove_file(&path).unwrap();
    symlink(&target, &path).unwrap();
    assert_eq!(journal.save(open, &with_tasks(0..5)).unwrap(), JournalWritten::Everything);
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    // One of an earlier run.
    let mut journal = Journal::new(Some(with_tasks(0..5)));
    assert_eq!(journal.save(open, &with_tasks(0..5)).unwrap(), JournalWritten::Nothing);
    assert_eq!(journal.save(open, &with_tasks(0..6)).unwrap(), JournalWritten::Everything);
    assert_eq!(read(&fs::read(&path).unwrap()).unwrap().cluster, *with_tasks(0..6));
}

#[test]
fn after_an_error_everything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Directory::open(directory.path());
    let mut journal = Journal::new(None);
    journal.save(open, &with_tasks(0..3)).unwrap();
    let fails = || Err(io::Error::other("full"));
    journal.save(fails, &with_tasks(0..4)).unwrap_err();
    // Also the cluster that was the last one in the file: what the file says is in doubt.
    assert_eq!(journal.save(open, &with_tasks(0..3)).unwrap(), JournalWritten::Everything);
    // And where the reference to it could not be written.
    let reference = directory.path().join(REFERENCE);
    fs::remove_file(&reference).unwrap();
    fs::create_dir(&reference).unwrap();
    let mut journal = Journal::new(None);
    let error = journal.save(open, &with_tasks(0..4)).unwrap_err();
    assert!(error.to_string().starts_with("cluster.json, which refers to it: "), "{error}");
    fs::remove_dir(&reference).unwrap();
    assert_eq!(journal.save(open, &with_tasks(0..4)).unwrap(), JournalWritten::Everything);
    assert_eq!(Store::new(directory.path()).cluster().unwrap().as_ref(), Some(&*with_tasks(0..4)));
}
