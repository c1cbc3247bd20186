//! One exchange with an upstream: a question over UDP, and over TCP if the answer does not fit.
//!
//! A datagram counts as the answer only if id and question are those that were sent. Each question has a socket
//! of its own, connected to the upstream, so that a forged answer must guess id and port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::tally::Tally;
use crate::dns::protocol::message::MAX_UDP_PAYLOAD;

/// Reasons why an upstream has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It said so.
    #[error("the upstream answered {0}")]
    Code(ResponseCode),
    #[error("the upstream cannot be asked: {0}")]
    Io(#[from] io::Error),
    #[error("the upstream's answer cannot be read")]
    Garbage,
}

/// A question on the wire, with id 0 and without EDNS.
pub fn packet(query: &Query) -> Option<Vec<u8>> {
    request(query, 0).to_vec().ok()
}

fn request(query: &Query, id: u16) -> Message {
    let mut request = Message::new(id, MessageType::Query, OpCode::Query);
    request.metadata.recursion_desired = true;
    request.add_query(query.clone());
    request
}

/// Asks an upstream, again without EDNS if it does not understand that (RFC 6891 section 6.2.2). Datagrams that
/// do not belong to the question are counted in `forged`.
///
/// # Errors
/// When the upstream cannot be reached, or its answer is an error or cannot be read. Silence is left to the
/// caller's deadline.
pub async fn ask(upstream: SocketAddr, query: &Query, forged: &Tally) -> Result<Message, Failure> {
    match exchange(upstream, query, true, forged).await {
        Err(Failure::Code(ResponseCode::FormErr | ResponseCode::NotImp)) => {
            exchange(upstream, query, false, forged).await
        }
        answered => answered,
    }
}

/// Asks an upstream once.
async fn exchange(
    upstream: SocketAddr,
    query: &Query,
    with_edns: bool,
    forged: &Tally,
) -> Result<Message, Failure> {
    let mut request = request(query, rand::random());
    if with_edns {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_PAYLOAD);
        request.set_edns(edns);
    }
    let octets = request.to_vec().map_err(io::Error::other)?;
    let answer = over_udp(upstream, &request, &octets, forged).await?;
    let answer = if answer.truncation { over_tcp(upstream, &request, &octets).await? } else { answer };
    match answer.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
        code => Err(Failure::Code(code)),
    }
}

async fn over_udp(
    upstream: SocketAddr,
    request: &Message,
    octets: &[u8],
    forged: &Tally,
) -> Result<Message, Failure> {
    let any: IpAddr =
        if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // The kernel then drops what other senders send, and reports an upstream without a listener.
    socket.connect(upstream).await?;
    socket.send(octets).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        // Without the id it may be a forgery, after which the answer still comes.
        if answer.get(..2) != Some(request.id.to_be_bytes().as_slice()) {
            ignore(upstream, forged);
            continue;
        }
        match read(answer, request) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => ignore(upstream, forged),
            Err(failure) => return Err(failure),
        }
    }
}

/// Reads a message with the right id: `None` if it answers another question.
fn read(octets: &[u8], request: &Message) -> Result<Option<Message>, Failure> {
    let answer = Message::from_vec(octets).map_err(|_| Failure::Garbage)?;
    // An echo of the question is no answer.
    if answer.message_type != MessageType::Response || answer.op_code != OpCode::Query {
        return Err(Failure::Garbage);
    }
    // Errors may come without the question (RFC 1035 section 7.3 asks for it in answers).
    let is_error = !matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
    let is_ours = answer.queries == request.queries || is_error && answer.queries.is_empty();
    Ok(is_ours.then_some(answer))
}

fn ignore(upstream: SocketAddr, forged: &Tally) {
    if let Some(count) = forged.count(Instant::now()) {
        tracing::warn!(
            %upstream,
            count,
            "dns answers that match no question were ignored; a program may be forging answers of the upstream"
        );
    }
}

/// Asks again over TCP, where the whole answer has room (RFC 7766).
async fn over_tcp(upstream: SocketAddr, request: &Message, octets: &[u8]) -> Result<Message, Failure> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(octets.len()).map_err(io::Error::other)?;
    // In one write, as RFC 7766 section 8 asks for: some servers expect both together.
    stream.write_all(&[&length.to_be_bytes(), octets].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    if answer.get(..2) != Some(request.id.to_be_bytes().as_slice()) {
        return Err(Failure::Garbage);
    }
    read(&answer, request)?.ok_or(Failure::Garbage)
}
