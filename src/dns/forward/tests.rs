//! Upstreams that answer, are slow, or are this server itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::Instant;

use super::*;

/// An upstream that has 192.0.2.1 for every name, but for those whose first label means something.
struct Fake {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Fake {
    async fn start() -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, peer) = udp.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                if let Some(reply) = answer(&buffer[..length], false) {
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
        b"many" if !complete => {
            reply.metadata.truncation = true;
            0
        }
        b"many" => 100,
        _ => 1,
    };
    let record = |n: u8| Record::from_rdata(name.clone(), 300, RData::A(A::new(192, 0, 2, n)));
    reply.answers = (1..=addresses).map(record).collect();
    Some(reply.to_vec().unwrap())
}

async fn ask(forwarder: &Forwarder, name: &str, transport: Transport) -> Message {
    let mut request = Message::new(0x1234, MessageType::Query, OpCode::Query);
    request.metadata.recursion_desired = true;
    request.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let packet = request.to_vec().unwrap();
    assert!(forwarder.takes(&packet));
    let (send, reply) = tokio::sync::oneshot::channel();
    forwarder.spawn(&packet, transport, async move |reply: Vec<u8>| send.send(reply).unwrap());
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
async fn too_many_questions_are_servfail_at_once() {
    let fake = Fake::start().await;
    let forwarder = forwarder(&[fake.address]);
    let _all = forwarder.questions.clone().acquire_many_owned(MAX_QUESTIONS as u32).await.unwrap();
    let reply = ask(&forwarder, "www.example.com.", Transport::Udp).await;
    assert_eq!(reply.response_code, ResponseCode::ServFail);
    assert_eq!(fake.asked.load(Ordering::Relaxed), 0);
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
