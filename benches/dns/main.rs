//! One server of the comparison that benches/dns/run makes, and what the others and the client need.
//!
//!   dns serve ADDRESS:PORT NAMES    serves a zone of so many VIPs, until it is ended
//!   dns zone NAMES                  prints the same zone as a master file
//!   dns queries NAMES               prints questions for dnsperf
//!   dns cost                        prints what an answer and a change cost, without any socket

// A bench fails by panicking.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use l4lbd::cluster::registry::{Described, NamedPort, RegisteredTask};
use l4lbd::cluster::{Agent, Protocol, SharedMap, Snapshot, TaskKey, TaskRegistry};
use l4lbd::config::Config;
use l4lbd::daemon::wiring;
use l4lbd::dataplane::{Scheduling, ServiceKey};
use l4lbd::dns::protocol::message::{ResponseKind, Transport, respond};
use l4lbd::dns::publisher;
use l4lbd::dns::server::rules::{ClientRule, ServiceRules};
use l4lbd::dns::usage::UsageRegistry;
use l4lbd::dns::zones::Directory;
use l4lbd::dns::zones::catalog::Catalog;
use l4lbd::dns::zones::tasks::TaskZone;
use l4lbd::dns::zones::vips::{DEFAULT_ORIGIN, NamedService, ServicePort};
use l4lbd::dns::{Listener, Responder};
use l4lbd::plan::desired::{Desired, Programmed};
use l4lbd::reconcile::names::PublishedNames;
use l4lbd::source::Feed;
use l4lbd::vip::{Host, VipKey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", address, names] => serve(address, names.parse().expect("a number")),
        ["zone", names] => zone(names.parse().expect("a number")),
        ["queries", names] => queries(names.parse().expect("a number")),
        ["cost"] => {
            answers();
            changes();
        }
        _ => {
            eprintln!("usage: dns serve ADDRESS:PORT NAMES | zone NAMES | queries NAMES | cost");
            std::process::exit(64);
        }
    }
}

fn name(number: u32) -> String {
    format!("scaleapp{number}.marathon")
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0B00_0000 + number)
}

fn catalog(names: u32) -> Catalog {
    let mut config = Config::defaults().unwrap();
    config.dns.listen.clear();
    let catalog = wiring::catalog(&config).unwrap();
    let services: Vec<NamedService> = (0..names)
        .map(|number| NamedService {
            name: name(number),
            address: address(number).into(),
            port: Some(ServicePort::from((Protocol::Tcp, 80))),
        })
        .collect();
    let (zone, left_out) = catalog.vips().with_services(1, &services);
    assert!(left_out.is_empty());
    catalog.with_vips(Arc::new(zone))
}

/// As the daemon does it.
fn serve(address: &str, names: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = Listener::bind(&[address.parse().expect("ADDRESS:PORT")]).await.unwrap();
        let (_catalogs, catalogs) = watch::channel(Arc::new(catalog(names)));
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
        listener.serve(serving, CancellationToken::new()).await.unwrap();
    });
}

/// Questions for which the median is taken, in several rounds.
const ROUNDS: usize = 15;
const QUESTIONS: u16 = 2_000;

/// Time of one answer for a task's name, by the number of its instances.
fn answers() {
    println!("instances   A, AAAA, SRV of the name, and A of one instance, in microseconds");
    for instances in [1u32, 100, 1_000, 10_000, 100_000] {
        let tasks = Arc::new(TaskZone::new(Directory::new(&crowd(instances)), &[], 1));
        let catalog = wiring::catalog(&Config::defaults().unwrap()).unwrap().with_tasks(tasks);
        let one = canonical_name(&catalog);
        let mut figures = Vec::new();
        for (name, kind) in [
            ("app-web.marathon.mesos.thisdcos.directory", 1),
            ("app-web.marathon.mesos.thisdcos.directory", 28),
            ("_app-web._tcp.marathon.mesos.thisdcos.directory", 33),
            (&*one, 1),
        ] {
            figures.push(format!("{:8.2}", answer_time(&catalog, name, kind)));
        }
        println!("{instances:9} {}", figures.join(" "));
    }
}

/// A cluster of tasks with one name, each on an agent of its own as far as there are 10,000 of those.
fn crowd(instances: u32) -> Snapshot {
    let mut names = TaskRegistry::default();
    let mut agents = BTreeMap::new();
    for number in 0..instances {
        let agent = number % 10_000;
        let id = format!("62ca579f-d204-47ab-b9b7-6fdde30e658c-S{agent}");
        let port = NamedPort { label: "http".into(), protocol: Some(Protocol::Tcp), number: 31_000 };
        let described = Described {
            name: "app.web",
            is_published: true,
            addresses: vec![Ipv4Addr::from_bits(0x0900_0000 + number).into()],
            ports: Some(vec![port]),
            resources: &[(31_000, 31_000)],
        };
        let task = TaskKey { framework: "F".into(), task: format!("app_web.{number}").into() };
        let (key, task) = RegisteredTask::new(&task, id.as_str().into(), described);
        names.add(key, task);
        let address = Some(Ipv4Addr::from_bits(0x0A00_0000 + agent).into());
        agents.insert(id, Agent { hostname: format!("node{agent}"), address, port: Some(5051) });
    }
    let frameworks = [("F".to_owned(), "marathon".to_owned())].into_iter().collect();
    let agents = agents.into_iter().collect();
    Snapshot { agents, frameworks, names: Arc::new(names), ..Snapshot::default() }
}

/// The name of one instance, from the first SRV record.
fn canonical_name(catalog: &Catalog) -> String {
    let mut reply = Vec::new();
    let packet = question(7, "_app-web._tcp.marathon.mesos.thisdcos.directory", 33);
    respond(catalog, &packet, Transport::Udp, &mut reply);
    // Behind the question come owner, type, class, time, length, priority, weight and port.
    let question_length = packet.len() - 12 - 11;
    let target = &reply[12 + question_length + 18..];
    let mut labels = Vec::new();
    let mut rest = target;
    while rest[0] > 0 {
        let (label, after) = rest[1..].split_at(rest[0].into());
        labels.push(String::from_utf8(label.to_vec()).unwrap());
        rest = after;
    }
    labels.join(".")
}

fn answer_time(catalog: &Catalog, name: &str, kind: u16) -> f64 {
    let mut reply = Vec::new();
    let packets: Vec<Vec<u8>> =
        (0..QUESTIONS).map(|n| question(n.wrapping_mul(40_503), name, kind)).collect();
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            for packet in &packets {
                let answered = respond(catalog, std::hint::black_box(packet), Transport::Udp, &mut reply);
                assert_eq!(answered.kind, ResponseKind::Answered);
            }
            started.elapsed().as_secs_f64() * 1e6 / f64::from(QUESTIONS)
        })
        .collect();
    assert_eq!(reply[3] & 0xf, 0, "{name} does not exist");
    median(&mut rounds)
}

/// A question with EDNS for 1,232 octets.
fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend(label.bytes());
    }
    packet.push(0);
    packet.extend([kind.to_be_bytes(), 1u16.to_be_bytes()].concat());
    packet.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    packet
}

/// Time from a desired state in which one VIP's names differ until DNS answers from them, by the number of
/// VIPs; and what a zone in full costs.
fn changes() {
    println!("names       one change, and the zone in full, in ms");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for names in [1_000u32, 10_000, 100_000] {
        let mut desired = Desired { services: (0..names).map(programmed).collect(), ..Desired::default() };
        let mut published = PublishedNames::default();
        let empty = wiring::catalog(&Config::defaults().unwrap()).unwrap();
        let started = Instant::now();
        let all = published.follow(&desired, &[]).added;
        let mut zone = empty.vips().with_changes(1, [], &all);
        let full = started.elapsed();
        let (zones, vips) = watch::channel(Arc::new(zone.clone()));
        let (_feeds, feeds) = watch::channel(Feed::default());
        let (_nodes, nodes) = watch::channel(Arc::default());
        let (catalogs, mut swapped) = watch::channel(Arc::new(empty));
        let settings = publisher::CatalogSettings { masters: Vec::new(), tasks: true };
        let inputs = publisher::CatalogInputs { vips, feeds, nodes };
        let shutdown = CancellationToken::new();
        runtime.spawn(publisher::run(settings, inputs, catalogs, shutdown.clone()));
        runtime.block_on(swapped.wait_for(|catalog| catalog.vips().is_loaded())).unwrap();
        swapped.borrow_and_update();
        let mut rounds: Vec<f64> = (0..51u32)
            .map(|round| {
                let (key, _) = programmed(round * 7 % names);
                let programmed = Arc::make_mut(desired.services.get_mut(&key).unwrap());
                programmed.port_names = Arc::new([format!("port{round}")].into());
                let started = Instant::now();
                let changes = published.follow(&desired, &[]);
                zone = zone.with_changes(2 + round, &changes.removed, &changes.added);
                zones.send_replace(Arc::new(zone.clone()));
                runtime.block_on(swapped.changed()).unwrap();
                let took = started.elapsed();
                assert_eq!(swapped.borrow_and_update().vips().serial(), 2 + round);
                took.as_secs_f64() * 1e3
            })
            .collect();
        shutdown.cancel();
        println!("{names:9} {:8.3} {:8.1}", median(&mut rounds), full.as_secs_f64() * 1e3);
    }
}

fn programmed(number: u32) -> (ServiceKey, Arc<Programmed>) {
    let key = ServiceKey { protocol: Protocol::Tcp, address: address(number).into(), port: 80 };
    let programmed = Programmed {
        vip: VipKey { host: Host::Named(name(number)), protocol: Protocol::Tcp, port: 80 },
        scheduling: Scheduling { scheduler: "wlc".to_owned(), flags: 0 },
        servers: SharedMap::default(),
        port_names: Arc::new(["http".to_owned()].into()),
        weights: None,
    };
    (key, Arc::new(programmed))
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn zone(names: u32) {
    println!("$ORIGIN {DEFAULT_ORIGIN}.\n$TTL 5");
    println!("@ SOA ns hostmaster 1 60 180 86400 1\n@ NS ns\nns A 127.0.0.1");
    for number in 0..names {
        let (name, address) = (name(number), address(number));
        let (first, rest) = name.split_once('.').unwrap();
        println!("{name} A {address}");
        for service in
            [format!("_80._{first}._tcp.{rest}"), format!("_{first}._tcp.{rest}"), format!("_80._tcp.{name}")]
        {
            println!("{service} SRV 0 0 80 {name}");
        }
    }
}

/// What clients ask: mostly addresses, both families as resolvers do, some services, some names that
/// are not there. In an order that no cache likes.
fn queries(names: u32) {
    let mut number: u32 = 1;
    for count in 0..100_000 {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let name = name((number >> 8) % names);
        match count % 20 {
            0..10 => println!("{name}.{DEFAULT_ORIGIN} A"),
            10..17 => println!("{name}.{DEFAULT_ORIGIN} AAAA"),
            17..19 => println!("_80._tcp.{name}.{DEFAULT_ORIGIN} SRV"),
            _ => println!("no-{name}.{DEFAULT_ORIGIN} A"),
        }
    }
}
