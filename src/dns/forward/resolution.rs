//! The way of one question through answers and aliases.
//!
//! Pure. An answer may lead to another name (CNAME), which is asked next: in our own zones if it is one of
//! ours, whatever the upstream says of it. Only records of the names on this way are passed on.

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Longest chain of aliases, as long as those that public resolvers follow.
const MAX_ALIASES: usize = 12;

/// Seconds for which the names that every resolver knows may be kept.
const SPECIAL_TTL: u32 = 3600;

/// Answer that a client gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    /// The SOA of a negative answer.
    pub authorities: Vec<Record>,
}

impl Outcome {
    /// An error without any records.
    pub fn failure(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authorities: Vec::new() }
    }
}

/// The next step of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// This has to be asked next.
    Ask(Query),
    Done(Outcome),
}

/// A question, and the names that it has led to.
#[derive(Debug)]
pub struct Resolution {
    kind: RecordType,
    /// Names on the way; the last one is asked now.
    names: Vec<Name>,
    answers: Vec<Record>,
    /// The answer to the last name, until it is looked at.
    message: Option<Message>,
}

impl Resolution {
    pub fn new(query: Query) -> Self {
        Self {
            kind: query.query_type(),
            names: vec![query.name().clone()],
            answers: Vec::new(),
            message: None,
        }
    }

    /// Takes the answer to the question of the last [`Step::Ask`].
    pub fn answered(&mut self, message: Message) {
        self.message = Some(message);
    }

    /// Looks at the last answer. `is_ours` tells if a name is in our own zones.
    pub fn step(&mut self, is_ours: impl Fn(&Name, RecordType) -> bool) -> Step {
        let Some(message) = self.message.take() else { return self.ask() };
        let mut is_led_on = false;
        while let Some(name) = self.names.last().cloned() {
            let mut records = message.answers.iter().filter(|record| record.name == name);
            let wanted = |record: &&Record| self.kind == RecordType::ANY || record.record_type() == self.kind;
            let found: Vec<Record> = records.clone().filter(wanted).cloned().collect();
            if !found.is_empty() {
                self.answers.extend(found);
                return self.done(message.response_code, Vec::new());
            }
            let alias = records.find_map(|record| match &record.data {
                RData::CNAME(target) => Some((record, target.0.clone())),
                _ => None,
            });
            let Some((record, target)) = alias else { break };
            self.answers.push(record.clone());
            // A loop, or a chain that is as good as one.
            if self.names.contains(&target) || self.names.len() > MAX_ALIASES {
                return Step::Done(Outcome::failure(ResponseCode::ServFail));
            }
            let leads_home = is_ours(&target, self.kind);
            self.names.push(target);
            is_led_on = true;
            // The upstream has no say about our names.
            if leads_home {
                return self.ask();
            }
        }
        // An SOA says that the last name has nothing (RFC 2308); without one the upstream may not have looked.
        let authorities: Vec<Record> = message
            .authorities
            .into_iter()
            .filter(|record| record.record_type() == RecordType::SOA)
            .collect();
        let is_final = !authorities.is_empty() || message.metadata.response_code != ResponseCode::NoError;
        if is_led_on && !is_final {
            return self.ask();
        }
        self.done(message.metadata.response_code, authorities)
    }

    fn ask(&self) -> Step {
        let Some(name) = self.names.last() else {
            return Step::Done(Outcome::failure(ResponseCode::ServFail));
        };
        match special(name, self.kind) {
            Some(outcome) => Step::Done(outcome),
            None => Step::Ask(Query::query(name.clone(), self.kind)),
        }
    }

    fn done(&mut self, code: ResponseCode, authorities: Vec<Record>) -> Step {
        Step::Done(Outcome { code, answers: std::mem::take(&mut self.answers), authorities })
    }
}

/// Answers for names that no upstream is asked for (RFC 6761, RFC 7686).
fn special(name: &Name, kind: RecordType) -> Option<Outcome> {
    let text = name.to_ascii().to_ascii_lowercase();
    let is_in =
        |zone: &str| text.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if is_in("invalid.") || is_in("onion.") {
        return Some(Outcome::failure(ResponseCode::NXDomain));
    }
    let is_reverse = is_in("127.in-addr.arpa.");
    if !is_reverse && !is_in("localhost.") {
        return None;
    }
    let data = match (kind, is_reverse) {
        (RecordType::A, false) => Some(RData::A(A::new(127, 0, 0, 1))),
        (RecordType::AAAA, false) => Some(RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1))),
        (RecordType::PTR, true) => Name::from_ascii("localhost.").ok().map(|name| RData::PTR(PTR(name))),
        _ => None,
    };
    let record = data.map(|data| Record::from_rdata(name.clone(), SPECIAL_TTL, data));
    Some(Outcome { answers: record.into_iter().collect(), ..Outcome::failure(ResponseCode::NoError) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    /// An answer with these records, and with an SOA if `is_final`.
    fn answer(records: &[(&str, &str)], is_final: bool) -> Message {
        let record = |(owner, data): &(&str, &str)| {
            let data = match data.parse() {
                Ok(address) => RData::A(A(address)),
                Err(_) => RData::CNAME(hickory_proto::rr::rdata::CNAME(name(data))),
            };
            Record::from_rdata(name(owner), 60, data)
        };
        let mut message = Message::query();
        message.answers = records.iter().map(record).collect();
        let soa = hickory_proto::rr::rdata::SOA::new(name("ns."), name("x."), 1, 1, 1, 1, 1);
        message.authorities.extend(is_final.then(|| Record::from_rdata(name("c."), 60, RData::SOA(soa))));
        message
    }

    /// The next step after an answer to `a.c.`, where names below `ours.` are our own: what is asked next, or
    /// code and number of records.
    fn after(message: Message) -> Result<String, (ResponseCode, usize)> {
        let mut resolution = Resolution::new(Query::query(name("a.c."), RecordType::A));
        resolution.answered(message);
        match resolution.step(|name, _| name.to_ascii().ends_with(".ours.")) {
            Step::Ask(query) => Ok(query.name().to_ascii()),
            Step::Done(outcome) => Err((outcome.code, outcome.answers.len())),
        }
    }

    #[test]
    fn chains_are_followed_in_any_order_as_far_as_an_answer_goes() {
        let done = |count| Err((ResponseCode::NoError, count));
        assert_eq!(after(answer(&[("a.c.", "192.0.2.1")], false)), done(1));
        assert_eq!(after(answer(&[("b.c.", "192.0.2.1"), ("a.c.", "b.c.")], false)), done(2));
        assert_eq!(after(answer(&[("a.c.", "b.c.")], false)), Ok("b.c.".to_owned()));
        assert_eq!(after(answer(&[("a.c.", "b.c.")], true)), done(1));
        assert_eq!(after(answer(&[("x.c.", "192.0.2.1")], false)), done(0));
        assert_eq!(after(answer(&[], true)), done(0));
    }

    #[test]
    fn our_names_are_asked_at_home_whatever_the_upstream_says_of_them() {
        let spoilt = [("a.c.", "web.ours."), ("web.ours.", "203.0.113.1")];
        assert_eq!(after(answer(&spoilt, false)), Ok("web.ours.".to_owned()));
        assert_eq!(after(answer(&spoilt[..1], true)), Ok("web.ours.".to_owned()));
    }

    #[test]
    fn loops_and_endless_chains_are_servfail() {
        let failed = Err((ResponseCode::ServFail, 0));
        assert_eq!(after(answer(&[("a.c.", "a.c.")], false)), failed);
        assert_eq!(after(answer(&[("a.c.", "b.c."), ("b.c.", "A.c.")], false)), failed);
        let chain: Vec<(String, String)> =
            (0..50).map(|n| (format!("{n}.c."), format!("{}.c.", n + 1))).collect();
        let mut chain: Vec<(&str, &str)> = chain.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        chain.push(("a.c.", "0.c."));
        assert_eq!(after(answer(&chain, false)), failed);
    }

    #[test]
    fn names_that_every_resolver_knows_are_not_asked() {
        for (text, kind, code, count) in [
            ("localhost.", RecordType::A, ResponseCode::NoError, 1),
            ("x.LocalHost.", RecordType::AAAA, ResponseCode::NoError, 1),
            ("localhost.", RecordType::TXT, ResponseCode::NoError, 0),
            ("1.0.0.127.in-addr.arpa.", RecordType::PTR, ResponseCode::NoError, 1),
            ("x.invalid.", RecordType::A, ResponseCode::NXDomain, 0),
            ("x.onion.", RecordType::A, ResponseCode::NXDomain, 0),
        ] {
            let step = Resolution::new(Query::query(name(text), kind)).step(|_, _| false);
            let Step::Done(outcome) = step else { panic!("{text} is asked") };
            assert_eq!((outcome.code, outcome.answers.len()), (code, count), "{text}");
        }
        let step = Resolution::new(Query::query(name("xlocalhost."), RecordType::A)).step(|_, _| false);
        assert!(matches!(step, Step::Ask(_)));
    }
}
