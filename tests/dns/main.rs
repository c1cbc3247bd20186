//! The same questions to l4lbd's resolver and to NSD with the same zones.
//!
//! What is different is in [`DIFFERENCES`], with the reason; anything else fails. Both sides are asked
//! over UDP, with and without EDNS, and over TCP.

// A test fails by panicking.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod registration;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use l4lbd::cluster::Protocol;
use l4lbd::config::Config;
use l4lbd::daemon::wiring;
use l4lbd::dns::protocol::record::{RData, encode};
use l4lbd::dns::protocol::wire::labels;
use l4lbd::dns::server::rules::{ClientRule, ServiceRules};
use l4lbd::dns::usage::UsageRegistry;
use l4lbd::dns::zones::catalog::Catalog;
use l4lbd::dns::zones::tasks::TaskZone;
use l4lbd::dns::zones::vips::{NamedService, ServicePort};
use l4lbd::dns::zones::{AnswerWindow, Directory};
use l4lbd::dns::{Listener, Responder};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What NSD does, what we do, and why.
const DIFFERENCES: [(&str, &str, &str, &str); 4] = [
    ("any", "all record sets of the name", "one of them", "RFC 8482 section 4.1: less to reflect"),
    (
        "authority",
        "NS beside answers",
        "nothing",
        "it fills the room that addresses need; no client looks at it",
    ),
    (
        "additional",
        "addresses of NS beside every answer",
        "addresses of SRV and NS answers",
        "follows from the last",
    ),
    (
        "truncation",
        "any part of an answer, or none, beside TC",
        "as much as fits",
        "old musl never repeats over TCP",
    ),
];

const VIPS: &str = "l4lb.thisdcos.directory";
const DCOS: &str = "dcos.thisdcos.directory";
const REVERSE: &str = "11.in-addr.arpa";

/// Name to records, as a master file has them.
type Records = BTreeMap<String, BTreeSet<String>>;

struct Nsd {
    process: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Nsd {
    fn start(zones: &BTreeMap<&str, Records>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config = format!(
            "server:\n ip-address: 127.0.0.1@{}\n server-count: 1\n username: \"\"\n chroot: \"\"\n zonesdir: \"{path}\"\n \
             database: \"\"\n pidfile: \"{path}/pid\"\n xfrdfile: \"{path}/xfrd\"\n zonelistfile: \"{path}/list\"\n \
             rrl-ratelimit: 0\n\
             remote-control:\n control-enable: no\n",
            free.port()
        );
        for (origin, records) in zones {
            let mut text = format!(
                "$ORIGIN {origin}.\n$TTL 5\n@ SOA ns hostmaster 1 60 180 86400 1\n@ NS ns\nns A 127.0.0.1\n"
            );
            for (name, records) in records {
                records.iter().for_each(|record| writeln!(text, "{name} {record}").unwrap());
            }
            std::fs::write(directory.path().join(origin), text).unwrap();
            write!(config, "zone:\n name: {origin}\n zonefile: {origin}\n").unwrap();
        }
        let file = directory.path().join("nsd.conf");
        std::fs::write(&file, config).unwrap();
        let process = Command::new(program())
            .args(["-d", "-c"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .expect("NSD is not installed: run tests/setup");
        let nsd = Self { process, address: free, _directory: directory };
        let deadline = Instant::now() + Duration::from_secs(20);
        let probe = message(&format!("ns.{VIPS}."), RecordType::A);
        while udp(nsd.address, &probe).is_none_or(|reply| reply.answers.is_empty()) {
            assert!(Instant::now() < deadline, "NSD does not answer at {}", nsd.address);
            std::thread::sleep(Duration::from_millis(100));
        }
        nsd
    }
}

/// Where tests/setup unpacks it.
fn program() -> PathBuf {
    let from = |variable: &str, below: &str| Some(PathBuf::from(std::env::var_os(variable)?).join(below));
    let cache = from("L4LBD_RIG_CACHE", "")
        .or_else(|| from("XDG_CACHE_HOME", "l4lbd-rig"))
        .or_else(|| from("HOME", ".cache/l4lbd-rig"));
    cache.expect("a home directory").join("nsd/usr/sbin/nsd")
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // SIGTERM, for NSD to end its children.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

fn message(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn udp(to: SocketAddr, request: &Message) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.connect(to).unwrap();
    socket.send(&request.to_vec().unwrap()).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    Some(Message::from_vec(&buffer[..length]).unwrap())
}

fn tcp(to: SocketAddr, request: &Message) -> Option<Message> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let octets = request.to_vec().unwrap();
    stream.write_all(&[&(octets.len() as u16).to_be_bytes()[..], &octets].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply).ok()?;
    Some(Message::from_vec(&reply).unwrap())
}

/// Three VIPs, one of them with many addresses, and the tasks of a real cluster.
fn catalog() -> Catalog {
    let mut config = Config::defaults().unwrap();
    // Nobody is looked up in the zone mesos, so that we have it.
    config.source.masters = vec!["http://127.0.0.1:5050".parse().unwrap()];
    config.dns.listen = vec!["127.0.0.1:53".parse().unwrap()];
    let port = Some((Protocol::Tcp, 80));
    let service = |name: &str, address: IpAddr, port: Option<(Protocol, u16)>| NamedService {
        name: name.to_owned(),
        address,
        port: port.map(ServicePort::from),
    };
    let mut services = vec![
        service("web.marathon", [11, 0, 0, 1].into(), port),
        service("web.marathon", "fd01:c::1".parse().unwrap(), port),
        service("dns.dev.kafka", [11, 2, 0, 1].into(), Some((Protocol::Udp, 53))),
    ];
    services.extend((0..150).map(|n| service("many.marathon", [11, 1, 0, n].into(), port)));
    let catalog = wiring::catalog(&config).unwrap();
    let (zone, _) = catalog.vips().with_services(1, &services);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/captures/master_state.json");
    let snapshot = l4lbd::mesos::parse(&std::fs::read(path).unwrap(), None).unwrap();
    let directory = Directory::new(&snapshot);
    catalog.with_vips(Arc::new(zone)).with_tasks(Arc::new(TaskZone::new(directory, &[], 1)))
}

fn text(name: &[u8]) -> String {
    labels(name).map(String::from_utf8_lossy).collect::<Vec<_>>().join(".")
}

fn show(data: &RData) -> String {
    match data {
        RData::A(address) => format!("A {address}"),
        RData::Aaaa(address) => format!("AAAA {address}"),
        RData::Srv { port, target } => format!("SRV 0 1 {port} {}", text(target)),
        RData::Ptr(name) => format!("PTR {}.", text(name)),
    }
}

/// The zones, written down by the rules of their names.
fn zones(catalog: &Catalog) -> BTreeMap<&'static str, Records> {
    let set = |records: &[RData]| records.iter().map(show).collect::<BTreeSet<_>>();
    let vips: Records = catalog.vips().iter().map(|(name, records)| (text(name), set(records))).collect();
    let reverse = |(name, records): (&String, &BTreeSet<String>)| -> Vec<(String, BTreeSet<String>)> {
        let addresses = records.iter().filter_map(|record| record.strip_prefix("A ")?.parse().ok());
        addresses
            .map(|address: Ipv4Addr| {
                let [_, b, c, d] = address.octets();
                (format!("{d}.{c}.{b}"), BTreeSet::from([format!("PTR {name}.{VIPS}.")]))
            })
            .collect()
    };
    let reverse: Records = vips.iter().flat_map(reverse).collect();

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/captures/master_state.json");
    let snapshot = l4lbd::mesos::parse(&std::fs::read(path).unwrap(), None).unwrap();
    let directory = Directory::new(&snapshot);
    let tasks = TaskZone::new(directory.clone(), &[], 1);
    let mut names: BTreeSet<(bool, String)> = ["leader", "master"]
        .iter()
        .flat_map(|name| [true, false].map(|dcos| (dcos, (*name).to_owned())))
        .collect();
    names.extend(["slave", "_leader._tcp", "_leader._udp"].map(|name| (false, name.to_owned())));
    for (number, group) in directory.groups() {
        let fragment = &group.fragment;
        names.insert((false, fragment.clone()));
        names.insert((false, format!("_framework._tcp.{fragment}")));
        for (task, entry) in directory.tasks(number, None) {
            let label = &task.label;
            for kind in ["agentip", "containerip", "autoip"] {
                names.insert((true, format!("{label}.{}.{kind}", group.label)));
            }
            let hash = String::from_utf8_lossy(&task.hash);
            let agent = directory.agent_tail(entry);
            for slave in ["", ".slave"] {
                names.insert((false, format!("{label}.{fragment}{slave}")));
                names.insert((false, format!("{label}-{hash}-{agent}.{fragment}{slave}")));
                for protocol in ["_tcp", "_udp"] {
                    names.insert((false, format!("_{label}.{protocol}.{fragment}{slave}")));
                    for port in task.ports.iter().flatten() {
                        names.insert((
                            false,
                            format!("_{}._{label}.{protocol}.{fragment}{slave}", port.label),
                        ));
                    }
                }
            }
        }
    }
    let (mut dcos, mut mesos) = (Records::new(), Records::new());
    for (is_dcos, name) in names {
        let Ok(octets) = encode(&name) else { continue };
        let records = if is_dcos {
            tasks.dcos(&octets, AnswerWindow::ALL)
        } else {
            tasks.mesos(&octets, AnswerWindow::ALL)
        };
        if let Some(records) = records.filter(|records| !records.is_empty()) {
            if is_dcos { &mut dcos } else { &mut mesos }.insert(name, set(&records));
        }
    }
    assert!(dcos.len() > 30 && mesos.len() > 80, "{} {}", dcos.len(), mesos.len());
    BTreeMap::from([(VIPS, vips), (REVERSE, reverse), (DCOS, dcos), ("mesos", mesos)])
}

/// Names to ask for: all that exist, all above them, and some beside and below each that do not.
fn names(zones: &BTreeMap<&str, Records>) -> BTreeSet<String> {
    let mut names =
        BTreeSet::from(["example.com.".to_owned(), "thisdcos.directory.".to_owned(), ".".to_owned()]);
    for (origin, records) in zones {
        names.extend([format!("{origin}."), format!("ns.{origin}."), format!("x.ns.{origin}.")]);
        for name in records.keys() {
            let mut above = name.as_str();
            while let Some((_, rest)) = above.split_once('.') {
                names.extend([format!("{rest}.{origin}."), format!("no.{rest}.{origin}.")]);
                above = rest;
            }
            names.extend([format!("{name}.{origin}."), format!("x.{name}.{origin}.")]);
            names.insert(format!("{}.{origin}.", name.to_uppercase()));
        }
    }
    names
}

/// What must be equal, in an order of its own.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    code: ResponseCode,
    authoritative: bool,
    truncated: bool,
    answers: BTreeSet<String>,
    authority: BTreeSet<String>,
    has_edns: bool,
}

fn seen(reply: &Message, kind: RecordType) -> Seen {
    let show = |records: &[hickory_proto::rr::Record]| records.iter().map(ToString::to_string).collect();
    let mut answers: BTreeSet<String> = show(&reply.answers);
    let mut authority: BTreeSet<String> = show(&reply.authorities);
    // "any": whether there is anything. "truncation": what fits is anybody's choice.
    if (kind == RecordType::ANY || reply.truncation) && !answers.is_empty() {
        answers = BTreeSet::from(["some".to_owned()]);
    }
    if reply.truncation {
        answers.clear();
    }
    // "authority"
    authority.retain(|record| record.contains(" SOA "));
    Seen {
        code: reply.response_code,
        authoritative: reply.authoritative,
        truncated: reply.truncation,
        answers,
        authority,
        has_edns: reply.edns.is_some(),
    }
}

#[test]
fn answers_are_those_of_nsd() {
    let catalog = catalog();
    let zones = zones(&catalog);
    let nsd = Nsd::start(&zones);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(Listener::bind(&["127.0.0.1:0".parse().unwrap()])).unwrap();
    let ours = listener.addresses().next().unwrap();
    let (_catalogs, catalogs) = watch::channel(Arc::new(catalog));
    // Clients are on loopback, which needs no view of the node.
    let nodes = watch::Sender::new(Arc::default()).subscribe();
    let serving = Responder {
        metrics: std::sync::Arc::default(),
        catalogs,
        nodes,
        rules: watch::Sender::new(Arc::new(ServiceRules {
            clients: vec![ClientRule::Node],
            forwarder: None,
        }))
        .subscribe(),
        usage: UsageRegistry::default(),
    };
    runtime.spawn(listener.serve(serving, CancellationToken::new()));

    let kinds = ["A", "AAAA", "SRV", "PTR", "SOA", "NS", "TXT", "ANY"]
        .map(|kind| kind.parse::<RecordType>().unwrap());
    let mut questions = 0;
    let mut differences = Vec::new();
    for name in names(&zones) {
        for kind in kinds {
            let plain = message(&name, kind);
            let mut with_edns = plain.clone();
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            with_edns.set_edns(edns);
            type Ask = fn(SocketAddr, &Message) -> Option<Message>;
            let asked: [(&str, &Message, Ask); 3] =
                [("udp", &plain, udp), ("udp+edns", &with_edns, udp), ("tcp", &plain, tcp)];
            // Every way for addresses, one for the rest.
            let ways = if kind == RecordType::A { 3 } else { 1 };
            for (way, request, ask) in &asked[..ways] {
                questions += 1;
                let (we, they) = (ask(ours, request).unwrap(), ask(nsd.address, request).unwrap());
                let (a, b) = (seen(&we, kind), seen(&they, kind));
                if a != b {
                    differences.push(format!("{name} {kind} {way}:\n  we   {a:?}\n  they {b:?}"));
                }
            }
        }
    }
    for (what, they, we, why) in DIFFERENCES {
        println!("{what}: NSD has {they}, we have {we}: {why}");
    }
    assert!(
        differences.is_empty(),
        "{} of {questions}:\n{}",
        differences.len(),
        differences[..differences.len().min(20)].join("\n")
    );
    assert!(questions > 3000, "only {questions} questions");
}
