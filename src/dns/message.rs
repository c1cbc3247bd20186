//! One DNS message in, at most one out: the protocol around [`Zone::answer`].
//!
//! Pure. Decides response codes, EDNS (RFC 6891) and how much of an answer fits the transport.
//! Which records exist is left to [`super::zone`], reading and writing the octets to
//! [`super::Listener`].

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::zone::{Answer, Zone};

/// Largest UDP payload sent and announced, in octets, whatever the client offers: it crosses
/// every IPv6 path without fragments (DNS flag day 2020).
pub const MAX_UDP_PAYLOAD: u16 = 1232;

/// UDP payload without EDNS, in octets (RFC 1035 section 4.2.1).
const PLAIN_UDP_PAYLOAD: u16 = 512;

const EDNS_VERSION: u8 = 0;

/// How a message travels; it bounds the size of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// The answer to one message, without the length prefix TCP wants.
///
/// `None` if it must stay unanswered: it is shorter than a header, or a response itself (two
/// servers could answer each other for ever). Whatever else the octets are, there is an answer.
/// One that does not fit the transport has the TC bit and some of its records.
pub fn respond(zone: &Zone, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let header = Header::read(&mut BinDecoder::new(packet)).ok()?;
    if header.metadata.message_type == MessageType::Response {
        return None;
    }
    // The number of questions is judged before decoding, which would reserve memory for 65535.
    let request = match header.counts.queries {
        1 => Message::from_vec(packet).ok(),
        _ => None,
    };
    let (queries, edns) = request.map(|request| (request.queries, request.edns)).unwrap_or_default();

    let mut reply = Message::response(header.metadata.id, header.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&header.metadata);
    reply.queries = queries;
    reply.edns = edns.as_ref().map(own_edns);
    reply.metadata.response_code = if header.metadata.op_code != OpCode::Query {
        ResponseCode::NotImp
    } else if edns.as_ref().is_some_and(|edns| edns.version() > EDNS_VERSION) {
        ResponseCode::BADVERS
    } else if let Some(query) = reply.queries.first() {
        let answer = zone.answer(query);
        fill(&mut reply, answer)
    } else {
        ResponseCode::FormErr
    };

    let limit = match (transport, edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => PLAIN_UDP_PAYLOAD,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_UDP_PAYLOAD, MAX_UDP_PAYLOAD),
    };
    encode(reply, usize::from(limit))
}

/// Puts the answer into its sections.
fn fill(reply: &mut Message, answer: Answer) -> ResponseCode {
    reply.metadata.authoritative = !matches!(answer, Answer::Refused | Answer::NotLoaded);
    match answer {
        Answer::Records(records) => {
            reply.answers = records;
            ResponseCode::NoError
        }
        Answer::NoData(soa) => {
            reply.authorities = vec![*soa];
            ResponseCode::NoError
        }
        Answer::NxDomain(soa) => {
            reply.authorities = vec![*soa];
            ResponseCode::NXDomain
        }
        Answer::Refused => ResponseCode::Refused,
        Answer::NotLoaded => ResponseCode::ServFail,
    }
}

/// Our OPT record: no options, and the client's DO bit (RFC 3225 section 3).
fn own_edns(request: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_version(EDNS_VERSION).set_max_payload(MAX_UDP_PAYLOAD).set_dnssec_ok(request.flags().dnssec_ok);
    edns
}

/// Encodes a reply in at most `limit` octets, halving the answer until it fits.
///
/// Part of the records stays beside the TC bit because some stub resolvers (musl before 1.2.4)
/// never repeat a query over TCP and would be left without any address.
fn encode(mut reply: Message, limit: usize) -> Option<Vec<u8>> {
    loop {
        let octets = reply.to_vec().ok()?;
        let bare = reply.answers.is_empty() && reply.authorities.is_empty();
        if octets.len() <= limit || bare {
            return Some(octets);
        }
        reply.metadata.truncation = true;
        reply.authorities.clear();
        reply.answers.truncate(reply.answers.len() / 2);
    }
}

#[cfg(test)]
mod tests;
