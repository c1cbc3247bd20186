//! Files of format 1 as they were first written, which all later versions read.
//!
//! They are written once: `L4LBD_WRITE=1` writes those that do not exist, and never replaces one.

use std::path::PathBuf;

use super::super::disk;
use super::super::envelope::{StoredKind, open, seal};
use super::super::messages::*;
use super::super::table::{Digest, Generation, Octets, RowTable};
use prost::Message;

fn stored(name: &str, now: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/replica/1")).join(name);
    if !path.exists() && std::env::var_os("L4LBD_WRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, now()).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn put(key: &[u8], row: impl Message) -> PutMessage {
    PutMessage { key: key.into(), value: row.encode_to_vec() }
}

/// A row of each kind with a value in each field.
fn rows() -> Vec<PutMessage> {
    let options = OptionsRow {
        scheduler: Some("wrr".into()),
        sticky_idle: true,
        drain: Some(30_000_000_000),
        weight: Some(0),
        slow_start: Some(1),
        no_ejection: true,
        locality: 3,
        affinity: Some(600_000_000_000),
        affinity_scope: 2,
    };
    let port = VipPortRow {
        name: "http".into(),
        protocol: 1,
        port: Some(80),
        host_port: Some(31_000),
        networks: vec!["dcos".into()],
        labels: vec![LabelRow { key: "VIP_0".into(), value: "/web:80".into() }],
        in_container: true,
        allocated: true,
        options: Some(options),
    };
    let task = VipTaskRow {
        agent: 1,
        state: 2,
        health: 1,
        docker: true,
        addresses: vec![TaskAddressRow { address: vec![9, 0, 0, 1], network: Some("dcos".into()) }],
        ports: vec![port],
        app: Some("dev_web".into()),
        resources: vec![31_000, 31_001],
        kept: true,
    };
    let name = NameRow {
        agent: 1,
        label: "web".into(),
        written: Some("web.dev".into()),
        published: true,
        addresses: vec![vec![9, 0, 0, 1]],
        discovery: true,
        ports: vec![NamePortRow { label: "http".into(), protocol: 1, number: 80 }],
        resources: vec![31_000, 31_001],
        executor_ports: vec![32_000, 32_000],
        kept: true,
    };
    let agent = AgentRow {
        id: "a-S1".into(),
        hostname: Some("n1".into()),
        address: vec![10, 0, 0, 1],
        port: Some(5051),
        awaited: true,
        region: Some("eu".into()),
        zone: Some("eu-1".into()),
        attributes: vec![AttributeRow { name: "rack".into(), value: "r1".into() }],
    };
    let framework = FrameworkRow {
        id: "a-0000".into(),
        name: Some("marathon".into()),
        scheduler: vec![10, 0, 0, 2],
        scheduler_port: Some(8080),
        registered: Some(TimeRow { seconds: 1_700_000_000, nanos: 5 }),
    };
    let master = MasterRow {
        id: Some("m".into()),
        elected_time: 1.5,
        address: vec![10, 0, 0, 3],
        leader: vec![10, 0, 0, 4],
        leader_port: 5050,
    };
    vec![
        put(&[1], master),
        put(&[2, 0, 0, 0, 2], framework),
        put(&[3, 0, 0, 0, 1], agent),
        put(b"\x04web.marathon", AddressRow { v4: vec![11, 1, 2, 3], v6: vec![0xfd; 16] }),
        put(b"\x05\0\0\0\x02dev_web.1", task),
        put(b"\x06\0\0\0\x02\x01\x02\x03\x04\x05\x06\x07\x08", name),
    ]
}

fn table() -> RowTable {
    let rows = rows().into_iter().map(|row| (Octets::from(row.key), Octets::from(row.value)));
    RowTable::of(Generation([0x5f; 16]), rows.collect())
}

#[test]
fn files_of_format_1_are_read() {
    let generation = vec![0x5f; 16];
    let frame = FrameMessage {
        generation: generation.clone(),
        seq: 7,
        before: vec![1; 16],
        after: table().digest().octets(),
        put: rows(),
        drop: vec![b"\x05\0\0\0\x02gone".into()],
        heard_ms: 1_700_000_000_000,
    };
    let head = HeadMessage {
        min_reader: 1,
        generation: generation.clone(),
        seq: 7,
        digest: table().digest().octets(),
        rows: 6,
        ring_first: 3,
        ring_slots: 1024,
        term: 4,
        publisher: Some(PublisherMessage {
            node: "m2".into(),
            address: "10.0.0.12".into(),
            version: "0.1.0".into(),
        }),
        facts: Some(FactsMessage {
            written_ms: 1,
            source_age_ms: 2,
            place: "http://10.0.0.4:5050".into(),
            trouble: "t".into(),
            held: vec!["h".into()],
            agents: 3,
            tasks: 4,
            named: 5,
            skipped: 6,
            vips: 7,
            document_bytes: 8,
            answer_ms: 9,
            range4: "11.0.0.0-11.255.255.255".into(),
            range6: "fd01:c::-fd01:c::ff".into(),
            rules: 10,
        }),
        frames: vec![b"a frame".into()],
    };
    let chunk = ChunkMessage {
        first_key: Vec::new(),
        node: "4-1-5f".into(),
        as_of: 6,
        sha: vec![2; 32],
        bytes: 99,
        rows: 6,
    };
    let manifest = ManifestMessage { generation, chunks: vec![chunk] };
    let body = ChunkBody { rows: rows() };
    let file = stored("frame", || seal(StoredKind::Frame, &frame));
    assert_eq!(open(StoredKind::Frame, &file), Ok(frame));
    let file = stored("head", || seal(StoredKind::Head, &head));
    assert_eq!(open(StoredKind::Head, &file), Ok(head));
    let file = stored("manifest", || seal(StoredKind::Manifest, &manifest));
    assert_eq!(open(StoredKind::Manifest, &file), Ok(manifest));
    let file = stored("chunk", || seal(StoredKind::Chunk, &body));
    assert_eq!(open(StoredKind::Chunk, &file), Ok(body));
    let file = stored("table", || disk::write(&table(), 7));
    assert_eq!(disk::read(&file), Ok((table(), 7)));
    // Followers and publishers of all versions compute the same one.
    assert_eq!(Some(table().digest()), Digest::read(&DIGEST));
}

const DIGEST: [u8; 16] = 35_685_439_212_003_961_408_281_411_096_957_325_416_u128.to_be_bytes();
