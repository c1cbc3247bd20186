//! Names that are not ours, for clients that have no other resolver.
//!
//! hickory's resolver does the asking: it caches, repeats, tries the next upstream, and goes to TCP for
//! answers that do not fit. Each question is a task of its own and their number is bounded, so that
//! an upstream that does not answer costs nobody else anything.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::message::{MAX_UDP_PAYLOAD, Transport, limit};
use super::record::encode_origin;
use super::wire;

/// Longest time for a question, all attempts together: stub resolvers wait for 5 s.
const DEADLINE: Duration = Duration::from_millis(4500);

/// Questions that may be under way; more are answered with SERVFAIL.
const MAX_QUESTIONS: usize = 1024;

/// Time for one attempt at one upstream. Clients give up after five seconds by default.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// Attempts in addition to the first.
const ATTEMPTS: usize = 1;

const CACHED: u64 = 10_000;

/// Addresses of systemd-resolved's own listeners, which would ask us in turn.
const STUBS: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 54))];

/// `dns.forward`: where names go that are not ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub enum Forward {
    /// They are refused.
    #[default]
    Off,
    /// To the node's own upstreams, from its `resolv.conf`.
    System,
    Upstreams(Vec<Upstream>),
}

/// `dns.mesos`: who answers for the zone `mesos`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub enum Mesos {
    /// Nobody, as for any other name.
    Off,
    /// We, from the state.
    #[default]
    State,
    /// Servers of mesos-dns.
    Upstreams(Vec<Upstream>),
}

/// An upstream as it is written: `10.0.0.2` or `10.0.0.2:5353`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Upstream(pub SocketAddr);

/// Value as it is written: a word, or a list of upstreams.
enum Written {
    Word(String),
    List(Vec<Upstream>),
}

// Not derived as an untagged enum, which would not tell the entry of a list that is wrong.
impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word such as \"off\" or a list of addresses such as [\"10.0.0.2\"]")
            }

            fn visit_str<E>(self, word: &str) -> Result<Written, E> {
                Ok(Written::Word(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Written, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Written::List)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl TryFrom<Written> for Forward {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Word(word) if word == "off" => Ok(Self::Off),
            Written::Word(word) if word == "system" => Ok(Self::System),
            Written::Word(word) => Err(unknown(&word, "off, system")),
            Written::List(list) if list.is_empty() => Ok(Self::Off),
            Written::List(list) => Ok(Self::Upstreams(list)),
        }
    }
}

impl TryFrom<Written> for Mesos {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Word(word) if word == "off" => Ok(Self::Off),
            Written::Word(word) if word == "state" => Ok(Self::State),
            Written::Word(word) => Err(unknown(&word, "off, state")),
            Written::List(list) if list.is_empty() => Ok(Self::Off),
            Written::List(list) => Ok(Self::Upstreams(list)),
        }
    }
}

fn unknown(word: &str, known: &str) -> String {
    format!("{word:?} is neither {known} nor a list of addresses such as [\"10.0.0.2\"]")
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
        address.map(Self).map_err(|_| format!("{text:?} is no address such as 10.0.0.2 or 10.0.0.2:5353"))
    }
}

impl TryFrom<String> for Upstream {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Why nothing can be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no upstream is left to forward to: {0}")]
    NoUpstream(String),
    #[error("cannot set up a resolver: {0}")]
    Resolver(#[from] NetError),
}

/// Where questions go that the catalog does not answer.
#[derive(Clone)]
pub struct Forwarder {
    routes: Arc<Vec<Route>>,
    questions: Arc<Semaphore>,
    runtime: Handle,
}

/// Names below `origin` go to these upstreams.
struct Route {
    /// On the wire, without a root.
    origin: Box<[u8]>,
    resolver: TokioResolver,
}

/// One question on its way.
pub struct Question {
    packet: Vec<u8>,
    transport: Transport,
}

impl Forwarder {
    /// `routes` are origins (an empty one is everything) with their upstreams, of which those at
    /// `listeners` are ourselves and left out. Must be called in a runtime, which does the work.
    ///
    /// # Errors
    /// When a route is left without any upstream.
    pub fn new(routes: Vec<(&str, Vec<SocketAddr>)>, listeners: &[SocketAddr]) -> Result<Self, Error> {
        let mut made = Vec::new();
        for (origin, upstreams) in routes {
            let usable = without_ourselves(&upstreams, listeners);
            if usable.is_empty() {
                let all: Vec<String> = upstreams.iter().map(ToString::to_string).collect();
                let text = if all.is_empty() { "none is known".to_owned() } else { all.join(", ") };
                return Err(Error::NoUpstream(text));
            }
            let origin = encode_origin(origin).unwrap_or_default();
            made.push(Route { origin, resolver: resolver(&usable)? });
        }
        made.sort_by_key(|route| std::cmp::Reverse(route.origin.len()));
        Ok(Self {
            routes: Arc::new(made),
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            runtime: Handle::current(),
        })
    }

    /// Whether a message would be taken on.
    pub fn takes(&self, packet: &[u8]) -> bool {
        self.route(packet).is_some()
    }

    fn route(&self, packet: &[u8]) -> Option<&Route> {
        let header = wire::Header::read(packet)?;
        let query = wire::Query::read(header, packet)?;
        self.routes.iter().find(|route| query.name.is_in(&route.origin))
    }

    /// Answers in a task of its own; `reply` gets the octets, or nothing if the message is none.
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
        let lookup = tokio::time::timeout(DEADLINE, lookup).await;
        match lookup.unwrap_or(Err(NetError::Timeout)) {
            Ok(lookup) => answer.answers = lookup.answers().to_vec(),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                answer.metadata.response_code = none.response_code;
                answer.authorities.extend(none.soa.map(|soa| (*soa).into_record_of_rdata()));
            }
            Err(error) => {
                tracing::debug!(name = %query.name(), %error, "cannot forward");
                answer.metadata.response_code = ResponseCode::ServFail;
            }
        }
        encode(answer, &request, question.transport)
    }
}

fn failure(question: &Question) -> Option<Vec<u8>> {
    let request = Message::from_vec(&question.packet).ok()?;
    let mut answer = skeleton(&request);
    answer.metadata.response_code = ResponseCode::ServFail;
    encode(answer, &request, question.transport)
}

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

/// Halves the answer until it fits.
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
        answer.metadata.truncation = true;
        answer.authorities.clear();
        answer.answers.truncate(answer.answers.len() / 2);
    }
}

fn resolver(upstreams: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let servers = upstreams.iter().map(|upstream| {
        let mut server = NameServerConfig::udp_and_tcp(upstream.ip());
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
    // Names are complete when they come here, and the node's own file is not for its containers.
    options.ndots = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    options.try_tcp_on_error = true;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()
}

/// Upstreams that are not this server.
fn without_ourselves(upstreams: &[SocketAddr], listeners: &[SocketAddr]) -> Vec<SocketAddr> {
    let ours = |upstream: &SocketAddr| {
        listeners.iter().any(|listener| {
            let everywhere = listener.ip().is_unspecified() && upstream.ip().is_loopback();
            listener.port() == upstream.port() && (listener.ip() == upstream.ip() || everywhere)
        })
    };
    let mut seen = BTreeSet::new();
    upstreams.iter().filter(|upstream| !ours(upstream) && seen.insert(**upstream)).copied().collect()
}

/// The node's own upstreams: those that systemd-resolved was given, where it is the resolver.
pub fn system() -> Vec<SocketAddr> {
    let read = |path: &str| nameservers(&fs::read_to_string(path).unwrap_or_default());
    let own = read("/etc/resolv.conf");
    let found = if own.iter().all(|address| STUBS.contains(address)) && !own.is_empty() {
        read("/run/systemd/resolve/resolv.conf")
    } else {
        own
    };
    let others = found.into_iter().filter(|address| !STUBS.contains(address));
    others.map(|address| SocketAddr::new(address, 53)).collect()
}

fn nameservers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests;
