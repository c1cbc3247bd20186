//! Tests of the table, from rows to followers.

use proptest::prelude::*;
use prost::Message;

use super::catch_up::{CatchUp, Needed};
use super::decode::{Decoder, Replicated};
use super::disk;
use super::encode::Encoder;
use super::envelope::{Refused, StoredKind, open, seal};
use super::fallback;
use super::messages::*;
use super::press::Press;
use super::table::{Generation, Octets, RowTable};

mod clusters;
mod delivery;
mod golden;
mod random;

const GENERATION: Generation = Generation([9; 16]);

proptest! {
    // The same with many more cases is in tests/fuzz/bounded.rs.
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_tell_the_cluster(seed in any::<u64>()) {
        clusters::rows_and_back(seed, 10);
    }

    // The main one.
    #[test]
    fn any_delivery_gives_the_publishers_table(seed in any::<u64>()) {
        delivery::any_delivery_gives_the_publishers_table(seed, 40);
    }

    #[test]
    fn all_nodes_together_poll_within_the_budget(
        agents in 1..20_000_u32, document_bytes in 1..u64::MAX, answer_ms in any::<u32>(), budget in 1..u64::MAX
    ) {
        let facts = FactsMessage { agents, document_bytes, answer_ms, ..FactsMessage::default() };
        let interval = fallback::interval(&facts, budget).unwrap().as_millis();
        let octets = u128::from(agents) * u128::from(document_bytes) * 1000;
        // Intervals beyond the range of the arithmetic are longer than the universe is old.
        prop_assert!(octets <= interval * u128::from(budget) || interval >= u128::from(u64::MAX / budget));
        prop_assert!(u128::from(agents) * u128::from(answer_ms) * 20 <= interval);
    }
}

fn table(rows: &[(&[u8], &[u8])]) -> RowTable {
    RowTable::of(
        GENERATION,
        rows.iter().map(|(key, value)| (Octets::from(*key), Octets::from(*value))).collect(),
    )
}

#[test]
fn documents_of_mesos_are_told_by_rows() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/captures");
    let mut folders = vec![std::path::PathBuf::from(fixtures)];
    let mut told = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(snapshot) = crate::mesos::parse(&std::fs::read(&path).unwrap(), None) else { continue };
            let content = Replicated::new(&snapshot, &Default::default(), &Default::default());
            let mut table = RowTable::new(GENERATION);
            let changes = Encoder::default().changes(&table, &content);
            table.apply_all(&changes);
            assert_eq!(Decoder::of(&table).content(), &content, "{}", path.display());
            told += snapshot.tasks.len();
        }
    }
    assert!(told > 10, "only {told} tasks in {fixtures}");
}

#[test]
fn two_tables_with_one_sum_of_hashes_differ_in_other_generations() {
    let (one, other) = (table(&[(b"a", b"1")]), table(&[(b"a", b"2")]));
    assert_ne!(one.digest(), other.digest());
    assert_ne!(one.digest(), one.renewed(Generation([1; 16])).digest());
    // Where a key ends and its value begins counts.
    assert_ne!(table(&[(b"ab", b"c")]).digest(), table(&[(b"a", b"bc")]).digest());
}

#[test]
fn what_is_damaged_or_of_another_kind_is_refused() {
    let frame = FrameMessage {
        seq: 1,
        put: vec![PutMessage { key: b"k".into(), value: vec![1; 9_000] }],
        ..Default::default()
    };
    let stored = seal(StoredKind::Frame, &frame);
    assert!(stored.len() < 200, "not deflated");
    assert_eq!(open::<FrameMessage>(StoredKind::Frame, &stored), Ok(frame));
    assert!(matches!(open::<FrameMessage>(StoredKind::Chunk, &stored), Err(Refused::Kind { found: 2, .. })));
    for place in 0..stored.len() {
        let mut damaged = stored.clone();
        damaged[place] ^= 1;
        assert!(open::<FrameMessage>(StoredKind::Frame, &damaged).is_err(), "octet {place}");
        assert!(open::<FrameMessage>(StoredKind::Frame, &stored[..place]).is_err(), "cut at {place}");
    }
    let large = PutMessage { key: Vec::new(), value: vec![0; StoredKind::Head.limit()] };
    assert!(matches!(
        open::<PutMessage>(StoredKind::Head, &seal(StoredKind::Head, &large)),
        Err(Refused::Large(_))
    ));
}

#[test]
fn a_newer_publisher_is_named_by_its_format() {
    let head =
        HeadMessage { min_reader: 2, generation: vec![1; 16], digest: vec![0; 16], ..Default::default() };
    let error = CatchUp::default().head(&seal(StoredKind::Head, &head)).unwrap_err();
    assert!(error.to_string().contains("format 2, this l4lbd reads 1"), "{error}");
    let mut stored = seal(StoredKind::Head, &head);
    stored[4] = 3;
    assert_eq!(CatchUp::default().head(&stored).unwrap_err().to_string(), Refused::Format(3).to_string());
}

/// What a newer publisher may write: rows of an unknown kind, and fields that no message here has.
#[test]
fn what_a_newer_publisher_adds_is_kept() {
    let mut agent =
        AgentRow { id: "S1".into(), hostname: Some("h".into()), ..Default::default() }.encode_to_vec();
    agent.extend([0xf2, 0x3f, 2, b'h', b'i']);
    let newer = table(&[(&[3, 0, 0, 0, 0], &agent), (&[7, 1], b"of kind 7"), (&[255], b"")]);
    let (press, transactions) = Press::begin(newer.clone(), 1, Default::default(), Default::default());
    let mut follower = CatchUp::default();
    let (chunks, last) = transactions.split_at(transactions.len() - 1);
    let [(_, manifest), (_, head)] = last[0].as_slice() else { panic!("{last:?}") };
    assert!(matches!(follower.head(head), Ok(Needed::Manifest(_))));
    follower.manifest(manifest).unwrap();
    for (node, chunk) in press.chunks().zip(chunks) {
        assert_eq!(follower.chunk(node, Some(&chunk[0].1)), Needed::Head);
    }
    assert_eq!(follower.head(head), Ok(Needed::Nothing));
    let (known, seq) = follower.known().unwrap();
    assert_eq!(known, &newer);
    assert_eq!(disk::read(&disk::write(known, seq)), Ok((newer.clone(), seq)));
    let decoder = Decoder::of(known);
    assert_eq!(decoder.content().snapshot.agents.len(), 1);
    // A publisher that knows less does not drop what it does not know.
    let content = decoder.content().clone();
    assert_eq!(Encoder::resume(&newer).changes(&newer, &content), []);
}

#[test]
fn a_damaged_file_is_refused() {
    let rows: Vec<(Octets, Octets)> =
        (0..200_u32).map(|number| (number.to_be_bytes().into(), vec![7; 200].into())).collect();
    let table = RowTable::of(GENERATION, rows.into_iter().collect());
    let file = disk::write(&table, 77);
    assert_eq!(disk::read(&file), Ok((table, 77)));
    for place in (0..file.len()).step_by(13) {
        let mut damaged = file.clone();
        damaged[place] ^= 0x10;
        assert!(disk::read(&damaged).is_err(), "octet {place}");
        assert!(disk::read(&file[..place]).is_err(), "cut at {place}");
    }
}

#[test]
fn a_task_that_is_too_large_leaves_the_others() {
    let framework = |name: &str| crate::cluster::SharedMap::from([("F".to_owned(), name.to_owned())]);
    let mut content = Replicated::default();
    content.snapshot.frameworks = framework(&"n".repeat(70_000));
    content.addresses4.insert("x".repeat(2_000), [11, 0, 0, 1].into());
    content.addresses4.insert("web.marathon".to_owned(), [11, 0, 0, 2].into());
    let mut table = RowTable::new(GENERATION);
    let mut encoder = Encoder::default();
    let changes = encoder.changes(&table, &content);
    table.apply_all(&changes);
    assert_eq!(encoder.left_out(), 1);
    let told = Decoder::of(&table).content().clone();
    assert_eq!(told.addresses4.keys().collect::<Vec<_>>(), ["web.marathon"]);
    // The framework is there for its tasks, without the name.
    assert_eq!(Decoder::of(&table).frameworks().len(), 1);
    content.addresses4.remove(&"x".repeat(2_000));
    content.snapshot.frameworks = framework("marathon");
    let changes = encoder.changes(&table, &content);
    table.apply_all(&changes);
    assert_eq!((encoder.left_out(), Decoder::of(&table).content() == &content), (0, true));
}
