//! The forwarder: questions for names in none of our zones go to upstreams, for clients that have no
//! other resolver.
//!
//! What belongs here: which upstream is asked, and how many questions may be under way.
//! hickory's resolver does the asking: it caches, repeats, tries the next upstream, and goes to TCP for
//! answers that do not fit. Each question is a task of its own and their number is bounded, so that
//! an upstream that does not answer delays no other question.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::protocol::message::{MAX_UDP_PAYLOAD, Transport, limit};
use super::protocol::record::encode_origin;
use super::protocol::wire;
use crate::dataplane::host::resolv::Nameservers;

mod settings;

pub use settings::{Forward, Mesos, Upstream};

/// Longest time for a question, all attempts together. Stub resolvers give up after 5 s (resolv.conf(5)).
const DEADLINE: Duration = Duration::from_millis(4500);

/// Questions that may be under way at once; more are answered with SERVFAIL.
const MAX_QUESTIONS: usize = 1024;

/// Time for one attempt at one upstream.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// Attempts in addition to the first.
const ATTEMPTS: usize = 1;

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
    #[error("cannot set up a resolver for the upstreams {upstreams}: {error}")]
    Resolver { upstreams: String, error: NetError },
}

/// Sends questions that the catalog does not answer to upstreams. Copies share cache and limits.
#[derive(Clone)]
pub struct Forwarder {
    routes: Arc<Vec<ForwardRoute>>,
    questions: Arc<Semaphore>,
    runtime: Handle,
}

/// Upstreams of the names below an origin.
struct ForwardRoute {
    /// The origin on the wire, without the root.
    origin: Box<[u8]>,
    resolver: TokioResolver,
}

/// A query that is being forwarded.
struct Question {
    packet: Vec<u8>,
    transport: Transport,
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
            let resolver =
                resolver(&usable).map_err(|error| Error::Resolver { upstreams: list(&usable), error })?;
            made.push(ForwardRoute { origin, resolver });
        }
        // The first route that matches is taken, so that the longest origin comes first.
        made.sort_by_key(|route| std::cmp::Reverse(route.origin.len()));
        Ok(Self {
            routes: Arc::new(made),
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            runtime: Handle::current(),
        })
    }

    /// Returns true if the question of a message has a route.
    pub fn takes(&self, packet: &[u8]) -> bool {
        self.route(packet).is_some()
    }

    fn route(&self, packet: &[u8]) -> Option<&ForwardRoute> {
        let header = wire::MessageHeader::read(packet)?;
        let query = wire::Query::read(header, packet)?;
        self.routes.iter().find(|route| query.name.is_in(&route.origin))
    }

    /// Answers in a task of its own, which calls `reply` with the octets. It is not called if hickory cannot
    /// read the message.
    pub fn spawn<F>(
        &self,
        packet: &[u8],
        transport: Transport,
        reply: impl FnOnce(Vec<u8>) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let question = Question { packet: packet.to_vec(), transport };
        let this = self.clone();
        // Without a permit the client gets SERVFAIL at once rather than no answer after seconds.
        let permit = self.questions.clone().try_acquire_owned();
        self.runtime.spawn(async move {
            let answer = match permit {
                Ok(_permit) => this.answer(&question).await,
                Err(_) => failure(&question),
            };
            if let Some(octets) = answer {
                reply(octets).await;
            }
        });
    }

    async fn answer(&self, question: &Question) -> Option<Vec<u8>> {
        let request = Message::from_vec(&question.packet).ok()?;
        let query = request.queries.first()?;
        let route = self.route(&question.packet)?;
        let mut answer = skeleton(&request);
        let lookup = route.resolver.lookup(query.name().clone(), query.query_type());
        // The resolver's attempts add up to more than a client waits for.
        let lookup = tokio::time::timeout(DEADLINE, lookup).await;
        match lookup.unwrap_or(Err(NetError::Timeout)) {
            Ok(lookup) => answer.answers = lookup.answers().to_vec(),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                // The SOA tells the client for how long it may remember that there is nothing.
                answer.metadata.response_code = none.response_code;
                answer.authorities.extend(none.soa.map(|soa| (*soa).into_record_of_rdata()));
            }
            Err(error) => {
                tracing::debug!(name = %query.name(), %error, "no upstream answered a dns query, SERVFAIL sent");
                answer.metadata.response_code = ResponseCode::ServFail;
            }
        }
        encode(answer, &request, question.transport)
    }
}

/// SERVFAIL for a question that is not asked at all.
fn failure(question: &Question) -> Option<Vec<u8>> {
    let request = Message::from_vec(&question.packet).ok()?;
    let mut answer = skeleton(&request);
    answer.metadata.response_code = ResponseCode::ServFail;
    encode(answer, &request, question.transport)
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

/// A resolver that asks these upstreams.
fn resolver(upstreams: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let servers = upstreams.iter().map(|upstream| {
        let mut server = NameServerConfig::udp_and_tcp(upstream.ip());
        // The constructor assumes port 53.
        for connection in &mut server.connections {
            connection.port = upstream.port();
        }
        server
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let mut options = ResolverOpts::default();
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    options.cache_size = CACHED;
    // Names are complete when they come here, and the node's own /etc/hosts is not for its containers.
    options.ndots = 0;
    options.use_hosts_file = ResolveHosts::Never;
    // A stub resolver wants the whole chain of aliases.
    options.preserve_intermediates = true;
    options.try_tcp_on_error = true;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()
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
