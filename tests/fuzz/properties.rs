//! What must hold for any bytes that somebody else can give to l4lbd, one function for each kind.
//!
//! Each takes bytes as they come and panics where a property does not hold. The fuzz targets search
//! for such bytes without an end; `bounded.rs` tries some thousands with every `cargo test`.

pub mod seeds;

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use l4lbd::cluster::{Protocol, Snapshot};
use l4lbd::config::Config;
use l4lbd::daemon::wiring;
use l4lbd::dns::protocol::message::{MAX_UDP_PAYLOAD, ResponseKind, Transport};
use l4lbd::dns::zones::catalog::Catalog;
use l4lbd::dns::zones::vips::{DEFAULT_ORIGIN, NamedService, ServicePort};
use l4lbd::mesos::reading::DocumentReader;
use l4lbd::mesos::{self, Format, StateFormat};
use l4lbd::netlink::ipvs::{IpvsCommand, IpvsMessage};
use l4lbd::netlink::nftables;
use l4lbd::replica::catch_up::CatchUp;
use l4lbd::replica::decode::Decoder;
use l4lbd::replica::disk;
use l4lbd::replica::encode::Encoder;
use l4lbd::replica::envelope::{StoredKind, open};
use l4lbd::replica::messages::{ChunkBody, FrameMessage};
use l4lbd::replica::table::{Generation, RowTable, changes_of};
use l4lbd::store::{self, Store};
use l4lbd::vip::label::{self, LabelHost};
use l4lbd::vip::{Host, LabelPolicy, VipTable, vip_name};
use netlink_packet_core::{Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};
use prost::Message as _;

/// A Mesos document is read or refused as a whole. What is found out to be its format is what
/// somebody who names the format gets, and what is read survives being kept on disk.
pub fn document(bytes: &[u8]) {
    let named =
        [Format::State, Format::V1State, Format::V1Events].map(|format| mesos::parse(bytes, Some(format)));
    let found = mesos::parse(bytes, None);
    if let Ok(found) = &found {
        assert!(
            named.iter().any(|named| named.as_ref().is_ok_and(|named| named == found)),
            "no format gives what was found without one: {found:?}"
        );
    }
    for snapshot in named.iter().flatten() {
        snapshot_holds(snapshot);
    }
    for (format, named) in [(StateFormat::V0, Format::State), (StateFormat::V1, Format::V1State)] {
        next_documents(bytes, format, named);
    }
}

/// A reader that gives as many bytes at a time as it was told to.
struct Pieces<'d>(&'d [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let length = self.1.min(room.len()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        room[..length].copy_from_slice(piece);
        self.0 = rest;
        Ok(length)
    }
}

/// A document is read as if it were the first one, whatever came before it and in whatever pieces it comes.
fn next_documents(bytes: &[u8], format: StateFormat, named: Format) {
    let (third, half) = (bytes.len() / 3, bytes.len() / 2);
    // The same without a part, cut off, and again.
    let shorter = [&bytes[..third], bytes.get(third + 40..).unwrap_or_default()].concat();
    let documents = [bytes, &shorter, bytes, &bytes[..half], bytes];
    let mut reader = DocumentReader::default();
    for (number, document) in documents.into_iter().enumerate() {
        let piece = 1 + (bytes.len() + 7 * number) % 5_000;
        let read = reader.read(Pieces(document, piece), format, false).map(|reading| reading.snapshot);
        match (read, mesos::parse(document, Some(named))) {
            (Ok(read), Ok(expected)) => assert_eq!(read, expected, "what came before makes a difference"),
            (Err(_), Err(_)) => {}
            (read, expected) => panic!("{read:?} but {expected:?} without what came before"),
        }
    }
}

fn snapshot_holds(snapshot: &Snapshot) {
    for skipped in &snapshot.skipped {
        assert!(!skipped.reason.is_empty(), "no reason: {skipped:?}");
    }
    for ipv6 in [true, false] {
        let table = VipTable::new(snapshot, &LabelPolicy { ipv6, ..LabelPolicy::default() });
        for (key, vip) in &table.vips {
            assert!(key.port != 0 && !vip.backends.is_empty() && !table.awaited.contains(key), "{key}");
            if let Host::Literal(literal) = key.host {
                assert!(vip.backends.keys().all(|backend| backend.is_ipv4() == literal.is_ipv4()), "{key}");
            }
            assert!(vip.backends.keys().all(|backend| ipv6 || backend.is_ipv4()), "{key}");
        }
    }
    let kept = serde_json::to_vec(snapshot).expect("a snapshot can be kept");
    let read: Snapshot = serde_json::from_slice(&kept).expect("what is kept can be read");
    let wanted = Snapshot {
        ended: Default::default(),
        lost: Default::default(),
        names: Default::default(),
        skipped: Vec::new(),
        ..snapshot.clone()
    };
    assert_eq!(read, wanted, "a snapshot changes on disk");
}

/// A label is a VIP or has a reason: as one it is read the same when it is written anew, and its
/// name is made of DNS labels and resolved by the zone unless that says why not.
pub fn label(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (value, framework) = text.split_once('\n').unwrap_or((&text, "marathon"));
    let Ok((host, port)) = label::parse(value) else { return };
    assert_ne!(port, 0);
    let again = match &host {
        LabelHost::Literal(address) => format!("{address}:{port}"),
        LabelHost::Named(name) => format!("{name}:{port}"),
    };
    assert_eq!(label::parse(&again).expect("what was read can be read again"), (host.clone(), port));
    let LabelHost::Named(label) = host else { return };

    let name = vip_name(label, framework);
    assert_eq!(
        name,
        vip_name(&label.to_ascii_uppercase(), framework),
        "the letters' case makes a difference"
    );
    for part in name.split('.') {
        assert!(part.len() <= 63 && !part.starts_with('-') && !part.ends_with('-'), "{name}");
        assert!(part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
    }
    let address = IpAddr::from([11, 0, 0, 1]);
    let (catalog, left_out) = catalog([(name.clone(), address)]);
    let resolved =
        Name::from_ascii(format!("{name}.{DEFAULT_ORIGIN}.")).is_ok_and(|name| resolves(&catalog, name));
    assert_ne!(resolved, left_out.contains_key(&name), "{name} resolves: {resolved}, left out: {left_out:?}");
}

fn resolves(catalog: &Catalog, name: Name) -> bool {
    let mut request = Message::query();
    request.add_query(Query::query(name, RecordType::A));
    let Ok(request) = request.to_vec() else { return false };
    let answer = answer(catalog, &request, Transport::Udp).and_then(|reply| Message::from_vec(&reply).ok());
    answer.is_some_and(|reply| !reply.answers.is_empty())
}

/// The server's answer, where there is one.
fn answer(catalog: &Catalog, request: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let mut reply = Vec::new();
    let outcome = l4lbd::dns::protocol::message::respond(catalog, request, transport, &mut reply).kind;
    (outcome != ResponseKind::Ignored).then_some(reply)
}

/// A message of the kernel is decoded or refused, and what was decoded is the same after it was
/// encoded.
pub fn netlink(bytes: &[u8]) {
    let _ = nftables::generation(bytes);
    let Ok(message) = decode_ipvs(bytes) else { return };
    if matches!(message.command, IpvsCommand::Other(_)) {
        return;
    }
    let header = GenlHeader { cmd: message.command(), version: message.version() };
    let mut encoded = vec![0xaa; header.buffer_len() + message.buffer_len()];
    header.emit(&mut encoded);
    message.emit(&mut encoded[header.buffer_len()..]);
    let again = decode_ipvs(&encoded).expect("what was encoded can be decoded");
    assert_eq!(again, message, "a message changes when it is sent");
}

fn decode_ipvs(bytes: &[u8]) -> Result<IpvsMessage, netlink_packet_core::DecodeError> {
    let header = GenlHeader::parse(bytes)?;
    IpvsMessage::parse_with_param(bytes.get(header.buffer_len()..).unwrap_or_default(), header)
}

/// A question gets at most one answer, to itself, about our zone alone, and over UDP never longer
/// than the client and [`MAX_UDP_PAYLOAD`] allow.
pub fn question(bytes: &[u8]) {
    let catalog = loaded_catalog();
    let udp = answer(catalog, bytes, Transport::Udp);
    let tcp = answer(catalog, bytes, Transport::Tcp);
    let (Some(udp), Some(tcp)) = (&udp, &tcp) else {
        assert_eq!(udp, tcp, "one transport answers and the other one does not");
        assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0, "a query without an answer");
        return;
    };
    let request = Message::from_vec(bytes).ok();
    // A message that the library refuses may offer a payload all the same: the library looks into the data of
    // records, which no answer depends on.
    let offered = request
        .as_ref()
        .map_or(MAX_UDP_PAYLOAD, |request| request.edns.as_ref().map_or(512, |edns| edns.max_payload()));
    let limit = usize::from(offered.clamp(512, MAX_UDP_PAYLOAD));
    assert!(udp.len() <= limit, "{} octets over UDP, where {limit} are allowed", udp.len());
    assert!(tcp.len() <= usize::from(u16::MAX));

    let udp_reply = Message::from_vec(udp).expect("the answer over UDP can be read");
    let tcp_reply = Message::from_vec(tcp).expect("the answer over TCP can be read");
    for reply in [&udp_reply, &tcp_reply] {
        assert_eq!(reply.id.to_be_bytes(), bytes[..2], "the answer to something else");
        assert_eq!(reply.message_type, MessageType::Response);
        assert!(!reply.recursion_available, "recursion is offered");
        about_our_zones_alone(reply);
    }
    if udp_reply.truncation {
        assert!(udp_reply.answers.iter().all(|record| tcp_reply.answers.contains(record)));
    } else {
        assert_eq!(udp, tcp, "a whole answer differs by its transport");
    }
    // The header of one that cannot be read may still be copied.
    if let Some(request) = &request
        && request.queries.len() == 1
        && !matches!(udp_reply.response_code, ResponseCode::FormErr | ResponseCode::NotImp)
    {
        assert_eq!(udp_reply.queries, request.queries, "the question is not repeated");
    }
}

fn about_our_zones_alone(reply: &Message) {
    let zones = ["thisdcos.directory.", "thisdcos.global.", "mesos.", "in-addr.arpa.", "ip6.arpa."];
    let zones = zones.map(|zone| Name::from_ascii(zone).expect("a zone is a name"));
    let ours = |name: &Name| zones.iter().any(|zone| zone.zone_of(name));
    for record in reply.answers.iter().chain(&reply.authorities).chain(&reply.additionals) {
        assert!(ours(&record.name), "a record of somebody else's: {record}");
    }
    let data = reply.answers.len() + reply.authorities.len() + reply.additionals.len();
    if data > 0 {
        assert!(reply.authoritative && reply.queries.iter().all(|query| ours(query.name())), "{reply:?}");
        assert!(matches!(reply.response_code, ResponseCode::NoError | ResponseCode::NXDomain), "{reply:?}");
    }
}

/// What is served with these names, and those that were left out with the reasons.
fn catalog(
    names: impl IntoIterator<Item = (String, IpAddr)>,
) -> (Catalog, std::collections::BTreeMap<String, String>) {
    let port = || Some(ServicePort::from((Protocol::Tcp, 80)));
    let services: Vec<NamedService> =
        names.into_iter().map(|(name, address)| NamedService { name, address, port: port() }).collect();
    let mut config = Config::defaults().expect("the defaults");
    // Nobody is looked up in the zone mesos, so that we have it.
    config.source.masters = vec!["http://127.0.0.1:5050".parse().expect("an address")];
    let catalog = wiring::catalog(&config).expect("the default zones");
    let (zone, left_out) = catalog.vips().with_services(7, &services);
    let left_out =
        left_out.into_iter().map(|(name, reason)| (name.to_string(), reason.to_string())).collect();
    (catalog.with_vips(Arc::new(zone)), left_out)
}

/// With a name that has too many addresses for UDP.
fn loaded_catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(|| {
        let many = (0..200).map(|number| ("many.marathon", IpAddr::from(Ipv4Addr::new(11, 0, 1, number))));
        let both = ["11.0.0.1", "fd01:c::1"].map(|text| ("web.marathon", text.parse().expect("an address")));
        catalog(many.chain(both).map(|(name, address)| (name.to_owned(), address))).0
    })
}

/// Events give the same state in RecordIO frames as one a line, however often a new subscription,
/// an update or nonsense comes between them; a stream that was cut gives an error or the state
/// after the last whole event. The first byte says where it is cut, each other one picks an event.
pub fn events(bytes: &[u8]) {
    let Some((&cut, picks)) = bytes.split_first() else { return };
    let known = known_events();
    let events: Vec<&str> =
        picks.iter().map(|&pick| known[usize::from(pick) % known.len()].as_str()).collect();
    let lines = events.join("\n");
    let frames: Vec<String> = events.iter().map(|event| format!("{}\n{event}", event.len())).collect();
    let read = |text: &str| mesos::parse(text.as_bytes(), Some(Format::V1Events)).ok();
    let whole = read(&frames.concat());
    assert_eq!(whole, read(&lines), "frames and lines differ");
    if let Some(snapshot) = &whole {
        snapshot_holds(snapshot);
    }

    // Frames end where their length says, whatever the chunks they came in: a stream that ends
    // between two frames is whole, and one that ends within a frame is not.
    let stream = frames.concat();
    let at = stream.len() * usize::from(cut) / 256;
    if !stream.is_char_boundary(at) {
        return;
    }
    let mut ends = frames.iter().scan(0, |end, frame| {
        *end += frame.len();
        Some(*end)
    });
    let cut_between = at == 0 || ends.any(|end| end == at);
    let parsed = read(&stream[..at]);
    assert!(cut_between || parsed.is_none(), "half an event is taken for a whole one");
    // A length in front of nothing that fits is refused as well.
    assert!(read(&format!("{}\n{stream}", stream.len() + 1)).is_none());
}

/// Real events and odd ones; more in the files of the captures.
fn known_events() -> &'static [String] {
    static EVENTS: OnceLock<Vec<String>> = OnceLock::new();
    EVENTS.get_or_init(|| {
        let captures = seeds::fixtures().join("captures");
        let mut events: Vec<String> = [
            "{}",
            r#"{"type":"HEARTBEAT"}"#,
            r#"{"type":"SUBSCRIBED"}"#,
            r#"{"type":"TASK_UPDATED","task_updated":{"status":null}}"#,
            r#"{"type":"\ud800"}"#,
            "[]",
        ]
        .map(String::from)
        .into();
        for name in
            ["subscribe_failover.jsonl", "subscribe_failover_late_new.jsonl", "subscribe_master.jsonl"]
        {
            let text = fs::read_to_string(captures.join(name)).expect("a capture");
            // The longest say nothing that the others do not, and only take longer.
            events.extend(text.lines().filter(|line| (1..5000).contains(&line.len())).map(String::from));
        }
        events
    })
}

/// A file of the state directory is read, or set aside with every byte of it; what was read is the
/// same after it was written.
pub fn state_file(bytes: &[u8]) {
    thread_local! {
        static DIRECTORY: tempfile::TempDir = tempfile::tempdir().expect("a directory");
    }
    DIRECTORY.with(|directory| {
        let directory = directory.path();
        let store = Store::new(directory);
        let leases = directory.join("leases.json");
        fs::write(&leases, bytes).expect("the directory is writable");
        match store.leases() {
            Ok(memory) => {
                store.save_leases(&memory).expect("the directory is writable");
                assert_eq!(store.leases().expect("what was written can be read"), memory);
            }
            Err(error) => must_be_set_aside(&store, error, bytes),
        }
        // The file of earlier versions, and the one that the reference of this one leads to.
        let _ = fs::remove_file(directory.join("cluster.journal"));
        for file in ["cluster.json", "cluster.journal"] {
            fs::write(directory.join(file), bytes).expect("the directory is writable");
            match store.cluster() {
                Ok(Some(cluster)) => {
                    store.save_cluster(&cluster).expect("the directory is writable");
                    assert_eq!(store.cluster().expect("what was written can be read"), Some(cluster));
                }
                Ok(None) => assert!(file == "cluster.json", "a file that is there is not seen"),
                Err(error) => must_be_set_aside(&store, error, bytes),
            }
            let reference = r#"{"version":2,"content":"cluster.journal"}"#;
            fs::write(directory.join("cluster.json"), reference).expect("the directory is writable");
        }
        fs::write(directory.join("deadlines.json"), bytes).expect("the directory is writable");
        match store.deadlines() {
            Ok(deadlines) => {
                store.save_deadlines(&deadlines).expect("the directory is writable");
                assert_eq!(store.deadlines().expect("what was written can be read"), deadlines);
            }
            Err(error) => must_be_set_aside(&store, error, bytes),
        }
        fs::write(directory.join("marathon.json"), bytes).expect("the directory is writable");
        match store.marathon() {
            Ok(Some(memory)) => {
                store.save_marathon(&memory).expect("the directory is writable");
                assert_eq!(store.marathon().expect("what was written can be read"), Some(memory));
            }
            Ok(None) => panic!("a file that is there is not seen"),
            Err(error) => must_be_set_aside(&store, error, bytes),
        }
    });
}

fn must_be_set_aside(store: &Store, error: store::Error, bytes: &[u8]) {
    let error = store.set_aside(error);
    let (store::Error::Damaged { aside: Some(aside), .. } | store::Error::Later { aside: Some(aside), .. }) =
        error
    else {
        panic!("{error}")
    };
    assert_eq!(fs::read(&aside).expect("the file is kept"), bytes);
    fs::remove_file(aside).expect("the directory is writable");
}

/// What a store or the disk has of a table is read or refused. Its rows lead to a cluster, and a publisher can go on
/// with them, whatever they are.
pub fn stored_table(bytes: &[u8]) {
    let mut follower = CatchUp::default();
    let _ = follower.head(bytes);
    if let Ok(chunks) = follower.manifest(bytes) {
        for chunk in chunks.iter().take(3) {
            follower.chunk(&chunk.node, Some(bytes));
        }
        let _ = follower.head(bytes);
    }
    follower.slot(1, Some(bytes));
    assert!(follower.known().is_none(), "a table out of a single part");
    if let Ok((table, seq)) = disk::read(bytes) {
        assert_eq!(disk::read(&disk::write(&table, seq)), Ok((table, seq)));
    }
    // Without the envelope, because its checksum refuses nearly all that is changed.
    let frame = open(StoredKind::Frame, bytes).ok().or_else(|| FrameMessage::decode(bytes).ok());
    let chunk = open(StoredKind::Chunk, bytes).ok().or_else(|| ChunkBody::decode(bytes).ok());
    let of_chunk = chunk.map(|chunk| FrameMessage { put: chunk.rows, ..FrameMessage::default() });
    for changes in [frame, of_chunk].into_iter().flatten().filter_map(changes_of) {
        let (mut table, mut decoder) = (RowTable::new(Generation([1; 16])), Decoder::default());
        table.apply_all(&changes);
        assert_eq!(RowTable::of(table.generation(), table.rows().clone()), table);
        decoder.follow(&changes, &table);
        let mut encoder = Encoder::resume(&table);
        let content = Decoder::of(&table).content().clone();
        let changes = encoder.changes(&table, &content);
        table.apply_all(&changes);
        assert!(Decoder::of(&table).unreadable().is_empty(), "rows of which nothing can be made are dropped");
    }
}
