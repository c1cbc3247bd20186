//! Upstreams that answer, are slow, or are this server itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{MessageType, OpCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::Instant;

use super::*;
use crate::dns::settings::DnsSettings;
use crate::dns::testing;
use crate::dns::zones::vips::NamedService;

/// An upstream that has 192.0.2.1 for every name, but for those whose first label means something.
struct Fake {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

/// Sockets of both kinds with one port. The kernel chooses it for UDP alone, and with TCP another test may have it.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        match TcpListener::bind(udp.local_addr().unwrap()).await {
            Ok(tcp) => return (udp, tcp),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}"),
        }
    }
}

impl Fake {
    async fn start() -> Self {
        Self::start_as("good").await
    }

    /// An upstream that has only one kind of answer, unless it is `good`.
    async fn start_as(way: &'static str) -> Self {
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, peer) = udp.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                if let Some(reply) = spoilt(&buffer[..length], way) {
                    udp.send_to(&reply, peer).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; length.into()];
                        stream.read_exact(&mut query).await.unwrap();
                        let reply = answer(&query, true).unwrap();
                        stream.write_u16(reply.len() as u16).await.unwrap();
                        stream.write_all(&reply).await.unwrap();
                    }
                });
            }
        });
        Self { address, asked }
    }
}

fn spoilt(query: &[u8], way: &str) -> Option<Vec<u8>> {
    let code = |code| {
        let mut reply = skeleton(&Message::from_vec(query).unwrap());
        reply.metadata.response_code = code;
        Some(reply.to_vec().unwrap())
    };
    match way {
        "refused" => code(ResponseCode::Refused),
        "servfail" => code(ResponseCode::ServFail),
        "notimp" => code(ResponseCode::NotImp),
        // Servers from before EDNS, of which some send the bare header.
        "old" | "oldest" if Message::from_vec(query).unwrap().edns.is_some() => {
            let code = if way == "old" { ResponseCode::FormErr } else { ResponseCode::NotImp };
            let mut reply = [&query[..3], &[code.low(), 0, 0, 0, 0, 0, 0, 0, 0]].concat();
            reply[2] |= 0x80;
            Some(reply)
        }
        "echo" => Some(query.to_vec()),
        "garbage" => Some([&query[..2], &[0xff; 40]].concat()),
        "wrong id" => {
            let mut reply = answer(query, false)?;
            reply[0] ^= 1;
            Some(reply)
        }
        _ => answer(query, false),
    }
}

fn answer(query: &[u8], complete: bool) -> Option<Vec<u8>> {
    let request = Message::from_vec(query).unwrap();
    let mut reply = skeleton(&request);
    let name = request.queries[0].name().clone();
    let kind = name.iter().next().unwrap_or_default().to_ascii_lowercase();
    let addresses = match kind.as_slice() {
        b"silent" => return None,
        b"nx" => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            0
        }
        b"many" | b"huge" if !complete => {
            reply.metadata.truncation = true;
            0
        }
        b"many" => 100,
        b"huge" => 255,
        _ => 1,
    };
    let record = |n: u8| Record::from_rdata(name.clone(), 300, RData::A(A::new(192, 0, 2, n)));
    reply.answers = (1..=addresses).map(record).collect();
    let alias = |target: &str| {
        let target = Name::from_ascii(target).unwrap();
        Record::from_rdata(name.clone(), 300, RData::CNAME(CNAME(target)))
    };
    match kind.as_slice() {
        b"vip" => reply.answers = vec![alias("web.marathon.l4lb.thisdcos.directory.")],
        b"gone" => reply.answers = vec![alias("gone.marathon.l4lb.thisdcos.directory.")],
        b"self" => reply.answers = vec![alias(&name.to_ascii())],
        b"ping" => reply.answers = vec![alias("pong.example.com.")],
        b"pong" => reply.answers = vec![alias("ping.example.com.")],
        b"twice" => reply.answers = vec![alias("once.example.com.")],
        b"once" => reply.answers = vec![alias("www.example.com.")],
        b"foreign" => {
            let other = Name::from_ascii("bank.example.").unwrap();
            reply.answers.push(Record::from_rdata(other, 300, RData::A(A::new(203, 0, 113, 1))));
        }
        _ => {}
    }
    Some(reply.to_vec().unwrap())
}

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// The zones with one VIP.
fn catalog() -> Catalog {
    let catalog = testing::catalog(&DnsSettings { tasks: false, ..DnsSettings::default() });
    let vip = NamedService { name: "web.marathon".to_owned(), address: [11, 0, 0, 1].into(), port: None };
    let (zone, _) = catalog.vips().with_services(1, [&vip]);
    catalog.with_vips(Arc::new(zone))
}

async fn ask(forwarder: &Forwarder, name: &str, transport: Transport) -> Message {
    let mut request = Message::new(0x1234, MessageType::Query, OpCode::Query);
    request.metadata.recursion_desired = true;
    request.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let packet = request.to_vec().unwrap();
    assert!(forwarder.takes(&packet));
    let (send, reply) = tokio::sync::oneshot::channel();
    let catalog = Arc::new(catalog());
    forwarder
        .spawn(&packet, (CLIENT, transport), &catalog, async move |reply: Vec<u8>| send.send(reply).unwrap());
    let reply = Message::from_vec(&reply.await.unwrap()).unwrap();
    assert_eq!((reply.id, reply.message_type), (0x1234, MessageType::Response));
    assert_eq!(reply.queries, request.queries);
    assert!(reply.recursion_available && !reply.authoritative);
    reply
}

fn forwarder(upstreams: &[SocketAddr]) -> Forwarder {
    Forwarder::new(vec![("", upstreams.to_vec())], &[]).unwrap()
}

#[tokio::test]
async fn answers_come_from_upstream_and_are_remembered() {
    let fake = Fake::start().await;
    let forwarder = forwarder(&[fake.address]);
    for _ in 0..3 {
        let reply = ask(&forwarder, "www.Example.com.", Transport::Udp).await;
        assert_eq!(reply.answers[0].data, RData::A(A::new(192, 0, 2, 1)));
    }
    assert_eq!(fake.asked.load(Ordering::Relaxed), 1);
    let reply = ask(&forwarder, "nx.example.com.", Transport::Udp).await;
    assert_eq!((reply.response_code, reply.answers.len()), (ResponseCode::NXDomain, 0));
}

#[tokio::test]
async fn long_answers_come_over_tcp() {
    let fake = Fake::start().await;
    let forwarder = forwarder(&[fake.address]);
    let reply = ask(&forwarder, "many.example.com.", Transport::Tcp).await;
    assert_eq!((reply.answers.len(), reply.truncation), (100, false));
    let reply = ask(&forwarder, "many.example.com.", Transport::Udp).await;
    assert!(reply.truncation && !reply.answers.is_empty());
}

#[tokio::test]
async fn very_long_answers_are_not_kept() {
    let fake = Fake::start().await;
    let forwarder = forwarder(&[fake.address]);
    for (name, asked) in [("many.example.com.", 1), ("huge.example.com.", 3)] {
        for _ in 0..2 {
            let reply = ask(&forwarder, name, Transport::Tcp).await;
            assert!(reply.answers.len() >= 100, "{name}");
        }
        assert_eq!(fake.asked.load(Ordering::Relaxed), asked, "{name}");
    }
}

#[tokio::test]
async fn a_dead_upstream_is_passed_over() {
    let fake = Fake::start().await;
    // Nobody is there, which the kernel says at once; the silent one takes its time.
    let forwarder = forwarder(&["127.0.0.1:1".parse().unwrap(), fake.address]);
    let reply = ask(&forwarder, "www.example.com.", Transport::Udp).await;
    assert_eq!(reply.response_code, ResponseCode::NoError);
}

/// The clock jumps to the next deadline whenever nothing else is to be done.
#[tokio::test(start_paused = true)]
async fn an_upstream_that_says_nothing_is_servfail_in_time() {
    let fake = Fake::start().await;
    let forwarder = forwarder(&[fake.address]);
    let started = Instant::now();
    let reply = ask(&forwarder, "silent.example.com.", Transport::Udp).await;
    assert_eq!(reply.response_code, ResponseCode::ServFail);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(fake.asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn too_many_questions_are_servfail_at_once_but_not_those_in_the_cache() {
    let fake = Fake::start().await;
    let forwarder = forwarder(&[fake.address]);
    ask(&forwarder, "known.example.com.", Transport::Udp).await;
    let client = Client::from(CLIENT);
    while forwarder.shares.lock().unwrap().take(client, 0) {}
    let reply = ask(&forwarder, "www.example.com.", Transport::Udp).await;
    assert_eq!(reply.response_code, ResponseCode::ServFail);
    let reply = ask(&forwarder, "known.example.com.", Transport::Udp).await;
    assert_eq!((reply.response_code, reply.answers.len()), (ResponseCode::NoError, 1));
    assert_eq!(fake.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn questions_that_are_answered_give_their_places_back() {
    let fake = Fake::start().await;
    let forwarder = forwarder(&[fake.address]);
    for number in 0..20 {
        ask(&forwarder, &format!("x{number}.example.com."), Transport::Udp).await;
    }
    assert!(forwarder.place(CLIENT, &Query::query(Name::root(), RecordType::A)).is_some());
    assert_eq!(forwarder.shares.lock().unwrap().under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_fails_never_hides_the_answer_of_another() {
    for way in ["refused", "servfail", "notimp", "garbage", "echo", "wrong id"] {
        let (bad, good) = (Fake::start_as(way).await, Fake::start().await);
        for upstreams in [[bad.address, good.address], [good.address, bad.address]] {
            let forwarder = forwarder(&upstreams);
            for number in 0..5 {
                let reply = ask(&forwarder, &format!("x{number}.example.com."), Transport::Udp).await;
                assert_eq!((reply.response_code, reply.answers.len()), (ResponseCode::NoError, 1), "{way}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_most_telling_code_is_passed_on_when_all_have_failed() {
    for (ways, code) in [
        (["refused", "refused"], ResponseCode::Refused),
        (["refused", "servfail"], ResponseCode::ServFail),
        (["notimp", "refused"], ResponseCode::Refused),
        (["notimp", "garbage"], ResponseCode::NotImp),
        (["echo", "wrong id"], ResponseCode::ServFail),
    ] {
        let upstreams = [Fake::start_as(ways[0]).await, Fake::start_as(ways[1]).await];
        let forwarder = forwarder(&upstreams.each_ref().map(|fake| fake.address));
        let reply = ask(&forwarder, "www.example.com.", Transport::Udp).await;
        assert_eq!((reply.response_code, reply.answers.len()), (code, 0), "{ways:?}");
    }
}

#[tokio::test]
async fn an_upstream_without_edns_is_asked_without_it() {
    for way in ["old", "oldest"] {
        let fake = Fake::start_as(way).await;
        let reply = ask(&forwarder(&[fake.address]), "www.example.com.", Transport::Udp).await;
        assert_eq!((reply.response_code, reply.answers.len()), (ResponseCode::NoError, 1), "{way}");
        assert_eq!(fake.asked.load(Ordering::Relaxed), 2);
        // What does not fit comes over TCP all the same.
        let reply = ask(&forwarder(&[fake.address]), "many.example.com.", Transport::Tcp).await;
        assert_eq!(reply.answers.len(), 100, "{way}");
    }
}

#[tokio::test]
async fn aliases_of_our_names_are_followed_at_home() {
    let fake = Fake::start().await;
    let forwarder = forwarder(&[fake.address]);
    let reply = ask(&forwarder, "vip.example.com.", Transport::Udp).await;
    assert_eq!(reply.answers.len(), 2);
    assert_eq!(reply.answers[1].data, RData::A(A::new(11, 0, 0, 1)));
    let reply = ask(&forwarder, "gone.example.com.", Transport::Udp).await;
    assert_eq!((reply.response_code, reply.answers.len()), (ResponseCode::NXDomain, 1));
    // Neither name was asked outside.
    assert_eq!(fake.asked.load(Ordering::Relaxed), 2);
    let reply = ask(&forwarder, "twice.example.com.", Transport::Udp).await;
    assert_eq!(reply.answers.len(), 3);
    assert_eq!(reply.answers[2].data, RData::A(A::new(192, 0, 2, 1)));
}

#[tokio::test]
async fn loops_of_aliases_are_servfail() {
    let fake = Fake::start().await;
    let forwarder = forwarder(&[fake.address]);
    for name in ["self.example.com.", "ping.example.com."] {
        let reply = ask(&forwarder, name, Transport::Udp).await;
        assert_eq!((reply.response_code, reply.answers.len()), (ResponseCode::ServFail, 0), "{name}");
    }
}

#[tokio::test]
async fn records_of_other_names_are_not_passed_on() {
    let fake = Fake::start().await;
    let reply = ask(&forwarder(&[fake.address]), "foreign.example.com.", Transport::Udp).await;
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(reply.answers[0].data, RData::A(A::new(192, 0, 2, 1)));
}

#[tokio::test]
async fn names_go_to_the_upstream_of_their_zone() {
    let (mesos, others) = (Fake::start().await, Fake::start().await);
    let routes = vec![("", vec![others.address]), ("mesos", vec![mesos.address])];
    let both = Forwarder::new(routes, &[]).unwrap();
    ask(&both, "leader.Mesos.", Transport::Udp).await;
    let asked = |fake: &Fake| fake.asked.load(Ordering::Relaxed);
    assert_eq!((asked(&mesos), asked(&others)), (1, 0));
    ask(&both, "xmesos.", Transport::Udp).await;
    assert_eq!((asked(&mesos), asked(&others)), (1, 1));

    let only = Forwarder::new(vec![("mesos", vec![mesos.address])], &[]).unwrap();
    let mut request = Message::new(1, MessageType::Query, OpCode::Query);
    request.add_query(Query::query(Name::from_ascii("example.com.").unwrap(), RecordType::A));
    assert!(!only.takes(&request.to_vec().unwrap()));
}

#[tokio::test]
async fn nothing_is_forwarded_to_ourselves() {
    let own: SocketAddr = "198.51.100.1:53".parse().unwrap();
    let other: SocketAddr = "10.0.0.2:53".parse().unwrap();
    assert_eq!(without_ourselves(&[own, other, other], &[own]), [other]);
    let everywhere: SocketAddr = "0.0.0.0:53".parse().unwrap();
    assert_eq!(without_ourselves(&["127.0.0.1:53".parse().unwrap(), other], &[everywhere]), [other]);
    let error = Forwarder::new(vec![("", vec![own])], &[own]).err().unwrap().to_string();
    assert!(error.contains("198.51.100.1:53"), "{error}");
    assert!(matches!(Forwarder::new(vec![("", vec![])], &[]), Err(Error::NoUpstream)));
}
