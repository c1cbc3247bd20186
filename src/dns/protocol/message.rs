//! Replies: one DNS message in, at most one out.
//!
//! Pure. Decides response codes, EDNS (RFC 6891), the order of records, and how much of an answer fits
//! the transport. Which records exist is left to [`Catalog`]. A reply is written into a buffer of the
//! caller's, straight from the records of the catalog, so that an answer costs no allocation.

use super::record::{RData, of_kind};
use super::wire::{Edns, HEADER, IN, MessageHeader, Query, kind};
use crate::cluster::dns_label::MAX_NAME;
use crate::dns::zones::AnswerWindow;
use crate::dns::zones::catalog::{Catalog, Lookup, Match, ZoneKind};

/// Largest UDP payload sent and announced, in octets, whatever the client offers: it crosses
/// every IPv6 path without fragments (DNS flag day 2020).
pub const MAX_UDP_PAYLOAD: u16 = 1232;

/// UDP payload without EDNS, in octets (RFC 1035 section 4.2.1).
const PLAIN_UDP_PAYLOAD: u16 = 512;

/// Octets of our OPT record.
const OPT: usize = 11;

/// Largest number of records in addition to an answer.
const MAX_ADDITIONAL: usize = 32;

/// Times of the SOA in seconds, for secondary servers, of which there are none (RFC 1035 section 3.3.13).
const REFRESH: u32 = 60;
const RETRY: u32 = 180;
const EXPIRE: u32 = 86_400;
/// Seconds for which a negative answer may be cached (RFC 2308): a VIP that just appeared is seen at once.
const MINIMUM: u32 = 1;

/// Priority and weight of every SRV record: all servers are equal. Weight 0 would read as a server in
/// maintenance to HAProxy's `server-template`; RFC 2782 asks for 0 only where no choice is to be made.
const SRV_PRIORITY: u16 = 0;
const SRV_WEIGHT: u16 = 1;

/// First labels of the name server and of the mailbox in the SOA; the origin follows.
const MNAME: &[u8] = b"\x02ns";
const RNAME: &[u8] = b"\x0ahostmaster";

/// Response codes (RFC 1035 section 4.1.1, RFC 6891 section 9).
pub mod code {
    pub const NO_ERROR: u16 = 0;
    pub const FORM_ERR: u16 = 1;
    pub const SERV_FAIL: u16 = 2;
    pub const NX_DOMAIN: u16 = 3;
    pub const NOT_IMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const BAD_VERS: u16 = 16;
}

/// Transport of a message, which bounds the size of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Result of answering a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// There must be no reply: the message is shorter than a header, or a response itself (two servers
    /// could answer each other for ever).
    Ignored,
    /// The reply is in the buffer.
    Answered,
    /// The name is in none of our zones; the reply in the buffer says REFUSED.
    Elsewhere,
}

/// Result of answering a message, with what is counted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub kind: ResponseKind,
    /// Zone of the name; `None` for names in none of ours.
    pub zone: Option<ZoneKind>,
    /// Type of the question; 0 if there is no question.
    pub question: u16,
    pub code: u16,
}

/// Answers one message into `reply`, without the length prefix that TCP needs.
///
/// A reply that does not fit the transport has the TC bit and those of its records that do fit.
pub fn respond(catalog: &Catalog, packet: &[u8], transport: Transport, reply: &mut Vec<u8>) -> Answer {
    reply.clear();
    let answer = |kind, code| Answer { kind, zone: None, question: 0, code };
    let Some(header) = MessageHeader::read(packet).filter(|header| !header.is_response()) else {
        return answer(ResponseKind::Ignored, 0);
    };
    // Operations other than QUERY may have other bodies, and are refused by their header alone.
    let query = Some(header).filter(|header| header.op_code() == 0).and_then(|h| Query::read(h, packet));
    let Some(query) = query else {
        let code = if header.op_code() == 0 { code::FORM_ERR } else { code::NOT_IMP };
        ReplyWriter::new(reply, header, &[]).finish(code, false, None);
        return answer(ResponseKind::Answered, code);
    };
    let answer = |kind, code| Answer { kind, zone: None, question: query.kind, code };
    // Room for our OPT record is kept from the start, because it must never be cut off.
    let limit = usize::from(limit(transport, query.edns)) - if query.edns.is_some() { OPT } else { 0 };
    let mut writer = ReplyWriter::new(reply, header, query.question);
    // Before the question is looked at, whose meaning in a later version is not known.
    if query.edns.is_some_and(|edns| edns.version > 0) {
        writer.finish(code::BAD_VERS, false, query.edns);
        return answer(ResponseKind::Answered, code::BAD_VERS);
    }
    // A transfer would give a whole zone to anyone that may ask.
    let transfer = matches!(query.kind, kind::AXFR | kind::IXFR);
    let place = Some(&query).filter(|query| query.class == IN).and_then(|query| catalog.place(&query.name));
    let Some(place) = place.filter(|_| !transfer) else {
        writer.finish(code::REFUSED, false, query.edns);
        // Neither transfers nor other classes are forwarded.
        let ours = transfer || query.class != IN;
        let kind = if ours { ResponseKind::Answered } else { ResponseKind::Elsewhere };
        return answer(kind, code::REFUSED);
    };
    let zone = AnswerWriter { place, query: &query, ttl: catalog.ttl };
    let code = zone.answer(&mut writer, limit);
    // A zone of which nothing is known yet has no authority.
    writer.finish(code, code != code::SERV_FAIL, query.edns);
    Answer { zone: Some(place.kind()), ..answer(ResponseKind::Answered, code) }
}

/// Largest number of octets that a reply may have.
pub fn limit(transport: Transport, edns: Option<Edns>) -> u16 {
    match (transport, edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => PLAIN_UDP_PAYLOAD,
        (Transport::Udp, Some(edns)) => edns.payload.clamp(PLAIN_UDP_PAYLOAD, MAX_UDP_PAYLOAD),
    }
}

/// A reply that is being written: the header is filled in at the end.
struct ReplyWriter<'r> {
    reply: &'r mut Vec<u8>,
    header: MessageHeader,
    truncated: bool,
    answers: u16,
    authorities: u16,
    additional: u16,
}

impl<'r> ReplyWriter<'r> {
    /// Starts a reply that repeats `question`, or has none if that is empty.
    fn new(reply: &'r mut Vec<u8>, header: MessageHeader, question: &[u8]) -> Self {
        reply.extend_from_slice(&header.id.to_be_bytes());
        reply.extend_from_slice(&[0; HEADER - 2]);
        reply.extend_from_slice(question);
        // The counts follow at the end, but for the one question.
        if let Some(count) = reply.get_mut(5) {
            *count = u8::from(!question.is_empty());
        }
        Self { reply, header, truncated: false, answers: 0, authorities: 0, additional: 0 }
    }

    /// Writes our OPT record, if the client has one, and the header.
    fn finish(mut self, code: u16, authoritative: bool, edns: Option<Edns>) {
        if let Some(edns) = edns {
            self.additional += 1;
            self.u8(0);
            self.u16(kind::OPT);
            self.u16(MAX_UDP_PAYLOAD);
            // OPT has the upper eight bits of the code, the header the lower four (RFC 6891 section 6.1.3).
            self.u8((code >> 4) as u8);
            self.u8(0);
            self.u16(if edns.dnssec_ok { 0x8000 } else { 0 });
            self.u16(0);
        }
        let flags = 0x8000
            | self.header.repeated()
            | u16::from(authoritative) << 10
            | u16::from(self.truncated) << 9
            | (code & 0xf);
        let counts = [self.answers, self.authorities, self.additional];
        let fields = [(2, flags)].into_iter().chain((6..).step_by(2).zip(counts));
        for (place, value) in fields {
            if let Some(room) = self.reply.get_mut(place..place + 2) {
                room.copy_from_slice(&value.to_be_bytes());
            }
        }
    }

    fn u8(&mut self, value: u8) {
        self.reply.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.reply.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.reply.extend_from_slice(&value.to_be_bytes());
    }

    fn octets(&mut self, octets: &[u8]) {
        self.reply.extend_from_slice(octets);
    }

    /// Writes a pointer to the name at `offset` in the question's name (RFC 1035 section 4.1.4).
    fn pointer(&mut self, offset: usize) {
        self.u16(0xc000 | (HEADER + offset) as u16);
    }

    /// Writes type, class, time to live, and data with its length.
    fn record(&mut self, kind: u16, ttl: u32, data: impl FnOnce(&mut Self)) {
        self.u16(kind);
        self.u16(IN);
        self.u32(ttl);
        // The length is known when the data is there.
        let start = self.reply.len();
        self.u16(0);
        data(self);
        let length = (self.reply.len() - start - 2) as u16;
        if let Some(room) = self.reply.get_mut(start..start + 2) {
            room.copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// Writes the answer to a question from the zone that its name is in.
struct AnswerWriter<'c, 'q, 'p> {
    place: Match<'c>,
    query: &'q Query<'p>,
    ttl: u32,
}

impl AnswerWriter<'_, '_, '_> {
    /// Writes the sections and returns the response code.
    fn answer(&self, writer: &mut ReplyWriter<'_>, limit: usize) -> u16 {
        let kind = Some(self.query.kind).filter(|kind| *kind != kind::ANY);
        let window = AnswerWindow { turn: writer.header.id, room: limit, kind };
        let records = match self.place.find(&self.query.name, window) {
            Lookup::NotLoaded => return code::SERV_FAIL,
            Lookup::Missing => {
                self.soa(writer, MINIMUM.min(self.ttl), self.origin());
                writer.authorities = 1;
                return code::NX_DOMAIN;
            }
            Lookup::Found(records) => records,
        };
        match self.kind(&records) {
            // The name server and the SOA are the zone's own, and in no list of records.
            kind::SOA => {
                self.soa(writer, self.ttl, 0);
                writer.answers = 1;
            }
            kind::NS => {
                writer.pointer(0);
                writer.record(kind::NS, self.ttl, |writer| {
                    writer.octets(MNAME);
                    writer.pointer(self.origin());
                });
                writer.answers = 1;
                self.additional(writer, limit, MNAME);
            }
            wanted => self.records(writer, limit, &records, wanted),
        }
        // The name exists, and has nothing of this type: an empty answer that may be cached (RFC 2308).
        if writer.answers == 0 && !writer.truncated {
            self.soa(writer, MINIMUM.min(self.ttl), self.origin());
            writer.authorities = 1;
        }
        code::NO_ERROR
    }

    /// The type to answer with. ANY gets one of the record sets that there are (RFC 8482 section 4.1).
    fn kind(&self, records: &[RData]) -> u16 {
        let apex = self.origin() == 0;
        match self.query.kind {
            kind::ANY if apex => kind::SOA,
            kind::ANY => records.first().map_or(kind::ANY, RData::kind),
            // Only the apex has these; no record is of the type ANY.
            kind::SOA | kind::NS if !apex => kind::ANY,
            kind => kind,
        }
    }

    /// Writes the records of a type, starting with another one for each message id: clients that take the
    /// first are spread over all of them.
    fn records(&self, writer: &mut ReplyWriter<'_>, limit: usize, records: &[RData], wanted: u16) {
        let records = of_kind(records, wanted);
        let first = usize::from(writer.header.id).checked_rem(records.len()).unwrap_or_default();
        let (before, from) = records.split_at_checked(first).unwrap_or((&[], records));
        for data in from.iter().chain(before) {
            let end = writer.reply.len();
            writer.pointer(0);
            self.data(writer, data);
            // What does not fit is left out, and the TC bit says so. The rest is sent all the same, because
            // some stub resolvers (musl before 1.2.4) never repeat a query over TCP.
            if writer.reply.len() > limit {
                writer.reply.truncate(end);
                writer.truncated = true;
                return;
            }
            writer.answers += 1;
        }
        // A client of SRV records needs the address of each target next. Equal targets are neighbours.
        let mut last: Option<&[u8]> = None;
        for data in records.iter().take(MAX_ADDITIONAL) {
            if let RData::Srv { target, .. } = data
                && last.replace(target) != Some(target)
            {
                self.additional(writer, limit, target);
            }
        }
    }

    /// Adds the addresses of a name that an answer leads to, as far as there is room.
    fn additional(&self, writer: &mut ReplyWriter<'_>, limit: usize, name: &[u8]) {
        let window = AnswerWindow { turn: writer.header.id, room: limit, kind: None };
        let Lookup::Found(records) = self.place.find_relative(name, window) else { return };
        let addresses = records.iter().filter(|data| matches!(data, RData::A(_) | RData::Aaaa(_)));
        for data in addresses.take(MAX_ADDITIONAL) {
            // Additional records are a courtesy: what does not fit is left out without the TC bit.
            let end = writer.reply.len();
            writer.octets(name);
            writer.pointer(self.origin());
            self.data(writer, data);
            if writer.reply.len() > limit {
                writer.reply.truncate(end);
                return;
            }
            writer.additional += 1;
        }
    }

    /// Writes a record without its owner.
    fn data(&self, writer: &mut ReplyWriter<'_>, data: &RData) {
        match data {
            RData::A(address) => writer.record(kind::A, self.ttl, |writer| writer.octets(&address.octets())),
            RData::Aaaa(address) => {
                writer.record(kind::AAAA, self.ttl, |writer| writer.octets(&address.octets()));
            }
            RData::Srv { port, target } => writer.record(kind::SRV, self.ttl, |writer| {
                writer.u16(SRV_PRIORITY);
                writer.u16(SRV_WEIGHT);
                writer.u16(*port);
                // Names in SRV records are not compressed (RFC 2782).
                let (_, origin) = self.query.name.split_at_end(self.place.depth);
                // Where it does not fit below a long alias, the root alone says: no service (RFC 2782).
                if target.len() + origin.len() < MAX_NAME {
                    writer.octets(target);
                    writer.octets(origin);
                }
                writer.u8(0);
            }),
            RData::Ptr(name) => writer.record(kind::PTR, self.ttl, |writer| {
                writer.octets(name);
                writer.u8(0);
            }),
        }
    }

    /// Writes the SOA; its owner starts at `owner` in the name of the question. Negative answers have it
    /// with a TTL of their own (RFC 2308 section 3).
    fn soa(&self, writer: &mut ReplyWriter<'_>, ttl: u32, owner: usize) {
        writer.pointer(owner);
        writer.record(kind::SOA, ttl, |writer| {
            for name in [MNAME, RNAME] {
                writer.octets(name);
                writer.pointer(self.origin());
            }
            for value in [self.place.serial(), REFRESH, RETRY, EXPIRE, MINIMUM] {
                writer.u32(value);
            }
        });
    }

    /// Offset of the origin in the name of the question.
    fn origin(&self) -> usize {
        self.query.name.split_at_end(self.place.depth).0.len()
    }
}

#[cfg(test)]
mod tests;
