//! The real listener on loopback, queried with plain sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::rules::{ClientRule, ServiceRules};
use super::tcp::MAX_CONNECTIONS;
use super::{DnsState, Error, Listener, Responder, run};
use crate::dns::forward::Forwarder;
use crate::dns::settings::DnsSettings;
use crate::dns::testing;
use crate::dns::usage::UsageRegistry;
use crate::dns::zones::catalog::Catalog;
use crate::dns::zones::vips::{DEFAULT_ORIGIN, NamedService};
use crate::plan::NodeView;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(5);

fn catalog(address: SocketAddr, serial: u32, records: &[(&'static str, IpAddr)]) -> Arc<Catalog> {
    let catalog = testing::catalog(&DnsSettings { listen: vec![address], ..DnsSettings::default() });
    let services: Vec<NamedService> = records
        .iter()
        .map(|(name, address)| NamedService { name: (*name).to_owned(), address: *address, port: None })
        .collect();
    let (zone, _) = catalog.vips().with_services(serial, &services);
    Arc::new(catalog.with_vips(Arc::new(zone)))
}

fn rules(clients: Vec<ClientRule>, forwarder: Option<Forwarder>) -> watch::Receiver<Arc<ServiceRules>> {
    watch::Sender::new(Arc::new(ServiceRules { clients, forwarder })).subscribe()
}

fn service(catalogs: watch::Receiver<Arc<Catalog>>) -> Responder {
    // The node's networks stay unknown, so that only loopback clients are inside.
    let nodes = watch::Sender::new(Arc::<NodeView>::default()).subscribe();
    Responder {
        metrics: Arc::default(),
        catalogs,
        nodes,
        rules: rules(vec![ClientRule::Node], None),
        usage: UsageRegistry::default(),
    }
}

/// A running server and the way to its zone.
struct Server {
    address: SocketAddr,
    catalogs: watch::Sender<Arc<Catalog>>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Server {
    async fn start(records: &[(&'static str, IpAddr)]) -> Self {
        Self::start_on(LOOPBACK, records).await
    }

    async fn start_on(address: SocketAddr, records: &[(&'static str, IpAddr)]) -> Self {
        Self::start_with(address, records, MAX_CONNECTIONS).await
    }

    /// A server that takes this number of connections.
    async fn start_with(
        address: SocketAddr,
        records: &[(&'static str, IpAddr)],
        max_connections: usize,
    ) -> Self {
        let mut listener = Listener::bind(&[address]).await.unwrap();
        listener.max_connections = max_connections;
        let address = listener.addresses().next().unwrap();
        let (catalogs, receiver) = watch::channel(catalog(address, 1, records));
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(listener.serve(service(receiver), shutdown.clone()));
        Self { address, catalogs, shutdown, task }
    }

    async fn udp(&self, request: &Message) -> Message {
        let socket = UdpSocket::bind((self.address.ip(), 0)).await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(&request.to_vec().unwrap()).await.unwrap();
        let mut buffer = [0; 4096];
        let received = timeout(PATIENCE, socket.recv(&mut buffer)).await;
        Message::from_vec(&buffer[..received.unwrap().unwrap()]).unwrap()
    }

    async fn tcp(&self, request: &Message) -> Message {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        write(&mut stream, request).await;
        read(&mut stream).await
    }

    /// Both transports must say the same.
    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let request = query(name, kind);
        let reply = self.udp(&request).await;
        assert_eq!(self.tcp(&request).await, reply);
        reply
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(format!("{name}.{DEFAULT_ORIGIN}.")).unwrap();
    message.add_query(Query::query(name, kind));
    message
}

async fn write(stream: &mut TcpStream, message: &Message) {
    let octets = message.to_vec().unwrap();
    stream.write_u16(octets.len() as u16).await.unwrap();
    stream.write_all(&octets).await.unwrap();
}

async fn read(stream: &mut TcpStream) -> Message {
    let length = timeout(PATIENCE, stream.read_u16()).await.unwrap().unwrap();
    let mut octets = vec![0; length.into()];
    stream.read_exact(&mut octets).await.unwrap();
    Message::from_vec(&octets).unwrap()
}

fn data(message: &Message) -> Vec<String> {
    let answers = message.answers.iter();
    answers.map(|record| record.data.to_string()).collect()
}

fn v4(last: u8) -> IpAddr {
    [11, 0, 0, last].into()
}

#[tokio::test]
async fn names_resolve_over_both_transports() {
    let v6 = "fd01:c::1".parse().unwrap();
    let server = Server::start(&[("web.marathon", v4(1)), ("web.marathon", v6)]).await;
    let reply = server.ask("wEb.MARATHON", RecordType::A).await;
    assert_eq!(data(&reply), ["11.0.0.1"]);
    assert!(reply.answers[0].name.eq_case(reply.queries[0].name()));
    let reply = server.ask("web.marathon", RecordType::AAAA).await;
    assert_eq!(data(&reply), ["fd01:c::1"]);
    let reply = server.ask("ns", RecordType::A).await;
    assert_eq!(data(&reply), ["127.0.0.1"]);
}

#[tokio::test]
async fn negative_answers_carry_the_soa() {
    let server = Server::start(&[("web.marathon", v4(1))]).await;
    for (name, kind, code) in [
        ("db.marathon", RecordType::A, ResponseCode::NXDomain),
        ("web.marathon", RecordType::AAAA, ResponseCode::NoError),
        ("marathon", RecordType::A, ResponseCode::NoError),
    ] {
        let reply = server.ask(name, kind).await;
        assert_eq!((reply.response_code, data(&reply)), (code, vec![]));
        assert!(matches!(&reply.authorities[0].data, RData::SOA(soa) if soa.serial == 1));
    }
}

#[tokio::test]
async fn many_addresses_are_truncated_on_udp_and_complete_on_tcp() {
    let records: Vec<_> = (0..120).map(|n| ("web.marathon", v4(n))).collect();
    let server = Server::start(&records).await;
    let mut request = query("web.marathon", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    request.set_edns(edns);
    let reply = server.udp(&request).await;
    assert!(reply.truncation && reply.edns.is_some());
    let reply = server.tcp(&request).await;
    assert!(!reply.truncation && reply.edns.is_some());
    assert_eq!(reply.answers.len(), 120);
}

#[tokio::test]
async fn garbage_does_not_stop_the_server() {
    let server = Server::start(&[("web.marathon", v4(1))]).await;
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    for length in [0, 1, 11, 12, 100, 5000, 60_000] {
        for octet in [0x00, 0x01, 0xc0, 0xff] {
            let octets = vec![octet; length];
            socket.send_to(&octets, server.address).await.unwrap();
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            // The server may close the connection while we are still writing.
            let _ = stream.write_all(&octets).await;
        }
    }
    let reply = server.ask("web.marathon", RecordType::A).await;
    assert_eq!(data(&reply), ["11.0.0.1"]);
}

#[tokio::test]
async fn a_new_zone_is_visible_to_the_next_query() {
    let server = Server::start(&[("web.marathon", v4(1))]).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for last in 1..5 {
        let next = catalog(server.address, u32::from(last), &[("web.marathon", v4(last))]);
        server.catalogs.send_replace(next);
        let expected = [format!("11.0.0.{last}")];
        let reply = server.ask("web.marathon", RecordType::A).await;
        assert_eq!(data(&reply), expected);
        write(&mut stream, &query("web.marathon", RecordType::A)).await;
        assert_eq!(data(&read(&mut stream).await), expected);
    }
}

#[tokio::test]
async fn the_last_zone_stays_when_its_sender_is_gone() {
    let mut server = Server::start(&[("web.marathon", v4(1))]).await;
    let last = server.catalogs.borrow().clone();
    server.catalogs = watch::Sender::new(last);
    let reply = server.ask("web.marathon", RecordType::A).await;
    assert_eq!(data(&reply), ["11.0.0.1"]);
}

#[tokio::test]
async fn connections_take_several_queries_at_once() {
    let server = Server::start(&[("a.m", v4(1)), ("b.m", v4(2))]).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    write(&mut stream, &query("a.m", RecordType::A)).await;
    write(&mut stream, &query("b.m", RecordType::A)).await;
    stream.shutdown().await.unwrap();
    assert_eq!(data(&read(&mut stream).await), ["11.0.0.1"]);
    assert_eq!(data(&read(&mut stream).await), ["11.0.0.2"]);
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}

/// A connection from another address of loopback.
async fn connect_from(client: u8, to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, client], 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// All processes of a node without a network of their own have one address.
#[tokio::test]
async fn many_connections_of_one_client_are_all_answered() {
    let server = Server::start(&[("web.marathon", v4(1))]).await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(connect_from(10, server.address).await);
    }
    for stream in &mut streams {
        write(stream, &query("web.marathon", RecordType::A)).await;
        assert_eq!(data(&read(stream).await), ["11.0.0.1"]);
    }
}

#[tokio::test]
async fn a_full_server_closes_the_connection_that_is_idle_longest() {
    let server = Server::start_with(LOOPBACK, &[("web.marathon", v4(1))], 4).await;
    let request = query("web.marathon", RecordType::A);
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(connect_from(10, server.address).await);
    }
    // An answer to each shows that the server has seen it; the second one's last.
    for place in [0, 2, 3, 1] {
        write(&mut streams[place], &request).await;
        read(&mut streams[place]).await;
    }
    // One of the same client, and then one that has no other.
    for (client, closed) in [(10, 0), (11, 2)] {
        let mut late = connect_from(client, server.address).await;
        write(&mut late, &request).await;
        assert_eq!(data(&read(&mut late).await), ["11.0.0.1"]);
        assert!(timeout(PATIENCE, streams[closed].read_u16()).await.unwrap().is_err());
        streams.push(late);
    }
    for place in [1, 3, 5] {
        write(&mut streams[place], &request).await;
        assert_eq!(data(&read(&mut streams[place]).await), ["11.0.0.1"], "{place}");
    }
}

#[tokio::test]
async fn outsiders_get_no_answer() {
    let listener = Listener::bind(&[LOOPBACK]).await.unwrap();
    let address = listener.addresses().next().unwrap();
    let (_catalogs, receiver) = watch::channel(catalog(address, 1, &[]));
    let clients = vec!["127.0.0.9/32".parse().unwrap()];
    let service = Responder { rules: rules(clients, None), ..service(receiver) };
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(listener.serve(service, shutdown.clone()));
    let request = query("ns", RecordType::A);
    for (client, answered) in [(9, true), (10, false)] {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, client], 0))).await.unwrap();
        socket.send_to(&request.to_vec().unwrap(), address).await.unwrap();
        let mut buffer = [0; 512];
        let patience = if answered { PATIENCE } else { Duration::from_millis(300) };
        assert_eq!(timeout(patience, socket.recv(&mut buffer)).await.is_ok(), answered);
        let mut stream = connect_from(client, address).await;
        write(&mut stream, &request).await;
        assert_eq!(timeout(PATIENCE, stream.read_u16()).await.unwrap().is_ok(), answered);
    }
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_slow_upstream_delays_no_local_name() {
    let silent = UdpSocket::bind(LOOPBACK).await.unwrap();
    let upstream = silent.local_addr().unwrap();
    let listener = Listener::bind(&[LOOPBACK]).await.unwrap();
    let address = listener.addresses().next().unwrap();
    let (_catalogs, receiver) = watch::channel(catalog(address, 1, &[("web.marathon", v4(1))]));
    let forwarder = Forwarder::new(vec![("", vec![upstream])], &[address]).unwrap();
    let service = Responder { rules: rules(vec![ClientRule::Node], Some(forwarder)), ..service(receiver) };
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(listener.serve(service, shutdown.clone()));

    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.connect(address).await.unwrap();
    let mut slow = Message::new(1, MessageType::Query, OpCode::Query);
    slow.add_query(Query::query(Name::from_ascii("example.com.").unwrap(), RecordType::A));
    for id in 0..200 {
        slow.metadata.id = id;
        socket.send(&slow.to_vec().unwrap()).await.unwrap();
    }
    socket.send(&query("web.marathon", RecordType::A).to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 512];
    let received = timeout(Duration::from_secs(1), socket.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(data(&Message::from_vec(&buffer[..received]).unwrap()), ["11.0.0.1"]);
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn use_of_connections_and_questions_is_known_while_the_server_runs() {
    let silent = UdpSocket::bind(LOOPBACK).await.unwrap();
    let listener = Listener::bind(&[LOOPBACK]).await.unwrap();
    let address = listener.addresses().next().unwrap();
    let (_catalogs, receiver) = watch::channel(catalog(address, 1, &[("web.marathon", v4(1))]));
    let forwarder = Forwarder::new(vec![("", vec![silent.local_addr().unwrap()])], &[address]).unwrap();
    let service =
        Responder { rules: rules(vec![ClientRule::Node], Some(forwarder.clone())), ..service(receiver) };
    let registry = service.usage.clone();
    forwarder.announce(&registry);
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(listener.serve(service, shutdown.clone()));

    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut slow = Message::new(1, MessageType::Query, OpCode::Query);
    slow.add_query(Query::query(Name::from_ascii("example.com.").unwrap(), RecordType::A));
    let octets = slow.to_vec().unwrap();
    stream.write_u16(octets.len() as u16).await.unwrap();
    stream.write_all(&octets).await.unwrap();
    // The upstream is asked when both places are taken.
    let mut buffer = [0; 512];
    timeout(PATIENCE, silent.recv(&mut buffer)).await.unwrap().unwrap();
    let shown: Vec<String> = registry.read().iter().map(|usage| usage.to_string()).collect();
    assert_eq!(
        shown,
        [
            "forwarded questions: 1 of 1024 by 1 client (most by 127.0.0.1: 1; share 512)".to_owned(),
            format!("tcp connections to {address}: 1 of 1024 by 1 client (most by 127.0.0.1: 1; share 512)"),
        ]
    );
    shutdown.cancel();
    task.await.unwrap().unwrap();
    // The question is still under way, and the connections have gone with the server.
    let left: Vec<String> = registry.read().into_iter().map(|usage| usage.name).collect();
    assert_eq!(left, ["forwarded questions"]);
}

/// As musl does it: both families at once from one socket, matched by their ids.
#[tokio::test]
async fn both_families_are_answered_at_once() {
    let v6 = "fd01:c::1".parse().unwrap();
    let server = Server::start(&[("web.marathon", v4(1)), ("web.marathon", v6)]).await;
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.connect(server.address).await.unwrap();
    for (id, kind) in [(1, RecordType::A), (2, RecordType::AAAA)] {
        let mut request = query("web.marathon", kind);
        request.metadata.id = id;
        socket.send(&request.to_vec().unwrap()).await.unwrap();
    }
    let mut found = Vec::new();
    let mut buffer = [0; 512];
    for _ in 0..2 {
        let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        found.push((reply.id, data(&reply)));
    }
    found.sort();
    assert_eq!(found, [(1, vec!["11.0.0.1".to_owned()]), (2, vec!["fd01:c::1".to_owned()])]);
}

#[tokio::test]
async fn shutdown_frees_the_addresses() {
    let server = Server::start(&[]).await;
    let _open = TcpStream::connect(server.address).await.unwrap();
    server.shutdown.cancel();
    timeout(PATIENCE, server.task).await.unwrap().unwrap().unwrap();
    Listener::bind(&[server.address]).await.unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_named_with_a_hint() {
    let first = Listener::bind(&[LOOPBACK]).await.unwrap();
    let address = first.addresses().next().unwrap();
    let error = Listener::bind(&[LOOPBACK, address]).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("cannot listen for dns on {address}: ")), "{text}");
    assert!(text.contains("change dns.listen"), "{text}");
}

#[tokio::test]
async fn addresses_need_not_exist_and_families_do_not_collide() {
    let absent = ["198.51.100.1:0", "[fd01:d::c633:6401]:0"].map(|text| text.parse().unwrap());
    let listener = Listener::bind(&absent).await.unwrap();
    let bound: Vec<_> = listener.addresses().collect();
    assert_eq!(bound.len(), 2);
    for (bound, asked) in bound.iter().zip(absent) {
        assert_eq!(bound.ip(), asked.ip());
        assert_ne!(bound.port(), 0);
    }
    let any = Listener::bind(&["0.0.0.0:0".parse().unwrap()]).await.unwrap();
    let port = any.addresses().next().unwrap().port();
    Listener::bind(&[SocketAddr::new("::".parse().unwrap(), port)]).await.unwrap();
}

#[tokio::test]
async fn ipv6_is_served() {
    let address = "[::1]:0".parse().unwrap();
    let server = Server::start_on(address, &[("web.marathon", v4(1))]).await;
    let reply = server.ask("web.marathon", RecordType::A).await;
    assert_eq!(data(&reply), ["11.0.0.1"]);
}

/// A server that listens by itself, with what it publishes and what it waits for.
struct Running {
    states: watch::Receiver<DnsState>,
    _nodes: watch::Sender<Arc<NodeView>>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn on(address: SocketAddr) -> Self {
        let (states, receiver) = watch::channel(DnsState::default());
        let (_catalogs, catalogs) = watch::channel(catalog(address, 1, &[("web.marathon", v4(1))]));
        let (nodes, views) = watch::channel(Arc::<NodeView>::default());
        let responder = Responder { nodes: views, ..service(catalogs) };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(vec![address], responder, states, shutdown.clone()));
        Self { states: receiver, _nodes: nodes, shutdown, task }
    }

    async fn await_state(&mut self, is_wanted: impl FnMut(&DnsState) -> bool) -> DnsState {
        self.states.wait_for(is_wanted).await.unwrap().clone()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// The kernel may be unreadable for a while: what does not depend on its networks is answered.
#[tokio::test(start_paused = true)]
async fn loopback_clients_are_answered_although_the_node_is_unknown() {
    let mut running = Running::on(LOOPBACK);
    let state = running.await_state(|state| !state.addresses.is_empty()).await;
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.connect(state.addresses[0]).await.unwrap();
    socket.send(&query("web.marathon", RecordType::A).to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).await.unwrap();
    assert_eq!(data(&Message::from_vec(&buffer[..length]).unwrap()), ["11.0.0.1"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_address_in_use_is_tried_again_until_it_is_free() {
    let other = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let address = other.local_addr().unwrap();
    let mut running = Running::on(address);
    let state = running.await_state(|state| state.error.is_some()).await;
    assert!(state.addresses.is_empty() && state.error.unwrap().contains(&address.to_string()));
    drop(other);
    let state = running.await_state(|state| !state.addresses.is_empty()).await;
    assert_eq!((state.addresses, state.error), (vec![address], None));
    running.stop().await;
}
