//! One server of the comparison that benches/dns/run makes, and what the others and the client need.
//!
//!   dns serve ADDRESS:PORT NAMES    serves a zone of so many VIPs, until it is ended
//!   dns zone NAMES                  prints the same zone as a master file
//!   dns queries NAMES               prints questions for dnsperf

// A bench fails by panicking.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::sync::Arc;

use l4lbd::cluster::Protocol;
use l4lbd::config::Config;
use l4lbd::daemon::wiring;
use l4lbd::dns::server::clients::ClientRule;
use l4lbd::dns::usage::UsageRegistry;
use l4lbd::dns::zones::catalog::Catalog;
use l4lbd::dns::zones::vips::{DEFAULT_ORIGIN, NamedService, ServicePort};
use l4lbd::dns::{Listener, Responder};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", address, names] => serve(address, names.parse().expect("a number")),
        ["zone", names] => zone(names.parse().expect("a number")),
        ["queries", names] => queries(names.parse().expect("a number")),
        _ => {
            eprintln!("usage: dns serve ADDRESS:PORT NAMES | zone NAMES | queries NAMES");
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
            catalogs,
            nodes,
            clients: vec![ClientRule::Node],
            forwarder: None,
            usage: UsageRegistry::default(),
        };
        listener.serve(serving, CancellationToken::new()).await.unwrap();
    });
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
