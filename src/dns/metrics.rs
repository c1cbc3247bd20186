//! Metrics of the DNS server: questions by zone, type and code, and the time of answers.

use std::fmt;
use std::time::Duration;

use super::protocol::message::{Answer, code};
use super::protocol::wire::kind;
use super::zones::catalog::ZoneKind;
use crate::metrics::histogram::Histogram;
use crate::metrics::{Collect, Counter, Family, Writer};

/// Bounds of the time to an answer from our own zones, in seconds.
const OWN_BOUNDS: &[f64] =
    &[0.000_001, 0.000_002, 0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.001, 0.01];

/// Bounds of the time to an answer of an upstream, in seconds; questions are given up after 4.5 s.
const FORWARDED_BOUNDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 4.5];

const QUESTIONS: Family = Family::counter(
    "l4lbd_dns_questions",
    &["zone", "type", "code"],
    "Questions by the zone of the name, the record type and the response code. The zone is vips, reverse, dcos, \
     mesos, node, or none for names elsewhere; combinations that never came have no sample",
);
const IGNORED: Family = Family::counter(
    "l4lbd_dns_ignored",
    &["reason"],
    "Messages without an answer: reason is client if the sender is none of dns.clients, or malformed",
);
const ANSWERED: Family = Family::histogram(
    "l4lbd_dns_answer_duration_seconds",
    &[],
    "Time to make an answer from our own zones, without the network",
);
const FORWARDED: Family = Family::counter(
    "l4lbd_dns_forwarded",
    &["result"],
    "Questions for names elsewhere: result is upstream if an upstream was asked, cached if it was not needed, or \
     limited if too many were under way",
);
const FORWARDING: Family = Family::histogram(
    "l4lbd_dns_forward_duration_seconds",
    &[],
    "Time to the answer of an upstream, or until the question was given up",
);

/// Zones by their place in the counts; the last is for names in none of ours.
const ZONES: [&str; 6] = ["vips", "reverse", "dcos", "mesos", "node", "none"];

/// Record types by their place in the counts, each with its number; the last is for all others.
const TYPES: [(u16, &str); 9] = [
    (kind::A, "A"),
    (kind::AAAA, "AAAA"),
    (kind::SRV, "SRV"),
    (kind::PTR, "PTR"),
    (kind::SOA, "SOA"),
    (kind::NS, "NS"),
    (TXT, "TXT"),
    (kind::ANY, "ANY"),
    (0, "other"),
];

/// Number of the type TXT, of which no zone has a record.
const TXT: u16 = 16;

/// Response codes by their place in the counts, each with its number; the last is for all others.
const CODES: [(u16, &str); 8] = [
    (code::NO_ERROR, "NOERROR"),
    (code::FORM_ERR, "FORMERR"),
    (code::SERV_FAIL, "SERVFAIL"),
    (code::NX_DOMAIN, "NXDOMAIN"),
    (code::NOT_IMP, "NOTIMP"),
    (code::REFUSED, "REFUSED"),
    (code::BAD_VERS, "BADVERS"),
    (u16::MAX, "other"),
];

/// Way in which a question for a name elsewhere ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardResult {
    Upstream,
    Cached,
    Limited,
}

const RESULTS: [&str; 3] = ["upstream", "cached", "limited"];

/// Reason for which a message has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    Client,
    Malformed,
}

const REASONS: [&str; 2] = ["client", "malformed"];

/// Metrics of the DNS server.
#[derive(Debug)]
pub struct DnsMetrics {
    /// By zone, type and code.
    questions: [[[Counter; CODES.len()]; TYPES.len()]; ZONES.len()],
    ignored: [Counter; REASONS.len()],
    answered: Histogram,
    forwarded: [Counter; RESULTS.len()],
    forwarding: Histogram,
}

impl Default for DnsMetrics {
    fn default() -> Self {
        Self {
            questions: Default::default(),
            ignored: Default::default(),
            answered: Histogram::new(OWN_BOUNDS),
            forwarded: Default::default(),
            forwarding: Histogram::new(FORWARDED_BOUNDS),
        }
    }
}

impl DnsMetrics {
    /// Counts a question with its answer from our own zones, which took this time.
    pub fn answer(&self, answer: &Answer, took: Duration) {
        self.question(answer.zone, answer.question, answer.code);
        self.answered.observe(took);
    }

    /// Counts a question that was answered with this code.
    pub fn question(&self, zone: Option<ZoneKind>, kind: u16, code: u16) {
        // A question for a name elsewhere counts as one of the last zone.
        let zone = zone.map_or(ZONES.len() - 1, |zone| zone as usize);
        // Clients choose types, so that what is not known counts under one name: labels must not grow by
        // them.
        let place = |known: &[(u16, &str)], number| {
            known.iter().position(|(known, _)| *known == number).unwrap_or(known.len() - 1)
        };
        let counter = self.questions.get(zone).and_then(|types| types.get(place(&TYPES, kind)));
        if let Some(counter) = counter.and_then(|codes| codes.get(place(&CODES, code))) {
            counter.increment();
        }
    }

    /// Counts a message without an answer.
    pub fn ignore(&self, reason: Ignored) {
        if let Some(counter) = self.ignored.get(reason as usize) {
            counter.increment();
        }
    }

    /// Counts a question for a name elsewhere, with its type, and the code of its answer.
    pub fn forward(&self, result: ForwardResult, kind: u16, code: u16, took: Duration) {
        self.question(None, kind, code);
        if let Some(counter) = self.forwarded.get(result as usize) {
            counter.increment();
        }
        // The time of an answer from memory says nothing of the upstreams.
        if result == ForwardResult::Upstream {
            self.forwarding.observe(took);
        }
    }
}

impl Collect for DnsMetrics {
    fn collect(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        writer.family(QUESTIONS, |samples| {
            for (zone, types) in ZONES.iter().zip(&self.questions) {
                for ((_, kind), codes) in TYPES.iter().zip(types) {
                    for ((_, code), counter) in
                        // Most of these never happen, and a series of zeros costs as much as another one.
                        CODES.iter().zip(codes).filter(|(_, counter)| counter.get() > 0)
                    {
                        samples.counter([zone, kind, code], counter.get())?;
                    }
                }
            }
            Ok(())
        })?;
        writer.family(IGNORED, |samples| {
            REASONS
                .iter()
                .zip(&self.ignored)
                .try_for_each(|(reason, counter)| samples.counter([reason], counter.get()))
        })?;
        writer.family(ANSWERED, |samples| samples.histogram([], &self.answered.counts()))?;
        writer.family(FORWARDED, |samples| {
            let results = RESULTS.iter().zip(&self.forwarded);
            results.into_iter().try_for_each(|(result, counter)| samples.counter([result], counter.get()))
        })?;
        writer.family(FORWARDING, |samples| samples.histogram([], &self.forwarding.counts()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_zones_are_those_of_their_names() {
        for (zone, name) in [
            (ZoneKind::Vips, "vips"),
            (ZoneKind::Reverse, "reverse"),
            (ZoneKind::Dcos, "dcos"),
            (ZoneKind::Mesos, "mesos"),
            (ZoneKind::Node, "node"),
        ] {
            assert_eq!(ZONES[zone as usize], name);
        }
        assert_eq!(RESULTS[ForwardResult::Limited as usize], "limited");
        assert_eq!(REASONS[Ignored::Malformed as usize], "malformed");
    }
}
