use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::cluster::Protocol;
use crate::store::{Store, Tracked, saver::Saver};
use crate::units::steady::steady_now;
use crate::vip::Host;
use crate::vip::alloc::AddressRange;

fn key(name: &str) -> VipKey {
    VipKey { host: Host::Named(name.to_owned()), protocol: Protocol::Tcp, port: 80 }
}

fn lease(memory: &mut Persisted, name: &str) {
    memory.leases4.assign(&AddressRange::DCOS_V4, [name], []);
    memory.vips.insert(key(name), None);
}

/// Returns what a start reads.
fn read(folder: &Path) -> Persisted {
    Store::new(folder).leases().unwrap()
}

fn size(folder: &Path, file: &str) -> u64 {
    fs::metadata(folder.join(file)).map_or(0, |file| file.len())
}

/// A directory with the whole and ten changes, and what was kept after each of them, the whole first.
fn changed() -> (tempfile::TempDir, Vec<Persisted>) {
    let folder = tempfile::tempdir().unwrap();
    let directory = || Directory::create(folder.path());
    let (mut file, mut memory) = (LeasesFile::default(), Persisted::default());
    lease(&mut memory, "first.marathon");
    file.save(directory, &memory).unwrap();
    let mut states = vec![memory.clone()];
    for number in 0..10 {
        match number {
            7 => drop(memory.vips.remove(&key("web1.marathon"))),
            8 => drop(memory.registered.insert("F".to_owned(), Timestamp::UNIX_EPOCH)),
            9 => {
                let asked = AskedServer { name: "leader.mesos".to_owned(), hour: 1 };
                memory.servers.insert([10, 0, 0, 1].into(), asked);
            }
            _ => lease(&mut memory, &format!("web{number}.marathon")),
        }
        assert!(file.save(directory, &memory).unwrap());
        states.push(memory.clone());
    }
    assert!(!file.save(directory, &memory).unwrap(), "nothing has changed");
    (folder, states)
}

#[test]
fn a_change_writes_itself_and_not_the_whole() {
    let (folder, states) = changed();
    let whole: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join(LEASES)).unwrap()).unwrap();
    assert_eq!(whole["content"]["vips"].as_array().unwrap().len(), 1, "as it was at first");
    assert_eq!(read(folder.path()), states[10]);
}

#[test]
fn a_crash_anywhere_leaves_a_state_that_was_kept() {
    let (folder, states) = changed();
    let bytes = fs::read(folder.path().join(CHANGES)).unwrap();
    let head: ChangesHead = serde_json::from_slice(IntactRecords(&bytes).next().unwrap()).unwrap();
    let now = Moment::now();
    let mut reached = 0;
    for cut in 0..=bytes.len() {
        let mut memory = states[0].clone();
        apply_changes(&bytes[..cut], &head.of, &now, &mut memory);
        let found = states.iter().rposition(|state| *state == memory).expect("a state that was kept");
        assert!(found >= reached, "octet {cut} brings an earlier state back");
        reached = found;
    }
    assert_eq!(reached, 10);
}

#[test]
fn changes_of_another_whole_are_passed_over() {
    let (folder, states) = changed();
    // As an earlier version writes it, and as a crash between the two files leaves it.
    for token in [None, Some("0123456789abcdef")] {
        fs::write(folder.path().join(LEASES), encode(token, &states[3]).unwrap()).unwrap();
        assert_eq!(read(folder.path()), states[3]);
    }
}

#[test]
fn a_whole_that_was_put_away_is_written_again_with_the_next_change() {
    let folder = tempfile::tempdir().unwrap();
    let directory = || Directory::create(folder.path());
    let (mut file, mut memory) = (LeasesFile::default(), Persisted::default());
    for name in ["a.marathon", "b.marathon", "c.marathon"] {
        let _ = fs::remove_file(folder.path().join(LEASES));
        lease(&mut memory, name);
        file.save(directory, &memory).unwrap();
        assert_eq!(read(folder.path()), memory);
    }
}

#[test]
fn an_orderly_end_leaves_the_whole_to_versions_that_know_of_no_journal() {
    let folder = tempfile::tempdir().unwrap();
    let (mut saver, loaded) = Saver::open(Store::new(folder.path()), false);
    let mut memory = Tracked::new(loaded.persisted);
    for name in ["a.marathon", "b.marathon"] {
        lease(&mut memory, name);
        saver.save(&mut memory);
    }
    assert!(size(folder.path(), CHANGES) > 0);
    saver.finish(&mut memory);
    fs::remove_file(folder.path().join(CHANGES)).unwrap();
    assert_eq!(read(folder.path()), *memory);
}

#[test]
fn changes_that_would_take_a_start_long_are_merged_into_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let directory = || Directory::create(folder.path());
    let (mut file, mut memory) = (LeasesFile::default(), Persisted::default());
    file.save(directory, &memory).unwrap();
    let mut largest = 0;
    for step in 0..12 {
        for number in 0..400 {
            lease(&mut memory, &format!("web-{step}-{number}.marathon"));
        }
        file.save(directory, &memory).unwrap();
        largest = largest.max(size(folder.path(), CHANGES));
        assert_eq!(read(folder.path()), memory);
    }
    assert!(largest <= LEAST, "{largest}");
    assert!(size(folder.path(), LEASES) > LEAST, "was written whole in between");
}

#[test]
fn a_vip_without_backends_is_forgotten_in_time_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let directory = || Directory::create(folder.path());
    let (mut file, mut memory) = (LeasesFile::default(), Persisted::default());
    lease(&mut memory, "web.marathon");
    file.save(directory, &memory).unwrap();
    let since = steady_now();
    memory.vips.insert(key("web.marathon"), Some(since));
    file.save(directory, &memory).unwrap();

    let bytes = fs::read(folder.path().join(CHANGES)).unwrap();
    let head: ChangesHead = serde_json::from_slice(IntactRecords(&bytes).next().unwrap()).unwrap();
    // A start 20 s later in the same boot, whatever the system's clock has become.
    let now = Moment { uptime: Moment::now().uptime + 20.0, ..Moment::now() };
    let mut memory = Persisted::default();
    apply_changes(&bytes, &head.of, &now, &mut memory);
    let age = now.steady.duration_since(memory.vips[&key("web.marathon")].unwrap()).as_secs();
    assert!((15..=30).contains(&age), "{age} s");
}

proptest! {
    /// Whatever a hand or a broken disk has left there.
    #[test]
    fn any_file_of_changes_is_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        apply_changes(&bytes, "t", &Moment::now(), &mut Persisted::default());
    }
}
