//! The forwarder: questions for names in none of our zones go to upstreams, for clients that have no
//! other resolver.
//!
//! What belongs here: routes, limits, and the way of a question. `resolution` (pure) follows aliases, those
//! that lead to our own names in our own zones; `route` asks the upstreams of a name, each by `exchange`;
//! `shares` (pure) bounds the questions under way. Answers are kept in hickory's cache, which is asked before
//! any limit counts. Each question is a task of its own, so that an upstream that does not answer delays no
//! other question.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{DnsResponse, Edns, Message, Query, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{ResponseCache, TtlConfig};
use tokio::runtime::Handle;

use super::metrics::{DnsMetrics, ForwardResult};
use super::protocol::message::{MAX_UDP_PAYLOAD, ResponseKind, Transport, limit, respond};
use super::protocol::record::encode_origin;
use super::protocol::wire;
use super::usage::UsageRegistry;
use super::zones::catalog::Catalog;
use crate::dataplane::host::resolv::Nameservers;
use resolution::{Outcome, Resolution, Step};
use route::ForwardRoute;
use shares::Shares;

mod exchange;
mod resolution;
mod route;
mod settings;
mod shares;
mod tally;

pub use exchange::{Failure, ask};
pub use settings::{Forward, Mesos, Upstream};
pub use shares::Client;
pub use tally::Tally;

/// Longest time for a question, all attempts together. Stub resolvers give up after 5 s (resolv.conf(5)).
const DEADLINE: Duration = Duration::from_millis(4500);

/// Octets of the longest answer that is kept. The owner of a domain decides about their length.
const MAX_KEPT: usize = 4096;

/// Answers that are kept.
const CACHED: u64 = 10_000;

/// Reasons why nothing can be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no upstream is known: /etc/resolv.conf names no nameserver that can be used; list upstreams by address"
    )]
    NoUpstream,
    #[error("every upstream is this server itself ({0}); list other upstreams by address")]
    OnlyOurselves(String),
}

/// Sends questions that the catalog does not answer to upstreams. Copies share cache and limits.
#[derive(Clone)]
pub struct Forwarder {
    routes: Arc<Vec<ForwardRoute>>,
    cache: ResponseCache,
    shares: Arc<Mutex<Shares>>,
    /// Questions that were not asked because of the limits.
    turned_away: Arc<Tally>,
    metrics: Arc<DnsMetrics>,
    runtime: Handle,
}

/// A query that is being forwarded.
struct Question {
    request: Message,
    transport: Transport,
    /// The zones in which aliases may end.
    catalog: Arc<Catalog>,
}

/// A place among the questions under way, which is free again when this is dropped.
struct Place {
    shares: Arc<Mutex<Shares>>,
    client: Client,
    route: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.release(self.client, self.route);
    }
}

impl Forwarder {
    /// A forwarder for `routes`: origins (an empty one stands for all names) with their upstreams. Upstreams
    /// at `listeners` are this server itself and left out, since it would ask itself for ever. Must be
    /// called in a runtime, which does the work.
    ///
    /// # Errors
    /// When a route is left without any upstream.
    pub fn new(routes: Vec<(&str, Vec<SocketAddr>)>, listeners: &[SocketAddr]) -> Result<Self, Error> {
        let mut made = Vec::new();
        for (origin, upstreams) in routes {
            let usable = without_ourselves(&upstreams, listeners);
            if upstreams.is_empty() {
                return Err(Error::NoUpstream);
            }
            if usable.is_empty() {
                return Err(Error::OnlyOurselves(list(&upstreams)));
            }
            // Compared on the wire, where case and escapes of the text play no part.
            let origin = encode_origin(origin).unwrap_or_default();
            made.push(ForwardRoute::new(origin, usable));
        }
        // The first route that matches is taken, so that the longest origin comes first.
        made.sort_by_key(|route| std::cmp::Reverse(route.origin.len()));
        Ok(Self {
            shares: Arc::new(Mutex::new(Shares::new(made.len()))),
            routes: Arc::new(made),
            cache: ResponseCache::new(CACHED, TtlConfig::default()),
            turned_away: Arc::default(),
            metrics: Arc::default(),
            runtime: Handle::current(),
        })
    }

    /// Counts into `metrics` from now on.
    #[must_use]
    pub fn counting(self, metrics: Arc<DnsMetrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Makes the use of the places for questions known.
    pub fn announce(&self, registry: &UsageRegistry) {
        registry.add("forwarded questions".to_owned(), &self.shares);
    }

    /// Returns true if the question of a message has a route.
    pub fn takes(&self, packet: &[u8]) -> bool {
        self.route(packet).is_some()
    }

    /// The route of a message's question, with its number.
    fn route(&self, packet: &[u8]) -> Option<(usize, &ForwardRoute)> {
        let header = wire::MessageHeader::read(packet)?;
        let query = wire::Query::read(header, packet)?;
        self.routes.iter().enumerate().find(|(_, route)| query.name.is_in(&route.origin))
    }

    /// Answers in a task of its own, which calls `reply` with the octets. It is not called if hickory cannot
    /// read the message.
    pub fn spawn<F>(
        &self,
        packet: &[u8],
        (client, transport): (IpAddr, Transport),
        catalog: &Arc<Catalog>,
        reply: impl FnOnce(Vec<u8>) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let Ok(request) = Message::from_vec(packet) else { return };
        let Some(query) = request.queries.first().cloned() else { return };
        let kind = u16::from(query.query_type());
        let started = Instant::now();
        let question = Question { request, transport, catalog: Arc::clone(catalog) };
        let mut resolution = Resolution::new(query);
        // What is in the cache or in our own zones is answered whatever the limits say.
        let outcome = match self.advance(&mut resolution, &question) {
            Step::Done(outcome) => Ok((outcome, ForwardResult::Cached)),
            Step::Ask(query) => match self.place(client, &query) {
                Some(place) => Err((place, query)),
                // The client gets SERVFAIL at once rather than no answer after seconds.
                None => Ok((Outcome::failure(ResponseCode::ServFail), ForwardResult::Limited)),
            },
        };
        let this = self.clone();
        self.runtime.spawn(async move {
            let (outcome, result) = match outcome {
                Ok(outcome) => outcome,
                Err((_place, query)) => {
                    // All attempts together may take longer than a client waits.
                    let asked = tokio::time::timeout(DEADLINE, this.ask(resolution, query, &question));
                    let asked = asked.await.unwrap_or_else(|_| Outcome::failure(ResponseCode::ServFail));
                    (asked, ForwardResult::Upstream)
                }
            };
            this.metrics.forward(result, kind, u16::from(outcome.code), started.elapsed());
            if let Some(octets) = question.encode(outcome) {
                reply(octets).await;
            }
        });
    }

    /// Takes a place among the questions under way, if the client and the route have a share left.
    fn place(&self, client: IpAddr, query: &Query) -> Option<Place> {
        let (route, _) = self.route(&exchange::packet(query)?)?;
        let client = Client::from(client);
        let (is_free, under_way) = {
            let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
            (shares.take(client, route), shares.under_way())
        };
        if !is_free {
            if let Some(count) = self.turned_away.count(Instant::now()) {
                tracing::warn!(
                    count,
                    under_way,
                    limit = shares::MAX_QUESTIONS,
                    last_client = %client,
                    "too many forwarded dns questions are under way, those beyond the limit are answered with \
                     SERVFAIL; upstreams are slow, or a client asks too much"
                );
            }
            return None;
        }
        Some(Place { shares: Arc::clone(&self.shares), client, route })
    }

    /// Goes on with a question as far as our zones and the cache have its names.
    fn advance(&self, resolution: &mut Resolution, question: &Question) -> Step {
        loop {
            let step = resolution
                .step(|name, kind| at_home(&question.catalog, &Query::query(name.clone(), kind)).is_some());
            let Step::Ask(query) = step else { return step };
            let known = at_home(&question.catalog, &query).or_else(|| self.cached(&query));
            match known {
                Some(message) => resolution.answered(message),
                None => return Step::Ask(query),
            }
        }
    }

    /// Asks upstreams until a question is answered.
    async fn ask(&self, mut resolution: Resolution, mut query: Query, question: &Question) -> Outcome {
        loop {
            let packet = exchange::packet(&query);
            // An alias may lead to a name that has no route.
            let Some((_, route)) = packet.and_then(|packet| self.route(&packet)) else {
                return Outcome::failure(ResponseCode::ServFail);
            };
            match route.ask(&query).await {
                Ok(message) => {
                    self.remember(&query, message.clone());
                    resolution.answered(message);
                }
                Err(code) => {
                    tracing::debug!(name = %query.name(), %code, "no upstream answered a dns query");
                    return Outcome::failure(code);
                }
            }
            match self.advance(&mut resolution, question) {
                Step::Done(outcome) => return outcome,
                Step::Ask(next) => query = next,
            }
        }
    }

    /// Keeps what an answer says about its question, unless it is so long that it takes the room of many.
    fn remember(&self, query: &Query, mut message: Message) {
        // Only records of the names on the way are passed on, and the rest would take room in vain.
        message.additionals.clear();
        message.authorities.retain(|record| record.record_type() == RecordType::SOA);
        if message.to_vec().map_or(true, |octets| octets.len() > MAX_KEPT) {
            return;
        }
        // An alias alone is an answer that may be kept, whatever its target has.
        let result = if message.answers.is_empty() {
            match DnsResponse::from_message(message).map(DnsError::from_response) {
                Ok(Err(none)) => Err(NetError::from(none)),
                // A negative answer without an SOA must not be kept (RFC 2308 section 5).
                Ok(Ok(_)) | Err(_) => return,
            }
        } else {
            Ok(message)
        };
        self.cache.insert(query.clone(), result, Instant::now());
    }

    fn cached(&self, query: &Query) -> Option<Message> {
        match self.cache.get(query, Instant::now())? {
            Ok(message) => Some(message),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let mut message = Message::query();
                message.metadata.response_code = none.response_code;
                // The SOA tells the client for how long it may remember that there is nothing.
                message.authorities.extend(none.soa.map(|soa| (*soa).into_record_of_rdata()));
                Some(message)
            }
            Err(_) => None,
        }
    }
}

/// The answer of our own zones to a question; `None` for names in none of them.
fn at_home(catalog: &Catalog, query: &Query) -> Option<Message> {
    let mut reply = Vec::new();
    let packet = exchange::packet(query)?;
    // As over TCP: the target of an alias is taken in whole, and cut only for the client's own transport.
    match respond(catalog, &packet, Transport::Tcp, &mut reply).kind {
        ResponseKind::Answered => Message::from_vec(&reply).ok(),
        ResponseKind::Elsewhere | ResponseKind::Ignored => None,
    }
}

impl Question {
    fn encode(&self, outcome: Outcome) -> Option<Vec<u8>> {
        let mut answer = skeleton(&self.request);
        answer.metadata.response_code = outcome.code;
        answer.answers = outcome.answers;
        answer.authorities = outcome.authorities;
        encode(answer, &self.request, self.transport)
    }
}

/// A reply to `request` without any records.
fn skeleton(request: &Message) -> Message {
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.metadata.recursion_desired = request.metadata.recursion_desired;
    answer.metadata.checking_disabled = request.metadata.checking_disabled;
    answer.metadata.recursion_available = true;
    answer.queries.clone_from(&request.queries);
    answer.edns = request.edns.as_ref().map(|request| {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_PAYLOAD).set_dnssec_ok(request.flags().dnssec_ok);
        edns
    });
    answer
}

/// The octets of an answer, which is halved until it fits the transport.
fn encode(mut answer: Message, request: &Message, transport: Transport) -> Option<Vec<u8>> {
    let edns = request.edns.as_ref().map(|edns| wire::Edns {
        version: edns.version(),
        payload: edns.max_payload(),
        dnssec_ok: edns.flags().dnssec_ok,
    });
    let limit = usize::from(limit(transport, edns));
    loop {
        let octets = answer.to_vec().ok()?;
        let bare = answer.answers.is_empty() && answer.authorities.is_empty();
        if octets.len() <= limit || bare {
            return Some(octets);
        }
        // A client that sees TC asks again over TCP. Some do not, and get a part of the answer.
        answer.metadata.truncation = true;
        answer.authorities.clear();
        answer.answers.truncate(answer.answers.len() / 2);
    }
}

/// Text of a list of addresses.
fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The upstreams that are not this server, each once.
fn without_ourselves(upstreams: &[SocketAddr], listeners: &[SocketAddr]) -> Vec<SocketAddr> {
    let ours = |upstream: &SocketAddr| {
        listeners.iter().any(|listener| {
            // A server that listens on all addresses is met on those of loopback as well.
            let everywhere = listener.ip().is_unspecified() && upstream.ip().is_loopback();
            listener.port() == upstream.port() && (listener.ip() == upstream.ip() || everywhere)
        })
    };
    let mut seen = BTreeSet::new();
    upstreams.iter().filter(|upstream| !ours(upstream) && seen.insert(**upstream)).copied().collect()
}

/// The node's own upstreams, from its `resolv.conf`. The resolver behind the forwarder takes addresses
/// without a zone, so that link-local ones are left out.
pub fn system() -> Vec<SocketAddr> {
    let nameservers = Nameservers::read();
    let (link_local, usable): (Vec<_>, Vec<_>) =
        nameservers.upstreams().partition(|nameserver| nameserver.is_link_local());
    for nameserver in link_local {
        tracing::warn!(
            %nameserver,
            "link-local nameserver in resolv.conf is not used for forwarding; if it is the only one, list \
             other upstreams in dns.forward"
        );
    }
    usable.into_iter().map(|nameserver| SocketAddr::new(nameserver.address, 53)).collect()
}

#[cfg(test)]
mod tests;
