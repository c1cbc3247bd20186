//! Where a search starts: real inputs, and for DNS those that a client would send.

use std::fs;
use std::path::PathBuf;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use l4lbd::cluster::belief::Holds;
use l4lbd::dataplane::ServiceKey;
use l4lbd::dns::zones::vips::DEFAULT_ORIGIN;
use l4lbd::marathon::MarathonMemory;
use l4lbd::replica::envelope::{StoredKind, open};
use l4lbd::replica::messages::{ChunkBody, FrameMessage};
use l4lbd::store::{Deadlines, KeptDrain, Persisted, Store};
use l4lbd::vip::alloc::AddressRange;
use l4lbd::{mesos, vip};
use prost::Message as _;

#[path = "../../../src/netlink/ipvs/tests/captures.rs"]
#[allow(dead_code)]
mod captured;

/// The project's fixtures, for the crate of the fuzz targets as well.
pub fn fixtures() -> PathBuf {
    let places = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut places = places.map(|place| place.join("tests/fixtures"));
    places.find(|place| place.is_dir()).expect("the fixtures are in this project")
}

/// Documents of Mesos.
pub fn documents() -> Vec<Vec<u8>> {
    let captures = fs::read_dir(fixtures().join("captures")).expect("there are captures");
    let mut paths: Vec<PathBuf> = captures.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().filter(|path| path.is_file()).map(|path| fs::read(path).expect("a capture")).collect()
}

/// Values of labels, some with the name of a framework on a second line.
pub fn labels() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(fixtures().join("vip_label_values.json")).expect("a fixture");
    let values: serde_json::Value = serde_json::from_str(&text).expect("a fixture of JSON");
    let cases = values["cases"].as_array().expect("a list of cases").iter();
    let values = cases.map(|case| case["value"].as_str().expect("a value").as_bytes().to_vec());
    values.chain([b"/web:80\nMy Framework_2".to_vec(), b"a.b-c_d:+080\nmarathon".to_vec()]).collect()
}

/// Messages of a kernel's IPVS family.
pub fn netlink() -> Vec<Vec<u8>> {
    [
        captured::WLC,
        captured::FWMARK_IPV6,
        captured::PERSISTENT,
        captured::MASQUERADE,
        captured::TUNNEL,
        captured::INFO,
        captured::CONFIG,
    ]
    .map(bytes_of)
    .into()
}

/// DNS messages: of names that there are and are not, with EDNS and without.
pub fn questions() -> Vec<Vec<u8>> {
    let names = ["many.marathon.", "WEB.marathon.", "nothing.marathon.", "marathon.", "ns.", ""];
    let kinds = [RecordType::A, RecordType::AAAA, RecordType::ANY, RecordType::SOA, RecordType::AXFR];
    let ours = names.iter().flat_map(|name| kinds.map(|kind| (format!("{name}{DEFAULT_ORIGIN}."), kind)));
    let others = [("example.com.".to_owned(), RecordType::A), (".".to_owned(), RecordType::ANY)];
    let mut questions = Vec::new();
    for (name, kind) in ours.chain(others) {
        for payload in [None, Some(0), Some(700), Some(65_535)] {
            let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
            message.add_query(Query::query(Name::from_ascii(&name).expect("a name"), kind));
            if let Some(payload) = payload {
                let mut edns = Edns::new();
                edns.set_max_payload(payload);
                message.set_edns(edns);
            }
            questions.push(message.to_vec().expect("a message"));
        }
    }
    questions
}

/// Picks of [`super::events`].
pub fn events() -> Vec<Vec<u8>> {
    vec![(0..40).collect(), vec![128, 6, 7, 8, 9], vec![255, 2, 6], vec![0, 6, 0, 1, 3, 4, 30, 6, 90]]
}

/// Files of the state directory, as they are written.
pub fn state_files() -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::new(directory.path());
    let mut memory = Persisted::default();
    memory.leases4.assign(&AddressRange::DCOS_V4, ["web.marathon", "api.marathon"], []);
    memory.leases6.assign(&AddressRange::DCOS_V6, ["web.marathon"], []);
    let host = vip::Host::Named("web.marathon".to_owned());
    memory.vips.insert(vip::VipKey { host, protocol: l4lbd::cluster::Protocol::Tcp, port: 80 }, None);
    store.save_leases(&memory).expect("the directory is writable");
    let mut files = vec![fs::read(directory.path().join("leases.json")).expect("a file")];
    let server = std::net::SocketAddr::from(([10, 0, 0, 1], 80));
    let service = ServiceKey { protocol: l4lbd::cluster::Protocol::Tcp, address: server.ip(), port: 80 };
    let (since, until) = (jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::MAX);
    let drain = KeptDrain { service, server, since, until, task: "t".to_owned(), agent: "S".to_owned() };
    let holds = Holds { failover: Some(since), losses: 3 };
    store.save_deadlines(&Deadlines { holds, drains: vec![drain] }).expect("the directory is writable");
    files.push(fs::read(directory.path().join("deadlines.json")).expect("a file"));
    let text = r#"{"framework":"F","verdicts":{"tasks":{"web.1":{"health":true,"readiness":null,"is_marathons":true,
        "unlisted":"2026-11-26T12:00:00Z"}},"apps":{"web":null}},"hosts":{"a":{"address":"10.0.0.1"}}}"#;
    let memory: MarathonMemory = serde_json::from_str(text).expect("the format of the file");
    store.save_marathon(&memory).expect("the directory is writable");
    files.push(fs::read(directory.path().join("marathon.json")).expect("a file"));
    for document in documents() {
        if let Ok(cluster) = mesos::parse(&document, None) {
            store.save_cluster(&cluster).expect("the directory is writable");
            for file in ["cluster.json", "cluster.journal"] {
                files.push(fs::read(directory.path().join(file)).expect("a file"));
            }
            // As earlier versions wrote it.
            let cluster = serde_json::to_string(&cluster).expect("plain data");
            files.push(format!(r#"{{"version":1,"content":{cluster}}}"#).into_bytes());
        }
    }
    files
}

/// What is stored of a table, and the frame and the chunk of it without what is around them.
pub fn stored_tables() -> Vec<Vec<u8>> {
    let read = |name: &str| fs::read(fixtures().join("replica/1").join(name)).expect("it is a fixture");
    let mut seeds: Vec<Vec<u8>> = ["head", "frame", "manifest", "chunk", "table"].map(read).into();
    let frame: FrameMessage = open(StoredKind::Frame, &read("frame")).expect("it is a frame");
    let chunk: ChunkBody = open(StoredKind::Chunk, &read("chunk")).expect("it is a chunk");
    seeds.extend([frame.encode_to_vec(), chunk.encode_to_vec()]);
    seeds
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] * 16 + pair[1]).collect()
}
